"""The method: one training step, a whole training, and classification from events alone."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, Self

import autograd.numpy as np
from autograd import value_and_grad
from autograd.tracer import getval
from numpy import ndarray
from numpy.random import Generator

from ._numerics import mean
from .batches import Batch, BatchSampler
from .config import EVENTS_ALONE, Config
from .distillation import dist_loss, dkd_loss, luminet_loss
from .losses import ckd_loss, cross_entropy, kd_loss, tet_loss
from .models import predict, update_state
from .nn import adamw, init_moments
from .schedules import learning_rate, phase_weight, replacement_probability
from .table1 import etc_loss, sharing_weight, tks_loss

AT_ONCE = 8
"""Recordings that are classified at a time: few, so that processes can have equal shares."""


@dataclasses.dataclass
class TrainState:
    """All that changes during training, after `epoch` epochs and ``len(rows)`` batches.

    Attributes
    ----------
    params, state : dicts of arrays
        Parameters, and running statistics of batch normalisation; see `VGGSNN.init`.
    moments : dict of pairs of arrays
        See `adamw`.
    rng : numpy.random.Generator
    epoch : int
        Completed epochs.
    rows : list of dict
        What `train_step` returned for the batches since then.
    history : list of dict
        One row per completed epoch, see `epochs`.
    """

    params: dict
    state: dict
    moments: dict
    rng: Generator
    epoch: int = 0
    rows: list = dataclasses.field(default_factory=list)
    history: list = dataclasses.field(default_factory=list)

    @classmethod
    def start(cls, net: Any, seed: int | list[int]) -> Self:
        """The state before the first batch."""
        rng = np.random.default_rng(seed)
        params, state = net.init(rng)
        return cls(params, state, init_moments(params), rng)


def train_step(
    net: Any, run: TrainState, batch: Batch, config: Config, rate: float, gamma: float, step: int
) -> dict[str, float]:
    """One batch: both streams forward, the loss, its gradient, AdamW, running statistics.

    Parameters
    ----------
    net : VGGSNN, or any network with its `init` and `apply`
    run : TrainState
        Its parameters, moments and running statistics are replaced.
    batch : Batch
    config : Config
    rate : float
        Learning rate.
    gamma : float
        Weight of the distillation, Eq. (10), or of the shared knowledge of `tks`.
    step : int
        Number of this batch in the training, from 1.

    Returns
    -------
    row : dict of floats, the loss, its parts and the accuracies on this batch.
    """
    outputs, statistics, row = {}, {}, {}

    def loss(params):
        for stream, frames in streams(batch, config).items():
            logits, features, statistics[stream] = net.apply(params, frames, stream)
            outputs[stream] = logits, features
        total, parts = batch_loss(outputs, params["theta"], batch, config, gamma)
        row.update(parts)
        return total

    _, grads = value_and_grad(loss)(run.params)
    run.params, run.moments = adamw(run.params, grads, run.moments, step, rate, config.decay)
    for of_stream in statistics.values():                      # the static stream comes first
        run.state = update_state(run.state, of_stream)
    return row


def streams(batch: Batch, config: Config) -> dict:
    """The frames that a method looks at, by stream: some see events alone."""
    if config.method in EVENTS_ALONE:
        return {"event": batch.events}
    return {"static": batch.static, "event": batch.events}


def batch_loss(
    outputs: dict, theta: ndarray, batch: Batch, config: Config, gamma: float
) -> tuple[float, dict[str, float]]:
    """The loss of a method, Eq. (7) or Eq. (11), or that of `event_loss` for events alone.

    Parameters
    ----------
    outputs : dict of (logits, features)
        What the network makes of each stream.
    theta : (T,) array
    batch, config, gamma
        As for `train_step`.

    Returns
    -------
    total : scalar
    row : dict of floats
    """
    event_logits, features_d = outputs["event"]
    if config.method in EVENTS_ALONE:
        total, parts = event_loss(event_logits, batch, config, gamma)
    else:
        static_logits, features_s = outputs["static"]
        total, parts = ckd_loss(
            static_logits, event_logits, features_s, features_d, batch.labels, theta,
            batch.teacher_logits,
            gamma=config.kd_weight * gamma,
            alpha=config.alpha,
            beta=config.beta,
            lam=config.lam,
            target=config.target,
            reading=config.reading,
            distill=distillation(config, batch.labels),
            kd_per_step=config.kd_per_step,
        )
        parts["accuracy_static"] = _accuracy(static_logits, batch.labels)
    row = {"loss": float(getval(total)), **parts}
    row["accuracy_train"] = _accuracy(event_logits, batch.labels)
    return total, row


def event_loss(
    logits: ndarray, batch: Batch, config: Config, gamma: float
) -> tuple[float, dict[str, float]]:
    """The loss of a method that sees events alone, and its parts: a term of Table I, or TET.

    Assumption: `tks` and `etc` classify the outputs' mean over time and add their own term to it,
    `etc` with weight 1, as the programs of their authors do, at the temperatures of their
    commands, 3 and 4; `nda` and `eventmix` change the events and have the loss of `snn`, where
    NDA's program classifies the mean output.
    Test: `test_losses_of_table_1_in_words`.
    """
    if config.method == "tks":
        cls_e, shared = tks_loss(logits, batch.labels, temperature=3.0)
        total = (1 - gamma) * cls_e + gamma * shared
        parts = {"cls_e": cls_e, "tks": shared}
    elif config.method == "etc":
        cls_e = mean(cross_entropy(mean(logits, axis=0), batch.labels))
        consistency = etc_loss(logits, temperature=4.0)
        total = cls_e + consistency
        parts = {"cls_e": cls_e, "etc": consistency}
    else:
        labels = batch.labels if batch.shares is None else batch.shares
        total = tet_loss(logits, labels, config.lam, config.target)
        parts = {"cls_e": total}
    return total, {name: float(getval(part)) for name, part in parts.items()}


def distillation(config: Config, labels: ndarray) -> Callable[[ndarray, ndarray], float]:
    """The function (teacher logits, student logits) -> L_KD that the configuration names."""
    tau = config.temperature
    return {
        "kd": lambda teacher, student: kd_loss(teacher, student, tau),
        "dkd": lambda teacher, student: dkd_loss(teacher, student, labels, temperature=tau),
        "dist": lambda teacher, student: dist_loss(teacher, student, temperature=tau),
        "luminet": lambda teacher, student: luminet_loss(teacher, student, temperature=tau),
    }[config.distillation]


def classify(net: Any, run: TrainState, frames: ndarray, batch: int = AT_ONCE) -> ndarray:
    """Classes of recordings, from events alone.

    Parameters
    ----------
    net, run
        As for `train_step`.
    frames : (T, R, size, size, 2) array
    batch : int
        How many recordings at a time.

    Returns
    -------
    classes : (R,) array of int
    """
    predicted = []
    for i in range(0, frames.shape[1], batch):
        logits, _, _ = net.apply(run.params, frames[:, i:i + batch], "event", run.state)
        predicted.append(predict(logits))
    return np.concatenate(predicted)


def epochs(
    net: Any, run: TrainState, sampler: BatchSampler, test_frames: ndarray, test_labels: ndarray,
    config: Config, train_step: Callable = train_step, classify: Callable = classify,
) -> Iterator[dict[str, float]]:
    """A whole training, or the rest of one: yield the row of every batch after it was trained on.

    After the last batch of an epoch, ``run.history`` has a new row and ``run.rows`` is empty.
    `run` may be saved between any two batches and resumed from there.

    Parameters
    ----------
    net, run, config
        As for `train_step`.
    sampler : BatchSampler
    test_frames : (T, R, size, size, 2) array
    test_labels : (R,) array of int
    train_step, classify : functions
        Twins of those of this module.

    Yields
    ------
    row : dict of floats, see `train_step`.

    Raises
    ------
    FloatingPointError
        A loss, parameter or statistic is NaN or Inf; the message says in which epoch and batch.
    """
    for epoch in range(run.epoch, config.epochs):
        rate = learning_rate(epoch, config.epochs, config.rate, config.warmup)
        gamma = weight_of_epoch(epoch, config)
        for index in range(len(run.rows), config.batches):
            batch = sampler.draw(index, epoch, run.rng)
            step = epoch * config.batches + index + 1
            row = train_step(net, run, batch, config, rate, gamma, step)
            check_finite(row, run, f"epoch {epoch}, batch {index}")
            run.rows.append(row)
            if index < config.batches - 1:
                yield row
        classes = classify(net, run, test_frames)
        accuracy = np.mean(classes == test_labels)
        run.history.append({
            "epoch": epoch,
            "rate": rate,
            "replacement": replacement_probability(
                config.batches - 1, epoch, config.batches, config.epochs
            ),
            "gamma": gamma,
            **{name: math.fsum(row[name] for row in run.rows) / len(run.rows)
               for name in run.rows[0]},
            "theta": [float(value) for value in run.params["theta"]],
            "accuracy_test": float(accuracy),
        })
        row = run.rows[-1]
        run.epoch, run.rows = epoch + 1, []
        yield row


def weight_of_epoch(epoch: int, config: Config) -> float:
    """gamma of `train_step`: Eq. (10), or for `tks` the weight of the knowledge that is shared."""
    if config.method == "tks":
        return sharing_weight(epoch, config.epochs)
    return float(phase_weight(epoch, config.switch, config.slope))


def check_finite(row: dict[str, float], run: TrainState, place: str) -> None:
    """Raise FloatingPointError where something is NaN or Inf.

    A finite loss may have infinite gradients, which must not be saved.
    """
    remedy = "try a lower learning rate"
    bad = [f"{name} = {value}" for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{place}: the loss is NaN or Inf ({', '.join(bad)}); {remedy}"
        )
    arrays = {f"parameter {name}": array for name, array in run.params.items()}
    arrays |= {f"statistic {name}": array for name, array in run.state.items()}
    for name, (first, second) in run.moments.items():
        arrays |= {f"gradient of {name}": first, f"squared gradient of {name}": second}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FloatingPointError(f"{place}: the {name} is NaN or Inf; {remedy}")


def _accuracy(logits, labels):
    return float(np.mean(predict(getval(logits)) == labels))
