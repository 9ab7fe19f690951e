"""Winograd's convolution: the algebra, and both directions against patches and loops."""

import numpy as onp
import oracles
import pytest
from autograd.test_util import check_grads
from conftest import relative_error

import ckd_ref.nn.layers
from ckd_ref.nn.layers import Patches, conv2d
from ckd_ref.nn.winograd import POINTS, Winograd, step_for


@pytest.mark.parametrize("m", POINTS)
def test_values_at_the_points_give_the_correlation_of_a_row(rng, m):
    """The identity in one dimension, against numpy's correlation, and that the matrices are its Kronecker squares."""
    powers = {n: onp.vstack([onp.array(POINTS[m])[:, None] ** onp.arange(n), onp.eye(n)[-1]]) for n in (m, 3, m + 2)}
    A, G, B = powers[m], powers[3], onp.linalg.inv(powers[m + 2]).T
    d, w = rng.normal(size=m + 2), rng.normal(size=3)
    assert relative_error(A.T @ ((G @ w) * (B @ d)), onp.correlate(d, w, "valid")) < 1e-12
    way = Winograd(onp.zeros((3, 3, 1, 1)), m)
    for matrix, square in ((A, way.A), (G, way.G), (B, way.B)):
        assert relative_error(square, onp.kron(matrix, matrix)) < 1e-12


def test_a_point_less_would_not_do(rng):
    """A wrong version: three outputs and a filter of three have degree 4 together, four points know degree 3 only."""
    powers = {n: onp.array(POINTS[3])[:, None] ** onp.arange(n) for n in (3, 4)}
    d, w = rng.normal(size=5), rng.normal(size=3)
    y = powers[3].T @ ((powers[3] @ w) * (onp.linalg.inv(powers[4]).T @ d[:4]))
    assert relative_error(y, onp.correlate(d, w, "valid")) > 1e-2


@pytest.mark.parametrize("shape", [(2, 6, 6, 3), (1, 12, 3, 2), (5, 9, 6, 1), (2, 8, 4, 3), (1, 12, 12, 2)])
def test_forward_equals_the_loop(rng, shape):
    x, w = rng.normal(size=shape), rng.normal(size=(3, 3, shape[-1], 4))
    out = onp.empty(shape[:3] + (4,))
    Winograd(w, step_for(*shape[1:3])).forward(x, out)
    assert relative_error(out, oracles.conv2d(x, w, 1)) < 1e-11


@pytest.mark.parametrize("side", [6, 8])
def test_backward_equals_that_of_the_patches(rng, side):
    x, w, g = rng.normal(size=(2, side, 12, 3)), rng.normal(size=(3, 3, 3, 4)), rng.normal(size=(2, side, 12, 4))
    gradients = []
    for way in (Winograd(w, step_for(side, 12)), Patches(w, 1)):
        out = onp.empty_like(x)
        gradients.append((out, way.filter_gradient(way.backward(x, g, out))))
    assert relative_error(gradients[0][0], gradients[1][0]) < 1e-11
    assert relative_error(gradients[0][1], gradients[1][1]) < 1e-11


@pytest.mark.parametrize("sides, m", [((48, 24), 4), ((12, 4), 4), ((6, 6), 3), ((9, 12), 3), ((5, 6), None)])
def test_steps_divide_the_image(sides, m):
    assert step_for(*sides) == m


def test_conv2d_takes_it_for_many_channels_only(rng, monkeypatch):
    used = []
    monkeypatch.setattr(ckd_ref.nn.layers, "Winograd", lambda w, m: used.append((w.shape, m)) or Winograd(w, m))
    x = rng.normal(size=(1, 6, 6, 64))
    for w, image in (((3, 3, 64, 8), x), ((3, 3, 64, 7), x), ((5, 5, 64, 8), x), ((3, 3, 64, 8), x[:, :5])):
        conv2d(image, rng.normal(size=w))
    conv2d(x, rng.normal(size=(3, 3, 64, 8)), stride=2)
    assert used == [((3, 3, 64, 8), 3)]


@pytest.mark.parametrize("side", [3, 4])
def test_gradient_and_precision(rng, monkeypatch, side):
    monkeypatch.setattr(ckd_ref.nn.layers, "WINOGRAD_PRODUCTS", 1)
    x, w = rng.normal(size=(2, 1, 2, side, 2 * side, 2)), rng.normal(size=(3, 3, 2, 3))
    check_grads(conv2d, modes=["rev"], order=1)(x, w)
    single = conv2d(x.astype(onp.float32), w.astype(onp.float32))
    assert single.dtype == onp.float32 and relative_error(single, conv2d(x, w)) < 1e-5
