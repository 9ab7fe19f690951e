"""The networks as pure functions of a parameter tree: the student VGGSNN and a small teacher.

A parameter tree is a dict from a path such as ``conv0/w`` to an array; so is the state, which
holds the running statistics of batch normalisation: evaluation uses it, training updates it
(`update_state`). Sec. IV-A.
"""

import dataclasses
import math

import autograd.numpy as np

from .neuron import Neuron, lif, reset
from .nn import avg_pool, batch_norm, conv2d, fused_layer, linear, relu, update_running

STAGES = {
    "full": ((64, 128), (256, 256), (512, 512), (512, 512)),
    "tiny": ((64,), (128,), (256,), (512,)),
}
"""Channels of the convolutions; each stage ends in 2 x 2 average pooling.

`full` is the paper's network, `tiny` one to train in minutes.
"""


def layer(x, w, scale, shift, running, per_step, neuron, pool, features):
    """A layer of the student, ``avg_pool(lif(batch_norm(conv2d(x))))``.

    Parameters
    ----------
    x : (T, B, H, W, C) array of floats
    w : (k, k, C, K) array
        Filter.
    scale, shift : (K,) arrays
    running, per_step
        See `batch_norm`.
    neuron : Neuron
    pool : int
        Side of the windows that are averaged; 1 for none.
    features : bool
        Whether the features are asked for.

    Returns
    -------
    pooled : (T, B, H // pool, W // pool, K)
    features : (T, B, H, W, K), potentials after the reset, or None.
    statistics : see `batch_norm`.
    """
    current, statistics = batch_norm(conv2d(x, w), scale, shift, running, per_step)
    spikes, potentials = lif(current, **vars(neuron))          # (T, B, H, W, K)
    kept = reset(potentials, neuron.v_th) if features else None
    return avg_pool(spikes, pool), kept, statistics


@dataclasses.dataclass(frozen=True)
class VGGSNN:
    """The student: `layer` after `layer` in stages, and a linear head for each stream.

    Assumption: the paper names VGGSNN and leaves its layers to the baseline, whose network this
    is. Baseline: Transfer_VGG_SNN in braincog/model_zoo/vgg_snn.py.
    Test: `test_number_of_parameters_of_the_paper`.
    Assumption: theta of Eq. (6) starts at 1 and gets no weight decay, on which the paper is
    silent. Baseline: one coefficient of 1.0 per step, in the constructor of Transfer_VGG_SNN.
    Test: `test_number_of_parameters_of_the_paper`.
    Deviation: the paper's second network, a spiking ResNet-18, is not here yet.
    Test: `test_vggsnn_is_the_only_student`.

    Parameters
    ----------
    classes : int
        K.
    T : int
        Time steps; 10 in the paper for N-Caltech101.
    stages : tuple of tuples of int
        A value of `STAGES`.
    width : float
        Scales all channels.
    size : int
        Rows and columns of the input frames, 48 in the paper.
    per_step : bool
        Batch statistics per time step, as in the baseline; see `batch_norm`.
    neuron : Neuron
        Settings of all neurons.
    fused : bool
        Compute each layer in one pass over the memory (`nn.fused_layer`); the same numbers.
    """

    classes: int
    T: int = 10
    stages: tuple = STAGES["full"]
    width: float = 1.0
    size: int = 48
    per_step: bool = False
    neuron: Neuron = Neuron()
    fused: bool = True

    def __post_init__(self):
        if self.classes < 2 or self.T < 1:
            raise ValueError(
                "expected at least 2 classes and T >= 1 time steps, "
                f"got {self.classes} and {self.T}"
            )
        least = 2 ** len(self.stages)
        if self.size < least or min(self.channels) < 1:
            raise ValueError(
                f"expected frames of at least {least} x {least} pixels and a channel in every "
                f"layer, got size {self.size} and width {self.width}"
            )

    @property
    def channels(self):
        """Output channels of every convolution."""
        return [int(c * self.width) for stage in self.stages for c in stage]

    @property
    def pools(self):
        """Pooling after every convolution: 2 at the end of a stage, else 1."""
        return [pool for stage in self.stages for pool in [1] * (len(stage) - 1) + [2]]

    @property
    def trainable(self):
        """Number of trainable numbers, known without making them."""
        channels = [2, *self.channels]
        filters = sum(9 * C * K for C, K in zip(channels, channels[1:]))
        norms = 2 * sum(self.channels)                         # scale and shift
        heads = 2 * (self._inputs_of_head + 1) * self.classes
        return filters + norms + heads + self.T

    @property
    def _inputs_of_head(self):
        side = self.size // 2 ** len(self.stages)
        return side**2 * self.channels[-1]

    def init(self, rng, dtype=np.float32):
        """Random parameters and the initial state: uniform within 1 / sqrt(fan-in), theta = 1."""
        params, state = _init_convolutions([2, *self.channels], rng, dtype)
        for stream in ("static", "event"):
            params |= _init_linear(stream, self._inputs_of_head, self.classes, rng, dtype)
        params["theta"] = np.ones(self.T, dtype)
        return params, state

    def apply(self, params, frames, stream, state=None):
        """Outputs of one stream.

        Parameters
        ----------
        params : dict of arrays, see `init`
        frames : (T, B, size, size, 2) array of floats
        stream : {"static", "event"}
            Names the head; all other parameters are shared.
        state : dict of arrays, optional
            For evaluation. Without it the frames are normalised by their own statistics, as in
            training.

        Returns
        -------
        logits : (T, B, K)
        features : (T, B, h, w, C), potentials of the last LIF layer after the reset, for Eq. (5).
        statistics : dict of those of every layer in training, see `update_state`.
        """
        if np.shape(frames)[:1] + np.shape(frames)[2:] != (self.T, self.size, self.size, 2):
            raise ValueError(
                f"expected frames ({self.T}, B, {self.size}, {self.size}, 2), "
                f"got shape {np.shape(frames)}"
            )
        compute = fused_layer if self.fused else layer
        x, statistics = frames, {}
        for k, pool in enumerate(self.pools):
            weights, running = _convolution(params, state, k)
            last = k == len(self.pools) - 1
            x, features, new = compute(
                x, *weights, running, self.per_step, self.neuron, pool, features=last
            )                                                  # (T, B, h, w, C)
            if state is None:
                statistics[f"conv{k}"] = new
        flat = np.reshape(x, x.shape[:2] + (-1,))              # (T, B, D)
        logits = linear(flat, params[f"{stream}/w"], params[f"{stream}/b"])
        return logits, features, statistics


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A small ordinary network on HSV images, in place of the paper's WRN101_2.

    Deviation: trained here from nothing on a larger pool of images instead of ImageNet. Logits of
    any other network can be given to the training instead. Test:
    `test_teacher_learns_what_colours_show`.

    Parameters
    ----------
    classes : int
        K.
    size : int
        Rows and columns of the images.
    channels : tuple of int
        Channels of the convolutions, each followed by batch norm, ReLU and 2 x 2 average pooling.
    """

    classes: int
    size: int = 48
    channels: tuple = (16, 32, 64, 64)

    def init(self, rng, dtype=np.float32):
        """Random parameters and the initial state, as for `VGGSNN`."""
        params, state = _init_convolutions([3, *self.channels], rng, dtype)
        side = self.size // 2 ** len(self.channels)
        params |= _init_linear("head", side**2 * self.channels[-1], self.classes, rng, dtype)
        return params, state

    def apply(self, params, hsv, state=None):
        """Logits (B, K) for HSV images (B, H, W, 3) with values in [0, 1], and statistics.

        See `VGGSNN.apply`.
        """
        x, statistics = hsv, {}
        for k in range(len(self.channels)):
            (w, scale, shift), running = _convolution(params, state, k)
            x, new = batch_norm(conv2d(x, w), scale, shift, running)
            x = avg_pool(relu(x), 2)                           # (B, h / 2, w / 2, C)
            if state is None:
                statistics[f"conv{k}"] = new
        flat = np.reshape(x, (len(x), -1))                     # (B, D)
        return linear(flat, params["head/w"], params["head/b"]), statistics


def predict(logits):
    """Class of each sample: the largest output, averaged over time.

    Parameters
    ----------
    logits : (T, B, K) array of floats
        Of the event head, in evaluation.

    Returns
    -------
    classes : (B,) array of int in 0 ... K - 1
    """
    return np.argmax(np.sum(logits, axis=0), axis=-1)


def update_state(state, statistics):
    """The state after the batch statistics of one stream.

    Parameters
    ----------
    state : dict of arrays
        Running mean and variance of every layer.
    statistics : dict of (mean, var)
        As `apply` returns them in training.

    Returns
    -------
    state : a new dict.
    """
    state = dict(state)
    for name, new in statistics.items():
        running = state[f"{name}/mean"], state[f"{name}/var"]
        state[f"{name}/mean"], state[f"{name}/var"] = update_running(running, new)
    return state


def _convolution(params, state, k):
    """Filter, scale and shift of convolution k, and its running statistics or None."""
    name = f"conv{k}"
    weights = params[f"{name}/w"], params[f"{name}/scale"], params[f"{name}/shift"]
    return weights, None if state is None else (state[f"{name}/mean"], state[f"{name}/var"])


def _init_convolutions(channels, rng, dtype):
    params, state = {}, {}
    for k, (C, K) in enumerate(zip(channels, channels[1:])):
        name = f"conv{k}"
        params[f"{name}/w"] = _uniform((3, 3, C, K), 9 * C, rng, dtype)
        params[f"{name}/scale"] = np.ones(K, dtype)
        params[f"{name}/shift"] = np.zeros(K, dtype)
        state[f"{name}/mean"] = np.zeros(K, dtype)
        state[f"{name}/var"] = np.ones(K, dtype)
    return params, state


def _init_linear(name, D, K, rng, dtype):
    w = _uniform((D, K), D, rng, dtype)
    return {f"{name}/w": w, f"{name}/b": _uniform((K,), D, rng, dtype)}


def _uniform(shape, fan_in, rng, dtype):
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(dtype)
