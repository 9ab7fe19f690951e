"""The small teacher: a trained network as a function of images, and its training."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import autograd.numpy as np
from autograd import value_and_grad
from numpy import ndarray

from .batches import random_crop
from .color import rgb_to_hsv
from .losses import cross_entropy
from .models import Teacher, update_state
from .nn import adamw
from .schedules import learning_rate
from .training import TrainState

EPOCHS = 8
"""Length of the small teacher's training."""


@dataclasses.dataclass(frozen=True)
class TrainedTeacher:
    """A teacher's network with what it has learned, called with images.

    Attributes
    ----------
    net : Teacher
    params, state : dicts of arrays
        See `Teacher.init`.
    """

    net: Teacher
    params: dict
    state: dict

    def __call__(self, images: ndarray, batch: int = 256) -> ndarray:
        """Logits (B, K) for RGB images (B, size, size, 3) in [0, 1], `batch` at a time."""
        parts = []
        for i in range(0, len(images), batch):
            hsv = rgb_to_hsv(images[i:i + batch])              # (batch, size, size, 3)
            parts.append(self.net.apply(self.params, hsv, self.state)[0])
        return np.concatenate(parts)


def train_teacher(
    data: Any, seed: int = 0, epochs: int = EPOCHS, batch: int = 32, rate: float = 5e-3,
    padding: int = 4, watch: Callable[[int, int, float | None], object] | None = None,
) -> TrainedTeacher:
    """Train the small teacher on the images of the pools `teacher` and `static`.

    Parameters
    ----------
    data : PairedData
    seed, epochs, batch, rate, padding
        As in `Config`.
    watch : function, optional
        Called before every batch with its number, the number of batches and the loss of the
        batch before (None at first); what it raises ends the training.

    Returns
    -------
    teacher : TrainedTeacher

    Raises
    ------
    ValueError
        No open data set, images that are too small, no epochs or an empty batch.
    """
    for name, came in (("epochs", epochs), ("batch", batch)):
        if not isinstance(came, (int, np.integer)) or came < 1:
            raise ValueError(f"expected {name} to be a whole number >= 1, got {came!r}")
    net, run = untrained_teacher(data, seed)
    total = epochs * batches_of_teacher(data, batch)
    losses = teacher_epochs(net, run, data, epochs, batch, rate, padding)
    loss = None
    for step in range(total):
        if watch:
            watch(step, total, loss)
        loss = next(losses)
    return TrainedTeacher(net, run.params, run.state)


def untrained_teacher(data: Any, seed: int = 0) -> tuple[Teacher, TrainState]:
    """The network of the small teacher for the images of the data, and its state before training.

    Returns
    -------
    net : Teacher
    run : TrainState

    Raises
    ------
    ValueError
        Images that are too small for its layers.
    """
    if not hasattr(data, "image_size"):
        raise ValueError(
            f"expected an open data set, got {type(data).__name__}; call it as "
            'with open_paired("FILE.h5") as data: train_teacher(data)'
        )
    net = Teacher(len(data.classes), data.image_size)
    least = 2 ** len(net.channels)
    if net.size < least:
        raise ValueError(
            f"expected images of at least {least} x {least} pixels for the small teacher, got "
            f"{net.size} x {net.size}; give another teacher"
        )
    return net, TrainState.start(net, [seed, 1])               # apart from the student's draws


def batches_of_teacher(data: Any, batch: int = 32) -> int:
    """Batches in an epoch of the small teacher's training."""
    pool = len(data.images_in("teacher")) + len(data.images_in("static"))
    return max(pool // batch, 1)


def teacher_epochs(
    net: Teacher, run: TrainState, data: Any, epochs: int = EPOCHS, batch: int = 32,
    rate: float = 5e-3, padding: int = 4,
) -> Iterator[float]:
    """A whole training of the small teacher, or the rest of one: yield the loss of every batch.

    After the last batch of an epoch, ``run.history`` has a new row and ``run.rows`` is empty.
    `run` may be saved between any two batches and resumed from there: its generator is that of
    the beginning of the epoch, and what the batches before have drawn is drawn again.

    Parameters
    ----------
    net, run
        See `untrained_teacher`.
    data, epochs, batch, rate, padding
        As for `train_teacher`.

    Yields
    ------
    loss : float
    """
    pool = np.concatenate([data.images_in("teacher"), data.images_in("static")])
    hsv, label = rgb_to_hsv(data.images(pool)), data.image_label[pool]  # (N, size, size, 3), (N,)
    batches = batches_of_teacher(data, batch)
    for epoch in range(run.epoch, epochs):
        rng = copy.deepcopy(run.rng)
        order = rng.permutation(len(pool))
        now = learning_rate(epoch, epochs, rate, warmup_epochs=1)
        for index in range(batches):
            chosen = order[index * batch:(index + 1) * batch]
            images = random_crop(hsv[None, chosen], padding, rng)[0]
            if index < len(run.rows):                          # trained on before it was saved
                continue
            statistics = {}

            def loss(params):
                logits, new = net.apply(params, images)
                statistics.update(new)
                losses = cross_entropy(logits, label[chosen])
                return np.sum(losses) * (1 / len(chosen))

            value, grads = value_and_grad(loss)(run.params)
            step = epoch * batches + index + 1
            run.params, run.moments = adamw(run.params, grads, run.moments, step, now)
            run.state = update_state(run.state, statistics)
            run.rows.append({"loss": float(value)})
            if index < batches - 1:
                yield run.rows[-1]["loss"]
        mean = math.fsum(row["loss"] for row in run.rows) / batches
        last = run.rows[-1]["loss"]
        run.history.append({"epoch": epoch, "rate": now, "loss": mean})
        run.rng, run.epoch, run.rows = rng, epoch + 1, []
        yield last
