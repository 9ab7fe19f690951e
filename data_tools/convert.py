"""Convert pairs to a file of paired data: command-line options and a resumable conversion.

Samples are loaded in shards by several processes. Each shard is written atomically to a file in
OUT.h5.parts and then copied to the output. The output is therefore bit-identical for any number
of processes and after any interruption, and memory does not grow with the number of samples.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np

from ckd_ref.data.errors import PROBLEMS, error_context, in_words, printable
from ckd_ref.data.files import atomic_write, locked, open_file
from ckd_ref.data.paired import PairedWriter
from ckd_ref.events import FormatError
from ckd_ref.run.progress import Progress
from ckd_ref.run.session import ctrl_c

SHARD = 32
"""Samples per part: the most that an interruption loses per process."""

OURS = re.compile(r"\.{0,2}(plan|[0-9]{5,}\.npz)(\.tmp)?(\.lock)?")
"""Names of files in OUT.h5.parts, with those that a killed `atomic_write` leaves."""


@dataclass(frozen=True)
class Sample:
    """One image (group "images") or recording ("events") of the output: arguments of the writer."""

    group: str
    load: functools.partial
    label: int
    identity: int
    split: str


# The command line

def parser(doc, test="a tenth", images="all others", events="all of these", sensor_size=None):
    """An argument parser with the options that all converters share.

    `test`, `images` and `events` are the default counts, or describe them; so does `sensor_size`,
    without which there is no `--sensor-size`.
    """
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(name, default, text):
        kind = {"default": default} if isinstance(default, int) else {}
        result.add_argument(name, type=int, metavar="N", help=f"{text} [{default}]", **kind)

    add("--test-per-class", test, "images for the test, all of them with their recordings")
    add("--images-per-class", images, "images for the static stream; the teacher gets the rest")
    add("--events-per-class", events, "training recordings, of the first of these images")
    add("--seed", 0, "of the split")
    add("--size", 48, "rows and columns of the images")
    add("--workers", os.cpu_count() or 1, "processes; the result is the same for any number")
    if sensor_size:
        size = {"default": sensor_size} if isinstance(sensor_size, tuple) else {}
        shown = " ".join(map(str, sensor_size)) if size else sensor_size
        result.add_argument(
            "--sensor-size", type=int, nargs=2, metavar=("H", "W"),
            help=f"rows and columns of the camera [{shown}]", **size,
        )
    result.add_argument(
        "--leaky",
        action="store_true",
        help=(
            "let the static stream and the teacher see the images that the test recordings "
            "filmed, as the baseline's split does"
        ),
    )
    result.add_argument("--overwrite", action="store_true", help="replace OUT.h5 if it exists")
    return result


def parse(arguments, argv, filmed=lambda options: True):
    """Parse and validate the options of a `parser`.

    `filmed` says of the options whether the recordings filmed the images.
    """
    options = arguments.parse_args(argv)
    test = options.test_per_class
    images = options.images_per_class
    events = options.events_per_class
    counts = [test, images, events, options.size, options.workers]
    if getattr(options, "sensor_size", None):
        options.sensor_size = tuple(options.sensor_size)
        counts += options.sensor_size
    if min(n for n in counts if n is not None) < 1 or options.seed < 0:
        arguments.error(
            "expected counts, sizes and --workers of at least 1 and --seed of at least 0"
        )
    if filmed(options) and None not in (images, events) and events > images:
        arguments.error(
            "expected --events-per-class <= --images-per-class: "
            "the training recordings film the first static images"
        )
    return options


def for_terminal(text):
    """Text with names of files: see `printable`, but a list keeps a line for each entry."""
    return "\n  ".join(map(printable, str(text).split("\n  ")))


@contextlib.contextmanager
def one_line_errors(program):
    """End the program with a one-line message on any of `PROBLEMS` and on Ctrl-C."""
    try:
        yield
    except PROBLEMS as error:
        said = in_words(error, "a smaller --size or --workers 1")
        sys.exit(f"{program}: {for_terminal(said)}")
    except concurrent.futures.BrokenExecutor:
        sys.exit(
            f"{program}: a worker process died (out of memory, or by a damaged file); "
            "repeat the command to resume, with --workers 1 for the least memory"
        )
    except KeyboardInterrupt:
        sys.exit(f"{program}: stopped; repeat the command to resume with the finished parts")


# The conversion

def samples(pairs, pools, leaky):
    """All samples in the order of the file: images, then recordings, pool by pool.

    A pair without an image or without a recording contributes the other.
    """
    static = sorted(pools["static"] + pools["test"]) if leaky else pools["static"]
    images = ("teacher", pools["teacher"]), ("static", static), ("test", pools["test"])
    recordings = ("train", pools["train"]), ("test", pools["test"])
    plan = []
    for name, pool in images:
        plan += [Sample("images", pairs[i].image, pairs[i].label, i, name) for i in pool]
    for name, pool in recordings:
        plan += [Sample("events", pairs[i].recording, pairs[i].label, i, name) for i in pool]
    return [sample for sample in plan if sample.load]


def convert(options, classes, sensor_size, pairs, pools):
    """Write ``options.out``, resuming with the parts of an interrupted run of the same plan.

    Parameters
    ----------
    options : namespace
        With ``out``, ``size``, ``workers``, ``leaky`` and ``overwrite``; see `parser`.
    classes, sensor_size
        As for `PairedWriter`.
    pairs : sequence of Pair
        A pair's position is its identity in the file.
    pools : dict
        As `pairing.split` returns it.

    Raises
    ------
    FormatError
        An unusable sample; the message names its file. Finished parts are kept for the next
        run.
    KeyboardInterrupt
        Ctrl-C, handled between two shards.
    OSError
        An existing output without ``overwrite``, another process writing it, something that is
        not ours at the name of the parts, or a disk error.
    """
    begin = time.perf_counter()
    out = options.out
    names = [pair.name for pair in pairs]
    plan = samples(pairs, pools, options.leaky)
    check_output(options)
    with locked(out):
        check_output(options)  # again: another process may have written it before it let go
        form = tuple(classes), sensor_size, options.size
        parts = parts_folder(options, repr((form, names)), plan)
        shards = [(parts / f"{k:05d}.npz", shard) for k, shard in enumerate(in_shards(plan))]
        with (
            PairedWriter(out, *form, names, options.leaky) as writer,
            in_processes(write_part, shards, options.workers) as finished,
            ctrl_c() as pressed,
            Progress(out.name, len(plan), unit="sample") as shown,
        ):
            events = 0
            for (path, shard), _ in zip(shards, finished):
                events += merge(path, shard, writer)
                shown.step(len(shard))
                if pressed():  # inside h5py the exception itself might get lost
                    raise KeyboardInterrupt
        remove_parts(parts)
    seconds = time.perf_counter() - begin
    images = [sample.split for sample in plan if sample.group == "images"]
    recordings = [sample.split for sample in plan if sample.group == "events"]
    leaky = " (leaky: test images are static as well)" if options.leaky else ""
    print(
        f"{printable(out)}: {len(classes)} classes; images: {images.count('teacher')} teacher, "
        f"{images.count('static')} static, {images.count('test')} test; "
        f"recordings: {recordings.count('train')} train, {recordings.count('test')} test{leaky}; "
        f"{events:,} events in {seconds:.0f} s"
    )


def check_output(options):
    """Refuse, before any work, an output that cannot be written."""
    out = options.out
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} into; make it first")
    if out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} exists; give --overwrite to replace it")
    folder = parts_of(out)
    if came := _not_ours(folder):
        raise FileExistsError(
            f"{folder}: expected nothing, or the parts of a conversion, got {came}; "
            "move it away, or give another OUT.h5"
        )


def parts_of(out):
    return out.with_name(out.name + ".parts")


def _not_ours(folder):
    """What has the name of the parts but is not ours, in words, or None."""
    if folder.is_symlink():
        return "a link"
    if not folder.exists():
        return None
    if not folder.is_dir():
        return "something else than a folder"
    if read_plan(folder):
        return None
    # A kill before the plan was written leaves the folder empty, or with these two.
    others = sorted(set(os.listdir(folder)) - {".plan.tmp", "..plan.tmp.lock"})
    return f"a folder with {others[0]}" if others else None


def read_plan(folder):
    """The digest in the plan of a folder of parts, by which it is known as ours, or None."""
    path = folder / "plan"
    if not path.is_file():
        return None
    with open_file(path) as file:
        digest = file.read(65)
    return digest.decode() if re.fullmatch(rb"[0-9a-f]{64}", digest) else None


def remove_parts(folder):
    """Delete our own files, and the folder unless something else is in it."""
    for name in sorted(filter(OURS.fullmatch, os.listdir(folder))):
        (folder / name).unlink(missing_ok=True)  # the plan last: it marks the folder as ours
    with contextlib.suppress(OSError):
        folder.rmdir()


def parts_folder(options, form, plan):
    """OUT.h5.parts, new or with parts of the same plan: equal options, unchanged source files."""
    folder = parts_of(options.out)
    digest = hashlib.sha256(form.encode())
    for sample in plan:
        values = (
            sample.load.func.__name__, *sample.load.args, sample.group, sample.label,
            sample.identity, sample.split,
        )
        digest.update(repr(tuple(map(_identify, values))).encode("utf-8", "surrogateescape"))
    found = read_plan(folder)
    if found == digest.hexdigest():
        return folder
    if found and not options.overwrite:
        raise FileExistsError(
            f"{folder} holds parts of another conversion: its options or its source files "
            "were different; repeat that one, delete the folder, or give --overwrite"
        )
    if found:
        remove_parts(folder)
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / "plan") as temporary:
        temporary.write_text(digest.hexdigest())
    return folder


def _identify(value):
    if isinstance(value, pathlib.Path):
        stat = value.stat()
        return str(value.resolve()), stat.st_size, stat.st_mtime_ns
    return value.tobytes() if isinstance(value, np.ndarray) else value


def in_shards(plan):
    """Lists of at most `SHARD` samples, each of images or of recordings only."""
    for _, group in itertools.groupby(plan, key=lambda sample: sample.group):
        while shard := list(itertools.islice(group, SHARD)):
            yield shard


@contextlib.contextmanager
def in_processes(function, calls, workers):
    """Yield an iterator over the results of a function, one per tuple of arguments, in order."""
    if workers == 1:
        yield itertools.starmap(function, calls)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, spawn, start_worker)
    try:
        futures = [pool.submit(function, *call) for call in calls]
        yield (future.result() for future in futures)
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker():
    """Leave Ctrl-C to the parent process, and exit when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_part(path, shard):
    """Load the samples of a shard and write them in sequence, unless the part exists."""
    if path.exists():
        return
    contents = [sample.load() for sample in shard]
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            contents=np.concatenate(contents),
            ends=np.cumsum([len(content) for content in contents]),
        )


def merge(path, shard, writer):
    """Copy a part to the output and return its number of events.

    A damaged part is removed, so that the next run writes it again.
    """
    try:
        # The zip format of npz has checksums.
        with (
            error_context(path, "repeat the command"), open_file(path) as file,
            np.load(file, allow_pickle=False) as part,
        ):
            contents = np.split(part["contents"], part["ends"][:-1])
            for sample, content in zip(shard, contents, strict=True):
                add = writer.add_image if sample.group == "images" else writer.add_recording
                add(content, sample.label, sample.identity, sample.split)
    except FormatError:
        path.unlink(missing_ok=True)
        raise
    return sum(map(len, contents)) if shard[0].group == "events" else 0
