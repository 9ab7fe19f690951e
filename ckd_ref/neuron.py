"""The leaky integrate-and-fire neuron and its surrogate gradients (Eqs. 1-3)."""

import numpy as np
from autograd.extend import defvjp, primitive
from scipy.special import expit

SURROGATES = {
    "triangle": lambda v, a: np.maximum(a - np.abs(v), 0) * a**-2,
    "atan": lambda v, a: 1 / (a * (1 + (np.pi / a * v) ** 2)),
    "sigmoid": lambda v, a: expit(v / a) * expit(-v / a) / a,
    "rectangle": lambda v, a: (np.abs(v) < a / 2).astype(v.dtype) / a,
    "fast_sigmoid": lambda v, a: 1 / (2 * a * (1 + np.abs(v) / a) ** 2),
}
"""Stand-ins for H': functions of v = u - v_th and the width a, each with integral 1 over v."""


def surrogate_grad(v, surrogate="triangle", width=1.0):
    """The derivative that the backward pass uses in place of that of H, which is 0 almost everywhere.

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
    if surrogate not in SURROGATES:
        raise ValueError(f"expected surrogate to be one of {', '.join(SURROGATES)}, got {surrogate!r}")
    if not width > 0:
        raise ValueError(f"expected a surrogate width > 0, got {width!r}")
    return SURROGATES[surrogate](np.asarray(v), width)


@primitive
def spike(v, surrogate="triangle", width=1.0):
    """Eq. (2): ``s = H(v)`` with ``v = u - v_th``; a neuron fires strictly above its threshold, H(0) = 0.

    Parameters
    ----------
    v : array of floats
    surrogate, width
        The derivative used backward, see `surrogate_grad`.

    Returns
    -------
    s : same shape and dtype, 0 or 1.
    """
    return (v > 0).astype(v.dtype)


defvjp(spike, lambda s, v, surrogate="triangle", width=1.0: lambda g: g * surrogate_grad(v, surrogate, width),
       argnums=(0,))


def lif_step(u, s, current, tau=0.5):
    """Eq. (3): ``u[t+1] = tau * u[t] * (1 - s[t]) + I[t+1]``, leak, hard reset to 0 and input current.

    Deviation: Eq. (1) of the paper leaks without a reset and takes the input of the step before; Eq. (3)
    has the reset and the present input, and is what the baseline computes.

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


def lif(current, tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True):
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
        Treat the reset ``(1 - s)`` as a constant in the backward pass; otherwise full backpropagation
        through time.

    Returns
    -------
    spikes : (T, ...), 0 or 1.
    potentials : (T, ...), u before the reset. Both of the dtype of `current`.

    Notes
    -----
    Assumption: the paper gives neither tau nor v_th. tau = 0.5 and v_th = 1 are the baseline's neuron
    (decay 1/2, threshold 1/2, input halved) in units in which the input is not halved.
    """
    if np.ndim(current) < 1 or len(current) < 1:
        raise ValueError(f"expected currents (T, ...) with T >= 1 time steps, got shape {np.shape(current)}")
    if not 0 <= tau <= 1:
        raise ValueError(f"expected a leak factor tau in [0, 1], got {tau!r}")
    u = _potentials(current, tau, v_th, surrogate, width, detach_reset)
    return spike(u - v_th, surrogate, width), u


@primitive
def _potentials(current, tau, v_th, surrogate, width, detach_reset):
    return np.stack([u for u, _ in walk(current, tau, v_th)])


def _potentials_vjp(u, current, tau, v_th, surrogate, width, detach_reset):
    def vjp(g):
        steps = [(ut, spike(ut - v_th)) for ut in u]
        return np.stack(list(walk_back(g, steps, tau, v_th, surrogate, width, detach_reset))[::-1])

    return vjp


defvjp(_potentials, _potentials_vjp, argnums=(0,))


def walk(currents, tau=0.5, v_th=1.0):
    """The neurons of `lif` through time: yield potentials and spikes of every step."""
    u = s = 0.0
    for current in currents:
        u = lif_step(u, s, current, tau)
        s = spike(u - v_th)
        yield u, s


def walk_back(g, steps, tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True):
    """Backpropagation through time: yield the gradients of the currents, the last first, given those of `steps`' u."""
    later = 0.0
    for gu, (u, s) in zip(reversed(g), reversed(steps)):
        kept = 1 - s                                           # d lif_step / d u, over tau
        if not detach_reset:
            kept = kept - u * surrogate_grad(u - v_th, surrogate, width)
        later = gu + tau * kept * later
        yield later


def reset(potentials, v_th=1.0):
    """Potentials after the reset, ``u (1 - s)``, the features that Eq. (5) compares; s is a constant backward.

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
