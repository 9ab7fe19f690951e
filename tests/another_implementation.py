"""The equations once more, short and slow: right by default, wrong on request.

`pytest --implementation=tests/another_implementation.py` must pass; test_implementation.py makes
files of it in which one function is wrong, and demands that each is found.
"""

import autograd.numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval
from scipy.special import expit


def mean(x, axis=None):
    return np.sum(x, axis) * (1 / (x.size if axis is None else x.shape[axis]))


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def log_softmax(z):
    z = z - getval(z).max(-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), -1, keepdims=True))


# Eqs. (1) to (3)

def surrogate_grad(v, surrogate="triangle", width=1.0):
    v, a = np.asarray(v), width
    if surrogate == "triangle":
        return np.maximum(1 - abs(v) / a, 0) / a
    if surrogate == "atan":
        return 1 / a / (1 + (np.pi * v / a) ** 2)
    if surrogate == "sigmoid":
        return expit(v / a) * expit(-v / a) / a
    if surrogate == "rectangle":
        return (abs(v) < a / 2).astype(v.dtype) / a
    raise ValueError(f"no surrogate {surrogate}")              # fast_sigmoid is left out


def make_spike(fires=lambda v: v > 0):
    @primitive
    def spike(v, surrogate="triangle", width=1.0):
        return fires(v).astype(v.dtype)

    def vjp(s, v, surrogate="triangle", width=1.0):
        return lambda g: g * surrogate_grad(v, surrogate, width)

    defvjp(spike, vjp, argnums=(0,))
    return spike


def lif_step(u, s, current, tau=0.5):
    return tau * u * (1 - s) + current


def make_lif(
    fires=lambda v: v > 0,
    step=lambda tau, u, x: tau * u + x,
    keep=lambda u, s: u * (1 - s),
):
    spike = make_spike(fires)

    def lif(current, tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True):
        potentials = [current[0]]
        spikes = [spike(current[0] - v_th, surrogate, width)]
        for x in current[1:]:
            s = getval(spikes[-1]) if detach_reset else spikes[-1]
            u = step(tau, keep(potentials[-1], s), x)
            potentials.append(u)
            spikes.append(spike(u - v_th, surrogate, width))
        return np.stack(spikes), np.stack(potentials)

    return lif


# Eq. (4)

def check_events(events, sensor_size):
    return events


def make_bin_events(
    lose_last=False, swap_axes=False, flip_polarity=False, binary=False, edge_before=False
):
    def bin_events(events, T, sensor_size, window=None, rule="conserving"):
        if rule != "conserving":
            raise NotImplementedError(f"rule {rule}")
        H, W = sensor_size
        rows = events.tolist()
        first, last = window or (rows[0][0], rows[-1][0])
        frames = np.zeros((T, H, W, 2), np.float32)
        for t, x, y, p in rows[:-1] if lose_last else rows:
            if not first <= t <= last:
                continue
            k = ((t - first) * T - edge_before) // max(last - first, 1)
            k = min(max(k, 0), T - 1) if last > first else 0
            x, y = (y, x) if swap_axes else (x, y)
            frames[k, y % H, x % W, 1 - p if flip_polarity else p] += 1
        return np.minimum(frames, 1) if binary else frames

    return bin_events


# Eqs. (5) and (6)

def centre(X):
    X = X - X[:1]
    return X - mean(X, 0)


def inner(K, L):
    return np.sum(K * L)


def without_diagonal(K):
    n = len(K)
    off = 1 - np.eye(n, dtype=K.dtype)
    K = K * off
    rows = np.sum(K, 0) * (1 / (n - 2))
    total = np.sum(K) * (1 / ((n - 1) * (n - 2)))
    return (K - rows[:, None] - rows[None] + total) * off


def make_linear_cka(centre=centre, power=0.5, number=inner, outcome=lambda cka: cka):
    def linear_cka(X, Y, debiased=False, eps=0.0):
        X, Y = centre(X), centre(Y)
        K, L = np.dot(X, X.T), np.dot(Y, Y.T)
        if debiased:
            K, L = without_diagonal(K), without_diagonal(L)
        KK, LL = number(K, K), number(L, L)
        norms = (KK + (KK == 0)) ** power * (LL + (LL == 0)) ** power
        return outcome(number(K, L) / (norms + eps))

    return linear_cka


def each_step(s, d, eps):
    T, B = s.shape[:2]
    s, d = np.reshape(s, (T, B, -1)), np.reshape(d, (T, B, -1))
    return np.stack([1 - linear_cka(s[t], d[t], eps=eps) for t in range(T)])


def make_domain_alignment_loss(distances=each_step, over_time=mean, weigh=sigmoid):
    def domain_alignment_loss(features_s, features_d, theta=None, eps=1e-7):
        distance = distances(features_s, features_d, eps)
        return over_time(distance if theta is None else weigh(theta) * distance)

    return domain_alignment_loss


# Cross-entropy and TET, Eqs. (7), (9) and (11)

def cross_entropy(logits, labels):
    target = np.eye(logits.shape[-1])[labels].astype(getval(logits).dtype)
    return -np.sum(log_softmax(logits) * target, -1)


def tet_loss(logits, labels, lam=1e-3, target=1.0, weights=None):
    outliers = mean((logits - target) ** 2, 2)
    steps = mean((1 - lam) * cross_entropy(logits, labels) + lam * outliers, 1)
    return mean(steps if weights is None else weights * steps)


def tet_of_the_mean(logits, labels, lam=1e-3, target=1.0, weights=None):
    """Wrong: the time steps are not classified one by one."""
    return tet_loss(mean(logits, 0)[None], labels, lam, target)


def make_kd_loss(power=2, soften=True, over_batch=mean, swap=False, sign=1):
    def kd_loss(teacher, student, temperature=4.0):
        tau = temperature if soften else 1
        log_p, log_q = log_softmax(teacher / tau), log_softmax(student / tau)
        if swap:
            log_p, log_q = log_q, log_p
        return sign * temperature**power * over_batch(np.sum(np.exp(log_p) * (log_p - log_q), 1))

    return kd_loss


def mean_output(teacher, static, event, temperature):
    return kd_loss(teacher, mean(static, 0), temperature)


def make_ckd_loss(
    cls_e_counts=1, alpha_counts=True, beta_counts=True, weigh=sigmoid,
    distil=mean_output, gamma_of=float,
):
    def ckd_loss(
        static_logits, event_logits, features_s, features_d, labels, theta, teacher_logits=None,
        gamma=0.0, alpha=1.0, beta=1.0, temperature=4.0, lam=1e-3, target=1.0, reading="paper",
    ):
        a = weigh(theta)
        cls_s = tet_loss(static_logits, labels, lam, target)
        cls_e = tet_loss(event_logits, labels, lam, target)
        da = make_domain_alignment_loss(weigh=weigh)(features_s, features_d, theta)
        if reading == "paper":
            da = da + mean(1 - a) * cls_e
        else:
            cls_e = tet_loss(event_logits, labels, lam, target, 1 - a)
        parts = {"cls_s": cls_s, "da": da, "cls_e": cls_e}
        total = (alpha if alpha_counts else 1.0) * cls_s + cls_e_counts * cls_e
        total = total + (beta if beta_counts else 1.0) * da
        if teacher_logits is not None:
            parts["kd"] = distil(teacher_logits, static_logits, event_logits, temperature)
            total = total + gamma_of(gamma) * parts["kd"]
        return total, {name: float(getval(part)) for name, part in parts.items()}

    return ckd_loss


# Eqs. (8) and (10)

def replacement_probability(batch, epoch, batches_per_epoch, epochs, power=3):
    progress = (batch + epoch * batches_per_epoch) / (batches_per_epoch * epochs)
    return min(max(progress, 0), 1) ** power


def phase_weight(epoch, threshold, slope):
    return expit(slope * (threshold - epoch))


spike = make_spike()
lif = make_lif()
bin_events = make_bin_events()
linear_cka = make_linear_cka()
domain_alignment_loss = make_domain_alignment_loss()
kd_loss = make_kd_loss()
ckd_loss = make_ckd_loss()
