"""The neuron, Eqs. (1) to (3): leak, spike, reset, and the gradients that replace the spike's."""

import dataclasses

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
    relative_error,
)
from autograd import grad
from autograd.test_util import check_grads
from autograd.tracer import getval
from conftest import golden_keys
from scipy.integrate import quad
from scipy.signal import lfilter
from scipy.special import expit
from subject import lif, lif_step, reset, spike, surrogate_grad

import ckd_ref.neuron
from ckd_ref.neuron import Neuron, reset_grad

NEVER = 1e9
"""A threshold out of reach."""

SURROGATES = "triangle", "atan", "sigmoid", "rectangle", "fast_sigmoid"


def smoothed_triangle(v, a):
    rising = np.maximum(1 + v / a, 0) ** 2 / 2
    falling = np.maximum(1 - v / a, 0) ** 2 / 2
    return np.where(v < 0, rising, 1 - falling)


ANTIDERIVATIVES = {
    "triangle": smoothed_triangle,
    "atan": lambda v, a: np.arctan(np.pi * v / a) / np.pi + 0.5,
    "sigmoid": lambda v, a: expit(v / a),
    "rectangle": lambda v, a: np.clip(v / a + 0.5, 0, 1),
    "fast_sigmoid": lambda v, a: v / (a + np.abs(v)) / 2 + 0.5,
}
"""The smoothed steps from 0 to 1 whose slopes the surrogates are."""


@pytest.fixture
def current(rng):
    """(T, N) currents that put every neuron sometimes above and sometimes below its threshold."""
    return rng.normal(0.5, 0.8, (9, 40))


# Eq. (1)

def leaks_and_integrates(lif):
    """An input of 1 is halved at every step, and inputs add up."""
    pulse = onp.array([1.0, 0, 0, 0])
    what = "Eq. (1): an input of 1 must be halved at every step that follows (tau = 0.5)"
    assert_equal(lif(pulse, v_th=NEVER)[1], [1, 0.5, 0.25, 0.125], what)
    what = "Eq. (1): inputs must be added in full to the potential that the leak leaves"
    assert_equal(lif(onp.ones(4), v_th=NEVER)[1], [1, 1.5, 1.75, 1.875], what)


def test_eq01_value_by_hand():
    leaks_and_integrates(lif)


@pytest.mark.package_only
@pytest.mark.parametrize("wrong", [
    lambda u, x: u + 0.5 * x,
    lambda u, x: 0.5 * (u + x),
    lambda u, x: 0.5 * u - x,
], ids=["leak on the input", "leak on both", "sign of the input"])
def test_eq01_wrong_versions_are_caught(wrong):
    def wrong_lif(current, v_th):
        u = [current[0]]
        for x in current[1:]:
            u.append(wrong(u[-1], x))
        return None, onp.array(u)

    with pytest.raises(AssertionError, match=r"Eq\. \(1\): .*expected .*, got "):
        leaks_and_integrates(wrong_lif)


def test_eq01_present_input_counts_not_the_one_before():
    """The deviation from the printed equation: a pulse at step 2 shows at step 2."""
    what = "Eq. (1): the present input must count, not that of the step before"
    assert_equal(lif(onp.array([0.0, 0, 1, 0]), v_th=NEVER)[1], [0, 0, 1, 0.5], what)


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_eq01_without_spikes_is_a_linear_filter(current, tau):
    closed_form = lfilter([1], [1, -tau], current, axis=0)
    spikes, potentials = lif(current, tau, v_th=NEVER)
    assert not spikes.any(), "Eq. (1): below the threshold no neuron may fire"
    what = f"Eq. (1): without spikes potentials are the current filtered with the leak tau = {tau}"
    assert_close(potentials, closed_form, 1e-12, what)


def test_eq01_golden_until_the_first_spike(golden):
    """Before any spike the original's potential is the filter's output; factor 2 as u = 2 m."""
    x = golden["lif/braincog/x"][:]
    m = golden["lif/braincog/QGateGrad_tau2/mem_pre"][:]
    spikes = golden["lif/braincog/QGateGrad_tau2/spike"][:]
    untouched = onp.cumsum(spikes, axis=0) - spikes == 0
    assert untouched.sum() > 30, "the golden case has too few steps before the first spike"
    what = "Eq. (1): before the first spike potentials are twice the baseline's"
    assert_close(lif(x, v_th=NEVER)[1][untouched], 2 * m[untouched], 1e-9, what)


def test_eq01_gradient_of_the_last_potential_decays_by_tau():
    slope = grad(lambda x: lif(x, 0.7, v_th=NEVER)[1][-1])(onp.zeros(6))
    what = "Eq. (1): the gradient of the last potential decays by tau = 0.7 per step back"
    assert_close(slope, 0.7 ** onp.arange(5, -1, -1), 1e-12, what)


def test_eq01_limits_no_memory_and_no_leak(current):
    what = "Eq. (1): with tau = 0 the potential is the present input"
    assert_equal(lif(current, tau=0, v_th=NEVER)[1], current, what)
    what = "Eq. (1): with tau = 1 the potential is the sum of all inputs"
    assert_close(lif(current, tau=1, v_th=NEVER)[1], onp.cumsum(current, axis=0), 1e-12, what)


# Eq. (2)

def fires_strictly_above(spike):
    v = onp.array([-1, -1e-300, -0.0, 0.0, 1e-300, 1])
    what = "Eq. (2): a neuron must fire strictly above its threshold, H(0) = 0, with spikes of 1"
    assert_equal(spike(v), [0, 0, 0, 0, 1, 1], what)


def test_eq02_value_by_hand():
    fires_strictly_above(spike)


@pytest.mark.package_only
@pytest.mark.parametrize("wrong", [
    lambda v: (v >= 0) * 1.0,
    lambda v: (v < 0) * 1.0,
    lambda v: np.sign(v),
], ids=[">=", "<", "sign"])
def test_eq02_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError, match=r"Eq\. \(2\): .*expected .*, got "):
        fires_strictly_above(wrong)


def test_eq02_neuron_fires_strictly_above_its_threshold():
    current = onp.array([0.75, onp.nextafter(0.75, 1), onp.nextafter(0.75, 0)])
    what = "Eq. (2): potentials at, just above and just below the threshold 0.75"
    assert_equal(lif(current[None], v_th=0.75)[0], [[0, 1, 0]], what)


def test_eq02_surrogates_by_hand():
    """At 0, a quarter and a half of the width, for the widths 1 and 2."""
    v = onp.array([-0.5, -0.25, 0.0, 0.25, 0.5])
    what = "Eq. (2): the default surrogate is a triangle of width 1, max(0, 1 - |v|)"
    assert_equal(surrogate_grad(v), [0.5, 0.75, 1, 0.75, 0.5], what)
    assert_equal(surrogate_grad(onp.array([-2.0, -1, 1, 2])), [0, 0, 0, 0], what)
    for name, sides in {
        "triangle": [0.5, 0.75, 1],
        "atan": [1 / (1 + onp.pi**2 / 4), 1 / (1 + onp.pi**2 / 16), 1],
        "rectangle": [0, 1, 1],                                # 0 at half the width itself
        "fast_sigmoid": [2 / 9, 8 / 25, 1 / 2],
    }.items():
        expected = sides + sides[1::-1]
        for width in (1.0, 2.0):
            what = f"Eq. (2): the surrogate {name} of width {width}"
            slope = surrogate_grad(width * v, name, width)
            assert_approx(slope, [value / width for value in expected], what)
    what = "Eq. (2): the surrogate sigmoid of width 2 is 1/8 at 0 and 3/32 at 2 ln 3"
    slope = surrogate_grad(onp.array([0.0, 2 * onp.log(3)]), "sigmoid", 2.0)
    assert_approx(slope, [1 / 8, 3 / 32], what)


GOLDEN_SURROGATES = {                                          # original: ours, width, factor
    "atan_a2": ("atan", 1, 1),                                 # width 2 / alpha
    "backei_gate": ("rectangle", 1, 1),
    "fast_sigmoid_s25": ("fast_sigmoid", 1 / 25, 2 / 25),      # its height is 1, integral 2 / 25
    "gate_a2": ("rectangle", 1, 1),                            # width 2 / alpha
    "nda_rect_g1": ("rectangle", 1, 1),
    "quadratic_gate_a1": ("triangle", 1, 1),                   # width 1 / alpha
    "quadratic_gate_a2": ("triangle", 1 / 2, 1),
    "sigmoid_a1": ("sigmoid", 1, 1),                           # width 1 / alpha
    "sigmoid_a4": ("sigmoid", 1 / 4, 1),
    "tet_zif_g1": ("triangle", 1, 1),
    "tet_zif_g2": ("triangle", 2, 1),
}


@pytest.mark.package_only
def test_eq02_every_golden_surrogate_is_covered(golden):
    """All but the inputs and one step-shaped surrogate, which has no finite integral."""
    others = set(golden["surrogate"]) - set(GOLDEN_SURROGATES)
    assert others == {"x", "upstream", "relu_like_a2"}, f"Eq. (2): golden, untested: {others}"
    known = set(ckd_ref.neuron.SURROGATES)
    assert known == set(SURROGATES), f"Eq. (2): tests know {SURROGATES}, the package {known}"


@pytest.mark.parametrize("key", GOLDEN_SURROGATES)
def test_eq02_golden_surrogate(golden, key):
    name, width, factor = GOLDEN_SURROGATES[key]
    x, upstream = golden["surrogate/x"][:], golden["surrogate/upstream"][:]
    slope = grad(lambda v: np.sum(upstream * spike(v, name, width)))(x)
    what = f"Eq. (2): the spike's gradient with the surrogate {name} is that of the original {key}"
    assert_close(factor * slope, golden["surrogate"][key]["grad_x"][:], 1e-9, what)
    away = x != 0                                              # some originals have H(0) = 1
    what = f"Eq. (2): spikes are those of the original {key}"
    assert_equal(spike(x)[away], golden["surrogate"][key]["y"][:][away], what)


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_surrogate_integrates_to_one(name, width):
    def slope(v):
        return surrogate_grad(onp.float64(v), name, width)

    knots = [-width, -width / 2, 0, width / 2, width]
    inside = sum(quad(slope, a, b)[0] for a, b in zip(knots, knots[1:]))
    tails = quad(slope, -onp.inf, -width)[0] + quad(slope, width, onp.inf)[0]
    what = f"Eq. (2): the surrogate {name} of width {width} must integrate to 1"
    assert_approx(inside + tails, 1, what, abs=1e-7, factors={"width": width})


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_surrogate_is_the_slope_of_a_smoothed_step(name, width, rng):
    v, h = rng.uniform(-3, 3, 200), 1e-6
    step = ANTIDERIVATIVES[name]
    slope = (step(v + h, width) - step(v - h, width)) / (2 * h)
    what = f"Eq. (2): the surrogate {name} of width {width} is the slope of a smoothed step"
    assert_close(surrogate_grad(v, name, width), slope, 1e-5, what, {"width": width})
    what = f"Eq. (2): the smoothed step of {name} goes from 0 to 1"
    assert_approx(step(onp.float64(-1e9), width), 0, what, abs=1e-6)
    assert_approx(step(onp.float64(1e9), width), 1, what, abs=1e-6)


@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_backward_pass_is_the_surrogate(name, rng):
    v, g = rng.normal(size=(2, 50))
    slope = grad(lambda v: np.sum(g * spike(v, name, 0.7)))(v)
    what = f"Eq. (2): the spike's gradient must be the surrogate {name} of width 0.7"
    assert_equal(slope, g * surrogate_grad(v, name, 0.7), what)


def test_eq02_the_spike_itself_fails_a_numeric_gradient_check():
    """The difference quotient of H is 0, the surrogate is not: the two must not be confused."""
    try:
        check_grads(spike, modes=["rev"], order=1)(onp.array([0.3, -0.2]))
    except AssertionError:
        return
    raise AssertionError(
        "Eq. (2): the spike's gradient must be the surrogate; expected it to differ from the "
        "difference quotient, got 0"
    )


@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_surrogate_is_symmetric_and_largest_at_the_threshold(name, rng):
    v = rng.uniform(0.01, 4, 100)
    slope = surrogate_grad(v, name, 0.8)
    what = f"Eq. (2): the surrogate {name} is symmetric about the threshold"
    assert_equal(surrogate_grad(-v, name, 0.8), slope, what)
    assert (slope >= 0).all(), f"Eq. (2): the surrogate {name} must not be negative"
    top = surrogate_grad(onp.zeros(1), name, 0.8)
    assert slope.max() <= top, f"Eq. (2): the surrogate {name} must be largest at the threshold"


# Eq. (3)

def resets_after_a_spike(lif):
    """Currents of 3/4: the second step reaches 9/8, fires, and the third starts from rest."""
    spikes, potentials = lif(onp.full(4, 0.75))
    what = "Eq. (3): after a spike the potential must start from 0 (hard reset)"
    assert_equal(potentials, [0.75, 1.125, 0.75, 1.125], what)
    what = "Eq. (3): a neuron must fire where its potential is above the threshold 1"
    assert_equal(spikes, [0, 1, 0, 1], what)
    spikes, potentials = lif(onp.array([1.0, 0.5, 0, 0]))
    what = "Eq. (3): without a spike there is no reset, and a potential of 1 = v_th does not fire"
    assert_equal(potentials, [1, 1, 0.5, 0.25], what)
    assert_equal(spikes, [0, 0, 0, 0], what)


def test_eq03_value_by_hand():
    resets_after_a_spike(lif)


def test_eq03_one_step():
    u, s = onp.array([0.5, 1.5, -0.5]), onp.array([0.0, 1, 0])
    what = "Eq. (3): one step is tau u (1 - s) + I, with tau = 0.5 and I = 1/4"
    assert_equal(lif_step(u, s, onp.full(3, 0.25), tau=0.5), [0.5, 0.25, 0], what)
    what = "Eq. (3): one step with tau = 0.25"
    assert_equal(lif_step(u, s, onp.full(3, 0.25), 0.25), [0.375, 0.25, 0.125], what)


def test_eq03_one_step_has_the_leak_one_half_by_default():
    u, s = onp.array([1.0, 1]), onp.array([0.0, 1])
    what = "Eq. (3): one step halves the potential by default (tau = 0.5)"
    assert_equal(lif_step(u, s, onp.zeros(2)), [0.5, 0], what)


@pytest.mark.package_only
@pytest.mark.parametrize("fires, keep", [
    (lambda u: u > 1, lambda u, s: u),
    (lambda u: u > 1, lambda u, s: u - s),
    (lambda u: u > 1, lambda u, s: u * s),
    (lambda u: u >= 1, lambda u, s: u * (1 - s)),
], ids=["no reset", "soft reset", "reset inverted", ">="])
def test_eq03_wrong_versions_are_caught(fires, keep):
    def wrong(current):
        u, spikes, potentials = 0.0, [], []
        for x in current:
            u = 0.5 * u + x
            s = float(fires(u))
            spikes.append(s)
            potentials.append(u)
            u = keep(u, s)
        return onp.array(spikes), onp.array(potentials)

    with pytest.raises(AssertionError, match=r"Eq\. \(3\): .*expected .*, got "):
        resets_after_a_spike(wrong)


@pytest.mark.parametrize("tau, v_th", [(0.5, 1.0), (0.9, 0.7), (0.0, 1.0), (1.0, 1.5), (0.25, 0.0)])
def test_eq03_equals_the_loop_over_neurons(current, tau, v_th):
    spikes, potentials = lif(current, tau, v_th)
    loop_spikes, loop_potentials = oracles.lif(current, tau, v_th)
    what = f"Eq. (3): the {{}} with tau = {tau} and threshold {v_th} are those of a plain loop"
    assert_close(spikes, loop_spikes, 1e-12, what.format("spikes"))
    assert_close(potentials, loop_potentials, 1e-12, what.format("potentials"))


BRAINCOG = {
    "QGateGrad": ("triangle", 1), "AtanGrad": ("atan", 2),
    "GateGrad": ("rectangle", 2), "SigmoidGrad": ("sigmoid", 1),
}
"""Name of the original: ours, and width times alpha on its own membrane."""


@pytest.mark.parametrize("key", golden_keys("lif/braincog", ".*_tau"))
def test_eq03_golden_neuron_of_the_baseline(golden, key):
    """m += (x - m) / c is Eq. (3) with u = c m.

    Leak 1 - 1 / c, threshold c times as high, surrogate c times as wide.
    """
    g, case = golden["lif/braincog"], golden["lif/braincog"][key]
    name, width = BRAINCOG[key.split("_")[0]]
    c, alpha, threshold = case.attrs["tau"], case.attrs["alpha"], case.attrs["threshold"]
    v_th = c * threshold
    neuron = dict(tau=1 - 1 / c, v_th=v_th, surrogate=name, width=c * width / alpha)
    x, ws, wm = g["x"][:], g["ws"][:], g["wm"][:]
    same = onp.ones(x.shape[1:], bool)
    if case.attrs["heaviside_at_0"] == 1:
        # Leave out neurons that meet the threshold exactly.
        same = (case["mem_pre"][:] != threshold).all(axis=0)
    assert same.sum() >= same.size - 1, "the golden case has too many potentials at the threshold"

    def loss(x):
        spikes, potentials = lif(x, **neuron)
        return np.sum(ws * spikes) + np.sum(wm * reset(potentials, v_th) / c)

    spikes, potentials = lif(x, **neuron)
    kept = reset(potentials, v_th)
    what = f"Eq. (3): the {{}} are those of the baseline's neuron, {key}"
    assert_equal(spikes[:, same], case["spike"][:][:, same], what.format("spikes"))
    assert spikes.any(), "Eq. (3): no neuron of the golden case fires"
    assert_close(potentials[:, same] / c, case["mem_pre"][:][:, same], 1e-9,
                 what.format("potentials before the reset"))
    assert_close(kept[:, same] / c, case["mem_post"][:][:, same], 1e-9,
                 what.format("potentials after the reset"))
    assert_close(grad(loss)(x)[:, same], case["grad_x"][:][:, same], 1e-9,
                 what.format("gradients"))
    if same.all():
        assert_approx(loss(x), case["loss"][()], what.format("weighted sums"), rel=1e-9)


def test_eq03_golden_float32_run(golden):
    g, case = golden["lif/braincog"], golden["lif/braincog_float32"]
    x, ws, wm = (g[name][:].astype(onp.float32) for name in ("x", "ws", "wm"))

    def loss(x):
        return np.sum(ws * lif(x)[0]) + np.sum(wm * reset(lif(x)[1])) * 0.5

    spikes, potentials = lif(x)
    what = "Eq. (3): in float32 the {} are those of the baseline's neuron"
    assert_equal(spikes, case["spike"][:], what.format("spikes"))
    assert_close(reset(potentials) / 2, case["mem_post"][:], 1e-6, what.format("potentials"))
    assert_close(grad(loss)(x), case["grad_x"][:], 1e-5, what.format("gradients"))


def test_eq03_golden_paper_form(golden):
    g, case = golden["lif/braincog"], golden["lif/paper_form"]
    x, ws, wm = g["x"][:], g["ws"][:], g["wm"][:]

    def loss(x):
        return np.sum(ws * lif(x)[0]) + np.sum(wm * reset(lif(x)[1]) / 2)

    spikes, potentials = lif(x)
    what = "Eq. (3): the {} are those of the printed equation"
    assert_equal(spikes, case["spike"][:], what.format("spikes"))
    assert_close(potentials, case["u_pre"][:], 1e-9, what.format("potentials before the reset"))
    assert_close(reset(potentials), case["u_post"][:], 1e-9,
                 what.format("potentials after the reset"))
    assert_close(grad(loss)(x), case["grad_x"][:], 1e-9, what.format("gradients"))


def test_eq03_golden_gradient_through_the_reset(golden):
    g, case = golden["lif/braincog"], golden["lif/tet_lifspike"]
    x, ws = g["x"][:], g["ws"][:]

    def slope(detach_reset):
        def loss(x):
            return np.sum(ws * lif(x, detach_reset=detach_reset)[0])
        return grad(loss)(x).transpose(1, 0, 2)

    what = "Eq. (3): the {} are those of LIFSpike, which differentiates the reset"
    assert_equal(lif(x)[0].transpose(1, 0, 2), case["spike"][:], what.format("spikes"))
    assert_close(slope(False), case["grad_x"][:], 1e-9, what.format("gradients, not detached,"))
    gap = relative_error(slope(True), case["grad_x"][:])
    assert gap > 1e-3, "Eq. (3): a detached reset must make a difference to the gradient"


@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("name", SURROGATES)
def test_eq03_vjp_equals_plain_autograd_through_the_loop(current, rng, name, detach_reset):
    ws, wu = rng.normal(size=(2, *current.shape))

    def loop(x):
        u, total = 0 * x[0], 0.0
        s = u
        for t in range(len(x)):
            u = lif_step(u, getval(s) if detach_reset else s, x[t], 0.6)
            s = spike(u - 0.8, name, 1.3)
            total = total + np.sum(ws[t] * s) + np.sum(wu[t] * u)
        return total

    def fused(x):
        s, u = lif(x, 0.6, 0.8, name, 1.3, detach_reset)
        return np.sum(ws * s) + np.sum(wu * u)

    what = f"Eq. (3): the gradient of lif, detach_reset={detach_reset}, is that of its single steps"
    assert_close(grad(fused)(current), grad(loop)(current), 1e-12, what)


def test_eq03_gradient_of_potentials(current):
    """Between threshold crossings potentials are smooth: the detached reset is exact there."""
    distance = onp.abs(lif(current)[1] - 1).min()
    assert distance > 1e-4, "choose other currents: a quotient must not cross the threshold"
    what = "Eq. (3): the gradient of the potentials"
    assert_gradient(lambda x: lif(x)[1], current, what=what)


def test_eq03_one_time_step_is_the_input(rng):
    x = rng.normal(size=(1, 5))
    spikes, potentials = lif(x)
    assert_equal(potentials, x, "Eq. (3): the first potential is the first input")
    assert_equal(spikes, x > 1, "Eq. (3): the first spikes are those of inputs above 1")


def test_eq03_reset_potentials_stay_at_or_below_the_threshold(current):
    spikes, potentials = lif(current)
    kept = reset(potentials)
    assert_equal(kept, potentials * (1 - spikes), "Eq. (3): after the reset u (1 - s) is left")
    assert kept.max() <= 1, f"Eq. (3): after the reset no potential is above 1, got {kept.max()}"


@pytest.mark.parametrize("name", SURROGATES)
def test_eq03_float32_stays_float32(current, name):
    x = current.astype(onp.float32)
    what = f"Eq. (3): float32 must stay float32, with the surrogate {name}"
    spikes, potentials = lif(x, surrogate=name, width=0.7, detach_reset=False)
    for result in (spikes, potentials, reset(potentials), spike(x, name), surrogate_grad(x, name)):
        assert_dtype(result, onp.float32, what)
    for part in (0, 1):
        for detached in (True, False):
            def loss(x):
                return np.sum(lif(x, surrogate=name, detach_reset=detached)[part])
            assert_dtype(grad(loss)(x), onp.float32, what)


# The derivative of the reset

@pytest.mark.package_only
def test_eq03_derivative_of_the_reset_by_hand():
    """u (1 - s): slope 1 below the threshold 1, 0 above; less u times the triangle's height."""
    u = onp.array([0.0, 0.5, 1.5, 3.0])
    what = "Eq. (3): with a detached reset the slope of u (1 - s) is 1 - s"
    assert_equal(reset_grad(u), [1, 1, 0, 0], what)
    what = "Eq. (3): otherwise it is 1 - s less u times the surrogate"
    assert_equal(reset_grad(u, detach_reset=False), [1, 0.75, -0.75, 0], what)
    what = "Eq. (3): the slope of the reset with threshold 2 and a rectangle of width 4"
    assert_equal(reset_grad(u, 2.0, "rectangle", 4.0, False), [1, 0.875, 0.625, -0.75], what)


@pytest.mark.package_only
def test_eq03_derivative_of_the_detached_reset_is_its_difference_quotient(rng):
    u, h = rng.uniform(-2, 4, 300), 1e-6
    u = u[abs(u - 1.2) > 1e-3]
    quotient = (reset(u + h, 1.2) - reset(u - h, 1.2)) / (2 * h)
    what = "Eq. (3): away from the threshold the slope of the reset is its difference quotient"
    assert_close(reset_grad(u, 1.2), quotient, 1e-8, what)


@pytest.mark.package_only
@pytest.mark.parametrize("name", SURROGATES)
def test_eq03_derivative_of_the_reset_is_that_of_a_smoothed_step(rng, name):
    """Not detached: the quotient of u (1 - step(u - v_th)), with H itself where no slope is."""
    u, h = rng.uniform(-1, 3, 300), 1e-6
    step = ANTIDERIVATIVES[name]
    slope = (step(u + h - 1.2, 0.8) - step(u - h - 1.2, 0.8)) / (2 * h)
    reference = (u <= 1.2) - u * slope
    what = f"Eq. (3): the slope of the reset that is not detached, surrogate {name}"
    assert_close(reset_grad(u, 1.2, name, 0.8, False), reference, 1e-5, what)


def test_derivative_of_the_reset_keeps_float32(current):
    u = current.astype(onp.float32)
    for detached in (True, False):
        assert_dtype(reset_grad(u, detach_reset=detached), onp.float32, "reset_grad")


# Settings, and bad input

def test_neuron_has_the_defaults_of_lif(current):
    defaults = vars(Neuron())
    assert defaults == dict(
        tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True)
    for result, reference in zip(ckd_ref.lif(current, **defaults), ckd_ref.lif(current)):
        assert_equal(result, reference, "lif(current, **vars(Neuron())) is lif(current)")


def test_neuron_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Neuron().tau = 0.9
    assert dataclasses.replace(Neuron(), tau=0.9) == Neuron(tau=0.9) != Neuron()


@pytest.mark.parametrize("settings, message", [
    (dict(tau=-0.1), r"tau in \[0, 1\], got -0.1"),
    (dict(tau=1.1), r"tau in \[0, 1\], got 1.1"),
    (dict(tau=float("nan")), r"tau in \[0, 1\], got nan"),
    (dict(surrogate="step"), "surrogate to be one of triangle, .*got 'step'"),
    (dict(width=0), "width > 0, got 0"),
    (dict(width=float("nan")), "width > 0, got nan"),
    (dict(width=float("inf")), "finite surrogate width > 0, got inf"),
])
def test_neuron_refuses_bad_settings(settings, message):
    assert Neuron(tau=0.0) and Neuron(tau=1.0)
    with pytest.raises(ValueError, match=message):
        Neuron(**settings)


def test_input_is_left_as_it_was(current):
    before = current.copy()
    grad(lambda x: np.sum(lif(x)[0]) + np.sum(lif(x)[1]))(current)
    assert_equal(current, before, "lif must not change its input")


def test_eq03_a_current_that_is_nan_shows_in_its_neuron_alone(current):
    """It does not fire, which would look like a number, but its potential says so to the end."""
    spoilt = current.copy()
    spoilt[4, 7] = onp.nan
    spikes, potentials = lif(spoilt)
    own = onp.zeros(current.shape, bool)
    own[4:, 7] = True
    what = "Eq. (3): NaN in a current stays in the potential of its neuron"
    assert_equal(onp.isnan(potentials), own, what)
    assert_equal(spikes, onp.where(own, 0, lif(current)[0]), "Eq. (3): NaN does not fire")


@pytest.mark.parametrize("call, message", [
    (lambda: lif(onp.zeros((0, 3))), r"T >= 1 time steps, got float64 of shape \(0, 3\)"),
    (lambda: lif(onp.ones((2, 3), int)), r"as floats .*, got int64 of shape \(2, 3\)"),
    (lambda: lif(onp.ones((2, 3), complex)), "as floats .*, got complex128"),
    (lambda: lif(onp.zeros(3), surrogate="arctan"), "one of triangle, atan, .*got 'arctan'"),
    (lambda: lif(onp.zeros(3), width=-1.0), "width > 0, got -1.0"),
    (lambda: spike(onp.zeros(3), "arctan"), "one of triangle, atan, .*got 'arctan'"),
    (lambda: lif(onp.float64(1)), "T >= 1 time steps"),
    (lambda: lif(onp.zeros(3), tau=1.5), r"tau in \[0, 1\], got 1.5"),
    (lambda: lif(onp.zeros(3), tau=float("nan")), r"tau in \[0, 1\], got nan"),
    (lambda: surrogate_grad(onp.zeros(3), "step"), "surrogate to be one of triangle, .*'step'"),
    (lambda: surrogate_grad(onp.zeros(3), width=0), "width > 0, got 0"),
    (lambda: grad(lambda x: np.sum(lif(x, surrogate="step")[0]))(onp.zeros(3)), "got 'step'"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
