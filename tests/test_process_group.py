"""Processes that share the streams of a batch give the bits of one process."""

import multiprocessing
import os

import numpy as np
import pytest

from ckd_ref.nn.optim import init_moments
from ckd_ref.run.checkpoint import Run
from ckd_ref.config import Config
from ckd_ref.run.process_group import Team
from ckd_ref.training import Batch, classify, train_step


def steps(config, size, B=8, count=2):
    """Parameters, state and rows after some training steps by a team, and the classes that it then predicts."""
    rng = np.random.default_rng(3)
    net = config.model(5)
    params, state = net.init(rng)
    run = Run(params, state, init_moments(params), rng)
    shape = (config.T, B, config.size, config.size, 2)
    batch = Batch(rng.random(shape, np.float32), rng.poisson(0.3, shape).astype(np.float32),
                  rng.integers(5, size=B), rng.normal(size=(B, 5)).astype(np.float32))
    with Team(size) as team:
        rows = [train_step(net, run, batch, config, 1e-2, 0.5, i + 1, team) for i in range(count)]
        predicted = classify(net, run, batch.events, team, batch=3)
    return run, rows, predicted


@pytest.mark.parametrize("options", [dict(method="ckd"), dict(method="ckd", per_step=True, network="full"),
                                     dict(method="transfer", width=1.0), dict(method="snn")], ids=str)
def test_no_bit_depends_on_the_number_of_processes(options):
    config = Config(**{"T": 2, "size": 16, "width": 0.25} | options)
    one, rows, predicted = steps(config, 1)
    other, other_rows, other_predicted = steps(config, 2)
    assert rows == other_rows and (predicted == other_predicted).all()
    for tree, same in ((one.params, other.params), (one.state, other.state)):
        assert all((tree[name] == same[name]).all() for name in tree)
    assert any((one.params[name] != config.model(5).init(np.random.default_rng(3))[0][name]).any()
               for name in one.params)


def test_everyone_sees_what_everyone_put_in():
    with Team(4) as team:
        assert team.call(_numbered, [(i,) for i in range(4)]) == [[0, 10, 20, 30]] * 4


def _numbered(team, i):
    return team.everyone(10 * i)


def test_the_end_of_another_process_is_told():
    with Team(2) as team:
        for _ in range(2):                                     # while it works, and before
            with pytest.raises(ChildProcessError, match="was killed, perhaps for want of memory"):
                team.call(_leave, [(), ()])


def _leave(team):
    if team.rank:
        os._exit(1)


def test_the_other_processes_end_with_the_block():
    with Team(2):
        helpers = multiprocessing.active_children()
        assert len(helpers) == 1
    helpers[0].join(5)
    assert not multiprocessing.active_children()
