"""The embedded data sets: characters exist, pictures follow from the seed, pools are disjoint."""

import pathlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ckd_ref.data import glyphs
from ckd_ref.data.camera import record, rgb_to_luminance
from ckd_ref.data.paired import open_paired
from ckd_ref.events import bin_events, check_events

TINY = dict(seed=3, teacher=1, static=2, events=1, test=1, size=16, progress=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return glyphs.build(tmp_path_factory.mktemp("glyphs") / "tiny.h5", **TINY)


def arrays(path):
    """Everything in an HDF5 file, by name."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


CLUTTER = [*glyphs.SHAPES, *glyphs.SYMBOLS.values()]


@pytest.mark.parametrize("characters", glyphs.SETS)
def test_there_are_at_least_ten_classes(characters):
    assert len(glyphs.SETS[characters].characters) >= 10


@pytest.mark.parametrize(
    "characters, face",
    [(CLUTTER, glyphs.CLUTTER_FACE), *((glyphs.DIGITS.values(), face) for face in glyphs.FACES)],
)
def test_every_character_is_in_the_font(characters, face):
    import matplotlib
    from matplotlib.ft2font import FT2Font

    charmap = FT2Font(
        str(pathlib.Path(matplotlib.get_data_path(), f"fonts/ttf/{face}.ttf"))
    ).get_charmap()
    assert [c for c in characters if ord(c) not in charmap] == []


def shape_of(character, face="DejaVuSans"):
    """The glyph that `draw` uses, 32 x 32."""
    return np.asarray(glyphs._glyph(character, face, 64).resize((32, 32)))


def looks_like_another(characters, face="DejaVuSans"):
    """Those whose shape differs on average by less than a tenth of full scale from a former one."""
    shapes = [shape_of(c, face).astype(int) for c in characters]
    return [
        c
        for i, c in enumerate(characters)
        if any(abs(shapes[i] - s).mean() < 25.5 for s in shapes[:i])
    ]


def test_every_class_has_a_shape_of_its_own():
    characters = list(glyphs.SYMBOLS.values())
    assert looks_like_another(characters) == []
    missing = ["\N{WATCH}", "\N{HOURGLASS}"]  # characters the font lacks: both become the same box
    assert looks_like_another(characters + missing) == missing[1:]


@pytest.mark.parametrize("face", glyphs.FACES)
def test_every_digit_has_a_shape_of_its_own(face):
    assert looks_like_another(list(glyphs.DIGITS.values()), face) == []


def test_no_two_faces_draw_the_same_digits():
    pages = {np.stack([shape_of(c, face) for c in "0123456789"]).tobytes() for face in glyphs.FACES}
    assert len(pages) == len(glyphs.FACES)


def test_digits_are_bright_on_dark_and_never_mirrored(rng):
    """Their mean V lies above that of the border, and a 7 has its corner on the right."""
    plain = replace(glyphs.SETS["digits"].difficulty, clutter=0, noise=0, rotation=0, shear=0)
    for _ in range(20):
        V = value(glyphs.draw("seven", rng, 48, plain))
        ink = V > (int(V.max()) + int(V[0, 0])) / 2
        assert V[ink].mean() - V[~ink].mean() > 0.5 * 255
        rows = np.flatnonzero(ink.any(axis=1))
        foot = np.flatnonzero(ink[rows[-2]])
        assert foot.mean() < np.flatnonzero(ink.any(axis=0)).mean(), "the foot is on the left"


def test_the_face_is_drawn_for_every_picture():
    one, other = (
        glyphs.draw("four", np.random.default_rng(5), 48, replace(PLAIN, faces=(face,)))
        for face in ("cmr10", "cmtt10")
    )
    assert (one != other).mean() > 0.05
    usual = glyphs.SETS["digits"].difficulty
    assert usual.faces == glyphs.FACES


def test_digits_and_symbols_are_different_sets(tmp_path):
    digits, symbols = (
        glyphs.build(tmp_path / f"{name}.h5", **TINY | dict(static=5, events=None), characters=name)
        for name in ("digits", "symbols")
    )
    with open_paired(digits) as data:
        assert data.classes == tuple(glyphs.DIGITS) and len(data.recordings_in("train")) == 2 * 10
    with open_paired(symbols) as data:
        assert data.classes == tuple(glyphs.SYMBOLS) and len(data.recordings_in("train")) == 5 * 12
    with pytest.raises(ValueError, match="digits, symbols, got 'letters'"):
        glyphs.cached(tmp_path, **TINY, characters="letters")


@pytest.mark.parametrize("pixels", [16, 64, 128])
def test_a_glyph_is_cut_to_its_ink_within_an_empty_frame(pixels):
    for character in CLUTTER:
        ink = np.asarray(glyphs._glyph(character, "DejaVuSans", pixels)) > 0
        assert max(ink.shape) == pixels + 2
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        assert (rows[0], columns[0]) == (1, 1) and (rows[-1] + 2, columns[-1] + 2) == ink.shape


@pytest.mark.parametrize("size", [16, 34, 48])
@pytest.mark.parametrize("name", glyphs.SYMBOLS)
def test_a_picture_is_square_rgb_bytes(name, size, rng):
    picture = glyphs.draw(name, rng, size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others():
    first, again, other = (glyphs.draw("anchor", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert (first != other).mean() > 0.9


def test_pictures_use_the_whole_range_of_values(rng):
    pictures = np.stack([glyphs.draw(name, rng) for name in glyphs.SYMBOLS for _ in range(8)])
    assert pictures.min() == 0 and pictures.max() == 255


PLAIN = glyphs.Difficulty(
    scale=(0.8, 0.8), rotation=0, shear=0, stretch=0, shift=0, contrast=(0.5, 0.5), hue_only=0,
    texture=0, clutter=0, noise=0,
)


def value(picture):
    return picture.max(axis=-1).astype(int)


@pytest.mark.parametrize("name", glyphs.SYMBOLS)
def test_without_difficulty_the_v_channel_is_the_symbol(name, rng):
    V = value(glyphs.draw(name, rng, 48, PLAIN))
    back = V[0, 0]
    ink = abs(V - back) / abs(V - back).max()
    rows, columns = np.flatnonzero(ink.max(axis=1) > 0.2), np.flatnonzero(ink.max(axis=0) > 0.2)
    assert abs(V - back).max() == pytest.approx(127.5, abs=1.5)  # the contrast asked for
    # The scale asked for.
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(0.8 * 48, abs=2)
    drawn = ink[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    shapes = {
        other: np.asarray(glyphs._glyph(character, "DejaVuSans", 64).resize(drawn.shape[::-1]))
        for other, character in glyphs.SYMBOLS.items()
    }
    likeness = {
        other: max(
            np.corrcoef(drawn.ravel(), side.ravel())[0, 1] for side in (shape, shape[:, ::-1])
        )
        for other, shape in shapes.items()
    }  # it or its mirror image
    assert max(likeness, key=likeness.get) == name and likeness[name] > 0.75


@pytest.mark.parametrize("name", glyphs.SYMBOLS)
def test_a_symbol_as_large_as_the_picture_sits_in_its_middle(name, rng):
    V = value(glyphs.draw(name, rng, 48, replace(PLAIN, scale=(1, 1))))
    ink = abs(V - np.bincount([V[0, 0], V[0, -1], V[-1, 0], V[-1, -1]]).argmax()) > 20
    for axis in (0, 1):
        along = np.flatnonzero(ink.any(axis))
        assert (along[0] + along[-1]) / 2 == pytest.approx(23.5, abs=1.5)


def test_hue_only_hides_the_symbol_from_v_but_not_from_rgb(rng):
    picture = glyphs.draw("heart", rng, 48, replace(PLAIN, hue_only=1))
    inside = abs(picture.astype(int) - picture[0, 0]).max(axis=-1) > 100
    assert inside.sum() > 200
    # Only the rim, where two hues mix, is darker.
    assert (abs(value(picture) - value(picture)[0, 0])[inside] <= 2).mean() > 0.8


@pytest.mark.parametrize(
    "knob, hard",
    [
        ("rotation", 60), ("shear", 0.5), ("stretch", 0.5), ("shift", 0.3),
        ("scale", (0.3, 0.5)), ("texture", 0.3), ("clutter", 9), ("noise", 0.1),
        ("contrast", (0.1, 0.2)), ("hue_only", 1.0), ("mirror", False), ("bright", True),
    ],
)
def test_every_knob_of_difficulty_changes_the_pictures(knob, hard):
    one, other = (
        glyphs.draw("star", np.random.default_rng(5), 48, d)
        for d in (PLAIN, replace(PLAIN, **{knob: hard}))
    )
    assert (one != other).any()


def test_no_identity_is_in_two_pools(tiny):
    with open_paired(tiny) as data:
        K = len(glyphs.SYMBOLS)
        pools = [set(data.image_identity[data.image_split == split]) for split in (0, 1, 2)]
        assert [len(pool) for pool in pools] == [K, 2 * K, K]
        assert len(set.union(*pools)) == 4 * K
        train, test = (set(data.event_identity[data.event_split == split]) for split in (0, 1))
        assert len(train) == K and train < pools[1]
        assert test == pools[2]
        pictures = data.images(np.arange(len(data.image_label)))
    # Nor is the same picture there twice under two identities.
    assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) == 4 * K


def test_a_recording_has_the_class_of_the_picture_it_filmed(tiny):
    with open_paired(tiny) as data:
        assert list(data.classes) == list(glyphs.SYMBOLS)
        label = dict(zip(data.image_identity, data.image_label))
        assert [label[identity] for identity in data.event_identity] == list(data.event_label)
        assert set(data.event_label) == set(range(len(glyphs.SYMBOLS)))


def test_recordings_are_valid_and_long_enough_to_learn_from(tiny):
    with open_paired(tiny) as data:
        for i in range(len(data.event_label)):
            events = check_events(data.recording(i), (16, 16))
            assert len(events) > 100 and set(events["p"]) == {0, 1}


def test_recordings_show_the_picture_they_film(tiny, rng):
    with open_paired(tiny) as data:
        R = len(data.event_label)
        place = {identity: i for i, identity in enumerate(data.image_identity)}
        # (R, 16, 16, 3)
        pictures = data.images(np.array([place[identity] for identity in data.event_identity]))
        films = [data.recording(i) for i in range(R)]
    again = [record(rgb_to_luminance(picture), (16, 16), rng) for picture in pictures]
    # (2 R, 1, 16, 16, 2)
    maps = np.stack([bin_events(events, 1, (16, 16)) for events in films + again])
    likeness = np.corrcoef(np.sqrt(maps).reshape(2 * R, -1))[:R, R:]

    def right(films):
        return (likeness[films].argmax(axis=1) == np.arange(R)).mean()

    assert right(np.arange(R)) > 0.9
    assert right(np.roll(np.arange(R), 1)) < 0.1  # recordings of another picture are told apart


def test_the_same_seed_builds_the_same_arrays(tiny, tmp_path):
    first, again = arrays(tiny), arrays(glyphs.build(tmp_path / "again.h5", **TINY))
    other = arrays(glyphs.build(tmp_path / "other.h5", **{**TINY, "seed": 4}))
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    assert not np.array_equal(first["images/pixels"], other["images/pixels"])


def test_larger_pools_begin_with_the_smaller_ones(tiny, tmp_path):
    larger = glyphs.build(
        tmp_path / "larger.h5", **{**TINY, "teacher": 0, "static": 3, "events": 2}
    )

    def pictures(path, split, label):
        with h5py.File(path) as file:
            images = file["images"]
            return images["pixels"][()][
                (images["split"][()] == split) & (images["label"][()] == label)
            ]

    for label in range(len(glyphs.SYMBOLS)):
        np.testing.assert_array_equal(pictures(larger, 1, label)[:2], pictures(tiny, 1, label))
        np.testing.assert_array_equal(pictures(larger, 2, label), pictures(tiny, 2, label))


def test_cached_builds_once_and_names_the_file_after_its_parameters(tmp_path, monkeypatch):
    path = glyphs.cached(tmp_path / "new", **TINY)
    assert path.name.startswith("symbols-seed3-teacher1-static2-events1-test1-size16-")
    monkeypatch.setattr(glyphs, "build", lambda path, *_: built.append(path.name))
    built = []
    assert glyphs.cached(tmp_path / "new", **TINY) == path and built == []
    glyphs.cached(tmp_path / "new", **{**TINY, "seed": 4})
    glyphs.cached(tmp_path / "new", **TINY, difficulty=PLAIN)
    assert len({path.name, *built}) == 3


def test_the_cache_is_where_the_user_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "build", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert glyphs.cached(**TINY).parent == tmp_path / "ckd_ref"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    assert glyphs.cached(**TINY).parent == tmp_path / "home" / ".cache" / "ckd_ref"


@pytest.mark.parametrize("home", ["file", "~"])
def test_without_a_home_the_cache_is_asked_for(home, tmp_path, monkeypatch):
    """A home that cannot be written, and a user without one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    home = home if home == "~" else str(tmp_path / home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, home)
    with pytest.raises(PermissionError, match="can be written; set XDG_CACHE_HOME to another"):
        glyphs.cached(**TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_name_is_refused(rng):
    with pytest.raises(ValueError, match="airplane, anchor.*got 'teapot'"):
        glyphs.draw("teapot", rng)


@pytest.mark.parametrize("size", [15, 0, -48, 47.5, None, "48", float("nan")])
def test_an_unusable_size_is_refused(size, rng):
    with pytest.raises(
        ValueError, match="size, the rows and columns of a picture, to be a whole number >= 16, got"
    ):
        glyphs.draw("star", rng, size)


def test_a_seed_is_no_generator():
    with pytest.raises(ValueError, match="expected rng to be a numpy.random.Generator, got int"):
        glyphs.draw("star", 0)


@pytest.mark.parametrize(
    "knob, wrong",
    [
        ("scale", (0, 0.5)), ("scale", 0.5), ("scale", (0.5, 0.4)), ("rotation", -1),
        ("contrast", (0.5, 1.5)), ("hue_only", float("nan")), ("clutter", 1.5),
        ("clutter", float("inf")), ("noise", "much"), ("texture", 0.6), ("mirror", "yes"),
        ("bright", 2), ("faces", ()), ("faces", ("Helvetica",)), ("faces", None),
    ],
)
def test_an_unusable_difficulty_is_refused(knob, wrong):
    with pytest.raises(ValueError, match=f"expected Difficulty.{knob} to be "):
        glyphs.Difficulty(**{knob: wrong})


@pytest.mark.parametrize("wrong, message", [
    (dict(seed=-1), "the seed to be a whole number >= 0, got -1"),
    (dict(static=0), "static, pictures per class, to be a whole number >= 1, got 0"),
    (dict(events=0), "events, recordings per class, to be a whole number >= 1, got 0"),
    (dict(test=0.5), "test, pictures per class, to be a whole number >= 1, got 0.5"),
    (dict(events=9), "events <= static.*got events=9, static=2"),
])
def test_unusable_numbers_are_refused_and_nothing_is_written(wrong, message, tmp_path):
    for make in (
        lambda **k: glyphs.build(tmp_path / "never.h5", **k),
        lambda **k: glyphs.cached(tmp_path, **k),
    ):
        with pytest.raises(ValueError, match=message):
            make(**{**TINY, **wrong})
    assert list(tmp_path.iterdir()) == []
