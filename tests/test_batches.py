"""Batches: pairs of a class, the draw of Eq. (8), whole-sample replacement, crops."""

import numpy as np
import oracles
import pytest

from ckd_ref import batches
from ckd_ref.batches import random_crop, replace_static, replacement_mask, sample_pairs

# Pairs of a class


def held_out_drawn(label, index, ranges):
    """How many draws fall outside [begin, end) of their class: on held-out images."""
    return int(sum(not ranges[c][0] <= i < ranges[c][1] for c, i in zip(label, index)))


def end_included(label, wanted, rng):
    """The baseline's draw: the end of each class may be drawn, which is the next image."""
    order = np.append(np.argsort(label, kind="stable"), 0)
    begin = np.searchsorted(label, wanted, "left", sorter=order[:-1])
    end = np.searchsorted(label, wanted, "right", sorter=order[:-1])
    return order[rng.integers(begin, end, endpoint=True)]


def test_eq05_pairs_have_one_class_and_never_a_held_out_image(golden, rng):
    count = golden["pairing/cls_count"][()]
    ranges = golden["pairing/ranges"][()]
    pool = np.concatenate([np.arange(begin, end) for begin, end in ranges])  # without held-out
    image_label = np.repeat(np.arange(7), count)[pool]
    event_label = rng.integers(0, 7, 50)
    event_index, image_index = sample_pairs(event_label, image_label, 100_000, rng)
    same = np.array_equal(event_label[event_index], image_label[image_index])
    assert same, "a recording was paired with an image of another class"
    leaked = held_out_drawn(event_label[event_index], pool[image_index], ranges)
    assert leaked == 0, f"{leaked} draws are held-out images"
    drawn = set(image_index.tolist())
    assert drawn == set(range(len(pool))), "an image was never drawn, the last of a class perhaps"
    # The wrong version, end included, is what made the golden draws: this test sees it.
    golden_labels, golden_indices = golden["pairing/labels"][()], golden["pairing/indices"][()]
    leaked = held_out_drawn(golden_labels, golden_indices, ranges)
    assert leaked == golden["pairing/n_leaked"][()] > 0, "the golden draws leak held-out images"


def test_the_first_held_out_image_is_never_drawn(monkeypatch, rng):
    """Of 5 images per class, the last is held out; a wrong version, end included, draws it.

    In the list of the pools, the position after those of class 0 is the first of class 1.
    """
    image_label = np.repeat([0, 1], 4)
    event_label = np.array([0, 1])

    def images_drawn_for(label):
        event_index, image_index = sample_pairs(event_label, image_label, 500, rng)
        return set(image_index[event_label[event_index] == label].tolist())

    assert images_drawn_for(0) == {0, 1, 2, 3}, "class 0 has the images 0 to 3 of the list"
    assert images_drawn_for(1) == {4, 5, 6, 7}, "class 1 has the images 4 to 7 of the list"
    end_exclusive = batches._draw_of_class

    def wrong_for_images(label, wanted, rng):
        draw = end_included if label is image_label else end_exclusive
        return draw(label, wanted, rng)

    monkeypatch.setattr(batches, "_draw_of_class", wrong_for_images)
    leaked = images_drawn_for(0) - {0, 1, 2, 3}
    assert leaked == {4}, "with the end included, class 0 must leak exactly the image at its end"


def test_pairs_with_the_end_included_are_caught(monkeypatch, rng):
    label = rng.integers(0, 4, 30)
    monkeypatch.setattr(batches, "_draw_of_class", end_included)
    event_index, image_index = sample_pairs(label, label, 2000, rng)
    same = np.array_equal(label[event_index], label[image_index])
    assert not same, "the comparison of classes does not notice that the end is included"


def test_pairs_are_balanced_over_classes_and_within(rng):
    event_label = np.repeat([0, 1, 2], [1, 5, 50])
    image_label = np.repeat([2, 0, 1], [3, 30, 300])
    event_index, image_index = sample_pairs(event_label, image_label, 30_000, rng)
    share = np.bincount(event_label[event_index]) / 30_000
    assert np.abs(share - 1 / 3).max() < 0.015, f"the classes are not drawn alike: {share}"
    for index, label in ((event_index, event_label), (image_index, image_label)):
        for c in range(3):
            counts = np.bincount(index, minlength=len(label))[label == c]
            n = len(counts)
            expected = 10_000 / n
            chi_squared = ((counts - expected) ** 2 / expected).sum()
            assert chi_squared < n + 6 * np.sqrt(2 * n), f"class {c} is not drawn uniformly"
    # A wrong version: recordings drawn without regard to their class.
    share = np.bincount(event_label[rng.integers(0, 56, 30_000)]) / 30_000
    assert np.abs(share - 1 / 3).max() > 0.1, "the check of balance does not notice unequal classes"


def test_pairs_follow_the_generator():
    label = np.arange(40) % 5
    one, same, other = (
        np.stack(sample_pairs(label, label, 64, np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same), "the same generator gave other pairs"
    assert not np.array_equal(one, other), "another generator gave the same pairs"


def test_labels_need_not_be_sorted_or_complete(rng):
    event_label = np.array([7, 3, 7])
    image_label = np.array([3, 7, 3, 7, 7])
    event_index, image_index = sample_pairs(event_label, image_label, 500, rng)
    same = np.array_equal(event_label[event_index], image_label[image_index])
    assert same, "unsorted labels are paired across classes"


def test_a_batch_may_be_a_single_pair(rng):
    event_label = np.array([1, 0, 1])
    image_label = np.array([0, 1])
    for _ in range(20):
        event_index, image_index = sample_pairs(event_label, image_label, 1, rng)
        assert event_index.shape == image_index.shape == (1,), "expected one recording, one image"
        assert event_index.dtype == image_index.dtype == np.int64, "expected positions as int64"
        assert event_label[event_index] == image_label[image_index], "the classes differ"


@pytest.mark.parametrize("event_label, image_label, batch, alone", [
    ([0, 1], [0], 4, r"\[1\]"),
    ([0], [0, 2], 4, r"\[2\]"),
    ([], [], 4, r"\[\]"),
    ([0], [0], 0, "batch = 0"),
])
def test_a_class_on_one_side_only_is_refused(event_label, image_label, batch, alone, rng):
    with pytest.raises(ValueError, match=alone):
        sample_pairs(np.array(event_label, int), np.array(image_label, int), batch, rng)


# Replacement


def test_eq08_mask_equals_the_baselines(golden):
    uniforms = golden["replacement/uniforms"][()]
    keys = [key for key in golden["replacement"] if key.startswith("mask_P")]
    assert len(keys) == 4, "the golden file has masks for four probabilities"
    for key in keys:
        mask = replacement_mask(float(key.removeprefix("mask_P")), uniforms)
        expected = golden["replacement"][key][()] == 1
        assert mask.dtype == bool, "expected a mask of booleans"
        assert np.array_equal(mask, expected), f"{key}: other rows are replaced in the baseline"


def test_eq08_mask_includes_the_probability_itself_and_nothing_at_zero():
    uniforms = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    half = replacement_mask(0.5, uniforms).tolist()
    assert half == [True, True, True, False, False], "draws up to P are replaced, P included"
    assert replacement_mask(1.0, uniforms).all(), "at P = 1 every row is replaced"
    assert not replacement_mask(0.0, uniforms).any(), "at P = 0 none is, even where the draw is 0"
    assert (uniforms < 0.5).tolist() != half, "the strict rule is another one"


@pytest.mark.parametrize("probability", [-0.1, 1.1, np.nan])
def test_eq08_probability_outside_its_range_is_refused(probability):
    with pytest.raises(ValueError, match="probability in"):
        replacement_mask(probability, np.zeros(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eq08_replacement_takes_whole_samples(rng, dtype):
    static, events = rng.random((2, 3, 6, 4, 5, 2)).astype(dtype)
    mask = np.array([True, False, False, True, False, True])
    kept = static.copy()
    hybrid = replace_static(static, events, mask)
    expected = oracles.replace_rows(static, events, mask)
    assert hybrid.dtype == dtype, "the hybrid stream has another dtype"
    assert np.array_equal(static, kept), "the static stream was changed in place"
    assert np.array_equal(hybrid, expected), "the hybrid stream differs from the loop's"
    assert np.array_equal(hybrid[:, mask], events[:, mask]), "masked rows must be the events'"
    assert np.array_equal(hybrid[:, ~mask], static[:, ~mask]), "the others must be the images'"
    wrong_versions = {
        "a mask over time": np.where(mask[:3, None, None, None, None], events, static),
        "one polarity only": np.where(
            mask[None, :, None, None, None] & [True, False], events, static
        ),
        "rows of another order": np.where(mask[None, ::-1, None, None, None], events, static),
    }
    for name, wrong in wrong_versions.items():
        assert not np.array_equal(wrong, expected), f"the loop does not notice {name}"


def test_eq08_replacement_refuses_streams_that_differ():
    static = np.zeros((3, 4, 5, 5, 2), np.float32)
    mask = np.zeros(4, bool)
    for arguments in (
        (static, static[:2], mask),
        (static, static.astype(np.float64), mask),
        (static, static, mask[:3]),
        (static, static, mask.astype(int)),
        (static[0], static[0], mask),
    ):
        with pytest.raises(ValueError, match="expected"):
            replace_static(*arguments)


# Crop


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_crop_equals_the_shifted_sample(rng, dtype):
    """A slow shift by one offset per sample, the same for all times."""
    frames = rng.random((3, 20, 6, 7, 2)).astype(dtype)
    cropped = random_crop(frames, 2, np.random.default_rng(5))
    assert cropped.dtype == dtype, "the crop has another dtype"
    assert cropped.shape == frames.shape, "the crop has another shape"

    def explains(b, i, j):
        shifted = [oracles.shifted_crop(frames[t, b], i, j) for t in range(3)]
        return np.array_equal(cropped[:, b], shifted)

    offsets = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
    seen = set()
    for b in range(20):
        found = [offset for offset in offsets if explains(b, *offset)]
        assert len(found) == 1, f"sample {b}: expected one offset for all times, found {found}"
        seen.add(found[0])
    assert len(seen) > 5, "the samples share their offsets"


def test_crop_reaches_every_offset_up_to_the_padding(rng):
    frames = np.zeros((1, 2000, 9, 9, 1))
    frames[:, :, 4, 4] = 1
    cropped = random_crop(frames, 2, rng)
    where = np.argwhere(cropped[0, ..., 0])[:, 1:] - 4
    reached = {tuple(place) for place in where.tolist()}
    expected = {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    assert reached == expected, "expected every offset from -2 to 2 in both directions"


def test_crop_follows_the_generator_and_does_nothing_without_padding(rng):
    frames = rng.random((2, 8, 6, 6, 2))
    one, same, other = (
        random_crop(frames, 3, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same), "the same generator gave other crops"
    assert not np.array_equal(one, other), "another generator gave the same crops"
    assert np.array_equal(random_crop(frames, 0, rng), frames), "without padding nothing may move"


def test_crop_refuses_other_shapes(rng):
    frames = np.zeros((1, 1, 4, 4, 2))
    for wrong, padding in ((frames[0], 1), (frames, -1), (frames, 0.5)):
        with pytest.raises(ValueError, match="expected frames"):
            random_crop(wrong, padding, rng)


def test_draws_are_positions_of_the_class_in_their_order():
    """The same generator gives the same pairs, whatever sorts the labels."""
    label = np.random.default_rng(7).integers(0, 5, 400)
    event_index, image_index = sample_pairs(label, label[::-1], 50, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    wanted = rng.integers(5, size=50)
    for index, labels in ((event_index, label), (image_index, label[::-1])):
        begin = np.searchsorted(np.sort(labels), wanted, "left")
        end = np.searchsorted(np.sort(labels), wanted, "right")
        offsets = rng.integers(begin, end) - begin
        expected = [np.flatnonzero(labels == c)[k] for c, k in zip(wanted, offsets)]
        assert index.tolist() == expected, "the k-th of its class, in the order of the data"
