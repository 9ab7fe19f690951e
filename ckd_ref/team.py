"""Processes that share the samples of a batch: each computes its own, and they exchange sums over the batch.

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

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3                # of malloc.h

GROUPS = 4
"""A batch is cut into at most so many equal groups of samples; sums are taken within groups, then over all groups in
one order, so that no bit depends on the number of processes."""


class Team:
    """A process and its peers, connected in a star; `ALONE` is the team of one.

    A context manager: when the block ends the other processes do. All members have to make the same calls in the
    same order.

    Parameters
    ----------
    size : int
        Number of processes, the own one included.
    """

    def __init__(self, size=1):
        # A spawned process would run the main script again; a forked one is unsafe beside macOS's threads.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        keep_memory()
        self.size, self.rank, self._pipes = size, 0, []
        for rank in range(1, size):
            mine, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs, size, rank), daemon=True).start()
            theirs.close()
            self._pipes.append(mine)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe in self._pipes:
            pipe.close()

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


    def split(self, batch):
        """The batch of every member: its frames, with the labels and logits of all."""
        B = batch.events.shape[1] // self.size
        own = [slice(B * rank, B * (rank + 1)) for rank in range(self.size)]
        return [dataclasses.replace(batch, static=batch.static[:, o], events=batch.events[:, o]) for o in own]

    def into_groups(self, x):
        """(T, B, ...) of the own samples as groups, (G, T, n, ...)."""
        T, B = x.shape[:2]
        G = math.gcd(B * self.size, GROUPS) // self.size
        return np.ascontiguousarray(np.swapaxes(x.reshape((T, G, B // G) + x.shape[2:]), 0, 1))


@primitive
def gather(x, team):
    """Groups of all members, (G, T, n, ...) each, as one batch (T, B, ...)."""
    x = np.concatenate(team.everyone(x))
    return np.swapaxes(x, 0, 1).reshape((x.shape[1], -1) + x.shape[3:])


def _gather_vjp(y, x, team):
    def vjp(g):
        G, T, n = x.shape[:3]
        g = np.swapaxes(g.reshape((T, -1) + x.shape[2:]), 0, 1)             # (all groups, T, n, ...)
        return np.ascontiguousarray(g[G * team.rank:G * (team.rank + 1)])

    return vjp


defvjp(gather, _gather_vjp, argnums=(0,))


def keep_memory():
    """Tell the C library to keep the memory that a training step frees for the next step.

    It would return large blocks to the system, which clears them when they are asked for again: a tenth of a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30)


def _serve(pipe, size, rank):
    signal.signal(signal.SIGINT, signal.SIG_IGN)               # the first process decides when to stop
    member = Team()
    member.size, member.rank, member._pipes = size, rank, [pipe]
    try:
        while True:
            function, part = pipe.recv()
            pipe.send(function(member, *part))
    except (EOFError, BrokenPipeError):                        # the first process is gone
        pass


def pairwise_sum(terms):
    """Sum of the parts of 1, 2, 4 ... groups, halves first: as if the halves had been added up elsewhere."""
    while len(terms) > 1:
        terms = [a + b for a, b in zip(terms[::2], terms[1::2])]
    return terms[0]


ALONE = Team()
