"""Batch norm, neurons and pooling fused: one pass over the memory instead of some thirty.

A block of samples is normalised, stepped through time and pooled while it is in the cache.
Nothing is kept for the backward pass: to compute potentials once more is faster than to fetch
them, and takes no memory.
"""

import autograd.builtins  # noqa: F401 (lets a primitive return a tuple)
import numpy as np
from autograd.extend import defvjp_argnums, primitive
from numpy import ndarray

from ..neuron import Neuron, lif_step, reset, reset_grad, spike, surrogate_grad
from .blocks import sample_blocks
from .conv import conv2d
from .layers import avg_pool, unpool
from .norm import norm_vjp, normalisation, per_row, pixel_sums


def fused_layer(
    x: ndarray, w: ndarray, scale: ndarray, shift: ndarray, running: tuple | None, per_step: bool,
    neuron: Neuron, pool: int, features: bool,
) -> tuple[ndarray, ndarray | None, tuple | None]:
    """The fast twin of `models.layer`: same arguments, same results."""
    y = conv2d(x, w)                                           # (T, B, H, W, C)
    mean, inv_std, n, statistics = normalisation(y, scale, running, per_step)
    out = norm_lif_pool(y, scale, shift, mean, inv_std, n, neuron, pool, features)
    pooled, kept = out if features else (out, None)
    return pooled, kept, statistics


def fused_preactivation(
    x: ndarray, w: ndarray, scale: ndarray, shift: ndarray, running: tuple | None, per_step: bool,
    neuron: Neuron, stride: int,
) -> tuple[ndarray, tuple | None]:
    """The fast twin of `models.preactivation`: same arguments, same results."""
    mean, inv_std, n, statistics = normalisation(x, scale, running, per_step)
    spikes = norm_lif_pool(x, scale, shift, mean, inv_std, n, neuron, 1, False)
    return conv2d(spikes, w, stride), statistics               # (T, B, H, W, K)


@primitive
def norm_lif_pool(
    x: ndarray, scale: ndarray, shift: ndarray, mean: ndarray, inv_std: ndarray, n: int,
    neuron: Neuron, pool: int, features: bool,
) -> ndarray | tuple[ndarray, ndarray]:
    """``avg_pool(lif(normalised x), pool)`` block by block.

    Parameters
    ----------
    x : (T, B, H, W, C) array of floats
    scale, shift : (C,) arrays
    mean, inv_std, n
        See `norm.normalisation`.
    neuron : Neuron
    pool : int
    features : bool

    Returns
    -------
    pooled : (T, B, H // pool, W // pool, C), and where `features` is true a second array: the
        potentials after the reset, (T, B, H, W, C).
    """
    T, B, H, W, C = x.shape
    pooled = np.empty((T, B, H // pool, W // pool, C), x.dtype)
    kept = np.empty_like(x) if features else None
    slope = per_row(scale * inv_std, x)
    offset = per_row(shift - scale * inv_std * mean, x)
    for block in sample_blocks(x):
        for t, (u, s) in enumerate(_potentials(x[:, block], slope, offset, neuron)):
            pooled[t, block] = avg_pool(s, pool) if pool > 1 else s
            if features:
                kept[t, block] = reset(u, neuron.v_th)
    return (pooled, kept) if features else pooled


def _potentials(x, slope, offset, neuron):
    """Yield (u[t], s[t]) of Eq. (3) for the currents ``slope x + offset`` of a block."""
    u = s = 0.0
    for t, images in enumerate(x):
        current = images.reshape(len(images), -1) * slope[t % len(slope)]
        current += offset[t % len(offset)]
        u = lif_step(u, s, current.reshape(images.shape), neuron.tau)
        s = spike(u - neuron.v_th)
        yield u, s


def _norm_lif_pool_vjp(argnums, out, args, _):
    x, scale, shift, mean, inv_std, n, neuron, pool, features = args
    rule = {"surrogate": neuron.surrogate, "width": neuron.width}

    def vjp(g):
        g_pooled, g_kept = g if features else (g, None)
        dx = np.empty(x.shape, g_pooled.dtype)
        slope = per_row(scale * inv_std, x)
        offset = per_row(shift - scale * inv_std * mean, x)
        sum_g = sum_gx = 0.0
        for block in sample_blocks(x):
            steps = list(_potentials(x[:, block], slope, offset, neuron))
            grad_u = 0.0                                       # of u[t + 1]
            for t in reversed(range(len(x))):
                u, _ = steps.pop()
                through_spike = surrogate_grad(u - neuron.v_th, **rule)
                through_spike *= unpool(g_pooled[t, block], u.shape, pool)
                if features:
                    through_spike += g_kept[t, block] * (u <= neuron.v_th)
                leak = reset_grad(u, neuron.v_th, **rule, detach_reset=neuron.detach_reset)
                grad_u = through_spike + neuron.tau * leak * grad_u
                dx[t, block] = grad_u
            sum_g = sum_g + pixel_sums(dx[:, block]).sum(axis=1)
            sum_gx = sum_gx + pixel_sums(dx[:, block], x[:, block]).sum(axis=1)
        dscale, dshift = norm_vjp(dx, x, scale, mean, inv_std, n, sum_g, sum_gx)
        return [(dx, dscale, dshift)[number] for number in argnums]

    return vjp


defvjp_argnums(norm_lif_pool, _norm_lif_pool_vjp)
