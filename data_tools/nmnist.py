"""Make a file of paired data from N-MNIST recordings and the MNIST images that they filmed.

    python data_tools/nmnist.py EVENTS_FOLDER IMAGES.idx LABELS.idx OUT.h5

Recording 00001.bin filmed the first image, and so on. The split is by image and depends only on
labels and seed: of each class, some images with their recordings are for the test, some are for
the static stream, a few of these have their recording in the training set, and all others are
only for the teacher.
"""

import functools
import pathlib

import convert
import numpy as np
import pairing

from ckd_ref.data.readers import read_bin, read_idx
from ckd_ref.events import FormatError, resize_frames

SENSOR_SIZE = 34, 34
CLASSES = tuple("0123456789")


def main(argv=None):
    options = parse(argv)
    with convert.one_line_errors("nmnist.py"):
        pairs = find_pairs(options)
        pools = pairing.split(pairs, CLASSES, options)
        check_complete(pairs, pools["train"] + pools["test"], options.events)
        convert.convert(options, CLASSES, SENSOR_SIZE, pairs, pools)


def parse(argv):
    parser = convert.parser(__doc__, test=50, images=20, events=2)
    parser.add_argument(
        "events",
        type=pathlib.Path,
        metavar="EVENTS_FOLDER",
        help="folder of 00001.bin (or .bs2) ..., or of one such folder per class, named by digit",
    )
    parser.add_argument(
        "images", type=pathlib.Path, metavar="IMAGES.idx", help="MNIST's images, plain or .gz"
    )
    parser.add_argument(
        "labels", type=pathlib.Path, metavar="LABELS.idx", help="MNIST's labels, plain or .gz"
    )
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    return convert.parse(parser, argv)


def find_pairs(options):
    """The pairs in MNIST's order; only those with a file have a recording."""
    images, labels = read_idx(options.images), read_idx(options.labels)
    check_images(images, labels, options)
    recordings = find_recordings(options.events, labels)
    pairs = []
    for i, label in enumerate(labels.tolist()):
        image = functools.partial(to_rgb, images[i], options.size)
        recording = None
        if i in recordings:
            recording = functools.partial(read_bin, recordings[i], SENSOR_SIZE)
        pairs.append(pairing.Pair(f"{label}/{i + 1:05d}", label, image, recording))
    return pairs


def check_images(images, labels, options):
    H, W = SENSOR_SIZE
    if images.ndim != 3 or images.shape[1] > H or images.shape[2] > W:
        raise FormatError(
            f"{options.images}: expected images (M, 28, 28), got the shape {images.shape}"
        )
    if labels.shape != images.shape[:1]:
        raise FormatError(
            f"{options.labels}: expected one label for each of {len(images)} images, "
            f"got the shape {labels.shape}; give the images and the labels of one set"
        )
    if (labels >= len(CLASSES)).any():
        i = int((labels >= len(CLASSES)).argmax())
        raise FormatError(
            f"{options.labels}: label {i} is {labels[i]}, expected 0 ... {len(CLASSES) - 1}"
        )


def find_recordings(folder, labels):
    """The path of each recording, by the position of its image: number k filmed image k - 1."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give the one that holds the recordings")
    found = {}
    for path in sorted([*folder.glob("*.b*"), *folder.glob("[0-9]/*.b*")]):
        if path.suffix not in (".bin", ".bs2") or not path.stem.isdecimal():
            continue
        i = int(path.stem) - 1
        if not 0 <= i < len(labels):
            raise FormatError(
                f"{path}: there is no image {i + 1} among {len(labels)}; "
                "give the recordings and the images of one set, training or test"
            )
        if path.parent != folder and int(path.parent.name) != labels[i]:
            raise FormatError(
                f"{path}: image {i + 1} has the label {labels[i]}, not {path.parent.name}; "
                "give the recordings and the images of one set, training or test"
            )
        if i in found:
            raise FormatError(f"{path}: {found[i]} is recording {i + 1} as well; keep one of them")
        found[i] = path
    return found


def check_complete(pairs, needed, folder):
    missing = [i + 1 for i in sorted(needed) if pairs[i].recording is None]
    if missing:
        names = pairing.shorten(f"{k:05d}" for k in missing)
        raise FormatError(
            f"{folder}: {len(missing)} of {len(needed)} recordings are missing (.bin or .bs2): "
            f"{names}; complete the folder, or give images and labels of the available recordings"
        )


def to_rgb(digit, size):
    """A grey digit as seen by the sensor, (size, size, 3) uint8.

    It is centred among 34 x 34 pixels and resized like frames. On 1,000 real pairs, mean event
    counts and digits correlate best with the digit exactly in the centre.
    """
    H, W = SENSOR_SIZE
    top = (H - digit.shape[0]) // 2
    left = (W - digit.shape[1]) // 2
    field = np.zeros((H, W, 1))
    field[top:top + digit.shape[0], left:left + digit.shape[1], 0] = digit
    grey = np.rint(resize_frames(field, size)).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)


if __name__ == "__main__":
    main()
