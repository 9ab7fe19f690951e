"""The event camera: the definition of an event, simulated films, and one real recording."""

import dataclasses
import inspect

import numpy as np
import oracles
import pytest

from ckd_ref.data import camera as module
from ckd_ref.data.camera import Camera, Saccades, record, rgb_to_luminance, threshold_crossings
from ckd_ref.events import check_events

QUIET = Camera(threshold_spread=0.0, background_hz=0.0)
ONE_MOVE_US = ((10_000, 110_000),)


def listed(crossings):
    """(t, pixel, on) in order of time, then of pixel."""
    return sorted(zip(*(part.tolist() for part in crossings)))


def random_levels(rng, steps=60, pixels=25):
    """Random walks of log intensity, with uneven steps in time and moments of rest."""
    moves = rng.normal(0, 0.3, (steps, pixels)) * (rng.random((steps, 1)) < 0.8)
    return (
        moves.cumsum(axis=0),
        rng.integers(500, 3000, steps).cumsum(),
        rng.uniform(0.1, 0.5, pixels),
    )


def ramp(width=40, slope=0.1):
    """A picture whose log intensity falls by `slope` per column to the left, with gamma 1."""
    return np.tile(np.exp(slope * (np.arange(width) - width)), (6, 1))


RAMP_CAMERA = dataclasses.replace(
    QUIET, gamma=1.0, log_offset=1e-9, threshold=0.25, step_us=200, refractory_us=1000
)


# ---- the definition of an event


def definition_holds(crossings):
    """By hand: levels rise, fall, rest and rise by one in 1024 us; all numbers exact in binary."""
    times_us = np.arange(0, 1025, 64)
    rise = times_us / 1024
    levels = np.stack([rise, -rise, 0 * rise, rise], axis=1)
    found = listed(crossings(levels, times_us, np.array([0.25, 0.25, 0.25, 0.375]), 10))
    # A change of exactly the threshold is not more than the threshold: nothing fires at 1024 us.
    expected = [(256, 0, True), (256, 1, False), (384, 3, True), (512, 0, True), (512, 1, False),
                (768, 0, True), (768, 1, False), (768, 3, True)]
    return found == expected


def blindness_holds(crossings):
    """By hand: a jump by three thresholds in 100 us fires at once and after the blind time."""
    times_us = np.arange(0, 1001, 100)
    levels = np.full((11, 1), 0.75)
    levels[0] = 0
    found = listed(crossings(levels, times_us, np.array([0.25]), 150))
    return found == [(34, 0, True), (184, 0, True)]         # 100 / 3 us, rounded up; 150 us later


def test_eq04_pixel_fires_each_time_its_level_has_moved_by_the_threshold():
    assert definition_holds(threshold_crossings)


def test_eq04_blind_pixel_reports_what_it_missed_in_one_event():
    assert blindness_holds(threshold_crossings)


@pytest.mark.parametrize("right, wrong", [
    ("(np.abs(after - reference) > thresholds)", "(np.abs(after - reference) >= thresholds)"),
    ("rise > 0", "rise < 0"),
    ("[kept[still], level, crossed]", "[kept[still], level, 0 * crossed]"),
    ("[kept[still], level, crossed]", "[kept[still], level, after[fired]]"),
    ("t + refractory_us", "t"),
    ("start + wait", "end + 0 * wait"),
])
def test_eq04_wrong_versions_are_caught(right, wrong):
    source = inspect.getsource(threshold_crossings)
    assert source.count(right) == 1
    scope = dict(vars(module))
    exec(source.replace(right, wrong), scope)
    crossings = scope["threshold_crossings"]
    assert not (definition_holds(crossings) and blindness_holds(crossings))


@pytest.mark.parametrize("refractory_us", [0, 700, 2000, 9000])
def test_eq04_equals_the_loop_over_pixels_and_steps(rng, refractory_us):
    levels, times_us, thresholds = random_levels(rng)
    expected = oracles.threshold_crossings(levels, times_us, thresholds, refractory_us)
    assert len(expected) > 100
    assert listed(threshold_crossings(levels, times_us, thresholds, refractory_us)) == expected


def test_eq04_inverted_contrast_flips_every_polarity_and_nothing_else(rng):
    levels, times_us, thresholds = random_levels(rng)
    t, pixel, on = threshold_crossings(levels, times_us, thresholds, 2000)
    again = threshold_crossings(-levels, times_us, thresholds, 2000)
    assert len(t) and all(np.array_equal(a, b) for a, b in zip(again, (t, pixel, ~on)))


@pytest.mark.parametrize("dx, polarity", [(-6.0, 1), (6.0, 0)])
def test_eq04_ramp_that_moves_by_six_columns_fires_at_the_times_computed_by_hand(rng, dx, polarity):
    # The level changes by 0.1 per column: 0.25 after 2.5 columns and 0.5 after 5, of 6 in 100 ms.
    events = record(ramp(), (6, 40), rng, RAMP_CAMERA, Saccades(((dx, 0.0),), ONE_MOVE_US))
    inside = events[(events["x"] >= 8) & (events["x"] < 32)]
    assert (inside["p"] == polarity).all()
    assert np.bincount(inside["y"].astype(int) * 40 + inside["x"])[8:32].tolist() == [2] * 24
    progress = np.linspace(0, 1, 100_001)
    smooth = progress**2 * (3 - 2 * progress)
    for k, columns in enumerate((2.5, 5.0)):
        t = np.sort(inside["t"])[k * len(inside) // 2:(k + 1) * len(inside) // 2]
        assert np.abs(t - 10_000 - np.interp(columns / 6, smooth, progress) * 100_000).max() < 5


# ---- recordings


def picture(rng, size=(32, 40)):
    return np.kron(rng.random((size[0] // 8, size[1] // 8)), np.ones((8, 8)))


def test_recording_is_valid_and_ordered_by_time_then_pixel(rng):
    events = record(picture(rng), (32, 40), rng)
    assert check_events(events, (32, 40)) is events
    key = (events["t"] * 32 + events["y"]) * 40 + events["x"]
    assert (np.diff(key) >= 0).all() and events["t"][-1] <= Saccades().duration_us


def test_times_do_not_pile_up_on_the_steps_of_the_simulation(rng):
    t = record(picture(rng), (32, 40), rng)["t"]
    # even: 0.05
    assert np.bincount(t % Camera().step_us // 100, minlength=20).max() < 0.08 * len(t)


def test_shorter_steps_change_little(rng):
    scene = picture(rng)
    coarse, fine = (
        len(record(scene, (32, 40), rng, dataclasses.replace(QUIET, step_us=us)))
        for us in (2000, 100)
    )
    assert abs(coarse / fine - 1) < 0.03


def test_same_seed_same_bits_and_another_seed_others(rng):
    scene = picture(rng)
    first, same, other = (
        record(scene, (32, 40), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.tobytes() == same.tobytes() != other.tobytes()


def test_twice_the_threshold_gives_fewer_events(rng):
    scene = picture(rng)
    counts = [
        len(record(scene, (32, 40), rng, dataclasses.replace(QUIET, threshold=c)))
        for c in (0.13, 0.26, 0.52)
    ]
    assert counts[0] > 1.5 * counts[1] > 1.5**2 * counts[2]


@pytest.mark.parametrize("refractory_us", [500, 2000, 20_000])
def test_no_two_events_of_a_pixel_are_closer_than_the_refractory_time(rng, refractory_us):
    camera = Camera(refractory_us=refractory_us, background_hz=20.0, hot_share=0.2)
    events = record(picture(rng), (32, 40), rng, camera)
    order = np.lexsort((events["t"], events["x"], events["y"]))
    events = events[order]
    same = (np.diff(events["x"].astype(int)) == 0) & (np.diff(events["y"].astype(int)) == 0)
    gaps = np.diff(events["t"])[same]
    assert len(gaps) > 1000 and refractory_us <= gaps.min() < 1.2 * refractory_us


@pytest.mark.parametrize("camera, hz", [
    (Camera(background_hz=5.0), 5.0),
    (Camera(background_hz=0.0, hot_share=1.0, refractory_us=0), module.HOT_HZ),
])
def test_uniform_picture_shows_the_background_rate_alone(rng, camera, hz):
    events = record(np.full((64, 64), 0.5), (64, 64), rng, camera)
    expected = hz * 0.3 * 64 * 64
    assert abs(len(events) - expected) < 0.01 * expected + 5 * expected**0.5
    assert abs(events["p"].mean() - module.BACKGROUND_ON) < 3 / len(events)**0.5
    assert abs(events["t"].mean() - 150_000) < 5 * 300_000 / (12 * len(events))**0.5


def test_hot_pixels_are_few_and_fire_all_the_time(rng):
    events = record(
        np.full((64, 64), 0.5), (64, 64), rng, Camera(background_hz=0.0, hot_share=0.01)
    )
    counts = np.bincount(events["y"].astype(int) * 64 + events["x"], minlength=64 * 64)
    assert 15 < (counts > 0).sum() < 80 and counts[counts > 0].min() > 15


def test_thresholds_differ_between_pixels_by_the_spread(rng):
    # On the ramp, threshold and time of the first event determine each other.
    camera = dataclasses.replace(RAMP_CAMERA, threshold_spread=0.05)
    events = record(
        np.repeat(ramp(), 20, axis=0), (120, 40), rng, camera, Saccades(((-6.0, 0.0),), ONE_MOVE_US)
    )
    events = events[(events["x"] >= 8) & (events["x"] < 32)]
    first = np.unique(events["y"].astype(int) * 40 + events["x"], return_index=True)[1]
    moved = Saccades(((6.0, 0.0),), ONE_MOVE_US).displacement(events["t"][first])[:, 0]
    assert len(first) == 120 * 24
    assert abs(np.median(0.1 * moved) - 0.25) < 0.005 and abs(np.std(0.1 * moved) - 0.05) < 0.004


@pytest.mark.parametrize(
    "scale, offset", [(1.0, (0.0, 0.0)), (1.0, (5.0, -3.0)), (2.0, (0.0, 0.0)), (0.5, (1.0, 2.0))]
)
def test_scale_and_offset_place_the_picture(rng, scale, offset):
    scene = np.zeros((31, 41))
    scene[13:16, 24:27] = 1.0  # centre: row 14, column 25; the picture's: 15 and 20
    nod = Saccades(
        ((1.0, 1.0), (-2.0, -2.0), (1.0, 1.0)), ((0, 20_000), (20_000, 60_000), (60_000, 80_000))
    )
    events = record(scene, (51, 61), rng, QUIET, nod, scale, offset)
    x, y = events["x"].astype(float), events["y"].astype(float)
    assert abs((x.min() + x.max()) / 2 - (30 + 5 * scale + offset[0])) <= 0.5
    assert abs((y.min() + y.max()) / 2 - (25 - 1 * scale + offset[1])) <= 0.5


def test_what_lies_beyond_the_picture_continues_its_edge(rng):
    events = record(picture(rng, (16, 16)), (48, 48), rng, QUIET)
    assert check_events(events, (48, 48)) is events
    corner = record(picture(rng, (16, 16)), (8, 8), rng, Camera(), offset=(100.0, 100.0))
    assert len(corner) < 0.3 * 64  # one colour: background activity alone


def test_saccades_begin_and_end_at_rest_and_add_up():
    motion = Saccades()
    np.testing.assert_allclose(
        motion.displacement([0, 12_000, 49_000, 90_000, 200_000, 300_000]),
        [[0, 0], [0, 0], [1.2, 2.75], [2.4, 5.5], [5.3, 0], [0.7, 0]],
        atol=1e-12,
    )
    speed = np.diff(
        motion.displacement(np.array([12_000, 12_010, 49_000, 49_010, 85_990, 86_000])), axis=0
    )[::2, 0]
    assert abs(speed[0]) < 1e-5 > abs(speed[2])
    assert speed[1] == pytest.approx(1.5 * 2.4 * 10 / 74_000, rel=1e-3)


def test_luminance_weights_green_most_and_keeps_the_dtype():
    assert (
        rgb_to_luminance(np.eye(3, dtype=np.float32)).tolist()
        == np.float32([0.299, 0.587, 0.114]).tolist()
    )
    assert rgb_to_luminance(np.ones((4, 5, 3))).shape == (4, 5)
    assert rgb_to_luminance(np.ones((4, 5, 3), np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match=r"RGB floats"):
        rgb_to_luminance(np.ones((4, 5, 3), np.uint8))


# ---- bad input


def with_value(value):
    scene = np.full((8, 8), 0.5)
    scene[2, 3] = value
    return scene


@pytest.mark.parametrize("scene, message", [
    (with_value(np.nan), r"luminance\[2, 3\] = nan"),
    (with_value(-0.1), r"luminance\[2, 3\] = -0.1"),
    (with_value(200.0), r"luminance\[2, 3\] = 200.0, .* divide values 0-255 by 255"),
    (np.full((8, 8), 128, np.uint8), "floats in .* got uint8"),
    (np.full((8, 8, 3), 0.5), r"two-dimensional .* \(8, 8, 3\)"),
    (np.zeros((0, 8)), r"two-dimensional .* \(0, 8\)"),
    ("picture.png", "two-dimensional"),
])
def test_unusable_pictures_are_refused(rng, scene, message):
    with pytest.raises(ValueError, match=message):
        record(scene, (8, 8), rng)


def test_picture_without_events_is_an_error_not_an_empty_recording(rng):
    with pytest.raises(ValueError, match="at least one pixel fire"):
        record(np.full((8, 8), 0.5), (8, 8), rng, QUIET)


@pytest.mark.parametrize("changed, message", [
    ({"sensor_size": (8, 0)}, "sensor_size"),
    ({"rng": 7}, "Generator"),
    ({"scale": 0.0}, "scale"),
    ({"scale": np.nan}, "scale"),
    ({"offset": (1.0, np.inf)}, "offset"),
    ({"offset": 3.0}, "offset"),
])
def test_unusable_arguments_are_refused(rng, changed, message):
    with pytest.raises(ValueError, match=message):
        record(**{"luminance": with_value(1.0), "sensor_size": (8, 8), "rng": rng} | changed)


@pytest.mark.parametrize(
    "name, value",
    [
        ("threshold", 0.0), ("threshold", np.nan), ("threshold_spread", -0.1),
        ("refractory_us", -1), ("refractory_us", 0.5), ("background_hz", -1.0),
        ("background_hz", np.inf), ("hot_share", 1.5), ("blur", -0.1), ("gamma", 0.0),
        ("log_offset", 0.0), ("step_us", 0), ("step_us", "1 ms"),
    ],
)
def test_unusable_camera_is_refused(name, value):
    with pytest.raises(ValueError, match=f"Camera.{name}"):
        Camera(**{name: value})


@pytest.mark.parametrize("moves, spans_us, message", [
    (((1.0, 2.0),), ((0, 10), (20, 30)), "as many"),
    ((), (), "as many"),
    ("left", ((0, 10),), "as many"),
    (((1.0, np.nan),), ((0, 10),), "at most"),
    (((1.0, 1e6),), ((0, 10),), "at most"),
    (((1.0, 2.0),), ((10, 10),), "in order"),
    (((1.0, 2.0), (1.0, 2.0)), ((0, 20), (10, 30)), "in order"),
    (((1.0, 2.0),), ((-5, 10),), "in order"),
    (((1.0, 2.0),), ((0.5, 10),), "in order"),
    (((1.0, 2.0),), ((0, np.inf),), "in order"),
])
def test_unusable_saccades_are_refused(moves, spans_us, message):
    with pytest.raises(ValueError, match=message):
        Saccades(moves, spans_us)


# ---- one real recording


def decode(path):
    """x, y and t of a 40-bit recording."""
    raw = np.fromfile(path, np.uint8).reshape(-1, 5).astype(np.int64)
    return raw[:, 0], raw[:, 1], (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]


@pytest.mark.parametrize("seed", range(3))
def test_defaults_reproduce_a_real_recording(shared, seed):
    """Five seeds: count -3 to -4 %, active pixels +0.1 to +0.4 points, correlation >= 0.986."""
    Image = pytest.importorskip("PIL.Image")
    x, y, t = decode(shared / "data/ncaltech101/Faces_easy/image_0001.bin")
    with Image.open(shared / "data/caltech101/Faces_easy/image_0001.jpg") as image:
        scene = rgb_to_luminance(np.asarray(image.convert("RGB")) / 255)
    H, W = y.max() + 1, x.max() + 1
    events = record(scene, (H, W), np.random.default_rng(seed), scale=0.542, offset=(-3.0, -3.0))
    assert abs(len(events) / len(t) - 1) < 0.1
    active, real = (len(np.unique(rows.astype(int) * W + columns)) / (H * W)
                    for rows, columns in ((events["y"], events["x"]), (y, x)))
    assert abs(active - real) < 0.05
    profile, real = (np.histogram(times, 30, (0, 300_000))[0] for times in (events["t"], t))
    assert np.corrcoef(profile, real)[0, 1] > 0.95
    centres, real = (np.array([times[times // 100_000 == burst].mean() for burst in range(3)])
                     for times in (events["t"], t))
    assert np.abs(centres - real).max() < 5_000
