"""Many runs: what to run, on what, and one line of JSON for each that has finished."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import signal
import threading
import time
import tomllib
from importlib import metadata

import numpy as np
from tqdm import tqdm

from ..config import Config
from ..data import glyphs
from ..data.files import locked, open_file, remove_leftovers
from ..data.paired import IMAGE_SPLITS, PairedData, open_paired
from ..events import FormatError
from ..teacher import EPOCHS, untrained_teacher
from .arguments import unused
from .preflight import check_memory, check_run
from .process_group import prepare_process
from .progress import Progress
from .session import seconds_of, train, write_rows
from .teachers import check_only_teacher, kept_teacher, load_teacher, logits_of

LADDER = {
    "events": {"method": "snn"},
    "static": {"method": "transfer", "beta": 0.0},
    "transfer": {"method": "transfer"},
    "ckd": {"method": "ckd"},
    "published": {"method": "transfer", "reading": "baseline", "beta": 0.5},
}
"""Variants, each but the last one step from the one before: events alone; the static stream, whose
images turn into events; the alignment of both; the teacher. The last is the baseline as its authors
ran it, to which the paper compares its ckd."""

TABLE1 = {
    "tet": {"method": "snn"},
    "nda": {"method": "nda"},
    "eventmix": {"method": "eventmix"},
    "tks": {"method": "tks"},
    "etc": {"method": "etc"},
    "transfer": LADDER["transfer"],
    "ckd": LADDER["ckd"],
}
"""The rows of Table I."""

MOST_SEEDS = 10_000
"""Far more, a slip of the finger, would fill the memory with jobs."""

VARIANTS = {"snn": TABLE1["tet"]} | LADDER | TABLE1
"""All variants that have a name."""

KEYS = {
    "title", "seeds", "data", "options", "variants", "grid", "teachers", "reference", "beside",
}
"""What a spec may say, see `read_spec`."""

_stop = None
"""In a worker: whether the sweep has been stopped. Such an event cannot be pickled."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes
    ----------
    data : str
        What tables call the data.
    path : str
        File of paired data, or an embedded set, of which every seed has its own.
    variant : str
        What tables call the options.
    config : Config
    teacher : str, optional
        File of a teacher or of logits, in place of a teacher trained here, one for each seed.
    teacher_epochs : int
        Length of the training of a teacher here.
    """

    data: str
    path: str
    variant: str
    config: Config
    teacher: str | None = None
    teacher_epochs: int = EPOCHS

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.data}-{self.variant}-seed{self.config.seed}"

    def open(self) -> PairedData:
        """The data of this job."""
        path = self.path
        if path in glyphs.SETS:
            config = self.config
            path = glyphs.cached(
                seed=config.seed, size=config.size, characters=path, progress=False
            )
        return open_paired(path)


def read_spec(path: str | os.PathLike) -> list[Job]:
    """The jobs of a sweep, all of a seed before those of the next.

    The file has ``seeds = [FIRST, COUNT]``; the tables ``[data]``, names and files or embedded
    sets; ``[options]``, fields of `Config` for all runs; ``[variants.NAME]``, those of each
    variant, or ``variants = [NAMES]`` of `VARIANTS`; ``[grid]``, lists of values for fields, of
    which every combination is run, or several such tables ``[[grid]]``; and ``[teachers]``, files
    by the name of the data. Only the first two have to be there. For `report` there are a
    ``title``, a ``reference``, the variant with which all others are compared, and ``beside``,
    variants of other sweeps to show as well.

    Parameters
    ----------
    path : path of a TOML file; names of files in it are relative to its folder.

    Returns
    -------
    jobs : list of Job

    Raises
    ------
    FormatError
        No TOML, unknown names, or values that `Config` refuses; the message names the file.
    """
    path = pathlib.Path(path)
    try:
        with open_file(path) as file:
            spec = tomllib.load(file)
        first, count = spec["seeds"]
        if unknown := set(spec) - KEYS:
            raise ValueError(f"expected the keys {', '.join(sorted(KEYS))}, got {unknown}")
        if first < 0 or not 1 <= count <= MOST_SEEDS:
            raise ValueError(
                f"expected a first seed >= 0 and 1 ... {MOST_SEEDS} of them, got [{first}, {count}]"
            )
        runs = spec_runs(spec)
        if unknown := set(spec.get("teachers", {})) - set(spec["data"]):
            raise ValueError(f"expected teachers of data that is named, got {unknown}")
        if any("seed" in own for own in (spec.get("options", {}), *(own for _, own in runs))):
            raise ValueError("expected the seeds in seeds = [FIRST, COUNT] alone")
        jobs = []
        for seed, (data, file), (variant, own) in itertools.product(
            range(first, first + count), spec["data"].items(), runs
        ):
            config = Config(**spec.get("options", {}) | own | {"seed": seed})
            teacher = spec.get("teachers", {}).get(data)
            file = file if file in glyphs.SETS else str(path.parent / file)
            teacher = teacher and str(path.parent / teacher)
            jobs.append(Job(data, file, variant, config, teacher))
        _check_used(spec)
        if not jobs or len({job.name for job in jobs}) < len(jobs):
            raise ValueError(f"expected at least one run, and every run once, got {len(jobs)}")
        return jobs
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(
            f"{path}: expected a sweep with seeds = [FIRST, COUNT] and a table [data], "
            f"got {type(error).__name__}: {error}"
        ) from None


def _check_used(spec):
    """Refuse an option that changes no run, or a variant's own that does not change it."""
    options, variants, varied = spec.get("options", {}), spec_variants(spec), spec_fields(spec)
    if "method" in varied:
        return
    methods = {name: (options | own).get("method", Config.method) for name, own in variants.items()}
    for name in sorted({*options, *varied, *(["teacher"] if spec.get("teachers") else [])}):
        left = {method for variant, method in methods.items() if name not in variants[variant]}
        if not left:
            raise ValueError(f"every variant sets {name} itself")
        if found := unused(name, left):
            raise ValueError(f"{name} is for {found}")
    for variant, own in variants.items():
        for name in own:
            if found := unused(name, {methods[variant]}):
                raise ValueError(f"{variant}: {name} is for {found}")


def spec_variants(spec: dict) -> dict[str, dict]:
    """Options of each variant of a spec, by its name; by default the ladder."""
    variants = spec.get("variants", list(LADDER))
    if isinstance(variants, list):
        if unknown := [name for name in variants if name not in VARIANTS]:
            raise ValueError(f"expected variants among {', '.join(VARIANTS)}, got {unknown}")
        if len(set(variants)) < len(variants):
            raise ValueError(f"expected every variant once, got {', '.join(variants)}")
        variants = {name: VARIANTS[name] for name in variants}
    return variants


def spec_grids(spec: dict) -> list[dict]:
    """The grids of a spec, lists of values by field; an empty one if there is none."""
    grids = spec.get("grid", {})
    return grids if isinstance(grids, list) else [grids]


def spec_fields(spec: dict) -> set[str]:
    """The fields that a spec's grids vary."""
    return {name for grid in spec_grids(spec) for name in grid}


def spec_runs(spec: dict) -> list[tuple[str, dict]]:
    """Name and options of every variant of a spec in every cell of its grids."""
    found = []
    for grid in spec_grids(spec):
        for values in itertools.product(*grid.values()):
            cell = dict(zip(grid, values))
            suffix = "".join(f"-{name}-{value}" for name, value in cell.items())
            for variant, own in spec_variants(spec).items():
                if clash := cell.keys() & own.keys():
                    raise ValueError(f"{variant} and a grid set {', '.join(clash)}")
                found.append((f"{variant}{suffix}", cell | own))
    return found


def sweep(
    jobs: list[Job], folder: str | os.PathLike, lines: str | os.PathLike | None = None,
    workers: int = 1, scheduler: str | None = None, bars: bool = False, progress: bool = True,
) -> list[dict]:
    """Run what has no line yet, and append a line for each run that finishes.

    Before the first run begins, every job is checked; see `check_jobs`. A scheduler's workers may
    have more memory, and check their own.

    A line stands for its run: data, variant and configuration are compared, not the contents of
    the data file or the teacher. A run whose line is deleted is run again.

    Parameters
    ----------
    jobs : list of Job
    folder : path
        For the runs' own folders and the teachers; a run that was interrupted resumes.
    lines : path, optional
        A file of one JSON object per finished run; see `run_job`. Without it nothing is skipped,
        and a run that has finished in its folder is read from there.
    workers : int
        Number of processes of one BLAS thread each.
    scheduler : str, optional
        Address of a dask.distributed scheduler, whose workers are used instead of processes here.
        They must have `ckd_ref`, see the same folders, and have one thread each.
    bars : bool
        Whether every run shows its progress, instead of the sweep.
    progress : bool
        Whether anything shows its progress.

    Returns
    -------
    finished : list of dict, the lines of these jobs in their order.

    Raises
    ------
    ValueError, FormatError, BlockingIOError, FloatingPointError
        As `train`. The others stop after their batch; what has finished has its line.
    OSError
        A file that is missing or unreadable.
    ChildProcessError
        A process was killed.
    KeyboardInterrupt
        Stopped; every run is saved.
    """
    folder = pathlib.Path(folder)
    if not scheduler:
        ended = {key(line) for line in read_lines(lines)}
        check_jobs([job for job in jobs if key(job) not in ended], folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        remove_leftovers(folder)
        finished = read_lines(lines)
        done = {key(line): line for line in finished}
        waiting = [job for job in jobs if key(job) not in done]
        variants = list(dict.fromkeys(job.variant for job in jobs))
        bar = Progress(
            "sweep", len(jobs), "run", progress and not bars, len(jobs) - len(waiting), smoothing=0
        )
        with _executor(workers, scheduler) as pool, bar:
            futures = [
                pool.submit(
                    run_job, job, folder,
                    1 + variants.index(job.variant) if bars and progress else None,
                )
                for job in waiting
            ]
            for future in concurrent.futures.as_completed(futures):
                line = future.result()
                done[key(line)] = line
                finished.append(line)
                if lines:
                    write_rows(lines, finished)
                bar.step()
                bar.note(f"{len(done)} of {len(jobs)} runs")
    return [done[key(job)] for job in jobs]


def check_jobs(jobs: list[Job], folder: str | os.PathLike) -> None:
    """Refuse jobs that this machine or folder cannot have, before any runs; see `check_run`.

    Embedded sets are not made for that. Raises what opening their files and teachers raises, too.
    """
    by_files: dict = {}
    for job in jobs:
        by_files.setdefault((job.path, job.teacher), []).append(job)
        if job.config.method == "ckd" and not job.teacher:
            check_only_teacher(_teacher_file(job, folder), job.teacher_epochs)
    for (path, teacher), own in by_files.items():
        if path in glyphs.SETS:
            for job in own:
                check_memory(job.config, len(glyphs.SETS[path].characters))
            continue
        with open_paired(path) as data:
            for job in own:
                check_run(data, job.config)
            if "ckd" in {job.config.method for job in own}:
                load_teacher(teacher, data) if teacher else untrained_teacher(data)


def run_job(job: Job, folder: str | os.PathLike, position: int | None = None) -> dict:
    """Train the teacher of a job, unless it is there, and its student.

    Parameters
    ----------
    job : Job
    folder : path
    position : int, optional
        Line of its progress on the screen; without it none is shown.

    Returns
    -------
    line : dict
        data, variant, seed; the configuration; what the data holds; the test accuracy after every
        epoch; the teacher's accuracy on the test images, if there are any; seconds; versions and
        machine.
    """
    prepare_process()
    folder = pathlib.Path(folder)
    bar: dict = {"progress": position is not None, "bar_position": position or 0}
    with job.open() as data:
        check_run(data, job.config)
        teacher, line = None, {}
        if job.config.method == "ckd":
            teacher, seconds = _teacher(job, data, folder, bar)
            line = {"seconds_teacher": seconds}
            if len(test := data.images_in("test")):
                right = logits_of(teacher, data, test).argmax(-1) == data.image_label[test]
                line["accuracy_teacher"] = float(right.mean())
        run = train(
            data, job.config, folder / job.name, teacher, stop=_stop, label=job.name, **bar
        )
        described = describe(data)
    return {
        "data": job.data, "variant": job.variant, "seed": job.config.seed, "described": described,
        "leaky": data.leaky, "accuracy": [row["accuracy_test"] for row in run.history], **line,
        "seconds": round(seconds_of(folder / job.name), 1),
        "config": dataclasses.asdict(job.config), "teacher": job.teacher and "given",
        "versions": versions(), "machine": machine(),
    }


def _teacher(job, data, folder, bar):
    """The teacher of a job, and the seconds that its training has taken here."""
    if job.teacher:
        return load_teacher(job.teacher, data), 0.0
    path = _teacher_file(job, folder)
    start = time.perf_counter()
    # Another job of this seed may be training it.
    teacher = kept_teacher(
        path, data, job.config.seed, job.teacher_epochs, path.stem, stop=_stop, wait=True, **bar
    )
    return teacher, round(time.perf_counter() - start, 1)


def _teacher_file(job, folder):
    return pathlib.Path(folder, f"{job.data}-teacher-seed{job.config.seed}.h5")


def describe(data: PairedData) -> str:
    """One line on a data set: its classes and the sizes of its pools."""
    images = ", ".join(f"{len(data.images_in(split))} {split}" for split in IMAGE_SPLITS)
    recordings = ", ".join(
        f"{len(data.recordings_in(split))} {split}" for split in ("train", "test")
    )
    return f"{len(data.classes)} classes; images: {images}; recordings: {recordings}"


def versions() -> dict[str, str]:
    """Those of this package, of Python and of the libraries that compute."""
    names = "ckd_ref", "numpy", "scipy", "autograd"
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def machine():
    """The kind of machine, in a few words."""
    features = np._core._multiarray_umath.__cpu_features__
    best = [name for name in ("AVX512F", "AVX2", "NEON") if features.get(name)]
    return " ".join([platform.system(), platform.machine(), *best[:1]])


def key(run: Job | dict) -> tuple[str, str, Config]:
    """What identifies a Job or a line within a sweep: data, variant, configuration."""
    if isinstance(run, Job):
        return run.data, run.variant, run.config
    return run["data"], run["variant"], Config(**run["config"])


def read_lines(path: str | os.PathLike | None) -> list[dict]:
    """The lines of finished runs in a file, none if there is no file, or no name of one.

    A last line that was cut off, as by a power failure, is left out.
    """
    if path is None or not pathlib.Path(path).exists():
        return []
    path = pathlib.Path(path)
    with open_file(path) as file:
        texts = file.read().decode("utf-8", "replace").split("\n")        # no JSON: told below
    lines: dict = {}                                           # by what identifies them
    for number, text in enumerate(texts[:-1], 1):
        try:
            line = json.loads(text)
            _check_line(line)
            run = key(line)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FormatError(
                f"{path}, line {number}: expected the JSON object of a run; remove the line, and "
                "the sweep repeats it"
            ) from None
        if run in lines:
            raise FormatError(f"{path}, line {number}: the run of a line before; remove one")
        lines[run] = line
    return list(lines.values())


def _check_line(line):
    """Raise an error of any kind unless a line has all that is read of it beside its `key`."""
    strings, accuracy = [line[name] for name in ("data", "variant", "described")], line["accuracy"]
    whole = type(line["seed"]) is int and type(line["leaky"]) is bool and line["seconds"] >= 0
    if not (whole and all(map(str.isprintable, strings)) and accuracy):
        raise ValueError
    if not all(0 <= share <= 1 for share in accuracy):
        raise ValueError


@contextlib.contextmanager
def _executor(workers, scheduler):
    """Yield an executor of `concurrent.futures`; when the block ends, what has not begun does not.

    Ctrl-C, or an exception in the block, stops the runs of a pool of processes after their batch.
    """
    if scheduler:
        with _cluster(scheduler) as pool:
            yield pool
        return
    if workers < 1:
        raise ValueError(f"expected at least one worker, got {workers}")
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, _start_worker, (context.RLock(), stop)
    )
    try:
        yield pool
    except concurrent.futures.process.BrokenProcessPool:
        raise ChildProcessError(
            "a process of the sweep was killed, perhaps for want of memory; the same command "
            "resumes it, --workers 1 needs the least memory"
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; every run is saved") from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _cluster(address):
    """Yield an executor of the workers of a dask.distributed scheduler."""
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            "--scheduler needs dask.distributed: pip install 'ckd_ref[distributed]'"
        ) from None
    with Client(address, timeout=10) as client:
        pool = client.get_executor(pure=False)
        try:
            yield pool
        finally:
            pool.shutdown(wait=False)


def _start_worker(screen, stop):
    """Prepare a worker that ends with its parent, however that ends, and stops when told to.

    Ctrl-C reaches both; the parent decides.
    """
    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)                                            # safe: files are written atomically

    prepare_process()
    tqdm.set_lock(screen)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    global _stop
    _stop = stop.is_set
