"""The estimate of a training: its steps are counted, and timed ones are extrapolated."""

import dataclasses
import os
import re

import numpy as np
import pytest
from small import FLAGS, SMALL

from ckd_ref.__main__ import main
from ckd_ref.batches import BatchSampler
from ckd_ref.config import PRESETS, Config
from ckd_ref.data import paired
from ckd_ref.data.paired import open_paired
from ckd_ref.run import estimate as module
from ckd_ref.run.estimate import SHAPES, Measured, Shape
from ckd_ref.run.session import train

TINY = Shape(4, train=12, test=6, image_size=16)


def measured(**values):
    return Measured(**dict(step=1.0, read=0.0, classify=0.5, save=2.0, work=0.0) | values)


# Arithmetic


def test_the_pools_of_cepdvs_are_the_baselines():
    """5,000 recordings to train on and 2,000 to test, of 20 classes."""
    shape = SHAPES["paper-cepdvs"]
    assert (shape.K, shape.train, shape.test) == (20, 5000, 2000)


def test_steps_of_the_papers_training_are_counted_and_extrapolated():
    """8 pairs in 1.0 s and 16 in 1.8 s are 0.1 s per pair and 0.2 s: 12.2 s for 120."""
    config = Config(**PRESETS["paper-ncaltech101"])
    times = {8: measured(), 16: measured(step=1.8)}
    rows = module.student_rows(times, config, SHAPES["paper-ncaltech101"])
    assert rows == [
        ("recordings to read", 0, 0.0),                        # there are none
        ("training steps, 120 pairs each", 300 * 65, pytest.approx(12.2)),
        ("recordings to classify", 300 * 871, 0.5),
        ("checkpoints to save", 300, 2.0),
    ]
    table = module._table(rows, {"the student": 2.5e10}, times)
    in_all = (19500 * 12.2 + 261300 * 0.5 + 300 * 2) / 86400
    assert f"| in all | | | {in_all:.3g} days |" in table
    assert "| training steps, 120 pairs each | 19,500 | 12.2 s | 2.75 days |" in table
    assert "25.00 GB for the student" in table and "recordings to read" not in table


def test_memory_is_that_of_the_batch_and_of_the_data():
    """1 byte per pair and 1000; frames of 4 * 2 * 16^2 * 2 bytes, images of 4 * 16^2 * 3."""
    config = Config(**SMALL | {"batch": 120})
    frame, image, large = 4096, 3072, 10**6
    works = {8: measured(work=large + 8), 16: measured(work=large + 16)}
    held = (12 + 6) * frame + 12 * image
    assert module.student_memory(works, config, TINY) == held + large + 120
    fewer = dataclasses.replace(config, events_per_class=2, static_per_class=1)
    less = 4 * frame + 8 * image
    assert module.student_memory(works, fewer, TINY) == held - less + large + 120
    works = {8: measured(), 16: measured()}
    twice = held + 12 * frame
    assert module.student_memory(works, config, TINY) == twice, "while read, frames are held twice"


@pytest.mark.parametrize("values, batch, expected", [
    ({5: 3.0}, 5, 3.0), ({8: 1.0, 16: 2.0}, 16, 2.0), ({8: 1.0, 12: 2.0}, 12, 2.0),
    ({8: 1.0, 16: 2.0}, 120, 15.0), ({8: 2.0, 16: 1.0}, 120, 1.0),
])
def test_the_line_through_two_sizes_never_falls(values, batch, expected):
    assert module._at(batch, values) == expected


@pytest.mark.parametrize("seconds, text", [
    (0.0123, "12.3 ms"), (1.5, "1.5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"),
    (950_000, "11 days"),
])
def test_durations_are_readable(seconds, text):
    assert module._duration(seconds) == text


# Measurement


def test_the_first_step_is_not_timed(monkeypatch):
    """With a clock that only our doing advances: reading 20 s, drawing 100 s and then 3 s."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def takes(owner, name, costs):
        function = getattr(owner, name)

        def run(*args, **kwargs):
            now[0] += costs.pop(0) if len(costs) > 1 else costs[0]
            return function(*args, **kwargs)
        monkeypatch.setattr(owner, name, run)

    takes(Shape, "frames", [15, 5])
    takes(BatchSampler, "draw", [100, 3, 30, 3])
    takes(module.parallel, "classify", [12])
    takes(module, "save_checkpoint", [7])
    config = Config(method="snn", **SMALL)
    found = module.measure(TINY, config, None, processes=1)
    assert found.step == 3, "the median of three, without the first"
    assert found.read == 20 / (4 + 6), "one recording per class, and up to 8 of the test"
    assert found.classify == 12 / 6 and found.save == 7


def test_the_teachers_steps_are_those_of_its_training(glyph_file, glyph_data):
    """8 epochs over both pools in batches of 32; the steps that are timed are a few of them."""
    steps, seconds, peak = module.measure_teacher(glyph_file, Config())
    images = len(glyph_data.images_in("teacher")) + len(glyph_data.images_in("static"))
    assert steps == 8 * (images // 32) and seconds > 0
    assert np.isnan(peak) or peak > 1e7


@pytest.mark.parametrize("source, changes", [
    (TINY, {"method": "eventmix", "batch": 2, "epochs": 1, "batches": 1}),
    (TINY, {"teaching": "wrong", "flip": True, "per_step": True}),
    ("file", {"static_per_class": 3, "events_per_class": 2}),
])
def test_what_can_be_trained_can_be_estimated(source, changes, glyph_file, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 1)
    source = glyph_file if source == "file" else source
    assert module.measure(source, Config(**SMALL | changes), None, processes=1).step > 0


@pytest.mark.parametrize("changes", [{"size": 32}, {"events_per_class": 3}])
def test_what_cannot_be_trained_is_refused_alike(changes, glyph_file, glyph_data):
    config = Config(method="transfer", **SMALL | changes)
    with pytest.raises(ValueError) as expected:
        train(glyph_data, config, progress=False)
    with pytest.raises(ValueError) as came:
        module.estimate(glyph_file, config)
    assert str(came.value) == str(expected.value)


def test_a_killed_process_ends_in_one_line():
    with pytest.raises(ChildProcessError, match="perhaps for want of memory"):
        module._apart(os._exit, 1)


def test_the_command_prints_the_steps_of_a_small_run(glyph_file, capsys, monkeypatch):
    """4 epochs of 2 batches, and what belongs to them."""
    monkeypatch.setattr(module, "STEPS", 1)                    # processes are forked and see it
    assert main(["estimate", str(glyph_file), *FLAGS, "--teacher-epochs", "40"]) == 0
    shown = capsys.readouterr().out
    counts = dict(re.findall(r"^\| (.+?) \| ([\d,]+) \|", shown, re.M))
    with open_paired(glyph_file) as data:
        train_, test = (len(data.recordings_in(split)) for split in ("train", "test"))
    assert counts["training steps, 5 pairs each"] == str(4 * 2)
    assert counts["recordings to classify"] == str(4 * test)
    assert counts["recordings to read"] == str(train_ + test)
    assert counts["checkpoints to save"] == "4"
    assert counts["training steps of the teacher"] == "40", "60 images make one batch of 32"
    assert re.search(r"Memory: 0.\d\d GB for the teacher, 0.\d\d GB for the student", shown)
    assert "1 steps each of 5 pairs" in shown


# Reading


def test_frames_of_the_sensors_size_are_not_all_held(glyph_data, monkeypatch):
    """Each is resized before the next is counted: all recordings of N-Caltech101 are 27 GB."""
    calls = []
    for name in ("count_events", "resize_frames"):
        def noted(*args, name=name, function=getattr(paired, name)):
            calls.append(name)
            return function(*args)
        monkeypatch.setattr(paired, name, noted)
    frames = glyph_data.frames(np.arange(3), 2, 8)
    assert frames.shape == (2, 3, 8, 8, 2) and calls == ["count_events", "resize_frames"] * 3
