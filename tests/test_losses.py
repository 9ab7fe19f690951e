"""The losses, Eqs. (5) to (7), (9) and (11), and the alternatives of Table II."""

import re

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from autograd import grad
from autograd.test_util import check_grads
from conftest import golden_keys, relative_error
from scipy.special import expit, log_softmax, logsumexp, rel_entr, softmax
from scipy.stats import entropy

from ckd_ref.losses import ckd_loss, cross_entropy, domain_alignment_loss, kd_loss, tet_loss
from ckd_ref.distillation import dist_loss, dkd_loss, luminet_loss

LABELS = onp.array([0, 2, 1, 3, 2, 0])


@pytest.fixture
def batch(rng):
    """Everything `ckd_loss` takes for T = 3, B = 6, K = 4."""
    return dict(static_logits=rng.normal(size=(3, 6, 4)), event_logits=rng.normal(size=(3, 6, 4)),
                features_s=rng.normal(size=(3, 6, 5)), features_d=rng.normal(size=(3, 6, 7)), labels=LABELS,
                theta=rng.normal(size=3), teacher_logits=rng.normal(size=(6, 4)), gamma=0.7)


@pytest.fixture
def pair(rng):
    """Logits (6, 4) of a teacher and a student."""
    return rng.normal(size=(2, 6, 4)) * 2


@pytest.fixture
def features(rng):
    """Features (3, 6, ...) of both streams."""
    return rng.normal(size=(3, 6, 2, 2, 3)), rng.normal(size=(3, 6, 7))


def gradients(loss, *arguments):
    return [grad(loss, i)(*arguments) for i in range(len(arguments))]


# Cross-entropy and TET

def test_cross_entropy_by_hand_and_by_scipy(rng):
    assert cross_entropy(onp.zeros((1, 4)), onp.array([1])) == pytest.approx(onp.log(4))
    logits = rng.normal(size=(3, 6, 4))
    reference = -log_softmax(logits, axis=-1)[:, onp.arange(6), LABELS]
    assert relative_error(cross_entropy(logits, LABELS), reference) < 1e-12


def test_tet_by_hand():
    """Two equal outputs 3: (1 - 1/4) ln 2 + 1/4 (3 - 1)^2."""
    assert tet_loss(onp.full((2, 1, 2), 3.0), onp.array([0]), lam=0.25) == pytest.approx(0.75 * onp.log(2) + 1)


@pytest.mark.parametrize("key", golden_keys("tet", "means"))
def test_tet_golden(golden, key):
    target, lam = (float(n) for n in re.findall(r"[\d.]+", key))
    g = golden["tet"]
    outputs, labels = g["outputs"][:].transpose(1, 0, 2), g["labels"][:]
    assert relative_error(tet_loss(outputs, labels, lam, target), g[key]["loss"][()]) < 1e-9
    slope = grad(lambda o: tet_loss(o, labels, lam, target))(outputs)
    assert relative_error(slope.transpose(1, 0, 2), g[key]["grad"][:]) < 1e-9


@pytest.mark.parametrize("weights", [None, onp.array([0.2, 1.5, 0.0])])
def test_tet_equals_the_loop(batch, weights):
    logits = batch["event_logits"]
    assert tet_loss(logits, LABELS, 0.1, 0.5, weights) == \
        pytest.approx(oracles.tet(logits, LABELS, 0.1, 0.5, weights), rel=1e-12)


def test_tet_gradient(batch):
    check_grads(lambda o, w: tet_loss(o, LABELS, 0.1, weights=w), modes=["rev"], order=1)(
        batch["static_logits"], onp.array([0.2, 1.5, 0.4]))


def test_tet_is_not_the_loss_of_the_mean_output(batch):
    """A wrong version: steps are to be classified one by one; by convexity that costs more."""
    logits = batch["static_logits"]
    assert tet_loss(logits, LABELS, lam=0) > cross_entropy(logits.mean(0), LABELS).mean() + 0.01


# Eqs. (5) and (6)

RAMP, PEAK, STEP = (onp.array(column).reshape(3, 1) for column in ([4.0, 5, 6], [1.0, 4, 1], [0.0, 0, 3]))
"""One feature of three samples: CKA is 0 for the first two, 3/4 for the first and the last."""


def test_eq05_value_by_hand():
    """Time steps with CKA 1, 0 and 3/4 cost 0, 1 and 1/4, 5/12 on average."""
    s, d = onp.stack([RAMP, RAMP, RAMP]), onp.stack([2 * RAMP, PEAK, STEP])
    assert domain_alignment_loss(s, d, eps=0) == pytest.approx(5 / 12)


@pytest.mark.parametrize("wrong", [
    lambda s, d: onp.mean([oracles.cka_by_gram(a, b) for a, b in zip(s, d)]),
    lambda s, d: 1 - oracles.cka_by_gram(onp.hstack(s), onp.hstack(d)),
    lambda s, d: 1 - oracles.cka_by_gram(s.mean(0), d.mean(0)),
    lambda s, d: sum(1 - oracles.cka_by_gram(a, b) for a, b in zip(s, d)),
], ids=["similarity", "time as features", "mean over time first", "sum over time"])
def test_eq05_wrong_versions_are_caught(features, wrong):
    s, d = (f.reshape(3, 6, -1) for f in features)
    assert domain_alignment_loss(s, d, eps=0) != pytest.approx(wrong(s, d), rel=1e-3)


def test_eq05_equals_the_loop_over_steps(features):
    reference = onp.mean([1 - oracles.cka_by_gram(a.reshape(6, -1), b) for a, b in zip(*features)])
    assert domain_alignment_loss(*features, eps=0) == pytest.approx(reference, rel=1e-12)


def test_eq05_gradient(features):
    check_grads(domain_alignment_loss, modes=["rev"], order=1)(*features)


def test_eq05_limits(features):
    s, _ = features
    assert domain_alignment_loss(s, 3 * s + 1, eps=0) == pytest.approx(0, abs=1e-12)
    assert domain_alignment_loss(s, onp.ones((3, 6, 4))) == 1


def baseline_inputs(golden):
    g = golden["baseline_loss"]
    return [g[name][:] for name in ("feat_static", "feat_dvs", "logits_static", "logits_dvs", "theta")], g["labels"][:]


def assert_baseline_gradients(golden, key, loss, inputs):
    names = "feat_static", "feat_dvs", "logits_static", "logits_dvs", "theta"
    for name, slope in zip(names, gradients(loss, *inputs)):
        reference = golden["baseline_loss"][key][f"grad_{name}"][:]
        assert relative_error(slope, reference) < 1e-9, name


@pytest.mark.parametrize("key", golden_keys("baseline_loss", "noreg"))
def test_eq05_golden_loss_without_coefficients(golden, key):
    """The baseline without theta: plain TET of both streams and beta times Eq. (5)."""
    inputs, labels = baseline_inputs(golden)
    s, d = inputs[:2]
    beta, case = float(key.split("_c")[1]), golden["baseline_loss"][key]
    assert relative_error(domain_alignment_loss(s, d), case["domain_loss"][()]) < 1e-9

    def loss(s, d, static, event, theta):
        return tet_loss(static, labels, target=0.5) + beta * domain_alignment_loss(s, d) + \
            tet_loss(event, labels, target=0.5) + 0 * np.sum(theta)
    assert relative_error(loss(*inputs), case["loss"][()]) < 1e-9
    assert_baseline_gradients(golden, key, loss, inputs)


def weighs_steps_by_sigmoid(alignment):
    """sigmoid(ln 3) = 3/4 and sigmoid(-ln 3) = 1/4 of the costs 1 and 1/4: 13/32 on average."""
    s, d = onp.stack([RAMP, RAMP]), onp.stack([PEAK, STEP])
    assert alignment(s, d, onp.log([3, 1 / 3])) == pytest.approx(13 / 32)


def test_eq06_value_by_hand():
    weighs_steps_by_sigmoid(lambda s, d, theta: domain_alignment_loss(s, d, theta, eps=0))


@pytest.mark.parametrize("weigh", [lambda theta: theta, lambda theta: expit(-theta), lambda theta: 1 + 0 * theta,
                                   lambda theta: softmax(theta) * 2, lambda theta: onp.full(2, expit(theta.mean()))],
                         ids=["theta not through sigmoid", "1 - sigmoid", "no weights", "softmax", "mean theta"])
def test_eq06_wrong_versions_are_caught(weigh):
    def wrong(s, d, theta):
        return onp.mean(weigh(theta) * [1 - oracles.cka_by_gram(a, b) for a, b in zip(s, d)])
    with pytest.raises(AssertionError):
        weighs_steps_by_sigmoid(wrong)


def test_eq06_equals_the_loop_over_steps(features, rng):
    theta = rng.normal(size=3)
    reference = onp.mean([(1 - oracles.cka_by_gram(a.reshape(6, -1), b)) / (1 + onp.exp(-c))
                          for a, b, c in zip(*features, theta)])
    assert domain_alignment_loss(*features, theta, eps=0) == pytest.approx(reference, rel=1e-12)


@pytest.mark.parametrize("key", golden_keys("baseline_loss", "reg_c"))
def test_eq06_golden_first_sum(golden, key):
    (s, d, _, _, theta), _ = baseline_inputs(golden)
    assert relative_error(domain_alignment_loss(s, d, theta), golden["baseline_loss"][key]["domain_loss"][0]) < 1e-9


def test_eq06_golden_both_sums(golden):
    """The printed form with its second sum, mean(1 - sigmoid(theta)) L_cls-e, is ``da`` of the paper's reading."""
    inputs, labels = baseline_inputs(golden)
    case = golden["baseline_loss/paper_eq6"]

    def alignment(s, d, static, event, theta, reading="paper"):
        """L_DA: the total for alpha = 0 less the L_cls-e that stands by itself."""
        total, parts = ckd_loss(static, event, s, d, labels, theta, alpha=0.0, target=0.5, reading=reading)
        return total - tet_loss(event, labels, target=0.5), parts
    value, parts = alignment(*inputs)
    assert relative_error(value, case["L_DA"][0]) < 1e-9
    for name, key in (("da", "L_DA"), ("cls_e", "L_cls_e"), ("cls_s", "L_cls_s")):
        assert parts[name] == pytest.approx(case[key][()].item(), rel=1e-9)
    slopes = gradients(lambda *a: alignment(*a)[0], *inputs)
    for name, slope in zip(("feat_static", "feat_dvs", None, "logits_dvs", "theta"), slopes):
        if name:
            assert relative_error(slope, case[f"grad_{name}"][:]) < 1e-9, name
    assert not slopes[2].any()
    assert alignment(*inputs, reading="baseline")[0] != pytest.approx(case["L_DA"][0], rel=1e-3)


def test_eq06_gradient(features, rng):
    check_grads(domain_alignment_loss, modes=["rev"], order=1)(*features, rng.normal(size=3))


def test_eq06_limits(features):
    plain = domain_alignment_loss(*features)
    assert domain_alignment_loss(*features, onp.full(3, 1e3)) == pytest.approx(plain, rel=1e-12)
    assert domain_alignment_loss(*features, onp.zeros(3)) == pytest.approx(plain / 2, rel=1e-12)
    assert domain_alignment_loss(*features, onp.full(3, -1e3)) == 0


# Eq. (7)

def test_eq07_value_by_hand():
    """Equal outputs cost ln 2 each; CKA 0; theta = ln 3 gives weights 3/4 and 1/4."""
    flat, theta = onp.zeros((1, 3, 2)), onp.log([3.0])
    s, d, labels = RAMP[None], PEAK[None], onp.array([0, 1, 1])
    options = dict(alpha=2.0, beta=0.5, lam=0.0)
    total, parts = ckd_loss(flat, flat, s, d, labels, theta, **options)
    assert total == pytest.approx(2 * onp.log(2) + 0.5 * 3 / 4 + onp.log(2) / 4)
    assert parts == pytest.approx({"cls_s": onp.log(2), "da": 3 / 4, "cls_e": onp.log(2) / 4})
    total, parts = ckd_loss(flat, flat, s, d, labels, theta, **options, reading="paper")
    assert total == pytest.approx(2 * onp.log(2) + 0.5 * (3 / 4 + onp.log(2) / 4) + onp.log(2))


@pytest.mark.parametrize("key", golden_keys("baseline_loss", "reg_c|nodomain"))
def test_eq07_golden_loss_of_the_baseline(golden, key):
    inputs, labels = baseline_inputs(golden)
    beta = float(key.split("_c")[1]) if "_c" in key else 0.0
    case = golden["baseline_loss"][key]

    def loss(s, d, static, event, theta):
        return ckd_loss(static, event, s, d, labels, theta, beta=beta, target=0.5)
    total, parts = loss(*inputs)
    assert relative_error(total, case["loss"][0]) < 1e-9
    assert parts["cls_s"] == pytest.approx(case["loss_static"][()].item(), rel=1e-9)
    assert parts["cls_e"] == pytest.approx(case["loss_dvs"][()].item(), rel=1e-9)
    assert_baseline_gradients(golden, key, lambda *a: loss(*a)[0], inputs)


def total_by_loops(batch, reading, alpha, beta, cls_e_counts=1, weigh=lambda theta: 1 / (1 + onp.exp(-theta))):
    """L_S + L_cls-e with all parts from the slow oracles."""
    a = weigh(batch["theta"])
    distance = [1 - oracles.cka_by_gram(s, d) for s, d in zip(batch["features_s"], batch["features_d"])]
    cls_s, cls_e, cls_e_weighted = (oracles.tet(batch[name], LABELS, 1e-3, 1.0, weights) for name, weights in (
        ("static_logits", None), ("event_logits", None), ("event_logits", 1 - a)))
    da = onp.mean(a * distance)
    if reading == "baseline":
        return alpha * cls_s + beta * da + cls_e_counts * cls_e_weighted
    return alpha * cls_s + beta * (da + onp.mean(1 - a) * cls_e) + cls_e_counts * cls_e


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq07_equals_the_sum_of_loops(batch, reading):
    total, _ = ckd_loss(**batch | dict(teacher_logits=None), alpha=0.8, beta=0.3, reading=reading)
    assert total == pytest.approx(total_by_loops(batch, reading, 0.8, 0.3), rel=1e-6)     # eps = 1e-7 in CKA


@pytest.mark.parametrize("reading", ["baseline", "paper"])
@pytest.mark.parametrize("wrong", [
    dict(cls_e_counts=2), dict(cls_e_counts=0), dict(alpha=1.0), dict(beta=1.0),
    dict(weigh=lambda theta: theta), dict(weigh=lambda theta: 1 / (1 + onp.exp(theta))),
], ids=["L_cls-e twice", "L_cls-e missing", "alpha ignored", "beta ignored", "no sigmoid", "sign of theta"])
def test_eq07_wrong_versions_are_caught(batch, reading, wrong):
    total, _ = ckd_loss(**batch | dict(teacher_logits=None), alpha=0.8, beta=0.3, reading=reading)
    options = dict(alpha=0.8, beta=0.3) | wrong
    assert total != pytest.approx(total_by_loops(batch, reading, **options), rel=1e-3)


def test_eq07_readings_differ_by_the_weights_of_the_event_loss(batch):
    """With all theta = 0, baseline has L_cls-e / 2 and paper L_cls-e (1 + beta / 2)."""
    batch |= dict(theta=onp.zeros(3), beta=0.6)
    baseline, paper = (ckd_loss(**batch, reading=reading)[0] for reading in ("baseline", "paper"))
    assert paper - baseline == pytest.approx((1 + 0.3 - 0.5) * tet_loss(batch["event_logits"], LABELS), rel=1e-12)


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq07_gradient(batch, reading):
    def loss(static, event, s, d, theta):
        return ckd_loss(static, event, s, d, LABELS, theta, alpha=0.8, beta=0.3, reading=reading)[0]
    check_grads(loss, modes=["rev"], order=1)(
        *(batch[name] for name in ("static_logits", "event_logits", "features_s", "features_d", "theta")))


def test_eq07_limits(batch):
    batch |= dict(teacher_logits=None, alpha=0.0, beta=0.0)
    assert ckd_loss(**batch | dict(theta=onp.full(3, 1e3)))[0] == 0       # theta can switch the event loss off
    reference = tet_loss(batch["event_logits"], LABELS)
    assert ckd_loss(**batch | dict(theta=onp.full(3, -1e3)))[0] == pytest.approx(reference, rel=1e-12)
    assert ckd_loss(**batch, reading="paper")[0] == pytest.approx(reference, rel=1e-12)


# Eq. (9)

def softens_and_restores_the_scale(kd):
    """At temperature 2, logits (2 ln 3, 0) and (0, 0) become (3/4, 1/4) and (1/2, 1/2)."""
    teacher, student = onp.array([[2 * onp.log(3), 0], [1.0, 1]]), onp.zeros((2, 2))
    divergence = 3 / 4 * onp.log(3 / 2) + 1 / 4 * onp.log(1 / 2)
    assert kd(teacher, student, 2.0) == pytest.approx(4 * divergence / 2)


def test_eq09_value_by_hand():
    softens_and_restores_the_scale(kd_loss)


def kd_by_scipy(teacher, student, temperature, power=2, soften=True, over_batch=onp.mean, swap=False):
    tau = temperature if soften else 1
    p, q = softmax(teacher / tau, axis=1), softmax(student / tau, axis=1)
    if swap:
        p, q = q, p
    return temperature**power * over_batch(rel_entr(p, q).sum(1))


@pytest.mark.parametrize("wrong", [dict(power=0), dict(power=1), dict(soften=False), dict(over_batch=onp.sum),
                                   dict(swap=True)],
                         ids=["no temperature^2", "temperature once", "not softened", "sum over batch", "swapped"])
def test_eq09_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError):
        softens_and_restores_the_scale(lambda *a: kd_by_scipy(*a, **wrong))
    softens_and_restores_the_scale(kd_by_scipy)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_eq09_equals_scipy_and_the_loop(pair, temperature):
    value = kd_loss(*pair, temperature)
    assert value == pytest.approx(kd_by_scipy(*pair, temperature), rel=1e-9)
    p, q = softmax(pair / temperature, axis=-1)
    assert value == pytest.approx(temperature**2 * entropy(p, q, axis=1).mean(), rel=1e-9)
    assert value == pytest.approx(temperature**2 * onp.mean([oracles.kl(*rows, temperature) for rows in zip(*pair)]),
                                  rel=1e-9)


def assert_golden_pair(golden, group, key, loss):
    """Value and gradients of a distillation loss; keys that end in _big hold the logits times 40."""
    g = golden[group]
    scale = 40 if key.endswith("_big") else 1
    arguments = scale * g["teacher"][:], scale * g["student"][:]
    assert relative_error(loss(*arguments), g[key]["loss"][()]) < 1e-9
    for i, name in enumerate(("grad_teacher", "grad_student")):
        if name in g[key]:
            assert relative_error(grad(loss, i)(*arguments), g[key][name][:]) < 1e-9, name


@pytest.mark.parametrize("key", golden_keys("kd", ".*_T"))
def test_eq09_golden(golden, key):
    """eq9_* is the literal equation with a batch mean: temperature^2 less than ours."""
    temperature = float(re.search(r"_T([\d.]+)", key)[1])
    factor = temperature**-2 if key.startswith("eq9") else 1
    assert_golden_pair(golden, "kd", key, lambda t, s: factor * kd_loss(t, s, temperature))


def test_eq09_gradient(pair):
    check_grads(lambda t, s: kd_loss(t, s, 3.0), modes=["rev"], order=1)(*pair)
    p, q = softmax(pair / 3, axis=-1)
    assert relative_error(grad(kd_loss, 1)(*pair, 3.0), 3 * (q - p) / 6) < 1e-12


def test_eq09_equal_logits_cost_nothing(pair):
    """A constant added to all classes changes nothing either."""
    assert kd_loss(pair[0], pair[0]) == 0 and abs(grad(kd_loss, 1)(pair[0], pair[0])).max() < 1e-15
    assert kd_loss(pair[0], pair[0] + 5) == pytest.approx(0, abs=1e-12)
    assert kd_loss(*pair) > 0


def test_eq09_high_temperature_compares_centred_logits(pair):
    """temperature^2 KL tends to half the mean squared difference of logits whose class mean is removed."""
    difference = pair[0] - pair[1]
    difference = difference - difference.mean(axis=1, keepdims=True)
    assert kd_loss(*pair, 1e4) == pytest.approx((difference**2).mean() / 2, rel=1e-3)


def test_eq09_low_temperature_limit_is_the_gap_of_the_teachers_class(pair):
    """KL times temperature tends to max(student) - student[argmax teacher]."""
    teacher, student = pair
    gap = student.max(1) - student[onp.arange(6), teacher.argmax(1)]
    assert kd_loss(*pair, 1e-3) / 1e-3 == pytest.approx(gap.mean(), rel=1e-2)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_eq09_huge_logits_stay_finite(pair, scale):
    with onp.errstate(over="raise", invalid="raise"):
        assert onp.isfinite(kd_loss(*(scale * pair))) and onp.isfinite(grad(kd_loss, 1)(*(scale * pair))).all()


# Eq. (11)

def test_eq11_value_by_hand():
    """Eq. (7)'s example, and gamma times a divergence whose student is the mean over time."""
    static = onp.array([[[4.0, 0]] * 3, [[-4.0, 0]] * 3])                 # (2, 3, 2), mean 0
    teacher = onp.array([[4 * onp.log(3), 0]] * 3)                        # (3/4, 1/4) at temperature 4
    divergence = 3 / 4 * onp.log(3 / 2) + 1 / 4 * onp.log(1 / 2)
    arguments = static, onp.zeros((2, 3, 2)), onp.stack([RAMP] * 2), onp.stack([PEAK] * 2), onp.array([0, 1, 1]), \
        onp.zeros(2)
    with_teacher, parts = ckd_loss(*arguments, teacher, gamma=0.3)
    assert parts["kd"] == pytest.approx(16 * divergence)
    assert with_teacher - ckd_loss(*arguments)[0] == pytest.approx(0.3 * 16 * divergence)


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq11_equals_the_sum_of_loops(batch, reading):
    total, parts = ckd_loss(**batch, alpha=0.8, beta=0.3, temperature=2.0, reading=reading)
    student = batch["static_logits"].mean(0)
    kd = 4 * onp.mean([oracles.kl(t, s, 2.0) for t, s in zip(batch["teacher_logits"], student)])
    assert parts["kd"] == pytest.approx(kd, rel=1e-9)
    assert total == pytest.approx(total_by_loops(batch, reading, 0.8, 0.3) + 0.7 * kd, rel=1e-6)


@pytest.mark.parametrize("wrong", [
    lambda static, event, teacher: -0.7 * kd_loss(teacher, static.mean(0)),
    lambda static, event, teacher: kd_loss(teacher, static.mean(0)),
    lambda static, event, teacher: 0.7 * kd_loss(teacher, event.mean(0)),
    lambda static, event, teacher: 0.7 * onp.mean([kd_loss(teacher, s) for s in static]),
    lambda static, event, teacher: 0.7 * kd_loss(teacher, static.sum(0)),
    lambda static, event, teacher: 0.7 * kd_loss(static.mean(0), teacher),
], ids=["gamma's sign", "gamma ignored", "event head", "step by step", "sum over time", "teacher learns"])
def test_eq11_wrong_versions_are_caught(batch, wrong):
    batch["teacher_logits"] *= 5                               # far enough apart to tell KL's two directions
    distillation = ckd_loss(**batch)[0] - ckd_loss(**batch | dict(teacher_logits=None))[0]
    logits = batch["static_logits"], batch["event_logits"], batch["teacher_logits"]
    assert distillation == pytest.approx(0.7 * kd_loss(logits[2], logits[0].mean(0)), rel=1e-9)
    assert distillation != pytest.approx(wrong(*logits), rel=1e-3)


@pytest.mark.parametrize("key", ["kd_mean_logits", "ckd_code_style"])
def test_eq11_golden_distillation_term(golden, key):
    """The divergence of the time mean, by itself and as what it adds to the baseline's total."""
    g = golden["tiny_vggsnn"]
    static, teacher, gamma = g["logits_static"][:], g["teacher_logits"][:], g.attrs["gamma"]
    kd = kd_loss(teacher, static.mean(0))
    if key == "kd_mean_logits":
        assert relative_error(kd, g[key][()]) < 1e-9
        assert kd != pytest.approx(g["kd_per_step"][()], rel=1e-3)
    else:
        assert g[key]["loss"][0] - g["baseline_code/loss"][0] == pytest.approx(gamma * kd, rel=1e-9)


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq11_gradient(batch, reading):
    def loss(static, event, s, d, theta):
        return ckd_loss(static, event, s, d, LABELS, theta, batch["teacher_logits"], 0.7, reading=reading)[0]
    check_grads(loss, modes=["rev"], order=1)(
        *(batch[name] for name in ("static_logits", "event_logits", "features_s", "features_d", "theta")))


def test_eq11_teacher_moves_the_static_head_only(batch):
    def slope(name, **change):
        return grad(lambda value: ckd_loss(**batch | {name: value} | change)[0])(batch[name])
    for name in ("event_logits", "features_s", "features_d", "theta"):
        assert relative_error(slope(name), slope(name, teacher_logits=None)) < 1e-12
    assert relative_error(slope("static_logits"), slope("static_logits", teacher_logits=None)) > 1e-2


def test_eq11_without_gamma_is_eq07(batch):
    plain, parts = ckd_loss(**batch | dict(teacher_logits=None))
    assert ckd_loss(**batch | dict(gamma=0.0))[0] == plain and "kd" not in parts


# Table II

TABLE_2 = {"dkd": lambda t, s: dkd_loss(t, s, LABELS % t.shape[1]), "dist": dist_loss, "luminet": luminet_loss}


@pytest.mark.parametrize("group, key", [(group, key) for group in TABLE_2 for key in golden_keys(group, ".*_T")])
def test_table_2_golden(golden, group, key):
    *weights, temperature = (float(part[1:]) for part in key.removesuffix("_big").split("_"))
    labels = golden[group]["labels"][:]
    loss = {"dkd": lambda t, s: dkd_loss(t, s, labels, *weights, temperature),
            "dist": lambda t, s: dist_loss(t, s, *weights, temperature),
            "luminet": lambda t, s: luminet_loss(t, s, *weights, temperature)}[group]
    assert_golden_pair(golden, group, key, loss)


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2_gradient_and_equal_logits(pair, name):
    check_grads(TABLE_2[name], modes=["rev"], order=1)(*pair)
    assert TABLE_2[name](pair[0], pair[0]) == pytest.approx(0, abs=1e-6) and TABLE_2[name](*pair) > 0.01


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2_huge_logits_stay_finite(pair, name):
    huge = 1e4 * pair
    assert onp.isfinite(TABLE_2[name](*huge)) and onp.isfinite(grad(TABLE_2[name], 1)(*huge)).all()


def test_dkd_is_kd_when_both_parts_have_their_natural_weights(pair):
    """KL = binary KL + (1 - p_y) KL of the rest (Zhao et al., Eq. 7), by scipy."""
    p, q = softmax(pair / 4, axis=-1)
    own = onp.arange(6), LABELS
    b_p, b_q = (onp.stack([r[own], 1 - r[own]], 1) for r in (p, q))
    rest_p, rest_q = (onp.where(onp.eye(4)[LABELS] == 1, 0, r) for r in (p, q))
    tckd, nckd = 16 * entropy(b_p, b_q, axis=1).mean(), 16 * entropy(rest_p, rest_q, axis=1)
    assert dkd_loss(*pair, LABELS, 1, 0) == pytest.approx(tckd, rel=1e-9)
    assert dkd_loss(*pair, LABELS, 0, 1) == pytest.approx(nckd.mean(), rel=1e-9)
    assert kd_loss(*pair) == pytest.approx(tckd + ((1 - p[own]) * nckd).mean(), rel=1e-9)


def test_dist_equals_numpys_correlations(pair):
    p, q = softmax(pair / 2, axis=-1)
    rows = onp.mean([1 - onp.corrcoef(a, b)[0, 1] for a, b in zip(p, q)])
    columns = onp.mean([1 - onp.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T)])
    assert dist_loss(*pair, beta=2, gamma=3, temperature=2) == pytest.approx(4 * (2 * rows + 3 * columns), rel=1e-5)


def test_luminet_equals_scipy_and_ignores_the_scale_of_a_class(pair):
    z_t, z_s = ((z - z.mean(0)) / onp.sqrt(z.var(0) + 1e-5) / 3 for z in pair)
    log_p, log_q = (z - logsumexp(z, axis=1, keepdims=True) for z in (z_t, z_s))
    reference = 4 * (onp.exp(log_p) * (log_p - log_q)).sum(1).mean()
    assert luminet_loss(*pair, alpha=2, temperature=3) == pytest.approx(reference, rel=1e-9)
    assert luminet_loss(pair[0], pair[0] * [1, 2, 3, 4] + [5, 6, 7, 8]) == pytest.approx(0, abs=1e-6)


# Precision and bad input

@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_ckd_float32_stays_float32(batch, reading):
    batch = {k: v.astype(onp.float32) if k not in ("labels", "gamma") else v for k, v in batch.items()}
    for gamma in (0.7, 0, onp.float64(0.7)):
        batch["gamma"] = gamma
        assert ckd_loss(**batch, reading=reading)[0].dtype == onp.float32
        for name in ("static_logits", "event_logits", "features_s", "features_d", "theta"):
            slope = grad(lambda value: ckd_loss(**batch | {name: value}, reading=reading)[0])(batch[name])
            assert slope.dtype == onp.float32, name


@pytest.mark.parametrize("name", ["kd", *TABLE_2])
def test_distillation_float32_stays_float32(pair, name):
    loss = TABLE_2.get(name, kd_loss)
    single = [logits.astype(onp.float32) for logits in pair]
    assert loss(*single).dtype == onp.float32
    assert [slope.dtype for slope in gradients(loss, *single)] == [onp.float32] * 2
    assert loss(*single) == pytest.approx(loss(*pair), rel=1e-4)


def test_classification_float32_stays_float32(batch):
    logits, weights = batch["static_logits"].astype(onp.float32), onp.ones(3, onp.float32)
    assert cross_entropy(logits, LABELS).dtype == tet_loss(logits, LABELS, weights=weights).dtype == onp.float32
    assert grad(lambda o: tet_loss(o, LABELS, weights=weights))(logits).dtype == onp.float32
    features = batch["features_s"].astype(onp.float32), batch["features_d"].astype(onp.float32)
    assert domain_alignment_loss(*features).dtype == onp.float32
    assert [g.dtype for g in gradients(domain_alignment_loss, *features)] == [onp.float32] * 2


@pytest.mark.parametrize("call, message", [
    (lambda: cross_entropy(onp.zeros((2, 3)), onp.array([0, 3])), r"labels in 0 \.\.\. 2, got 3 for sample 1"),
    (lambda: cross_entropy(onp.zeros((2, 3)), onp.array([-1, 0])), r"labels in 0 \.\.\. 2, got -1 for sample 0"),
    (lambda: cross_entropy(onp.zeros((2, 3)), onp.array([0, 1, 2])), r"2 whole-number labels.*shape \(3,\)"),
    (lambda: cross_entropy(onp.zeros((2, 3)), onp.array([0.0, 1.0])), "whole-number labels.*float64"),
    (lambda: tet_loss(onp.zeros((2, 3)), onp.array([0, 1])), r"logits \(T, B, K\)"),
    (lambda: tet_loss(onp.zeros((0, 2, 3)), onp.array([0, 1])), r"none of them 0, got shape \(0, 2, 3\)"),
    (lambda: domain_alignment_loss(onp.zeros((2, 3, 4)), onp.zeros((2, 4, 4))), r"same T >= 1 and B.*\(2, 4, 4\)"),
    (lambda: domain_alignment_loss(onp.zeros((2, 1, 4)), onp.zeros((2, 1, 4))), "at least 2 samples, got 1"),
    (lambda: kd_loss(onp.zeros((2, 3)), onp.zeros((2, 4))), "one shape .*know the same classes"),
    (lambda: kd_loss(onp.zeros((2, 3)), onp.zeros((2, 3)), 0), "temperature > 0, got 0"),
    (lambda: kd_loss(onp.zeros((0, 3)), onp.zeros((0, 3))), r"got \(0, 3\)"),
    (lambda: dkd_loss(onp.zeros((2, 3)), onp.zeros((2, 3)), onp.array([0, 7])), "got 7 for sample 1"),
    (lambda: dist_loss(onp.zeros((2, 3)), onp.zeros((3, 3))), "one shape"),
    (lambda: luminet_loss(onp.zeros((2, 3)), onp.zeros((2, 3)), 1.0, -1.0), "temperature > 0, got -1"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_reading_is_refused(batch):
    with pytest.raises(ValueError, match='reading "baseline" or "paper", got \'both\''):
        ckd_loss(**batch, reading="both")
