"""Fig. 3: the features, the numbers beside their t-SNE by hand, and the command."""

import sys
import types

import numpy as np
import pytest
from conftest import relative_error
from small import SMALL

from ckd_ref.__main__ import main
from ckd_ref.config import Config
from ckd_ref.data.paired import open_paired
from ckd_ref.events import FormatError
from ckd_ref.run.checkpoint import save_checkpoint
from ckd_ref.run.tsne import PERPLEXITY, mean_features, neighbour_accuracy, tsne
from ckd_ref.training import TrainState

# Features and numbers


@pytest.mark.parametrize("network, D", [("tiny", 2 * 2 * 32), ("tiny_resnet", 32)])
def test_features_are_those_of_eq05_averaged_over_time(rng, network, D):
    """Of every recording by itself, in evaluation: 2 x 2 pixels of 32 channels, or 32 means."""
    net = Config(network=network, **SMALL).model(3)
    run = TrainState.start(net, 0)
    run.state = {name: rng.uniform(0.1, 0.3, len(s)) for name, s in run.state.items()}
    frames = rng.poisson(0.7, (2, 5, 16, 16, 2)).astype(float)
    features = mean_features(net, run, frames, batch=2)
    assert features.shape == (5, D)
    for r in range(5):
        _, (at_0, at_1), _ = net.apply(run.params, frames[:, [r]], "event", run.state)
        expected = (at_0 + at_1).ravel() / 2
        assert expected.any() and relative_error(features[r], expected) < 1e-6


POINTS = np.array([[0.0, 0.0], [1, 0], [10, 0], [12, 0]])
"""On a line: the neighbours of each, nearest first, are 1 2 3, 0 2 3, 3 1 0 and 2 1 0."""


@pytest.mark.parametrize("labels, k, right", [
    ([0, 0, 1, 1], 1, [1, 1, 1, 1]),
    ([0, 1, 1, 1], 1, [0, 0, 1, 1]),
    ([0, 1, 1, 1], 3, [0, 1, 1, 1]),
    ([0, 1, 0, 1], 1, [0, 0, 0, 0]),                           # nobody votes for themselves
    ([1, 0, 0, 1], 2, [0, 1, 1, 0]),                           # 0 0, 1 0, 1 0, 0 0: 0 before 1
])
def test_nearest_neighbours_of_four_points(labels, k, right):
    came = neighbour_accuracy(POINTS, np.array(labels), k)
    assert came == np.mean(right), "the k nearest of the other points vote, ties to the first class"


def test_nearest_is_by_straight_lines():
    """Along the axes, 3 + 3 would be farther than 5."""
    points = np.array([[0.0, 0.0], [3, 3], [5, 0], [5, -9]])
    right = [1, 0, 0, 0]                                       # their nearest are 1, 2, 1 and 2
    assert neighbour_accuracy(points, np.array([0, 0, 1, 0]), 1) == np.mean(right)


def test_nearest_neighbours_one_after_the_other(rng):
    features, labels = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    features[:, 0] += 2 * labels
    right = []
    for r in range(30):
        others = sorted((j for j in range(30) if j != r),
                        key=lambda j: np.sum((features[j] - features[r]) ** 2))
        votes = [list(labels[others[:5]]).count(k) for k in range(3)]
        right.append(votes.index(max(votes)) == labels[r])
    assert 0.4 < np.mean(right) < 1, "the oracle does not tell right from wrong"
    assert neighbour_accuracy(features, labels) == np.mean(right)


def test_silhouette_of_four_points():
    """scikit-learn's, by hand: the mean of 1 - (own class) / (other class), of mean distances."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    by_hand = np.mean([1 - 1 / 11, 1 - 1 / 10, 1 - 2 / 9.5, 1 - 2 / 11.5])
    assert metrics.silhouette_score(POINTS, [0, 0, 1, 1]) == pytest.approx(by_hand, rel=1e-12)


# The command

@pytest.fixture
def stand_in(monkeypatch):
    """In place of scikit-learn: its embedding are the first two features. What it was given."""
    given = {"TSNE": [], "silhouette": []}

    class TSNE:
        def __init__(self, **settings):
            given["settings"] = settings

        def fit_transform(self, features):
            given["TSNE"].append(features)
            return features[:, :2]

    def silhouette_score(features, labels):
        given["silhouette"].append(features)
        return 0.1234

    class threadpool_limits:
        def __init__(self, threads):
            given["threads"] = threads

        __enter__ = __exit__ = lambda *_: None

    for name, things in {
        "sklearn": {}, "sklearn.manifold": {"TSNE": TSNE},
        "sklearn.metrics": {"silhouette_score": silhouette_score},
        "threadpoolctl": {"threadpool_limits": threadpool_limits},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(things)
        monkeypatch.setitem(sys.modules, name, module)
    return given


def student(folder, classes, seed=0, **changes):
    """A checkpoint of a network that has learned nothing."""
    config = Config(method="snn", seed=seed, **SMALL | {"v_th": 0.01} | changes)
    folder.mkdir()
    run = TrainState.start(config.model(len(classes)), seed)
    save_checkpoint(folder / "checkpoint.h5", run, config, classes)
    return str(folder)


def test_one_panel_and_one_row_for_each_run(glyph_file, glyph_data, stand_in, tmp_path, capsys):
    """The numbers are those of the features, of which t-SNE gets the same."""
    runs = [student(tmp_path / name, glyph_data.classes) for name in ("a", "b")]
    picture = tmp_path / "t.png"
    runs[1] += "/checkpoint.h5"                                # its folder or itself
    assert main(["tsne", str(glyph_file), *runs, "--out", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| student | silhouette | 5-nearest-neighbour accuracy |"
    assert [line[:13] for line in lines[2:4]] == [f"| {name} | 0.123 |" for name in "ab"]
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in lines[4]
    assert [f.shape for f in stand_in["TSNE"]] == 2 * [(24, 2 * 2 * 32)]
    for embedded, measured in zip(stand_in["TSNE"], stand_in["silhouette"]):
        assert embedded is measured, "the silhouette is one of the features"
    assert stand_in["settings"] == {"perplexity": 23 / 3, "random_state": 0}
    assert PERPLEXITY == 30, "what scikit-learn has by default; fewer recordings allow less"
    assert stand_in["threads"] == 1, "several threads give another picture every time"


def test_without_scikit_learn_one_line_says_so(
    glyph_file, glyph_data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "sklearn", None)          # its import fails
    monkeypatch.delitem(sys.modules, "sklearn.manifold", raising=False)
    run = student(tmp_path / "a", glyph_data.classes)
    assert main(["tsne", str(glyph_file), run, "--out", str(tmp_path / "t.png")]) == 2
    error = capsys.readouterr().err
    assert 'pip install "ckd_ref[tsne]"' in error and error.count("\n") == 1
    assert not (tmp_path / "t.png").exists()


def test_what_cannot_be_drawn_ends_in_one_line(glyph_file, tmp_path, capsys, stand_in):
    a = student(tmp_path / "a", ("x", "y"))
    b = student(tmp_path / "b", ("x", "y"), seed=1)
    for words, match in (
        ([str(glyph_file), a], "was trained on (x, y), got those of"),
        ([str(glyph_file), a, "--out", "t.jpg"], "ends in .png"),
        ([str(glyph_file), str(tmp_path)], "checkpoint.h5"),
        (["digits", a, b], "one seed and size"),
    ):
        assert main(["tsne", *words]) == 2
        error = capsys.readouterr().err
        assert match in error and error.count("\n") == 1, error


def test_features_that_are_all_the_same_are_refused(glyph_file, stand_in, tmp_path, capsys):
    """Those of neurons that never fire: scikit-learn's t-SNE would crash."""
    with open_paired(glyph_file) as data:
        run = student(tmp_path / "silent", data.classes, v_th=1e6)
    assert main(["tsne", str(glyph_file), run, "--out", str(tmp_path / "t.png")]) == 2
    assert "silent: expected features that differ between recordings" in capsys.readouterr().err


def test_too_few_recordings_are_refused(glyph_file, stand_in, tmp_path, monkeypatch):
    with open_paired(glyph_file) as data:
        monkeypatch.setattr(data, "recordings_in", lambda split: np.arange(5))
        with pytest.raises(FormatError, match="more than 5 test recordings"):
            tsne(tmp_path / "t.png", data, [])
        one_of_each = np.unique(data.event_label, return_index=True)[1]
        monkeypatch.setattr(data, "recordings_in", lambda split: one_of_each)
        with pytest.raises(FormatError, match="two of a class at least, got 12 of 12 classes"):
            tsne(tmp_path / "t.png", data, [])
