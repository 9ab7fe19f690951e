"""The embedded data set: generated pictures of symbols and their simulated recordings.

It stands in for the data sets of Sec. IV-A. The symbols are in matplotlib's own font, so nothing
is downloaded; most are categories of Caltech101.
"""

import colorsys
import functools
import math
import os
import pathlib
import zlib
from dataclasses import dataclass

import numpy as np

from ..events import resize_frames
from .camera import Camera, Saccades, record, rgb_to_luminance
from .files import locked
from .paired import PairedWriter

GLYPHS = {
    "airplane": "\N{AIRPLANE}",
    "anchor": "\N{ANCHOR}",
    "cup": "\N{HOT BEVERAGE}",
    "flower": "\N{BLACK FLORETTE}",
    "gear": "\N{GEAR}",
    "heart": "\N{BLACK HEART SUIT}",
    "knight": "\N{BLACK CHESS KNIGHT}",
    "scissors": "\N{BLACK SCISSORS}",
    "star": "\N{BLACK STAR}",
    "telephone": "\N{BLACK TELEPHONE}",
    "umbrella": "\N{UMBRELLA}",
    "yin_yang": "\N{YIN YANG}",
}
"""Class name -> its character in DejaVu Sans. The classes are numbered in this order."""

CLUTTER = "/|~(+?&\N{WHITE CIRCLE}\N{BLACK SQUARE}\N{BLACK UP-POINTING TRIANGLE}"
CLUTTER += "".join(GLYPHS.values())
"""Small characters drawn beside, behind and over the symbol, including those of other classes."""

CACHE_VERSION = 1
"""Bumped when `draw` or `build` change the result for a seed; older cache files are then unused."""


@dataclass(frozen=True)
class Difficulty:
    """Variation between the pictures of one class. A pair is a range, sampled uniformly.

    Attributes
    ----------
    scale : (low, high)
        Longer side of the symbol as a share of the picture's side.
    rotation : float
        Largest rotation in either direction, degrees. Half of the symbols are also mirrored.
    shear, stretch : float
        Largest shear, and largest change of the aspect ratio (its logarithm).
    shift : float
        How far the symbol may extend beyond the picture's border before it is rotated, as a
        share of the picture's side.
    contrast : (low, high)
        Difference in V between symbol and background, V in [0, 1].
    hue_only : float
        Probability of a picture whose symbol differs in hue but not in V: it hardly appears in
        the student's V channel.
    texture : float
        Deviation of V from its mean within symbol or background, at most 0.5.
    clutter : int
        Largest number of small shapes added.
    clutter_scale : (low, high)
        Their longer side as a share of the picture's side.
    noise : float
        Largest standard deviation of the pixel noise, on [0, 1].
    """

    scale: tuple = (0.55, 0.85)
    rotation: float = 20.0
    shear: float = 0.25
    stretch: float = 0.2
    shift: float = 0.0
    contrast: tuple = (0.3, 0.8)
    hue_only: float = 0.05
    texture: float = 0.12
    clutter: int = 4
    clutter_scale: tuple = (0.12, 0.35)
    noise: float = 0.05

    def __post_init__(self):
        for name, fits, expected in (
            ("scale", _is_share, "a pair 0 < low <= high <= 1"),
            ("rotation", lambda v: 0 <= v <= 180, "degrees in [0, 180]"),
            ("shear", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("stretch", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("shift", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("contrast", lambda low, high: 0 <= low <= high <= 1, "a pair 0 <= low <= high <= 1"),
            ("hue_only", lambda v: 0 <= v <= 1, "a probability in [0, 1]"),
            ("texture", lambda v: 0 <= v <= 0.5, "a number in [0, 0.5]"),
            ("clutter", lambda v: 0 <= v == int(v), "a whole number >= 0"),
            ("clutter_scale", _is_share, "a pair 0 < low <= high <= 1"),
            ("noise", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
        ):
            value = getattr(self, name)
            try:
                usable = fits(*value) if expected.startswith("a pair") else fits(value)
            except (TypeError, ValueError, OverflowError):
                usable = False
            if not usable:
                raise ValueError(f"expected Difficulty.{name} to be {expected}, got {value!r}")


def _is_share(low, high):
    return 0 < low <= high <= 1


def draw(name, rng, size=48, difficulty=Difficulty()):
    """One random picture of a symbol.

    Parameters
    ----------
    name : str
        A key of `GLYPHS`.
    rng : numpy.random.Generator
    size : int
        Rows and columns, at least 16 pixels.
    difficulty : Difficulty

    Returns
    -------
    picture : (size, size, 3) uint8
        RGB, 0 ... 255.

    Raises
    ------
    ValueError
        An unknown name, a size below 16, or an rng that is no Generator.
    """
    if name not in list(GLYPHS):
        raise ValueError(f"expected a name of GLYPHS ({', '.join(GLYPHS)}), got {name!r}")
    size = _whole(size, "size, the rows and columns of a picture,", least=16)
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"expected rng to be a numpy.random.Generator, got {type(rng).__name__}")
    d = difficulty

    if rng.random() < d.hue_only:
        value_back = value_symbol = rng.uniform(0.5, 1 - d.texture)
        saturation = (0.7, 1.0)
        hue_back = rng.random()
        hue_symbol = hue_back + rng.uniform(0.3, 0.7)
    else:
        gap = rng.uniform(*d.contrast)
        dark = rng.uniform(0, 1 - gap)
        value_back, value_symbol = rng.permutation([dark, dark + gap])
        saturation = (0.0, 1.0)
        hue_back, hue_symbol = rng.random(2)

    layers = []
    for _ in range(rng.integers(d.clutter + 1)):
        mask = _stamp(rng.choice(list(CLUTTER)), d.clutter_scale, 180, 0.3, d, size, rng)
        paint = _colour(rng.random(), saturation, rng.random(), rng)
        layers.append((mask, paint))
    mask = _stamp(GLYPHS[name], d.scale, d.rotation, d.shift, d, size, rng)
    paint = _paint(hue_symbol, saturation, value_symbol, d.texture, size, rng)
    layers.insert(rng.integers(len(layers) + 1), (mask, paint))

    picture = _paint(hue_back, saturation, value_back, d.texture, size, rng)  # (size, size, 3)
    for mask, paint in layers:
        picture += mask * (paint - picture)
    picture += rng.normal(0, rng.uniform(0, d.noise), picture.shape)
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _paint(hue, saturation, value, texture, size, rng):
    """(size, size, 3) in [0, 1]: two colours of one hue, mixed by a smooth random field."""
    dark = _colour(hue, saturation, np.clip(value - texture, 0, 1), rng)
    light = _colour(hue, saturation, np.clip(value + texture, 0, 1), rng)
    field = 0
    for cells in (2, 5, 12):
        field += resize_frames(rng.random((cells, cells, 1)), size) / cells**0.5
    field = (field - field.min()) / np.ptp(field)  # (size, size, 1)
    return dark + field * (light - dark)


def _colour(hue, saturation, value, rng):
    """(3,) RGB in [0, 1]; the hue is taken modulo 1, the saturation sampled from its range."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), value))


def _stamp(character, scale, rotation, shift, difficulty, size, rng):
    """(size, size, 1) in [0, 1]: coverage of each pixel by the randomly transformed character."""
    from PIL import Image

    scale = rng.uniform(*scale)
    angle = math.radians(rng.uniform(-rotation, rotation))
    shear = rng.uniform(-1, 1) * difficulty.shear
    stretch = math.exp(rng.uniform(-1, 1) * difficulty.stretch / 2)
    mirror = rng.choice([-1, 1])
    centre = 0.5 + rng.uniform(-1, 1, 2) * ((1 - scale) / 2 + shift)

    # Supersample by 2, then average 2 x 2. The glyph is at most twice as large, so there is
    # neither aliasing nor blur.
    side = 2 * size
    pixels = 2 ** math.ceil(math.log2(scale * side))
    glyph = _glyph(character, pixels)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = turn @ [[mirror * stretch, shear], [0, 1 / stretch]] * (scale * side / pixels)
    back = np.linalg.inv(forward)  # picture -> glyph
    offset = np.divide(glyph.size, 2) - back @ (centre * side)
    matrix = (*back[0], offset[0], *back[1], offset[1])
    affine = Image.Transform.AFFINE
    stamp = glyph.transform((side, side), affine, matrix, Image.Resampling.BILINEAR).reduce(2)
    return np.asarray(stamp)[..., None] / 255


@functools.lru_cache(maxsize=256)
def _glyph(character, pixels):
    """The character in white on black, as a PIL image whose longer side is `pixels`.

    An empty border of one pixel is added, in which the interpolation of `_stamp` fades to 0.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    path = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    font = ImageFont.truetype(str(path), 2 * pixels, layout_engine=ImageFont.Layout.BASIC)
    page = Image.new("L", (6 * pixels, 6 * pixels))
    ImageDraw.Draw(page).text((3 * pixels, 3 * pixels), character, font=font, fill=255, anchor="mm")
    return ImageOps.expand(ImageOps.contain(page.crop(page.getbbox()), (pixels, pixels)), 1)


def build(
    path,
    seed=0,
    teacher=200,
    static=30,
    events=5,
    test=40,
    size=48,
    difficulty=Difficulty(),
    progress=True,
):
    """Write the data set: many pictures and few recordings, which is the paper's premise.

    The generator of each picture and recording depends only on the seed, the class, the pool
    and the position in the pool. A larger pool therefore begins with the smaller one, and the
    test set does not change with the training pools.

    Parameters
    ----------
    path : path of the HDF5 file to write (see `ckd_ref.data`)
    seed : int, at least 0
    teacher, static, test : int
        Pictures per class for the teacher only (may be 0), for the static stream and for the
        test.
    events : int
        Recordings per class for training: films of the first pictures of the static stream. All
        test pictures are filmed as well.
    size : int
        Rows and columns of the pictures and of the sensor, at least 16 pixels.
    difficulty : Difficulty
    progress : bool
        Show a progress bar.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    ValueError
        A seed, size or number of pictures out of range; nothing is written then.

    Notes
    -----
    Assumption: a pool of pictures that only the teacher sees stands in for its pretraining on a
    larger set. Test: `test_no_identity_is_in_two_pools`.
    """
    from tqdm import tqdm

    path = pathlib.Path(path)
    seed, teacher, static, events, test, size = _check(seed, teacher, static, events, test, size)
    pools = (("teacher", teacher), ("static", static), ("test", test))
    jobs = [
        (split, pool, label, k)
        for pool, (split, count) in enumerate(pools)
        for label in range(len(GLYPHS))
        for k in range(count)
    ]
    bar = tqdm(jobs, "glyphs", unit="picture", disable=not progress)
    with PairedWriter(path, list(GLYPHS), (size, size), size) as file:
        for identity, (split, pool, label, k) in enumerate(bar):
            place = np.random.SeedSequence(seed, spawn_key=(label, pool, k))
            picture_rng, film_rng = map(np.random.default_rng, place.spawn(2))
            picture = draw(list(GLYPHS)[label], picture_rng, size, difficulty)
            file.add_image(picture, label, identity, split)
            is_test = split == "test"
            if is_test or (split == "static" and k < events):
                film = record(rgb_to_luminance(picture / 255), (size, size), film_rng)
                file.add_recording(film, label, identity, "test" if is_test else "train")
    return path


def cached(
    folder=None,
    seed=0,
    teacher=200,
    static=30,
    events=5,
    test=40,
    size=48,
    difficulty=Difficulty(),
    progress=True,
):
    """Path of the data set with these parameters, built on first use.

    Parameters
    ----------
    folder : path, optional
        Default: ``ckd_ref`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``.
    seed, teacher, static, events, test, size, difficulty, progress
        As for `build`. All but the last are part of the file's name; it has a checksum for
        difficulty, camera and motion.

    Returns
    -------
    path : pathlib.Path
    """
    seed, teacher, static, events, test, size = _check(seed, teacher, static, events, test, size)
    if folder is None:
        caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(caches, "ckd_ref")
    settings = CACHE_VERSION, GLYPHS, CLUTTER, difficulty, Camera(), Saccades()
    checksum = zlib.crc32(repr(settings).encode())
    name = (
        f"glyphs-seed{seed}-teacher{teacher}-static{static}-events{events}-test{test}"
        f"-size{size}-{checksum:08x}.h5"
    )
    path = pathlib.Path(folder, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, wait=True):
            if not path.exists():  # another process may have built it meanwhile
                build(path, seed, teacher, static, events, test, size, difficulty, progress)
    return path


def _check(seed, teacher, static, events, test, size):
    seed = _whole(seed, "the seed", least=0)
    teacher = _whole(teacher, "teacher, pictures per class,", least=0)
    static = _whole(static, "static, pictures per class,", least=1)
    events = _whole(events, "events, recordings per class,", least=1)
    test = _whole(test, "test, pictures per class,", least=1)
    size = _whole(size, "size, the rows and columns of a picture,", least=16)
    if events > static:
        raise ValueError(
            "expected events <= static, for recordings film static pictures, "
            f"got events={events}, static={static}"
        )
    return seed, teacher, static, events, test, size


def _whole(number, what, least):
    try:
        whole = int(number)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != number or whole < least:
        raise ValueError(f"expected {what} to be a whole number >= {least}, got {number!r}")
    return whole
