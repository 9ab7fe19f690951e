"""Atomic writes, and locks that keep a second process out."""

import contextlib
import errno
import io
import os
import pathlib
import platform
import shlex
import stat
import sys
import textwrap
import time

import h5py

try:
    import fcntl
except ImportError:                                            # Windows
    fcntl = None

from .errors import printable

FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG

NOT_THROUGH_LINKS = getattr(os, "O_NOFOLLOW", 0)               # Windows has neither
WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)

UNTOUCHED = b"nothing has been written here yet\n"
"""The content of a temporary file when `atomic_write` yields its name."""


def open_file(path):
    """Open a file for reading bytes; a pipe or a device is refused instead of waited for."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | WITHOUT_WAITING))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "expected a file, got a pipe or a device", str(path))
    return file


@contextlib.contextmanager
def atomic_write(path, previous=None):
    """Yield the name of a temporary file; when the block ends, that file replaces `path`.

    If the block raises, the temporary file is removed and `path` is unchanged. What a killed
    process left under the temporary name is removed by the next one that writes the same path;
    links are never followed. Until it is renamed, only its owner may read the file.

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
    FileNotFoundError
        The block wrote nothing, or there is no such folder.
    OSError
        The disk is full, or a folder has one of the names.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into; make it first")
    temporary = path.with_name(f".{path.name}.tmp")
    _refuse_folder(path)
    _refuse_folder(previous or path)
    _remove_link(temporary)
    with locked(temporary):
        try:
            temporary.unlink(missing_ok=True)
            _create(temporary)
            yield temporary
            with open(temporary, "rb+") as written:
                if written.read(len(UNTOUCHED) + 1) == UNTOUCHED:
                    raise FileNotFoundError(f"nothing was written to {temporary} for {path}")
                _let_others_read(written)
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


def _create(path):
    """Create a file, never what a link at this name points to, that only its owner may read."""
    def create(name, flags):
        return os.open(name, flags | NOT_THROUGH_LINKS, 0o600)

    with open(path, "xb", opener=create) as file:
        file.write(UNTOUCHED)


def _let_others_read(file):
    """Give an open file the permissions of a new one, what the umask leaves of rw-rw-rw-."""
    if os.name == "posix":
        umask = os.umask(0o077)
        os.umask(umask)
        with contextlib.suppress(PermissionError):             # FAT knows no permissions
            os.fchmod(file.fileno(), 0o666 & ~umask)


def _remove_link(path):
    """Remove a link with a temporary name, which is not ours, and refuse a folder."""
    if path.is_symlink():
        path.unlink()
    _refuse_folder(path)


def _refuse_folder(path):
    path = pathlib.Path(path)
    if path.is_dir() and not path.is_symlink():
        problem = "a folder is where a file has to be written; move it, or choose another name"
        raise IsADirectoryError(errno.EISDIR, problem, str(path))


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
        The folder is not writable, or something else than a lock has its name.
    """
    path = pathlib.Path(path)
    lock = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    while (file := _take(lock)) is None:
        with contextlib.suppress(FileNotFoundError):  # the holder has just ended: try again
            with open_file(lock) as file:
                holder = printable(file.read(1000).decode(errors="replace")) or "another process"
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
    """Remove temporary files of `atomic_write`, and their locks, left by killed processes."""
    folder = pathlib.Path(folder)
    names = {path.name for path in folder.glob(".?*.?*.tmp")}
    names |= {path.name[1:].removesuffix(".lock") for path in folder.glob("..*.tmp.lock")}
    for temporary in map(folder.joinpath, sorted(names)):
        _remove_link(temporary)
        with contextlib.suppress(BlockingIOError), locked(temporary):  # not a living process's
            temporary.unlink(missing_ok=True)


def _take(lock):
    """Try to take a lock: its open file, or None if another process holds it."""
    if not fcntl:
        with contextlib.suppress(FileExistsError):
            return open(lock, "xb", buffering=0)
        return None
    _refuse_folder(lock)

    def create(name, flags):
        return os.open(name, flags | os.O_CREAT | NOT_THROUGH_LINKS | WITHOUT_WAITING, 0o666)

    try:
        file = open(lock, "rb+", buffering=0, opener=create)
    except OSError as error:
        if lock.is_symlink():
            raise _no_lock(lock, "a link") from None
        problem = f"{error.strerror}, so nothing can be written in this folder"
        raise OSError(error.errno, problem, str(lock.parent)) from None
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        file.close()
        raise _no_lock(lock, "a pipe, a device or a file with another name")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The former holder may have removed the file between open and flock.
        ours = os.path.samestat(os.fstat(file.fileno()), os.lstat(lock))
    except (BlockingIOError, FileNotFoundError):
        ours = False
    if not ours:
        file.close()
        return None
    file.truncate(0)
    return file


def _no_lock(lock, came):
    """What to raise instead of emptying a file that somebody put where the lock belongs."""
    return FileExistsError(errno.EEXIST, f"expected a lock, got {came}; remove it", str(lock))
