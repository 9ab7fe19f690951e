"""The description of a data file: its numbers against slow oracles, its text, its picture."""

import pathlib
import statistics
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ckd_ref.__main__ import main
from ckd_ref.data import info
from ckd_ref.data import paired as data_module
from ckd_ref.data.errors import printable
from ckd_ref.data.paired import PairedWriter, open_paired
from ckd_ref.events import EVENT_DTYPE, FormatError
from ckd_ref.run import plots

SENSOR, S = (6, 9), 8
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255))
IMAGES = [
    (0, 10, "teacher"), (0, 11, "static"), (1, 12, "static"), (2, 13, "static"),
    (0, 20, "test"), (2, 21, "test"),
]
RECORDINGS = [(0, 11, "train"), (1, 12, "train"), (0, 20, "test"), (2, 21, "test")]
EVENTS = (
    [(0, 1, 1, 1), (1000, 2, 1, 0), (4000, 1, 1, 0)],  # (t, x, y, p): 4 ms, 2 pixels, 1 of 3 ON
    [(7, 8, 5, 1)],                                                     # lasts no time
    [(500, 0, 0, 1), (500, 0, 1, 1), (1500, 0, 2, 1), (2500, 0, 0, 0)],
    [(k * 10, k % 9, k % 6, k % 2) for k in range(200)],
)


def write(
    path,
    classes=("ant", "bee", "cat"),
    images=IMAGES,
    recordings=RECORDINGS,
    events=EVENTS,
    leaky=False,
):
    """Images of one colour per class, and the recordings given."""
    with PairedWriter(path, classes, SENSOR, S, leaky=leaky) as writer:
        for row in images:
            writer.add_image(np.full((S, S, 3), COLOURS[row[0] % 4], np.uint8), *row)
        for rows, row in zip(events, recordings):
            writer.add_recording(np.array(rows, EVENT_DTYPE), *row)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "small.h5")


# Numbers

def test_samples_are_counted_per_class_and_pool(path):
    with open_paired(path) as data:
        assert info.count_samples(data).tolist() == [
            [1, 1, 1, 1, 1],
            [0, 1, 0, 1, 0],
            [0, 1, 1, 0, 1],
        ]


def test_figures_of_recordings_by_hand_and_by_loop(path):
    with open_paired(path) as data:
        figures = info.measure_recordings(data)
    assert figures["duration"].tolist() == [4, 0, 2, 1.99]
    assert figures["events"].tolist() == [3, 1, 4, 200]
    assert figures["rate"] == pytest.approx([3 / 4, 4 / 2, 200 / 1.99])  # not of duration 0
    assert figures["on"] == pytest.approx([1 / 3, 1, 3 / 4, 1 / 2])
    assert figures["active"] == pytest.approx(
        [len({(x, y) for _, x, y, _ in rows}) / 54 for rows in EVENTS]
    )


def test_durations_across_chunks(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(data_module, "CHUNK_ELEMENTS", 16)
    lengths = [1, 15, 16, 1, 1, 40, 7, 33]
    recordings = [np.zeros(n, EVENT_DTYPE) for n in lengths]
    for events in recordings:
        events["t"] = np.sort(rng.integers(0, 10**6, len(events)))
    rows = [(0, k, "train") for k in range(len(lengths))]
    with open_paired(
        write(tmp_path / "a.h5", recordings=rows, events=recordings, images=[])
    ) as data:
        assert data.durations().tolist() == [int(e["t"][-1] - e["t"][0]) for e in recordings]
        assert data.event_count.tolist() == lengths


def test_durations_of_broken_times_are_refused(path):
    with h5py.File(path, "r+") as file:
        file["events/t"][2] = -1  # the last event of recording 0
    with (
        open_paired(path) as data,
        pytest.raises(FormatError, match="small.h5, recording 0: .*0 at its first and -1"),
    ):
        data.durations()


def test_at_most_so_many_recordings_are_read(path, monkeypatch):
    read = []
    recording = data_module.PairedData.recording
    monkeypatch.setattr(
        data_module.PairedData,
        "recording",
        lambda self, i: read.append(int(i)) or recording(self, i),
    )
    with open_paired(path) as data:
        figures = info.measure_recordings(data, most=2)
        assert read == [0, 3] and len(figures["on"]) == 2 and len(figures["duration"]) == 4
        assert "of 2 recordings, spread evenly over all 4" in info.describe(data, figures)


@pytest.mark.parametrize("more, leaky, tested, leaks, text", [
    ([], False, 2, 0, "disjoint: no identity of the 2 in the test pools is in another."),
    ([], True, 2, 0, "disjoint: no identity of the 2 in the test pools is in another "
        "(the file is marked as leaky)."),
    ([(0, 20, "teacher"), (0, 20, "static")], True, 2, 1, "leak: 1 of 2 identities"),
    ([(0, 20, "teacher"), (1, 12, "test"), (0, 30, "test")], True, 4, 2, "leak: 2 of 4 identities"),
])
def test_leaks_are_counted(tmp_path, more, leaky, tested, leaks, text):
    with open_paired(write(tmp_path / "a.h5", images=IMAGES + more, leaky=leaky)) as data:
        assert info.count_leaks(data) == (tested, leaks)
        last = info.describe(data, info.measure_recordings(data)).splitlines()[-1]
    assert text in last and ("marked as leaky" in last) == leaky


# Text

def test_text_has_a_line_per_class_and_the_figures(path, tmp_path, capsys):
    assert main(["info", str(path), "--out", str(tmp_path / "a.png")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert "3 classes, sensor 6 x 9, images 8 x 8" in " ".join(lines[0])
    assert ["ant", *"11111"] in lines and ["bee", *"01010"] in lines and ["all", *"13222"] in lines
    durations = [4, 0, 2, 1.99]
    low, high = np.quantile(durations, (0.05, 0.95))
    assert (
        f"duration, ms {statistics.median(durations):.1f} {low:.1f} - {high:.1f} 0.0 - 4.0".split()
        in lines
    )
    assert "ON events 62.5% 35.8% - 96.2% 33.3% - 100.0%".split() in lines


def test_many_classes_are_summed_up(tmp_path):
    names = [f"class {k}" for k in range(40)]
    rows = [(k, 10 * k + i, "static") for k in range(40) for i in range(1 + k % 3)]
    with open_paired(write(tmp_path / "a.h5", names, rows, [], [])) as data:
        lines = [
            line.split() for line in info.describe(data, info.measure_recordings(data)).splitlines()
        ]
    assert ["all", "0", "79", "0", "0", "0"] in lines
    assert "fewest of a class 0 1 0 0 0".split() in lines
    assert "most of a class 0 3 0 0 0".split() in lines
    assert len(lines) < 12 and not any("recordings" == line[0] for line in lines if line)


HOSTILE = "\x1b[2Jant\n", "x$\\frac$", "c" * 99
SHOWN = "?[2Jant?", "x$\\frac$", "c" * 24
"""Names that clear the screen, that are no formula, that are too long; and what becomes of them."""


@pytest.mark.parametrize("text, expected", [
    ("grand piano, café, 猫", "grand piano, café, 猫"), ("a\x1b[31mb\x9b2Jc", "a?[31mb?2Jc"),
    ("a\r\nb\tc\x00\x7f", "a??b?c??"), ("\u202egnp.tac\u2028", "?gnp.tac?"), ("\udcff", "?"),
    (pathlib.PurePosixPath("a/\x07"), "a/?"), (ValueError("bad\nname"), "bad?name"),
])
def test_text_cannot_command_the_terminal(text, expected):
    """Escape sequences, new lines, writing from right to left, bytes that are no UTF-8."""
    assert printable(text) == expected


def test_class_names_cannot_command_the_terminal(tmp_path):
    with open_paired(write(tmp_path / "a.h5", HOSTILE)) as data:
        data.path = pathlib.Path("a\x1b[2J.h5")
        text = info.describe(data, info.measure_recordings(data))
    assert text.startswith("a?[2J.h5: 3 classes")
    assert "?[2Jant?" in text and "\x1b" not in text and "c" * 24 in text
    assert "c" * 25 not in text


@pytest.fixture
def drawn(monkeypatch):
    """The texts of every picture that would be saved, and whether they are taken for formulas."""
    from matplotlib.text import Text

    texts = {}

    def save(figure, path):
        texts.update({text.get_text(): text.get_parse_math() for text in figure.findobj(Text)})

    monkeypatch.setattr(plots, "_save", save)
    return texts


def test_class_names_are_no_formulas_in_contact_sheets(tmp_path, drawn):
    with open_paired(write(tmp_path / "a.h5", HOSTILE)) as data:
        plots.contact_sheet(tmp_path / "a.png", data, T=1, size=8)
    assert [drawn[name] for name in SHOWN] == [False] * 3


def test_names_are_no_formulas_beside_a_t_sne(drawn):
    plots.embeddings("a.png", [("d$\\frac$", np.eye(3, 2))], np.arange(3), HOSTILE, "caption")
    assert [drawn[name] for name in ("d$\\frac$", *SHOWN)] == [False] * 4


def test_names_of_sweeps_are_no_formulas_in_pictures(drawn):
    plots.differences("a.png", [("a$\\frac$", [0.1, 0.2], 0.15, 0.05)])
    plots.regimes("b.png", [("b$\\frac$", (1.0, 9, 3), {"transfer": (0.1, 0.02)})])
    assert drawn["a$\\frac$"] is drawn["b$\\frac$, width 1\n9 updates"] is False


def test_samples_of_classes_without_training_recordings(tmp_path, monkeypatch, drawn):
    """The second class has an image alone, the third a recording for the test."""
    recordings = [(0, 11, "train"), (2, 21, "test")]
    pairs = []
    tiles = np.zeros((3, 8, 8, 3))
    monkeypatch.setattr(plots, "_tiles", lambda data, *pair: pairs.append(pair[:2]) or tiles)
    with open_paired(write(tmp_path / "a.h5", HOSTILE, recordings=recordings)) as data:
        plots.samples(tmp_path / "a.png", data, T=1, size=8)
    assert pairs == [(1, 0), (2, None), (5, 1)]
    assert [drawn[name] for name in SHOWN] == [False] * 3, "names are taken for formulas"


# Contact sheet

def runs_of_colour(path):
    """The pure colours of a picture's columns of images from top to bottom, column after column."""
    from PIL import Image

    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))
    blocks = []
    for column in pixels.transpose(1, 0, 2):                            # (height, 3)
        colours = [COLOURS.index(tuple(p)) for p in column.tolist() if tuple(p) in COLOURS]
        order = [c for i, c in enumerate(colours) if i == 0 or colours[i - 1] != c]
        if len(order) > 1 and (not blocks or blocks[-1] != order):
            blocks.append(order)
    return blocks


def test_time_steps_count_from_0_in_pictures():
    assert plots._titles(3) == ["image", "V", "t = 0", "t = 1", "t = 2"]


def test_sheet_has_one_row_per_class(path, tmp_path):
    with open_paired(path) as data:
        plots.contact_sheet(tmp_path / "a.png", data)
    assert runs_of_colour(tmp_path / "a.png") == [[0, 1, 2]]


@pytest.mark.parametrize("classes, rows", [(6, [6]), (14, [5, 5, 4]), (25, [6] * 4)])
def test_many_rows_stand_side_by_side(tmp_path, classes, rows, monkeypatch):
    monkeypatch.setattr(plots, "SHEET_ROWS", 6)
    monkeypatch.setattr(plots, "SHEET_CLASSES", 24)
    monkeypatch.setattr(plots, "_tiles", lambda data, image, recording, T, size:
                        np.broadcast_to(np.array(COLOURS[image % 4]) / 255, (T + 2, size, size, 3)))
    images = [(k, k, "static") for k in range(classes)]
    with open_paired(
        write(tmp_path / "a.h5", [f"c{k}" for k in range(classes)], images, [], [])
    ) as data:
        plots.contact_sheet(tmp_path / "a.png", data, T=1, size=8)
    shown = np.linspace(0, classes - 1, sum(rows)).round().astype(int) % 4
    expected = [block.tolist() for block in np.split(shown, np.cumsum(rows)[:-1])]
    collapsed = [
        [c for i, c in enumerate(block) if i == 0 or block[i - 1] != c] for block in expected
    ]
    assert runs_of_colour(tmp_path / "a.png") == collapsed


def test_long_names_are_not_cut(tmp_path):
    from PIL import Image

    names = ["grand_piano", *map(str, range(19))]  # which the layout alone cuts by two pixels
    with open_paired(
        write(tmp_path / "a.h5", names, [(k, k, "static") for k in range(20)], [], [])
    ) as data:
        plots.contact_sheet(tmp_path / "a.png", data)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.array(picture.convert("L"))
    assert (pixels[:, 0] == 255).all() and (pixels[:, :20] < 128).any()


def test_a_pair_is_the_first_training_recording_and_its_image(tmp_path):
    images = [(0, 1, "static"), (0, 2, "static"), (0, 3, "test"), (1, 4, "static")]
    recordings = [(0, 3, "test"), (0, 2, "train"), (0, 1, "train"), (2, 9, "train")]
    with open_paired(write(tmp_path / "a.h5", ("a", "b", "c", "d"), images, recordings)) as data:
        assert [plots._example(data, k) for k in range(4)] == [
            (1, 1),
            (3, None),
            (None, 3),
            (None, None),
        ]
        tiles = plots._tiles(data, 1, 1, 3, 8)
        assert np.array_equal(tiles[0], np.broadcast_to([1.0, 0, 0], (8, 8, 3)))
        assert (tiles[1] == 1).all()
        assert (tiles[2:] < 1).any() and (plots._tiles(data, None, None, 3, 8) == 0.9).all()


# Problems

@pytest.mark.parametrize("spoil, out, message", [
    (lambda path: path.write_bytes(path.read_bytes()[:3000]), "a.png", "small.h5"),
    (lambda path: path.unlink(), "a.png", "there is no file"),
    (lambda path: None, "small.h5", "ends in .png"),
    (lambda path: None, "nowhere/a.png", "in a folder that exists"),
])
def test_problems_end_in_one_line(path, tmp_path, capsys, spoil, out, message):
    spoil(path)
    before = path.read_bytes() if path.exists() else None
    assert main(["info", str(path), "--out", str(tmp_path / out)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (path.read_bytes() if path.exists() else None) == before
    assert not (tmp_path / "a.png").exists()


def test_damaged_events_end_in_one_line(path, tmp_path, capsys):
    with h5py.File(path, "r+") as file:
        file["events/x"][1] = SENSOR[1]
    assert main(["info", str(path), "--out", str(tmp_path / "a.png")]) == 2
    output = capsys.readouterr()
    assert "recording 0: event 1 of 3: x = 9" in output.err and output.err.count("\n") == 1
    assert not output.out


def test_real_recordings(shared, tmp_path, monkeypatch, capsys):
    """The figures of 100 N-MNIST recordings are near those published for 1,100 of them."""
    source = shared / "data/nmnist"
    script = pathlib.Path(__file__).parents[1] / "data_tools" / "nmnist.py"
    subprocess.run(
        [
            sys.executable, script, source / "events", source / "images-idx3-ubyte.gz",
            source / "labels-idx1-ubyte.gz", tmp_path / "n.h5", "--test-per-class", "9",
            "--images-per-class", "20", "--events-per-class", "1",
        ],
        check=True,
        capture_output=True,
    )
    with open_paired(tmp_path / "n.h5") as data:
        figures = info.measure_recordings(data)
    medians = {key: np.median(values) for key, values in figures.items()}
    assert len(figures["on"]) == 100 and medians["events"] == pytest.approx(4164, rel=0.1)
    assert medians["duration"] == pytest.approx(307, abs=3)
    assert medians["active"] == pytest.approx(0.39, abs=0.02)
    assert medians["on"] == pytest.approx(0.991 / 1.991, abs=0.01)
    monkeypatch.chdir(tmp_path)
    assert main(["info", "n.h5"]) == 0
    assert str(tmp_path / "n.png") in capsys.readouterr().out
    assert (tmp_path / "n.png").read_bytes().startswith(b"\x89PNG")
