"""Teachers: the small one learns; logits as files are matched by name or refused."""

import contextlib

import h5py
import numpy as np
import pytest
from autograd.tracer import getval
from scipy.special import softmax

from ckd_ref import teacher
from ckd_ref.config import Config
from ckd_ref.data import hdf5
from ckd_ref.data.files import atomic_hdf5
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError
from ckd_ref.models import Teacher
from ckd_ref.run import teachers
from ckd_ref.run.checkpoint import load_checkpoint
from ckd_ref.run.teachers import (
    check_logits,
    kept_teacher,
    lesson,
    load_logits,
    load_teacher,
    logits_of,
    save_logits,
    save_teacher,
)
from ckd_ref.schedules import learning_rate
from ckd_ref.teacher import TrainedTeacher, train_teacher


def test_logits_are_matched_by_class_name(glyph_data, random_logits, tmp_path):
    order = np.random.default_rng(1).permutation(len(glyph_data.classes))
    save_logits(tmp_path / "l.h5", random_logits[:, order], [glyph_data.classes[i] for i in order])
    assert np.array_equal(load_logits(tmp_path / "l.h5", glyph_data), random_logits)


@pytest.mark.parametrize("call", [load_teacher, load_logits])
def test_the_name_of_the_data_is_not_the_data(glyph_data, random_logits, tmp_path, call):
    """The file is not called damaged."""
    save_logits(tmp_path / "l.h5", random_logits, glyph_data.classes)
    with pytest.raises(ValueError, match="expected an open data set, got 'd.h5'") as refused:
        call(tmp_path / "l.h5", "d.h5")
    assert not isinstance(refused.value, FormatError)


@pytest.mark.parametrize("options, match", [
    (dict(data="d.h5"), "expected an open data set, got str; call it as with open_paired"),
    (dict(epochs=0), "epochs to be a whole number >= 1, got 0"),
    (dict(epochs="2"), "epochs to be a whole number >= 1, got '2'"),
    (dict(batch=0), "batch to be a whole number >= 1, got 0"),
])
def test_a_teacher_that_cannot_be_trained_is_refused(glyph_data, options, match):
    with pytest.raises(ValueError, match=match):
        train_teacher(**dict(data=glyph_data) | options)


def test_logits_of_other_classes_are_refused(glyph_data, random_logits, tmp_path):
    save_logits(tmp_path / "l.h5", random_logits, [*glyph_data.classes[:-1], "zebra"])
    with pytest.raises(FormatError, match="zebra"):
        load_logits(tmp_path / "l.h5", glyph_data)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda values: values[:-1], "logits: expected the shape"),
        (lambda values: values.astype(int), "floating point"),
        (lambda values: values * np.nan, "finite teacher .* with NaN, Inf or too large numbers"),
        (lambda values: values * 1e300, "finite teacher"),
    ],
)
def test_unusable_logits_are_refused(glyph_data, random_logits, tmp_path, change, match):
    with np.errstate(over="ignore"):
        logits = change(random_logits.astype(np.float64))
    with atomic_hdf5(tmp_path / "l.h5") as file:               # `save_logits` would refuse them
        hdf5.write(file, "logits", logits)
        hdf5.write(file, "classes", np.array([name.encode() for name in glyph_data.classes]))
    with pytest.raises(FormatError, match=f"l.h5: .*{match}"):
        load_logits(tmp_path / "l.h5", glyph_data)


def test_other_files_are_no_logits(glyph_data, random_logits, glyph_file, tmp_path):
    (tmp_path / "text.h5").write_text("no logits")
    with h5py.File(tmp_path / "plain.h5", "w", libver="v110") as file:
        file["logits"], file["classes"] = (
            random_logits,
            [name.encode() for name in glyph_data.classes],
        )
    for other, match in (
        (tmp_path / "text.h5", "HDF5"),
        (tmp_path / "plain.h5", "fletcher32"),
        (glyph_file, "logits"),
    ):
        with pytest.raises(FormatError, match=f"{other.name}: .*{match}"):
            load_logits(other, glyph_data)
    with pytest.raises(FileNotFoundError):
        load_logits(tmp_path / "none.h5", glyph_data)


# A network as a file


@pytest.fixture
def small_teacher(glyph_data):
    return train_teacher(glyph_data, epochs=1, padding=1)


def test_a_saved_teacher_says_the_same_and_its_classes_are_matched(
    glyph_data, small_teacher, tmp_path
):
    order = np.random.default_rng(1).permutation(len(glyph_data.classes))
    params = dict(small_teacher.params)
    for name in ("head/w", "head/b"):
        params[name] = params[name][..., order]
    shuffled = TrainedTeacher(small_teacher.net, params, small_teacher.state)
    save_teacher(tmp_path / "t.h5", shuffled, [glyph_data.classes[i] for i in order])
    images = glyph_data.images([0, 5, 9])
    assert (load_teacher(tmp_path / "t.h5", glyph_data)(images) == small_teacher(images)).all()


def test_a_teacher_of_other_images_or_classes_is_refused(glyph_data, small_teacher, tmp_path):
    save_teacher(tmp_path / "t.h5", small_teacher, [*glyph_data.classes[:-1], "zebra"])
    with pytest.raises(FormatError, match="t.h5: .*zebra"):
        load_teacher(tmp_path / "t.h5", glyph_data)
    larger = Teacher(len(glyph_data.classes), 32)
    other = TrainedTeacher(larger, *larger.init(np.random.default_rng(0)))
    save_teacher(tmp_path / "t.h5", other, glyph_data.classes)
    with pytest.raises(FormatError, match="t.h5: params/head/w: expected the shape"):
        load_teacher(tmp_path / "t.h5", glyph_data)
    broken = TrainedTeacher(
        small_teacher.net, small_teacher.params | {"head/b": np.full(12, np.nan, np.float32)},
        small_teacher.state,
    )
    save_teacher(tmp_path / "t.h5", broken, glyph_data.classes)
    with pytest.raises(FormatError, match="t.h5: expected finite numbers in head/b"):
        load_teacher(tmp_path / "t.h5", glyph_data)


def test_logits_are_a_teacher_as_well(glyph_data, random_logits, tmp_path):
    save_logits(tmp_path / "l.h5", random_logits, glyph_data.classes)
    assert np.array_equal(load_teacher(tmp_path / "l.h5", glyph_data), random_logits)


# What the student is told


def taught(teaching, logits, data, **changes):
    """What `lesson` gives the sampler, for the static images alone, and their labels."""
    told, _ = lesson(logits, data, Config(teaching=teaching, **changes))
    static = data.images_in("static")
    return told[static], logits[static], data.image_label[static]


def test_permuted_logits_are_those_of_the_class_but_of_other_images(glyph_data, random_logits):
    told, own, label = taught("permuted", random_logits, glyph_data)
    assert (told != own).any(axis=1).mean() > 0.3
    for k in np.unique(label):
        rows = [sorted(map(tuple, logits[label == k])) for logits in (told, own)]
        assert rows[0] == rows[1], "a permutation within the class"


def test_wrong_logits_are_those_of_another_class(glyph_data, random_logits):
    told, own, label = taught("wrong", random_logits, glyph_data)
    source = [int(np.flatnonzero((own == row).all(axis=1))[0]) for row in told]
    assert (label[source] != label).all()
    assert len(set(label[source])) > 6, "drawn from all other classes"


def test_smoothed_logits_know_the_label_and_the_mean_confidence_alone(glyph_data, random_logits):
    told, own, label = taught("smoothed", random_logits, glyph_data, temperature=2.0)
    p = softmax(told / 2.0, axis=1)
    mean = softmax(own / 2.0, axis=1)[np.arange(len(own)), label].mean()
    assert p[np.arange(len(p)), label] == pytest.approx(mean, rel=1e-5)
    rest = p[np.arange(12) != label[:, None]]
    assert rest == pytest.approx((1 - mean) / 11, rel=1e-5), "all other classes alike"


def test_a_teacher_that_is_certain_is_smoothed_to_finite_logits(glyph_data):
    certain = 1e4 * np.eye(12, dtype=np.float32)[glyph_data.image_label]
    told, _, label = taught("smoothed", certain, glyph_data)
    assert np.isfinite(told).all() and (told.argmax(axis=1) == label).all()


def test_a_teacher_in_the_loop_or_of_the_whole_image(glyph_data, small_teacher):
    static = glyph_data.images_in("static")
    said = small_teacher(glyph_data.images(static))
    assert lesson(small_teacher, glyph_data, Config())[0] is small_teacher
    told, digest = lesson(small_teacher, glyph_data, Config(teaching="image"))
    assert told[static] == pytest.approx(said, rel=1e-5, abs=1e-6)
    assert digest != lesson(small_teacher, glyph_data, Config())[1], "another run"
    other = TrainedTeacher(
        small_teacher.net, small_teacher.params | {"head/b": np.ones(12, np.float32)},
        small_teacher.state,
    )
    assert lesson(other, glyph_data, Config())[1] != lesson(small_teacher, glyph_data, Config())[1]


def test_controls_depend_on_the_seed_alone(glyph_data, random_logits):
    a, same, b = (
        lesson(random_logits, glyph_data, Config(teaching="permuted", seed=seed))[0]
        for seed in (0, 0, 1)
    )
    assert (a == same).all() and (a != b).any()


@pytest.mark.parametrize("bad", [
    lambda images: np.full((len(images), 12), np.nan),
    lambda images: np.full((len(images), 12), 1e300),          # Inf as float32
    lambda images: np.zeros((len(images), 3)),
])
def test_a_teacher_that_says_something_unusable_is_refused(glyph_data, bad):
    with pytest.raises(FormatError, match=r"finite logits \(B, 12\) from the teacher"):
        logits_of(bad, glyph_data, np.arange(5))


def test_complex_logits_are_refused_rather_than_cut_to_their_real_part(glyph_data, random_logits):
    spoilt = random_logits + 1j
    with pytest.raises(FormatError, match=r"finite teacher logits .*, got complex numbers of shap"):
        check_logits(spoilt, glyph_data)
    with pytest.raises(FormatError, match=r"finite logits \(B, 12\) from the teacher"):
        logits_of(lambda images: spoilt[:len(images)], glyph_data, np.arange(5))


# The teacher


def test_teacher_learns_what_colours_show(tmp_path, rng):
    """Two classes told apart by hue alone: an ordinary network on HSV images finds it."""
    with PairedWriter(tmp_path / "hue.h5", ("red", "blue"), (16, 16), 16) as writer:
        for k in range(60):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[..., 0 if k % 2 == 0 else 2] = rng.integers(100, 255, (16, 16))
            writer.add_image(
                pixels, k % 2, k, "test" if k >= 40 else "teacher" if k >= 20 else "static"
            )
        events = np.zeros(1, EVENT_DTYPE)
        for k in range(2):
            writer.add_recording(events, k, k, "train")
    with open_paired(tmp_path / "hue.h5") as data:
        pair = [train_teacher(data, epochs=3, batch=8, padding=1) for _ in range(2)]
        logits, again = (teacher(data.images(np.arange(60))) for teacher in pair)
        check_logits(logits, data)
        test = data.images_in("test")
        assert np.mean(logits[test].argmax(1) == data.image_label[test]) > 0.9
    assert logits.dtype == np.float32 and logits.tobytes() == again.tobytes()


# A teacher that is kept


@pytest.fixture(scope="module")
def pool_file(tmp_path_factory):
    """Images of noise, 70 of them to learn from: two batches of 32 in an epoch."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("pool") / "noise.h5"
    with PairedWriter(path, ("a", "b"), (16, 16), 16) as writer:
        for k in range(70):
            pixels = rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)
            writer.add_image(pixels, k % 2, k, "static")
        writer.add_recording(np.zeros(1, EVENT_DTYPE), 0, 0, "train")
    return path


@pytest.fixture
def pool_data(pool_file):
    with open_paired(pool_file) as data:
        yield data


@pytest.fixture(scope="module")
def uninterrupted(pool_file, tmp_path_factory):
    """The bytes of the teacher of two epochs, four batches."""
    folder = tmp_path_factory.mktemp("teacher")
    with open_paired(pool_file) as data:
        kept_teacher(folder / "t.h5", data, epochs=2, progress=False)
    return (folder / "t-epochs2.h5").read_bytes()


def interrupted(data, path, batches, error=None):
    """Train a teacher of two epochs for some batches: stopped, or killed by an error."""
    asked = iter(range(batches + 1))

    def stop():
        if next(asked) < batches:
            return False
        if error:
            raise error
        return True

    with pytest.raises(type(error) if error else KeyboardInterrupt) as raised:
        kept_teacher(path, data, epochs=2, progress=False, stop=stop)
    return str(raised.value)


def test_a_stopped_teacher_resumes_to_the_bytes_of_an_uninterrupted_one(
    pool_data, uninterrupted, tmp_path
):
    told = interrupted(pool_data, tmp_path / "t.h5", 1)
    assert told == "stopped in epoch 0 of the teacher before batch 1"
    net, _ = teacher.untrained_teacher(pool_data)
    run = load_checkpoint(tmp_path / "t-epochs2.partial.h5", net).run
    assert (run.epoch, len(run.rows)) == (0, 1), "no batch is lost"
    kept_teacher(tmp_path / "t.h5", pool_data, epochs=2, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["t-epochs2.h5"]
    assert (tmp_path / "t-epochs2.h5").read_bytes() == uninterrupted


def test_a_killed_teacher_resumes_from_its_last_epoch(pool_data, uninterrupted, tmp_path):
    interrupted(pool_data, tmp_path / "t.h5", 3, MemoryError())
    seen = []
    kept_teacher(tmp_path / "t.h5", pool_data, epochs=2, progress=False,
                 stop=lambda: seen.append(1))
    assert len(seen) == 2 and (tmp_path / "t-epochs2.h5").read_bytes() == uninterrupted


def test_a_teacher_that_forgot_its_batches_would_show(
    pool_data, uninterrupted, tmp_path, monkeypatch
):
    interrupted(pool_data, tmp_path / "t.h5", 3)
    net, _ = teacher.untrained_teacher(pool_data)
    found = load_checkpoint(tmp_path / "t-epochs2.partial.h5", net)
    found.run.rows.clear()
    monkeypatch.setattr(teachers, "load_latest", lambda *_: found)
    kept_teacher(tmp_path / "t.h5", pool_data, epochs=2, progress=False)
    assert (tmp_path / "t-epochs2.h5").read_bytes() != uninterrupted


def test_a_teacher_goes_on_with_its_own_data_alone(pool_data, glyph_data, tmp_path):
    interrupted(pool_data, tmp_path / "t.h5", 1)
    with pytest.raises(FormatError, match="t-epochs2.partial.h5"):
        kept_teacher(tmp_path / "t.h5", glyph_data, epochs=2, progress=False)


@pytest.mark.parametrize("name, kept", [
    ("t.h5", 8), ("t-epochs3.h5", 3), ("t-epochs3.partial.h5", 3), ("t.partial.h5", 8),
])
def test_a_second_teacher_of_another_length_is_refused_before_it_is_trained(
    pool_data, tmp_path, name, kept
):
    """The runs in this folder learn from the first."""
    (tmp_path / name).touch()
    (tmp_path / "t2-epochs5.h5").touch()                       # of another seed
    with pytest.raises(FormatError, match=f"{name}: a teacher of {kept} epochs, in place of 2, is"):
        kept_teacher(tmp_path / "t.h5", pool_data, epochs=2, progress=False)


@pytest.mark.parametrize("logits, came", [
    (np.zeros((3, 2)), r"got shape \(3, 2\)$"), (np.zeros(4), r"got shape \(4,\)$"),
    (np.full((3, 4), np.nan), r"got shape \(3, 4\) with NaN"),
    (np.zeros((3, 4), complex), "got complex numbers of shape"),
    (np.zeros((3, 4), int), "got no floats, of shape"), (np.float32(1), r"got shape \(\)$"),
])
def test_logits_that_could_not_be_read_are_not_written(tmp_path, logits, came):
    with pytest.raises(ValueError, match=rf"a.h5: expected finite logits \(M, 4\).*{came}"):
        save_logits(tmp_path / "a.h5", logits, ["a", "b", "c", "d"])
    assert not list(tmp_path.iterdir())


def test_a_kept_teacher_of_another_seed_is_not_used(pool_data, uninterrupted, tmp_path):
    (tmp_path / "t-epochs2.h5").write_bytes(uninterrupted)
    with pytest.raises(FormatError, match="a teacher of other data or another seed; name another"):
        kept_teacher(tmp_path / "t.h5", pool_data, seed=1, epochs=2, progress=False)


def test_a_kept_teacher_of_other_data_is_not_used(pool_data, uninterrupted, tmp_path, monkeypatch):
    """It may have seen the images that are tested now."""
    (tmp_path / "t-epochs2.h5").write_bytes(uninterrupted)
    kept_teacher(tmp_path / "t.h5", pool_data, epochs=2, progress=False)
    monkeypatch.setattr(pool_data, "digest", lambda: "another")
    with pytest.raises(FormatError, match="t-epochs2.h5: a teacher of other data or another seed"):
        kept_teacher(tmp_path / "t.h5", pool_data, epochs=2, progress=False)
    load_teacher(tmp_path / "t-epochs2.h5", pool_data)        # given by name, it may be of any


def test_a_kept_teacher_is_found_beside_another_one(tmp_path):
    for name in ("t.h5", "t-epochs3.h5"):
        (tmp_path / name).touch()
    assert teachers.check_only_teacher(tmp_path / "t.h5", 3) == tmp_path / "t-epochs3.h5"
    assert teachers.check_only_teacher(tmp_path / "t.h5") == tmp_path / "t.h5"


def test_a_kept_teacher_is_found_again_and_the_usual_one_is_trained_elsewhere(
    pool_data, uninterrupted, tmp_path, monkeypatch
):
    (tmp_path / "t.h5").write_bytes(uninterrupted)
    trained = []
    monkeypatch.setattr(teachers, "_train_teacher", lambda path, *_: trained.append(path.name))
    images = pool_data.images([0, 1])
    said = kept_teacher(tmp_path / "t.h5", pool_data)(images)
    assert said.shape == (2, 2) and trained == []
    for name, epochs in (("other.h5", 3), ("other.h5", 8)):
        with contextlib.suppress(OSError):
            kept_teacher(tmp_path / name, pool_data, epochs=epochs)
    assert trained == ["other-epochs3.h5", "other.h5"]


def test_images_too_small_for_the_teacher_are_refused(monkeypatch):
    monkeypatch.setattr(Pictures, "image_size", 15)
    with pytest.raises(ValueError, match="at least 16 x 16 pixels for the small teacher, got 15"):
        train_teacher(Pictures())
    with pytest.raises(ValueError, match="epochs of the teacher >= 1, got 0"):
        teachers._train_teacher("t.h5", Pictures(), 0, 0, {}, None)


# What the teacher's training draws, passes and counts


class Pictures:
    """Images whose values say which they are; stands in for `PairedData`."""

    classes = ("a", "b")
    image_size = 16
    image_split = np.repeat(["teacher", "static", "test"], [10, 7, 5])
    image_label = np.arange(22) % 2

    def images_in(self, split):
        return np.flatnonzero(self.image_split == split)

    def images(self, indices):
        value = ((np.asarray(indices) + 1) / 32).astype(np.float32)
        return np.broadcast_to(value[:, None, None, None], (len(value), 16, 16, 3)).copy()


@pytest.fixture
def recorded(monkeypatch):
    """A function that trains a teacher and returns its batches, updates and reports."""

    def run(**options):
        batches, updates, reports = [], [], []
        cross_entropy, adamw = teacher.cross_entropy, teacher.adamw
        apply = Teacher.apply

        def applied(self, params, hsv, state=None):
            if state is None:
                batches.append({"images": np.round(hsv[:, 8, 8, 2] * 32).astype(int) - 1})
            return apply(self, params, hsv, state)

        def labelled(logits, labels):
            batches[-1]["labels"] = labels
            losses = cross_entropy(logits, labels)
            batches[-1]["loss"] = float(np.mean(getval(losses)))
            return losses

        def updated(params, grads, moments, step, rate):
            updates.append((step, rate))
            return adamw(params, grads, moments, step, rate)

        monkeypatch.setattr(Teacher, "apply", applied)
        monkeypatch.setattr(teacher, "cross_entropy", labelled)
        monkeypatch.setattr(teacher, "adamw", updated)
        train_teacher(Pictures(), watch=lambda *seen: reports.append(seen), **options)
        monkeypatch.undo()
        return batches, updates, reports

    return run


@pytest.mark.parametrize("name", ["params/head/b", "classes", "logits"])
def test_arrays_of_another_file_are_refused(
    glyph_data, small_teacher, random_logits, tmp_path, name
):
    """Each has a good checksum of its own; a file made elsewhere has no digest and is read."""
    one, other = tmp_path / "a.h5", tmp_path / "b.h5"
    if name == "logits":
        save_logits(one, random_logits, glyph_data.classes)
        save_logits(other, random_logits + 1, glyph_data.classes)
    else:
        save_teacher(one, small_teacher, glyph_data.classes)
        params = {key: value + 1 for key, value in small_teacher.params.items()}
        changed = TrainedTeacher(small_teacher.net, params, small_teacher.state)
        save_teacher(other, changed, glyph_data.classes[::-1])
    load_teacher(one, glyph_data)
    with h5py.File(one, "r+", libver="v110") as file, h5py.File(other) as source:
        del file[name]
        source.copy(name, file, name)
    with pytest.raises(FormatError, match="a.h5: the arrays are not those of one teacher"):
        load_teacher(one, glyph_data)
    with h5py.File(one, "r+", libver="v110") as file:
        del file["digest"]
    load_teacher(one, glyph_data)


def test_a_teacher_sees_every_image_of_its_pools_at_most_once_per_epoch(recorded):
    batches, _, _ = recorded(epochs=3, batch=4, padding=1)
    assert len(batches) == 3 * 4, "17 images make 4 batches of 4"
    pool = set(range(17))
    orders = []
    for e in range(3):
        seen = np.concatenate([batch["images"] for batch in batches[4 * e : 4 * e + 4]])
        assert [len(batch["images"]) for batch in batches[4 * e : 4 * e + 4]] == [4] * 4
        assert len(set(seen)) == 16 and set(seen) <= pool, "teacher and static pools, never test"
        orders.append(seen.tolist())
    assert orders[0] != orders[1], "another order in every epoch"
    for batch in batches:
        assert (batch["labels"] == Pictures.image_label[batch["images"]]).all()


def test_a_teacher_counts_its_steps_and_follows_the_learning_rate(recorded):
    _, updates, _ = recorded(epochs=3, batch=8, rate=0.01)
    rates = [learning_rate(epoch, 3, 0.01, warmup_epochs=1) for epoch in (0, 0, 1, 1, 2, 2)]
    assert updates == list(zip(range(1, 7), rates))


def test_a_teacher_reports_its_steps_and_mean_losses(recorded):
    batches, _, reports = recorded(epochs=2, batch=8)
    assert [report[:2] for report in reports] == [(k, 4) for k in range(4)]
    losses = [batch["loss"] for batch in batches]
    assert reports[0][2] is None
    assert [report[2] for report in reports[1:]] == pytest.approx(losses[:-1], rel=1e-5)


def test_a_small_pool_makes_one_batch(recorded):
    batches, *_ = recorded(epochs=1, batch=32)
    assert [len(batch["images"]) for batch in batches] == [17]


def test_another_seed_is_another_teacher():
    images = Pictures().images([0, 1])
    a, b, same = (
        train_teacher(Pictures(), seed, epochs=1, batch=8)(images) for seed in (0, 1, 0)
    )
    assert (a == same).all() and (a != b).any()


def test_a_teacher_draws_apart_from_the_student_of_the_same_seed(monkeypatch):
    seeds = []
    random = teacher.np.random
    default_rng = random.default_rng
    monkeypatch.setattr(random, "default_rng", lambda s: seeds.append(s) or default_rng(s))
    train_teacher(Pictures(), seed=3, epochs=1)
    assert seeds == [[3, 1]], "a generator of its own, not that of seed 3"
