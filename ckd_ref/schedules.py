"""What changes during training, as functions of epoch and batch (Eqs. 8, 10, learning rate)."""

import math

from numpy import ndarray
from scipy.special import expit


def replacement_probability(
    batch: int, epoch: int, batches_per_epoch: int, epochs: int, power: float = 3
) -> float:
    """Eq. (8): ``P = ((b_i + e_c b_l) / N_b) ** 3``, the probability of replacement.

    The chance that an event sample replaces a static one is the share of training done, cubed:
    1/8 halfway, close to 1 at the end but, counted from 0, never 1.

    Parameters
    ----------
    batch, epoch : int
        Indices b_i and e_c of the present batch and epoch, from 0.
    batches_per_epoch, epochs : int
        b_l, and N_b = batches_per_epoch * epochs.
    power : float
        3 in the paper.

    Returns
    -------
    probability : float in [0, 1]

    Examples
    --------
    >>> for epoch in (0, 75, 150, 225, 299):
    ...     print(epoch, f"{replacement_probability(0, epoch, 65, 300):.4f}")
    0 0.0000
    75 0.0156
    150 0.1250
    225 0.4219
    299 0.9900
    """
    if batches_per_epoch < 1 or epochs < 1:
        raise ValueError(
            "expected at least one batch and one epoch, "
            f"got batches_per_epoch={batches_per_epoch}, epochs={epochs}"
        )
    progress = (batch + epoch * batches_per_epoch) / (batches_per_epoch * epochs)
    return min(max(progress, 0.0), 1.0) ** power


def phase_weight(epoch: float | ndarray, threshold: float, slope: float) -> float | ndarray:
    """Eq. (10): ``gamma(e) = 1 - 1 / (1 + exp(-k (e - e_th)))``, the weight of the distillation.

    Computed as the logistic function of -k (e - e_th), which is the same and does not overflow.

    Parameters
    ----------
    epoch : float or array
        e, counted from 0.
    threshold : float
        e_th, the epoch at which the weight passes 1/2.
    slope : float
        k. 100 switches from one epoch to the next; at 0.001 the weight stays near 1/2 throughout.

    Returns
    -------
    gamma : float or array in [0, 1]

    Examples
    --------
    >>> for epoch in (0, 149, 150, 299):
    ...     steep = phase_weight(epoch, 149.5, 100)
    ...     flat = phase_weight(epoch, 149.5, 0.01)
    ...     print(epoch, f"{steep:.4f}  {flat:.4f}")
    0 1.0000  0.8168
    149 1.0000  0.5012
    150 0.0000  0.4988
    299 0.0000  0.1832
    """
    return expit(-slope * (epoch - threshold))


def learning_rate(
    epoch: int, epochs: int, peak: float, warmup_epochs: int = 5, floor: float = 1e-5,
    warmup_start: float = 1e-6,
) -> float:
    """Learning rate of one epoch: linear warm-up, then half a cosine down to `floor`.

    Assumption: the paper leaves the schedule to the framework it cites [30]. Its cosine does not
    wait for the warm-up: at the end of it the rate is already a little below the peak. Baseline:
    create_scheduler of timm, in main of main_transfer.py. Test: `test_learning_rate_golden`.

    Parameters
    ----------
    epoch : int
        Counted from 0.
    epochs : int
        Length of the training; from then on the rate is `floor`.
    peak : float
        The rate that the cosine starts from.
    warmup_epochs : int
        0 for none.
    floor, warmup_start : float
        The last and the first rate.

    Returns
    -------
    rate : float

    Examples
    --------
    >>> for epoch in (0, 1, 5, 150, 299):
    ...     print(epoch, f"{learning_rate(epoch, 300, 5.86e-4):.3e}")
    0 1.000e-06
    1 1.180e-04
    5 5.856e-04
    150 2.980e-04
    299 1.002e-05
    """
    if epoch < warmup_epochs:
        return warmup_start + epoch * (peak - warmup_start) / warmup_epochs
    if epoch >= epochs:
        return floor
    return floor + (peak - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2
