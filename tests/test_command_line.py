"""The command line."""

import json

import pytest
from small import FLAGS

from ckd_ref.__main__ import main

# The command line


def test_evaluation_repeats_the_logged_accuracy(glyph_file, tmp_path, capsys):
    assert main(["train", str(glyph_file), "--method", "snn", "--out", str(tmp_path), *FLAGS]) == 0
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    assert main(["evaluate", str(glyph_file), str(tmp_path / "checkpoint.h5")]) == 0
    assert f"{row['accuracy_test']:.1%} of 24 test recordings" in capsys.readouterr().out


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


