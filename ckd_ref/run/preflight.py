"""What is checked before any work: does a configuration fit the data, and the memory?"""

import contextlib
import os
import pathlib

import numpy as np

from ..batches import sample_pairs, training_pools
from ..config import EVENTS_ALONE
from ..events import FormatError

try:
    import resource
except ImportError:                                            # Windows
    resource = None

LARGEST = 2**40
"""Bytes that a machine is taken to have if it does not say."""

CONTAINER = pathlib.Path("/sys/fs/cgroup/memory.max")
"""Where Linux says how many bytes a container may take."""


def check_run(data, config):
    """Refuse a configuration that this data or this machine cannot train.

    Parameters
    ----------
    data : PairedData
    config : Config

    Raises
    ------
    ValueError, FormatError
        As `check_fit`, or as `check_memory`.
    """
    recordings, images = check_fit(data, config)
    check_memory(config, len(data.classes), recordings, images)


def check_fit(data, config):
    """Refuse a configuration that does not fit the data.

    Returns
    -------
    recordings, images : int
        How many a run holds in memory.

    Raises
    ------
    ValueError
        Frames of another size than the images, more samples of a class than there are, a class
        without images or without recordings.
    FormatError
        No recordings to test.
    """
    if config.size != data.image_size:
        raise ValueError(
            f"expected size {data.image_size}, that of the images in {data.path}, "
            f"got {config.size}"
        )
    recordings, images = training_pools(data, config)
    tests = len(data.recordings_in("test"))
    if not tests:
        raise FormatError(f"{data.path}: expected recordings to test, got none")
    # A class on one side only is found by the first draw.
    sample_pairs(data.event_label[recordings], data.image_label[images], 1,
                 np.random.default_rng(0))
    return len(recordings) + tests, len(images)


def check_memory(config, classes, recordings=0, images=0):
    """Refuse a configuration that needs more memory than there is, before anything is allocated.

    Parameters
    ----------
    config : Config
    classes, recordings, images : int
        How many are held in memory.

    Raises
    ------
    ValueError
        Too much, with the numbers; or a network that is impossible.
    """
    needed, limit = least_memory(config, classes, recordings, images), memory_limit()
    if needed > limit:
        raise ValueError(
            f"expected a run that fits into {_gigabytes(limit)} of memory, got one of at least "
            f"{_gigabytes(needed)} (T {config.T}, size {config.size}, batch {config.batch}, "
            f"width {config.width}, padding {config.padding}, {recordings} recordings)"
        )


def least_memory(config, classes, recordings=0, images=0):
    """Bytes that a run takes at the least; see `check_memory`.

    All frames and images, four numbers for each that is trained (itself, its gradient and two
    moments), and of a batch the larger of the crop and, in both streams, the frames with what the
    first convolution makes of them. All are float32.
    """
    net = config.model(classes)
    streams = 1 if config.method in EVENTS_ALONE else 2
    pixels, padded = config.size**2, (config.size + 2 * config.padding) ** 2
    of_sample = max(2 * padded, streams * (2 + net.channels[0]) * pixels)
    numbers = (
        recordings * config.T * 2 * pixels + images * 3 * pixels
        + 4 * net.trainable + config.batch * config.T * of_sample
    )
    return 4 * numbers


def memory_limit():
    """Bytes of memory of this machine, or fewer if its container or its shell allows fewer."""
    limits = [LARGEST]
    with contextlib.suppress(AttributeError, ValueError, OSError):     # not on every system
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with contextlib.suppress(ValueError, OSError):                     # none, or "max"
        limits.append(int(CONTAINER.read_text()))
    if resource:
        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])       # -1: as much as there is
    return min(limit for limit in limits if limit > 0)


def _gigabytes(number):
    return f"{number / 1e9:,.1f} GB" if number < 1e15 else "a million GB"
