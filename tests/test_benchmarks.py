"""The benchmarks: their scripts start, their clock alternates and compares round by round, and the
peers compute the same as ours."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from autograd import value_and_grad

from ckd_ref.config import Config
from ckd_ref.losses import domain_alignment_loss, kd_loss, tet_loss

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
    assert f"python benchmarks/{script}" in (FOLDER / "README.md").read_text(encoding="utf-8")


def parameters(student):
    """Those of a student in PyTorch by our names."""
    names = {}
    if hasattr(student, "convolutions"):
        for k, (filters, norm) in enumerate(zip(student.convolutions, student.norms)):
            names |= {f"conv{k}/w": filters.weight, f"conv{k}/scale": norm.weight,
                      f"conv{k}/shift": norm.bias}
    else:
        names |= {"conv0/w": student.first.weight, "norm/scale": student.norm.weight,
                  "norm/shift": student.norm.bias}
        for k, block in enumerate(student.blocks):
            for name, half in block.items():
                place = f"block{k}/{name}"
                names |= {f"{place}/w": half.convolution.weight,
                          f"{place}/scale": half.norm.weight, f"{place}/shift": half.norm.bias}
    for stream, head in student.heads.items():
        names |= {f"{stream}/w": head.weight, f"{stream}/b": head.bias}
    return names


def turned(array):
    """Filters (k, k, C, K) as (K, C, k, k); matrices transposed."""
    return array.T if array.ndim < 4 else array.transpose(3, 2, 0, 1)


@pytest.mark.parametrize("network", ["tiny", "tiny_resnet"])
@pytest.mark.parametrize("variant", ["step", "multi", "best"])
def test_peers_compute_what_ours_computes(network, variant, monkeypatch, rng):
    """Loss and all gradients of the step that is timed, in float64."""
    torch = pytest.importorskip("torch", reason="the peers need PyTorch")
    monkeypatch.syspath_prepend(FOLDER)
    import peers
    from training_step import make_peer

    config = Config(network=network, width=0.125, T=3, size=16, per_step=variant == "step")
    net = config.model(5)
    params, _ = net.init(rng, np.float64)
    for name in params:                                        # spikes everywhere, no symmetry
        if name.endswith(("scale", "shift")):
            params[name] += rng.uniform(0, 0.5, params[name].shape)
    static, events = rng.random((2, 3, 6, 16, 16, 2))
    labels, teacher = rng.integers(5, size=6), rng.normal(size=(6, 5))

    def loss(params):
        logits_s, features_s, _ = net.apply(params, static, "static")
        logits_e, features_e, _ = net.apply(params, events, "event")
        return (domain_alignment_loss(features_s, features_e) + tet_loss(logits_s, labels, lam=0)
                + tet_loss(logits_e, labels, lam=0) + kd_loss(teacher, logits_s.mean(0)))

    value, grads = value_and_grad(loss)(params)
    student = make_peer(variant, network, 0.125, 5, size=16).double()
    theirs = parameters(student)
    assert theirs.keys() == params.keys() - {"theta"}
    with torch.no_grad():
        for name, tensor in theirs.items():
            tensor.copy_(torch.from_numpy(turned(params[name]).copy()))
    data = peers.planes(static), peers.planes(events), torch.tensor(labels), torch.tensor(teacher)
    came = peers.loss(student, *data)
    came.backward()
    assert came.item() == pytest.approx(value, rel=1e-9)
    for name, tensor in theirs.items():
        expected = turned(grads[name])
        error = np.abs(tensor.grad.numpy() - expected).max()
        assert error < 1e-9 * max(np.abs(expected).max(), 1e-3), name
