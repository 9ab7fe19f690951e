"""Sweeps: what a spec asks for, one line per run, interruptions, and a cluster's workers."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import sys
import threading
import time

import numpy as np
import pytest
from small import FLAGS, SMALL

from ckd_ref.__main__ import main
from ckd_ref.config import Config
from ckd_ref.data.paired import PairedData
from ckd_ref.events import FormatError
from ckd_ref.run import comparison, plots
from ckd_ref.run import sweep as module
from ckd_ref.run.sweep import (
    LADDER,
    TABLE1,
    VARIANTS,
    Job,
    read_lines,
    read_spec,
    run_job,
    sweep,
)
from ckd_ref.run.teachers import save_logits

SPEC = """
seeds = [3, 2]
variants = ["events", "ckd"]
[data]
glyphs = "{data}"
[options]
""" + "\n".join(f"{name} = {value}" for name, value in (SMALL | {"epochs": 1}).items())


@pytest.fixture
def spec(tmp_path, glyph_file):
    path = tmp_path / "ladder.toml"
    path.write_text(SPEC.format(data=glyph_file))
    return path


@pytest.fixture
def jobs(glyph_file):
    config = Config(method="snn", **SMALL | {"epochs": 1})
    return [
        Job("glyphs", str(glyph_file), "events", dataclasses.replace(config, seed=seed))
        for seed in range(3)
    ]


def test_compare_has_a_job_for_every_seed_and_rung(monkeypatch, glyph_file, tmp_path):
    def swept(jobs, *_, **__):
        asked.extend(jobs)
        raise InterruptedError("enough")

    asked = []
    monkeypatch.setattr(comparison, "sweep", swept)
    with pytest.raises(InterruptedError):
        comparison.compare(glyph_file, Config(**SMALL, seed=3), tmp_path, seeds=2)
    assert [(job.config.seed, job.variant) for job in asked] == [
        (seed, name) for seed in (3, 4) for name in LADDER
    ]
    assert all(job.config == Config(**SMALL | LADDER[job.variant], seed=job.config.seed)
               for job in asked)


class InProcess(concurrent.futures.Executor):
    """Runs a job when it is submitted: no process has to start."""

    def submit(self, function, *args):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(module, "_executor", lambda *_: contextlib.nullcontext(InProcess()))


# What is compared


def test_rungs_of_the_ladder_differ_in_one_thing_each():
    """Between any two steps the configurations differ in one field; the last rung is apart."""
    configs = {name: Config(**own) for name, own in LADDER.items()}

    def changed(a, b):
        pairs = zip(vars(configs[a]).items(), vars(configs[b]).values())
        return {name: (old, new) for (name, old), new in pairs if old != new}

    assert list(LADDER) == ["events", "static", "transfer", "ckd", "published"]
    assert changed("events", "static") == {"method": ("snn", "transfer"), "beta": (1.0, 0.0)}
    assert changed("static", "transfer") == {"beta": (0.0, 1.0)}
    assert changed("transfer", "ckd") == {"method": ("transfer", "ckd")}
    assert changed("published", "ckd") == {
        "method": ("transfer", "ckd"), "beta": (0.5, 1.0), "reading": ("baseline", "paper")
    }


def test_every_row_of_table_1_is_a_variant_and_has_a_curve():
    assert list(TABLE1) == ["tet", "nda", "eventmix", "tks", "etc", "transfer", "ckd"]
    configs = [Config(**own) for own in TABLE1.values()]
    assert [config.method for config in configs] == ["snn", *list(TABLE1)[1:]]
    for config in configs:
        same = dataclasses.replace(config, method="ckd")
        assert same == Config(), "rows differ in nothing but the method"
    assert set(VARIANTS) <= set(plots.STYLES)
    assert module.spec_variants({"variants": ["snn", "nda"]}) == {
        "snn": {"method": "snn"}, "nda": {"method": "nda"}
    }
    with pytest.raises(ValueError, match="expected every variant once, got snn, nda, snn"):
        module.spec_variants({"variants": ["snn", "nda", "snn"]})
    with pytest.raises(ValueError, match=r"expected variants among .*, got \['tsk'\]"):
        module.spec_variants({"variants": ["snn", "tsk"]})


def test_a_spec_lists_every_variant_of_a_seed_before_the_next_seed(spec, glyph_file):
    jobs = read_spec(spec)
    assert [(job.variant, job.config.seed) for job in jobs] == [
        ("events", 3), ("ckd", 3), ("events", 4), ("ckd", 4)
    ]
    assert {job.path for job in jobs} == {str(glyph_file)} and {job.data for job in jobs} == {
        "glyphs"
    }
    expected = Config(**SMALL | {"epochs": 1}, method="ckd", seed=4)
    assert jobs[-1].config == expected


def test_a_grid_is_every_combination_and_names_tell_them_apart(spec):
    spec.write_text(spec.read_text() + "\n[grid]\nrate = [0.1, 0.2]\nslope = [1.0, 2.0]\n")
    jobs = read_spec(spec)
    assert len(jobs) == 2 * 2 * 4 and len({job.name for job in jobs}) == 16
    assert {(job.config.rate, job.config.slope) for job in jobs} == {
        (rate, slope) for rate in (0.1, 0.2) for slope in (1.0, 2.0)
    }
    assert jobs[0].variant == "events-rate-0.1-slope-1.0"


def test_several_grids_are_run_one_after_the_other_not_multiplied(spec):
    spec.write_text(spec.read_text() + "\n[[grid]]\nrate = [0.1, 0.2]\n[[grid]]\nwidth = [0.5]\n")
    cells = {(job.config.rate, job.config.width) for job in read_spec(spec)}
    assert cells == {(0.1, SMALL["width"]), (0.2, SMALL["width"]), (Config().rate, 0.5)}


def test_files_of_a_spec_are_relative_to_it_and_embedded_sets_are_not(tmp_path):
    (tmp_path / "a.toml").write_text(
        'seeds = [0, 1]\nvariants = ["ckd"]\n[data]\nreal = "x.h5"\ndigits = "digits"\n'
        '[teachers]\nreal = "t.h5"\n'
    )
    real, digits = read_spec(tmp_path / "a.toml")
    assert (real.path, real.teacher) == (str(tmp_path / "x.h5"), str(tmp_path / "t.h5"))
    assert (digits.path, digits.teacher) == ("digits", None)


@pytest.mark.parametrize("wrong, match", [
    ("seeds = 3", "seeds"),
    ("seeds = [0, 1]\n[dta]\na = 'b'", "dta|data"),
    ("seeds = [0, 1]\nvariants = ['teacher']\n[data]\na = 'b'", "teacher"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[options]\nrat = 1", "rat"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[options]\nT = 0", "T >= 1"),
    ("seeds = [0, 1\n", "a.toml"),
    ("seeds = [0, -1]\n[data]\na = 'b'", r"first seed >= 0 and 1 ... 10000 of them, got \[0, -1\]"),
    ("seeds = [0, 100000000000]\n[data]\na = 'b'", "1 ... 10000 of them"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[teachers]\nA = 'c'", "teachers of data that is named.*'A'"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[grid]\nseed = [7, 8]", "the seeds in seeds = .* alone"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[grid]\nrate = []", "at least one run, .*, got 0"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[[grid]]\nT = [2]\n[[grid]]\nT = [2, 3]", "every run once"),
    ("seeds = [-1, 2]\n[data]\na = 'b'", "first seed >= 0"),
    ("seeds = [0, 1]\nvariants = ['snn', 'tks']\n[data]\na = 'b'\n[grid]\ntemperature = [1, 2]",
     "temperature is for ckd, got snn, tks"),
    ("seeds = [0, 1]\nvariants = ['static', 'published']\n[data]\na = 'b'\n[grid]\nbeta = [0.1]",
     "static and a grid set beta"),
    ("seeds = [0, 1]\nvariants = ['published']\n[data]\na = 'b'\n[options]\nbeta = 9.0",
     "every variant sets beta itself"),
    ("seeds = [0, 1]\nvariants = ['snn']\n[data]\na = 'b'\n[teachers]\na = 'c'",
     "teacher is for ckd, got snn"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[variants.cold]\nmethod = 'snn'\ntemperature = 1.0\n"
     "[variants.ckd]\nmethod = 'ckd'", "cold: temperature is for ckd, got snn"),
    ("seeds = [0, 1]\n[data]\na = 'b'\n[options]\nrate = 'fast'", "a.toml"),
])
def test_an_unusable_spec_is_refused_in_one_line(tmp_path, wrong, match, capsys):
    (tmp_path / "a.toml").write_text(wrong)
    assert main(["sweep", str(tmp_path / "a.toml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "a.toml: " in error and error.count("\n") == 1
    with pytest.raises(FormatError, match=match):
        read_spec(tmp_path / "a.toml")


# Lines


def test_a_line_says_what_was_run_and_what_came_out(spec, tmp_path, capsys):
    ckd = dataclasses.replace(read_spec(spec)[1], teacher_epochs=2)
    line = json.loads(json.dumps(run_job(ckd, tmp_path, position=0)))
    assert [text.split(",")[0] for text in capsys.readouterr().err.splitlines()] == [
        "glyphs-teacher-seed3: epoch 1 of 2", "glyphs-teacher-seed3: epoch 2 of 2",
        "glyphs-ckd-seed3: epoch 1 of 1",
    ]
    assert (tmp_path / "glyphs-teacher-seed3-epochs2.h5").exists()
    log = (tmp_path / ckd.name / "log.jsonl").read_text().splitlines()
    assert line["accuracy"] == [json.loads(row)["accuracy_test"] for row in log]
    assert line["config"] == dataclasses.asdict(ckd.config) and line["seed"] == 3
    assert line["described"].startswith("12 classes; images: 24 teacher, 36 static, 24 test")
    assert 0 <= line["accuracy_teacher"] <= 1 and line["leaky"] is False
    assert set(line["versions"]) == {"python", "ckd_ref", "numpy", "scipy", "autograd"}
    text = json.dumps(line)
    assert str(tmp_path) not in text and platform.node() not in text, "nothing private"


def test_without_test_images_a_teacher_has_no_accuracy(spec, glyph_data, tmp_path, monkeypatch):
    """Recordings of a camera have none; the students are tested all the same."""
    logits = np.zeros((len(glyph_data.image_label), 12), np.float32)
    save_logits(tmp_path / "l.h5", logits, glyph_data.classes)
    images_in = PairedData.images_in
    monkeypatch.setattr(
        PairedData, "images_in",
        lambda data, pool: images_in(data, pool)[:0] if pool == "test" else images_in(data, pool),
    )
    line = run_job(
        dataclasses.replace(read_spec(spec)[1], teacher=str(tmp_path / "l.h5")), tmp_path
    )
    assert "accuracy_teacher" not in line and len(line["accuracy"]) == 1


@pytest.mark.skipif(os.name != "posix", reason="names of files cannot have such bytes")
def test_a_name_that_is_no_text_neither_stops_the_table_nor_commands_the_terminal(
    glyph_file, tmp_path, capsys
):
    data = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff\x1b[31m.h5")
    shutil.copy(glyph_file, data)
    words = ["compare", data, "--methods", "snn", "--workers", "1", "--out", str(tmp_path / "out")]
    assert main([*words, *FLAGS, "--epochs", "1"]) == 0
    shown = capsys.readouterr()
    assert "a??[31m" in shown.out and "\x1b" not in shown.out + shown.err
    assert "a??[31m" in (tmp_path / "out/table.md").read_text(encoding="utf-8")


def test_the_accuracy_of_a_given_teacher_is_that_on_the_test_images(spec, glyph_data, tmp_path):
    logits = np.eye(12, dtype=np.float32)[glyph_data.image_label]
    test = glyph_data.images_in("test")
    logits[test[:6]] = logits[test[:6], ::-1]                  # a quarter of the 24 is wrong
    save_logits(tmp_path / "l.h5", logits, glyph_data.classes)
    job = dataclasses.replace(read_spec(spec)[1], teacher=str(tmp_path / "l.h5"))
    line = run_job(job, tmp_path)
    assert line["accuracy_teacher"] == 0.75 and line["teacher"] == "given"


def test_a_sweep_runs_each_job_once_and_keeps_its_lines(spec, tmp_path, monkeypatch, in_process):
    assert main(["sweep", str(spec), "--out", str(tmp_path / "out"), "--workers", "2"]) == 0
    path = tmp_path / "out" / "ladder.jsonl"
    lines = read_lines(path)
    assert sorted((line["variant"], line["seed"]) for line in lines) == [
        ("ckd", 3), ("ckd", 4), ("events", 3), ("events", 4)
    ]
    before = path.read_bytes()
    monkeypatch.setattr(module, "run_job", None)               # nothing is run again
    assert main(["sweep", str(spec), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert path.read_bytes() == before


def test_what_has_a_line_is_not_repeated_and_the_rest_is(jobs, tmp_path, in_process):
    lines = tmp_path / "lines.jsonl"
    sweep(jobs[:1], tmp_path / "runs", lines)
    first = read_lines(lines)
    assert [line["seed"] for line in sweep(jobs, tmp_path / "runs", lines)] == [0, 1, 2]
    assert read_lines(lines)[:1] == first and len(read_lines(lines)) == 3
    changed = [dataclasses.replace(job, config=dataclasses.replace(job.config, rate=0.01))
               for job in jobs[:1]]
    assert sweep(changed, tmp_path / "other", lines)[0]["config"]["rate"] == 0.01


def test_a_line_from_before_an_option_was_added_still_counts(
    jobs, tmp_path, monkeypatch, in_process
):
    lines = tmp_path / "lines.jsonl"
    before, = sweep(jobs[:1], tmp_path / "runs", lines)
    del before["config"]["teaching"]                           # at its default
    lines.write_text(json.dumps(before) + "\n")
    monkeypatch.setattr(module, "run_job", None)               # nothing is run again
    assert sweep(jobs[:1], tmp_path / "runs", lines) == [before]


def test_without_a_file_of_lines_finished_runs_are_read_from_folders(jobs, tmp_path, in_process):
    first, again = (sweep(jobs[:1], tmp_path / "runs") for _ in range(2))
    assert first[0]["accuracy"] == again[0]["accuracy"] and not list(tmp_path.glob("**/runs.jsonl"))
    assert first[0]["seconds"] == again[0]["seconds"], "it was not trained again"


def test_a_failing_run_costs_no_finished_line(jobs, tmp_path):
    config = dataclasses.replace(jobs[1].config, rate=1e30, warmup=0)
    bad = dataclasses.replace(jobs[1], config=config)
    with pytest.raises(FloatingPointError, match="epoch 0"):
        sweep([jobs[0], bad], tmp_path / "runs", tmp_path / "lines.jsonl")
    assert [line["seed"] for line in read_lines(tmp_path / "lines.jsonl")] == [0]


@pytest.mark.parametrize("wrong, match", [
    ({"path": "missing.h5"}, "missing.h5"),
    ({"size": 32}, "expected size 16, that of the images"),
    ({"T": 10**9}, "of memory"),
    ({"path": "digits", "T": 10**9}, "of memory"),
    ({"method": "ckd", "teacher": "none.h5"}, "none.h5"),
])
def test_a_job_that_cannot_run_is_refused_before_the_first_one_runs(
    jobs, tmp_path, monkeypatch, wrong, match
):
    monkeypatch.setattr(module, "run_job", None)               # nothing is run
    own = {name: wrong[name] for name in ("path", "teacher") if name in wrong}
    options = {name: value for name, value in wrong.items() if name not in own}
    config = dataclasses.replace(jobs[1].config, **options)
    bad = dataclasses.replace(jobs[1], config=config, **own)
    with pytest.raises((OSError, ValueError), match=match):
        sweep([jobs[0], bad], tmp_path / "runs", tmp_path / "lines.jsonl")
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_every_run_of_a_sweep_has_a_line(
    jobs, tmp_path, in_process, capsys, monkeypatch
):
    def line(job, *_):
        return {"data": job.data, "variant": job.variant, "seed": job.config.seed,
                "config": dataclasses.asdict(job.config), "described": "", "leaky": False,
                "seconds": 1.0, "accuracy": [0.5]}

    monkeypatch.setattr(module, "run_job", line)
    lines = tmp_path / "lines.jsonl"
    sweep(jobs[:1], tmp_path / "runs", lines, progress=False)
    assert capsys.readouterr().err == ""
    sweep(jobs, tmp_path / "runs", lines)
    assert capsys.readouterr().err == "sweep: 2 of 3 runs\nsweep: 3 of 3 runs\n"


def test_a_torn_last_line_is_repeated_and_a_damaged_one_is_named(jobs, tmp_path, in_process):
    lines = tmp_path / "lines.jsonl"
    sweep(jobs[:2], tmp_path / "runs", lines)
    whole = lines.read_text()
    lines.write_text(whole[:-20])
    assert read_lines(lines) == [json.loads(whole.splitlines()[0])]
    sweep(jobs[:2], tmp_path / "runs", lines)
    assert len(read_lines(lines)) == 2
    good = json.loads(whole.splitlines()[0])
    for spoilt in (
        {}, [], good | {"accuracy": []}, good | {"accuracy": ["x"]}, good | {"accuracy": 0.5},
        good | {"accuracy": [1.5]}, good | {"seconds": -1}, good | {"seconds": None},
        good | {"leaky": "no"}, good | {"data": ["d"]},
        {name: value for name, value in good.items() if name != "described"},
    ):
        lines.write_text(json.dumps(spoilt) + "\n" + whole)
        with pytest.raises(FormatError, match="lines.jsonl, line 1: expected the JSON object of a"):
            read_lines(lines)
    lines.write_text(whole + whole)
    with pytest.raises(FormatError, match="lines.jsonl, line 3: the run of a line before"):
        read_lines(lines)


def test_the_numbers_do_not_depend_on_the_number_of_workers(jobs, tmp_path):
    one, two = (
        sweep(jobs, tmp_path / str(workers), tmp_path / f"{workers}.jsonl", workers)
        for workers in (1, 2)
    )
    assert [line["accuracy"] for line in one] == [line["accuracy"] for line in two]


def test_compare_takes_methods_by_name(glyph_file, tmp_path, capsys, monkeypatch, in_process):
    """The first is what the others are compared with."""
    monkeypatch.setattr(plots, "samples", lambda *_: None)
    monkeypatch.setattr(plots, "learning_curves", lambda path, histories: shown.append(histories))
    shown = []
    argv = ["compare", str(glyph_file), "--out", str(tmp_path), *FLAGS, "--epochs", "1"]
    assert main([*argv, "--methods", "nda,tks"]) == 0, "no teacher is needed"
    table, progress = capsys.readouterr()
    assert [line.split(",")[0] for line in progress.splitlines()] == [
        f"{glyph_file.stem}-{method}-seed0: epoch 1 of 1" for method in ("nda", "tks")
    ], "without a terminal, a line per epoch of each run"
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert rows == ["| variant", "| nda", "| tks"]
    assert "tks - nda: " in table and "nda - " not in table.replace("tks - nda", "")
    assert [list(histories) for histories in shown] == [["nda", "tks"]]
    assert all(len(history) == 1 for history in shown[0].values())
    assert main([*argv, "--methods", "snn,tsk"]) == 2
    error = capsys.readouterr().err
    assert "expected variants among" in error and error.count("\n") == 1


def test_jobs_of_one_seed_share_a_teacher(spec, tmp_path):
    spec.write_text(spec.read_text().replace(
        '["events", "ckd"]', '["ckd"]').replace("seeds = [3, 2]", "seeds = [3, 1]")
        + "\n[grid]\nkd_weight = [0.5, 1.0]\n")
    jobs = read_spec(spec)
    lines = sweep(jobs, tmp_path / "runs", tmp_path / "lines.jsonl", workers=2)
    assert len(list((tmp_path / "runs").glob("*teacher*.h5"))) == 1
    assert lines[0]["accuracy_teacher"] == lines[1]["accuracy_teacher"]


# A cluster


def test_a_scheduler_without_the_extra_says_what_to_install(jobs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'ckd_ref\[distributed\]'"):
        sweep(jobs, tmp_path, tmp_path / "lines.jsonl", scheduler="tcp://127.0.0.1:1")


def test_a_killed_worker_of_a_cluster_costs_no_result(glyph_file, tmp_path):
    """A real cluster of two processes, one of which is killed in the middle of its run."""
    distributed = pytest.importorskip("distributed", reason="needs the extra distributed")
    config = Config(method="snn", **SMALL | {"epochs": 6, "batches": 6})
    jobs = [
        Job("glyphs", str(glyph_file), "events", dataclasses.replace(config, seed=seed))
        for seed in range(6)
    ]
    expected = sweep(jobs, tmp_path / "here", tmp_path / "here.jsonl")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        lines, killed = tmp_path / "there.jsonl", []

        def kill_one():
            """When the first run has finished and the next ones are under way."""
            deadline = time.monotonic() + 60
            while not read_lines(lines) and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
            killed.append(len(read_lines(lines)))

        killer = threading.Thread(target=kill_one)
        killer.start()
        found = sweep(jobs, tmp_path / "there", lines, scheduler=cluster.scheduler_address)
        killer.join()
    assert killed and killed[0] < len(jobs), "a worker must be killed while runs are left"
    assert len(read_lines(lines)) == len(jobs)
    for line, other in zip(found, expected, strict=True):
        assert line["accuracy"] == other["accuracy"] and line["seed"] == other["seed"]


def test_the_machine_is_named_without_its_name():
    text = module.machine()
    assert text.split()[0] and platform.node() not in text
    assert text.isascii()


def test_another_teacher_in_the_folder_is_refused_before_anything_runs(glyph_file, tmp_path):
    (tmp_path / "set-teacher-seed0-epochs3.h5").touch()
    jobs = [module.Job("set", str(glyph_file), method, Config(method=method, **SMALL))
            for method in ("snn", "ckd")]
    with pytest.raises(FormatError, match="a teacher of 3 epochs, in place of 8, is kept here"):
        module.sweep(jobs, tmp_path)
    assert [path.name for path in tmp_path.glob("*seed0*")] == ["set-teacher-seed0-epochs3.h5"]
