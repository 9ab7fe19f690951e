"""Errors for people: which file, and what to do."""

import contextlib

from ..events import FormatError


@contextlib.contextmanager
def error_context(place, advice):
    """Name the place in every FormatError raised inside, and make FormatErrors of a library's complaints.

    Libraries report a damaged file by exceptions of many kinds. The system's own pass: an OSError with a number (no
    such file, disk full) and a lack of memory.

    Parameters
    ----------
    place : str or path-like
        The file, or the sample in it.
    advice : str
        What to do about damage.
    """
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from None
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise
        raise FormatError(f"{place}: damaged, or of another format ({error}); {advice}") from None
