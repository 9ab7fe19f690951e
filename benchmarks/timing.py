"""Time callables in turn (A B A B ...), so that other load on the machine affects all alike."""

import contextlib
import datetime
import importlib
import multiprocessing
import os
import pathlib
import platform
import statistics
import sys
import time
from importlib import metadata

HEADER = "| what | ours | peer | ours / peer |\n|---|---|---|---|"


def set_threads(n):
    """Let BLAS and OpenMP use n threads; call this before numpy or torch is imported."""
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(n)


@contextlib.contextmanager
def separate(makers, threads):
    """Yield {name: callable}, each made by its function in `makers` in a separate process.

    In separate processes with `threads` threads each, the callables do not affect each other's
    memory, threads or processor clock.
    """
    set_threads(threads)  # inherited by the processes
    runs = {name: Separate(make) for name, make in makers.items()}
    try:
        yield runs
    finally:
        for run in runs.values():
            run.process.terminate()


class Separate:
    """A callable that lives in another process."""

    def __init__(self, make):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make))
        self.process.start()
        theirs.close()

    def __call__(self):
        return self._ask("run")

    def peak_megabytes(self):
        """Peak memory of the process and its children, minus that of its imports."""
        return self._ask("memory")

    def _ask(self, what):
        self.pipe.send(what)
        return self.pipe.recv()


def _serve(pipe, make):
    # Imported on both sides, and not counted as memory of either.
    for module in ("ckd_ref.training", "peers"):
        importlib.import_module(module)
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    before = {os.getpid(): _memory("VmRSS", os.getpid())}
    run = make()
    before |= {child: _memory("VmRSS", child) for child in _children()}
    while True:
        what = pipe.recv()
        if what == "run":
            run()
        pipe.send(sum(_memory("VmHWM", pid) - kilobytes for pid, kilobytes in before.items()) / 1e3)


def _children():
    return [process.pid for process in multiprocessing.active_children()]


def _memory(what, pid):
    """Kilobytes of a process by Linux: VmRSS (current) or VmHWM (peak)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0])


def compare(runs, rounds, warm_up=True):
    """Time all of `runs`, {name: callable}, in turn: {name: [seconds, ...]}.

    With `warm_up`, each is called once before.
    """
    if warm_up:
        for run in runs.values():
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
    median = _digits(statistics.median(values))
    return f"{median} ({_digits(min(values))} - {_digits(max(values))})"


def _digits(value):
    return f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"


def ratios(ours, peer):
    """Our seconds over the peer's, round by round, so that load during a round cancels."""
    return [a / b for a, b in zip(ours, peer, strict=True)]


def rows(what, seconds):
    """Markdown rows of `compare`'s result: one per peer; the first callable is ours."""
    (_, ours), *peers = seconds.items()
    lines = []
    for name, peer in peers:
        ratio = spread(ratios(ours, peer))
        lines.append(row(what, _milliseconds(ours), f"{name}: {_milliseconds(peer)}", ratio))
    return "\n".join(lines)


def row(what, ours, peer="", ratio=""):
    """One Markdown row of formatted texts under `HEADER`."""
    return f"| {what} | {ours} | {peer} | {ratio} |"


def _milliseconds(seconds):
    return f"{spread([1e3 * s for s in seconds])} ms"


def heading(packages=("numpy",)):
    """The running command as a Markdown heading, then date, machine and versions."""
    processor, wide = pathlib.Path("/proc/cpuinfo"), ""
    if platform.machine() == "x86_64" and processor.exists():
        wide = f" {'with' if 'avx512f' in processor.read_text() else 'without'} AVX-512"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"## `{' '.join(['python', *sys.argv])}`\n\n{datetime.date.today()}, "
        f"{os.cpu_count()} cores, {platform.machine()}{wide}, Python {platform.python_version()}, "
        f"{versions}. Median (minimum - maximum).\n"
    )
