"""What is named on the command line: files of the right kind, folders to write to, near misses."""

import argparse
import difflib
import os
import pathlib

from ..config import METHODS, METHODS_OF
from ..data import hdf5
from ..data.files import open_file
from ..data.glyphs import SETS
from ..events import FormatError

KINDS = {
    "data": "a data file", "checkpoint": "a checkpoint", "teacher": "a teacher",
    "logits": "the logits of a teacher", "spec": "the specification of a sweep",
    "unfinished": "the unfinished training of a teacher",
}
"""The kinds of files that a command reads: HDF5, and TOML for a sweep."""

SIGNS = {
    "images": "data", "first/head": "unfinished", "header": "checkpoint", "logits": "logits",
    "params": "teacher",
}
"""What tells them apart: the first of these names that is in a file."""

SYNONYMS = {
    "lr": "rate", "learning-rate": "rate", "batch-size": "batch", "weight-decay": "decay",
    "steps": "T", "time-steps": "T", "timesteps": "T", "model": "network", "output": "out",
    "image-size": "size",
}
"""Other names of options."""


def kind(path):
    """Which of `KINDS` an HDF5 file is, None for all else; whether it is whole is not checked."""
    try:
        with hdf5.open_checked(path) as file:
            return next((kind for name, kind in SIGNS.items() if name in file), None)
    except Exception:                                          # its reader will say what is wrong
        return None


def given_file(path, place, *kinds):
    """A file that was named, if it is there and not clearly of another kind.

    Parameters
    ----------
    path : path-like
    place : str
        Where it was named, such as "the first argument".
    kinds : str
        Those of `KINDS` that will do.

    Raises
    ------
    OSError
        No such file, or a folder.
    FormatError
        A file of another kind.
    """
    path = pathlib.Path(path)
    expected = " or ".join(KINDS[name] for name in kinds)
    if path.is_dir():
        inside = path / "checkpoint.h5"
        hint = f", perhaps {inside}" if "checkpoint" in kinds and inside.exists() else ""
        raise IsADirectoryError(f"{place} is a folder: {path}; expected {expected}{hint}")
    if not path.exists():
        hint = "; embedded sets are for compare" if str(path) in SETS else ""
        raise FileNotFoundError(f"there is no file {path}; {place} is to be {expected}{hint}")
    with open_file(path) as file:
        if "spec" not in kinds and file.read(8) != hdf5.MAGIC:
            maker = "; data_tools/teacher_logits.py makes one of an array"
            hint = maker if "logits" in kinds else ""
            raise FormatError(
                f"{place} does not begin as an HDF5 file does: {path}; expected {expected}{hint}"
            )
    came = kind(path)
    if came is not None and came not in kinds:
        raise FormatError(f"{place} is {KINDS[came]}: {path}; expected {expected}")
    return path


def output_folder(text):
    """A folder that is there or can be made, and written to: a type for `argparse`."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, got an empty name")
    path = pathlib.Path(text)
    nearest = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, but {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"nothing can be written in the folder {nearest}")
    return path


def positive(text):
    """A whole number from 1 on: a type for `argparse`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text}")
    return int(text)


def nearest(word, known):
    """Which of the known words was probably meant, or None."""
    word = word.replace("_", "-")
    meant = [SYNONYMS.get(word), *difflib.get_close_matches(word, known, n=1)]
    return next((candidate for candidate in meant if candidate in known), None)


def unused(name, methods):
    """If an option changes none of these methods: those that it is for, and these."""
    users = METHODS_OF.get(name, METHODS)
    if methods.isdisjoint(users):
        return f"{', '.join(users)}, got {', '.join(sorted(methods))}"
    return None
