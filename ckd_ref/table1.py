"""What Table I compares: two augmentations of event frames, and two losses between time steps.

NDA and EventMix change a batch, TKS and ETC its loss; the other rows of the table are TET
(`losses.tet_loss`) and Knowledge-Transfer (`losses.ckd_loss` without a teacher). On CEP-DVS
recordings are flipped and rotated for every method.
"""

import math

import autograd.numpy as np
from autograd.tracer import getval
from numpy import ndarray
from numpy.random import Generator
from scipy import ndimage

from ._numerics import (
    check_classes,
    check_steps,
    check_temperature,
    kl_divergence,
    log_softmax,
    mean,
)
from .losses import cross_entropy

COMPONENTS = 3
"""Gaussians in the mixture of EventMix."""


def etc_loss(logits: ndarray, temperature: float = 1.0) -> float:
    """Enhancing temporal consistency (Zhao et al., 2025 [28]): every step learns from all others.

    ``tau^2 mean_{i != j} mean_B KL(softmax(o_j / tau) || softmax(o_i / tau))``: step j teaches
    step i, and its own outputs are a constant in that.

    Parameters
    ----------
    logits : (T, B, K) array of floats, T at least 2
    temperature : float
        tau > 0.

    Returns
    -------
    loss : scalar >= 0, in nats
    """
    check_steps(logits)
    check_temperature(temperature)
    T, B, _ = np.shape(logits)
    if T < 2:
        raise ValueError("expected at least two time steps to compare, got T = 1")
    log_q = log_softmax(logits / temperature)                  # (T, B, K)
    log_p = getval(log_q)
    # A step taught by itself adds nothing, to the loss or to its gradient.
    divergence = kl_divergence(log_p, log_q[:, None])          # (T, T, B)
    return np.sum(divergence) * (temperature**2 / (T * (T - 1) * B))


def tks_loss(logits: ndarray, labels: ndarray, temperature: float = 1.0) -> tuple[float, float]:
    """Temporal knowledge sharing (Dong et al., 2023): right time steps teach all time steps.

    ``loss1 = mean_B CE(mean_t o_t, y)`` and ``loss2 = tau^2 mean_t mean_B sum_i p_i (-log q_ti)``,
    q_t the softmax of the outputs o_t, p that of ``sum_t o_t 1[argmax o_t = y] / tau``: of the
    steps that are right. Where none is, p is the same for all classes.

    The paper's reference [27] is another article by the same authors; its table means Temporal
    knowledge sharing enable spiking neural network learning from past and future,
    arXiv:2304.06540. The gradient flows through p as well, as in the original.

    Parameters
    ----------
    logits : (T, B, K) array of floats
    labels : (B,) array of integers in 0 ... K - 1
    temperature : float
        tau > 0, of the teaching steps only.

    Returns
    -------
    loss1, loss2 : scalars
        Of the classification, and of the shared knowledge; `sharing_weight` weighs them.
    """
    check_steps(logits)
    check_temperature(temperature)
    check_classes(labels)
    loss1 = mean(cross_entropy(mean(logits, axis=0), labels))
    right = getval(logits).argmax(axis=-1) == labels           # (T, B)
    taught = np.sum(logits * right[..., None], axis=0)         # (B, K)
    p = np.exp(log_softmax(taught / temperature))
    loss2 = mean(-np.sum(p * log_softmax(logits), axis=-1)) * temperature**2
    return loss1, loss2


def sharing_weight(epoch: int, epochs: int, last: float = 0.7) -> float:
    """Weight of the second loss of `tks_loss` in an epoch; the first one has the rest of 1.

    Assumption: the paper names TKS, not its constants. ``last * epoch / epochs`` is the original's
    schedule and 0.7 the value in its command line. Test: `test_tks_weight_grows_over_the_epochs`.

    Parameters
    ----------
    epoch : int
        Counted from 0.
    epochs : int
        Length of the training.
    last : float
        What the weight tends to.

    Returns
    -------
    weight : float in [0, last)
    """
    return last * epoch / epochs


def eventmix(a: ndarray, b: ndarray, mask: ndarray) -> tuple[ndarray, float]:
    """EventMix (Shen et al., 2023 [26]): events of b inside a mask, of a outside of it.

    ``lam = A / (A + B)``, A the share of a's events outside of the mask and B the share of b's
    inside: the label of the result is a's with weight lam and b's with weight 1 - lam.

    Assumption: a recording without events counts as one spread evenly, and where no events are
    left lam is the share of cells outside of the mask; the original divides 0 by 0.
    Test: `test_eventmix_labels_without_events`.

    Parameters
    ----------
    a, b : (T, H, W, 2) arrays of one dtype
        Frames of two recordings.
    mask : (T, H, W) or (T, H, W, 2) bool

    Returns
    -------
    mixed : (T, H, W, 2), the same dtype
    lam : float in [0, 1]
    """
    mask = np.asarray(mask)
    whole = mask[..., None] if mask.ndim == a.ndim - 1 else mask
    if a.shape != b.shape or a.dtype != b.dtype or mask.dtype != bool or (
        whole.shape[:-1] != a.shape[:-1] or whole.shape[-1] not in (1, a.shape[-1])
    ):
        raise ValueError(
            "expected two recordings (T, H, W, 2) of one shape and dtype and a mask (T, H, W) of "
            f"booleans, got {a.shape} {a.dtype}, {b.shape} {b.dtype} and {mask.shape} {mask.dtype}"
        )
    whole = np.broadcast_to(whole, a.shape)
    mixed = np.where(whole, b, a)
    of_a = _share_inside(a, ~whole)
    of_b = _share_inside(b, whole)
    if of_a + of_b == 0:
        return mixed, float(1 - whole.mean())
    return mixed, float(of_a / (of_a + of_b))


def eventmix_mask(T: int, H: int, W: int, share: float, rng: Generator) -> ndarray:
    """A random mask for `eventmix`: where a mixture of Gaussians in time and space is highest.

    ``sum_k h_k exp(-((t - t_k)^2 / a_k^2 + (y - y_k)^2 / b_k^2 + (x - x_k)^2 / c_k^2) / 2)`` with
    heights h_k, centres (t_k, y_k, x_k) and standard deviations a_k, b_k and c_k.

    Assumption: three Gaussians of random height, centred anywhere, with standard deviations of 5
    to 50 % of each side. Baseline: GMM_mask in braincog/datasets/cut_mix.py, which keeps
    ``1 - rat`` of the cells, and has three Gaussians by the default of its programs.
    Test: `test_eventmix_mask_has_its_share_of_the_cells`.

    Parameters
    ----------
    T, H, W : int
        Time steps, rows and columns, at least 1.
    share : float in [0, 1]
        Share of the cells inside the mask, to the nearest whole number of cells.
    rng : numpy.random.Generator

    Returns
    -------
    mask : (T, H, W) bool
        The same for both polarities.
    """
    if min(T, H, W) < 1 or not 0 <= share <= 1:
        raise ValueError(
            f"expected T, H, W >= 1 and a share in [0, 1], got {T}, {H}, {W} and {share!r}"
        )
    sides = np.array([T, H, W])
    heights = rng.random(COMPONENTS)
    centres = rng.integers(sides, size=(COMPONENTS, 3))
    widths = 0.5 * sides * np.maximum(rng.random((COMPONENTS, 3)), 0.1)
    density = np.zeros((T, H, W))
    for height, centre, width in zip(heights, centres, widths):
        t, y, x = (
            np.exp(-0.5 * ((np.arange(side) - c) / w) ** 2)
            for side, c, w in zip(sides, centre, width)
        )
        density += height * t[:, None, None] * y[:, None] * x
    order = np.argsort(density, axis=None)
    mask = np.zeros(T * H * W, bool)
    mask[order[mask.size - round(mask.size * share):]] = True
    return mask.reshape(T, H, W)


def nda(frames: ndarray, rng: Generator) -> ndarray:
    """Neuromorphic data augmentation (Li et al., 2022 [25]): every recording is moved as a whole.

    A flip from left to right with probability 1/2, then one of four, all equally likely: rolling
    by up to 1/16 of each side, rounded up, rotation by up to 15 degrees, a square of 1/6 of the
    side cut out, shear by up to 15 degrees.

    Assumption: one of the four at a time, at the strengths of the authors' program for
    N-Caltech101, 3 pixels of 48 and 15 degrees, which leaves flip and cutout out; a cutout of 8
    pixels of 48 is put beside them. Pixels move whole (nearest neighbour), so that counts stay
    counts.
    Test: `test_nda_moves_are_those_of_the_source`.

    Parameters
    ----------
    frames : (T, B, H, W, C) array, or (T, H, W, C) for a single recording
    rng : numpy.random.Generator

    Returns
    -------
    moved : the same shape and dtype
        One draw per recording, the same for all T and C. What comes from outside is 0.
    """
    return _move(frames, lambda source: _draw_move(source, rng))


def flip_and_rotate(
    frames: ndarray, rng: Generator, flip: bool = True, degrees: float = 15.0
) -> ndarray:
    """Flip every recording from left to right with probability 1/2, then rotate it.

    Assumption: the paper names no augmentation. Baseline: RandomHorizontalFlip and
    RandomRotation(15) behind the crop of the recordings, not of the images, with --DVS-DA, as its
    commands for CEP-DVS have it and those for N-Caltech101 do not: get_CEPDVS_data in
    braincog/datasets/datasets.py, run_aba.sh.
    Test: `test_flip_and_rotation_leave_the_images_alone`.

    Parameters
    ----------
    frames : (T, B, H, W, C) array, or (T, H, W, C) for a single recording
    rng : numpy.random.Generator
    flip : bool
        Whether to flip.
    degrees : float >= 0
        The largest angle, to either side; all angles are equally likely.

    Returns
    -------
    moved : the same shape and dtype
        One draw per recording, the same for all T and C. Pixels move whole; what comes from
        outside is 0.
    """
    if not 0 <= degrees < math.inf:
        raise ValueError(f"expected degrees >= 0, got {degrees!r}")

    def draw(source):
        if flip:
            source = _flip_half(source, rng)
        return _rotate(source, rng.uniform(-degrees, degrees))

    return _move(frames, draw)


# A move is a map (H, W): the number of the pixel that comes here, -1 for none.

def _move(frames, draw):
    """Move each recording by a map of its own, which `draw` makes of the map that moves nothing."""
    if frames.ndim == 4:
        return _move(frames[:, None], draw)[:, 0]
    if frames.ndim != 5:
        raise ValueError(
            f"expected frames (T, B, H, W, C) or (T, H, W, C), got shape {frames.shape}"
        )
    T, B, H, W, C = frames.shape
    moved = np.empty_like(frames)
    for b in range(B):
        source = draw(np.arange(H * W).reshape(H, W))
        pixels = frames[:, b].reshape(T, H * W, C)
        moved[:, b] = np.where(source[..., None] >= 0, pixels[:, source], 0)
    return moved


def _draw_move(source, rng):
    source = _flip_half(source, rng)
    H, W = source.shape
    kind = rng.integers(4)
    if kind == 0:
        reach = -(-H // 16), -(-W // 16)
        return _roll(source, *rng.integers(np.negative(reach), reach, endpoint=True))
    if kind == 1:
        return _rotate(source, rng.uniform(-15, 15))
    if kind == 2:
        return _cut_out(source, rng.integers(H), rng.integers(W), min(H, W) // 6)
    return _shear(source, rng.uniform(-15, 15))


def _flip_half(source, rng):
    """From left to right, with probability 1/2."""
    return source[:, ::-1] if rng.random() < 0.5 else source


def _roll(source, down, right):
    """What leaves on one side comes back on the other."""
    return np.roll(source, (down, right), axis=(0, 1))


def _cut_out(source, row, column, side):
    """A square around a pixel becomes empty; at the border a part of it."""
    source = source.copy()
    top, left = max(row - side // 2, 0), max(column - side // 2, 0)
    source[top:row - side // 2 + side, left:column - side // 2 + side] = -1
    return source


def _rotate(source, degrees):
    """Counterclockwise around the centre."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return _linear(source, np.array([[c, s], [-s, c]]))


def _shear(source, degrees):
    """Rows move sideways, in proportion to their distance from the middle one."""
    return _linear(source, np.array([[1, 0], [np.tan(np.radians(degrees)), 1]]))


def _linear(source, matrix):
    """What lies at ``centre + matrix @ (p - centre)``, rows first, comes to p."""
    centre = (np.array(source.shape) - 1) / 2
    return ndimage.affine_transform(
        source, matrix, centre - matrix @ centre, order=0, mode="grid-constant", cval=-1
    )


def _share_inside(frames, mask):
    """Share of the events that are inside the mask."""
    total = frames.sum(dtype=float)
    return frames[mask].sum(dtype=float) / total if total > 0 else mask.mean()
