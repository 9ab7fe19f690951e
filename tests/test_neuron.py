"""The neuron, Eqs. (1) to (3): leak, spike, reset, and the gradients that replace the spike's."""

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from autograd.test_util import check_grads
from autograd.tracer import getval
from conftest import golden_keys, relative_error
from scipy.integrate import quad
from scipy.signal import lfilter
from scipy.special import expit

from ckd_ref.neuron import SURROGATES, lif, lif_step, reset, spike, surrogate_grad

NEVER = 1e9
"""A threshold out of reach."""

ANTIDERIVATIVES = {
    "triangle": lambda v, a: np.where(v < 0, np.maximum(1 + v / a, 0) ** 2 / 2, 1 - np.maximum(1 - v / a, 0) ** 2 / 2),
    "atan": lambda v, a: np.arctan(np.pi * v / a) / np.pi + 0.5,
    "sigmoid": lambda v, a: expit(v / a),
    "rectangle": lambda v, a: np.clip(v / a + 0.5, 0, 1),
    "fast_sigmoid": lambda v, a: v / (a + np.abs(v)) / 2 + 0.5,
}
"""The smoothed steps from 0 to 1 whose slopes the surrogates are."""


@pytest.fixture
def current(rng):
    """(T, N) currents under which every neuron is sometimes above and sometimes below its threshold."""
    return rng.normal(0.5, 0.8, (9, 40))


# Eq. (1)

def leaks_and_integrates(lif):
    """An input of 1 is halved at every step, and inputs add up."""
    pulse = onp.array([1.0, 0, 0, 0])
    assert lif(pulse, v_th=NEVER)[1].tolist() == [1, 0.5, 0.25, 0.125]
    assert lif(onp.ones(4), v_th=NEVER)[1].tolist() == [1, 1.5, 1.75, 1.875]


def test_eq01_value_by_hand():
    leaks_and_integrates(lif)


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
    with pytest.raises(AssertionError):
        leaks_and_integrates(wrong_lif)


def test_eq01_present_input_counts_not_the_one_before():
    """The deviation from the printed equation: a pulse at step 2 shows at step 2."""
    assert lif(onp.array([0.0, 0, 1, 0]), v_th=NEVER)[1].tolist() == [0, 0, 1, 0.5]


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_eq01_without_spikes_is_a_linear_filter(current, tau):
    closed_form = lfilter([1], [1, -tau], current, axis=0)
    spikes, potentials = lif(current, tau, v_th=NEVER)
    assert not spikes.any() and relative_error(potentials, closed_form) < 1e-12


def test_eq01_golden_until_the_first_spike(golden):
    """Before any spike the original's potential is the filter's output; factor 2 as u = 2 m."""
    x, m = golden["lif/braincog/x"][:], golden["lif/braincog/QGateGrad_tau2/mem_pre"][:]
    spikes = golden["lif/braincog/QGateGrad_tau2/spike"][:]
    untouched = onp.cumsum(spikes, axis=0) - spikes == 0
    assert untouched.sum() > 30
    assert relative_error(lif(x, v_th=NEVER)[1][untouched], 2 * m[untouched]) < 1e-9


def test_eq01_gradient_of_the_last_potential_decays_by_tau():
    slope = grad(lambda x: lif(x, 0.7, v_th=NEVER)[1][-1])(onp.zeros(6))
    assert relative_error(slope, 0.7 ** onp.arange(5, -1, -1)) < 1e-12


def test_eq01_limits_no_memory_and_no_leak(current):
    assert (lif(current, tau=0, v_th=NEVER)[1] == current).all()
    assert relative_error(lif(current, tau=1, v_th=NEVER)[1], onp.cumsum(current, axis=0)) < 1e-12


# Eq. (2)

def fires_strictly_above(spike):
    v = onp.array([-1, -1e-300, -0.0, 0.0, 1e-300, 1])
    assert spike(v).tolist() == [0, 0, 0, 0, 1, 1]


def test_eq02_value_by_hand():
    fires_strictly_above(spike)


@pytest.mark.parametrize("wrong", [lambda v: (v >= 0) * 1.0, lambda v: (v < 0) * 1.0, lambda v: np.sign(v)],
                         ids=[">=", "<", "sign"])
def test_eq02_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError):
        fires_strictly_above(wrong)


def test_eq02_neuron_fires_strictly_above_its_threshold():
    current = onp.array([0.75, onp.nextafter(0.75, 1), onp.nextafter(0.75, 0)])
    assert lif(current[None], v_th=0.75)[0].tolist() == [[0, 1, 0]]


GOLDEN_SURROGATES = {                                          # original: ours, width, factor on ours
    "atan_a2": ("atan", 1, 1),                                 # width 2 / alpha
    "backei_gate": ("rectangle", 1, 1),
    "fast_sigmoid_s25": ("fast_sigmoid", 1 / 25, 2 / 25),      # the original has height 1, hence integral 2 / 25
    "gate_a2": ("rectangle", 1, 1),                            # width 2 / alpha
    "nda_rect_g1": ("rectangle", 1, 1),
    "quadratic_gate_a1": ("triangle", 1, 1),                   # width 1 / alpha
    "quadratic_gate_a2": ("triangle", 1 / 2, 1),
    "sigmoid_a1": ("sigmoid", 1, 1),                           # width 1 / alpha
    "sigmoid_a4": ("sigmoid", 1 / 4, 1),
    "tet_zif_g1": ("triangle", 1, 1),
    "tet_zif_g2": ("triangle", 2, 1),
}


def test_eq02_every_golden_surrogate_is_covered(golden):
    """All but the inputs and one step-shaped surrogate, which has no finite integral."""
    assert set(golden["surrogate"]) - set(GOLDEN_SURROGATES) == {"x", "upstream", "relu_like_a2"}


@pytest.mark.parametrize("key", GOLDEN_SURROGATES)
def test_eq02_golden_surrogate(golden, key):
    name, width, factor = GOLDEN_SURROGATES[key]
    x, upstream = golden["surrogate/x"][:], golden["surrogate/upstream"][:]
    slope = grad(lambda v: np.sum(upstream * spike(v, name, width)))(x)
    assert relative_error(factor * slope, golden["surrogate"][key]["grad_x"][:]) < 1e-9
    away = x != 0                                              # some originals have H(0) = 1
    assert (spike(x)[away] == golden["surrogate"][key]["y"][:][away]).all()


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_surrogate_integrates_to_one(name, width):
    def slope(v):
        return surrogate_grad(onp.float64(v), name, width)
    knots = [-width, -width / 2, 0, width / 2, width]
    inside = sum(quad(slope, a, b)[0] for a, b in zip(knots, knots[1:]))
    tails = quad(slope, -onp.inf, -width)[0] + quad(slope, width, onp.inf)[0]
    assert inside + tails == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("width", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_surrogate_is_the_slope_of_a_smoothed_step(name, width, rng):
    v, h = rng.uniform(-3, 3, 200), 1e-6
    step = ANTIDERIVATIVES[name]
    assert relative_error(surrogate_grad(v, name, width), (step(v + h, width) - step(v - h, width)) / (2 * h)) < 1e-5
    assert step(onp.float64(-1e9), width) == pytest.approx(0, abs=1e-6)
    assert step(onp.float64(1e9), width) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_backward_pass_is_the_surrogate(name, rng):
    v, g = rng.normal(size=(2, 50))
    assert (grad(lambda v: np.sum(g * spike(v, name, 0.7)))(v) == g * surrogate_grad(v, name, 0.7)).all()


def test_eq02_the_spike_itself_fails_a_numeric_gradient_check():
    """The difference quotient of H is 0, the surrogate is not: the two must not be confused."""
    with pytest.raises(AssertionError):
        check_grads(spike, modes=["rev"], order=1)(onp.array([0.3, -0.2]))


@pytest.mark.parametrize("name", SURROGATES)
def test_eq02_surrogate_is_symmetric_and_largest_at_the_threshold(name, rng):
    v = rng.uniform(0.01, 4, 100)
    slope = surrogate_grad(v, name, 0.8)
    assert (slope == surrogate_grad(-v, name, 0.8)).all()
    assert (slope >= 0).all() and slope.max() <= surrogate_grad(onp.zeros(1), name, 0.8)


# Eq. (3)

def resets_after_a_spike(lif):
    """Currents of 3/4: the second step reaches 9/8, fires, and the third starts from rest."""
    spikes, potentials = lif(onp.full(4, 0.75))
    assert potentials.tolist() == [0.75, 1.125, 0.75, 1.125] and spikes.tolist() == [0, 1, 0, 1]
    spikes, potentials = lif(onp.array([1.0, 0.5, 0, 0]))
    assert potentials.tolist() == [1, 1, 0.5, 0.25] and not spikes.any()


def test_eq03_value_by_hand():
    resets_after_a_spike(lif)


def test_eq03_one_step():
    u, s = onp.array([0.5, 1.5, -0.5]), onp.array([0.0, 1, 0])
    assert lif_step(u, s, onp.full(3, 0.25), tau=0.5).tolist() == [0.5, 0.25, 0]


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
            spikes.append(s), potentials.append(u)
            u = keep(u, s)
        return onp.array(spikes), onp.array(potentials)
    with pytest.raises(AssertionError):
        resets_after_a_spike(wrong)


@pytest.mark.parametrize("tau, v_th", [(0.5, 1.0), (0.9, 0.7), (0.0, 1.0), (1.0, 1.5), (0.25, 0.0)])
def test_eq03_equals_the_loop_over_neurons(current, tau, v_th):
    for result, reference in zip(lif(current, tau, v_th), oracles.lif(current, tau, v_th)):
        assert relative_error(result, reference) < 1e-12


BRAINCOG = {"QGateGrad": ("triangle", 1), "AtanGrad": ("atan", 2), "GateGrad": ("rectangle", 2),
            "SigmoidGrad": ("sigmoid", 1)}
"""Name of the original: ours, and width times alpha on its own membrane."""


@pytest.mark.parametrize("key", golden_keys("lif/braincog", ".*_tau"))
def test_eq03_golden_neuron_of_the_baseline(golden, key):
    """m += (x - m) / c is Eq. (3) with u = c m: leak 1 - 1 / c, threshold c / 2, surrogate c times as wide."""
    g, case = golden["lif/braincog"], golden["lif/braincog"][key]
    name, width = BRAINCOG[key.split("_")[0]]
    c, alpha, threshold = case.attrs["tau"], case.attrs["alpha"], case.attrs["threshold"]
    neuron = dict(tau=1 - 1 / c, v_th=c * threshold, surrogate=name, width=c * width / alpha)
    x, ws, wm = g["x"][:], g["ws"][:], g["wm"][:]
    same = onp.ones(x.shape[1:], bool)
    if case.attrs["heaviside_at_0"] == 1:                      # leave out neurons that meet the threshold exactly
        same = (case["mem_pre"][:] != threshold).all(axis=0)
    assert same.sum() >= same.size - 1

    def loss(x):
        spikes, potentials = lif(x, **neuron)
        return np.sum(ws * spikes) + np.sum(wm * reset(potentials, neuron["v_th"]) / c)

    spikes, potentials = lif(x, **neuron)
    assert (spikes == case["spike"][:])[:, same].all() and spikes.any()
    assert relative_error(potentials[:, same] / c, case["mem_pre"][:][:, same]) < 1e-9
    assert relative_error(reset(potentials, neuron["v_th"])[:, same] / c, case["mem_post"][:][:, same]) < 1e-9
    assert relative_error(grad(loss)(x)[:, same], case["grad_x"][:][:, same]) < 1e-9
    if same.all():
        assert loss(x) == pytest.approx(case["loss"][()], rel=1e-9)


def test_eq03_golden_float32_run(golden):
    g, case = golden["lif/braincog"], golden["lif/braincog_float32"]
    x, ws, wm = (g[name][:].astype(onp.float32) for name in ("x", "ws", "wm"))
    spikes, potentials = lif(x)
    slope = grad(lambda x: np.sum(ws * lif(x)[0]) + np.sum(wm * reset(lif(x)[1])) * 0.5)(x)
    assert (spikes == case["spike"][:]).all()
    assert relative_error(reset(potentials) / 2, case["mem_post"][:]) < 1e-6
    assert relative_error(slope, case["grad_x"][:]) < 1e-5


def test_eq03_golden_paper_form(golden):
    g, case = golden["lif/braincog"], golden["lif/paper_form"]
    x, ws, wm = g["x"][:], g["ws"][:], g["wm"][:]
    spikes, potentials = lif(x)
    assert (spikes == case["spike"][:]).all()
    assert relative_error(potentials, case["u_pre"][:]) < 1e-9
    assert relative_error(reset(potentials), case["u_post"][:]) < 1e-9
    slope = grad(lambda x: np.sum(ws * lif(x)[0]) + np.sum(wm * reset(lif(x)[1]) / 2))(x)
    assert relative_error(slope, case["grad_x"][:]) < 1e-9


def test_eq03_golden_gradient_through_the_reset(golden):
    g, case = golden["lif/braincog"], golden["lif/tet_lifspike"]
    x, ws = g["x"][:], g["ws"][:]

    def slope(detach_reset):
        return grad(lambda x: np.sum(ws * lif(x, detach_reset=detach_reset)[0]))(x).transpose(1, 0, 2)
    assert (lif(x)[0].transpose(1, 0, 2) == case["spike"][:]).all()
    assert relative_error(slope(False), case["grad_x"][:]) < 1e-9
    assert relative_error(slope(True), case["grad_x"][:]) > 1e-3, "a detached reset must make a difference"


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
    assert relative_error(grad(fused)(current), grad(loop)(current)) < 1e-12


def test_eq03_gradient_of_potentials(current):
    """Between threshold crossings the potentials are smooth, and the detached reset is their true derivative."""
    distance = onp.abs(lif(current)[1] - 1).min()
    assert distance > 1e-4, "choose other currents: a difference quotient must not cross the threshold"
    check_grads(lambda x: lif(x)[1], modes=["rev"], order=1)(current)


def test_eq03_one_time_step_is_the_input(rng):
    x = rng.normal(size=(1, 5))
    spikes, potentials = lif(x)
    assert (potentials == x).all() and (spikes == (x > 1)).all()


def test_eq03_reset_potentials_stay_at_or_below_the_threshold(current):
    spikes, potentials = lif(current)
    assert (reset(potentials) == potentials * (1 - spikes)).all() and reset(potentials).max() <= 1


def test_eq03_float32_stays_float32(current):
    x = current.astype(onp.float32)
    for name in SURROGATES:
        spikes, potentials = lif(x, surrogate=name, width=0.7, detach_reset=False)
        assert spikes.dtype == potentials.dtype == reset(potentials).dtype == onp.float32
        assert spike(x, name).dtype == surrogate_grad(x, name).dtype == onp.float32
        for part in (0, 1):
            for detached in (True, False):
                slope = grad(lambda x: np.sum(lif(x, surrogate=name, detach_reset=detached)[part]))(x)
                assert slope.dtype == onp.float32


def test_input_is_left_as_it_was(current):
    before = current.copy()
    grad(lambda x: np.sum(lif(x)[0]) + np.sum(lif(x)[1]))(current)
    assert (current == before).all()


@pytest.mark.parametrize("call, message", [
    (lambda: lif(onp.zeros((0, 3))), r"T >= 1 time steps, got shape \(0, 3\)"),
    (lambda: lif(onp.float64(1)), "T >= 1 time steps"),
    (lambda: lif(onp.zeros(3), tau=1.5), r"tau in \[0, 1\], got 1.5"),
    (lambda: lif(onp.zeros(3), tau=float("nan")), r"tau in \[0, 1\], got nan"),
    (lambda: surrogate_grad(onp.zeros(3), "step"), "surrogate to be one of triangle, .*got 'step'"),
    (lambda: surrogate_grad(onp.zeros(3), width=0), "width > 0, got 0"),
    (lambda: grad(lambda x: np.sum(lif(x, surrogate="step")[0]))(onp.zeros(3)), "got 'step'"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
