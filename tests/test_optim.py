"""AdamW, against the golden run and a step written out."""

import numpy as np
import pytest
from conftest import relative_error

from ckd_ref.nn import adamw, init_moments


def golden_run(golden, **options):
    """Largest relative error over five steps with changing rates."""
    g = golden["adamw"]
    params = {name: values[:] for name, values in g["init"].items()}
    moments = init_moments(params)
    errors = []
    for step in range(5):
        case = g[f"step{step}"]
        grads = {name: case[f"grad/{name}"][:] for name in params}
        params, moments = adamw(params, grads, moments, step + 1, g["lrs"][step], **options)
        for name in params:
            first, second = moments[name]
            errors.append(relative_error(params[name], case[f"param/{name}"][:]))
            errors.append(relative_error(first, case[f"exp_avg/{name}"][:]))
            errors.append(relative_error(second, case[f"exp_avg_sq/{name}"][:]))
    return max(errors)


def test_adamw_golden(golden):
    assert golden_run(golden) < 1e-9, "five steps differ from those of the original AdamW"


WRONG = [
    dict(decay=0.0),
    dict(betas=(0.9, 0.99)),
    dict(betas=(0.8, 0.999)),
    dict(eps=1e-3),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_constants_are_caught(golden, wrong):
    assert golden_run(golden, **wrong) > 1e-7, f"the golden run does not notice {wrong}"


def test_first_step_by_hand():
    """The first step is the sign of the gradient times the rate; only the matrix decays."""
    params = {"matrix": np.full((1, 2), 2.0), "vector": np.array([2.0])}
    grads = {"matrix": np.array([[3.0, -0.1]]), "vector": np.array([5.0])}
    new, moments = adamw(params, grads, init_moments(params), 1, rate=0.1, decay=0.5)
    matrix = new["matrix"].ravel().tolist()
    first, second = moments["vector"]
    assert matrix == pytest.approx([2 * 0.95 - 0.1, 2 * 0.95 + 0.1]), "a matrix decays, then steps"
    assert new["vector"].tolist() == pytest.approx([2 - 0.1]), "a vector does not decay"
    assert first == pytest.approx([0.5]), "the first moment is a tenth of the gradient"
    assert second == pytest.approx([0.025]), "the second moment is a thousandth of its square"


def test_nothing_is_changed_in_place():
    params = {"w": np.ones((2, 2))}
    grads = {"w": np.ones((2, 2))}
    moments = init_moments(params)
    adamw(params, grads, moments, 1, 0.1)
    assert (params["w"] == 1).all(), "adamw changed the parameters in place"
    assert (grads["w"] == 1).all(), "adamw changed the gradients in place"
    assert not moments["w"][0].any(), "adamw changed the moments in place"


def test_zero_gradient_leaves_vectors_alone():
    params = {"theta": np.ones(3)}
    new, _ = adamw(params, {"theta": np.zeros(3)}, init_moments(params), 1, 0.1)
    assert (new["theta"] == 1).all(), "a vector without a gradient moved"


def test_float32_stays_float32():
    params = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    new, moments = adamw(params, params, init_moments(params), 1, 0.1)
    dtypes = {a.dtype for name in new for a in (new[name], *moments[name])}
    assert dtypes == {np.dtype(np.float32)}, "parameters or moments left float32"


def test_minimises_a_quadratic():
    params = {"x": np.array([5.0, -3.0])}
    target = np.array([1.0, 2.0])
    moments = init_moments(params)
    for step in range(1, 600):
        grads = {"x": params["x"] - target}
        params, moments = adamw(params, grads, moments, step, 0.05)
    assert params["x"] == pytest.approx(target, abs=1e-2), "AdamW did not reach the minimum"
