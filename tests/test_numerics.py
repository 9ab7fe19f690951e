"""The helpers that losses and their alternatives share: a fault in one is named here first."""

import autograd.numpy as np
import numpy as onp
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
from scipy import special

from ckd_ref._numerics import (
    check_pair,
    check_steps,
    kl_divergence,
    log_softmax,
    mean,
    one_hot,
    sigmoid,
)

ONE_ARGUMENT = {"mean": mean, "sigmoid": sigmoid, "log_softmax": log_softmax}


# By hand

def test_mean_by_hand():
    x = onp.array([[1.0, 2, 3], [5, 6, 7]])
    assert_equal(mean(x), 4, "mean of all elements")
    assert_equal(mean(x, axis=0), [3, 4, 5], "mean over the first axis")
    assert_approx(mean(x, axis=1), [2, 6], "mean over the second axis")
    assert_approx(mean(x, axis=-1), [2, 6], "mean over the last axis")


def test_sigmoid_by_hand():
    x = onp.log([1 / 3, 1.0, 3])
    assert_approx(sigmoid(x), [1 / 4, 1 / 2, 3 / 4], "sigmoid of -ln 3, 0, ln 3")


def test_log_softmax_by_hand():
    z = onp.log([[1.0, 3], [2, 2]])
    expected = onp.log([[1 / 4, 3 / 4], [1 / 2, 1 / 2]])
    assert_close(log_softmax(z), expected, 1e-12, "log_softmax over the last axis")
    assert_close(log_softmax(z + 7), expected, 1e-12, "log_softmax ignores a constant")


def test_kl_divergence_by_hand():
    p = onp.log([[3 / 4, 1 / 4], [1 / 2, 1 / 2]])
    q = onp.log([[1 / 2, 1 / 2], [1 / 2, 1 / 2]])
    expected = [3 / 4 * onp.log(3 / 2) + 1 / 4 * onp.log(1 / 2), 0]
    assert_approx(kl_divergence(p, q), expected, "kl_divergence: KL(p || q) of each row")


def test_one_hot_by_hand():
    expected = [[0, 0, 1], [1, 0, 0]]
    labels = onp.array([2, 0])
    assert_equal(one_hot(labels, onp.zeros((2, 3))), expected, "one_hot: ones at the labels")
    what = "one_hot: leading axes of the logits, such as time, are left out"
    assert_equal(one_hot(labels, onp.zeros((5, 2, 3))), expected, what)
    assert_equal(one_hot([2, 0], onp.zeros((2, 3))), expected, "one_hot of a list")


# Against scipy, and at the limits

def test_helpers_equal_scipy(rng):
    x = 3 * rng.normal(size=(5, 4))
    assert_close(sigmoid(x), special.expit(x), 1e-12, "sigmoid is scipy's expit")
    assert_close(log_softmax(x), special.log_softmax(x, axis=-1), 1e-12, "log_softmax is scipy's")
    assert_close(mean(x, axis=0), x.mean(0), 1e-12, "mean is numpy's")
    log_p, log_q = log_softmax(x), log_softmax(x[::-1])
    expected = special.rel_entr(onp.exp(log_p), onp.exp(log_q)).sum(1)
    assert_close(kl_divergence(log_p, log_q), expected, 1e-12, "kl_divergence is scipy's rel_entr")


def test_helpers_do_not_overflow():
    with onp.errstate(over="raise", invalid="raise"):
        x = onp.array([-1e4, 0.0, 1e4])
        assert_equal(sigmoid(x), [0, 0.5, 1], "sigmoid of huge numbers")
        z = onp.array([[1e4, 0.0, -1e4]])
        what = "log_softmax of huge logits"
        assert_equal(log_softmax(z), [[0, -1e4, -2e4]], what)
        assert_finite(grad(lambda z: np.sum(log_softmax(z)[:, 0]))(z), f"the gradient of {what}")


# Gradients and precision

@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_gradients_of_the_helpers(rng, name):
    x = rng.normal(size=(3, 5, 4))
    assert_gradient(ONE_ARGUMENT[name], x, what=f"{name}: the gradient")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gradient_of_the_mean_over_an_axis(rng, axis):
    x = rng.normal(size=(3, 5, 4))
    assert_gradient(lambda x: mean(x, axis), x, what=f"mean: the gradient over the axis {axis}")


def test_gradient_of_kl_divergence(rng):
    log_p, log_q = log_softmax(rng.normal(size=(2, 5, 4)))
    assert_gradient(kl_divergence, log_p, log_q, what="kl_divergence: the gradient")


@pytest.mark.parametrize("name", ONE_ARGUMENT)
def test_helpers_keep_float32(rng, name):
    x = rng.normal(size=(5, 4)).astype(onp.float32)
    function = ONE_ARGUMENT[name]
    assert_dtype(function(x), onp.float32, f"{name} must stay float32")
    slope = grad(lambda x: np.sum(function(x)))(x)
    assert_dtype(slope, onp.float32, f"the gradient of {name} must stay float32")


def test_kl_divergence_and_one_hot_keep_float32(rng):
    logits = rng.normal(size=(5, 4)).astype(onp.float32)
    target = one_hot(onp.arange(5) % 4, logits)
    assert_dtype(target, onp.float32, "one_hot has the dtype of the logits")
    log_p = log_softmax(logits)
    assert_dtype(kl_divergence(log_p, log_p), onp.float32, "kl_divergence must stay float32")

    def loss(z):
        return np.sum(target * z) + np.sum(one_hot(onp.arange(5) % 4, z) * z)
    what = "one_hot: labels have no gradient, logits pass theirs"
    assert_equal(grad(loss)(logits), 2 * target, what)


# Bad input

@pytest.mark.parametrize("labels, message", [
    ([0, 3], r"labels in 0 \.\.\. 2, got 3 for sample 1"),
    ([-1, 0], r"labels in 0 \.\.\. 2, got -1 for sample 0"),
    ([0, 1, 2], r"2 whole-number labels, one per row of the logits \(2, 3\), .*shape \(3,\)"),
    ([0.0, 1.0], "whole-number labels, .*got float64"),
    ([[0], [1]], r"got int64 of shape \(2, 1\)"),
])
def test_one_hot_refuses_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=message):
        one_hot(onp.array(labels), onp.zeros((2, 3)))


@pytest.mark.parametrize("teacher, student, temperature, message", [
    ((2, 3), (2, 4), 1.0, r"one shape \(B, K\), got \(2, 3\) and \(2, 4\)"),
    ((2, 3), (3, 3), 1.0, "do both know the same classes"),
    ((3,), (3,), 1.0, r"got \(3,\) and \(3,\)"),
    ((5, 2, 3), (5, 2, 3), 1.0, r"one shape \(B, K\)"),
    ((0, 3), (0, 3), 1.0, r"got \(0, 3\) and \(0, 3\)"),
    ((2, 3), (2, 3), 0, "temperature > 0, got 0"),
    ((2, 3), (2, 3), -1.0, "temperature > 0, got -1.0"),
    ((2, 3), (2, 3), float("nan"), "temperature > 0, got nan"),
])
def test_check_pair_refuses_what_does_not_fit(teacher, student, temperature, message):
    with pytest.raises(ValueError, match=message):
        check_pair(onp.zeros(teacher), onp.zeros(student), temperature)


@pytest.mark.parametrize("call", [
    lambda z: check_pair(z, z.real, 1.0), lambda z: check_pair(z.real, z, 1.0),
    lambda z: check_steps(z[None]), lambda z: one_hot([0, 1], z),
])
def test_complex_logits_are_refused(call):
    """Somewhere on the way to the log their imaginary part would be lost."""
    with pytest.raises(ValueError, match="expected logits that are real numbers, got complex"):
        call(onp.zeros((2, 3)) + 0j)


def test_check_pair_passes_what_fits():
    assert check_pair(onp.zeros((2, 3)), onp.ones((2, 3)), 0.1) is None
