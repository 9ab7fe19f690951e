"""3 x 3 convolution with a fraction of the multiplications (Winograd, 1980; Lavin & Gray, 2016).

The product of two polynomials of degrees m - 1 and 2 is known by its values at m + 2 points,
infinity among them, so it takes m + 2 multiplications instead of 3 m. Read backwards, and along
both sides of the image, this is correlation: m x m outputs are ``y = A' ((G w) * (B d))`` for a
tile d of (m + 2) x (m + 2) pixels and a filter w. A and G take the values of polynomials of
degrees m - 1 and 2 at the points; B is the transposed inverse of taking those of degree m + 1.
Over channels, * is a matrix product at every point.
"""

import numpy as np
from numpy import ndarray

POINTS = {4: (0, 1, -1, 1 / 2, -2), 3: (0, 1, -1, 2)}
"""The finite points for each m: those of the smallest rounding errors among powers of 2."""

TILES = 192
"""Tiles at a time: few enough for the cache, enough rows for a matrix product to pay."""


def tile_size(H: int, W: int) -> int | None:
    """The largest m that divides both sides of an image, or None."""
    return next((m for m in POINTS if H % m == W % m == 0), None)


def values_at_points(m: int, size: int) -> ndarray:
    """Matrix from `size` coefficients to values at all points, in both directions.

    The value at infinity is the last coefficient.
    """
    values = np.vstack([np.vander(POINTS[m], size, increasing=True), np.eye(size)[-1]])
    return np.kron(values, values)                             # ((m + 2)^2, size^2)


class Winograd:
    """Products of images (n, H, W, C) with one filter (3, 3, C, K); see `conv.Im2col`.

    Parameters
    ----------
    w : (3, 3, C, K) array of floats
    m : int
        Side of the outputs of a tile; divides H and W.
    """

    def __init__(self, w: ndarray, m: int) -> None:
        self.C, self.K = w.shape[2:]
        self.m = m
        self.A = values_at_points(m, m).astype(w.dtype)
        self.G = values_at_points(m, 3).astype(w.dtype)
        self.B = np.linalg.inv(values_at_points(m, m + 2)).T.astype(w.dtype)
        self.u = (self.G @ w.reshape(9, -1)).reshape(-1, self.C, self.K)

    def images_at_once(self, H: int, W: int) -> int:
        return -(-TILES * self.m**2 // (H * W))

    def forward(self, x: ndarray, out: ndarray) -> None:
        products = self._spread(x) @ self.u                    # (points, tiles, K)
        outputs = self._outputs(out)
        outputs[...] = (self.A.T @ products.reshape(len(self.u), -1)).reshape(outputs.shape)

    def backward(self, x: ndarray, g: ndarray, out: ndarray | None) -> ndarray:
        g = np.ascontiguousarray(self._outputs(g)).reshape(self.m**2, -1)
        g = (self.A @ g).reshape(len(self.u), -1, self.K)      # (points, tiles, K)
        if out is not None:
            tiles = self.B.T @ (g @ self.u.swapaxes(1, 2)).reshape(len(self.u), -1)
            padded = _padded(np.zeros_like(x))
            places = self._tiles(padded)
            for overlapping, row in zip(places, tiles.reshape(places.shape)):
                for pixel, value in zip(overlapping, row):     # neighbouring tiles overlap
                    pixel += value
            out[...] = padded[:, 1:-1, 1:-1]
        return self._spread(x).swapaxes(1, 2) @ g              # (points, C, K)

    def filter_gradient(self, total: ndarray) -> ndarray:
        return (self.G.T @ total.reshape(len(self.u), -1)).reshape(3, 3, self.C, self.K)

    def _spread(self, x):
        """B d for all tiles, (points, tiles, C)."""
        tiles = self._tiles(_padded(x)).reshape(len(self.u), -1)
        return (self.B @ tiles).reshape(len(self.u), -1, self.C)

    def _tiles(self, padded):
        """View of overlapping tiles, pixel first: (m + 2, m + 2, n, H / m, W / m, C)."""
        m = self.m
        n, H, W, C = padded.shape
        sn, sh, sw, sc = padded.strides
        shape = m + 2, m + 2, n, (H - 2) // m, (W - 2) // m, C
        return np.ndarray(shape, padded.dtype, padded, 0, (sh, sw, sn, m * sh, m * sw, sc))

    def _outputs(self, y):
        """View of the outputs by tile, pixel first: (m, m, n, H / m, W / m, K)."""
        m = self.m
        n, H, W, K = y.shape
        return y.reshape(n, H // m, m, W // m, m, K).transpose(2, 4, 0, 1, 3, 5)


def _padded(x):
    """A border of one zero around each image."""
    n, H, W, C = x.shape
    padded = np.zeros((n, H + 2, W + 2, C), x.dtype)
    padded[:, 1:-1, 1:-1] = x
    return padded
