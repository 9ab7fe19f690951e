"""Hue, saturation, value, and the static stream's frames."""

import colorsys

import matplotlib.colors
import numpy as np
import pytest
from conftest import relative_error

from ckd_ref.color import rgb_to_hsv, value_frames


@pytest.mark.parametrize("rgb, hsv", [
    ((0, 0, 0), (0, 0, 0)), ((1, 1, 1), (0, 0, 1)), ((0.5, 0.5, 0.5), (0, 0, 0.5)), ((1, 0, 0), (0, 1, 1)),
    ((0, 1, 0), (1 / 3, 1, 1)), ((0, 0, 1), (2 / 3, 1, 1)), ((1, 1, 0), (1 / 6, 1, 1)), ((0, 0.5, 0.5), (0.5, 1, 0.5)),
    ((1, 0, 1), (5 / 6, 1, 1)), ((1, 0.5, 0.5), (0, 0.5, 1)),
])
def test_hsv_by_hand(rgb, hsv):
    assert rgb_to_hsv(np.array(rgb, float)).tolist() == pytest.approx(hsv)


def test_hsv_golden(golden):
    rgb = golden["hsv/rgb"][:] / 255
    assert relative_error(rgb_to_hsv(rgb), golden["hsv/matplotlib"][:]) < 1e-9
    opencv = golden["hsv/cv2_rgb2hsv_uint8"][:].astype(float)             # hue 0 ... 179, the rest 0 ... 255
    difference = np.abs(rgb_to_hsv(rgb) * [180, 255, 255] - opencv)
    difference[..., 0] = np.minimum(difference[..., 0], 180 - difference[..., 0])
    assert difference.max() <= 1
    assert (rgb.max(-1) * 255 == opencv[..., 2]).all()


def test_hsv_equals_matplotlib_and_colorsys(rng):
    rgb = np.concatenate([rng.random((500, 3)), rng.integers(0, 3, (200, 3)) / 2])     # with greys and ties
    assert relative_error(rgb_to_hsv(rgb), matplotlib.colors.rgb_to_hsv(rgb)) < 1e-12
    assert relative_error(rgb_to_hsv(rgb), np.array([colorsys.rgb_to_hsv(*row) for row in rgb])) < 1e-12


def test_hsv_round_trip_and_range(rng):
    rgb = rng.random((20, 10, 3))
    hsv = rgb_to_hsv(rgb)
    assert relative_error(matplotlib.colors.hsv_to_rgb(hsv), rgb) < 1e-12
    tiny = np.array([1.0, 0, 1e-18])                           # a hue just below 0 must not become 1
    assert (hsv >= 0).all() and (hsv[..., 0] < 1).all() and rgb_to_hsv(tiny)[0] < 1


def test_a_wrong_order_of_channels_is_caught(golden):
    swapped = rgb_to_hsv(golden["hsv/rgb"][:][..., ::-1] / 255)
    assert relative_error(swapped, golden["hsv/matplotlib"][:]) > 0.1


def test_value_frames_repeat_the_largest_channel(rng):
    rgb = rng.random((2, 4, 5, 3))
    frames = value_frames(rgb, 3)
    assert frames.shape == (3, 2, 4, 5, 2)
    for t in range(3):
        for polarity in (0, 1):
            assert (frames[t, ..., polarity] == rgb_to_hsv(rgb)[..., 2]).all()


def test_value_frames_golden(golden):
    """The baseline's encoding of the 4 x 4 corner, there [B, T, 2, H, W]."""
    encoded = golden["hsv/encoded"][:]
    frames = value_frames(golden["hsv/rgb"][:4, :4][None] / 255, encoded.shape[1])
    assert relative_error(frames.transpose(1, 0, 4, 2, 3), encoded) < 1e-9


def test_float32_stays_float32(rng):
    rgb = rng.random((2, 4, 5, 3)).astype(np.float32)
    assert rgb_to_hsv(rgb).dtype == value_frames(rgb, 2).dtype == np.float32
    assert relative_error(rgb_to_hsv(rgb)[..., 1:], rgb_to_hsv(rgb.astype(float))[..., 1:]) < 1e-6


@pytest.mark.parametrize("spoil, message", [
    (lambda rgb: rgb * 255, r"in \[0, 1\], got .* at index \(.*divide 8-bit images by 255"),
    (lambda rgb: np.where(np.arange(3) == 1, np.nan, rgb), r"got nan at index \(0, 0, 0, 1\)"),
    (lambda rgb: rgb - 2, r"in \[0, 1\], got -"),
    (lambda rgb: np.where(rgb >= 0, np.inf, rgb), "got inf"),
    (lambda rgb: (rgb * 255).astype(np.uint8), r"floats in \[0, 1\], got uint8"),
    (lambda rgb: rgb[..., :2], r"RGB values \(..., 3\)"),
])
def test_bad_images_are_refused(rng, spoil, message):
    rgb = 0.1 + 0.9 * rng.random((2, 4, 5, 3))
    for use in (rgb_to_hsv, lambda rgb: value_frames(rgb, 2)):
        with pytest.raises(ValueError, match=message):
            use(spoil(rgb))


@pytest.mark.parametrize("shape, T, message", [((2, 4, 5, 3), 0, "T, the number of time steps.*got 0"),
                                               ((2, 4, 5, 3), 1.5, "whole number >= 1, got 1.5"),
                                               ((4, 5, 3), 2, r"batch of images .*got shape \(4, 5, 3\)")])
def test_value_frames_refuse_bad_arguments(shape, T, message):
    with pytest.raises(ValueError, match=message):
        value_frames(np.zeros(shape), T)
