"""The embedded data sets: generated pictures of digits or symbols, and simulated recordings.

They stand in for the data sets of Sec. IV-A. The characters are in matplotlib's own fonts, so
nothing is downloaded. Digits consist of thin strokes, so that their pictures resemble their events,
as in N-MNIST; the symbols are areas, of which events show the outline alone, and most are
categories of Caltech101.
"""

import colorsys
import contextlib
import functools
import math
import os
import pathlib
import typing
import zlib
from dataclasses import dataclass

import numpy as np

from ..events import resize_frames
from .camera import Camera, Saccades, record, rgb_to_luminance
from .files import locked
from .paired import PairedWriter

SYMBOLS = {
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

DIGITS = dict(zip("zero one two three four five six seven eight nine".split(), "0123456789"))
"""The same for the digits."""

SHAPES = "/|~(+?&\N{WHITE CIRCLE}\N{BLACK SQUARE}\N{BLACK UP-POINTING TRIANGLE}"
"""Small characters drawn beside, behind and over the glyph, besides those of its set."""

CLUTTER_FACE = "DejaVuSans"
"""Their font."""

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
        Largest rotation in either direction, degrees.
    mirror : bool
        Whether half of the symbols are mirrored.
    shear, stretch : float
        Largest shear, and largest change of the aspect ratio (its logarithm).
    shift : float
        How far the symbol may extend beyond the picture's border before it is rotated, as a
        share of the picture's side.
    contrast : (low, high)
        Difference in V between symbol and background, V in [0, 1].
    bright : bool
        Whether the symbol is always the brighter one.
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
    faces : tuple of str
        Names of matplotlib's fonts, one of which is sampled for each symbol.
    """

    scale: tuple = (0.55, 0.85)
    rotation: float = 20.0
    mirror: bool = True
    shear: float = 0.25
    stretch: float = 0.2
    shift: float = 0.0
    contrast: tuple = (0.3, 0.8)
    bright: bool = False
    hue_only: float = 0.05
    texture: float = 0.12
    clutter: int = 4
    clutter_scale: tuple = (0.12, 0.35)
    noise: float = 0.05
    faces: tuple = ("DejaVuSans",)

    def __post_init__(self):
        for name, fits, expected in (
            ("scale", _is_share, "a pair 0 < low <= high <= 1"),
            ("rotation", lambda v: 0 <= v <= 180, "degrees in [0, 180]"),
            ("mirror", lambda v: v in (True, False), "True or False"),
            ("shear", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("stretch", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("shift", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("contrast", lambda low, high: 0 <= low <= high <= 1, "a pair 0 <= low <= high <= 1"),
            ("bright", lambda v: v in (True, False), "True or False"),
            ("hue_only", lambda v: 0 <= v <= 1, "a probability in [0, 1]"),
            ("texture", lambda v: 0 <= v <= 0.5, "a number in [0, 0.5]"),
            ("clutter", lambda v: 0 <= v == int(v), "a whole number >= 0"),
            ("clutter_scale", _is_share, "a pair 0 < low <= high <= 1"),
            ("noise", lambda v: 0 <= v <= 1, "a number in [0, 1]"),
            ("faces", lambda v: len(v) and all(map(_font, v)), "names of matplotlib's fonts"),
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


def _font(name):
    """Path of a font that matplotlib has, or None."""
    import matplotlib

    path = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    return path if path.is_file() else None


FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif",
    "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10", "cmb10",
)
"""Fonts of the digits."""


class Glyphs(typing.NamedTuple):
    """An embedded data set: its characters by class, what varies, and the usual numbers of pixels
    and of recordings per class."""

    characters: dict
    difficulty: Difficulty
    size: int
    events: int


SETS = {
    "digits": Glyphs(DIGITS, size=32, events=2, difficulty=Difficulty(
        mirror=False, contrast=(0.6, 0.9), bright=True, hue_only=0.0, texture=0.05, clutter=1,
        noise=0.02, faces=FACES,
    )),
    "symbols": Glyphs(SYMBOLS, size=48, events=5, difficulty=Difficulty()),
}
"""The embedded data sets by name."""


def draw(name, rng, size=48, difficulty=None):
    """One random picture of a symbol or a digit.

    Parameters
    ----------
    name : str
        A key of `SYMBOLS` or `DIGITS`.
    rng : numpy.random.Generator
    size : int
        Rows and columns, at least 16 pixels.
    difficulty : Difficulty, optional
        Default: that of the set in `SETS`.

    Returns
    -------
    picture : (size, size, 3) uint8
        RGB, 0 ... 255.

    Raises
    ------
    ValueError
        An unknown name, a size below 16, or an rng that is no Generator.
    """
    chosen = next((glyphs for glyphs in SETS.values() if name in list(glyphs.characters)), None)
    if chosen is None:
        raise ValueError(f"expected a name of {', '.join(SYMBOLS | DIGITS)}, got {name!r}")
    size = _whole(size, "size, the rows and columns of a picture,", least=16)
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"expected rng to be a numpy.random.Generator, got {type(rng).__name__}")
    d = difficulty or chosen.difficulty

    if rng.random() < d.hue_only:
        value_back = value_symbol = rng.uniform(0.5, 1 - d.texture)
        saturation = (0.7, 1.0)
        hue_back = rng.random()
        hue_symbol = hue_back + rng.uniform(0.3, 0.7)
    else:
        gap = rng.uniform(*d.contrast)
        dark = rng.uniform(0, 1 - gap)
        values = [dark, dark + gap]
        value_back, value_symbol = values if d.bright else rng.permutation(values)
        saturation = (0.0, 1.0)
        hue_back, hue_symbol = rng.random(2)

    layers = []
    clutter = [*SHAPES, *chosen.characters.values()]
    for _ in range(rng.integers(d.clutter + 1)):
        mask = _stamp(rng.choice(clutter), CLUTTER_FACE, d.clutter_scale, 180, 0.3, d, size, rng)
        paint = _colour(rng.random(), saturation, rng.random(), rng)
        layers.append((mask, paint))
    character, face = chosen.characters[name], rng.choice(d.faces)
    mask = _stamp(character, face, d.scale, d.rotation, d.shift, d, size, rng)
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


def _stamp(character, face, scale, rotation, shift, difficulty, size, rng):
    """(size, size, 1) in [0, 1]: coverage of each pixel by the randomly transformed character."""
    from PIL import Image

    scale = rng.uniform(*scale)
    angle = math.radians(rng.uniform(-rotation, rotation))
    shear = rng.uniform(-1, 1) * difficulty.shear
    stretch = math.exp(rng.uniform(-1, 1) * difficulty.stretch / 2)
    mirror = rng.choice([-1, 1]) if difficulty.mirror else 1
    centre = 0.5 + rng.uniform(-1, 1, 2) * ((1 - scale) / 2 + shift)

    # Supersample by 2, then average 2 x 2. The glyph is at most twice as large, so there is
    # neither aliasing nor blur.
    side = 2 * size
    pixels = 2 ** math.ceil(math.log2(scale * side))
    glyph = _glyph(character, face, pixels)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = turn @ [[mirror * stretch, shear], [0, 1 / stretch]] * (scale * side / pixels)
    back = np.linalg.inv(forward)  # picture -> glyph
    offset = np.divide(glyph.size, 2) - back @ (centre * side)
    matrix = (*back[0], offset[0], *back[1], offset[1])
    affine = Image.Transform.AFFINE
    stamp = glyph.transform((side, side), affine, matrix, Image.Resampling.BILINEAR).reduce(2)
    return np.asarray(stamp)[..., None] / 255


@functools.lru_cache(maxsize=256)
def _glyph(character, face, pixels):
    """The character in white on black, as a PIL image whose longer side is `pixels`.

    An empty border of one pixel is added, in which the interpolation of `_stamp` fades to 0.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    font = ImageFont.truetype(str(_font(face)), 2 * pixels, layout_engine=ImageFont.Layout.BASIC)
    page = Image.new("L", (6 * pixels, 6 * pixels))
    ImageDraw.Draw(page).text((3 * pixels, 3 * pixels), character, font=font, fill=255, anchor="mm")
    return ImageOps.expand(ImageOps.contain(page.crop(page.getbbox()), (pixels, pixels)), 1)


def build(
    path,
    seed=0,
    teacher=200,
    static=30,
    events=None,
    test=40,
    size=None,
    difficulty=None,
    progress=True,
    characters="symbols",
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
    events : int, optional
        Recordings per class for training: films of the first pictures of the static stream. All
        test pictures are filmed as well. Default: that of the set in `SETS`.
    size : int, optional
        Rows and columns of the pictures and of the sensor, at least 16 pixels. Default: that of
        the set in `SETS`.
    difficulty : Difficulty, optional
        Default: that of the set in `SETS`.
    progress : bool
        Show a progress bar.
    characters : str
        A key of `SETS`.

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
    chosen = _chosen(characters)
    difficulty = difficulty or chosen.difficulty
    seed, teacher, static, events, test, size = _check(
        chosen, seed, teacher, static, events, test, size
    )
    names = list(chosen.characters)
    pools = (("teacher", teacher), ("static", static), ("test", test))
    jobs = [
        (split, pool, label, k)
        for pool, (split, count) in enumerate(pools)
        for label in range(len(names))
        for k in range(count)
    ]
    bar = tqdm(jobs, characters, unit="picture", disable=not progress)
    with PairedWriter(path, names, (size, size), size) as file:
        for identity, (split, pool, label, k) in enumerate(bar):
            place = np.random.SeedSequence(seed, spawn_key=(label, pool, k))
            picture_rng, film_rng = map(np.random.default_rng, place.spawn(2))
            picture = draw(names[label], picture_rng, size, difficulty)
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
    events=None,
    test=40,
    size=None,
    difficulty=None,
    progress=True,
    characters="symbols",
):
    """Path of the data set with these parameters, built on first use.

    Parameters
    ----------
    folder : path, optional
        Default: ``ckd_ref`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``.
    seed, teacher, static, events, test, size, difficulty, progress, characters
        As for `build`. All but `progress` are part of the file's name; it has a checksum for
        difficulty, camera and motion.

    Returns
    -------
    path : pathlib.Path
    """
    chosen = _chosen(characters)
    difficulty = difficulty or chosen.difficulty
    seed, teacher, static, events, test, size = _check(
        chosen, seed, teacher, static, events, test, size
    )
    if folder is None:
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = pathlib.Path(caches, "ckd_ref")
    settings = CACHE_VERSION, chosen.characters, SHAPES, difficulty, Camera(), Saccades()
    checksum = zlib.crc32(repr(settings).encode())
    name = (
        f"{characters}-seed{seed}-teacher{teacher}-static{static}-events{events}-test{test}"
        f"-size{size}-{checksum:08x}.h5"
    )
    path = pathlib.Path(folder, name)
    if not path.exists():
        _make_folder(path.parent)
        with locked(path, wait=True):
            if not path.exists():  # another process may have built it meanwhile
                build(path, seed, teacher, static, events, test, size, difficulty, progress,
                      characters)
    return path


def _make_folder(folder):
    usable = not str(folder).startswith("~")                   # which stays if there is no home
    if usable:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK | os.X_OK)
    if not usable:
        raise PermissionError(
            f"pictures of the embedded sets are kept in {folder}, where nothing can be written; "
            "set XDG_CACHE_HOME to another folder"
        )


def _chosen(characters):
    """An entry of SETS by its name."""
    if characters not in SETS:
        raise ValueError(f"expected one of the sets {', '.join(SETS)}, got {characters!r}")
    return SETS[characters]


def _check(chosen, seed, teacher, static, events, test, size):
    """The numbers of a data set, validated; the set's own for those that are None."""
    events = chosen.events if events is None else events
    size = chosen.size if size is None else size
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
