"""Winograd's convolution: the algebra, and both directions against patches and loops."""

import numpy as onp
import oracles
import pytest
from autograd.test_util import check_grads
from conftest import relative_error

import ckd_ref.layers
from ckd_ref.layers import Patches, conv2d
from ckd_ref.winograd import B, E, Winograd


def test_five_points_give_the_correlation_of_a_row(rng):
    """The one-dimensional identity behind the Kronecker products, against numpy's correlation."""
    points = onp.array([0.0, 1, -1, 2])
    values = {n: onp.vstack([points[:, None] ** onp.arange(n), onp.eye(n)[-1]]) for n in (3, 5)}
    d, w = rng.normal(size=5), rng.normal(size=3)
    y = values[3].T @ ((values[3] @ w) * (onp.linalg.inv(values[5]).T @ d))
    assert relative_error(y, onp.correlate(d, w, "valid")) < 1e-13
    assert relative_error(E, onp.kron(values[3], values[3])) == 0
    assert relative_error(B, onp.kron(onp.linalg.inv(values[5]).T, onp.linalg.inv(values[5]).T)) < 1e-13


@pytest.mark.parametrize("shape", [(2, 6, 6, 3), (1, 12, 3, 2), (5, 9, 6, 1)])
def test_forward_equals_the_loop(rng, shape):
    x, w = rng.normal(size=shape), rng.normal(size=(3, 3, shape[-1], 4))
    out = onp.empty(shape[:3] + (4,))
    Winograd(w).forward(x, out)
    assert relative_error(out, oracles.conv2d(x, w, 1)) < 1e-12


def test_backward_equals_that_of_the_patches(rng):
    x, w, g = rng.normal(size=(2, 6, 9, 3)), rng.normal(size=(3, 3, 3, 4)), rng.normal(size=(2, 6, 9, 4))
    gradients = []
    for way in (Winograd(w), Patches(w, 1)):
        out = onp.empty_like(x)
        gradients.append((out, way.filter_gradient(way.backward(x, g, out))))
    assert relative_error(gradients[0][0], gradients[1][0]) < 1e-12
    assert relative_error(gradients[0][1], gradients[1][1]) < 1e-12


def test_conv2d_takes_it_for_many_channels_only(rng, monkeypatch):
    used = []
    monkeypatch.setattr(ckd_ref.layers, "Winograd", lambda w: used.append(w.shape) or Winograd(w))
    x = rng.normal(size=(1, 6, 6, 64))
    for w, image in (((3, 3, 64, 32), x), ((3, 3, 64, 31), x), ((5, 5, 64, 32), x), ((3, 3, 64, 32), x[:, :5])):
        conv2d(image, rng.normal(size=w))
    conv2d(x, rng.normal(size=(3, 3, 64, 32)), stride=2)
    assert used == [(3, 3, 64, 32)]


def test_gradient_and_precision(rng, monkeypatch):
    monkeypatch.setattr(ckd_ref.layers, "WINOGRAD_PRODUCTS", 1)
    x, w = rng.normal(size=(2, 1, 2, 3, 6, 2)), rng.normal(size=(3, 3, 2, 3))
    check_grads(conv2d, modes=["rev"], order=1)(x, w)
    single = conv2d(x.astype(onp.float32), w.astype(onp.float32))
    assert single.dtype == onp.float32 and relative_error(single, conv2d(x, w)) < 1e-5
