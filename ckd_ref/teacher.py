"""Training of the small teacher on images."""

import autograd.numpy as np
from autograd import value_and_grad

from .batches import random_crop
from .color import rgb_to_hsv
from .losses import cross_entropy
from .models import Teacher, update_state
from .nn import adamw, init_moments
from .schedules import learning_rate


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
    logits : (M, K) float32, the trained teacher's for every image of the data.
    """
    rng = np.random.default_rng([seed, 1])                     # apart from the student's draws
    net = Teacher(len(data.classes), data.image_size)
    params, state = net.init(rng)
    moments = init_moments(params)
    hsv = rgb_to_hsv(data.images(np.arange(len(data.image_label))))  # (M, size, size, 3)
    pool = np.concatenate([data.images_in("teacher"), data.images_in("static")])
    batches = max(len(pool) // batch, 1)
    value = None
    for epoch in range(epochs):
        order = rng.permutation(pool)
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
                losses = cross_entropy(logits, data.image_label[chosen])
                return np.sum(losses) * (1 / len(chosen))

            value, grads = value_and_grad(loss)(params)
            now = learning_rate(epoch, epochs, rate, warmup_epochs=1)
            params, moments = adamw(params, grads, moments, step + 1, now)
            state = update_state(state, statistics)
    parts = [net.apply(params, hsv[i:i + 256], state)[0] for i in range(0, len(hsv), 256)]
    return np.concatenate(parts)
