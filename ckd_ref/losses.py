"""The loss of CKD and its parts (Sec. III, Eqs. 5-7, 9 and 11), and the alternatives of Table II."""

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval

from .similarity import linear_cka  # the one import between leaves: Eq. (5) is made of CKA


def cross_entropy(logits, labels):
    """Cross-entropy of each sample, ``-log softmax(logits)[label]``.

    Parameters
    ----------
    logits : (..., B, K) array of floats
    labels : (B,) array of integers in 0 ... K - 1

    Returns
    -------
    loss : (..., B), in nats.
    """
    return -np.sum(_one_hot(labels, logits) * _log_softmax(logits), axis=-1)


def tet_loss(logits, labels, lam=1e-3, target=1.0, weights=None):
    """Temporal efficient training: every time step is to classify on its own (Deng et al., 2022 [23]).

    ``mean_t w_t ((1 - lam) CE(o_t, y) + lam mean((o_t - target)^2))``, with w_t = 1 in the original.

    Assumption: the paper names the loss, not its constants. lam is the original's; its target is v_th,
    which the baseline writes as 0.5 in units in which v_th = 0.5.

    Parameters
    ----------
    logits : (T, B, K) array of floats
    labels : (B,) array of integers in 0 ... K - 1
    lam : float
        Share in [0, 1] of the regulariser, which keeps outliers among the outputs small.
    target : float
        What the regulariser pulls the outputs to.
    weights : (T,) array, optional
        Weight w_t of every step.

    Returns
    -------
    loss : scalar
    """
    if np.ndim(logits) != 3 or 0 in np.shape(logits):
        raise ValueError(f"expected logits (T, B, K), none of them 0, got shape {np.shape(logits)}")
    outliers = _mean((logits - target) ** 2, axis=2)                               # (T, B)
    steps = _mean((1 - lam) * cross_entropy(logits, labels) + lam * outliers, axis=1)  # (T,)
    return _mean(steps if weights is None else weights * steps)


def domain_alignment_loss(features_s, features_d, theta=None, eps=1e-7):
    """How differently the two streams see the same pairs, per time step (Eqs. 5 and 6).

    Eq. (5): ``L_DA = 1 - mean_t CKA(F_s[t], F_d[t])``; the first sum of Eq. (6) weighs the steps:
    ``mean_t sigmoid(theta_t) (1 - CKA(F_s[t], F_d[t]))``.

    Assumption: ``y_i = y_j`` under the paper's CKA is met by pairing; rows are compared, not classes.

    Parameters
    ----------
    features_s, features_d : (T, B, ...) arrays of floats
        Features of the static and the event stream, flattened here; row b of both has the same class.
    theta : (T,) array, optional
        Learned coefficients; without them the plain mean.
    eps : float
        Added to CKA's denominator, as in the baseline.

    Returns
    -------
    loss : scalar in [0, 1]
    """
    T, B = np.shape(features_s)[:2]
    if np.shape(features_d)[:2] != (T, B) or T < 1:
        raise ValueError("expected features (T, B, ...) of the same T >= 1 and B in both streams, "
                         f"got {np.shape(features_s)} and {np.shape(features_d)}")
    distance = 1 - linear_cka(np.reshape(features_s, (T, B, -1)), np.reshape(features_d, (T, B, -1)), eps=eps)
    return _mean(distance if theta is None else _sigmoid(theta) * distance)


def kd_loss(teacher_logits, student_logits, temperature=4.0):
    """Eq. (9): ``L_KD = tau^2 mean_B sum_i p_i log(p_i / q_i)``, p and q softmaxes of teacher and student over tau.

    Deviation: Eq. (9) is printed without tau^2 and without the mean over the batch. Both belong to the method
    it cites (Hinton et al., 2015) and keep the gradient's scale independent of the two.
    Assumption: the paper never gives the temperature; 4 is usual.

    Parameters
    ----------
    teacher_logits, student_logits : (B, K) arrays of floats
    temperature : float
        tau > 0; not the neuron's tau.

    Returns
    -------
    loss : scalar >= 0, in nats
    """
    teacher, student = _check_pair(teacher_logits, student_logits, temperature)
    log_p, log_q = _log_softmax(teacher / temperature), _log_softmax(student / temperature)
    return _mean(_kl(log_p, log_q)) * temperature**2


def dkd_loss(teacher, student, labels, alpha=1.0, beta=8.0, temperature=4.0):
    """Decoupled distillation (Zhao et al., 2022 [19], Table II): target against the rest, and within the rest.

    ``tau^2 mean_B (alpha KL(b_t || b_s) + beta KL(r_t || r_s))``: b = (p_y, 1 - p_y) and r = the probabilities
    of the other classes, brought to sum 1.

    Parameters
    ----------
    teacher, student : (B, K) arrays of logits
    labels : (B,) array of integers in 0 ... K - 1
    alpha, beta : float
        Weights of the two divergences.
    temperature : float
        tau > 0.

    Returns
    -------
    loss : scalar >= 0
    """
    teacher, student = _check_pair(teacher, student, temperature)
    target = _one_hot(labels, teacher)

    def split(logits):
        z = logits / temperature
        rest = z - 1e30 * target                                                    # the target class masked out
        return _log_softmax(np.stack([np.sum(target * z, axis=1), _logsumexp(rest)], axis=1)), _log_softmax(rest)

    (log_b_t, log_r_t), (log_b_s, log_r_s) = split(teacher), split(student)         # (B, 2), (B, K)
    return _mean(alpha * _kl(log_b_t, log_b_s) + beta * _kl(log_r_t, log_r_s)) * temperature**2


def dist_loss(teacher, student, beta=1.0, gamma=1.0, temperature=1.0):
    """DIST (Huang et al., 2022 [32], Table II): correlation instead of equality of the probabilities.

    ``tau^2 (beta mean_B (1 - rho(rows)) + gamma mean_K (1 - rho(columns)))``, rho = Pearson's correlation.

    Parameters
    ----------
    teacher, student : (B, K) arrays of logits
    beta, gamma : float
        Weights of the correlation between classes (rows) and within classes (columns).
    temperature : float
        tau > 0.

    Returns
    -------
    loss : scalar >= 0
    """
    teacher, student = _check_pair(teacher, student, temperature)
    p, q = np.exp(_log_softmax(teacher / temperature)), np.exp(_log_softmax(student / temperature))
    inter, intra = 1 - _mean(_pearson(p, q)), 1 - _mean(_pearson(p.T, q.T))
    return (beta * inter + gamma * intra) * temperature**2


def luminet_loss(teacher, student, alpha=1.0, temperature=4.0):
    """LumiNet (Hossain et al., 2023 [31], Table II): distillation of logits standardised per class.

    ``alpha^2 mean_B KL(softmax(z_t / tau) || softmax(z_s / tau))`` with every class's logits z brought to mean
    0 and (biased) variance 1 over the batch.

    Parameters
    ----------
    teacher, student : (B, K) arrays of logits
    alpha : float
        Weight; the original squares it.
    temperature : float
        tau > 0.

    Returns
    -------
    loss : scalar >= 0
    """
    teacher, student = _check_pair(teacher, student, temperature)
    log_p, log_q = (_log_softmax(_standardise(z) / temperature) for z in (teacher, student))
    return _mean(_kl(log_p, log_q)) * alpha**2


def ckd_loss(static_logits, event_logits, features_s, features_d, labels, theta, teacher_logits=None, gamma=0.0,
             alpha=1.0, beta=1.0, temperature=4.0, lam=1e-3, target=1.0, reading="code"):
    """The whole loss of one batch: Eq. (11), ``L_S = alpha L_cls-s + beta L_DA + gamma L_KD``, plus L_cls-e.

    Without a teacher (or with gamma = 0) L_S is Eq. (7), ``alpha L_cls-s + beta L_DA``, the loss of the baseline.

    Deviation: Eq. (6) and the total both contain L_cls-e. ``reading="paper"`` adds both, as printed: inside L_DA
    times ``mean_t (1 - sigmoid(theta_t))``, and by itself. ``reading="code"`` is what the baseline's program does:
    once, with step t weighted by ``1 - sigmoid(theta_t)``.

    Parameters
    ----------
    static_logits, event_logits : (T, B, K) arrays of floats
        Outputs of the static (or hybrid) and of the event stream.
    features_s, features_d : (T, B, ...) arrays of floats
        See `domain_alignment_loss`.
    labels : (B,) array of integers in 0 ... K - 1
    theta : (T,) array
        Learned coefficients of Eq. (6).
    teacher_logits : (B, K) array, optional
        The teacher's logits for the static image of each pair, also where an event sample has replaced it.
    gamma : float
        Weight of the distillation, Eq. (10).
    alpha, beta : float
        Weights of L_cls-s and L_DA; 1 and 1 in the paper, the baseline has beta = 0.5.
    temperature : float
        See `kd_loss`.
    lam, target : float
        See `tet_loss`.
    reading : {"code", "paper"}

    Returns
    -------
    total : scalar
    parts : dict of floats
        The unweighted losses ``cls_s``, ``da``, ``kd`` and ``cls_e``, for the log.
    """
    if reading not in ("code", "paper"):
        raise ValueError(f'expected reading "code" or "paper", got {reading!r}')
    cls_s = tet_loss(static_logits, labels, lam, target)
    da = domain_alignment_loss(features_s, features_d, theta)
    if reading == "code":
        cls_e = tet_loss(event_logits, labels, lam, target, weights=1 - _sigmoid(theta))
    else:
        cls_e = tet_loss(event_logits, labels, lam, target)
        da = da + _mean(1 - _sigmoid(theta)) * cls_e
    total = alpha * cls_s + beta * da + cls_e
    parts = {"cls_s": cls_s, "da": da, "cls_e": cls_e}
    if teacher_logits is not None:
        parts["kd"] = kd_loss(teacher_logits, _mean(static_logits, axis=0), temperature)
        total = total + float(gamma) * parts["kd"]
    return total, {name: float(getval(part)) for name, part in parts.items()}


def _mean(x, axis=None):
    # autograd's derivative of np.mean divides by a float64 and turns float32 gradients into float64.
    n = x.size if axis is None else x.shape[axis]
    return np.sum(x, axis=axis) * (1 / n)


@primitive
def _log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


defvjp(_log_softmax, lambda ans, z: lambda g: g - np.exp(ans) * np.sum(g, axis=-1, keepdims=True))


def _logsumexp(z):
    top = getval(z).max(axis=-1)
    return np.log(np.sum(np.exp(z - top[..., None]), axis=-1)) + top


def _sigmoid(x):
    # autograd.scipy has it, but loads scipy.stats and takes a second.
    return 0.5 * (1 + np.tanh(0.5 * x))


def _kl(log_p, log_q):
    """Kullback-Leibler divergence of each row, (B,)."""
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=1)


def _pearson(a, b):
    """Correlation of each row of a with the same row of b."""
    a, b = (x - _mean(x, axis=1)[:, None] for x in (a, b))
    return np.sum(a * b, axis=1) / (_norm(a) * _norm(b) + 1e-8)


def _norm(a):
    squares = np.sum(a * a, axis=1)
    return np.sqrt(squares + (squares == 0))                   # the root has no derivative at 0


def _standardise(z):
    z = z - _mean(z, axis=0)
    return z / np.sqrt(_mean(z * z, axis=0) + 1e-5)


def _one_hot(labels, logits):
    """(B, K) ones at the labels, in the logits' dtype; refuses labels that do not fit the logits (..., B, K)."""
    B, K = np.shape(logits)[-2:]
    labels = np.asarray(labels)
    if labels.shape != (B,) or labels.dtype.kind not in "iu":
        raise ValueError(f"expected {B} whole-number labels, one per row of the logits {np.shape(logits)}, "
                         f"got {labels.dtype} of shape {labels.shape}")
    if B and not 0 <= labels.min() <= labels.max() < K:
        bad = int(np.argmax((labels < 0) | (labels >= K)))
        raise ValueError(f"expected labels in 0 ... {K - 1}, got {labels[bad]} for sample {bad}")
    return (labels[:, None] == np.arange(K)).astype(getval(logits).dtype)


def _check_pair(teacher, student, temperature):
    if np.ndim(teacher) != 2 or np.shape(teacher) != np.shape(student) or 0 in np.shape(teacher):
        raise ValueError("expected teacher and student logits of one shape (B, K), "
                         f"got {np.shape(teacher)} and {np.shape(student)}; do both know the same classes?")
    if not temperature > 0:
        raise ValueError(f"expected a temperature > 0, got {temperature!r}")
    return teacher, student
