"""A teacher, its network or its logits: trained, saved, and checked once when it enters."""

import glob
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray
from scipy.special import softmax

from ..config import Config
from ..data import hdf5
from ..data.errors import error_context
from ..data.files import atomic_hdf5, locked
from ..data.paired import PairedData
from ..events import FormatError
from ..models import Teacher
from ..teacher import (
    EPOCHS,
    TrainedTeacher,
    batches_of_teacher,
    teacher_epochs,
    untrained_teacher,
)
from .checkpoint import check_same, load_latest, save_checkpoint
from .progress import Progress


def save_teacher(
    path: str | os.PathLike, teacher: TrainedTeacher, classes: Sequence[str],
    data_set: str | None = None,
) -> None:
    """Write a trained teacher's network and its class names to an HDF5 file.

    Parameters
    ----------
    path : path-like
    teacher : TrainedTeacher
    classes : sequence of str
        K names, in the order of its outputs.
    data_set : str, optional
        Digest of what it was trained on, and its seed, for `kept_teacher`.
    """
    with atomic_hdf5(path) as file:
        _write_classes(file, classes)
        if data_set:
            hdf5.write(file, "data set", np.frombuffer(data_set.encode(), np.uint8))
        for group in ("params", "state"):
            for name, array in getattr(teacher, group).items():
                hdf5.write(file, f"{group}/{name}", array)
        _write_digest(file, classes, teacher.params | teacher.state)


def load_teacher(path: str | os.PathLike, data: PairedData) -> TrainedTeacher | ndarray:
    """Read a teacher: a network that `save_teacher` wrote, or logits of `save_logits`.

    Parameters
    ----------
    path : path-like
    data : PairedData

    Returns
    -------
    teacher : TrainedTeacher or (M, K) float32, classes in the order of the data's.

    Raises
    ------
    FormatError, OSError
        As `load_logits`; or a network for images of another size.
    """
    _check_open(data)
    advice = "train a teacher on this data, or write logits with ckd_ref.save_logits"
    with error_context(path, advice), hdf5.open_checked(path) as file:
        if "logits" in file:
            return _logits_in(file, data)
        order = _class_order(file, data)
        net = Teacher(len(order), data.image_size)
        params, state = (
            {name: hdf5.dataset(file, f"{group}/{name}", array.dtype, array.shape)[()]
             for name, array in tree.items()}
            for group, tree in zip(("params", "state"), net.init(np.random.default_rng(0)))
        )
        _check_digest(file, params | state)
        for name, array in (params | state).items():
            if not np.isfinite(array).all():
                raise FormatError(f"expected finite numbers in {name}")
    for name in ("head/w", "head/b"):
        params[name] = np.ascontiguousarray(params[name][..., order])
    return TrainedTeacher(net, params, state)


def kept_teacher(
    path: str | os.PathLike, data: PairedData, seed: int = 0, epochs: int = EPOCHS,
    label: str = "teacher", progress: bool = True, bar_position: int = 0,
    stop: Callable[[], bool] | None = None, wait: bool = False,
) -> TrainedTeacher | ndarray:
    """The small teacher that is kept in a file, trained and written first if there is none.

    Its training is saved beside the file after every epoch, and resumes from there.

    Parameters
    ----------
    path : path-like, in a folder that exists
        Where the usual teacher is kept; one of another length has it in its name.
    data : PairedData
    seed : int
    epochs : int
        Length of its training.
    label, progress, bar_position
        See `Progress`.
    stop : function, optional
        Asked before every batch; when it returns True the training is saved and ends.
    wait : bool
        Wait for another process that is training it, instead of a BlockingIOError.

    Returns
    -------
    teacher : TrainedTeacher, or (M, K) float32 if the file holds logits

    Raises
    ------
    ValueError
        No epochs, or images that are too small.
    FormatError
        As `load_teacher`; or a training that was begun or finished with other data.
    KeyboardInterrupt
        Stopped; completed work is saved.
    """
    path = check_only_teacher(path, epochs)
    if not path.exists():
        with locked(path, wait):
            if not path.exists():                              # the other one may have written it
                bar = {"label": label, "shown": progress, "position": bar_position}
                _train_teacher(path, data, seed, epochs, bar, stop)
    with error_context(path, "delete it"), hdf5.open_checked(path) as file:
        if "data set" in file:
            trained = hdf5.dataset(file, "data set", np.uint8, ("bytes",))[()].tobytes()
            if trained != _made_of(data, seed).encode():
                raise FormatError(
                    "a teacher of other data or another seed; name another folder, or delete it"
                )
    return load_teacher(path, data)


def check_only_teacher(path: str | os.PathLike, epochs: int = EPOCHS) -> pathlib.Path:
    """The path of a teacher of this length; see `kept_teacher`.

    Raises
    ------
    FormatError
        There is none yet, but one of another length, or its beginning: the runs beside a teacher
        learn from it.
    """
    usual = pathlib.Path(path)
    path = usual if epochs == EPOCHS else usual.with_stem(f"{usual.stem}-epochs{epochs}")
    if path.exists():
        return path
    for other in usual.parent.glob(f"{glob.escape(usual.stem)}*.h5"):
        rest = other.name.removeprefix(usual.stem)
        if length := re.fullmatch(r"(?:-epochs(\d+))?(?:\.partial)?\.h5", rest):
            kept = int(length[1] or EPOCHS)
            if kept != epochs:
                raise FormatError(
                    f"{other}: a teacher of {kept} epochs, in place of {epochs}, is kept here; "
                    "name another folder"
                )
    return path


def _made_of(data, seed):
    """What has to be the same for a kept teacher to be used again."""
    return f"{data.digest()} seed {seed}"


def _train_teacher(path, data, seed, epochs, bar, stop):
    """Train the small teacher, or resume it, and write it."""
    if epochs < 1:
        raise ValueError(f"expected epochs of the teacher >= 1, got {epochs}")
    partial = path.with_suffix(".partial.h5")
    net, run = untrained_teacher(data, seed)
    config, inputs = Config(seed=seed, epochs=epochs), {"data set": data.digest()}
    if found := load_latest(partial, net):
        check_same(found, config, inputs, partial)
        run = found.run
    batches = batches_of_teacher(data)
    losses = teacher_epochs(net, run, data, epochs)
    done = run.epoch * batches + len(run.rows)
    with Progress(total=epochs * batches, initial=done, **bar) as shown:
        while run.epoch < epochs:
            epoch = run.epoch
            stopped = stop and stop()
            if not stopped:
                shown.step(loss=next(losses))
            if stopped or run.epoch > epoch:
                save_checkpoint(partial, run, config, data.classes, inputs)
            if stopped:
                raise KeyboardInterrupt(
                    f"stopped in epoch {epoch} of the teacher before batch {len(run.rows)}"
                )
            if run.epoch > epoch:
                shown.note(f"epoch {run.epoch} of {epochs}, loss {run.history[-1]['loss']:.3f}")
    teacher = TrainedTeacher(net, run.params, run.state)
    save_teacher(path, teacher, data.classes, _made_of(data, seed))
    for suffix in (".partial.h5", ".partial.previous.h5"):
        path.with_suffix(suffix).unlink(missing_ok=True)


def _write_classes(file, classes):
    hdf5.write(file, "classes", np.array([name.encode() for name in classes]))


def _write_digest(file, classes, arrays):
    text = _digest([name.encode() for name in classes], arrays)
    hdf5.write(file, "digest", np.frombuffer(text.encode(), np.uint8))


def _check_digest(file, arrays):
    """Refuse arrays that are whole, but of several files; a file made elsewhere has no digest."""
    if "digest" in file:
        text = hdf5.dataset(file, "digest", np.uint8, ("bytes",))[()].tobytes().decode()
        if text != _digest(hdf5.dataset(file, "classes", "S", ("K",))[()].tolist(), arrays):
            raise FormatError("the arrays are not those of one teacher; some are another file's")


def _digest(names, arrays):
    """Of class names and all arrays together: a checksum of each does not notice an exchange."""
    digest = hashlib.blake2b(repr(names).encode(), digest_size=16)
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def _check_open(data):
    """Refuse the name of a file of paired data in place of the data."""
    if isinstance(data, (str, os.PathLike)):
        raise ValueError(
            f"expected an open data set, got {data!r}; call it in "
            'with open_paired("FILE.h5") as data: ...'
        )


def _class_order(file, data):
    """For every class of the data, its position among the names in an open file."""
    names = hdf5.dataset(file, "classes", "S", ("K",))[()]
    classes = tuple(name.decode() for name in names)
    if sorted(classes) != sorted(data.classes):
        only = sorted(set(classes) ^ set(data.classes))
        raise FormatError(
            f"expected the classes of {data.path}, these are in one of the two only: {only}"
        )
    return [classes.index(name) for name in data.classes]


def save_logits(path: str | os.PathLike, logits: ndarray, classes: Sequence[str]) -> None:
    """Write a teacher's logits (M, K) and its class names to an HDF5 file.

    Parameters
    ----------
    path : path-like
    logits : (M, K) array of floats
        One row per image of the data set.
    classes : sequence of str
        K names, in the order of the columns.

    Raises
    ------
    ValueError
        Logits of another shape or kind, NaN or Inf.
    """
    shape = (*np.shape(logits)[:1], len(classes))              # (M, K)
    numbers = np.asarray(logits).dtype.kind in "fc"
    if not (numbers and _usable(logits, shape)):
        came = _described(logits, shape) if numbers else f"no floats, of shape {np.shape(logits)}"
        raise ValueError(
            f"{path}: expected finite logits (M, {len(classes)}), a column for each class, "
            f"got {came}"
        )
    with atomic_hdf5(path) as file:
        hdf5.write(file, "logits", logits)
        _write_classes(file, classes)
        _write_digest(file, classes, {"logits": np.asarray(logits)})


def load_logits(path: str | os.PathLike, data: PairedData) -> ndarray:
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
    _check_open(data)
    advice = "write it with ckd_ref.save_logits"
    with error_context(path, advice), hdf5.open_checked(path) as file:
        return _logits_in(file, data)


def _logits_in(file, data):
    """The logits in an open file, see `load_logits`."""
    order = _class_order(file, data)
    shape = len(data.image_label), len(data.classes)
    logits = hdf5.dataset(file, "logits", "f", shape)[()]
    _check_digest(file, {"logits": logits})
    return check_logits(logits[:, order], data)


def check_logits(logits: ndarray, data: PairedData) -> ndarray:
    """Logits for every image of the data as float32, or a FormatError.

    Parameters
    ----------
    logits : (M, K) array of floats
    data : PairedData
    """
    expected = len(data.image_label), len(data.classes)
    if logits is None or not _usable(logits, expected):
        came = "none" if logits is None else _described(logits, expected)
        raise FormatError(
            f"expected finite teacher logits of shape {expected}, one row per image of the data "
            f"set, got {came}; train a teacher on it first"
        )
    return np.asarray(logits, np.float32)


def _described(logits, expected):
    """Unusable logits, in words."""
    came = f"shape {np.shape(logits)}"
    if np.iscomplexobj(logits):
        return f"complex numbers of {came}"
    return f"{came} with NaN, Inf or too large numbers" if np.shape(logits) == expected else came


def _usable(logits, shape):
    """Whether logits have this shape, are real and finite as float32."""
    if np.shape(logits) != shape or np.iscomplexobj(logits):
        return False
    return (np.abs(logits) <= np.finfo(np.float32).max).all()


def logits_of(
    teacher: Callable[[ndarray], ndarray] | ndarray, data: PairedData, images: ndarray,
    batch: int = 32,
) -> ndarray:
    """What a teacher says of images of the data, at these positions: (N, K) float32, checked.

    Parameters
    ----------
    teacher : function or (M, K) array, see `BatchSampler`
    data : PairedData
    images : (N,) array of int
    batch : int
        How many images at a time a function is asked about.
    """
    if not callable(teacher):
        return check_logits(teacher, data)[images]
    parts = [teacher(data.images(images[i:i + batch])) for i in range(0, len(images), batch)]
    logits, K = np.concatenate(parts), len(data.classes)
    if not _usable(logits, (len(images), K)):
        raise FormatError(
            f"expected finite logits (B, {K}) from the teacher for B images, got shape "
            f"{logits.shape} for {len(images)}; train it again"
        )
    return np.asarray(logits, np.float32)


def lesson(
    teacher: Callable[[ndarray], ndarray] | ndarray, data: PairedData, config: Config
) -> tuple[Callable[[ndarray], ndarray] | ndarray, str]:
    """What the sampler is to use as a teacher, by ``config.teaching``; see `TEACHING`.

    Parameters
    ----------
    teacher : function or (M, K) array, see `BatchSampler`
    data : PairedData
    config : Config

    Returns
    -------
    teacher : function or (M, K) float32
    digest : str
        Of what it says of the static images.
    """
    static = data.images_in("static")
    said = logits_of(teacher, data, static)                    # (N, K)
    if config.teaching == "crop" and callable(teacher):
        return teacher, f"function {hashlib.sha256(said.tobytes()).hexdigest()}"
    logits = np.zeros((len(data.image_label), len(data.classes)), np.float32)
    label, rng = data.image_label[static], np.random.default_rng([config.seed, 2])
    if config.teaching == "permuted":
        said = said[_of_the_same_class(label, rng)]
    elif config.teaching == "wrong":
        said = said[_of_another_class(label, rng)]
    elif config.teaching == "smoothed":
        said = _smoothed(said, label, config.temperature)
    logits[static] = said
    return logits, hashlib.sha256(logits.tobytes()).hexdigest()


def _of_the_same_class(label, rng):
    """For every image the position of one of its class: a random permutation within classes."""
    position = np.arange(len(label))
    for k in np.unique(label):
        of_class = np.flatnonzero(label == k)
        position[of_class] = rng.permutation(of_class)
    return position


def _of_another_class(label, rng):
    """For every image the position of a random one of another class."""
    return np.array([rng.choice(np.flatnonzero(label != k)) for k in label])


def _smoothed(logits, label, temperature):
    """Logits that are alike but for the true class, whose probability is the teacher's mean one."""
    K = logits.shape[-1]
    p = softmax(logits.astype(np.float64) / temperature, axis=-1)[np.arange(len(label)), label]
    p = min(p.mean(), 1 - 1e-6)
    return temperature * np.log(p * (K - 1) / (1 - p)) * np.eye(K)[label]
