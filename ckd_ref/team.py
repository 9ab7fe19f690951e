"""Processes that share the samples of a batch: each computes its own, and they exchange what is summed over the batch.

Threads of one process would wait for each other's turn in the interpreter between any two operations of NumPy.
"""

import ctypes
import dataclasses
import math
import multiprocessing
import signal
import sys

import numpy as np
from autograd.extend import defvjp, primitive

GROUPS = 4
"""A batch is cut into at most so many equal groups of samples. Sums are taken within groups and then over all groups in
one order, so that no bit depends on the number of processes."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3                    # of malloc.h


class Team:
    """A process and its peers; `ALONE` is the team of one.

    A context manager: the other processes are there within its block. All members make the same calls of `everyone`
    in the same order.

    Parameters
    ----------
    size : int
        Number of processes, the own one included: a divisor of the number of groups, see `fitting`.
    """

    def __init__(self, size=1, rank=0, pipes=()):
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
            pipe.send((function, part))
        return [function(self, *parts[0])] + [pipe.recv() for pipe in self._pipes]

    def everyone(self, mine):
        """What every member has put in, in the order of the members: the same list for all."""
        if self.rank:
            self._pipes[0].send(mine)
            return self._pipes[0].recv()
        everyone = [mine] + [pipe.recv() for pipe in self._pipes]
        for pipe in self._pipes:
            pipe.send(everyone)
        return everyone

    def share(self, x, axis=0):
        """The part of every member of an array of samples."""
        return np.split(x, self.size, axis)

    def into_groups(self, x):
        """(T, B, ...) of the own samples as groups, (G, T, n, ...)."""
        T, B = x.shape[:2]
        G = math.gcd(B * self.size, GROUPS) // self.size
        return np.ascontiguousarray(np.swapaxes(x.reshape((T, G, B // G) + x.shape[2:]), 0, 1))


ALONE = Team()


def fitting(batch, most):
    """The largest team, of `most` processes at most, between which the groups of a batch can be divided."""
    return max(size for size in (1, 2, 4) if size <= max(most, 1) and math.gcd(batch, GROUPS) % size == 0)


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


@primitive
def gather(x, team):
    """Groups of all members, (G, T, n, ...) each, as one batch (T, B, ...)."""
    x = np.concatenate(team.everyone(x))
    return np.swapaxes(x, 0, 1).reshape((x.shape[1], -1) + x.shape[3:])


def _gather_vjp(y, x, team):
    def vjp(g):
        G, T = x.shape[:2]
        groups = np.swapaxes(g.reshape((T, -1) + x.shape[2:]), 0, 1)        # (all groups, T, n, ...)
        return np.ascontiguousarray(groups[G * team.rank:G * (team.rank + 1)])

    return vjp


defvjp(gather, _gather_vjp, argnums=(0,))


def pairwise_sum(terms):
    """Sum of the parts of 1, 2 or 4 groups, halves first: as if the halves had been added up by two processes."""
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[::2], terms[1::2])]
    return terms[0]
