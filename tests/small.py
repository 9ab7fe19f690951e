"""Runs of a second: a small configuration, and training with it."""

from ckd_ref.config import Config
from ckd_ref.run.session import train

SMALL = dict(width=0.0625, T=2, size=16, epochs=4, batches=2, batch=5, padding=1)
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


def fit(data, logits, method="ckd", folder=None, **changes):
    config = Config(method=method, **SMALL | changes)
    return train(data, config, folder, logits, progress=False)


def assert_same_bits(a, b):
    for left, right in ((a.params, b.params), (a.state, b.state)):
        assert all(left[name].tobytes() == right[name].tobytes() for name in left)
    assert all(
        x.tobytes() == y.tobytes()
        for name in a.moments
        for x, y in zip(a.moments[name], b.moments[name])
    )
    assert a.history == b.history
