"""A teacher's logits: trained here or elsewhere, saved, and checked once when they enter."""

import numpy as np

from ..data import hdf5
from ..data.errors import error_context
from ..data.files import atomic_hdf5
from ..events import FormatError
from ..teacher import train_teacher


def teacher_logits(data, seed=0, progress=True, stop=None):
    """Logits of the small teacher for every image of the data; see `train_teacher`.

    Parameters
    ----------
    data : PairedData
    seed : int
    progress : bool
        Show a progress bar.
    stop : function, optional
        Asked before every batch; ends the training by KeyboardInterrupt when it returns True.

    Returns
    -------
    logits : (M, K) float32
    """
    from tqdm import tqdm

    with tqdm(desc="teacher", disable=not progress, unit="batch") as bar:
        def watch(step, total, loss):
            if stop and stop():
                raise KeyboardInterrupt("stopped in the training of the teacher")
            bar.total = total
            if loss is not None:
                bar.set_postfix(loss=f"{loss:.3f}")
                bar.update()

        logits = train_teacher(data, seed, watch=watch)
        bar.update()
    return logits


def save_logits(path, logits, classes):
    """Write a teacher's logits (M, K) and its class names to an HDF5 file.

    Parameters
    ----------
    path : path-like
    logits : (M, K) array of floats
        One row per image of the data set.
    classes : sequence of str
        K names, in the order of the columns.
    """
    with atomic_hdf5(path) as file:
        hdf5.write(file, "logits", logits)
        hdf5.write(file, "classes", np.array([name.encode() for name in classes]))


def load_logits(path, data):
    """Read the logits of any teacher for every image of the data, classes matched by name.

    The file has two data sets with checksums, ``logits`` (floats) and ``classes`` (names as
    bytes); see `save_logits`.

    Parameters
    ----------
    path : path-like
    data : PairedData

    Returns
    -------
    logits : (M, K) float32, columns in the order of the data's classes.

    Raises
    ------
    FormatError
        Another format, damage, another number of images, other classes, NaN or Inf.
    OSError
        A file that is missing or unreadable.
    """
    advice = "write it with ckd_ref.save_logits"
    with error_context(path, advice), hdf5.open_checked(path) as file:
        names = hdf5.dataset(file, "classes", "S", ("K",))[()]
        classes = tuple(name.decode() for name in names)
        if sorted(classes) != sorted(data.classes):
            only = sorted(set(classes) ^ set(data.classes))
            raise FormatError(
                f"expected the classes of {data.path}, these are in one of the two only: {only}"
            )
        shape = len(data.image_label), len(data.classes)
        logits = hdf5.dataset(file, "logits", "f", shape)[()]
        return check_logits(logits[:, [classes.index(name) for name in data.classes]], data)


def check_logits(logits, data):
    """Logits for every image of the data as float32, or a FormatError.

    Parameters
    ----------
    logits : (M, K) array of floats
    data : PairedData
    """
    expected = len(data.image_label), len(data.classes)
    largest = np.finfo(np.float32).max
    if logits is None or np.shape(logits) != expected or not (np.abs(logits) <= largest).all():
        came = "none" if logits is None else f"shape {np.shape(logits)}"
        raise FormatError(
            f"expected finite teacher logits of shape {expected}, one row per image of the data "
            f"set, got {came}; train a teacher on it first"
        )
    return np.asarray(logits, np.float32)
