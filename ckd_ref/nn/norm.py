"""Batch normalisation over time, with its derivative by hand."""

import math

import numpy as np
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import getval
from numpy import ndarray

from .blocks import sample_blocks


def batch_norm(
    x: ndarray, scale: ndarray, shift: ndarray, running: tuple | None = None,
    per_step: bool = False, eps: float = 1e-5,
) -> tuple[ndarray, tuple | None]:
    """Batch normalisation (Ioffe & Szegedy, 2015) per channel.

    ``scale x_hat + shift`` with ``x_hat = (x - mean) / sqrt(var + eps)``.

    Deviation: in training, the statistics are taken over time and batch together.
    ``per_step=True`` takes them for every time step by itself and updates the running statistics
    once per step. Baseline: per step, since the forward of Transfer_VGG_SNN,
    braincog/model_zoo/vgg_snn.py, calls its layers once per step.
    Test: `test_per_step_statistics_are_those_of_each_step`.

    Means and variances are accumulated in float64 whatever the dtype: a small error in them moves
    potentials across the threshold.

    Parameters
    ----------
    x : (T, B, H, W, C) or (B, H, W, C) array of floats
    scale, shift : (C,) arrays
    running : (mean, var), two (C,) arrays, optional
        Statistics to normalise by in evaluation. Without them those of x are taken, as in
        training.
    per_step : bool
    eps : float

    Returns
    -------
    y : the shape and dtype of x.
    statistics : (mean, var), two (T or 1, C) float64 arrays, the variance unbiased; see
        `update_running`. None if `running` was given.

    Raises
    ------
    ValueError
        In training, fewer than two images per statistic.
    """
    mean, inv_std, n, statistics = normalisation(x, scale, running, per_step, eps)
    return _normalise(x, scale, shift, mean, inv_std, n), statistics


def normalisation(
    x: ndarray, scale: ndarray, running: tuple | None = None, per_step: bool = False,
    eps: float = 1e-5,
) -> tuple[ndarray, ndarray, int, tuple | None]:
    """What to normalise by; the arguments are those of `batch_norm`.

    Returns
    -------
    mean, inv_std : (T or 1, C) float64
    n : int
        How many numbers each mean is taken of; 0 if it does not depend on x.
    statistics : see `batch_norm`.
    """
    if np.ndim(x) not in (4, 5) or np.shape(x)[-1] != len(scale):
        raise ValueError(
            f"expected images (T, B, H, W, {len(scale)}) or (B, H, W, {len(scale)}) to normalise, "
            f"got shape {np.shape(x)}"
        )
    if running is not None:
        mean, var = (np.asarray(r, np.float64)[None] for r in running)
        return mean, 1 / np.sqrt(var + eps), 0, None
    images = math.prod(x.shape[1 if per_step else 0:-3])
    if images < 2:
        raise ValueError(
            f"expected at least 2 images to take the statistics of, got {images}; "
            "a batch of one cannot be normalised: use larger batches, or evaluate"
        )
    means, variances = _moments(over_time(getval(x)))          # (T, B, C)
    means = means.reshape(-1, images, len(scale))              # (T or 1, images, C)
    variances = variances.reshape(means.shape)
    mean = means.mean(axis=1)                                  # (T or 1, C)
    var = variances.mean(axis=1) + means.var(axis=1)
    n = images * math.prod(x.shape[-3:-1])
    return mean, 1 / np.sqrt(var + eps), n, (mean, var * (n / (n - 1)))


def update_running(
    running: tuple, statistics: tuple, momentum: float = 0.1
) -> tuple[ndarray, ndarray]:
    """The running (mean, var), two (C,) arrays, after a batch of weight `momentum`.

    Parameters
    ----------
    running : (mean, var), two (C,) arrays
    statistics : (mean, var), two (steps, C) arrays, as `batch_norm` returns them
        The steps are taken into account one after the other.
    momentum : float in [0, 1]

    Returns
    -------
    running : two (C,) arrays of the dtypes given.
    """
    mean, var = running
    for step_mean, step_var in zip(*statistics):
        mean = ((1 - momentum) * mean + momentum * step_mean).astype(mean.dtype)
        var = ((1 - momentum) * var + momentum * step_var).astype(var.dtype)
    return mean, var


@primitive
def _normalise(x, scale, shift, mean, inv_std, n):
    steps = over_time(x)
    y = as_rows(steps) * per_row(scale * inv_std, steps)
    y += per_row(shift - scale * inv_std * mean, steps)
    return y.reshape(x.shape)


def _normalise_vjp(argnums, y, args, _):
    x, scale, _, mean, inv_std, n = args

    def vjp(g):
        steps = over_time(x)
        dx = over_time(g).copy()
        sum_g, sum_gx = channel_sums(dx), channel_sums(dx, steps)      # (T, C)
        dscale, dshift = norm_vjp(dx, steps, scale, mean, inv_std, n, sum_g, sum_gx)
        return [(dx.reshape(x.shape), dscale, dshift)[number] for number in argnums]

    return vjp


defvjp_argnums(_normalise, _normalise_vjp)


def norm_vjp(
    dx: ndarray, x: ndarray, scale: ndarray, mean: ndarray, inv_std: ndarray, n: int,
    sum_g: ndarray, sum_gx: ndarray,
) -> tuple[ndarray, ndarray]:
    """Backward pass of batch normalisation, as Ioffe & Szegedy (2015) derive it.

    ``dshift = sum g``, ``dscale = sum g x_hat`` and, where mean and variance depend on x,
    ``dx = scale inv_std (g - dshift / n - x_hat dscale / n)``.

    Parameters
    ----------
    dx : (T, B, H, W, C) array
        The gradient g of the output; becomes that of x in place.
    x : (T, B, H, W, C) array
    scale : (C,) array
    mean, inv_std, n
        See `normalisation`.
    sum_g, sum_gx : (T, C) float64
        Sums of g and of g x, see `channel_sums`.

    Returns
    -------
    dscale, dshift : (C,) arrays in the dtype of `scale`.
    """
    if len(mean) == 1:                                         # one mean for all steps
        sum_g = sum_g.sum(axis=0, keepdims=True)
        sum_gx = sum_gx.sum(axis=0, keepdims=True)
    dshift = sum_g                                             # (T or 1, C)
    dscale = (sum_gx - mean * sum_g) * inv_std
    for block in sample_blocks(x):
        rows = as_rows(dx[:, block])
        rows *= per_row(scale * inv_std, x)
        if n:                              # x_hat dscale / n as a multiple of x and a constant
            of_x = scale * inv_std**2 * dscale / n
            rows += per_row(of_x * mean - scale * inv_std * dshift / n, x)
            rows -= as_rows(x[:, block]) * per_row(of_x, x)
    return dscale.sum(axis=0).astype(scale.dtype), dshift.sum(axis=0).astype(scale.dtype)


def over_time(x: ndarray) -> ndarray:
    """(T, B, H, W, C), with T = 1 if there is no time."""
    return x.reshape((-1,) + x.shape[-4:])


def as_rows(steps: ndarray) -> ndarray:
    """View of images (T, B, H, W, C) as rows, over which NumPy is fastest: (T, B, H W C)."""
    return steps.reshape(steps.shape[:2] + (-1,))


def per_row(values: ndarray, steps: ndarray) -> ndarray:
    """Values per channel, (T or 1, C), repeated for every pixel: (T or 1, 1, H W C)."""
    pixels = math.prod(steps.shape[2:4])
    return np.tile(values.astype(steps.dtype), (1, pixels))[:, None]


def channel_sums(x: ndarray, y: ndarray | None = None) -> ndarray:
    """Sums of x, or of x y, over the samples and pixels of (T, B, H, W, C): (T, C) float64."""
    total = np.zeros((len(x), x.shape[-1]))
    for block in sample_blocks(x):
        total += pixel_sums(x[:, block], None if y is None else y[:, block]).sum(axis=1)
    return total


def pixel_sums(x: ndarray, y: ndarray | None = None) -> ndarray:
    """Sums of x, or of x y, over the pixels of (T, B, H, W, C): (T, B, C) float64.

    Few terms at a time in the dtype of x, then in float64.
    """
    T, B, H, W, C = x.shape
    long = T, B, -1, math.gcd(H * W, 64) * C                   # rows of up to 64 pixels
    if y is None:
        sums = x.reshape(long).sum(axis=2)
    else:
        sums = np.einsum("tbrc,tbrc->tbc", x.reshape(long), y.reshape(long))
    return sums.reshape(T, B, -1, C).sum(axis=2, dtype=np.float64)


def _moments(steps):
    """Mean and variance of every image and channel of (T, B, H, W, C): two (T, B, C) float64."""
    T, B, H, W, C = steps.shape
    long = math.gcd(H * W, 64)                                 # pixels per row
    means, variances = np.empty((T, B, C)), np.empty((T, B, C))
    for block in sample_blocks(steps):
        images = steps[:, block]
        mean = pixel_sums(images) / (H * W)
        rows = images.reshape(T, -1, H * W // long, long * C)
        centred = rows - np.tile(mean, long)[:, :, None].astype(rows.dtype)
        centred = centred.reshape(images.shape)
        means[:, block] = mean
        variances[:, block] = pixel_sums(centred, centred) / (H * W)
    return means, variances
