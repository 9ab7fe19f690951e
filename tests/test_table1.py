"""Table I: the functions of ETC, TKS, EventMix and NDA, and what the training makes of them."""

import math

import numpy as np
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
)
from autograd import grad
from conftest import golden_keys
from scipy.special import rel_entr, softmax

from ckd_ref import table1, training
from ckd_ref.batches import Batch, mix_recordings
from ckd_ref.config import Config
from ckd_ref.losses import cross_entropy, tet_loss
from ckd_ref.table1 import (
    etc_loss,
    eventmix,
    eventmix_mask,
    flip_and_rotate,
    nda,
    sharing_weight,
    tks_loss,
)

LABELS = np.array([0, 2, 1, 3, 2, 0])


@pytest.fixture
def logits(rng):
    """(T, B, K) = (3, 6, 4), right at 8 of the 18 places."""
    return rng.normal(size=(3, 6, 4)) + np.eye(4)[LABELS]


# ETC


def test_etc_value_by_hand():
    """Steps (3/4, 1/4) and (1/2, 1/2): the mean of both divergences."""
    logits = np.array([[[math.log(3), 0]], [[0.0, 0]]])
    there = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    back = 1 / 2 * math.log(2 / 3) + 1 / 2 * math.log(2)
    what = "ETC: the mean of KL(j || i) over ordered pairs of different steps"
    assert_approx(etc_loss(logits), (there + back) / 2, what, factors={"T": 2, "2": 2})


@pytest.mark.parametrize("key", golden_keys("etc", "T"))
def test_etc_golden(golden, key):
    temperature, g = float(key[1:]), golden["etc"]
    outputs = g["outputs"][:]
    what = f"ETC: the {{}} at temperature {temperature} is that of the original ETC"
    value = etc_loss(outputs, temperature)
    assert_close(value, g[key]["loss"][()], 1e-9, what.format("loss"), {"B": 6})
    slope = grad(etc_loss)(outputs, temperature)
    assert_close(slope, g[key]["grad"][:], 1e-9, what.format("gradient"))
    # A wrong version: the teaching step is not constant.
    def attached(outputs):
        T, B, _ = outputs.shape
        log_q = table1.log_softmax(outputs / temperature)
        pairs = training.np.exp(log_q) * (log_q - log_q[:, None])
        return training.np.sum(pairs) * temperature**2 / (T * (T - 1) * B)
    assert_close(attached(outputs), value, 1e-12, "ETC: the values of both versions agree")
    assert_differs(abs(grad(attached)(outputs)).sum(), abs(slope).sum(), what.format("gradient"))


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_etc_equals_the_loop(logits, temperature):
    p = softmax(logits / temperature, axis=-1)
    pairs = [rel_entr(p[j], p[i]).sum(-1).mean() for i in range(3) for j in range(3) if i != j]
    what = "ETC: the loss is that of a loop over pairs of steps"
    value = etc_loss(logits, temperature)
    assert_approx(value, temperature**2 * np.mean(pairs), what, rel=1e-12, factors={"T": 3})
    p[1] = p[0]
    same = etc_loss(np.stack([logits[0]] * 3), temperature)
    assert_approx(same, 0, "ETC: steps that agree cost nothing", abs=1e-12)


# TKS


@pytest.mark.parametrize("key", golden_keys("tks", "T"))
def test_tks_golden(golden, key):
    temperature, g = float(key[1:]), golden["tks"]
    outputs, labels = g["outputs"][:], g["labels"][:]
    for i, name in enumerate(("loss1", "loss2")):
        what = f"TKS: {name} at temperature {temperature}: the {{}} is that of the original"
        value = tks_loss(outputs, labels, temperature)[i]
        factors = {"temperature^2": temperature**2, "T": 4, "B": 6}
        assert_close(value, g[key][name][()], 1e-9, what.format("loss"), factors)
        slope = grad(lambda o: tks_loss(o, labels, temperature)[i])(outputs)
        assert_close(slope, g[key][f"grad{i + 1}"][:], 1e-9, what.format("gradient"))


def test_tks_equals_the_loop(logits):
    """Sample by sample; a wrong version in which all steps teach gives another number."""
    def shared(only_right):
        total = 0.0
        for b, label in enumerate(LABELS):
            steps = [o for o in logits[:, b] if o.argmax() == label or not only_right]
            p = softmax(sum(steps, np.zeros(4)) / 3.0)
            total += sum(p[k] * oracles.cross_entropy(o, k) for o in logits[:, b] for k in range(4))
        return 9 * total / 18

    loss1, loss2 = tks_loss(logits, LABELS, 3.0)
    of_mean = [oracles.cross_entropy(o, k) for o, k in zip(logits.mean(0), LABELS)]
    assert_approx(loss1, np.mean(of_mean), "TKS: loss1 is the cross-entropy of the mean output")
    what = "TKS: loss2 is that of a loop in which the steps that are right teach"
    assert_approx(loss2, shared(True), what, rel=1e-12, factors={"temperature^2": 9, "T": 3})
    assert_differs(loss2, shared(False), "TKS: steps that are wrong must not teach")


def test_tks_teaches_nothing_where_no_step_is_right():
    logits = np.array([[[0.0, 5, 1]], [[0, 3, 0]]])
    _, loss2 = tks_loss(logits, np.array([0]))
    expected = np.mean([oracles.cross_entropy(o, k) for o in logits[:, 0] for k in range(3)])
    assert_approx(loss2, expected, "TKS: without a right step all classes are taught alike")


def test_tks_weight_grows_over_the_epochs():
    weights = [sharing_weight(epoch, 10) for epoch in (0, 5, 9)]
    assert_approx(weights, [0, 0.35, 0.63], "TKS: the weight is 0.7 epoch / epochs")
    config = Config(method="tks", epochs=10)
    assert training.weight_of_epoch(5, config) == weights[1]
    others = {training.weight_of_epoch(3, Config(method=name, epochs=10))
              for name in ("snn", "etc", "transfer", "ckd")}
    assert others == {1.0}, "Eq. (10) is the weight of all other methods"


def test_losses_between_steps_have_their_gradients(logits):
    assert_gradient(lambda o: tks_loss(o, LABELS, 2.0)[0], logits, what="TKS: loss1's gradient")
    assert_gradient(lambda o: tks_loss(o, LABELS, 2.0)[1], logits, what="TKS: loss2's gradient")
    p = softmax(logits / 2, axis=-1)
    expected = 2 * sum(p - p[j] for j in range(3)) / (3 * 2 * 6)
    what = "ETC: the gradient is temperature times the sum of q_i - p_j over pairs"
    assert_close(grad(etc_loss)(logits, 2.0), expected, 1e-12, what, {"temperature": 2})


def test_losses_between_steps_keep_float32_and_stay_finite(logits):
    single = (1e4 * logits).astype(np.float32)
    losses = [etc_loss, *(lambda o, i=i: tks_loss(o, LABELS, 2.0)[i] for i in (0, 1))]
    for loss in losses:
        for result in (loss(single), grad(loss)(single)):
            assert_dtype(result, np.float32, "Table I: losses and gradients stay float32")
            assert_finite(result, "Table I: losses of huge logits are finite")


@pytest.mark.parametrize("call, match", [
    (lambda: etc_loss(np.zeros((1, 2, 3))), "at least two time steps"),
    (lambda: etc_loss(np.zeros((2, 3))), r"logits \(T, B, K\)"),
    (lambda: tks_loss(np.zeros((2, 1, 3)), np.array([0]), 0.0), "temperature > 0"),
    (lambda: tks_loss(np.zeros((2, 1, 3)), np.array([3])), r"labels in 0 \.\.\. 2"),
    (lambda: tks_loss(np.zeros((3, 3, 3)), np.eye(3)), r"whole-number labels \(B,\), .* \(3, 3\)"),
    (lambda: eventmix(np.zeros((2, 3, 3, 2)), np.zeros((2, 3, 3, 2)), np.zeros((2, 3, 3))),
     "mask"),
    (lambda: eventmix(np.zeros((2, 3, 3, 2)), np.zeros((2, 3, 2, 2)), np.zeros((2, 3, 3), bool)),
     "one shape"),
    (lambda: eventmix_mask(2, 3, 3, 1.5, None), r"share in \[0, 1\]"),
    (lambda: nda(np.zeros((3, 3, 2)), None), r"frames \(T, B, H, W, C\)"),
])
def test_what_does_not_fit_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# EventMix


def test_eventmix_golden(golden):
    """The original's arrays are (T, 2, H, W), and so is its mask, alike in both polarities."""
    g = golden["eventmix"]
    a, b, mixed, mask = (np.moveaxis(g[name][:], 1, -1) for name in ("x1", "x2", "mixed", "mask"))
    for form in (mask, mask[..., 0]):
        result, lam = eventmix(a, b, form)
        assert_equal(result, mixed, "EventMix: events of b inside the mask, of a outside")
        assert_close(lam, g["lam"][()], 1e-9, "EventMix: lam is the original calc_masked_lam's")
    share = mask.mean()
    assert_approx(share, 1 - g["rat"][()], "EventMix: b gets 1 - rat of the cells",
                  abs=1 / mask[..., 0].size)
    assert_differs(lam, 1 - share, "EventMix: labels by events, not by cells", rel=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eventmix_keeps_every_event_of_its_side(rng, dtype):
    a, b = rng.poisson(0.4, (2, 3, 8, 7, 2)).astype(dtype)
    mask = rng.random((3, 8, 7)) < 0.3
    mixed, lam = eventmix(a, b, mask)
    assert_dtype(mixed, dtype, "EventMix: the dtype stays")
    kept = a[~mask].sum(), b[mask].sum()
    assert mixed.sum() == sum(kept), "EventMix: every event of its side is kept, and no other"
    shares = kept[0] / a.sum(), kept[1] / b.sum()
    assert lam == pytest.approx(shares[0] / sum(shares)), "EventMix: lam is a's share by events"
    swapped, other = eventmix(b, a, ~mask)
    assert (swapped == mixed).all() and lam + other == pytest.approx(1), "the two weights sum to 1"


def test_eventmix_of_nothing_and_of_all():
    a, b = np.ones((2, 3, 3, 2)), 2 * np.ones((2, 3, 3, 2))
    for inside, expected in ((False, a), (True, b)):
        mixed, lam = eventmix(a, b, np.full((2, 3, 3), inside))
        assert (mixed == expected).all() and lam == 1 - inside, "EventMix: one recording alone"


def test_eventmix_labels_without_events():
    nothing, one = np.zeros((1, 2, 2, 2)), np.zeros((1, 2, 2, 2))
    one[0, 0, 0, 0] = 1
    mask = np.zeros((1, 2, 2), bool)
    mask[0, 0, 0] = True
    assert eventmix(nothing, nothing, mask)[1] == 0.75, "two empty recordings: by cells"
    assert eventmix(one, nothing, mask)[1] == 0, "a's only event is gone, b counts as even"
    other = one[:, ::-1]
    assert eventmix(one, other, mask)[1] == 0.75, "no event is left: by cells"


def test_eventmix_labels_of_frames_that_are_no_counts(rng):
    """All of a is inside the mask, all of b outside, up to no rounding at all."""
    for _ in range(50):
        mask = rng.random((3, 9, 7)) < 0.5
        a, b = rng.random((2, 3, 9, 7, 2))
        inside, outside = a * mask[..., None], b * ~mask[..., None]
        by_cells = 1 - mask.mean()
        lam = eventmix(inside, outside, mask)[1]
        assert lam == pytest.approx(by_cells), "EventMix: no event is left, lam is by cells"
        assert eventmix(inside, b, mask)[1] == 0 == 1 - eventmix(a, outside, mask)[1], (
            "EventMix: all events that are left are of one recording")


def test_eventmix_mask_has_its_share_of_the_cells(rng):
    for share in (0.0, 0.01, 0.3, 0.5, 1.0):
        mask = eventmix_mask(4, 6, 5, share, rng)
        assert mask.shape == (4, 6, 5) and mask.dtype == bool
        assert mask.sum() == round(120 * share), f"EventMix: {share} of the cells are in the mask"


def test_eventmix_mask_is_where_gaussians_are_highest():
    """The mixture, cell by cell, from the same draws; and masks are blobs, not noise."""
    rng = np.random.default_rng(3)
    heights, centres = rng.random(3), rng.integers([4, 6, 5], size=(3, 3))
    widths = np.maximum(rng.random((3, 3)), 0.1) * [2, 3, 2.5]
    density = np.zeros((4, 6, 5))
    for cell in np.ndindex(density.shape):
        for n in range(3):
            far = sum(((cell[i] - centres[n, i]) / widths[n, i]) ** 2 for i in range(3))
            density[cell] += heights[n] * math.exp(-far / 2)
    mask = eventmix_mask(4, 6, 5, 0.25, np.random.default_rng(3))
    assert density[mask].min() >= density[~mask].max(), "EventMix: the highest cells are inside"
    large = eventmix_mask(4, 16, 16, 0.3, rng)
    assert (large[:, 1:] == large[:, :-1]).mean() > 0.8, "EventMix: neighbours are alike"


# NDA


PIXELS = np.arange(30).reshape(5, 6)


@pytest.mark.parametrize("move", [
    lambda source: table1._roll(source, 0, 0), lambda source: table1._rotate(source, 0),
    lambda source: table1._shear(source, 0), lambda source: table1._cut_out(source, 2, 3, 0),
], ids=["roll", "rotate", "shear", "cut out"])
def test_nda_moves_of_no_strength_change_nothing(move):
    assert_equal(move(PIXELS), PIXELS, "NDA: a move of strength 0 is the identity")


def test_nda_moves_are_those_of_the_source():
    """Roll and cutout by hand, a quarter turn by numpy, shear of 45 degrees row by row."""
    rolled = table1._roll(PIXELS, 1, -2)
    assert rolled[1].tolist() == [2, 3, 4, 5, 0, 1], "NDA: rolled by 2 pixels to the left"
    assert rolled[0, 0] == 26, "NDA: rolled by one row down, the last row comes first"
    square = np.arange(25).reshape(5, 5)
    assert_equal(table1._rotate(square, 90), np.rot90(square), "NDA: counterclockwise")
    assert_equal(table1._rotate(square, -90), np.rot90(square, -1), "NDA: clockwise")
    sheared = table1._shear(square, 45)
    assert sheared[2].tolist() == square[2].tolist(), "NDA: the middle row stays"
    right, left = sheared[0].tolist(), sheared[3].tolist()
    assert right == [-1, -1, 0, 1, 2], "NDA: rows above the middle move to the right"
    assert left == [16, 17, 18, 19, -1], "NDA: rows below the middle move to the left"
    cut = table1._cut_out(square, 0, 4, 3)
    assert np.argwhere(cut < 0).tolist() == [[0, 3], [0, 4], [1, 3], [1, 4]], "the part inside"
    assert (cut[cut >= 0] == square[cut >= 0]).all()


def moves_drawn(monkeypatch, H, W, count):
    """What `nda` does to numbered pixels in many draws: names, arguments and results."""
    seen = []
    for name in ("_roll", "_rotate", "_shear", "_cut_out"):
        def noted(source, *strength, name=name, move=getattr(table1, name)):
            seen.append((name, source, strength))
            return move(source, *strength)
        monkeypatch.setattr(table1, name, noted)
    nda(np.zeros((1, count, H, W, 1)), np.random.default_rng(0))
    monkeypatch.undo()
    return seen


def test_nda_draws_every_move_alike_and_up_to_its_strength(monkeypatch):
    seen = moves_drawn(monkeypatch, 48, 32, 800)
    assert len(seen) == 800, "NDA: one move per recording"
    flipped = np.mean([source[0, 0] != 0 for _, source, _ in seen])
    assert abs(flipped - 0.5) < 0.06, "NDA: half of the recordings are flipped"
    by_name = {}
    for name, _, strength in seen:
        by_name.setdefault(name, []).append(strength)
    assert all(abs(len(drawn) - 200) < 50 for drawn in by_name.values()), "NDA: all alike"
    rolls = np.array(by_name["_roll"])
    assert rolls.min(0).tolist() == [-3, -2] and rolls.max(0).tolist() == [3, 2], "1/16 of a side"
    for name in ("_rotate", "_shear"):
        degrees = np.array(by_name[name])
        assert -15 <= degrees.min() < -13 and 13 < degrees.max() <= 15, f"{name}: up to 15 degrees"
    cuts = np.array(by_name["_cut_out"])
    assert set(cuts[:, 2]) == {5} and cuts[:, 0].max() > 40, "NDA: 1/6 of the side, anywhere"


def test_nda_rolls_by_a_sixteenth_of_a_side_rounded_up(monkeypatch):
    rolls = np.array([s for name, _, s in moves_drawn(monkeypatch, 34, 20, 400) if name == "_roll"])
    assert rolls.max(0).tolist() == [3, 2] == (-rolls.min(0)).tolist(), "NDA: 34 / 16 and 20 / 16"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nda_is_one_draw_for_all_times_and_polarities(rng, dtype):
    """Every frame is numbered: the same pixel comes from the same place in all of them."""
    numbers = 1.0 + np.arange(144).reshape(12, 12)
    scale = 10.0 ** np.arange(6).reshape(3, 1, 1, 1, 2)
    frames = (np.stack([numbers] * 40)[None, ..., None] * scale).astype(dtype)
    moved = nda(frames, rng)
    assert_dtype(moved, dtype, "NDA: the dtype stays")
    assert_close(moved / scale, np.broadcast_to(moved[:1, ..., :1], moved.shape), 1e-6,
                 "NDA: one draw for all times and polarities")
    assert set(np.unique(moved[0, ..., 0])) <= {0, *numbers.ravel()}, "NDA: counts stay counts"
    different = {row.tobytes() for row in moved[0, ..., 0]}
    assert len(different) > 20, "NDA: every recording has a draw of its own"
    single = nda(frames[:, 0], np.random.default_rng(1))
    assert_equal(single, nda(frames[:, :1], np.random.default_rng(1))[:, 0],
                 "NDA: a single recording is a batch of one")


def test_nda_flips_and_rolls_keep_every_event(monkeypatch, rng):
    frames = rng.poisson(0.5, (2, 30, 16, 16, 2)).astype(np.float32)
    for name in ("_rotate", "_shear", "_cut_out"):
        monkeypatch.setattr(table1, name, lambda source, *_: source)
    moved = nda(frames, rng)
    assert (moved.sum((0, 2, 3)) == frames.sum((0, 2, 3))).all(), "NDA: no event is lost"
    assert (moved != frames).any((0, 2, 3, 4)).sum() > 10, "NDA: they have moved"


# Flips and rotations, of all methods


def numbered(count, dtype=np.float64):
    """A batch of the same recording: every pixel has a number, every frame another power of 10."""
    numbers = 1.0 + np.arange(144).reshape(12, 12)
    scale = 10.0 ** np.arange(6).reshape(3, 1, 1, 1, 2)
    return (np.stack([numbers] * count)[None, ..., None] * scale).astype(dtype), scale


def test_flip_and_rotation_of_no_strength_change_nothing(rng):
    frames, _ = numbered(5)
    assert_equal(flip_and_rotate(frames, rng, flip=False, degrees=0), frames, "the identity")


def test_half_of_the_recordings_are_flipped_and_no_pixel_is_lost(rng):
    frames, _ = numbered(400)
    moved = flip_and_rotate(frames, rng, flip=True, degrees=0)
    flipped = (moved == frames[:, :, :, ::-1]).all((0, 2, 3, 4))
    assert (flipped | (moved == frames).all((0, 2, 3, 4))).all(), "left and right, or nothing"
    assert abs(flipped.mean() - 0.5) < 0.1


@pytest.mark.parametrize("degrees", [-1.0, np.nan, np.inf])
def test_an_angle_that_is_none_is_refused(degrees, rng):
    with pytest.raises(ValueError, match="expected degrees >= 0, got"):
        flip_and_rotate(numbered(2)[0], rng, degrees=degrees)


def test_rotation_is_up_to_its_angle_to_either_side(monkeypatch, rng):
    """By default up to 15 degrees."""
    drawn = []
    monkeypatch.setattr(table1, "_rotate", lambda source, angle: drawn.append(angle) or source)
    flip_and_rotate(numbered(500)[0], rng, flip=False)
    assert np.abs(np.histogram(drawn, 5, (-15, 15))[0] - 100).max() < 45, "all angles alike"
    assert len(drawn) == 500 and np.abs(drawn).max() <= 15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flip_and_rotation_are_one_draw_for_all_times_and_polarities(dtype):
    frames, scale = numbered(40, dtype)

    def unlike(moved):
        return (np.abs(moved / scale - moved[:1, ..., :1]) > 1e-3).any()

    moved = flip_and_rotate(frames, np.random.default_rng(1))
    assert_dtype(moved, dtype, "the dtype stays")
    assert not unlike(moved), "one draw for all times and polarities"
    assert set(np.unique(moved[0, ..., 0])) <= {0, *frames[0, ..., 0].ravel()}, "pixels move whole"
    assert len({row.tobytes() for row in moved[0, ..., 0]}) > 15, "and one for each recording"
    rng = np.random.default_rng(1)                             # a wrong version: a draw per frame
    assert unlike(np.concatenate([flip_and_rotate(frames[t:t + 1], rng) for t in range(3)]))
    single = flip_and_rotate(frames[:, 0], np.random.default_rng(1))
    assert_equal(single, moved[:, 0], "a single recording is a batch of one")


# As methods of the training


def test_eventmix_partners_are_of_the_batch_and_all_different(rng):
    events = np.broadcast_to(np.arange(1.0, 31)[None, :, None, None, None], (1, 30, 4, 4, 2))
    result, shares = mix_recordings(events, np.arange(30), 30, rng)
    partners = [max(set(np.unique(result[:, b])) - {b + 1}, default=0) for b in range(30)]
    found = [partner for partner in partners if partner]
    assert len(found) == len(set(found)) > 5, "EventMix: a permutation of the batch"
    for b, partner in enumerate(partners):
        inside = (result[:, b] == partner).mean() if partner else 0
        assert shares[b, int(partner) - 1 if partner else b] == pytest.approx(inside or 1)


def test_eventmix_shares_are_of_all_sizes(rng):
    """Cells of the partner, in those that are mixed with another: from none of them to all."""
    events = np.broadcast_to(np.arange(1.0, 601)[None, :, None, None, None], (1, 600, 9, 9, 2))
    result, _ = mix_recordings(events, np.zeros(600, int), 1, rng)
    inside = (result != events).mean((0, 2, 3, 4))
    among = np.histogram(inside[inside > 0], 4, (0, 1))[0]
    assert abs(among - 75).max() < 30, f"EventMix: shares are uniform in [0, 1], got {among}"


def test_eventmix_loss_is_the_labels_losses_by_their_weights(logits):
    """TET of both labels, and a wrong version that gives both the same weight."""
    other, lam = np.roll(LABELS, 1), np.linspace(0, 1, 6)
    shares = lam[:, None] * np.eye(4)[LABELS] + (1 - lam[:, None]) * np.eye(4)[other]
    batch = Batch(None, None, LABELS, shares=shares)
    total, row = training.event_loss(logits, batch, Config(method="eventmix"), 1.0)
    expected = np.mean([
        lam[b] * oracles.tet(logits[:, b:b + 1], LABELS[b:b + 1], 1e-3, 1.0)
        + (1 - lam[b]) * oracles.tet(logits[:, b:b + 1], other[b:b + 1], 1e-3, 1.0)
        for b in range(6)
    ])
    what = "EventMix: each label's loss counts by its weight"
    assert_approx(total, expected, what, rel=1e-12)
    half = (tet_loss(logits, LABELS) + tet_loss(logits, other)) / 2
    assert_differs(total, half, what)
    assert row == {"cls_e": total}
    sure = np.eye(4)[LABELS]
    assert_equal(cross_entropy(logits, sure), cross_entropy(logits, LABELS), "whole shares")
    single = cross_entropy(logits.astype(np.float32), shares)
    assert_dtype(single, np.float32, "shares do not widen the loss")


def test_losses_of_table_1_in_words(logits):
    """What is logged, and what it adds up to."""
    batch = Batch(None, None, LABELS)
    of_mean = cross_entropy(logits.mean(0), LABELS).mean()
    for method, options, gamma, expected in (
        ("snn", {}, 0.3, tet_loss(logits, LABELS)),
        ("nda", {}, 0.3, tet_loss(logits, LABELS)),
        ("tks", {}, 0.3, 0.7 * of_mean + 0.3 * tks_loss(logits, LABELS, 3.0)[1]),
        ("etc", {"temperature": 1.0}, 0.3, of_mean + etc_loss(logits, 4.0)),
    ):
        config = Config(method=method, **options)
        total, row = training.event_loss(logits, batch, config, gamma)
        what = f"{method}: the total is the sum of its parts by their weights"
        assert total == pytest.approx(expected, rel=1e-12), what
        assert set(row) == {"cls_e", method} - {"snn", "nda"}, method
        assert row["cls_e"] == pytest.approx(of_mean if method in row else expected), method
