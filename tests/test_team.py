"""Processes that share a batch give the bits of one process."""

import multiprocessing

import autograd.numpy as np
import numpy as onp
import pytest
from autograd import grad

from ckd_ref.models import STAGES, VGGSNN
from ckd_ref.optim import init_moments
from ckd_ref.runs import Config, Run
from ckd_ref.team import ALONE, Team, fitting, gather, pairwise_sum
from ckd_ref.training import Batch, classify, gradients, train_step


def steps(config, size, B=8, count=2):
    """Parameters, state and rows after some training steps by a team, and the classes that it then predicts."""
    rng = onp.random.default_rng(3)
    net = config.model(5)
    params, state = net.init(rng)
    run = Run(params, state, init_moments(params), rng)
    shape = (config.T, B, config.size, config.size, 2)
    batch = Batch(rng.random(shape, onp.float32), rng.poisson(0.3, shape).astype(onp.float32),
                  rng.integers(5, size=B), rng.normal(size=(B, 5)).astype(onp.float32))
    with Team(size) as team:
        rows = [train_step(net, run, batch, config, 1e-2, 0.5, i + 1, team) for i in range(count)]
        predicted = classify(net, run, batch.events, team, batch=3)
    return run, rows, predicted


@pytest.mark.parametrize("options", [dict(method="ckd"), dict(method="ckd", per_step=True, network="full"),
                                     dict(method="transfer", width=1.0), dict(method="snn")], ids=str)
def test_no_bit_depends_on_the_number_of_processes(options):
    config = Config(**{"T": 2, "size": 16, "width": 0.25} | options)
    one, rows, predicted = steps(config, 1)
    for size in (2, 4):
        other, other_rows, other_predicted = steps(config, size)
        assert rows == other_rows and (predicted == other_predicted).all()
        for tree, same in ((one.params, other.params), (one.state, other.state)):
            assert all((tree[name] == same[name]).all() for name in tree)
    assert any((one.params[name] != config.model(5).init(onp.random.default_rng(3))[0][name]).any()
               for name in one.params)


def test_float64_gradients_do_not_depend_on_the_groups():
    """A batch of 7 is one group and one of 8 four; both must give the gradient of the plain sums, see test_models."""
    net = VGGSNN(3, T=2, stages=STAGES["tiny"][:1], width=0.05, size=6)
    rng = onp.random.default_rng(0)
    params, state = net.init(rng, onp.float64)
    batch = Batch(rng.random((2, 8, 6, 6, 2)), rng.random((2, 8, 6, 6, 2)), rng.integers(3, size=8), None)
    order = rng.permutation(8)
    mixed = Batch(batch.static[:, order], batch.events[:, order], batch.labels[order], None)
    results = [gradients(ALONE, net, params, state, b, Config(method="transfer"), 1.0)[0] for b in (batch, mixed)]
    for name in params:
        assert onp.allclose(results[0][0][name] + results[0][1][name], results[1][0][name] + results[1][1][name],
                            rtol=1e-9, atol=1e-12)


def test_everyone_sees_what_everyone_put_in():
    with Team(4) as team:
        assert team.call(_numbered, [(i,) for i in range(4)]) == [[0, 10, 20, 30]] * 4


def _numbered(team, i):
    return team.everyone(10 * i)


def test_gather_puts_samples_in_order_and_cuts_the_gradient():
    frames = onp.arange(24.0).reshape(3, 4, 2, 1, 1)                            # (T, B, h, w, C)
    groups = ALONE.into_groups(frames)
    assert groups.shape == (4, 3, 1, 2, 1, 1) and (gather(groups, ALONE) == frames).all()
    weights = onp.random.default_rng(0).normal(size=frames.shape)
    slope = grad(lambda x: np.sum(weights * gather(x, ALONE)))(groups)
    assert (gather(slope, ALONE) == weights).all()


@pytest.mark.parametrize("batch, most, size", [(20, 2, 2), (20, 8, 4), (18, 4, 2), (7, 4, 1), (16, 3, 2), (16, 0, 1)])
def test_a_team_divides_the_groups(batch, most, size):
    assert fitting(batch, most) == size


def test_halves_are_added_first():
    assert pairwise_sum([1e16, 1.0, -1e16, 1.0]) == (1e16 + 1.0) + (-1e16 + 1.0) != 1e16 + 1.0 - 1e16 + 1.0


def test_the_other_processes_end_with_the_block():
    with Team(2):
        helpers = multiprocessing.active_children()
        assert len(helpers) == 1
    helpers[0].join(5)
    assert not multiprocessing.active_children()
