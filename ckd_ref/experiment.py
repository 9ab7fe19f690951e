"""The main job: a teacher and the three students on one data set, their table and pictures."""

import dataclasses
import math
import pathlib
import time

from scipy import stats

from . import plots
from .training import METHODS, load_logits, save_logits, train, train_teacher, written_whole


def compare(data_of_seed, config, folder, seeds=1, teacher=None, progress=True):
    """Train every method with the same data, draws and number of batches, once per seed.

    Parameters
    ----------
    data_of_seed : function of a seed that returns data.PairedData
    config : training.Config
        Shared by all runs but for method and seed; seeds count up from its own.
    folder : path
        Gets one folder per run, the teachers' logits, ``table.md``, ``curves.png`` and ``samples.png``.
    seeds : int
        Number of repetitions, each with a teacher of its own.
    teacher : path, optional
        Logits to use in place of a teacher trained here; see `training.load_logits`.
    progress : bool

    Returns
    -------
    table : str, Markdown
    """
    if seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    histories, seconds, teachers = {method: [] for method in METHODS}, {method: [] for method in METHODS}, []
    for seed in range(config.seed, config.seed + seeds):
        with data_of_seed(seed) as data:
            if seed == config.seed:
                plots.samples(folder / "samples.png", data, config.T, config.size)
            logits, accuracy, spent = _teacher(data, seed, folder, teacher, progress)
            teachers.append((accuracy, spent))
            for method in METHODS:
                chosen = dataclasses.replace(config, method=method, seed=seed)
                run = train(data, chosen, folder / f"{method}-seed{seed}", logits, progress)
                histories[method].append(run.history)
                seconds[method].append(sum(row["seconds"] for row in run.history))
            described = describe(data)
    text = table(histories, seconds, teachers, described, config)
    with written_whole(folder / "table.md") as temporary:
        temporary.write_text(text)
    plots.learning_curves(folder / "curves.png", histories)
    return text


def _teacher(data, seed, folder, given, progress):
    """Logits for every image, accuracy on the test images, seconds; trained once per folder and seed."""
    path = pathlib.Path(given) if given else folder / f"teacher-seed{seed}.h5"
    start = time.perf_counter()
    if not path.exists() and not given:
        save_logits(path, train_teacher(data, seed, progress=progress), data.classes)
    logits = load_logits(path, data)
    test = data.images_in("test")
    accuracy = float((logits[test].argmax(-1) == data.image_label[test]).mean())
    return logits, accuracy, time.perf_counter() - start


def describe(data):
    """One line on a data set: its classes and the sizes of its pools."""
    images = ", ".join(f"{len(data.images_in(split))} {split}" for split in ("teacher", "static", "test"))
    return (f"{len(data.classes)} classes; images: {images}; recordings: "
            f"{len(data.recordings_in('train'))} train, {len(data.recordings_in('test'))} test")


def table(histories, seconds, teachers, described, config):
    """The results in Markdown: mean over the seeds, and from two seeds on 95 % intervals and paired tests."""
    seeds = len(teachers)
    lines = [f"{described}.", f"{config.epochs} epochs of {config.batches} batches of {config.batch}; network "
             f"{config.network}, width {config.width:g}, T = {config.T}; {seeds} seed{'s' * (seeds > 1)}.", "",
             "| method | final accuracy | best epoch | final - snn | time |", "|---|---|---|---|---|",
             f"| teacher (images) | {_percent([accuracy for accuracy, _ in teachers])} | | | "
             f"{_minutes([spent for _, spent in teachers])} |"]
    final = {method: [h[-1]["accuracy_test"] for h in runs] for method, runs in histories.items()}
    for method, runs in histories.items():
        best = [max(row["accuracy_test"] for row in h) for h in runs]
        difference = "" if method == "snn" else _paired(final[method], final["snn"])
        lines.append(f"| {method} | {_percent(final[method])} | {_percent(best)} | {difference} | "
                     f"{_minutes(seconds[method])} |")
    return "\n".join(lines) + "\n"


def interval(values):
    """Mean and half-width of its 95 % confidence interval (Student's t); nan for one value."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, math.nan
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)


def _percent(values, sign=""):
    mean, half = interval(values)
    return f"{100 * mean:{sign}.1f} %" if math.isnan(half) else f"{100 * mean:{sign}.1f} ± {100 * half:.1f} %"


def _paired(values, others):
    """Mean difference with its interval and the p-value of the paired t-test."""
    differences = [a - b for a, b in zip(values, others)]
    if len(set(differences)) < 2:
        return _percent(differences, "+")
    return f"{_percent(differences, '+')} (p = {stats.ttest_rel(values, others).pvalue:.2g})"


def _minutes(values):
    return f"{sum(values) / len(values):.0f} s"
