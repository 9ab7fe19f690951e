"""The N-MNIST converter, on files written here and on real recordings."""

import gzip
import re
import struct

import numpy as np
import pytest

from ckd_ref.data.paired import open_paired


@pytest.fixture(scope="module")
def nmnist(converter):
    return converter("nmnist")


@pytest.fixture
def source(tmp_path):
    """6 images of each digit; recording k has one event at (x, y) = (k % 34, k // 34)."""
    images = np.zeros((60, 28, 28), np.uint8)
    images[np.arange(60), :, np.arange(60) % 28] = 200
    labels = (np.arange(60) % 10).astype(np.uint8)
    folder = tmp_path / "events"
    folder.mkdir()
    for k in range(1, 61):
        (folder / f"{k:05d}.{'bin' if k % 2 else 'bs2'}").write_bytes(
            bytes([k % 34, k // 34, 0x80, 0, k])
        )
    (tmp_path / "images").write_bytes(struct.pack(">4I", 0x803, 60, 28, 28) + images.tobytes())
    (tmp_path / "labels").write_bytes(
        gzip.compress(struct.pack(">2I", 0x801, 60) + labels.tobytes())
    )
    return tmp_path


def arguments(source, *more):
    return (
        [str(source / name) for name in ("events", "images", "labels", "out.h5")]
        + "--events-per-class 1 --images-per-class 2 --test-per-class 3 --workers 1".split()
        + list(more)
    )


def refusal(nmnist, source, capsys, *more):
    with pytest.raises(SystemExit) as stopped:
        nmnist.main(arguments(source, *more))
    assert not list(source.glob(".*"))
    return f"{stopped.value} {capsys.readouterr().err}"


def test_counts_pools_and_pairing(nmnist, source):
    nmnist.main(arguments(source))
    with open_paired(source / "out.h5") as data:
        assert data.classes == tuple("0123456789") and data.sensor_size == (34, 34)
        assert data.image_size == 48
        for pool, per_class in (("teacher", 1), ("static", 2), ("test", 3)):
            assert np.bincount(data.image_label[data.images_in(pool)]).tolist() == [per_class] * 10
        for pool, per_class in (("train", 1), ("test", 3)):
            assert (
                np.bincount(data.event_label[data.recordings_in(pool)]).tolist() == [per_class] * 10
            )
        for r, identity in enumerate(data.event_identity):
            assert data.recording(r)["t"][0] == identity + 1  # number k filmed image k - 1
            assert data.event_label[r] == identity % 10
        train = set(data.event_identity[data.recordings_in("train")])
        test = set(data.event_identity[data.recordings_in("test")])
        assert train <= set(data.image_identity[data.images_in("static")])
        assert test == set(data.image_identity[data.images_in("test")])
        assert sorted(data.image_identity) == list(range(60))  # every image in exactly one pool


def test_split_depends_on_seed_only_and_test_images_stay(nmnist, source):
    def test_images(*more):
        nmnist.main(arguments(source, "--overwrite", *more))
        with open_paired(source / "out.h5") as data:
            return data.image_identity[data.images_in("test")].tolist()
    first = test_images()
    assert test_images() == first
    assert test_images("--images-per-class", "3", "--events-per-class", "2") == first
    assert test_images("--seed", "1") != first


def test_digit_is_centred_on_the_sensor(nmnist):
    digit = np.full((28, 28), 90, np.uint8)
    picture = nmnist.to_rgb(digit, 34)
    assert picture.shape == (34, 34, 3) and picture.dtype == np.uint8
    assert (picture[3:31, 3:31] == 90).all() and picture.sum() == 90 * 28 * 28 * 3


def test_folders_per_class_are_read_and_must_agree_with_the_labels(nmnist, source, capsys):
    for path in sorted((source / "events").iterdir()):
        folder = source / "events" / str((int(path.stem) - 1) % 10)
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    nmnist.main(arguments(source))
    (source / "events/3/00004.bs2").rename(source / "events/5/00004.bs2")
    assert "image 4 has the label 3, not 5" in refusal(nmnist, source, capsys, "--overwrite")


def test_missing_recordings_are_listed(nmnist, source, capsys):
    for k in range(1, 21):
        next((source / "events").glob(f"{k:05d}.*")).unlink()
    message = refusal(nmnist, source, capsys, "--test-per-class", "4")
    assert "of 50 recordings are missing" in message and "00001" in message and "more" in message
    assert not (source / "out.h5").exists()


@pytest.mark.parametrize("more, message", [
    (("--test-per-class", "5"), "class 0: expected at least 7 images .5 test, 2 static., got 6"),
    (("--events-per-class", "3"), "expected --events-per-class <= --images-per-class"),
    (("--test-per-class", "0"), "at least 1"),
])
def test_counts_that_cannot_be_met(nmnist, source, capsys, more, message):
    assert re.search(message, refusal(nmnist, source, capsys, *more))


def test_existing_output_is_kept_unless_told(nmnist, source, capsys):
    (source / "out.h5").write_text("precious")
    assert "--overwrite" in refusal(nmnist, source, capsys)
    assert (source / "out.h5").read_text() == "precious"
    nmnist.main(arguments(source, "--overwrite"))
    open_paired(source / "out.h5").close()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda s: (s / "labels").write_bytes(struct.pack(">2I", 0x801, 59) + bytes(59)),
            "one label for each of 60",
        ),
        (
            lambda s: (s / "labels").write_bytes(struct.pack(">2I", 0x801, 60) + bytes([10] * 60)),
            "label 0 is 10",
        ),
        (lambda s: (s / "images").write_bytes(b"nothing"), "first bytes 00 00 08"),
        (lambda s: (s / "labels").write_bytes((s / "images").read_bytes()), "one label for each"),
        (lambda s: (s / "images").write_bytes((s / "labels").read_bytes()), r"expected images"),
        (lambda s: (s / "events/00061.bin").write_bytes(b"12345"), "no image 61 among 60"),
        (lambda s: (s / "events/00001.bs2").write_bytes(b"12345"), "recording 1 as well"),
        (lambda s: [p.write_bytes(b"1234") for p in (s / "events").iterdir()], "cut off"),
        (lambda s: (s / "labels").unlink(), "No such file"),
        (lambda s: (s / "events").rename(s / "elsewhere"), "is not a folder"),
    ],
)
def test_broken_sources_end_in_one_message(nmnist, source, capsys, spoil, message):
    spoil(source)
    assert message in refusal(nmnist, source, capsys)
    assert not (source / "out.h5").exists()


def test_real_recordings_show_their_own_digits(nmnist, shared, tmp_path):
    """The event counts of a recording resemble its own image more than the next one's."""
    folder = shared / "data/nmnist"
    nmnist.main(
        [
            str(folder / "events"), str(folder / "images-idx3-ubyte.gz"),
            str(folder / "labels-idx1-ubyte.gz"), str(tmp_path / "out.h5"),
            "--events-per-class", "1", "--images-per-class", "2", "--test-per-class", "4",
            "--size", "34", "--workers", "1",
        ]
    )
    with open_paired(tmp_path / "out.h5") as data:
        test = data.recordings_in("test")
        counts = data.frames(test, 1, 34).sum((0, 4)).clip(0, 15)
        where = {identity: i for i, identity in enumerate(data.image_identity)}
        images = data.images([where[identity] for identity in data.event_identity[test]])[..., 0]
    alike = np.corrcoef(counts.reshape(40, -1), images.reshape(40, -1))[:40, 40:]
    own, other = np.diag(alike), np.diag(np.roll(alike, 1, axis=1))
    assert own.mean() > 0.6 and (own > other).mean() > 0.9
    shifted = np.roll(images, 3, axis=2)
    assert (
        np.diag(np.corrcoef(counts.reshape(40, -1), shifted.reshape(40, -1))[:40, 40:]).mean()
        < own.mean()
    )
