"""Make a file of paired data from N-Caltech101 recordings and the Caltech101 images that they filmed.

    python data_tools/ncaltech101.py EVENTS_FOLDER IMAGES_FOLDER OUT.h5

airplanes/image_0001.bin filmed airplanes/image_0001.jpg, and so on: pairs are found by the name of the class and the
number of the image. The classes are those of the recordings. The two sets differ: N-Caltech101 has BACKGROUND_Google
and no Faces; Caltech101 has both, and Faces is left out here.
"""

import functools
import pathlib
import sys

import convert
import pairing
from ckd_ref.events import FormatError
from ckd_ref.data.readers import read_bin

SENSOR_SIZE = 180, 240

COUNTS = dict(zip("""
    BACKGROUND_Google Faces_easy Leopards Motorbikes accordion airplanes anchor ant barrel bass beaver binocular bonsai
    brain brontosaurus buddha butterfly camera cannon car_side ceiling_fan cellphone chair chandelier cougar_body
    cougar_face crab crayfish crocodile crocodile_head cup dalmatian dollar_bill dolphin dragonfly electric_guitar
    elephant emu euphonium ewer ferry flamingo flamingo_head garfield gerenuk gramophone grand_piano hawksbill headphone
    hedgehog helicopter ibis inline_skate joshua_tree kangaroo ketch lamp laptop llama lobster lotus mandolin mayfly
    menorah metronome minaret nautilus octopus okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster
    saxophone schooner scissors scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign strawberry
    sunflower tick trilobite umbrella watch water_lilly wheelchair wild_cat windsor_chair wrench yin_yang""".split(), (
    467, 435, 200, 798, 55, 800, 42, 42, 47, 54, 46, 33, 128, 98, 43, 85, 91, 50, 43, 123, 47, 59, 62, 107, 47, 69, 73,
    70, 50, 51, 57, 67, 52, 65, 68, 75, 64, 53, 64, 85, 67, 67, 45, 34, 34, 51, 99, 100, 42, 54, 88, 80, 31, 64, 86,
    114, 61, 81, 78, 41, 66, 43, 40, 87, 32, 76, 55, 35, 39, 47, 38, 45, 53, 34, 57, 82, 59, 49, 40, 63, 39, 84, 57, 35,
    64, 45, 86, 59, 64, 35, 85, 49, 86, 75, 239, 37, 59, 34, 56, 39, 60), strict=True))
"""The recordings of each class in the complete set: 8,709 in 101 classes."""


def main(argv=None):
    options = parse(argv)
    with convert.one_line_errors("ncaltech101.py"):
        classes, pairs = find_pairs(options)
        convert.convert(options, classes, SENSOR_SIZE, pairs, pairing.split(pairs, classes, options))


def parse(argv):
    parser = convert.parser(__doc__)
    parser.add_argument("events", type=pathlib.Path, metavar="EVENTS_FOLDER",
                        help="N-Caltech101: folders of image_0001.bin ...")
    parser.add_argument("images", type=pathlib.Path, metavar="IMAGES_FOLDER",
                        help="Caltech101: folders of image_0001.jpg ...")
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    parser.add_argument("--incomplete", action="store_true", help="convert the pairs at hand if some are missing")
    return convert.parse(parser, argv)


def find_pairs(options):
    """The classes' names and the pairs in the order of class and number."""
    recordings, images = ({name: pairing.numbered(paths, "image_") for name, paths in
                           pairing.class_folders(folder, suffixes).items()}
                          for folder, suffixes in ((options.events, pairing.RECORDING_SUFFIXES),
                                                   (options.images, pairing.IMAGE_SUFFIXES)))
    missing = describe_missing(recordings, images)
    if missing and not options.incomplete:
        raise FormatError("\n  ".join(["not the complete N-Caltech101:", *missing,
                                       "complete the folders, or give --incomplete to convert the pairs at hand"]))
    print("\n  ".join(["complete: 8,709 recordings in 101 classes" if not missing else
                       "converting the pairs at hand:", *missing]), file=sys.stderr)
    classes, pairs = [], []
    for name in sorted(recordings):
        both = sorted(set(recordings[name]) & set(images.get(name, ())))
        pairs += [pairing.Pair(f"{name}/image_{k:04d}", len(classes),
                               functools.partial(pairing.read_square, images[name][k], options.size),
                               functools.partial(read_bin, recordings[name][k], SENSOR_SIZE)) for k in both]
        classes += [name] if both else []
    if not pairs:
        raise FormatError(f"no recording in {options.events} has its image in {options.images}; expected the same "
                          "class names and numbers")
    return classes, pairs


def describe_missing(recordings, images):
    """What keeps the folders from being the complete set: a list of texts, empty if nothing does."""
    absent = sorted(set(COUNTS) - set(recordings))
    lines = [f"{len(absent)} classes without recordings: {pairing.shorten(absent)}"] if absent else []
    for name in sorted(recordings):
        expected = set(range(1, COUNTS.get(name, 0) + 1))
        filmed, pictures = set(recordings[name]), set(images.get(name, ()))
        lines += [f"{name}: {len(numbers)} {problem}: " + pairing.shorten(f"{k:04d}" for k in sorted(numbers))
                  for problem, numbers in (("recordings missing", expected - filmed),
                                           ("recordings that the set does not have", filmed - expected),
                                           ("images missing", (expected | filmed) - pictures)) if numbers]
    return lines


if __name__ == "__main__":
    main()
