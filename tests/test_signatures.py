"""Names, arguments and defaults of the public functions are part of the specification."""

import dataclasses
import inspect

import pytest
from readme_parts import STUB, stub

import ckd_ref
from ckd_ref.models import LAYERS, STAGES

SIGNATURES = {
    "bin_events": "(events, T, sensor_size, window=None, rule='conserving')",
    "from_arrays": "(t, x, y, p, unit='us')",
    "check_events": "(events, sensor_size)",
    "window_edges": "(t, T, window=None, rule='conserving')",
    "resize_frames": "(frames, size)",
    "rgb_to_hsv": "(rgb)",
    "value_frames": "(rgb, T)",
    "spike": "(v, surrogate='triangle', width=1.0)",
    "surrogate_grad": "(v, surrogate='triangle', width=1.0)",
    "lif_step": "(u, s, current, tau=0.5)",
    "lif": "(current, tau=0.5, v_th=1.0, surrogate='triangle', width=1.0, detach_reset=True)",
    "reset": "(potentials, v_th=1.0)",
    "linear_cka": "(X, Y, debiased=False, eps=0.0)",
    "cross_entropy": "(logits, labels)",
    "tet_loss": "(logits, labels, lam=0.001, target=1.0, weights=None)",
    "domain_alignment_loss": "(features_s, features_d, theta=None, eps=1e-07, cls_e=None)",
    "kd_loss": "(teacher_logits, student_logits, temperature=4.0)",
    "ckd_loss": "(static_logits, event_logits, features_s, features_d, labels, theta, "
    "teacher_logits=None, gamma=0.0, alpha=1.0, beta=1.0, temperature=4.0, lam=0.001, target=1.0, "
    "reading='paper', distill=None, kd_per_step=False)",
    "dkd_loss": "(teacher, student, labels, alpha=1.0, beta=8.0, temperature=4.0)",
    "dist_loss": "(teacher, student, beta=1.0, gamma=1.0, temperature=1.0)",
    "luminet_loss": "(teacher, student, alpha=1.0, temperature=4.0)",
    "replacement_probability": "(batch, epoch, batches_per_epoch, epochs, power=3)",
    "phase_weight": "(epoch, threshold, slope)",
    "learning_rate": "(epoch, epochs, peak, warmup_epochs=5, floor=1e-05, warmup_start=1e-06)",
    "conv2d": "(x, w, stride=1)",
    "batch_norm": "(x, scale, shift, running=None, per_step=False, eps=1e-05)",
    "update_running": "(running, statistics, momentum=0.1)",
    "avg_pool": "(x, size)",
    "linear": "(x, w, b)",
    "adamw": "(params, grads, moments, step, rate, decay=0.01, betas=(0.9, 0.999), eps=1e-08)",
    "sample_pairs": "(event_label, image_label, batch, rng)",
    "random_crop": "(frames, padding, rng)",
    "train_teacher": "(data, seed=0, epochs=8, batch=32, rate=0.005, padding=4, watch=None)",
}

DEFAULTS = dict(
    method="ckd", network="tiny", width=0.125, T=6, size=48, per_step=False, tau=0.5, v_th=1.0,
    surrogate="triangle", surrogate_width=1.0, detach_reset=True, epochs=16, batches=30, batch=20,
    rate=5e-3, warmup=1, decay=0.01, padding=4, flip=False, rotation=0.0,
    alpha=1.0, beta=1.0,
    teaching="crop", distillation="kd",
    kd_weight=1.0, kd_per_step=False, temperature=4.0, threshold=None, slope=100.0, lam=1e-3,
    target=1.0, reading="paper", static_per_class=None, events_per_class=None, seed=0,
)
"""The main job, and the settings of the results in the README."""


def signature(function):
    """That of a function, or of what autograd has made a primitive of."""
    return inspect.signature(getattr(function, "fun", function))


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_and_defaults(name):
    full = signature(getattr(ckd_ref, name))
    bare = [p.replace(annotation=p.empty) for p in full.parameters.values()]
    came = str(inspect.Signature(bare))
    assert came == SIGNATURES[name], f"{name}: expected {SIGNATURES[name]}, got {came}"


def callables(names):
    """(name, function) of the public functions and of the public methods of the public classes."""
    for name in names:
        thing = getattr(ckd_ref, name)
        if not inspect.isclass(thing):
            if callable(thing):
                yield name, thing
            continue
        for member, value in vars(thing).items():
            function = getattr(value, "fget", getattr(value, "__func__", value))
            public = not member.startswith("_") or member in ("__init__", "__call__", "__enter__")
            if public and inspect.isfunction(function):
                yield f"{name}.{member}", function


def without_hints(functions):
    """What lacks a type hint, in words."""
    for name, function in functions:
        came = signature(function)
        for parameter in came.parameters.values():
            if parameter.name not in ("self", "cls") and parameter.annotation is parameter.empty:
                yield f"the parameter {parameter.name} of {name}"
        if came.return_annotation is came.empty:
            yield f"the result of {name}"


def test_every_public_function_has_type_hints():
    missing = next(without_hints(callables(ckd_ref.__all__)), None)
    assert missing is None, f"expected a type hint of {missing}"


def test_a_type_checker_finds_every_public_name():
    """Names are loaded when they are used, which a type checker does not follow."""
    assert STUB.read_text(encoding="utf-8") == stub(), "run python tests/readme_parts.py --write"


def test_a_missing_hint_is_named():
    def add(a: int, b):
        return a + b

    assert list(without_hints([("add", add)])) == ["the parameter b of add", "the result of add"]


def test_settings_of_the_main_job():
    assert dataclasses.asdict(ckd_ref.Config()) == DEFAULTS


def test_settings_of_the_networks():
    student = dataclasses.asdict(ckd_ref.VGGSNN(7))
    stages = ((64, 128), (256, 256), (512, 512), (512, 512))
    neuron = dict(tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True)
    assert student == dict(classes=7, T=10, stages=stages, width=1.0, size=48, per_step=False,
                           neuron=neuron, fused=True)
    assert STAGES == {"full": stages, "tiny": ((64,), (128,), (256,), (512,))}
    residual = dataclasses.asdict(ckd_ref.SpikingResNet18(7))
    assert residual == dict(classes=7, T=6, width=1.0, size=48, layers=(2, 2, 2, 2),
                            per_step=False, neuron=neuron, fused=True)
    assert LAYERS == {"resnet18": (2, 2, 2, 2), "tiny_resnet": (1, 1, 1, 1)}
    teacher = dataclasses.asdict(ckd_ref.Teacher(7))
    assert teacher == dict(classes=7, size=48, channels=(16, 32, 64, 64))
