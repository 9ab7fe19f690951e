"""Runs survive kills, full disks, Ctrl-C, damage, a second process; same seed, same bytes."""

import contextlib
import functools
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import kill
import numpy as np
import pytest

from ckd_ref import training
from ckd_ref.__main__ import main
from ckd_ref.config import Config
from ckd_ref.data import glyphs
from ckd_ref.data.files import locked
from ckd_ref.data.paired import open_paired
from ckd_ref.events import FormatError
from ckd_ref.run import session
from ckd_ref.run.checkpoint import load_checkpoint, load_latest
from ckd_ref.run.session import train
from ckd_ref.run.sweep import LADDER
from ckd_ref.run.teachers import save_logits

resource = pytest.importorskip("resource", reason="needs POSIX: limits, signals, fork")

SMALL = dict(width=0.0625, T=2, size=16, epochs=3, batches=4, batch=4, padding=1)
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
SHORT = ["--teacher-epochs", "1"]
SAME = ("checkpoint.h5", "checkpoint.previous.h5", "log.jsonl")


def build(path, seed=0):
    return glyphs.build(path, seed, teacher=0, static=2, events=1, test=1, size=16, progress=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return build(tmp_path_factory.mktemp("data") / "g.h5")


@pytest.fixture
def data(path):
    with open_paired(path) as data:
        yield data


def fit(data, folder, method="snn", logits=None, stop=None, **changes):
    return train(
        data, Config(method=method, **SMALL | changes), folder, logits, progress=False, stop=stop
    )


def contents(folder, names=SAME):
    return {name: (folder / name).read_bytes() for name in names}


def command(*argv, **options):
    """The program in a process of its own, with one BLAS thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "ckd_ref", *map(str, argv)],
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
        cwd=pathlib.Path(training.__file__).parents[1],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
        **options,
    )


def finish(process):
    """Exit code and last line of stderr."""
    _, error = process.communicate(timeout=300)
    return process.returncode, error.strip().rsplit("\n", 1)[-1]


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(path, tmp_path_factory):
    """The folder of an uninterrupted run in a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    assert finish(command("train", path, "--out", folder, *FLAGS, *SHORT))[0] == 0
    return folder


# Kills


def test_killed_runs_resume_to_the_same_bits(data, tmp_path, rng):
    """The short form of ``python tests/kill.py``."""
    assert len(list(kill.kill_training(data, tmp_path, 1, rng))) == 1


def test_a_killed_converter_resumes_to_the_same_bytes(tmp_path, rng):
    """By SIGKILL and by SIGTERM; the long form kills each converter, and its workers."""
    assert len(list(kill.kill_converter("nmnist", tmp_path, 2, rng, workers=[1]))) == 2


def test_a_kill_between_the_renames_loses_one_save(data, tmp_path):
    fit(data, tmp_path)
    end = contents(tmp_path)
    (tmp_path / "checkpoint.h5").rename(tmp_path / ".checkpoint.h5.tmp")
    assert load_latest(tmp_path / "checkpoint.h5")[0].epoch == SMALL["epochs"] - 1
    fit(data, tmp_path)
    assert contents(tmp_path) == end and not (tmp_path / ".checkpoint.h5.tmp").exists()


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(data, tmp_path):
    fit(data, tmp_path)
    end = contents(tmp_path)
    for damaged in (end["checkpoint.h5"][:5000], b"", b"not a checkpoint"):
        (tmp_path / "checkpoint.h5").write_bytes(damaged)
        with pytest.warns(
            UserWarning, match="checkpoint.h5: .* resumes from checkpoint.previous.h5"
        ):
            fit(data, tmp_path)
        assert contents(tmp_path) == end  # the good one was not replaced by the damaged one
        assert (tmp_path / "checkpoint.damaged.h5").read_bytes() == damaged
    for name in SAME[:2]:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        FormatError, match="checkpoint"
    ):  # never from the beginning without being asked to
        fit(data, tmp_path)


def test_a_log_that_a_kill_left_behind_is_completed(data, tmp_path):
    fit(data, tmp_path)
    log = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(log[: log.index(b"\n") + 1])
    fit(data, tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_times_of_another_kind_are_refused_in_one_line(path, data, tmp_path, capsys):
    fit(data, tmp_path, epochs=1)
    times = (tmp_path / "times.jsonl").read_text()
    for line in ("{}", '{"epoch": "a", "seconds": 1}', "[" * 10**5, "x", "1"):
        (tmp_path / "times.jsonl").write_text(times + line)
        with pytest.raises(FormatError, match="times.jsonl, line 2: expected .*; delete the file$"):
            session.seconds_of(tmp_path)
    flags = [*FLAGS, "--method", "snn", "--epochs", "1"]
    assert main(["train", str(path), "--out", str(tmp_path), *flags]) == 2
    assert "times.jsonl, line 2: expected a JSON object, got b'1'" in capsys.readouterr().err
    assert load_checkpoint(tmp_path / "checkpoint.h5").run.epoch == 1


# Ctrl-C


@pytest.fixture(scope="module")
def transfer(path, tmp_path_factory):
    """The folder of an uninterrupted run with two streams."""
    folder = tmp_path_factory.mktemp("transfer")
    with open_paired(path) as data:
        fit(data, folder, "transfer")
    return folder


@pytest.mark.parametrize("batches", [0, 1, 4, 6])
def test_a_stop_saves_in_the_middle_of_an_epoch(data, tmp_path, transfer, batches):
    asked = iter([False] * batches + [True])
    with pytest.raises(KeyboardInterrupt, match=f"epoch {batches // 4} before batch {batches % 4}"):
        fit(data, tmp_path / "part", "transfer", stop=lambda: next(asked))
    run = load_checkpoint(tmp_path / "part" / "checkpoint.h5").run
    assert (run.epoch, len(run.rows)) == divmod(batches, 4)
    fit(data, tmp_path / "part", "transfer")
    for name in ("checkpoint.h5", "log.jsonl"):
        assert (tmp_path / "part" / name).read_bytes() == (transfer / name).read_bytes()


def test_a_checkpoint_without_the_batches_of_its_epoch_would_show(data, tmp_path, monkeypatch):
    fit(data, tmp_path / "whole")
    asked = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        fit(data, tmp_path / "part", stop=lambda: next(asked))
    loaded = load_latest(tmp_path / "part" / "checkpoint.h5")
    loaded[0].rows.clear()
    monkeypatch.setattr(session, "load_latest", lambda path, net: loaded)
    fit(data, tmp_path / "part")
    assert contents(tmp_path / "part") != contents(tmp_path / "whole")


def test_ctrl_c_saves_and_says_how_to_resume(path, tmp_path, whole):
    """In the end every byte is that of an uninterrupted run in another process."""
    argv = "train", path, "--out", tmp_path, *FLAGS, *SHORT
    process = command(*argv)
    wait_for(tmp_path / "log.jsonl", process)
    process.send_signal(signal.SIGINT)
    code, message = finish(process)
    assert code == 130 and message.startswith("ckd_ref: stopped in epoch")
    assert message.endswith("; resume with: python -m ckd_ref " + shlex.join(map(str, argv)))
    assert load_checkpoint(tmp_path / "checkpoint.h5")[0].epoch < SMALL["epochs"]
    assert finish(command(*argv))[0] == 0
    names = *SAME, "teacher-epochs1.h5", "curves.png"
    assert contents(tmp_path, names) == contents(whole, names)
    assert {file.name for file in tmp_path.iterdir()} == {*names, "times.jsonl"}
    times = [json.loads(line) for line in (tmp_path / "times.jsonl").read_text().splitlines()]
    assert sorted({row["epoch"] for row in times}) == [0, 1, 2]


def test_a_second_ctrl_c_does_not_wait():
    with session.ctrl_c() as pressed:
        assert not pressed()
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_main_job_stops_on_ctrl_c_and_resumes_to_table_and_pictures(
    path, data, tmp_path, whole, capsys, rng
):
    """What is finished is read from the folder, but not for another teacher or other data."""
    argv = ["compare", str(path), "--workers", "2", "--out", str(tmp_path), *FLAGS]
    process = command(*argv, *SHORT)
    ckd = tmp_path / f"{path.stem}-ckd-seed0"
    wait_for(ckd / "checkpoint.h5", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    code, message = finish(process)
    assert code == 130 and "every run is saved" in message and "-m ckd_ref compare" in message
    assert not (tmp_path / "table.md").exists() and not list(tmp_path.rglob("*.lock"))
    assert load_checkpoint(ckd / "checkpoint.h5")[0].epoch < SMALL["epochs"]

    assert main([*argv, *SHORT]) == 0
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in LADDER) and "1 seed;" in table
    assert (tmp_path / "table.md").read_text(encoding="utf-8") in table
    for picture in ("curves.png", "samples.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert {child.name for child in tmp_path.iterdir() if child.is_dir()} == {
        f"{path.stem}-{name}-seed0" for name in LADDER
    }
    assert contents(ckd, ["checkpoint.h5"]) == contents(whole, ["checkpoint.h5"])
    teacher = tmp_path / f"{path.stem}-teacher-seed0-epochs1.h5"
    assert teacher.read_bytes() == (whole / "teacher-epochs1.h5").read_bytes()

    logits = rng.normal(size=(len(data.image_label), len(data.classes))).astype(np.float32)
    save_logits(tmp_path / "other.h5", logits, data.classes)
    argv[argv.index("--workers") + 1] = "1"
    assert main([*argv, "--teacher", str(tmp_path / "other.h5")]) == 2, "another teacher"
    (tmp_path / "elsewhere").mkdir()
    argv[1] = str(build(tmp_path / "elsewhere" / path.name, seed=1))
    assert main([*argv, *SHORT]) == 2, "other data"
    assert (tmp_path / "table.md").read_text(encoding="utf-8") in table


def test_workers_end_with_a_killed_parent(path, tmp_path):
    flags = [*FLAGS, *SHORT, "--epochs", 1000]
    process = command("compare", path, "--workers", 1, "--out", tmp_path, *flags)
    run = tmp_path / f"{path.stem}-events-seed0"
    wait_for(run / "checkpoint.h5", process)
    process.kill()
    process.wait()
    process.stderr.close()
    deadline = time.monotonic() + 60
    while True:  # the lock is free as soon as the worker is gone
        with contextlib.suppress(BlockingIOError), locked(run):
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Full disks, second processes, bad numbers, other data


@pytest.mark.parametrize("share", [0, 0.001, 0.99])
def test_a_full_disk_ends_in_one_line_and_keeps_the_checkpoint(
    data, path, tmp_path, capsys, small_disk, share
):
    asked = iter([False] * 5 + [True])
    with pytest.raises(KeyboardInterrupt):
        fit(data, tmp_path, stop=lambda: next(asked))
    before = contents(tmp_path, [file.name for file in tmp_path.iterdir()])
    small_disk(int(share * len(before["checkpoint.h5"])))
    code = main(["train", str(path), "--method", "snn", "--out", str(tmp_path), *FLAGS])
    small_disk(resource.RLIM_INFINITY)
    error = capsys.readouterr().err.strip().rsplit("\n", 1)[-1].rsplit("\r", 1)[-1]
    assert code == 2 and "File too large; what was there before is kept; make room" in error
    after = contents(tmp_path, [file.name for file in tmp_path.iterdir()])
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in SAME[:2])
    assert load_checkpoint(tmp_path / "checkpoint.h5")[0].epoch == 1


def test_a_folder_in_use_is_refused(data, path, tmp_path, capsys):
    with locked(tmp_path):
        for argv in (["train", str(path), "--method", "snn"], ["compare", str(path)]):
            assert main([*argv, "--out", str(tmp_path), *FLAGS]) == 2
            assert f"{tmp_path} is in use by process {os.getpid()}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_two_processes_build_one_data_set(tmp_path):
    script = (
        "import sys; from ckd_ref.data.glyphs import cached; "
        "print(cached(sys.argv[1], teacher=0, static=1, events=1, test=1, size=16, progress=False))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    one, other = (process.communicate()[0].strip() for process in processes)
    assert one == other and [str(file) for file in tmp_path.iterdir()] == [one]
    open_paired(one).close()


@pytest.mark.parametrize(
    "tree, name, message",
    [
        ("params", "conv0/w", "parameter conv0/w"),
        ("state", "conv1/var", "statistic conv1/var"),
        ("moments", "event/w", "squared gradient of event/w"),
    ],
)
def test_a_finite_loss_does_not_hide_other_numbers_that_are_not(
    data, tmp_path, monkeypatch, tree, name, message
):
    def poisoned(net, run, batch, config, rate, gamma, number):
        row = training.train_step(net, run, batch, config, rate, gamma, number)
        if number == 6:
            value = getattr(run, tree)[name]
            (value[1] if tree == "moments" else value).flat[0] = np.inf
        return row

    epochs = functools.partial(training.epochs, train_step=poisoned)
    monkeypatch.setattr(session, "epochs", epochs)
    with pytest.raises(FloatingPointError, match=f"epoch 1, batch 1: the {message} is NaN or Inf"):
        fit(data, tmp_path)
    run = load_checkpoint(tmp_path / "checkpoint.h5").run
    assert run.epoch == 1 and all(np.isfinite(p).all() for p in run.params.values())


def test_a_run_resumes_with_its_own_data_and_teacher_only(data, tmp_path, rng):
    logits = rng.normal(size=(len(data.image_label), len(data.classes))).astype(np.float32)
    fit(data, tmp_path / "run", "ckd", logits, epochs=1)
    with open_paired(build(tmp_path / "other.h5", seed=1)) as other:
        with pytest.raises(
            FormatError, match="holds a run with another data set; name another folder"
        ):
            fit(other, tmp_path / "run", "ckd", logits, epochs=1)
    with pytest.raises(FormatError, match="holds a run with another teacher"):
        fit(data, tmp_path / "run", "ckd", logits + 1, epochs=1)
    fit(data, tmp_path / "run", "ckd", logits, epochs=1)
