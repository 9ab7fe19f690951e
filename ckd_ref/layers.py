"""The layers of the networks as differentiable primitives, with their vector-Jacobian products by hand.

Plain autograd through slices and loops takes tens of times as long as the forward pass. Images are channel
last, (..., H, W, C); leading axes, such as time and batch, are all treated alike unless a function says so.
"""

import math

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval
from numpy.lib.stride_tricks import as_strided

BLOCK_BYTES = 1 << 20
"""Patches gathered at a time for one matrix product: few enough to stay in the cache."""


def conv2d(x, w, stride=1):
    """Cross-correlation with zero padding k // 2 and no bias; at stride 1 the image keeps its size.

    Parameters
    ----------
    x : (..., H, W, C) array of floats
    w : (k, k, C, K) array of floats, k odd
    stride : int >= 1

    Returns
    -------
    y : (..., ceil(H / stride), ceil(W / stride), K)
    """
    if np.ndim(w) != 4 or w.shape[0] != w.shape[1] or w.shape[0] % 2 == 0:
        raise ValueError(f"expected weights (k, k, C, K) with odd k, got shape {np.shape(w)}")
    if np.ndim(x) < 3 or x.shape[-1] != w.shape[2]:
        raise ValueError(f"expected images (..., H, W, {w.shape[2]}) for weights {w.shape}, got shape {np.shape(x)}")
    if int(stride) != stride or stride < 1:
        raise ValueError(f"expected a whole stride >= 1, got {stride!r}")
    return _conv2d(x, w, int(stride))


@primitive
def _conv2d(x, w, stride):
    k, K = w.shape[0], w.shape[3]
    x, lead = _merge(x)                                                     # (N, H, W, C)
    N, H, W, C = x.shape
    y = np.empty((N, -(-H // stride), -(-W // stride), K), np.result_type(x, w))
    for block in _blocks(x, k, stride):
        np.matmul(_patches(x[block], k, stride), w.reshape(-1, K), out=y[block].reshape(-1, K))
    return y.reshape(lead + y.shape[1:])


def _conv2d_vjp_x(y, x, w, stride):
    def vjp(g):
        if stride > 1:                                                      # the outputs that were left out
            spread = np.zeros(x.shape[:-1] + g.shape[-1:], g.dtype)
            spread[..., ::stride, ::stride, :] = g
            g = spread
        return _conv2d(g, np.swapaxes(w[::-1, ::-1], 2, 3), 1)

    return vjp


def _conv2d_vjp_w(y, x, w, stride):
    def vjp(g):
        k, K = w.shape[0], w.shape[3]
        images, _ = _merge(x)
        g, _ = _merge(g)
        total = np.zeros((w[..., 0].size, K), g.dtype)
        for block in _blocks(images, k, stride):
            total += _patches(images[block], k, stride).T @ g[block].reshape(-1, K)
        return total.reshape(w.shape)

    return vjp


defvjp(_conv2d, _conv2d_vjp_x, _conv2d_vjp_w, argnums=(0, 1))


def _merge(x):
    """All leading axes of (..., H, W, C) as one, and their lengths."""
    return x.reshape((-1,) + x.shape[-3:]), x.shape[:-3]


def _blocks(x, k, stride):
    """Slices of images whose patches fill about BLOCK_BYTES."""
    step = max(1, BLOCK_BYTES * stride**2 // (x[:1].nbytes * k * k))
    return [slice(i, i + step) for i in range(0, len(x), step)]


def _patches(x, k, stride):
    """The k x k neighbourhood of every output pixel as one row of a matrix, (n Ho Wo, k k C)."""
    n, H, W, C = x.shape
    p = k // 2
    padded = np.zeros((n, H + 2 * p, W + 2 * p, C), x.dtype)
    padded[:, p:p + H, p:p + W] = x
    Ho, Wo = -(-H // stride), -(-W // stride)
    sn, sh, sw, sc = padded.strides
    # One row of a neighbourhood is contiguous: k pixels of C channels.
    view = as_strided(padded, (n, Ho, Wo, k, k * C), (sn, sh * stride, sw * stride, sh, sc), writeable=False)
    return view.reshape(n * Ho * Wo, k * k * C)


def batch_norm(x, scale, shift, running, training=True, per_step=False, momentum=0.1, eps=1e-5):
    """Batch normalisation (Ioffe & Szegedy, 2015) per channel: ``scale (x - mean) / sqrt(var + eps) + shift``.

    Deviation: in training, the statistics are taken over time and batch together. ``per_step=True`` takes them
    for every time step by itself, as the baseline does, and updates the running statistics once per step.

    Means and variances are accumulated in float64 whatever the dtype: a small error in them moves potentials
    across the threshold.

    Parameters
    ----------
    x : (..., H, W, C) array of floats; (T, ..., H, W, C) with `per_step`
    scale, shift : (C,) arrays
    running : (mean, var), two (C,) arrays
        Statistics for evaluation.
    training : bool
        Normalise by the statistics of x and bring the running ones up to date; otherwise use the running ones.
    per_step : bool
    momentum : float
        Weight of the new statistics in the running ones.
    eps : float

    Returns
    -------
    y : the shape and dtype of x.
    running : (mean, var), updated if training; the variance unbiased.

    Raises
    ------
    ValueError
        In training, fewer than two images per statistic.
    """
    if np.ndim(x) < 4 or np.shape(x)[-1] != len(scale):
        raise ValueError(f"expected images (N, ..., H, W, {len(scale)}) to normalise, got shape {np.shape(x)}")
    if not training:
        mean, var = (np.asarray(r)[None, None] for r in running)
        return _normalise(x, scale, shift, mean, 1 / np.sqrt(var + eps), False), running
    images = math.prod(x.shape[1 if per_step else 0:-3])
    if images < 2:
        raise ValueError(f"expected at least 2 images to take the statistics of, got {images}; "
                         "a batch of one cannot be normalised: use larger batches, or training=False")
    groups = _groups(getval(x), len(x) if per_step else 1)                 # (G, n, C)
    n = groups.shape[1]
    mean = _channel_sums(groups) / n                                       # (G, 1, C) float64
    var = _channel_sums((groups - mean.astype(groups.dtype)) ** 2) / n
    for m, v in zip(mean[:, 0], var[:, 0]):
        new = m, v * (n / (n - 1))
        running = tuple(((1 - momentum) * r + momentum * s).astype(r.dtype) for r, s in zip(running, new))
    return _normalise(x, scale, shift, mean, 1 / np.sqrt(var + eps), True), running


@primitive
def _normalise(x, scale, shift, mean, inv_std, training):
    groups = _groups(x, len(mean))
    y = groups - mean.astype(x.dtype)
    y *= (scale * inv_std).astype(x.dtype)
    y += shift
    return y.reshape(x.shape)


def _normalise_vjp_x(y, x, scale, shift, mean, inv_std, training):
    def vjp(g):
        g = _groups(g, len(mean))
        slope = (scale * inv_std).astype(g.dtype)
        if not training:
            return (g * slope).reshape(x.shape)
        # The statistics depend on x too: the gradient loses its mean and its component along x.
        n = g.shape[1]
        centred = _groups(x, len(mean)) - mean.astype(x.dtype)
        along = (_channel_sums(g * centred) * inv_std**2 / n).astype(g.dtype)
        centred *= along
        np.subtract(g, centred, out=centred)
        centred -= (_channel_sums(g) / n).astype(g.dtype)
        centred *= slope
        return centred.reshape(x.shape)

    return vjp


def _normalise_vjp_scale(y, x, scale, shift, mean, inv_std, training):
    def vjp(g):
        centred = _groups(x, len(mean)) - mean.astype(x.dtype)
        return (_channel_sums(_groups(g, len(mean)) * centred) * inv_std).sum((0, 1)).astype(g.dtype)

    return vjp


def _normalise_vjp_shift(y, x, scale, shift, mean, inv_std, training):
    return lambda g: _channel_sums(_groups(g, 1))[0, 0].astype(g.dtype)


defvjp(_normalise, _normalise_vjp_x, _normalise_vjp_scale, _normalise_vjp_shift, argnums=(0, 1, 2))


def _groups(x, G):
    """(G, n, C): the values that share their statistics, per channel."""
    return x.reshape(G, -1, x.shape[-1])


def _channel_sums(x):
    """(G, n, C) -> (G, 1, C), accumulated in float64; long rows add up faster than many short ones."""
    G, n, C = x.shape
    fold = math.gcd(n, 64)
    rows = x.reshape(G, n // fold, fold * C).sum(axis=1, dtype=np.float64)
    return rows.reshape(G, fold, C).sum(axis=1, keepdims=True)


def avg_pool(x, size):
    """Mean of every size x size window; rows and columns that fill no window are left out.

    Parameters
    ----------
    x : (..., H, W, C) array of floats
    size : int in 1 ... min(H, W)

    Returns
    -------
    y : (..., H // size, W // size, C)
    """
    if np.ndim(x) < 3 or int(size) != size or not 1 <= size <= min(x.shape[-3:-1]):
        raise ValueError(f"expected images (..., H, W, C) of at least size x size pixels, got shape {np.shape(x)} "
                         f"and size {size!r}")
    return _avg_pool(x, int(size))


@primitive
def _avg_pool(x, size):
    return sum(_windows(x, size)) * (1 / size**2)


def _avg_pool_vjp(y, x, size):
    def vjp(g):
        full = np.zeros(x.shape, g.dtype)
        for window in _windows(full, size):
            window[...] = g * (1 / size**2)
        return full

    return vjp


defvjp(_avg_pool, _avg_pool_vjp, argnums=(0,))


def _windows(x, size):
    """Views of the first, second, ... pixel of every window."""
    H, W = (n // size * size for n in x.shape[-3:-1])
    return [x[..., i:H:size, j:W:size, :] for i in range(size) for j in range(size)]


@primitive
def relu(x):
    """The rectifier of the teacher, ``max(x, 0)``.

    Parameters
    ----------
    x : array of floats

    Returns
    -------
    y : same shape and dtype.
    """
    return x * (x > 0)


defvjp(relu, lambda y, x: lambda g: g * (x > 0))


def linear(x, w, b):
    """Affine map of the last axis, ``x w + b``.

    Parameters
    ----------
    x : (..., D) array of floats
    w : (D, K) array of floats
    b : (K,) array of floats

    Returns
    -------
    y : (..., K)
    """
    if np.ndim(x) < 1 or np.ndim(w) != 2 or x.shape[-1] != w.shape[0] or np.shape(b) != w.shape[1:]:
        raise ValueError("expected x (..., D), w (D, K) and b (K,), "
                         f"got shapes {np.shape(x)}, {np.shape(w)} and {np.shape(b)}")
    rows = np.reshape(x, (-1, w.shape[0]))
    return np.reshape(np.dot(rows, w), x.shape[:-1] + (w.shape[1],)) + b
