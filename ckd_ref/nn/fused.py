"""LIF neurons and the pooling behind them at once after batch normalisation."""

import dataclasses

from .layers import avg_pool, avg_pool_vjp
from ..neuron import surrogate_grad, walk, walk_back


@dataclasses.dataclass(frozen=True)
class Neurons:
    """``avg_pool(lif(currents)[0], pool)``, what follows batch normalisation in `layers.batch_norm`.

    Blocks of currents, (T, n, H, W, C), are there only as long as they are in the cache. Nothing is kept for the
    backward pass: to compute potentials once more is faster than to fetch them, and takes no memory.

    Parameters
    ----------
    pool : int
        Side of the windows whose mean is taken; 1 for none.
    """

    pool: int = 1

    def shape(self, H, W, C):
        """Shape of the output for images of shape (H, W, C)."""
        return H // self.pool, W // self.pool, C

    def forward(self, currents, out):
        """Write the output for currents, T arrays (n, H, W, C), to `out`."""
        for t, (_, s) in enumerate(walk(currents)):
            out[t] = s if self.pool == 1 else avg_pool(s, self.pool)

    def backward(self, currents, g):
        """Yield the gradients of the currents, the last first, given that of the output."""
        steps = list(walk(currents))
        gu = [self._gradient(u, gs) for (u, _), gs in zip(steps, g)]
        return walk_back(gu, steps)

    def _gradient(self, u, g):
        slope = surrogate_grad(u - 1)
        slope *= g if self.pool == 1 else avg_pool_vjp(None, u, self.pool)(g)
        return slope
