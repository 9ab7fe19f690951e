"""Make a file of paired data from N-Caltech101 recordings and their Caltech101 images.

    python data_tools/ncaltech101.py EVENTS_FOLDER IMAGES_FOLDER OUT.h5

airplanes/image_0001.bin filmed airplanes/image_0001.jpg, and so on: pairs are matched by the
name of the class and the number of the image. The classes are those of the recordings. The two
sets differ: N-Caltech101 has BACKGROUND_Google and no Faces; Caltech101 has both, and Faces is
left out here.
"""

import functools
import pathlib
import sys

import convert
import pairing

from ckd_ref.data.readers import read_bin
from ckd_ref.events import FormatError

SENSOR_SIZE = 180, 240

_WORDS = """
    BACKGROUND_Google 467  Faces_easy 435  Leopards 200  Motorbikes 798  accordion 55
    airplanes 800  anchor 42  ant 42  barrel 47  bass 54  beaver 46  binocular 33  bonsai 128
    brain 98  brontosaurus 43  buddha 85  butterfly 91  camera 50  cannon 43  car_side 123
    ceiling_fan 47  cellphone 59  chair 62  chandelier 107  cougar_body 47  cougar_face 69
    crab 73  crayfish 70  crocodile 50  crocodile_head 51  cup 57  dalmatian 67
    dollar_bill 52  dolphin 65  dragonfly 68  electric_guitar 75  elephant 64  emu 53
    euphonium 64  ewer 85  ferry 67  flamingo 67  flamingo_head 45  garfield 34  gerenuk 34
    gramophone 51  grand_piano 99  hawksbill 100  headphone 42  hedgehog 54  helicopter 88
    ibis 80  inline_skate 31  joshua_tree 64  kangaroo 86  ketch 114  lamp 61  laptop 81
    llama 78  lobster 41  lotus 66  mandolin 43  mayfly 40  menorah 87  metronome 32
    minaret 76  nautilus 55  octopus 35  okapi 39  pagoda 47  panda 38  pigeon 45  pizza 53
    platypus 34  pyramid 57  revolver 82  rhino 59  rooster 49  saxophone 40  schooner 63
    scissors 39  scorpion 84  sea_horse 57  snoopy 35  soccer_ball 64  stapler 45  starfish 86
    stegosaurus 59  stop_sign 64  strawberry 35  sunflower 85  tick 49  trilobite 86
    umbrella 75  watch 239  water_lilly 37  wheelchair 59  wild_cat 34  windsor_chair 56
    wrench 39  yin_yang 60
""".split()
COUNTS = dict(zip(_WORDS[::2], map(int, _WORDS[1::2]), strict=True))
"""The recordings of each class in the complete set: 8,709 in 101 classes."""


def main(argv=None):
    options = parse(argv)
    with convert.one_line_errors("ncaltech101.py"):
        classes, pairs = find_pairs(options)
        pools = pairing.split(pairs, classes, options)
        convert.convert(options, classes, SENSOR_SIZE, pairs, pools)


def parse(argv):
    parser = convert.parser(__doc__)
    events_help = "N-Caltech101: folders of image_0001.bin ..."
    images_help = "Caltech101: folders of image_0001.jpg ..."
    parser.add_argument("events", type=pathlib.Path, metavar="EVENTS_FOLDER", help=events_help)
    parser.add_argument("images", type=pathlib.Path, metavar="IMAGES_FOLDER", help=images_help)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    parser.add_argument(
        "--incomplete", action="store_true", help="convert the available pairs if some are missing"
    )
    return convert.parse(parser, argv)


def find_pairs(options):
    """The classes' names and the pairs in the order of class and number."""
    recordings = numbered_files(options.events, pairing.RECORDING_SUFFIXES)
    images = numbered_files(options.images, pairing.IMAGE_SUFFIXES)
    missing = describe_missing(recordings, images)
    if missing and not options.incomplete:
        remedy = "complete the folders, or give --incomplete to convert the available pairs"
        raise FormatError("\n  ".join(["not the complete N-Caltech101:", *missing, remedy]))
    title = "complete: 8,709 recordings in 101 classes"
    if missing:
        title = "converting the available pairs:"
    print(convert.for_terminal("\n  ".join([title, *missing])), file=sys.stderr)
    classes, pairs = [], []
    for name in sorted(recordings):
        both = sorted(set(recordings[name]) & set(images.get(name, ())))
        for k in both:
            image = functools.partial(pairing.read_square, images[name][k], options.size)
            recording = functools.partial(read_bin, recordings[name][k], SENSOR_SIZE)
            pairs.append(pairing.Pair(f"{name}/image_{k:04d}", len(classes), image, recording))
        if both:
            classes.append(name)
    if not pairs:
        raise FormatError(
            f"no recording in {options.events} has its image in {options.images}; "
            "expected the same class names and numbers"
        )
    return classes, pairs


def numbered_files(folder, suffixes):
    """The files of a data set by class and number: {class: {number: path}}."""
    folders = pairing.class_folders(folder, suffixes)
    return {name: pairing.numbered(paths, "image_") for name, paths in folders.items()}


def describe_missing(recordings, images):
    """What is missing from the complete set, as lines of text; none if it is complete."""
    absent = sorted(set(COUNTS) - set(recordings))
    lines = []
    if absent:
        lines.append(f"{len(absent)} classes without recordings: {pairing.shorten(absent)}")
    for name in sorted(recordings):
        expected = set(range(1, COUNTS.get(name, 0) + 1))
        filmed = set(recordings[name])
        pictures = set(images.get(name, ()))
        for problem, numbers in (
            ("recordings missing", expected - filmed),
            ("recordings that the set does not have", filmed - expected),
            ("images missing", (expected | filmed) - pictures),
        ):
            if numbers:
                names = pairing.shorten(f"{k:04d}" for k in sorted(numbers))
                lines.append(f"{name}: {len(numbers)} {problem}: {names}")
    return lines


if __name__ == "__main__":
    main()
