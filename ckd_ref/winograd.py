"""3 x 3 convolution with 25 multiplications per 9 outputs instead of 81 (Winograd, 1980; Lavin & Gray, 2016).

A polynomial of degree 4 is known by its values at five points, here p = 0, 1, -1, 2 and infinity, so the product of
two of degree 2 takes one multiplication per point. Read backwards, and along both sides of the image, this is
correlation of a 5 x 5 tile d with a 3 x 3 filter w: ``y = E' ((E w) * (B d))``, where E takes values at the points
and B is the transposed inverse of taking those of degree 4. Over channels, * is a matrix product for every point.
"""

import numpy as np

POINTS = np.array([0.0, 1.0, -1.0, 2.0])
STEP, TILE = 3, 5
"""Side of the outputs of a tile, and of the tile."""


TILES = 256
"""Tiles at a time: matrices with fewer rows take longer to pack than to multiply."""


def _values(degree):
    """The matrix that takes coefficients to the values at all points; at infinity the last coefficient counts."""
    return np.vstack([np.vander(POINTS, degree + 1, increasing=True), np.eye(degree + 1)[-1]])


E = np.kron(_values(2), _values(2))                            # (25, 9)
B = np.kron(*2 * [np.linalg.inv(_values(4)).T])                # (25, 25)


class Winograd:
    """Products of images (n, H, W, C), H and W multiples of 3, with one filter (3, 3, C, K); as `layers.Patches`."""

    def __init__(self, w):
        self.C, self.K = w.shape[2:]
        self.E, self.B = E.astype(w.dtype), B.astype(w.dtype)
        self.u = (self.E @ w.reshape(9, -1)).reshape(25, self.C, self.K)

    def images_at_once(self, H, W):
        return -(-TILES * STEP**2 // (H * W))

    def forward(self, x, out):
        products = self._spread(x) @ self.u                    # (25, tiles, K)
        _outputs(out)[...] = (self.E.T @ products.reshape(25, -1)).reshape(_outputs(out).shape)

    def backward(self, x, g, out):
        g = np.ascontiguousarray(_outputs(g)).reshape(9, -1)
        g = (self.E @ g).reshape(25, -1, self.K)               # (25, tiles, K)
        if out is not None:
            tiles = self.B.T @ (g @ self.u.transpose(0, 2, 1)).reshape(25, -1)
            padded = np.zeros(_padded_shape(x), x.dtype)
            tiles = tiles.reshape(_tiles(padded).shape)
            for overlapping, tile in zip(_tiles(padded), tiles):
                for pixel, value in zip(overlapping, tile):    # neighbouring tiles overlap: one position at a time
                    pixel += value
            out[...] = padded[:, 1:-1, 1:-1]
        return self._spread(x).transpose(0, 2, 1) @ g          # (25, C, K)

    def filter_gradient(self, total):
        return (self.E.T @ total.reshape(25, -1)).reshape(3, 3, self.C, self.K)

    def _spread(self, x):
        """B d for all tiles, (25, tiles, C)."""
        padded = np.zeros(_padded_shape(x), x.dtype)
        padded[:, 1:-1, 1:-1] = x
        return (self.B @ _tiles(padded).reshape(25, -1)).reshape(25, -1, self.C)


def _padded_shape(x):
    n, H, W, C = x.shape
    return n, H + 2, W + 2, C


def _tiles(padded):
    """View of overlapping tiles, pixel of the tile first: (5, 5, n, H / 3, W / 3, C)."""
    (n, H, W, C), (sn, sh, sw, sc) = padded.shape, padded.strides
    shape, strides = (TILE, TILE, n, H // STEP, W // STEP, C), (sh, sw, sn, STEP * sh, STEP * sw, sc)
    return np.ndarray(shape, padded.dtype, padded, 0, strides)


def _outputs(y):
    """View of the outputs by tile, output of the tile first: (3, 3, n, H / 3, W / 3, K)."""
    n, H, W, K = y.shape
    return y.reshape(n, H // STEP, STEP, W // STEP, STEP, K).transpose(2, 4, 0, 1, 3, 5)
