"""Pairs of images and recordings: matched by file name, split into pools by image identity."""

import functools
import os
import pathlib
import re
from dataclasses import dataclass

import numpy as np

from ckd_ref.data.errors import printable
from ckd_ref.data.readers import read_image
from ckd_ref.events import FormatError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
RECORDING_SUFFIXES = (".bin", ".bs2")


@dataclass(frozen=True)
class Pair:
    """An image and the recording that filmed it, not loaded yet.

    Attributes
    ----------
    name : str
        Unique name of the image, "class/image_0001", by which the split is sorted.
    label : int
        Position of its class.
    image : functools.partial or None
        Loads the image as (S, S, 3) uint8 RGB. It is picklable for other processes: a module's
        function with paths, arrays, numbers and strings as arguments.
    recording : functools.partial or None
        Loads the recording as an array of events, likewise. A pair that has only one of the two
        is not a pair but a sample of the class.
    """

    name: str
    label: int
    image: functools.partial | None
    recording: functools.partial | None


def class_folders(folder, suffixes):
    """The files of a data set by class: {name of the folder: sorted paths with a suffix}.

    Hidden files and folders, and files with other suffixes, are ignored.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; give the one that holds a folder per class"
        )
    found = {}
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for place in filter(pathlib.Path.is_dir, visible):
        files = sorted(
            path
            for path in place.iterdir()
            if path.suffix.lower() in suffixes and not path.name.startswith(".")
        )
        for path in (place, *files):
            try:
                path.name.encode()
            except UnicodeEncodeError:
                raise FormatError(
                    f"{os.fsencode(path)!r}: this name is not UTF-8; rename it"
                ) from None
        found[place.name] = files
    if not any(found.values()):
        raise FormatError(
            f"{folder}: expected one folder per class with {', '.join(suffixes)} files, found none"
        )
    return found


def numbered(paths, prefix=""):
    """Files by the number in their names, {number: path}; each has exactly one, all different."""
    found = {}
    for path in paths:
        match = re.fullmatch(prefix + "([0-9]+)", path.stem)
        if not match:
            raise FormatError(
                f"{path}: expected a name like {prefix}0001{path.suffix}; "
                "rename it, or take it out of the folder"
            )
        number = int(match[1])
        if number in found:
            raise FormatError(
                f"{path}: {found[number].name} has the number {number} as well; keep one of them"
            )
        found[number] = path
    return found


def read_square(path, size):
    """An image file as (size, size, 3) uint8 RGB, resized bilinearly.

    Proportions are not kept, as in the baseline.
    """
    from PIL import Image

    image = Image.fromarray(read_image(path))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def shorten(names, most=10):
    """A list for a message: the first names, and the number of the others."""
    names = list(names)
    shown = ", ".join(map(printable, names[:most]))
    if len(names) > most:
        shown += f" and {len(names) - most} more"
    return shown


def split(pairs, classes, options, test=None, what="images"):
    """Split the pairs of each class into pools by a seeded shuffle.

    An image and its recording always stay together.

    Parameters
    ----------
    pairs : sequence of Pair
        In a fixed order within each class, that of their names.
    classes : sequence of str
    options : namespace
        ``test_per_class`` (None: the rest of 90 %, rounded, at least one),
        ``images_per_class`` (None: all others), ``events_per_class`` (None: all of these) and
        ``seed``. The test pool is drawn first, so the other counts do not change it.
    test : collection of positions in `pairs`, optional
        The test pool of a published split; instead of drawing one.
    what : str
        What the pairs are, for messages.

    Returns
    -------
    pools : dict of sorted lists of positions in `pairs`
        ``test``, ``static``, ``teacher`` (seen only by the teacher) and ``train``, the part of
        ``static`` whose recordings are for training.

    Raises
    ------
    FormatError
        A class with too few pairs.
    """
    pools = {"teacher": [], "static": [], "test": [], "train": []}
    members = [[] for _ in classes]
    for i, pair in enumerate(pairs):
        members[pair.label].append(i)
    for label, (name, own) in enumerate(zip(classes, members)):
        order = np.random.default_rng([options.seed, label]).permutation(own)
        if test is None:
            tests = options.test_per_class or max(len(own) - round(0.9 * len(own)), 1)
        else:
            listed = np.isin(order, list(test))
            order = np.concatenate([order[listed], order[~listed]])
            tests = max(int(listed.sum()), 1)
            if not listed.any():
                raise FormatError(
                    f"class {name}: expected at least one of its names in the list for the test, "
                    "got none; leave the class out"
                )
        images = options.images_per_class or max(len(own) - tests, 1)
        if tests + images > len(own):
            raise FormatError(
                f"class {name}: expected at least {tests + images} {what} "
                f"({tests} test, {images} static), got {len(own)}; "
                "add some, leave the class out, or lower --test-per-class or --images-per-class"
            )
        pools["test"].extend(order[:tests])
        pools["static"].extend(order[tests:tests + images])
        pools["train"].extend(order[tests:tests + images][:options.events_per_class])
        pools["teacher"].extend(order[tests + images:])
    return {pool: sorted(map(int, positions)) for pool, positions in pools.items()}
