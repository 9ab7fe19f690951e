"""The pictures that a run leaves behind."""

import numpy as np

from .color import value_frames
from .files import written_whole

COLOURS = {"snn": "tab:gray", "transfer": "tab:blue", "ckd": "tab:red"}


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
        image = data.images(np.flatnonzero(data.image_identity == data.event_identity[i])[:1])
        frames = data.frames([i], T, size)[:, 0]                                # (T, size, size, 2)
        limit = max(np.quantile(frames, 0.995), 1)
        tiles = [("image", image[0]), ("V", value_frames(image, 1)[0, 0, ..., 0])]
        tiles += [(f"t = {t + 1}", np.clip(_two_colours(frame / limit), 0, 1)) for t, frame in enumerate(frames)]
        for column, (title, tile) in enumerate(tiles):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(tile, cmap="gray", vmin=0, vmax=1)
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


def _save(figure, path):
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    _pyplot().close(figure)


def _two_colours(frame):
    """(H, W, 2) counts in [0, 1] on white: ON red, OFF blue."""
    off, on = frame[..., 0], frame[..., 1]
    return np.stack([1 - off, 1 - (on + off) * 0.8, 1 - on], axis=-1)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
