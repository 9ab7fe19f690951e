"""The fused layers against their plain twins in `models`, and the networks made of them."""

import dataclasses

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from conftest import relative_error

from ckd_ref import models
from ckd_ref.models import STAGES, VGGSNN, SpikingResNet18, layer
from ckd_ref.neuron import Neuron, reset_grad
from ckd_ref.nn import batch_norm, blocks, conv, conv2d, fused, fused_layer
from ckd_ref.nn.fused import norm_lif_pool
from ckd_ref.nn.layers import unpool
from ckd_ref.nn.norm import norm_vjp, normalisation

NEURONS = {
    "default": Neuron(),
    "tau": Neuron(tau=0.3),
    "threshold": Neuron(v_th=0.7),
    "atan": Neuron(surrogate="atan", width=0.8),
    "full backpropagation": Neuron(detach_reset=False),
    "all of these": Neuron(0.3, 0.7, "atan", 0.8, False),
}

CASES = {
    "training": dict(running=None, per_step=False),
    "per step": dict(running=None, per_step=True),
    "evaluation": dict(running=(onp.array([0.1, -0.2]), onp.array([0.5, 2.0])), per_step=False),
}

NAMES = ("x", "w", "scale", "shift")


@pytest.fixture
def inputs(rng):
    """Images (T, B, H, W, C), filter, scale and shift at which about half of the neurons fire."""
    x = rng.normal(size=(3, 4, 4, 6, 3))
    w = rng.normal(size=(3, 3, 3, 2))
    return x, w, onp.array([1.5, -0.7]), onp.array([0.3, 0.6])


@pytest.fixture(params=[blocks.BLOCK_BYTES, 1], ids=["one block", "blocks of one sample"])
def block_bytes(request, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(conv, "BLOCK_BYTES", request.param)


def gradients(compute, inputs, options, upstream):
    """Gradients of x, w, scale and shift, given those of the outputs."""
    g_pooled, g_kept = upstream

    def scalar(*inputs):
        pooled, kept, _ = compute(*inputs, **options)
        total = np.sum(g_pooled * pooled)
        return total + np.sum(g_kept * kept) if options["features"] else total

    return [grad(scalar, i)(*inputs) for i in range(4)]


def assert_twins(inputs, rng, options):
    """Forward bit-identical, gradients to rounding."""
    pooled, kept, statistics = fused_layer(*inputs, **options)
    plain_pooled, plain_kept, plain_statistics = layer(*inputs, **options)
    assert pooled.dtype == plain_pooled.dtype, "the outputs have another dtype"
    assert onp.array_equal(pooled, plain_pooled), "the pooled spikes are not bit-identical"
    if options["features"]:
        assert onp.array_equal(kept, plain_kept), "the features are not bit-identical"
    else:
        assert kept is None and plain_kept is None, "features came without being asked for"
    if options["running"]:
        assert statistics is None and plain_statistics is None, "evaluation takes no statistics"
    else:
        for name, one, other in zip(("mean", "variance"), statistics, plain_statistics):
            assert onp.array_equal(one, other), f"the {name} is not bit-identical"
    upstream = rng.normal(size=pooled.shape), rng.normal(size=plain_pooled.shape[:2] + (4, 6, 2))
    slopes = gradients(fused_layer, inputs, options, upstream)
    expected = gradients(layer, inputs, options, upstream)
    for name, slope, reference in zip(NAMES, slopes, expected):
        assert reference.any(), f"the gradient of {name} is 0, which compares nothing"
        assert relative_error(slope, reference) < 1e-11, f"the gradient of {name} differs"


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("features", [False, True], ids=["spikes", "features"])
@pytest.mark.parametrize("pool", [1, 2])
def test_the_fused_layer_is_the_plain_one(
    inputs, rng, block_bytes, pool, features, case, neuron
):
    options = dict(**CASES[case], neuron=neuron, pool=pool, features=features)
    assert_twins(inputs, rng, options)


def test_the_neurons_of_these_tests_fire_now_and_then(inputs):
    for name, neuron in NEURONS.items():
        spikes, *_ = layer(*inputs, None, False, neuron, 1, False)
        share = spikes.mean()
        assert 0.1 < share < 0.9, f"{name}: a share of {share} fires, too few cases of either kind"


ALL = dict(running=None, per_step=False, neuron=NEURONS["all of these"], pool=2, features=True)


def no_reset(u, s, current, tau):
    return tau * u + current


def every_reset_detached(u, v_th, surrogate, width, detach_reset):
    return reset_grad(u, v_th, surrogate, width, True)


def default_threshold(u, v_th, surrogate, width, detach_reset):
    return reset_grad(u, 1.0, surrogate, width, detach_reset)


def sum_for_mean(g, shape, size):
    return size**2 * unpool(g, shape, size)


def constant_statistics(dx, x, scale, mean, inv_std, n, sum_g, sum_gx):
    return norm_vjp(dx, x, scale, mean, inv_std, 0, sum_g, sum_gx)


WRONG = {
    "spikes are never forgotten": ("lif_step", no_reset, "pooled spikes"),
    "features before the reset": ("reset", lambda u, v_th: u, "features"),
    "the reset is always a constant": ("reset_grad", every_reset_detached, "gradient"),
    "another threshold backward": ("reset_grad", default_threshold, "gradient"),
    "the pixels of a window share nothing": ("unpool", sum_for_mean, "gradient"),
    "mean and variance are constants": ("norm_vjp", constant_statistics, "gradient"),
}


@pytest.mark.parametrize("name, wrong, message", WRONG.values(), ids=WRONG)
def test_a_wrong_fused_layer_is_caught(inputs, rng, monkeypatch, name, wrong, message):
    monkeypatch.setattr(fused, name, wrong)
    with pytest.raises(AssertionError, match=message):
        assert_twins(inputs, rng, ALL)


def test_forward_equals_the_loops(inputs):
    """The primitive by itself, against loops over every neuron and pixel."""
    x, w, scale, shift = inputs
    y = conv2d(x, w)                                           # (T, B, H, W, C)
    mean, inv_std, n, _ = normalisation(y, scale)
    pooled, kept = norm_lif_pool(y, scale, shift, mean, inv_std, n, Neuron(), 2, True)
    images = y.reshape((-1,) + y.shape[2:])                    # (T B, H, W, C)
    currents, _, _ = oracles.batch_norm(images, scale, shift, 1e-5)
    spikes, potentials = oracles.lif(currents.reshape(len(x), -1), 0.5, 1.0)
    expected = oracles.avg_pool(spikes.reshape(images.shape), 2)
    error = relative_error(pooled, expected.reshape(pooled.shape))
    assert error < 1e-12, "the pooled spikes differ from those of the loops"
    expected = onp.where(spikes == 1, 0, potentials)
    error = relative_error(kept, expected.reshape(kept.shape))
    assert error < 1e-12, "the potentials after the reset differ from those of the loops"


def test_without_the_reset_it_would_be_another_layer(inputs):
    """A wrong version: neurons that never forget their spikes."""
    x, w, scale, shift = inputs
    spikes, *_ = fused_layer(*inputs, None, False, Neuron(), 1, False)
    currents, _ = batch_norm(conv2d(x, w), scale, shift)
    u = onp.zeros_like(currents)
    for t in range(len(u)):
        u[t] = currents[t] + (0.5 * u[t - 1] if t > 0 else 0)
    assert ((u > 1) != spikes).any(), "no neuron of this test depends on the reset"


@pytest.mark.parametrize("compute", [layer, fused_layer])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
def test_float32_stays_float32(inputs, rng, compute, case, pool, neuron):
    single = [a.astype(onp.float32) for a in inputs]
    options = dict(**CASES[case], neuron=neuron, pool=pool, features=True)
    pooled, kept, _ = compute(*single, **options)
    assert pooled.dtype == onp.float32, "the pooled spikes left float32"
    assert kept.dtype == onp.float32, "the features left float32"
    upstream = [rng.normal(size=a.shape).astype(onp.float32) for a in (pooled, kept)]
    for name, slope in zip(NAMES, gradients(compute, single, options, upstream)):
        assert slope.dtype == onp.float32, f"the gradient of {name} left float32"


# The network

NETWORKS = {
    "tiny": VGGSNN(3, T=3, stages=STAGES["tiny"], width=0.0625, size=16),
    "full": VGGSNN(3, T=2, stages=STAGES["full"], width=0.0625, size=16),
    "per step": VGGSNN(3, T=3, stages=((3, 4), (4,)), size=10, per_step=True),
    "other neurons": VGGSNN(
        3, T=3, stages=((3, 4), (4,)), size=10, neuron=NEURONS["all of these"]
    ),
    "resnet": SpikingResNet18(3, T=2, width=0.0625, size=9, layers=(1, 2)),
    "resnet per step, other neurons": SpikingResNet18(
        3, T=3, width=0.0625, size=8, layers=(1, 1), per_step=True, neuron=NEURONS["all of these"]
    ),
}


@pytest.mark.parametrize("chosen, other", [("fused_layer", "layer"), ("layer", "fused_layer")])
def test_the_flag_chooses_the_form(rng, monkeypatch, chosen, other):
    """Else the network would be compared with itself; features are made in the last layer only."""
    compute = getattr(models, chosen)
    asked = []

    def recorded(*arguments, features):
        asked.append(features)
        return compute(*arguments, features)

    monkeypatch.setattr(models, chosen, recorded)
    monkeypatch.setattr(models, other, None)
    net = VGGSNN(3, T=2, stages=((3, 4), (4,)), size=8, fused=chosen == "fused_layer")
    params, _ = net.init(rng)
    net.apply(params, onp.zeros((2, 2, 8, 8, 2), onp.float32), "event")
    assert asked == [False, False, True], "expected three layers, features of the last one"


@pytest.mark.parametrize("chosen, other", [
    ("fused_preactivation", "preactivation"), ("preactivation", "fused_preactivation"),
])
def test_the_flag_chooses_the_form_of_the_residual_network(rng, monkeypatch, chosen, other):
    compute = getattr(models, chosen)
    strides = []

    def recorded(*arguments):
        strides.append(arguments[-1])
        return compute(*arguments)

    monkeypatch.setattr(models, chosen, recorded)
    monkeypatch.setattr(models, other, None)
    fused = chosen == "fused_preactivation"
    net = SpikingResNet18(3, T=2, width=0.0625, size=8, layers=(1, 1), fused=fused)
    params, _ = net.init(rng)
    net.apply(params, onp.zeros((2, 2, 8, 8, 2), onp.float32), "event")
    assert strides == [1, 1, 2, 1, 2], "expected two blocks of two halves, and a shortcut"


def state_of(statistics):
    """A state in which every layer evaluates about as it was trained: its neurons fire."""
    state = {}
    for name, (mean, var) in statistics.items():
        state[f"{name}/mean"] = mean.mean(axis=0)              # (steps, C) -> (C,)
        state[f"{name}/var"] = var.mean(axis=0)
    return state


@pytest.mark.parametrize("net", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("evaluation", [False, True], ids=["training", "evaluation"])
@pytest.mark.parametrize("dtype, tolerance", [(onp.float64, 1e-10), (onp.float32, 1e-3)])
def test_the_fused_network_is_the_plain_one(
    rng, block_bytes, net, evaluation, dtype, tolerance
):
    """Every output bit-identical, every gradient to rounding."""
    assert net.fused, "the fast form is the default"
    plain = dataclasses.replace(net, fused=False)
    params, _ = net.init(rng, dtype)
    params |= {name: 2 * p for name, p in params.items() if name.endswith("scale")}
    frames = rng.poisson(0.7, (net.T, 4, net.size, net.size, 2)).astype(dtype)
    state = state_of(plain.apply(params, frames, "event")[2]) if evaluation else None

    logits, features, statistics = net.apply(params, frames, "event", state)
    expected, expected_features, expected_statistics = plain.apply(params, frames, "event", state)
    assert logits.dtype == features.dtype == dtype, f"the outputs left {dtype.__name__}"
    assert onp.array_equal(logits, expected), "the logits are not bit-identical"
    assert onp.array_equal(features, expected_features), "the features are not bit-identical"
    assert list(statistics) == list(expected_statistics), "statistics of other layers"
    for name in statistics:
        same = onp.array_equal(statistics[name], expected_statistics[name])
        assert same, f"the statistics of {name} are not bit-identical"

    g_logits = rng.normal(size=logits.shape).astype(dtype)
    g_features = rng.normal(size=features.shape).astype(dtype)

    def scalar(params, net):
        logits, features, _ = net.apply(params, frames, "event", state)
        return np.sum(g_logits * logits) + np.sum(g_features * features)

    slopes, reference = grad(scalar)(params, net), grad(scalar)(params, plain)
    assert set(slopes) == set(reference) == set(params), "a parameter has no gradient"
    for name in params:
        if name not in {"theta", "static/w", "static/b"}:      # which events do not use
            assert reference[name].any(), f"the gradient of {name} is 0, which compares nothing"
        assert slopes[name].dtype == dtype, f"the gradient of {name} left {dtype.__name__}"
        error = relative_error(slopes[name], reference[name])
        assert error < tolerance, f"the gradient of {name} differs"
