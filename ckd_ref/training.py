"""Training and evaluation: the three methods, their log, and checkpoints that a run resumes from (Sec. III, IV-A)."""

import contextlib
import dataclasses
import json
import os
import pathlib
import time

import autograd.numpy as np
import h5py
from autograd import value_and_grad
from autograd.tracer import getval

from .batches import random_crop, replace_static, replacement_mask, sample_pairs
from .color import rgb_to_hsv, value_frames
from .events import FormatError
from .losses import ckd_loss, cross_entropy, tet_loss
from .models import STAGES, VGGSNN, Teacher, predict
from .optim import adamw, init_moments
from .schedules import learning_rate, phase_weight, replacement_probability

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
    epochs: int = _option(20, "length of the training")
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
    """A training run after `epoch` epochs: all that is needed to go on, and the log so far."""

    params: dict
    state: dict
    moments: dict
    rng: np.random.Generator
    epoch: int = 0
    history: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Pairs of one class each: frames (T, B, size, size, 2) of both streams, labels (B,), teacher logits (B, K)."""

    static: np.ndarray
    events: np.ndarray
    labels: np.ndarray
    teacher_logits: np.ndarray = None


def train(data, config, folder=None, teacher_logits=None, progress=True, line=0):
    """Train a student, or go on with a run that was interrupted.

    Parameters
    ----------
    data : data.PairedData
    config : Config
    folder : path, optional
        Gets ``checkpoint.h5`` and ``log.jsonl`` after every epoch. If a checkpoint is there, the run goes on from it
        and ends with the same bits as one that was never interrupted (same machine, one BLAS thread).
    teacher_logits : (M, K) array, optional
        For every image of `data`; `ckd` needs them.
    progress : bool
        Show a progress bar with the parts of the loss.
    line : int
        Its line on the screen, for runs side by side.

    Returns
    -------
    run : Run
        `history` has one dict per epoch: rate, replacement probability, gamma, theta, every part of the loss, the
        accuracy of both streams on their training batches and of the event stream on the test recordings.

    Raises
    ------
    ValueError
        No teacher logits for `ckd`, or logits that do not fit the images.
    FormatError
        A checkpoint of another configuration.
    FloatingPointError
        A loss that is not finite, with epoch, batch and part.
    """
    from tqdm import tqdm

    K = len(data.classes)
    net = config.model(K)
    if config.method == "ckd":
        teacher_logits = check_logits(teacher_logits, data)
    folder = folder and pathlib.Path(folder)
    run = _resume_or_start(net, config, folder)
    recordings, images = data.recordings_in("train"), data.images_in("static")
    frames = data.frames(recordings, config.T, config.size)                    # (T, R, size, size, 2)
    pixels = data.images(images)                                               # (M, size, size, 3)
    test = data.recordings_in("test")
    test_frames, test_labels = data.frames(test, config.T, config.size), data.event_label[test]

    bar = tqdm(total=config.epochs * config.batches, initial=run.epoch * config.batches, desc=config.method,
               disable=not progress, position=line, leave=None, unit="batch")
    with bar:
        for epoch in range(run.epoch, config.epochs):
            start, rows = time.perf_counter(), []
            rate = learning_rate(epoch, config.epochs, config.rate, config.warmup)
            gamma = float(phase_weight(epoch, config.switch, config.slope))
            for index in range(config.batches):
                probability = replacement_probability(index, epoch, config.batches, config.epochs)
                i, j = sample_pairs(data.event_label[recordings], data.image_label[images], config.batch, run.rng)
                events = random_crop(frames[:, i], config.padding, run.rng)
                static = random_crop(value_frames(pixels[j], config.T), config.padding, run.rng)
                mask = replacement_mask(probability, run.rng.random(config.batch))
                batch = Batch(replace_static(static, events, mask), events, data.event_label[recordings[i]],
                              teacher_logits[images[j]] if config.method == "ckd" else None)
                try:
                    rows.append(train_step(net, run, batch, config, rate, gamma, epoch * config.batches + index + 1))
                except FloatingPointError as error:
                    raise FloatingPointError(f"epoch {epoch}, batch {index}: {error}") from None
                bar.set_postfix({name: f"{value:.3f}" for name, value in rows[-1].items()})
                bar.update()
            accuracy = np.mean(classify(net, run, test_frames) == test_labels)
            run.epoch = epoch + 1
            run.history.append({
                "epoch": epoch, "rate": rate, "replacement": probability, "gamma": gamma,
                **{name: sum(row[name] for row in rows) / len(rows) for name in rows[0]},
                "theta": [float(value) for value in run.params["theta"]],
                "accuracy_test": float(accuracy), "seconds": time.perf_counter() - start,
            })
            if folder:
                save_checkpoint(folder / "checkpoint.h5", run, config, data.classes)
                _write_log(folder / "log.jsonl", run.history)
    return run


def train_step(net, run, batch, config, rate, gamma, step):
    """One batch: both streams forward, the loss, its gradient, AdamW. Changes `run`; returns parts and accuracies."""
    def loss(params):
        event_logits, features_d, state = None, None, run.state
        if config.method == "snn":
            event_logits, _, state = net.apply(params, state, batch.events, "event", True)
            total = tet_loss(event_logits, batch.labels, config.lam, config.target)
            parts = {"cls_e": float(getval(total))}
        else:
            static_logits, features_s, state = net.apply(params, state, batch.static, "static", True)
            event_logits, features_d, state = net.apply(params, state, batch.events, "event", True)
            total, parts = ckd_loss(
                static_logits, event_logits, features_s, features_d, batch.labels, params["theta"],
                batch.teacher_logits, gamma, config.alpha, config.alignment, config.temperature, config.lam,
                config.target, config.reading)
            parts["accuracy_static"] = float(np.mean(predict(getval(static_logits)) == batch.labels))
        parts["accuracy_train"] = float(np.mean(predict(getval(event_logits)) == batch.labels))
        after.update(state=state, parts=parts)
        return total

    after = {}
    total, grads = value_and_grad(loss)(run.params)
    row = {"loss": float(total), **after["parts"]}
    bad = [f"{name} = {value}" for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise FloatingPointError(f"the loss is not finite any more ({', '.join(bad)}); try a lower learning rate")
    run.params, run.moments = adamw(run.params, grads, run.moments, step, rate, config.decay)
    run.state = after["state"]
    return row


def classify(net, run, frames, batch=64):
    """Predicted classes (R,) of recordings as frames (T, R, size, size, 2), from events alone."""
    parts = [net.apply(run.params, run.state, frames[:, i:i + batch], "event", False)[0]
             for i in range(0, frames.shape[1], batch)]
    return np.concatenate([predict(logits) for logits in parts])


def train_teacher(data, seed=0, epochs=8, batch=32, rate=5e-3, padding=4, progress=True):
    """Train the small teacher on the images of the pools `teacher` and `static`, and ask it about all images.

    Parameters
    ----------
    data : data.PairedData
    seed, epochs, batch, rate, padding
        As in `Config`.
    progress : bool

    Returns
    -------
    logits : (M, K) float32, for every image of the file.
    """
    from tqdm import tqdm

    rng = np.random.default_rng([seed, 1])                                     # apart from the student's draws
    net = Teacher(len(data.classes), data.image_size)
    params, state = net.init(rng)
    moments = init_moments(params)
    hsv = rgb_to_hsv(data.images(np.arange(len(data.image_label))))            # (M, size, size, 3)
    pool = np.concatenate([data.images_in("teacher"), data.images_in("static")])
    batches = max(len(pool) // batch, 1)
    with tqdm(total=epochs * batches, desc="teacher", disable=not progress, unit="batch") as bar:
        for epoch in range(epochs):
            order = rng.permutation(pool)
            for index in range(batches):
                chosen = order[index * batch:(index + 1) * batch]
                images = random_crop(hsv[None, chosen], padding, rng)[0]
                after = {}

                def loss(params):
                    logits, after["state"] = net.apply(params, state, images, True)
                    return np.sum(cross_entropy(logits, data.image_label[chosen])) * (1 / len(chosen))

                value, grads = value_and_grad(loss)(params)
                params, moments = adamw(params, grads, moments, epoch * batches + index + 1,
                                        learning_rate(epoch, epochs, rate, warmup_epochs=1))
                state = after["state"]
                bar.set_postfix(loss=f"{value:.3f}")
                bar.update()
    parts = [net.apply(params, state, hsv[i:i + 256], False)[0] for i in range(0, len(hsv), 256)]
    return np.concatenate(parts)


def save_logits(path, logits, classes):
    """Write a teacher's logits (M, K) and its class names to an HDF5 file."""
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("logits", data=logits, fletcher32=True, chunks=True)
        file["classes"] = list(classes)


def load_logits(path, data):
    """Read the logits of any teacher, (M, K) float32 for every image of `data`, classes compared by name.

    The file has two data sets, ``logits`` and ``classes``; see `save_logits`.
    """
    try:
        with h5py.File(path) as file:
            logits, classes = file["logits"][:], tuple(name.decode() for name in file["classes"][:])
    except (KeyError, OSError, AttributeError) as error:
        raise FormatError(f"{path}: expected an HDF5 file with logits (M, K) and classes (K,): {error}") from None
    if sorted(classes) != sorted(data.classes):
        only = sorted(set(classes) ^ set(data.classes))
        raise FormatError(f"{path}: expected the classes of {data.path}, these are in one of the two only: {only}")
    try:
        return check_logits(logits[:, [classes.index(name) for name in data.classes]], data)
    except (ValueError, IndexError) as error:
        raise FormatError(f"{path}: {error}") from None


def check_logits(logits, data):
    """Logits for every image of the data as float32, or a ValueError."""
    expected = len(data.image_label), len(data.classes)
    if logits is None or np.shape(logits) != expected or not np.isfinite(logits).all():
        came = "none" if logits is None else f"shape {np.shape(logits)}"
        raise ValueError(f"expected finite teacher logits of shape {expected}, one row per image of the data set, got "
                         f"{came}; train a teacher on it first")
    return np.asarray(logits, np.float32)


def save_checkpoint(path, run, config, classes):
    """Write a run so that it can go on or be evaluated; the file appears when it is complete."""
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["config"] = json.dumps(dataclasses.asdict(config))
        file.attrs["classes"] = json.dumps(classes)
        file.attrs["rng"] = json.dumps(run.rng.bit_generator.state)
        file.attrs["epoch"] = run.epoch
        file["history"] = json.dumps(run.history)
        for group, tree in _trees(run).items():
            for name, array in tree.items():
                file.create_dataset(f"{group}/{name}", data=array)


def load_checkpoint(path):
    """Read a checkpoint: (run, config, classes).

    Raises
    ------
    FormatError
        Not a checkpoint, or one of another version.
    """
    try:
        with h5py.File(path) as file:
            config = Config(**json.loads(file.attrs["config"]))
            classes = tuple(json.loads(file.attrs["classes"]))
            rng = np.random.default_rng()
            rng.bit_generator.state = json.loads(file.attrs["rng"])
            empty, state = config.model(len(classes)).init(np.random.default_rng(0))
            run = Run(empty, state, init_moments(empty), rng, int(file.attrs["epoch"]), json.loads(file["history"][()]))
            trees = {group: {name: _read_array(file, f"{group}/{name}", array) for name, array in tree.items()}
                     for group, tree in _trees(run).items()}
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: expected a checkpoint of this version of ckd_ref: {error}") from None
    run.params, run.state = trees["params"], trees["state"]
    run.moments = {name: (trees["first"][name], trees["second"][name]) for name in run.params}
    return run, config, classes


@contextlib.contextmanager
def written_whole(path):
    """Yield a temporary name that becomes `path` when the block ends, and is removed if it raises."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _resume_or_start(net, config, folder):
    if folder and (folder / "checkpoint.h5").exists():
        run, saved, _ = load_checkpoint(folder / "checkpoint.h5")
        if saved != config:
            differ = [f.name for f in dataclasses.fields(Config) if getattr(saved, f.name) != getattr(config, f.name)]
            raise FormatError(f"{folder} holds a run with another {', '.join(differ)}; name another folder")
        return run
    rng = np.random.default_rng(config.seed)
    params, state = net.init(rng)
    return Run(params, state, init_moments(params), rng)


def _trees(run):
    first, second = ({name: pair[k] for name, pair in run.moments.items()} for k in (0, 1))
    return {"params": run.params, "state": run.state, "first": first, "second": second}


def _read_array(file, name, like):
    array = file[name][()]
    if array.shape != like.shape or array.dtype != like.dtype:
        raise ValueError(f"{name}: expected {like.dtype} {like.shape}, got {array.dtype} {array.shape}")
    return array


def _write_log(path, history):
    with written_whole(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in history))
