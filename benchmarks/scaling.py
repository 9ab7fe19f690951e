"""Time and memory of a training step against time steps T and batch B; both should be linear."""

import argparse
import functools
import math
import pathlib
import statistics

import timing
from training_step import make_step

BASE = {"batch": 16, "steps": 6}
RANGES = {"steps": (2, 4, 8, 16), "batch": (4, 8, 16, 32, 64)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--width", type=float, default=0.125, help="scales the channels of the full network"
    )
    parser.add_argument("--threads", type=int, default=2, help="processes")
    parser.add_argument(
        "--rounds", type=int, default=5, help="training steps of each size, in turn"
    )
    parser.add_argument("--picture", default=pathlib.Path(__file__).with_name("scaling.png"))
    arguments = parser.parse_args()
    print(timing.heading())
    print("| size | time | peak memory over the imports |\n|---|---|---|")
    results = {}
    for name, values in RANGES.items():
        makers = {
            value: functools.partial(make_step, arguments.width, **BASE | {name: value})
            for value in values
        }
        with timing.separate(makers, arguments.threads) as runs:
            seconds = timing.compare(runs, arguments.rounds)
            results[name] = [
                (value, statistics.median(seconds[value]), run.peak_megabytes())
                for value, run in runs.items()
            ]
        for value, time, megabytes in results[name]:
            sizes = BASE | {name: value}
            size = f"T = {sizes['steps']}, B = {sizes['batch']}"
            print(f"| {size} | {1e3 * time:.0f} ms | {megabytes:.0f} MB |")
        values, times, memory = zip(*results[name])
        symbol = "T" if name == "steps" else "B"
        exponents = exponent(values, times), exponent(values, memory)
        print(f"| exponent in {symbol} | {exponents[0]:.2f} | {exponents[1]:.2f} |", flush=True)
    draw(results, arguments.picture)


def exponent(x, y):
    """Slope of the least-squares line through the logarithms."""
    x = [math.log(value) for value in x]
    y = [math.log(value) for value in y]
    return statistics.linear_regression(x, y).slope


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for ax, (name, rows) in zip(axes, results.items()):
        values, times, memory = zip(*rows)
        ax.plot(values, times, "o-", color="tab:blue")
        ax.set_xlabel("time steps T" if name == "steps" else "batch B")
        ax.set(ylim=(0, None), xlim=(0, None))
        ax.set_ylabel("seconds per training step", color="tab:blue")
        other = ax.twinx()
        other.plot(values, memory, "s--", color="tab:red")
        other.set_ylabel("peak memory, MB", color="tab:red")
        other.set_ylim(0, None)
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
