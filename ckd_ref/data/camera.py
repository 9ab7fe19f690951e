"""A simulated event camera: pixels that report changes of log intensity (Eq. 4, Sec. II)."""

import dataclasses
import itertools
import numbers
from collections.abc import Iterable

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from ..events import EVENT_DTYPE, check_sensor_size

BACKGROUND_ON = 0.7
"""Share of ON among background events, as between the saccades of the calibration recording."""

HOT_HZ = 200.0
"""Events per second that a hot pixel attempts: the mean over the hot pixels of that recording."""

MAX_MOVE = 1000
"""Longest single move, sensor pixels: the simulated margin around the sensor is as wide."""


@dataclasses.dataclass(frozen=True)
class Camera:
    """Parameters of the sensor.

    The defaults are calibrated on one recording of N-Caltech101 (Faces_easy 0001).

    Attributes
    ----------
    threshold : float
        Change of log intensity (natural logarithm) that makes a pixel fire, > 0; the median
        over the pixels.
    threshold_spread : float
        Standard deviation of the threshold between pixels, >= 0. Log-normal, so that none is
        negative.
    refractory_us : int
        Time after an event during which its pixel is blind, microseconds, >= 0.
    background_hz : float
        Background activity, >= 0: spurious events per second and pixel, of which a share of
        `BACKGROUND_ON` are ON.
    hot_share : float
        Probability in [0, 1] that a pixel is hot: its background activity is `HOT_HZ`.
    blur : float
        Standard deviation of the lens's Gaussian blur, sensor pixels, >= 0.
    gamma : float
        Exponent that maps the picture's values to intensities, > 0.
    log_offset : float
        Intensity added before the logarithm, > 0: much smaller differences are invisible.
    step_us : int
        Step of the simulation, microseconds, >= 1; log intensity is linear in between.
    """

    threshold: float = 0.26
    threshold_spread: float = 0.03
    refractory_us: int = 2000
    background_hz: float = 0.4
    hot_share: float = 0.0
    blur: float = 0.5
    gamma: float = 2.2
    log_offset: float = 0.05
    step_us: int = 2000

    def __post_init__(self):
        for name, kind, fits, expected in (
            ("threshold", numbers.Real, lambda v: v > 0, "a number > 0"),
            ("threshold_spread", numbers.Real, lambda v: v >= 0, "a number >= 0"),
            ("refractory_us", numbers.Integral, lambda v: v >= 0, "a whole number >= 0"),
            ("background_hz", numbers.Real, lambda v: v >= 0, "a number >= 0"),
            ("hot_share", numbers.Real, lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("blur", numbers.Real, lambda v: v >= 0, "a number >= 0"),
            ("gamma", numbers.Real, lambda v: v > 0, "a number > 0"),
            ("log_offset", numbers.Real, lambda v: v > 0, "a number > 0"),
            ("step_us", numbers.Integral, lambda v: v >= 1, "a whole number >= 1"),
        ):
            value = getattr(self, name)
            if not (isinstance(value, kind) and np.isfinite(value) and fits(value)):
                raise ValueError(f"expected Camera.{name} to be {expected}, got {value!r}")


@dataclasses.dataclass(frozen=True)
class Saccades:
    """Straight moves of the picture across the sensor, each with a smooth start and stop.

    The defaults are the three saccades of N-Caltech101: the moves were measured in the
    calibration recording of `Camera`, the times fitted to its histogram of events.

    Attributes
    ----------
    moves : tuple of (dx, dy)
        Displacement of each move, sensor pixels: dx to the right, dy downwards.
    spans_us : tuple of (start, stop)
        When each move begins and ends, whole microseconds >= 0, in order. The last stop ends
        the recording.
    """

    moves: tuple = ((2.4, 5.5), (2.9, -5.5), (-4.6, 0.0))
    spans_us: tuple = ((12_000, 86_000), (111_000, 189_000), (216_000, 300_000))

    def __post_init__(self):
        try:
            moves, spans = np.array(self.moves, float), np.array(self.spans_us, float)
            usable = moves.ndim == 2 and moves.shape == spans.shape == (max(len(moves), 1), 2)
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise ValueError(
                "expected as many moves (dx, dy) as spans_us (start, stop), at least one, "
                f"got moves={self.moves!r}, spans_us={self.spans_us!r}"
            )
        if not (np.abs(moves) <= MAX_MOVE).all():
            raise ValueError(f"expected moves of at most {MAX_MOVE} pixels, got {self.moves!r}")
        edges = spans.ravel()
        in_order = (np.diff(edges) >= 0).all() and (spans[:, 0] < spans[:, 1]).all()
        whole = np.isfinite(edges).all() and (edges % 1 == 0).all()
        if not (in_order and whole and edges[0] >= 0):
            raise ValueError(
                f"expected spans_us in whole microseconds >= 0 and in order, got {self.spans_us!r}"
            )

    @property
    def duration_us(self) -> int:
        """Length of the recording, microseconds."""
        return int(self.spans_us[-1][1])

    def displacement(self, times_us: ndarray) -> ndarray:
        """Offset (S, 2) of the picture from its start, pixels dx and dy, at S times in us."""
        start, stop = np.array(self.spans_us, float).T
        # (S, moves)
        progress = np.clip((np.asarray(times_us)[:, None] - start) / (stop - start), 0, 1)
        return progress**2 * (3 - 2 * progress) @ np.array(self.moves, float)  # (S, 2)


def record(
    luminance: ndarray, sensor_size: tuple[int, int], rng: Generator, camera: Camera = Camera(),
    motion: Saccades = Saccades(), scale: float = 1.0, offset: tuple[float, float] = (0.0, 0.0),
) -> ndarray:
    """Film a moving picture with an event camera.

    Parameters
    ----------
    luminance : (h, w) array of floats
        Picture in [0, 1], as displayed (gamma-encoded; see `rgb_to_luminance`). Its edge values
        continue outside.
    sensor_size : (H, W)
        Rows and columns of the sensor, pixels.
    rng : numpy.random.Generator
        Draws thresholds, hot pixels and background activity.
    camera : Camera
    motion : Saccades
    scale : float
        Sensor pixels per picture pixel, > 0.
    offset : (dx, dy)
        Initial position of the picture's centre, sensor pixels from the sensor's centre.

    Returns
    -------
    events : (N,) array of EVENT_DTYPE
        N >= 1 events in order of time, then of pixel; times from 0 to the motion's duration.

    Raises
    ------
    ValueError
        An unusable picture or argument, or a picture that makes no pixel fire.

    Notes
    -----
    Assumption: while the picture moves, log intensity rather than intensity is interpolated
    between the sensor's pixels. Test: `test_defaults_reproduce_a_real_recording`.
    Assumption: background events do not change a pixel's reference level, and give way to
    events of the picture.
    Test: `test_no_two_events_of_a_pixel_are_closer_than_the_refractory_time`.
    """
    luminance = _check_luminance(luminance)
    H, W = check_sensor_size(sensor_size)
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"expected rng to be a numpy.random.Generator, got {type(rng).__name__}")
    dx, dy = _check_view(scale, offset)

    times_us, displacement = _knots(motion, camera.step_us)
    margin = int(np.ceil(np.abs(displacement).max())) + 1
    rows = _lens(luminance.shape[0], H + 2 * margin, scale, dy, camera.blur)
    columns = _lens(luminance.shape[1], W + 2 * margin, scale, dx, camera.blur)
    intensity = rows @ luminance**camera.gamma @ columns.T  # (H + 2 margin, W + 2 margin)
    level = np.log(intensity + camera.log_offset)

    spread = camera.threshold_spread / camera.threshold * rng.standard_normal(H * W, np.float32)
    thresholds = np.float32(camera.threshold) * np.exp(spread)
    levels = _moving_levels(level, margin - displacement, (H, W))
    signal = threshold_crossings(levels, times_us, thresholds, camera.refractory_us)
    noise = _background(signal, H * W, motion.duration_us, camera, rng)
    t, pixel, on = (np.concatenate(parts) for parts in zip(signal, noise))
    if len(t) == 0:
        raise ValueError(
            "expected a picture that makes at least one pixel fire, "
            f"got none in {motion.duration_us} us; give it more contrast, "
            "or the camera a lower threshold"
        )
    order = np.argsort(t * (H * W) + pixel)
    events = np.empty(len(t), EVENT_DTYPE)
    events["t"], events["p"] = t[order], on[order]
    events["y"], events["x"] = np.divmod(pixel[order], W)
    return events


def threshold_crossings(
    levels: Iterable[ndarray], times_us: ndarray, thresholds: ndarray, refractory_us: int
) -> tuple[ndarray, ndarray, ndarray]:
    """The pixels of an event camera: which fire, when and with which polarity (Eq. 4, Sec. II).

    Each pixel stores a reference level, initially its first level. It fires when its level
    differs from the reference by more than its threshold, ON if higher, and the level at that
    moment becomes the reference. It is then blind for the refractory time; a change during that
    time counts as soon as it is over. Levels are linear between the given times, so the moment
    of firing is known exactly; it is rounded up to a whole microsecond.

    Parameters
    ----------
    levels : (S, N) array or iterable of S arrays (N,)
        Log intensities of N pixels at S times, floats.
    times_us : (S,) array
        Those times, whole microseconds, increasing.
    thresholds : (N,) array
        Contrast threshold of each pixel, > 0, the dtype of the levels.
    refractory_us : int
        Blind time after an event, microseconds, >= 0.

    Returns
    -------
    t, pixel, on : three arrays (M,)
        int64 microseconds, index in 0 ... N - 1, bool. Ordered by step, unsorted within a step.

    Notes
    -----
    Assumption: a pixel fires at most once per step, which is exact if no step in which levels
    change is longer than the refractory time.
    Test: `test_eq04_equals_the_loop_over_pixels_and_steps`.
    """
    levels = iter(levels)
    after = next(levels)
    reference = after.copy()  # NaN while the pixel is blind: no comparison with NaN is true
    blind, kept, until = np.empty(0, np.intp), after[:0], np.empty(0, np.int64)
    found = [(until, blind, blind > 0)]
    for (start, end), new in zip(itertools.pairwise(np.asarray(times_us).tolist()), levels):
        before, after = after, new

        # The blind time of these pixels ends in this step. Those already past their threshold
        # fire at that moment.
        due = until <= end
        pixel, r, t = blind[due], kept[due], np.maximum(until[due], start)
        level = before[pixel]
        level += ((t - start) / (end - start)).astype(level.dtype) * (after[pixel] - level)
        late = np.abs(level - r) > thresholds[pixel]
        reference[pixel] = np.where(late, np.nan, r)
        pixel, t, level, on = pixel[late], t[late], level[late], (level > r)[late]

        # All others fire where the line from `before` to `after` crosses the threshold.
        fired = (np.abs(after - reference) > thresholds).nonzero()[0]
        origin = before[fired]
        rise = after[fired] - origin
        crossed = reference[fired] + np.copysign(thresholds[fired], rise)
        reference[fired] = np.nan
        wait = np.ceil(np.minimum((crossed - origin) / rise, 1) * (end - start))

        t = np.concatenate([t, start + wait.astype(np.int64)])
        pixel = np.concatenate([pixel, fired])
        found.append((t, pixel, np.concatenate([on, rise > 0])))
        still = ~due
        blind = np.concatenate([blind[still], pixel])
        kept = np.concatenate([kept[still], level, crossed])
        until = np.concatenate([until[still], t + refractory_us])
    t, pixel, on = (np.concatenate(parts) for parts in zip(*found))
    return t, pixel, on


def rgb_to_luminance(rgb: ndarray) -> ndarray:
    """Luminance by the weights of Rec. 601: (..., 3) floats in [0, 1] to (...), same dtype."""
    rgb = np.asarray(rgb)
    if rgb.ndim < 1 or rgb.shape[-1] != 3 or not np.issubdtype(rgb.dtype, np.floating):
        raise ValueError(
            f"expected RGB floats of shape (..., 3), got {rgb.dtype} of shape {rgb.shape}"
        )
    return rgb @ np.array([0.299, 0.587, 0.114], rgb.dtype)


def _check_luminance(luminance):
    luminance = np.asarray(luminance)
    is_plane = luminance.ndim == 2 and 0 not in luminance.shape
    if not (is_plane and np.issubdtype(luminance.dtype, np.floating)):
        raise ValueError("expected luminance as a two-dimensional array of floats in [0, 1], "
                         f"got {luminance.dtype} of shape {luminance.shape}")
    bad = ~((luminance >= 0) & (luminance <= 1))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        hint = "; divide values 0-255 by 255" if luminance[row, column] > 1 else ""
        raise ValueError(
            f"luminance[{row}, {column}] = {luminance[row, column]}, "
            f"expected a value in [0, 1]{hint}"
        )
    return luminance.astype(np.float32)


def _check_view(scale, offset):
    if not (isinstance(scale, numbers.Real) and np.isfinite(scale) and scale > 0):
        raise ValueError(
            f"expected scale, sensor pixels per picture pixel, to be a number > 0, got {scale!r}"
        )
    try:
        dx, dy = (float(d) for d in offset)
    except (TypeError, ValueError):
        dx = dy = np.nan
    if not np.isfinite([dx, dy]).all():
        raise ValueError(
            f"expected offset = (dx, dy), two finite numbers of pixels, got {offset!r}"
        )
    return dx, dy


def _knots(motion, step_us):
    """Times (S,) and displacements (S, 2) of the simulation's steps; pauses are one step."""
    times_us = np.append(np.arange(0, motion.duration_us, step_us), motion.duration_us)
    displacement = motion.displacement(times_us)
    moves = (np.diff(displacement, axis=0) != 0).any(axis=1)
    kept = np.append(True, moves) | np.append(moves, True)
    return times_us[kept], displacement[kept]


def _lens(n, size, scale, offset, blur):
    """Weights (size, n) of the picture's n rows in each sensor row; each row sums to 1.

    Columns alike.
    """
    seen = (np.arange(size) - (size - 1) / 2 - offset) / scale + (n - 1) / 2
    distance = scale * (np.clip(seen, 0, n - 1)[:, None] - np.arange(n))            # sensor pixels
    exponent = -0.5 * (distance / max(blur, 1e-3))**2  # no blur: the nearest row only
    exponent -= exponent.max(axis=1, keepdims=True)
    weights = np.where(exponent > -20, np.exp(exponent), 0)  # the rest vanishes in float32
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _moving_levels(level, corners, sensor_size):
    """Yield the levels (H W,) of the window at each corner (x, y), interpolated bilinearly."""
    H, W = sensor_size
    cells = np.floor(corners).astype(int)
    x, y = (corners - cells).astype(level.dtype).T
    weights = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=1)  # (S, 4)
    enters = np.flatnonzero((np.diff(cells, axis=0) != 0).any(axis=1)) + 1
    for first, last in itertools.pairwise([0, *enters, len(cells)]):
        j, i = cells[first]
        windows = [level[b:b + H, a:a + W] for b in (i, i + 1) for a in (j, j + 1)]
        yield from weights[first:last] @ np.stack(windows).reshape(4, H * W)


def _background(signal, pixels, duration_us, camera, rng):
    """(t, pixel, on) of background activity, outside the refractory time of any other event."""
    hot = rng.random(pixels) < camera.hot_share
    counts = rng.poisson(np.where(hot, HOT_HZ, camera.background_hz) * duration_us * 1e-6)
    pixel = np.repeat(np.arange(pixels), counts)
    t = rng.integers(duration_us, size=len(pixel), endpoint=True)

    # Concatenate the time axes of all pixels, with a pause between them: neighbours on this line
    # are then events of one pixel that are close in time.
    pause = camera.refractory_us
    lane = duration_us + pause + 1
    noise = np.sort(pixel * lane + t)
    noise = noise[np.diff(noise, prepend=-lane) >= pause]
    line = np.sort(signal[1] * lane + signal[0])
    line = np.concatenate([[-lane], line, [(pixels + 1) * lane]])
    following = np.searchsorted(line, noise)
    noise = noise[(noise - line[following - 1] >= pause) & (line[following] - noise >= pause)]
    pixel, t = np.divmod(noise, lane)
    return t, pixel, rng.random(len(t)) < BACKGROUND_ON
