"""The pictures that a run leaves behind."""

import numpy as np

from ..color import value_frames
from ..events import resize_frames
from ..data.files import atomic_write
from ..data.info import printable

COLOURS = {"snn": "tab:gray", "transfer": "tab:blue", "ckd": "tab:red"}

SHEET_ROWS, SHEET_CLASSES = 26, 104
"""Rows of a block, and the most classes of a contact sheet: four blocks, which a screen can still show."""


def learning_curves(path, histories):
    """Draw accuracy and the parts of the loss against the epoch, one line per run, as PNG.

    Parameters
    ----------
    path : path of the picture
    histories : dict of str to list of lists of dicts
        For every method the histories of its runs (`runs.Run.history`).
    """
    plt = _pyplot()
    panels = (("accuracy_test", "test accuracy"), ("cls_e", "event loss"), ("cls_s", "static loss"),
              ("da", "alignment loss (Eq. 6)"), ("kd", "distillation loss (Eq. 9)"), ("replacement", "P, Eq. (8)"))
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), sharex=True, layout="constrained")
    for axis, (key, title) in zip(axes.flat, panels):
        for method, runs in histories.items():
            for k, history in enumerate(runs):
                rows = [row for row in history if key in row]
                axis.plot([row["epoch"] + 1 for row in rows], [row[key] for row in rows], lw=1.2, alpha=0.8,
                          color=COLOURS[method], label=method if k == 0 and rows else None)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    for history in histories.get("ckd", [])[:1]:
        axes.flat[-1].plot([row["epoch"] + 1 for row in history], [row["gamma"] for row in history], "k--", lw=1,
                           label="gamma, Eq. (10)")
    axes.flat[-1].set_title("P, Eq. (8), and gamma, Eq. (10)", fontsize=10)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    for axis in (axes.flat[0], axes.flat[-1]):
        axis.legend(fontsize=8)
    _save(figure, path)


def samples(path, data, T=6, size=48, rows=3):
    """Draw pairs as the methods see them, as PNG: image, V, frames of events, and the events in space and time.

    Parameters
    ----------
    path : path of the picture
    data : data.PairedData
    T, size : int
        See `runs.Config`.
    rows : int
        Number of classes shown.
    """
    plt = _pyplot()
    recordings = data.recordings_in("train")
    shown = [recordings[data.event_label[recordings] == label][0] for label in range(min(rows, len(data.classes)))]
    figure = plt.figure(figsize=(1.35 * (T + 4), 1.3 * len(shown)), layout="constrained")
    grid = figure.add_gridspec(len(shown), T + 4)
    for row, i in enumerate(shown):
        for column, (title, tile) in enumerate(zip(_titles(T), _tiles(data, *_filmed(data, i), T, size))):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(tile)
            axis.set(xticks=[], yticks=[], title=title if row == 0 else "")
            if column == 0:
                axis.set_ylabel(data.classes[data.event_label[i]])
        events = data.recording(i)
        events = events[:: max(1, len(events) // 2500)]
        axis = figure.add_subplot(grid[row, T + 2:], projection="3d")
        axis.scatter(events["t"] / 1000, events["x"], -events["y"].astype(int), s=0.4, alpha=0.6,
                     c=np.where(events["p"], "tab:red", "tab:blue"))
        axis.set(xticklabels=[], yticklabels=[], zticklabels=[], title="events" if row == 0 else "")
        axis.set_box_aspect((2, 1, 1), zoom=1.4)
    _save(figure, path)


def contact_sheet(path, data, T=6, size=48):
    """Draw one pair of every class as PNG, one row per class: image, V and frames of events; grey where there is none.

    Up to `SHEET_ROWS` classes stand below each other, more in blocks side by side; of more than `SHEET_CLASSES` some
    are chosen, spread evenly.

    Parameters
    ----------
    path : path of the picture
    data : data.PairedData
    T, size : int
        See `runs.Config`.
    """
    plt = _pyplot()
    K = len(data.classes)
    shown = np.unique(np.linspace(0, K - 1, min(K, SHEET_CLASSES)).round().astype(int))
    blocks = np.array_split(shown, -(-len(shown) // SHEET_ROWS))
    rows, pitch = len(blocks[0]), size + 2                                      # tiles are 2 pixels apart
    figure, axes = plt.subplots(1, len(blocks), squeeze=False, layout="constrained",
                                figsize=((0.55 * (T + 2) + 1) * len(blocks), 0.55 * rows + 0.4))
    for axis, labels in zip(axes.flat, blocks):
        mosaic = np.ones((rows * pitch, (T + 2) * pitch, 3))
        mosaic[:len(labels) * pitch] = 0.8
        for row, label in enumerate(labels):
            for column, tile in enumerate(_tiles(data, *_example(data, label), T, size)):
                mosaic[row * pitch:, column * pitch:][:size, :size] = tile
        axis.imshow(mosaic, interpolation="nearest")
        axis.set_xticks(np.arange(T + 2) * pitch + size / 2, _titles(T))
        axis.set_yticks(np.arange(len(labels)) * pitch + size / 2, [printable(data.classes[k]) for k in labels],
                        parse_math=False)
        axis.tick_params(length=0, labelsize=8, labeltop=True, labelbottom=False)
        axis.spines[:].set_visible(False)
    _save(figure, path)


def _example(data, label):
    """The first recording of a class, of the training ones if there is any, and its image; None for what is missing."""
    recordings = np.flatnonzero(data.event_label == label)
    if len(recordings):
        return _filmed(data, recordings[np.argmin(data.event_split[recordings])])
    return next(iter(np.flatnonzero(data.image_label == label)), None), None


def _filmed(data, recording):
    """The image that a recording filmed, None if the file does not have it, and the recording."""
    return next(iter(np.flatnonzero(data.image_identity == data.event_identity[recording])), None), recording


def _tiles(data, image, recording, T, size):
    """A pair as the methods see it: (T + 2, size, size, 3) RGB in [0, 1]: image, V and frames, grey for None."""
    tiles = np.full((T + 2, size, size, 3), 0.9)
    if image is not None:
        pixels = data.images([image])
        tiles[0] = resize_frames(pixels, size)[0]
        tiles[1] = resize_frames(value_frames(pixels, 1), size)[0, 0, ..., :1]
    if recording is not None:
        frames = data.frames([recording], T, size)[:, 0]                        # (T, size, size, 2)
        tiles[2:] = _two_colours(frames / max(np.quantile(frames, 0.995), 1))
    return np.clip(tiles, 0, 1)


def _titles(T):
    return ["image", "V", *(f"t = {t + 1}" for t in range(T))]


def _save(figure, path):
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png", bbox_inches="tight")    # or long class names would be cut
    _pyplot().close(figure)


def _two_colours(frames):
    """(..., 2) counts in [0, 1] as RGB on white: ON red, OFF blue."""
    off, on = frames[..., 0], frames[..., 1]
    return np.stack([1 - off, 1 - (on + off) * 0.8, 1 - on], axis=-1)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
