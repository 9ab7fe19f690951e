"""Runs of a second: a small configuration, and training with it."""

from ckd_ref.config import Config
from ckd_ref.run.session import train

SMALL = dict(width=0.0625, T=2, size=16, epochs=4, batches=2, batch=5, padding=1)
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


def fit(data, logits, method="ckd", folder=None, **changes):
    config = Config(method=method, **SMALL | changes)
    return train(data, config, folder, logits, progress=False)
