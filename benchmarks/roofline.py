"""Where the time of a training step goes, and its speed relative to plain matrix products.

Measured in one process.
"""

import argparse
import collections
import contextlib
import time

import timing

PARTS = {
    "convolution forward, im2col": ("nn.conv", "Im2col.forward"),
    "convolution forward, Winograd": ("nn.winograd", "Winograd.forward"),
    "convolution backward, im2col": ("nn.conv", "Im2col.backward"),
    "convolution backward, Winograd": ("nn.winograd", "Winograd.backward"),
    "batch norm, statistics": ("nn.fused", "normalisation"),
    "batch norm, neurons and pooling forward": ("nn.fused", "norm_lif_pool"),
    "neurons and pooling backward": ("nn.fused", "_norm_lif_pool_vjp"),
    "batch norm backward, sums over pixels": ("nn.fused", "pixel_sums"),
    "batch norm backward, last pass": ("nn.fused", "norm_vjp"),
}
"""Functions to time: module and name. The time of one inside another is counted once."""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--width", type=float, default=0.125, help="scales the channels of the full network"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="time steps T")
    parser.add_argument("--rounds", type=int, default=5, help="training steps")
    arguments = parser.parse_args()
    timing.set_threads(1)
    from training_step import make_step

    step = make_step(arguments.width, arguments.batch, arguments.steps)
    step()
    print(timing.heading())
    with clocks() as seconds:
        start = time.perf_counter()
        for _ in range(arguments.rounds):
            step()
        total = time.perf_counter() - start
    products = 3 * 2 * operations(arguments.width, arguments.batch, arguments.steps)
    peak = matrix_products()
    rate = products * arguments.rounds / total / 1e9
    print(
        f"Matrix products of 2048 x 2048: {peak:.0f} GFLOP/s. "
        f"A step has {products / 1e9:.1f} GFLOP of convolutions, counted without Winograd, "
        f"in {total / arguments.rounds:.3f} s: {rate:.0f} GFLOP/s, {rate / peak:.0%}.\n"
    )
    print("| part | ms | share |\n|---|---|---|")
    seconds["all else"] = total - sum(seconds.values())
    for name, spent in seconds.items():
        print(f"| {name} | {1e3 * spent / arguments.rounds:.0f} | {spent / total:.0%} |")


@contextlib.contextmanager
def clocks():
    """Yield the seconds spent in each of PARTS, without those spent in other parts it calls."""
    import importlib

    from autograd.core import primitive_vjps

    from ckd_ref.nn import fused

    seconds = collections.defaultdict(float)
    inside = [0.0]

    def clocked(name, function):
        def run(*arguments, **options):
            start = time.perf_counter()
            inside.append(0.0)
            result = function(*arguments, **options)
            spent = time.perf_counter() - start
            seconds[name] += spent - inside.pop()
            inside[-1] += spent
            return result
        return run

    def clocked_vjp(name, make_vjp):
        return lambda *arguments: clocked(name, make_vjp(*arguments))

    forward = fused.norm_lif_pool
    backward = primitive_vjps[forward]
    originals = []
    for name, (module, path) in PARTS.items():
        if path == "_norm_lif_pool_vjp":
            primitive_vjps[forward] = clocked_vjp(name, backward)  # where autograd looks it up
            continue
        owner = importlib.import_module(f"ckd_ref.{module}")
        *outer, attribute = path.split(".")
        for step in outer:
            owner = getattr(owner, step)
        originals.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, clocked(name, getattr(owner, attribute)))
    try:
        yield seconds
    finally:
        primitive_vjps[forward] = backward
        for owner, attribute, function in originals:
            setattr(owner, attribute, function)


def operations(width, batch, steps, size=48):
    """Multiplications of the convolutions of both streams, forward."""
    from ckd_ref.models import STAGES

    total = 0
    C = 2
    for stage in STAGES["full"]:
        for channels in stage:
            K = int(channels * width)
            total += 9 * C * K * size**2
            C = K
        size //= 2
    return 2 * batch * steps * total


def matrix_products(n=2048, rounds=3):
    import numpy as np

    a = np.ones((n, n), np.float32)
    seconds = timing.compare({"product": lambda: a @ a}, rounds)["product"]
    return 2 * n**3 / min(seconds) / 1e9


if __name__ == "__main__":
    main()
