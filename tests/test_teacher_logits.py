"""Logits of other classifiers: a new last layer, logits from files, what is refused."""

import importlib.util
import pathlib
import pickle
import re
import sys

import numpy as np
import pytest
from scipy.special import softmax

from ckd_ref.__main__ import main
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE
from ckd_ref.run.teachers import load_logits

SCRIPT = pathlib.Path(__file__).parents[1] / "data_tools" / "teacher_logits.py"
CLASSES = ("ant", "bee", "cat")
POOLS = ["teacher", "static", "static", "test"] * 15  # of 60 images, 20 of each class
FLAGS = "--width 0.0625 --T 2 --size 16 --epochs 1 --batches 2 --batch 3 --padding 1".split()


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("teacher_logits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, classes=CLASSES, pools=POOLS):
    """Noisy pictures; the mean of one colour shows the class."""
    rng = np.random.default_rng(3)
    events = np.zeros(1, EVENT_DTYPE)
    with PairedWriter(path, classes, (16, 16), 16) as writer:
        for i, pool in enumerate(pools):
            pixels = rng.integers(0, 200, (16, 16, 3)).astype(np.uint8)
            pixels[..., i % 3] += 20
            writer.add_image(pixels, i % 3, i, pool)
            if pool != "teacher":
                writer.add_recording(events, i % 3, i, "train" if pool == "static" else "test")
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "data.h5")


def refusal(script, capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        script.main(list(map(str, argv)))
    return f"{stopped.value} {capsys.readouterr().err}"


def stand_in(images):
    """Features (B, 12) in place of a network's: mean colours of the quarters."""
    assert images.dtype == np.float32 and images.shape[1:] == (16, 16, 3)
    assert 0 <= images.min() <= images.max() <= 1
    return images.reshape(-1, 2, 8, 2, 8, 3).mean((2, 4)).reshape(-1, 12)


# Logits from a file

def test_logits_of_numpy_train_a_student(script, path, tmp_path, rng, capsys):
    logits = rng.normal(size=(60, 3))
    np.save(tmp_path / "l.npy", logits)
    script.main([str(path), str(tmp_path / "l.h5"), "--logits-npy", str(tmp_path / "l.npy")])
    with open_paired(path) as data:
        assert np.array_equal(load_logits(tmp_path / "l.h5", data), logits.astype(np.float32))
        right = (logits.argmax(-1) == data.image_label)[data.images_in("test")].mean()
        assert f"{right:.1%} of 15 test" in capsys.readouterr().out
    assert main(["train", str(path), "--method", "ckd", "--teacher", str(tmp_path / "l.h5"),
                 "--out", str(tmp_path / "run"), *FLAGS]) == 0
    assert not (tmp_path / "run/teacher.h5").exists()                   # none was trained instead


def test_columns_are_matched_by_name(script, path, tmp_path, rng):
    logits, order = rng.normal(size=(60, 3)).astype(np.float32), [2, 0, 1]
    np.save(tmp_path / "l.npy", logits[:, order])
    (tmp_path / "names.txt").write_text("".join(f"{CLASSES[k]}\n" for k in order))
    script.main([str(path), str(tmp_path / "l.h5"), "--logits-npy", str(tmp_path / "l.npy"),
                 "--classes", str(tmp_path / "names.txt")])
    with open_paired(path) as data:
        assert np.array_equal(load_logits(tmp_path / "l.h5", data), logits)


class Trap:
    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path("unpickled"),)


def claim(path):
    """A header that claims nine million rows more than the file has."""
    np.save(path, np.zeros((60, 3)))
    path.write_bytes(
        path.read_bytes().replace(b"(60, 3), ", b"(9000060, 3), ").replace(b" " * 5 + b"\n", b"\n")
    )


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda p: np.save(p, np.zeros((59, 3))),
            r"expected floats \(60, 3\).*got float64 \(59, 3\)",
        ),
        (lambda p: np.save(p, np.zeros((60, 1000))), r"got float64 \(60, 1000\)"),
        (lambda p: np.save(p, np.zeros((60, 3), int)), "got int64"),
        (lambda p: np.save(p, np.zeros((60, 3), complex)), "got complex128"),
        (
            lambda p: np.save(p, np.full((60, 3), np.nan)),
            "expected finite logits, got nan in row 0, column 0",
        ),
        (lambda p: np.save(p, np.full((60, 3), 1e300)), r"got 1e\+300 in row 0, column 0"),
        (lambda p: np.save(p, np.array([[Trap()] * 3] * 60), allow_pickle=True), "numpy.save"),
        (lambda p: p.write_bytes(pickle.dumps(Trap())), "numpy.save"),
        (lambda p: np.savez(p.open("wb"), a=np.zeros((60, 3))), "several arrays"),
        (lambda p: p.write_bytes(b""), "numpy.save"),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\xff\xff("), "numpy.save"),
        (claim, "numpy.save"),
        (lambda p: None, "No such file"),
    ],
)
def test_bad_logits_are_refused_and_nothing_is_unpickled(
    script, path, tmp_path, capsys, monkeypatch, spoil, message
):
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path / "l.npy")
    error = refusal(script, capsys, path, tmp_path / "l.h5", "--logits-npy", tmp_path / "l.npy")
    assert re.search(message, error) and error.strip().count("\n") == 0
    assert not (tmp_path / "l.h5").exists() and not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "names, message",
    [
        (b"ant\nbee\ndog\n", r"\['cat', 'dog'\]"),
        (b"ant\nbee\n", "got 2 lines"),
        (b"ant\nbee\ncat\ncat\n", "got 4 lines"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_other_class_names_are_refused(script, path, tmp_path, capsys, names, message):
    np.save(tmp_path / "l.npy", np.zeros((60, 3)))
    (tmp_path / "names.txt").write_bytes(names)
    error = refusal(script, capsys, path, tmp_path / "l.h5", "--logits-npy", tmp_path / "l.npy",
                    "--classes", tmp_path / "names.txt")
    assert re.search(message, error) and not (tmp_path / "l.h5").exists()


# The new last layer

def test_head_on_frozen_features(script, path, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(script, "frozen", lambda *names: asked.append(names) or stand_in)
    script.main([str(path), str(tmp_path / "l.h5")])
    assert asked == [("wide_resnet101_2", "DEFAULT")]
    with open_paired(path) as data:
        logits = load_logits(tmp_path / "l.h5", data)
        assert (logits.argmax(-1) == data.image_label)[data.images_in("test")].mean() > 0.9
    assert "of 15 teacher" in capsys.readouterr().out


def test_head_is_the_minimum_of_its_loss(script, path):
    """Its weights, recovered from features and logits, have zero gradient; others do not."""
    with open_paired(path) as data:
        features = script.apply(stand_in, data)
        train = np.flatnonzero(data.image_split != 2)
        x = features - features[train].mean(0, dtype=float)
        x /= np.sqrt(np.mean([row @ row for row in x[train]]))
        for decay, factor in ((1e-3, 1), (1e-3, 1.05), (1e-1, 1)):
            logits = script.linear_head(features, data, decay)
            w = np.linalg.lstsq(np.column_stack([x, np.ones(60)]), logits, rcond=None)[0]
            gradient = np.zeros((12, 3))
            for i in train:
                for k in range(3):
                    gradient[:, k] += (
                        (softmax(logits[i])[k] - (data.image_label[i] == k)) * x[i] / len(train)
                    )
            assert (np.abs(gradient + factor * decay * w[:-1]).max() < 1e-4) == (factor == 1)


def test_head_never_sees_a_test_image(script, path):
    with open_paired(path) as data:
        features, test = script.apply(stand_in, data), data.images_in("test")
        before = script.linear_head(features, data)
        features[test[0]] *= -7
        data.image_label[test] = 0
        after = script.linear_head(features, data)
    others = np.arange(60) != test[0]
    assert np.array_equal(before[others], after[others])


def test_constant_features_give_the_share_of_the_classes(script, path):
    with open_paired(path) as data:
        logits = script.linear_head(np.ones((60, 4), np.float32), data)
        share = np.bincount(data.image_label[data.image_split != 2]) / 45
    assert softmax(logits, axis=-1) == pytest.approx(np.tile(share, (60, 1)), abs=1e-3)


def test_a_class_without_training_images_is_named(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "frozen", lambda *_: stand_in)
    path = write(tmp_path / "a.h5", pools=["test" if i % 3 == 1 else "static" for i in range(12)])
    assert "got none of bee" in refusal(script, capsys, path, tmp_path / "l.h5")


def test_batches_keep_the_order_of_the_file(script, path):
    sizes = []
    with open_paired(path) as data:
        applied = script.apply(
            lambda images: sizes.append(len(images)) or stand_in(images), data, batch=25
        )
        assert sizes == [25, 25, 10] and np.array_equal(applied, stand_in(data.images(range(60))))


# Networks

def test_fine_tuned_network_gives_its_logits(script, path, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        script, "fine_tuned", lambda *names: asked.append(names) or (lambda x: stand_in(x)[:, :3])
    )
    script.main(
        [str(path), str(tmp_path / "l.h5"), "--network", "resnet18", "--fine-tuned", "state.pt"]
    )
    assert asked == [("resnet18", "DEFAULT", pathlib.Path("state.pt"), 3)]
    with open_paired(path) as data:
        assert np.array_equal(
            load_logits(tmp_path / "l.h5", data), stand_in(data.images(range(60)))[:, :3]
        )


@pytest.mark.parametrize("more", [(), ("--fine-tuned", "state.pt")])
def test_without_torchvision_the_message_says_what_to_do(
    script, path, tmp_path, capsys, monkeypatch, more
):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    error = refusal(script, capsys, path, tmp_path / "l.h5", *more)
    assert "pip install torch torchvision" in error and "--logits-npy" in error
    assert error.strip().count("\n") == 0


# Files and arguments

def test_existing_output_is_kept_unless_told(script, path, tmp_path, capsys):
    np.save(tmp_path / "l.npy", np.zeros((60, 3)))
    (tmp_path / "l.h5").write_text("precious")
    argv = [path, tmp_path / "l.h5", "--logits-npy", tmp_path / "l.npy"]
    assert "--overwrite" in refusal(script, capsys, *argv)
    assert (tmp_path / "l.h5").read_text() == "precious"
    script.main([*map(str, argv), "--overwrite"])
    with open_paired(path) as data:
        assert not load_logits(tmp_path / "l.h5", data).any()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--classes", "n.txt"], "give one of these"),
        (["--fine-tuned", "a", "--logits-npy", "b"], "not allowed with"),
    ],
)
def test_options_that_do_not_go_together(script, path, capsys, more, message):
    assert message in refusal(script, capsys, path, "l.h5", *more)
