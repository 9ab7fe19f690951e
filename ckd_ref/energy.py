"""What an inference costs: spikes, the synaptic operations that they cause, and an estimate.

The paper motivates spiking networks by their energy and reports none. A spike is 0 or 1, so that
a synapse adds its weight where an ordinary network multiplies and adds.
"""

import dataclasses
import typing

import numpy as np
from autograd.tracer import Node, trace
from numpy import ndarray

from .models import VGGSNN, SpikingResNet18, Teacher
from .neuron import spike

MAC, AC = 4.6e-12, 0.9e-12
"""Joules of a multiply-accumulate (3.7 + 0.9 pJ) and of an accumulate, of 32-bit floats on a 45 nm
chip: Horowitz, Computing's energy problem (and what we can do about it), 2014, Fig. 1.1.9."""

CAVEAT = (
    "The estimate has the arithmetic of the synapses alone, at 4.6 pJ per MAC and 0.9 pJ per AC "
    "(45 nm; Horowitz, 2014); moving data and updating membranes, which often cost more, are left "
    "out."
)


class Operations(typing.NamedTuple):
    """What one inference takes in one layer of synapses, all time steps together.

    `rate` is that of the neurons that drive it, spikes per neuron and step; None where the input
    is not made of spikes.
    """

    layer: str
    rate: float | None
    accumulates: float
    macs: float


def joules(accumulates: float, macs: float) -> float:
    """Energy of so many operations at 45 nm, see `MAC` and `AC`."""
    return AC * accumulates + MAC * macs


def fan_out(side: int, k: int, K: int, stride: int = 1) -> ndarray:
    """How many synapses of a k x k filter one value at each pixel drives.

    In the middle of the image these are ``k**2 * K`` at stride 1; at the border a part of the
    filter falls outside. The zeros around the image are no neurons and drive nothing.

    Parameters
    ----------
    side : int
        Rows and columns of the input of `conv2d`.
    k, K, stride : int
        Side of the filter, its output channels, and its stride.

    Returns
    -------
    synapses : (side, side) array of int
    """
    centres = stride * np.arange(-(-side // stride))           # of the outputs, in input pixels
    reached = np.abs(np.arange(side)[:, None] - centres) <= k // 2
    outputs = reached.sum(axis=1)                              # of every row, and of every column
    return np.outer(outputs, outputs) * K


def count_operations(
    net: VGGSNN | SpikingResNet18, params: dict, state: dict, frames: ndarray, batch: int = 20
) -> list[Operations]:
    """Synaptic operations per inference of a student, layer by layer, from its real spikes.

    A spike costs an accumulate in every synapse that it drives, see `fan_out`.

    Assumption: mean and filter count as one filter where average pooling stands between them, so
    that each spike of a window drives all synapses of the window's mean, with a quarter of their
    weights: only accumulates, as on a chip without multipliers; sinabs counts alike. Firing rate
    times the operations of an ordinary network, which is usual, gives a quarter of that; a
    multiply-accumulate for every mean that is not 0 costs 1.3 to 5.1 times as much.
    Test: `test_two_layers_counted_spike_by_spike`.
    Assumption: the first filter multiplies every pixel of the frames in every time step, zeros
    included, for counts are not spikes; so does the head of `SpikingResNet18`, whose input are
    real numbers. Test: `test_what_is_not_a_spike_is_multiplied`.

    Parameters
    ----------
    net : VGGSNN or SpikingResNet18
    params, state : dicts of arrays
        See `VGGSNN.init`.
    frames : (T, R, size, size, 2) array of floats
        Recordings, over which the numbers are averaged.
    batch : int
        How many recordings at a time.

    Returns
    -------
    operations : list of Operations
    """
    first = net.T * 2 * fan_out(net.size, 3, net.channels[0]).sum()
    found = [Operations("conv0", None, 0, first)]
    all_spikes = _spikes(net, params, state, frames, batch)
    for (name, k, K, stride, window), spikes in zip(_driven(net), all_spikes):
        synapses = fan_out(len(spikes) // window, k, K, stride)
        synapses = np.kron(synapses, np.ones((window, window)))            # of every spike
        side = len(synapses)                                   # pooling may leave the last row out
        accumulates = np.sum(synapses[..., None] * spikes[:side, :side])
        rate = spikes.sum() / (net.T * spikes.size)
        found.append(Operations(name, rate, accumulates, 0))
    if isinstance(net, SpikingResNet18):
        found.append(Operations("event", None, 0, net.T * net.channels[-1] * net.classes))
    return found


def _driven(net):
    """What the spikes of every layer of neurons drive, the first layer first.

    The layer's name, side of the filter, output channels, stride, and the side of the windows that
    are averaged before it. A head is a filter of side 1.
    """
    if isinstance(net, SpikingResNet18):
        return [(name, k, K, stride, 1) for name, (k, _, K, stride) in net.convolutions.items()]
    later = [(f"conv{k}", 3, K) for k, K in enumerate(net.channels) if k > 0]
    driven = [*later, ("event", 1, net.classes)]
    return [(name, k, K, 1, pool) for (name, k, K), pool in zip(driven, net.pools)]


def _spikes(net, params, state, frames, batch):
    """Spikes of every layer of neurons, summed over time, the mean over recordings: (H, W, C)."""
    plain, R = dataclasses.replace(net, fused=False), frames.shape[1]
    sums = []
    for i in range(0, R, batch):
        seen = []
        trace(
            _SpikeNode.new_root(seen),
            lambda x: plain.apply(params, x, "event", state)[0],
            frames[:, i:i + batch],
        )
        sums = [a + b for a, b in zip(sums, seen)] if sums else seen
    return [total / R for total in sums]


class _SpikeNode(Node):
    """What autograd makes of every operation it sees: the spikes are put on a list.

    This is how autograd finds the operations to differentiate; here the neurons are looked for.
    """

    __slots__ = ["seen"]

    def __init__(self, value, fun, args, kwargs, parent_argnums, parents):
        self.seen = parents[0].seen
        if fun is spike:
            self.seen.append(value.sum(axis=(0, 1), dtype=np.float64))     # (H, W, C)

    def initialize_root(self, seen):
        self.seen = seen


def teacher_macs(net: Teacher) -> int:
    """Multiply-accumulates of the small teacher for one image; every pixel is multiplied.

    Parameters
    ----------
    net : Teacher

    Returns
    -------
    macs : int
    """
    side, macs = net.size, 0
    for C, K in zip((3, *net.channels), net.channels):
        macs += C * fan_out(side, 3, K).sum()
        side //= 2                                             # average pooling
    return macs + side**2 * net.channels[-1] * net.classes


def energy_table(operations: list[Operations], teacher: int) -> str:
    """The operations of a student beside those of its teacher, and their energy, as Markdown.

    Parameters
    ----------
    operations : list of Operations
    teacher : int
        Its multiply-accumulates, see `teacher_macs`.

    Returns
    -------
    table : str
    """
    accumulates = sum(row.accumulates for row in operations)
    macs = sum(row.macs for row in operations)
    rows = [
        *operations, Operations("student", None, accumulates, macs),
        Operations("ANN teacher", None, 0, teacher),
    ]
    lines = ["| synapses | firing rate | AC | MAC | energy, uJ |", "|---|---|---|---|---|"]
    for name, rate, accumulates, macs in rows:
        shown = "" if rate is None else f"{rate:.3f}"
        energy = 1e6 * joules(accumulates, macs)
        lines.append(f"| {name} | {shown} | {accumulates:,.0f} | {macs:,.0f} | {energy:.3f} |")
    return "\n".join([*lines, "", CAVEAT])
