"""Make a file of paired data from any images: a simulated event camera films them.

    python data_tools/film.py IMAGES_FOLDER OUT.h5

IMAGES_FOLDER holds one folder of .jpg or .png files per class. Of each class, a tenth is filmed for the test; all other
images are the static stream's, and a few of these are filmed for training. Every film is drawn from the seed and the
image's name alone.
"""

import functools
import os
import pathlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")          # before numpy is loaded: the same bits in every process

import numpy as np

import convert
import pairing
from ckd_ref.data.camera import record, rgb_to_luminance
from ckd_ref.events import FormatError
from ckd_ref.data.readers import read_image


def main(argv=None):
    options = parse(argv)
    with convert.one_line_errors("film.py"):
        classes, pairs = find_pairs(options)
        convert.convert(options, classes, options.sensor_size, pairs, pairing.split(pairs, classes, options))


def parse(argv):
    parser = convert.parser(__doc__, events=5, sensor_size=(180, 240))
    parser.add_argument("images", type=pathlib.Path, metavar="IMAGES_FOLDER", help="with one folder per class")
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    parser.add_argument("--leave-out", nargs="+", default=(), metavar="CLASS", help="folders to pass over")
    return convert.parse(parser, argv)


def find_pairs(options):
    """The classes' names, and a pair for every image in the order of class and file name."""
    folders = pairing.class_folders(options.images, pairing.IMAGE_SUFFIXES)
    unknown = set(options.leave_out) - set(folders)
    if unknown:
        raise FormatError(f"{options.images}: there is no folder {pairing.shorten(sorted(unknown))} to leave out")
    classes = [name for name in folders if name not in options.leave_out]
    pairs = []
    for label, name in enumerate(classes):
        for path in folders[name]:
            identity = f"{name}/{path.name}"
            pairs.append(pairing.Pair(identity, label, functools.partial(pairing.read_square, path, options.size),
                                      functools.partial(film, path, identity, options.sensor_size, options.seed)))
    return classes, pairs


def film(path, name, sensor_size, seed):
    """The events of an image as large as fits on the sensor, which N-Caltech101 shows it as well."""
    luminance = rgb_to_luminance(read_image(path) / np.float32(255))            # (h, w)
    scale = min(n / pixels for n, pixels in zip(sensor_size, luminance.shape))
    try:
        return record(luminance, sensor_size, np.random.default_rng([seed, *name.encode()]), scale=scale)
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None


if __name__ == "__main__":
    main()
