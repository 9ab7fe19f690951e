"""Events of an event camera: format, validation, frames (Eq. 4, Sec. II, Sec. IV-A)."""

import bisect
import functools
from collections.abc import Sequence

import numpy as np
from numpy import ndarray

EVENT_DTYPE = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.uint8)])
"""One event of Eq. (4): time `t` in microseconds, column `x`, row `y`, polarity `p` (1 = ON)."""

MAX_TIME_US = 2**52
"""The latest time accepted, some 140 years: sums of times then never overflow 64 bits."""

MAX_COUNT = 2**24
"""Where float32 stops counting: adding 1 to it changes nothing."""

MAX_FRAMES = 2**16
"""The most frames of one recording: 1,000 times as many as anyone uses."""

MAX_FRAME_BYTES = 2**31
"""The most that the frames of one recording take: 2 GiB, 290 frames of 720 x 1280 pixels."""

MAX_SIZE = 2**11
"""Rows and columns of resized frames and of images, at most."""

UNITS = {"us": 1, "s": 1_000_000}
"""Units of time that `from_arrays` takes, in microseconds."""

BLOCK = 2**15
"""Events, or numbers of resized frames, handled at a time: few enough for the cache."""


class FormatError(ValueError):
    """Data that does not keep to its format; the message names the place and what was expected."""


def check_events(events: ndarray, sensor_size: tuple[int, int]) -> ndarray:
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
    if not isinstance(events, np.ndarray):
        raise FormatError(f"expected an array of EVENT_DTYPE, got {type(events).__name__}")
    if events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise FormatError(
            "expected a one-dimensional array of EVENT_DTYPE (t, x, y, p), "
            f"got {events.dtype} of shape {events.shape}"
        )
    if len(events) == 0:
        raise FormatError(
            "expected at least one event, got an empty recording; leave it out of the data set"
        )
    latest = 0
    for i in range(0, len(events), BLOCK):
        t, x, y, p = (events[name][i:i + BLOCK].copy() for name in EVENT_DTYPE.names)
        in_order = latest <= t[0] and t[-1] <= MAX_TIME_US and (t[:-1] <= t[1:]).all()
        if not (in_order and x.max() < W and y.max() < H and p.max() <= 1):
            fault = _first_fault(_rules(events, H, W), events, len(events))
            raise FormatError(f"event {fault}{_hint(events, H, W)}")
        latest = t[-1]
    return events


def _rules(events, H, W):
    """Which events break which rule of `check_events`: (mask, field, what was expected)."""
    t = events["t"]
    return (
        (events["x"] >= W, "x", f"a column in 0 ... {W - 1}"),
        (events["y"] >= H, "y", f"a row in 0 ... {H - 1}"),
        (events["p"] > 1, "p", "polarity 0 (OFF) or 1 (ON)"),
        ((t < 0) | (t > MAX_TIME_US), "t", f"a time in 0 ... {MAX_TIME_US} us"),
        (_earlier(t), "t", "times that do not decrease; sort the recording by t"),
    )


def _hint(events, H, W):
    """What to say of events off the sensor that would all be on it with H and W exchanged."""
    x, y = events["x"].max(), events["y"].max()
    if (x < W and y < H) or not (x < H and y < W):
        return ""
    return f"; all events fit on sensor_size = ({W}, {H}): rows come first, then columns"


def _first_fault(rules, columns, N):
    """Number, value and rule of the first of N events that breaks one."""
    i, field, expected = min(
        (int(bad.argmax()), field, expected) for bad, field, expected in rules if bad.any()
    )
    return f"{i} of {N}: {field} = {columns[field][i]}, expected {expected}"


def _earlier(t):
    """Which times are earlier than the one before."""
    return np.concatenate(([False], t[1:] < t[:-1]))


def check_sensor_size(sensor_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns (H, W) as two positive whole numbers, or a ValueError."""
    try:
        H, W = (int(n) for n in sensor_size)
        whole = (H, W) == tuple(sensor_size)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ValueError(f"expected sensor_size = (H, W), two whole numbers, got {sensor_size!r}")
    if H < 1 or W < 1:
        raise ValueError(f"expected sensor_size = (H, W) with both at least 1, got {sensor_size!r}")
    return H, W


def bin_events(
    events: ndarray, T: int, sensor_size: tuple[int, int], window: tuple[int, int] | None = None,
    rule: str = "conserving",
) -> ndarray:
    """Count the events of Eq. (4) per time window, pixel and polarity (Sec. II: frames).

    Parameters
    ----------
    events : (N,) array of EVENT_DTYPE
        A valid recording (see `check_events`).
    T : int
        Number of frames, 1 ... `MAX_FRAMES`.
    sensor_size : (H, W)
        Rows and columns of the sensor, pixels.
    window, rule
        Where the frames begin and end, see `window_edges`.

    Returns
    -------
    frames : (T, H, W, 2) float32
        Counts >= 0; channel 0 = OFF, 1 = ON. Not normalised.

    Raises
    ------
    FormatError
        An invalid recording.
    ValueError
        T outside 1 ... `MAX_FRAMES`, an unknown rule, an unusable window, frames of more than
        `MAX_FRAME_BYTES`, or a count of `MAX_COUNT` or more.

    Notes
    -----
    Assumption: event counts enter the network unnormalised, beside V frames in [0, 1].
    Test: `test_eq04_counts_are_not_normalised`.
    """
    check_events(events, sensor_size)
    return count_events(events, window_edges(events["t"], T, window, rule), sensor_size)


def window_edges(
    t: ndarray, T: int, window: tuple[int, int] | None = None, rule: str = "conserving"
) -> list[int]:
    """Times at which the T frames of a recording begin and end, in whole microseconds.

    Parameters
    ----------
    t : (N,) array of int
        Times of a valid recording.
    T : int
        Number of frames, 1 ... `MAX_FRAMES`.
    window : (first, last), optional
        Times in microseconds that the frames span, both included; default: the first and the
        last event's. Only for the conserving rule.
    rule : {"conserving", "tonic", "braincog"}
        ``conserving``: T equal half-open windows, the last one closed, so that the frames' sum
        is the number of events (within `window`). ``tonic``: as ``ToFrame(n_time_bins=T)`` of
        tonic 1.7.0, whose windows are rounded down to whole microseconds and which therefore
        drops events at the end. ``braincog``: the fork of it that the paper's baseline used; it
        divides the last time instead of the duration by T.

    Returns
    -------
    edges : list of T + 1 int
        Frame k holds the events with ``edges[k] <= t < edges[k + 1]``.

    Notes
    -----
    Assumption: the paper does not say how its fixed time intervals are placed; here they are T
    equal ones that span each recording and lose no event. Baseline: the fork of tonic's
    `to_frame_numpy`, in tonic/functional/to_frame.py, which drops events at the end; it is
    ``rule="braincog"``. Test: `test_eq04_golden_rules_of_tonic`.
    """
    if not 1 <= T <= MAX_FRAMES or int(T) != T:
        raise ValueError(
            f"expected T, the number of frames, to be a whole number in 1 ... {MAX_FRAMES}, "
            f"got {T!r}"
        )
    T = int(T)
    start, stop = int(t[0]), int(t[-1])
    if rule == "conserving":
        first, last = (start, stop) if window is None else _check_window(window)
        duration = max(last - first, 1)
        return [first + -(-k * duration // T) for k in range(T)] + [last + 1]  # rounded up
    if rule not in ("tonic", "braincog") or window is not None:
        raise ValueError(
            'expected rule "conserving", or "tonic" or "braincog" without a window, '
            f"got rule={rule!r}, window={window!r}"
        )
    width = (stop - start if rule == "tonic" else stop) // T  # 0 if shorter than T us: no events
    return [start + k * width for k in range(T + 1)]


def _check_window(window):
    try:
        first, last = (int(t) for t in window)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"expected window = (first, last) in whole microseconds, got {window!r}"
        ) from None
    if not 0 <= first <= last <= MAX_TIME_US:
        raise ValueError(
            f"expected a window with 0 <= first <= last <= {MAX_TIME_US} us, got {window!r}"
        )
    return first, last


def count_events(events: ndarray, edges: Sequence[int], sensor_size: tuple[int, int]) -> ndarray:
    """Events of a valid recording per window, pixel and polarity: (T, H, W, 2) float32.

    Parameters
    ----------
    events : (N,) array of EVENT_DTYPE
        Already checked: times and polarities that are not valid go unnoticed here.
    edges : sequence of T + 1 int
        See `window_edges`.
    sensor_size : (H, W)
        Rows and columns of the sensor, pixels.

    Raises
    ------
    FormatError
        An event off the sensor.
    ValueError
        Frames of more than `MAX_FRAME_BYTES`, or a count of `MAX_COUNT` or more.
    """
    H, W = sensor_size
    T = len(edges) - 1
    _check_memory(T, H, W)
    frames = np.zeros((T, H * W * 2), np.float32)
    begin = [bisect.bisect_left(events["t"], edge) for edge in edges]
    for frame, first, last in zip(frames, begin, begin[1:]):
        for i in range(first, last, BLOCK):
            block = events[i:min(i + BLOCK, last)]
            x, y = block["x"], block["y"]
            if x.max() >= W or y.max() >= H:
                check_events(events, sensor_size)              # names the first such event
            pixel = y.astype(np.intp) * W + x
            np.add.at(frame, 2 * pixel + block["p"], np.float32(1))
    if len(events) >= MAX_COUNT and frames.max() >= MAX_COUNT:
        raise ValueError(
            f"expected at most {MAX_COUNT - 1} events of a pixel in one frame, "
            "which is what float32 counts; use more frames"
        )
    return frames.reshape(-1, H, W, 2)


def _check_memory(T, H, W):
    size = 4 * T * H * W * 2
    if size > MAX_FRAME_BYTES:
        raise ValueError(
            f"expected frames of at most {MAX_FRAME_BYTES} bytes, got {size} bytes for "
            f"{T} frames of {H} x {W} pixels; use fewer frames, or a smaller sensor"
        )


def resize_frames(frames: ndarray, size: int) -> ndarray:
    """Resize the planes of frames bilinearly, corners aligned (Sec. IV-A: all become 48 x 48).

    Output row i samples input row ``i (H - 1) / (size - 1)``; columns alike. Each output pixel
    is the weighted sum of the four input pixels around its sample.

    Assumption: the paper says that frames are resized, not how. Test: `test_resize_golden`.

    Parameters
    ----------
    frames : (..., H, W, C) array of floats
    size : int
        Rows and columns of the result, 1 ... `MAX_SIZE`.

    Returns
    -------
    resized : (..., size, size, C), the same dtype.
    """
    if not 1 <= size <= MAX_SIZE or int(size) != size:
        raise ValueError(
            f"expected size to be a whole number of pixels in 1 ... {MAX_SIZE}, got {size!r}"
        )
    if np.ndim(frames) < 3 or 0 in np.shape(frames)[-3:]:
        raise ValueError(
            f"expected frames of shape (..., H, W, C), none of them 0, got {np.shape(frames)}"
        )
    if frames.dtype.kind != "f":
        raise ValueError(f"expected frames of floats, which have fractions, got {frames.dtype}")
    *batch, H, W, C = frames.shape
    size = int(size)
    planes = frames.reshape(-1, H * W, C)
    resized = np.zeros((len(planes), size * size, C), frames.dtype)
    step = max(BLOCK // (size * size * C), 1)
    for n in range(0, len(planes), step):
        for place, weight in _corners(H, W, C, size, frames.dtype):
            # "clip" spares numpy the check of each index.
            part = planes[n:n + step].take(place, axis=1, mode="clip")
            part *= weight
            resized[n:n + step] += part
    return resized.reshape(*batch, size, size, C)


@functools.lru_cache(maxsize=16)
def _corners(H, W, C, size, dtype):
    """For each of the four pixels around a sample: place (size^2,) and weight (size^2, C)."""
    return [
        ((i[:, None] * W + j).ravel(), np.repeat(np.outer(u, v), C).reshape(-1, C).astype(dtype))
        for i, u in _neighbours(H, size)
        for j, v in _neighbours(W, size)
    ]


def _neighbours(n, size):
    """The samples before and after each of `size` positions on an axis of n, with their weights."""
    position = np.linspace(0, n - 1, size) if size > 1 else np.zeros(1)
    before = position.astype(np.intp)
    return (before, 1 - (position - before)), (np.minimum(before + 1, n - 1), position - before)


def from_arrays(t: ndarray, x: ndarray, y: ndarray, p: ndarray, unit: str = "us") -> ndarray:
    """Make a recording of what event files hold, or refuse it and name the first bad row.

    Parameters
    ----------
    t : (N,) array of integers or floats
        Times in `unit`, at least 0, not decreasing: sort the rows first.
    x, y : (N,) arrays of integers
        Columns and rows, 0 ... 65535, pixels.
    p : (N,) array of integers or bool
        Polarity (OFF, ON): 0 and 1, or -1 and 1, or False and True.
    unit : {"us", "s"}
        Seconds are rounded to the nearest microsecond, halves to the even one. Microseconds
        have to be whole.

    Returns
    -------
    events : (N,) array of EVENT_DTYPE
        N >= 1, in the order of the rows.

    Raises
    ------
    FormatError
        Arrays that are empty, of different lengths, of several dimensions, or not of numbers;
        a row with a missing, negative or too large value, NaN, Inf, a fraction, another
        polarity or an earlier time than the row before.
    ValueError
        An unknown unit.

    Notes
    -----
    Floats with whole values count as integers: text files and (N, 4) arrays have them. Floats
    too coarse for whole numbers or microseconds, such as float32 seconds from 8 s on, are
    refused: they have been rounded already. Whether the events fit on a sensor is for
    `check_events` to say.
    """
    if unit not in UNITS:
        raise ValueError(f"expected one of the units {', '.join(UNITS)}, got {unit!r}")
    columns = {"t": t, "x": x, "y": y, "p": p}
    columns = {name: _column(name, values) for name, values in columns.items()}
    t, x, y, p = columns.values()
    lengths = [len(column) for column in columns.values()]
    if min(lengths) < max(lengths):
        raise FormatError(
            f"row {min(lengths)}: expected t, x, y and p of one length, "
            f"got {', '.join(f'{n} of {name}' for name, n in zip(columns, lengths))}"
        )
    if len(t) == 0:
        raise FormatError("expected at least one event, got none; leave the recording out")
    rules = _row_rules(columns, UNITS[unit])
    if any(bad.any() for bad, _, _ in rules):
        raise FormatError(f"row {_first_fault(rules, columns, len(t))}")
    if t.dtype.kind == "f":
        t = np.rint(t.astype(np.float64) * UNITS[unit])
    else:
        t = t.astype(np.int64) * UNITS[unit]
    events = np.empty(len(t), EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p == 1
    return events


def _column(name, values):
    """One argument of `from_arrays` as a one-dimensional array of numbers."""
    try:
        column = np.asarray(values)
    except (TypeError, ValueError, OverflowError):  # lists of lists of several lengths
        column = np.array(None)
    numbers = column.dtype.kind in ("iufb" if name == "p" else "iuf") or column.size == 0
    if column.ndim != 1 or not numbers or np.ma.is_masked(values):
        raise FormatError(
            f"{name}: expected a one-dimensional array of numbers, none of them masked, "
            f"got {type(values).__name__} of {column.dtype}, shape {column.shape}"
        )
    return column


def _row_rules(columns, unit):
    """Which rows break which rule of `from_arrays`: (mask, column, what was expected)."""
    t, x, y, p = columns.values()
    latest, far = MAX_TIME_US // unit, 2**16 - 1
    time = "a whole number of microseconds" if unit == 1 else "seconds, exact to 1 us,"
    off = -1 if (p[p != 1][:1] == -1).any() else 0  # the first that is not ON decides
    return (
        (_unusable(t, latest, unit), "t", f"{time} in 0 ... {latest}"),
        (_unusable(x, far), "x", f"a column, a whole number in 0 ... {far}"),
        (_unusable(y, far), "y", f"a row of the sensor, a whole number in 0 ... {far}"),
        ((p != 1) & (p != off), "p", "polarity 0 or 1, or -1 or 1, the same two in all rows"),
        (_earlier(t), "t", "times that do not decrease; sort the rows by t"),
    )


def _unusable(values, largest, scale=1):
    """Which numbers are not in 0 ... `largest`, or not whole, or too coarse to tell.

    If `scale` is larger than 1, they need not be whole but tell multiples of 1 / `scale` apart.
    """
    if values.dtype.kind != "f":
        return (values < 0) | (values > largest)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.spacing(values).astype(np.float64)
        values = values.astype(np.float64)
        bad = ~((values >= 0) & (values <= largest))  # true for NaN as well
        if scale == 1:
            return bad | (gap > 1) | (values != np.trunc(values))
        return bad | (gap * scale > 0.5)
