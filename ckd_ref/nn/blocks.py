"""Large arrays in cache-sized blocks: what one operation writes, the next finds in the cache."""

from numpy import ndarray

BLOCK_BYTES = 1 << 20
"""The largest array within a block, about: half the cache of a core."""


def blocks(n: int, size: int) -> list[slice]:
    """Consecutive slices of up to `size` of n things, at least one at a time."""
    size = max(1, size)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def sample_blocks(steps: ndarray) -> list[slice]:
    """Slices of the samples of (T, B, H, W, C) whose arrays of one step make a block."""
    return blocks(steps.shape[1], BLOCK_BYTES // steps[:, :1].nbytes)
