"""The main job: a teacher and the three students on one data set, their table and pictures."""

import concurrent.futures
import dataclasses
import math
import multiprocessing
import os
import pathlib
import signal
import threading
import time

from scipy import stats

from ..config import METHODS
from ..data import glyphs
from ..data.files import atomic_write, locked, remove_leftovers
from ..data.paired import open_paired
from . import plots
from .logits import load_logits, save_logits, teacher_logits
from .process_group import prepare_process
from .session import seconds_of, train

_stop = None
"""In a worker: whether the comparison has been stopped. Such an event cannot be pickled."""


def compare(data, config, folder, seeds=1, teacher=None, workers=2):
    """Train every method with the same data, draws and number of batches, once per seed.

    Runs go side by side in processes of one BLAS thread each, so their results are bit-identical
    for any number of workers. What is finished in `folder` is not repeated. On Ctrl-C, or when one
    of them fails, the others save after their batch and stop.

    Parameters
    ----------
    data : path or None
        A file of paired data; without one the glyphs of each seed.
    config : runs.Config
        Shared by all runs but for method and seed; seeds count up from its own.
    folder : path
        Gets one folder per run, the teachers' logits, ``table.md``, ``curves.png`` and
        ``samples.png``.
    seeds : int
        Number of repetitions, each with a teacher of its own.
    teacher : path, optional
        Logits to use in place of a teacher trained here; see `load_logits`.
    workers : int
        Number of processes.

    Returns
    -------
    table : str, Markdown

    Raises
    ------
    ValueError, FormatError, BlockingIOError, FloatingPointError
        As `train`; the lock is of the whole folder.
    ChildProcessError
        A process was killed.
    KeyboardInterrupt
        Stopped; completed work is saved.
    """
    if seeds < 1 or workers < 1:
        raise ValueError(f"expected at least one seed and one worker, got {seeds} and {workers}")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        remove_leftovers(folder)
        numbers = range(config.seed, config.seed + seeds)
        paths = {seed: data or glyphs.cached(seed=seed) for seed in numbers}
        with open_paired(paths[config.seed]) as first:
            plots.samples(folder / "samples.png", first, config.T, config.size)
            described = describe(first)
        histories, seconds, teachers = _train_all(paths, config, folder, teacher, workers)
        text = table(histories, seconds, teachers, described, config)
        with atomic_write(folder / "table.md") as temporary:
            temporary.write_text(text)
        plots.learning_curves(folder / "curves.png", histories)
    return text


def _train_all(paths, config, folder, teacher, workers):
    """Histories and seconds by method, and accuracy and seconds of the teachers; one per seed."""
    def submit(method, seed, logits=None):
        chosen = dataclasses.replace(config, method=method, seed=seed)
        runs[method, seed] = pool.submit(
            _student, paths[seed], chosen, folder / f"{method}-seed{seed}", logits
        )

    runs = {}
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, _start_worker, (context.RLock(), stop)
    )
    try:
        teachers = {
            seed: pool.submit(_teacher, path, seed, folder, teacher)
            for seed, path in paths.items()
        }
        for seed in paths:                         # what needs no teacher does not wait for one
            for method in METHODS[:2]:
                submit(method, seed)
        for seed in paths:
            submit("ckd", seed, teachers[seed].result()[0])
        results = {method: [runs[method, seed].result() for seed in paths] for method in METHODS}
    except concurrent.futures.process.BrokenProcessPool:
        raise ChildProcessError(
            "a process of the comparison was killed, perhaps for want of memory; the same command "
            "resumes it, --workers 1 needs the least memory"
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; every run is saved") from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    histories = {method: [history for history, _ in pairs] for method, pairs in results.items()}
    seconds = {method: [spent for _, spent in pairs] for method, pairs in results.items()}
    return histories, seconds, [teachers[seed].result()[1:] for seed in paths]


def _start_worker(screen, stop):
    """Prepare a worker that ends with its parent, however that ends, and stops when told to.

    Ctrl-C reaches both; the parent decides.
    """
    from tqdm import tqdm

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)                                            # safe: files are written atomically

    prepare_process()
    tqdm.set_lock(screen)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    global _stop
    _stop = stop.is_set


def _teacher(path, seed, folder, given):
    """File of logits for every image, its accuracy on the test images, and the seconds it took."""
    start = time.perf_counter()
    logits_path = pathlib.Path(given) if given else folder / f"teacher-seed{seed}.h5"
    with open_paired(path) as data:
        if not given and not logits_path.exists():
            save_logits(logits_path, teacher_logits(data, seed, stop=_stop), data.classes)
        logits = load_logits(logits_path, data)
        test = data.images_in("test")
        accuracy = float((logits[test].argmax(-1) == data.image_label[test]).mean())
    return logits_path, accuracy, time.perf_counter() - start


def _student(path, config, folder, logits_path):
    """History of one run, and the seconds it took."""
    with open_paired(path) as data:
        logits = load_logits(logits_path, data) if logits_path else None
        position = 1 + METHODS.index(config.method)
        run = train(data, config, folder, logits, bar_position=position, stop=_stop)
    return run.history, seconds_of(folder)


def describe(data):
    """One line on a data set: its classes and the sizes of its pools."""
    images = ", ".join(
        f"{len(data.images_in(split))} {split}" for split in ("teacher", "static", "test")
    )
    recordings = ", ".join(
        f"{len(data.recordings_in(split))} {split}" for split in ("train", "test")
    )
    return f"{len(data.classes)} classes; images: {images}; recordings: {recordings}"


def table(histories, seconds, teachers, described, config):
    """The results in Markdown: means, and from two seeds on 95 % intervals and paired tests."""
    seeds = len(teachers)
    accuracies = _percent([accuracy for accuracy, _ in teachers])
    lines = [
        f"{described}.",
        f"{config.epochs} epochs of {config.batches} batches of {config.batch}; "
        f"network {config.network}, width {config.width:g}, T = {config.T}; "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}.",
        "",
        "| method | final accuracy | best epoch | final - snn | time |",
        "|---|---|---|---|---|",
        f"| teacher (images) | {accuracies} | | | {_seconds([spent for _, spent in teachers])} |",
    ]
    final = {method: [h[-1]["accuracy_test"] for h in runs] for method, runs in histories.items()}
    for method, runs in histories.items():
        best = [max(row["accuracy_test"] for row in h) for h in runs]
        difference = "" if method == "snn" else _paired(final[method], final["snn"])
        lines.append(
            f"| {method} | {_percent(final[method])} | {_percent(best)} | {difference} | "
            f"{_seconds(seconds[method])} |"
        )
    return "\n".join(lines) + "\n"


def interval(values):
    """Mean and half-width of its 95 % confidence interval (Student's t); nan for one value."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, math.nan
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)


def _percent(values, sign=""):
    mean, half = interval(values)
    text = f"{100 * mean:{sign}.1f}"
    return f"{text} %" if math.isnan(half) else f"{text} ± {100 * half:.1f} %"


def _paired(values, others):
    """Mean difference with its interval and the p-value of the paired t-test."""
    differences = [a - b for a, b in zip(values, others)]
    if len(set(differences)) < 2:
        return _percent(differences, "+")
    return f"{_percent(differences, '+')} (p = {stats.ttest_rel(values, others).pvalue:.2g})"


def _seconds(values):
    return f"{sum(values) / len(values):.0f} s"
