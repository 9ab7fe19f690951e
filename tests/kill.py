"""Kill runs and conversions again and again and look at what is left.

    python tests/kill.py --kills 25 [train compare nmnist ncaltech101 cepdvs film folders]

Each time a process works on tiny data and is killed at a random moment, in turn by SIGKILL and
SIGTERM. Repeated, it has to end with the very bytes of one that was never interrupted, and nothing
else may be left in its folder.

train
    The process that trains, which has another one for the second stream. The last checkpoint that
    it had finished, or a newer one, has to load.
compare
    A worker of the main job, which has to end with one line, or with its table.
nmnist, ncaltech101, ...
    A converter, or one of its workers.

In the processes that are killed, and only there, writing is slowed down, so that many kills fall
into it.
"""

import argparse
import collections
import contextlib
import csv
import gzip
import importlib
import io
import itertools
import mmap
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import scipy.io
from PIL import Image

from ckd_ref.config import Config
from ckd_ref.data import files, glyphs
from ckd_ref.data.paired import open_paired
from ckd_ref.events import EVENT_DTYPE
from ckd_ref.run import session
from ckd_ref.run.checkpoint import load_latest

sys.path.append(str(pathlib.Path(__file__).parents[1] / "data_tools"))

SIZES = {"width": 0.0625, "T": 2, "size": 16, "epochs": 3, "batches": 2, "batch": 4, "padding": 1}
CONFIG = Config(method="transfer", **SIZES)
NAMES = ["checkpoint.h5", "checkpoint.previous.h5", "log.jsonl", "times.jsonl"]
SAME = [name for name in NAMES if name != "times.jsonl"]
SIGNALS = signal.SIGKILL, signal.SIGTERM


def slow_down_writing():
    """Pauses in the steps of writing, for the process that is killed."""

    def slowed(function, pause):
        def slow(*args):
            time.sleep(pause)
            result = function(*args)
            time.sleep(pause)
            return result

        return slow

    os.fsync, os.replace = slowed(os.fsync, 0.002), slowed(os.replace, 0.002)
    files._TakesAll.write = slowed(files._TakesAll.write, 0.0001)


def apart(function, *args):
    """Call a function in a forked process that writes slowly; returns its number."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)       # also that of its own processes
            slow_down_writing()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(sys.stdout):
                function(*args)
        finally:
            os._exit(0)
    return child


def duration(start):
    """Seconds of a whole run: the shorter of two, as disks stall at times."""
    seconds = []
    for k in range(2):
        begin = time.perf_counter()
        os.waitpid(start(f"slow{k}"), 0)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def workers_of(process):
    """The worker processes that a process has started and that still run (Linux)."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for task in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return [child for child in found if b"spawn_main" in command_of(child)]


def command_of(process):
    """The command line of a process, empty if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


# Training

def train(data, folder, processes=1):
    return session.train(data, CONFIG, folder, progress=False, processes=processes)


def train_apart(data, folder):
    """Start to train in a forked process, which has another one for the second stream.

    Returns the number of the first and a byte that counts its saves and outlives it.
    """
    saves = mmap.mmap(-1, 1)
    save = session.save_checkpoint

    def counted(*args):
        save(*args)
        saves[0] += 1

    def work():
        session.save_checkpoint = counted
        train(data, folder, processes=2)

    return apart(work), saves


def where(folder):
    """What the process was doing when it was killed, by the files that it left."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if "checkpoint.previous.h5" in names and "checkpoint.h5" not in names:
        return "train: between the two renames of a checkpoint"
    for name in NAMES:
        if f".{name}.tmp" in names:
            return f"train: writing {name}"
    return "train: reading data or training" if ".lock" in names else "train: before or after"


def kill_training(data, folder, kills, rng):
    """Kill that many runs; yields where each kill fell.

    Raises AssertionError at the first that does not survive.
    """
    whole = folder / "whole"
    train(data, whole)
    longest = duration(lambda name: train_apart(data, folder / name)[0])
    for k in range(kills):
        run = folder / str(k)
        child, saves = train_apart(data, run)
        time.sleep(rng.uniform(0, longest))
        os.kill(child, SIGNALS[k % 2])
        os.waitpid(child, 0)
        yield where(run)
        found = load_latest(run / "checkpoint.h5")
        epoch = found[0].epoch if found else 0
        assert saves[0] <= epoch <= saves[0] + 1, (
            f"kill {k}: {saves[0]} epochs were saved, epoch {epoch} loads"
        )
        train(data, run)
        assert sorted(path.name for path in run.iterdir()) == NAMES, (
            f"kill {k}: {sorted(run.iterdir())}"
        )
        for name in SAME:
            assert (run / name).read_bytes() == (whole / name).read_bytes(), (
                f"kill {k}: {name} differs"
            )


# The main job

def kill_workers(data, folder, kills, rng):
    """Kill workers of the main job; yields what it said."""
    sizes = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "ckd_ref", "compare", str(data.path), *sizes, "--workers", "2",
               "--methods", "snn,transfer", "--seeds", "2", "--out"]
    options = {"cwd": pathlib.Path(__file__).parents[1], "stdout": subprocess.DEVNULL,
               "stderr": subprocess.PIPE, "text": True}
    start = time.perf_counter()
    subprocess.run([*command, str(folder / "whole")], **options, check=True)
    longest = time.perf_counter() - start
    for k in range(kills):
        run = folder / str(k)
        with subprocess.Popen([*command, str(run)], **options) as process:
            time.sleep(rng.uniform(0, longest))
            workers = workers_of(process.pid)
            if workers:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(int(rng.choice(workers)), SIGNALS[k % 2])
            error = process.communicate()[1]
        last = error.strip().rsplit("\n", 1)[-1]
        assert process.returncode in (0, 2) and "Traceback" not in error, f"kill {k}: {error}"
        assert process.returncode == 0 or "a process of the sweep was killed" in last, last
        yield "compare: ended with one line" if process.returncode else "compare: ended well"
        subprocess.run([*command, str(run)], **options, check=True)
        names, expected = (
            sorted(str(path.relative_to(top)) for path in top.rglob("*"))
            for top in (run, folder / "whole")
        )
        assert names == expected, f"kill {k}: {set(names) ^ set(expected)}"
        for name in names:
            if name.endswith((".h5", "log.jsonl")):            # the table has times
                same = (run / name).read_bytes() == (folder / "whole" / name).read_bytes()
                assert same, f"kill {k}: {name} differs"


# Converters: the files that each one takes, and the words of its command line

CLASSES = {"ant": 6, "bee": 8}


def recording(k):
    events = np.zeros(200, EVENT_DTYPE)
    events["t"] = 5 * np.arange(200)
    events["x"], events["y"], events["p"] = np.arange(200) % 30, k % 30, np.arange(200) % 2
    return events


def encoded(events):
    """The 40-bit format of N-MNIST and N-Caltech101."""
    t = events["t"].astype(np.uint32)
    columns = events["x"], events["y"], events["p"] << 7 | t >> 16, t >> 8 & 255, t & 255
    return np.stack(columns, axis=1).astype(np.uint8).tobytes()


def picture(path, k):
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.add.outer(np.arange(20), np.arange(24) * (1 + k % 5)) * 7 + k
    Image.fromarray((grey % 256).astype(np.uint8)).save(path)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def nmnist_files(folder):
    labels = bytes(k % 10 for k in range(40))
    pixels = np.arange(40 * 28 * 28) % 251
    put(folder / "images", struct.pack(">4I", 0x803, 40, 28, 28) + bytes(pixels.tolist()))
    put(folder / "labels", gzip.compress(struct.pack(">2I", 0x801, 40) + labels))
    for k in range(40):
        put(folder / "events" / f"{k + 1:05d}.bin", encoded(recording(k)))
    counts = "--test-per-class 1 --images-per-class 2 --events-per-class 2".split()
    return [folder / "events", folder / "images", folder / "labels"], counts


def of_each_class(folder, suffix, write):
    """Images, and recordings written by a function of path and number, in a folder per class."""
    for (name, count), first in zip(CLASSES.items(), (0, 100)):
        for k in range(1, count + 1):
            picture(folder / "images" / name / f"image_{k:04d}.png", first + k)
            write(folder / "events" / name / f"image_{k:04d}{suffix}", first + k)


def ncaltech101_files(folder):
    of_each_class(folder, ".bin", lambda path, k: put(path, encoded(recording(k))))
    return [folder / "events", folder / "images"], ["--incomplete"]


def folders_files(folder):
    def write(path, k):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, recording(k))

    of_each_class(folder, ".npy", write)
    return [folder / "images", folder / "events"], ["--pair", "name", "--sensor-size", "30", "30"]


def film_files(folder):
    of_each_class(folder, "", lambda *_: None)
    return [folder / "images"], ["--sensor-size", "24", "30"]


def cepdvs_files(folder):
    (folder / "events").mkdir(parents=True)
    rows = [["header"]]
    names = importlib.import_module("cepdvs").CLASSES
    for k in range(40):
        events = recording(k)
        columns = {"x": events["x"], "y": events["y"], "ts": events["t"],
                   "p": events["p"] * 2.0 - 1}
        scipy.io.savemat(folder / "events" / f"{k}.mat", columns, do_compression=True)
        picture(folder / "images" / f"{k}.png", k)
        rows.append([f"{k} some/path_{k}.png fine_name split {names[k % 20]} more"])
    with open(folder / "list.csv", "w") as file:
        csv.writer(file).writerows(rows)
    return [folder / "events", folder / "list.csv", folder / "images"], ["--incomplete"]


CONVERTERS = {
    "nmnist": nmnist_files, "ncaltech101": ncaltech101_files, "cepdvs": cepdvs_files,
    "film": film_files, "folders": folders_files,
}


def kill_converter(name, folder, kills, rng, workers=(1, 2)):
    """Kill a converter or one of its workers; yields what it had written."""
    program = importlib.import_module(name)
    sources, flags = CONVERTERS[name](folder / "sources")

    def convert(run, workers=1):
        (folder / run).mkdir(exist_ok=True)
        words = [*sources, folder / run / "out.h5", "--workers", workers, "--overwrite", *flags]
        with mock.patch.object(importlib.import_module("convert"), "SHARD", 4):
            program.main(list(map(str, words)))

    def quietly(run):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            convert(run)
        return (folder / run / "out.h5").read_bytes()

    whole = quietly("whole")
    longest = {n: duration(lambda run, n=n: apart(convert, run, n)) for n in workers}
    for k, n in zip(range(kills), itertools.cycle(workers)):
        run = str(k)
        child = apart(convert, run, n)
        time.sleep(rng.uniform(0, longest[n]))
        # The process itself, or one of those that load samples.
        helpers = workers_of(child)
        victim = int(rng.choice([child, *helpers]))
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, SIGNALS[k // len(workers) % 2])
        os.waitpid(child, 0)
        while any(map(command_of, helpers)):                   # they notice that it is gone
            time.sleep(0.01)
        left = {path.name for path in (folder / run).iterdir()} if (folder / run).exists() else ()
        parts = len(list((folder / run).glob("out.h5.parts/*.npz")))
        fell = "after" if "out.h5" in left else "before" if not parts else "with some parts written"
        yield f"{name}: {fell}"
        assert quietly(run) == whole, f"{name}, kill {k}: out.h5 differs"
        left = sorted(path.name for path in (folder / run).iterdir())
        assert left == ["out.h5"], f"{name}, kill {k}: {left}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help="default: everything")
    parser.add_argument("--kills", type=int, default=25, help="of each (default 25)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for what in options.what or ["train", "compare", *CONVERTERS]:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            if what in CONVERTERS:
                fell = collections.Counter(kill_converter(what, folder, options.kills, rng))
            else:
                path = glyphs.build(
                    folder / "glyphs.h5", teacher=0, static=2, events=1, test=1, size=16,
                    progress=False,
                )
                kill = {"train": kill_training, "compare": kill_workers}[what]
                with open_paired(path) as data:
                    fell = collections.Counter(kill(data, folder, options.kills, rng))
        for place, count in sorted(fell.items()):
            print(f"{count:5d}  {place}")
        print(
            f"{options.kills:5d}  {what}: survived, equal to the bit; "
            f"{time.perf_counter() - start:.0f} s", flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
