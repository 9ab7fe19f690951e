"""Assertions that say in words which equation is wrong, and how.

Every `what` is a sentence that starts with the equation: "Eq. (9): the loss is ...".
"""

import re

import numpy as np
import pytest
from autograd.test_util import check_grads


def relative_error(result, reference):
    """Largest difference over the reference's largest magnitude.

    An all-zero reference must be met exactly.
    """
    result, reference = np.asarray(result), np.asarray(reference)
    assert result.shape == reference.shape, f"shape {result.shape}, expected {reference.shape}"
    scale = max(np.max(np.abs(reference)), np.finfo(float).tiny)
    return np.max(np.abs(result - reference)) / scale


def assert_close(result, reference, tolerance, what, factors=None):
    """The relative error is below the tolerance.

    `factors` names numbers by which the result may be wrong, such as {"temperature^2": 16}.
    """
    __tracebackhide__ = True
    assert_shape(result, np.shape(reference), what)
    if not relative_error(result, reference) < tolerance:
        raise AssertionError(f"{what}; {difference(result, reference, factors)}")


def assert_approx(result, expected, what, rel=None, abs=None, factors=None):
    """Each number is `pytest.approx` the expected one."""
    __tracebackhide__ = True
    if isinstance(expected, list):
        result = np.asarray(result).tolist()
    if not result == pytest.approx(expected, rel=rel, abs=abs):
        raise AssertionError(f"{what}; {difference(result, expected, factors)}")


def assert_equal(result, expected, what):
    """Shape and every number are exactly as expected."""
    __tracebackhide__ = True
    assert_shape(result, np.shape(expected), what)
    if not (np.asarray(result) == np.asarray(expected)).all():
        raise AssertionError(f"{what}; {difference(result, expected)}")


def assert_differs(result, wrong, what, rel=1e-3, abs=None):
    """The result is not that of a known wrong version."""
    __tracebackhide__ = True
    if result == pytest.approx(wrong, rel=rel, abs=abs):
        raise AssertionError(f"{what}; the result {shown(result)} is that of the wrong version")


def assert_shape(result, shape, what):
    __tracebackhide__ = True
    if np.shape(result) != tuple(shape):
        raise AssertionError(f"{what}; expected shape {tuple(shape)}, got {np.shape(result)}")


def assert_dtype(result, dtype, what):
    __tracebackhide__ = True
    if result.dtype != dtype:
        raise AssertionError(f"{what}; expected {np.dtype(dtype)}, got {result.dtype}")


def assert_finite(result, what):
    __tracebackhide__ = True
    if not np.isfinite(result).all():
        raise AssertionError(f"{what}; expected finite numbers, got {shown(result)}")


def assert_gradient(function, *arguments, what):
    """The gradients by autograd are the function's difference quotients."""
    __tracebackhide__ = True
    try:
        check_grads(function, modes=["rev"], order=1)(*arguments)
    except AssertionError as error:
        found = re.search(r"analytic: (\S+)\s+numeric: +(\S+)", str(error))
        if found is None:
            raise AssertionError(f"{what}; {error}") from None
        analytic, numeric = (float(number) for number in found.groups())
        raise AssertionError(
            f"{what}; its difference quotient along a random direction: "
            f"{difference(analytic, numeric)}"
        ) from None


def difference(result, reference, factors=None):
    """What was expected, what came, and what kind of error that looks like."""
    if isinstance(reference, dict):
        return f"expected {reference}, got {result}"
    result, reference = np.asarray(result), np.asarray(reference)
    text = f"expected {shown(reference)}, got {shown(result)}"
    if result.shape != reference.shape:
        return text
    if result.size > 8:
        gap = np.abs(np.subtract(result, reference, dtype=float))
        place = np.unravel_index(int(np.argmax(np.where(np.isnan(gap), np.inf, gap))), gap.shape)
        index = ", ".join(str(int(i)) for i in place)
        text = (
            f"expected {reference[place]:.6g}, got {result[place]:.6g} at index ({index}), "
            f"where the difference is largest ({(gap != 0).sum()} of {gap.size} differ)"
        )
    kind = kind_of_error(result.astype(float), reference.astype(float), factors or {})
    return text + (f": {kind}" if kind else "")


def shown(numbers):
    """Numbers in one line."""
    numbers = np.asarray(numbers)
    if numbers.dtype.kind in "OUS" or numbers.dtype.names:
        return str(numbers)
    text = np.array2string(numbers, precision=6, separator=", ", threshold=8, edgeitems=3)
    return re.sub(r"\s*\n\s*", " ", text)


def kind_of_error(result, reference, factors):
    """A flipped sign, a constant factor, a complement; or "" if it is none of them."""
    if np.isfinite(reference).all() and not np.isfinite(result).all():
        return "the result is not finite"
    if not np.isfinite(reference).all() or not reference.any():
        return ""

    def equals(other):
        return relative_error(result, other) < 1e-5

    if equals(reference):
        return "the difference is within rounding of float32"
    if equals(-reference):
        return "the result is the negative of the expected one"
    factor = np.sum(result * reference) / np.sum(reference**2)
    if factor and equals(factor * reference):
        for name, value in factors.items():
            for sign, minus in ((1, ""), (-1, "-")):
                if np.isclose(factor, sign * value, rtol=1e-5):
                    return f"off by a factor of {factor:.6g} = {minus}{name}"
                if np.isclose(factor, sign / value, rtol=1e-5):
                    return f"off by a factor of {factor:.6g} = {minus}1 / ({name})"
        whole = max(abs(factor), 1 / abs(factor))
        if reference.size > 1 or (whole < 100 and np.isclose(whole, round(whole), rtol=1e-6)):
            return f"off by a factor of {factor:.6g}"
    if equals(1 - reference):
        return "the result is 1 minus the expected one"
    return ""
