"""Batches of paired data: pairs of a class, replacement (Eq. 8), random crops."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from .color import value_frames
from .schedules import replacement_probability
from .table1 import eventmix, eventmix_mask, flip_and_rotate, nda


@dataclasses.dataclass(frozen=True)
class Batch:
    """Pairs of the same class.

    Attributes
    ----------
    static, events : (T, B, size, size, 2) arrays of floats
        Frames of the two streams; in `static`, some rows have been replaced by those of `events`.
    labels : (B,) array of int
    teacher_logits : (B, K) array, optional
        What the teacher says of the static image of each pair, replaced or not.
    shares : (B, K) array, optional
        Share of every class in each row of `events`, where recordings have been mixed.
    """

    static: ndarray
    events: ndarray
    labels: ndarray
    teacher_logits: ndarray | None = None
    shares: ndarray | None = None


class BatchSampler:
    """Draws the batches of a training from data in memory.

    Assumption: the two streams of a pair are cropped independently of each other, which the paper
    leaves open. Baseline: reads the images once, before the first epoch, and the events in every
    epoch, main and train_epoch of main_transfer.py; the two cannot share a crop.
    Test: `test_streams_are_cropped_independently`.
    Deviation: a teacher given as logits, one row per image, has seen the whole image, where the
    paper's teacher sees the batch. One given as a function sees what the student sees.
    Test: `test_teacher_sees_the_crop_of_the_student`.

    Parameters
    ----------
    data : PairedData
        Its recordings of the pool `train` and images of the pool `static` are read.
    config : Config
    teacher : function or (M, K) array, optional
        From RGB images (B, size, size, 3) in [0, 1], cropped as for the student, to logits (B, K);
        or one row of logits per image of the data.
    """

    def __init__(
        self, data: Any, config: Any, teacher: Callable[[ndarray], ndarray] | ndarray | None = None
    ) -> None:
        recordings, images = training_pools(data, config)
        self.config = config
        self.classes = len(data.classes)
        self.frames = data.frames(recordings, config.T, config.size)   # (T, R, size, size, 2)
        self.event_label = data.event_label[recordings]                # (R,)
        self.pixels = data.images(images)                              # (M, size, size, 3)
        self.image_label = data.image_label[images]                    # (M,)
        self.teacher = teacher if teacher is None or callable(teacher) else teacher[images]

    def draw(self, index: int, epoch: int, rng: Generator) -> Batch:
        """A batch for this position in the training. Every method draws the same numbers.

        What flips, rotations, `nda` and `eventmix` draw comes from generators of their own.

        Parameters
        ----------
        index, epoch : int
            Number of the batch in its epoch, and of the epoch, from 0; they decide Eq. (8).
        rng : numpy.random.Generator

        Returns
        -------
        batch : Batch
        """
        config = self.config
        i, j = sample_pairs(self.event_label, self.image_label, config.batch, rng)
        events = random_crop(self.frames[:, i], config.padding, rng)   # (T, B, size, size, 2)
        if config.flip or config.rotation:
            events = flip_and_rotate(events, _apart(rng), config.flip, config.rotation)
        images = random_crop(self.pixels[None, j], config.padding, rng)[0]  # (B, size, size, 3)
        static = value_frames(images, config.T)                        # (T, B, size, size, 2)
        probability = replacement_probability(index, epoch, config.batches, config.epochs)
        mask = replacement_mask(probability, rng.random(config.batch))
        logits = self._ask_teacher(j, images)
        static = replace_static(static, events, mask)
        labels, shares = self.event_label[i], None
        if config.method == "nda":
            events = nda(events, _apart(rng))
        if config.method == "eventmix":
            events, shares = mix_recordings(events, labels, self.classes, _apart(rng))
        return Batch(static, events, labels, logits, shares)

    def _ask_teacher(self, j, images):
        """Logits (B, K) for the images at positions j of the static pool, and their crops."""
        if self.teacher is None:
            return None
        if callable(self.teacher):
            return np.asarray(self.teacher(images), images.dtype)
        return self.teacher[j]


def _apart(rng):
    """A generator that follows from the state of `rng`, which stays as it is."""
    far_ahead = np.random.Generator(rng.bit_generator.jumped())
    return np.random.default_rng(far_ahead.integers(2**63))


def training_pools(data: Any, config: Any) -> tuple[ndarray, ndarray]:
    """Positions of the recordings, (R,), and of the images, (M,), that a run trains on."""
    recordings, images = data.recordings_in("train"), data.images_in("static")
    recordings = recordings[first_of_class(data.event_label[recordings], config.events_per_class)]
    images = images[first_of_class(data.image_label[images], config.static_per_class)]
    return recordings, images


def first_of_class(label: ndarray, count: int | None) -> ndarray:
    """Positions of the first samples of every class, in their order.

    Parameters
    ----------
    label : (M,) array of int
        Class of each sample.
    count : int or None
        How many of each class; None for all.

    Returns
    -------
    positions : (N,) int64

    Raises
    ------
    ValueError
        A class has fewer.
    """
    if count is None:
        return np.arange(len(label))
    kept = []
    for k in np.unique(label):
        of_class = np.flatnonzero(label == k)
        if len(of_class) < count:
            raise ValueError(
                f"expected at least {count} samples of every class, got {len(of_class)} of "
                f"class {k}"
            )
        kept.append(of_class[:count])
    return np.sort(np.concatenate(kept))


def sample_pairs(
    event_label: ndarray, image_label: ndarray, batch: int, rng: Generator
) -> tuple[ndarray, ndarray]:
    """Draw recordings and, for each, an image of the same class (Sec. III-A1).

    Class-balanced, with replacement: every class is equally likely at every draw, and so is every
    recording, and every image, of the class drawn.

    Parameters
    ----------
    event_label, image_label : (R,), (M,) arrays of int
        Class of each recording and of each image that may be drawn.
    batch : int
        Number of pairs, at least 1.
    rng : numpy.random.Generator

    Returns
    -------
    event_index, image_index : (batch,) int64
        Positions in the two arrays, with ``event_label[event_index] == image_label[image_index]``.

    Raises
    ------
    ValueError
        A class on one side only.

    Notes
    -----
    Assumption: the paper does not say how pairs are drawn, here balanced over the classes.
    Test: `test_pairs_are_balanced_over_classes_and_within`.
    Deviation: an image is drawn from those of its class with the end exclusive. Baseline: adds 1
    to the end in the torch.randint of train_epoch, main_transfer.py, and so can draw the first
    held-out image of the class. Test: `test_the_first_held_out_image_is_never_drawn`.
    """
    classes = np.unique(event_label)
    alone = np.setxor1d(classes, image_label)
    if len(alone) or len(classes) == 0 or batch < 1:
        raise ValueError(
            "expected a batch >= 1 and the same classes, at least one, among recordings and "
            f"images, got batch = {batch} and, on one side only, the classes {alone.tolist()}"
        )
    label = classes[rng.integers(len(classes), size=batch)]
    return _draw_of_class(event_label, label, rng), _draw_of_class(image_label, label, rng)


def _draw_of_class(label, wanted, rng):
    """A random position in `label` for each class wanted."""
    order = np.argsort(label, kind="stable")
    begin = np.searchsorted(label, wanted, "left", sorter=order)
    end = np.searchsorted(label, wanted, "right", sorter=order)
    return order[rng.integers(begin, end)]


def replacement_mask(probability: float, uniforms: ndarray) -> ndarray:
    """Which samples of the static stream are replaced, given the probability of Eq. (8).

    Assumption: every sample of a batch has its own draw, and one that equals the probability
    replaces; the paper says neither. Test: `test_eq08_mask_equals_the_baselines`.

    Parameters
    ----------
    probability : float in [0, 1]
    uniforms : (B,) array of floats in [0, 1]
        One draw per sample; those up to the probability are replaced, and none at 0.

    Returns
    -------
    mask : (B,) bool
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"expected a probability in [0, 1], got {probability!r}")
    return (np.asarray(uniforms) <= probability) & (probability > 0)


def replace_static(static: ndarray, events: ndarray, mask: ndarray) -> ndarray:
    """Replace samples of the static stream by the event samples of their rows (Sec. III-A2).

    Parameters
    ----------
    static, events : (T, B, H, W, 2) arrays of one dtype
    mask : (B,) bool

    Returns
    -------
    hybrid : (T, B, H, W, 2), the same dtype; row b is that of `events`, at every t and polarity,
        where ``mask[b]``.
    """
    mask = np.asarray(mask)
    if static.shape != events.shape or static.dtype != events.dtype or static.ndim != 5:
        raise ValueError(
            "expected two streams (T, B, H, W, 2) of one shape and dtype, "
            f"got {static.shape} {static.dtype} and {events.shape} {events.dtype}"
        )
    if mask.shape != static.shape[1:2] or mask.dtype != bool:
        raise ValueError(
            f"expected a mask of {static.shape[1]} booleans, got {mask.dtype} {mask.shape}"
        )
    return np.where(mask[None, :, None, None, None], events, static)


def random_crop(frames: ndarray, padding: int, rng: Generator) -> ndarray:
    """Shift each sample by up to `padding` pixels each way, with zeros around it.

    Parameters
    ----------
    frames : (T, B, H, W, C) array
    padding : int >= 0
        Pixels on each side.
    rng : numpy.random.Generator

    Returns
    -------
    cropped : (T, B, H, W, C), the same dtype; one offset per sample, the same for all T.

    Notes
    -----
    Assumption: the paper names no augmentation. Baseline: crops 48 x 48 with a padding of 4,
    get_NCALTECH101_data in braincog/datasets/datasets.py.
    Test: `test_crop_equals_the_shifted_sample`.
    """
    if frames.ndim != 5 or int(padding) != padding or padding < 0:
        raise ValueError(
            "expected frames (T, B, H, W, C) and a whole padding >= 0, "
            f"got {frames.shape}, {padding!r}"
        )
    _, B, H, W, _ = frames.shape
    P = int(padding)
    padded = np.pad(frames, ((0, 0), (0, 0), (P, P), (P, P), (0, 0)))
    cropped = np.empty_like(frames)
    offsets = rng.integers(0, 2 * P, size=(B, 2), endpoint=True)
    for b, (row, column) in enumerate(offsets):
        cropped[:, b] = padded[:, b, row:row + H, column:column + W]
    return cropped


def mix_recordings(
    events: ndarray, labels: ndarray, classes: int, rng: Generator
) -> tuple[ndarray, ndarray]:
    """Mix recordings of a batch with each other, by `eventmix`.

    Assumption: partners are a random permutation of the batch, in which a recording can be its own;
    it is mixed with probability 1/2, and then gives a share of its cells that is uniform in [0, 1].
    Baseline: EventMix in braincog/datasets/cut_mix.py draws the partner from all recordings;
    probability and share are the defaults of main_transfer.py, which does not mix unless told to.
    Test: `test_eventmix_batches_have_the_shares_of_their_cells`.

    Parameters
    ----------
    events : (T, B, H, W, 2) array of floats
    labels : (B,) array of integers in 0 ... classes - 1
    classes : int
        K.
    rng : numpy.random.Generator

    Returns
    -------
    mixed : (T, B, H, W, 2), the same dtype
    shares : (B, K), the same dtype
        Weights of the labels; each row sums to 1.
    """
    T, B, H, W, _ = events.shape
    partner = rng.permutation(B)
    share = np.where(rng.random(B) < 0.5, rng.random(B), 0)
    mixed = np.empty_like(events)
    shares = np.zeros((B, classes), events.dtype)
    for b, other in enumerate(partner):
        mask = eventmix_mask(T, H, W, share[b], rng)
        mixed[:, b], lam = eventmix(events[:, b], events[:, other], mask)
        shares[b, labels[b]] += lam
        shares[b, labels[other]] += 1 - lam
    return mixed, shares
