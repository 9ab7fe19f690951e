"""Atomic writes, and locks that keep a second process out."""

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
    """Yield a temporary name to write to; when the block ends, that file replaces `path`.

    If the block raises, the temporary file is removed and `path` is unchanged. A temporary file
    left by a killed process is overwritten by the next one that writes the same path.

    Parameters
    ----------
    path : path-like, in a folder that exists
    previous : path-like, optional
        A name in the same folder under which the old file is kept. A process killed between
        the two renames leaves this one and no `path`.

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
            problem = (
                f"{os.strerror(error.errno)}; what was there before is kept; "
                "make room and try again"
            )
            raise OSError(error.errno, problem, str(path)) from None
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_hdf5(path, previous=None):
    """Like `atomic_write`, but yield an HDF5 file open for writing.

    Its version of the format has checksums for metadata.
    """
    with atomic_write(path, previous) as temporary, _TakesAll(temporary, "w+") as target:
        try:
            with h5py.File(target, "w", libver="v110") as file:
                yield file
        finally:
            if target.error:
                raise target.error


class _TakesAll(io.FileIO):
    """A file whose writes never fail; the first `error` is kept for later.

    HDF5 crashes when a write fails.
    """

    error = None

    def write(self, data):
        rest = memoryview(data).cast("B")
        try:
            while rest and not self.error:
                rest = rest[super().write(rest):]  # a disk about to be full takes a part
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
    """Flush the names in a folder to disk, so that a power failure does not undo a rename."""
    if os.name == "posix":                                     # others cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path, wait=False):
    """Keep other processes out of a folder or a file while the block runs.

    The lock is a file that names its holder: ``.lock`` in the folder, or ``.NAME.lock`` beside
    the file. The system releases it when the holder ends, however it ends (flock), so the lock
    file of a killed process has no effect. Without flock (Windows) it holds until it is
    deleted. The lock is advisory: it excludes only processes that take it as well. It is not
    reentrant. Processes forked inside the block share it, spawned ones do not.

    Parameters
    ----------
    path : path-like
        A folder, or a file, which need not exist, in a folder that does.
    wait : bool
        Wait for the other process instead of raising, where there is flock.

    Raises
    ------
    BlockingIOError
        Another process holds the lock; the message says which.
    OSError
        The folder is not writable.
    """
    path = pathlib.Path(path)
    lock = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    while (file := _take(lock)) is None:
        with contextlib.suppress(FileNotFoundError):  # the holder has just ended: try again
            holder = lock.read_text(errors="replace") or "another process"
            if not wait or not fcntl:  # without flock, a dead holder would block forever
                remedy = "wait until it ends, or choose another name"
                if not fcntl:
                    remedy += f"; if it has ended, delete {lock}"
                raise BlockingIOError(f"{path} is in use by {holder}; {remedy}")
        time.sleep(0.05)
    try:
        command = textwrap.shorten(shlex.join(sys.orig_argv), 200)
        holder = (
            f"process {os.getpid()} on {platform.node()}, started "
            f"{time.strftime('%Y-%m-%d %H:%M:%S')}: {command}"
        )
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
            file.write(holder.encode(errors="replace"))
        if not fcntl:
            file.close()                                       # an open file could not be removed
        yield
    finally:
        lock.unlink(missing_ok=True)  # before the release: later it may be the next holder's
        file.close()


def remove_leftovers(folder):
    """Remove temporary files of `atomic_write` left in a folder by killed processes."""
    for lock in pathlib.Path(folder).glob("..*.tmp.lock"):
        temporary = lock.with_name(lock.name.removeprefix(".").removesuffix(".lock"))
        with contextlib.suppress(BlockingIOError), locked(temporary):  # not a living process's
            temporary.unlink(missing_ok=True)


def _take(lock):
    """Try to take a lock: its open file, or None if another process holds it."""
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
        # The former holder may have removed the file between open and flock.
        ours = os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        file.close()
        return None
    file.truncate(0)
    return file
