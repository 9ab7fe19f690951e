"""Fig. 3: the features of trained students in two dimensions, and numbers about the features."""

import os
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.spatial.distance import cdist

from ..data.paired import PairedData
from ..events import FormatError
from ..training import TrainState
from . import plots

NEIGHBOURS, PERPLEXITY, SEED = 5, 30, 0
"""k of `neighbour_accuracy`; of t-SNE, the same for every student."""


def mean_features(net: Any, run: TrainState, frames: ndarray, batch: int = 20) -> ndarray:
    """The features of Eq. (5) of recordings in evaluation, averaged over time.

    Assumption: the paper does not say which features its Fig. 3 shows. These are what the heads
    are given, of `VGGSNN` before the last pooling, averaged over time as the logits are.
    Test: `test_features_are_those_of_eq05_averaged_over_time`.

    Parameters
    ----------
    net, run, frames, batch
        See `training.classify`.

    Returns
    -------
    features : (R, D) array of floats
    """
    parts = []
    for i in range(0, frames.shape[1], batch):
        _, features, _ = net.apply(run.params, frames[:, i:i + batch], "event", run.state)
        mean = features.mean(axis=0)                           # (B, h, w, C), or (B, D)
        parts.append(mean.reshape(len(mean), -1))
    return np.concatenate(parts)


def neighbour_accuracy(features: ndarray, labels: ndarray, k: int = NEIGHBOURS) -> float:
    """Share of samples whose class most of their k nearest neighbours have, leave-one-out.

    Parameters
    ----------
    features : (R, D) array of floats
        Compared by their Euclidean distance.
    labels : (R,) array of int
        If several classes have the most neighbours, the first of them counts.
    k : int

    Returns
    -------
    accuracy : float
    """
    distances = cdist(features, features)                      # (R, R)
    np.fill_diagonal(distances, np.inf)                        # nobody is their own neighbour
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]          # (R, k)
    voted = [np.argmax(np.bincount(votes)) for votes in labels[nearest]]
    return float(np.mean(voted == labels))


def tsne(path: str | os.PathLike, data: PairedData, students: list[tuple]) -> str:
    """Draw the features of trained students on the test recordings by t-SNE, one panel for each.

    What t-SNE (van der Maaten & Hinton, 2008) makes of distances depends on its settings, so two
    numbers stand beside it that are computed on the features themselves: the silhouette
    (Rousseeuw, 1987; 1 for compact classes far apart, 0 for none) and `neighbour_accuracy`.

    Parameters
    ----------
    path : path of the picture
    data : PairedData
    students : list of (name, net, run, config)

    Returns
    -------
    table : str, Markdown

    Raises
    ------
    FormatError
        scikit-learn is missing, there are too few recordings, or they have the same features.
    """
    try:
        from sklearn.manifold import TSNE
        from sklearn.metrics import silhouette_score
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        raise FormatError(
            't-SNE is computed by the package scikit-learn; pip install "ckd_ref[tsne]"'
        ) from None
    test = data.recordings_in("test")
    labels = data.event_label[test]
    classes = len(np.unique(labels))
    if len(test) <= NEIGHBOURS or not 2 <= classes < len(test):
        raise FormatError(
            f"{data.path}: expected more than {NEIGHBOURS} test recordings of two classes or "
            f"more, two of a class at least, got {len(test)} of {classes} classes"
        )
    perplexity = min(PERPLEXITY, (len(test) - 1) / 3)
    panels, lines = [], [
        f"| student | silhouette | {NEIGHBOURS}-nearest-neighbour accuracy |", "|---|---|---|",
    ]
    for name, net, run, config in students:
        features = mean_features(net, run, data.frames(test, config.T, config.size))
        if not np.ptp(features, axis=0).any():                 # t-SNE would end in a crash
            raise FormatError(
                f"{name}: expected features that differ between recordings, got the same of all, "
                "as of a network whose neurons are silent"
            )
        silhouette = silhouette_score(features, labels)
        accuracy = neighbour_accuracy(features, labels)
        lines.append(f"| {name} | {silhouette:.3f} | {accuracy:.1%} |")
        title = f"{name}\nsilhouette {silhouette:.3f}, {NEIGHBOURS}-NN accuracy {accuracy:.1%}"
        with threadpool_limits(1):                             # several would add in any order
            places = TSNE(perplexity=perplexity, random_state=SEED).fit_transform(features)
        panels.append((title, places))                         # (R, 2)
    caption = (
        f"t-SNE of the features of {len(test)} test recordings, perplexity {perplexity:.3g}, "
        f"seed {SEED}; the numbers are of the features, not of their t-SNE"
    )
    plots.embeddings(path, panels, labels, data.classes, caption)
    return "\n".join(lines)
