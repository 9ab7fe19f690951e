"""The N-Caltech101 converter, on files written here and on the real pair."""

import shutil

import numpy as np
import pytest

from ckd_ref.data.paired import open_paired
from ckd_ref.data.readers import read_bin
from ckd_ref.events import EVENT_DTYPE

CLASSES = {"BACKGROUND_Google": 3, "Faces_easy": 2, "ant": 4}


@pytest.fixture
def ncaltech101(converter, monkeypatch):
    module = converter("ncaltech101")
    monkeypatch.setattr(module, "COUNTS", CLASSES)
    return module


@pytest.fixture
def source(tmp_path):
    """The complete set of three classes.

    The recording of image k of class c has its event at (k, c), and the image is grey 20 c + k.
    Caltech101 has one more class and one more image.
    """
    from PIL import Image

    for c, (name, count) in enumerate({**CLASSES, "Faces": 2}.items()):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(1, count + 1 + (name == "ant")):
            mode, colour = ("L", 20 * c + k) if k % 2 else ("RGB", (20 * c + k,) * 3)
            Image.new(mode, (30 + k, 20), colour).save(
                tmp_path / "images" / name / f"image_{k:04d}.png"
            )
        if name != "Faces":
            (tmp_path / "events" / name).mkdir(parents=True)
            for k in range(1, count + 1):
                (tmp_path / "events" / name / f"image_{k:04d}.bin").write_bytes(
                    bytes([k, c, 0x80, 0, k])
                )
    return tmp_path


def arguments(source, *more):
    return [
        *(str(source / name) for name in ("events", "images", "out.h5")),
        "--workers",
        "1",
        *more,
    ]


def refusal(ncaltech101, source, *more):
    with pytest.raises(SystemExit) as stopped:
        ncaltech101.main(arguments(source, *more))
    assert not (source / "out.h5").exists()
    return str(stopped.value)


def test_the_complete_set_has_8709_recordings_in_101_classes(converter):
    counts = converter("ncaltech101").COUNTS
    assert len(counts) == 101 and sum(counts.values()) == 8709
    assert "BACKGROUND_Google" in counts and "Faces_easy" in counts and "Faces" not in counts


def test_pairs_by_class_and_number(ncaltech101, source, capsys):
    ncaltech101.main(arguments(source))
    assert "complete: 8,709 recordings in 101 classes" in capsys.readouterr().err
    with open_paired(source / "out.h5") as data:
        assert data.classes == tuple(sorted(CLASSES)) and data.sensor_size == (180, 240)
        assert data.image_size == 48
        assert data.names == tuple(f"{name}/image_{k:04d}" for name in sorted(CLASSES)
                                   for k in range(1, CLASSES[name] + 1))
        order = list(CLASSES)
        for index, identity in enumerate(data.event_identity):
            name, number = data.names[identity].split("/image_")
            event, = data.recording(index)
            assert (event["x"], event["y"]) == (int(number), order.index(name))
            assert data.classes[data.event_label[index]] == name
        for index, identity in enumerate(data.image_identity):
            name, number = data.names[identity].split("/image_")
            assert (
                np.rint(255 * data.images([index])) == 20 * order.index(name) + int(number)
            ).all()


def test_no_image_of_a_test_recording_is_elsewhere(ncaltech101, source):
    ncaltech101.main(arguments(source))
    with open_paired(source / "out.h5") as data:
        test = set(data.event_identity[data.recordings_in("test")])
        rest = {
            *data.event_identity[data.recordings_in("train")],
            *data.image_identity[data.images_in("static")],
            *data.image_identity[data.images_in("teacher")],
        }
        assert test == set(data.image_identity[data.images_in("test")]) and not test & rest
        assert len(test) == 3 and len(test | rest) == 9
    ncaltech101.main(arguments(source, "--leaky", "--overwrite"))
    with open_paired(source / "out.h5") as data:
        assert data.leaky and test < set(data.image_identity[data.images_in("static")])


def test_what_is_missing_is_listed(ncaltech101, source, capsys):
    (source / "events/ant/image_0002.bin").unlink()
    (source / "images/Faces_easy/image_0001.png").unlink()
    shutil.rmtree(source / "events/BACKGROUND_Google")
    message = refusal(ncaltech101, source)
    assert message.startswith("ncaltech101.py: not the complete N-Caltech101:")
    for line in (
        "1 classes without recordings: BACKGROUND_Google",
        "ant: 1 recordings missing: 0002",
        "Faces_easy: 1 images missing: 0001",
        "--incomplete",
    ):
        assert line in message
    assert "class Faces_easy: expected at least 2" in refusal(ncaltech101, source, "--incomplete")
    (source / "images/Faces_easy/image_0001.png").write_bytes(
        (source / "images/ant/image_0001.png").read_bytes()
    )
    capsys.readouterr()
    ncaltech101.main(arguments(source, "--incomplete"))
    assert "ant: 1 recordings missing: 0002" in capsys.readouterr().err
    with open_paired(source / "out.h5") as data:
        assert data.classes == ("Faces_easy", "ant")
        assert data.names == (
            "Faces_easy/image_0001", "Faces_easy/image_0002", "ant/image_0001",
            "ant/image_0003", "ant/image_0004",
        )


def test_class_lists_that_differ_are_never_matched_by_position(ncaltech101, source):
    (source / "images/BACKGROUND_Google").rename(source / "images/background")
    assert "BACKGROUND_Google: 3 images missing" in refusal(ncaltech101, source)
    (source / "events/ant").rename(source / "events/Ant")
    message = refusal(ncaltech101, source)
    assert "1 classes without recordings: ant" in message
    assert "Ant: 4 recordings that the set does not have" in message
    for name in list(CLASSES)[1:]:
        (source / "images" / name).rename(source / "images" / f"x{name}")
    assert "expected the same class names and numbers" in refusal(
        ncaltech101, source, "--incomplete"
    )


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda s: (s / "events/ant/image_1.bin").write_bytes(b"12345"),
            "has the number 1 as well",
        ),
        (
            lambda s: (s / "events/ant/noise.bin").write_bytes(b"12345"),
            "noise.bin: expected a name like image_0001.bin",
        ),
        (
            lambda s: (s / "events/ant/image_0003.bin").write_bytes(b"1234"),
            "image_0003.bin: .*cut off",
        ),
        (
            lambda s: (s / "events/ant/image_0003.bin").write_bytes(bytes([250, 0, 0, 0, 0])),
            "image_0003.bin: .*x = 250",
        ),
        (
            lambda s: (s / "images/ant/image_0003.png").write_bytes(b"GIF89a"),
            "image_0003.png: expected a JPEG or PNG",
        ),
        (lambda s: shutil.rmtree(s / "images"), "images is not a folder"),
        (lambda s: shutil.rmtree(s / "events"), "events is not a folder"),
    ],
)
def test_broken_sources_end_in_one_message(ncaltech101, source, spoil, message):
    import re

    spoil(source)
    assert re.search(message, refusal(ncaltech101, source))


def test_the_real_pair(converter, shared, tmp_path):
    """The one available recording is used twice: a class needs one for training, one for test."""
    for k in (1, 2):
        for place, original in (("events", "ncaltech101/Faces_easy/image_0001.bin"),
                                ("images", f"caltech101/Faces_easy/image_{k:04d}.jpg")):
            path = tmp_path / place / "Faces_easy" / f"image_{k:04d}.{original[-3:]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shared / "data" / original, path)
    converter("ncaltech101").main(arguments(tmp_path, "--incomplete"))
    expected = read_bin(tmp_path / "events/Faces_easy/image_0001.bin")
    with open_paired(tmp_path / "out.h5") as data:
        assert data.recording(0).dtype == EVENT_DTYPE and len(data.recording(0)) == 67_445
        assert np.array_equal(data.recording(0), expected) and data.classes == ("Faces_easy",)
