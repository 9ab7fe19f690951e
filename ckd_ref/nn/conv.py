"""Convolution as one matrix product for a block of images (im2col), with its derivative by hand.

Plain autograd through slices and loops is tens of times slower than the forward pass.
"""

import numpy as np
from autograd.extend import defvjp_argnums, primitive
from numpy import ndarray

from .blocks import BLOCK_BYTES, blocks
from .winograd import Winograd, tile_size

WINOGRAD_PRODUCTS = 512
"""Smallest C * K for which Winograd pays off."""


def conv2d(x: ndarray, w: ndarray, stride: int = 1) -> ndarray:
    """Cross-correlation with zero padding k // 2 and no bias; stride 1 keeps the image's size.

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
        raise ValueError(
            f"expected images (..., H, W, {w.shape[2]}) for weights {w.shape}, "
            f"got shape {np.shape(x)}"
        )
    if int(stride) != stride or stride < 1:
        raise ValueError(f"expected a whole stride >= 1, got {stride!r}")
    return _conv2d(x, w, int(stride))


@primitive
def _conv2d(x, w, stride):
    H, W = (-(-side // stride) for side in x.shape[-3:-1])
    y = np.empty(x.shape[:-3] + (H, W, w.shape[3]), np.result_type(x, w))
    products = _products(x, w, stride)
    images, outputs = _images(x), _images(y)
    for block in blocks(len(images), products.images_at_once(H, W)):
        products.forward(images[block], outputs[block])
    return y


def _conv2d_vjp(argnums, y, args, _):
    x, w, stride = args

    def vjp(g):
        products = _products(x, w, stride)
        images, g = _images(x), _images(g)
        dx = np.empty(images.shape, g.dtype) if 0 in argnums else None
        dw = 0
        for block in blocks(len(images), products.images_at_once(*g.shape[1:3])):
            dw += products.backward(images[block], g[block], None if dx is None else dx[block])
        grads = {1: products.filter_gradient(dw)}
        if dx is not None:
            grads[0] = dx.reshape(x.shape)
        return [grads[n] for n in argnums]

    return vjp


defvjp_argnums(_conv2d, _conv2d_vjp)


def _images(x):
    """All leading axes of (..., H, W, C) as one."""
    return x.reshape((-1,) + x.shape[-3:])


def _products(x, w, stride):
    """The cheaper way to multiply images like x with the filter w."""
    if stride > 1:
        return StridedIm2col(w, stride)
    m = tile_size(*x.shape[-3:-1])
    wide = w.shape[:2] == (3, 3) and w[0, 0].size >= WINOGRAD_PRODUCTS
    return Winograd(w, m) if m and wide else Im2col(w)


class Im2col:
    """Products of images (n, H, W, C) with one filter (k, k, C, K) as one matrix product."""

    def __init__(self, w: ndarray, stride: int = 1) -> None:
        self.w = w
        self.stride = stride

    def images_at_once(self, H: int, W: int) -> int:
        widest = max(self.w[..., 0].nbytes, self.w[..., 0, :].nbytes)
        return BLOCK_BYTES // (H * W * widest)

    def forward(self, x: ndarray, out: ndarray) -> None:
        k, _, _, K = self.w.shape
        rows = im2col(x, k, self.stride)                       # (n Ho Wo, k k C)
        np.matmul(rows, self.w.reshape(-1, K), out=out.reshape(-1, K))

    def backward(self, x: ndarray, g: ndarray, out: ndarray | None) -> ndarray:
        """The filter's part of the gradient, and in `out` that of the images."""
        k, _, C, _ = self.w.shape
        rows = im2col(g, k, 1)                                 # (n H W, k k K), for both
        if out is not None:
            turned = np.swapaxes(self.w[::-1, ::-1], 2, 3)     # (k, k, K, C)
            np.matmul(rows, turned.reshape(-1, C), out=out.reshape(-1, C))
        return x.reshape(-1, C).T @ rows                       # (C, k k K)

    def filter_gradient(self, total: ndarray) -> ndarray:
        k, _, C, K = self.w.shape
        return np.moveaxis(total.reshape(C, k, k, K)[:, ::-1, ::-1], 0, 2)


class StridedIm2col(Im2col):
    """`Im2col` with its gradients taken at the outputs, of which there are fewer than pixels."""

    def backward(self, x: ndarray, g: ndarray, out: ndarray | None) -> ndarray:
        k, _, _, K = self.w.shape
        g = g.reshape(-1, K)                                   # (n Ho Wo, K)
        if out is not None:
            col2im(g @ self.w.reshape(-1, K).T, k, self.stride, out)
        return im2col(x, k, self.stride).T @ g                 # (k k C, K)

    def filter_gradient(self, total: ndarray) -> ndarray:
        return total.reshape(self.w.shape)


def im2col(x: ndarray, k: int, stride: int) -> ndarray:
    """The k x k neighbourhood of every output pixel of (n, H, W, C) as a row: (n Ho Wo, k k C)."""
    n, H, W, C = x.shape
    p = k // 2
    padded = np.zeros((n, H + 2 * p, W + 2 * p, C), x.dtype)
    padded[:, p:p + H, p:p + W] = x
    Ho, Wo = -(-H // stride), -(-W // stride)
    sn, sh, sw, _ = padded.strides
    strides = sn, sh * stride, sw * stride, sh, x.itemsize
    # One row of a neighbourhood is contiguous: k pixels of C channels.
    view = np.ndarray((n, Ho, Wo, k, k * C), x.dtype, padded, 0, strides)
    return view.reshape(n * Ho * Wo, k * k * C)


def col2im(rows: ndarray, k: int, stride: int, out: ndarray) -> None:
    """The transpose of `im2col`: in `out`, (n, H, W, C), the sum of all rows at their places."""
    n, H, W, C = out.shape
    p = k // 2
    Ho, Wo = -(-H // stride), -(-W // stride)
    rows = rows.reshape(n, Ho, Wo, k, k, C)
    padded = np.zeros((n, H + 2 * p, W + 2 * p, C), out.dtype)
    for i in range(k):
        for j in range(k):
            pixels = padded[:, i:i + stride * Ho:stride, j:j + stride * Wo:stride]
            pixels += rows[:, :, :, i, j]
    out[...] = padded[:, p:p + H, p:p + W]
