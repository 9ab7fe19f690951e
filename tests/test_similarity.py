"""Centred kernel alignment, the similarity inside Eq. (5)."""

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from assertions import (
    assert_approx,
    assert_close,
    assert_dtype,
    assert_equal,
    assert_gradient,
)
from autograd import grad
from conftest import golden_keys
from scipy.stats import ortho_group
from subject import linear_cka


@pytest.fixture
def pair(rng):
    """Two related feature matrices (9, 6) and (9, 4)."""
    X = rng.normal(size=(9, 6)) + 3
    return X, X[:, :4] ** 2 + rng.normal(size=(9, 4))


def compares_centred_gram_matrices(cka):
    """Centred (-1, 0, 1) and (-1, 2, -1) are orthogonal; a step is 3/4 and 1/4 like both."""
    ramp = onp.array([[4.0], [5], [6]])
    peak = onp.array([[1.0], [4], [1]])
    step = onp.array([[0.0], [0], [3]])
    what = "Eq. (5): CKA compares features whose mean over the samples is removed"
    assert_approx(cka(ramp, peak), 0, what, abs=1e-12)
    what = "Eq. (5): CKA is <K, L> / (|K| |L|), with square roots in the norms"
    assert_approx(cka(ramp, step), 3 / 4, what)
    assert_approx(cka(peak, step), 1 / 4, what)
    both = onp.hstack([ramp, 2 * peak])
    assert_approx(cka(both, ramp), 2 / onp.sqrt(4 + 24**2), what)


def test_eq05_cka_by_hand():
    compares_centred_gram_matrices(linear_cka)


def wrong_cka(centre=lambda X: X - X.mean(0), power=0.5, number=lambda K, L: onp.sum(K * L)):
    def cka(X, Y):
        X, Y = centre(X), centre(Y)
        K, L = X @ X.T, Y @ Y.T
        return number(K, L) / (number(K, K) * number(L, L)) ** power

    return cka


@pytest.mark.package_only
@pytest.mark.parametrize("wrong", [
    wrong_cka(centre=lambda X: X),
    wrong_cka(centre=lambda X: X - X.mean(1, keepdims=True)),
    wrong_cka(power=1),
    wrong_cka(number=lambda K, L: onp.trace(K) * onp.trace(L)),
    lambda X, Y: 1 - wrong_cka()(X, Y),
    lambda X, Y: -wrong_cka()(X, Y),
], ids=["not centred", "centred along features", "no square root", "traces", "distance", "sign"])
def test_eq05_wrong_cka_is_caught(wrong):
    message = r"Eq\. \(5\): .*expected .*, got "
    with onp.errstate(all="ignore"), pytest.raises(AssertionError, match=message):
        compares_centred_gram_matrices(wrong)
    compares_centred_gram_matrices(wrong_cka())                # the test itself accepts the right


def test_eq05_cka_by_two_other_routes(pair):
    """Gram matrices of samples and covariances of features give one number."""
    what = "Eq. (5): CKA is that of a loop over pairs of {}"
    value = linear_cka(*pair)
    assert_approx(value, oracles.cka_by_gram(*pair), what.format("samples"), rel=1e-12)
    assert_approx(value, oracles.cka_by_features(*pair), what.format("features"), rel=1e-12)


def test_eq05_cka_of_single_features_is_their_squared_correlation(rng):
    x, y = rng.normal(size=(2, 12, 1))
    expected = onp.corrcoef(x[:, 0], y[:, 0])[0, 1] ** 2
    what = "Eq. (5): CKA of single features is their squared correlation"
    assert_approx(linear_cka(x, y), expected, what, rel=1e-12)


def debiased_by_hsic(X, Y):
    hsic = oracles.hsic_unbiased
    return hsic(X, Y) / onp.sqrt(hsic(X, X) * hsic(Y, Y))


def test_eq05_debiased_cka_equals_the_printed_u_statistic(pair):
    what = "Eq. (5): debiased CKA is made of the U-statistics of HSIC"
    assert_approx(linear_cka(*pair, debiased=True), debiased_by_hsic(*pair), what, rel=1e-12)


GOLDEN_CKA = [
    (key, name) for key in golden_keys("cka") for name in golden_keys(f"cka/{key}")
    if not name.endswith(("X", "Y", "unbiased"))
]


@pytest.mark.parametrize("key, name", GOLDEN_CKA)
def test_eq05_golden_cka(golden, key, name):
    """linear_CKA* add 1e-7 to the denominator, cka_gram* and feature_space* nothing."""
    X, Y, reference = (golden["cka"][key][part][()] for part in ("X", "Y", name))
    options = dict(debiased="debiased" in name, eps=1e-7 if "linear_CKA" in name else 0.0)
    if onp.isnan(reference):
        pytest.skip("the original takes the root of a negative number")
    what = f"Eq. (5): CKA{' (debiased)' * options['debiased']} is that of the original {name}"
    assert_close(linear_cka(X, Y, **options), reference, 1e-9, what)
    for argument, letter in enumerate("XY"):
        if f"{name}_grad_{letter}" in golden["cka"][key]:
            slope = grad(lambda *pair: linear_cka(*pair, **options), argument)(X, Y)
            expected = golden["cka"][key][f"{name}_grad_{letter}"][:]
            what = f"Eq. (5): the gradient of CKA for {letter} is that of the original {name}"
            if key == "same":
                # At the maximum only the part due to eps is left.
                gap = abs(slope - expected).max()
                assert gap < 1e-15, f"{what}; expected 0 to 1e-15, got {gap}"
                assert abs(expected).max() < 1e-8, f"{what}; the golden gradient is not small"
            else:
                assert_close(slope, expected, 1e-9, what)


@pytest.mark.parametrize("debiased", [False, True])
def test_eq05_gradient_of_cka(pair, debiased):
    def cka(X, Y):
        return linear_cka(X, Y, debiased, eps=1e-3)
    assert_gradient(cka, *pair, what=f"Eq. (5): the gradient of CKA, debiased={debiased}")


def test_eq05_cka_ignores_rotation_scale_and_shift(pair, rng):
    X, Y = pair
    turned = 7 * X @ ortho_group.rvs(6, random_state=rng) - 100
    for debiased in (False, True):
        what = "Eq. (5): CKA must ignore that a feature space is rotated, scaled and shifted"
        expected = linear_cka(X, Y, debiased)
        assert_approx(linear_cka(turned, Y, debiased), expected, what, rel=1e-9)
        assert_approx(linear_cka(X, turned, debiased), 1, what, rel=1e-9)


def test_eq05_cka_is_symmetric_and_sees_the_pairing(pair):
    X, Y = pair
    value = linear_cka(X, Y)
    assert_approx(linear_cka(Y, X), value, "Eq. (5): CKA is symmetric", rel=1e-12)
    mismatched = linear_cka(X, onp.roll(Y, 1, axis=0))
    assert mismatched < value, "Eq. (5): CKA must fall when rows no longer belong together"
    order = onp.arange(9)[::-1]
    what = "Eq. (5): CKA must not depend on the order of the pairs"
    assert_approx(linear_cka(X[order], Y[order]), value, what, rel=1e-12)


def test_eq05_biased_cka_of_independent_features_is_far_from_zero(rng):
    """With D >> B random features look alike; the debiased estimate does not fall for it."""
    X, Y = rng.normal(size=(2, 20, 16, 2000))
    biased = onp.min([linear_cka(x, y) for x, y in zip(X, Y)])
    debiased = onp.mean([linear_cka(x, y, debiased=True) for x, y in zip(X, Y)])
    what = "Eq. (5): independent features, D >> B: expected CKA > 0.9 if biased, got"
    assert biased > 0.9, f"{what} {biased}"
    what = "Eq. (5): independent features, D >> B: expected debiased CKA within 0.05 of 0, got"
    assert abs(debiased) < 0.05, f"{what} {debiased}"


@pytest.mark.parametrize("debiased", [False, True])
def test_eq05_constant_features_have_cka_zero_and_gradient_zero(rng, debiased):
    X, Y = onp.full((5, 3), 0.1), rng.normal(size=(5, 4))
    for pair in ((X, Y), (Y, X), (X, X)):
        what = "Eq. (5): CKA of constant features is 0"
        assert_equal(linear_cka(*pair, debiased), 0, what)
        for argument in (0, 1):
            slope = grad(lambda *pair: linear_cka(*pair, debiased), argument)(*pair)
            what = "Eq. (5): the gradient of CKA of constant features is 0"
            assert_equal(slope, onp.zeros(pair[argument].shape), what)


@pytest.mark.package_only
@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_eq05_cka_compares_leading_axes_one_by_one(rng, leading, debiased):
    X, Y = rng.normal(size=(*leading, 8, 5)), rng.normal(size=(*leading, 8, 6))
    one = debiased_by_hsic if debiased else oracles.cka_by_gram
    singles, loop = onp.empty(leading), onp.empty(leading)
    for index in onp.ndindex(leading):
        singles[index] = linear_cka(X[index], Y[index], debiased)
        loop[index] = one(X[index], Y[index])
    value = linear_cka(X, Y, debiased)
    what = f"Eq. (5): with leading axes {leading} CKA is that of each pair of matrices"
    assert_close(value, singles, 1e-12, what)
    what = f"Eq. (5): with leading axes {leading} CKA is that of a loop"
    assert_close(value, loop, 1e-10, what)


@pytest.mark.package_only
@pytest.mark.parametrize("debiased", [False, True])
def test_eq05_gradient_of_cka_with_leading_axes(rng, debiased):
    X, Y = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(2, 3, 5, 2))
    what = f"Eq. (5): the gradient of CKA with two leading axes, debiased={debiased}"
    assert_gradient(lambda X, Y: linear_cka(X, Y, debiased), X, Y, what=what)


def test_eq05_float32_cka_stays_float32(pair):
    X, Y = (part.astype(onp.float32) for part in pair)
    for debiased in (False, True):
        what = f"Eq. (5): CKA and its gradients must stay float32, debiased={debiased}"
        assert_dtype(linear_cka(X, Y, debiased, eps=1e-7), onp.float32, what)
        for argument in (0, 1):
            slope = grad(lambda *pair: linear_cka(*pair, debiased, 1e-7), argument)(X, Y)
            assert_dtype(slope, onp.float32, what)
    what = "Eq. (5): CKA in float32 is that in float64"
    assert_approx(linear_cka(X, Y), linear_cka(*pair), what, rel=1e-5)


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


@pytest.mark.package_only
@pytest.mark.parametrize("dtype", [onp.float32, onp.float64])
def test_eq05_no_rounding_error_makes_constant_features_vary(dtype, rng):
    """Whatever their value and number: their mean need not be exact."""
    for value in rng.normal(size=30).astype(dtype):
        for B in (3, 5, 7, 11):
            X = onp.full((B, 3), value, dtype)
            Y = rng.normal(size=(B, 4)).astype(dtype)
            what = f"Eq. (5): CKA with {B} constant features {value} is 0"
            assert_equal(linear_cka(X, Y), 0, what)


def test_eq05_debiased_cka_needs_no_more_than_four_samples(rng):
    X, Y = rng.normal(size=(2, 4, 6))
    hsic = oracles.hsic_unbiased
    expected = hsic(X, Y) / onp.sqrt(abs(hsic(X, X) * hsic(Y, Y)))
    what = "Eq. (5): debiased CKA of four samples"
    assert_approx(linear_cka(X, Y, debiased=True), expected, what, rel=1e-9)
