"""The paper in one file agrees with the package: frames, losses, gradients, schedules, training."""

import ast
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from autograd import grad

import ckd_ref
from ckd_ref.models import STAGES

PATH = pathlib.Path(__file__).parents[1] / "tutorials" / "ckd_in_one_file.py"
SOURCE = PATH.read_text(encoding="utf-8")
T, B, SIZE, CLASSES = 3, 6, 16, 4

CASES = [
    ("snn", "paper"), ("transfer", "paper"), ("transfer", "baseline"),
    ("ckd", "paper"), ("ckd", "baseline"),
]


def module(source=SOURCE):
    """The file, or a changed version of it, as a module."""
    result = importlib.util.module_from_spec(importlib.util.spec_from_loader("one", loader=None))
    exec(compile(source, str(PATH), "exec"), vars(result))
    return result


one = module()


def relative_error(result, reference):
    assert np.shape(result) == np.shape(reference)
    return np.max(np.abs(result - reference)) / max(np.max(np.abs(reference)), 1e-300)


# What it may be

def test_it_is_one_page_that_stands_alone():
    lines = SOURCE.splitlines()
    assert len(lines) <= 300 and max(map(len, lines)) <= 100
    imported = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0] if not node.level else "the package")
    assert imported - sys.stdlib_module_names <= {"numpy", "autograd", "h5py"}


def test_every_equation_is_in_the_margin():
    margins = re.findall(r"# Eqs?\. (\(.*)", SOURCE)
    assert {int(n) for margin in margins for n in re.findall(r"\d+", margin)} == set(range(1, 12))


# The same numbers as the package

@pytest.fixture(scope="module")
def batch():
    """Arguments of `student_loss`, all float64, with neurons that fire and some that do not."""
    rng = np.random.default_rng(0)
    net = ckd_ref.VGGSNN(CLASSES, T, STAGES["tiny"], 0.125, SIZE)
    params, _ = net.init(rng, np.float64)
    params["theta"] = rng.normal(size=T)
    for name in params:
        if name.endswith(("scale", "shift")):
            params[name] = params[name] + rng.normal(0, 0.2, params[name].shape)
    events = rng.poisson(0.5, (T, B, SIZE, SIZE, 2)).astype(float)
    static = ckd_ref.value_frames(rng.random((B, SIZE, SIZE, 3)), T)
    labels = rng.integers(CLASSES, size=B)
    return net, params, events, static, labels, rng.normal(0, 3, (B, CLASSES)), 0.7


def of_package(method, reading, batch):
    net, params, events, static, labels, teacher, gamma = batch

    def loss(params):
        event_logits, features_d, _ = net.apply(params, events, "event")
        if method == "snn":
            return ckd_ref.tet_loss(event_logits, labels)
        static_logits, features_s, _ = net.apply(params, static, "static")
        return ckd_ref.ckd_loss(
            static_logits, event_logits, features_s, features_d, labels, params["theta"],
            teacher if method == "ckd" else None, gamma, beta=1.0, reading=reading,
        )[0]

    return loss(params), grad(loss)(params)


def of_file(file, method, reading, batch):
    _, params, events, static, labels, teacher, gamma = batch
    arguments = events, static, labels, teacher if method == "ckd" else None, gamma, reading

    def loss(params):
        return file.student_loss(params, method, *arguments)[0]

    return loss(params), grad(loss)(params)


def error(file, method, reading, batch):
    """The largest relative error of the loss and all its gradients."""
    value, slopes = of_file(file, method, reading, batch)
    expected, expected_slopes = of_package(method, reading, batch)
    assert slopes.keys() == expected_slopes.keys()
    errors = [relative_error(slopes[name], expected_slopes[name]) for name in slopes]
    return max(relative_error(value, expected), *errors)


@pytest.mark.parametrize("method, reading", CASES)
def test_loss_and_gradients_are_the_packages(method, reading, batch):
    assert error(one, method, reading, batch) < 1e-10


@pytest.mark.parametrize("right, wrong", [
    ("features = u * (1 - getval(s)) ", "features = u "),
    ("return temperature**2 * mean(", "return mean("),
    ("s = getval(s) if detach_reset else s", "pass"),
    ("tau * u * (1 - s) + I", "tau * u + I"),
    ("da = da + mean(1 - sigmoid(theta)) * cls_e", "pass"),
    ("np.swapaxes(w[::-1, ::-1], 2, 3)", "np.swapaxes(w, 2, 3)"),
], ids=["features before the reset", "no temperature^2", "reset not detached", "no reset",
        "event loss once", "filter not turned"])
def test_wrong_versions_are_caught(right, wrong, batch):
    assert SOURCE.count(right) == 1
    assert error(module(SOURCE.replace(right, wrong)), "ckd", "paper", batch) > 1e-4


def test_constant_features_have_no_nan():
    flat = np.ones((T, B, 5), np.float32)
    other = np.random.default_rng(0).random((T, B, 5)).astype(np.float32)
    slope = grad(one.domain_alignment_loss)(flat, other, np.ones(T, np.float32))
    assert slope.dtype == np.float32 and not slope.any()


def events_of(rng, n, H, W):
    events = np.empty(n, ckd_ref.EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(1000, 1100, n))         # many at one time
    events["x"], events["y"] = rng.integers(W, size=n), rng.integers(H, size=n)
    events["p"] = rng.integers(2, size=n)
    return events


@pytest.mark.parametrize("n", [1, 5, 700])
@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("window", [None, (1020, 1081)])
def test_frames_are_the_packages(n, steps, window, rng):
    events = events_of(rng, n, 9, 12)
    frames = one.bin_events(events, steps, (9, 12), window)
    expected = ckd_ref.bin_events(events, steps, (9, 12), window)
    assert frames.dtype == expected.dtype and np.array_equal(frames, expected)
    resized = one.resize_frames(frames, 10)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, ckd_ref.resize_frames(expected, 10), atol=1e-6)


def test_static_frames_are_the_packages(rng):
    rgb = rng.random((2, 5, 5, 3)).astype(np.float32)
    assert np.array_equal(one.value_frames(rgb, 4), ckd_ref.value_frames(rgb, 4))


def test_schedules_are_the_packages():
    for epoch in range(32):
        arguments = 3, epoch, 12, 30
        expected = ckd_ref.replacement_probability(*arguments)
        assert one.replacement_probability(*arguments) == expected
        for slope in (0.001, 1, 100):
            expected = ckd_ref.phase_weight(epoch, 14.5, slope)
            assert one.phase_weight(epoch, 14.5, slope) == pytest.approx(expected, abs=1e-15)
        expected = ckd_ref.learning_rate(epoch, 30, 5e-3)
        assert one.learning_rate(epoch, 30, 5e-3) == pytest.approx(expected, rel=1e-12)


def test_optimiser_is_the_packages(rng):
    params = {"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)}
    moments, expected, expected_moments = {}, params, ckd_ref.init_moments(params)
    for step in (1, 2, 3):
        grads = {name: rng.normal(size=p.shape) for name, p in params.items()}
        params, moments = one.adamw(params, grads, moments, step, 1e-2)
        expected, expected_moments = ckd_ref.adamw(
            expected, grads, expected_moments, step, 1e-2
        )
    for name in params:
        assert relative_error(params[name], expected[name]) < 1e-12


# Training

@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A data file of two classes: the left or the right half is bright, or has the events."""
    path = tmp_path_factory.mktemp("one") / "halves.h5"
    rng = np.random.default_rng(1)
    H, W = 20, 24
    with ckd_ref.PairedWriter(path, ["left", "right"], (H, W), SIZE) as file:
        for identity in range(48):
            label = identity % 2
            split = ("teacher", "static", "test")[identity // 16]
            pixels = rng.integers(100, size=(SIZE, SIZE, 3)).astype(np.uint8)
            pixels[:, SIZE // 2 * label:SIZE // 2 * (label + 1)] += 150
            file.add_image(pixels, label, identity, split)
            if split != "teacher":
                events = events_of(rng, 400, H, W // 2)
                events["x"] += W // 2 * label
                split = "test" if split == "test" else "train"
                file.add_recording(events, label, identity, split)
    return path


def test_loader_reads_what_the_package_reads(path):
    loaded = one.load(path, T, SIZE)
    with ckd_ref.open_paired(path) as data:
        recordings, images = np.arange(len(data.event_label)), np.arange(len(data.image_label))
        frames = data.frames(recordings, T, SIZE)
        np.testing.assert_allclose(loaded["frames"], frames, atol=1e-6)
        np.testing.assert_allclose(loaded["images"], data.images(images), atol=1e-6)
        for split, number in (("train", 0), ("test", 1)):
            chosen = np.flatnonzero(loaded["events/split"] == number)
            assert np.array_equal(chosen, data.recordings_in(split))
        assert np.array_equal(loaded["images/label"], data.image_label)
    assert loaded["frames"].dtype == loaded["images"].dtype == np.float32


def test_script_trains_and_its_loss_goes_down(path):
    options = f"--method ckd --size {SIZE} --T {T} --epochs 6 --batches 4"
    # An older autograd imports from where NumPy no longer keeps it.
    strict = "-W", "error", "-W", "ignore::DeprecationWarning"
    command = [sys.executable, *strict, str(PATH), str(path), *options.split()]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}   # for small products
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = result.stdout.splitlines()
    losses = [float(re.search(r"cls_e (\S+)", row)[1]) for row in rows]
    assert len(rows) == 6 and losses[-1] < 0.6 * losses[0]
    assert "kd" in rows[0] and float(rows[-1].split()[-1]) > 0.8


@pytest.mark.parametrize("method, reading", CASES[::2])
def test_training_stays_float32(method, reading, path, monkeypatch, capsys):
    seen = []

    def adamw(params, grads, *arguments):
        seen.extend([*grads.values(), *params.values()])
        return one_adamw(params, grads, *arguments)

    one_adamw = one.adamw
    monkeypatch.setattr(one, "adamw", adamw)
    params = one.train(one.load(path, T, SIZE), method, reading, epochs=1, batches=2, batch=4)
    assert {array.dtype for array in [*seen, *params.values()]} == {np.dtype(np.float32)}
    assert ("kd" in capsys.readouterr().out) == (method == "ckd")
