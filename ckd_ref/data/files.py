"""Files that are there as a whole or not at all, and locks that keep a second process out."""

import contextlib
import errno
import io
import os
import pathlib
import platform
import shlex
import sys
import textwrap
import time

import h5py

try:
    import fcntl
except ImportError:                                            # Windows
    fcntl = None

FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


@contextlib.contextmanager
def atomic_write(path, previous=None):
    """Yield a temporary name to write to; when the block ends its file becomes `path`, replacing what was there.

    If the block raises, the temporary file is removed and `path` is left alone. What a killed process left behind is
    overwritten by the next one that writes the same path.

    Parameters
    ----------
    path : path-like, in a folder that exists
    previous : path-like, optional
        A name in the same folder for what was there. A process killed at the end may leave it without a new `path`.

    Yields
    ------
    temporary : pathlib.Path, in the same folder.

    Raises
    ------
    BlockingIOError
        Another process is writing `path`.
    OSError
        The disk is full.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into; make it first")
    temporary = path.with_name(f".{path.name}.tmp")
    with locked(temporary):
        try:
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())                     # the bytes first, then the name
            if previous and path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except OSError as error:
            if error.errno not in FULL:
                raise
            problem = f"{os.strerror(error.errno)}; what was there before is kept; make room and try again"
            raise OSError(error.errno, problem, str(path)) from None
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_hdf5(path, previous=None):
    """Like `atomic_write`, but yield an HDF5 file open for writing, in a version whose metadata carries checksums."""
    with atomic_write(path, previous) as temporary, _TakesAll(temporary, "w+") as target:
        try:
            with h5py.File(target, "w", libver="v110") as file:
                yield file
        finally:
            if target.error:
                raise target.error


class _TakesAll(io.FileIO):
    """A file whose writes never fail, with the first `error` kept for later: HDF5 crashes when a write fails."""

    error = None

    def write(self, data):
        rest = memoryview(data).cast("B")
        try:
            while rest and not self.error:
                rest = rest[super().write(rest):]              # a disk that fills up takes a part first
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size=None):
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size


def sync_folder(folder):
    """Return when the names in a folder are on the disk, so that a power cut does not bring older ones back."""
    if os.name == "posix":                                     # others cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path, wait=False):
    """Keep other processes out of a folder or a file while the block runs.

    The lock is a file that names its holder: ``.lock`` in the folder, or ``.NAME.lock`` beside the file. The system
    frees it when the holder ends, however it ends (flock), so what a killed process left does not count. Without
    flock (Windows) it counts until somebody deletes it. All who use a path have to lock it: nothing else is prevented.
    A process locks a path once, not again inside; processes that it forks meanwhile hold the lock with it, those that
    it spawns do not.

    Parameters
    ----------
    path : path-like
        A folder, or a file, which need not exist, in a folder that does.
    wait : bool
        Wait for the other process instead of raising, where there is flock.

    Raises
    ------
    BlockingIOError
        Another process holds the lock; says which.
    OSError
        Nothing can be written there.
    """
    path = pathlib.Path(path)
    lock = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    while (file := _take(lock)) is None:
        with contextlib.suppress(FileNotFoundError):           # the holder has just ended: try again
            holder = lock.read_text(errors="replace") or "another process"
            if not wait or not fcntl:                          # which would wait for a dead one for ever
                remedy = "wait until it ends, or choose another name" + (
                    "" if fcntl else f"; if it has ended, delete {lock}")
                raise BlockingIOError(f"{path} is in use by {holder}; {remedy}")
        time.sleep(0.05)
    try:
        command = textwrap.shorten(shlex.join(sys.orig_argv), 200)
        holder = f"process {os.getpid()} on {platform.node()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}: {command}"
        with contextlib.suppress(OSError):                     # on a full disk it holds without saying so
            file.write(holder.encode(errors="replace"))
        if not fcntl:
            file.close()                                       # an open file could not be removed
        yield
    finally:
        lock.unlink(missing_ok=True)                           # before it is freed, or it might be the next one's
        file.close()


def remove_leftovers(folder):
    """Remove what killed processes have left in a folder of files that they were writing."""
    for lock in pathlib.Path(folder).glob("..*.tmp.lock"):
        temporary = lock.with_name(lock.name.removeprefix(".").removesuffix(".lock"))
        with contextlib.suppress(BlockingIOError), locked(temporary):           # a living process keeps its own
            temporary.unlink(missing_ok=True)


def _take(lock):
    """The file of a lock that is ours now, or None."""
    if not fcntl:
        with contextlib.suppress(FileExistsError):
            return open(lock, "xb", buffering=0)
        return None
    try:
        file = open(lock, "ab", buffering=0)
    except OSError as error:
        problem = f"{error.strerror}, so nothing can be written in this folder"
        raise OSError(error.errno, problem, str(lock.parent)) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours = os.path.samestat(os.fstat(file.fileno()), os.stat(lock))         # not one that its holder has removed
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        file.close()
        return None
    file.truncate(0)
    return file
