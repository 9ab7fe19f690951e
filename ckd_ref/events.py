"""Events of an event camera: their format, the gate that checks them, and frames (Eq. 4, Sec. II, Sec. IV-A)."""

import contextlib

import numpy as np

EVENT_DTYPE = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.uint8)])
"""One event of Eq. (4): time `t` in microseconds, column `x`, row `y`, polarity `p` (0 = OFF, 1 = ON)."""

MAX_TIME_US = 2**52
"""The latest time accepted, some 140 years: T times a duration then never overflows 64 bits."""


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
    H, W = check_sensor_size(sensor_size)
    if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
        came = f"{events.dtype} of shape {events.shape}" if isinstance(events, np.ndarray) else type(events).__name__
        raise FormatError(f"expected a one-dimensional array of EVENT_DTYPE (t, x, y, p), got {came}")
    if len(events) == 0:
        raise FormatError("expected at least one event, got an empty recording; leave it out of the data set")
    t = events["t"]
    rules = (
        (events["x"] >= W, "x", f"a column in 0 ... {W - 1}"),
        (events["y"] >= H, "y", f"a row in 0 ... {H - 1}"),
        (events["p"] > 1, "p", "polarity 0 (OFF) or 1 (ON)"),
        ((t < 0) | (t > MAX_TIME_US), "t", f"a time in 0 ... {MAX_TIME_US} us"),
        (np.concatenate(([False], t[1:] < t[:-1])), "t", "times that do not decrease; sort the recording by t"),
    )
    found = [(int(bad.argmax()), field, expected) for bad, field, expected in rules if bad.any()]
    if found:
        i, field, expected = min(found)
        raise FormatError(f"event {i} of {len(events)}: {field} = {events[field][i]}, expected {expected}")
    return events


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
        T < 1, an unknown rule, or an unusable window.

    Notes
    -----
    Assumption: the paper does not say how its fixed time intervals are placed; they span each recording.
    """
    if int(T) != T or T < 1:
        raise ValueError(f"expected T, the number of frames, to be a whole number >= 1, got {T!r}")
    T = int(T)
    H, W = check_sensor_size(sensor_size)
    t = check_events(events, sensor_size)["t"]
    if rule == "conserving":
        first, last = (t[0], t[-1]) if window is None else _check_window(window)
        inside = slice(*np.searchsorted(t, [first, last + 1]))
        # Whole numbers only: frame k holds the events with k <= T (t - first) / duration < k + 1.
        k = np.minimum(T * (t[inside] - first) // max(last - first, 1), T - 1)
    elif rule in ("tonic", "braincog") and window is None:
        width = max((t[-1] - t[0] if rule == "tonic" else t[-1]) // T, 0)
        # A recording shorter than T microseconds has windows of no width there: they hold nothing.
        inside = slice(0, np.searchsorted(t, t[0] + T * width))
        k = (t[inside] - t[0]) // max(width, 1)
    else:
        raise ValueError('expected rule "conserving", or "tonic" or "braincog" without a window, '
                         f"got rule={rule!r}, window={window!r}")
    kept = events[inside]
    flat = ((k * H + kept["y"]) * W + kept["x"]) * 2 + kept["p"]
    return np.bincount(flat, minlength=T * H * W * 2).reshape(T, H, W, 2).astype(np.float32)


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

    Output row i samples input row ``i (H - 1) / (size - 1)``; columns alike. The two interpolations are
    matrix products, one per axis.

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
    H, W, C = frames.shape[-3:]
    rows = _interpolation_matrix(H, int(size), frames.dtype)
    columns = _interpolation_matrix(W, int(size), frames.dtype)
    narrow = columns @ frames                                                   # (..., H, size, C)
    short = rows @ narrow.reshape(*frames.shape[:-2], int(size) * C)            # (..., size, size C)
    return short.reshape(*frames.shape[:-3], int(size), int(size), C)


def _interpolation_matrix(n, size, dtype):
    """(size, n) weights of linear interpolation; each row sums to 1."""
    position = np.linspace(0, n - 1, size) if size > 1 else np.zeros(1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(n))).astype(dtype)
