"""Checkpoints: files that hold a run, its configuration and its state, complete or absent."""

import dataclasses
import hashlib
import json
import os
import pathlib
import typing
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config import Config
from ..data import hdf5
from ..data.errors import error_context
from ..data.files import atomic_hdf5
from ..events import FormatError
from ..nn import init_moments
from ..training import TrainState


class Checkpoint(typing.NamedTuple):
    """What a checkpoint holds: the run, its configuration, the names of the classes, and digests
    of what it was trained on."""

    run: TrainState
    config: Config
    classes: tuple
    inputs: dict


def save_checkpoint(
    path: str | os.PathLike, run: TrainState, config: Config, classes: Sequence[str],
    inputs: dict | tuple = (),
) -> None:
    """Write a run so that it can be resumed or evaluated; the previous file is kept.

    Parameters
    ----------
    path : path-like
    run : TrainState
    config : Config
    classes : sequence of str
    inputs : dict of str, optional
        Digests of what decides the run besides its configuration.
    """
    trees = _trees(run)
    header = {
        "config": dataclasses.asdict(config), "classes": classes,
        "rng": run.rng.bit_generator.state, "epoch": run.epoch, "history": run.history,
        "rows": run.rows, "inputs": dict(inputs), "digest": _digest(trees),
    }
    with atomic_hdf5(path, previous=_previous(path)) as file:
        text = json.dumps(header).encode()
        hdf5.write(file, "header", np.frombuffer(text, np.uint8))      # text has no checksum
        for group, tree in trees.items():
            for name, array in tree.items():
                hdf5.write(file, f"{group}/{name}", array)


def load_checkpoint(path: str | os.PathLike, net: Any = None) -> Checkpoint:
    """Read a checkpoint.

    Memory: about twice the file's size, bounded before anything is allocated.

    Parameters
    ----------
    path : path-like
    net : optional
        The network of the run, if it is not the one that its configuration names.

    Returns
    -------
    run, config, classes, inputs : Checkpoint

    Raises
    ------
    FormatError
        Not a checkpoint, one of another version, damaged, or with a configuration that does not
        fit its size.
    OSError
        A file that is missing or unreadable.
    """
    advice = "train again, or give a checkpoint of this version"
    with error_context(path, advice), hdf5.open_checked(path) as file:
        if "header" not in file:
            raise FormatError("expected a checkpoint of a run, got another kind of file")
        header = json.loads(hdf5.dataset(file, "header", np.uint8, ("bytes",))[()].tobytes())
        config, classes = Config(**header["config"]), tuple(header["classes"])
        history = header["history"]
        if not all(isinstance(name, str) for name in classes) or len(history) != header["epoch"]:
            raise FormatError(
                f"expected class names and a history of {header['epoch']} epochs, "
                f"got {classes} and {len(history)} epochs"
            )
        if net is None:
            net = config.model(len(classes))
            if 3 * 4 * net.trainable > file.id.get_filesize():         # float32, two moments each
                raise FormatError(
                    f"the configuration has {net.trainable} trainable numbers, "
                    "more than the file holds"
                )
        params, state = net.init(np.random.default_rng(0))
        rng = np.random.default_rng()
        rng.bit_generator.state = header["rng"]
        run = TrainState(
            params, state, init_moments(params), rng, header["epoch"], header["rows"], history
        )
        trees = {}
        for group, tree in _trees(run).items():
            trees[group] = {
                name: hdf5.dataset(file, f"{group}/{name}", array.dtype, array.shape)[()]
                for name, array in tree.items()
            }
        if _digest(trees) != header["digest"]:
            raise FormatError(
                "the arrays are not those of one run; each is whole, some are another file's"
            )
        inputs = header["inputs"]
    run.params, run.state = trees["params"], trees["state"]
    run.moments = {name: (trees["first"][name], trees["second"][name]) for name in run.params}
    return Checkpoint(run, config, classes, inputs)


def load_latest(path: str | os.PathLike, net: Any = None) -> Checkpoint | None:
    """What `load_checkpoint` reads, or the previous file if that is missing or damaged.

    A damaged file is put aside as ``NAME.damaged.h5``, with a warning, so that it does not take
    the good one's place. None if there is neither.

    Raises
    ------
    FormatError
        Damage, and nothing to fall back on.
    """
    path, previous = pathlib.Path(path), _previous(path)
    if not path.exists():
        return load_checkpoint(previous, net) if previous.exists() else None
    try:
        return load_checkpoint(path, net)
    except FormatError as error:
        if not previous.exists():
            raise
        found = load_checkpoint(previous, net)
        aside = path.with_suffix(".damaged.h5")
        path.replace(aside)
        warnings.warn(
            f"{error}; it is now {aside.name}, and the run resumes from {previous.name}",
            stacklevel=2,
        )
        return found


def check_same(found: Checkpoint, config: Config, inputs: dict, place: str | os.PathLike) -> None:
    """Refuse to resume a checkpoint of another configuration or other inputs, with both values."""
    differ = []
    for field in dataclasses.fields(Config):
        saved, asked = (getattr(of, field.name) for of in (found.config, config))
        if saved != asked:
            differ.append(f"{field.name} {saved} (now {asked})")
    for name in inputs | found.inputs:
        if found.inputs.get(name) != inputs.get(name):
            differ.append(f"another {name}")
    if differ:
        raise FormatError(f"{place} holds a run with {', '.join(differ)}; name another folder")


def _previous(path):
    return pathlib.Path(path).with_suffix(".previous.h5")


def _trees(run):
    first = {name: pair[0] for name, pair in run.moments.items()}
    second = {name: pair[1] for name, pair in run.moments.items()}
    return {"params": run.params, "state": run.state, "first": first, "second": second}


def _digest(trees):
    """Of all arrays together: the checksum of each does not notice an exchange."""
    digest = hashlib.blake2b(digest_size=16)
    for tree in trees.values():
        for name in sorted(tree):
            digest.update(np.ascontiguousarray(tree[name]))
    return digest.hexdigest()
