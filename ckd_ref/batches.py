"""Batches of paired data, driven by one generator: pairs of a class, replacement (Eq. 8), random crops."""

import numpy as np


def sample_pairs(event_label, image_label, batch, rng):
    """Draw recordings and, for each, an image of the same class (Sec. III-A1: pairs by category index).

    Class-balanced, with replacement: every class is equally likely at every draw, and so is every recording, and
    every image, of the class drawn.

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
    Deviation: the code of the paper's baseline draws images from begin to end of a class with the end included,
    which is its first held-out image; here the end is exclusive.
    """
    classes = np.unique(event_label)
    alone = np.setxor1d(classes, image_label)
    if len(alone) or len(classes) == 0 or batch < 1:
        raise ValueError(f"expected a batch >= 1 and the same classes, at least one, among recordings and images, got "
                         f"batch = {batch} and, on one side only, the classes {alone.tolist()}")
    label = classes[rng.integers(len(classes), size=batch)]
    return _draw_of_class(event_label, label, rng), _draw_of_class(image_label, label, rng)


def _draw_of_class(label, wanted, rng):
    """A random position in `label` for each class wanted."""
    order = np.argsort(label, kind="stable")
    begin = np.searchsorted(label, wanted, "left", sorter=order)
    end = np.searchsorted(label, wanted, "right", sorter=order)
    return order[rng.integers(begin, end)]


def replacement_mask(probability, uniforms):
    """Which samples of the static stream are replaced, given the probability of Eq. (8): (B,) bool.

    Parameters
    ----------
    probability : float in [0, 1]
    uniforms : (B,) array of floats in [0, 1]
        One draw per sample; those up to the probability, itself included, are replaced, and none at 0.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"expected a probability in [0, 1], got {probability!r}")
    return (np.asarray(uniforms) <= probability) & (probability > 0)


def replace_static(static, events, mask):
    """Replace whole samples of the static stream by the event samples of the same rows (Sec. III-A2).

    Parameters
    ----------
    static, events : (T, B, H, W, 2) arrays of one dtype
    mask : (B,) bool

    Returns
    -------
    hybrid : (T, B, H, W, 2), the same dtype; row b is that of `events`, at every t and polarity, where ``mask[b]``.
    """
    mask = np.asarray(mask)
    if static.shape != events.shape or static.dtype != events.dtype or static.ndim != 5:
        raise ValueError(f"expected two streams (T, B, H, W, 2) of one shape and dtype, got {static.shape} "
                         f"{static.dtype} and {events.shape} {events.dtype}")
    if mask.shape != static.shape[1:2] or mask.dtype != bool:
        raise ValueError(f"expected a mask of {static.shape[1]} booleans, got {mask.dtype} {mask.shape}")
    return np.where(mask[None, :, None, None, None], events, static)


def random_crop(frames, padding, rng):
    """Shift each sample by up to `padding` pixels each way: zeros around it, then a crop of the old size.

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
    Assumption: the paper names no augmentation; its baseline's code crops 48 x 48 with a padding of 4.
    """
    if frames.ndim != 5 or int(padding) != padding or padding < 0:
        raise ValueError(f"expected frames (T, B, H, W, C) and a whole padding >= 0, got {frames.shape}, {padding!r}")
    _, B, H, W, _ = frames.shape
    P = int(padding)
    padded = np.pad(frames, ((0, 0), (0, 0), (P, P), (P, P), (0, 0)))
    cropped = np.empty_like(frames)
    for b, (row, column) in enumerate(rng.integers(0, 2 * P, size=(B, 2), endpoint=True)):
        cropped[:, b] = padded[:, b, row:row + H, column:column + W]
    return cropped
