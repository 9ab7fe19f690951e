"""The networks, and the whole method on the golden tiny one: every gradient of both readings."""

import dataclasses
import inspect

import autograd.numpy as np
import numpy as onp
import pytest
from autograd import grad, value_and_grad
from conftest import relative_error

import ckd_ref
from ckd_ref import models
from ckd_ref.config import CHOICES, LEAST, Config
from ckd_ref.losses import ckd_loss, cross_entropy
from ckd_ref.models import STAGES, VGGSNN, Teacher, predict, update_state
from ckd_ref.neuron import Neuron, lif, reset
from ckd_ref.nn import avg_pool, batch_norm, conv2d, linear

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
    return {
        f"{ours}/{name}": arrays[f"{theirs}.bn.running_{name}"][:]
        for ours, theirs in BLOCKS.items() for name in ("mean", "var")
    }


def run(params, state, static, events, net=TINY):
    """Both streams through the shared network in training, the static one first."""
    static_logits, features_s, of_static = net.apply(params, static, "static")
    event_logits, features_d, of_events = net.apply(params, events, "event")
    state = update_state(update_state(state, of_static), of_events)
    return static_logits, event_logits, features_s, features_d, state


@pytest.fixture(scope="module")
def tiny(golden):
    """Golden group, parameters, state and the two inputs (T, B, H, W, 2)."""
    g = golden["tiny_vggsnn"]
    static, events = (g[name][:].transpose(1, 0, 3, 4, 2) for name in ("x_static", "x_dvs"))
    return g, tree(g["state_before"]), statistics(g["state_before"]), static, events


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def either_form(request):
    """The golden network in its fast and its plain form."""
    return dataclasses.replace(TINY, fused=request.param)


def test_golden_forward(tiny, either_form):
    """Logits, features (factor 2 as u = 2 m) and the running statistics after both streams."""
    g, params, state, static, events = tiny
    *outputs, after = run(params, state, static, events, either_form)
    static_logits, event_logits, features_s, features_d = outputs
    expected_s = g["feat_static"][:].transpose(0, 1, 3, 4, 2)  # (T, B, h, w, C)
    expected_d = g["feat_dvs"][:].transpose(0, 1, 3, 4, 2)
    assert relative_error(static_logits, g["logits_static"][:]) < 1e-9, "static logits differ"
    assert relative_error(event_logits, g["logits_dvs"][:]) < 1e-9, "event logits differ"
    assert relative_error(features_s / 2, expected_s) < 1e-9, "features of the images differ"
    assert relative_error(features_d / 2, expected_d) < 1e-9, "features of the events differ"
    for name, values in statistics(g["state_after"]).items():
        assert relative_error(after[name], values) < 1e-9, f"the running {name} differs"


def test_golden_evaluation(tiny, either_form):
    """With the statistics of the training step, from events only."""
    g, params, state, static, events = tiny
    *_, state = run(params, state, static, events, either_form)
    logits, _, no_statistics = either_form.apply(params, events, "event", state)
    expected = g["eval_logits_dvs"][:]
    assert relative_error(logits.mean(0), expected) < 1e-9, "the logits of the evaluation differ"
    assert (predict(logits) == expected.argmax(1)).all(), "other classes are predicted"
    assert no_statistics == {}, "evaluation takes no statistics"


VARIANTS = {
    "baseline_code": dict(beta=0.5, gamma=0.0, reading="baseline"),
    "ckd_code_style": dict(beta=0.5, reading="baseline"),
    "ckd_code_style_b1": dict(beta=1.0, reading="baseline"),
    "ckd_paper_literal": dict(beta=1.0, reading="paper"),
}


def total_loss(params, tiny, net, **options):
    g, _, state, static, events = tiny
    *outputs, _ = run(params, state, static, events, net)
    static_logits, event_logits, features_s, features_d = outputs
    options = dict(gamma=g.attrs["gamma"]) | options
    # Features in the original's units, for the sake of CKA's eps.
    total, _ = ckd_loss(
        static_logits, event_logits, features_s / 2, features_d / 2, g["labels"][:],
        params["theta"], g["teacher_logits"][:], target=0.5, **options,
    )
    return total


def assert_golden_training_step(tiny, key, net=TINY, **options):
    g, params = tiny[:2]
    value, slopes = value_and_grad(total_loss)(params, tiny, net, **options)
    assert relative_error(value, g[key]["loss"][0]) < 1e-9, f"{key}: the loss differs"
    expected = tree(g[key]["grad"])
    assert set(slopes) == set(expected), "other parameters than the original's"
    for name in expected:
        error = relative_error(slopes[name], expected[name])
        assert error < 1e-9, f"{key}: the gradient of {name} differs"


def test_eq07_golden_network_and_all_gradients(tiny, either_form):
    variant = VARIANTS["baseline_code"]
    assert_golden_training_step(tiny, "baseline_code", either_form, **variant)


@pytest.mark.parametrize("key", [key for key in VARIANTS if key != "baseline_code"])
def test_eq11_golden_network_and_all_gradients(tiny, either_form, key):
    assert_golden_training_step(tiny, key, either_form, **VARIANTS[key])


WRONG = [
    dict(reading="paper"),
    dict(beta=0.5),
    dict(gamma=-0.72),
    dict(lam=0.0),
    dict(temperature=1.0),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_eq11_wrong_networks_are_caught(tiny, wrong):
    key = "ckd_code_style_b1"
    with pytest.raises(AssertionError, match="differs"):
        assert_golden_training_step(tiny, key, **VARIANTS[key] | wrong)


def test_statistics_over_time_and_batch_are_another_network(tiny):
    """The golden networks take them per step, which is not our default."""
    g, params, state, static, events = tiny
    together = dataclasses.replace(TINY, per_step=False)
    static_logits, *_ = run(params, state, static, events, together)
    error = relative_error(static_logits, g["logits_static"][:])
    assert error > 1e-2, "the golden logits do not tell the two kinds of statistics apart"


# What the student is


def count(params):
    return sum(p.size for p in params.values())


def test_number_of_parameters_of_the_paper(rng):
    """101 classes, T = 10, width 1, with ten thetas."""
    params, _ = VGGSNN(101).init(rng)
    assert count(params) == 10_153_684, "VGGSNN has another number of parameters"
    assert params["theta"].tolist() == [1] * 10, "theta starts at 1 in each of ten steps"


@pytest.mark.parametrize("net", [
    TINY,
    VGGSNN(10, T=2, stages=STAGES["tiny"], width=0.0625, size=16),
    VGGSNN(3, T=1, stages=STAGES["full"], width=0.1, size=35),
])
def test_trainable_numbers_are_known_without_making_them(net):
    params, _ = net.init(onp.random.default_rng(0))
    assert net.trainable == count(params), "the number announced is not the number made"


def test_vggsnn_is_the_only_student():
    """The paper's second network, a spiking ResNet-18, is not here yet."""
    assert list(STAGES) == ["full", "tiny"], "VGGSNN comes in two sizes"
    assert CHOICES["network"] == tuple(STAGES), "a run can have these networks and no other"
    networks = [
        name for name, value in vars(models).items()
        if inspect.isclass(value) and value.__module__ == models.__name__
    ]
    assert networks == ["VGGSNN", "Teacher"], "models.py has another network"
    resnets = [name for name in ckd_ref.__all__ if "resnet" in name.lower()]
    assert not resnets, "a second student is public: correct the Deviation in VGGSNN's docstring"


def test_vggsnn_layers():
    full, tiny = VGGSNN(5), VGGSNN(5, stages=STAGES["tiny"], width=0.25)
    assert full.channels == [64, 128, 256, 256, 512, 512, 512, 512], "the channels of the paper's"
    assert full.pools == [1, 2, 1, 2, 1, 2, 1, 2], "pooling ends each of four stages"
    assert tiny.channels == [16, 32, 64, 128], "a quarter of the channels of the tiny network"
    assert tiny.pools == [2, 2, 2, 2], "pooling after each convolution of the tiny network"


SMALL = VGGSNN(4, T=2, stages=((3, 4), (4,)), size=8)


@pytest.fixture
def small(rng):
    """Parameters, state and the frames of two streams."""
    frames = rng.poisson(0.7, (2, 3, 8, 8, 2)).astype(onp.float32)
    return *SMALL.init(rng), frames, frames[:, ::-1].copy()


def test_shapes_and_streams_share_all_but_the_head(small):
    params, state, frames, _ = small
    logits, features, new = SMALL.apply(params, frames, "event")
    after = update_state(state, new)
    assert logits.shape == (2, 3, 4), "expected logits (T, B, K)"
    assert features.shape == (2, 3, 4, 4, 4), "expected features (T, B, h, w, C) before pooling"
    assert set(after) == set(state), "the state has other statistics than before"
    assert any((after[name] != state[name]).any() for name in state), "the state did not change"
    other, same, _ = SMALL.apply(params, frames, "static")
    assert (same == features).all(), "the same frames have other features in the other stream"
    assert (other != logits).all(), "the streams share their head"


def test_apply_changes_nothing_it_is_given(small):
    params, state, frames, _ = small
    given = [*params.values(), *state.values(), frames]
    before = [a.copy() for a in given]
    update_state(state, SMALL.apply(params, frames, "event")[2])
    SMALL.apply(params, frames, "event", state)
    assert all((a == b).all() for a, b in zip(given, before)), "an argument was changed in place"


def test_samples_do_not_mix_in_evaluation(small):
    params, state, frames, _ = small
    together = SMALL.apply(params, frames, "event", state)[0]
    alone = SMALL.apply(params, frames[:, 1:2], "event", state)[0]
    assert relative_error(alone, together[:, 1:2]) < 1e-5, "a sample's logits depend on the others"


def test_init_depends_on_the_generator_only():
    first, same, other = (SMALL.init(onp.random.default_rng(seed))[0] for seed in (1, 1, 2))
    repeated = all((first[name] == same[name]).all() for name in first)
    assert repeated, "the same generator gave other parameters"
    assert (first["conv0/w"] != other["conv0/w"]).all(), "another generator gave the same filters"
    assert abs(first["conv0/w"]).max() <= 1 / onp.sqrt(9 * 2), "the bound is 1 / sqrt(fan-in)"


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_float32_stays_float32_through_the_whole_model(small, reading):
    params, state, static, events = small
    single = onp.dtype(onp.float32)

    def loss(params):
        *outputs, after = run(params, state, static, events, SMALL)
        assert {r.dtype for r in after.values()} == {single}, "the state left float32"
        labels, teacher_logits = onp.array([0, 3, 1]), onp.ones((3, 4), onp.float32)
        return ckd_loss(
            *outputs, labels, params["theta"], teacher_logits, 0.7, reading=reading
        )[0]

    value, slopes = value_and_grad(loss)(params)
    dtypes = {name: slope.dtype for name, slope in slopes.items()}
    assert value.dtype == single, "the loss left float32"
    assert dtypes == dict.fromkeys(params, single), "a gradient left float32"


# The state


def test_update_state_takes_the_streams_in_their_order():
    """By hand, with momentum 0.1: the later stream weighs more."""
    state = {"conv0/mean": onp.array([1.0]), "conv0/var": onp.array([2.0])}
    static = {"conv0": (onp.array([[3.0]]), onp.array([[5.0]]))}
    events = {"conv0": (onp.array([[-4.0]]), onp.array([[0.5]]))}
    after = update_state(update_state(state, static), events)
    other = update_state(update_state(state, events), static)
    assert after["conv0/mean"] == 0.9 * (0.9 * 1 + 0.1 * 3) + 0.1 * -4, "the mean by hand"
    assert after["conv0/var"] == 0.9 * (0.9 * 2 + 0.1 * 5) + 0.1 * 0.5, "the variance by hand"
    for name in state:
        assert other[name] != after[name], f"{name} does not depend on the order of the streams"
    assert state["conv0/mean"] == 1 and state["conv0/var"] == 2, "the old state was changed"


def test_update_state_takes_the_steps_of_a_stream_in_their_order():
    state = {"conv0/mean": onp.array([1.0]), "conv0/var": onp.array([2.0])}
    steps = {"conv0": (onp.array([[3.0], [-4.0]]), onp.array([[5.0], [0.5]]))}
    after = update_state(state, steps)
    assert after["conv0/mean"] == 0.9 * (0.9 * 1 + 0.1 * 3) + 0.1 * -4, "the mean by hand"
    assert after["conv0/var"] == 0.9 * (0.9 * 2 + 0.1 * 5) + 0.1 * 0.5, "the variance by hand"


def test_update_state_leaves_the_other_layers_alone():
    state = {
        "conv0/mean": onp.zeros(1), "conv0/var": onp.ones(1),
        "conv1/mean": onp.zeros(2), "conv1/var": onp.ones(2),
    }
    after = update_state(state, {"conv1": (onp.ones((1, 2)), onp.zeros((1, 2)))})
    assert after["conv0/mean"] == 0 and after["conv0/var"] == 1, "conv0 had no new statistics"
    assert after["conv1/mean"].tolist() == [0.1, 0.1], "the mean of conv1 moves by a tenth"
    assert after["conv1/var"].tolist() == [0.9, 0.9], "the variance of conv1 moves by a tenth"


# The neurons

SETTINGS = {
    "tau": dict(tau=0.3),
    "threshold": dict(v_th=0.7),
    "surrogate": dict(surrogate="atan"),
    "its width": dict(width=0.8),
    "reset not detached": dict(detach_reset=False),
}
FORWARD = ("tau", "threshold")
"""Those that change spikes; the others change gradients only."""

ONE_LAYER = VGGSNN(4, T=3, stages=((5,),), size=6)


def one_layer(params, frames, **settings):
    """The network of one layer, written out: logits and features with these settings of `lif`."""
    current, _ = batch_norm(
        conv2d(frames, params["conv0/w"]), params["conv0/scale"], params["conv0/shift"]
    )
    spikes, potentials = lif(current, **settings)              # (T, B, 6, 6, 5)
    flat = np.reshape(avg_pool(spikes, 2), (3, 4, -1))         # (T, B, 3 * 3 * 5)
    logits = linear(flat, params["event/w"], params["event/b"])
    return logits, reset(potentials, settings.get("v_th", 1.0))


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_neurons_reach_the_student(rng, name, fused):
    settings = SETTINGS[name]
    net = dataclasses.replace(ONE_LAYER, neuron=Neuron(**settings), fused=fused)
    params, _ = net.init(rng, onp.float64)
    frames = rng.poisson(0.7, (3, 4, 6, 6, 2)).astype(float)
    g_logits, g_features = rng.normal(size=(3, 4, 4)), rng.normal(size=(3, 4, 6, 6, 5))

    def slope(compute):
        def scalar(w):
            logits, features = compute(params | {"conv0/w": w})
            return np.sum(g_logits * logits) + np.sum(g_features * features)
        return grad(scalar)(params["conv0/w"])

    def student(params):
        return net.apply(params, frames, "event")[:2]

    def written_out(params):
        return one_layer(params, frames, **settings)

    def default(params):
        return one_layer(params, frames)

    logits, features = student(params)
    expected, expected_features = written_out(params)
    default_logits, _ = default(params)
    assert relative_error(logits, expected) < 1e-12, "the logits are not those of this setting"
    error = relative_error(features, expected_features)
    assert error < 1e-12, "the features are not those of this setting"
    error = relative_error(slope(student), slope(written_out))
    assert error < 1e-10, "the gradient is not that of this setting"
    changed = relative_error(logits, default_logits) > 1e-3
    assert changed == (name in FORWARD), "spikes change with tau and v_th, and with nothing else"
    error = relative_error(slope(student), slope(default))
    assert error > 1e-3, "the gradient is that of the default neuron"


CONFIGURED = [
    (dict(network="full"), dict(stages=STAGES["full"])),
    (dict(network="tiny"), dict(stages=STAGES["tiny"])),
    (dict(width=0.5), dict(width=0.5)),
    (dict(T=4), dict(T=4)),
    (dict(size=32), dict(size=32)),
    (dict(per_step=True), dict(per_step=True)),
    (dict(tau=0.3), dict(neuron=Neuron(tau=0.3))),
    (dict(v_th=0.7), dict(neuron=Neuron(v_th=0.7))),
    (dict(surrogate="atan"), dict(neuron=Neuron(surrogate="atan"))),
    (dict(surrogate_width=0.8), dict(neuron=Neuron(width=0.8))),
    (dict(detach_reset=False), dict(neuron=Neuron(detach_reset=False))),
    (
        dict(tau=0.3, v_th=0.7, surrogate="atan", surrogate_width=0.8, detach_reset=False),
        dict(neuron=Neuron(0.3, 0.7, "atan", 0.8, False)),
    ),
]


@pytest.mark.parametrize("options, expected", CONFIGURED, ids=str)
def test_the_configuration_reaches_the_student(options, expected):
    default = Config().model(7)
    net = Config(**options).model(7)
    assert net == dataclasses.replace(default, **expected), f"{options} made another network"


def test_the_default_configuration_is_a_small_student():
    expected = VGGSNN(7, T=6, stages=STAGES["tiny"], width=0.125, size=48)
    assert Config().model(7) == expected, "the default configuration made another network"
    assert expected.neuron == Neuron() and not expected.per_step, "the default neuron, over time"


def test_an_impossible_neuron_is_refused_by_the_configuration():
    with pytest.raises(ValueError, match=r"leak factor tau in \[0, 1\], got 1.5"):
        Config(tau=1.5)
    with pytest.raises(ValueError, match="surrogate width > 0, got 0"):
        Config(surrogate_width=0)


# The teacher


def test_teacher_shapes_precision_and_gradients(rng):
    teacher = Teacher(5, size=9, channels=(4, 6))
    params, state = teacher.init(rng)
    hsv = rng.random((3, 9, 9, 3)).astype(onp.float32)

    def loss(params):
        logits, _ = teacher.apply(params, hsv)
        return np.sum(cross_entropy(logits, onp.array([0, 4, 2])))

    logits, new = teacher.apply(params, hsv)
    assert logits.shape == (3, 5), "expected logits (B, K)"
    assert logits.dtype == onp.float32, "the logits left float32"
    assert set(update_state(state, new)) == set(state), "the state has other statistics"
    slopes = grad(loss)(params)
    dtypes = {slope.dtype for slope in slopes.values()}
    assert dtypes == {onp.dtype(onp.float32)}, "a gradient left float32"
    assert slopes["conv0/w"].any(), "no gradient reaches the first layer"


def test_teacher_gradient_equals_difference_quotients(rng):
    teacher = Teacher(3, size=4, channels=(2, 3))
    params, _ = teacher.init(rng, onp.float64)
    hsv, direction = rng.random((2, 4, 4, 3)), rng.normal(size=params["conv0/w"].shape)

    def loss(step):
        moved = params | {"conv0/w": params["conv0/w"] + step * direction}
        logits, _ = teacher.apply(moved, hsv)
        return np.sum(cross_entropy(logits, onp.array([0, 2])))

    quotient = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert grad(loss)(0.0) == pytest.approx(quotient, rel=1e-4), "it is not the loss's slope"


def test_prediction_is_the_largest_mean_over_time():
    """Class 1 wins on average, though 0 has the highest single output and 2 wins most steps."""
    logits = onp.array([[[9.0, 4, 0]], [[-9, 4, 5]], [[-9, 4, 5]]])
    assert predict(logits).tolist() == [1], "the class of the largest mean over time is 1"


# What is refused


@pytest.mark.parametrize("arguments, message", [
    (dict(classes=1), "at least 2 classes"),
    (dict(T=0), "T >= 1 time steps, got 5 and 0"),
    (dict(size=8), "at least 16 x 16 pixels"),
    (dict(width=0.001), "a channel in every layer, got size 48 and width"),
])
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VGGSNN(**dict(classes=5) | arguments)


@pytest.mark.parametrize("shape", [
    (3, 3, 8, 8, 2),
    (2, 3, 9, 8, 2),
    (2, 3, 8, 8, 3),
    (2, 8, 8, 2),
])
def test_frames_of_another_shape_are_refused(small, shape):
    params, *_ = small
    with pytest.raises(ValueError, match=r"frames \(2, B, 8, 8, 2\), got shape"):
        SMALL.apply(params, onp.zeros(shape, onp.float32), "event")


def test_a_batch_of_one_cannot_be_trained_on_per_step(rng, either_form):
    params, _ = either_form.init(rng)
    with pytest.raises(ValueError, match="a batch of one cannot be normalised"):
        either_form.apply(params, onp.zeros((3, 1, 8, 8, 2), onp.float32), "event")


def test_the_teacher_may_have_any_number_of_layers(rng):
    for channels in ((4,), (4, 6), (4, 6, 8)):
        params, state = Teacher(3, size=16, channels=channels).init(rng)
        side = 16 // 2 ** len(channels)
        shape = params["head/w"].shape
        assert shape == (side**2 * channels[-1], 3), f"{len(channels)} layers: head {shape}"


def test_one_channel_is_enough(rng):
    net = VGGSNN(2, T=1, stages=((1,), (2,)), size=4)
    assert net.init(rng)[0]["conv0/w"].shape == (3, 3, 2, 1)


@pytest.mark.parametrize("name", LEAST)
def test_the_least_of_every_setting_is_allowed_and_less_is_not(name):
    assert getattr(Config(**{name: LEAST[name]}), name) == LEAST[name]
    with pytest.raises(ValueError, match=f"{name} >= {LEAST[name]}"):
        Config(**{name: LEAST[name] - 1})


def test_what_every_setting_must_at_least_be():
    assert LEAST == dict(
        T=1, epochs=1, batches=1, batch=2, warmup=0, padding=0, seed=0, static_per_class=1,
        events_per_class=1,
    )
