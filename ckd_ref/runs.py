"""What a run is: its configuration, its state after every epoch, and the checkpoint that holds both."""

import dataclasses
import hashlib
import json
import pathlib
import warnings

import numpy as np

from . import hdf5
from .events import FormatError, naming
from .files import written_hdf5
from .models import STAGES, VGGSNN
from .optim import init_moments

METHODS = ("snn", "transfer", "ckd")
"""Events alone (TET); the baseline's alignment and replacement (Eqs. 6-8); the same with the teacher (Eqs. 9-11)."""


def _option(default, text):
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run, together with the data file and the teacher's logits.

    The defaults are for minutes on a CPU. The paper's: network full, width 1, T 10 (CEP-DVS: 6), 300 epochs
    (CEP-DVS: 200) of batches of 120, peak rate 5.86e-4, 5 epochs of warm-up.
    """

    method: str = _option("ckd", "snn: events alone; transfer: the baseline; ckd: with the teacher")
    network: str = _option("tiny", "tiny: 4 convolutions; full: the paper's 8")
    width: float = _option(0.125, "scales the channels of the network")
    T: int = _option(6, "time steps")
    size: int = _option(48, "rows and columns of the frames")
    per_step: bool = _option(False, "batch-norm statistics per time step, as in the baseline")
    epochs: int = _option(40, "length of the training")
    batches: int = _option(12, "batches per epoch")
    batch: int = _option(20, "pairs per batch")
    rate: float = _option(5e-3, "peak learning rate")
    warmup: int = _option(2, "epochs of warm-up")
    decay: float = _option(0.01, "weight decay of matrices and filters")
    padding: int = _option(4, "largest shift of the random crop, pixels")
    alpha: float = _option(1.0, "weight of the static stream's classification loss")
    beta: float = _option(None, "weight of the alignment loss (default: ckd 1, transfer 0.5 as in the baseline)")
    temperature: float = _option(4.0, "temperature of the distillation")
    threshold: float = _option(None, "epoch at which the distillation's weight is 1/2 (default: the middle)")
    slope: float = _option(100.0, "how abruptly that weight falls")
    lam: float = _option(1e-3, "TET's share of the regulariser")
    target: float = _option(1.0, "TET's target of the outputs")
    reading: str = _option("code", "code: L_cls-e counted once; paper: twice, as printed")
    seed: int = _option(0, "of everything random in the training")

    def __post_init__(self):
        for name, values in (("method", METHODS), ("network", tuple(STAGES)), ("reading", ("code", "paper"))):
            if getattr(self, name) not in values:
                raise ValueError(f"expected {name} to be one of {', '.join(values)}, got {getattr(self, name)!r}")
        for name, least in (("T", 1), ("epochs", 1), ("batches", 1), ("batch", 2), ("warmup", 0), ("padding", 0),
                            ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} >= {least}, got {getattr(self, name)}")
        for name in ("width", "rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} > 0, got {getattr(self, name)}")

    @property
    def alignment(self):
        """beta, or the method's own: 1 in the paper, 0.5 in the baseline's command."""
        if self.beta is not None:
            return self.beta
        return 0.5 if self.method == "transfer" else 1.0

    @property
    def switch(self):
        """e_th of Eq. (10), or the middle of the training."""
        return (self.epochs - 1) / 2 if self.threshold is None else self.threshold

    def model(self, classes):
        """The student's network for this number of classes."""
        return VGGSNN(classes, self.T, STAGES[self.network], self.width, self.size, self.per_step)


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
    with written_hdf5(path, previous=_previous(path)) as file:
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
    with naming(path, "train again, or give a checkpoint of this version"), hdf5.open_checked(path) as file:
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
