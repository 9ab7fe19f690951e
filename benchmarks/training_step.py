"""A training step (both streams forward and backward, AdamW) and inference, against PyTorch."""

import argparse
import functools
import os

import timing

VARIANTS = "step", "multi", "best"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--width", type=float, default=0.125, help="scales the channels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="time steps T")
    parser.add_argument("--threads", type=int, default=2, help="of torch, processes of ours")
    parser.add_argument(
        "--network", choices=("full", "tiny", "resnet18", "tiny_resnet"), default="full"
    )
    parser.add_argument(
        "--rounds", type=int, default=7, help="times that each candidate runs, in turn"
    )
    parser.add_argument(
        "--variants", default=",".join(VARIANTS), help="of PyTorch: step, multi, best, compiled"
    )
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
            sizes = f"{own:.0f} MB", f"{name}: {peer:.0f} MB", f"{own / peer:.2f}"
            print(timing.row("the same, peak memory over the imports", *sizes), flush=True)


def make_step(width, batch, steps, classes=101, seed=0, network="full"):
    """A function that runs one training step of ours on random data and returns its loss.

    It runs in two processes, unless OPENBLAS_NUM_THREADS or OMP_NUM_THREADS is 1 or there is
    only one core.
    """
    from ckd_ref.batches import Batch
    from ckd_ref.run import parallel

    run, net, config, group = _student(width, batch, steps, classes, seed, network)
    data = Batch(*random_data(batch, steps, classes, seed))

    def step():
        step.number += 1
        row = parallel.train_step(group, net, run, data, config, config.rate, 1.0, step.number)
        return row["loss"]

    step.number = 0
    return step


def make_evaluation(width, batch, steps, classes=101, seed=0, network="full"):
    """A function that classifies the event frames of random data; otherwise as `make_step`."""
    from ckd_ref.run import parallel

    run, net, _, group = _student(width, batch, steps, classes, seed, network)
    events = random_data(batch, steps, classes, seed)[1]
    return lambda: parallel.classify(group, net, run, events)


def peer_step(variant, width, batch, steps, network, classes=101, seed=0):
    import peers

    data = random_data(batch, steps, classes, seed)
    return peers.make_step(make_peer(variant, network, width, classes), *data)


def peer_evaluation(variant, width, batch, steps, network, classes=101, seed=0):
    import peers

    events = random_data(batch, steps, classes, seed)[1]
    return peers.make_evaluation(make_peer(variant, network, width, classes), events)


def make_peer(variant, network, width, classes, size=48):
    """The student of `peers` that is the same network as ours of this name."""
    import peers
    import torch

    from ckd_ref.models import LAYERS, STAGES

    torch.manual_seed(0)
    if network in LAYERS:
        channels = [int(channels * width) for channels in (64, 128, 256, 512)]
        return peers.ResidualStudent(variant, LAYERS[network], channels, classes)
    stages = [[int(channels * width) for channels in stage] for stage in STAGES[network]]
    return peers.Student(variant, stages, classes, size)


def random_data(batch, steps, classes, seed):
    """Static frames, event frames (T, B, 48, 48, 2), labels and teacher logits."""
    import numpy as np

    rng = np.random.default_rng(seed)
    shape = steps, batch, 48, 48, 2
    value = rng.random((1, batch, 48, 48, 1), np.float32)
    static = np.ascontiguousarray(np.broadcast_to(value, shape))
    active = rng.random(shape, np.float32) < 0.1
    events = np.where(active, rng.integers(1, 4, shape), 0).astype(np.float32)
    labels = rng.integers(classes, size=batch)
    logits = rng.normal(size=(batch, classes)).astype(np.float32)
    return static, events, labels, logits


def _student(width, batch, steps, classes, seed, network):
    from ckd_ref.config import Config
    from ckd_ref.run.process_group import ProcessGroup, prepare_process
    from ckd_ref.training import TrainState

    config = Config(network=network, width=width, T=steps, batch=batch, rate=1e-3)
    net = config.model(classes)
    asked = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    processes = min(2, int(asked or os.cpu_count()))
    prepare_process()
    group = ProcessGroup(processes).__enter__()  # its helpers end with this process
    return TrainState.start(net, seed), net, config, group


if __name__ == "__main__":
    main()
