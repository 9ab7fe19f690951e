"""Kill a training run again and again and look at what is left.

    python tests/kill.py --kills 100

Each time a process trains on a tiny data set and is killed (SIGKILL) at a random moment. Then the
last checkpoint that it had finished, or a newer one, has to load; the run, resumed, has to end
with the very bytes of one that was never interrupted; and nothing else may be left in its folder.
In the processes that are killed, and only there, writing is slowed down, so that many kills fall
into it.
"""

import argparse
import collections
import mmap
import os
import pathlib
import signal
import sys
import tempfile
import time

import numpy as np

from ckd_ref.config import Config
from ckd_ref.data import files, glyphs
from ckd_ref.data.paired import open_paired
from ckd_ref.run import session
from ckd_ref.run.checkpoint import load_latest

CONFIG = Config(
    method="transfer", width=0.0625, T=2, size=16, epochs=3, batches=2, batch=4, padding=1
)
NAMES = ["checkpoint.h5", "checkpoint.previous.h5", "log.jsonl", "times.jsonl"]
SAME = [name for name in NAMES if name != "times.jsonl"]


def train(data, folder, processes=1):
    return session.train(data, CONFIG, folder, progress=False, processes=processes)


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


def train_apart(data, folder):
    """Start to train in a forked process, which has another one for the second stream.

    Returns the number of the first and a byte that counts its saves and outlives it.
    """
    saves = mmap.mmap(-1, 1)

    def counted(*args):
        save(*args)
        saves[0] += 1

    child = os.fork()
    if child == 0:
        try:
            slow_down_writing()
            save, session.save_checkpoint = session.save_checkpoint, counted
            train(data, folder, processes=2)
        finally:
            os._exit(0)
    return child, saves


def where(folder):
    """What the process was doing when it was killed, by the files that it left."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if "checkpoint.previous.h5" in names and "checkpoint.h5" not in names:
        return "between the two renames of a checkpoint"
    for name in NAMES:
        if f".{name}.tmp" in names:
            return f"writing {name}"
    return "reading data or training" if ".lock" in names else "before or after"


def survive(data, folder, whole, kills, longest, rng):
    """Kill that many runs; a Counter of where the kills fell.

    Raises AssertionError at the first that does not survive.
    """
    fell = collections.Counter()
    for k in range(kills):
        run = folder / str(k)
        child, saves = train_apart(data, run)
        time.sleep(rng.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        fell[where(run)] += 1
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
    return fell


def duration(data, folder):
    """Seconds of a whole run with slow writing: the shorter of two, as disks stall at times."""
    seconds = []
    for k in range(2):
        start = time.perf_counter()
        os.waitpid(train_apart(data, folder / f"slow{k}")[0], 0)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        path = glyphs.build(
            folder / "glyphs.h5", teacher=0, static=2, events=1, test=1, size=16, progress=False
        )
        start = time.perf_counter()
        with open_paired(path) as data:
            train(data, folder / "whole")
            longest = duration(data, folder)
            fell = survive(
                data,
                folder,
                folder / "whole",
                options.kills,
                longest,
                np.random.default_rng(options.seed),
            )
    for place, count in sorted(fell.items()):
        print(f"{count:5d}  {place}")
    print(
        f"{options.kills:5d}  kills survived, every resumed run equal to the bit; "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
