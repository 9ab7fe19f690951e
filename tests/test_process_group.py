"""Processes that share the streams of a batch: bit-identical to the plain training step."""

import inspect
import multiprocessing
import os

import numpy as np
import pytest

from ckd_ref import training
from ckd_ref.batches import Batch
from ckd_ref.config import Config
from ckd_ref.run import parallel
from ckd_ref.run.process_group import SINGLE, ProcessGroup
from ckd_ref.training import TrainState

B = 8
CLASSES = 4
STEPS = 2


def start(config):
    """Network, initial state and a batch."""
    net = config.model(CLASSES)
    run = TrainState.start(net, 3)
    run.params["theta"] = run.params["theta"] + np.arange(config.T, dtype=np.float32)
    rng = np.random.default_rng(5)
    shape = (config.T, B, config.size, config.size, 2)
    batch = Batch(
        static=rng.random(shape, np.float32),
        events=rng.poisson(0.3, shape).astype(np.float32),
        labels=rng.integers(CLASSES, size=B),
        teacher_logits=rng.normal(size=(B, CLASSES)).astype(np.float32),
    )
    return net, run, batch


def plain(config):
    """State and rows after some training steps, and the classes predicted then."""
    net, run, batch = start(config)
    rows = [
        training.train_step(net, run, batch, config, 1e-2, 0.5, step + 1) for step in range(STEPS)
    ]
    return run, rows, training.classify(net, run, batch.events, batch=3)


def by(group, config):
    """The same by a group of processes."""
    net, run, batch = start(config)
    rows = [
        parallel.train_step(group, net, run, batch, config, 1e-2, 0.5, step + 1)
        for step in range(STEPS)
    ]
    return run, rows, parallel.classify(group, net, run, batch.events, batch=3)


def arrays(run):
    """Everything that a training step replaces, by name."""
    named = {f"parameter {name}": p for name, p in run.params.items()}
    named |= {f"statistic {name}": s for name, s in run.state.items()}
    for name, (first, second) in run.moments.items():
        named |= {f"first moment of {name}": first, f"second moment of {name}": second}
    return named


def assert_bit_identical(result, reference):
    run, rows, classes = result
    expected, expected_rows, expected_classes = reference
    assert rows == expected_rows, "the losses or accuracies of a step differ"
    ours, theirs = arrays(run), arrays(expected)
    assert list(ours) == list(theirs), "other parameters, statistics or moments"
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, f"the {name} has another dtype"
        assert ours[name].tobytes() == theirs[name].tobytes(), f"the {name} is not bit-identical"
    assert np.array_equal(classes, expected_classes), "other classes are predicted"


SMALL = dict(T=2, size=16, width=0.0625)

OPTIONS = [
    dict(method=method, reading=reading, per_step=per_step)
    for method in ("transfer", "ckd")
    for reading in ("baseline", "paper")
    for per_step in (False, True)
]
OPTIONS += [
    dict(method=method, network=network, per_step=per_step)
    for method, network in (("snn", "tiny"), ("snn", "full"), ("transfer", "full"), ("ckd", "full"))
    for per_step in (False, True)
]
OPTIONS += [
    dict(method="snn", width=0.25),
    dict(method="transfer", width=1.0),                        # Winograd in every layer but one
    dict(method="ckd", distillation="dkd"),
    dict(method="ckd", distillation="dist", kd_per_step=True),
    dict(method="ckd", distillation="luminet", temperature=2.0, kd_weight=0.3),
    dict(method="ckd", alpha=0.5, beta=2.0, lam=0.01, target=0.5, decay=0.1),
    dict(method="ckd", tau=0.3, v_th=0.7, surrogate="atan", surrogate_width=0.8,
         detach_reset=False),
    dict(method="snn", v_th=0.5, surrogate="sigmoid"),
    dict(method="snn", network="tiny_resnet"),
    dict(method="transfer", network="tiny_resnet", reading="baseline", per_step=True),
    dict(method="ckd", network="tiny_resnet"),
    dict(method="tks"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: " ".join(map(str, o.values())))
def test_the_group_is_bit_identical_to_the_plain_step(options):
    config = Config(**SMALL | options)
    reference = plain(config)
    with ProcessGroup(2) as group:
        assert_bit_identical(by(group, config), reference)
    run, rows, _ = reference
    numbers = [value for row in rows for value in row.values()]
    assert np.isfinite(numbers).all(), "a loss is NaN or Inf, which compares nothing"
    _, initial, _ = start(config)
    for name in ("conv0/w", "event/w"):
        assert (run.params[name] != initial.params[name]).any(), f"nothing has trained {name}"


@pytest.mark.parametrize("method", ["snn", "transfer", "ckd"])
@pytest.mark.parametrize("size", [1, 3])
def test_the_size_of_the_group_does_not_matter(method, size):
    """One process with both streams, and one process more than there are streams."""
    config = Config(**SMALL, method=method)
    with ProcessGroup(size) as group:
        assert_bit_identical(by(group, config), plain(config))


def test_the_group_of_one_needs_no_block():
    config = Config(**SMALL)
    assert_bit_identical(by(SINGLE, config), plain(config))


def in_the_wrong_order(batch, config):
    """Events first, so that the running statistics take in the streams in another order."""
    return dict(reversed(training.streams(batch, config).items()))


WRONG = {
    "streams in another order": ("streams", in_the_wrong_order),
    "running statistics left out": ("update_state", lambda state, _: state),
}


@pytest.mark.parametrize("name, wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_twin_is_caught(monkeypatch, name, wrong):
    config = Config(**SMALL)
    reference = plain(config)
    monkeypatch.setattr(parallel, name, wrong)
    with pytest.raises(AssertionError, match="not bit-identical"):
        assert_bit_identical(by(SINGLE, config), reference)


def test_both_twins_classify_as_many_recordings_at_a_time():
    plain, group = (inspect.signature(twin.classify).parameters["batch"].default
                    for twin in (training, parallel))
    assert plain == group == 8


def test_two_processes_classify_equal_shares_of_sixteen_recordings():
    """Each half, in the order of the recordings; here an answer is the number of a recording."""
    class Recorded:
        size = 2

        def call(self, _, parts):
            self.shares = [part[-1] for part in parts]
            return [[frames[0] for frames in share] for share in self.shares]

    group = Recorded()
    run = training.TrainState.start(Config(**SMALL).model(CLASSES), 0)
    classes = parallel.classify(group, None, run, np.arange(16)[None])
    assert [sum(frames.shape[1] for frames in share) for share in group.shares] == [8, 8]
    assert classes.tolist() == list(range(16)), "classes are not in the order of the recordings"


@pytest.mark.parametrize("network, batch", [
    ("tiny", 1), ("tiny", 4), ("tiny", 8), ("full", 1), ("full", 4), ("full", 8),
    ("tiny_resnet", 4),
])
def test_the_group_predicts_the_same_classes(network, batch):
    """With running statistics at which the neurons fire, and a head that tells samples apart."""
    net, run, data = start(Config(**SMALL, network=network))
    _, _, statistics = net.apply(run.params, data.events, "event")
    for name, (mean, var) in statistics.items():
        run.state[f"{name}/mean"] = mean[0].astype(np.float32)
        run.state[f"{name}/var"] = var[0].astype(np.float32)
    run.params["event/b"] = np.zeros(CLASSES, np.float32)
    expected = training.classify(net, run, data.events, batch)
    assert len(set(expected.tolist())) > 1, "all are of one class, which compares nothing"
    for size in (1, 2, 3):
        with ProcessGroup(size) as group:
            classes = parallel.classify(group, net, run, data.events, batch)
        assert classes.dtype == expected.dtype, "the classes have another dtype"
        assert np.array_equal(classes, expected), f"{size} processes predict other classes"


def test_all_see_what_all_put_in():
    with ProcessGroup(4) as group:
        seen = group.call(_numbered, [(i,) for i in range(4)])
    assert seen == [[0, 10, 20, 30]] * 4, "every member must see all numbers in the same order"


def _numbered(group, i):
    return group.all_gather(10 * i)


def test_a_group_has_at_least_one_process():
    with pytest.raises(ValueError, match="at least one process, got 0"):
        ProcessGroup(0)


def test_the_end_of_another_process_is_told():
    with ProcessGroup(2) as group:
        for _ in range(2):                                     # while it works, and before
            with pytest.raises(ChildProcessError, match="was killed, perhaps for want of memory"):
                group.call(_leave, [(), ()])


def _leave(group):
    if group.rank:
        os._exit(1)


def test_the_other_processes_end_with_the_block():
    before = set(multiprocessing.active_children())
    with ProcessGroup(2):
        helpers = set(multiprocessing.active_children()) - before
        assert len(helpers) == 1, "a group of two has one helper"
    helper = helpers.pop()
    helper.join(5)
    assert not helper.is_alive(), "the helper outlives its block"


def _fail(group):
    if group.rank:
        raise ValueError("no such class: 7")
    return group.all_gather(0)


def test_an_exception_of_a_helper_is_raised_as_it_is():
    with ProcessGroup(2) as group:
        with pytest.raises(ValueError, match="no such class: 7"):
            group.call(_fail, [(), ()])
