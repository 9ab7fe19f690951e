"""Average pooling, the rectifier and the affine map as differentiable primitives."""

import functools

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive
from numpy import ndarray


def avg_pool(x: ndarray, size: int) -> ndarray:
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
        raise ValueError(
            "expected images (..., H, W, C) of at least size x size pixels, "
            f"got shape {np.shape(x)} and size {size!r}"
        )
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


def unpool(g: ndarray, shape: tuple[int, ...], size: int) -> ndarray:
    """Backward pass of `avg_pool`: every pixel of a window gets an equal share of its gradient.

    Parameters
    ----------
    g : (..., h, w, C) array of floats
        Gradient of the output.
    shape : tuple
        Shape of the input, (..., H, W, C).
    size : int

    Returns
    -------
    gradient of the input, of that shape.
    """
    if size == 1:
        return g
    H = shape[-3]
    full = np.zeros(shape, g.dtype)
    rows = np.repeat(g * g.dtype.type(1 / size**2), size, axis=-2)  # (..., h, w size, C)
    for i in range(size):
        full[..., i:H // size * size:size, :rows.shape[-2], :] = rows
    return full


defvjp(_avg_pool, lambda y, x, size: lambda g: unpool(g, x.shape, size), argnums=(0,))


@primitive
def relu(x: ndarray) -> ndarray:
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


def linear(x: ndarray, w: ndarray, b: ndarray) -> ndarray:
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
    fits = np.ndim(x) > 0 and np.ndim(w) == 2 and x.shape[-1] == w.shape[0]
    if not fits or np.shape(b) != w.shape[1:]:
        raise ValueError(
            "expected x (..., D), w (D, K) and b (K,), "
            f"got shapes {np.shape(x)}, {np.shape(w)} and {np.shape(b)}"
        )
    rows = anp.reshape(x, (-1, w.shape[0]))
    return anp.reshape(anp.dot(rows, w), x.shape[:-1] + (w.shape[1],)) + b
