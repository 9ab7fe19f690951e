"""Runs: what is logged, that they repeat and resume to the bit, what they refuse."""

import dataclasses
import json
import shutil
import time

import h5py
import numpy as np
import pytest
from autograd import grad
from conftest import peak_memory, relative_error
from scipy import stats

from ckd_ref.run import comparison as experiment
from ckd_ref.data import glyphs, hdf5
from ckd_ref import training
from ckd_ref.__main__ import main
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError
from ckd_ref.losses import ckd_loss, tet_loss
from ckd_ref.models import update_state
from ckd_ref.nn.optim import init_moments
from ckd_ref.run.checkpoint import Run, load_checkpoint, save_checkpoint
from ckd_ref.config import METHODS, Config
from ckd_ref.teacher import train_teacher
from ckd_ref.run.logits import check_logits, load_logits, save_logits
from ckd_ref.run.process_group import ALONE
from ckd_ref.training import Batch, train

SMALL = dict(width=0.0625, T=2, size=16, epochs=4, batches=2, batch=5, padding=1)
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return glyphs.build(tmp_path_factory.mktemp("data") / "g.h5", teacher=2, static=3, events=2, test=2, size=16,
                        progress=False)


@pytest.fixture
def data(path):
    with open_paired(path) as data:
        yield data


@pytest.fixture
def logits(data):
    return np.random.default_rng(0).normal(size=(len(data.image_label), len(data.classes))).astype(np.float32)


def fit(data, logits, method="ckd", folder=None, **changes):
    return train(data, Config(method=method, **SMALL | changes), folder, logits, progress=False)


def assert_same_bits(a, b):
    for left, right in ((a.params, b.params), (a.state, b.state)):
        assert all(left[name].tobytes() == right[name].tobytes() for name in left)
    assert all(x.tobytes() == y.tobytes() for name in a.moments for x, y in zip(a.moments[name], b.moments[name]))
    assert a.history == b.history


# What a run does

@pytest.mark.parametrize("method", METHODS)
def test_all_numbers_stay_float32(data, logits, method):
    run = fit(data, logits, method, epochs=1)
    arrays = [*run.params.values(), *run.state.values(), *(m for pair in run.moments.values() for m in pair)]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_log_has_every_part_of_the_loss(data, logits, tmp_path):
    fit(data, logits, folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert {"rate", "replacement", "gamma", "theta", "loss", "cls_s", "da", "kd", "cls_e", "accuracy_static",
            "accuracy_train", "accuracy_test"} <= set(rows[0])


def test_eq11_logged_parts_add_up_to_the_logged_loss(data, logits):
    for row in fit(data, logits, alpha=0.7, beta=0.3, slope=0.5).history:
        total = 0.7 * row["cls_s"] + 0.3 * row["da"] + row["gamma"] * row["kd"] + row["cls_e"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)


def test_eq07_the_baseline_has_no_distillation_and_half_the_alignment(data, logits):
    for row in fit(data, logits, "transfer").history:
        assert "kd" not in row
        assert row["loss"] == pytest.approx(row["cls_s"] + 0.5 * row["da"] + row["cls_e"], rel=1e-5)


def test_eq10_distillation_ends_in_the_middle_by_default(data, logits):
    assert [round(row["gamma"], 6) for row in fit(data, logits).history] == [1, 1, 0, 0]


def test_eq10_a_weight_of_zero_makes_ckd_the_baseline(data, logits):
    off = fit(data, logits, "ckd", beta=0.5, threshold=-1000.0)
    baseline = fit(data, logits, "transfer")
    assert all(off.params[name].tobytes() == baseline.params[name].tobytes() for name in off.params)


def test_eq08_replacement_grows_over_the_run(data, logits):
    rows = fit(data, logits).history                    # the last batch of each of 4 epochs of 2: (1, 3, 5, 7) / 8
    assert [row["replacement"] for row in rows] == [(k / 8) ** 3 for k in (1, 3, 5, 7)]


def test_events_alone_ignore_images_and_theta(data, logits):
    run = fit(data, None, "snn")
    assert set(run.history[0]) & {"cls_s", "da", "kd"} == set()
    assert np.array_equal(run.params["theta"], np.ones(2))


def test_all_methods_see_the_same_recordings(data, logits, monkeypatch):
    seen = {method: [] for method in METHODS}
    step = training.train_step
    for method in METHODS:
        monkeypatch.setattr(training, "train_step", lambda net, run, batch, *rest, method=method: (
            seen[method].append(batch.events), step(net, run, batch, *rest))[1])
        fit(data, logits, method, epochs=1)
    for other in ("transfer", "ckd"):
        assert all(np.array_equal(a, b) for a, b in zip(seen["snn"], seen[other], strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_can_be_learnt_by_heart(method, rng):
    config = Config(method=method, **SMALL)
    net = config.model(3)
    params, state = net.init(rng)
    run = Run(params, state, init_moments(params), rng)
    frames = (rng.random((2, 6, 16, 16, 2)) < 0.3).astype(np.float32)
    labels = np.arange(6) % 3
    batch = Batch(frames[:, ::-1], frames, labels, 5 * np.eye(3, dtype=np.float32)[labels])
    losses = [training.train_step(net, run, batch, config, 1e-2, 1.0, step)["cls_e"] for step in range(1, 41)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_streams_taken_back_one_by_one_have_the_gradient_of_the_whole(method, reading, rng):
    """The whole: one function from the parameters through both streams to the loss."""
    config = Config(method=method, reading=reading, **SMALL)
    net = config.model(3)
    params, _ = net.init(rng, np.float64)
    params["theta"] += rng.normal(size=2)
    static, events = rng.random((2, 2, 6, 16, 16, 2))
    labels, logits = np.arange(6) % 3, rng.normal(size=(6, 3)) if method == "ckd" else None

    def loss(params):
        event_logits, features_d, _ = net.apply(params, events, "event")
        if method == "snn":
            return tet_loss(event_logits, labels)
        static_logits, features_s, _ = net.apply(params, static, "static")
        return ckd_loss(static_logits, event_logits, features_s, features_d, labels, params["theta"], logits, 0.7,
                        config.alpha, config.alignment, reading=reading)[0]
    streams = [("static", static), ("event", events)][method == "snn":]
    passes, row, slope = training.gradients(ALONE, net, streams, params, labels, logits, config, 0.7)
    assert len(passes) == len(streams) and row["loss"] == pytest.approx(loss(params), rel=1e-12)
    for name, whole in grad(loss)(params).items():
        own = slope if name == "theta" else sum(each[name] for each, _ in passes)
        assert relative_error(own, whole) < 1e-10, name


def test_first_step_goes_down_by_the_rate_and_the_static_statistics_come_first(rng):
    """AdamW's first step is the rate times the sign of the gradient."""
    config = Config(method="transfer", **SMALL)
    net = config.model(3)
    params, state = net.init(rng)
    run, frames = Run(params, state, init_moments(params), rng), rng.random((2, 2, 6, 16, 16, 2)).astype(np.float32)
    batch = Batch(frames[0], frames[1] ** 2, np.arange(6) % 3)
    streams = [("static", batch.static), ("event", batch.events)]
    passes, _, slope = training.gradients(ALONE, net, streams, params, batch.labels, None, config, 1.0)
    training.train_step(net, run, batch, config, 1e-2, 1.0, 1)
    (static, of_static), (events, of_events) = passes
    for name, g in (("theta", slope), ("conv0/scale", static["conv0/scale"] + events["conv0/scale"])):
        assert run.params[name] == pytest.approx(params[name] - 1e-2 * np.sign(g), abs=1e-5) and g.all()
    after = update_state(update_state(state, of_static), of_events)
    assert all((run.state[name] == after[name]).all() for name in state)
    assert any((update_state(update_state(state, of_events), of_static)[name] != after[name]).any() for name in state)


# Repeat and resume

def test_same_seed_same_bits(data, logits):
    assert_same_bits(fit(data, logits), fit(data, logits))


def test_another_seed_is_another_run(data, logits):
    a, b = fit(data, logits, epochs=1), fit(data, logits, epochs=1, seed=1)
    assert not np.array_equal(a.params["event/w"], b.params["event/w"])


@pytest.mark.parametrize("method", METHODS)
def test_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(data, logits, method, tmp_path, monkeypatch):
    whole = fit(data, logits, method, tmp_path / "whole")
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return classify(*args)

    classify = training.classify
    monkeypatch.setattr(training, "classify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(data, logits, method, tmp_path / "halves")
    assert load_checkpoint(tmp_path / "halves" / "checkpoint.h5")[0].epoch == 2
    monkeypatch.setattr(training, "classify", classify)
    assert_same_bits(fit(data, logits, method, tmp_path / "halves"), whole)
    for name in ("checkpoint.h5", "checkpoint.previous.h5", "log.jsonl"):
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "halves").iterdir()) == [
        "checkpoint.h5", "checkpoint.previous.h5", "log.jsonl", "times.jsonl"]


def test_a_finished_run_is_not_trained_again(data, logits, tmp_path):
    assert_same_bits(fit(data, logits, folder=tmp_path), fit(data, logits, folder=tmp_path))


def test_checkpoint_of_another_configuration_is_refused(data, logits, tmp_path):
    fit(data, logits, folder=tmp_path, epochs=1)
    with pytest.raises(FormatError, match="another rate"):
        fit(data, logits, folder=tmp_path, epochs=1, rate=1e-3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small run as a file, its configuration and its classes."""
    path, config, classes = tmp_path_factory.mktemp("run") / "checkpoint.h5", Config(**SMALL), ("a", "Äther")
    params, state = config.model(2).init(np.random.default_rng(0))
    run = Run(params, state, init_moments(params), np.random.default_rng(1), 1, [{"epoch": 0, "loss": 0.5}])
    save_checkpoint(path, run, config, classes)
    return path, run, config, classes


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copy(checkpoint[0], tmp_path / "copy.h5")


def test_a_checkpoint_is_read_as_it_was_written(checkpoint):
    path, run, config, classes = checkpoint
    loaded, *rest = load_checkpoint(path)
    assert rest == [config, classes] and loaded.epoch == 1
    assert_same_bits(loaded, run)
    assert loaded.rng.random() == np.random.default_rng(1).random()


def test_everything_in_a_checkpoint_has_a_checksum(checkpoint):
    with h5py.File(checkpoint[0]) as file:
        assert not file.attrs
        checked = []
        file.visititems(lambda name, item: checked.append(item.fletcher32) if isinstance(item, h5py.Dataset) else None)
    assert len(checked) == 1 + 3 * len(checkpoint[1].params) + len(checkpoint[1].state) and all(checked)


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
    "text": (no_json, "damaged"), "deep": (deep_json, "damaged"),
    "no configuration": (header(config=None), "config"), "no digest": (header(digest=None), "digest"),
    "unknown option": (header(config={"colour": 1}), "colour"), "bad option": (header(config={"T": 0}), "T >= 1"),
    "option of another type": (header(config={"epochs": "many"}), "damaged"),
    "claim": (header(config=HUGE), "trainable numbers, more than the file holds"),
    "classes": (header(classes=[1, 2]), "expected class names"), "one class": (header(classes=["a"]), "2 classes"),
    "epochs": (header(epoch=7), "history of 7 epochs"), "generator": (header(rng={"state": 1}), "damaged"),
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


def test_other_files_are_no_checkpoints(copy, path, tmp_path):
    (tmp_path / "text.h5").write_text("not a checkpoint")
    content = copy.read_bytes()
    (tmp_path / "short.h5").write_bytes(content[:len(content) // 2])
    for other in (tmp_path / "text.h5", tmp_path / "short.h5", path):
        with pytest.raises(FormatError, match=other.name):
            load_checkpoint(other)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.h5")


def test_loading_a_checkpoint_takes_a_multiple_of_its_size(tmp_path):
    config = Config(**SMALL | {"width": 1.0})
    params, state = config.model(10).init(np.random.default_rng(0))
    save_checkpoint(tmp_path / "a.h5", Run(params, state, init_moments(params), np.random.default_rng(0)), config,
                    tuple("abcdefghij"))
    size = (tmp_path / "a.h5").stat().st_size
    assert size > 1.5e7 and peak_memory(lambda: load_checkpoint(tmp_path / "a.h5")) < 2.5 * size + 2**23


# What is refused

def test_a_loss_that_is_not_finite_stops_with_its_place(data, logits):
    with pytest.raises(FloatingPointError, match=r"epoch 0, batch 1: .*cls_e = (nan|inf).*lower learning rate"):
        with np.errstate(all="ignore"):
            fit(data, logits, rate=1e30, warmup=0)


@pytest.mark.parametrize("bad, match", [
    (dict(method="both"), "method"), (dict(network="huge"), "network"), (dict(reading="mine"), "reading"),
    (dict(T=0), "T >= 1"), (dict(batch=1), "batch >= 2"), (dict(epochs=0), "epochs"), (dict(rate=0.0), "rate > 0"),
    (dict(temperature=-1.0), "temperature > 0"),
])
def test_unusable_configurations_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        Config(**bad)


def test_ckd_needs_logits_for_every_image(data, logits):
    for bad in (None, logits[:-1], logits * np.nan):
        with pytest.raises(ValueError, match="one row per image"):
            fit(data, bad)


def test_logits_are_matched_by_class_name(data, logits, tmp_path):
    order = np.random.default_rng(1).permutation(len(data.classes))
    save_logits(tmp_path / "l.h5", logits[:, order], [data.classes[i] for i in order])
    assert np.array_equal(load_logits(tmp_path / "l.h5", data), logits)


def test_logits_of_other_classes_are_refused(data, logits, tmp_path):
    save_logits(tmp_path / "l.h5", logits, [*data.classes[:-1], "zebra"])
    with pytest.raises(FormatError, match="zebra"):
        load_logits(tmp_path / "l.h5", data)


@pytest.mark.parametrize("change, match", [
    (lambda values: values[:-1], "logits: expected the shape"), (lambda values: values.astype(int), "floating point"),
    (lambda values: values * np.nan, "finite teacher"), (lambda values: values * 1e300, "finite teacher")])
def test_unusable_logits_are_refused(data, logits, tmp_path, change, match):
    with np.errstate(over="ignore"):
        save_logits(tmp_path / "l.h5", change(logits.astype(np.float64)), data.classes)
    with pytest.raises(FormatError, match=f"l.h5: .*{match}"):
        load_logits(tmp_path / "l.h5", data)


def test_other_files_are_no_logits(data, logits, path, tmp_path):
    (tmp_path / "text.h5").write_text("no logits")
    with h5py.File(tmp_path / "plain.h5", "w", libver="v110") as file:
        file["logits"], file["classes"] = logits, [name.encode() for name in data.classes]
    for other, match in ((tmp_path / "text.h5", "HDF5"), (tmp_path / "plain.h5", "fletcher32"), (path, "logits")):
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
            writer.add_image(pixels, k % 2, k, "test" if k >= 40 else "teacher" if k >= 20 else "static")
        events = np.zeros(1, EVENT_DTYPE)
        for k in range(2):
            writer.add_recording(events, k, k, "train")
    with open_paired(tmp_path / "hue.h5") as data:
        logits, again = (train_teacher(data, epochs=3, batch=8, padding=1, progress=False) for _ in range(2))
        check_logits(logits, data)
        test = data.images_in("test")
        assert np.mean(logits[test].argmax(1) == data.image_label[test]) > 0.9
    assert logits.dtype == np.float32 and logits.tobytes() == again.tobytes()


# The command line

def test_evaluation_repeats_the_logged_accuracy(path, tmp_path, capsys):
    assert main(["train", str(path), "--method", "snn", "--out", str(tmp_path), *FLAGS]) == 0
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    assert main(["evaluate", str(path), str(tmp_path / "checkpoint.h5")]) == 0
    assert f"{row['accuracy_test']:.1%} of 24 test recordings" in capsys.readouterr().out


@pytest.mark.parametrize("argv, match", [
    (["train", "nowhere.h5"], "nowhere.h5"), (["evaluate", "{data}", "nowhere.h5"], "nowhere.h5"),
    (["train", "{data}", "--T", "0"], "T >= 1"), (["{data}x"], None),
])
def test_problems_end_in_one_line(path, tmp_path, capsys, argv, match):
    argv = [word.replace("{data}", str(path)) for word in argv]
    if match is None:
        with pytest.raises(SystemExit):
            main(argv)
        return
    out = ["--out", str(tmp_path / "out")] if argv[0] == "train" else []
    assert main(argv + out) == 2
    error = capsys.readouterr().err
    assert match in error and error.count("\n") == 1


# Statistics

def test_interval_is_that_of_students_t(rng):
    values = rng.normal(0.7, 0.1, 6).tolist()
    mean, half = experiment.interval(values)
    low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)


def test_one_seed_has_no_interval():
    assert np.isnan(experiment.interval([0.5])[1])


def test_config_of_every_flag_reaches_the_run(path, tmp_path):
    main(["train", str(path), "--out", str(tmp_path), "--method", "transfer", "--beta", "0.25", "--reading", "paper",
          "--per-step", *FLAGS, "--epochs", "1"])
    _, config, _ = load_checkpoint(tmp_path / "checkpoint.h5")
    expected = Config(method="transfer", beta=0.25, reading="paper", per_step=True, **SMALL | {"epochs": 1})
    assert dataclasses.asdict(config) == dataclasses.asdict(expected)
