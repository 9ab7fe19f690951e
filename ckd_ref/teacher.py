"""The teacher: a small network trained on images, or the logits of any other."""

import autograd.numpy as np
from autograd import value_and_grad

from .batches import random_crop
from .color import rgb_to_hsv
from .losses import cross_entropy
from .models import Teacher, update_state
from .nn.optim import adamw, init_moments
from .schedules import learning_rate
from .run.process_group import prepare_process


def train_teacher(data, seed=0, epochs=8, batch=32, rate=5e-3, padding=4, progress=True, stop=None):
    """Train the small teacher on the images of the pools `teacher` and `static`, and ask it about all images.

    Parameters
    ----------
    data : data.PairedData
    seed, epochs, batch, rate, padding
        As in `Config`.
    progress : bool
    stop : function, optional
        Asked before every batch; ends the training by KeyboardInterrupt when it says True.

    Returns
    -------
    logits : (M, K) float32, for every image of the file.
    """
    from tqdm import tqdm

    prepare_process()
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
                if stop and stop():
                    raise KeyboardInterrupt("stopped in the training of the teacher")
                chosen = order[index * batch:(index + 1) * batch]
                images = random_crop(hsv[None, chosen], padding, rng)[0]
                after = {}

                def loss(params):
                    logits, after["statistics"] = net.apply(params, images)
                    return np.sum(cross_entropy(logits, data.image_label[chosen])) * (1 / len(chosen))

                value, grads = value_and_grad(loss)(params)
                params, moments = adamw(params, grads, moments, epoch * batches + index + 1,
                                        learning_rate(epoch, epochs, rate, warmup_epochs=1))
                state = update_state(state, after["statistics"])
                bar.set_postfix(loss=f"{value:.3f}")
                bar.update()
    parts = [net.apply(params, hsv[i:i + 256], state)[0] for i in range(0, len(hsv), 256)]
    return np.concatenate(parts)
