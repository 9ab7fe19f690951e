"""The method: one step, a whole training, and everything that is drawn, passed and counted.

The training data of the second half are made so that every number tells where it comes from: the
pixels of an image, the events of a recording and a row of logits encode split, class and
identity. What reaches the network, the loss and the optimiser is recorded over two epochs.
"""

import dataclasses
import json

import numpy as np
import oracles
import pytest
from autograd import grad
from conftest import relative_error
from small import SMALL, fit

import ckd_ref.batches
from ckd_ref import training
from ckd_ref.batches import Batch, BatchSampler
from ckd_ref.config import DISTILLATIONS, EVENTS_ALONE, METHODS, METHODS_OF, Config
from ckd_ref.distillation import dist_loss, dkd_loss, luminet_loss
from ckd_ref.losses import ckd_loss, cross_entropy, kd_loss, tet_loss
from ckd_ref.models import update_state
from ckd_ref.run import parallel, session
from ckd_ref.run.process_group import ProcessGroup
from ckd_ref.run.session import train
from ckd_ref.schedules import learning_rate, phase_weight
from ckd_ref.table1 import etc_loss, nda, tks_loss
from ckd_ref.training import TrainState, train_step

# One step

def random_batch(rng, dtype=np.float32):
    """Six pairs of three classes; the rows of a batch differ in every respect."""
    static, events = rng.random((2, 2, 6, 16, 16, 2)).astype(dtype)
    labels = np.arange(6) % 3
    return Batch(static, events ** 2, labels, rng.normal(size=(6, 3)).astype(dtype))


def written_out(net, params, batch, config, gamma):
    """The loss as one function of the parameters, without the functions of `training`."""
    event_logits, features_d, _ = net.apply(params, batch.events, "event")
    if config.method == "tks":
        loss1, loss2 = tks_loss(event_logits, batch.labels, temperature=3.0)
        return (1 - gamma) * loss1 + gamma * loss2
    if config.method == "etc":
        of_mean = cross_entropy(sum(event_logits) / 2, batch.labels)
        return sum(of_mean) / 6 + etc_loss(event_logits, temperature=4.0)
    if config.method in EVENTS_ALONE:
        return tet_loss(event_logits, batch.labels)
    static_logits, features_s, _ = net.apply(params, batch.static, "static")
    logits = batch.teacher_logits if config.method == "ckd" else None
    total, _ = ckd_loss(
        static_logits, event_logits, features_s, features_d, batch.labels, params["theta"],
        logits, gamma=gamma, beta=config.beta, reading=config.reading,
    )
    return total


@pytest.mark.parametrize("method, reading", [
    *((method, "paper") for method in METHODS), ("transfer", "baseline"), ("ckd", "baseline"),
])
def test_a_step_is_adamw_on_the_gradient_of_the_whole_loss(method, reading, rng, monkeypatch):
    config = Config(method=method, reading=reading, **SMALL)
    net = config.model(3)
    run = TrainState.start(net, 0)
    run.params = {name: p.astype(float) for name, p in run.params.items()}
    run.params["theta"] += rng.normal(size=2)
    before = dict(run.params)
    batch = random_batch(rng, float)
    if method != "ckd":
        batch = Batch(batch.static, batch.events, batch.labels)
    seen = []
    adamw = training.adamw
    monkeypatch.setattr(training, "adamw", lambda *args: seen.append(args) or adamw(*args))
    row = train_step(net, run, batch, config, 1e-3, 0.7, 1)
    (params, grads, *_), = seen
    assert params == before, "AdamW must start from the parameters before the step"
    expected = grad(lambda params: written_out(net, params, batch, config, 0.7))(before)
    assert set(grads) == set(expected)
    for name in expected:
        error = relative_error(grads[name], expected[name])
        assert error < 1e-10, f"gradient of {name} is off by {error:.1e}"
    assert row["loss"] == pytest.approx(written_out(net, before, batch, config, 0.7), rel=1e-12)


def test_first_step_goes_down_by_the_rate_and_the_static_statistics_come_first(rng):
    """AdamW's first step is the rate times the sign of the gradient."""
    config = Config(method="transfer", **SMALL)
    net = config.model(3)
    run = TrainState.start(net, 0)
    params, state = run.params, run.state
    batch = random_batch(rng)
    batch = Batch(batch.static, batch.events, batch.labels)
    train_step(net, run, batch, config, 1e-2, 1.0, 1)
    slopes = grad(lambda params: written_out(net, params, batch, config, 1.0))(params)
    for name in ("theta", "conv0/scale"):
        expected = params[name] - 1e-2 * np.sign(slopes[name])
        assert run.params[name] == pytest.approx(expected, abs=1e-5), f"{name} must go down"
    of_static = net.apply(params, batch.static, "static")[2]
    of_events = net.apply(params, batch.events, "event")[2]
    after = update_state(update_state(state, of_static), of_events)
    other = update_state(update_state(state, of_events), of_static)
    for name in state:
        assert (run.state[name] == after[name]).all(), f"{name}: static stream first, then events"
    assert any((other[name] != after[name]).any() for name in state), "the order must show"


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"nda"}))
def test_a_batch_can_be_learnt_by_heart(method, rng):
    """`nda` would be `snn` here: they differ in the batches."""
    config = Config(method=method, **SMALL)
    net = config.model(3)
    run = TrainState.start(net, 0)
    frames = (rng.random((2, 6, 16, 16, 2)) < 0.3).astype(np.float32)
    labels = np.arange(6) % 3
    sure = np.eye(3, dtype=np.float32)[labels]
    shares = 0.95 * sure + 0.05 * np.roll(sure, 1, axis=1) if method == "eventmix" else None
    batch = Batch(frames[:, ::-1], frames, labels, 5 * sure, shares)
    gamma = 0.5 if method == "tks" else 1.0                    # tks must be told some labels
    rows = [train_step(net, run, batch, config, 1e-2, gamma, step) for step in range(1, 41)]
    assert rows[-1]["cls_e"] < 0.5 * rows[0]["cls_e"], "40 steps must halve the event loss"


def test_every_distillation_of_the_configuration_is_used_as_it_is_named(rng):
    """The logged part is that function of the mean logits, or the mean over the steps."""
    batch = random_batch(rng, float)
    outputs = {stream: (rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 5)))
               for stream in ("static", "event")}
    student, teacher = outputs["static"][0], batch.teacher_logits
    expected = {
        "kd": lambda z: kd_loss(teacher, z, 2.0),
        "dkd": lambda z: dkd_loss(teacher, z, batch.labels, temperature=2.0),
        "dist": lambda z: dist_loss(teacher, z, temperature=2.0),
        "luminet": lambda z: luminet_loss(teacher, z, temperature=2.0),
    }
    assert set(expected) == set(DISTILLATIONS)
    values = []
    for name, loss in expected.items():
        for per_step in (False, True):
            config = Config(distillation=name, kd_per_step=per_step, temperature=2.0, kd_weight=0.5)
            total, row = training.batch_loss(outputs, np.ones(2), batch, config, 0.8)
            each = np.mean([loss(z) for z in student]) if per_step else loss(student.mean(0))
            assert row["kd"] == pytest.approx(each, rel=1e-9), f"{name}, per_step={per_step}"
            rest = row["cls_s"] + row["da"] + row["cls_e"]
            weighted = total - rest
            assert weighted == pytest.approx(0.5 * 0.8 * each, rel=1e-9), "kd_weight * gamma"
            values.append(row["kd"])
    assert len(set(values)) == len(values), "the options must differ"


OTHER_VALUES = {
    "alpha": 0.3, "beta": 0.3, "reading": "baseline", "teaching": "wrong", "distillation": "dkd",
    "kd_weight": 0.3, "kd_per_step": True, "temperature": 2.0, "threshold": 0.0, "slope": 1.0,
    "lam": 0.3, "target": 0.3,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_uses_the_options_that_are_said_to_be_its_own(method, glyph_data, random_logits):
    """Another value of such an option gives other losses; of any other option, the same."""
    def losses(**options):
        run = fit(glyph_data, random_logits, method, epochs=1, batches=1, T=2, **options)
        return run.history[0]["loss"]

    plain = losses()
    for name, value in OTHER_VALUES.items():
        used = losses(**{name: value}) != plain
        assert used == (method in METHODS_OF[name]), f"{name}: used by {method}: {used}"
    assert METHODS_OF.keys() - OTHER_VALUES.keys() == {"teacher", "teacher_epochs"}


def test_teacher_logits_are_not_used_by_transfer(glyph_data, random_logits):
    a = fit(glyph_data, random_logits, "transfer", epochs=1)
    b = fit(glyph_data, None, "transfer", epochs=1)
    assert all((a.params[name] == b.params[name]).all() for name in a.params)


# What a run logs

@pytest.mark.parametrize("method", METHODS)
def test_all_numbers_stay_float32(glyph_data, random_logits, method):
    run = fit(glyph_data, random_logits, method, epochs=1)
    moments = [m for pair in run.moments.values() for m in pair]
    arrays = [*run.params.values(), *run.state.values(), *moments]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}, "float32 end to end"


def test_log_has_every_part_of_the_loss(glyph_data, random_logits, tmp_path):
    fit(glyph_data, random_logits, folder=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert {"rate", "replacement", "gamma", "theta", "loss", "cls_s", "da", "kd", "cls_e",
            "accuracy_static", "accuracy_train", "accuracy_test"} <= set(rows[0])


def test_eq11_logged_parts_add_up_to_the_logged_loss(glyph_data, random_logits):
    options = dict(alpha=0.7, beta=0.3, slope=0.5, kd_weight=0.4)
    for row in fit(glyph_data, random_logits, **options).history:
        distilled = 0.4 * row["gamma"] * row["kd"]
        total = 0.7 * row["cls_s"] + 0.3 * row["da"] + distilled + row["cls_e"]
        assert row["loss"] == pytest.approx(total, rel=1e-5), "Eq. (11) is the sum of its parts"


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_eq07_the_baseline_is_ckd_without_its_teacher(glyph_data, random_logits, beta):
    """Whatever else the configuration says holds for both, beta and the form of the total too."""
    for row in fit(glyph_data, random_logits, "transfer", beta=beta).history:
        assert "kd" not in row
        total = row["cls_s"] + beta * row["da"] + row["cls_e"]
        assert row["loss"] == pytest.approx(total, rel=1e-5), f"Eq. (7) with beta = {beta}"
    transfer, ckd = Config(method="transfer"), Config(method="ckd")
    assert dataclasses.replace(transfer, method="ckd") == ckd


def test_eq10_distillation_ends_after_three_quarters_by_default(glyph_data, random_logits):
    history = fit(glyph_data, random_logits).history
    assert [round(row["gamma"], 6) for row in history] == [1, 1, 1, 0]


def test_eq10_a_weight_of_zero_makes_ckd_the_baseline(glyph_data, random_logits):
    baseline = fit(glyph_data, random_logits, "transfer")
    for nothing in (dict(threshold=-1000.0), dict(kd_weight=0.0)):
        off = fit(glyph_data, random_logits, "ckd", **nothing)
        for name in off.params:
            assert off.params[name].tobytes() == baseline.params[name].tobytes(), (nothing, name)


def test_events_alone_ignore_images_and_theta(glyph_data, random_logits):
    run = fit(glyph_data, None, "snn")
    assert set(run.history[0]) & {"cls_s", "da", "kd"} == set()
    assert np.array_equal(run.params["theta"], np.ones(2))


# What is drawn, passed and counted: glyph_data that tell where they come from

class Encoded:
    """Two classes, images and recordings of every pool; stands in for `PairedData`.

    Image m has the value (m + 1) / 256 in all pixels, recording r the count 1000 + r, and row m
    of the logits the value m in every column but for a sign that encodes nothing.
    """

    classes = ("a", "b")
    image_size = 16
    image_split = np.repeat(["teacher", "static", "test"], 8)
    image_label = np.arange(24) % 2
    event_split = np.repeat(["train", "test"], 6)
    event_label = np.arange(12) // 3 % 2

    def images_in(self, split):
        return np.flatnonzero(self.image_split == split)

    def recordings_in(self, split):
        return np.flatnonzero(self.event_split == split)

    def images(self, indices):
        value = ((np.asarray(indices) + 1) / 256).astype(np.float32)
        return np.broadcast_to(value[:, None, None, None], (len(value), 16, 16, 3)).copy()

    def frames(self, indices, T, size):
        value = (1000 + np.asarray(indices)).astype(np.float32)
        shape = T, len(value), size, size, 2
        return np.broadcast_to(value[None, :, None, None, None], shape).copy()

    def digest(self):
        return "encoded"


def image_of(frames):
    """Image behind each row of static frames (T, B, ...); -1 where an event sample replaced it."""
    value = frames[0, :, 0, 0, 0]
    return np.where(value < 1, np.round(value * 256).astype(int) - 1, -1)


def recording_of(frames):
    return frames[0, :, 0, 0, 0].astype(int) - 1000


LOGITS = np.stack([np.arange(24.0), -np.arange(24.0)], axis=1).astype(np.float32)
WHOLE = dict(T=2, size=16, epochs=2, batches=3, batch=40, padding=0, warmup=0, slope=0.5,
             threshold=0.5)


@pytest.fixture
def recorded(monkeypatch):
    """A function that trains on the encoded data and returns what was drawn, stepped, classified.

    Each is a list of dictionaries; the optimiser's arguments are among the steps.
    """
    def run(method="ckd", **changes):
        config = Config(method=method, width=0.0625, **WHOLE | changes)
        drawn, steps, updates, classified = [], [], [], []
        draw, mask_of, adamw = BatchSampler.draw, ckd_ref.batches.replacement_mask, training.adamw

        def masked(probability, uniforms):
            mask = mask_of(probability, uniforms)
            drawn.append({"probability": probability, "mask": mask})
            return mask

        def drawing(self, index, epoch, rng):
            batch = draw(self, index, epoch, rng)
            drawn[-1]["batch"] = batch
            return batch

        def stepping(net, state, batch, config, rate, gamma, step):
            steps.append({"batch": batch, "rate": rate, "gamma": gamma, "step": step})
            return train_step(net, state, batch, config, rate, gamma, step)

        def updating(params, grads, moments, step, rate, decay):
            updates.append({"step": step, "rate": rate, "decay": decay})
            return adamw(params, grads, moments, step, rate, decay)

        class Net:
            """The configuration's network, which notes what it classifies."""

            def __init__(self):
                self.net = config.model(2)

            def init(self, rng):
                return self.net.init(rng)

            def apply(self, params, frames, stream, state=None):
                if state is not None:
                    classified.append((stream, frames, state))
                return self.net.apply(params, frames, stream, state)

        epochs = training.epochs
        monkeypatch.setattr(ckd_ref.batches, "replacement_mask", masked)
        monkeypatch.setattr(BatchSampler, "draw", drawing)
        monkeypatch.setattr(training, "adamw", updating)
        monkeypatch.setattr(
            session, "epochs", lambda *args: epochs(*args, train_step=stepping)
        )
        state = train(Encoded(), config, None, LOGITS, net=Net(), progress=False)
        monkeypatch.undo()
        return config, state, drawn, steps, updates, classified

    return run


def test_batches_pair_training_recordings_with_static_images_of_their_class(recorded):
    _, _, drawn, steps, _, _ = recorded()
    data = Encoded()
    seen_images, seen_recordings = set(), set()
    for draw, step in zip(drawn, steps, strict=True):
        batch = draw["batch"]
        assert step["batch"] is batch, "every batch that is drawn is trained on, in this order"
        recordings, images = recording_of(batch.events), image_of(batch.static)
        own = images[images >= 0]
        assert set(data.event_split[recordings]) == {"train"}, "training saw test recordings"
        assert set(data.image_split[own]) <= {"static"}, "training saw images of another pool"
        assert (data.event_label[recordings] == batch.labels).all(), "labels are the recordings'"
        assert (data.image_label[own] == batch.labels[images >= 0]).all(), "images of the class"
        seen_images |= set(own)
        seen_recordings |= set(recordings)
    assert seen_recordings == set(data.recordings_in("train")), "all recordings are drawn"
    assert seen_images == set(data.images_in("static")), "all static images are drawn"


def test_static_frames_are_the_v_channel_alike_at_all_times(recorded):
    _, _, drawn, *_ = recorded()
    for draw in drawn:
        assert (draw["batch"].static == draw["batch"].static[:1, :, :1, :1, :1]).all()


def test_eq08_the_probability_that_is_used_grows_over_the_run(recorded):
    """Batch b of epoch e in 2 epochs of 3 batches: ((b + 3 e) / 6)^3."""
    _, _, drawn, *_ = recorded()
    used = [draw["probability"] for draw in drawn]
    expected = [(k / 6) ** 3 for k in range(6)]
    assert used == pytest.approx(expected), "Eq. (8): the probability of batch b in epoch e"


def test_eq08_masked_rows_and_no_others_become_the_event_samples_of_their_row(recorded):
    _, _, drawn, *_ = recorded(batch=60)
    for draw in drawn:
        batch, mask = draw["batch"], draw["mask"]
        replaced = image_of(batch.static) < 0
        assert (replaced == mask).all(), "Eq. (8): exactly the masked rows are replaced"
        assert (batch.static[:, mask] == batch.events[:, mask]).all(), "by events of the same row"
    assert not drawn[0]["mask"].any() and drawn[-1]["mask"].mean() > 0.3


def test_eq08_logged_replacement_is_that_of_the_last_batch(recorded):
    _, state, drawn, *_ = recorded()
    logged = [row["replacement"] for row in state.history]
    assert logged == [drawn[2]["probability"], drawn[5]["probability"]]


def test_teacher_logits_are_those_of_the_image(recorded):
    """Also where an event sample has replaced it: then those of some static image of the class."""
    _, _, drawn, *_ = recorded(batch=60)
    data = Encoded()
    for draw in drawn:
        batch = draw["batch"]
        image = image_of(batch.static)
        own = image >= 0
        given = batch.teacher_logits[:, 0].astype(int)
        assert (given[own] == image[own]).all(), "the row of the pair's static image"
        assert set(data.image_split[given]) == {"static"}
        assert (data.image_label[given] == batch.labels).all()
        assert (batch.teacher_logits == LOGITS[given]).all()


def test_teacher_sees_the_crop_of_the_student():
    """The V channel of what a teacher in the loop is asked about is the student's static frame."""
    data, config = Encoded(), Config(width=0.0625, **WHOLE | dict(padding=3))
    asked = []

    def teacher(images):
        asked.append(images)
        return images[:, 8, 8, :2]

    sampler = BatchSampler(data, config, teacher)
    batch = sampler.draw(0, 0, np.random.default_rng(0))     # nothing is replaced in the first
    images, = asked
    assert (images.max(axis=-1) == batch.static[0, ..., 0]).all(), "the same crop of the image"
    assert (batch.teacher_logits == images[:, 8, 8, :2]).all()
    late = sampler.draw(2, 1, np.random.default_rng(0))
    assert (asked[1] == images).all(), "of the image, also where an event sample replaces it"
    assert (late.static != batch.static).any()


def test_a_teacher_in_float64_does_not_make_the_training_float64():
    data, config = Encoded(), Config(width=0.0625, **WHOLE)
    sampler = BatchSampler(data, config, lambda images: images[:, 0, 0, :2].astype(np.float64))
    assert sampler.draw(0, 0, np.random.default_rng(0)).teacher_logits.dtype == np.float32


def test_a_teacher_in_the_loop_changes_no_draw():
    data, config = Encoded(), Config(width=0.0625, **WHOLE | dict(padding=3))
    drawn = [
        BatchSampler(data, config, teacher).draw(0, 0, np.random.default_rng(0))
        for teacher in (None, LOGITS, lambda images: images[:, 0, 0, :2])
    ]
    for other in drawn[1:]:
        assert (other.static == drawn[0].static).all() and (other.events == drawn[0].events).all()


@pytest.mark.parametrize("images, recordings", [(1, 2), (3, 1), (None, None)])
def test_pools_can_be_cut_to_their_first_samples(images, recordings):
    """Of every class, in the order of the file."""
    data = Encoded()
    config = Config(**WHOLE, static_per_class=images, events_per_class=recordings)
    batches = [BatchSampler(data, config).draw(0, 0, np.random.default_rng(k)) for k in range(9)]
    for pool, label, count, seen in (
        (data.images_in("static"), data.image_label, images,
         {int(i) for batch in batches for i in image_of(batch.static)}),
        (data.recordings_in("train"), data.event_label, recordings,
         {int(i) for batch in batches for i in recording_of(batch.events)}),
    ):
        first = [pool[label[pool] == k][:count] for k in np.unique(label)]
        assert seen == set(np.concatenate(first).tolist())


def test_a_pool_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 99 samples of every class, got"):
        BatchSampler(Encoded(), Config(**WHOLE, static_per_class=99))


def test_replacement_changes_neither_the_pairs_nor_their_logits():
    data, config = Encoded(), Config(width=0.0625, **WHOLE)
    early, late = (
        BatchSampler(data, config, LOGITS).draw(2, epoch, np.random.default_rng(5))
        for epoch in (0, 1)
    )
    assert (early.teacher_logits == late.teacher_logits).all()
    assert (early.events == late.events).all() and (early.static != late.static).any()


def test_streams_are_cropped_independently():
    """Pads with zeros: the offset of a row is where its values begin."""
    data, config = Encoded(), Config(width=0.0625, **WHOLE | dict(padding=3))
    batch = BatchSampler(data, config).draw(0, 0, np.random.default_rng(0))

    def corner(frames):
        return (frames[0, ..., 0] == 0).all(axis=2).argmin(axis=1)

    assert set(corner(batch.static)) == set(corner(batch.events)) == {0, 1, 2, 3}
    assert (corner(batch.static) != corner(batch.events)).mean() > 0.3
    assert (batch.events[0] == batch.events[1]).all(), "one offset for all times"


@pytest.mark.parametrize("method", ["snn", "transfer", "ckd"])
def test_all_methods_draw_the_same_recordings_and_images(recorded, method):
    """For those of Table I see `test_augmentations_take_no_number_from_the_draws_of_the_others`."""
    _, _, drawn, *_ = recorded(method)
    _, _, reference, *_ = recorded("ckd")
    for a, b in zip(drawn, reference, strict=True):
        assert (a["batch"].events == b["batch"].events).all()
        assert (a["batch"].static == b["batch"].static).all()


def drawn_by(method, **changes):
    config = Config(method=method, width=0.0625, **WHOLE | changes)
    rng = np.random.default_rng(4)
    sampler = BatchSampler(Encoded(), config)
    return [sampler.draw(index, 0, rng) for index in range(3)], rng


def test_augmentations_take_no_number_from_the_draws_of_the_others(monkeypatch):
    """With moves and mixtures that do nothing, all batches are those of events alone."""
    reference, after = drawn_by("snn", padding=2)
    for method in EVENTS_ALONE:
        batches, rng = drawn_by(method, padding=2)
        assert rng.bit_generator.state == after.bit_generator.state, f"{method}: other draws"
        changed = any((a.events != b.events).any() for a, b in zip(batches, reference))
        assert changed == (method in ("nda", "eventmix")), f"{method}: which events are changed"
    monkeypatch.setattr(ckd_ref.batches, "nda", lambda frames, rng: frames)
    monkeypatch.setattr(ckd_ref.batches, "eventmix", lambda a, b, mask: (a, 1.0))
    for method in EVENTS_ALONE:
        for a, b in zip(drawn_by(method, padding=2)[0], reference):
            assert (a.events == b.events).all() and (a.static == b.static).all(), method
            assert (a.labels == b.labels).all(), method


def test_flip_and_rotation_leave_the_images_alone():
    """Nor do they change a draw: pairs, crops, replacements and images are as without them."""
    plain, after = drawn_by("transfer", padding=3)
    moved, rng = drawn_by("transfer", padding=3, flip=True, rotation=15.0)
    assert rng.bit_generator.state == after.bit_generator.state, "other draws"
    replaced = 0
    for a, b in zip(plain, moved):
        assert (a.labels == b.labels).all() and (b.events[0] == b.events[1]).all()
        assert (a.events != b.events).any((0, 2, 3, 4)).mean() > 0.5, "the recordings have moved"
        as_events = (a.static == a.events).all((0, 2, 3, 4))
        assert (a.static == b.static)[:, ~as_events].all(), "the images have not"
        assert (b.static == b.events)[:, as_events].all(), "a moved recording replaces its image"
        replaced += as_events.sum()
    assert replaced > 0


@pytest.mark.parametrize("changes, flip, rotation", [
    ({"flip": True}, True, 0.0), ({"rotation": 5.0}, False, 5.0), ({}, None, None),
])
def test_flip_and_rotation_are_those_of_the_configuration(monkeypatch, changes, flip, rotation):
    given = []
    monkeypatch.setattr(ckd_ref.batches, "flip_and_rotate",
                        lambda frames, rng, *args: given.append(args) or frames)
    drawn_by("snn", **changes)
    assert given == ([(flip, rotation)] * 3 if changes else []), "by default, nothing is drawn"


@pytest.mark.parametrize("method", ["nda", "eventmix"])
def test_augmentations_follow_from_the_state_that_a_checkpoint_has(method):
    config = Config(method=method, width=0.0625, **WHOLE)
    sampler, rng = BatchSampler(Encoded(), config), np.random.default_rng(4)
    sampler.draw(0, 0, rng)
    resumed = np.random.default_rng(99)
    resumed.bit_generator.state = rng.bit_generator.state
    a, b = sampler.draw(1, 0, rng), sampler.draw(1, 0, resumed)
    assert (a.events == b.events).all() and np.array_equal(a.shares, b.shares)
    c = sampler.draw(2, 0, rng)
    assert ((a.events == 0) != (c.events == 0)).any() or (a.shares != c.shares).any()


def test_nda_batches_are_the_moved_recordings(monkeypatch):
    given = []
    monkeypatch.setattr(ckd_ref.batches, "nda", lambda *args: given.append(args[0]) or nda(*args))
    batches, _ = drawn_by("nda")
    for batch, before, plain in zip(batches, given, drawn_by("snn")[0], strict=True):
        assert (before == plain.events).all() and (before != batch.events).any()
        assert (batch.events[0] == batch.events[1]).all(), "alike at all times, as before"
        counts = batch.events.max((0, 2, 3, 4)) - 1000
        assert (counts == recording_of(plain.events)).all(), "of the recording that was drawn"
        assert batch.events.dtype == np.float32 and batch.shares is None


def test_eventmix_batches_have_the_shares_of_their_cells():
    """All cells of an encoded recording have one count, so that events are as cells."""
    label = Encoded().event_label
    mixed = 0
    for batch, plain in zip(drawn_by("eventmix")[0], drawn_by("snn")[0], strict=True):
        assert batch.shares.dtype == np.float32
        assert batch.shares.sum(1) == pytest.approx(1), "EventMix: label weights sum to 1"
        assert (batch.labels == plain.labels).all()
        for b, own in enumerate(recording_of(plain.events)):
            cells = batch.events[:, b].astype(int) - 1000
            others = set(np.unique(cells)) - {own}
            assert len(others) <= 1, "two recordings at most"
            expected = np.zeros(2)
            for recording in {own} | others:
                expected[label[recording]] += (cells == recording).mean()
            assert batch.shares[b] == pytest.approx(expected, abs=1e-6), "weights by events"
            mixed += len(others)
    assert 35 < mixed < 75, "about half of 120 rows are mixed, but for those with themselves"


def test_steps_are_counted_over_the_whole_training_and_rates_follow_the_epoch(recorded):
    config, _, _, steps, updates, _ = recorded(rate=0.01, decay=0.3)
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6], "AdamW must not start anew"
    rates = [learning_rate(epoch, 2, 0.01, 0) for epoch in (0, 0, 0, 1, 1, 1)]
    gammas = [phase_weight(epoch, 0.5, 0.5) for epoch in (0, 0, 0, 1, 1, 1)]
    assert [step["rate"] for step in steps] == rates and rates[0] != rates[3]
    assert [step["gamma"] for step in steps] == pytest.approx(gammas), "Eq. (10) of the epoch"
    assert [update["step"] for update in updates] == [1, 2, 3, 4, 5, 6]
    assert [update["rate"] for update in updates] == rates
    assert {update["decay"] for update in updates} == {0.3}, "weight decay must reach AdamW"


def test_warm_up_of_the_configuration_is_used(recorded):
    _, _, _, steps, *_ = recorded(warmup=2, rate=0.01)
    expected = [learning_rate(epoch, 2, 0.01, 2) for epoch in (0, 0, 0, 1, 1, 1)]
    assert [step["rate"] for step in steps] == expected


def test_accuracy_is_that_of_the_event_head_on_all_test_recordings(recorded):
    """In evaluation mode, with the running statistics, once per epoch."""
    _, state, _, _, _, classified = recorded()
    streams = {stream for stream, _, _ in classified}
    assert streams == {"event"}, "prediction sees events alone, through the event head"
    seen = [recording_of(frames).tolist() for _, frames, _ in classified]
    assert seen == [[6, 7, 8, 9, 10, 11]] * 2, "all test recordings, and only these"
    assert all((classified[-1][2][name] == state.state[name]).all() for name in state.state)


def test_logged_accuracy_compares_predictions_with_the_labels(monkeypatch):
    """A classifier that is right on two of six recordings."""
    data = Encoded()
    right = data.event_label[data.recordings_in("test")]
    predicted = np.where(np.arange(6) < 2, right, 1 - right)
    epochs = training.epochs
    monkeypatch.setattr(
        session, "epochs", lambda *args: epochs(*args, classify=lambda *_: predicted)
    )
    config = Config(method="snn", width=0.0625, **WHOLE | dict(epochs=1))
    run = train(data, config, progress=False)
    assert run.history[0]["accuracy_test"] == pytest.approx(2 / 6)


def test_classification_takes_the_largest_mean_output_of_every_recording(rng):
    """Whatever the size of the batches that it is done in."""
    config = Config(method="snn", **SMALL)
    net = config.model(3)
    run = TrainState.start(net, 0)
    frames = rng.random((2, 7, 16, 16, 2)).astype(np.float32)
    logits, _, _ = net.apply(run.params, frames, "event", run.state)
    expected = logits.mean(0).argmax(-1)
    for batch in (3, 7, 8):
        assert (training.classify(net, run, frames, batch) == expected).all()


def test_logged_numbers_are_means_over_the_batches_of_the_epoch(recorded, monkeypatch):
    config = Config(method="ckd", width=0.0625, **WHOLE)
    rows = []
    epochs = training.epochs

    def noted(*args):
        for row in epochs(*args):
            rows.append(row)
            yield row

    monkeypatch.setattr(session, "epochs", noted)
    run = train(Encoded(), config, None, LOGITS, progress=False)
    assert len(rows) == 6, "one row per batch"
    for e, logged in enumerate(run.history):
        for name in rows[0]:
            mean = np.mean([row[name] for row in rows[3 * e:3 * e + 3]])
            assert logged[name] == pytest.approx(mean, rel=1e-9), f"{name} of epoch {e}"


def test_accuracies_of_a_step_are_those_of_its_outputs(rng):
    batch = random_batch(rng, float)
    outputs = {stream: (rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 5)))
               for stream in ("static", "event")}
    _, row = training.batch_loss(outputs, np.ones(2), batch, Config(), 1.0)
    for stream, name in (("static", "accuracy_static"), ("event", "accuracy_train")):
        predicted = outputs[stream][0].mean(0).argmax(1)
        assert row[name] == np.mean(predicted == batch.labels), name


def test_the_two_process_step_counts_and_decays_alike(rng, monkeypatch):
    config = Config(method="ckd", decay=0.3, **SMALL)
    net = config.model(3)
    seen = []
    adamw = parallel.adamw
    monkeypatch.setattr(parallel, "adamw", lambda *args: seen.append(args[3:]) or adamw(*args))
    with ProcessGroup(1) as group:
        run = TrainState.start(net, 0)
        parallel.train_step(group, net, run, random_batch(rng), config, 1e-3, 1.0, 7)
    assert seen == [(7, 1e-3, 0.3)]


def test_any_network_with_init_and_apply_can_be_trained():
    """A linear one, on the sums of the frames."""
    from autograd import numpy as np_

    class Linear:
        def init(self, rng):
            weights = rng.normal(size=(2, 2)).astype(np.float32)
            return {"w": weights, "theta": np.ones(2, np.float32)}, {}

        def apply(self, params, frames, stream, state=None):
            x = frames.sum(axis=(2, 3)) * np.float32(1e-5)     # (T, B, 2)
            logits = np_.dot(x, params["w"])
            return logits, logits * logits, {}

        def __repr__(self):
            return "Linear()"

    config = Config(method="ckd", **WHOLE)
    run = train(Encoded(), config, None, LOGITS, net=Linear(), progress=False)
    assert set(run.params) == {"w", "theta"} and len(run.history) == 2
    assert run.params["w"].dtype == np.float32


def test_oracle_of_replacement_agrees():
    """The slow oracle of the mask on encoded frames, so that the encoding itself is tested."""
    data = Encoded()
    static = np.stack([data.images([8, 9, 10])[..., :2]] * 2)
    events = data.frames([0, 1, 2], 2, 16)
    hybrid = oracles.replace_rows(static, events, np.array([True, False, True]))
    assert image_of(hybrid).tolist() == [-1, 9, -1]
    assert recording_of(hybrid[:, [0, 2]]).tolist() == [0, 2]
