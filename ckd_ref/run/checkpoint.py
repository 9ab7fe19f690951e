"""Checkpoints: files that hold a run, its configuration and its state, complete or not at all."""

import dataclasses
import hashlib
import json
import pathlib
import warnings

import numpy as np

from ..data import hdf5
from ..events import FormatError
from ..data.errors import error_context
from ..data.files import atomic_hdf5
from ..config import Config
from ..nn.optim import init_moments

@dataclasses.dataclass
class Run:
    """A training run after `epoch` epochs and some batches: all that is needed to go on, and the log so far.

    `rows` has the losses of the batches since the last whole epoch, `history` one dict per epoch. `inputs` tells what
    the run was trained on. `seconds`, how long it took up to every save, is not part of its checkpoint, whose bytes
    are the same each time.
    """

    params: dict
    state: dict
    moments: dict
    rng: np.random.Generator
    epoch: int = 0
    history: list = dataclasses.field(default_factory=list)
    rows: list = dataclasses.field(default_factory=list)
    inputs: dict = dataclasses.field(default_factory=dict)
    seconds: list = dataclasses.field(default_factory=list)


def save_checkpoint(path, run, config, classes):
    """Write a run so that it can go on or be evaluated; the file appears when it is complete, the last one is kept."""
    header = {"config": dataclasses.asdict(config), "classes": classes, "rng": run.rng.bit_generator.state,
              "epoch": run.epoch, "history": run.history, "rows": run.rows, "inputs": run.inputs,
              "digest": _digest(_trees(run))}
    with atomic_hdf5(path, previous=_previous(path)) as file:
        hdf5.write(file, "header", np.frombuffer(json.dumps(header).encode(), np.uint8))     # text has no checksum
        for group, tree in _trees(run).items():
            for name, array in tree.items():
                hdf5.write(file, f"{group}/{name}", array)


def load_checkpoint(path):
    """Read a checkpoint: (run, config, classes).

    Memory: about twice the file's size, bounded before anything is made of it.

    Raises
    ------
    FormatError
        Not a checkpoint, one of another version, damaged, or with a configuration that does not fit its size.
    OSError
        A file that is missing or unreadable.
    """
    with error_context(path, "train again, or give a checkpoint of this version"), hdf5.open_checked(path) as file:
        header = json.loads(hdf5.dataset(file, "header", np.uint8, ("bytes",))[()].tobytes())
        config, classes, history = Config(**header["config"]), tuple(header["classes"]), header["history"]
        if not all(isinstance(name, str) for name in classes) or len(history) != header["epoch"]:
            raise FormatError(f"expected class names and a history of {header['epoch']} epochs, got {classes} and "
                              f"{len(history)} epochs")
        model = config.model(len(classes))
        if 3 * 4 * model.trainable > file.id.get_filesize():                # float32, with two moments each
            raise FormatError(f"the configuration has {model.trainable} trainable numbers, more than the file holds")
        rng = np.random.default_rng()
        rng.bit_generator.state = header["rng"]
        params, state = model.init(np.random.default_rng(0))
        run = Run(params, state, init_moments(params), rng, header["epoch"], history,
                  header["rows"], header["inputs"])
        trees = {group: {name: hdf5.dataset(file, f"{group}/{name}", array.dtype, array.shape)[()]
                         for name, array in tree.items()} for group, tree in _trees(run).items()}
        if _digest(trees) != header["digest"]:
            raise FormatError("the arrays are not those of one run; each is whole, some are another file's")
    run.params, run.state = trees["params"], trees["state"]
    run.moments = {name: (trees["first"][name], trees["second"][name]) for name in run.params}
    return run, config, classes


def load_latest(path):
    """What `load_checkpoint` reads from `path`, or if that is missing or damaged from the one before; None at first.

    A damaged file is put aside as ``NAME.damaged.h5``, with a warning, so that it does not take the good one's place.

    Raises
    ------
    FormatError
        Damage, and nothing to fall back on.
    """
    path, previous = pathlib.Path(path), _previous(path)
    if not path.exists():
        return load_checkpoint(previous) if previous.exists() else None
    try:
        return load_checkpoint(path)
    except FormatError as error:
        if not previous.exists():
            raise
        found = load_checkpoint(previous)
        aside = path.with_suffix(".damaged.h5")
        path.replace(aside)
        warnings.warn(f"{error}; it is now {aside.name}, and the run goes on from {previous.name}", stacklevel=2)
        return found


def _previous(path):
    return pathlib.Path(path).with_suffix(".previous.h5")


def _trees(run):
    first, second = ({name: pair[k] for name, pair in run.moments.items()} for k in (0, 1))
    return {"params": run.params, "state": run.state, "first": first, "second": second}


def _digest(trees):
    """Of all arrays together: the checksum of each says nothing of an exchange."""
    digest = hashlib.blake2b(digest_size=16)
    for tree in trees.values():
        for name in sorted(tree):
            digest.update(np.ascontiguousarray(tree[name]))
    return digest.hexdigest()
