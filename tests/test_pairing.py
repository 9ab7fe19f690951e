"""Pairs: matched by file name, split by image identity."""

import os
import types

import pytest

from ckd_ref.events import FormatError

CLASSES = ("ant", "bee")


@pytest.fixture
def pairing(converter):
    return converter("pairing")


def options(**changes):
    plain = {"seed": 0, "test_per_class": None, "images_per_class": None, "events_per_class": None}
    return types.SimpleNamespace(**plain | changes)


# Splits

def class_of(pairing, *counts):
    return [
        pairing.Pair(f"{label}/{k}", label, None, None)
        for label, n in enumerate(counts)
        for k in range(n)
    ]


@pytest.mark.parametrize("n", [2, 3, 9, 31, 239, 800])
def test_a_tenth_of_each_class_is_for_the_test(pairing, n):
    pools = pairing.split(class_of(pairing, n, 20), CLASSES, options())
    first = [i for i in pools["test"] if i < n]
    assert len(first) == max(n - round(0.9 * n), 1) and len(pools["test"]) == len(first) + 2
    assert not pools["teacher"] and pools["train"] == pools["static"]
    assert sorted(pools["static"] + pools["test"]) == list(range(n + 20))


def test_pools_are_disjoint_and_seeded(pairing):
    pairs = class_of(pairing, 40, 40)
    pools = pairing.split(
        pairs, CLASSES, options(test_per_class=4, images_per_class=10, events_per_class=3)
    )
    assert [len(pools[name]) for name in ("test", "static", "teacher", "train")] == [8, 20, 52, 6]
    assert sorted(pools["test"] + pools["static"] + pools["teacher"]) == list(range(80))
    assert set(pools["train"]) < set(pools["static"])
    assert pools == pairing.split(
        pairs, CLASSES, options(test_per_class=4, images_per_class=10, events_per_class=3)
    )
    assert pools["test"] == pairing.split(pairs, CLASSES, options(test_per_class=4))["test"]
    assert pools["test"] != pairing.split(pairs, CLASSES, options(test_per_class=4, seed=1))["test"]


@pytest.mark.parametrize(
    "n, changes, message",
    [
        (1, {}, r"class bee: expected at least 2 images \(1 test, 1 static\), got 1; add some"),
        (0, {}, "class bee: expected at least 2 images"),
        (
            9,
            {"test_per_class": 5, "images_per_class": 5},
            r"class bee: expected at least 10 images \(5 test, 5 static\)",
        ),
        (5, {"test_per_class": 5}, "class bee: expected at least 6 images"),
    ],
)
def test_a_class_with_too_few_images_is_named(pairing, n, changes, message):
    with pytest.raises(FormatError, match=message):
        pairing.split(class_of(pairing, 20, n), CLASSES, options(**changes))


# Files

def test_class_folders_take_odd_names_and_pass_over_the_rest(pairing, tmp_path):
    for name in ("a b", "..c", "'\";$(x)", "\N{GREEK SMALL LETTER ALPHA}\n%s", ".hidden"):
        (tmp_path / name).mkdir()
        for file in ("1.JPG", "..2.png", "3.txt", ".4.jpg", "5 {}\\.jpeg"):
            (tmp_path / name / file).write_bytes(b"")
    (tmp_path / "6.jpg").write_bytes(b"")
    found = pairing.class_folders(tmp_path, pairing.IMAGE_SUFFIXES)
    assert list(found) == ["'\";$(x)", "a b", "\N{GREEK SMALL LETTER ALPHA}\n%s"]
    assert all(
        [path.name for path in paths] == ["1.JPG", "5 {}\\.jpeg"] for paths in found.values()
    )


def test_class_folders_refuse_what_they_cannot_name(pairing, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        pairing.class_folders(tmp_path / "none", (".jpg",))
    with pytest.raises(
        FormatError, match="expected one folder per class with .jpg files, found none"
    ):
        pairing.class_folders(tmp_path, (".jpg",))
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    except OSError:
        pytest.skip("this system has no such names")
    with pytest.raises(FormatError, match=r"xff.*not UTF-8; rename it"):
        pairing.class_folders(tmp_path, (".jpg",))


@pytest.mark.parametrize(
    "names, message",
    [
        (["image_0001.jpg", "image_1.png"], "image_1.png: image_0001.jpg has the number 1 as well"),
        (["image_1.jpg", "picture.jpg"], "picture.jpg: expected a name like image_0001.jpg"),
        (["image_..jpg"], "expected a name like image_0001.jpg"),
        (["image_\N{SUPERSCRIPT TWO}.jpg"], "expected a name"),
    ],
)
def test_numbers_are_found_once_and_in_every_name(pairing, tmp_path, names, message):
    with pytest.raises(FormatError, match=message):
        pairing.numbered([tmp_path / name for name in names], "image_")
    assert pairing.numbered([tmp_path / "image_0012.bin"], "image_") == {
        12: tmp_path / "image_0012.bin"
    }
