"""AdamW, the optimiser of the baseline's recipe."""

import numpy as np


def init_moments(params: dict) -> dict:
    """First and second moments of the gradients before the first step: zeros, per parameter."""
    return {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in params.items()}


def adamw(
    params: dict, grads: dict, moments: dict, step: int, rate: float, decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
) -> tuple[dict, dict]:
    """One step of AdamW (Loshchilov & Hutter, 2019).

    Assumption: the paper names no optimiser. Vectors (biases, batch norm, theta) do not decay.
    Baseline: create_optimizer of timm with AdamW and a weight decay of 0.01, in main of
    main_transfer.py. Test: `test_adamw_golden`.

    Parameters
    ----------
    params, grads : dicts of arrays
    moments : dict of pairs of arrays
        See `init_moments`.
    step : int
        Number of this step, from 1.
    rate : float
        Learning rate.
    decay : float
        Weight decay of tensors of two or more dimensions.
    betas : (float, float)
        Decay rates of the two moments.
    eps : float

    Returns
    -------
    params, moments : new dicts; nothing is changed in place, every dtype stays.
    """
    beta1, beta2 = betas
    new_params, new_moments = {}, {}
    for name, p in params.items():
        g = grads[name]
        m, v = moments[name]
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        root = np.sqrt(v / (1 - beta2**step)) + eps
        shrink = 1 - rate * decay if p.ndim >= 2 else 1
        new_params[name] = shrink * p - rate / (1 - beta1**step) * m / root
        new_moments[name] = m, v
    return new_params, new_moments
