"""Winograd's convolution: the algebra, and both directions against im2col and loops."""

import numpy as onp
import oracles
import pytest
from autograd.test_util import check_grads
from conftest import relative_error

from ckd_ref.nn import conv, conv2d
from ckd_ref.nn.conv import Im2col
from ckd_ref.nn.winograd import POINTS, Winograd, tile_size, values_at_points


def values_by_hand(m, size):
    """Powers of the finite points, and the last coefficient for infinity, along one direction."""
    finite = onp.array(POINTS[m])[:, None] ** onp.arange(size)
    return onp.vstack([finite, onp.eye(size)[-1]])             # (m + 2, size)


@pytest.mark.parametrize("m", POINTS)
def test_values_at_the_points_give_the_correlation_of_a_row(rng, m):
    """The identity in one dimension, and that the matrices are the Kronecker squares of these."""
    A = values_by_hand(m, m)
    G = values_by_hand(m, 3)
    B = onp.linalg.inv(values_by_hand(m, m + 2)).T
    d, w = rng.normal(size=m + 2), rng.normal(size=3)
    row = A.T @ ((G @ w) * (B @ d))
    expected = onp.correlate(d, w, "valid")
    assert relative_error(row, expected) < 1e-12, "A' ((G w) * (B d)) is not the correlation"
    way = Winograd(onp.zeros((3, 3, 1, 1)), m)
    for name, matrix, square in (("A", A, way.A), ("G", G, way.G), ("B", B, way.B)):
        error = relative_error(square, onp.kron(matrix, matrix))
        assert error < 1e-12, f"{name} is not the Kronecker square of its row's matrix"


@pytest.mark.parametrize("m", POINTS)
def test_values_at_points_evaluate_a_polynomial_of_two_variables(rng, m):
    """Against numpy's polynomials at the finite points; at infinity the last coefficient."""
    coefficients = rng.normal(size=(3, 3))
    values = (values_at_points(m, 3) @ coefficients.ravel()).reshape(m + 2, m + 2)
    points = onp.array(POINTS[m])
    finite = onp.polynomial.polynomial.polygrid2d(points, points, coefficients)
    assert relative_error(values[:-1, :-1], finite) < 1e-12, "wrong values at the finite points"
    assert values[-1, -1] == coefficients[-1, -1], "infinity must give the last coefficient"


def test_a_point_less_would_not_do(rng):
    """A wrong version: without infinity.

    Three outputs and a filter of three have degree 4 together, four points know degree 3 only.
    """
    powers = {n: onp.array(POINTS[3])[:, None] ** onp.arange(n) for n in (3, 4)}
    d, w = rng.normal(size=5), rng.normal(size=3)
    y = powers[3].T @ ((powers[3] @ w) * (onp.linalg.inv(powers[4]).T @ d[:4]))
    error = relative_error(y, onp.correlate(d, w, "valid"))
    assert error > 1e-2, "the check of a row does not notice that a point is missing"


SHAPES = [(2, 6, 6, 3), (1, 12, 3, 2), (5, 9, 6, 1), (2, 8, 4, 3), (1, 12, 12, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_equals_the_loop(rng, shape):
    x, w = rng.normal(size=shape), rng.normal(size=(3, 3, shape[-1], 4))
    out = onp.empty(shape[:3] + (4,))
    Winograd(w, tile_size(*shape[1:3])).forward(x, out)
    error = relative_error(out, oracles.conv2d(x, w, 1))
    assert error < 1e-11, "Winograd differs from a convolution by loops"


@pytest.mark.parametrize("side", [6, 8])
def test_backward_equals_that_of_im2col(rng, side):
    x = rng.normal(size=(2, side, 12, 3))
    w = rng.normal(size=(3, 3, 3, 4))
    g = rng.normal(size=(2, side, 12, 4))
    gradients = []
    for way in (Winograd(w, tile_size(side, 12)), Im2col(w, 1)):
        dx = onp.empty_like(x)
        dw = way.filter_gradient(way.backward(x, g, dx))
        gradients.append((dx, dw))
    (dx, dw), (expected_dx, expected_dw) = gradients
    assert relative_error(dx, expected_dx) < 1e-11, "the gradient of the images differs"
    assert relative_error(dw, expected_dw) < 1e-11, "the gradient of the filter differs"


SIDES = [((48, 24), 4), ((12, 4), 4), ((6, 6), 3), ((9, 12), 3), ((5, 6), None)]


@pytest.mark.parametrize("sides, m", SIDES)
def test_tiles_divide_the_image(sides, m):
    assert tile_size(*sides) == m, f"expected tiles of {m} for an image of {sides}"


def test_conv2d_takes_it_for_many_channels_only(rng, monkeypatch):
    used = []

    def recorded(w, m):
        used.append((w.shape, m))
        return Winograd(w, m)

    monkeypatch.setattr(conv, "Winograd", recorded)
    x = rng.normal(size=(1, 6, 6, 64))
    conv2d(x, rng.normal(size=(3, 3, 64, 8)))
    conv2d(x, rng.normal(size=(3, 3, 64, 7)))                  # too few channels
    conv2d(x, rng.normal(size=(5, 5, 64, 8)))                  # another filter
    conv2d(x[:, :5], rng.normal(size=(3, 3, 64, 8)))           # no tile divides 5 rows
    conv2d(x, rng.normal(size=(3, 3, 64, 8)), stride=2)
    assert used == [((3, 3, 64, 8), 3)], "expected Winograd for the first convolution only"


@pytest.mark.parametrize("side", [3, 4])
def test_gradient_and_precision(rng, monkeypatch, side):
    monkeypatch.setattr(conv, "WINOGRAD_PRODUCTS", 1)
    x, w = rng.normal(size=(2, 1, 2, side, 2 * side, 2)), rng.normal(size=(3, 3, 2, 3))
    check_grads(conv2d, modes=["rev"], order=1)(x, w)
    single = conv2d(x.astype(onp.float32), w.astype(onp.float32))
    assert single.dtype == onp.float32, "float32 images and filter gave another dtype"
    assert relative_error(single, conv2d(x, w)) < 1e-5, "float32 is less precise than it should be"


def test_points_are_those_of_small_rounding_errors():
    """Others are as exact on paper, but change the last bits of every run."""
    assert POINTS == {4: (0, 1, -1, 0.5, -2), 3: (0, 1, -1, 2)}
