"""Processes that work on one batch together and exchange their outputs (all-gather).

Threads of one process would wait for each other's turn in the interpreter between any two
operations of NumPy.
"""

import ctypes
import multiprocessing
import signal
import sys

import numpy as np

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3                    # of malloc.h


class ProcessGroup:
    """This process and its helpers; `SINGLE` is the group of one.

    A context manager: the helpers live within its block. All members make the same calls of
    `all_gather` in the same order.

    Parameters
    ----------
    size : int
        Number of processes, this one included.
    """

    def __init__(self, size=1, rank=0, pipes=()):
        if size < 1:
            raise ValueError(f"expected at least one process, got {size}")
        self.size = size
        self.rank = rank
        self._pipes = list(pipes)
        self._helpers = []

    def __enter__(self):
        # A spawned process would run the user's script again; on macOS a forked one is unsafe
        # beside threads.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        for rank in range(1, self.size):
            pipe, theirs = context.Pipe()
            inherited = [*self._pipes, pipe]
            helper = context.Process(
                target=_serve, args=(theirs, self.size, rank, inherited), daemon=True
            )
            helper.start()
            theirs.close()
            self._pipes.append(pipe)
            self._helpers.append(helper)
        return self

    def __exit__(self, *_):
        while self._pipes:
            self._pipes.pop().close()                          # which ends the helper
        while self._helpers:
            self._helpers.pop().join(1)

    def call(self, function, parts):
        """``[function(member, *part)]`` for each member and its part, computed in parallel."""
        for pipe, part in zip(self._pipes, parts[1:]):
            _alive(pipe.send, (function, part))
        return [function(self, *parts[0])] + [_alive(pipe.recv) for pipe in self._pipes]

    def all_gather(self, mine):
        """What every member puts in, in the order of the members: the same list for all."""
        if self.rank:
            self._pipes[0].send(mine)
            return self._pipes[0].recv()
        gathered = [mine] + [_alive(pipe.recv) for pipe in self._pipes]
        for pipe in self._pipes:
            _alive(pipe.send, gathered)
        return gathered


SINGLE = ProcessGroup()


def _alive(send_or_receive, *message):
    """Talk to a helper; raise what it raised, or ChildProcessError if it is gone."""
    try:
        answer = send_or_receive(*message)
        if isinstance(answer, Exception):
            raise answer
        return answer
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise ChildProcessError(
            "a helper process was killed, perhaps for want of memory; what is saved is complete: "
            "resume with one process (--processes 1)"
        ) from None


def prepare_process():
    """One BLAS thread, because processes share the cores; and freed memory is kept.

    The C library would return large arrays to the system, which clears them when they are asked
    for again: a tenth of a training step. Both settings last as long as the process, so this is
    for worker processes and the command line, not for a caller's own process.
    """
    numpy_library = ctypes.CDLL(np._core._multiarray_umath.__file__)
    set_threads = getattr(numpy_library, "scipy_openblas_set_num_threads64_", None)
    if set_threads:                                            # others obey the environment only
        set_threads(1)
    c_library = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(c_library, "mallopt", None)
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_MMAP_THRESHOLD, 2**30)


def _outcome(function, member, part):
    """What the function returns, or the exception that it raises."""
    try:
        return function(member, *part)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the first process is gone
        raise
    except Exception as error:
        return error


def _serve(pipe, size, rank, inherited):
    for other in inherited:                # else the end of the first process would go unnoticed
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)               # the first process decides
    prepare_process()
    member = ProcessGroup(size, rank, [pipe])
    try:
        while True:
            function, part = pipe.recv()
            pipe.send(_outcome(function, member, part))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the first process is gone
        pass
