"""The small teacher: a trained network as a function of images, and its training."""

import dataclasses

import autograd.numpy as np
from autograd import value_and_grad

from .batches import random_crop
from .color import rgb_to_hsv
from .losses import cross_entropy
from .models import Teacher, update_state
from .nn import adamw, init_moments
from .schedules import learning_rate


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

    def __call__(self, images, batch=256):
        """Logits (B, K) for RGB images (B, size, size, 3) in [0, 1], `batch` at a time."""
        parts = []
        for i in range(0, len(images), batch):
            hsv = rgb_to_hsv(images[i:i + batch])              # (batch, size, size, 3)
            parts.append(self.net.apply(self.params, hsv, self.state)[0])
        return np.concatenate(parts)


def train_teacher(data, seed=0, epochs=8, batch=32, rate=5e-3, padding=4, watch=None):
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
    """
    rng = np.random.default_rng([seed, 1])                     # apart from the student's draws
    net = Teacher(len(data.classes), data.image_size)
    params, state = net.init(rng)
    moments = init_moments(params)
    pool = np.concatenate([data.images_in("teacher"), data.images_in("static")])
    hsv, label = rgb_to_hsv(data.images(pool)), data.image_label[pool]  # (N, size, size, 3), (N,)
    batches = max(len(pool) // batch, 1)
    value = None
    for epoch in range(epochs):
        order = rng.permutation(len(pool))
        for index in range(batches):
            step = epoch * batches + index
            if watch:
                watch(step, epochs * batches, value)
            chosen = order[index * batch:(index + 1) * batch]
            images = random_crop(hsv[None, chosen], padding, rng)[0]
            statistics = {}

            def loss(params):
                logits, new = net.apply(params, images)
                statistics.update(new)
                losses = cross_entropy(logits, label[chosen])
                return np.sum(losses) * (1 / len(chosen))

            value, grads = value_and_grad(loss)(params)
            now = learning_rate(epoch, epochs, rate, warmup_epochs=1)
            params, moments = adamw(params, grads, moments, step + 1, now)
            state = update_state(state, statistics)
    return TrainedTeacher(net, params, state)
