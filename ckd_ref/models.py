"""The networks as pure functions of a parameter tree: two students and a small teacher.

A parameter tree is a dict from a path such as ``conv0/w`` to an array; so is the state, which
holds the running statistics of batch normalisation: evaluation uses it, training updates it
(`update_state`). Sec. IV-A.
"""

import dataclasses
import math

import autograd.numpy as np
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import DTypeLike

from .neuron import Neuron, lif, reset
from .nn import (
    avg_pool,
    batch_norm,
    conv2d,
    fused_layer,
    fused_preactivation,
    linear,
    relu,
    update_running,
)

STAGES = {
    "full": ((64, 128), (256, 256), (512, 512), (512, 512)),
    "tiny": ((64,), (128,), (256,), (512,)),
}
"""Channels of the convolutions; each stage ends in 2 x 2 average pooling.

`full` is the paper's network, `tiny` one to train in minutes.
"""

LAYERS = {"resnet18": (2, 2, 2, 2), "tiny_resnet": (1, 1, 1, 1)}
"""Residual blocks in each stage: of the paper's second network, and of one to train in minutes."""


def layer(
    x: ndarray, w: ndarray, scale: ndarray, shift: ndarray, running: tuple | None, per_step: bool,
    neuron: Neuron, pool: int, features: bool,
) -> tuple[ndarray, ndarray | None, tuple | None]:
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


def preactivation(
    x: ndarray, w: ndarray, scale: ndarray, shift: ndarray, running: tuple | None, per_step: bool,
    neuron: Neuron, stride: int,
) -> tuple[ndarray, tuple | None]:
    """Half a residual block, neurons before the filter: ``conv2d(lif(batch_norm(x)))``.

    The order of He et al., Identity mappings in deep residual networks (2016), with neurons in
    place of rectifiers.

    Parameters
    ----------
    x : (T, B, H, W, C) array of floats
    w : (k, k, C, K) array
        Filter.
    scale, shift : (C,) arrays
    running, per_step
        See `batch_norm`.
    neuron : Neuron
    stride : int

    Returns
    -------
    y : (T, B, ceil(H / stride), ceil(W / stride), K)
    statistics : see `batch_norm`.
    """
    current, statistics = batch_norm(x, scale, shift, running, per_step)
    spikes, _ = lif(current, **vars(neuron))                   # (T, B, H, W, C)
    return conv2d(spikes, w, stride), statistics


@dataclasses.dataclass(frozen=True)
class VGGSNN:
    """The student of N-Caltech101: `layer` after `layer`, and a linear head for each stream.

    Assumption: the paper names VGGSNN and leaves its layers to the baseline, whose network this
    is. Baseline: Transfer_VGG_SNN in braincog/model_zoo/vgg_snn.py.
    Test: `test_number_of_parameters_of_the_paper`.
    Assumption: theta of Eq. (6) starts at 1 and gets no weight decay, on which the paper is
    silent. Baseline: one coefficient of 1.0 per step, in the constructor of Transfer_VGG_SNN.
    Test: `test_number_of_parameters_of_the_paper`.
    Assumption: filters and heads start as uniform numbers within 1 / sqrt(fan-in), on which the
    paper is silent. Test: `test_initial_filters_and_heads_keep_to_their_bound`.

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
        _check_student(self, least=2 ** len(self.stages))

    @property
    def channels(self) -> list[int]:
        """Output channels of every convolution."""
        return [int(c * self.width) for stage in self.stages for c in stage]

    @property
    def pools(self) -> list[int]:
        """Pooling after every convolution: 2 at the end of a stage, else 1."""
        return [pool for stage in self.stages for pool in [1] * (len(stage) - 1) + [2]]

    @property
    def trainable(self) -> int:
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

    def init(self, rng: Generator, dtype: DTypeLike = np.float32) -> tuple[dict, dict]:
        """Random parameters and the initial state: uniform within 1 / sqrt(fan-in), theta = 1."""
        params, state = _init_convolutions([2, *self.channels], rng, dtype)
        params |= _init_heads(self, self._inputs_of_head, rng, dtype)
        return params, state

    def apply(
        self, params: dict, frames: ndarray, stream: str, state: dict | None = None
    ) -> tuple[ndarray, ndarray, dict]:
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
        _check_frames(self, frames)
        compute = fused_layer if self.fused else layer
        x, statistics = frames, {}
        for k, pool in enumerate(self.pools):
            (w, scale, shift), running = _convolution(params, state, f"conv{k}")
            last = k == len(self.pools) - 1
            x, features, new = compute(
                x, w, scale, shift, running, self.per_step, self.neuron, pool, features=last
            )                                                  # (T, B, h, w, C)
            if state is None:
                statistics[f"conv{k}"] = new
        flat = np.reshape(x, x.shape[:2] + (-1,))              # (T, B, D)
        logits = linear(flat, params[f"{stream}/w"], params[f"{stream}/b"])
        return logits, features, statistics


@dataclasses.dataclass(frozen=True)
class SpikingResNet18:
    """The student of CEP-DVS: residual blocks of two `preactivation`s, and two linear heads.

    A 3 x 3 filter without batch norm, four stages of 64, 128, 256 and 512 channels, of which all
    but the first halve the sides, batch norm, and the mean over the image. Where a block changes
    the shape, a third `preactivation` with a 1 x 1 filter is its shortcut.

    Assumption: the paper names Spiking-ResNet18 and leaves its layers to the baseline, whose
    network this is. Baseline: Transfer_ResNet of BasicBlocks in braincog/model_zoo/resnet.py.
    Test: `test_number_of_parameters_of_the_resnet`.
    Assumption: Eq. (5) compares the real numbers that the heads are given, for no neurons follow
    the last batch norm. Baseline: alike, in the forward of Transfer_ResNet.
    Test: `test_golden_forward`.
    Assumption: filters start as normal numbers of variance 2 over the fan-out (He et al., 2015),
    on which the paper is silent. Baseline: kaiming_normal_ in the constructor of Transfer_ResNet.
    Test: `test_filters_of_the_resnet_start_as_in_the_baseline`.
    Assumption: 6 time steps, as in the paper's text; its Table I says 10.
    Test: `test_number_of_parameters_of_the_resnet`.

    Parameters
    ----------
    classes : int
        K.
    T : int
        Time steps.
    width : float
        Scales all channels.
    size : int
        Rows and columns of the input frames, 48 in the paper.
    layers : tuple of int
        Blocks of each stage, a value of `LAYERS`.
    per_step, neuron, fused
        See `VGGSNN`.
    """

    classes: int
    T: int = 6
    width: float = 1.0
    size: int = 48
    layers: tuple = LAYERS["resnet18"]
    per_step: bool = False
    neuron: Neuron = Neuron()
    fused: bool = True

    def __post_init__(self):
        if not self.layers or min(self.layers) < 1:
            raise ValueError(f"expected a block or more in each stage, got layers {self.layers}")
        _check_student(self, least=2 ** (len(self.layers) - 1))

    @property
    def channels(self) -> list[int]:
        """Output channels of every stage."""
        return [int(64 * 2**stage * self.width) for stage in range(len(self.layers))]

    @property
    def convolutions(self) -> dict[str, tuple[int, int, int, int]]:
        """Those behind neurons: filter side, input and output channels, and stride, by name."""
        found, block, C = {}, 0, self.channels[0]
        for stage, (count, K) in enumerate(zip(self.layers, self.channels)):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                found[f"block{block}/conv0"] = 3, C, K, stride
                found[f"block{block}/conv1"] = 3, K, K, 1
                if stride > 1:
                    found[f"block{block}/shortcut"] = 1, C, K, stride
                block, C = block + 1, K
        return found

    @property
    def trainable(self) -> int:
        """Number of trainable numbers, known without making them."""
        first, last = self.channels[0], self.channels[-1]
        blocks = sum(k**2 * C * K + 2 * C for k, C, K, _ in self.convolutions.values())
        heads = 2 * (last + 1) * self.classes
        return 9 * 2 * first + blocks + 2 * last + heads + self.T

    def init(self, rng: Generator, dtype: DTypeLike = np.float32) -> tuple[dict, dict]:
        """Random parameters and the initial state; heads and theta as for `VGGSNN`."""
        params = {"conv0/w": _he_normal((3, 3, 2, self.channels[0]), rng, dtype)}
        state: dict = {}
        for name, (k, C, K, _) in self.convolutions.items():
            params[f"{name}/w"] = _he_normal((k, k, C, K), rng, dtype)
            _init_norm(name, C, params, state, dtype)
        _init_norm("norm", self.channels[-1], params, state, dtype)
        params |= _init_heads(self, self.channels[-1], rng, dtype)
        return params, state

    def apply(
        self, params: dict, frames: ndarray, stream: str, state: dict | None = None
    ) -> tuple[ndarray, ndarray, dict]:
        """Outputs of one stream; arguments and results are those of `VGGSNN.apply`.

        Only the features differ: (T, B, D), the input of the head.
        """
        _check_frames(self, frames)
        compute = fused_preactivation if self.fused else preactivation
        convolutions, statistics = self.convolutions, {}

        def half(x, name):
            weights, running = _convolution(params, state, name)
            stride = convolutions[name][-1]
            y, statistics[name] = compute(
                x, *weights, running, self.per_step, self.neuron, stride
            )
            return y

        x = conv2d(frames, params["conv0/w"])                  # (T, B, size, size, C)
        for k in range(sum(self.layers)):
            shortcut = f"block{k}/shortcut"
            change = half(half(x, f"block{k}/conv0"), f"block{k}/conv1")
            x = change + (half(x, shortcut) if shortcut in convolutions else x)
        scale, shift, running = _norm(params, state, "norm")
        x, statistics["norm"] = batch_norm(x, scale, shift, running, self.per_step)
        means = avg_pool(x, x.shape[2])                        # (T, B, 1, 1, D)
        features = np.reshape(means, (self.T, -1, x.shape[-1]))           # (T, B, D)
        logits = linear(features, params[f"{stream}/w"], params[f"{stream}/b"])
        return logits, features, statistics if state is None else {}


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

    def init(self, rng: Generator, dtype: DTypeLike = np.float32) -> tuple[dict, dict]:
        """Random parameters and the initial state, as for `VGGSNN`."""
        params, state = _init_convolutions([3, *self.channels], rng, dtype)
        side = self.size // 2 ** len(self.channels)
        params |= _init_linear("head", side**2 * self.channels[-1], self.classes, rng, dtype)
        return params, state

    def apply(self, params: dict, hsv: ndarray, state: dict | None = None) -> tuple[ndarray, dict]:
        """Logits (B, K) for HSV images (B, H, W, 3) with values in [0, 1], and statistics.

        See `VGGSNN.apply`.
        """
        x, statistics = hsv, {}
        for k in range(len(self.channels)):
            (w, scale, shift), running = _convolution(params, state, f"conv{k}")
            x, new = batch_norm(conv2d(x, w), scale, shift, running)
            x = avg_pool(relu(x), 2)                           # (B, h / 2, w / 2, C)
            if state is None:
                statistics[f"conv{k}"] = new
        flat = np.reshape(x, (len(x), -1))                     # (B, D)
        return linear(flat, params["head/w"], params["head/b"]), statistics


def predict(logits: ndarray) -> ndarray:
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


def update_state(state: dict, statistics: dict) -> dict:
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


def _check_student(net, least):
    """Refuse impossible numbers; `least` is the smallest side of frames that all layers fit."""
    if net.classes < 2 or net.T < 1:
        raise ValueError(
            f"expected at least 2 classes and T >= 1 time steps, got {net.classes} and {net.T}"
        )
    if not 0 < net.width < math.inf:
        raise ValueError(f"expected a finite width > 0, got {net.width!r}")
    if net.size < least or min(net.channels) < 1:
        raise ValueError(
            f"expected frames of at least {least} x {least} pixels and a channel in every "
            f"layer, got size {net.size} and width {net.width}"
        )


def _check_frames(net, frames):
    shape = np.shape(frames)
    if shape[:1] + shape[2:] != (net.T, net.size, net.size, 2):
        raise ValueError(
            f"expected frames ({net.T}, B, {net.size}, {net.size}, 2), got shape {shape}"
        )


def _convolution(params, state, name):
    """Filter, scale and shift of a convolution, and its running statistics or None."""
    scale, shift, running = _norm(params, state, name)
    return (params[f"{name}/w"], scale, shift), running


def _norm(params, state, name):
    """Scale and shift of a batch norm, and its running statistics or None."""
    running = None if state is None else (state[f"{name}/mean"], state[f"{name}/var"])
    return params[f"{name}/scale"], params[f"{name}/shift"], running


def _init_convolutions(channels, rng, dtype):
    params, state = {}, {}
    for k, (C, K) in enumerate(zip(channels, channels[1:])):
        params[f"conv{k}/w"] = _uniform((3, 3, C, K), 9 * C, rng, dtype)
        _init_norm(f"conv{k}", K, params, state, dtype)
    return params, state


def _init_norm(name, C, params, state, dtype):
    """Add a batch norm of C channels to the two trees."""
    params[f"{name}/scale"] = np.ones(C, dtype)
    params[f"{name}/shift"] = np.zeros(C, dtype)
    state[f"{name}/mean"] = np.zeros(C, dtype)
    state[f"{name}/var"] = np.ones(C, dtype)


def _init_heads(net, D, rng, dtype):
    """A linear head for each stream, and theta."""
    static = _init_linear("static", D, net.classes, rng, dtype)
    event = _init_linear("event", D, net.classes, rng, dtype)
    return static | event | {"theta": np.ones(net.T, dtype)}


def _init_linear(name, D, K, rng, dtype):
    w = _uniform((D, K), D, rng, dtype)
    return {f"{name}/w": w, f"{name}/b": _uniform((K,), D, rng, dtype)}


def _uniform(shape, fan_in, rng, dtype):
    bound = 1 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(dtype)


def _he_normal(shape, rng, dtype):
    k, _, _, K = shape
    return rng.normal(0, math.sqrt(2 / (k**2 * K)), shape).astype(dtype)
