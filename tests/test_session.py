"""Runs: what is logged, that they repeat and resume bit-identically, what they refuse."""

import ctypes
import dataclasses
import functools
import pathlib

import numpy as np
import pytest
from small import SMALL, assert_same_bits, fit

from ckd_ref import training
from ckd_ref.__main__ import main
from ckd_ref.config import Config
from ckd_ref.events import FormatError
from ckd_ref.models import SpikingResNet18
from ckd_ref.run import session
from ckd_ref.run.checkpoint import load_checkpoint
from ckd_ref.run.session import train

# Repeat and resume


def test_same_seed_same_bits(glyph_data, random_logits):
    assert_same_bits(fit(glyph_data, random_logits), fit(glyph_data, random_logits))


def test_another_seed_is_another_run(glyph_data, random_logits):
    a, b = (
        fit(glyph_data, random_logits, epochs=1),
        fit(glyph_data, random_logits, epochs=1, seed=1),
    )
    assert not np.array_equal(a.params["event/w"], b.params["event/w"])


@pytest.mark.parametrize("method", ["snn", "transfer", "ckd"])
def test_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    glyph_data, random_logits, method, tmp_path, monkeypatch
):
    whole = fit(glyph_data, random_logits, method, tmp_path / "whole")
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return training.classify(*args)

    epochs = functools.partial(training.epochs, classify=interrupted)
    monkeypatch.setattr(session, "epochs", epochs)
    with pytest.raises(KeyboardInterrupt):
        fit(glyph_data, random_logits, method, tmp_path / "halves")
    assert load_checkpoint(tmp_path / "halves" / "checkpoint.h5")[0].epoch == 2
    monkeypatch.undo()
    assert_same_bits(fit(glyph_data, random_logits, method, tmp_path / "halves"), whole)
    for name in ("checkpoint.h5", "checkpoint.previous.h5", "log.jsonl"):
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "halves").iterdir()) == [
        "checkpoint.h5",
        "checkpoint.previous.h5",
        "log.jsonl",
        "times.jsonl",
    ]


def test_the_residual_student_is_trained_resumed_and_evaluated(
    glyph_file, glyph_data, random_logits, tmp_path, capsys
):
    """Stopped before its second epoch; the classes are those of the last epoch."""
    options = dict(network="tiny_resnet", epochs=2, batches=1)
    whole = fit(glyph_data, random_logits, "ckd", tmp_path / "whole", **options)
    config, answers = Config(method="ckd", **SMALL | options), iter([False, True])
    with pytest.raises(KeyboardInterrupt, match="epoch 1 before batch 0"):
        train(
            glyph_data, config, tmp_path / "halves", random_logits, progress=False,
            stop=lambda: next(answers),
        )
    halves = fit(glyph_data, random_logits, "ckd", tmp_path / "halves", **options)
    assert_same_bits(halves, whole)
    path = tmp_path / "halves" / "checkpoint.h5"
    assert isinstance(load_checkpoint(path).config.model(10), SpikingResNet18)
    assert main(["evaluate", str(glyph_file), str(path)]) == 0
    accuracy = whole.history[-1]["accuracy_test"]
    assert f"{accuracy:.1%} of " in capsys.readouterr().out, "another accuracy is evaluated"


def test_a_finished_run_is_not_trained_again(glyph_data, random_logits, tmp_path):
    assert_same_bits(
        fit(glyph_data, random_logits, folder=tmp_path),
        fit(glyph_data, random_logits, folder=tmp_path),
    )


def test_checkpoint_of_another_configuration_is_refused(glyph_data, random_logits, tmp_path):
    """Options that differ are shown with both values."""
    fit(glyph_data, random_logits, folder=tmp_path, epochs=1)
    with pytest.raises(FormatError, match=r"a run with rate 0.005 \(now 0.001\), another teacher;"):
        fit(glyph_data, random_logits + 1, folder=tmp_path, epochs=1, rate=1e-3)


# What is refused


def test_a_loss_that_is_not_finite_stops_with_its_place(glyph_data, random_logits):
    with pytest.raises(
        FloatingPointError, match=r"epoch 0, batch 1: .*cls_e = (nan|inf).*lower learning rate"
    ):
        with np.errstate(all="ignore"):
            fit(glyph_data, random_logits, rate=1e30, warmup=0)


@pytest.mark.parametrize(
    "bad, match",
    [
        (dict(method="both"), "method"),
        (dict(network="huge"), "network"),
        (dict(reading="mine"), "reading"),
        (dict(T=0), "T >= 1"),
        (dict(batch=1), "batch >= 2"),
        (dict(epochs=0), "epochs"),
        (dict(rate=0.0), "rate > 0"),
        (dict(temperature=-1.0), "temperature > 0"),
        (dict(method="etc", T=1), "T >= 2 for etc, which compares time steps, got 1"),
    ],
)
def test_unusable_configurations_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        Config(**bad)


@pytest.mark.parametrize("data, config, came", [
    ("mine.h5", Config(), "got str and Config; call it as with open_paired"),
    (pathlib.Path("mine.h5"), Config(), r"got \w+Path and Config"),
    (np.zeros((2, 3)), Config(), "got ndarray and Config"),
    (None, {"epochs": 5}, "got NoneType and dict"),
])
def test_training_says_what_it_wants(data, config, came, tmp_path):
    with pytest.raises(ValueError, match=f"^expected an open data set and a Config, {came}"):
        train(data, config, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "a folder was made for nothing"


WRONG = {
    bool: (1, "yes", None), int: ("5", 5.0, True, np.int64(5)), str: (3, True, b"ckd"),
    float: ("0.5", False, np.float32(0.5), float("nan"), float("inf"), -float("inf"), 10**400, 1j),
}


@pytest.mark.parametrize("field", dataclasses.fields(Config), ids=lambda field: field.name)
def test_a_setting_of_another_type_is_refused_by_its_name(field):
    """At once: later it would end in a traceback, or in a number that nobody asked for."""
    for came in WRONG[field.type] + (() if field.default is None else (None,)):
        with pytest.raises(ValueError, match=f"^expected {field.name} to be .*, got .* of type "):
            Config(**{field.name: came})
    assert Config(**{field.name: field.default}) == Config()


def test_whole_numbers_are_numbers_for_a_setting():
    assert Config(width=1, threshold=3).width == 1


def test_ckd_needs_logits_for_every_image(glyph_data, random_logits):
    for bad in (None, random_logits[:-1], random_logits * np.nan):
        with pytest.raises(ValueError, match="one row per image"):
            fit(glyph_data, bad)


CHOSEN = dict(
    method="ckd",
    network="tiny_resnet",
    beta=0.25,
    reading="baseline",
    per_step=True,
    tau=0.4,
    v_th=0.8,
    flip=True,
    rotation=12.0,
    surrogate="atan",
    surrogate_width=0.7,
    detach_reset=False,
    distillation="dkd",
    kd_weight=0.5,
    kd_per_step=True,
    temperature=2.0,
    slope=0.5,
    alpha=0.9,
)


def test_config_of_every_flag_reaches_the_run(glyph_file, tmp_path):
    """Whatever the equations can do, the command line can."""
    options = CHOSEN | SMALL | {"epochs": 1}
    argv = ["train", str(glyph_file), "--out", str(tmp_path)]
    for name, value in options.items():
        option = name.replace("_", "-")
        if value is False:
            argv.append(f"--no-{option}")
        else:
            argv += [f"--{option}"] if value is True else [f"--{option}", str(value)]
    assert main(argv) == 0
    config = load_checkpoint(tmp_path / "checkpoint.h5").config
    assert dataclasses.asdict(config) == dataclasses.asdict(Config(**options))


@pytest.fixture(scope="module")
def plain_runs():
    """Parameters of runs without further options, by their number of epochs."""
    return {}


@pytest.mark.parametrize("name", sorted(set(CHOSEN) - {"method", "network"}))
def test_every_option_changes_the_run(glyph_data, random_logits, plain_runs, name):
    """None is read and then forgotten."""
    options = {"epochs": 2, "slope": 0.1} | {name: CHOSEN[name]}
    if name == "detach_reset":
        options["epochs"] = 3
    epochs = options["epochs"]
    if epochs not in plain_runs:
        plain_runs[epochs] = fit(glyph_data, random_logits, epochs=epochs, slope=0.1).params
    plain, other = plain_runs[epochs], fit(glyph_data, random_logits, **options).params
    assert any((plain[key] != other[key]).any() for key in plain), name


def test_training_leaves_the_process_of_the_caller_as_it_was(glyph_data, random_logits):
    """Threads are set in worker processes and by the command line only."""
    library = ctypes.CDLL(np._core._multiarray_umath.__file__)
    threads = getattr(library, "scipy_openblas_get_num_threads64_", None)
    if threads is None:
        pytest.skip("another BLAS than OpenBLAS")
    library.scipy_openblas_set_num_threads64_(2)
    try:
        fit(glyph_data, random_logits, epochs=1)
        assert threads() == 2, "train() must not change the number of BLAS threads"
    finally:
        library.scipy_openblas_set_num_threads64_(1)
