"""The loss of CKD and its parts (Sec. III, Eqs. 5-7, 9 and 11)."""

from collections.abc import Callable

import autograd.numpy as np
from autograd.tracer import getval
from numpy import ndarray

from ._numerics import (
    check_pair,
    check_shape,
    check_steps,
    kl_divergence,
    log_softmax,
    mean,
    one_hot,
    sigmoid,
)
from .similarity import linear_cka


def cross_entropy(logits: ndarray, labels: ndarray) -> ndarray:
    """Cross-entropy of each sample, ``-log softmax(logits)[label]``.

    Parameters
    ----------
    logits : (..., B, K) array of floats
    labels : (B,) array of integers in 0 ... K - 1
        Or floats (B, K), the share of every class in a mixed sample: then the losses of the
        classes, weighted by it.

    Returns
    -------
    loss : (..., B), in nats.
    """
    return -np.sum(one_hot(labels, logits) * log_softmax(logits), axis=-1)


def tet_loss(
    logits: ndarray, labels: ndarray, lam: float = 1e-3, target: float = 1.0,
    weights: ndarray | None = None,
) -> float:
    """Temporal efficient training: every time step is to classify (Deng et al., 2022 [23]).

    ``mean_t w_t ((1 - lam) CE(o_t, y) + lam mean((o_t - target)^2))``, with w_t = 1 in the
    original.

    Assumption: the paper names the loss, not its constants. lam = 0.001 is the original's, and so
    is the target, the firing threshold, which is 1 here. A target of 0.5 is the same loss of
    outputs that are 0.5 higher, a shift that the bias of the linear head takes up. Baseline: fills
    the target with args.threshold, 0.5, in train_epoch of main_transfer.py.
    Test: `test_tet_target_is_a_shift_of_the_outputs`.

    Parameters
    ----------
    logits : (T, B, K) array of floats
    labels : (B,) array of integers in 0 ... K - 1, or (B, K) shares; see `cross_entropy`
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
    check_steps(logits)
    check_shape("weights", weights, np.shape(logits)[:1])
    outliers = mean((logits - target) ** 2, axis=2)            # (T, B)
    steps = mean((1 - lam) * cross_entropy(logits, labels) + lam * outliers, axis=1)  # (T,)
    return mean(steps if weights is None else weights * steps)


def domain_alignment_loss(
    features_s: ndarray, features_d: ndarray, theta: ndarray | None = None, eps: float = 1e-7,
    cls_e: float | None = None,
) -> float:
    """How differently the two streams see the same pairs, per time step (Eqs. 5 and 6).

    Eq. (5): ``L_DA = 1 - mean_t CKA(F_s[t], F_d[t])``

    Eq. (6): ``L_DA = mean_t sigmoid(theta_t) (1 - CKA(F_s[t], F_d[t]))
    + mean_t (1 - sigmoid(theta_t)) L_cls-e``; without `cls_e` its first sum alone.

    Assumption: ``y_i = y_j`` under the paper's CKA means that row b of both streams has the same
    class; rows are compared, not classes. Baseline: alike, in train_epoch of main_transfer.py.
    Test: `test_eq05_cka_is_symmetric_and_sees_the_pairing`.
    Assumption: eps = 1e-7 in CKA's denominator, which Eq. (5) does not have.
    Test: `test_eq07_golden_alignment_with_both_sums`.

    Parameters
    ----------
    features_s, features_d : (T, B, ...) arrays of floats
        Features of the static and the event stream, flattened here.
    theta : (T,) array, optional
        Learned coefficients; without them Eq. (5).
    eps : float
        Added to CKA's denominator, as in the baseline.
    cls_e : scalar, optional
        The event stream's classification loss.

    Returns
    -------
    loss : scalar; in [0, 1] without `cls_e`.
    """
    T, B = np.shape(features_s)[:2]
    if np.shape(features_d)[:2] != (T, B) or T < 1:
        raise ValueError(
            "expected features (T, B, ...) of the same T >= 1 and B in both streams, "
            f"got {np.shape(features_s)} and {np.shape(features_d)}"
        )
    check_shape("theta", theta, (T,))
    features_s = np.reshape(features_s, (T, B, -1))            # (T, B, D1)
    features_d = np.reshape(features_d, (T, B, -1))            # (T, B, D2)
    distance = 1 - linear_cka(features_s, features_d, eps=eps)  # (T,)
    if theta is None:
        return mean(distance)
    first_sum = mean(sigmoid(theta) * distance)
    if cls_e is None:
        return first_sum
    return first_sum + mean(1 - sigmoid(theta)) * cls_e


def kd_loss(teacher_logits: ndarray, student_logits: ndarray, temperature: float = 4.0) -> float:
    """Knowledge distillation: the student's softened outputs are to be the teacher's.

    Eq. (9): ``L_KD = tau^2 mean_B sum_i p_i log(p_i / q_i)``, p and q the softmaxes of teacher
    and student logits over tau.

    Deviation: Eq. (9) is printed without tau^2 and without the mean over the batch. Both belong
    to the method it cites (Hinton et al., 2015) and keep the gradient's scale independent of
    temperature and batch. Test: `test_eq09_value_by_hand`.
    Assumption: the paper never gives the temperature; 4 is usual.
    Test: `test_eq09_default_temperature_is_4`.

    Parameters
    ----------
    teacher_logits, student_logits : (B, K) arrays of floats
        Best by name: exchanged they are a valid call with another loss.
    temperature : float
        tau > 0; not the neuron's tau.

    Returns
    -------
    loss : scalar >= 0, in nats
    """
    check_pair(teacher_logits, student_logits, temperature)
    log_p = log_softmax(teacher_logits / temperature)
    log_q = log_softmax(student_logits / temperature)
    return mean(kl_divergence(log_p, log_q)) * temperature**2


def ckd_loss(
    static_logits: ndarray, event_logits: ndarray, features_s: ndarray, features_d: ndarray,
    labels: ndarray, theta: ndarray, teacher_logits: ndarray | None = None, gamma: float = 0.0,
    alpha: float = 1.0, beta: float = 1.0, temperature: float = 4.0, lam: float = 1e-3,
    target: float = 1.0, reading: str = "paper",
    distill: Callable[[ndarray, ndarray], float] | None = None, kd_per_step: bool = False,
) -> tuple[float, dict[str, float]]:
    """The whole loss of one batch, ``L_S + L_cls-e``, with the L_S of Eq. (7) or Eq. (11).

    Eq. (7): ``L_S = alpha L_cls-s + beta L_DA``, the baseline, which has no teacher.

    Eq. (11): ``L_S = alpha L_cls-s + beta L_DA + gamma L_KD``

    Deviation: Eq. (6) and the total both contain L_cls-e. ``reading="paper"``, the default, has
    both, as printed. ``reading="baseline"`` counts it once, with step t weighted by
    ``1 - sigmoid(theta_t)``. Baseline: train_epoch of main_transfer.py, where loss_dvs is
    weighted before it is added. Test: `test_eq07_readings_differ_by_the_weights_of_the_event_loss`.
    Assumption: the student's logits are averaged over time before they are compared with the
    teacher's; ``kd_per_step=True`` compares every step instead.
    Test: `test_eq11_golden_distillation_per_step_or_on_the_mean`.
    Assumption: the teacher speaks of a pair's static image also where an event sample has replaced
    it, on which the paper is silent. Test: `test_teacher_logits_are_those_of_the_image`.

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
        The teacher's logits for the static image of each pair, also where an event sample has
        replaced it. Without them L_KD is left out.
    gamma : float
        Weight of the distillation, Eq. (10).
    alpha, beta : float
        Weights of L_cls-s and L_DA; 1 and 1 in the paper, the baseline has beta = 0.5. A part of
        weight 0 is reported but not added, finite or not.
    temperature : float
        See `kd_loss`.
    lam, target : float
        See `tet_loss`.
    reading : {"paper", "baseline"}
    distill : function, optional
        (teacher logits, student logits), both (B, K), to the scalar L_KD; default `kd_loss` at
        the temperature.
    kd_per_step : bool
        Distil every time step and average the losses, instead of the time-averaged logits.

    Returns
    -------
    total : scalar
    parts : dict of floats
        ``cls_s``, ``da``, ``kd`` and ``cls_e`` for the log, before alpha, beta and gamma. ``da``
        has both sums of Eq. (6) in the paper's reading; the steps of ``cls_e`` have their weights
        in the baseline's.
    """
    if reading not in ("paper", "baseline"):
        raise ValueError(f'expected reading "paper" or "baseline", got {reading!r}')
    if distill is None:
        def distill(teacher, student):
            return kd_loss(teacher, student, temperature)

    cls_s = tet_loss(static_logits, labels, lam, target)
    if reading == "paper":
        cls_e = tet_loss(event_logits, labels, lam, target)
        da = domain_alignment_loss(features_s, features_d, theta, cls_e=cls_e)
    else:
        cls_e = tet_loss(event_logits, labels, lam, target, weights=1 - sigmoid(theta))
        da = domain_alignment_loss(features_s, features_d, theta)
    parts = {"cls_s": cls_s, "da": da, "cls_e": cls_e}
    if teacher_logits is None:
        kd = 0.0
    else:
        steps = list(static_logits) if kd_per_step else [mean(static_logits, axis=0)]
        kd = sum(distill(teacher_logits, step) for step in steps) * (1 / len(steps))
        parts["kd"] = kd

    L_S = _weighted(alpha, cls_s) + _weighted(beta, da) + _weighted(gamma, kd)
    return L_S + cls_e, {name: float(getval(part)) for name, part in parts.items()}


def _weighted(weight, part):
    """``weight * part``, but 0 where the weight is 0: 0 times Inf would be NaN."""
    return float(weight) * part if weight else 0.0
