"""The schedules: Eq. (8), Eq. (10) and the learning rate."""

import doctest
import math
import re

import numpy as np
import pytest
from conftest import golden_keys, relative_error

import ckd_ref.schedules
from ckd_ref.schedules import learning_rate, phase_weight, replacement_probability


def assert_docstring_holds(function):
    example, = doctest.DocTestFinder().find(function, globs=vars(ckd_ref.schedules))
    result = doctest.DocTestRunner().run(example)
    assert result.attempted > 0 and result.failed == 0


def test_eq08_table_in_the_docstring():
    assert_docstring_holds(replacement_probability)


def test_eq10_table_in_the_docstring():
    assert_docstring_holds(phase_weight)


def test_learning_rate_table_in_the_docstring():
    assert_docstring_holds(learning_rate)


# Eq. (8)

def cubes_the_share_of_training_done(probability):
    """Batch 2 of epoch 1 in 3 epochs of 4 batches is 6 / 12 of the way."""
    assert probability(2, 1, 4, 3) == 1 / 8
    assert probability(0, 0, 4, 3) == 0
    assert probability(3, 2, 4, 3) == pytest.approx((11 / 12) ** 3)


def test_eq08_value_by_hand():
    cubes_the_share_of_training_done(replacement_probability)


@pytest.mark.parametrize("wrong", [
    lambda b, e, bl, n: (b + e * bl) / (n * bl),
    lambda b, e, bl, n: (b + 1 + e * bl) / (n * bl) ** 3,
    lambda b, e, bl, n: ((b + 1 + e * bl) / (n * bl)) ** 3,
    lambda b, e, bl, n: (e / n) ** 3,
    lambda b, e, bl, n: 1 - ((b + e * bl) / (n * bl)) ** 3,
    lambda b, e, bl, n: ((b * n + e) / (n * bl)) ** 3,
], ids=["no cube", "cube below only", "counted from 1", "batch ignored", "falling", "batch and epoch swapped"])
def test_eq08_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError):
        cubes_the_share_of_training_done(wrong)


def test_eq08_golden(golden):
    g = golden["replacement"]
    pairs = list(zip(g["batch"][:].ravel(), g["epoch"][:].ravel()))
    lengths = int(g.attrs["batch_len"]), int(g.attrs["epochs"])
    for power, name in ((3, "P"), (1, "P_pow1")):
        result = np.array([replacement_probability(b, e, *lengths, power=power) for b, e in pairs])
        assert relative_error(result, g[name][:].ravel()) < 1e-9


def test_eq08_never_reaches_one():
    """The last of 65 batches of the last of 300 epochs."""
    assert replacement_probability(64, 299, 65, 300) == pytest.approx(0.99985, abs=5e-6)


def test_eq08_rises_over_all_batches_from_0_with_the_slope_of_a_cube():
    P = np.array([replacement_probability(b, e, 7, 9) for e in range(9) for b in range(7)])
    progress = np.arange(63) / 63
    assert relative_error(P, progress**3) < 1e-12 and (np.diff(P) > 0).all()
    middle = (progress[1:] + progress[:-1]) / 2
    assert np.diff(P) * 63 == pytest.approx(3 * middle**2, abs=1 / 63**2)


def test_eq08_stays_a_probability_beyond_the_end():
    assert replacement_probability(0, 12, 4, 3) == 1 and replacement_probability(0, -1, 4, 3) == 0


@pytest.mark.parametrize("batches, epochs", [(0, 3), (4, 0), (-1, 3)])
def test_eq08_refuses_a_training_without_batches(batches, epochs):
    with pytest.raises(ValueError, match=f"batches_per_epoch={batches}, epochs={epochs}"):
        replacement_probability(0, 0, batches, epochs)


# Eq. (10)

def falls_through_one_half(phase_weight):
    """k = ln 3: one epoch before the threshold 3/4, at it 1/2, one after 1/4."""
    assert [phase_weight(e, 10, math.log(3)) for e in (9, 10, 11)] == pytest.approx([3 / 4, 1 / 2, 1 / 4])


def test_eq10_value_by_hand():
    falls_through_one_half(phase_weight)


@pytest.mark.parametrize("wrong", [
    lambda e, threshold, k: 1 / (1 + math.exp(-k * (e - threshold))),
    lambda e, threshold, k: 1 - 1 / (1 + math.exp(-k * (e + threshold))),
    lambda e, threshold, k: 1 - 1 / (1 + math.exp(-(e - threshold) / k)),
    lambda e, threshold, k: float(e < threshold),
    lambda e, threshold, k: -1 / (1 + math.exp(-k * (e - threshold))),
], ids=["sign flipped", "threshold's sign", "slope inverted", "a step", "no 1 -"])
def test_eq10_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError):
        falls_through_one_half(wrong)


def test_eq10_golden(golden):
    assert [name.decode() if isinstance(name, bytes) else name for name in golden["gamma/params_columns"][:]][0] == "k"
    values = np.array([phase_weight(np.arange(300), threshold, k) for k, threshold in golden["gamma/params"][:]])
    assert relative_error(values, golden["gamma/values"][:]) < 1e-9


@pytest.mark.parametrize("k", [0.001, 0.1, 1.0])
def test_eq10_equals_the_printed_form(k):
    epochs = np.arange(300)
    assert relative_error(phase_weight(epochs, 149.5, k), 1 - 1 / (1 + np.exp(-k * (epochs - 149.5)))) < 1e-12


def test_eq10_slope_is_that_of_a_logistic_curve():
    """d gamma / d e = -k gamma (1 - gamma), by central differences."""
    e, h, k = np.linspace(-20, 20, 81), 1e-5, 0.3
    slope = (phase_weight(e + h, 2, k) - phase_weight(e - h, 2, k)) / (2 * h)
    gamma = phase_weight(e, 2, k)
    assert relative_error(slope, -k * gamma * (1 - gamma)) < 1e-8


@pytest.mark.parametrize("k", [0.001, 1, 100, 1e6])
def test_eq10_is_one_half_at_the_threshold_and_falls(k):
    assert phase_weight(40, 40, k) == 0.5
    assert (np.diff(phase_weight(np.arange(300), 150, k)) <= 0).all()


@pytest.mark.filterwarnings("error")
def test_eq10_steep_slopes_switch_without_overflow():
    """k = 100 over 300 epochs: exp alone would reach e^15000."""
    gamma = phase_weight(np.arange(300), 149.5, 100)
    assert (gamma[:150] > 1 - 1e-9).all() and (gamma[150:] < 1e-9).all() and np.isfinite(gamma).all()


def test_eq10_flat_slope_is_no_switch():
    """k = 0.001 only moves from about 0.52 to 0.47 when the threshold is the middle of 150 epochs or so."""
    gamma = phase_weight(np.arange(150), 75, 0.001)
    assert 0.47 < gamma.min() < gamma.max() < 0.53


# Learning rate

@pytest.mark.parametrize("key", golden_keys("lr"))
def test_learning_rate_golden(golden, key):
    epochs, warmup = (int(n) for n in re.search(r"_E(\d+)_w(\d+)", key).groups())
    peak = float(golden["lr"][key].attrs["base_lr"])
    rates = np.array([learning_rate(epoch, epochs, peak, warmup) for epoch in range(epochs + 1)])
    assert np.abs(rates / golden["lr"][key][:] - 1).max() < 1e-9


def test_learning_rate_by_hand():
    options = dict(epochs=20, peak=1.0, warmup_epochs=4, floor=0.0, warmup_start=0.2)
    assert [learning_rate(e, **options) for e in (0, 1, 3)] == pytest.approx([0.2, 0.4, 0.8])
    assert [learning_rate(e, **options) for e in (5, 10, 20, 99)] == pytest.approx([(1 + 0.5**0.5) / 2, 0.5, 0, 0])


def test_learning_rate_falls_after_the_warm_up():
    rates = np.array([learning_rate(e, 50, 1e-3) for e in range(51)])
    assert (np.diff(rates[:6]) > 0).all() and (np.diff(rates[5:]) < 0).all() and rates.max() < 1e-3
