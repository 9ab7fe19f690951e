"""Error messages that name the file and say what to do, in text that is safe to print."""

import contextlib

from ..events import FormatError

PROBLEMS = (
    ValueError, OSError, FloatingPointError, OverflowError, MemoryError, ImportError
)
"""What ends a program in one line."""


@contextlib.contextmanager
def error_context(place, advice):
    """Prefix every FormatError with its place, and re-raise library errors as FormatError.

    Libraries report a damaged file by exceptions of many kinds. An OSError with an errno (no
    such file, disk full) and a MemoryError propagate unchanged.

    Parameters
    ----------
    place : str or path-like
        The file, or the sample in it.
    advice : str
        What to do about a damaged file.
    """
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from None
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise
        raise FormatError(f"{place}: damaged, or of another format ({error}); {advice}") from None


def in_words(error, smaller):
    """What one of `PROBLEMS` says, for people; `smaller` is what takes less memory."""
    if isinstance(error, MemoryError):
        said = f" ({error})" if str(error) else ""
        return f"not enough memory{said}; {smaller} takes less"
    if isinstance(error, OverflowError):
        return f"a number is too large ({error})"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def printable(text):
    """Text in one line for a terminal: control characters, which could command it, become "?"."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
