"""The presets are the paper's settings, and options beside them count."""

import dataclasses

import pytest

from ckd_ref import __main__ as command_line
from ckd_ref.__main__ import main
from ckd_ref.config import ASSUMED, METHODS_OF, PRESETS, PUBLISHED, Config
from ckd_ref.run import comparison
from ckd_ref.run import estimate as estimation

pytestmark = pytest.mark.usefixtures("elsewhere")

PAPER = {
    "paper-ncaltech101": {
        "network": ("full", "Sec. IV-A: VGGSNN on N-Caltech101"),
        "T": (10, "Sec. IV-A and Table I"),
        "epochs": (300, "Sec. IV-A"),
        "threshold": (149.5, "Sec. IV-C: one of two with 97.13 %, the other is 119.5"),
        "slope": (100, "Sec. IV-C"),
    },
    "paper-cepdvs": {
        "network": ("resnet18", "Sec. IV-A: Spiking-ResNet18 on CEP-DVS"),
        "T": (6, "Sec. IV-A; Table I says 10"),
        "epochs": (200, "Sec. IV-A"),
        "threshold": (89.5, "Sec. IV-C: 40.20 %"),
        "slope": (0.001, "Sec. IV-C"),
    },
}
BOTH = {
    "width": (1, "Sec. IV-A: the networks as they are"),
    "size": (48, "Sec. IV-A: 48 x 48"),
    "alpha": (1, "Sec. IV-A: of Eq. (11)"),
    "beta": (1, "Sec. IV-A: of Eq. (11)"),
    "reading": ("paper", "Eq. (6) and L_all: L_cls-e in both"),
    "distillation": ("kd", "Table II: KD 96.71 and 38.80, the best rows"),
    "kd_weight": (1, "Eq. (11) has gamma(e) alone, Sec. III-B2 lets it fall from 1"),
}
"""Figures copied by hand from the paper, and where they stand."""

RECIPE = {
    "batch": 120, "rate": 5.859375e-4, "warmup": 5, "decay": 0.01, "padding": 4, "per_step": True,
}
"""Of the baseline's commands (run_aba.sh) and the defaults of its program; its network is called
once per time step."""

DIFFERENT = {
    "paper-ncaltech101": {"batches": 7838 // 120, "flip": False, "rotation": 0},
    "paper-cepdvs": {"batches": 20 * 250 // 120, "flip": True, "rotation": 15},
}
"""Full batches of 90 % of the recordings of each class, and of half of them with --DVS-DA."""

DEFAULTS = {
    "tau", "v_th", "surrogate", "surrogate_width", "detach_reset", "lam", "target", "teaching",
    "kd_per_step", "temperature",
}
"""Assumed by the functions that have them."""


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_papers_settings(name):
    for field, (value, place) in (PAPER[name] | BOTH).items():
        assert PUBLISHED[name][field] == value, f"{name}, {field}: {place}"
    assert PUBLISHED[name].keys() == PAPER[name].keys() | BOTH.keys(), "nothing else is published"
    for field, value in (RECIPE | DIFFERENT[name]).items():
        assert ASSUMED[name][field] == value, f"{name}, {field}: the baseline has {value}"
    for field in DEFAULTS:
        assert ASSUMED[name][field] == getattr(Config, field), f"{name}, {field}: the default"
    assert ASSUMED[name].keys() == RECIPE.keys() | DIFFERENT[name].keys() | DEFAULTS
    assert not PUBLISHED[name].keys() & ASSUMED[name].keys()
    left = {field.name for field in dataclasses.fields(Config)} - PRESETS[name].keys()
    assert left == {"method", "seed", "static_per_class", "events_per_class"}, "all at once"


def test_presets_make_the_papers_networks():
    sizes = {"paper-ncaltech101": (101, 10_153_684), "paper-cepdvs": (20, 11_187_886)}
    for name, (classes, trainable) in sizes.items():
        assert Config(**PRESETS[name]).model(classes).trainable == trainable


@pytest.fixture
def configured(monkeypatch, glyph_file, tmp_path):
    """A function that gives the configuration with which a command would do its work."""
    seen = []

    def see(data, config, *_, **__):
        seen.append(config)
        raise ValueError("seen")

    monkeypatch.setattr(command_line, "check_run", lambda *_: None)
    monkeypatch.setattr(command_line, "train", see)
    monkeypatch.setattr(comparison, "compare", see)
    monkeypatch.setattr(estimation, "estimate", see)

    def configure(command, *options):
        data = str(glyph_file) if command != "compare" else "digits"
        out = [] if command == "estimate" else ["--out", str(tmp_path)]
        teacher = ["--method", "transfer"] if command != "compare" else []
        assert main([command, data, *out, *teacher, *options]) == 2
        return dataclasses.replace(seen.pop(), method="ckd")

    return configure


@pytest.mark.parametrize("command", ["train", "compare", "estimate"])
def test_options_beside_a_preset_replace_its_own(command, configured, capsys):
    """Even one that has its default: the preset has 10 time steps, the default is 6."""
    config = configured(command, "--preset", "paper-ncaltech101", "--T", "6", "--seed", "3")
    assert config == Config(**PRESETS["paper-ncaltech101"] | {"T": 6, "seed": 3})
    shown = capsys.readouterr().out
    published, assumed, instead = shown.splitlines()
    assert "network full" in published and "epochs 300" in published and "T " not in published
    assert "batch 120" in assumed and "rate 0.0005859375" in assumed
    assert "T 6" in instead and "seed 3" in instead
    method = "ckd" if command == "compare" else "transfer"
    for name, value in PRESETS["paper-ncaltech101"].items():
        used = name != "T" and method in METHODS_OF.get(name, (method,))
        assert (f"{name} {value}" in shown) == used, f"{name} is printed: {not used}"


def test_of_a_preset_a_comparison_prints_what_changes_one_of_its_runs(configured, capsys):
    configured("compare", "--preset", "paper-cepdvs", "--methods", "published,snn")
    shown = capsys.readouterr().out
    assert " alpha 1.0" in shown and " lam 0.001" in shown
    assert not any(word in shown for word in ("beta", "reading", "temperature", "slope"))


@pytest.mark.parametrize("command", ["train", "compare", "estimate"])
def test_without_a_preset_nothing_has_changed(command, configured, capsys):
    expected = Config(size=32) if command == "compare" else Config(size=16)
    assert configured(command) == expected and not capsys.readouterr().out
    assert configured(command, "--size", "40", "--no-flip") == Config(size=40)


def test_an_unknown_preset_ends_in_one_line(glyph_file, capsys):
    assert main(["train", str(glyph_file), "--preset", "paper-nmnist"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "ckd_ref: expected a preset among paper-ncaltech101, paper-cepdvs, got 'paper-nmnist'\n"
    )


def test_a_rotation_below_zero_is_refused():
    with pytest.raises(ValueError, match="expected rotation >= 0, got -1"):
        Config(rotation=-1.0)
