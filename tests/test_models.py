"""The networks, and the whole method on the golden tiny one: every gradient of both readings."""

import autograd.numpy as np
import numpy as onp
import pytest
from autograd import grad, value_and_grad
from conftest import relative_error

from ckd_ref.losses import ckd_loss, cross_entropy
from ckd_ref.models import STAGES, VGGSNN, Teacher, predict, update_state

TINY = VGGSNN(5, T=3, stages=((3,), (4,)), size=8, per_step=True)
"""The network of the golden file: two blocks of convolution, batch norm, LIF and pooling."""

BLOCKS = {"conv0": "feature.0", "conv1": "feature.2"}
HEADS = {"static": "rgb_fc.1", "event": "dvs_fc.1"}


def tree(arrays):
    """The original's parameters, or their gradients, as ours: channel last, theta in one vector."""
    params = {"theta": onp.concatenate([arrays[f"coefficient.{t}"][:] for t in range(3)])}
    for ours, theirs in BLOCKS.items():
        params[f"{ours}/w"] = arrays[f"{theirs}.conv.weight"][:].transpose(2, 3, 1, 0)
        params[f"{ours}/scale"] = arrays[f"{theirs}.bn.weight"][:]
        params[f"{ours}/shift"] = arrays[f"{theirs}.bn.bias"][:]
    for ours, theirs in HEADS.items():
        w = arrays[f"{theirs}.weight"][:].reshape(5, 4, 2, 2)             # (K, C, h, w)
        params[f"{ours}/w"] = w.transpose(2, 3, 1, 0).reshape(16, 5)      # (h w C, K)
        params[f"{ours}/b"] = arrays[f"{theirs}.bias"][:]
    return params


def statistics(arrays):
    return {f"{ours}/{name}": arrays[f"{theirs}.bn.running_{name}"][:]
            for ours, theirs in BLOCKS.items() for name in ("mean", "var")}


def run(params, state, static, events, net=TINY, training=True):
    """Both streams through the shared network, the static one first."""
    static_logits, features_s, of_static = net.apply(params, static, "static", None if training else state)
    event_logits, features_d, of_events = net.apply(params, events, "event", None if training else state)
    state = update_state(update_state(state, of_static), of_events)
    return static_logits, event_logits, features_s, features_d, state


@pytest.fixture(scope="module")
def tiny(golden):
    """Golden group, parameters, state and the two inputs (T, B, H, W, 2)."""
    g = golden["tiny_vggsnn"]
    static, events = (g[name][:].transpose(1, 0, 3, 4, 2) for name in ("x_static", "x_dvs"))
    return g, tree(g["state_before"]), statistics(g["state_before"]), static, events


def test_golden_forward(tiny):
    """Logits, features (factor 2 as u = 2 m) and the running statistics after both streams."""
    g, params, state, static, events = tiny
    static_logits, event_logits, features_s, features_d, after = run(params, state, static, events)
    assert relative_error(static_logits, g["logits_static"][:]) < 1e-9
    assert relative_error(event_logits, g["logits_dvs"][:]) < 1e-9
    assert relative_error(features_s / 2, g["feat_static"][:].transpose(0, 1, 3, 4, 2)) < 1e-9
    assert relative_error(features_d / 2, g["feat_dvs"][:].transpose(0, 1, 3, 4, 2)) < 1e-9
    for name, values in statistics(g["state_after"]).items():
        assert relative_error(after[name], values) < 1e-9, name


def test_golden_evaluation(tiny):
    """With the statistics of the training step, from events only."""
    g, params, state, static, events = tiny
    *_, state = run(params, state, static, events)
    logits, _, no_statistics = TINY.apply(params, events, "event", state)
    assert relative_error(logits.mean(0), g["eval_logits_dvs"][:]) < 1e-9
    assert (predict(logits) == g["eval_logits_dvs"][:].argmax(1)).all()
    assert no_statistics == {}


VARIANTS = {
    "baseline_code": dict(beta=0.5, gamma=0.0, reading="baseline"),
    "ckd_code_style": dict(beta=0.5, reading="baseline"),
    "ckd_code_style_b1": dict(beta=1.0, reading="baseline"),
    "ckd_paper_literal": dict(beta=1.0, reading="paper"),
}


def total_loss(params, tiny, **options):
    g, _, state, static, events = tiny
    static_logits, event_logits, features_s, features_d, _ = run(params, state, static, events)
    # Features in the original's units, for the sake of CKA's eps.
    return ckd_loss(static_logits, event_logits, features_s / 2, features_d / 2, g["labels"][:], params["theta"],
                    g["teacher_logits"][:], target=0.5, **dict(gamma=g.attrs["gamma"]) | options)[0]


def assert_golden_training_step(tiny, key, **options):
    g, params = tiny[:2]
    value, slopes = value_and_grad(total_loss)(params, tiny, **options)
    assert relative_error(value, g[key]["loss"][0]) < 1e-9
    expected = tree(g[key]["grad"])
    assert set(slopes) == set(expected)
    for name in expected:
        assert relative_error(slopes[name], expected[name]) < 1e-9, name


def test_eq07_golden_network_and_all_gradients(tiny):
    assert_golden_training_step(tiny, "baseline_code", **VARIANTS["baseline_code"])


@pytest.mark.parametrize("key", [key for key in VARIANTS if key != "baseline_code"])
def test_eq11_golden_network_and_all_gradients(tiny, key):
    assert_golden_training_step(tiny, key, **VARIANTS[key])


@pytest.mark.parametrize("wrong", [dict(reading="paper"), dict(beta=0.5), dict(gamma=-0.72), dict(lam=0.0),
                                   dict(temperature=1.0)], ids=str)
def test_eq11_wrong_networks_are_caught(tiny, wrong):
    with pytest.raises(AssertionError):
        assert_golden_training_step(tiny, "ckd_code_style_b1", **VARIANTS["ckd_code_style_b1"] | wrong)


def test_statistics_over_time_and_batch_are_another_network(tiny):
    """The golden networks take them per step, which is not our default."""
    g, params, state, static, events = tiny
    fused = VGGSNN(5, T=3, stages=((3,), (4,)), size=8)
    assert relative_error(run(params, state, static, events, fused)[0], g["logits_static"][:]) > 1e-2


def count(params):
    return sum(p.size for p in params.values())


def test_number_of_parameters_of_the_paper(rng):
    """101 classes, T = 10, width 1, with ten thetas."""
    params, _ = VGGSNN(101).init(rng)
    assert count(params) == 10_153_684
    assert params["theta"].tolist() == [1] * 10


@pytest.mark.parametrize("net", [TINY, VGGSNN(10, T=2, stages=STAGES["tiny"], width=0.0625, size=16),
                                 VGGSNN(3, T=1, stages=STAGES["full"], width=0.1, size=35)])
def test_trainable_numbers_are_known_without_making_them(net):
    assert net.trainable == count(net.init(onp.random.default_rng(0))[0])


def test_vggsnn_layers():
    assert VGGSNN(5).channels == [64, 128, 256, 256, 512, 512, 512, 512]
    assert VGGSNN(5, stages=STAGES["tiny"], width=0.25).channels == [16, 32, 64, 128]


SMALL = VGGSNN(4, T=2, stages=((3, 4), (4,)), size=8)


@pytest.fixture
def small(rng):
    frames = rng.poisson(0.7, (2, 3, 8, 8, 2)).astype(onp.float32)
    return *SMALL.init(rng), frames, frames[:, ::-1].copy()


def test_shapes_and_streams_share_all_but_the_head(small):
    params, state, frames, _ = small
    logits, features, statistics = SMALL.apply(params, frames, "event")
    after = update_state(state, statistics)
    assert logits.shape == (2, 3, 4) and features.shape == (2, 3, 4, 4, 4)
    assert set(after) == set(state) and any((after[name] != state[name]).any() for name in state)
    other, same, _ = SMALL.apply(params, frames, "static")
    assert (same == features).all() and (other != logits).all()


def test_apply_changes_nothing_it_is_given(small):
    params, state, frames, _ = small
    before = [a.copy() for a in (*params.values(), *state.values(), frames)]
    update_state(state, SMALL.apply(params, frames, "event")[2])
    SMALL.apply(params, frames, "event", state)
    assert all((a == b).all() for a, b in zip((*params.values(), *state.values(), frames), before))


def test_samples_do_not_mix_in_evaluation(small):
    params, state, frames, _ = small
    together = SMALL.apply(params, frames, "event", state)[0]
    alone = SMALL.apply(params, frames[:, 1:2], "event", state)[0]
    assert relative_error(alone, together[:, 1:2]) < 1e-5


def test_init_depends_on_the_generator_only():
    first, second, other = (SMALL.init(onp.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert all((first[name] == second[name]).all() for name in first)
    assert (first["conv0/w"] != other["conv0/w"]).all()
    assert abs(first["conv0/w"]).max() <= 1 / onp.sqrt(9 * 2)


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_float32_stays_float32_through_the_whole_model(small, reading):
    params, state, static, events = small

    def loss(params):
        static_logits, event_logits, features_s, features_d, after = run(params, state, static, events, SMALL)
        assert {r.dtype for r in after.values()} == {onp.dtype(onp.float32)}
        return ckd_loss(static_logits, event_logits, features_s, features_d, onp.array([0, 3, 1]), params["theta"],
                        onp.ones((3, 4), onp.float32), 0.7, reading=reading)[0]
    value, slopes = value_and_grad(loss)(params)
    assert value.dtype == onp.float32
    assert {name: slope.dtype for name, slope in slopes.items()} == dict.fromkeys(params, onp.dtype(onp.float32))


def test_teacher_shapes_precision_and_gradients(rng):
    teacher = Teacher(5, size=9, channels=(4, 6))
    params, state = teacher.init(rng)
    hsv = rng.random((3, 9, 9, 3)).astype(onp.float32)

    def loss(params):
        logits, _ = teacher.apply(params, hsv)
        return np.sum(cross_entropy(logits, onp.array([0, 4, 2])))
    logits, statistics = teacher.apply(params, hsv)
    after = update_state(state, statistics)
    assert logits.shape == (3, 5) and logits.dtype == onp.float32 and set(after) == set(state)
    slopes = grad(loss)(params)
    assert {slope.dtype for slope in slopes.values()} == {onp.dtype(onp.float32)} and slopes["conv0/w"].any()


def test_teacher_gradient_equals_difference_quotients(rng):
    teacher = Teacher(3, size=4, channels=(2, 3))
    params, _ = teacher.init(rng, onp.float64)
    hsv, direction = rng.random((2, 4, 4, 3)), rng.normal(size=params["conv0/w"].shape)

    def loss(step):
        moved = params | {"conv0/w": params["conv0/w"] + step * direction}
        return np.sum(cross_entropy(teacher.apply(moved, hsv)[0], onp.array([0, 2])))
    assert grad(loss)(0.0) == pytest.approx((loss(1e-6) - loss(-1e-6)) / 2e-6, rel=1e-4)


def test_prediction_is_the_largest_mean_over_time():
    """Class 1 wins on average, though class 0 has the highest single output and class 2 wins most steps."""
    logits = onp.array([[[9.0, 4, 0]], [[-9, 4, 5]], [[-9, 4, 5]]])
    assert predict(logits).tolist() == [1]


@pytest.mark.parametrize("arguments, message", [
    (dict(classes=1), "at least 2 classes"), (dict(T=0), "T >= 1 time steps, got 5 and 0"),
    (dict(size=8), "at least 16 x 16 pixels"), (dict(width=0.001), "a channel in every layer, got size 48 and width"),
])
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VGGSNN(**dict(classes=5) | arguments)


@pytest.mark.parametrize("shape", [(3, 3, 8, 8, 2), (2, 3, 9, 8, 2), (2, 3, 8, 8, 3), (2, 8, 8, 2)])
def test_frames_of_another_shape_are_refused(small, shape):
    params, *_ = small
    with pytest.raises(ValueError, match=r"frames \(2, B, 8, 8, 2\), got shape"):
        SMALL.apply(params, onp.zeros(shape, onp.float32), "event")


def test_a_batch_of_one_cannot_be_trained_on_per_step(rng):
    params, _ = TINY.init(rng)
    with pytest.raises(ValueError, match="a batch of one cannot be normalised"):
        TINY.apply(params, onp.zeros((3, 1, 8, 8, 2), onp.float32), "event")
