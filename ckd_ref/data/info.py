"""Summary of a file of paired data, in numbers and as text."""

import numpy as np

from .errors import printable
from .paired import EVENT_SPLITS, IMAGE_SPLITS

MOST_RECORDINGS = 1000
"""At most this many recordings are read in full: close medians in seconds instead of minutes."""

FEW_CLASSES = 30
"""Up to this many classes get a line each."""


def count_samples(data):
    """Samples of each class in each pool.

    Parameters
    ----------
    data : data.PairedData

    Returns
    -------
    counts : (K, 5) int64
        Images in the pools of IMAGE_SPLITS, then recordings in those of EVENT_SPLITS.
    """
    pools = [(data.image_label, data.images_in(split)) for split in IMAGE_SPLITS]
    pools += [(data.event_label, data.recordings_in(split)) for split in EVENT_SPLITS]
    return np.stack(
        [np.bincount(label[pool], minlength=len(data.classes)) for label, pool in pools], axis=-1
    )


def count_leaks(data):
    """Number of identities in the test pools, and of those that are in another pool as well."""
    image_is_test = data.image_split == IMAGE_SPLITS.index("test")
    event_is_test = data.event_split == EVENT_SPLITS.index("test")
    test = np.union1d(data.image_identity[image_is_test], data.event_identity[event_is_test])
    other = np.union1d(data.image_identity[~image_is_test], data.event_identity[~event_is_test])
    return len(test), len(np.intersect1d(test, other, assume_unique=True))


def measure_recordings(data, most=MOST_RECORDINGS):
    """Statistics of the recordings; events are read one recording at a time.

    Parameters
    ----------
    data : data.PairedData
    most : int
        Number of recordings, at least 1 and spread evenly over the file, that are read in full.

    Returns
    -------
    figures : dict of str to array of floats
        For all R recordings ``duration``, from the first to the last event, milliseconds;
        ``events``, their number; ``rate``, events per millisecond, if the duration is not 0.
        For those read in full ``on``, the share of ON events, and ``active``, the share of
        pixels with an event, in [0, 1].
    """
    R, (H, W) = len(data.event_label), data.sensor_size
    duration = data.durations() / 1000
    lasting = duration > 0
    on, active = [], []
    for i in np.unique(np.linspace(0, R - 1, min(R, most)).astype(np.int64)):
        events = data.recording(i)
        on.append(events["p"].mean())
        active.append(len(np.unique(events["y"] * np.int64(W) + events["x"])) / (H * W))
    return {
        "duration": duration,
        "events": data.event_count.astype(float),
        "rate": data.event_count[lasting] / duration[lasting],
        "on": np.array(on),
        "active": np.array(active),
    }


def describe(data, figures):
    """The text that ``python -m ckd_ref info`` prints.

    Parameters
    ----------
    data : data.PairedData
    figures : dict
        See `measure_recordings`.

    Returns
    -------
    text : str, several lines
    """
    H, W = data.sensor_size
    S = data.image_size
    title = (
        f"{printable(data.path.name)}: {len(data.classes)} classes, sensor {H} x {W}, "
        f"images {S} x {S} (rows x columns)"
    )
    lines = [title, "", *_count_lines(data), ""]
    if len(data.event_label):
        lines += [*_figure_lines(figures), ""]
    tested, leaks = count_leaks(data)
    if leaks:
        verdict = (
            f"The splits leak: {leaks} of {tested} identities in the test pools are in another "
            "pool as well"
        )
    else:
        verdict = (
            f"The splits are disjoint: no identity of the {tested} in the test pools is in another"
        )
    marked = " (the file is marked as leaky)" if data.leaky else ""
    lines.append(f"{verdict}{marked}.")
    return "\n".join(lines)


def _count_lines(data):
    counts = count_samples(data)
    rows = [("all", counts.sum(0))]
    if len(data.classes) <= FEW_CLASSES:
        rows = [*zip(map(class_title, data.classes), counts), *rows]
    else:
        rows += [("fewest of a class", counts.min(0)), ("most of a class", counts.max(0))]
    width = max(len(name) for name, _ in rows)
    yield f"{'':{width}}{'images':^32}{'recordings':^20}".rstrip()
    yield f"{'':{width}}" + "".join(f"{split:>10}" for split in (*IMAGE_SPLITS, *EVENT_SPLITS))
    for name, row in rows:
        yield f"{name:{width}}" + "".join(f"{n:>10,}" for n in row)


def _figure_lines(figures):
    yield f"{'recordings':<20}{'median':>10}{'5 - 95 %':>22}{'range':>22}"
    for key, title, pattern in (
        ("duration", "duration, ms", ",.1f"),
        ("events", "events", ",.0f"),
        ("rate", "events per ms", ",.2f"),
        ("on", "ON events", ".1%"),
        ("active", "active pixels", ".1%"),
    ):
        if len(figures[key]):
            percentiles = np.percentile(figures[key], (50, 5, 95, 0, 100))
            middle, low, high, least, most = (format(x, pattern) for x in percentiles)
            yield f"{title:<20}{middle:>10}{f'{low} - {high}':>22}{f'{least} - {most}':>22}"
    read, R = len(figures["on"]), len(figures["events"])
    if read < R:
        yield f"The last two are of {read} recordings, spread evenly over all {R:,}."


def class_title(name):
    """A class name for tables and pictures, at most 24 characters."""
    return printable(name[:24])
