"""The command line: problems end in one line with code 2, before any work; hints; progress."""

import functools
import json
import os

import numpy as np
import pytest
from small import FLAGS, SMALL
from tqdm import tqdm

from ckd_ref import __main__, __version__
from ckd_ref.__main__ import main
from ckd_ref.config import Config
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.run import plots, progress
from ckd_ref.run.checkpoint import load_checkpoint, save_checkpoint
from ckd_ref.run.teachers import save_logits, save_teacher
from ckd_ref.teacher import TrainedTeacher, untrained_teacher
from ckd_ref.training import TrainState

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture(scope="module")
def files(glyph_file, tmp_path_factory):
    """Paths of one file of each kind, by name, and of some that are none."""
    folder = tmp_path_factory.mktemp("files")
    names = "checkpoint", "unfinished", "teacher", "logits"
    paths = {name: folder / f"{name}.h5" for name in names}
    with open_paired(glyph_file) as data:
        config = Config(method="snn", **SMALL)
        run = TrainState.start(config.model(12), 0)
        save_checkpoint(paths["checkpoint"], run, config, data.classes)
        net, start = untrained_teacher(data)
        save_checkpoint(paths["unfinished"], start, Config(), data.classes)
        save_teacher(
            paths["teacher"], TrainedTeacher(net, start.params, start.state), data.classes
        )
        logits = np.zeros((len(data.image_label), 12), np.float32)
        save_logits(paths["logits"], logits, data.classes)
    (folder / "text.txt").write_text("no data")
    return paths | {"data": glyph_file, "text": folder / "text.txt", "folder": folder,
                    "none": folder / "none.h5", "out": folder / "out"}


@pytest.fixture
def refused(files, capsys):
    """A function that runs a command, which must end in one line with code 2, and returns it.

    Words in braces are names of `files`."""

    def run(words):
        try:
            code = main([word.format(**files) for word in words.split()])
        except SystemExit as stopped:
            code = stopped.code
        error = capsys.readouterr().err
        assert code == 2 and error.startswith("ckd_ref: ") and error.count("\n") == 1, error
        assert not files["out"].exists(), "refused before anything is written"
        return error

    return run


def test_evaluation_repeats_the_logged_accuracy(glyph_file, tmp_path, capsys):
    assert main(["train", str(glyph_file), "--method", "snn", "--out", str(tmp_path), *FLAGS]) == 0
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    assert main(["evaluate", str(glyph_file), str(tmp_path / "checkpoint.h5")]) == 0
    assert f"{row['accuracy_test']:.1%} of 24 test recordings" in capsys.readouterr().out


# Files


@pytest.mark.parametrize("words, told", [
    ("train {none}", "there is no file {none}; the first argument is to be a data file"),
    ("train digits", "embedded sets are for compare"),
    ("evaluate {none} {checkpoint}", "the first argument is to be a data file"),
    ("evaluate {data} {none}", "the second argument is to be a checkpoint"),
    ("evaluate {checkpoint} {data}", "the first argument is a checkpoint: {checkpoint}; expected"),
    ("evaluate {data} {data}", "the second argument is a data file: {data}; expected a checkpoint"),
    ("evaluate {data} {logits}", "the second argument is the logits of a teacher"),
    ("evaluate {data} {unfinished}", "the second argument is the unfinished training of a teacher"),
    ("evaluate {data} {text}", "the second argument does not begin as an HDF5 file does: {text}"),
    ("train {data} --out {out} --teacher {text}", "teacher_logits.py makes one of an array"),
    ("evaluate {folder} {checkpoint}", "the first argument is a folder: {folder}"),
    ("evaluate {data} {folder}", "expected a checkpoint, perhaps {checkpoint}"),
    ("evaluate {folder}", "arguments are required: CHECKPOINT.h5"),
    ("compare {none}", "the first argument is to be a data file"),
    ("compare {teacher} --out {out}", "the first argument is a teacher: {teacher}"),
    ("info {logits}", "the first argument is the logits of a teacher"),
    ("info {data} --out {none}/x.png", "expected the picture in a folder that exists"),
    ("tsne {none} {folder}", "the first argument is to be a data file"),
    ("tsne {data} {out}", "there is no file {out}/checkpoint.h5"),
    ("sweep {data} --out {out}", "expected the specification of a sweep"),
    ("sweep {none}", "the first argument is to be the specification of a sweep"),
    ("report {none}", "the first argument is no folder"),
    ("train {data} --out {out} --teacher {none}", "--teacher is to be a teacher or the logits"),
    ("train {data} --out {out} --teacher {checkpoint}", "--teacher is a checkpoint"),
])
def test_a_file_that_is_missing_or_of_another_kind_is_named_with_its_role(
    files, refused, words, told
):
    error = refused(words)
    assert told.format(**files) in error
    assert "again" not in error, "nothing is wrong with the files that are there"


@pytest.mark.parametrize("out", ["{text}", "{text}/deeper"])
@pytest.mark.parametrize("words", ["train {data}", "compare", "sweep {text}"])
def test_an_output_folder_that_is_a_file_is_refused(files, refused, words, out):
    assert f"expected a folder, but {files['text']} is a file" in refused(f"{words} --out {out}")


def test_an_output_folder_that_cannot_be_written_is_refused(files, refused, monkeypatch):
    """Asked of the nearest folder that is there."""
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    error = refused("train {data} --out {out}/a/b")
    assert f"nothing can be written in the folder {files['folder']}" in error
    assert asked == [(files["folder"], os.W_OK | os.X_OK)]


FORGED = "ant\x1b[2J\nckd_ref: done"
"""A name that would clear the screen and write a line of its own."""


@pytest.mark.skipif(os.name != "posix", reason="names of files cannot have such characters")
def test_names_in_errors_cannot_command_the_terminal(tmp_path, capsys):
    """Neither those of files nor, where a checkpoint was trained on others, of classes."""
    folder = tmp_path / FORGED
    folder.mkdir()
    with PairedWriter(folder / "a.h5", (FORGED, "bee"), (4, 4), 4) as writer:
        writer.add_image(np.zeros((4, 4, 3), np.uint8), 0, 0, "static")
    config = Config(**SMALL)
    run = TrainState.start(config.model(2), 0)
    save_checkpoint(tmp_path / "run.h5", run, config, ("ant", "bee"))
    for argv in (
        ["evaluate", folder / "a.h5", tmp_path / "run.h5"], ["info", folder / "none.h5"],
        ["info", folder / "a.h5", "--out", folder / "a.txt"], ["train", folder / "none.h5"],
    ):
        assert main(list(map(str, argv))) == 2
        line = capsys.readouterr().err.removesuffix("\n")
        assert line.isprintable() and line.startswith("ckd_ref: "), f"{argv[0]}: {line!r}"
        assert "ckd_ref: done" in line, f"{argv[0]} does not tell the name"


# Options


@pytest.mark.parametrize("words, told", [
    ("evalute {data}", "no command 'evalute'; did you mean evaluate?"),
    ("{data}", "did you mean compare {data}?"),
    ("mine.h5 --seeds 2", "did you mean compare mine.h5?"),
    ("symbols", "did you mean compare symbols?"),
    ("train {data} --lr 0.1", "unknown argument --lr; did you mean --rate?"),
    ("train {data} --batch-size=3", "did you mean --batch?"),
    ("train {data} --learning_rate 0.1", "did you mean --rate?"),
    ("train {data} --out=", "expected a folder, got an empty name"),
    ("--metods snn", "did you mean --methods?"),
    ("train {data} {data}", "unknown argument {data}; see python -m ckd_ref train --help"),
    ("train {data} --T 3.5", "argument --T: invalid int value: '3.5'"),
])
def test_near_misses_get_a_hint(files, refused, words, told):
    assert told.format(**files) in refused(words)


@pytest.mark.parametrize("words, told", [
    ("train {data} --alpha nan", "expected alpha to be a finite number"),
    ("train {data} --width inf", "expected width to be a finite number"),
    ("train {data} --T 0", "T >= 1"),
    ("train {data} --method snn --teacher {logits}", "--teacher is for ckd"),
    ("train {data} --method snn --teacher-epochs 2", "--teacher-epochs is for ckd"),
    ("train {data} --teacher-epochs 0", "expected a whole number >= 1, got 0"),
    ("train {data} --teacher-epochs 2 --teacher {logits}", "leave --teacher out"),
    ("compare {data} --methods snn,transfer --teacher {logits}", "--teacher is for ckd"),
    ("train {data} --method tks --temperature 2", "--temperature is for ckd, got tks; leave it"),
    ("compare {data} --methods snn,etc --alpha 2", "--alpha is for transfer, ckd, got etc, snn"),
    ("train {data} --method etc --lam 0", "--lam is for snn, nda, eventmix, transfer, ckd, got"),
    ("compare {data} --methods published --beta 2", "--beta is set by the runs themselves"),
    ("compare {data} --methods events,published --beta 9", "--beta is set by the runs"),
    ("compare --methods ,", "expected variants among"),
    ("compare --methods=", "expected variants among"),
    ("train {data} --teacher=", "--teacher is a folder"),
    ("compare --seeds 1000000000", "expected 1 ... 10000 seeds"),
    ("compare --methods snn,tsk", "expected variants among"),
])
def test_options_that_cannot_be_meant_are_refused_at_once(refused, words, told):
    assert told in refused(words + " --out {out}")


@pytest.mark.parametrize("command", ["train", "compare"])
def test_another_size_than_that_of_the_images_is_refused_before_a_teacher_is_trained(
    files, refused, command
):
    """48, the default of `Config`, among others: frames are compared with images."""
    error = refused(f"{command} {{data}} --size 48 --out {{out}}")
    assert f"expected size 16, that of the images in {files['data']}, got 48" in error


@pytest.mark.parametrize("words", [
    "train {data} --width 1e9", "train {data} --T 1000000000", "train {data} --batch 1000000000",
    "train {data} --padding 1000000000", "compare {data} --T 1000000000", "compare --T 1000000000",
    "compare --size 1000000", "compare --width 1e300", f"compare --padding {10**30}",
])
def test_what_no_machine_can_hold_is_refused_with_the_number(refused, words):
    error = refused(words + " --out {out}")
    assert "of memory, got one of at least" in error and " GB (" in error


def test_a_number_that_is_too_large_even_for_that_is_refused(refused):
    assert "a number is too large" in refused("compare --width 1e308 --out {out}")


@pytest.mark.parametrize("error, told", [
    (MemoryError("Unable to allocate 8 GiB"), r"not enough memory (Unable to allocate 8 GiB); a s"),
    (MemoryError(), "not enough memory; a smaller batch"),
    (OverflowError("too big"), "a number is too large (too big)"),
    (PermissionError(13, "Permission denied", "x.h5"), "ckd_ref: x.h5: Permission denied\n"),
    (ImportError("needs dask"), "ckd_ref: needs dask\n"),
])
def test_the_last_resort_is_a_line(refused, monkeypatch, error, told):
    def fail(path):
        raise error

    monkeypatch.setattr(__main__, "open_paired", fail)
    assert told in refused("train {data}")


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"ckd_ref {__version__}\n"


# Progress


def test_without_a_terminal_every_epoch_has_a_line_and_quiet_is_quiet(
    glyph_file, tmp_path, capsys, monkeypatch
):
    """Six batches in an epoch make no lines. The size is that of the images by default."""
    monkeypatch.setattr(plots, "learning_curves", lambda *_: None)
    flags = [word for name, value in SMALL.items() if name != "size"
             for word in (f"--{name}", str(value))]
    argv = ["train", str(glyph_file), "--method", "snn", *flags, "--processes", "1"]
    argv += ["--epochs", "2", "--batches", "6", "--out", str(tmp_path)]
    assert main(argv) == 0
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert capsys.readouterr().err.splitlines() == [
        f"snn: epoch {row['epoch'] + 1} of 2, loss {row['loss']:.3f}, "
        f"test accuracy {row['accuracy_test']:.1%}" for row in rows
    ]
    assert load_checkpoint(tmp_path / "checkpoint.h5").config.size == 16
    argv[argv.index("--epochs") + 1] = "1"
    assert main([*argv, "--out", str(tmp_path / "quiet"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_switches_of_tqdm_are_respected(monkeypatch, capsys, terminal):
    """``TQDM_DISABLE=1`` is another default for an argument: what is passed would override it."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setattr(progress, "tqdm", functools.partial(tqdm, disable=True))
    with progress.Progress("ckd", 2) as bar:
        bar.step(loss=1.0)
        bar.note("epoch 1")
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.Progress("ckd", 2, initial=1) as bar:
        bar.step(loss=np.float32(0.5))
        bar.note("epoch 1")
    error = capsys.readouterr().err
    assert "ckd: 100%" in error and "2/2" in error and "\n" not in error.strip()
    assert "epoch 1" not in error, "no line beside a bar"


def test_a_step_counts_as_many_as_it_is_told(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.Progress("parts", 8, unit="sample") as bar:
        bar.step(3)
        bar.step(5)
    assert "8/8" in capsys.readouterr().err
