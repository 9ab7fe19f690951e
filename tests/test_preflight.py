"""What is checked before any work: the bound on memory, and whether there is enough data."""

import dataclasses
import types

import numpy as np
import pytest
from conftest import peak_memory
from small import SMALL, fit

from ckd_ref.config import Config
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError
from ckd_ref.run import preflight
from ckd_ref.run.preflight import (
    check_fit,
    check_memory,
    check_run,
    least_memory,
    memory_limit,
)


def test_least_memory_is_what_is_held_counted_by_hand():
    """tiny, width 1/16: 4, 8, 16 and 32 channels; T 2, size 16, batch 5, padding 1; 3 classes."""
    config = Config(method="transfer", **SMALL)
    recording = 2 * 16 * 16 * 2                                # T, rows, columns, polarities
    image = 16 * 16 * 3
    filters = 9 * (2 * 4 + 4 * 8 + 8 * 16 + 16 * 32)
    trainable = filters + 2 * (4 + 8 + 16 + 32) + 2 * 3 * (32 + 1) + 2
    streams = 2 * 5 * 2 * 16 * 16 * (2 + 4)                    # frames, and the first convolution's
    held = 7 * recording + 4 * image + 4 * trainable + streams
    assert least_memory(config, 3, recordings=7, images=4) == 4 * held
    alone = dataclasses.replace(config, method="snn")
    assert least_memory(config, 3) - least_memory(alone, 3) == 4 * streams / 2
    wide = dataclasses.replace(config, padding=100)            # now the crop is larger
    crop = 5 * 2 * 216 * 216 * 2
    assert least_memory(wide, 3) - least_memory(config, 3) == 4 * (crop - streams)


def test_what_a_run_holds_is_counted(glyph_data):
    """Of 12 classes 3 images each, 2 recordings to train on and 2 to test, or what is asked for."""
    config = Config(method="transfer", **SMALL)
    assert check_fit(glyph_data, config) == (12 * (2 + 2), 12 * 3)
    fewer = dataclasses.replace(config, events_per_class=1, static_per_class=2)
    assert check_fit(glyph_data, fewer) == (12 * (1 + 2), 12 * 2)


def test_a_run_takes_at_least_that_much(glyph_data):
    """So that nothing is refused that would fit."""
    options = dict(epochs=1, batches=1, batch=12, width=0.5, T=4)
    config = Config(method="transfer", **SMALL | options)
    least = least_memory(config, 12, recordings=48, images=36)
    peak = peak_memory(lambda: fit(glyph_data, None, "transfer", **options))
    assert 10e6 < least <= peak


def test_more_memory_than_there_is_is_refused_and_less_is_not(monkeypatch):
    config = Config(**SMALL)
    needed = least_memory(config, 3)
    monkeypatch.setattr(preflight, "memory_limit", lambda: needed)
    check_memory(config, 3)
    monkeypatch.setattr(preflight, "memory_limit", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"memory, got one of at least 0.0 GB \(T 2, size 16, b"):
        check_memory(config, 3)


def test_the_limit_is_the_smallest_of_machine_container_and_shell(tmp_path, monkeypatch):
    machine = memory_limit()
    assert 0 < machine <= preflight.LARGEST
    monkeypatch.setattr(preflight, "CONTAINER", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_limit() >= machine, "a container without a limit"
    (tmp_path / "memory.max").write_text("4096\n")
    assert memory_limit() == 4096
    monkeypatch.setattr(preflight, "resource", None)           # as on Windows
    assert memory_limit() == 4096
    for allowed, limit in ((2048, 2048), (-1, 4096)):          # -1: as much as there is
        shell = types.SimpleNamespace(RLIMIT_AS=9, getrlimit={9: (allowed, -1)}.get)
        monkeypatch.setattr(preflight, "resource", shell)
        assert memory_limit() == limit


@pytest.mark.parametrize("recordings, images, changes, match", [
    ("train test", "static", dict(size=32), r"expected size 16, that of the images in .*x\.h5"),
    ("train", "static", {}, r"x\.h5: expected recordings to test, got none"),
    ("train test", "test", {}, "on one side only, the classes"),
    ("train test", "static", dict(static_per_class=2), "at least 2 samples of every class"),
    ("train test", "static", dict(events_per_class=2), "at least 2 samples of every class"),
    ("train test", "static", dict(T=10**9), "of memory"),
    ("train test", "static", dict(width=1e-3), "a channel in every layer"),
])
def test_data_that_do_not_do_for_a_run_are_refused(tmp_path, recordings, images, changes, match):
    events = np.zeros(1, EVENT_DTYPE)
    with PairedWriter(tmp_path / "x.h5", ("a", "b"), (16, 16), 16) as writer:
        for k in range(2):
            for i, split in enumerate(images.split()):
                writer.add_image(np.zeros((16, 16, 3), np.uint8), k, 10 * k + i, split)
            for i, split in enumerate(recordings.split(), 5):
                writer.add_recording(events, k, 10 * k + i, split)
    with open_paired(tmp_path / "x.h5") as data:
        with pytest.raises(ValueError, match=match) as error:
            check_run(data, Config(**SMALL | changes))
        assert isinstance(error.value, FormatError) == ("none" in match)
