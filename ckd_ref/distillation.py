"""The alternatives to Eq. (9) that Table II compares: DKD, DIST and LumiNet."""

import autograd.numpy as np
from autograd.tracer import getval
from numpy import ndarray

from ._numerics import check_classes, check_pair, kl_divergence, log_softmax, mean, one_hot


def dkd_loss(
    teacher: ndarray, student: ndarray, labels: ndarray, alpha: float = 1.0, beta: float = 8.0,
    temperature: float = 4.0,
) -> float:
    """Decoupled distillation (Zhao et al., 2022 [19]): target against the rest, and the rest.

    ``tau^2 mean_B (alpha KL(b_t || b_s) + beta KL(r_t || r_s))``: b = (p_y, 1 - p_y) and r = the
    probabilities of the other classes, renormalised to sum 1.

    Parameters
    ----------
    teacher, student : (B, K) arrays of logits
        Best by name: exchanged they are a valid call with another loss.
    labels : (B,) array of integers in 0 ... K - 1
    alpha, beta : float
        Weights of the two divergences.
    temperature : float
        tau > 0.

    Returns
    -------
    loss : scalar >= 0
    """
    check_pair(teacher, student, temperature)
    check_classes(labels)
    target = one_hot(labels, teacher)

    def split(logits):
        z = logits / temperature
        others = z - 1e30 * target                             # the target class masked out
        binary = np.stack([np.sum(target * z, axis=1), _logsumexp(others)], axis=1)  # (B, 2)
        return log_softmax(binary), log_softmax(others)

    log_b_t, log_r_t = split(teacher)                          # (B, 2), (B, K)
    log_b_s, log_r_s = split(student)
    tckd = kl_divergence(log_b_t, log_b_s)
    nckd = kl_divergence(log_r_t, log_r_s)
    return mean(alpha * tckd + beta * nckd) * temperature**2


def dist_loss(
    teacher: ndarray, student: ndarray, beta: float = 1.0, gamma: float = 1.0,
    temperature: float = 1.0,
) -> float:
    """DIST (Huang et al., 2022 [32]): correlation instead of equality of the probabilities.

    ``tau^2 (beta mean_B (1 - rho(rows)) + gamma mean_K (1 - rho(columns)))``, rho = Pearson's
    correlation.

    Parameters
    ----------
    teacher, student : (B, K) arrays of logits
        Exchanged they have the same loss.
    beta, gamma : float
        Weights of the correlation between classes (rows) and within classes (columns).
    temperature : float
        tau > 0.

    Returns
    -------
    loss : scalar >= 0
    """
    check_pair(teacher, student, temperature)
    p = np.exp(log_softmax(teacher / temperature))
    q = np.exp(log_softmax(student / temperature))
    inter = 1 - mean(_pearson(p, q))
    intra = 1 - mean(_pearson(p.T, q.T))
    return (beta * inter + gamma * intra) * temperature**2


def luminet_loss(
    teacher: ndarray, student: ndarray, alpha: float = 1.0, temperature: float = 4.0
) -> float:
    """LumiNet (Hossain et al., 2023 [31]): distillation of logits standardised per class.

    ``alpha^2 mean_B KL(softmax(z_t / tau) || softmax(z_s / tau))`` with every class's logits z
    brought to mean 0 and (biased) variance 1 over the batch.

    Parameters
    ----------
    teacher, student : (B, K) arrays of logits
        Best by name: exchanged they are a valid call with another loss.
    alpha : float
        Weight; the original squares it.
    temperature : float
        tau > 0.

    Returns
    -------
    loss : scalar >= 0
    """
    check_pair(teacher, student, temperature)
    log_p = log_softmax(_standardise(teacher) / temperature)
    log_q = log_softmax(_standardise(student) / temperature)
    return mean(kl_divergence(log_p, log_q)) * alpha**2


def _logsumexp(z):
    top = getval(z).max(axis=-1)
    return np.log(np.sum(np.exp(z - top[..., None]), axis=-1)) + top


def _pearson(a, b):
    """Correlation of each row of a with the same row of b."""
    a = a - mean(a, axis=1)[:, None]
    b = b - mean(b, axis=1)[:, None]
    return np.sum(a * b, axis=1) / (_norm(a) * _norm(b) + 1e-8)


def _norm(a):
    squares = np.sum(a * a, axis=1)
    return np.sqrt(squares + (squares == 0))                   # the root has no derivative at 0


def _standardise(z):
    z = z - mean(z, axis=0)
    return z / np.sqrt(mean(z * z, axis=0) + 1e-5)
