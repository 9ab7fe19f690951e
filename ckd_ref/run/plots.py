"""The pictures that a run leaves behind."""

import numpy as np

from ..color import value_frames
from ..data.files import atomic_write
from ..data.info import class_title
from ..events import resize_frames

STYLES = {
    "events": {"color": "0.65", "ls": "-"},
    "static": {"color": "tab:green", "ls": ":"},
    "transfer": {"color": "tab:blue", "ls": "--"},
    "ckd": {"color": "darkred", "ls": "-"},
    "published": {"color": "tab:orange", "ls": "-."},
    "nda": {"color": "tab:purple", "ls": ":"},
    "eventmix": {"color": "tab:pink", "ls": "-."},
    "tks": {"color": "tab:olive", "ls": "--"},
    "etc": {"color": "tab:cyan", "ls": "-"},
}
STYLES["snn"] = STYLES["tet"] = STYLES["events"]
"""Of the variants' curves, to be told apart without colours as well."""

PANELS = {
    "accuracy_test": "test accuracy",
    "cls_e": "event loss",
    "cls_s": "static loss",
    "da": "alignment loss (Eq. 6)",
    "kd": "distillation loss (Eq. 9)",
}
"""Columns of a log and the titles of their curves."""

SCHEDULES = {
    "replacement": ("P, Eq. (8)", {"color": "0.5", "ls": "--"}),
    "gamma": ("gamma, Eq. (10)", {"color": "black", "marker": ".", "lw": 1}),
}
"""Columns of a log that do not depend on what is learned."""

SHEET_ROWS, SHEET_CLASSES = 26, 104
"""Rows of a block, and the most classes of a contact sheet: four blocks fit on a screen."""


def learning_curves(path, histories):
    """Draw accuracy and the parts of the loss against the epoch, one line per run, as PNG.

    Parameters
    ----------
    path : path of the picture
    histories : dict of str to list of lists of dicts
        For every method the histories of its runs, see `TrainState`.
    """
    figure = _figure((11, 6))
    axes = figure.subplots(2, 3, sharex=True)
    for axis, (key, title) in zip(axes.flat, PANELS.items()):
        for method, runs in histories.items():
            label = method
            for history in runs:
                rows = [row for row in history if key in row]
                if rows:
                    epochs = [row["epoch"] + 1 for row in rows]
                    values = [row[key] for row in rows]
                    axis.plot(epochs, values, lw=1.3, label=label, **STYLES[method])
                    label = None                               # one legend entry per method
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    last = axes.flat[-1]
    last.set_visible("ckd" in histories)
    for history in histories.get("ckd", [])[:1]:
        epochs = [row["epoch"] + 1 for row in history]
        for key, (label, style) in SCHEDULES.items():
            last.plot(epochs, [row[key] for row in history], label=label, **style)
        last.legend(fontsize=8)
    last.set_title("schedules of ckd", fontsize=10)
    last.grid(alpha=0.3)
    last.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    axes.flat[0].legend(fontsize=8)
    _save(figure, path)


def differences(path, found):
    """Draw differences in accuracy, one row each: every seed, mean and 95 % interval, as PNG.

    Parameters
    ----------
    path : path of the picture
    found : list of (label, values, mean, half-width of the interval)
    """
    figure = _figure((8, 0.32 * len(found) + 0.9))
    axis = figure.subplots()
    for row, (_, values, mean, half) in enumerate(found):
        points = 100 * np.array(values)
        axis.plot(points, np.full(len(points), row), "o", ms=3, color="tab:gray", alpha=0.5)
        axis.errorbar(
            100 * mean, row, xerr=100 * half, fmt="D", ms=5, capsize=4, color="tab:red"
        )
    axis.axvline(0, color="black", lw=0.8)
    axis.set_yticks(range(len(found)), [label for label, *_ in found], parse_math=False)
    axis.set_ylim(max(len(found), 1) - 0.5, -0.5)
    axis.set_xlabel("difference in final accuracy, points")
    axis.grid(alpha=0.3, axis="x")
    _save(figure, path)


def regimes(path, found):
    """Draw the map of regimes, as PNG: a panel per width and number of updates.

    Parameters
    ----------
    path : path of the picture
    found : list of (data, (width, updates, static images per class), {label: (mean, half-width)})
    """
    panels = list(dict.fromkeys((data, *cell[:2]) for data, cell, _ in found))
    figure = _figure((2.6 * len(panels) + 0.8, 3.4))
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels):
        data, width, updates = panel
        inside = [(cell[2], steps) for name, cell, steps in found if (name, *cell[:2]) == panel]
        for number, label in enumerate(inside[0][1]):
            images = np.array([static for static, _ in inside])
            mean, half = 100 * np.array([steps[label] for _, steps in inside]).T
            axis.errorbar(
                images * (0.96 + 0.08 * number), mean, yerr=half, capsize=3, label=label,
                fmt=("s--", "o-")[number], color=("tab:gray", "tab:red")[number],
            )
        axis.axhline(0, color="black", lw=0.8)
        axis.set_xscale("log")
        ticks = sorted({cell[2] for _, cell, _ in found})
        axis.set_xticks(ticks, ticks)
        axis.minorticks_off()
        title = f"{data}, width {width:g}\n{updates} updates"
        axis.set_title(title, fontsize=10, parse_math=False)
        axis.set_xlabel("images per class")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("difference in final accuracy, points")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=9)
    _save(figure, path)


def embeddings(path, panels, labels, classes, caption):
    """Draw samples as points of the plane, coloured by class, one panel per student, as PNG.

    Parameters
    ----------
    path : path of the picture
    panels : list of (title, (R, 2) array)
    labels : (R,) array of int
    classes : sequence of str
        Named in a legend if there are at most 20.
    caption : str
    """
    from matplotlib import colormaps

    K = len(classes)
    colours = colormaps["tab10" if K <= 10 else "nipy_spectral"].resampled(K)
    figure = _figure((2.8 * len(panels) + 0.8, 3.4))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, places) in zip(axes, panels):
        for k in range(K):
            axis.plot(*places[labels == k].T, ".", ms=4, color=colours(k))
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=9, parse_math=False)
    if K <= 20:
        names = map(class_title, classes)
        legend = figure.legend(
            axes[0].lines, names, loc="outside right center", fontsize=8, markerscale=2
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    figure.supxlabel(caption, fontsize=8)
    _save(figure, path)


def samples(path, data, T=6, size=48, rows=3):
    """Draw pairs as the methods see them, as PNG: image, V, frames, and the events in 3D.

    What is missing is grey, or left out in 3D.

    Parameters
    ----------
    path : path of the picture
    data : PairedData
    T, size : int
        See `Config`.
    rows : int
        Number of classes shown.
    """
    rows = min(rows, len(data.classes))
    figure = _figure((1.35 * (T + 4), 1.3 * rows))
    grid = figure.add_gridspec(rows, T + 4)
    for row in range(rows):
        image, recording = _example(data, row)
        tiles = _tiles(data, image, recording, T, size)
        for column, (title, tile) in enumerate(zip(_titles(T), tiles)):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(tile)
            axis.set(xticks=[], yticks=[], title=title if row == 0 else "")
            if column == 0:
                axis.set_ylabel(class_title(data.classes[row]), parse_math=False)
        if recording is None:
            continue
        events = data.recording(recording)
        events = events[:: max(1, len(events) // 2500)]
        axis = figure.add_subplot(grid[row, T + 2:], projection="3d")
        t, x, y = events["t"] / 1000, events["x"], -events["y"].astype(int)
        colours = np.where(events["p"], "tab:red", "tab:blue")
        axis.scatter(t, x, y, s=0.4, alpha=0.6, c=colours)
        title = "events" if row == 0 else ""
        axis.set(xticklabels=[], yticklabels=[], zticklabels=[], title=title)
        axis.set_box_aspect((2, 1, 1), zoom=1.4)
    _save(figure, path)


def contact_sheet(path, data, T=6, size=48):
    """Draw one pair of every class as PNG, one row per class: image, V and frames of events.

    What is missing is grey. Up to `SHEET_ROWS` classes stand below each other, more in blocks side
    by side; of more than `SHEET_CLASSES` some are chosen, spread evenly.

    Parameters
    ----------
    path : path of the picture
    data : PairedData
    T, size : int
        See `Config`.
    """
    K = len(data.classes)
    shown = np.unique(np.linspace(0, K - 1, min(K, SHEET_CLASSES)).round().astype(int))
    blocks = np.array_split(shown, -(-len(shown) // SHEET_ROWS))
    rows = len(blocks[0])
    pitch = size + 2                                           # tiles are 2 pixels apart
    figure = _figure(((0.55 * (T + 2) + 1) * len(blocks), 0.55 * rows + 0.4))
    axes = figure.subplots(1, len(blocks), squeeze=False)
    for axis, labels in zip(axes.flat, blocks):
        mosaic = np.ones((rows * pitch, (T + 2) * pitch, 3))
        mosaic[:len(labels) * pitch] = 0.8
        for row, label in enumerate(labels):
            for column, tile in enumerate(_tiles(data, *_example(data, label), T, size)):
                mosaic[row * pitch:, column * pitch:][:size, :size] = tile
        axis.imshow(mosaic, interpolation="nearest")
        axis.set_xticks(np.arange(T + 2) * pitch + size / 2, _titles(T))
        names = [class_title(data.classes[k]) for k in labels]
        axis.set_yticks(np.arange(len(labels)) * pitch + size / 2, names, parse_math=False)
        axis.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
        axis.spines[:].set_visible(False)
    _save(figure, path)


def _example(data, label):
    """An image of a class and the recording that filmed it, if possible one to train on.

    None for what is missing.
    """
    recordings = np.flatnonzero(data.event_label == label)
    if len(recordings):
        return _filmed(data, recordings[np.argmin(data.event_split[recordings])])
    return next(iter(np.flatnonzero(data.image_label == label)), None), None


def _filmed(data, recording):
    """The image that a recording filmed, None if the file does not have it, and the recording."""
    images = np.flatnonzero(data.image_identity == data.event_identity[recording])
    return next(iter(images), None), recording


def _tiles(data, image, recording, T, size):
    """Image, V and frames of a pair, grey for None: (T + 2, size, size, 3) RGB in [0, 1]."""
    tiles = np.full((T + 2, size, size, 3), 0.9)
    if image is not None:
        pixels = data.images([image])
        tiles[0] = resize_frames(pixels, size)[0]
        tiles[1] = resize_frames(value_frames(pixels, 1), size)[0, 0, ..., :1]
    if recording is not None:
        frames = data.frames([recording], T, size)[:, 0]       # (T, size, size, 2)
        tiles[2:] = _two_colours(frames / max(np.quantile(frames, 0.995), 1))
    return np.clip(tiles, 0, 1)


def _titles(T):
    return ["image", "V", *(f"t = {t}" for t in range(T))]


def _save(figure, path):
    with atomic_write(path) as temporary:
        # "tight", or long class names would be cut off.
        figure.savefig(temporary, dpi=110, format="png", bbox_inches="tight")


def _two_colours(frames):
    """(..., 2) counts in [0, 1] as RGB on white: ON red, OFF blue."""
    off, on = frames[..., 0], frames[..., 1]
    return np.stack([1 - off, 1 - (on + off) * 0.8, 1 - on], axis=-1)


def _figure(size):
    """A figure of its own: the caller's matplotlib backend stays as it is."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
