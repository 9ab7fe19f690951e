"""Make a file of paired data from N-MNIST recordings and the MNIST images that they filmed.

    python data_tools/nmnist.py EVENTS_FOLDER IMAGES.idx LABELS.idx OUT.h5

Recording 00001.bin filmed the first image, and so on. The split is by image and depends on labels and seed only: of
each class, some images with their recordings are for the test, some are the static stream's, a few of these have
their recording in the training set, and all others are for the teacher alone.
"""

import argparse
import pathlib
import sys

import numpy as np
from tqdm import tqdm

from ckd_ref.data import PairedWriter
from ckd_ref.events import FormatError, resize_frames
from ckd_ref.readers import read_bin, read_idx

SENSOR_SIZE = 34, 34
CLASSES = tuple("0123456789")


def main(argv=None):
    options = parse(argv)
    try:
        convert(options)
    except (FormatError, OSError) as error:
        sys.exit(f"nmnist.py: {error}")


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", type=pathlib.Path, metavar="EVENTS_FOLDER",
                        help="folder of 00001.bin (or .bs2) ..., or of one such folder per class, named by its digit")
    parser.add_argument("images", type=pathlib.Path, metavar="IMAGES.idx", help="MNIST's images, plain or .gz")
    parser.add_argument("labels", type=pathlib.Path, metavar="LABELS.idx", help="MNIST's labels, plain or .gz")
    parser.add_argument("out", type=pathlib.Path, metavar="OUT.h5")
    parser.add_argument("--events-per-class", type=int, default=2, metavar="N", help="training recordings [2]")
    parser.add_argument("--images-per-class", type=int, default=20, metavar="N", help="static images [20]")
    parser.add_argument("--test-per-class", type=int, default=50, metavar="N", help="test images and recordings [50]")
    parser.add_argument("--seed", type=int, default=0, help="of the split [0]")
    parser.add_argument("--size", type=int, default=48, help="rows and columns of the images [48]")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.h5 if it exists")
    options = parser.parse_args(argv)
    if not 1 <= options.events_per_class <= options.images_per_class:
        parser.error("expected 1 <= --events-per-class <= --images-per-class: "
                     "the training recordings film the first static images")
    if options.test_per_class < 1 or options.size < 1 or options.seed < 0:
        parser.error("expected --test-per-class and --size of at least 1 and --seed of at least 0")
    return options


def convert(options):
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} exists; give --overwrite to replace it")
    images, labels = read_idx(options.images), read_idx(options.labels)
    check_images(images, labels, options)
    recordings = find_recordings(options.events, labels)
    pools = split(labels, options)
    filmed = {name: np.sort(pools[name]) for name in ("train", "test")}
    check_complete(recordings, np.concatenate(list(filmed.values())), options.events)
    with PairedWriter(options.out, CLASSES, SENSOR_SIZE, options.size) as writer:
        for name in ("teacher", "static", "test"):
            for i in tqdm(np.sort(pools[name]), desc=f"{name} images", unit="image"):
                writer.add_image(to_rgb(images[i], options.size), labels[i], i, name)
        for name, identities in filmed.items():
            for i in tqdm(identities, desc=f"{name} recordings", unit="recording"):
                writer.add_recording(read_bin(recordings[i], SENSOR_SIZE), labels[i], i, name)
    print(f"{options.out}: " + ", ".join(f"{len(pools[name])} {name} images" for name in ("teacher", "static", "test"))
          + "; " + ", ".join(f"{len(identities)} {name} recordings" for name, identities in filmed.items()))


def check_images(images, labels, options):
    H, W = SENSOR_SIZE
    if images.ndim != 3 or images.shape[1] > H or images.shape[2] > W:
        raise FormatError(f"{options.images}: expected images (M, 28, 28), got the shape {images.shape}")
    if labels.shape != images.shape[:1]:
        raise FormatError(f"{options.labels}: expected one label for each of {len(images)} images, got the shape "
                          f"{labels.shape}; give the images and the labels of one set")
    if (labels >= len(CLASSES)).any():
        i = int((labels >= len(CLASSES)).argmax())
        raise FormatError(f"{options.labels}: label {i} is {labels[i]}, expected 0 ... {len(CLASSES) - 1}")


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
            raise FormatError(f"{path}: there is no image {i + 1} among {len(labels)}; "
                              "give the recordings and the images of one set, training or test")
        if path.parent != folder and int(path.parent.name) != labels[i]:
            raise FormatError(f"{path}: image {i + 1} has the label {labels[i]}, not {path.parent.name}; "
                              "give the recordings and the images of one set, training or test")
        if i in found:
            raise FormatError(f"{path}: {found[i]} is recording {i + 1} as well; keep one of them")
        found[i] = path
    return found


def split(labels, options):
    """The image positions of each pool; `train` are those of the static images that have training recordings."""
    pools = {"teacher": [], "static": [], "test": [], "train": []}
    for k, name in enumerate(CLASSES):
        identities = np.random.default_rng([options.seed, k]).permutation(np.flatnonzero(labels == k))
        end = options.test_per_class + options.images_per_class
        if len(identities) < end:
            raise FormatError(f"{options.labels}: expected at least {end} images of class {name} ("
                              f"{options.test_per_class} test, {options.images_per_class} static), got "
                              f"{len(identities)}; lower --test-per-class or --images-per-class")
        test, static, teacher = np.split(identities, [options.test_per_class, end])
        for pool, members in (("teacher", teacher), ("static", static), ("test", test),
                              ("train", static[:options.events_per_class])):
            pools[pool].append(members)
    return {pool: np.concatenate(members) for pool, members in pools.items()}


def check_complete(recordings, needed, folder):
    missing = [i + 1 for i in sorted(needed) if i not in recordings]
    if missing:
        names = ", ".join(f"{k:05d}" for k in missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise FormatError(f"{folder}: {len(missing)} of {len(needed)} recordings are missing (.bin or .bs2): {names}; "
                          "complete the folder, or give images and labels of the recordings at hand only")


def to_rgb(digit, size):
    """A grey digit as the sensor saw it, (size, size, 3) uint8: centred among 34 x 34 pixels, resized as frames are.

    On 1,000 real pairs, mean event counts and digits correlate best with the digit exactly in the centre.
    """
    H, W = SENSOR_SIZE
    top, left = (H - digit.shape[0]) // 2, (W - digit.shape[1]) // 2
    field = np.zeros((H, W, 1))
    field[top:top + digit.shape[0], left:left + digit.shape[1], 0] = digit
    grey = np.rint(resize_frames(field, size)).astype(np.uint8)
    return np.repeat(grey, 3, axis=-1)


if __name__ == "__main__":
    main()
