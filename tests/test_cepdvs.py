"""The CEP-DVS converter, on files written here."""

import re

import numpy as np
import pytest
import scipy.io

from ckd_ref.data.paired import open_paired

COUNT = 60
SHUFFLED = np.random.default_rng(3).permutation(np.arange(COUNT) % 20)
"""The class of each number: three recordings of each class, in no order."""


@pytest.fixture
def cepdvs(converter, monkeypatch):
    module = converter("cepdvs")
    monkeypatch.setattr(module, "PER_CLASS", 3)
    return module


@pytest.fixture
def source(cepdvs, tmp_path):
    """Recording k has one event at (k, class) and filmed an image of the grey k."""
    from PIL import Image

    for folder in ("events", "images"):
        (tmp_path / folder).mkdir()
    rows = ["header of some kind"]
    for k, label in enumerate(SHUFFLED):
        one = np.array([[k]], np.uint16)
        scipy.io.savemat(
            tmp_path / "events" / f"{k}.mat",
            {
                "x": one, "y": np.array([[label]], np.uint16), "ts": np.array([[7.0]]),
                "p": np.array([[1 - 2 * (k % 2)]]), "note": "ignored",
            },
            do_compression=bool(k % 3),
        )
        Image.new("RGB", (32, 32), (k, k, k)).save(tmp_path / "images" / f"{k}.png")
        rows.append(f"{k} some/path_{k}.png fine_name split {cepdvs.CLASSES[label]} more")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def arguments(source, *more):
    return [
        *(str(source / name) for name in ("events", "list.csv", "images", "out.h5")),
        "--workers",
        "1",
        *more,
    ]


def refusal(cepdvs, source, *more):
    with pytest.raises(SystemExit) as stopped:
        cepdvs.main(arguments(source, *more))
    assert not (source / "out.h5").exists()
    return str(stopped.value)


def test_twenty_classes(cepdvs):
    assert len(set(cepdvs.CLASSES)) == 20 and cepdvs.CLASSES == sorted(cepdvs.CLASSES)


def test_pairs_and_classes_by_number(cepdvs, source, capsys):
    cepdvs.main(arguments(source))
    assert "complete" in capsys.readouterr().err
    with open_paired(source / "out.h5") as data:
        assert data.classes == tuple(cepdvs.CLASSES) and data.sensor_size == (260, 346)
        assert data.names == tuple(
            f"{cepdvs.CLASSES[label]}/{k}" for k, label in enumerate(SHUFFLED)
        )
        for index, k in enumerate(data.event_identity):
            event, = data.recording(index)
            assert (event["x"], event["y"], event["p"], event["t"]) == (
                k,
                SHUFFLED[k],
                1 - k % 2,
                0,
            )
            assert data.event_label[index] == SHUFFLED[k]
        for index, k in enumerate(data.image_identity):
            assert (np.rint(255 * data.images([index])) == k).all()
            assert data.image_label[index] == SHUFFLED[k]
        test = set(data.event_identity[data.recordings_in("test")])
        assert sorted(SHUFFLED[list(test)]) == list(range(20))                   # one of each class
        assert not test & {*data.event_identity[data.recordings_in("train")],
                           *data.image_identity[data.images_in("static")]}


def test_the_baselines_split_is_by_blocks_of_names(cepdvs, source, monkeypatch):
    for name, value in (("BLOCK", 30), ("BLOCK_TRAIN", 15), ("BLOCK_TEST", 6)):
        monkeypatch.setattr(cepdvs, name, value)
    cepdvs.main(arguments(source, "--authors-blocks"))
    names = sorted((f"{k}.mat" for k in range(COUNT)))                          # 0, 1, 10, 11, ...
    blocks = [[int(name[:-4]) for name in names[begin:begin + 30]] for begin in (0, 30)]
    with open_paired(source / "out.h5") as data:
        for pool, part in (("train", slice(15)), ("test", slice(15, 21))):
            assert data.event_identity[data.recordings_in(pool)].tolist() == sorted(
                blocks[0][part] + blocks[1][part]
            )
        assert set(data.image_identity) == set(data.event_identity)
        assert len(data.event_identity) == 42


def test_what_is_missing_is_listed(cepdvs, source):
    (source / "events/7.mat").unlink()
    (source / "images/11.png").unlink()
    message = refusal(cepdvs, source)
    assert "1 recordings missing: 7" in message and "1 images missing: 11" in message
    assert "--incomplete" in message
    cepdvs.main(arguments(source, "--incomplete"))
    with open_paired(source / "out.h5") as data:
        assert len(data.names) == COUNT - 2
        for index, identity in enumerate(data.event_identity):  # names, not positions
            assert data.recording(index)["x"][0] == int(data.names[identity].split("/")[1])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda s: (s / "events/07.mat").write_bytes(b""),
            "7.mat has the number 7 as well|07.mat has the number 7",
        ),
        (
            lambda s: (s / "events/seven.mat").write_bytes(b""),
            "seven.mat: expected a name like 0001.mat",
        ),
        (
            lambda s: (s / "list.csv").write_text("header\n0 a b c ../../etc d\n"),
            "list.csv, line 2: .*got '../../etc'",
        ),
        (
            lambda s: (s / "list.csv").write_text("header\n0 a\n"),
            "line 2: expected the fifth word .* got 2 words",
        ),
        (lambda s: (s / "list.csv").write_bytes(b"\xff\xfe\x00"), "list.csv: not a text"),
        (lambda s: (s / "list.csv").write_text("header\n"), "60 rows of the list missing"),
        (lambda s: (s / "list.csv").open("r+b").truncate(2**40), "expected a list of at most"),
        (lambda s: (s / "list.csv").unlink(), "No such file"),
        (
            lambda s: (s / "events/3.mat").write_bytes((s / "events/3.mat").read_bytes()[:-9]),
            "3.mat: ",
        ),
        (lambda s: (s / "images").rename(s / "elsewhere"), "images is not a folder"),
    ],
)
def test_broken_sources_end_in_one_message(cepdvs, source, spoil, message):
    spoil(source)
    assert re.search(message, refusal(cepdvs, source))


def test_a_recording_larger_than_the_sensor_is_named(cepdvs, source):
    assert re.search(r"\d+.mat: event 0 of 1: x = \d+, expected a column in 0 ... 9",
                     refusal(cepdvs, source, "--sensor-size", "20", "10"))
