"""The tutorials hold, and the script that checks them notices when they do not."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
sys.path.insert(0, str(TUTORIALS))
runner = importlib.import_module("run")

FILES = sorted(TUTORIALS.glob(runner.TUTORIALS))
INSTALL = (
    "Install once, in a clone of this repository: `pip install -e \".[test]\"`. "
    "Every block runs when pasted.\n"
)

SOUND = """# A tutorial of every kind of block

```python
import matplotlib.pyplot as plt
a = 1
```

```python
print("a is", a)
print("done")
```

```text
a is 1
done
```

<!-- source: ckd_ref.neuron.lif_step -->
```python
    return wrong
```

```python
plt.figure()
plt.plot([0, 1])
plt.savefig("pictures/line.png")
```

![a line](pictures/line.png)
"""


@pytest.fixture
def tutorial(tmp_path):
    """A sound tutorial with its picture, written by the script itself."""
    path = tmp_path / "01_sound.md"
    path.write_text(SOUND)
    runner.run(path, write=True)
    return path


def change(path, old, new):
    """Replace `old` in the tutorial, and return the number of the line it begins in."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return text[:text.index(old)].count("\n") + 1


def fails(path, line, message):
    return pytest.raises(runner.TutorialError, match=re.escape(f"{path}:{line}: ") + f".*{message}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tutorial_holds(path):
    runner.run(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_installation_comes_before_the_first_block(path):
    assert INSTALL in path.read_text().split("```")[0]


def test_what_is_a_tutorial():
    names = {path.name for path in FILES}
    assert {"01_events_to_frames.md", "A_why_this_is_fast.md"} <= names
    assert not {"README.md", "protocol.md"} & names


def test_every_picture_is_shown_and_small():
    texts = "".join(path.read_text() for path in [*FILES, ROOT / "README.md"])
    shown = set(re.findall(r"\]\(\S*pictures/([^)]+)\)", texts))
    files = list((TUTORIALS / "pictures").iterdir())
    assert {file.name for file in files} == shown
    assert max(file.stat().st_size for file in files) < 80_000


def test_writing_makes_a_tutorial_hold_and_is_idempotent(tutorial):
    text = tutorial.read_text()
    assert "def lif_step(u, s, current, tau=0.5):\n    return tau * u * (1 - s) + current\n" in text
    runner.run(tutorial)
    runner.run(tutorial, write=True)
    assert tutorial.read_text() == text


def test_a_drifted_output_is_caught(tutorial):
    line = change(tutorial, "a is 1\n", "a is 2\n")
    with fails(tutorial, line, "expected 'a is 1', but the tutorial has 'a is 2'"):
        runner.run(tutorial)


def test_an_output_not_in_the_text_is_caught(tutorial):
    line = change(tutorial, "\n```text\na is 1\ndone\n```\n", "") + 1
    with fails(tutorial, line, "expected '```text'"):
        runner.run(tutorial)


def test_an_output_that_is_no_longer_printed_is_caught(tutorial):
    change(tutorial, 'print("a is", a)\nprint("done")\n', "")
    with pytest.raises(runner.TutorialError, match="but the tutorial has '```text'"):
        runner.run(tutorial)


def test_a_drifted_excerpt_is_caught(tutorial):
    line = change(
        tutorial, "    return tau * u * (1 - s) + current", "    return tau * u + current"
    )
    with fails(tutorial, line, r"expected '    return tau \* u \* \(1 - s\) \+ current'"):
        runner.run(tutorial)


def test_an_excerpt_of_what_is_gone_is_caught(tutorial):
    line = change(
        tutorial,
        "<!-- source: ckd_ref.neuron.lif_step -->",
        "<!-- source: ckd_ref.neuron.lif_leap -->",
    )
    with fails(tutorial, line + 1, "ckd_ref.neuron defines no lif_leap"):
        runner.run(tutorial)


def test_a_missing_picture_is_caught(tutorial):
    (tutorial.parent / "pictures" / "line.png").unlink()
    with fails(
        tutorial,
        change(tutorial, "line.png\")", "line.png\")"),
        "line.png is not in pictures/",
    ):
        runner.run(tutorial)


@pytest.mark.parametrize("old, new, place", [
    ("![a line](pictures/line.png)", "", "shown in the text"),
    ('plt.savefig("pictures/line.png")', "", "saved by a block"),
])
def test_a_picture_not_both_saved_and_shown_is_caught(tutorial, old, new, place):
    change(tutorial, old, new)
    with pytest.raises(
        runner.TutorialError, match=rf"01_sound.md:\d+: picture line.png is not {place}"
    ):
        runner.run(tutorial)


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("code, message", [
    ('raise KeyError("gone")', "KeyError: 'gone'"),
    ("print(undefined)", "NameError: name 'undefined' is not defined"),
    ("1 +", "SyntaxError"),
])
def test_a_raising_block_is_caught_and_nothing_is_written(tutorial, code, message, write):
    line = change(tutorial, 'print("done")', code)
    text = tutorial.read_text()
    with fails(tutorial, line, message):
        runner.run(tutorial, write)
    assert tutorial.read_text() == text


def test_a_picture_drawn_into_an_earlier_figure_is_caught(tutorial):
    """It would look different in a notebook, which closes the figures of a cell."""
    figure = "\n```python\nplt.figure()\n```\n\n```python\nplt.plot([0, 1])"
    change(tutorial, "\n```python\nplt.figure()\nplt.plot([0, 1])", figure)
    with pytest.raises(runner.TutorialError, match="begins no new figure"):
        runner.run(tutorial)


def test_blocks_run_when_pasted_into_a_session_in_the_folder(tmp_path):
    """Without the script: the same printed text and, from the folder's style, the same picture."""
    path = tmp_path / "01_pasted.md"
    path.write_text(SOUND)
    runner.run(path, write=True)
    session = tmp_path / "tutorials"
    (session / "pictures").mkdir(parents=True)
    (session / "matplotlibrc").write_text((TUTORIALS / "matplotlibrc").read_text())
    blocks = [
        match["code"] for match in runner.BLOCK.finditer(path.read_text()) if not match["source"]
    ]
    printed = subprocess.run(
        [sys.executable, "-"], input="\n".join(blocks), text=True, check=True, cwd=session,
        stdout=subprocess.PIPE, env=os.environ | {"MPLBACKEND": "Agg", "MATPLOTLIBRC": ""},
    ).stdout
    assert printed == "a is 1\ndone\n"
    pictures = [folder / "pictures" / "line.png" for folder in (tmp_path, session)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_show_tells_what_is_different_and_changes_nothing(tutorial, capsys):
    runner.show(tutorial)
    assert capsys.readouterr().out.startswith("01_sound.md: as written")
    change(tutorial, "a = 1\n", "a = 5\n")
    text = tutorial.read_text()
    runner.show(tutorial)
    out = capsys.readouterr().out
    assert "\n-a is 1\n+a is 5\n" in out and "-done" not in out
    assert pathlib.Path(re.search("pictures in (.*)", out)[1], "line.png").is_file()
    assert tutorial.read_text() == text


@pytest.mark.parametrize("options, text", [([], "01_sound.md holds"), (["--show"], "as written")])
def test_only_the_files_given_are_run(tutorial, options, text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", *options, str(tutorial)])
    runner.main()
    out = capsys.readouterr().out
    assert text in out and "01_events" not in out


def test_excerpts_leave_out_docstrings_only():
    assert runner.excerpt("ckd_ref.neuron.spike").splitlines() == [
        "@primitive",
        'def spike(v, surrogate="triangle", width=1.0):',
        "    return (v > 0).astype(v.dtype)",
    ]
    assert runner.excerpt("ckd_ref.events.EVENT_DTYPE").startswith("EVENT_DTYPE = np.dtype(")
    assert "# rounded up" in runner.excerpt("ckd_ref.events.window_edges")


def streams(notebook):
    """What each cell of code prints."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in cells]


def pictures(notebook):
    return [
        output.data["image/png"]
        for cell in notebook.cells if cell.cell_type == "code"
        for output in cell.outputs if "image/png" in output.get("data", {})
    ]


@pytest.fixture
def notebooks():
    pytest.importorskip("nbformat", reason='notebooks need pip install ".[notebooks]"')
    return importlib.import_module("notebooks")


def test_a_notebook_has_the_cells_in_order(tutorial, notebooks):
    math = "\n```math\nx < \\frac{1}{2} \\tag{1}\n```\n\n[next](02_next.md), [map](../README.md)\n"
    tutorial.write_text(tutorial.read_text() + math)
    notebook = notebooks.convert(tutorial, tutorial.parent / "some" / "folder")
    assert [cell.source for cell in notebook.cells] == [
        "# A tutorial of every kind of block",
        "import matplotlib.pyplot as plt\na = 1",
        'print("a is", a)\nprint("done")',
        f"```python\n{runner.excerpt('ckd_ref.neuron.lif_step')}```",
        'plt.figure()\nplt.plot([0, 1])\nplt.savefig("pictures/line.png")',
        "$$\nx < \\frac{1}{2} \\tag{1}\n$$\n\n[next](02_next.ipynb), [map](../../../README.md)",
    ]
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds == ["markdown", "code", "code", "markdown", "code", "markdown"]
    assert streams(notebook) == ["", "a is 1\ndone\n", ""] and len(pictures(notebook)) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_notebook_of_a_tutorial(path, notebooks, tmp_path):
    text = "".join(cell.source for cell in notebooks.convert(path, tmp_path).cells)
    assert "```math" not in text and "<!--" not in text and text.count("$$") % 2 == 0
    assert path.read_text().count("```math") == text.count("$$") // 2


def test_a_notebook_runs_and_prints_and_draws_what_it_says(notebooks, tmp_path, monkeypatch):
    nbclient = pytest.importorskip(
        "nbclient", reason='running notebooks needs pip install ".[notebooks]"'
    )
    pytest.importorskip("ipykernel", reason='running notebooks needs pip install ".[notebooks]"')
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebooks.write([TUTORIALS / "02_lif_neuron.md"], tmp_path)
    notebook = notebooks.nbformat.read(tmp_path / "02_lif_neuron.ipynb", as_version=4)
    stored, drawn = streams(notebook), len(pictures(notebook))
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert streams(notebook) == stored and drawn == len(pictures(notebook)) == 3
