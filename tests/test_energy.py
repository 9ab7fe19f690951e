"""Synaptic operations: counted by hand, by a convolution with ones, and in the limits."""

import itertools

import numpy as np
import pytest
from small import SMALL

from ckd_ref import energy, models
from ckd_ref.__main__ import main
from ckd_ref.config import Config
from ckd_ref.energy import (
    Operations,
    count_operations,
    energy_table,
    fan_out,
    joules,
    teacher_macs,
)
from ckd_ref.models import VGGSNN, SpikingResNet18, Teacher
from ckd_ref.neuron import lif
from ckd_ref.nn import avg_pool, batch_norm, conv2d
from ckd_ref.run.checkpoint import save_checkpoint
from ckd_ref.training import TrainState

TWO_LAYERS = VGGSNN(3, T=2, stages=((2,), (3,)), size=6)


def case(net, rng):
    """Parameters, state and three recordings; some neurons of every layer fire and some do not."""
    params, state = net.init(rng, np.float64)
    frames = rng.poisson(0.7, (net.T, 3, net.size, net.size, 2)).astype(float)
    _, _, statistics = net.apply(params, frames, "event")
    for name, (mean, var) in statistics.items():
        state |= {f"{name}/mean": mean.mean(axis=0), f"{name}/var": var.mean(axis=0)}
    return params, state, frames


# By hand

def neurons(x, name, params, state, net):
    norm = params[f"{name}/scale"], params[f"{name}/shift"]
    running = state[f"{name}/mean"], state[f"{name}/var"]
    current, _ = batch_norm(conv2d(x, params[f"{name}/w"]), *norm, running)
    return lif(current, **vars(net.neuron))[0]


def spike_by_spike(spikes, window, reach, K):
    """Accumulates of a layer, per recording: every spike is followed to every output.

    `window` is the side of the windows that are averaged in between, `reach` how far an output
    sees in pixels, None for a head, which sees all.
    """
    T, R, H, W, C = spikes.shape
    h, w = H // window, W // window
    total = 0
    for _, _, y, x, _ in np.argwhere(spikes):
        y, x = y // window, x // window
        if y < h and x < w:                                    # the pooling may leave the last out
            if reach is None:
                total += K
                continue
            for i, j in itertools.product(range(h), range(w)):
                if abs(i - y) <= reach and abs(j - x) <= reach:
                    total += K
    return total / R


@pytest.mark.parametrize("size", [6, 5])
def test_two_layers_counted_spike_by_spike(rng, size):
    """Of 6 x 6 and of 5 x 5 pixels, where the pooling leaves a row and a column out."""
    net = VGGSNN(3, T=2, stages=((2,), (3,)), size=size)
    params, state, frames = case(net, rng)
    first = neurons(frames, "conv0", params, state, net)       # (2, 3, size, size, 2)
    second = neurons(avg_pool(first, 2), "conv1", params, state, net)
    by_hand = [
        ("conv1", first.mean(), spike_by_spike(first, 2, 1, 3)),
        ("event", second.mean(), spike_by_spike(second, 2, None, 3)),
    ]
    counted = count_operations(net, params, state, frames)
    assert [row.layer for row in counted] == ["conv0", "conv1", "event"]
    for row, (name, rate, accumulates) in zip(counted[1:], by_hand):
        assert 0.05 < rate < 0.95, f"{name} is driven by neurons that all do the same"
        assert row.rate == pytest.approx(rate, rel=1e-12), f"{name}: another firing rate"
        assert row.accumulates == pytest.approx(accumulates, rel=1e-12), f"{name}: miscounted"
        assert row.macs == 0, f"{name}: a spike is not multiplied"


def test_following_one_spike_through_a_pooling():
    """In the corner, its mean reaches 2 x 2 outputs of 3 channels; another one of the window is
    followed by itself."""
    spikes = np.zeros((1, 1, 6, 6, 1))
    spikes[0, 0, 1, 0] = 1
    assert spike_by_spike(spikes, 2, 1, 3) == 2 * 2 * 3
    spikes[0, 0, 0, 0] = 1
    assert spike_by_spike(spikes, 2, 1, 3) == 2 * (2 * 2 * 3)


# By a convolution with ones

NETWORKS = {
    "tiny": Config(network="tiny", **SMALL).model(3),
    "full": Config(network="full", **SMALL).model(3),
    "tiny_resnet": Config(network="tiny_resnet", **SMALL).model(3),
    "resnet18": Config(network="resnet18", **SMALL | {"size": 9}).model(3),
}


def assert_counts_every_addition(net, rng):
    """Whatever is convolved or multiplied with a head is, with all weights 1, what is added."""
    params, state, frames = case(net, rng)
    seen = []

    def recorded(function):
        def call(x, w, *rest):
            seen.append((function, x, w, rest))
            return function(x, w, *rest)
        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("conv2d", "linear"):
            patch.setattr(models, name, recorded(getattr(models, name)))
        plain = type(net)(**vars(net) | {"fused": False})
        plain.apply(params, frames, "event", state)
    counted = count_operations(net, params, state, frames)
    assert len(seen) == len(counted), "a layer is missing or too many"
    pools = getattr(net, "pools", [1] * len(counted))
    for row, (function, x, w, rest), pool in zip(counted, seen, [1, *pools]):
        assert w is params[f"{row.layer}/w"], f"the weights of another layer than {row.layer}"
        rest = (0,) if w.ndim == 2 else rest                   # no bias, or the stride
        if row.rate is None:
            assert not set(np.unique(x)) <= {0, 1}, f"{row.layer} is driven by spikes"
            x, came, what = np.ones_like(x), row.macs, "multiply-accumulates"
        else:
            x, came, what = x * pool**2, row.accumulates, "accumulates"
        if w.ndim == 4:
            additions = conv2d(x, np.ones_like(w), *rest)
        else:
            additions = x @ np.ones_like(w)
        expected = additions.sum() / 3                         # recordings
        assert came == pytest.approx(expected, rel=1e-9), f"{row.layer}: {what} miscounted"
        assert row.rate is None or 0 < row.rate < 1, f"{row.layer}: nothing to count"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_addition_of_every_network_is_counted(rng, name):
    assert_counts_every_addition(NETWORKS[name], rng)


WRONG = {
    "the zeros around the image are neurons": (
        "fan_out", lambda side, k, K, stride=1: fan_out(side + 2, k, K, stride)[1:-1, 1:-1]
    ),
    "no stride": ("fan_out", lambda side, k, K, stride=1: fan_out(side, k, K)),
    "the means are counted": (
        "_driven", lambda net, driven=energy._driven: [(*row[:4], 1) for row in driven(net)]
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_count_is_caught(rng, monkeypatch, name):
    monkeypatch.setattr(energy, *WRONG[name])
    net = NETWORKS["tiny_resnet" if name == "no stride" else "tiny"]
    with pytest.raises(AssertionError, match="miscounted"):
        assert_counts_every_addition(net, rng)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side, k", [(1, 1), (1, 3), (2, 5), (5, 3), (6, 1), (6, 3), (6, 5)])
def test_fan_out_is_what_a_convolution_with_ones_makes_of_one_pixel(side, k, stride):
    """The sum of all its outputs."""
    pixels = np.eye(side**2).reshape(-1, side, side, 1)        # one image for each pixel
    outputs = conv2d(pixels, np.ones((k, k, 1, 4)), stride)
    expected = outputs.sum(axis=(1, 2, 3)).reshape(side, side)
    assert np.array_equal(fan_out(side, k, 4, stride), expected)


# Limits

@pytest.mark.parametrize("rate", [0, 1])
def test_neurons_that_never_or_always_fire(rng, rate):
    """Never: nothing is added. Always: as many additions as an ordinary network's
    multiplications, in every time step, and four times as many behind a pooling."""
    net = VGGSNN(3, T=2, stages=((2, 4), (5,)), size=8)
    params, state, frames = case(net, rng)
    for name in list(params):
        if name.endswith("scale"):
            params[name] = 0 * params[name]
            params[name.replace("scale", "shift")] = np.full(len(params[name]), 9.0 * rate - 4)
    _, conv1, conv2, event = count_operations(net, params, state, frames)
    textbook = 2 * 4 * 22**2, 4 * 5 * 10**2, 2 * 2 * 5 * 3     # C K (3 side - 2)^2, and D K
    for row, macs, pool in zip((conv1, conv2, event), textbook, (1, 4, 4)):
        assert row.rate == rate, f"{row.layer}: another firing rate"
        assert row.accumulates == 2 * pool * macs * rate, f"{row.layer}: {row.accumulates}"


def test_what_is_not_a_spike_is_multiplied(rng):
    """Frames of counts by the first filter, the residual network's means by its head; 4 channels
    of 9 x 9 pixels in the first, 8 in the last of two stages."""
    net = SpikingResNet18(3, T=2, width=1 / 16, size=9, layers=(1, 1))
    first, *blocks, head = count_operations(net, *case(net, rng))
    assert first == ("conv0", None, 0, 2 * 2 * 4 * 25**2), "T C K (3 side - 2)^2"
    assert head == ("event", None, 0, 2 * 8 * 3), "T D K"
    assert all(row.macs == 0 and row.rate > 0 for row in blocks)


def test_the_mean_over_recordings_does_not_depend_on_the_batches(rng):
    params, state, frames = case(TWO_LAYERS, rng)
    whole = count_operations(TWO_LAYERS, params, state, frames)
    parts = count_operations(TWO_LAYERS, params, state, frames, batch=2)
    single = [count_operations(TWO_LAYERS, params, state, frames[:, [k]]) for k in range(3)]
    for row, other, *alone in zip(whole, parts, *single):
        mean = np.mean([one.accumulates for one in alone])
        assert row.accumulates == pytest.approx(other.accumulates, rel=1e-12)
        assert row.accumulates == pytest.approx(mean, rel=1e-12)


# The teacher, and the estimate

def test_multiplications_of_the_teacher_by_hand():
    """8 x 8 pixels of 3 channels, 4 x 4 of 2, and a head of 2 x 2 x 5 numbers."""
    by_hand = 3 * 2 * 22**2 + 2 * 5 * 10**2 + 2 * 2 * 5 * 7
    what = "taps inside the image of each convolution, and the head's weights"
    assert teacher_macs(Teacher(7, size=8, channels=(2, 5))) == by_hand, what
    odd = 3 * 2 * 25**2 + 2 * 5 * 10**2 + 2 * 2 * 5 * 7
    assert teacher_macs(Teacher(7, size=9, channels=(2, 5))) == odd, "pooling drops the odd row"


def test_energy_at_45_nm():
    assert joules(0, 1) == 4.6e-12, "3.7 pJ for a multiplication and 0.9 pJ for an addition"
    assert joules(1, 0) == 0.9e-12, "0.9 pJ for an addition"
    rows = [Operations("conv0", None, 0, 1000), Operations("event", 0.25, 2_000_000, 0)]
    table = energy_table(rows, teacher=3_000_000)
    assert "| conv0 |  | 0 | 1,000 | 0.005 |" in table
    assert "| event | 0.250 | 2,000,000 | 0 | 1.800 |" in table
    assert "| student |  | 2,000,000 | 1,000 | 1.805 |" in table
    assert "| ANN teacher |  | 0 | 3,000,000 | 13.800 |" in table
    assert table.endswith("are left out."), "the caveat is missing"


def test_evaluate_prints_the_energy(glyph_file, glyph_data, tmp_path, capsys):
    config = Config(method="snn", **SMALL)
    run = TrainState.start(config.model(len(glyph_data.classes)), 0)
    save_checkpoint(tmp_path / "checkpoint.h5", run, config, glyph_data.classes)
    words = ["evaluate", str(glyph_file), str(tmp_path / "checkpoint.h5")]
    assert main(words) == 0
    without = capsys.readouterr().out
    assert main([*words, "--energy"]) == 0
    accuracy, _, sentence, _, *table = capsys.readouterr().out.splitlines()
    assert f"{accuracy}\n" == without, "the accuracy, and nothing else without the option"
    assert sentence == ("One recording in 2 time steps (mean of 24), and one image of 16 x 16 "
                        "pixels for the small teacher:")
    assert table[2].startswith("| conv0 |  | 0 | "), "the first layer multiplies"
    assert [line.split(" | ")[0] for line in table[-5:-2]] == [
        "| event", "| student", "| ANN teacher"
    ]
