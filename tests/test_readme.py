"""The README says what the code says: map of the paper, deviations, architecture, options."""

import pathlib
import re

import pytest
from readme_parts import MARK, PARTS, documented, marks, renewed

from ckd_ref.__main__ import main
from ckd_ref.config import CHOICES

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| Eq\. \((\d+)\).*? \| `(\S+)` \| `test_eq(\d\d)_\*` in (\S+) \|(?: \[\d+\]\((\S+)\))? \|$",
    README, re.M,
)
TESTS = {
    name
    for path in (ROOT / "tests").glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
}


def test_map_has_every_equation():
    assert {int(number) for number, *_ in ROWS} == set(range(1, 12))


@pytest.mark.parametrize("number, function, tests, file, tutorial", ROWS,
                         ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_row_of_the_map(number, function, tests, file, tutorial):
    """The function's docstring names the equation, the file has tests of it, so has a tutorial."""
    doc = dict(documented())[function]
    assert f"({number})" in doc or f"Eq. {number}" in doc, f"{function} must name its equation"
    assert int(tests) == int(number) and f"def test_eq{tests}_" in (ROOT / file).read_text("utf-8")
    if tutorial:
        assert f"({number})" in (ROOT / tutorial).read_text("utf-8")


def test_parts_made_from_the_code_are_up_to_date():
    """Deviations and architecture; ``python tests/readme_parts.py --write`` renews them."""
    assert renewed(README) == README, "run python tests/readme_parts.py --write"


@pytest.mark.parametrize("name", PARTS)
def test_a_part_without_its_end_is_not_renewed(name):
    """All text behind it would be lost."""
    with pytest.raises(ValueError, match=f"<!-- end of {name} -->"):
        renewed(README.replace(f"<!-- end of {name} -->", ""))


@pytest.mark.parametrize("kind, where, text, baseline, test", list(marks()),
                         ids=[f"{where}-{test}" for _, where, _, _, test in marks()])
def test_every_deviation_has_a_test(kind, where, text, baseline, test):
    assert text and text[-1] in ".`)" and test in TESTS, f"{where}: no test named {test!r}"


def test_marks_are_read_to_their_end():
    doc = ("First.\n\nDeviation: one,\nand more. Baseline: other. Test: `a`.\n"
           "Assumption: two.\n\nEnd.")
    assert MARK.findall(doc) == [
        ("Deviation", "one,\nand more. Baseline: other. Test: `a`."), ("Assumption", "two."),
    ]


def test_options_that_the_readme_names_exist(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    section = README.split("## Commands")[1].split("\n## ")[0]
    for option in set(re.findall(r"--[a-z][a-z-]+", section)) - {"--help"}:
        elsewhere = {"--seeds", "--scheduler", "--out", "--files", "--kills", "--methods",
                     "--notebooks", "--book", "--energy"}
        assert option in text or option in elsewhere, f"the README names {option}"
    for name in CHOICES["distillation"]:
        assert name in section


def test_quickstart_runs(tmp_path, monkeypatch, capsys):
    """The block of the section In Python as it stands; two classes, so chance is 50 %."""
    section = README.split("\n## In Python\n")[1].split("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    right = re.search(r"^right: (\d+)%$", capsys.readouterr().out, re.M)
    assert int(right[1]) >= 75, "the student must have learned which squares are bright"
    for name in ("squares.h5", "squares/log.jsonl", "squares/checkpoint.h5", "squares.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), f"the README links {target}"
