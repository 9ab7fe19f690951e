"""A training run in a folder: locked, saved after every epoch, resumed, stopped by Ctrl-C."""

import contextlib
import functools
import json
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from numpy import ndarray

from ..batches import BatchSampler
from ..config import Config
from ..data.files import atomic_write, locked, open_file, remove_leftovers
from ..data.paired import PairedData
from ..events import FormatError
from ..training import TrainState, epochs
from . import parallel
from .checkpoint import check_same, load_latest, save_checkpoint
from .preflight import check_run
from .process_group import ProcessGroup
from .progress import Progress
from .teachers import lesson


def train(
    data: PairedData, config: Config, folder: str | os.PathLike | None = None,
    teacher: Callable[[ndarray], ndarray] | ndarray | None = None, net: Any = None,
    progress: bool = True, bar_position: int = 0, stop: Callable[[], bool] | None = None,
    processes: int = 1, label: str | None = None,
) -> TrainState:
    """Train a student, or resume a run that was interrupted.

    Parameters
    ----------
    data : PairedData
    config : Config
    folder : path, optional
        Gets ``checkpoint.h5``, the one before it, ``log.jsonl`` and ``times.jsonl`` after every
        epoch, and is locked meanwhile. If a checkpoint is there, the run resumes from it and ends
        bit-identical to one that was never interrupted (same machine, one BLAS thread).
    teacher : function or (M, K) array, optional
        See `BatchSampler`; `ckd` needs one.
    net : optional
        Any network with ``init(rng)`` and ``apply(params, frames, stream, state=None)`` as those
        of `VGGSNN`; its parameters include ``theta``, (T,). Default: the configuration's.
    progress : bool
        Show a progress bar with the parts of the loss; where there is no terminal, write a line
        per epoch.
    bar_position : int
        Its line on the screen, for runs side by side.
    stop : function, optional
        Asked before every batch; when it returns True the run is saved and ends. Default: whether
        Ctrl-C was pressed, if there is a folder to save to.
    processes : {1, 2}
        With 2, each stream has a process of its own; the results are bit-identical.
    label : str, optional
        What the progress calls the run. Default: its method.

    Returns
    -------
    run : TrainState
        `history` has one dict per epoch: rate, replacement probability, gamma, theta, every part
        of the loss, the accuracy of both streams on their training batches and of the event
        stream on the test recordings.

    Raises
    ------
    ValueError
        A path in place of open data, no `Config`, no teacher for `ckd`, or one whose logits do
        not fit the images; or what `check_run` refuses.
    FormatError
        A checkpoint of another configuration, network, data set or teacher, or a damaged one
        without a predecessor.
    BlockingIOError
        Another process is using the folder.
    FloatingPointError
        A loss, parameter or statistic is NaN or Inf, with epoch, batch and name. Existing
        checkpoints stay valid.
    KeyboardInterrupt
        Stopped; completed work is saved.
    """
    if not hasattr(data, "recordings_in") or not isinstance(config, Config):
        raise ValueError(
            "expected an open data set and a Config, got "
            f"{type(data).__name__} and {type(config).__name__}; call it as "
            'with open_paired("FILE.h5") as data: train(data, Config(), ...)'
        )
    if net is None:
        check_run(data, config)
    bar = {"label": label or config.method, "shown": progress, "position": bar_position}
    with ProcessGroup(processes) as group:             # before the lock, which helpers would share
        if not folder:
            return _train(data, config, None, teacher, net, bar, stop or (lambda: False), group)
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder), contextlib.nullcontext(stop) if stop else ctrl_c() as stop:
            remove_leftovers(folder)
            return _train(data, config, folder, teacher, net, bar, stop, group)


@contextlib.contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C was pressed; the second time it interrupts."""
    pressed = threading.Event()

    def note(*_):
        signal.signal(signal.SIGINT, before)
        pressed.set()

    if threading.current_thread() is not threading.main_thread():  # others are never told
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _train(data, config, folder, teacher, net, bar, stop, group):
    inputs = {"data set": data.digest()}
    if net is not None:
        inputs["network"] = repr(net)
    if config.method == "ckd":
        teacher, inputs["teacher"] = lesson(teacher, data, config)
    else:
        teacher = None
    sampler = BatchSampler(data, config, teacher)
    test = data.recordings_in("test")
    test_frames = data.frames(test, config.T, config.size)
    test_labels = data.event_label[test]
    run, seconds = _resume(folder, config, inputs, net), []
    if run:
        seconds = read_times(folder)
        seconds = [row for row in seconds if row["epoch"] < run.epoch + bool(run.rows)]
        write_rows(folder / "log.jsonl", run.history)     # a kill may have left it behind
    net = net or config.model(len(data.classes))
    run = run or TrainState.start(net, config.seed)

    def save(epoch):
        if folder:
            seconds.append({"epoch": epoch, "seconds": time.perf_counter() - start})
            # In this order: the log can be made of the checkpoint, the times cannot.
            write_rows(folder / "times.jsonl", seconds)
            save_checkpoint(folder / "checkpoint.h5", run, config, data.classes, inputs)
            write_rows(folder / "log.jsonl", run.history)

    twins = {}
    if group.size > 1:
        twins = {"train_step": functools.partial(parallel.train_step, group),
                 "classify": functools.partial(parallel.classify, group)}
    batches = epochs(net, run, sampler, test_frames, test_labels, config, **twins)
    start = time.perf_counter()
    done = run.epoch * config.batches + len(run.rows)
    with Progress(total=config.epochs * config.batches, initial=done, **bar) as shown:
        while run.epoch < config.epochs:
            epoch = run.epoch
            if stop():
                save(epoch)
                raise KeyboardInterrupt(f"stopped in epoch {epoch} before batch {len(run.rows)}")
            shown.step(**next(batches))
            if run.epoch > epoch:
                save(epoch)
                row = run.history[-1]
                shown.note(
                    f"epoch {run.epoch} of {config.epochs}, loss {row['loss']:.3f}, "
                    f"test accuracy {row['accuracy_test']:.1%}"
                )
                start = time.perf_counter()
    return run


def _resume(folder, config, inputs, net):
    """The run that was saved in the folder, or None; refuse one of other inputs."""
    found = folder and load_latest(folder / "checkpoint.h5", net)
    if not found:
        return None
    check_same(found, config, inputs, folder)
    return found.run


def seconds_of(folder: str | os.PathLike) -> float:
    """How long the run in a folder has taken so far, interruptions left out."""
    return sum(row["seconds"] for row in read_times(folder))


def read_times(folder: str | os.PathLike) -> list[dict]:
    """The rows of ``times.jsonl`` in the folder of a run: epoch, and seconds spent on it."""
    path = pathlib.Path(folder) / "times.jsonl"
    rows = read_rows(path)
    for number, row in enumerate(rows, 1):
        if type(row.get("epoch")) is not int or type(row.get("seconds")) not in (int, float):
            raise FormatError(
                f"{path}, line {number}: expected an object with the numbers epoch and seconds, "
                f"got {str(row)[:60]}; delete the file"
            )
    return rows


def read_rows(path: pathlib.Path) -> list[dict]:
    """The dicts in a file of one JSON object per line; none if there is no file."""
    if not path.exists():
        return []
    with open_file(path) as file:
        lines = file.read().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise FormatError(
                f"{path}, line {number}: expected a JSON object, got {line[:60]!r}; delete the file"
            )
        rows.append(row)
    return rows


def write_rows(path: str | os.PathLike, rows: list[dict]) -> None:
    """Write dicts as one JSON object per line, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
