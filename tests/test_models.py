"""The networks, and the whole method on the golden tiny ones: every gradient of both readings."""

import dataclasses
import typing

import autograd.numpy as np
import numpy as onp
import pytest
from autograd import grad, value_and_grad
from conftest import relative_error

from ckd_ref import models
from ckd_ref.config import CHOICES, LEAST, Config
from ckd_ref.losses import ckd_loss, cross_entropy
from ckd_ref.models import LAYERS, STAGES, VGGSNN, SpikingResNet18, Teacher, predict, update_state
from ckd_ref.neuron import Neuron, lif, reset
from ckd_ref.nn import avg_pool, batch_norm, conv2d, linear

TINY = VGGSNN(5, T=3, stages=((3,), (4,)), size=8, per_step=True)
"""The first network of the golden file: two blocks of convolution, batch norm, LIF and pooling."""

TINY_RESNET = SpikingResNet18(4, T=2, width=3 / 64, size=16, layers=(1, 1, 1, 1), per_step=True)
"""The second: four residual blocks of 3, 6, 12 and 24 channels."""


class Original(typing.NamedTuple):
    """A network of the golden file, and what the original calls its layers.

    `features_unit` is what the original's features have to be multiplied by: potentials are
    u = 2 m, but the residual network compares numbers that are no potentials.
    """

    net: VGGSNN | SpikingResNet18
    filters: dict
    norms: dict
    heads: dict
    features_unit: int


ORIGINALS = {
    "tiny_vggsnn": Original(
        TINY,
        filters={"conv0": "feature.0.conv", "conv1": "feature.2.conv"},
        norms={"conv0": "feature.0.bn", "conv1": "feature.2.bn"},
        heads={"static": "rgb_fc.1", "event": "dvs_fc.1"},
        features_unit=2,
    ),
    "tiny_resnet": Original(
        TINY_RESNET,
        filters={"conv0": "conv1"}
        | {f"block{k}/conv{n}": f"layer{k + 1}.0.conv{n + 1}" for k in range(4) for n in (0, 1)}
        | {f"block{k}/shortcut": f"layer{k + 1}.0.downsample.2" for k in (1, 2, 3)},
        norms={"norm": "bn1"}
        | {f"block{k}/conv{n}": f"layer{k + 1}.0.bn{n + 1}" for k in range(4) for n in (0, 1)}
        | {f"block{k}/shortcut": f"layer{k + 1}.0.downsample.0" for k in (1, 2, 3)},
        heads={"static": "rgb_fc", "event": "dvs_fc"},
        features_unit=1,
    ),
}


def tree(original, arrays):
    """The original's parameters, or their gradients, as ours: channel last, theta in one vector."""
    steps = range(original.net.T)
    params = {"theta": onp.concatenate([arrays[f"coefficient.{t}"][:] for t in steps])}
    for ours, theirs in original.filters.items():
        params[f"{ours}/w"] = arrays[f"{theirs}.weight"][:].transpose(2, 3, 1, 0)
    for ours, theirs in original.norms.items():
        params[f"{ours}/scale"] = arrays[f"{theirs}.weight"][:]
        params[f"{ours}/shift"] = arrays[f"{theirs}.bias"][:]
    for ours, theirs in original.heads.items():
        w = arrays[f"{theirs}.weight"][:]                      # (K, C h w)
        C = original.net.channels[-1]
        side = round((w.shape[1] // C) ** 0.5)
        w = w.reshape(-1, C, side, side).transpose(2, 3, 1, 0)             # (h, w, C, K)
        params[f"{ours}/w"] = w.reshape(-1, original.net.classes)          # (h w C, K)
        params[f"{ours}/b"] = arrays[f"{theirs}.bias"][:]
    return params


def statistics(original, arrays):
    return {
        f"{ours}/{name}": arrays[f"{theirs}.running_{name}"][:]
        for ours, theirs in original.norms.items() for name in ("mean", "var")
    }


def channel_last(features):
    """(T, B, C, h, w) to (T, B, h, w, C); (T, B, D) as it is."""
    return onp.moveaxis(features, 2, -1)


def run(net, params, state, static, events):
    """Both streams through the shared network in training, the static one first."""
    static_logits, features_s, of_static = net.apply(params, static, "static")
    event_logits, features_d, of_events = net.apply(params, events, "event")
    state = update_state(update_state(state, of_static), of_events)
    return static_logits, event_logits, features_s, features_d, state


class Golden(typing.NamedTuple):
    """A group of the golden file, its network, parameters, state and inputs (T, B, H, W, 2)."""

    g: typing.Any
    original: Original
    net: VGGSNN | SpikingResNet18
    params: dict
    state: dict
    static: onp.ndarray
    events: onp.ndarray


@pytest.fixture(params=ORIGINALS)
def tiny(golden, request):
    """Both networks in their fast form."""
    g, original = golden[request.param], ORIGINALS[request.param]
    static, events = (g[name][:].transpose(1, 0, 3, 4, 2) for name in ("x_static", "x_dvs"))
    before = g["state_before"]
    params, state = tree(original, before), statistics(original, before)
    return Golden(g, original, original.net, params, state, static, events)


@pytest.fixture(params=[True, False], ids=["fused", "plain"])
def either_form(tiny, request):
    """Both networks in their fast and their plain form."""
    return tiny._replace(net=dataclasses.replace(tiny.net, fused=request.param))


def assert_golden_forward(tiny):
    g, original, *inputs = tiny
    *outputs, after = run(*inputs)
    static_logits, event_logits, features_s, features_d = outputs
    unit = original.features_unit
    expected_s, expected_d = (channel_last(g[name][:]) for name in ("feat_static", "feat_dvs"))
    assert relative_error(static_logits, g["logits_static"][:]) < 1e-9, "static logits differ"
    assert relative_error(event_logits, g["logits_dvs"][:]) < 1e-9, "event logits differ"
    assert relative_error(features_s / unit, expected_s) < 1e-9, "features of the images differ"
    assert relative_error(features_d / unit, expected_d) < 1e-9, "features of the events differ"
    expected = statistics(original, g["state_after"])
    assert set(after) == set(expected), "other statistics than the original's"
    for name, values in expected.items():
        assert relative_error(after[name], values) < 1e-9, f"the running {name} differs"


@pytest.mark.parametrize("network", [VGGSNN, SpikingResNet18])
@pytest.mark.parametrize("width", [0.0, -1.0, np.nan, np.inf])
def test_a_width_that_is_none_is_refused(network, width):
    with pytest.raises(ValueError, match="expected a finite width > 0, got"):
        network(3, width=width)


def test_golden_forward(either_form):
    """Logits, features and the running statistics after both streams."""
    assert_golden_forward(either_form)


def test_golden_evaluation(either_form):
    """With the statistics of the training step, from events only."""
    g, _, net, params, state, static, events = either_form
    *_, state = run(net, params, state, static, events)
    logits, _, no_statistics = net.apply(params, events, "event", state)
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


def total_loss(params, tiny, **options):
    g, original, net, _, *inputs = tiny
    *outputs, _ = run(net, params, *inputs)
    static_logits, event_logits, features_s, features_d = outputs
    options = dict(gamma=g.attrs["gamma"]) | options
    # Features in the original's units, for the sake of CKA's eps.
    unit = original.features_unit
    total, _ = ckd_loss(
        static_logits, event_logits, features_s / unit, features_d / unit, g["labels"][:],
        params["theta"], g["teacher_logits"][:], target=0.5, **options,
    )
    return total


def assert_golden_training_step(tiny, key, **options):
    case = tiny.g[key]
    value, slopes = value_and_grad(total_loss)(tiny.params, tiny, **options)
    assert relative_error(value, case["loss"][0]) < 1e-9, f"{key}: the loss differs"
    expected = tree(tiny.original, case["grad"])
    assert set(slopes) == set(expected), "other parameters than the original's"
    for name in expected:
        error = relative_error(slopes[name], expected[name])
        assert error < 1e-9, f"{key}: the gradient of {name} differs"


def test_eq07_golden_network_and_all_gradients(either_form):
    assert_golden_training_step(either_form, "baseline_code", **VARIANTS["baseline_code"])


@pytest.mark.parametrize("key", [key for key in VARIANTS if key != "baseline_code"])
def test_eq11_golden_network_and_all_gradients(either_form, key):
    assert_golden_training_step(either_form, key, **VARIANTS[key])


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
    g, _, net, *inputs = tiny
    static_logits, *_ = run(dataclasses.replace(net, per_step=False), *inputs)
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
    TINY_RESNET,
    SpikingResNet18(3, width=0.07, layers=(3, 1, 2)),
])
def test_trainable_numbers_are_known_without_making_them(net):
    params, _ = net.init(onp.random.default_rng(0))
    assert net.trainable == count(params), "the number announced is not the number made"


def test_number_of_parameters_of_the_resnet(rng):
    """20 classes, T = 6, width 1, with six thetas: the paper's student of CEP-DVS."""
    net = SpikingResNet18(20)
    params, _ = net.init(rng)
    assert count(params) == 11_187_886, "the spiking ResNet-18 has another number of parameters"
    assert params["theta"].tolist() == [1] * 6, "theta starts at 1 in each of six steps"


def test_a_run_can_have_either_student_in_two_sizes():
    assert CHOICES["network"] == ("full", "tiny", "resnet18", "tiny_resnet")


def test_vggsnn_layers():
    full, tiny = VGGSNN(5), VGGSNN(5, stages=STAGES["tiny"], width=0.25)
    assert full.channels == [64, 128, 256, 256, 512, 512, 512, 512], "the channels of the paper's"
    assert full.pools == [1, 2, 1, 2, 1, 2, 1, 2], "pooling ends each of four stages"
    assert tiny.channels == [16, 32, 64, 128], "a quarter of the channels of the tiny network"
    assert tiny.pools == [2, 2, 2, 2], "pooling after each convolution of the tiny network"


def test_resnet_layers():
    """By hand: two blocks in each of four stages, the shape changes in three of the eight."""
    net = SpikingResNet18(5)
    convolutions = net.convolutions
    assert net.channels == [64, 128, 256, 512], "the channels of the paper's"
    assert len(convolutions) == 8 * 2 + 3, "two filters in each block, and three shortcuts"
    expected = {
        "block0/conv0": (3, 64, 64, 1), "block0/conv1": (3, 64, 64, 1),
        "block2/conv0": (3, 64, 128, 2), "block2/conv1": (3, 128, 128, 1),
        "block2/shortcut": (1, 64, 128, 2), "block3/conv0": (3, 128, 128, 1),
        "block4/shortcut": (1, 128, 256, 2), "block6/shortcut": (1, 256, 512, 2),
        "block7/conv1": (3, 512, 512, 1),
    }
    for name, (k, C, K, stride) in expected.items():
        assert convolutions[name] == (k, C, K, stride), f"{name}: {convolutions[name]}"
    assert SpikingResNet18(5, width=0.125).channels == [8, 16, 32, 64], "an eighth of the channels"


@pytest.mark.parametrize("size", [8, 13])
def test_the_sides_are_halved_and_rounded_up(rng, monkeypatch, size):
    net = SpikingResNet18(3, T=1, width=1 / 64, size=size, layers=(1, 1, 1))
    pooled = []
    monkeypatch.setattr(models, "avg_pool", lambda x, side: pooled.append(x) or avg_pool(x, side))
    params, _ = net.init(rng)
    net.apply(params, onp.ones((1, 2, size, size, 2), onp.float32), "event")
    side = -(-size // 4)
    assert [x.shape for x in pooled] == [(1, 2, side, side, 4)], "before the mean over the image"


def test_a_block_without_change_passes_its_input_on(rng):
    """With filters of zeros, the pixels' normalised means of the first convolution are left."""
    net = SpikingResNet18(3, T=2, width=1 / 16, size=6, layers=(2,))
    params, state = net.init(rng, onp.float64)
    params |= {name: 0 * p for name, p in params.items() if name.startswith("block")}
    frames = rng.poisson(0.7, (2, 3, 6, 6, 2)).astype(float)
    _, features, _ = net.apply(params, frames, "event", state)
    currents = conv2d(frames, params["conv0/w"])               # (T, B, 6, 6, 4)
    expected = currents.mean(axis=(2, 3)) / onp.sqrt(1 + 1e-5)
    assert relative_error(features, expected) < 1e-12, "the blocks change what they must not"


WRONG_BLOCKS = {
    "no neurons": lambda x, w, scale, shift, running, per_step, neuron, stride: (
        conv2d(batch_norm(x, scale, shift, running, per_step)[0], w, stride), None
    ),
    "neurons before the norm": lambda x, w, scale, shift, running, per_step, neuron, stride: (
        conv2d(batch_norm(lif(x)[0], scale, shift, running, per_step)[0], w, stride), None
    ),
    "no shortcut": lambda x, w, *rest: (
        models.preactivation(x, w if w.shape[0] == 3 else 0 * w, *rest)
    ),
    "a shortcut of the odd rows": lambda x, w, *rest: (
        models.preactivation(onp.roll(x, -(w.shape[0] == 1), axis=2), w, *rest)
    ),
}


@pytest.mark.parametrize("name", WRONG_BLOCKS)
def test_a_wrong_block_is_caught(golden, monkeypatch, name):
    g, original = golden["tiny_resnet"], ORIGINALS["tiny_resnet"]
    params = tree(original, g["state_before"])
    frames = g["x_static"][:].transpose(1, 0, 3, 4, 2)
    expected = g["logits_static"][:]
    right, *_ = TINY_RESNET.apply(params, frames, "static")
    assert relative_error(right, expected) < 1e-9, "the logits of the right block differ"
    monkeypatch.setattr(models, "fused_preactivation", WRONG_BLOCKS[name])
    wrong, *_ = TINY_RESNET.apply(params, frames, "static")
    assert relative_error(wrong, expected) > 1e-3, f"nobody notices: {name}"


SMALL = VGGSNN(4, T=2, stages=((3, 4), (4,)), size=8)
SMALL_RESNET = SpikingResNet18(4, T=2, width=1 / 16, size=8, layers=(1, 2))
FEATURES = {SMALL: (2, 3, 4, 4, 4), SMALL_RESNET: (2, 3, 8)}
"""Of each small student: (T, B, h, w, C) before pooling, and (T, B, D) after it."""


@pytest.fixture(params=FEATURES, ids=["vggsnn", "resnet"])
def small(rng, request):
    """A network, its parameters and state, and the frames of two streams."""
    net = request.param
    frames = rng.poisson(0.7, (2, 3, 8, 8, 2)).astype(onp.float32)
    return net, *net.init(rng), frames, frames[:, ::-1].copy()


def test_shapes_and_streams_share_all_but_the_head(small):
    net, params, state, frames, _ = small
    logits, features, new = net.apply(params, frames, "event")
    after = update_state(state, new)
    assert logits.shape == (2, 3, 4), "expected logits (T, B, K)"
    assert features.shape == FEATURES[net], "the features have another shape"
    assert set(after) == set(state), "the state has other statistics than before"
    assert any((after[name] != state[name]).any() for name in state), "the state did not change"
    other, same, _ = net.apply(params, frames, "static")
    assert (same == features).all(), "the same frames have other features in the other stream"
    assert (other != logits).all(), "the streams share their head"


def test_apply_changes_nothing_it_is_given(small):
    net, params, state, frames, _ = small
    given = [*params.values(), *state.values(), frames]
    before = [a.copy() for a in given]
    update_state(state, net.apply(params, frames, "event")[2])
    net.apply(params, frames, "event", state)
    assert all((a == b).all() for a, b in zip(given, before)), "an argument was changed in place"


def test_samples_do_not_mix_in_evaluation(small):
    net, params, state, frames, _ = small
    together = net.apply(params, frames, "event", state)[0]
    alone = net.apply(params, frames[:, 1:2], "event", state)[0]
    assert relative_error(alone, together[:, 1:2]) < 1e-5, "a sample's logits depend on the others"


@pytest.mark.parametrize("net", FEATURES, ids=["vggsnn", "resnet"])
def test_init_depends_on_the_generator_only(net):
    first, same, other = (net.init(onp.random.default_rng(seed))[0] for seed in (1, 1, 2))
    repeated = all((first[name] == same[name]).all() for name in first)
    assert repeated, "the same generator gave other parameters"
    assert (first["conv0/w"] != other["conv0/w"]).all(), "another generator gave the same filters"


def test_initial_filters_and_heads_keep_to_their_bound(rng):
    for net in FEATURES:
        params, _ = net.init(rng)
        assert abs(params["event/w"]).max() <= 1 / onp.sqrt(len(params["event/w"])), "the heads"
    params, _ = SMALL.init(rng)
    assert abs(params["conv0/w"]).max() <= 1 / onp.sqrt(9 * 2), "the bound is 1 / sqrt(fan-in)"


def test_filters_of_the_resnet_start_as_in_the_baseline(rng):
    """Variance 2 / (k k K), not 2 / (k k C): the two differ where a block changes the shape."""
    net = SpikingResNet18(3, width=0.5)
    params, _ = net.init(rng)
    for name, (k, C, K, _) in net.convolutions.items():
        w = params[f"{name}/w"]
        assert w.shape == (k, k, C, K), f"{name} has another shape"
        error = abs(w.std() / onp.sqrt(2 / (k**2 * K)) - 1)
        assert error < 0.05, f"{name} starts with a standard deviation of {w.std()}"
        assert abs(w.mean()) < 0.05 * w.std(), f"{name} starts with a mean of {w.mean()}"


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_float32_stays_float32_through_the_whole_model(small, reading):
    net, params, state, static, events = small
    single = onp.dtype(onp.float32)

    def loss(params):
        *outputs, after = run(net, params, state, static, events)
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


@pytest.mark.parametrize("network", LAYERS)
def test_the_configuration_reaches_the_residual_student(network):
    config = Config(network=network, T=4, width=0.25, size=32, per_step=True, tau=0.3)
    expected = SpikingResNet18(
        7, T=4, width=0.25, size=32, layers=LAYERS[network], per_step=True, neuron=Neuron(tau=0.3)
    )
    assert config.model(7) == expected, f"{network} is another network"


def test_the_default_configuration_is_a_small_student():
    expected = VGGSNN(7, T=6, stages=STAGES["tiny"], width=0.125, size=48)
    assert Config().model(7) == expected, "the default configuration made another network"
    assert expected.neuron == Neuron() and not expected.per_step, "the default neuron, over time"


def test_an_impossible_neuron_is_refused_by_the_configuration():
    with pytest.raises(ValueError, match="threshold v_th, got NaN, above which nothing fires"):
        Neuron(v_th=float("nan"))
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


@pytest.mark.parametrize("arguments, message", [
    (dict(classes=1), "at least 2 classes"),
    (dict(T=0), "T >= 1 time steps, got 5 and 0"),
    (dict(size=7), "at least 8 x 8 pixels"),
    (dict(width=0.01), "a channel in every layer, got size 48 and width"),
    (dict(layers=()), r"a block or more in each stage, got layers \(\)"),
    (dict(layers=(2, 0)), r"a block or more in each stage, got layers \(2, 0\)"),
])
def test_impossible_residual_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpikingResNet18(**dict(classes=5) | arguments)


@pytest.mark.parametrize("shape", [
    (3, 3, 8, 8, 2),
    (2, 3, 9, 8, 2),
    (2, 3, 8, 8, 3),
    (2, 8, 8, 2),
])
def test_frames_of_another_shape_are_refused(small, shape):
    net, params, *_ = small
    with pytest.raises(ValueError, match=r"frames \(2, B, 8, 8, 2\), got shape"):
        net.apply(params, onp.zeros(shape, onp.float32), "event")


def test_a_batch_of_one_cannot_be_trained_on_per_step(either_form):
    with pytest.raises(ValueError, match="a batch of one cannot be normalised"):
        either_form.net.apply(either_form.params, either_form.events[:, :1], "event")


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
        T=1, epochs=1, batches=1, batch=2, warmup=0, padding=0, rotation=0, seed=0,
        static_per_class=1, events_per_class=1, decay=0, alpha=0, beta=0, kd_weight=0, lam=0,
    )


@pytest.mark.parametrize("name", ["width", "rate", "temperature", "slope"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_what_has_to_be_positive(name, value):
    with pytest.raises(ValueError, match=f"expected {name} > 0, got {value}"):
        Config(**{name: value})


@pytest.mark.parametrize("name, most", [("lam", 1), ("rotation", 180)])
def test_what_a_setting_can_at_most_be(name, most):
    assert getattr(Config(**{name: most}), name) == most
    with pytest.raises(ValueError, match=f"expected {name} <= {most}, got {most + 1}"):
        Config(**{name: most + 1})
