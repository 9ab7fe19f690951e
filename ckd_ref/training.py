"""Training and evaluation of the student by three methods (Sec. III)."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import signal
import threading
import time

import autograd.numpy as np
from autograd import grad, make_vjp
from autograd.builtins import tuple as traced_tuple
from autograd.tracer import getval

from .batches import random_crop, replace_static, replacement_mask, sample_pairs
from .color import value_frames
from .events import FormatError
from .data.files import locked, remove_leftovers, atomic_write
from .losses import ckd_loss, tet_loss
from .models import predict, update_state
from .nn.optim import adamw, init_moments
from .run.checkpoint import Run, load_latest, save_checkpoint
from .config import Config
from .schedules import learning_rate, phase_weight, replacement_probability
from .run.logits import check_logits
from .run.process_group import ALONE, Team


@dataclasses.dataclass(frozen=True)
class Batch:
    """Pairs of one class each: frames (T, B, size, size, 2) of both streams, labels (B,), teacher logits (B, K)."""

    static: np.ndarray
    events: np.ndarray
    labels: np.ndarray
    teacher_logits: np.ndarray = None


class Pairs:
    """The training data of a run in memory, from which batches are drawn; see `train` for the arguments."""

    def __init__(self, data, config, teacher_logits):
        self.config = config
        recordings, images = data.recordings_in("train"), data.images_in("static")
        self.frames = data.frames(recordings, config.T, config.size)           # (T, R, size, size, 2)
        self.event_label = data.event_label[recordings]
        self.pixels = data.images(images)                                      # (M, size, size, 3)
        self.image_label = data.image_label[images]
        self.logits = check_logits(teacher_logits, data)[images] if config.method == "ckd" else None

    def draw(self, probability, rng):
        """A batch with the probability of replacement of Eq. (8). Every method draws the same numbers."""
        T, B, padding = self.config.T, self.config.batch, self.config.padding
        i, j = sample_pairs(self.event_label, self.image_label, B, rng)
        events = random_crop(self.frames[:, i], padding, rng)
        static = random_crop(value_frames(self.pixels[j], T), padding, rng)
        static = replace_static(static, events, replacement_mask(probability, rng.random(B)))
        return Batch(static, events, self.event_label[i], None if self.logits is None else self.logits[j])


def train(data, config, folder=None, teacher_logits=None, progress=True, line=0, stop=None, processes=1):
    """Train a student, or go on with a run that was interrupted.

    Parameters
    ----------
    data : data.PairedData
    config : Config
    folder : path, optional
        Gets ``checkpoint.h5``, the one before it, ``log.jsonl`` and ``times.jsonl`` after every epoch, and is locked
        meanwhile. If a checkpoint is there, the run goes on from it and ends with the same bits as one that was never
        interrupted (same machine, one BLAS thread).
    teacher_logits : (M, K) array, optional
        For every image of `data`; `ckd` needs them.
    progress : bool
        Show a progress bar with the parts of the loss.
    line : int
        Its line on the screen, for runs side by side.
    stop : function, optional
        Asked before every batch; when it says True the run is saved and ends. Default: whether Ctrl-C was pressed,
        if there is a folder to save to.
    processes : {1, 2}
        With 2, each stream has a process of its own. The bits do not depend on it.

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
        A checkpoint of another configuration, data set or teacher, or a damaged one without a predecessor.
    BlockingIOError
        Another process is using the folder.
    FloatingPointError
        A loss, parameter or statistic that is not finite, with epoch, batch and name. Checkpoints stay as they are.
    KeyboardInterrupt
        Stopped; what was done is saved.
    """
    with Team(processes) as team:                              # before the lock, which its processes would hold too
        if not folder:
            return _train(data, config, None, teacher_logits, progress, line, stop or (lambda: False), team)
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder), contextlib.nullcontext(stop) if stop else ctrl_c() as stop:
            remove_leftovers(folder)
            return _train(data, config, folder, teacher_logits, progress, line, stop, team)


@contextlib.contextmanager
def ctrl_c():
    """Yield a function that says whether Ctrl-C was pressed since; pressed again, it interrupts at once as usual."""
    pressed = threading.Event()

    def note(*_):
        signal.signal(signal.SIGINT, before)
        pressed.set()

    if threading.current_thread() is not threading.main_thread():              # only that one is told of Ctrl-C
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _train(data, config, folder, teacher_logits, progress, line, stop, team):
    from tqdm import tqdm

    net, pairs = config.model(len(data.classes)), Pairs(data, config, teacher_logits)
    test = data.recordings_in("test")
    test_frames, test_labels = data.frames(test, config.T, config.size), data.event_label[test]
    run = _resume_or_start(net, config, folder, _inputs(data, config, teacher_logits))
    done = run.epoch * config.batches + len(run.rows)
    with tqdm(total=config.epochs * config.batches, initial=done, desc=config.method, disable=not progress,
              position=line, leave=None, unit="batch") as bar:
        for epoch in range(run.epoch, config.epochs):
            start = time.perf_counter()
            rate = learning_rate(epoch, config.epochs, config.rate, config.warmup)
            gamma = float(phase_weight(epoch, config.switch, config.slope))
            for index in range(len(run.rows), config.batches):
                if stop():
                    _save(folder, run, config, data.classes, epoch, time.perf_counter() - start)
                    raise KeyboardInterrupt(f"stopped in epoch {epoch} before batch {index}")
                probability = replacement_probability(index, epoch, config.batches, config.epochs)
                batch = pairs.draw(probability, run.rng)
                try:
                    row = train_step(net, run, batch, config, rate, gamma, epoch * config.batches + index + 1, team)
                    _check_finite(run)
                except FloatingPointError as error:
                    raise FloatingPointError(f"epoch {epoch}, batch {index}: {error}") from None
                run.rows.append(row)
                bar.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
                bar.update()
            accuracy = np.mean(classify(net, run, test_frames, team) == test_labels)
            run.history.append({
                "epoch": epoch, "rate": rate,
                "replacement": replacement_probability(config.batches - 1, epoch, config.batches, config.epochs),
                "gamma": gamma,
                **{name: sum(row[name] for row in run.rows) / len(run.rows) for name in run.rows[0]},
                "theta": [float(value) for value in run.params["theta"]], "accuracy_test": float(accuracy),
            })
            run.epoch, run.rows = epoch + 1, []
            _save(folder, run, config, data.classes, epoch, time.perf_counter() - start)
    return run


def train_step(net, run, batch, config, rate, gamma, step, team=ALONE):
    """One batch: both streams forward, the loss, its gradient, AdamW. Changes `run`; returns parts and accuracies."""
    streams = [("static", batch.static), ("event", batch.events)][config.method == "snn":]
    shared = run.params, batch.labels, batch.teacher_logits, config, gamma
    results = team.call(gradients, [(net, streams[member::team.size], *shared) for member in range(team.size)])
    row, slope = results[0][1:]
    bad = [f"{name} = {value}" for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise FloatingPointError(f"the loss is not finite any more ({', '.join(bad)}); try a lower learning rate")
    passes = [stream for streams, _, _ in results for stream in streams]
    grads = {name: sum(own[name] for own, _ in passes) for name in run.params} | {"theta": slope}
    run.params, run.moments = adamw(run.params, grads, run.moments, step, rate, config.decay)
    for _, statistics in passes:
        run.state = update_state(run.state, statistics)
    return row


def gradients(team, net, streams, params, labels, teacher_logits, config, gamma):
    """Every member of a team takes its own of the streams, (head, frames), through the network and back.

    In between they show each other the outputs, and each computes the loss and its derivatives.

    Returns
    -------
    passes : list of (dict, dict), for every own stream the gradients of the parameters and the batch statistics
    row : dict of floats, the parts of the loss and accuracies
    slope : (T,) array, the gradient of theta
    """
    def forward(params, head, frames):
        logits, features, after[head] = net.apply(params, frames, head)
        return traced_tuple((logits, features))

    def loss(outputs, theta):
        *static, (event_logits, features_d) = outputs
        if not static:
            total = tet_loss(event_logits, labels, config.lam, config.target)
            parts = {"cls_e": float(getval(total))}
        else:
            [(static_logits, features_s)] = static
            total, parts = ckd_loss(static_logits, event_logits, features_s, features_d, labels, theta, teacher_logits,
                                    gamma, config.alpha, config.alignment, config.temperature, config.lam,
                                    config.target, config.reading)
            parts["accuracy_static"] = float(np.mean(predict(getval(static_logits)) == labels))
        row.update(loss=float(getval(total)), **parts)
        row["accuracy_train"] = float(np.mean(predict(getval(event_logits)) == labels))
        return total

    after, row = {}, {}
    passes = [(head, *make_vjp(forward)(params, head, frames)) for head, frames in streams]
    outputs = sum(team.everyone([outputs for _, _, outputs in passes]), [])
    slopes, slope = grad(loss, (0, 1))(outputs, params["theta"])
    passes = [(back(g), after[head]) for (head, back, _), g in zip(passes, slopes[team.rank::team.size])]
    return passes, row, slope


def classify(net, run, frames, team=ALONE, batch=8):
    """Predicted classes (R,) of recordings as frames (T, R, size, size, 2), from events alone."""
    batches = [frames[:, i:i + batch] for i in range(0, frames.shape[1], batch)]
    own = [(net, run.params, run.state, batches[member::team.size]) for member in range(team.size)]
    predicted = [None] * len(batches)
    for member, classes in enumerate(team.call(_predict, own)):
        predicted[member::team.size] = classes
    return np.concatenate(predicted)


def _predict(_, net, params, state, batches):
    return [predict(net.apply(params, frames, "event", state)[0]) for frames in batches]


def _check_finite(run):
    """A finite loss may have gradients that are not: what they made must not be saved."""
    first, second = ({name: pair[k] for name, pair in run.moments.items()} for k in (0, 1))
    for what, tree in (("parameter", run.params), ("statistic", run.state),
                       ("gradient of", first), ("squared gradient of", second)):
        for name, array in tree.items():
            if not np.isfinite(array).all():
                raise FloatingPointError(f"the {what} {name} is not finite any more; try a lower learning rate")


def _inputs(data, config, teacher_logits):
    """Digests of what decides a run besides its configuration, by name."""
    inputs = {"data set": data.digest()}
    if config.method == "ckd":
        inputs["teacher"] = hashlib.sha256(check_logits(teacher_logits, data).tobytes()).hexdigest()
    return inputs


def _resume_or_start(net, config, folder, inputs):
    found = folder and load_latest(folder / "checkpoint.h5")
    if not found:
        rng = np.random.default_rng(config.seed)
        params, state = net.init(rng)
        return Run(params, state, init_moments(params), rng, inputs=inputs)
    run, saved, _ = found
    differ = [f.name for f in dataclasses.fields(Config) if getattr(saved, f.name) != getattr(config, f.name)]
    differ += [name for name, digest in inputs.items() if run.inputs.get(name) != digest]
    if differ:
        raise FormatError(f"{folder} holds a run with another {', '.join(differ)}; name another folder")
    seconds = _read_rows(folder / "times.jsonl")
    run.seconds = [row for row in seconds if row["epoch"] < run.epoch + bool(run.rows)]
    _write_rows(folder / "log.jsonl", run.history)             # a kill may have come between checkpoint and log
    return run


def _save(folder, run, config, classes, epoch, seconds):
    """The checkpoint after the times, which it does not hold, and before the log, which can be made of it."""
    run.seconds.append({"epoch": epoch, "seconds": seconds})
    if folder:
        _write_rows(folder / "times.jsonl", run.seconds)
        save_checkpoint(folder / "checkpoint.h5", run, config, classes)
        _write_rows(folder / "log.jsonl", run.history)


def _read_rows(path):
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except ValueError as error:
        raise FormatError(f"{path}: expected one JSON object per line ({error}); delete the file") from None


def _write_rows(path, rows):
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
