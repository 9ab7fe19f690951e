"""Make a file of paired data from your own images and recordings.

    python data_tools/folders.py IMAGES EVENTS OUT.h5

Both folders hold one folder per class, of the same names. Images and recordings are paired by
class: any image goes with any recording of its class. If your recordings filmed your images, give
--pair name: files of equal names (up to the suffix) are one identity, which is in the test with
both or not at all.

Recordings: .bin .bs2 .npy .npz .csv .h5 .hdf5, and with the extra "readers" .aedat4 .raw.
"""

import argparse
import functools
import pathlib
import sys

import convert
import pairing
import recordings

from ckd_ref.data.readers import read_whole
from ckd_ref.events import UNITS, FormatError
from ckd_ref.run.progress import Progress

LISTS = ("train", "test")


def main(argv=None):
    options = parse(argv)
    with convert.one_line_errors("folders.py"):
        convert.check_output(options)  # before all recordings are read for the sensor's size
        images = by_stem(options.images, pairing.IMAGE_SUFFIXES)
        films = by_stem(options.events, recordings.SUFFIXES)
        refuse(describe_unmatched(images, films, options.pair), options)
        test = None
        if options.split:
            films, test = obey(read_lists(options.split), films, options)
        images, films = matched(images, films, options)
        sensor_size = options.sensor_size or find_sensor_size(films, options)
        arrange = pairs_by_name if options.pair == "name" else samples_by_class
        pairs, pools = arrange(images, films, test, sensor_size, options)
        convert.convert(options, list(films), sensor_size, pairs, pools)


def parse(argv):
    parser = convert.parser(__doc__, sensor_size="the largest coordinates, with a warning")
    parser.add_argument("images", type=pathlib.Path, metavar="IMAGES", help="a folder per class")
    parser.add_argument("events", type=pathlib.Path, metavar="EVENTS", help="a folder per class")
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    parser.add_argument(
        "--pair", choices=("class", "name"), default="class",
        help="what an image and a recording share [class]",
    )
    parser.add_argument(
        "--unit", choices=tuple(UNITS), default="us",
        help="of the times in .npy, .npz, .csv and .h5 [us]",
    )
    parser.add_argument(
        "--split", type=pathlib.Path, nargs="+", metavar="FILE",
        help="a published split of the recordings: one file with the lines train and test, each "
        "with its names below, or two files, train and test",
    )
    parser.add_argument(
        "--incomplete", action="store_true", help="leave out what has no counterpart"
    )
    options = convert.parse(parser, argv, filmed=lambda options: options.pair == "name")
    if options.split and len(options.split) > 2:
        parser.error("expected one or two files after --split")
    if options.split and options.pair == "name" and options.test_per_class:
        parser.error("expected --split or --test-per-class, not both")
    return options


# Files

def by_stem(folder, suffixes):
    """The files by class and by name without suffix, {class: {stem: path}}; none is empty."""
    found = {}
    for name, paths in pairing.class_folders(folder, suffixes).items():
        for path in paths:
            other = found.setdefault(name, {}).setdefault(path.stem, path)
            if other != path:
                raise FormatError(f"{path}: {other.name} has the same name; keep one of them")
    return found


def describe_unmatched(images, films, pair):
    """Classes, and with ``pair="name"`` files, that only one side has, as lines of text."""
    lines = []
    sides = ("recordings", images, films), ("images", films, images)
    for what, own, other in sides:
        absent = sorted(set(own) - set(other))
        if absent:
            lines.append(f"{len(absent)} classes without {what}: {pairing.shorten(absent)}")
    for name in sorted(set(images) & set(films)) if pair == "name" else ():
        for what, own, other in sides:
            alone = sorted(set(own[name]) - set(other[name]))
            if alone:
                files = pairing.shorten(own[name][stem].name for stem in alone)
                lines.append(f"{name}: {len(alone)} without {what}: {files}")
    return lines


def refuse(lines, options):
    """Refuse what cannot be paired, or say with ``--incomplete`` that it is left out."""
    if lines and not options.incomplete:
        remedy = "complete the folders, or give --incomplete to leave these out"
        raise FormatError("\n  ".join(["some files cannot be paired:", *lines, remedy]))
    if lines:
        print(convert.for_terminal("\n  ".join(["left out:", *lines])), file=sys.stderr)


def matched(images, films, options):
    """What has a counterpart of both sides, in the order of class and name."""
    kept = {}, {}
    for name in sorted(set(images) & set(films)):
        both = set(images[name]) & set(films[name])
        if options.pair == "name" and not both:
            continue
        for result, files in zip(kept, (images[name], films[name])):
            stems = both if options.pair == "name" else files
            result[name] = {stem: files[stem] for stem in sorted(stems)}
    if not kept[0]:
        raise FormatError(
            f"nothing in {options.images} has its counterpart in {options.events}; "
            "expected the same class names, and with --pair name the same file names"
        )
    return kept


def find_sensor_size(films, options):
    """The smallest (H, W) on which all recordings fit; reads every one of them."""
    calls = [(path, options.unit) for paths in films.values() for path in paths.values()]
    with (
        convert.in_processes(recordings.extent, calls, options.workers) as extents,
        Progress("sensor size", len(calls), unit="recording") as shown,
    ):
        sizes = []
        for size in extents:
            sizes.append(size)
            shown.step()
    H, W = (max(numbers) for numbers in zip(*sizes))
    print(
        f"folders.py: warning: the largest coordinates of the recordings make a sensor of {H} x "
        f"{W} pixels; if yours is larger, give --sensor-size H W",
        file=sys.stderr,
    )
    return H, W


# Published splits

def read_lists(paths):
    """The names of a split by list: {"train": {"class/stem", ...}, "test": ...}.

    A name is the first word of a line up to a tab, its last two parts without suffix:
    ``N_Caltech101/ant/image_0001.bin`` is ``ant/image_0001``.
    """
    lists = {name: set() for name in LISTS}
    for path, name in zip(paths, LISTS if len(paths) == 2 else (None,)):
        try:
            lines = read_whole(path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: expected names in UTF-8 ({error})") from None
        for number, line in enumerate(lines, 1):
            word = line.split("\t")[0].strip()
            parts = pathlib.PurePosixPath(word).parts
            if word in LISTS and len(paths) == 1:
                name = word
            elif word and (name is None or len(parts) < 2):
                expected = "a name like class/file" if name else 'the line "train" or "test"'
                raise FormatError(f"{path}, line {number}: expected {expected}, got {word!r}")
            elif word:
                stem = parts[-1]
                suffix = pathlib.PurePosixPath(stem).suffix
                if suffix.lower() in (*recordings.SUFFIXES, *pairing.IMAGE_SUFFIXES):
                    stem = stem.removesuffix(suffix)
                lists[name].add(f"{parts[-2]}/{stem}")
    both = sorted(lists["train"] & lists["test"])
    if both:
        raise FormatError(
            f"{paths[0]}: {len(both)} names are in both lists: {pairing.shorten(both)}"
        )
    if not any(lists.values()):
        raise FormatError(f"{paths[0]}: expected names of recordings to train on and to test")
    return lists


def obey(lists, films, options):
    """The recordings that are in one of the lists, and the names of those for the test."""
    names = {f"{name}/{stem}" for name, paths in films.items() for stem in paths}
    wanted = lists["train"] | lists["test"]
    absent, unlisted = sorted(wanted - names), sorted(names - wanted)
    if absent:
        text = f"{len(absent)} names of --split have no recording: {pairing.shorten(absent)}"
        refuse([text], options)
    if unlisted:
        print(
            f"left out: {len(unlisted)} recordings that --split does not name: "
            f"{pairing.shorten(unlisted)}",
            file=sys.stderr,
        )
    films = {
        name: {stem: path for stem, path in paths.items() if f"{name}/{stem}" in wanted}
        for name, paths in films.items()
    }
    return {name: paths for name, paths in films.items() if paths}, lists["test"]


# Samples and pools

def pairs_by_name(images, films, test, sensor_size, options):
    """A pair for every name, and the pools of `pairing.split`."""
    pairs = []
    for label, (name, paths) in enumerate(films.items()):
        for stem, path in paths.items():
            image = load_image(images[name][stem], options)
            recording = load_recording(path, sensor_size, options)
            pairs.append(pairing.Pair(f"{name}/{stem}", label, image, recording))
    if test is not None:
        test = [i for i, pair in enumerate(pairs) if pair.name in test]
    return pairs, pairing.split(pairs, list(films), options, test, "pairs")


def samples_by_class(images, films, test, sensor_size, options):
    """Images and then recordings, each with an identity of its own, and pools split apart."""
    pictures, takes, listed = [], [], []
    for label, (name, paths) in enumerate(images.items()):
        for path in paths.values():
            image = load_image(path, options)
            pictures.append(pairing.Pair(f"{name}/{path.name}", label, image, None))
    for label, (name, paths) in enumerate(films.items()):
        for stem, path in paths.items():
            if test is not None and f"{name}/{stem}" in test:
                listed.append(len(takes))
            recording = load_recording(path, sensor_size, options)
            takes.append(pairing.Pair(f"{name}/{path.name}", label, None, recording))
    classes = list(films)
    pools = pairing.split(pictures, classes, options)
    all_others = argparse.Namespace(**vars(options) | {"images_per_class": None})
    listed = None if test is None else listed
    filmed = pairing.split(takes, classes, all_others, listed, "recordings")
    pools["train"] = [len(pictures) + i for i in filmed["train"]]
    pools["test"] += [len(pictures) + i for i in filmed["test"]]
    return pictures + takes, pools


def load_image(path, options):
    return functools.partial(pairing.read_square, path, options.size)


def load_recording(path, sensor_size, options):
    return functools.partial(recordings.read_recording, path, sensor_size, options.unit)


if __name__ == "__main__":
    main()
