"""Make a file of paired data from any images: a simulated event camera films them.

    python data_tools/film.py IMAGES_FOLDER OUT.h5

IMAGES_FOLDER holds one folder of .jpg or .png files per class. Of each class, a tenth is filmed
for the test; all other images are for the static stream, and a few of these are filmed for
training. A film depends only on the seed and the image's name.
"""

import functools
import os
import pathlib

# Set before numpy is imported, so that every process computes bit-identical films.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import convert
import numpy as np
import pairing

from ckd_ref.data.camera import record, rgb_to_luminance
from ckd_ref.data.readers import read_image
from ckd_ref.events import FormatError


def main(argv=None):
    options = parse(argv)
    with convert.one_line_errors("film.py"):
        classes, pairs = find_pairs(options)
        pools = pairing.split(pairs, classes, options)
        convert.convert(options, classes, options.sensor_size, pairs, pools)


def parse(argv):
    parser = convert.parser(__doc__, events=5, sensor_size=(180, 240))
    parser.add_argument(
        "images", type=pathlib.Path, metavar="IMAGES_FOLDER", help="with one folder per class"
    )
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    parser.add_argument(
        "--leave-out", nargs="+", default=(), metavar="CLASS", help="folders to ignore"
    )
    return convert.parse(parser, argv)


def find_pairs(options):
    """The classes' names, and a pair for every image in the order of class and file name."""
    folders = pairing.class_folders(options.images, pairing.IMAGE_SUFFIXES)
    unknown = set(options.leave_out) - set(folders)
    if unknown:
        raise FormatError(
            f"{options.images}: there is no folder {pairing.shorten(sorted(unknown))} to leave out"
        )
    classes = [name for name in folders if name not in options.leave_out]
    pairs = []
    for label, name in enumerate(classes):
        for path in folders[name]:
            identity = f"{name}/{path.name}"
            image = functools.partial(pairing.read_square, path, options.size)
            seed = options.seed
            recording = functools.partial(film, path, identity, options.sensor_size, seed)
            pairs.append(pairing.Pair(identity, label, image, recording))
    return classes, pairs


def film(path, name, sensor_size, seed):
    """The events of an image scaled to fit on the sensor, as in N-Caltech101."""
    luminance = rgb_to_luminance(read_image(path) / np.float32(255))  # (h, w)
    scale = min(n / pixels for n, pixels in zip(sensor_size, luminance.shape))
    rng = np.random.default_rng([seed, *name.encode()])
    try:
        return record(luminance, sensor_size, rng, scale=scale)
    except ValueError as error:
        raise FormatError(f"{path}: {error}") from None


if __name__ == "__main__":
    main()
