"""The losses, Eqs. (5) to (7), (9) and (11), and the alternatives of Table II."""

import functools
import re

import autograd.numpy as np
import numpy as onp
import oracles
import pytest
from assertions import (
    assert_approx,
    assert_close,
    assert_differs,
    assert_dtype,
    assert_equal,
    assert_finite,
    assert_gradient,
    relative_error,
)
from autograd import grad
from conftest import golden_keys
from scipy.special import expit, log_softmax, logsumexp, rel_entr, softmax
from scipy.stats import entropy
from subject import (
    ckd_loss,
    cross_entropy,
    dist_loss,
    dkd_loss,
    domain_alignment_loss,
    kd_loss,
    luminet_loss,
    tet_loss,
)

LABELS = onp.array([0, 2, 1, 3, 2, 0])

TRAINED = "static_logits", "event_logits", "features_s", "features_d", "theta"
"""Arguments of `ckd_loss` that the student's gradients flow to."""


@pytest.fixture
def batch(rng):
    """Everything `ckd_loss` takes for T = 3, B = 6, K = 4."""
    return dict(
        static_logits=rng.normal(size=(3, 6, 4)), event_logits=rng.normal(size=(3, 6, 4)),
        features_s=rng.normal(size=(3, 6, 5)), features_d=rng.normal(size=(3, 6, 7)),
        labels=LABELS, theta=rng.normal(size=3), teacher_logits=rng.normal(size=(6, 4)),
        gamma=0.7, reading="baseline",
    )


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
    what = "Cross-entropy: equal logits of 4 classes cost ln 4"
    assert_approx(cross_entropy(onp.zeros((1, 4)), onp.array([1])), [onp.log(4)], what)
    logits = rng.normal(size=(3, 6, 4))
    reference = -log_softmax(logits, axis=-1)[:, onp.arange(6), LABELS]
    what = "Cross-entropy: the loss of each sample is -log softmax at its label"
    assert_close(cross_entropy(logits, LABELS), reference, 1e-12, what)


def test_tet_by_hand():
    """Two equal outputs 3: (1 - 1/4) ln 2 + 1/4 (3 - 1)^2."""
    value = tet_loss(onp.full((2, 1, 2), 3.0), onp.array([0]), lam=0.25)
    what = "TET: (1 - lam) cross-entropy + lam (output - 1)^2, lam = 1/4, by hand"
    assert_approx(value, 0.75 * onp.log(2) + 1, what)


def test_tet_is_not_the_loss_of_the_mean_output(batch):
    """A wrong version: steps are to be classified one by one; by convexity that costs more."""
    logits = batch["static_logits"]
    value = tet_loss(logits, LABELS, lam=0)
    of_the_mean = -log_softmax(logits.mean(0), axis=-1)[onp.arange(6), LABELS].mean()
    assert value > of_the_mean + 0.01, (
        "TET: every time step must be classified, not their mean output; expected more than "
        f"{of_the_mean:.6g}, which the mean output costs, got {value:.6g}"
    )


@pytest.mark.parametrize("key", golden_keys("tet", "means"))
def test_tet_golden(golden, key):
    target, lam = (float(n) for n in re.findall(r"[\d.]+", key))
    g = golden["tet"]
    outputs, labels = g["outputs"][:].transpose(1, 0, 2), g["labels"][:]
    what = f"TET: the {{}} with target {target} and lam {lam} is the original TET_loss's"
    value = tet_loss(outputs, labels, lam, target)
    assert_close(value, g[key]["loss"][()], 1e-9, what.format("loss"), {"T": len(outputs)})
    slope = grad(lambda o: tet_loss(o, labels, lam, target))(outputs)
    assert_close(slope.transpose(1, 0, 2), g[key]["grad"][:], 1e-9, what.format("gradient"))


def test_tet_target_is_a_shift_of_the_outputs(batch):
    outputs = batch["static_logits"]
    value = tet_loss(outputs, LABELS, lam=0.3, target=0.5)
    shifted = tet_loss(outputs + 0.5, LABELS, lam=0.3, target=1.0)
    what = "TET: a target lower by 0.5 costs what outputs higher by 0.5 cost, whatever the target"
    assert_close(value, shifted, 1e-12, what)


@pytest.mark.parametrize("weights", [None, onp.array([0.2, 1.5, 0.0])])
def test_tet_equals_the_loop(batch, weights):
    logits = batch["event_logits"]
    value = tet_loss(logits, LABELS, 0.1, 0.5, weights)
    expected = oracles.tet(logits, LABELS, 0.1, 0.5, weights)
    what = f"TET: with the steps' weights {weights} the loss is that of a loop"
    assert_approx(value, expected, what, rel=1e-12, factors={"T": 3, "B": 6})


def test_tet_gradient(batch):
    weights = onp.array([0.2, 1.5, 0.4])

    def loss(outputs, weights):
        return tet_loss(outputs, LABELS, 0.1, weights=weights)
    assert_gradient(loss, batch["static_logits"], weights, what="TET: the gradient")


# Eqs. (5) and (6)

RAMP, PEAK, STEP = (
    onp.array(column).reshape(3, 1) for column in ([4.0, 5, 6], [1.0, 4, 1], [0.0, 0, 3])
)
"""One feature of three samples: CKA is 0 for the first two, 3/4 for the first and the last."""


def averages_the_distances(alignment):
    """Time steps with CKA 1, 0 and 3/4 cost 0, 1 and 1/4, 5/12 on average."""
    s, d = onp.stack([RAMP, RAMP, RAMP]), onp.stack([2 * RAMP, PEAK, STEP])
    what = "Eq. (5): L_DA is the mean over time of 1 - CKA, here of 0, 1 and 1/4"
    assert_approx(alignment(s, d), 5 / 12, what, factors={"T": 3})


def test_eq05_value_by_hand():
    averages_the_distances(domain_alignment_loss)


@pytest.mark.parametrize("wrong", [
    lambda s, d: onp.mean([oracles.cka_by_gram(a, b) for a, b in zip(s, d)]),
    lambda s, d: 1 - oracles.cka_by_gram(onp.hstack(s), onp.hstack(d)),
    lambda s, d: 1 - oracles.cka_by_gram(s.mean(0), d.mean(0)),
    lambda s, d: sum(1 - oracles.cka_by_gram(a, b) for a, b in zip(s, d)),
], ids=["similarity", "time as features", "mean over time first", "sum over time"])
def test_eq05_wrong_versions_are_caught(features, wrong):
    s, d = (f.reshape(3, 6, -1) for f in features)
    what = "Eq. (5): L_DA is the mean over time of 1 - CKA"
    assert_differs(domain_alignment_loss(s, d), wrong(s, d), what)


def test_eq05_equals_the_loop_over_steps(features):
    distances = [1 - oracles.cka_by_gram(a.reshape(6, -1), b) for a, b in zip(*features)]
    what = "Eq. (5): L_DA is that of a loop over the time steps"
    value = domain_alignment_loss(*features, eps=0)
    assert_approx(value, onp.mean(distances), what, rel=1e-12, factors={"T": 3})


def test_eq05_gradient(features):
    assert_gradient(domain_alignment_loss, *features, what="Eq. (5): the gradient of L_DA")


def test_eq05_limits(features):
    s, _ = features
    what = "Eq. (5): features that differ by scale and shift cost 0"
    assert_approx(domain_alignment_loss(s, 3 * s + 1, eps=0), 0, what, abs=1e-12)
    what = "Eq. (5): constant features cost 1"
    assert_equal(domain_alignment_loss(s, onp.ones((3, 6, 4))), 1, what)


def baseline_inputs(golden):
    g = golden["baseline_loss"]
    names = "feat_static", "feat_dvs", "logits_static", "logits_dvs", "theta"
    return [g[name][:] for name in names], g["labels"][:]


def assert_baseline_gradients(golden, key, loss, inputs, what):
    names = "feat_static", "feat_dvs", "logits_static", "logits_dvs", "theta"
    for name, slope in zip(names, gradients(loss, *inputs)):
        reference = golden["baseline_loss"][key][f"grad_{name}"][:]
        assert_close(slope, reference, 1e-9, f"{what}, gradient for {name}")


@pytest.mark.parametrize("key", golden_keys("baseline_loss", "noreg"))
def test_eq05_golden_loss_without_coefficients(golden, key):
    """The baseline without theta: plain TET of both streams and beta times Eq. (5)."""
    inputs, labels = baseline_inputs(golden)
    s, d = inputs[:2]
    beta, case = float(key.split("_c")[1]), golden["baseline_loss"][key]
    what = "Eq. (5): L_DA (1e-7 added to CKA's denominator) is the baseline's"
    assert_close(domain_alignment_loss(s, d), case["domain_loss"][()], 1e-9, what)

    def loss(s, d, static, event, theta):
        cls_s = tet_loss(static, labels, target=0.5)
        cls_e = tet_loss(event, labels, target=0.5)
        return cls_s + beta * domain_alignment_loss(s, d) + cls_e + 0 * np.sum(theta)

    what = "Eq. (5): L_cls-s + beta L_DA + L_cls-e is the baseline's"
    assert_close(loss(*inputs), case["loss"][()], 1e-9, what)
    assert_baseline_gradients(golden, key, loss, inputs, what)


def weighs_steps_by_sigmoid(alignment):
    """sigmoid(ln 3) = 3/4 and sigmoid(-ln 3) = 1/4 of the costs 1 and 1/4: 13/32 on average."""
    s, d = onp.stack([RAMP, RAMP]), onp.stack([PEAK, STEP])
    what = "Eq. (6): step t must be weighted by sigmoid(theta_t), here 3/4 and 1/4"
    assert_approx(alignment(s, d, onp.log([3, 1 / 3])), 13 / 32, what, factors={"T": 2})


def test_eq06_value_by_hand():
    weighs_steps_by_sigmoid(domain_alignment_loss)


@pytest.mark.package_only
@pytest.mark.parametrize("weigh", [
    lambda theta: theta,
    lambda theta: expit(-theta),
    lambda theta: 1 + 0 * theta,
    lambda theta: softmax(theta) * 2,
    lambda theta: onp.full(2, expit(theta.mean())),
], ids=["theta not through sigmoid", "1 - sigmoid", "no weights", "softmax", "mean theta"])
def test_eq06_wrong_versions_are_caught(weigh):
    def wrong(s, d, theta):
        return onp.mean(weigh(theta) * [1 - oracles.cka_by_gram(a, b) for a, b in zip(s, d)])
    with pytest.raises(AssertionError, match=r"Eq\. \(6\): .*expected .*, got "):
        weighs_steps_by_sigmoid(wrong)


def test_eq06_equals_the_loop_over_steps(features, rng):
    theta = rng.normal(size=3)
    reference = onp.mean([
        (1 - oracles.cka_by_gram(a.reshape(6, -1), b)) / (1 + onp.exp(-c))
        for a, b, c in zip(*features, theta)
    ])
    what = "Eq. (6): the weighted L_DA is that of a loop over the time steps"
    value = domain_alignment_loss(*features, theta, eps=0)
    assert_approx(value, reference, what, rel=1e-12, factors={"T": 3})


@pytest.mark.parametrize("key", golden_keys("baseline_loss", "reg_c"))
def test_eq06_golden_first_sum(golden, key):
    (s, d, _, _, theta), _ = baseline_inputs(golden)
    what = "Eq. (6): its first sum (1e-7 added to CKA's denominator) is the baseline's"
    expected = golden["baseline_loss"][key]["domain_loss"][0]
    assert_close(domain_alignment_loss(s, d, theta), expected, 1e-9, what)


def test_eq06_golden_both_sums(golden):
    """With its second sum, mean(1 - sigmoid(theta)) L_cls-e."""
    inputs, labels = baseline_inputs(golden)
    case = golden["baseline_loss/paper_eq6"]

    def alignment(s, d, static, event, theta):
        cls_e = tet_loss(event, labels, target=0.5)
        return domain_alignment_loss(s, d, theta, cls_e=cls_e) + 0 * np.sum(static)

    what = "Eq. (6): L_DA with both sums, made of the baseline's parts"
    assert_close(alignment(*inputs), case["L_DA"][0], 1e-9, what)
    assert_both_sums_gradients(case, gradients(alignment, *inputs), what)


def assert_both_sums_gradients(case, slopes, what):
    for name, slope in zip(("feat_static", "feat_dvs", None, "logits_dvs", "theta"), slopes):
        if name:
            expected = case[f"grad_{name}"][:]
            assert_close(slope, expected, 1e-9, f"{what}: the gradient for {name}")
    assert not slopes[2].any(), f"{what}: the static logits have no part in it"


def test_eq06_gradient(features, rng):
    what = "Eq. (6): the gradient of the weighted L_DA"
    assert_gradient(domain_alignment_loss, *features, rng.normal(size=3), what=what)


def test_eq06_limits(features):
    plain = domain_alignment_loss(*features)
    what = "Eq. (6): theta {} must make it {} Eq. (5)"
    value = domain_alignment_loss(*features, onp.full(3, 1e3))
    assert_approx(value, plain, what.format("-> infinity", "equal"), rel=1e-12)
    value = domain_alignment_loss(*features, onp.zeros(3))
    assert_approx(value, plain / 2, what.format("= 0", "half of"), rel=1e-12)
    value = domain_alignment_loss(*features, onp.full(3, -1e3))
    assert_equal(value, 0, "Eq. (6): theta -> -infinity must make it 0")


# Eq. (7)

def test_eq07_value_by_hand():
    """Equal outputs cost ln 2 each; CKA 0; theta = ln 3 gives weights 3/4 and 1/4."""
    flat, theta = onp.zeros((1, 3, 2)), onp.log([3.0])
    arguments = flat, flat, RAMP[None], PEAK[None], onp.array([0, 1, 1]), theta
    options = dict(alpha=2.0, beta=0.5, lam=0.0)
    ln2 = onp.log(2)
    total, parts = ckd_loss(*arguments, **options, reading="baseline")
    what = "Eq. (7): baseline: L = 2 ln 2 (alpha L_cls-s) + 3/8 (beta L_DA) + ln 2 / 4 (L_cls-e)"
    assert_approx(total, 2 * ln2 + 0.5 * 3 / 4 + ln2 / 4, what)
    expected = {"cls_s": ln2, "da": 3 / 4, "cls_e": ln2 / 4}
    assert_approx(parts, expected, "Eq. (7): baseline: the parts by hand, before their weights")
    total, _ = ckd_loss(*arguments, **options, reading="paper")
    what = "Eq. (7): paper: L = 2 ln 2 (alpha L_cls-s) + 1/2 (3/4 + ln 2 / 4) (beta L_DA) + ln 2"
    assert_approx(total, 2 * ln2 + 0.5 * (3 / 4 + ln2 / 4) + ln2, what)


def test_eq07_golden_alignment_with_both_sums(golden):
    """L_DA of the reading "paper": the total for alpha = 0 less L_cls-e, which stands by itself."""
    inputs, labels = baseline_inputs(golden)
    case = golden["baseline_loss/paper_eq6"]

    def alignment(s, d, static, event, theta, reading="paper"):
        total, parts = ckd_loss(
            static, event, s, d, labels, theta, alpha=0.0, target=0.5, reading=reading)
        return total - tet_loss(event, labels, target=0.5), parts

    value, parts = alignment(*inputs)
    what = "Eq. (7): paper: total - L_cls-e for alpha = 0 is L_DA with both sums of Eq. (6)"
    assert_close(value, case["L_DA"][0], 1e-9, what)
    for name, key in (("da", "L_DA"), ("cls_e", "L_cls_e"), ("cls_s", "L_cls_s")):
        expected = case[key][()].item()
        assert_approx(parts[name], expected, f"{what}: the part {name}", rel=1e-9)
    slopes = gradients(lambda *a: alignment(*a)[0], *inputs)
    assert_both_sums_gradients(case, slopes, what)
    what = "Eq. (7): the reading \"baseline\" has no second sum in L_DA"
    assert_differs(alignment(*inputs, reading="baseline")[0], case["L_DA"][0], what)


@pytest.mark.parametrize("key", golden_keys("baseline_loss", "reg_c|nodomain"))
def test_eq07_golden_loss_of_the_baseline(golden, key):
    inputs, labels = baseline_inputs(golden)
    beta = float(key.split("_c")[1]) if "_c" in key else 0.0
    case = golden["baseline_loss"][key]

    def loss(s, d, static, event, theta):
        return ckd_loss(
            static, event, s, d, labels, theta, beta=beta, target=0.5, reading="baseline")

    total, parts = loss(*inputs)
    what = f"Eq. (7): the {{}} is that of the baseline's training, beta = {beta}"
    assert_close(total, case["loss"][0], 1e-9, what.format("total"))
    for name, key_there in (("cls_s", "loss_static"), ("cls_e", "loss_dvs")):
        expected = case[key_there][()].item()
        assert_approx(parts[name], expected, what.format(f"part {name}"), rel=1e-9)
    what = what.format("total")
    assert_baseline_gradients(golden, key, lambda *a: loss(*a)[0], inputs, what)


def total_by_loops(batch, reading, alpha, beta, cls_e_counts=1, weigh=expit):
    """L_S + L_cls-e with all parts from the slow oracles."""
    a = weigh(batch["theta"])
    distance = [
        1 - oracles.cka_by_gram(s, d)
        for s, d in zip(batch["features_s"], batch["features_d"])
    ]
    cls_s = oracles.tet(batch["static_logits"], LABELS, 1e-3, 1.0)
    cls_e = oracles.tet(batch["event_logits"], LABELS, 1e-3, 1.0)
    cls_e_weighted = oracles.tet(batch["event_logits"], LABELS, 1e-3, 1.0, 1 - a)
    da = onp.mean(a * distance)
    if reading == "baseline":
        return alpha * cls_s + beta * da + cls_e_counts * cls_e_weighted
    return alpha * cls_s + beta * (da + onp.mean(1 - a) * cls_e) + cls_e_counts * cls_e


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq07_equals_the_sum_of_loops(batch, reading):
    batch |= dict(teacher_logits=None, reading=reading)
    total, _ = ckd_loss(**batch, alpha=0.8, beta=0.3)
    expected = total_by_loops(batch, reading, 0.8, 0.3)
    what = f"Eq. (7): {reading}: the total is the sum of the parts by loops"
    assert_approx(total, expected, what, rel=1e-6)             # eps = 1e-7 in CKA


@pytest.mark.parametrize("reading", ["baseline", "paper"])
@pytest.mark.parametrize("wrong", [
    dict(cls_e_counts=2), dict(cls_e_counts=0), dict(alpha=1.0), dict(beta=1.0),
    dict(weigh=lambda theta: theta), dict(weigh=lambda theta: 1 / (1 + onp.exp(theta))),
], ids=[
    "L_cls-e twice", "L_cls-e missing", "alpha ignored", "beta ignored", "no sigmoid",
    "sign of theta",
])
def test_eq07_wrong_versions_are_caught(batch, reading, wrong, request):
    batch |= dict(teacher_logits=None, reading=reading)
    total, _ = ckd_loss(**batch, alpha=0.8, beta=0.3)
    options = dict(alpha=0.8, beta=0.3) | wrong
    fault = request.node.callspec.id
    what = f"Eq. (7): {reading}: the total must differ from the wrong one of {fault}"
    assert_differs(total, total_by_loops(batch, reading, **options), what)


def test_eq07_readings_differ_by_the_weights_of_the_event_loss(batch):
    """With all theta = 0, baseline has L_cls-e / 2 and paper L_cls-e (1 + beta / 2)."""
    batch |= dict(theta=onp.zeros(3), beta=0.6)
    baseline, paper = (
        ckd_loss(**batch | dict(reading=reading))[0] for reading in ("baseline", "paper"))
    expected = (1 + 0.3 - 0.5) * tet_loss(batch["event_logits"], LABELS)
    what = "Eq. (7): paper - baseline is L_cls-e (1 + beta / 2 - 1 / 2) for theta = 0"
    assert_approx(paper - baseline, expected, what, rel=1e-12)


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq07_gradient(batch, reading):
    def loss(static, event, s, d, theta):
        return ckd_loss(
            static, event, s, d, LABELS, theta, alpha=0.8, beta=0.3, reading=reading)[0]
    arguments = [batch[name] for name in TRAINED]
    assert_gradient(loss, *arguments, what=f"Eq. (7): {reading}: the gradient of the total")


def test_eq07_limits(batch):
    batch |= dict(teacher_logits=None, alpha=0.0, beta=0.0)
    total, _ = ckd_loss(**batch | dict(theta=onp.full(3, 1e3)))
    assert_equal(total, 0, "Eq. (7): theta -> infinity switches the baseline's event loss off")
    reference = tet_loss(batch["event_logits"], LABELS)
    total, _ = ckd_loss(**batch | dict(theta=onp.full(3, -1e3)))
    what = "Eq. (7): {}: with alpha = beta = 0 only L_cls-e is left"
    assert_approx(total, reference, what.format("baseline, theta -> -infinity"), rel=1e-12)
    total, _ = ckd_loss(**batch | dict(reading="paper"))
    assert_approx(total, reference, what.format("paper"), rel=1e-12)


@pytest.mark.package_only
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Output seems independent:UserWarning")
@pytest.mark.parametrize("reading", ["baseline", "paper"])
@pytest.mark.parametrize("bad", [onp.inf, onp.nan])
@pytest.mark.parametrize("weight, spoilt, part", [
    ("alpha", "static_logits", "cls_s"), ("beta", "features_s", "da")])
def test_eq07_a_part_of_weight_0_adds_nothing_even_if_it_is_not_finite(
    batch, weight, spoilt, part, bad, reading
):
    batch |= {"teacher_logits": None, weight: 0.0, "reading": reading}
    total, _ = ckd_loss(**batch)
    spoiled = batch | {spoilt: onp.full_like(batch[spoilt], bad)}
    with onp.errstate(all="ignore"):
        spoiled_total, parts = ckd_loss(**spoiled)
        what = f"Eq. (7): with {weight} = 0 the total must not depend on {spoilt}, here {bad}"
        assert_equal(spoiled_total, total, what)
        assert not onp.isfinite(parts[part]), f"Eq. (7): the part {part} must be reported as it is"
        for name in TRAINED:
            if name != spoilt:
                def loss(value):
                    return ckd_loss(**spoiled | {name: value})[0]
                what = f"Eq. (7): with {weight} = 0 and {spoilt} {bad}, the gradient for {name}"
                assert_finite(grad(loss)(batch[name]), what)


# Eq. (9)

def softens_and_restores_the_scale(kd):
    """At temperature 2, logits (2 ln 3, 0) and (0, 0) become (3/4, 1/4) and (1/2, 1/2)."""
    teacher, student = onp.array([[2 * onp.log(3), 0], [1.0, 1]]), onp.zeros((2, 2))
    divergence = 3 / 4 * onp.log(3 / 2) + 1 / 4 * onp.log(1 / 2)
    what = "Eq. (9): temperature^2 times the mean over the batch of KL(teacher || student)"
    factors = {"temperature^2": 4, "temperature = batch size = classes": 2}
    assert_approx(kd(teacher, student, 2.0), 4 * divergence / 2, what, factors=factors)


def test_eq09_value_by_hand():
    softens_and_restores_the_scale(kd_loss)


def test_eq09_default_temperature_is_4():
    """Logits (4 ln 3, 0) and (0, 0) become (3/4, 1/4) and (1/2, 1/2)."""
    divergence = 3 / 4 * onp.log(3 / 2) + 1 / 4 * onp.log(1 / 2)
    value = kd_loss(onp.array([[4 * onp.log(3), 0]]), onp.zeros((1, 2)))
    what = "Eq. (9): without a temperature it is 4"
    assert_approx(value, 16 * divergence, what, factors={"temperature^2": 16})


def kd_by_scipy(
    teacher, student, temperature, power=2, soften=True, over_batch=onp.mean, swap=False, sign=1
):
    tau = temperature if soften else 1
    p, q = softmax(teacher / tau, axis=1), softmax(student / tau, axis=1)
    if swap:
        p, q = q, p
    return sign * temperature**power * over_batch(rel_entr(p, q).sum(1))


@pytest.mark.package_only
@pytest.mark.parametrize("wrong", [
    dict(power=0), dict(power=1), dict(soften=False), dict(over_batch=onp.sum), dict(swap=True),
    dict(sign=-1),
], ids=[
    "no temperature^2", "temperature once", "not softened", "sum over batch", "swapped", "sign",
])
def test_eq09_wrong_versions_are_caught(wrong):
    with pytest.raises(AssertionError, match=r"Eq\. \(9\): .*expected .*, got "):
        softens_and_restores_the_scale(lambda *a: kd_by_scipy(*a, **wrong))
    softens_and_restores_the_scale(kd_by_scipy)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_eq09_equals_scipy_and_the_loop(pair, temperature):
    value = kd_loss(*pair, temperature)
    factors = {"temperature^2": temperature**2, "batch size": 6, "temperature": temperature}
    what = f"Eq. (9): at the temperature {temperature} the loss is that {{}}"

    def check(expected, route):
        assert_approx(value, expected, what.format(route), rel=1e-9, factors=factors)

    check(kd_by_scipy(*pair, temperature), "of scipy's rel_entr")
    p, q = softmax(pair / temperature, axis=-1)
    check(temperature**2 * entropy(p, q, axis=1).mean(), "of scipy's entropy")
    loop = onp.mean([oracles.kl(*rows, temperature) for rows in zip(*pair)])
    check(temperature**2 * loop, "of a loop")


def assert_golden_pair(golden, group, key, loss, what):
    """Value and gradients of a distillation loss; keys in _big hold the logits times 40."""
    g = golden[group]
    scale = 40 if key.endswith("_big") else 1
    arguments = scale * g["teacher"][:], scale * g["student"][:]
    factors = {"batch size": len(arguments[0])}
    assert_close(loss(*arguments), g[key]["loss"][()], 1e-9, f"{what} ({key})", factors)
    for i, name in enumerate(("grad_teacher", "grad_student")):
        if name in g[key]:
            slope = grad(loss, i)(*arguments)
            assert_close(slope, g[key][name][:], 1e-9, f"{what} ({key}), {name}", factors)


@pytest.mark.parametrize("key", golden_keys("kd", ".*_T"))
def test_eq09_golden(golden, key):
    """eq9_* is the literal equation with a batch mean: temperature^2 less than ours."""
    temperature = float(re.search(r"_T([\d.]+)", key)[1])
    factor = temperature**-2 if key.startswith("eq9") else 1
    what = "Eq. (9): the loss is that of the original kd_loss"
    assert_golden_pair(golden, "kd", key, lambda t, s: factor * kd_loss(t, s, temperature), what)


def test_eq09_gradient(pair):
    assert_gradient(lambda t, s: kd_loss(t, s, 3.0), *pair, what="Eq. (9): the gradient")
    p, q = softmax(pair / 3, axis=-1)
    what = "Eq. (9): the student's gradient is temperature (q - p) / B"
    factors = {"temperature": 3, "temperature^2": 9, "batch size": 6}
    assert_close(grad(kd_loss, 1)(*pair, 3.0), 3 * (q - p) / 6, 1e-12, what, factors)


def test_eq09_equal_logits_cost_nothing(pair):
    """A constant added to all classes changes nothing either."""
    teacher = pair[0]
    what = "Eq. (9): equal logits cost nothing"
    assert_approx(kd_loss(teacher, teacher), 0, what, abs=1e-12)
    steepest = abs(grad(kd_loss, 1)(teacher, teacher)).max()
    assert steepest < 1e-12, f"Eq. (9): at equal logits the gradient is 0, got {steepest}"
    what = "Eq. (9): a constant added to all classes costs nothing"
    assert_approx(kd_loss(teacher, teacher + 5), 0, what, abs=1e-12)
    value = kd_loss(*pair)
    assert value > 0, f"Eq. (9): different logits cost something; expected > 0, got {value}"


@pytest.mark.package_only
def test_eq09_equal_logits_cost_exactly_nothing(pair):
    """Not even a rounding error: both go through the same operations."""
    teacher = pair[0]
    assert_equal(kd_loss(teacher, teacher), 0, "Eq. (9): equal logits cost nothing")
    steepest = abs(grad(kd_loss, 1)(teacher, teacher)).max()
    assert steepest < 1e-15, f"Eq. (9): at equal logits the gradient is 0, got {steepest}"


def test_eq09_high_temperature_compares_centred_logits(pair):
    """temperature^2 KL tends to half the mean squared difference of logits without class mean."""
    difference = pair[0] - pair[1]
    difference = difference - difference.mean(axis=1, keepdims=True)
    what = "Eq. (9): at a high temperature it is half the mean squared difference of the logits"
    factors = {"temperature^2": 1e8, "temperature": 1e4}
    assert_approx(kd_loss(*pair, 1e4), (difference**2).mean() / 2, what, rel=1e-3, factors=factors)


def test_eq09_low_temperature_limit_is_the_gap_of_the_teachers_class(pair):
    """KL times temperature tends to max(student) - student[argmax teacher]."""
    teacher, student = pair
    gap = student.max(1) - student[onp.arange(6), teacher.argmax(1)]
    what = "Eq. (9): at a low temperature it tends to the student's gap at the teacher's class"
    assert_approx(kd_loss(*pair, 1e-3) / 1e-3, gap.mean(), what, rel=1e-2)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_eq09_huge_logits_stay_finite(pair, scale):
    huge = scale * pair
    with onp.errstate(over="raise", invalid="raise"):
        assert_finite(kd_loss(*huge), f"Eq. (9): the loss of logits around {scale:g}")
        assert_finite(grad(kd_loss, 1)(*huge), f"Eq. (9): its gradient at logits around {scale:g}")


# Eq. (11)

def test_eq11_value_by_hand():
    """Eq. (7)'s example, and gamma times a divergence whose student is the mean over time."""
    static = onp.array([[[4.0, 0]] * 3, [[-4.0, 0]] * 3])      # (2, 3, 2), mean 0
    teacher = onp.array([[4 * onp.log(3), 0]] * 3)             # (3/4, 1/4) at temperature 4
    divergence = 3 / 4 * onp.log(3 / 2) + 1 / 4 * onp.log(1 / 2)
    s, d = onp.stack([RAMP] * 2), onp.stack([PEAK] * 2)
    arguments = static, onp.zeros((2, 3, 2)), s, d, onp.array([0, 1, 1]), onp.zeros(2)
    total, parts = ckd_loss(*arguments, teacher, gamma=0.3, reading="baseline")
    without, _ = ckd_loss(*arguments, reading="baseline")
    what = "Eq. (11): L_KD compares the teacher with the static logits' mean over time"
    factors = {"temperature^2": 16, "gamma": 0.3, "T": 2, "B": 3}
    assert_approx(parts["kd"], 16 * divergence, what, factors=factors)
    what = "Eq. (11): a teacher adds gamma L_KD to the total"
    assert_approx(total - without, 0.3 * 16 * divergence, what, factors=factors)


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq11_equals_the_sum_of_loops(batch, reading):
    batch |= dict(reading=reading)
    total, parts = ckd_loss(**batch, alpha=0.8, beta=0.3, temperature=2.0)
    student = batch["static_logits"].mean(0)
    kd = 4 * onp.mean([oracles.kl(t, s, 2.0) for t, s in zip(batch["teacher_logits"], student)])
    factors = {"temperature^2": 4, "T": 3, "B": 6, "gamma": 0.7}
    what = f"Eq. (11): {reading}: the {{}} is that of loops"
    assert_approx(parts["kd"], kd, what.format("L_KD"), rel=1e-9, factors=factors)
    expected = total_by_loops(batch, reading, 0.8, 0.3) + 0.7 * kd
    assert_approx(total, expected, what.format("total"), rel=1e-6)


@pytest.mark.parametrize("wrong", [
    lambda static, event, teacher: -0.7 * kd_loss(teacher, static.mean(0)),
    lambda static, event, teacher: kd_loss(teacher, static.mean(0)),
    lambda static, event, teacher: 0.7 * kd_loss(teacher, event.mean(0)),
    lambda static, event, teacher: 0.7 * onp.mean([kd_loss(teacher, s) for s in static]),
    lambda static, event, teacher: 0.7 * kd_loss(teacher, static.sum(0)),
    lambda static, event, teacher: 0.7 * kd_loss(static.mean(0), teacher),
], ids=[
    "gamma's sign", "gamma ignored", "event head", "step by step", "sum over time",
    "teacher learns",
])
def test_eq11_wrong_versions_are_caught(batch, wrong, request):
    batch["teacher_logits"] *= 5                               # tells KL's two directions apart
    total, without = ckd_loss(**batch)[0], ckd_loss(**batch | dict(teacher_logits=None))[0]
    static, event, teacher = (
        batch[name] for name in ("static_logits", "event_logits", "teacher_logits"))
    what = "Eq. (11): a teacher adds gamma L_KD of the static logits' mean over time"
    expected = 0.7 * kd_loss(teacher, static.mean(0))
    assert_approx(total - without, expected, what, rel=1e-9, factors={"gamma": 0.7})
    fault = f"{what}, not: {request.node.callspec.id}"
    assert_differs(total - without, wrong(static, event, teacher), fault)


@pytest.mark.parametrize("key", ["kd_mean_logits", "ckd_code_style"])
def test_eq11_golden_distillation_term(golden, key):
    """The divergence of the time mean, by itself and as what it adds to the baseline's total."""
    g = golden["tiny_vggsnn"]
    static, teacher, gamma = g["logits_static"][:], g["teacher_logits"][:], g.attrs["gamma"]
    kd = kd_loss(teacher, static.mean(0))
    if key == "kd_mean_logits":
        what = "Eq. (11): L_KD of the static logits' mean over time is the golden one"
        assert_close(kd, g[key][()], 1e-9, what)
        assert_differs(kd, g["kd_per_step"][()], f"{what}, not the mean of the steps' losses")
    else:
        added = g[key]["loss"][0] - g["baseline_code/loss"][0]
        what = "Eq. (11): gamma L_KD is what distillation adds to the golden total"
        assert_approx(added, gamma * kd, what, rel=1e-9)


@pytest.mark.parametrize("key, per_step", [("kd_per_step", True), ("kd_mean_logits", False)])
def test_eq11_golden_distillation_per_step_or_on_the_mean(golden, key, per_step):
    g = golden["tiny_vggsnn"]
    static, event, teacher = (
        g[name][:] for name in ("logits_static", "logits_dvs", "teacher_logits"))
    s, d, labels = g["feat_static"][:], g["feat_dvs"][:], g["labels"][:]
    options = dict(gamma=0.3, reading="baseline", kd_per_step=per_step)
    total, parts = ckd_loss(static, event, s, d, labels, onp.zeros(len(static)), teacher, **options)
    other = {"kd_per_step", "kd_mean_logits"} - {key}
    what = f"Eq. (11): with kd_per_step={per_step} L_KD is the golden {key}"
    assert_close(parts["kd"], g[key][()], 1e-9, what, {"T": len(static)})
    assert_differs(parts["kd"], g[other.pop()][()], what)
    without, _ = ckd_loss(static, event, s, d, labels, onp.zeros(len(static)), reading="baseline")
    what = f"Eq. (11): with kd_per_step={per_step} the total has gamma L_KD more"
    assert_approx(total - without, 0.3 * g[key][()], what, rel=1e-9)


@pytest.mark.parametrize("per_step", [False, True])
def test_eq11_distillation_by_another_function(batch, per_step):
    """DKD, which needs the labels: they come with the function."""
    def distill(teacher, student):
        return dkd_loss(teacher, student, LABELS, temperature=2.0)

    total, parts = ckd_loss(**batch, distill=distill, kd_per_step=per_step)
    static, teacher = batch["static_logits"], batch["teacher_logits"]
    steps = static if per_step else [static.mean(0)]
    expected = onp.mean([distill(teacher, step) for step in steps])
    what = "Eq. (11): with distill=, L_KD is that function of teacher and student logits"
    assert_approx(parts["kd"], expected, what, rel=1e-12, factors={"T": 3})
    without, _ = ckd_loss(**batch | dict(teacher_logits=None))
    what = "Eq. (11): with distill=, its value is weighted by gamma and added"
    assert_approx(total - without, 0.7 * expected, what, rel=1e-9)

    def loss(static):
        changed = batch | dict(static_logits=static)
        return ckd_loss(**changed, distill=distill, kd_per_step=per_step)[0]
    what = "Eq. (11): with distill=, the gradient for the static logits"
    assert_gradient(loss, static, what=what)


@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq11_gradient(batch, reading):
    def loss(static, event, s, d, theta):
        return ckd_loss(
            static, event, s, d, LABELS, theta, batch["teacher_logits"], 0.7, reading=reading)[0]
    arguments = [batch[name] for name in TRAINED]
    assert_gradient(loss, *arguments, what=f"Eq. (11): {reading}: the gradient of the total")


def test_eq11_teacher_moves_the_static_head_only(batch):
    def slope(name, **change):
        def loss(value):
            return ckd_loss(**batch | {name: value} | change)[0]
        return grad(loss)(batch[name])

    for name in ("event_logits", "features_s", "features_d", "theta"):
        what = f"Eq. (11): the teacher must not change the gradient for {name}"
        assert_close(slope(name), slope(name, teacher_logits=None), 1e-12, what)
    gap = relative_error(slope("static_logits"), slope("static_logits", teacher_logits=None))
    assert gap > 1e-2, "Eq. (11): the teacher must change the gradient for the static logits"


def test_eq11_without_gamma_is_eq07(batch):
    plain, parts = ckd_loss(**batch | dict(teacher_logits=None))
    total, _ = ckd_loss(**batch | dict(gamma=0.0))
    assert_equal(total, plain, "Eq. (11): with gamma = 0 it is Eq. (7)")
    assert "kd" not in parts, "Eq. (11): without a teacher there is no L_KD to report"


@pytest.mark.package_only
@pytest.mark.parametrize("logits", [onp.inf, onp.nan, 1e300])
def test_eq11_a_distillation_of_weight_0_adds_nothing_even_if_it_is_not_finite(batch, logits):
    """Teacher logits that are NaN, Inf or huge, and gamma = 0 as Eq. (10) ends."""
    plain, _ = ckd_loss(**batch | dict(teacher_logits=None))
    teacher = onp.full((6, 4), logits)
    teacher[:, 0] = 0
    spoiled = batch | dict(gamma=0.0, teacher_logits=teacher)
    with onp.errstate(all="ignore"):
        total, parts = ckd_loss(**spoiled)
        what = f"Eq. (11): with gamma = 0 the total must not depend on teacher logits of {logits}"
        assert_equal(total, plain, what)
        assert "kd" in parts, "Eq. (11): L_KD must be reported also with gamma = 0"
        for name in TRAINED:
            def loss(value):
                return ckd_loss(**spoiled | {name: value})[0]

            def loss_without(value):
                return ckd_loss(**batch | {name: value, "teacher_logits": None})[0]
            what = f"Eq. (11): gamma = 0, teacher logits of {logits}: the gradient for {name}"
            assert_equal(grad(loss)(batch[name]), grad(loss_without)(batch[name]), what)


@pytest.mark.package_only
@pytest.mark.filterwarnings("ignore:Output seems independent:UserWarning")
@pytest.mark.parametrize("logits", [onp.nan, onp.inf, 1e300])
def test_eq11_spoilt_student_logits_of_weight_0_add_nothing(batch, logits):
    """alpha = gamma = 0: nothing that the static head says is left."""
    batch |= dict(alpha=0.0, gamma=0.0)
    plain, _ = ckd_loss(**batch)
    static = onp.full((3, 6, 4), logits)
    static[..., 0] = 0
    spoiled = batch | dict(static_logits=static)
    with onp.errstate(all="ignore"):
        what = f"Eq. (11): alpha = gamma = 0: no part is left for static logits of {logits}"
        assert_equal(ckd_loss(**spoiled)[0], plain, what)
        for name in TRAINED[1:]:
            def loss(value):
                return ckd_loss(**spoiled | {name: value})[0]
            assert_finite(grad(loss)(batch[name]), f"{what}, gradient for {name}")


# Table II

TABLE_2 = {
    "dkd": lambda t, s: dkd_loss(t, s, LABELS % t.shape[1]),
    "dist": dist_loss,
    "luminet": luminet_loss,
}

GOLDEN_TABLE_2 = [(group, key) for group in TABLE_2 for key in golden_keys(group, ".*_T")]


@pytest.mark.parametrize("group, key", GOLDEN_TABLE_2)
def test_table_2_golden(golden, group, key):
    numbers = (float(part[1:]) for part in key.removesuffix("_big").split("_"))
    *weights, temperature = numbers
    labels = golden[group]["labels"][:]
    loss = {
        "dkd": lambda t, s: dkd_loss(t, s, labels, *weights, temperature),
        "dist": lambda t, s: dist_loss(t, s, *weights, temperature),
        "luminet": lambda t, s: luminet_loss(t, s, *weights, temperature),
    }[group]
    what = f"Table II: {group}_loss is that of the original"
    assert_golden_pair(golden, group, key, loss, what)


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2_gradient_and_equal_logits(pair, name):
    loss = TABLE_2[name]
    assert_gradient(loss, *pair, what=f"Table II: the gradient of {name}_loss")
    what = f"Table II: {name}_loss of equal logits is 0"
    assert_approx(loss(pair[0], pair[0]), 0, what, abs=1e-6)
    value = loss(*pair)
    assert value > 0.01, f"Table II: {name}_loss of different logits: expected > 0.01, got {value}"


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2_huge_logits_stay_finite(pair, name):
    huge = 1e4 * pair
    assert_finite(TABLE_2[name](*huge), f"Table II: {name}_loss of huge logits")
    slope = grad(TABLE_2[name], 1)(*huge)
    assert_finite(slope, f"Table II: the gradient of {name}_loss at huge logits")


def test_dkd_is_kd_when_both_parts_have_their_natural_weights(pair):
    """KL = binary KL + (1 - p_y) KL of the rest (Zhao et al., Eq. 7), by scipy."""
    p, q = softmax(pair / 4, axis=-1)
    own = onp.arange(6), LABELS
    b_p, b_q = (onp.stack([r[own], 1 - r[own]], 1) for r in (p, q))
    rest_p, rest_q = (onp.where(onp.eye(4)[LABELS] == 1, 0, r) for r in (p, q))
    tckd = 16 * entropy(b_p, b_q, axis=1).mean()
    nckd = 16 * entropy(rest_p, rest_q, axis=1)
    factors = {"temperature^2": 16, "batch size": 6}
    what = "Table II: dkd_loss: the {} divergence is temperature^2 times scipy's"
    target_only = dkd_loss(*pair, LABELS, 1, 0)
    assert_approx(target_only, tckd, what.format("target"), rel=1e-9, factors=factors)
    rest_only = dkd_loss(*pair, LABELS, 0, 1)
    assert_approx(rest_only, nckd.mean(), what.format("others'"), rel=1e-9, factors=factors)
    what = "Table II: KD is the two parts of DKD with their natural weights"
    assert_approx(kd_loss(*pair), tckd + ((1 - p[own]) * nckd).mean(), what, rel=1e-9)


def test_dist_equals_numpys_correlations(pair):
    def distance(P, Q):
        return onp.mean([1 - onp.corrcoef(a, b)[0, 1] for a, b in zip(P, Q)])

    p, q = softmax(pair / 2, axis=-1)
    expected = 4 * (2 * distance(p, q) + 3 * distance(p.T, q.T))
    value = dist_loss(*pair, beta=2, gamma=3, temperature=2)
    what = "Table II: dist_loss is temperature^2 (beta (1 - rho of rows) + gamma (... of columns))"
    assert_approx(value, expected, what, rel=1e-5, factors={"temperature^2": 4})


def test_luminet_equals_scipy_and_ignores_the_scale_of_a_class(pair):
    z_t, z_s = ((z - z.mean(0)) / onp.sqrt(z.var(0) + 1e-5) / 3 for z in pair)
    log_p, log_q = (z - logsumexp(z, axis=1, keepdims=True) for z in (z_t, z_s))
    reference = 4 * (onp.exp(log_p) * (log_p - log_q)).sum(1).mean()
    value = luminet_loss(*pair, alpha=2, temperature=3)
    what = "Table II: luminet_loss is alpha^2 KL of logits standardised per class"
    factors = {"temperature^2": 9, "alpha": 2, "batch size": 6}
    assert_approx(value, reference, what, rel=1e-9, factors=factors)
    scaled = pair[0] * [1, 2, 3, 4] + [5, 6, 7, 8]
    what = "Table II: luminet_loss ignores the scale and mean of a class"
    assert_approx(luminet_loss(pair[0], scaled), 0, what, abs=1e-6)


# Precision and bad input

@pytest.mark.parametrize("reading", ["baseline", "paper"])
def test_eq11_float32_stays_float32(batch, reading):
    batch = {
        name: value.astype(onp.float32) if name not in ("labels", "gamma", "reading") else value
        for name, value in batch.items()
    } | dict(reading=reading)
    for gamma in (0.7, 0, onp.float64(0.7)):
        batch["gamma"] = gamma
        what = f"Eq. (11): {reading}: the {{}} must stay float32 with gamma = {gamma!r}"
        assert_dtype(ckd_loss(**batch)[0], onp.float32, what.format("total"))
        for name in TRAINED:
            slope = grad(lambda value: ckd_loss(**batch | {name: value})[0])(batch[name])
            assert_dtype(slope, onp.float32, what.format(f"gradient for {name}"))


def assert_float32(name, loss, pair, what):
    single = [logits.astype(onp.float32) for logits in pair]
    assert_dtype(loss(*single), onp.float32, f"{what}: {name}_loss must stay float32")
    for slope in gradients(loss, *single):
        assert_dtype(slope, onp.float32, f"{what}: the gradient of {name}_loss must stay float32")
    what = f"{what}: {name}_loss in float32 is that in float64"
    assert_approx(loss(*single), loss(*pair), what, rel=1e-4)


def test_eq09_float32_stays_float32(pair):
    assert_float32("kd", kd_loss, pair, "Eq. (9)")


@pytest.mark.parametrize("name", TABLE_2)
def test_table_2_float32_stays_float32(pair, name):
    assert_float32(name, TABLE_2[name], pair, "Table II")


def test_tet_float32_stays_float32(batch):
    logits, weights = batch["static_logits"].astype(onp.float32), onp.ones(3, onp.float32)
    what = "TET: {} must stay float32"
    assert_dtype(cross_entropy(logits, LABELS), onp.float32, what.format("cross-entropy"))
    loss = tet_loss(logits, LABELS, weights=weights)
    assert_dtype(loss, onp.float32, what.format("the loss"))
    slope = grad(lambda o: tet_loss(o, LABELS, weights=weights))(logits)
    assert_dtype(slope, onp.float32, what.format("the gradient"))


def test_eq05_float32_stays_float32(batch):
    features = [batch[name].astype(onp.float32) for name in ("features_s", "features_d")]
    what = "Eq. (5): L_DA and its gradients must stay float32"
    for result in (domain_alignment_loss(*features), *gradients(domain_alignment_loss, *features)):
        assert_dtype(result, onp.float32, what)


def zeros(*shape):
    return onp.zeros(shape)


@pytest.mark.parametrize("call, message", [
    (lambda: cross_entropy(zeros(2, 3), onp.array([0, 3])),
     r"labels in 0 \.\.\. 2, got 3 for sample 1"),
    (lambda: cross_entropy(zeros(2, 3), onp.array([-1, 0])),
     r"labels in 0 \.\.\. 2, got -1 for sample 0"),
    (lambda: cross_entropy(zeros(2, 3) + 1j, onp.array([0, 1])), "real numbers, got complex"),
    (lambda: tet_loss(zeros(2, 2, 3) + 1j, onp.array([0, 1])), "real numbers, got complex"),
    (lambda: domain_alignment_loss(zeros(2, 3, 4), zeros(2, 3, 4) + 1j), "real numbers, got comp"),
    (lambda: tet_loss(zeros(2, 2, 3).astype(onp.uint8), onp.array([0, 1])), "floats, got uint8"),
    (lambda: tet_loss(zeros(2, 2, 3), onp.array([0, 1]), weights=zeros(2, 1)),
     r"weights of shape \(2,\), got shape \(2, 1\)"),
    (lambda: domain_alignment_loss(zeros(2, 3, 4), zeros(2, 3, 4), zeros(2, 1)),
     r"theta of shape \(2,\), got shape \(2, 1\)"),
    (lambda: dkd_loss(zeros(2, 3), zeros(2, 3), zeros(2, 3)), r"one class per sample, .*\(2, 3\)"),
    (lambda: cross_entropy(zeros(2, 3), onp.array([0, 1, 2])),
     r"2 whole-number labels.*shape \(3,\)"),
    (lambda: cross_entropy(zeros(2, 3), onp.array([0.0, 1.0])), "whole-number labels.*float64"),
    (lambda: tet_loss(zeros(2, 3), onp.array([0, 1])), r"logits \(T, B, K\)"),
    (lambda: tet_loss(zeros(0, 2, 3), onp.array([0, 1])),
     r"none of them 0, got shape \(0, 2, 3\)"),
    (lambda: domain_alignment_loss(zeros(2, 3, 4), zeros(2, 4, 4)),
     r"same T >= 1 and B.*\(2, 4, 4\)"),
    (lambda: domain_alignment_loss(zeros(2, 1, 4), zeros(2, 1, 4)), "at least 2 samples, got 1"),
    (lambda: kd_loss(zeros(2, 3), zeros(2, 4)), "one shape .*know the same classes"),
    (lambda: kd_loss(zeros(2, 3), zeros(2, 3), 0), "temperature > 0, got 0"),
    (lambda: kd_loss(zeros(0, 3), zeros(0, 3)), r"got \(0, 3\)"),
    (lambda: dkd_loss(zeros(2, 3), zeros(2, 3), onp.array([0, 7])), "got 7 for sample 1"),
    (lambda: dist_loss(zeros(2, 3), zeros(3, 3)), "one shape"),
    (lambda: luminet_loss(zeros(2, 3), zeros(2, 3), 1.0, -1.0), "temperature > 0, got -1"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_unknown_reading_is_refused(batch):
    with pytest.raises(ValueError, match='reading "paper" or "baseline", got \'both\''):
        ckd_loss(**batch | dict(reading="both"))


def test_eq05_one_time_step_is_the_distance_of_that_step(features):
    s, d = (f[:1] for f in features)
    expected = 1 - oracles.cka_by_gram(s.reshape(6, -1), d.reshape(6, -1))
    what = "Eq. (5): with T = 1 it is 1 - CKA"
    assert_approx(domain_alignment_loss(s, d), expected, what, rel=1e-6)


@pytest.mark.package_only
def test_shapes_in_messages_stand_in_the_order_of_the_arguments():
    teacher, student = onp.zeros((2, 3)), onp.zeros((2, 4))
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 4\)"):
        kd_loss(teacher, student)


@pytest.mark.package_only
@pytest.mark.parametrize("loss, teacher, student", [
    (kd_loss, "teacher_logits", "student_logits"),
    (functools.partial(dkd_loss, labels=LABELS), "teacher", "student"),
    (dist_loss, "teacher", "student"), (luminet_loss, "teacher", "student"),
], ids=["kd", "dkd", "dist", "luminet"])
def test_named_logits_of_a_distillation_cannot_be_exchanged(pair, loss, teacher, student):
    """By position the teacher comes first, and only DIST has the same loss the other way round."""
    p, q = pair
    assert loss(**{student: q, teacher: p}) == loss(p, q)
    assert (loss(q, p) == pytest.approx(loss(p, q))) == (loss is dist_loss)


@pytest.mark.package_only
@pytest.mark.parametrize("loss", [
    kd_loss, lambda t, s, **options: dkd_loss(t, s, onp.array([0, 1]), **options),
    dist_loss, luminet_loss,
], ids=["kd", "dkd", "dist", "luminet"])
def test_every_distillation_refuses_pairs_that_do_not_fit(loss):
    two, three = onp.zeros((2, 3)), onp.zeros((3, 3))
    with pytest.raises(ValueError, match="do both know the same classes"):
        loss(two, three)
    for pair in ((two + 1j, two), (two, two + 1j)):
        with pytest.raises(ValueError, match="real numbers, got complex"):
            loss(*pair)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="a temperature > 0"):
            loss(two, two, temperature=temperature)
