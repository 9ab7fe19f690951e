"""Events, Eq. (4), and the frames made of them."""

import numpy as np
import oracles
import pytest
from assertions import assert_close, assert_dtype, assert_equal, assert_shape
from conftest import golden_keys
from scipy.ndimage import map_coordinates
from subject import EVENT_DTYPE, bin_events, check_events

from ckd_ref import events as module
from ckd_ref.events import (
    MAX_TIME_US,
    FormatError,
    count_events,
    from_arrays,
    resize_frames,
    window_edges,
)

SENSOR = (7, 5)
"""Rows and columns."""

LOOP = "Eq. (4): frames must be those of a loop over the events"


def events_of(rows):
    return np.array(rows, EVENT_DTYPE)


def random_events(rng, n, duration):
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, duration, n)) + 1000
    events["x"] = rng.integers(5, size=n)
    events["y"] = rng.integers(7, size=n)
    events["p"] = rng.integers(2, size=n)
    return events


def test_eq04_event_has_time_place_and_polarity():
    names = EVENT_DTYPE.names
    assert names == ("t", "x", "y", "p"), f"Eq. (4): an event is (t, x, y, p), got {names}"
    kinds = [EVENT_DTYPE[name].kind for name in names]
    assert kinds == ["i", "u", "u", "u"], f"Eq. (4): t is signed, x, y, p unsigned, got {kinds}"
    events = events_of([(3, 4, 6, 1)])
    same = check_events(events, SENSOR) is events
    assert same, "Eq. (4): check_events must return the recording itself"


def counts_every_event_once(bin_events):
    """Two windows of [10, 30]: 10 and 19 in the first, 20 and, as the last is closed, 30."""
    events = events_of([(10, 4, 6, 1), (19, 4, 6, 1), (20, 4, 6, 0), (30, 1, 2, 0)])
    frames = bin_events(events, 2, SENSOR)
    expected = np.zeros((2, *SENSOR, 2))
    expected[0, 6, 4, 1] = 2
    expected[1, 6, 4, 0] = expected[1, 2, 1, 0] = 1
    what = "Eq. (4): all 4 events must be counted, the last one included"
    assert_equal(frames.sum(), 4, what)
    what = "Eq. (4): each event counts in [its window, its row y, its column x, its polarity]"
    assert_equal(frames, expected, what)


def test_eq04_value_by_hand():
    counts_every_event_once(bin_events)


def wrong_binning(
    lose_last=False, swap_axes=False, flip_polarity=False, binary=False, side="right"
):
    def bin_wrongly(events, T, sensor_size):
        H, W = sensor_size
        edges = np.linspace(events["t"][0], events["t"][-1], T + 1)[1:-1]
        frames = np.zeros((T, H, W, 2))
        for event in events[:-1] if lose_last else events:
            k = np.searchsorted(edges, event["t"], side)
            x, y = (event["y"], event["x"]) if swap_axes else (event["x"], event["y"])
            p = 1 - event["p"] if flip_polarity else event["p"]
            frames[k, y % H, x % W, p] += 1
        return np.minimum(frames, 1) if binary else frames

    return bin_wrongly


@pytest.mark.package_only
@pytest.mark.parametrize("wrong", [
    dict(lose_last=True), dict(swap_axes=True), dict(flip_polarity=True), dict(binary=True),
    dict(side="left"),
], ids=["last event lost", "x and y swapped", "polarity flipped", "not counted", "edge"])
def test_eq04_wrong_binning_is_caught(wrong):
    with pytest.raises(AssertionError, match=r"Eq\. \(4\): .*expected .*, got "):
        counts_every_event_once(wrong_binning(**wrong))
    counts_every_event_once(wrong_binning())


@pytest.mark.parametrize("T", [1, 2, 3, 10, 64])
def test_eq04_frames_equal_the_loop_over_events(rng, T):
    for n, duration in ((400, 3000), (30, 7), (5, 1), (2, 10**6)):
        events = random_events(rng, n, duration)
        expected = oracles.bin_events(events.tolist(), T, *SENSOR)
        assert_equal(bin_events(events, T, SENSOR), expected, LOOP)


@pytest.mark.parametrize("rows", [
    [(5, 0, 0, 1)],
    [(5, 0, 0, 1)] * 4,
    [(0, 1, 1, 0), (MAX_TIME_US, 1, 1, 1)],
], ids=["single event", "equal times", "longest duration"])
def test_eq04_no_event_is_lost(rows):
    for T in (1, 3, 10):
        frames = bin_events(events_of(rows), T, SENSOR)
        assert_shape(frames, (T, *SENSOR, 2), "Eq. (4): frames are (T, H, W, 2)")
        what = f"Eq. (4): the counts of {T} frames must add up to the number of events"
        assert_equal(frames.sum(), len(rows), what)


def test_eq04_counts_are_not_normalised(rng):
    """A pixel that fires n times in a window counts n, however many others fire."""
    for n in (1, 3, 300):
        rows = [(k, 2, 3, 1) for k in range(n)] + [(n, 0, 0, 0)]
        frames = bin_events(events_of(rows), 1, SENSOR)
        what = f"Eq. (4): {n} events of a pixel must count {n}, neither normalised nor clipped"
        assert_equal(frames[0, 3, 2, 1], n, what)
        assert_equal(frames.sum(), n + 1, what)


@pytest.mark.package_only
@pytest.mark.parametrize("block", [1, 3, 100])
def test_eq04_frames_do_not_depend_on_the_blocks(rng, monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    events = random_events(rng, 301, 40)
    for T in (1, 4, 50):
        expected = oracles.bin_events(events.tolist(), T, *SENSOR)
        assert_equal(bin_events(events, T, SENSOR), expected, f"{LOOP}, in blocks of {block}")


@pytest.mark.parametrize("sensor_size", [(1, 32_767), (128, 256), (257, 255), (300, 65_536)])
def test_eq04_every_corner_of_a_large_sensor_has_its_own_place(sensor_size):
    """Places around 2^16 and beyond: no whole number in between may be too narrow."""
    H, W = sensor_size
    corners = sorted({(0, x, y, p) for x in (0, W - 1) for y in (0, H - 1) for p in (0, 1)})
    frames = bin_events(events_of(corners), 1, sensor_size)
    what = f"Eq. (4): each corner of a sensor of {H} x {W} has its own place"
    assert_equal([frames[0, y, x, p] for _, x, y, p in corners], [1] * len(corners), what)
    assert_equal(frames.sum(), len(corners), what)


def test_eq04_windows_are_exact_at_the_longest_duration():
    """In floating point, or in 64 bits, T times the duration would be rounded or overflow."""
    T, step = 10_007, MAX_TIME_US // 10_007
    starts = [k * MAX_TIME_US // T for k in (0, 1, 5000, 10_006)]
    t = sorted({MAX_TIME_US, *(start + d for start in starts for d in (0, 1, step // 2))})
    frames = bin_events(events_of([(i, 0, 0, 1) for i in t]), T, (1, 1))[:, 0, 0, 1]
    expected = np.bincount([min(T * i // MAX_TIME_US, T - 1) for i in t], minlength=T)
    assert_equal(frames, expected, "Eq. (4): windows must be exact at the longest duration")


@pytest.mark.package_only
def test_eq04_a_window_may_end_at_the_latest_time():
    frames = bin_events(events_of([(MAX_TIME_US, 0, 0, 1)]), 2, (1, 1), (0, MAX_TIME_US))
    what = "Eq. (4): the latest time is in the last frame"
    assert_equal(frames[:, 0, 0, 1].tolist(), [0, 1], what)


@pytest.mark.package_only
def test_eq04_a_count_that_float32_cannot_hold_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "MAX_COUNT", 4)
    three_each = events_of([(1, 0, 0, 0)] * 3 + [(2, 1, 0, 0)] * 3)
    assert_equal(bin_events(three_each, 1, SENSOR).max(), 3, "Eq. (4): counts below the limit")
    for count in (4, 5):
        with pytest.raises(ValueError, match="at most 3 events of a pixel in one frame"):
            bin_events(events_of([(1, 0, 0, 0)] * count), 1, SENSOR)
    monkeypatch.undo()
    assert module.MAX_COUNT == 2**24 and MAX_TIME_US == 2**52
    limit = np.float32(2**24)
    assert limit + np.float32(1) == limit, "float32 counts beyond 2^24?"
    assert np.float32(2**24 - 1) < limit, "float32 cannot count to 2^24?"


def read_golden_events(case):
    events = np.zeros(len(case["t"]), EVENT_DTYPE)
    for name in EVENT_DTYPE.names:
        events[name] = case[name][:]
    if case.attrs["sensor_size"] == "None":
        # The original then takes the largest coordinates.
        return events, (int(events["y"].max()) + 1, int(events["x"].max()) + 1)
    return events, SENSOR[::-1]                                # written (W, H, P) there: 5 rows


@pytest.mark.parametrize("rule, name", [("tonic", "tonic_pip"), ("braincog", "tonic_fork")])
@pytest.mark.parametrize("key", golden_keys("toframe"))
def test_eq04_golden_rules_of_tonic(golden, key, rule, name):
    """Both rules to the event, with what they drop."""
    case = golden["toframe"][key]
    events, sensor_size = read_golden_events(case)
    frames = bin_events(events, int(case.attrs["n_time_bins"]), sensor_size, rule=rule)
    what = f"Eq. (4): with the rule {rule} frames are those of the original, {name}"
    assert_equal(frames.transpose(0, 3, 1, 2), case[name][:], what)
    what = f"Eq. (4): the rule {rule} keeps as many events as the original"
    assert_equal(frames.sum(), case[name].attrs["events_kept"], what)


@pytest.mark.parametrize("key", golden_keys("toframe"))
def test_eq04_conserving_rule_keeps_all_golden_events(golden, key):
    events, sensor_size = read_golden_events(golden["toframe"][key])
    frames = bin_events(events, int(golden["toframe"][key].attrs["n_time_bins"]), sensor_size)
    what = "Eq. (4): the conserving rule must count every event"
    assert_equal(frames.sum(), len(events), what)
    assert_equal(frames, oracles.bin_events(events.tolist(), len(frames), *sensor_size), LOOP)


def test_eq04_window_selects_and_places(rng):
    events = random_events(rng, 300, 4000)
    first, last = 2000, 2999
    inside = events[(events["t"] >= first) & (events["t"] <= last)]
    frames = bin_events(events, 4, SENSOR, window=(first, last))
    what = "Eq. (4): a window keeps the events from its first to its last time"
    assert_equal(frames.sum(), len(inside), what)
    bounds = np.r_[first + 999 * np.arange(4) / 4, last + 1]
    what = "Eq. (4): the frames divide the window evenly"
    assert_equal(frames.sum((1, 2, 3)), np.histogram(inside["t"], bounds)[0], what)
    beyond = bin_events(events, 4, SENSOR, window=(10**6, 10**7))
    assert_equal(beyond.sum(), 0, "Eq. (4): a window after the recording is empty")
    whole = int(events["t"][0]), int(events["t"][-1])
    what = "Eq. (4): the window of the whole recording is the default"
    windowed = bin_events(events, 4, SENSOR, window=whole)
    assert_equal(windowed, bin_events(events, 4, SENSOR), what)


def test_eq04_frames_ignore_a_shift_in_time(rng):
    events = random_events(rng, 200, 3000)
    later = events.copy()
    later["t"] += 123_456_789
    what = "Eq. (4): frames must not depend on when the recording begins"
    assert_equal(bin_events(later, 7, SENSOR), bin_events(events, 7, SENSOR), what)


def test_eq04_frames_are_float32_and_events_untouched(rng):
    events = random_events(rng, 20, 300)
    before = events.copy()
    assert_dtype(bin_events(events, 3, SENSOR), np.float32, "Eq. (4): frames are float32")
    assert (events == before).all(), "Eq. (4): bin_events must not change the events"


# The parts of bin_events

@pytest.mark.package_only
def test_eq04_edges_by_hand():
    """A window begins at the first whole microsecond that is not before its exact time."""
    t = np.array([10, 19, 20, 30])
    what = "Eq. (4): the edges of {} between 10 and 30"
    assert_equal(window_edges(t, 1), [10, 31], what.format("1 window"))
    assert_equal(window_edges(t, 2), [10, 20, 31], what.format("2 windows"))
    assert_equal(window_edges(t, 3), [10, 17, 24, 31], what.format("3 windows"))
    assert_equal(window_edges(t, 2, window=(0, 5)), [0, 3, 6], "Eq. (4): edges of [0, 5]")
    assert_equal(window_edges(t, 3, rule="tonic"), [10, 16, 22, 28], what.format("tonic's 3"))
    assert_equal(window_edges(t, 3, rule="braincog"), [10, 20, 30, 40], what.format("its fork's"))
    what = "Eq. (4): equal times: all events belong to the first of the windows"
    assert_equal(window_edges(np.array([5, 5]), 3), [5, 6, 6, 6], what)


@pytest.mark.package_only
@pytest.mark.parametrize("T", [1, 2, 7, 300])
def test_eq04_edges_put_each_event_into_exactly_one_window(rng, T):
    for duration in (1, 6, 299, 10**6, MAX_TIME_US - 1000):
        t = np.sort(rng.integers(0, duration, 200)) + 1000
        edges = window_edges(t, T)
        assert len(edges) == T + 1, f"Eq. (4): expected {T + 1} edges, got {len(edges)}"
        ascending = all(a <= b for a, b in zip(edges, edges[1:]))
        assert ascending, f"Eq. (4): expected edges that do not decrease, got {edges}"
        for time in t.tolist():
            holding = sum(a <= time < b for a, b in zip(edges, edges[1:]))
            assert holding == 1, f"Eq. (4): the event at {time} is in {holding} windows, not 1"


@pytest.mark.package_only
def test_eq04_events_on_an_edge_belong_to_the_later_window():
    events = events_of([(0, 0, 0, 0), (3, 1, 0, 0), (4, 2, 0, 0), (9, 3, 0, 0)])
    frames = count_events(events, [0, 3, 4, 9], SENSOR)[:, 0, :, 0]
    expected = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    what = "Eq. (4): edges [0, 3, 4, 9]: the event at 9 is outside"
    assert_equal(frames, expected, what)
    what = "Eq. (4): a window between equal edges is empty"
    assert_equal(count_events(events, [0, 3, 3, 10], SENSOR).sum((1, 2, 3)), [1, 0, 3], what)


@pytest.mark.package_only
@pytest.mark.parametrize("rule, window", [
    ("conserving", None), ("conserving", (1005, 1021)), ("tonic", None), ("braincog", None)])
def test_eq04_frames_are_checked_events_counted_between_edges(rng, rule, window):
    events = random_events(rng, 301, 40)
    edges = window_edges(check_events(events, SENSOR)["t"], 4, window, rule)
    what = "Eq. (4): bin_events is check_events, window_edges and count_events"
    frames = bin_events(events, 4, SENSOR, window, rule)
    assert_equal(frames, count_events(events, edges, SENSOR), what)


@pytest.mark.package_only
@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 17, 25])
def test_eq04_blocks_count_each_event_once(monkeypatch, n):
    """Blocks of 8 events that end before, at and after the edges of windows."""
    monkeypatch.setattr(module, "BLOCK", 8)
    events = events_of([(k, k % 5, k // 5, k % 2) for k in range(n)])
    for edges in ([0, n], [0, n // 2, n], [0, 8, max(n, 8)], [0, 1, n], list(range(n + 1))):
        what = f"Eq. (4): {n} events, blocks of 8, edges {edges}"
        frames = count_events(events, edges, SENSOR)
        inside = [sum(a <= k < b for k in range(n)) for a, b in zip(edges, edges[1:])]
        assert_equal(frames.sum((1, 2, 3)), inside, what)
        assert_equal(frames.sum(), n, what)
        assert frames.max() == 1, f"{what}: an event was counted twice"


GOOD = [(1, 0, 0, 0), (2, 4, 6, 1), (3, 2, 2, 1)]


@pytest.mark.package_only
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


USES = {
    "check": check_events, "bin": lambda events, size: bin_events(events, 3, size),
    "count": lambda events, size: count_events(events, [0, 2, 9], size),
}


@pytest.mark.package_only
@pytest.mark.parametrize("use", USES)
def test_eq04_exchanged_rows_and_columns_get_a_hint(use):
    """Silently miscounted otherwise where a row ends: the place in a flat frame still exists."""
    on_a_wide_sensor = events_of([(1, 6, 0, 0), (2, 6, 4, 1), (3, 2, 2, 1)])
    message = (
        r"event 0 of 3: x = 6, expected a column in 0 \.\.\. 4; "
        r"all events fit on sensor_size = \(5, 7\): rows come first, then columns$"
    )
    with pytest.raises(FormatError, match=message):
        USES[use](on_a_wide_sensor, (7, 5))
    message = r"event 1 of 3: y = 6, expected a row in 0 \.\.\. 4; .* sensor_size = \(7, 5\)"
    with pytest.raises(FormatError, match=message):
        USES[use](events_of(GOOD), (5, 7))


@pytest.mark.package_only
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("rows, size", [
    (GOOD, (4, 4)), (GOOD, (7, 4)), (GOOD[:1] + [(2, 7, 0, 0), (3, 0, 7, 0)], SENSOR),
])
def test_eq04_events_that_fit_neither_way_get_no_hint(use, rows, size):
    with pytest.raises(FormatError, match=r"event 1 of 3: [xy] = \d, expected a \w+ in [\d .]+$"):
        USES[use](events_of(rows), size)


@pytest.mark.package_only
def test_eq04_other_faults_of_events_that_fit_get_no_hint():
    with pytest.raises(FormatError, match=r"polarity 0 \(OFF\) or 1 \(ON\)$"):
        check_events(events_of(GOOD[:1] + [(2, 1, 1, 2)]), SENSOR)


@pytest.mark.package_only
@pytest.mark.parametrize("events", [
    np.zeros((3, 4)), [(1, 0, 0, 0)], None, np.zeros((2, 2), EVENT_DTYPE)])
def test_eq04_other_arrays_are_refused(events):
    with pytest.raises(FormatError, match="array of EVENT_DTYPE"):
        check_events(events, SENSOR)


@pytest.mark.parametrize("arguments, message", [
    (dict(T=0), r"T, the number of frames, to be a whole number in 1 \.\.\. 65536, got 0"),
    (dict(T=2.5), "whole number in .*, got 2.5"),
    (dict(T=np.inf), "whole number in .*, got inf"),
    (dict(T=np.nan), "whole number in .*, got nan"),
    (dict(T=10**9), "whole number in .*, got 1000000000"),
    (dict(sensor_size=(65535, 65535)), "expected frames of at most 2147483648 bytes, got 103"),
    (dict(T=65536, sensor_size=(720, 1280)), "bytes for 65536 frames of 720 x 1280 pixels"),
    (dict(sensor_size=(np.inf, 5)), "two whole numbers"),
    (dict(sensor_size=(0, 5)), "both at least 1"),
    (dict(sensor_size=7), "two whole numbers, got 7"),
    (dict(sensor_size=(4.7, 5)), r"two whole numbers, got \(4.7, 5\)"),
    (dict(rule="equal"), "rule \"conserving\", or .*got rule='equal'"),
    (dict(rule="tonic", window=(0, 3)), "without a window"),
    (dict(window=(3, 2)), r"0 <= first <= last .*got \(3, 2\)"),
    (dict(window=(-1, 2)), "0 <= first"),
    (dict(window=(0, np.inf)), "in whole microseconds, got .0, inf."),
    (dict(window=3), "window = .first, last. in whole microseconds, got 3"),
])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        bin_events(**dict(events=events_of(GOOD), T=3, sensor_size=SENSOR) | arguments)


# What event files hold

ROWS = [(0, 4, 6, 1), (5, 0, 0, 0), (5, 3, 1, 1)]
T, X, Y, P = (list(column) for column in zip(*ROWS))
SIGNED = [1, -1, 1]


def makes_the_rows(from_arrays):
    for p in (P, SIGNED, np.array(P, bool), np.array(SIGNED, np.int8)):
        events = from_arrays(T, X, Y, p)
        what = f"from_arrays: p = {p} means the polarities {P}, t are microseconds"
        assert_equal([list(row) for row in events.tolist()], [list(row) for row in ROWS], what)
    seconds = from_arrays([0.25, 1.000001, 8.0], X, Y, P, unit="s")["t"]
    assert_equal(seconds, [250_000, 1_000_001, 8_000_000], "from_arrays: 1 s is 1,000,000 us")


def test_from_arrays_by_hand():
    makes_the_rows(from_arrays)
    assert_dtype(from_arrays(T, X, Y, P), EVENT_DTYPE, "from_arrays returns EVENT_DTYPE")


def test_polarity_of_one_sign_is_what_it_says():
    for p, expected in ((1, 1), (0, 0), (-1, 0)):
        assert_equal(from_arrays(T, X, Y, [p] * 3)["p"], [expected] * 3, f"all p = {p}")


def wrong_from_arrays(signed_to_bool=False, x_is_row=False, truncate=False):
    def wrong(t, x, y, p, unit="us"):
        if signed_to_bool:
            p = np.array(p, bool)
        if x_is_row:
            x, y = y, x
        if truncate and unit == "s":
            t, unit = [int(1e6 * time) for time in t], "us"
        return from_arrays(t, x, y, p, unit)

    return wrong


@pytest.mark.parametrize("wrong", [
    dict(signed_to_bool=True), dict(x_is_row=True), dict(truncate=True),
], ids=["-1 is ON", "x and y swapped", "seconds cut off"])
def test_wrong_columns_are_caught(wrong):
    with pytest.raises(AssertionError, match="from_arrays: .*expected .*, got "):
        makes_the_rows(wrong_from_arrays(**wrong))
    makes_the_rows(wrong_from_arrays())


@pytest.mark.parametrize("dtype", [*"bBhHiIlLqQefdg", ">i4", ">f8"])
def test_any_type_of_number_gives_the_same_events(dtype):
    columns = [np.array(column, dtype) for column in (T, X, Y, P)]
    assert from_arrays(*columns).tolist() == ROWS
    strided = [np.repeat(column, 2)[::2] for column in columns]
    assert from_arrays(*strided).tolist() == ROWS
    assert [column.tolist() for column in columns] == [T, X, Y, P], "the input is left alone"


def test_every_microsecond_survives_in_seconds(rng):
    """Up to 2^32 s, 136 years, in float64 and up to 8 s in float32."""
    for dtype, latest in ((np.float64, 2**32 * 10**6), (np.float32, 8 * 10**6)):
        t = np.sort(rng.integers(0, latest, 1000))
        zeros = np.zeros(1000, int)
        events = from_arrays((t / 1e6).astype(dtype), zeros, zeros, zeros, unit="s")
        assert_equal(events["t"], t, f"{dtype.__name__} seconds to microseconds and back")
        with pytest.raises(FormatError, match="row 0 of 1: t = .*exact to 1 us"):
            from_arrays(np.array([latest / 1e6], dtype), [0], [0], [0], unit="s")


def test_seconds_are_rounded_to_the_nearest_microsecond():
    """A half becomes the even neighbour."""
    t = [0.4e-6, 0.5e-6, 0.6e-6, 1.5e-6, 2.5e-6, 2.6e-6]
    events = from_arrays(t, [0] * 6, [0] * 6, [0] * 6, unit="s")
    assert_equal(events["t"], [0, 0, 1, 2, 2, 3], "microseconds")


def test_the_limits_of_every_column_are_valid():
    events = from_arrays([0, MAX_TIME_US], [0, 65535], [65535, 0], [0, 1])
    assert events.tolist() == [(0, 0, 65535, 0), (MAX_TIME_US, 65535, 0, 1)]


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("changes, message", [
    (dict(x=[0, -1, 0]), "row 1 of 3: x = -1, expected a column, a whole number in 0 ... 65535"),
    (dict(y=[0, 0, 65536]), "row 2 of 3: y = 65536, expected a row of the sensor"),
    (dict(y=np.array([0, 0, 2**40])), "row 2 of 3: y = 1099511627776"),
    (dict(x=[0, 1.5, 0]), "row 1 of 3: x = 1.5"),
    (dict(x=[0, NAN, 0]), "row 1 of 3: x = nan"),
    (dict(x=np.array([1, 2, 2050], np.float16)), "row 2 of 3: x = 2050.0"),
    (dict(t=[0, NAN, 5]), "row 1 of 3: t = nan, expected a whole number of microseconds in 0"),
    (dict(t=[0, 2.5, 5]), "row 1 of 3: t = 2.5, expected a whole number of microseconds"),
    (dict(t=[-1, 0, 5]), "row 0 of 3: t = -1"),
    (dict(t=[0, 5, MAX_TIME_US + 1]), "row 2 of 3: t = 4503599627370497"),
    (dict(t=[0, 5, 2**63]), "row 2 of 3: t = 9.2"),
    (dict(t=np.array([0, 1, 2**24 + 2], np.float32)), "row 2 of 3: t = 16777218.0"),
    (dict(t=[0, 5, 4]), "row 2 of 3: t = 4, expected times that do not decrease; sort"),
    (dict(t=np.array([9, 5, 5], np.uint64)), "row 1 of 3: t = 5, expected times that"),
    (dict(t=[0, 1, INF], unit="s"), "row 2 of 3: t = inf, expected seconds"),
    (dict(t=[-1e-9, 1, 1], unit="s"), "row 0 of 3: t = -1e-09"),
    (dict(t=[0, 1, 4503599628], unit="s"), "row 2 of 3: t = 4503599628"),
    (dict(t=[0, 1.5, 1.4999999], unit="s"), "row 2 of 3: t = 1.4999999, expected times that"),
    (dict(t=np.array([0, 1, 17], np.float32), unit="s"), "row 2 of 3: t = 17.0, expected seconds, "
     "exact to 1 us"),
    (dict(p=[0, 1, 2]), "row 2 of 3: p = 2, expected polarity 0 or 1, or -1 or 1"),
    (dict(p=[0, 1, -1]), "row 2 of 3: p = -1, expected polarity .* the same two in all rows"),
    (dict(p=[1, -1, 0]), "row 2 of 3: p = 0, expected polarity"),
    (dict(p=[1, NAN, 0]), "row 1 of 3: p = nan"),
    (dict(p=np.array([1, 255, 0], np.uint8)), "row 1 of 3: p = 255"),
    (dict(x=[0, 0, -1], p=[0, 3, 0]), "row 1 of 3: p = 3"),
    (dict(x=X[:2]), "row 2: expected t, x, y and p of one length, got 3 of t, 2 of x, 3 of y"),
    (dict(t=[], x=[], y=[], p=[]), "expected at least one event, got none"),
    (dict(t=["0", "1", "2"]), "t: expected a one-dimensional array of numbers, .* got list of <U1"),
    (dict(t=[0, None, 2]), "t: expected .* got list of object"),
    (dict(t=[0, 1, 2**70]), "t: expected .* got list of object"),
    (dict(t=np.array(T, "M8[us]")), "t: expected .* got ndarray of datetime64"),
    (dict(t=np.array(T) + 0j), "t: expected .* got ndarray of complex128"),
    (dict(x=[True, False, True]), "x: expected .* got list of bool"),
    (dict(y=[[1], [2, 3]]), "y: expected a one-dimensional array"),
    (dict(y=np.zeros((3, 1), int)), r"y: expected .* shape \(3, 1\)"),
    (dict(p=1), r"p: expected .* got int of int64, shape \(\)"),
    (dict(t=np.ma.array(T, mask=[0, 1, 0])), "t: expected .* none of them masked"),
])
def test_columns_that_are_no_events_are_refused_by_row(changes, message):
    with pytest.raises(FormatError, match=message):
        from_arrays(**dict(t=T, x=X, y=Y, p=P) | changes)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="expected one of the units us, s, got 'ms'"):
        from_arrays(T, X, Y, P, unit="ms")


# Resizing

@pytest.mark.parametrize("key", golden_keys("resize"))
def test_resize_golden(golden, key):
    case = golden["resize"][key]
    resized = resize_frames(case["x"][:].transpose(0, 2, 3, 1), case["y"].shape[-1])
    what = "resize_frames: frames are those of torch's bilinear interpolation, corners aligned"
    assert_close(resized.transpose(0, 3, 1, 2), case["y"][:], 1e-9, what)


@pytest.mark.parametrize("size", [1, 4, 9, 17])
def test_resize_equals_scipys_interpolation(rng, size):
    frames = rng.random((2, 3, 9, 6, 2))
    rows, columns = (np.linspace(0, n - 1, size) if size > 1 else np.zeros(1) for n in (9, 6))
    grid = np.meshgrid(rows, columns, indexing="ij")
    resized = resize_frames(frames, size)
    for index in np.ndindex(2, 3):
        for c in (0, 1):
            reference = map_coordinates(frames[index][..., c], grid, order=1)
            what = f"resize_frames: plane {index}, channel {c}, equals scipy's interpolation"
            assert_close(resized[index][..., c], reference, 1e-12, what)


def test_resize_does_not_depend_on_the_blocks(rng, monkeypatch):
    frames = rng.random((7, 6, 5, 2))
    whole = resize_frames(frames, 4)
    monkeypatch.setattr(module, "BLOCK", 2 * 4 * 4 * 2)
    assert_equal(resize_frames(frames, 4), whole, "resize_frames: two frames at a time, or all")


def test_resize_leaves_its_input_alone_and_takes_any_memory_order(rng):
    frames = rng.random((3, 2, 6, 5))
    before = frames.copy()
    turned = frames.transpose(0, 2, 3, 1)
    straight = resize_frames(np.ascontiguousarray(turned), 4)
    assert_equal(resize_frames(turned, 4), straight, "resize_frames: any order in memory")
    assert_equal(frames, before, "resize_frames must not change its input")


def test_resize_limits(rng):
    frames = rng.random((2, 8, 8, 2))
    assert_close(resize_frames(frames, 8), frames, 1e-12, "resize_frames to the same size")
    what = "resize_frames of a constant picture"
    assert_close(resize_frames(np.ones((5, 9, 1)), 12), np.ones((12, 12, 1)), 1e-12, what)
    corners = resize_frames(frames, 5)[:, ::4, ::4]
    assert_close(corners, frames[:, ::7, ::7], 1e-12, "resize_frames: corners are aligned")


def test_resize_float32_stays_float32(rng):
    resized = resize_frames(rng.random((2, 8, 8, 2)).astype(np.float32), 5)
    assert_dtype(resized, np.float32, "resize_frames: float32 must stay float32")


@pytest.mark.parametrize("shape, size, message", [
    ((8, 8, 2), 0, r"size to be a whole number of pixels in 1 \.\.\. 2048, got 0"),
    ((8, 8, 2), np.inf, "got inf"),
    ((8, 8, 2), 10**6, "got 1000000"),
    ((8, 8, 2), 2.5, "whole number"),
    ((8, 8), 4, r"got \(8, 8\)"),
    ((3, 0, 8, 2), 4, "none of them 0"),
])
def test_resize_refuses_bad_input(shape, size, message):
    with pytest.raises(ValueError, match=message):
        resize_frames(np.zeros(shape), size)


def test_resize_refuses_whole_numbers():
    """Their weights would be rounded to 0 and 1."""
    with pytest.raises(ValueError, match="frames of floats, which have fractions, got uint8"):
        resize_frames(np.zeros((8, 8, 2), np.uint8), 4)


def test_two_pixels_are_the_corners(rng):
    frame = rng.random((5, 7, 2))
    corners = frame[::4, ::6]
    what = "resizing to 2 x 2 keeps the four corners, of a single frame as well"
    assert_close(resize_frames(frame, 2), corners, 1e-12, what)


def test_the_first_fault_is_named_beside_times_at_the_limits():
    """The earliest and the latest time are valid; the fault is that of the next event."""
    for t in (0, MAX_TIME_US):
        events = events_of([(t, 0, 0, 1), (t, SENSOR[1], 0, 1)])
        with pytest.raises(FormatError, match=f"event 1 of 2: x = {SENSOR[1]}"):
            check_events(events, SENSOR)


def test_no_frames_are_resized_to_no_frames():
    assert resize_frames(np.zeros((0, 5, 7, 2)), 3).shape == (0, 3, 3, 2)
