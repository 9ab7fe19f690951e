"""Functions that the losses share, in forms that keep float32 and do not overflow."""

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval


def mean(x, axis=None):
    """Mean over all elements or one axis, in the dtype of x, which `autograd` would widen."""
    n = x.size if axis is None else x.shape[axis]
    return np.sum(x, axis=axis) * (1 / n)


def sigmoid(x):
    """``1 / (1 + exp(-x))`` by the hyperbolic tangent, which does not overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


@primitive
def log_softmax(z):
    """Logarithm of the softmax over the last axis; the largest entry is subtracted first."""
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


defvjp(
    log_softmax,
    lambda ans, z: lambda g: g - np.exp(ans) * np.sum(g, axis=-1, keepdims=True),
)


def kl_divergence(log_p, log_q):
    """Kullback-Leibler divergence KL(p || q) of each row: (..., K) logarithms to (...)."""
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)


def one_hot(labels, logits):
    """Ones at the labels: (B, K) in the dtype of the logits (..., B, K), which they must fit.

    Floats (B, K) are shares of the classes already, as those of mixed samples.
    """
    check_real(logits)
    B, K = np.shape(logits)[-2:]
    labels = np.asarray(labels)
    if labels.shape == (B, K) and labels.dtype.kind == "f":
        return labels.astype(getval(logits).dtype)
    if labels.shape != (B,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"expected {B} whole-number labels, one per row of the logits {np.shape(logits)}, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if B and not 0 <= labels.min() <= labels.max() < K:
        bad = int(np.argmax((labels < 0) | (labels >= K)))
        raise ValueError(f"expected labels in 0 ... {K - 1}, got {labels[bad]} for sample {bad}")
    return (labels[:, None] == np.arange(K)).astype(getval(logits).dtype)


def check_classes(labels):
    """Refuse shares of classes, which `one_hot` accepts, where a sample has a single one."""
    if np.ndim(labels) != 1:
        raise ValueError(
            f"expected whole-number labels (B,), one class per sample, got shape {np.shape(labels)}"
        )


def check_pair(teacher, student, temperature):
    """Refuse complex logits or different shapes, and a temperature that is not positive."""
    if np.ndim(teacher) != 2 or np.shape(teacher) != np.shape(student) or 0 in np.shape(teacher):
        raise ValueError(
            "expected teacher and student logits of one shape (B, K), got "
            f"{np.shape(teacher)} and {np.shape(student)}; do both know the same classes?"
        )
    check_real(teacher, student)
    check_temperature(temperature)


def check_steps(logits):
    """Refuse logits that do not have all three axes."""
    if np.ndim(logits) != 3 or 0 in np.shape(logits):
        raise ValueError(f"expected logits (T, B, K), none of them 0, got shape {np.shape(logits)}")
    check_real(logits)


def check_shape(name, array, shape):
    """Refuse an array of another shape, which would broadcast to one; None is left out."""
    if array is not None and np.shape(array) != shape:
        raise ValueError(f"expected {name} of shape {shape}, got shape {np.shape(array)}")


def check_real(*arrays):
    """Refuse complex logits, of which a loss is no real number, and those that have no sign."""
    for logits in arrays:
        if np.iscomplexobj(logits):
            raise ValueError("expected logits that are real numbers, got complex ones")
        if (dtype := np.result_type(getval(logits))).kind in "ub":
            raise ValueError(f"expected logits that are floats, got {dtype}")


def check_temperature(temperature):
    """Refuse a temperature that is not positive."""
    if not temperature > 0:
        raise ValueError(f"expected a temperature > 0, got {temperature!r}")
