"""The schedules: Eq. (8), Eq. (10) and the learning rate."""

import doctest
import math
import re

import numpy as np
import pytest
from assertions import assert_approx, assert_close, assert_equal, assert_finite
from conftest import golden_keys
from subject import phase_weight, replacement_probability

import ckd_ref.schedules
from ckd_ref.schedules import learning_rate


class InWords(doctest.DocTestRunner):
    """Raises an AssertionError at the first example that gives something else."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def report_failure(self, out, test, example, got):
        for expected_line, got_line in zip(example.want.splitlines(), got.splitlines()):
            if expected_line != got_line:
                self.fail(repr(expected_line), repr(got_line))
        self.fail(repr(example.want), repr(got))

    def report_unexpected_exception(self, out, test, example, exc_info):
        self.fail(repr(example.want), f"{exc_info[0].__name__}: {exc_info[1]}")

    def fail(self, expected, got):
        raise AssertionError(f"{self.what}; expected {expected}, got {got}")


def assert_docstring_holds(function, what):
    what = f"{what}: the table in the docstring of {function.__name__}"
    example, = doctest.DocTestFinder().find(function, globs=vars(ckd_ref.schedules))
    result = InWords(what).run(example)
    assert result.attempted > 0, f"{what}; expected an example, got none"


# Eq. (8)

def cubes_the_share_of_training_done(probability):
    """Batch 2 of epoch 1 in 3 epochs of 4 batches is 6 / 12 of the way."""
    what = "Eq. (8): P is the share of training done, cubed: batch {}"
    assert_equal(probability(2, 1, 4, 3), 1 / 8, what.format("6 of 12, halfway"))
    assert_equal(probability(0, 0, 4, 3), 0, what.format("0 of 12, counted from 0"))
    assert_approx(probability(3, 2, 4, 3), (11 / 12) ** 3, what.format("11 of 12, the last"))


def test_eq08_value_by_hand():
    cubes_the_share_of_training_done(replacement_probability)


@pytest.mark.package_only
@pytest.mark.parametrize("wrong", [
    lambda b, e, bl, n: (b + e * bl) / (n * bl),
    lambda b, e, bl, n: (b + 1 + e * bl) / (n * bl) ** 3,
    lambda b, e, bl, n: ((b + 1 + e * bl) / (n * bl)) ** 3,
    lambda b, e, bl, n: (e / n) ** 3,
    lambda b, e, bl, n: 1 - ((b + e * bl) / (n * bl)) ** 3,
    lambda b, e, bl, n: ((b * n + e) / (n * bl)) ** 3,
    lambda b, e, bl, n: -((b + e * bl) / (n * bl)) ** 3,
], ids=[
    "no cube", "cube below only", "counted from 1", "batch ignored", "falling",
    "batch and epoch swapped", "sign",
])
def test_eq08_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError, match=r"Eq\. \(8\): .*expected .*, got "):
        cubes_the_share_of_training_done(wrong)


def test_eq08_golden(golden):
    g = golden["replacement"]
    pairs = list(zip(g["batch"][:].ravel(), g["epoch"][:].ravel()))
    lengths = int(g.attrs["batch_len"]), int(g.attrs["epochs"])
    for power, name in ((3, "P"), (1, "P_pow1")):
        result = np.array([replacement_probability(b, e, *lengths, power=power) for b, e in pairs])
        what = f"Eq. (8): with the power {power} P is the baseline's"
        assert_close(result, g[name][:].ravel(), 1e-9, what)


def test_eq08_never_reaches_one():
    """The last of 65 batches of the last of 300 epochs."""
    what = "Eq. (8): in the last batch P must still be below 1"
    assert_approx(replacement_probability(64, 299, 65, 300), 0.99985, what, abs=5e-6)


def test_eq08_rises_over_all_batches_from_0_with_the_slope_of_a_cube():
    P = np.array([replacement_probability(b, e, 7, 9) for e in range(9) for b in range(7)])
    progress = np.arange(63) / 63
    assert_close(P, progress**3, 1e-12, "Eq. (8): P over all batches is the cube of progress")
    assert (np.diff(P) > 0).all(), f"Eq. (8): P must rise from batch to batch, got {np.diff(P)}"
    middle = (progress[1:] + progress[:-1]) / 2
    what = "Eq. (8): the slope of P is 3 progress^2"
    assert_approx((np.diff(P) * 63).tolist(), (3 * middle**2).tolist(), what, abs=1 / 63**2)


def test_eq08_one_batch_per_epoch_or_one_epoch():
    """Both count the same four steps."""
    expected = [0, 1 / 64, 1 / 8, 27 / 64]
    what = "Eq. (8): {}: P is (k / 4)^3 in step k"
    P = [replacement_probability(0, epoch, 1, 4) for epoch in range(4)]
    assert_equal(P, expected, what.format("one batch per epoch, 4 epochs"))
    P = [replacement_probability(batch, 0, 4, 1) for batch in range(4)]
    assert_equal(P, expected, what.format("one epoch of 4 batches"))
    what = "Eq. (8): a training of a single batch never replaces"
    assert_equal(replacement_probability(0, 0, 1, 1), 0, what)


def test_eq08_stays_a_probability_beyond_the_end():
    what = "Eq. (8): {} the training P must be clipped to [0, 1]"
    assert_equal(replacement_probability(0, 12, 4, 3), 1, what.format("after"))
    assert_equal(replacement_probability(0, -1, 4, 3), 0, what.format("before"))


@pytest.mark.package_only
@pytest.mark.parametrize("batches, epochs", [(0, 3), (4, 0), (-1, 3)])
def test_eq08_refuses_a_training_without_batches(batches, epochs):
    with pytest.raises(ValueError, match=f"batches_per_epoch={batches}, epochs={epochs}"):
        replacement_probability(0, 0, batches, epochs)


@pytest.mark.package_only
def test_eq08_table_in_the_docstring():
    assert_docstring_holds(replacement_probability, "Eq. (8)")


# Eq. (10)

def falls_through_one_half(phase_weight):
    """k = ln 3: one epoch before the threshold 3/4, at it 1/2, one after 1/4."""
    weights = [phase_weight(e, 10, math.log(3)) for e in (9, 10, 11)]
    what = "Eq. (10): gamma must fall through 1/2 at the threshold, 3/4, 1/2, 1/4 for k = ln 3"
    assert_approx(weights, [3 / 4, 1 / 2, 1 / 4], what)


def test_eq10_value_by_hand():
    falls_through_one_half(phase_weight)


@pytest.mark.package_only
@pytest.mark.parametrize("wrong", [
    lambda e, threshold, k: 1 / (1 + math.exp(-k * (e - threshold))),
    lambda e, threshold, k: 1 - 1 / (1 + math.exp(-k * (e + threshold))),
    lambda e, threshold, k: 1 - 1 / (1 + math.exp(-(e - threshold) / k)),
    lambda e, threshold, k: float(e < threshold),
    lambda e, threshold, k: -1 / (1 + math.exp(-k * (e - threshold))),
], ids=["sign flipped", "threshold's sign", "slope inverted", "a step", "no 1 -"])
def test_eq10_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError, match=r"Eq\. \(10\): .*expected .*, got "):
        falls_through_one_half(wrong)


def test_eq10_golden(golden):
    first = golden["gamma/params_columns"][:][0]
    first = first.decode() if isinstance(first, bytes) else first
    assert first == "k", f"the golden parameters begin with {first}, not k"
    values = np.array([
        phase_weight(np.arange(300), threshold, k) for k, threshold in golden["gamma/params"][:]])
    what = "Eq. (10): gamma over 300 epochs is that of scipy's expit"
    assert_close(values, golden["gamma/values"][:], 1e-9, what)


@pytest.mark.parametrize("k", [0.001, 0.1, 1.0])
def test_eq10_equals_the_printed_form(k):
    epochs = np.arange(300)
    printed = 1 - 1 / (1 + np.exp(-k * (epochs - 149.5)))
    what = f"Eq. (10): gamma is 1 - 1 / (1 + exp(-k (e - e_th))), k = {k}"
    assert_close(phase_weight(epochs, 149.5, k), printed, 1e-12, what)


def test_eq10_slope_is_that_of_a_logistic_curve():
    """d gamma / d e = -k gamma (1 - gamma), by central differences."""
    e, h, k = np.linspace(-20, 20, 81), 1e-5, 0.3
    slope = (phase_weight(e + h, 2, k) - phase_weight(e - h, 2, k)) / (2 * h)
    gamma = phase_weight(e, 2, k)
    what = "Eq. (10): the slope of gamma is -k gamma (1 - gamma)"
    assert_close(slope, -k * gamma * (1 - gamma), 1e-8, what)


@pytest.mark.parametrize("k", [0.001, 1, 100, 1e6])
def test_eq10_is_one_half_at_the_threshold_and_falls(k):
    what = f"Eq. (10): with k = {k} gamma is 1/2 at the threshold"
    assert_equal(phase_weight(40, 40, k), 0.5, what)
    steps = np.diff(phase_weight(np.arange(300), 150, k))
    assert (steps <= 0).all(), f"Eq. (10): with k = {k} gamma must not rise, got {steps.max()}"


@pytest.mark.filterwarnings("error")
def test_eq10_steep_slopes_switch_without_overflow():
    """k = 100 over 300 epochs: exp alone would reach e^15000."""
    gamma = phase_weight(np.arange(300), 149.5, 100)
    what = "Eq. (10): with k = 100 gamma is {} the threshold"
    assert_finite(gamma, what.format("finite before and after"))
    assert (gamma[:150] > 1 - 1e-9).all(), f"{what.format('1 before')}, got {gamma[:150].min()}"
    assert (gamma[150:] < 1e-9).all(), f"{what.format('0 after')}, got {gamma[150:].max()}"


def test_eq10_flat_slope_is_no_switch():
    """k = 0.001 only moves from about 0.52 to 0.48 when the threshold is the middle of 150."""
    gamma = phase_weight(np.arange(150), 75, 0.001)
    within = 0.47 < gamma.min() < gamma.max() < 0.53
    what = "Eq. (10): with k = 0.001 gamma stays in (0.47, 0.53) and falls"
    assert within, f"{what}, got {gamma.min()} to {gamma.max()}"


@pytest.mark.package_only
def test_eq10_table_in_the_docstring():
    assert_docstring_holds(phase_weight, "Eq. (10)")


# Learning rate

@pytest.mark.parametrize("key", golden_keys("lr"))
def test_learning_rate_golden(golden, key):
    epochs, warmup = (int(n) for n in re.search(r"_E(\d+)_w(\d+)", key).groups())
    peak = float(golden["lr"][key].attrs["base_lr"])
    rates = np.array([learning_rate(epoch, epochs, peak, warmup) for epoch in range(epochs + 1)])
    ratio = rates / golden["lr"][key][:]
    what = "Learning rate: each epoch's is timm's"
    worst = np.abs(ratio - 1).max()
    assert worst < 1e-9, f"{what}; expected ratios of 1, off by {worst} in epoch {ratio.argmax()}"


def test_learning_rate_by_hand():
    options = dict(epochs=20, peak=1.0, warmup_epochs=4, floor=0.0, warmup_start=0.2)
    rates = [learning_rate(e, **options) for e in (0, 1, 3)]
    assert_approx(rates, [0.2, 0.4, 0.8], "Learning rate: linear warm-up from 0.2 to 1")
    rates = [learning_rate(e, **options) for e in (5, 10, 20, 99)]
    expected = [(1 + 0.5**0.5) / 2, 0.5, 0, 0]
    assert_approx(rates, expected, "Learning rate: half a cosine down to 0, and then 0")


def test_learning_rate_falls_after_the_warm_up():
    rates = np.array([learning_rate(e, 50, 1e-3) for e in range(51)])
    assert (np.diff(rates[:6]) > 0).all(), f"Learning rate: it must rise first, got {rates[:6]}"
    assert (np.diff(rates[5:]) < 0).all(), f"Learning rate: then it must fall, got {rates[5:]}"
    assert rates.max() < 1e-3, f"Learning rate: expected below the peak 1e-3, got {rates.max()}"


def test_learning_rate_table_in_the_docstring():
    assert_docstring_holds(learning_rate, "Learning rate")
