"""Teachers: the small one learns; logits as files are matched by name or refused."""

import h5py
import numpy as np
import pytest

from ckd_ref.config import Config
from ckd_ref.data import glyphs
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError
from ckd_ref.run.logits import check_logits, load_logits, save_logits
from ckd_ref.run.session import train
from ckd_ref.teacher import train_teacher

SMALL = dict(width=0.0625, T=2, size=16, epochs=4, batches=2, batch=5, padding=1)
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    sizes = dict(teacher=2, static=3, events=2, test=2, size=16)
    return glyphs.build(folder / "g.h5", **sizes, progress=False)


@pytest.fixture
def data(path):
    with open_paired(path) as data:
        yield data


@pytest.fixture
def logits(data):
    shape = len(data.image_label), len(data.classes)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def fit(data, logits, method="ckd", folder=None, **changes):
    config = Config(method=method, **SMALL | changes)
    return train(data, config, folder, logits, progress=False)


def test_logits_are_matched_by_class_name(data, logits, tmp_path):
    order = np.random.default_rng(1).permutation(len(data.classes))
    save_logits(tmp_path / "l.h5", logits[:, order], [data.classes[i] for i in order])
    assert np.array_equal(load_logits(tmp_path / "l.h5", data), logits)


def test_logits_of_other_classes_are_refused(data, logits, tmp_path):
    save_logits(tmp_path / "l.h5", logits, [*data.classes[:-1], "zebra"])
    with pytest.raises(FormatError, match="zebra"):
        load_logits(tmp_path / "l.h5", data)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda values: values[:-1], "logits: expected the shape"),
        (lambda values: values.astype(int), "floating point"),
        (lambda values: values * np.nan, "finite teacher"),
        (lambda values: values * 1e300, "finite teacher"),
    ],
)
def test_unusable_logits_are_refused(data, logits, tmp_path, change, match):
    with np.errstate(over="ignore"):
        save_logits(tmp_path / "l.h5", change(logits.astype(np.float64)), data.classes)
    with pytest.raises(FormatError, match=f"l.h5: .*{match}"):
        load_logits(tmp_path / "l.h5", data)


def test_other_files_are_no_logits(data, logits, path, tmp_path):
    (tmp_path / "text.h5").write_text("no logits")
    with h5py.File(tmp_path / "plain.h5", "w", libver="v110") as file:
        file["logits"], file["classes"] = logits, [name.encode() for name in data.classes]
    for other, match in (
        (tmp_path / "text.h5", "HDF5"),
        (tmp_path / "plain.h5", "fletcher32"),
        (path, "logits"),
    ):
        with pytest.raises(FormatError, match=f"{other.name}: .*{match}"):
            load_logits(other, data)
    with pytest.raises(FileNotFoundError):
        load_logits(tmp_path / "none.h5", data)


# The teacher


def test_teacher_learns_what_colours_show(tmp_path, rng):
    """Two classes told apart by hue alone: an ordinary network on HSV images finds it."""
    with PairedWriter(tmp_path / "hue.h5", ("red", "blue"), (16, 16), 16) as writer:
        for k in range(60):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[..., 0 if k % 2 == 0 else 2] = rng.integers(100, 255, (16, 16))
            writer.add_image(
                pixels, k % 2, k, "test" if k >= 40 else "teacher" if k >= 20 else "static"
            )
        events = np.zeros(1, EVENT_DTYPE)
        for k in range(2):
            writer.add_recording(events, k, k, "train")
    with open_paired(tmp_path / "hue.h5") as data:
        logits, again = (train_teacher(data, epochs=3, batch=8, padding=1) for _ in range(2))
        check_logits(logits, data)
        test = data.images_in("test")
        assert np.mean(logits[test].argmax(1) == data.image_label[test]) > 0.9
    assert logits.dtype == np.float32 and logits.tobytes() == again.tobytes()
