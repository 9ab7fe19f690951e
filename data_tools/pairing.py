"""Pairs of images and recordings: found by the names of their files, and dealt to pools by image identity."""

import functools
import os
import pathlib
import re
from dataclasses import dataclass

import numpy as np

from ckd_ref.events import FormatError
from ckd_ref.data.readers import read_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
RECORDING_SUFFIXES = (".bin", ".bs2")


@dataclass(frozen=True)
class Pair:
    """An image and the recording that filmed it, not loaded yet.

    Attributes
    ----------
    name : str
        What identifies the image, "class/image_0001": unique, and what the split is sorted by.
    label : int
        Position of its class.
    image : functools.partial
        Called without arguments, the image as (S, S, 3) uint8 RGB. Its function can be found by name and its
        arguments are paths, arrays, numbers and texts, so that other processes can call it.
    recording : functools.partial or None
        Alike, the recording as an array of events.
    """

    name: str
    label: int
    image: functools.partial
    recording: functools.partial | None


def class_folders(folder, suffixes):
    """The files of a data set by class: {name of the folder: sorted paths with one of the suffixes}.

    Hidden files and folders, and files of other kinds, are passed over.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give the one that holds a folder per class")
    found = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in place.iterdir()
                       if path.suffix.lower() in suffixes and not path.name.startswith("."))
        for path in (place, *files):
            try:
                path.name.encode()
            except UnicodeEncodeError:
                raise FormatError(f"{os.fsencode(path)!r}: this name is not UTF-8; rename it") from None
        found[place.name] = files
    if not any(found.values()):
        raise FormatError(f"{folder}: expected one folder per class with {', '.join(suffixes)} files, found none")
    return found


def numbered(paths, prefix=""):
    """Files by the number in their names: {number: path}; a name without one, or a number twice, is refused."""
    found = {}
    for path in paths:
        match = re.fullmatch(prefix + "([0-9]+)", path.stem)
        if not match:
            raise FormatError(f"{path}: expected a name like {prefix}0001{path.suffix}; rename it, or take it out of "
                              "the folder")
        number = int(match[1])
        if number in found:
            raise FormatError(f"{path}: {found[number].name} has the number {number} as well; keep one of them")
        found[number] = path
    return found


def read_square(path, size):
    """An image file as (size, size, 3) uint8 RGB: resized bilinearly, its proportions not kept (as the baseline)."""
    from PIL import Image

    image = Image.fromarray(read_image(path))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def shorten(names, most=10):
    """A list for a message: the first names, and how many more there are."""
    names = list(names)
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def split(pairs, classes, options):
    """Deal the pairs of each class to pools, by a seeded shuffle: a pair's image and recording never part.

    Parameters
    ----------
    pairs : sequence of Pair
        Those of a class in a fixed order, that of their names.
    classes : sequence of str
    options : namespace
        ``test_per_class`` (None: what remains of 90 %, rounded, at least one), ``images_per_class`` (None: all others),
        ``events_per_class`` (None: all of these) and ``seed``. The test pool is dealt first, so the other counts do not
        change it.

    Returns
    -------
    pools : dict of sorted lists of positions in `pairs`
        ``test``, ``static``, ``teacher`` (seen by the teacher alone) and ``train``, the part of ``static`` whose
        recordings are for training.

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
        test = options.test_per_class or max(len(own) - round(0.9 * len(own)), 1)
        images = options.images_per_class or max(len(own) - test, 1)
        if test + images > len(own):
            raise FormatError(f"class {name}: expected at least {test + images} images ({test} test, {images} static), "
                              f"got {len(own)}; add some, leave the class out, or lower --test-per-class or "
                              "--images-per-class")
        order = np.random.default_rng([options.seed, label]).permutation(own)
        pools["test"].extend(order[:test])
        pools["static"].extend(order[test:test + images])
        pools["train"].extend(order[test:test + images][:options.events_per_class])
        pools["teacher"].extend(order[test + images:])
    return {pool: sorted(map(int, positions)) for pool, positions in pools.items()}
