"""A training step, both streams forward and backward with AdamW, and inference, against PyTorch's forms of them."""

import argparse
import functools
import os

import timing

VARIANTS = "step", "multi", "best"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--width", type=float, default=0.125, help="scales the channels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="time steps T")
    parser.add_argument("--threads", type=int, default=2, help="of torch, processes of ours")
    parser.add_argument("--network", choices=("full", "tiny"), default="full")
    parser.add_argument("--rounds", type=int, default=7, help="times that each candidate runs, in turn")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of PyTorch: step, multi, best, compiled")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("width", "batch", "steps", "network")}
    what = "{network} network, width {width:g}, batch {batch}, T = {steps}".format(**options)
    print(timing.heading(("numpy", "torch")))
    print(timing.HEADER)
    kinds = ("training step", make_step, peer_step), ("inference", make_evaluation, peer_evaluation)
    for kind, ours, theirs in kinds:
        candidates = {"ours": functools.partial(ours, **options)}
        for variant in arguments.variants.split(","):
            candidates[variant] = functools.partial(theirs, variant, **options)
        with timing.separate(candidates, arguments.threads) as runs:
            seconds = timing.compare(runs, arguments.rounds)
            print(timing.rows(f"{kind}: {what}", seconds))
            megabytes = {name: run.peak_megabytes() for name, run in runs.items()}
        own = megabytes.pop("ours")
        for name, peer in megabytes.items():
            print(timing.row("the same, peak memory over the imports", f"{own:.0f} MB", f"{name}: {peer:.0f} MB",
                             f"{own / peer:.2f}"), flush=True)


def make_step(width, batch, steps, classes=101, seed=0, network="full"):
    """A function that runs one training step of ours on random data and returns its loss.

    It runs in two processes unless OPENBLAS_NUM_THREADS or OMP_NUM_THREADS says 1 or there is one core.
    """
    from ckd_ref.training import Batch, train_step

    run, net, config, team = _student(width, batch, steps, classes, seed, network)
    data = Batch(*random_data(batch, steps, classes, seed))

    def step():
        step.number += 1
        return train_step(net, run, data, config, config.rate, 1.0, step.number, team)["loss"]

    step.number = 0
    return step


def make_evaluation(width, batch, steps, classes=101, seed=0, network="full"):
    """A function that classifies the event frames of random data, as `make_step` otherwise."""
    from ckd_ref.training import classify

    run, net, _, team = _student(width, batch, steps, classes, seed, network)
    events = random_data(batch, steps, classes, seed)[1]
    return lambda: classify(net, run, events, team)


def peer_step(variant, width, batch, steps, network, classes=101, seed=0):
    import peers

    return peers.make_step(variant, _stages(network, width), classes, *random_data(batch, steps, classes, seed))


def peer_evaluation(variant, width, batch, steps, network, classes=101, seed=0):
    import peers

    return peers.make_evaluation(variant, _stages(network, width), classes, random_data(batch, steps, classes, seed)[1])


def random_data(batch, steps, classes, seed):
    """Static frames, event frames (T, B, 48, 48, 2), labels and teacher logits."""
    import numpy as np

    rng = np.random.default_rng(seed)
    shape = steps, batch, 48, 48, 2
    static = np.ascontiguousarray(np.broadcast_to(rng.random((1, batch, 48, 48, 1), np.float32), shape))
    events = (rng.random(shape, np.float32) < 0.1) * rng.integers(1, 4, shape).astype(np.float32)
    return static, events, rng.integers(classes, size=batch), rng.normal(size=(batch, classes)).astype(np.float32)


def _student(width, batch, steps, classes, seed, network):
    import numpy as np

    from ckd_ref.nn.optim import init_moments
    from ckd_ref.run.checkpoint import Run
    from ckd_ref.config import Config
    from ckd_ref.run.process_group import Team

    config = Config(network=network, width=width, T=steps, batch=batch, rate=1e-3)
    net, rng = config.model(classes), np.random.default_rng(seed)
    params, state = net.init(rng)
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    team = Team(min(2, int(threads))).__enter__()              # its processes end with this one
    return Run(params, state, init_moments(params), rng), net, config, team


def _stages(network, width):
    from ckd_ref.models import STAGES

    return [[int(channels * width) for channels in stage] for stage in STAGES[network]]


if __name__ == "__main__":
    main()
