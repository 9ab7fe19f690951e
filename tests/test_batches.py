"""Batches: pairs by class index, the draw of Eq. (8), whole-sample replacement, crops."""

import numpy as np
import oracles
import pytest

from ckd_ref import batches
from ckd_ref.batches import random_crop, replace_static, replacement_mask, sample_pairs

# Pairs by class index

def held_out_drawn(label, index, ranges):
    """How many draws fall outside [begin, end) of their class: on the held-out images of the golden list."""
    return int(sum(not ranges[c][0] <= i < ranges[c][1] for c, i in zip(label, index)))


def test_eq05_pairs_have_one_class_and_never_a_held_out_image(golden, rng):
    count, ranges = golden["pairing/cls_count"][()], golden["pairing/ranges"][()]
    pool = np.concatenate([np.arange(begin, end) for begin, end in ranges])         # all but the held-out images
    image_label = np.repeat(np.arange(7), count)[pool]
    event_label = rng.integers(0, 7, 50)
    event_index, image_index = sample_pairs(event_label, image_label, 100_000, rng)
    assert np.array_equal(event_label[event_index], image_label[image_index])
    assert held_out_drawn(event_label[event_index], pool[image_index], ranges) == 0
    assert set(image_index) == set(range(len(pool)))                                # the last of each class as well
    # The wrong version, end included, is what made the golden draws: this test sees it.
    leaked = held_out_drawn(golden["pairing/labels"][()], golden["pairing/indices"][()], ranges)
    assert leaked == golden["pairing/n_leaked"][()] == 3


def test_pairs_with_the_end_included_are_caught(monkeypatch, rng):
    def end_included(label, wanted, rng):
        order = np.append(np.argsort(label, kind="stable"), 0)
        begin = np.searchsorted(label, wanted, "left", sorter=order[:-1])
        end = np.searchsorted(label, wanted, "right", sorter=order[:-1])
        return order[rng.integers(begin, end, endpoint=True)]
    label = rng.integers(0, 4, 30)
    monkeypatch.setattr(batches, "_draw_of_class", end_included)
    event_index, image_index = sample_pairs(label, label, 2000, rng)
    assert not np.array_equal(label[event_index], label[image_index])


def test_pairs_are_balanced_over_classes_and_within(rng):
    event_label = np.repeat([0, 1, 2], [1, 5, 50])
    image_label = np.repeat([2, 0, 1], [3, 30, 300])
    event_index, image_index = sample_pairs(event_label, image_label, 30_000, rng)
    assert np.abs(np.bincount(event_label[event_index]) / 30_000 - 1 / 3).max() < 0.015
    for index, label in ((event_index, event_label), (image_index, image_label)):
        for c in range(3):
            counts = np.bincount(index, minlength=len(label))[label == c]
            n = len(counts)
            expected = 10_000 / n
            assert ((counts - expected)**2 / expected).sum() < n + 6 * np.sqrt(2 * n)       # chi-squared
    # drawing recordings without regard to their class would not be balanced
    assert np.abs(np.bincount(event_label[rng.integers(0, 56, 30_000)]) / 30_000 - 1 / 3).max() > 0.1


def test_pairs_follow_the_generator():
    label = np.arange(40) % 5
    one, same, other = (np.stack(sample_pairs(label, label, 64, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_labels_need_not_be_sorted_or_complete(rng):
    event_label, image_label = np.array([7, 3, 7]), np.array([3, 7, 3, 7, 7])
    event_index, image_index = sample_pairs(event_label, image_label, 500, rng)
    assert np.array_equal(event_label[event_index], image_label[image_index])


@pytest.mark.parametrize("event_label, image_label, batch, alone", [
    ([0, 1], [0], 4, r"\[1\]"), ([0], [0, 2], 4, r"\[2\]"), ([], [], 4, r"\[\]"), ([0], [0], 0, "batch = 0")])
def test_a_class_on_one_side_only_is_refused(event_label, image_label, batch, alone, rng):
    with pytest.raises(ValueError, match=alone):
        sample_pairs(np.array(event_label, int), np.array(image_label, int), batch, rng)


# Replacement

def test_eq08_mask_equals_the_baselines(golden):
    uniforms = golden["replacement/uniforms"][()]
    keys = [key for key in golden["replacement"] if key.startswith("mask_P")]
    assert len(keys) == 4
    for key in keys:
        mask = replacement_mask(float(key.removeprefix("mask_P")), uniforms)
        assert mask.dtype == bool and np.array_equal(mask, golden["replacement"][key][()] == 1), key


def test_eq08_mask_includes_the_probability_itself_and_nothing_at_zero():
    uniforms = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert replacement_mask(0.5, uniforms).tolist() == [True, True, True, False, False]
    assert replacement_mask(1.0, uniforms).all()
    assert not replacement_mask(0.0, uniforms).any()            # even where the draw is 0
    assert (uniforms < 0.5).tolist() != replacement_mask(0.5, uniforms).tolist()        # the strict rule is another


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
    assert hybrid.dtype == dtype and np.array_equal(static, kept)
    assert np.array_equal(hybrid, oracles.replace_rows(static, events, mask))
    assert np.array_equal(hybrid[:, mask], events[:, mask]) and np.array_equal(hybrid[:, ~mask], static[:, ~mask])
    # wrong versions: a mask over time, one polarity only, rows of another order
    for wrong in (np.where(mask[:3, None, None, None, None], events, static),
                  np.where(mask[None, :, None, None, None] & [True, False], events, static),
                  np.where(mask[None, ::-1, None, None, None], events, static)):
        assert not np.array_equal(wrong, oracles.replace_rows(static, events, mask))


def test_eq08_replacement_refuses_streams_that_differ(rng):
    static = np.zeros((3, 4, 5, 5, 2), np.float32)
    mask = np.zeros(4, bool)
    for arguments in ((static, static[:2], mask), (static, static.astype(np.float64), mask),
                      (static, static, mask[:3]), (static, static, mask.astype(int)), (static[0], static[0], mask)):
        with pytest.raises(ValueError, match="expected"):
            replace_static(*arguments)


# Crop

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_crop_equals_a_slow_shift_that_is_one_for_all_times(rng, dtype):
    frames = rng.random((3, 20, 6, 7, 2)).astype(dtype)
    cropped = random_crop(frames, 2, np.random.default_rng(5))
    assert cropped.dtype == dtype and cropped.shape == frames.shape
    seen = set()
    for b in range(20):
        shifts = [(i, j) for i in range(-2, 3) for j in range(-2, 3)
                  if all(np.array_equal(cropped[t, b], oracles.shifted_crop(frames[t, b], i, j)) for t in range(3))]
        assert len(shifts) == 1                         # one offset explains all times
        seen.add(shifts[0])
    assert len(seen) > 5                                # and it differs between samples


def test_crop_reaches_every_offset_up_to_the_padding(rng):
    frames = np.zeros((1, 2000, 9, 9, 1))
    frames[:, :, 4, 4] = 1
    where = np.argwhere(random_crop(frames, 2, rng)[0, ..., 0])[:, 1:] - 4
    assert {tuple(place) for place in where} == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def test_crop_follows_the_generator_and_does_nothing_without_padding(rng):
    frames = rng.random((2, 8, 6, 6, 2))
    one, two = (random_crop(frames, 3, np.random.default_rng(seed)) for seed in (0, 0))
    assert np.array_equal(one, two) and not np.array_equal(one, random_crop(frames, 3, np.random.default_rng(1)))
    assert np.array_equal(random_crop(frames, 0, rng), frames)


def test_crop_refuses_other_shapes(rng):
    frames = np.zeros((1, 1, 4, 4, 2))
    for frames, padding in ((frames[0], 1), (frames, -1), (frames, 0.5)):
        with pytest.raises(ValueError, match="expected frames"):
            random_crop(frames, padding, rng)
