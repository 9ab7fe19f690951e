"""The networks as pure functions of a parameter tree: the student VGGSNN and a small teacher (Sec. IV-A).

A parameter tree is a dict from a path such as ``conv0/w`` to an array; so is the state, which holds the running
statistics of batch normalisation: evaluation uses it, training brings it up to date (`update_state`).
"""

import dataclasses
import math

import autograd.numpy as np

from .nn.layers import Identity, avg_pool, batch_norm, conv2d, linear, relu, update_running
from .neuron import lif, reset
from .nn.fused import Neurons

STAGES = {
    "full": ((64, 128), (256, 256), (512, 512), (512, 512)),
    "tiny": ((64,), (128,), (256,), (512,)),
}
"""Channels of the convolutions; each stage ends in 2 x 2 average pooling. `full` is the paper's, `tiny` for minutes."""


@dataclasses.dataclass(frozen=True)
class VGGSNN:
    """The student: (convolution, batch norm, LIF) layers in stages, and a linear head for each stream.

    Assumption: the paper names VGGSNN and leaves its layers to the baseline, whose network this is.

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
        Batch statistics per time step, as in the baseline; see `layers.batch_norm`.
    """

    classes: int
    T: int = 10
    stages: tuple = STAGES["full"]
    width: float = 1.0
    size: int = 48
    per_step: bool = False

    def __post_init__(self):
        if self.classes < 2 or self.T < 1:
            raise ValueError(f"expected at least 2 classes and T >= 1 time steps, got {self.classes} and {self.T}")
        if self.size < 2 ** len(self.stages) or min(self.channels) < 1:
            raise ValueError(f"expected frames of at least {2**len(self.stages)} x {2**len(self.stages)} pixels and a "
                             f"channel in every layer, got size {self.size} and width {self.width}")

    @property
    def channels(self):
        """Output channels of every convolution."""
        return [int(c * self.width) for stage in self.stages for c in stage]

    @property
    def trainable(self):
        """Number of trainable numbers, known without making them."""
        channels, side = [2, *self.channels], self.size // 2 ** len(self.stages)
        convolutions = sum(9 * C * K + 2 * K for C, K in zip(channels, channels[1:]))       # with scale and shift
        return convolutions + 2 * (side**2 * channels[-1] + 1) * self.classes + self.T

    def init(self, rng, dtype=np.float32):
        """Random parameters and the initial state: uniform within 1 / sqrt(fan-in), theta = 1."""
        params, state = _init_convolutions([2] + self.channels, rng, dtype)
        side = self.size // 2 ** len(self.stages)
        for head in ("static", "event"):
            params |= _init_linear(head, side**2 * self.channels[-1], self.classes, rng, dtype)
        params["theta"] = np.ones(self.T, dtype)
        return params, state

    def apply(self, params, frames, head, state=None):
        """Outputs of one stream.

        Parameters
        ----------
        params : dict of arrays, see `init`
        frames : (T, B, size, size, 2) array of floats
        head : {"static", "event"}
        state : dict of arrays, optional
            For evaluation. Without it the frames are normalised by their own statistics, as in training.

        Returns
        -------
        logits : (T, B, K)
        features : (T, B, h, w, C), potentials of the last LIF layer after the reset, for Eq. (5).
        statistics : dict of those of every layer in training, see `update_state`.
        """
        if np.shape(frames)[:1] + np.shape(frames)[2:] != (self.T, self.size, self.size, 2):
            raise ValueError(f"expected frames ({self.T}, B, {self.size}, {self.size}, 2), "
                             f"got shape {np.shape(frames)}")
        pools = [2 if layer == len(stage) - 1 else 1 for stage in self.stages for layer in range(len(stage))]
        x, statistics = frames, {}
        for layer, pool in enumerate(pools[:-1]):
            x = _conv_norm(x, params, state, layer, statistics, self.per_step, Neurons(pool))
        spikes, potentials = lif(_conv_norm(x, params, state, layer + 1, statistics, self.per_step))
        x = avg_pool(spikes, 2)                                # (T, B, h / 2, w / 2, C)
        flat = np.reshape(x, x.shape[:2] + (-1,))              # (T, B, D)
        logits = linear(flat, params[f"{head}/w"], params[f"{head}/b"])
        return logits, reset(potentials), statistics


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A small ordinary network on HSV images, in place of the paper's WRN101_2.

    Deviation: trained here from nothing on a larger pool of images instead of ImageNet. Logits of any other
    network can be given to the training instead.

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
        return params | _init_linear("head", side**2 * self.channels[-1], self.classes, rng, dtype), state

    def apply(self, params, hsv, state=None):
        """Logits (B, K) for HSV images (B, H, W, 3) with values in [0, 1], and statistics; see `VGGSNN.apply`."""
        x, statistics = hsv, {}
        for layer in range(len(self.channels)):
            x = relu(_conv_norm(x, params, state, layer, statistics))
            x = avg_pool(x, 2)                                 # (B, h / 2, w / 2, C)
        return linear(np.reshape(x, (len(x), -1)), params["head/w"], params["head/b"]), statistics


def predict(logits):
    """Class of each sample: the largest output of the event head, averaged over time; (T, B, K) -> (B,)."""
    return np.argmax(np.sum(logits, axis=0), axis=-1)


def update_state(state, statistics):
    """The state after a batch of the given statistics, {layer: (mean, var)} as `apply` returns them."""
    state = dict(state)
    for name, new in statistics.items():
        running = state[f"{name}/mean"], state[f"{name}/var"]
        state[f"{name}/mean"], state[f"{name}/var"] = update_running(running, new)
    return state


def _conv_norm(x, params, state, layer, statistics, per_step=False, then=Identity()):
    name = f"conv{layer}"
    running = state and (state[f"{name}/mean"], state[f"{name}/var"])
    y, new = batch_norm(conv2d(x, params[f"{name}/w"]), params[f"{name}/scale"], params[f"{name}/shift"], running,
                        per_step, then)
    if not running:
        statistics[name] = new
    return y


def _init_convolutions(channels, rng, dtype):
    params, state = {}, {}
    for layer, (C, K) in enumerate(zip(channels, channels[1:])):
        name = f"conv{layer}"
        params[f"{name}/w"] = _uniform((3, 3, C, K), 9 * C, rng, dtype)
        params[f"{name}/scale"], params[f"{name}/shift"] = np.ones(K, dtype), np.zeros(K, dtype)
        state[f"{name}/mean"], state[f"{name}/var"] = np.zeros(K, dtype), np.ones(K, dtype)
    return params, state


def _init_linear(name, D, K, rng, dtype):
    return {f"{name}/w": _uniform((D, K), D, rng, dtype), f"{name}/b": _uniform((K,), D, rng, dtype)}


def _uniform(shape, fan_in, rng, dtype):
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(dtype)
