"""Folders of images filmed by the simulated camera: on files written here, on real photographs."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ckd_ref.data.camera import record, rgb_to_luminance
from ckd_ref.data.paired import open_paired
from ckd_ref.data.readers import read_image


@pytest.fixture
def film(converter):
    return converter("film")


@pytest.fixture
def source(tmp_path, rng):
    """Four odd pictures of each of three classes, some grey, of different sizes and formats."""
    from PIL import Image

    for name in ("a b", "café", "x'; rm"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(4):
            pixels = np.kron(rng.integers(0, 256, (4, 3 + k)), np.ones((6, 6))).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB" if k else "L").save(
                tmp_path / "images" / name / f"{k} %s.{'png' if k % 2 else 'JPG'}")
    (tmp_path / "images" / "notes.txt").write_text("")
    return tmp_path


def arguments(source, *more):
    return [
        str(source / "images"), str(source / "out.h5"), "--sensor-size", "24", "30",
        "--workers", "1", *more,
    ]


def refusal(film, source, *more):
    with pytest.raises(SystemExit) as stopped:
        film.main(arguments(source, *more))
    assert not (source / "out.h5").exists()
    return str(stopped.value)


@pytest.mark.skipif(os.name != "posix", reason="names of files cannot have such characters")
def test_names_of_classes_cannot_command_the_terminal(film, source):
    """In the errors of all converters; a list still has a line for each entry."""
    forged = source / "images" / "ant\x1b[2J\nfilm.py: done"
    forged.mkdir()
    (forged / "1.png").write_bytes(b"damaged")
    line = refusal(film, source, "--leave-out", "cat\x07")
    assert "no folder cat?" in line and line.isprintable()
    line = refusal(film, source)
    assert "ant?[2J?film.py: done" in line and line.isprintable()
    assert film.convert.for_terminal("left out:\n  a\nb\n  c\x1b") == "left out:\n  a?b\n  c?"


def test_pools_names_and_films(film, source):
    film.main(
        arguments(source, "--images-per-class", "2", "--events-per-class", "1", "--seed", "3")
    )
    with open_paired(source / "out.h5") as data:
        assert data.classes == ("a b", "café", "x'; rm") and data.sensor_size == (24, 30)
        assert [len(data.images_in(pool)) for pool in ("teacher", "static", "test")] == [3, 6, 3]
        assert [len(data.recordings_in(pool)) for pool in ("train", "test")] == [3, 3]
        assert sorted(data.image_identity) == list(range(12))
        test = set(data.event_identity[data.recordings_in("test")])
        assert test == set(data.image_identity[data.images_in("test")])
        train = set(data.event_identity[data.recordings_in("train")])
        assert train < set(data.image_identity[data.images_in("static")])
        name = data.names[data.event_identity[0]]
        luminance = rgb_to_luminance(read_image(source / "images" / name) / np.float32(255))
        scale = min(24 / luminance.shape[0], 30 / luminance.shape[1])
        expected = record(
            luminance, (24, 30), np.random.default_rng([3, *name.encode()]), scale=scale
        )
        assert np.array_equal(data.recording(0), expected)


def test_a_film_depends_on_seed_and_name_only(film, source):
    def films(*more):
        film.main(arguments(source, "--overwrite", *more))
        with open_paired(source / "out.h5") as data:
            return {
                data.names[i]: data.recording(r).tobytes()
                for r, i in enumerate(data.event_identity)
            }
    all_classes, without = films(), films("--leave-out", "a b")
    assert {name.split("/")[0] for name in without} == {"café", "x'; rm"}
    shared = set(all_classes) & set(without)
    assert shared and all(all_classes[name] == without[name] for name in shared)
    other = films("--seed", "1")
    assert all(all_classes[name] != other[name] for name in set(all_classes) & set(other))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX: SIGKILL")
def test_killed_and_continued_is_as_never_interrupted(film, source, monkeypatch):
    """SIGKILL while two processes write parts; both end as well."""
    film.main(arguments(source))
    whole = (source / "out.h5").read_bytes()
    (source / "out.h5").unlink()
    code = (
        "import sys, convert, film, kill; kill.slow_down_writing(); "
        "convert.SHARD = 2; film.main(sys.argv[1:])"
    )
    tools, tests = os.path.dirname(film.__file__), os.path.dirname(__file__)
    command = [sys.executable, "-c", code, *arguments(source, "--workers", "2")]
    search = os.pathsep.join([tools, tests, os.path.dirname(tools)])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": search}, stderr=subprocess.DEVNULL
    )
    parts = source / "out.h5.parts"
    while process.poll() is None and not list(parts.glob("*.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (source / "out.h5").exists() and list(parts.glob("*.npz"))
    monkeypatch.setattr(film.convert, "SHARD", 2)
    deadline = time.monotonic() + 60
    while True:
        try:
            film.main(arguments(source))
            break
        except SystemExit as stopped:                          # a worker still writes its part
            assert "is in use by process" in str(stopped) and time.monotonic() < deadline
            time.sleep(0.05)
    assert (source / "out.h5").read_bytes() == whole and not parts.exists()


@pytest.mark.parametrize(
    "more, spoil, message",
    [
        (("--leave-out", "dog"), None, "there is no folder dog to leave out"),
        (
            (),
            lambda s: [p.unlink() for p in (s / "images/café").glob("[1-3]*")],
            "café: expected at least 2 .* got 1",
        ),
        ((), lambda s: (s / "images/empty").mkdir(), "class empty: expected at least 2 .* got 0"),
        (
            (),
            lambda s: [p.write_bytes(b"") for p in (s / "images/a b").iterdir()],
            "expected a JPEG or PNG",
        ),
        ((), lambda s: (s / "images").rename(s / "elsewhere"), "is not a folder"),
    ],
)
def test_unusable_sources_end_in_one_message(film, source, more, spoil, message):
    if spoil:
        spoil(source)
    assert re.search(message, refusal(film, source, *more))


def test_a_picture_of_one_grey_may_show_nothing(film, source):
    from PIL import Image

    for path in (source / "images/a b").iterdir():
        Image.new("L", (2, 2), 7).save(path)
    assert re.search("a b/.*: expected a picture that makes at least one pixel fire",
                     refusal(film, source, "--sensor-size", "1", "1"))


def test_real_photographs(film, shared, tmp_path):
    os.symlink(shared / "data/caltech101", tmp_path / "images")
    left_out = [
        path.name
        for path in (tmp_path / "images").iterdir()
        if path.name not in ("Faces_easy", "watch")
    ]
    film.main(
        [
            str(tmp_path / "images"), str(tmp_path / "out.h5"), "--workers", "1",
            "--events-per-class", "1", "--test-per-class", "1", "--images-per-class", "3",
            "--leave-out", *left_out,
        ]
    )
    with open_paired(tmp_path / "out.h5") as data:
        assert data.classes == ("Faces_easy", "watch") and len(data.names) == 120
        counts = [len(data.recording(i)) for i in range(len(data.event_label))]
        assert all(20_000 < n < 400_000 for n in counts) and max(data.recording(0)["t"]) <= 300_000
