"""Make a file of paired data from CEP-DVS, recordings of CIFAR-100 in its 20 superclasses.

    python data_tools/cepdvs.py RECORDINGS_FOLDER pathFile.csv IMAGES_FOLDER OUT.h5

Recording 7.mat filmed the image named 7, and the fifth word of row 7 of pathFile.csv (rows count
from 0 after the header) is its class. Pairs are matched by these names, never by positions in a
list.
"""

import functools
import pathlib
import sys

import convert
import pairing

from ckd_ref.data.readers import read_mat
from ckd_ref.events import FormatError

CLASSES = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables
    household_electrical_devices household_furniture insects large_carnivores
    large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
    vehicles_2
""".split()

PER_CLASS = 500

BLOCK, BLOCK_TRAIN, BLOCK_TEST = 500, 250, 100
"""The baseline's split, see `split_in_blocks`."""

MAX_LIST_BYTES = 2**24
"""Longer than any list of 10,000 recordings."""


def main(argv=None):
    options = parse(argv)
    with convert.one_line_errors("cepdvs.py"):
        pairs = find_pairs(options)
        if options.authors_blocks:
            pools = split_in_blocks(pairs)
        else:
            pools = pairing.split(pairs, CLASSES, options)
        convert.convert(options, CLASSES, options.sensor_size, pairs, pools)


def parse(argv):
    parser = convert.parser(__doc__, sensor_size=(260, 346))
    parser.add_argument(
        "events", type=pathlib.Path, metavar="RECORDINGS_FOLDER", help="folder of 0.mat ..."
    )
    parser.add_argument(
        "list", type=pathlib.Path, metavar="pathFile.csv", help="the list with the classes"
    )
    parser.add_argument(
        "images", type=pathlib.Path, metavar="IMAGES_FOLDER", help="folder of images named 0 ..."
    )
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    parser.add_argument(
        "--authors-blocks",
        action="store_true",
        help="split by blocks of 500 file names as the baseline does; counts and seed are unused",
    )
    parser.add_argument(
        "--incomplete", action="store_true", help="convert the available pairs if some are missing"
    )
    return convert.parse(parser, argv)


def find_pairs(options):
    """The pairs in the order of their numbers."""
    recordings = numbered_files(options.events, (".mat",))
    images = numbered_files(options.images, pairing.IMAGE_SUFFIXES)
    labels = read_labels(options.list)
    missing = describe_missing(recordings, images, labels)
    if missing and not options.incomplete:
        remedy = "complete the folders, or give --incomplete to convert the available pairs"
        raise FormatError("\n  ".join(["not the complete CEP-DVS:", *missing, remedy]))
    title = "complete: 10,000 recordings in 20 classes"
    if missing:
        title = "converting the available pairs:"
    print(convert.for_terminal("\n  ".join([title, *missing])), file=sys.stderr)
    pairs = []
    for k in sorted(set(recordings) & set(images) & set(labels)):
        image = functools.partial(pairing.read_square, images[k], options.size)
        recording = functools.partial(read_mat, recordings[k], options.sensor_size)
        pairs.append(pairing.Pair(f"{CLASSES[labels[k]]}/{k}", labels[k], image, recording))
    return pairs


def numbered_files(folder, suffixes):
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; give the one that holds the {suffixes[0]} files"
        )
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return pairing.numbered(path for path in paths if path.suffix.lower() in suffixes)


def read_labels(path):
    """The class of each recording: {number: position in CLASSES}."""
    size = path.stat().st_size
    if size > MAX_LIST_BYTES:
        raise FormatError(
            f"{path}: expected a list of at most {MAX_LIST_BYTES} bytes, got {size}; "
            "give pathFile.csv"
        )
    try:
        rows = path.read_bytes().decode().splitlines()[1:]
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text ({error}); give pathFile.csv") from None
    labels = {}
    for number, row in enumerate(rows):
        words = row.split()
        if len(words) < 5 or words[4] not in CLASSES:
            came = repr(words[4]) if len(words) > 4 else f"{len(words)} words"
            raise FormatError(
                f"{path}, line {number + 2}: expected the fifth word to be one of the 20 classes "
                f"({pairing.shorten(CLASSES, 3)}), got {came}"
            )
        labels[number] = CLASSES.index(words[4])
    return labels


def describe_missing(recordings, images, labels):
    """What is missing from the complete set, as lines of text; none if it is complete."""
    named = set(recordings) | set(images) | set(labels)
    lines = []
    for what, found in (
        ("recordings missing", recordings),
        ("images missing", images),
        ("rows of the list missing", labels),
    ):
        missing = sorted(named - set(found))
        if missing:
            lines.append(f"{len(missing)} {what}: {pairing.shorten(missing)}")
    counts = [list(labels.values()).count(label) for label in range(len(CLASSES))]
    other = [f"{name} ({count})" for name, count in zip(CLASSES, counts) if count != PER_CLASS]
    if other:
        lines.append(
            f"{len(other)} classes have not {PER_CLASS} rows in the list: {pairing.shorten(other)}"
        )
    return lines


def split_in_blocks(pairs):
    """The pools of the baseline's code: by blocks of names, as if each block were a class.

    It sorts the recordings' file names as strings (0, 1, 10, 100, ...) and cuts that list into
    blocks of 500: the first 250 of each are for training, the next 100 for the test, and 150
    are never used. But the names are not ordered by class, so the classes are split unevenly.
    (The baseline also draws images by position in a shorter list, so that only about one pair
    in twenty shares a class; the pairs here are correct.)
    """
    order = sorted(range(len(pairs)), key=lambda i: f"{pairs[i].name.split('/')[1]}.mat")
    train, test = [], []
    for place, i in enumerate(order):
        k = place % BLOCK
        if k < BLOCK_TRAIN:
            train.append(i)
        elif k < BLOCK_TRAIN + BLOCK_TEST:
            test.append(i)
    train, test = sorted(train), sorted(test)
    return {"teacher": [], "static": train, "test": test, "train": train}


if __name__ == "__main__":
    main()
