"""Checkpoints: read as they were written, or refused."""

import dataclasses
import json
import shutil
import time

import h5py
import numpy as np
import pytest
from conftest import peak_memory
from small import SMALL, assert_same_bits

from ckd_ref.config import Config
from ckd_ref.data import hdf5
from ckd_ref.events import FormatError
from ckd_ref.nn import init_moments
from ckd_ref.run.checkpoint import load_checkpoint, save_checkpoint
from ckd_ref.training import TrainState


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small run as a file, its configuration and its classes."""
    path = tmp_path_factory.mktemp("run") / "checkpoint.h5"
    config, classes = Config(**SMALL), ("a", "Äther")
    params, state = config.model(2).init(np.random.default_rng(0))
    run = TrainState(
        params,
        state,
        init_moments(params),
        np.random.default_rng(1),
        1,
        history=[{"epoch": 0, "loss": 0.5}],
    )
    save_checkpoint(path, run, config, classes, {"data set": "digest"})
    return path, run, config, classes


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copy(checkpoint[0], tmp_path / "copy.h5")


def test_a_checkpoint_is_read_as_it_was_written(checkpoint):
    path, run, config, classes = checkpoint
    loaded, *rest = load_checkpoint(path)
    assert rest == [config, classes, {"data set": "digest"}] and loaded.epoch == 1
    assert_same_bits(loaded, run)
    assert loaded.rng.random() == np.random.default_rng(1).random()


def test_everything_in_a_checkpoint_has_a_checksum(checkpoint):
    with h5py.File(checkpoint[0]) as file:
        assert not file.attrs
        checked = []
        file.visititems(
            lambda name, item: (
                checked.append(item.fletcher32) if isinstance(item, h5py.Dataset) else None
            )
        )
    assert len(checked) == 1 + 3 * len(checkpoint[1].params) + len(checkpoint[1].state) and all(
        checked
    )


def header(**changes):
    """A change of the text in a checkpoint; None takes an entry out."""

    def spoil(file):
        text = json.loads(file["header"][()].tobytes()) | changes
        del file["header"]
        text = json.dumps({name: value for name, value in text.items() if value is not None})
        hdf5.write(file, "header", np.frombuffer(text.encode(), np.uint8))

    return spoil


def no_json(file):
    file["header"][0] = ord("[")


def deep_json(file):
    del file["header"]
    hdf5.write(file, "header", np.frombuffer(b"[" * 100_000, np.uint8))


def another_shape(file):
    del file["params/event/b"]
    hdf5.write(file, "params/event/b", np.zeros(3, np.float32))


def exchange(file):
    file.move("params/event/w", "params/other")
    file.move("params/static/w", "params/event/w")
    file.move("params/other", "params/static/w")


HUGE = dataclasses.asdict(Config(**SMALL | {"width": 1e4, "size": 2**20}))
BAD_CHECKPOINTS = {
    "array gone": (lambda file: file.pop("first/theta"), "first/theta: expected a data set"),
    "shape": (another_shape, r"params/event/b: expected the shape .*, got \(3,\)"),
    "exchange": (exchange, "not those of one run"),
    "text": (no_json, "damaged"),
    "deep": (deep_json, "damaged"),
    "no configuration": (header(config=None), "config"),
    "no digest": (header(digest=None), "digest"),
    "unknown option": (header(config={"colour": 1}), "colour"),
    "bad option": (header(config={"T": 0}), "T >= 1"),
    "option of another type": (header(config={"epochs": "many"}), "damaged"),
    "claim": (header(config=HUGE), "trainable numbers, more than the file holds"),
    "classes": (header(classes=[1, 2]), "expected class names"),
    "one class": (header(classes=["a"]), "2 classes"),
    "epochs": (header(epoch=7), "history of 7 epochs"),
    "generator": (header(rng={"state": 1}), "damaged"),
}


@pytest.mark.parametrize("spoil, match", BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_damaged_checkpoints_are_refused(copy, spoil, match):
    with h5py.File(copy, "r+", libver="v110") as file:
        spoil(file)
    start = time.perf_counter()
    with pytest.raises(FormatError, match=f"copy.h5: .*{match}"):
        load_checkpoint(copy)
    assert time.perf_counter() - start < 1
    assert peak_memory(lambda: pytest.raises(FormatError, load_checkpoint, copy)) < 2**24


def test_other_files_are_no_checkpoints(copy, glyph_file, tmp_path):
    (tmp_path / "text.h5").write_text("not a checkpoint")
    content = copy.read_bytes()
    (tmp_path / "short.h5").write_bytes(content[: len(content) // 2])
    for other in (tmp_path / "text.h5", tmp_path / "short.h5", glyph_file):
        with pytest.raises(FormatError, match=other.name):
            load_checkpoint(other)
    with pytest.raises(FormatError, match="checkpoint of a run, got another kind of file$"):
        load_checkpoint(glyph_file)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.h5")


def test_loading_a_checkpoint_takes_a_multiple_of_its_size(tmp_path):
    config = Config(**SMALL | {"width": 1.0})
    params, state = config.model(10).init(np.random.default_rng(0))
    save_checkpoint(
        tmp_path / "a.h5",
        TrainState(params, state, init_moments(params), np.random.default_rng(0)),
        config,
        tuple("abcdefghij"),
    )
    size = (tmp_path / "a.h5").stat().st_size
    assert (
        size > 1.5e7
        and peak_memory(lambda: load_checkpoint(tmp_path / "a.h5")) < 2.5 * size + 2**23
    )
