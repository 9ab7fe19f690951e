"""Time callables in turn (A B A B ...), so that whatever else the machine does falls on all of them alike."""

import datetime
import os
import pathlib
import platform
import statistics
import sys
import time
from importlib import metadata

HEADER = "| what | ours | peer | ours / peer |\n|---|---|---|---|"


def set_threads(n):
    """Let BLAS and OpenMP use n threads in this process; to be called before numpy or torch is imported."""
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(n)


def compare(runs, rounds, warm_up=True):
    """Call each of `runs` ({name: callable}) once to warm up, then all of them in turn: {name: [seconds, ...]}."""
    for run in runs.values() if warm_up else ():
        run()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values):
    """Median and, in brackets, minimum and maximum, to three digits."""
    return "{} ({} - {})".format(*(_digits(v) for v in (statistics.median(values), min(values), max(values))))


def _digits(value):
    return f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"


def ratios(ours, peer):
    """Our seconds over the peer's, round by round: what both met in one round cancels."""
    return [a / b for a, b in zip(ours, peer, strict=True)]


def rows(what, seconds):
    """Markdown rows of `compare`'s result: the first callable is ours; each other one is a peer and gets a row."""
    (_, ours), *peers = seconds.items()
    return "\n".join(row(what, _milliseconds(ours), f"{name}: {_milliseconds(peer)}", spread(ratios(ours, peer)))
                     for name, peer in peers)


def row(what, ours, peer="", ratio=""):
    """One Markdown row of ready texts under `HEADER`."""
    return f"| {what} | {ours} | {peer} | {ratio} |"


def _milliseconds(seconds):
    return f"{spread([1e3 * s for s in seconds])} ms"


def heading(packages=("numpy",)):
    """The command that is running as a Markdown heading, then date, machine and versions."""
    processor = pathlib.Path("/proc/cpuinfo")
    wide = " with AVX-512" if processor.exists() and "avx512f" in processor.read_text() else ""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (f"## `{' '.join(['python', *sys.argv])}`\n\n{datetime.date.today()}, {os.cpu_count()} cores, "
            f"{platform.machine()}{wide}, Python {platform.python_version()}, {versions}. "
            "Median (minimum - maximum).\n")
