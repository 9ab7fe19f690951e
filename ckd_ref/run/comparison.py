"""The main job: a teacher and the ladder of students on one data set, their table and pictures."""

import dataclasses
import os
import pathlib

from ..config import Config
from ..data import glyphs
from ..data.errors import printable
from ..data.files import atomic_write
from ..teacher import EPOCHS
from . import plots
from .report import variants_table
from .session import read_rows
from .sweep import LADDER, MOST_SEEDS, Job, spec_variants, sweep


def compare(
    data: str | os.PathLike, config: Config, folder: str | os.PathLike, seeds: int = 1,
    teacher: str | os.PathLike | None = None, workers: int = 2, methods: list[str] | None = None,
    teacher_epochs: int = EPOCHS, progress: bool = True,
) -> str:
    """Train every variant of the ladder with the same data, draws and updates, once per seed.

    Runs go side by side in processes of one BLAS thread each, so their results are bit-identical
    for any number of workers. What is finished in `folder` is not repeated. On Ctrl-C, or when one
    of them fails, the others save after their batch and stop.

    Parameters
    ----------
    data : path or str
        A file of paired data, or the name of an embedded set, "digits" or "symbols", of which
        every seed has its own.
    config : Config
        Shared by all runs but for what distinguishes the variants, and the seed, which counts up.
    folder : path
        Gets one folder per run, the teachers, ``table.md``, ``curves.png`` and ``samples.png``.
    seeds : int
        Number of repetitions, each with a teacher of its own.
    teacher : path, optional
        A teacher or logits to use in place of a teacher trained here; see `load_teacher`.
    workers : int
        Number of processes.
    methods : list of str, optional
        Names from `VARIANTS` to compare in place of the ladder, all with the first.
    teacher_epochs : int
        Length of the training of a teacher here.
    progress : bool
        Show a progress bar for every run; where there is no terminal, write a line per epoch.

    Returns
    -------
    table : str, Markdown

    Raises
    ------
    ValueError, FormatError, BlockingIOError, FloatingPointError, ChildProcessError,
    KeyboardInterrupt
        As `sweep`.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"expected 1 ... {MOST_SEEDS} seeds, got {seeds}")
    variants = spec_variants({"variants": list(methods or LADDER)})
    folder, path = pathlib.Path(folder), str(data)
    label = path if path in glyphs.SETS else printable(pathlib.Path(path).stem)
    jobs = []
    for seed in range(config.seed, config.seed + seeds):
        for variant, own in variants.items():
            chosen = dataclasses.replace(config, seed=seed, **own)
            given = str(teacher) if teacher else None
            jobs.append(Job(label, path, variant, chosen, given, teacher_epochs))
    lines = sweep(jobs, folder, workers=workers, bars=True, progress=progress)
    with jobs[0].open() as first:
        plots.samples(folder / "samples.png", first, config.T, config.size)
    text = variants_table(lines, methods[0] if methods else None)
    with atomic_write(folder / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    histories: dict = {variant: [] for variant in variants}
    for job in jobs:
        histories[job.variant].append(read_rows(folder / job.name / "log.jsonl"))
    plots.learning_curves(folder / "curves.png", histories)
    return text
