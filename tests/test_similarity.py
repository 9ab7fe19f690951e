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
    assert_finite,
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
def test_eq05_cka_compares_time_steps_one_by_one(rng, debiased):
    X, Y = rng.normal(size=(3, 8, 5)), rng.normal(size=(3, 8, 6))
    X[1] *= 1e9                                                # each has a scale of its own
    one = debiased_by_hsic if debiased else oracles.cka_by_gram
    value = linear_cka(X, Y, debiased)
    what = "Eq. (5): CKA over time is that of each pair of matrices"
    assert_close(value, onp.array([linear_cka(*pair, debiased) for pair in zip(X, Y)]), 1e-12, what)
    what = "Eq. (5): CKA over time is that of a loop"
    assert_close(value, onp.array([one(*pair) for pair in zip(X, Y)]), 1e-10, what)


@pytest.mark.package_only
@pytest.mark.parametrize("debiased", [False, True])
def test_eq05_gradient_of_cka_over_time(rng, debiased):
    X, Y = rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 2))
    what = f"Eq. (5): the gradient of CKA over time, debiased={debiased}"
    assert_gradient(lambda X, Y: linear_cka(X, Y, debiased), X, Y, what=what)


SCALES = [
    (onp.float32, (1e-20, 1)), (onp.float32, (1e20, 1)), (onp.float32, (1e-20, 1e20)),
    (onp.float32, (1e-37, 1e37)), (onp.float64, (1e-200, 1)), (onp.float64, (1e200, 1e200)),
]


def by_powers_of_two(cka, dtype, scales, debiased, rng):
    """The promise that CKA is the same at every scale; powers of two make it bit-identical."""
    X, Y = (2 * rng.random((2, 9, 6)) - 1).astype(dtype)
    x, y = (dtype(2.0 ** int(onp.log2(scale))) for scale in scales)
    what = f"Eq. (5): CKA of {dtype.__name__} features does not depend on their scales {scales}"
    value = cka(X * x, Y * y, debiased)
    assert_dtype(value, dtype, what)
    assert_equal(value, cka(X, Y, debiased), what)
    for argument, scale in enumerate((x, y)):
        slope = grad(lambda *pair: cka(*pair, debiased), argument)
        expected = slope(X, Y) / scale
        what = f"Eq. (5): the gradient of CKA goes with 1 / scale at the scales {scales}"
        assert_finite(expected, what)
        assert_equal(slope(X * x, Y * y), expected, what)


@pytest.mark.package_only
@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("dtype, scales", SCALES)
def test_eq05_cka_is_the_same_at_every_scale(rng, dtype, scales, debiased):
    by_powers_of_two(linear_cka, dtype, scales, debiased, rng)


@pytest.mark.package_only
@pytest.mark.parametrize("scales", [(1e-20, 1), (1e20, 1), (1e20, 1e-20)])
def test_eq05_cka_without_units_is_caught(rng, scales):
    """As it was: float32 products of such features vanish, or overflow."""
    def in_no_units(X, Y, debiased):
        X, Y = X - np.mean(X, 0), Y - np.mean(Y, 0)
        K, L = np.dot(X, X.T), np.dot(Y, Y.T)
        KK, LL = np.sum(K * K), np.sum(L * L)
        return np.sum(K * L) / (np.sqrt(KK + (KK == 0)) * np.sqrt(LL + (LL == 0)))

    message = r"Eq\. \(5\): CKA of float32 features does not depend"
    with onp.errstate(all="ignore"), pytest.raises(AssertionError, match=message):
        by_powers_of_two(in_no_units, onp.float32, scales, False, rng)


@pytest.mark.package_only
def test_eq05_eps_keeps_its_size_at_every_scale(pair):
    """It is added to the norms of the features as they came, not to those in units."""
    X, Y = (part.astype(onp.float32) for part in pair)
    products = [onp.linalg.norm((part - part.mean(0)) @ (part - part.mean(0)).T) for part in pair]
    for scale in (2.0**-8, 1, 2.0**8):
        expected = linear_cka(*pair) / (1 + 1e-2 / (onp.prod(products) * scale**2))
        what = f"Eq. (5): eps is added to the denominator, features times {scale:g}"
        assert_approx(linear_cka(X * scale, Y, eps=1e-2), expected, what, rel=1e-5)
    what = "Eq. (5): beside a denominator far below it, eps makes CKA and its gradient 0"
    tiny = X * onp.float32(1e-20), Y * onp.float32(1e-20)
    assert_equal(linear_cka(*tiny, eps=1e-7), 0, what)
    assert_equal(grad(lambda *pair: linear_cka(*pair, eps=1e-7))(*tiny), onp.zeros((9, 6)), what)


@pytest.mark.package_only
@pytest.mark.parametrize("bad", [onp.nan, onp.inf])
@pytest.mark.parametrize("debiased", [False, True])
def test_eq05_features_that_are_not_finite_give_nan(rng, bad, debiased):
    """Never a number, and only in the time step that has them."""
    X, Y = rng.normal(size=(2, 3, 6, 4))
    X[1, 2, 3] = bad
    with onp.errstate(invalid="ignore"):
        for value in (linear_cka(X, Y, debiased), linear_cka(Y, X, debiased)):
            came = onp.isnan(value).tolist()
            assert came == [False, True, False], f"expected NaN at step 1 alone, got {value}"


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
    ((5,), (5,), False, r"X \(B, D1\)"),
    ((2, 5, 3), (3, 5, 3), False, "same samples"),
    ((5, 3), (2, 5, 3), False, r"same samples, got shapes \(5, 3\) and \(2, 5, 3\)$"),
    ((8, 4, 5, 5), (8, 4, 5, 5), False, r"got .*\(8, 4, 5, 5\); flatten feature maps into one"),
    ((1, 3), (1, 3), False, "at least 2 samples, got 1"),
    ((3, 3), (3, 3), True, "at least 4 samples for the debiased estimate, got 3"),
])
def test_bad_input_is_refused(x, y, debiased, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(np.ones(x), np.ones(y), debiased)


def test_complex_features_are_refused(pair):
    X, Y = pair
    for features in ((X + 1j, Y), (X, Y + 0j)):
        with pytest.raises(ValueError, match="expected features that are real numbers, got compl"):
            linear_cka(*features)


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
