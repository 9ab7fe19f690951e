"""Events: binning against tonic, resizing against torch, filming against eventify-dvs, decoding."""

import argparse
import importlib.util
import pathlib
import tempfile
import tracemalloc

import timing

SENSOR = (180, 240)
"""Rows and columns of the sensor of N-Caltech101."""

T, BATCH, SIZE = 6, 16, 48


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=21, help="times that each candidate runs, in turn"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS and of torch")
    arguments = parser.parse_args()
    timing.set_threads(arguments.threads)

    import numpy as np

    rng = np.random.default_rng(0)
    print(timing.heading(("numpy", "torch", "tonic")))
    print(timing.HEADER)
    for measure in (binning, decoding, resizing, camera):
        for row in measure(rng, arguments.rounds):
            print(row, flush=True)


def binning(rng, rounds):
    import peers

    from ckd_ref import bin_events

    to_frame = peers.to_frame(SENSOR, T)
    for n in (100_000, 1_000_000, 5_000_000):
        events = random_events(rng, n)
        runs = {"ours": lambda: bin_events(events, T, SENSOR), "tonic": lambda: to_frame(events)}
        what = f"binning {n / 1e6:g} million events to {T} frames of {SENSOR[0]} x {SENSOR[1]}"
        yield timing.rows(what, timing.compare(runs, rounds))
        ours, peer = map(peak_megabytes, runs.values())
        yield timing.row(
            "the same, peak memory with the result",
            f"{ours:.2f} MB",
            f"tonic: {peer:.2f} MB",
            f"{ours / peer:.2f}",
        )


def decoding(rng, rounds):
    import numpy as np

    from ckd_ref.data.readers import read_bin

    events = random_events(rng, 5_000_000)
    packed = np.empty((len(events), 5), np.uint8)
    packed[:, 0], packed[:, 1] = events["x"], events["y"]
    packed[:, 2] = events["p"] << 7 | events["t"] >> 16
    packed[:, 3], packed[:, 4] = events["t"] >> 8 & 255, events["t"] & 255
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "recording.bin")
        packed.tofile(path)
        assert (read_bin(path, SENSOR) == events).all()
        seconds = timing.compare({"ours": lambda: read_bin(path, SENSOR)}, rounds)["ours"]
    rate = timing.spread([len(events) / s / 1e6 for s in seconds])
    what = "decoding and checking a .bin file of 5 million events"
    yield timing.row(what, f"{rate} million events/s")


def resizing(rng, rounds):
    import numpy as np
    import peers

    from ckd_ref import resize_frames

    for H, W in ((34, 34), (128, 128), SENSOR):
        frames = rng.random((T, BATCH, H, W, 2), np.float32)
        first, last = peers.planes_first(frames), peers.planes_last(frames)
        # (T B, SIZE, SIZE, 2)
        expected = peers.interpolate(first, SIZE).permute(0, 2, 3, 1).numpy()
        difference = resize_frames(frames, SIZE).reshape(expected.shape) - expected
        # torch computes sample positions in float32.
        assert np.abs(difference).max() < 1e-4, "not the same interpolation"
        runs = {
            "ours": lambda: resize_frames(frames, SIZE),
            "torch": lambda: peers.interpolate(first, SIZE),
            "torch, channels_last": lambda: peers.interpolate(last, SIZE),
        }
        what = f"resizing {T} x {BATCH} x 2 planes of {H} x {W} to {SIZE} x {SIZE}"
        yield timing.rows(what, timing.compare(runs, rounds))


def camera(rng, rounds):
    import numpy as np
    import peers
    from scipy import ndimage

    from ckd_ref import Camera, Saccades, record

    for square in (8, 20):
        greys = rng.random((SENSOR[0] // square + 1, SENSOR[1] // square))
        picture = np.kron(greys, np.ones((square, square)))
        picture = picture[:SENSOR[0]]                                                   # (180, 240)
        what = f"filming {SENSOR[0]} x {SENSOR[1]}, squares of {square} pixels"
        runs = {"ours": lambda: record(picture, SENSOR, np.random.default_rng(0))}
        sent = {"ours": len(runs["ours"]())}
        if importlib.util.find_spec("eventify"):
            # It discards changes below the threshold, so it gets a frame per 10 ms, not per 2 ms.
            times_us = range(0, Saccades().duration_us + 1, 10_000)
            grey = 255 * picture**Camera().gamma
            frames = [
                ndimage.shift(grey, (dy, dx), order=1, mode="nearest")
                for dx, dy in Saccades().displacement(times_us)
            ]
            runs["eventify-dvs"] = lambda: peers.film(frames, times_us, Camera().threshold)
            sent["eventify-dvs"] = sum(map(len, runs["eventify-dvs"]()))
        seconds = timing.compare(runs, rounds)
        rate = {name: [sent[name] / s / 1e6 for s in seconds[name]] for name in runs}
        text = {
            name: f"{timing.spread(rate[name])} million events/s ({sent[name] / 1000:.0f} thousand)"
            for name in runs
        }
        if "eventify-dvs" in runs:
            ratio = timing.spread(timing.ratios(rate["eventify-dvs"], rate["ours"]))
            peer = f"eventify-dvs: {text['eventify-dvs']}"
            yield timing.row(what, text["ours"], peer, ratio)
        else:
            yield timing.row(what, text["ours"], "eventify-dvs is not installed")


def random_events(rng, n):
    """n valid events, spread evenly over the sensor and over 0.3 s."""
    import numpy as np

    from ckd_ref import EVENT_DTYPE

    events = np.empty(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(300_000, size=n))
    events["y"] = rng.integers(SENSOR[0], size=n)
    events["x"] = rng.integers(SENSOR[1], size=n)
    events["p"] = rng.integers(2, size=n)
    return events


def peak_megabytes(run):
    """Peak memory allocated during a call, including its result."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


if __name__ == "__main__":
    main()
