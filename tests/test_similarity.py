"""Centred kernel alignment, the similarity inside Eq. (5)."""

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from autograd.test_util import check_grads
from conftest import golden_keys, relative_error
from scipy.stats import ortho_group

from ckd_ref.similarity import linear_cka


@pytest.fixture
def pair(rng):
    """Two related feature matrices (9, 6) and (9, 4)."""
    X = rng.normal(size=(9, 6)) + 3
    return X, X[:, :4] ** 2 + rng.normal(size=(9, 4))


def compares_centred_gram_matrices(cka):
    """Centred columns (-1, 0, 1) and (-1, 2, -1) are orthogonal; a step is 3/4 and 1/4 like them."""
    ramp, peak, step = onp.array([[4.0], [5], [6]]), onp.array([[1.0], [4], [1]]), onp.array([[0.0], [0], [3]])
    assert cka(ramp, peak) == pytest.approx(0, abs=1e-12)
    assert cka(ramp, step) == pytest.approx(3 / 4)
    assert cka(peak, step) == pytest.approx(1 / 4)
    assert cka(onp.hstack([ramp, 2 * peak]), ramp) == pytest.approx(2 / onp.sqrt(4 + 24**2))


def test_eq05_cka_by_hand():
    compares_centred_gram_matrices(linear_cka)


def wrong_cka(centre=lambda X: X - X.mean(0), power=0.5, number=lambda K, L: onp.sum(K * L)):
    def cka(X, Y):
        X, Y = centre(X), centre(Y)
        K, L = X @ X.T, Y @ Y.T
        return number(K, L) / (number(K, K) * number(L, L)) ** power
    return cka


@pytest.mark.parametrize("wrong", [
    wrong_cka(centre=lambda X: X),
    wrong_cka(centre=lambda X: X - X.mean(1, keepdims=True)),
    wrong_cka(power=1),
    wrong_cka(number=lambda K, L: onp.trace(K) * onp.trace(L)),
    lambda X, Y: 1 - wrong_cka()(X, Y),
], ids=["not centred", "centred along features", "no square root", "traces", "distance"])
def test_eq05_wrong_cka_is_caught(wrong):
    with onp.errstate(all="ignore"), pytest.raises(AssertionError):
        compares_centred_gram_matrices(wrong)
    compares_centred_gram_matrices(wrong_cka())                # the test itself accepts the right one


def test_eq05_cka_by_two_other_routes(pair):
    """Gram matrices of samples and covariances of features give one number."""
    assert linear_cka(*pair) == pytest.approx(oracles.cka_by_gram(*pair), rel=1e-12)
    assert linear_cka(*pair) == pytest.approx(oracles.cka_by_features(*pair), rel=1e-12)


def test_eq05_cka_of_single_features_is_their_squared_correlation(rng):
    x, y = rng.normal(size=(2, 12, 1))
    assert linear_cka(x, y) == pytest.approx(onp.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2, rel=1e-12)


def test_eq05_debiased_cka_equals_the_printed_u_statistic(pair):
    X, Y = pair
    hsic = oracles.hsic_unbiased
    reference = hsic(X, Y) / onp.sqrt(hsic(X, X) * hsic(Y, Y))
    assert linear_cka(X, Y, debiased=True) == pytest.approx(reference, rel=1e-12)


GOLDEN_CKA = [(key, name) for key in golden_keys("cka") for name in golden_keys(f"cka/{key}")
              if not name.endswith(("X", "Y", "unbiased"))]


@pytest.mark.parametrize("key, name", GOLDEN_CKA)
def test_eq05_golden_cka(golden, key, name):
    """linear_CKA* add 1e-7 to the denominator, cka_gram* and feature_space* nothing."""
    X, Y, reference = (golden["cka"][key][part][()] for part in ("X", "Y", name))
    options = dict(debiased="debiased" in name, eps=1e-7 if "linear_CKA" in name else 0.0)
    if onp.isnan(reference):
        pytest.skip("the original takes the root of a negative number")
    assert relative_error(linear_cka(X, Y, **options), reference) < 1e-9
    for argument, letter in enumerate("XY"):
        if f"{name}_grad_{letter}" in golden["cka"][key]:
            slope = grad(lambda *pair: linear_cka(*pair, **options), argument)(X, Y)
            expected = golden["cka"][key][f"{name}_grad_{letter}"][:]
            if key == "same":                                  # at the maximum: only the part due to eps is left
                assert abs(slope - expected).max() < 1e-15 and abs(expected).max() < 1e-8
            else:
                assert relative_error(slope, expected) < 1e-9


@pytest.mark.parametrize("debiased", [False, True])
def test_eq05_gradient_of_cka(pair, debiased):
    check_grads(lambda X, Y: linear_cka(X, Y, debiased, eps=1e-3), modes=["rev"], order=1)(*pair)


def test_eq05_cka_ignores_rotation_scale_and_shift(pair, rng):
    X, Y = pair
    turned = 7 * X @ ortho_group.rvs(6, random_state=rng) - 100
    for debiased in (False, True):
        assert linear_cka(turned, Y, debiased) == pytest.approx(linear_cka(X, Y, debiased), rel=1e-9)
        assert linear_cka(X, turned, debiased) == pytest.approx(1, rel=1e-9)


def test_eq05_cka_is_symmetric_and_sees_the_pairing(pair):
    X, Y = pair
    assert linear_cka(X, Y) == pytest.approx(linear_cka(Y, X), rel=1e-12)
    assert linear_cka(X, onp.roll(Y, 1, axis=0)) < linear_cka(X, Y)
    order = onp.arange(9)[::-1]
    assert linear_cka(X[order], Y[order]) == pytest.approx(linear_cka(X, Y), rel=1e-12)


def test_eq05_biased_cka_of_independent_features_is_far_from_zero(rng):
    """With D >> B random features look alike; the debiased estimate does not fall for it."""
    X, Y = rng.normal(size=(2, 20, 16, 2000))
    assert linear_cka(X, Y).min() > 0.9
    assert abs(linear_cka(X, Y, debiased=True).mean()) < 0.05


@pytest.mark.parametrize("debiased", [False, True])
def test_eq05_constant_features_have_cka_zero_and_gradient_zero(rng, debiased):
    X, Y = onp.full((5, 3), 0.1), rng.normal(size=(5, 4))
    for pair in ((X, Y), (Y, X), (X, X)):
        assert linear_cka(*pair, debiased) == 0
        for argument in (0, 1):
            assert not grad(lambda *pair: linear_cka(*pair, debiased), argument)(*pair).any()


def test_eq05_cka_compares_leading_axes_one_by_one(rng):
    X, Y = rng.normal(size=(2, 3, 8, 5))
    assert relative_error(linear_cka(X, Y), onp.array([linear_cka(x, y) for x, y in zip(X, Y)])) < 1e-12


def test_eq05_float32_cka_stays_float32(pair):
    X, Y = (part.astype(onp.float32) for part in pair)
    for debiased in (False, True):
        assert linear_cka(X, Y, debiased, eps=1e-7).dtype == onp.float32
        for argument in (0, 1):
            assert grad(lambda *pair: linear_cka(*pair, debiased, 1e-7), argument)(X, Y).dtype == onp.float32
    assert linear_cka(X, Y) == pytest.approx(linear_cka(*pair), rel=1e-5)


@pytest.mark.parametrize("x, y, debiased, message", [
    ((5, 3), (6, 3), False, r"same samples, got shapes \(5, 3\) and \(6, 3\)"),
    ((5,), (5,), False, r"X \(..., B, D1\)"),
    ((2, 5, 3), (3, 5, 3), False, "same samples"),
    ((1, 3), (1, 3), False, "at least 2 samples, got 1"),
    ((3, 3), (3, 3), True, "at least 4 samples for the debiased estimate, got 3"),
])
def test_bad_input_is_refused(x, y, debiased, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(np.ones(x), np.ones(y), debiased)
