"""From pairs to a file of paired data, by a conversion that can be interrupted; and the options that this takes.

The samples are loaded in shards, by several processes if there are several cores. Each shard becomes a file of its own
in OUT.h5.parts, whole or not at all, and is then copied to the output; so the output depends neither on the number of
processes nor on interruptions, and memory does not depend on the number of samples.
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
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ckd_ref.data.paired import PairedWriter
from ckd_ref.events import FormatError
from ckd_ref.data.errors import error_context
from ckd_ref.data.files import locked, atomic_write
from ckd_ref.training import ctrl_c

SHARD = 32
"""Samples per part: what an interruption loses at most per process."""


@dataclass(frozen=True)
class Sample:
    """One image ("images") or recording ("events") of the output, with the arguments of the writer."""

    group: str
    load: functools.partial
    label: int
    identity: int
    split: str


# The command line

def parser(doc, test="a tenth", images="all others", events="all of these", sensor_size=None):
    """An argument parser with the options of every converter; the texts or numbers are defaults of the counts.

    With a default for the sensor's size there is an option for it.
    """
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name, default, text):
        kind = {"default": default} if isinstance(default, int) else {}
        result.add_argument(name, type=int, metavar="N", help=f"{text} [{default}]", **kind)

    add("--test-per-class", test, "images for the test, all of them with their recordings")
    add("--images-per-class", images, "images for the static stream; what is left is for the teacher alone")
    add("--events-per-class", events, "training recordings, of the first of these images")
    add("--seed", 0, "of the split")
    add("--size", 48, "rows and columns of the images")
    add("--workers", os.cpu_count() or 1, "processes; the result does not depend on them")
    if sensor_size:
        result.add_argument("--sensor-size", type=int, nargs=2, default=sensor_size, metavar=("H", "W"),
                            help=f"rows and columns of the camera [{sensor_size[0]} {sensor_size[1]}]")
    result.add_argument("--leaky", action="store_true", help="let the static stream and the teacher see the images "
                        "that the test recordings filmed, as the baseline's split does")
    result.add_argument("--overwrite", action="store_true", help="replace OUT.h5 if it exists")
    return result


def parse(arguments, argv):
    """The options of a parser made here, checked."""
    options = arguments.parse_args(argv)
    test, images, events = options.test_per_class, options.images_per_class, options.events_per_class
    counts = [test, images, events, options.size, options.workers]
    if "sensor_size" in options:
        options.sensor_size = tuple(options.sensor_size)
        counts += options.sensor_size
    if min(n for n in counts if n is not None) < 1 or options.seed < 0:
        arguments.error("expected counts, sizes and --workers of at least 1 and --seed of at least 0")
    if images is not None and events is not None and events > images:
        arguments.error("expected --events-per-class <= --images-per-class: "
                        "the training recordings film the first static images")
    return options


@contextlib.contextmanager
def one_line_errors(program):
    """What is wrong with the input or the disk ends the program with one line, and so does Ctrl-C."""
    try:
        yield
    except (FormatError, OSError) as error:
        sys.exit(f"{program}: {error}")
    except concurrent.futures.BrokenExecutor:
        sys.exit(f"{program}: a process was ended from outside (too little memory?); the same command goes on, "
                 "--workers 1 needs the least")
    except KeyboardInterrupt:
        sys.exit(f"{program}: stopped; the same command goes on with the finished parts")


# The conversion

def samples(pairs, pools, leaky):
    """All samples in the order of the file: images, then recordings, pool by pool."""
    static = sorted(pools["static"] + pools["test"]) if leaky else pools["static"]
    return [Sample(group, pairs[i].image if group == "images" else pairs[i].recording, pairs[i].label, i, name)
            for group, name, pool in (("images", "teacher", pools["teacher"]), ("images", "static", static),
                                      ("images", "test", pools["test"]), ("events", "train", pools["train"]),
                                      ("events", "test", pools["test"]))
            for i in pool]


def convert(options, classes, sensor_size, pairs, pools):
    """Write ``options.out``; go on with the parts that an interrupted run of the same plan has left.

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
        A sample that cannot be used; its file is named. What is finished stays for the next run.
    KeyboardInterrupt
        Ctrl-C, noticed between two shards.
    OSError
        An existing output without ``overwrite``, another process that writes it, or disk trouble.
    """
    begin, out, names = time.perf_counter(), options.out, [pair.name for pair in pairs]
    plan = samples(pairs, pools, options.leaky)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no folder {out.parent} to write {out.name} into; make it first")
    with locked(out):
        if out.exists() and not options.overwrite:
            raise FileExistsError(f"{out} exists; give --overwrite to replace it")
        form = tuple(classes), sensor_size, options.size
        parts = parts_folder(options, repr((form, names)), plan)
        shards = [(parts / f"{k:05d}.npz", shard) for k, shard in enumerate(in_shards(plan))]
        with (PairedWriter(out, *form, names, options.leaky) as writer,
              finished_parts(shards, options.workers) as finished, ctrl_c() as pressed,
              tqdm(total=len(plan), desc=out.name, unit="sample") as bar):
            events = 0
            for (path, shard), _ in zip(shards, finished):
                events += merge(path, shard, writer)
                bar.update(len(shard))
                if pressed():                       # the exception itself may get lost inside h5py
                    raise KeyboardInterrupt
        shutil.rmtree(parts)
    seconds = time.perf_counter() - begin
    print(f"{out}: {len(classes)} classes; images: "
          + ", ".join(f"{sum(s.group == 'images' and s.split == pool for s in plan)} {pool}"
                      for pool in ("teacher", "static", "test"))
          + f"; recordings: {len(pools['train'])} train, {len(pools['test'])} test"
          + (" (leaky: images of the test are static as well)" if options.leaky else "")
          + f"; {events:,} events in {seconds:.0f} s")


def parts_folder(options, form, plan):
    """OUT.h5.parts, new or with parts of the same plan: of the same options and the same, unchanged source files."""
    folder = options.out.with_name(options.out.name + ".parts")
    digest = hashlib.sha256(form.encode())
    for sample in plan:
        values = sample.load.func.__name__, *sample.load.args, sample.group, sample.label, sample.identity, sample.split
        digest.update(repr(tuple(map(_identify, values))).encode("utf-8", "surrogateescape"))
    with contextlib.suppress(FileNotFoundError):
        if (folder / "plan").read_text() == digest.hexdigest():
            return folder
        if not options.overwrite:
            raise FileExistsError(f"{folder} holds parts of another conversion: its options or its source files were "
                                  "different; repeat that one, delete the folder, or give --overwrite")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
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
def finished_parts(shards, workers):
    """Yield an iterator with one step per shard; when it has taken the step, the part is there."""
    if workers == 1:
        yield itertools.starmap(write_part, shards)
        return
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start_worker)
    try:
        futures = [pool.submit(write_part, *shard) for shard in shards]
        yield (future.result() for future in futures)
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker():
    """Leave Ctrl-C to the process that started this one, and end when it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch = threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True)
    watch.start()


def write_part(path, shard):
    """Load the samples of a shard and write them one after the other, if the part is not there yet."""
    if path.exists():
        return
    contents = [sample.load() for sample in shard]
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, contents=np.concatenate(contents), ends=np.cumsum([len(content) for content in contents]))


def merge(path, shard, writer):
    """Copy a part to the output; returns its number of events. A damaged one is removed, for the next run to make."""
    try:
        with error_context(path, "repeat the command"), np.load(path, allow_pickle=False) as part:     # it has checksums
            contents = np.split(part["contents"], part["ends"][:-1])
            for sample, content in zip(shard, contents, strict=True):
                add = writer.add_image if sample.group == "images" else writer.add_recording
                add(content, sample.label, sample.identity, sample.split)
    except FormatError:
        path.unlink(missing_ok=True)
        raise
    return sum(map(len, contents)) if shard[0].group == "events" else 0
