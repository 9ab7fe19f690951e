"""From RGB pictures to the frames of the static stream (Sec. III-A1)."""

import numpy as np
from numpy import ndarray


def rgb_to_hsv(rgb: ndarray) -> ndarray:
    """Hue, saturation and value of RGB colours (the hexcone model of A. R. Smith, 1978).

    Value is the largest of the three channels, saturation its relative distance from the
    smallest, hue the position of the colour on the hexagon red - yellow - green - cyan - blue -
    magenta.

    Parameters
    ----------
    rgb : (..., 3) array of floats in [0, 1]

    Returns
    -------
    hsv : (..., 3), the same dtype, in [0, 1]
        Hue in [0, 1). Greys have hue 0, black has saturation 0.

    Raises
    ------
    ValueError
        No three channels, not floats, or a value that is NaN or outside [0, 1].
    """
    rgb = _check_rgb(rgb)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    value = rgb.max(-1)
    chroma = value - rgb.min(-1)
    c = np.where(chroma > 0, chroma, 1)                        # greys: every numerator is 0
    sextant = np.select(
        [chroma == 0, value == red, value == green],
        [np.zeros_like(value), (green - blue) / c % 6, (blue - red) / c + 2],
        (red - green) / c + 4,
    )
    hue = sextant / 6 % 1
    saturation = chroma / np.where(value > 0, value, 1)
    # In the byte order of the input, which arithmetic does not keep.
    return np.stack([hue, saturation, value], axis=-1, dtype=rgb.dtype)


def value_frames(rgb: ndarray, T: int) -> ndarray:
    """The static stream's input: the V channel, alike in both polarity channels and at all T steps.

    Parameters
    ----------
    rgb : (B, H, W, 3) array of floats in [0, 1]
    T : int
        Time steps, at least 1.

    Returns
    -------
    frames : (T, B, H, W, 2), the same dtype, in [0, 1]
        Not brought to the scale of event counts.
    """
    if not 1 <= T < np.inf or int(T) != T:
        raise ValueError(
            f"expected T, the number of time steps, to be a whole number >= 1, got {T!r}"
        )
    if np.ndim(rgb) != 4:
        raise ValueError(f"expected a batch of images (B, H, W, 3), got shape {np.shape(rgb)}")
    rgb = _check_rgb(rgb)
    value = rgb.max(-1).astype(rgb.dtype, copy=False)          # (B, H, W)
    return np.tile(value[None, ..., None], (int(T), 1, 1, 1, 2))


def _check_rgb(rgb):
    rgb = np.asarray(rgb)
    if rgb.ndim < 1 or rgb.shape[-1] != 3 or not np.issubdtype(rgb.dtype, np.floating):
        raise ValueError(
            "expected RGB values (..., 3) as floats in [0, 1], "
            f"got {rgb.dtype} of shape {rgb.shape}"
        )
    bad = ~((rgb >= 0) & (rgb <= 1))                           # true for NaN as well
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"expected RGB values in [0, 1], got {rgb[place]} at index {place}; "
            "divide 8-bit images by 255"
        )
    return rgb
