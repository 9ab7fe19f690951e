"""Where the time of a training step goes, and what share of the machine's matrix products it reaches: one process."""

import argparse
import collections
import contextlib
import time

import timing

PRIMITIVES = {
    "convolution forward, patches": ("layers", "Patches.forward"),
    "convolution forward, Winograd": ("winograd", "Winograd.forward"),
    "convolution backward, patches": ("layers", "Patches.backward"),
    "convolution backward, Winograd": ("winograd", "Winograd.backward"),
    "batch norm, rest of the moments": ("layers", "_moments"),
    "neurons and pooling forward": ("spiking", "Neurons.forward"),
    "neurons and pooling backward": ("spiking", "Neurons.backward"),
    "batch norm, sums over pixels": ("layers", "_pixel_sums"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--width", type=float, default=0.125, help="scales the channels of the full network")
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
    peak, rate = matrix_products(), products * arguments.rounds / total / 1e9
    print(f"Matrix products of 2048 x 2048: {peak:.0f} GFLOP/s. A step has {products / 1e9:.1f} GFLOP of convolutions, "
          f"counted without Winograd, in {total / arguments.rounds:.3f} s: {rate:.0f} GFLOP/s, {rate / peak:.0%}.\n")
    print("| primitive | ms | share |\n|---|---|---|")
    seconds["all else"] = total - sum(seconds.values())
    for name, spent in seconds.items():
        print(f"| {name} | {1e3 * spent / arguments.rounds:.0f} | {spent / total:.0%} |")


@contextlib.contextmanager
def clocks():
    """Count the seconds within each of PRIMITIVES, each without those of the others that it calls."""
    import importlib

    seconds, inside = collections.defaultdict(float), [0.0]

    def clocked(name, function):
        def run(*arguments, **options):
            start = time.perf_counter()
            inside.append(0.0)
            result = function(*arguments, **options)
            if hasattr(result, "__next__"):                    # a generator has not begun yet
                result = iter(list(result))
            spent = time.perf_counter() - start
            seconds[name] += spent - inside.pop()
            inside[-1] += spent
            return result
        return run

    originals = []
    for name, (module, path) in PRIMITIVES.items():
        owner = importlib.import_module(f"ckd_ref.{module}")
        *outer, attribute = path.split(".")
        for step in outer:
            owner = getattr(owner, step)
        originals.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, clocked(name, getattr(owner, attribute)))
    try:
        yield seconds
    finally:
        for owner, attribute, function in originals:
            setattr(owner, attribute, function)


def operations(width, batch, steps, size=48):
    """Multiplications of the convolutions of both streams, forward."""
    from ckd_ref.models import STAGES

    total, C = 0, 2
    for stage in STAGES["full"]:
        for K in (int(channels * width) for channels in stage):
            total, C = total + 9 * C * K * size**2, K
        size //= 2
    return 2 * batch * steps * total


def matrix_products(n=2048, rounds=3):
    import numpy as np

    a = np.ones((n, n), np.float32)
    seconds = timing.compare({"product": lambda: a @ a}, rounds)["product"]
    return 2 * n**3 / min(seconds) / 1e9


if __name__ == "__main__":
    main()
