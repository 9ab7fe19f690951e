"""Files that are there as a whole or not at all."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def written_whole(path):
    """Yield a temporary name to write to; when the block ends its file becomes `path`, replacing what was there.

    If the block raises, the temporary file is removed and `path` is left alone.

    Parameters
    ----------
    path : path-like, in a folder that exists

    Yields
    ------
    temporary : pathlib.Path, in the same folder.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into; make it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())                         # the bytes first, then the name
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
