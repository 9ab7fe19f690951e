"""Events, Eq. (4), and the frames made of them."""

import numpy as np
import oracles
import pytest
from conftest import golden_keys, relative_error
from scipy.ndimage import map_coordinates

from ckd_ref import events as module
from ckd_ref.events import EVENT_DTYPE, MAX_TIME_US, FormatError, bin_events, check_events, resize_frames

SENSOR = (7, 5)
"""Rows and columns."""


def events_of(rows):
    return np.array(rows, EVENT_DTYPE)


def random_events(rng, n, duration):
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, duration, n)) + 1000
    events["x"], events["y"], events["p"] = rng.integers(5, size=n), rng.integers(7, size=n), rng.integers(2, size=n)
    return events


def test_eq04_event_has_time_place_and_polarity():
    assert EVENT_DTYPE.names == ("t", "x", "y", "p")
    assert [EVENT_DTYPE[name].kind for name in EVENT_DTYPE.names] == ["i", "u", "u", "u"]
    events = events_of([(3, 4, 6, 1)])
    assert check_events(events, SENSOR) is events


def counts_every_event_once(bin_events):
    """Two windows of [10, 30]: 10 and 19 in the first, 20 and, as the last is closed, 30 in the second."""
    events = events_of([(10, 4, 6, 1), (19, 4, 6, 1), (20, 4, 6, 0), (30, 1, 2, 0)])
    frames = bin_events(events, 2, SENSOR)
    expected = np.zeros((2, *SENSOR, 2))
    expected[0, 6, 4, 1], expected[1, 6, 4, 0], expected[1, 2, 1, 0] = 2, 1, 1
    assert (frames == expected).all()


def test_eq04_frames_by_hand():
    counts_every_event_once(bin_events)


def wrong_binning(lose_last=False, swap_axes=False, flip_polarity=False, binary=False, side="right"):
    def bin_wrongly(events, T, sensor_size):
        H, W = sensor_size
        edges = np.linspace(events["t"][0], events["t"][-1], T + 1)[1:-1]
        frames = np.zeros((T, H, W, 2))
        for event in events[:-1] if lose_last else events:
            k = np.searchsorted(edges, event["t"], side)
            x, y = (event["y"], event["x"]) if swap_axes else (event["x"], event["y"])
            frames[k, y % H, x % W, 1 - event["p"] if flip_polarity else event["p"]] += 1
        return np.minimum(frames, 1) if binary else frames
    return bin_wrongly


@pytest.mark.parametrize("wrong", [dict(lose_last=True), dict(swap_axes=True), dict(flip_polarity=True),
                                   dict(binary=True), dict(side="left")],
                         ids=["last event lost", "x and y swapped", "polarity flipped", "not counted", "edge"])
def test_eq04_wrong_binning_is_caught(wrong):
    with pytest.raises(AssertionError):
        counts_every_event_once(wrong_binning(**wrong))
    counts_every_event_once(wrong_binning())


@pytest.mark.parametrize("T", [1, 2, 3, 10, 64])
def test_eq04_frames_equal_the_loop_over_events(rng, T):
    for n, duration in ((400, 3000), (30, 7), (5, 1), (2, 10**6)):
        events = random_events(rng, n, duration)
        assert (bin_events(events, T, SENSOR) == oracles.bin_events(events.tolist(), T, *SENSOR)).all()


@pytest.mark.parametrize("rows", [[(5, 0, 0, 1)], [(5, 0, 0, 1)] * 4, [(0, 1, 1, 0), (MAX_TIME_US, 1, 1, 1)]],
                         ids=["single event", "equal times", "longest duration"])
def test_eq04_no_event_is_lost(rows):
    for T in (1, 3, 10):
        frames = bin_events(events_of(rows), T, SENSOR)
        assert frames.sum() == len(rows) and frames.shape == (T, *SENSOR, 2)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_eq04_frames_do_not_depend_on_the_blocks(rng, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    events = random_events(rng, 301, 40)
    for T in (1, 4, 50):
        assert (bin_events(events, T, SENSOR) == oracles.bin_events(events.tolist(), T, *SENSOR)).all()


@pytest.mark.parametrize("sensor_size", [(1, 32_767), (128, 256), (257, 255), (300, 65_536)])
def test_eq04_every_corner_of_a_large_sensor_has_its_own_place(sensor_size):
    """Places around 2^16 and beyond: no whole number in between may be too narrow."""
    H, W = sensor_size
    corners = sorted({(0, x, y, p) for x in (0, W - 1) for y in (0, H - 1) for p in (0, 1)})
    frames = bin_events(events_of(corners), 1, sensor_size)
    assert frames.sum() == len(corners) and all(frames[0, y, x, p] == 1 for _, x, y, p in corners)


def test_eq04_windows_are_exact_at_the_longest_duration():
    """In floating point, or in 64 bits, T times the duration would be rounded or overflow."""
    T, step = 10_007, MAX_TIME_US // 10_007
    t = sorted({MAX_TIME_US, *(k * MAX_TIME_US // T + d for k in (0, 1, 5000, 10_006) for d in (0, 1, step // 2))})
    frames = bin_events(events_of([(i, 0, 0, 1) for i in t]), T, (1, 1))[:, 0, 0, 1]
    assert frames.tolist() == np.bincount([min(T * i // MAX_TIME_US, T - 1) for i in t], minlength=T).tolist()


def test_eq04_a_count_that_float32_cannot_hold_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "MAX_COUNT", 4)
    assert bin_events(events_of([(1, 0, 0, 0)] * 3 + [(2, 1, 0, 0)] * 3), 1, SENSOR).max() == 3
    with pytest.raises(ValueError, match="at most 3 events of a pixel in one frame"):
        bin_events(events_of([(1, 0, 0, 0)] * 5), 1, SENSOR)
    assert np.float32(2**24) + np.float32(1) == 2**24 > np.float32(2**24 - 1)


def read_golden_events(case):
    events = np.zeros(len(case["t"]), EVENT_DTYPE)
    for name in EVENT_DTYPE.names:
        events[name] = case[name][:]
    if case.attrs["sensor_size"] == "None":                    # the original then takes the largest coordinates
        return events, (int(events["y"].max()) + 1, int(events["x"].max()) + 1)
    return events, SENSOR[::-1]                                # written (W, H, P) there: 5 rows, 7 columns


@pytest.mark.parametrize("rule, name", [("tonic", "tonic_pip"), ("braincog", "tonic_fork")])
@pytest.mark.parametrize("key", golden_keys("toframe"))
def test_eq04_golden_frames(golden, key, rule, name):
    """Both rules to the event, with what they drop."""
    case = golden["toframe"][key]
    events, sensor_size = read_golden_events(case)
    frames = bin_events(events, int(case.attrs["n_time_bins"]), sensor_size, rule=rule)
    assert (frames.transpose(0, 3, 1, 2) == case[name][:]).all()
    assert frames.sum() == case[name].attrs["events_kept"]


@pytest.mark.parametrize("key", golden_keys("toframe"))
def test_eq04_conserving_rule_keeps_all_golden_events(golden, key):
    events, sensor_size = read_golden_events(golden["toframe"][key])
    frames = bin_events(events, int(golden["toframe"][key].attrs["n_time_bins"]), sensor_size)
    assert frames.sum() == len(events)
    assert (frames == oracles.bin_events(events.tolist(), len(frames), *sensor_size)).all()


def test_eq04_window_selects_and_places(rng):
    events = random_events(rng, 300, 4000)
    first, last = 2000, 2999
    inside = events[(events["t"] >= first) & (events["t"] <= last)]
    frames = bin_events(events, 4, SENSOR, window=(first, last))
    assert frames.sum() == len(inside)
    bounds = np.r_[first + 999 * np.arange(4) / 4, last + 1]
    assert frames.sum((1, 2, 3)).tolist() == np.histogram(inside["t"], bounds)[0].tolist()
    assert not bin_events(events, 4, SENSOR, window=(10**6, 10**7)).any()
    whole = int(events["t"][0]), int(events["t"][-1])
    assert (bin_events(events, 4, SENSOR, window=whole) == bin_events(events, 4, SENSOR)).all()


def test_eq04_frames_ignore_a_shift_in_time(rng):
    events = random_events(rng, 200, 3000)
    later = events.copy()
    later["t"] += 123_456_789
    assert (bin_events(events, 7, SENSOR) == bin_events(later, 7, SENSOR)).all()


def test_eq04_frames_are_float32_and_events_untouched(rng):
    events = random_events(rng, 20, 300)
    before = events.copy()
    assert bin_events(events, 3, SENSOR).dtype == np.float32
    assert (events == before).all()


GOOD = [(1, 0, 0, 0), (2, 4, 6, 1), (3, 2, 2, 1)]


@pytest.mark.parametrize("rows, message", [
    (GOOD[:1] + [(2, 5, 0, 0)], r"event 1 of 2: x = 5, expected a column in 0 \.\.\. 4"),
    (GOOD[:2] + [(2, 0, 7, 0)], r"event 2 of 3: y = 7, expected a row in 0 \.\.\. 6"),
    ([(1, 0, 0, 2)] + GOOD[1:], r"event 0 of 3: p = 2, expected polarity 0 \(OFF\) or 1 \(ON\)"),
    (GOOD + [(2, 0, 0, 0)], "event 3 of 4: t = 2, expected times that do not decrease"),
    ([(-1, 0, 0, 0)] + GOOD, "event 0 of 4: t = -1, expected a time"),
    (GOOD + [(2**62, 0, 0, 0)], "event 3 of 4: t = "),
    ([(2, 0, 0, 0), (1, 0, 0, 0), (3, 9, 0, 0)], "event 1 of 3: t = 1"),
    ([], "at least one event, got an empty recording"),
])
@pytest.mark.parametrize("block", [1, 2, 2**15])
def test_eq04_bad_events_are_refused_by_number(rows, message, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    for use in (lambda e: check_events(e, SENSOR), lambda e: bin_events(e, 3, SENSOR)):
        with pytest.raises(FormatError, match=message):
            use(events_of(rows))


@pytest.mark.parametrize("events", [np.zeros((3, 4)), [(1, 0, 0, 0)], None, np.zeros((2, 2), EVENT_DTYPE)])
def test_eq04_other_arrays_are_refused(events):
    with pytest.raises(FormatError, match="array of EVENT_DTYPE"):
        check_events(events, SENSOR)


@pytest.mark.parametrize("arguments, message", [
    (dict(T=0), "T, the number of frames, to be a whole number >= 1, got 0"),
    (dict(T=2.5), "whole number >= 1, got 2.5"),
    (dict(sensor_size=(0, 5)), "both at least 1"),
    (dict(sensor_size=7), "two whole numbers, got 7"),
    (dict(rule="equal"), "rule \"conserving\", or .*got rule='equal'"),
    (dict(rule="tonic", window=(0, 3)), "without a window"),
    (dict(window=(3, 2)), r"0 <= first <= last .*got \(3, 2\)"),
    (dict(window=(-1, 2)), "0 <= first"),
    (dict(window=3), "window = .first, last. in whole microseconds, got 3"),
])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bin_events(**dict(events=events_of(GOOD), T=3, sensor_size=SENSOR) | arguments)


# Resizing

@pytest.mark.parametrize("key", golden_keys("resize"))
def test_resize_golden(golden, key):
    case = golden["resize"][key]
    resized = resize_frames(case["x"][:].transpose(0, 2, 3, 1), case["y"].shape[-1])
    assert relative_error(resized.transpose(0, 3, 1, 2), case["y"][:]) < 1e-9


@pytest.mark.parametrize("size", [1, 4, 9, 17])
def test_resize_equals_scipys_interpolation(rng, size):
    frames = rng.random((2, 3, 9, 6, 2))
    rows, columns = (np.linspace(0, n - 1, size) if size > 1 else np.zeros(1) for n in (9, 6))
    grid = np.meshgrid(rows, columns, indexing="ij")
    resized = resize_frames(frames, size)
    for index in np.ndindex(2, 3):
        for c in (0, 1):
            reference = map_coordinates(frames[index][..., c], grid, order=1)
            assert relative_error(resized[index][..., c], reference) < 1e-12


def test_resize_does_not_depend_on_the_blocks(rng, monkeypatch):
    frames = rng.random((7, 6, 5, 2))
    whole = resize_frames(frames, 4)
    monkeypatch.setattr(module, "BLOCK", 2 * 4 * 4 * 2)
    assert (resize_frames(frames, 4) == whole).all()


def test_resize_leaves_its_input_alone_and_takes_any_memory_order(rng):
    frames = rng.random((3, 2, 6, 5))
    before = frames.copy()
    turned = frames.transpose(0, 2, 3, 1)
    assert (resize_frames(turned, 4) == resize_frames(np.ascontiguousarray(turned), 4)).all()
    assert (frames == before).all()


def test_resize_limits(rng):
    frames = rng.random((2, 8, 8, 2))
    assert relative_error(resize_frames(frames, 8), frames) < 1e-12
    assert relative_error(resize_frames(np.ones((5, 9, 1)), 12), np.ones((12, 12, 1))) < 1e-12
    corners = resize_frames(frames, 5)[:, ::4, ::4]
    assert relative_error(corners, frames[:, ::7, ::7]) < 1e-12


def test_resize_float32_stays_float32(rng):
    assert resize_frames(rng.random((2, 8, 8, 2)).astype(np.float32), 5).dtype == np.float32


@pytest.mark.parametrize("shape, size, message", [((8, 8, 2), 0, "pixels >= 1"), ((8, 8, 2), 2.5, "whole number"),
                                                  ((8, 8), 4, r"got \(8, 8\)"), ((3, 0, 8, 2), 4, "none of them 0")])
def test_resize_refuses_bad_input(shape, size, message):
    with pytest.raises(ValueError, match=message):
        resize_frames(np.zeros(shape), size)
