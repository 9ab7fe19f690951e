"""The command line."""

import json
import os

import numpy as np
import pytest
from small import FLAGS, SMALL

from ckd_ref.__main__ import main
from ckd_ref.config import Config
from ckd_ref.data.paired import PairedWriter
from ckd_ref.run.checkpoint import save_checkpoint
from ckd_ref.training import TrainState

# The command line


def test_evaluation_repeats_the_logged_accuracy(glyph_file, tmp_path, capsys):
    assert main(["train", str(glyph_file), "--method", "snn", "--out", str(tmp_path), *FLAGS]) == 0
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    assert main(["evaluate", str(glyph_file), str(tmp_path / "checkpoint.h5")]) == 0
    assert f"{row['accuracy_test']:.1%} of 24 test recordings" in capsys.readouterr().out


FORGED = "ant\x1b[2J\nckd_ref: done"
"""A name that would clear the screen and write a line of its own."""


@pytest.mark.skipif(os.name != "posix", reason="names of files cannot have such characters")
def test_names_in_errors_cannot_command_the_terminal(tmp_path, capsys):
    """Neither those of files nor, where a checkpoint was trained on others, of classes."""
    folder = tmp_path / FORGED
    folder.mkdir()
    with PairedWriter(folder / "a.h5", (FORGED, "bee"), (4, 4), 4) as writer:
        writer.add_image(np.zeros((4, 4, 3), np.uint8), 0, 0, "static")
    config = Config(**SMALL)
    run = TrainState.start(config.model(2), 0)
    save_checkpoint(tmp_path / "run.h5", run, config, ("ant", "bee"))
    for argv in (
        ["evaluate", folder / "a.h5", tmp_path / "run.h5"], ["info", folder / "none.h5"],
        ["info", folder / "a.h5", "--out", folder / "a.txt"], ["train", folder / "none.h5"],
    ):
        assert main(list(map(str, argv))) == 2
        line = capsys.readouterr().err.removesuffix("\n")
        assert line.isprintable() and line.startswith("ckd_ref: "), f"{argv[0]}: {line!r}"
        assert "ckd_ref: done" in line, f"{argv[0]} does not tell the name"


@pytest.mark.parametrize(
    "argv, match",
    [
        (["train", "nowhere.h5"], "nowhere.h5"),
        (["evaluate", "{data}", "nowhere.h5"], "nowhere.h5"),
        (["train", "{data}", "--T", "0"], "T >= 1"),
        (["{data}x"], None),
    ],
)
def test_problems_end_in_one_line(glyph_file, tmp_path, capsys, argv, match):
    argv = [word.replace("{data}", str(glyph_file)) for word in argv]
    if match is None:
        with pytest.raises(SystemExit):
            main(argv)
        return
    out = ["--out", str(tmp_path / "out")] if argv[0] == "train" else []
    assert main(argv + out) == 2
    error = capsys.readouterr().err
    assert match in error and error.count("\n") == 1


