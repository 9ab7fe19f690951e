"""Events of an event camera: their format, the gate that checks them, and frames (Eq. 4, Sec. II, Sec. IV-A)."""

import contextlib
import functools

import numpy as np

EVENT_DTYPE = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.uint8)])
"""One event of Eq. (4): time `t` in microseconds, column `x`, row `y`, polarity `p` (0 = OFF, 1 = ON)."""

MAX_TIME_US = 2**52
"""The latest time accepted, some 140 years: sums of times then never overflow 64 bits."""

MAX_COUNT = 2**24
"""Where float32 stops counting: adding 1 to it changes nothing."""

BLOCK = 2**15
"""Events, or numbers of resized frames, handled at a time: few enough to stay in the processor's cache."""


class FormatError(ValueError):
    """Data that does not keep to its format; the message names the place and what was expected there."""


@contextlib.contextmanager
def naming(place, advice):
    """Name the place in every FormatError raised inside, and make FormatErrors of a library's complaints.

    Libraries report a damaged file by exceptions of many kinds. The system's own pass: an OSError with a number (no
    such file, disk full) and a lack of memory.

    Parameters
    ----------
    place : str or path-like
        The file, or the sample in it.
    advice : str
        What to do about damage.
    """
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{place}: {error}") from None
    except Exception as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise
        raise FormatError(f"{place}: damaged, or of another format ({error}); {advice}") from None


def check_events(events, sensor_size):
    """Pass a valid recording through; refuse any other and name its first bad event.

    Parameters
    ----------
    events : (N,) array of EVENT_DTYPE
        N >= 1 events, times >= 0 and not decreasing.
    sensor_size : (H, W)
        Rows and columns of the sensor, pixels.

    Returns
    -------
    events : the same array, unchanged.

    Raises
    ------
    FormatError
        Wrong dtype, no event, a coordinate outside the sensor, a polarity other than 0 and 1,
        a negative time or a step back in time.
    """
    for _ in _valid_columns(_check_array(events), sensor_size):
        pass
    return events


def _check_array(events):
    if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
        came = f"{events.dtype} of shape {events.shape}" if isinstance(events, np.ndarray) else type(events).__name__
        raise FormatError(f"expected a one-dimensional array of EVENT_DTYPE (t, x, y, p), got {came}")
    if len(events) == 0:
        raise FormatError("expected at least one event, got an empty recording; leave it out of the data set")
    return events


def _valid_columns(events, sensor_size):
    """Yield t, x, y and p of `BLOCK` events after the other, each copied into one piece; refuse as `check_events`."""
    H, W = check_sensor_size(sensor_size)
    before = 0
    for i in range(0, len(events), BLOCK):
        t, x, y, p = (events[name][i:i + BLOCK].copy() for name in EVENT_DTYPE.names)
        in_order = before <= t[0] and t[-1] <= MAX_TIME_US and (t[:-1] <= t[1:]).all()
        if not (in_order and x.max() < W and y.max() < H and p.max() <= 1):
            raise FormatError(_first_fault(events, H, W))
        before = t[-1]
        yield t, x, y, p


def _first_fault(events, H, W):
    """Number, value and rule of the first event that breaks one."""
    t = events["t"]
    rules = (
        (events["x"] >= W, "x", f"a column in 0 ... {W - 1}"),
        (events["y"] >= H, "y", f"a row in 0 ... {H - 1}"),
        (events["p"] > 1, "p", "polarity 0 (OFF) or 1 (ON)"),
        ((t < 0) | (t > MAX_TIME_US), "t", f"a time in 0 ... {MAX_TIME_US} us"),
        (np.concatenate(([False], t[1:] < t[:-1])), "t", "times that do not decrease; sort the recording by t"),
    )
    i, field, expected = min((int(bad.argmax()), field, expected) for bad, field, expected in rules if bad.any())
    return f"event {i} of {len(events)}: {field} = {events[field][i]}, expected {expected}"


def check_sensor_size(sensor_size):
    """Rows and columns (H, W) as two positive whole numbers, or a ValueError."""
    try:
        H, W = (int(n) for n in sensor_size)
    except (TypeError, ValueError):
        raise ValueError(f"expected sensor_size = (H, W), two whole numbers, got {sensor_size!r}") from None
    if H < 1 or W < 1:
        raise ValueError(f"expected sensor_size = (H, W) with both at least 1, got {sensor_size!r}")
    return H, W


def bin_events(events, T, sensor_size, window=None, rule="conserving"):
    """Count the events of Eq. (4) per time window, pixel and polarity (Sec. II: frames of fixed time intervals).

    Parameters
    ----------
    events : (N,) array of EVENT_DTYPE
        A valid recording (see `check_events`).
    T : int
        Number of frames, at least 1.
    sensor_size : (H, W)
        Rows and columns of the sensor, pixels.
    window : (first, last), optional
        Times in microseconds that the frames span, both included; default: the first and the last event's.
        Only for the conserving rule.
    rule : {"conserving", "tonic", "braincog"}
        ``conserving``: T equal half-open windows, the last one closed, so that the frames' sum is the number
        of events (within `window`). ``tonic``: as ``ToFrame(n_time_bins=T)`` of tonic 1.7.0, whose windows
        are rounded down to whole microseconds and which therefore drops events at the end. ``braincog``: the
        fork of it that the paper's baseline used; it divides the last time instead of the duration by T.

    Returns
    -------
    frames : (T, H, W, 2) float32
        Counts >= 0; channel 0 = OFF, 1 = ON. Not normalised.

    Raises
    ------
    FormatError
        An invalid recording.
    ValueError
        T < 1, an unknown rule, an unusable window, or a count of `MAX_COUNT` or more.

    Notes
    -----
    Assumption: the paper does not say how its fixed time intervals are placed; they span each recording.
    """
    if int(T) != T or T < 1:
        raise ValueError(f"expected T, the number of frames, to be a whole number >= 1, got {T!r}")
    T = int(T)
    H, W = check_sensor_size(sensor_size)
    start, stop = np.clip(_check_array(events)["t"][[0, -1]], 0, MAX_TIME_US).tolist()  # others are refused below
    # Whole numbers only: frame k holds the events with edges[k] <= t < edges[k + 1].
    if rule == "conserving":
        first, last = (start, stop) if window is None else _check_window(window)
        duration = max(last - first, 1)
        edges = [first - (-k * duration // T) for k in range(T)] + [last + 1]           # -(-a // b): rounded up
    elif rule in ("tonic", "braincog") and window is None:
        width = (stop - start if rule == "tonic" else stop) // T    # 0 if shorter than T us: such windows hold nothing
        edges = [start + k * width for k in range(T + 1)]
    else:
        raise ValueError('expected rule "conserving", or "tonic" or "braincog" without a window, '
                         f"got rule={rule!r}, window={window!r}")
    frames = np.zeros((T, H * W * 2), np.float32)
    whole = np.promote_types(np.uint16, np.min_scalar_type(H * W * 2))      # the narrower, the faster
    for t, x, y, p in _valid_columns(events, sensor_size):
        place = ((y.astype(whole) * W + x) * 2 + p).astype(np.intp)
        begin = np.searchsorted(t, edges)
        for k in np.flatnonzero(np.diff(begin)):
            np.add.at(frames[k], place[begin[k]:begin[k + 1]], np.float32(1))
    if len(events) >= MAX_COUNT and frames.max() >= MAX_COUNT:
        raise ValueError(f"expected at most {MAX_COUNT - 1} events of a pixel in one frame, which is what float32 "
                         "counts; use more frames")
    return frames.reshape(T, H, W, 2)


def _check_window(window):
    try:
        first, last = (int(t) for t in window)
    except (TypeError, ValueError):
        raise ValueError(f"expected window = (first, last) in whole microseconds, got {window!r}") from None
    if not 0 <= first <= last <= MAX_TIME_US:
        raise ValueError(f"expected a window with 0 <= first <= last <= {MAX_TIME_US} us, got {window!r}")
    return first, last


def resize_frames(frames, size):
    """Resize the planes of frames bilinearly, corners aligned (Sec. IV-A: all frames become 48 x 48).

    Output row i samples input row ``i (H - 1) / (size - 1)``; columns alike. Each output pixel is the weighted sum
    of the four input pixels around its sample.

    Parameters
    ----------
    frames : (..., H, W, C) array of floats
    size : int
        Rows and columns of the result, at least 1.

    Returns
    -------
    resized : (..., size, size, C), the same dtype.
    """
    if int(size) != size or size < 1:
        raise ValueError(f"expected a whole number of pixels >= 1 for size, got {size!r}")
    if np.ndim(frames) < 3 or 0 in np.shape(frames)[-3:]:
        raise ValueError(f"expected frames of shape (..., H, W, C), none of them 0, got {np.shape(frames)}")
    *batch, H, W, C = frames.shape
    size = int(size)
    planes = frames.reshape(-1, H * W, C)
    resized = np.zeros((len(planes), size * size, C), frames.dtype)
    step = max(BLOCK // (size * size * C), 1)
    for n in range(0, len(planes), step):
        for place, weight in _corners(H, W, C, size, frames.dtype):
            part = planes[n:n + step].take(place, axis=1, mode="clip")      # "clip" spares the check of each index
            part *= weight
            resized[n:n + step] += part
    return resized.reshape(*batch, size, size, C)


@functools.lru_cache(maxsize=16)
def _corners(H, W, C, size, dtype):
    """Four times: place (size^2,) of one of the pixels around each sample in the plane, and its weight (size^2, C)."""
    return [((i[:, None] * W + j).ravel(), np.repeat(np.outer(u, v), C).reshape(-1, C).astype(dtype))
            for i, u in _neighbours(H, size) for j, v in _neighbours(W, size)]


def _neighbours(n, size):
    """The samples before and after each of `size` positions along an axis of n, each with its weight."""
    position = np.linspace(0, n - 1, size) if size > 1 else np.zeros(1)
    before = position.astype(np.intp)
    return (before, 1 - (position - before)), (np.minimum(before + 1, n - 1), position - before)
