"""Hue, saturation, value, and the static stream's frames."""

import colorsys

import matplotlib.colors
import numpy as np
import pytest
from assertions import assert_approx, assert_close, assert_dtype, assert_equal, relative_error

from ckd_ref.color import rgb_to_hsv, value_frames


@pytest.mark.parametrize("rgb, hsv", [
    ((0, 0, 0), (0, 0, 0)),
    ((1, 1, 1), (0, 0, 1)),
    ((0.5, 0.5, 0.5), (0, 0, 0.5)),
    ((1, 0, 0), (0, 1, 1)),
    ((0, 1, 0), (1 / 3, 1, 1)),
    ((0, 0, 1), (2 / 3, 1, 1)),
    ((1, 1, 0), (1 / 6, 1, 1)),
    ((0, 0.5, 0.5), (0.5, 1, 0.5)),
    ((1, 0, 1), (5 / 6, 1, 1)),
    ((1, 0.5, 0.5), (0, 0.5, 1)),
])
def test_hsv_by_hand(rgb, hsv):
    assert_approx(rgb_to_hsv(np.array(rgb, float)), list(hsv), f"HSV: the RGB colour {rgb}")


def test_hsv_golden(golden):
    rgb = golden["hsv/rgb"][:] / 255
    hsv = rgb_to_hsv(rgb)
    assert_close(hsv, golden["hsv/matplotlib"][:], 1e-9, "HSV: the picture is matplotlib's")
    opencv = golden["hsv/cv2_rgb2hsv_uint8"][:].astype(float)  # hue 0 ... 179, the rest 0 ... 255
    difference = np.abs(hsv * [180, 255, 255] - opencv)
    difference[..., 0] = np.minimum(difference[..., 0], 180 - difference[..., 0])
    worst = difference.max()
    assert worst <= 1, f"HSV: within 1 of OpenCV's 8-bit picture; got a difference of {worst}"
    assert_equal(rgb.max(-1) * 255, opencv[..., 2], "HSV: OpenCV's value is the largest channel")


def test_hsv_equals_matplotlib_and_colorsys(rng):
    rgb = np.concatenate([rng.random((500, 3)), rng.integers(0, 3, (200, 3)) / 2])  # greys, ties
    hsv = rgb_to_hsv(rgb)
    what = "HSV: random colours are those of {}"
    assert_close(hsv, matplotlib.colors.rgb_to_hsv(rgb), 1e-12, what.format("matplotlib"))
    reference = np.array([colorsys.rgb_to_hsv(*row) for row in rgb])
    assert_close(hsv, reference, 1e-12, what.format("colorsys"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hsv_of_greys_raises_no_floating_point_error(dtype):
    """Black, white and the greys between divide 0 by 0 in the textbook formula."""
    greys = np.repeat(np.linspace(0, 1, 9, dtype=dtype)[:, None], 3, axis=1)
    tiny = np.full((1, 3), np.finfo(dtype).tiny, dtype)
    with np.errstate(all="raise"):
        for rgb in (greys, greys[:1], greys[-1:], tiny):
            expected = np.stack([0 * rgb[:, 0], 0 * rgb[:, 0], rgb[:, 0]], axis=1)
            assert_equal(rgb_to_hsv(rgb), expected, "HSV: a grey has hue 0 and saturation 0")
        picture = np.concatenate([greys, np.eye(3, dtype=dtype)])
        hues = rgb_to_hsv(picture)[:, 0].astype(float)
    what = "HSV: greys beside pure colours"
    assert_close(hues, np.r_[np.zeros(9), 0, 1 / 3, 2 / 3], 1e-6, what)


def test_hsv_round_trip_and_range(rng):
    rgb = rng.random((20, 10, 3))
    hsv = rgb_to_hsv(rgb)
    back = matplotlib.colors.hsv_to_rgb(hsv)
    assert_close(back, rgb, 1e-12, "HSV: matplotlib's way back leads to the same colours")
    assert (hsv >= 0).all(), f"HSV: expected numbers >= 0, got {hsv.min()}"
    assert (hsv[..., 0] < 1).all(), f"HSV: expected hues < 1, got {hsv[..., 0].max()}"
    hue = rgb_to_hsv(np.array([1.0, 0, 1e-18]))[0]
    assert hue < 1, f"HSV: a hue just below 0 must not become 1, got {hue}"


def test_a_wrong_order_of_channels_is_caught(golden):
    swapped = rgb_to_hsv(golden["hsv/rgb"][:][..., ::-1] / 255)
    gap = relative_error(swapped, golden["hsv/matplotlib"][:])
    assert gap > 0.1, f"HSV: BGR instead of RGB must make a difference, got {gap}"


def test_value_frames_repeat_the_largest_channel(rng):
    rgb = rng.random((2, 4, 5, 3))
    expected = np.empty((3, 2, 4, 5, 2))
    for t in range(3):
        for polarity in (0, 1):
            expected[t, ..., polarity] = rgb_to_hsv(rgb)[..., 2]
    what = "V frames: the largest channel, at every time step and in both polarities"
    assert_equal(value_frames(rgb, 3), expected, what)


def test_value_frames_golden(golden):
    """The baseline's encoding of the 4 x 4 corner, there [B, T, 2, H, W]."""
    encoded = golden["hsv/encoded"][:]
    frames = value_frames(golden["hsv/rgb"][:4, :4][None] / 255, encoded.shape[1])
    what = "V frames: those of the baseline"
    assert_close(frames.transpose(1, 0, 4, 2, 3), encoded, 1e-9, what)


def test_float32_stays_float32(rng):
    rgb = rng.random((2, 4, 5, 3)).astype(np.float32)
    hsv = rgb_to_hsv(rgb)
    assert_dtype(hsv, np.float32, "HSV: float32 must stay float32")
    assert_dtype(value_frames(rgb, 2), np.float32, "V frames: float32 must stay float32")
    reference = rgb_to_hsv(rgb.astype(float))
    what = "HSV: saturation and value in float32 are those in float64"
    assert_close(hsv[..., 1:], reference[..., 1:], 1e-6, what)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", "<f8"])
def test_the_byte_order_stays(rng, dtype):
    rgb = rng.random((2, 4, 5, 3)).astype(dtype)
    native = rgb.astype(rgb.dtype.newbyteorder("="))
    for what, use in (("HSV", rgb_to_hsv), ("V frames", lambda rgb: value_frames(rgb, 2))):
        assert_dtype(use(rgb), dtype, f"{what}: the dtype must stay, its byte order too")
        assert_equal(use(rgb), use(native), f"{what}: the byte order changes no number")


@pytest.mark.parametrize("spoil, message", [
    (lambda rgb: rgb * 255, r"in \[0, 1\], got .* at index \(.*divide 8-bit images by 255"),
    (lambda rgb: np.where(np.arange(3) == 1, np.nan, rgb), r"got nan at index \(0, 0, 0, 1\)"),
    (lambda rgb: rgb - 2, r"in \[0, 1\], got -"),
    (lambda rgb: np.where(rgb >= 0, np.inf, rgb), "got inf"),
    (lambda rgb: (rgb * 255).astype(np.uint8), r"floats in \[0, 1\], got uint8"),
    (lambda rgb: rgb + 0j, r"floats in \[0, 1\], got complex128"),
    (lambda rgb: rgb[..., :2], r"RGB values \(..., 3\)"),
])
def test_bad_images_are_refused(rng, spoil, message):
    rgb = 0.1 + 0.9 * rng.random((2, 4, 5, 3))
    for use in (rgb_to_hsv, lambda rgb: value_frames(rgb, 2)):
        with pytest.raises(ValueError, match=message):
            use(spoil(rgb))


@pytest.mark.parametrize("shape, T, message", [
    ((2, 4, 5, 3), 0, "T, the number of time steps.*got 0"),
    ((2, 4, 5, 3), 1.5, "whole number >= 1, got 1.5"),
    ((2, 4, 5, 3), np.inf, "whole number >= 1, got inf"),
    ((4, 5, 3), 2, r"batch of images .*got shape \(4, 5, 3\)"),
])
def test_value_frames_refuse_bad_arguments(shape, T, message):
    with pytest.raises(ValueError, match=message):
        value_frames(np.zeros(shape), T)


@pytest.mark.parametrize("rgb", [np.float64(0.5), np.full(3, 1.0001), np.full(3, -1e-9)])
def test_a_single_number_and_values_just_outside_are_refused(rgb):
    with pytest.raises(ValueError, match="expected RGB values"):
        rgb_to_hsv(rgb)
