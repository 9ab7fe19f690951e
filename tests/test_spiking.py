"""Batch norm, neurons and pooling as one primitive equal the three by themselves."""

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from conftest import relative_error

import ckd_ref.layers
from ckd_ref.layers import avg_pool, batch_norm
from ckd_ref.neuron import lif
from ckd_ref.spiking import Neurons

RUNNING = onp.array([0.1, -0.2]), onp.array([0.5, 2.0])


@pytest.fixture
def layer(rng):
    """Conv outputs (G, T, n, H, W, C), scale and shift at which about half of the neurons fire."""
    return rng.normal(size=(2, 3, 2, 4, 6, 2)), onp.array([1.5, -0.7]), onp.array([0.3, 0.6])


def separate(x, scale, shift, pool, **options):
    y, running = batch_norm(x, scale, shift, RUNNING, **options)
    spikes, _ = lif(np.swapaxes(y, 0, 1))
    return np.swapaxes(avg_pool(spikes, pool), 0, 1), running


CASES = [dict(), dict(per_step=True), dict(training=False)]


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("options", CASES, ids=str)
def test_forward_and_gradients_equal_the_three_layers(layer, rng, pool, options, monkeypatch):
    monkeypatch.setattr(ckd_ref.layers, "BLOCK_BYTES", 1)                       # blocks of one sample
    y, running = batch_norm(*layer, RUNNING, then=Neurons(pool), **options)
    reference, reference_running = separate(*layer, pool, **options)
    assert (y == reference).all() and 0 < y.mean() < 1
    assert all((a == b).all() for a, b in zip(running, reference_running))
    weights = rng.normal(size=y.shape)
    for i in range(3):
        slope = grad(lambda *a: np.sum(weights * batch_norm(*a, RUNNING, then=Neurons(pool), **options)[0]), i)(*layer)
        expected = grad(lambda *a: np.sum(weights * separate(*a, pool, **options)[0]), i)(*layer)
        assert relative_error(slope, expected) < 1e-11


def test_forward_equals_the_loops(layer):
    x, scale, shift = layer
    y, _ = batch_norm(x, scale, shift, RUNNING, then=Neurons(2))
    currents, _, _ = oracles.batch_norm(x.reshape((-1,) + x.shape[3:]), scale, shift, 1e-5)
    currents = currents.reshape(x.shape).swapaxes(0, 1)
    spikes, _ = oracles.lif(currents.reshape(len(currents), -1), 0.5, 1.0)
    pooled = oracles.avg_pool(spikes.reshape((-1,) + x.shape[3:]), 2).reshape((3, 2, 2, 2, 3, 2)).swapaxes(0, 1)
    assert relative_error(y, pooled) < 1e-12


def test_without_the_reset_it_would_be_another_layer(layer):
    """A wrong version: neurons that never forget their spikes."""
    x, scale, shift = layer
    y, _ = batch_norm(x, scale, shift, RUNNING, then=Neurons())
    currents = batch_norm(x, scale, shift, RUNNING)[0].swapaxes(0, 1)
    u = onp.zeros_like(currents)
    for t in range(len(u)):
        u[t] = 0.5 * u[t - 1] * (t > 0) + currents[t]
    assert ((u > 1).swapaxes(0, 1) != y).any()


def test_float32_stays_float32(layer):
    x, scale, shift = (a.astype(onp.float32) for a in layer)
    running = tuple(r.astype(onp.float32) for r in RUNNING)
    for pool in (1, 2):
        def scalar(*a):
            return np.sum(batch_norm(*a, running, then=Neurons(pool))[0])
        assert batch_norm(x, scale, shift, running, then=Neurons(pool))[0].dtype == onp.float32
        assert [grad(scalar, i)(x, scale, shift).dtype for i in range(3)] == [onp.float32] * 3
