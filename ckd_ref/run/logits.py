"""Logits of any teacher as a file, checked once when they enter."""

import numpy as np

from ..data import hdf5
from ..data.errors import error_context
from ..data.files import atomic_hdf5
from ..events import FormatError


def save_logits(path, logits, classes):
    """Write a teacher's logits (M, K) and its class names to an HDF5 file."""
    with atomic_hdf5(path) as file:
        hdf5.write(file, "logits", logits)
        hdf5.write(file, "classes", np.array([name.encode() for name in classes]))


def load_logits(path, data):
    """Read the logits of any teacher, (M, K) float32 for every image of `data`, classes compared by name.

    The file has two data sets with checksums, ``logits`` (floats) and ``classes`` (names as bytes); see `save_logits`.

    Raises
    ------
    FormatError
        Another format, damage, another number of images, other classes, a logit that is not finite.
    OSError
        A file that is missing or unreadable.
    """
    with error_context(path, "write it with ckd_ref.teacher.save_logits"), hdf5.open_checked(path) as file:
        classes = tuple(name.decode() for name in hdf5.dataset(file, "classes", "S", ("K",))[()])
        if sorted(classes) != sorted(data.classes):
            only = sorted(set(classes) ^ set(data.classes))
            raise FormatError(f"expected the classes of {data.path}, these are in one of the two only: {only}")
        logits = hdf5.dataset(file, "logits", "f", (len(data.image_label), len(data.classes)))[()]
        return check_logits(logits[:, [classes.index(name) for name in data.classes]], data)


def check_logits(logits, data):
    """Logits for every image of the data as float32, or a FormatError."""
    expected = len(data.image_label), len(data.classes)
    if logits is None or np.shape(logits) != expected or not (np.abs(logits) <= np.finfo(np.float32).max).all():
        came = "none" if logits is None else f"shape {np.shape(logits)}"
        raise FormatError(f"expected finite teacher logits of shape {expected}, one row per image of the data set, got "
                          f"{came}; train a teacher on it first")
    return np.asarray(logits, np.float32)
