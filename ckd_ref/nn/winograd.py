"""3 x 3 convolution with a fraction of the multiplications (Winograd, 1980; Lavin & Gray, 2016).

The product of two polynomials of degrees m - 1 and 2 is known by its values at m + 2 points, infinity among them, so
it takes m + 2 multiplications instead of 3 m. Read backwards, and along both sides of the image, this is correlation:
m x m outputs are ``y = A' ((G w) * (B d))`` for a tile d of (m + 2) x (m + 2) pixels and a filter w. A and G take
the values of polynomials of degrees m - 1 and 2 at the points; B is the transposed inverse of taking those of
degree m + 1. Over channels, * is a matrix product at every point.
"""

import numpy as np

POINTS = {4: (0, 1, -1, 1 / 2, -2), 3: (0, 1, -1, 2)}
"""The finite points for each m: those of the smallest rounding errors among fractions of 2."""

TILES = 192
"""Tiles at a time: few enough for the cache; matrices of fewer rows take longer to prepare than to multiply."""


def step_for(H, W):
    """The largest m that divides both sides of an image, or None."""
    return next((m for m in POINTS if H % m == W % m == 0), None)


def _values(m, size):
    """Coefficients, `size` of them, to values at all points, in both directions; infinity sees the last one only."""
    values = np.vstack([np.vander(POINTS[m], size, increasing=True), np.eye(size)[-1]])
    return np.kron(values, values)                             # ((m + 2)^2, size^2)


class Winograd:
    """Products of images (n, H, W, C) with one filter (3, 3, C, K); see `layers.Patches`.

    Parameters
    ----------
    w : (3, 3, C, K) array of floats
    m : int
        Side of the outputs of a tile; divides H and W.
    """

    def __init__(self, w, m):
        self.C, self.K, self.m = *w.shape[2:], m
        matrices = _values(m, m), _values(m, 3), np.linalg.inv(_values(m, m + 2)).T
        self.A, self.G, self.B = (matrix.astype(w.dtype) for matrix in matrices)
        self.u = (self.G @ w.reshape(9, -1)).reshape(-1, self.C, self.K)

    def images_at_once(self, H, W):
        return -(-TILES * self.m**2 // (H * W))

    def forward(self, x, out):
        products = self._spread(x) @ self.u                    # (points, tiles, K)
        outputs = self._outputs(out)
        outputs[...] = (self.A.T @ products.reshape(len(self.u), -1)).reshape(outputs.shape)

    def backward(self, x, g, out):
        g = np.ascontiguousarray(self._outputs(g)).reshape(self.m**2, -1)
        g = (self.A @ g).reshape(len(self.u), -1, self.K)      # (points, tiles, K)
        if out is not None:
            tiles = self.B.T @ (g @ self.u.swapaxes(1, 2)).reshape(len(self.u), -1)
            padded = _padded(np.zeros_like(x))
            places = self._tiles(padded)
            for overlapping, row in zip(places, tiles.reshape(places.shape)):
                for pixel, value in zip(overlapping, row):     # neighbouring tiles overlap: one position at a time
                    pixel += value
            out[...] = padded[:, 1:-1, 1:-1]
        return self._spread(x).swapaxes(1, 2) @ g              # (points, C, K)

    def filter_gradient(self, total):
        return (self.G.T @ total.reshape(len(self.u), -1)).reshape(3, 3, self.C, self.K)

    def _spread(self, x):
        """B d for all tiles, (points, tiles, C)."""
        tiles = self._tiles(_padded(x)).reshape(len(self.u), -1)
        return (self.B @ tiles).reshape(len(self.u), -1, self.C)

    def _tiles(self, padded):
        """View of overlapping tiles, pixel of the tile first: (m + 2, m + 2, n, H / m, W / m, C)."""
        m, (n, H, W, C), (sn, sh, sw, sc) = self.m, padded.shape, padded.strides
        shape, strides = (m + 2, m + 2, n, (H - 2) // m, (W - 2) // m, C), (sh, sw, sn, m * sh, m * sw, sc)
        return np.ndarray(shape, padded.dtype, padded, 0, strides)

    def _outputs(self, y):
        """View of the outputs by tile, output of the tile first: (m, m, n, H / m, W / m, K)."""
        m, (n, H, W, K) = self.m, y.shape
        return y.reshape(n, H // m, m, W // m, m, K).transpose(2, 4, 0, 1, 3, 5)


def _padded(x):
    """A border of one zero around each image."""
    n, H, W, C = x.shape
    padded = np.zeros((n, H + 2, W + 2, C), x.dtype)
    padded[:, 1:-1, 1:-1] = x
    return padded
