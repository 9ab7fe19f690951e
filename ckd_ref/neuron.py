"""The leaky integrate-and-fire neuron and its surrogate gradients (Eqs. 1-3)."""

import dataclasses

import numpy as np
from autograd.extend import defvjp, primitive
from numpy import ndarray
from scipy.special import expit

SURROGATES = {
    "triangle": lambda v, a: np.maximum(a - np.abs(v), 0) * a**-2,
    "atan": lambda v, a: 1 / (a * (1 + (np.pi / a * v) ** 2)),
    "sigmoid": lambda v, a: expit(v / a) * expit(-v / a) / a,
    "rectangle": lambda v, a: (np.abs(v) < a / 2).astype(v.dtype) / a,
    "fast_sigmoid": lambda v, a: 1 / (2 * a * (1 + np.abs(v) / a) ** 2),
}
"""Stand-ins for H': functions of v = u - v_th and the width a, each with integral 1 over v."""


@dataclasses.dataclass(frozen=True)
class Neuron:
    """Settings of a layer of neurons, ``lif(current, **vars(Neuron()))``; see `lif`."""

    tau: float = 0.5
    v_th: float = 1.0
    surrogate: str = "triangle"
    width: float = 1.0
    detach_reset: bool = True

    def __post_init__(self):
        _check_neuron(self.tau, self.v_th)
        _check_surrogate(self.surrogate, self.width)


def surrogate_grad(v: ndarray, surrogate: str = "triangle", width: float = 1.0) -> ndarray:
    """The derivative that replaces that of H, which is 0 almost everywhere, in the backward pass.

    Assumption: the paper does not name its surrogate; the default is the baseline's quadratic
    gate, a triangle of width 1 in units of u. Baseline: QGateGrad with alpha = 2 on m = u / 2,
    braincog/base/strategy/surrogate.py. Test: `test_eq02_golden_surrogate`.

    Parameters
    ----------
    v : array
        Distance of the membrane potential from the threshold, u - v_th.
    surrogate : str
        A key of `SURROGATES`.
    width : float
        The width a > 0.

    Returns
    -------
    slope : same shape and dtype, >= 0.
    """
    _check_surrogate(surrogate, width)
    return SURROGATES[surrogate](np.asarray(v), width)


def _check_neuron(tau, v_th):
    if not 0 <= tau <= 1:
        raise ValueError(f"expected a leak factor tau in [0, 1], got {tau!r}")
    if np.any(np.isnan(v_th)):
        raise ValueError("expected a number as threshold v_th, got NaN, above which nothing fires")


def _check_surrogate(surrogate, width):
    if surrogate not in SURROGATES:
        raise ValueError(
            f"expected surrogate to be one of {', '.join(SURROGATES)}, got {surrogate!r}"
        )
    if not 0 < width < np.inf:
        raise ValueError(f"expected a finite surrogate width > 0, got {width!r}")


@primitive
def spike(v: ndarray, surrogate: str = "triangle", width: float = 1.0) -> ndarray:
    """Eq. (2): ``s = H(v)`` with ``v = u - v_th``; a neuron fires strictly above its threshold.

    Assumption: H(0) = 0, which the paper leaves open. Baseline: alike with its default surrogate,
    QGateGrad; others of braincog/base/strategy/surrogate.py have H(0) = 1.
    Test: `test_eq02_value_by_hand`.

    Parameters
    ----------
    v : array of floats
    surrogate, width
        The derivative used backward, see `surrogate_grad`.

    Returns
    -------
    s : same shape and dtype, 0 or 1.
    """
    _check_surrogate(surrogate, width)
    return (v > 0).astype(v.dtype)


def _spike_vjp(s, v, surrogate="triangle", width=1.0):
    return lambda g: g * surrogate_grad(v, surrogate, width)


defvjp(spike, _spike_vjp, argnums=(0,))


def lif_step(u: ndarray, s: ndarray, current: ndarray, tau: float = 0.5) -> ndarray:
    """Eq. (3): ``u[t+1] = tau * u[t] * (1 - s[t]) + I[t+1]``: leak, hard reset to 0, input.

    Deviation: Eq. (1) of the paper leaks without a reset and takes the input of the step before;
    Eq. (3) has the reset and the present input, and is used. Baseline: computes Eq. (3).
    Test: `test_eq01_present_input_counts_not_the_one_before`.

    Parameters
    ----------
    u, s : arrays
        Membrane potential and spike of step t.
    current : array
        Input I of step t + 1.
    tau : float
        Leak factor in [0, 1].

    Returns
    -------
    u_next : array, the membrane potential of step t + 1 before its own reset.
    """
    return tau * u * (1 - s) + current


def lif(
    current: ndarray, tau: float = 0.5, v_th: float = 1.0, surrogate: str = "triangle",
    width: float = 1.0, detach_reset: bool = True,
) -> tuple[ndarray, ndarray]:
    """A layer of leaky integrate-and-fire neurons over all time steps, from rest (Eqs. 1-3).

    Parameters
    ----------
    current : (T, ...) array of floats
        Input currents; the potential of the first step is the first current.
    tau, v_th : float
        Leak factor in [0, 1] and firing threshold.
    surrogate, width
        The derivative of H used backward, see `surrogate_grad`.
    detach_reset : bool
        Treat the reset ``(1 - s)`` as a constant in the backward pass; otherwise full
        backpropagation through time.

    Returns
    -------
    spikes : (T, ...), 0 or 1.
    potentials : (T, ...), u before the reset. Both of the dtype of `current`.
        A NaN in the current does not fire; it stays in its neuron's potential from then on.

    Notes
    -----
    Assumption: the paper gives neither tau nor v_th. tau = 0.5 and v_th = 1 are the baseline's
    neuron in other units. Baseline: m += (x - m) / 2 with threshold 0.5, LIFNode in
    braincog/base/node/node.py; u = 2 m. Test: `test_eq03_golden_neuron_of_the_baseline`.
    Assumption: the reset is a constant in the backward pass, on which the paper is silent.
    Baseline: multiplies the potential by (1 - spike.detach()), LIFNode in
    braincog/base/node/node.py. Test: `test_eq03_golden_gradient_through_the_reset`.
    """
    if np.ndim(current) < 1 or len(current) < 1 or current.dtype.kind != "f":
        raise ValueError(
            "expected currents (T, ...) as floats with T >= 1 time steps, "
            f"got {current.dtype} of shape {np.shape(current)}"
        )
    _check_neuron(tau, v_th)
    u = _potentials(current, tau, v_th, surrogate, width, detach_reset)
    return spike(u - v_th, surrogate, width), u


@primitive
def _potentials(current, tau, v_th, surrogate, width, detach_reset):
    """Step the neurons through time: u[t] of Eq. (3) for t = 0 ... T - 1."""
    potentials = np.empty_like(current)
    u = s = 0.0
    for t in range(len(current)):
        u = lif_step(u, s, current[t], tau)
        s = spike(u - v_th)
        potentials[t] = u
    return potentials


def _potentials_vjp(potentials, current, tau, v_th, surrogate, width, detach_reset):
    """Backpropagation through time: dL/dI[t] for t = T - 1 ... 0, given g[t] = dL/du[t]."""
    def vjp(g):
        grad_current = np.empty_like(g)
        grad_u = 0.0                                           # of u[t + 1]
        for t in reversed(range(len(g))):
            leak = tau * reset_grad(potentials[t], v_th, surrogate, width, detach_reset)
            grad_u = g[t] + leak * grad_u
            grad_current[t] = grad_u
        return grad_current

    return vjp


defvjp(_potentials, _potentials_vjp, argnums=(0,))


def reset_grad(
    u: ndarray, v_th: float = 1.0, surrogate: str = "triangle", width: float = 1.0,
    detach_reset: bool = True,
) -> ndarray:
    """Derivative of what the reset leaves, ``u (1 - s)``, with respect to u.

    Parameters
    ----------
    u : array of floats
        Potentials before the reset.
    v_th, surrogate, width, detach_reset
        As for `lif`.

    Returns
    -------
    slope : same shape and dtype; ``1 - s``, less ``u`` times the surrogate if not detached.
    """
    v = u - v_th
    kept = 1 - spike(v)
    if detach_reset:
        return kept
    return kept - u * surrogate_grad(v, surrogate, width)


def reset(potentials: ndarray, v_th: float = 1.0) -> ndarray:
    """Potentials after the reset, ``u (1 - s)``, the features that Eq. (5) compares.

    Assumption: the paper leaves open which potentials it compares; those after the reset are,
    and s is treated as a constant in the backward pass. Baseline: alike, feature[-2].node.mem in
    the forward of Transfer_VGG_SNN, braincog/model_zoo/vgg_snn.py.
    Test: `test_eq03_reset_potentials_stay_at_or_below_the_threshold`.

    Parameters
    ----------
    potentials : (T, ...) array of floats
        As returned by `lif`.
    v_th : float
        The threshold given to `lif`.

    Returns
    -------
    kept : same shape and dtype, <= v_th.
    """
    return potentials * (potentials <= v_th)
