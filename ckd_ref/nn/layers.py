"""The layers of the networks as differentiable primitives, with their vector-Jacobian products by hand.

Plain autograd through slices and loops takes tens of times as long as the forward pass. Images are channel last,
(..., H, W, C). Large arrays are walked through block by block: what one operation writes, the next finds in the cache.
"""

import functools
import math

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, defvjp_argnums, primitive
from autograd.tracer import getval

from .winograd import Winograd, step_for

BLOCK_BYTES = 1 << 20
"""The largest array within a block, about: half the cache of a core."""

WINOGRAD_PRODUCTS = 512
"""From so many pairs of channels on the multiplications saved outweigh the transforms."""


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
    H, W = (-(-side // stride) for side in x.shape[-3:-1])
    y = np.empty(x.shape[:-3] + (H, W, w.shape[3]), np.result_type(x, w))
    products, images, outputs = _products(x, w, stride), _images(x), _images(y)
    for block in _blocks(len(images), products.images_at_once(H, W)):
        products.forward(images[block], outputs[block])
    return y


def _conv2d_vjp(argnums, y, args, _):
    x, w, stride = args

    def vjp(g):
        if stride > 1:                                                      # the outputs that were left out
            spread = np.zeros(x.shape[:-1] + g.shape[-1:], g.dtype)
            spread[..., ::stride, ::stride, :] = g
            g = spread
        products, images, grads = _products(x, w, stride), _images(x), _images(g)
        gx = np.empty(images.shape, g.dtype) if 0 in argnums else None
        total = 0
        for block in _blocks(len(images), products.images_at_once(*x.shape[-3:-1])):
            total += products.backward(images[block], grads[block], None if gx is None else gx[block])
        return [(None if gx is None else gx.reshape(x.shape), products.filter_gradient(total))[n] for n in argnums]

    return vjp


defvjp_argnums(_conv2d, _conv2d_vjp)


def _products(x, w, stride):
    m = step_for(*x.shape[-3:-1])
    if m and stride == 1 and w.shape[:2] == (3, 3) and w[0, 0].size >= WINOGRAD_PRODUCTS:
        return Winograd(w, m)
    return Patches(w, stride)


class Patches:
    """Products of images (n, H, W, C) with one filter (k, k, C, K): one matrix product for a block of images."""

    def __init__(self, w, stride):
        self.w, self.stride = w, stride

    def images_at_once(self, H, W):
        return BLOCK_BYTES // (H * W * max(self.w[..., 0].nbytes, self.w[..., 0, :].nbytes))

    def forward(self, x, out):
        k, _, _, K = self.w.shape
        np.matmul(_patches(x, k, self.stride), self.w.reshape(-1, K), out=out.reshape(-1, K))

    def backward(self, x, g, out):
        """The filter's part of the gradient, and in `out` that of the images; both from the patches of g."""
        k, _, C, _ = self.w.shape
        patches = _patches(g, k, 1)                                         # (n H W, k k K)
        if out is not None:
            np.matmul(patches, np.swapaxes(self.w[::-1, ::-1], 2, 3).reshape(-1, C), out=out.reshape(-1, C))
        return x.reshape(-1, C).T @ patches                                 # (C, k k K)

    def filter_gradient(self, total):
        k, _, C, K = self.w.shape
        return np.moveaxis(total.reshape(C, k, k, K)[:, ::-1, ::-1], 0, 2)


def _patches(x, k, stride):
    """The k x k neighbourhood of every output pixel as one row of a matrix, (n Ho Wo, k k C)."""
    n, H, W, C = x.shape
    p = k // 2
    padded = np.zeros((n, H + 2 * p, W + 2 * p, C), x.dtype)
    padded[:, p:p + H, p:p + W] = x
    Ho, Wo = -(-H // stride), -(-W // stride)
    sn, sh, sw, sc = padded.strides
    # One row of a neighbourhood is contiguous: k pixels of C channels.
    view = np.ndarray((n, Ho, Wo, k, k * C), x.dtype, padded, 0, (sn, sh * stride, sw * stride, sh, sc))
    return view.reshape(n * Ho * Wo, k * k * C)


def _images(x):
    """All leading axes of (..., H, W, C) as one."""
    return x.reshape((-1,) + x.shape[-3:])


def _blocks(n, step):
    """Slices of up to `step` of n things, at least one."""
    step = max(1, step)
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


class Identity:
    """Nothing follows; see `spiking.Neurons`."""

    def shape(self, H, W, C):
        return H, W, C

    def forward(self, x, out):
        for t, images in enumerate(x):
            out[t] = images

    def backward(self, x, g):
        return reversed(g)


def batch_norm(x, scale, shift, running=None, per_step=False, then=Identity(), eps=1e-5):
    """Batch normalisation (Ioffe & Szegedy, 2015) per channel: ``scale (x - mean) / sqrt(var + eps) + shift``.

    Deviation: in training, the statistics are taken over time and batch together. ``per_step=True`` takes them
    for every time step by itself, as the baseline does, and updates the running statistics once per step.

    Means and variances are accumulated in float64 whatever the dtype: a small error in them moves potentials
    across the threshold.

    Parameters
    ----------
    x : (T, B, H, W, C) or (B, H, W, C) array of floats
    scale, shift : (C,) arrays
    running : (mean, var), two (C,) arrays, optional
        Statistics to normalise by in evaluation. Without them those of x are taken, as in training.
    per_step : bool
    then : object, optional
        What follows at once, while the values are in the cache; has the methods of `spiking.Neurons`.
    eps : float

    Returns
    -------
    y : the shape and dtype of x, or what `then` makes of it.
    statistics : (mean, var), two (T or 1, C) float64 arrays, the variance unbiased; see `update_running`.
        None if `running` was given.

    Raises
    ------
    ValueError
        In training, fewer than two images per statistic.
    """
    if np.ndim(x) not in (4, 5) or np.shape(x)[-1] != len(scale):
        raise ValueError(f"expected images (T, B, H, W, {len(scale)}) or (B, H, W, {len(scale)}) to normalise, "
                         f"got shape {np.shape(x)}")
    if running is not None:
        mean, var = (np.asarray(r, np.float64)[None] for r in running)
        return _normalise(x, scale, shift, mean, 1 / np.sqrt(var + eps), 0, then), None
    images = math.prod(x.shape[1 if per_step else 0:-3])
    if images < 2:
        raise ValueError(f"expected at least 2 images to take the statistics of, got {images}; "
                         "a batch of one cannot be normalised: use larger batches, or evaluate")
    means, variances = (m.reshape(-1, images, len(scale)) for m in _moments(_over_time(getval(x))))
    mean, var = means.mean(1), variances.mean(1) + means.var(1)             # (T or 1, C)
    n = images * math.prod(x.shape[-3:-1])
    return _normalise(x, scale, shift, mean, 1 / np.sqrt(var + eps), n, then), (mean, var * (n / (n - 1)))


def update_running(running, statistics, momentum=0.1):
    """The running (mean, var), two (C,) arrays, after the statistics of a batch, which get the weight `momentum`."""
    for new in zip(*statistics):
        running = tuple(((1 - momentum) * r + momentum * s).astype(r.dtype) for r, s in zip(running, new))
    return running


@primitive
def _normalise(x, scale, shift, mean, inv_std, n, then):
    images = _over_time(x)
    slope, offset = _lines(images, scale * inv_std, shift - scale * inv_std * mean)
    y = np.empty(images.shape[:2] + then.shape(*x.shape[-3:]), x.dtype)
    for block in _blocks_of_samples(images):
        then.forward(_affine(images[:, block], slope, offset), y[:, block])
    return y.reshape(x.shape[:-3] + y.shape[2:])


def _normalise_vjp(argnums, y, args, _):
    x, scale, shift, mean, inv_std, n, then = args

    def vjp(g):
        images, gx = _over_time(x), np.empty(_over_time(x).shape, g.dtype)
        g = g.reshape(images.shape[:2] + g.shape[-3:])
        slope, offset = _lines(images, scale * inv_std, shift - scale * inv_std * mean)
        sums = np.zeros((len(images), 2, len(scale)))
        for block in _blocks_of_samples(images):
            back = then.backward(_affine(images[:, block], slope, offset), g[:, block])
            for t, current in zip(reversed(range(len(images))), back):
                gx[t, block] = current
            sums[:, 0] += _pixel_sums(gx[:, block]).sum(1)
            sums[:, 1] += _pixel_sums(gx[:, block], images[:, block]).sum(1)
        along_1, along_x = np.moveaxis(sums if len(mean) > 1 else sums.sum(0, keepdims=True), 1, 0)
        along_x = (along_x - mean * along_1) * inv_std
        if n:                  # the statistics depend on x too: the gradient loses its mean and its part along x
            bend = scale * inv_std**2 * along_x / n
            bend, lift = _lines(images, bend, bend * mean - scale * inv_std * along_1 / n)
        for block in _blocks_of_samples(images):
            view = gx[:, block].reshape(len(gx), -1, slope.shape[-1])
            view *= slope
            if n:
                view += lift
                view -= images[:, block].reshape(view.shape) * bend
        grads = gx.reshape(x.shape), along_x.sum(0).astype(scale.dtype), along_1.sum(0).astype(shift.dtype)
        return [grads[number] for number in argnums]

    return vjp


defvjp_argnums(_normalise, _normalise_vjp)


def _over_time(x):
    """(T, n, H, W, C), T = 1 if there is no time."""
    return x.reshape((-1,) + x.shape[-4:])


def _blocks_of_samples(images):
    return _blocks(images.shape[1], BLOCK_BYTES // images[:, :1].nbytes)


def _lines(images, *lines):
    """Values per channel, (T or 1, C), written out for whole images: long rows are faster."""
    pixels = math.prod(images.shape[2:4])
    return [np.tile(line.astype(images.dtype), (1, pixels))[:, None] for line in lines]      # (T or 1, 1, H W C)


def _affine(images, slope, offset):
    """Yield ``slope x + offset`` for each of T."""
    for t, x in enumerate(images):
        y = x.reshape(len(x), -1) * slope[t % len(slope)]
        y += offset[t % len(slope)]
        yield y.reshape(x.shape)


def _moments(images):
    """Mean and variance of every image and channel of (T, n, H, W, C), float64: two arrays (T, n, C)."""
    T, n, H, W, C = images.shape
    means, variances = np.empty((T, n, C)), np.empty((T, n, C))
    for block in _blocks_of_samples(images):
        mean = _pixel_sums(images[:, block]) / (H * W)
        rows = _rows(images[:, block])
        centred = rows - np.tile(mean, rows.shape[-1] // C)[:, :, None].astype(rows.dtype)
        means[:, block] = mean
        variances[:, block] = _pixel_sums(*2 * [centred.reshape(T, -1, H, W, C)]) / (H * W)
    return means, variances


def _pixel_sums(x, y=None):
    """Sums of x, or of x y, over the pixels of (T, n, H, W, C), (T, n, C): few terms at a time, then in float64."""
    T, n, _, _, C = x.shape
    sums = _rows(x).sum(axis=2) if y is None else np.einsum("tnrc,tnrc->tnc", _rows(x), _rows(y))
    return sums.reshape(T, n, -1, C).sum(axis=2, dtype=np.float64)


def _rows(x):
    """Images (T, n, H, W, C) in rows of many pixels, over which NumPy is fastest: (T, n, rows, pixels C)."""
    T, n, H, W, C = x.shape
    return x.reshape(T, n, -1, math.gcd(H * W, 64) * C)


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
    H, W, C = x.shape[-3:]
    h, w = H // size, W // size
    rows = x[..., :h * size, :w * size, :].reshape(x.shape[:-3] + (h, size, w * size * C))
    columns = _add(rows, size).reshape(x.shape[:-3] + (h, w, size, C))
    return _add(columns, size) * x.dtype.type(1 / size**2)


def _add(x, size):
    """Sum over the last axis but one, which is short: `numpy.sum` would walk along it."""
    return functools.reduce(np.add, (x[..., i, :] for i in range(size)))


def avg_pool_vjp(y, x, size):
    """Every pixel of a window gets an equal share of its gradient."""
    def vjp(g):
        H, W, C = x.shape[-3:]
        full = np.zeros(x.shape, g.dtype)
        rows = np.repeat(g * g.dtype.type(1 / size**2), size, axis=-2)      # (..., h, w size, C)
        for i in range(size):
            full[..., i:H // size * size:size, :rows.shape[-2], :] = rows
        return full

    return vjp


defvjp(_avg_pool, avg_pool_vjp, argnums=(0,))


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
    rows = anp.reshape(x, (-1, w.shape[0]))
    return anp.reshape(anp.dot(rows, w), x.shape[:-1] + (w.shape[1],)) + b
