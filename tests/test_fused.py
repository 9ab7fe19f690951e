"""Batch norm, neurons and pooling as one primitive equal the three by themselves."""

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from conftest import relative_error

import ckd_ref.nn.layers
from ckd_ref.nn.layers import avg_pool, batch_norm
from ckd_ref.neuron import lif
from ckd_ref.nn.fused import Neurons

RUNNING = onp.array([0.1, -0.2]), onp.array([0.5, 2.0])


@pytest.fixture
def layer(rng):
    """Conv outputs (T, B, H, W, C), scale and shift at which about half of the neurons fire."""
    return rng.normal(size=(3, 4, 4, 6, 2)), onp.array([1.5, -0.7]), onp.array([0.3, 0.6])


def separate(x, scale, shift, pool, **options):
    y, statistics = batch_norm(x, scale, shift, **options)
    return avg_pool(lif(y)[0], pool), statistics


CASES = [dict(), dict(per_step=True), dict(running=RUNNING)]


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("options", CASES, ids=["training", "per step", "evaluation"])
def test_forward_and_gradients_equal_the_three_layers(layer, rng, pool, options, monkeypatch):
    monkeypatch.setattr(ckd_ref.nn.layers, "BLOCK_BYTES", 1)                       # blocks of one sample
    y, statistics = batch_norm(*layer, then=Neurons(pool), **options)
    reference, reference_statistics = separate(*layer, pool, **options)
    assert (y == reference).all() and 0 < y.mean() < 1
    assert "running" in options or all((a == b).all() for a, b in zip(statistics, reference_statistics))
    weights = rng.normal(size=y.shape)
    for i in range(3):
        slope = grad(lambda *a: np.sum(weights * batch_norm(*a, then=Neurons(pool), **options)[0]), i)(*layer)
        expected = grad(lambda *a: np.sum(weights * separate(*a, pool, **options)[0]), i)(*layer)
        assert relative_error(slope, expected) < 1e-11


def test_forward_equals_the_loops(layer):
    x, scale, shift = layer
    y, _ = batch_norm(x, scale, shift, then=Neurons(2))
    currents, _, _ = oracles.batch_norm(x.reshape((-1,) + x.shape[2:]), scale, shift, 1e-5)
    spikes, _ = oracles.lif(currents.reshape(len(x), -1), 0.5, 1.0)
    pooled = oracles.avg_pool(spikes.reshape((-1,) + x.shape[2:]), 2).reshape(3, 4, 2, 3, 2)
    assert relative_error(y, pooled) < 1e-12


def test_without_the_reset_it_would_be_another_layer(layer):
    """A wrong version: neurons that never forget their spikes."""
    y, _ = batch_norm(*layer, then=Neurons())
    currents, _ = batch_norm(*layer)
    u = onp.zeros_like(currents)
    for t in range(len(u)):
        u[t] = 0.5 * u[t - 1] * (t > 0) + currents[t]
    assert ((u > 1) != y).any()


def test_float32_stays_float32(layer):
    x, scale, shift = (a.astype(onp.float32) for a in layer)
    for pool in (1, 2):
        def scalar(*a):
            return np.sum(batch_norm(*a, then=Neurons(pool))[0])
        assert batch_norm(x, scale, shift, then=Neurons(pool))[0].dtype == onp.float32
        assert [grad(scalar, i)(x, scale, shift).dtype for i in range(3)] == [onp.float32] * 3
