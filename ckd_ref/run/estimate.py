"""Time and memory of a training before it is started, from a few steps of it on this machine."""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import time

import numpy as np
from numpy import ndarray

try:
    import resource
except ImportError:                                            # Windows
    resource = None

from ..batches import BatchSampler, training_pools
from ..config import Config
from ..data.paired import PairedData, open_paired
from ..teacher import (
    EPOCHS,
    TrainedTeacher,
    batches_of_teacher,
    teacher_epochs,
    untrained_teacher,
)
from ..training import AT_ONCE, TrainState, epochs
from . import parallel
from .checkpoint import save_checkpoint
from .preflight import LARGEST, check_fit, check_memory, memory_limit
from .process_group import ProcessGroup, prepare_process
from .teachers import load_teacher

STEPS = 3
"""Steps that are timed, after one that is not."""

SIZES = 8, 16
"""Pairs of the batches that are timed; larger ones might not fit into the memory."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Random data in place of `PairedData`: as many samples, nothing in them.

    Attributes
    ----------
    K : int
        Classes.
    train, test : int
        Recordings of each pool; as many images are in the pools `static` and `test`.
    image_size : int
    """

    K: int
    train: int
    test: int
    image_size: int = 48

    path = "random data"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"class {k}" for k in range(self.K))

    @property
    def image_label(self) -> ndarray:
        return np.arange(self.train + self.test) % self.K

    event_label = image_label

    def recordings_in(self, split: str) -> ndarray:
        return {"train": np.arange(self.train), "test": self.train + np.arange(self.test)}[split]

    def images_in(self, split: str) -> ndarray:
        pools = {"static": "train", "test": "test"}
        return self.recordings_in(pools[split]) if split in pools else np.arange(0)

    def frames(self, indices: ndarray, T: int, size: int) -> ndarray:
        shape = T, len(indices), size, size, 2
        return np.random.default_rng(0).poisson(0.1, shape).astype(np.float32)

    def images(self, indices: ndarray) -> ndarray:
        shape = len(indices), self.image_size, self.image_size, 3
        return np.random.default_rng(0).random(shape, np.float32)


SHAPES = {
    "paper-ncaltech101": Shape(101, train=7838, test=871),
    "paper-cepdvs": Shape(20, train=5000, test=2000),
}
"""What the presets were made for: the pools of the baseline."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What some steps of a training have taken.

    Attributes
    ----------
    step, read, classify, save : float
        Seconds for a batch, to read a recording with its image, to classify one, and to save a
        checkpoint.
    work : float
        Bytes of all processes at most, without the samples that are held.
    """

    step: float
    read: float
    classify: float
    save: float
    work: float


def estimate(
    source: str | os.PathLike | Shape, config: Config, teacher: str | os.PathLike | None = None,
    processes: int = 1, teacher_epochs: int = EPOCHS,
) -> str:
    """How long `train` would take here, and how much memory, in a table.

    Steps with small batches are timed, in processes of their own; time and memory grow linearly
    with the batch. What else the machine does meanwhile makes them longer.

    Parameters
    ----------
    source : path or Shape
        A file of paired data, of which one sample per class is read, or random data.
    config : Config
    teacher : path, optional
        As for the command line. Without it, `ckd` has the training of the small teacher as well.
    processes : {1, 2}
        As for `train`.
    teacher_epochs : int
        Length of the training of the small teacher.

    Returns
    -------
    table : str, Markdown

    Raises
    ------
    ValueError, FormatError, OSError, FloatingPointError
        As `train`.
    ChildProcessError
        A process was killed, perhaps for want of memory.
    """
    sizes = sorted({min(size, config.batch) for size in SIZES})
    with _opened(source) as data:
        check_fit(data, config)
        check_memory(dataclasses.replace(config, batch=sizes[-1]), len(data.classes))
    rows, memory = [], {}
    if config.method == "ckd" and not teacher:
        count, seconds, memory["the teacher"] = _apart(
            measure_teacher, source, config, teacher_epochs
        )
        rows.append(("training steps of the teacher", count, seconds))
    measured = {
        size: _apart(measure, source, dataclasses.replace(config, batch=size), teacher, processes)
        for size in sizes
    }
    with _opened(source) as data:
        rows += student_rows(measured, config, data)
        memory["the student"] = student_memory(measured, config, data)
    return _table(rows, memory, measured)


def student_rows(
    measured: dict[int, Measured], config: Config, data: PairedData | Shape
) -> list[tuple[str, int, float]]:
    """(what, how many, seconds of each) for all that a training of the student consists of.

    Parameters
    ----------
    measured : dict of Measured, by the size of their batches, increasing
    config : Config
    data : PairedData or Shape
    """
    last = list(measured.values())[-1]
    step = _at(config.batch, {size: each.step for size, each in measured.items()})
    test = len(data.recordings_in("test"))
    train, _ = training_pools(data, config)
    read = 0 if isinstance(data, Shape) else len(train) + test
    return [
        ("recordings to read", read, last.read),
        (f"training steps, {config.batch} pairs each", config.epochs * config.batches, step),
        ("recordings to classify", config.epochs * test, last.classify),
        ("checkpoints to save", config.epochs, last.save),
    ]


def student_memory(
    measured: dict[int, Measured], config: Config, data: PairedData | Shape
) -> float:
    """Bytes that a training of the student takes at most; arguments as for `student_rows`.

    All frames and images are held, the frames twice while they are read.
    """
    frame, image = 4 * config.T * config.size**2 * 2, 4 * data.image_size**2 * 3   # float32
    train, static = training_pools(data, config)
    held = (len(train) + len(data.recordings_in("test"))) * frame + len(static) * image
    work = _at(config.batch, {size: each.work for size, each in measured.items()})
    return held + max(work, len(train) * frame)


def _at(batch, values):
    """The straight line through one or two values, by the size of the batch, at a larger one."""
    *first, (size, value) = values.items()
    if not first:
        return value
    (smaller, less), = first
    return value + max(value - less, 0) / (size - smaller) * (batch - size)


def measure(
    source: str | os.PathLike | Shape, config: Config, teacher: str | os.PathLike | None,
    processes: int,
) -> Measured:
    """Run some steps, with one recording and one image per class, and all else that a run does.

    Returns
    -------
    measured : Measured
    """
    few = dataclasses.replace(
        config, batches=2 + STEPS, static_per_class=1, events_per_class=1
    )
    with ProcessGroup(processes) as group, _opened(source) as data:
        taught = _taught(config, data, teacher)
        test = data.recordings_in("test")[:AT_ONCE * processes]
        read, (sampler, frames) = _timed(lambda: (
            BatchSampler(data, few, taught), data.frames(test, config.T, config.size)
        ))
        net = config.model(len(data.classes))
        run = TrainState.start(net, config.seed)

        def train_step(*arguments):
            return parallel.train_step(group, *arguments)

        batches = epochs(net, run, sampler, frames, data.event_label[test], few, train_step)
        steps = [_timed(lambda: next(batches))[0] for _ in range(1 + STEPS)]
        classify, _ = _timed(lambda: parallel.classify(group, net, run, frames))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "checkpoint.h5")
            save, _ = _timed(lambda: save_checkpoint(path, run, config, data.classes, {}))
    held = sampler.frames.nbytes + sampler.pixels.nbytes + frames.nbytes
    return Measured(
        step=statistics.median(steps[1:]),
        read=read / (len(sampler.event_label) + len(test)),
        classify=classify / len(test),
        save=save,
        work=_peak_bytes() - held,
    )


def measure_teacher(source, config, epochs=EPOCHS):
    """Run some steps of the small teacher's training: number of all steps, seconds, bytes."""
    with _opened(source) as data:
        net, run = untrained_teacher(data, config.seed)
        losses = teacher_epochs(net, run, data)
        steps = [_timed(lambda: next(losses))[0] for _ in range(1 + STEPS)]
        return epochs * batches_of_teacher(data), statistics.median(steps[1:]), _peak_bytes()


def _taught(config, data, teacher):
    """A teacher that costs as much as the one that the training would have."""
    if config.method != "ckd":
        return None
    if not teacher and config.teaching == "crop":
        net, run = untrained_teacher(data)
        return TrainedTeacher(net, run.params, run.state)
    if teacher and not isinstance(data, Shape):
        given = load_teacher(teacher, data)
        if config.teaching == "crop":
            return given
    return np.zeros((len(data.image_label), len(data.classes)), np.float32)


def _timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _opened(source):
    return contextlib.nullcontext(source) if isinstance(source, Shape) else open_paired(source)


def _apart(function, *arguments):
    """What a function returns in a process of its own, whose memory is its own as well."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(send, function, arguments))
    process.start()
    send.close()
    try:
        outcome = receive.recv()
    except EOFError:
        raise ChildProcessError(
            "a process was killed, perhaps for want of memory: even small batches of this "
            "training do not fit"
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _send(pipe, function, arguments):
    signal.signal(signal.SIGINT, signal.SIG_DFL)               # Ctrl-C ends it without a traceback
    prepare_process()
    try:
        outcome = function(*arguments)
    except Exception as error:
        outcome = error
    pipe.send(outcome)


def _peak_bytes():
    """Peak memory of this process and of its largest child that has ended; NaN if unknown."""
    if resource is None:
        return float("nan")
    who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(each).ru_maxrss for each in who)


def _table(rows, memory, measured):
    lines = ["| what | how many | each | in all |", "|---|---|---|---|"]
    for what, count, seconds in rows:
        if count:
            lines.append(
                f"| {what} | {count:,} | {_duration(seconds)} | {_duration(count * seconds)} |"
            )
    total = sum(count * seconds for _, count, seconds in rows)
    sizes = f"{STEPS} steps each of {' and '.join(map(str, measured))} pairs"
    limit = memory_limit()
    there = f"{limit / 1e9:.1f} GB" if limit < LARGEST else "an unknown amount"
    peaks = ", ".join(f"{size / 1e9:.2f} GB for {who}" for who, size in memory.items())
    return "\n".join([
        *lines, f"| in all | | | {_duration(total)} |", "",
        f"Memory: {peaks}; this machine has {there}.",
        f"Timed: {sizes}, under the present load of the machine.",
    ])


def _duration(seconds):
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size or unit == "s" and seconds >= 1:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e3 * seconds:.3g} ms"
