"""Processes that work on one batch together, each with a stream of its own until the loss brings them together.

Threads of one process would wait for each other's turn in the interpreter between any two operations of NumPy.
"""

import ctypes
import multiprocessing
import signal
import sys

import numpy as np

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3                    # of malloc.h


class Team:
    """A process and its peers; `ALONE` is the team of one.

    A context manager: the other processes are there within its block. All members make the same calls of `everyone`
    in the same order.

    Parameters
    ----------
    size : int
        Number of processes, the own one included.
    """

    def __init__(self, size=1, rank=0, pipes=()):
        if size < 1:
            raise ValueError(f"expected at least one process, got {size}")
        self.size, self.rank, self._pipes = size, rank, list(pipes)

    def __enter__(self):
        prepare_process()
        # A spawned process would run the user's script again; a forked one is unsafe beside the threads of macOS.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        for rank in range(1, self.size):
            pipe, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs, self.size, rank, [*self._pipes, pipe]), daemon=True).start()
            theirs.close()
            self._pipes.append(pipe)
        return self

    def __exit__(self, *_):
        while self._pipes:
            self._pipes.pop().close()                          # which ends the process on the other side

    def call(self, function, parts):
        """[function(member, *part) for each member and its part of the arguments], computed at the same time."""
        for pipe, part in zip(self._pipes, parts[1:]):
            _alive(pipe.send, (function, part))
        return [function(self, *parts[0])] + [_alive(pipe.recv) for pipe in self._pipes]

    def everyone(self, mine):
        """What every member has put in, in the order of the members: the same list for all."""
        if self.rank:
            self._pipes[0].send(mine)
            return self._pipes[0].recv()
        everyone = [mine] + [_alive(pipe.recv) for pipe in self._pipes]
        for pipe in self._pipes:
            _alive(pipe.send, everyone)
        return everyone


ALONE = Team()


def _alive(send_or_receive, *message):
    try:
        return send_or_receive(*message)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise ChildProcessError("a process that shared the work was killed, perhaps for want of memory; what is saved "
                                "is complete: go on with one process (--processes 1)") from None


def prepare_process():
    """One thread for matrix products, because processes share the cores; and memory that is freed is kept.

    The C library would return large arrays to the system, which clears them when they are asked for again: a tenth
    of a training step. Both settings last as long as the process.
    """
    libraries = ctypes.CDLL(np._core._multiarray_umath.__file__), ctypes.CDLL(None) if sys.platform == "linux" else None
    set_threads = getattr(libraries[0], "scipy_openblas_set_num_threads64_", None)
    if set_threads:                                            # other libraries listen to the environment only
        set_threads(1)
    mallopt = getattr(libraries[1], "mallopt", None)
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30)


def _serve(pipe, size, rank, inherited):
    for other in inherited:                                    # else the end of the first process would go unnoticed
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)               # the first process decides when to stop
    prepare_process()
    member = Team(size, rank, [pipe])
    try:
        while True:
            function, part = pipe.recv()
            pipe.send(function(member, *part))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the first process is gone
        pass
