"""The benchmarks: their scripts start, and their clock alternates and compares round by round."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
SHARED = {"timing", "peers"}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.stem not in SHARED)


@pytest.fixture
def timing():
    """benchmarks/timing.py, a fresh copy."""
    spec = importlib.util.spec_from_file_location("timing", FOLDER / "timing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clocked(timing, monkeypatch, costs):
    """Callables that take the given seconds, call by call, and a list that records the calls."""
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def run(name):
        calls.append(name)
        now[0] += costs[name].pop(0)
    return {name: lambda name=name: run(name) for name in costs}, calls


def test_candidates_take_turns_after_a_warm_up(timing, monkeypatch):
    runs, calls = clocked(timing, monkeypatch, {"A": [9, 1, 2, 3], "B": [9, 4, 5, 6]})
    assert timing.compare(runs, rounds=3) == {"A": [1, 2, 3], "B": [4, 5, 6]}
    assert "".join(calls) == "ABABABAB"


def test_without_warm_up_the_first_call_counts(timing, monkeypatch):
    runs, calls = clocked(timing, monkeypatch, {"A": [9, 1]})
    assert timing.compare(runs, rounds=2, warm_up=False) == {"A": [9, 1]} and calls == ["A", "A"]


def test_row_has_the_median_of_the_ratios_not_the_ratio_of_the_medians(timing):
    seconds = {"ours": [1.0, 2.0, 6.0], "peer": [4.0, 2.0, 8.0], "other": [1.0, 1.0, 1.0]}
    assert timing.ratios(seconds["ours"], seconds["peer"]) == [0.25, 1.0, 0.75]
    first, second = timing.rows("this", seconds).splitlines()
    assert first == (
        "| this | 2000 (1000 - 6000) ms | peer: 4000 (2000 - 8000) ms | 0.750 (0.250 - 1.00) |"
    )
    assert second.endswith("| other: 1000 (1000 - 1000) ms | 2.00 (1.00 - 6.00) |")
    with pytest.raises(ValueError):
        timing.ratios([1.0, 2.0], [1.0])


def test_numbers_have_three_digits(timing):
    assert timing.spread([0.01234, 56.78, 91234.5]) == "56.8 (0.0123 - 91234)"


def test_heading_is_the_command(timing, monkeypatch):
    monkeypatch.setattr(timing.sys, "argv", ["benchmarks/events.py", "--rounds", "3"])
    text = timing.heading(("numpy",))
    assert text.startswith("## `python benchmarks/events.py --rounds 3`\n")
    assert re.search(r"\d+ cores, .*Python 3\.\d+\.\d+, numpy \d", text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_explains_itself_without_its_peers(script):
    """Peers are imported after the arguments are read: help needs none of them."""
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['tonic'] = None; "
        "sys.path.insert(0, sys.argv[1]); "
        "runpy.run_path(sys.argv[1] + '/' + sys.argv[2], run_name='__main__')"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, FOLDER, script, "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "usage:" in shown.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_readme_names_the_script(script):
    assert f"python benchmarks/{script}" in (FOLDER / "README.md").read_text()
