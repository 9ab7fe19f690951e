"""Centred kernel alignment, the similarity of two sets of features (Eq. 5)."""

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval
from numpy import ndarray


def linear_cka(X: ndarray, Y: ndarray, debiased: bool = False, eps: float = 0.0) -> float | ndarray:
    """Linear CKA of two feature matrices (Kornblith et al., 2019), the similarity in Eq. (5).

    ``CKA = <K, L>_F / (|K|_F |L|_F + eps)`` with the Gram matrices ``K = X X'`` and ``L = Y Y'``
    of centred features. It asks whether the B samples lie alike in both feature spaces, not
    whether the features agree, and stays the same when a feature space is rotated, shifted or
    scaled.

    Parameters
    ----------
    X : (B, D1) or (T, B, D1) array of floats
    Y : (B, D2) or (T, B, D2) array of floats
        Row i of both belongs to the same pair. Time steps are compared one by one. Every scale
        that the dtype holds will do: products of the features neither overflow nor vanish.
    debiased : bool
        Leave each sample's similarity with itself out and centre as the U-statistic does; needs
        B >= 4. Near 0 for independent features, where the biased estimate approaches 1 once D far
        exceeds B.
    eps : float
        Added to the denominator. Only with eps = 0 does CKA not depend on the features' scale.

    Returns
    -------
    cka : scalar, or (T,), of the features' dtype
        In [0, 1]; debiased it is at most about 1 and may be negative. 0 with gradient 0 if all
        samples have the same features, NaN if a feature is NaN or Inf.

    Raises
    ------
    ValueError
        Shapes that do not match, feature maps that are not flattened, complex features, B < 2, or
        debiased with B < 4.
    """
    if np.ndim(X) not in (2, 3) or np.shape(X)[:-1] != np.shape(Y)[:-1]:
        maps = max(np.ndim(X), np.ndim(Y)) > 3
        raise ValueError(
            "expected X (B, D1) and Y (B, D2), or (T, B, D1) and (T, B, D2), with the same "
            f"samples, got shapes {np.shape(X)} and {np.shape(Y)}"
            f"{'; flatten feature maps into one axis first' if maps else ''}"
        )
    if np.iscomplexobj(X) or np.iscomplexobj(Y):
        raise ValueError("expected features that are real numbers, got complex ones")
    B = np.shape(X)[-2]
    if B < 2:
        raise ValueError(f"expected at least 2 samples, got {B}")
    if debiased and B < 4:
        raise ValueError(f"expected at least 4 samples for the debiased estimate, got {B}")
    x, y = _unit(X), _unit(Y)                                  # (T,)
    K = _gram(X / x[..., None, None])                          # (T, B, B)
    L = _gram(Y / y[..., None, None])
    if debiased:
        K = _centre_without_diagonal(K)
        L = _centre_without_diagonal(L)
    with np.errstate(over="ignore"):                           # in units so small eps may be Inf
        eps = eps / x / y / x / y
    return _inner(K, L) / (_norm(K) * _norm(L) + eps)


def _unit(X):
    """The power of two just below the largest feature of a time step: dividing by it is exact."""
    largest = np.abs(getval(X)).max(axis=(-2, -1), initial=0)  # (T,)
    _, exponent = np.frexp(largest)
    return np.ldexp(np.ones_like(largest), exponent - 1)


def _gram(X):
    X = _centre(X)
    return np.matmul(X, np.swapaxes(X, -1, -2))


def _inner(K, L):
    return np.sum(K * L, axis=(-2, -1))


def _norm(K):
    KK = _inner(K, K)
    # The root has no derivative at 0; there <K, L> is 0.
    return np.sqrt(KK + (KK == 0))


@primitive
def _centre(X):
    # The first row goes first, so that features that are all alike become exactly 0.
    X = X - X[..., :1, :]
    return X - X.mean(axis=-2, keepdims=True)


defvjp(_centre, lambda ans, X: lambda g: g - g.mean(axis=-2, keepdims=True))


def _centre_without_diagonal(K):
    """U-centring (Szekely & Rizzo, 2014): off the diagonal, rows and columns then sum to 0."""
    n = K.shape[-1]
    off = 1 - np.eye(n, dtype=K.dtype)
    K = K * off
    rows = np.sum(K, axis=-1, keepdims=True) * (1 / (n - 2))
    rows = rows - np.sum(rows, axis=-2, keepdims=True) * (1 / (2 * (n - 1)))
    return (K - rows - np.swapaxes(rows, -1, -2)) * off
