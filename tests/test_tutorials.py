"""The tutorials hold, and the script that checks them notices when they do not."""

import importlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import pytest

import ckd_ref

ROOT = pathlib.Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"
sys.path.insert(0, str(TUTORIALS))
runner = importlib.import_module("run")

FILES = sorted(TUTORIALS.glob(runner.TUTORIALS))
INSTALL = (
    "Install once, in a clone of this repository: `pip install -e \".[test]\"`. "
    "Every block runs when\npasted.\n"
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
    path.write_text(SOUND, encoding="utf-8")
    runner.run(path, write=True)
    return path


def change(path, old, new):
    """Replace `old` in the tutorial, and return the number of the line it begins in."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return text[:text.index(old)].count("\n") + 1


def fails(path, line, message):
    return pytest.raises(runner.TutorialError, match=re.escape(f"{path}:{line}: ") + f".*{message}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tutorial_holds(path):
    runner.run(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_installation_comes_before_the_first_block(path):
    assert INSTALL in path.read_text(encoding="utf-8").split("```")[0]


def test_what_is_a_tutorial():
    names = {path.name for path in FILES}
    assert {"01_events_to_frames.md", "A_why_this_is_fast.md"} <= names
    assert not {"README.md", "protocol.md"} & names


def test_every_picture_is_shown_and_small():
    texts = "".join(path.read_text(encoding="utf-8") for path in [*FILES, ROOT / "README.md"])
    shown = set(re.findall(r"\]\(\S*pictures/([^)]+)\)", texts))
    files = list((TUTORIALS / "pictures").iterdir())
    assert {file.name for file in files} == shown
    assert max(file.stat().st_size for file in files) < 80_000


def test_writing_makes_a_tutorial_hold_and_is_idempotent(tutorial):
    text = tutorial.read_text(encoding="utf-8")
    assert ") -> ndarray:\n    return tau * u * (1 - s) + current\n" in text, "lif_step, as it is"
    runner.run(tutorial)
    runner.run(tutorial, write=True)
    assert tutorial.read_text(encoding="utf-8") == text


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
    text = tutorial.read_text(encoding="utf-8")
    with fails(tutorial, line, message):
        runner.run(tutorial, write)
    assert tutorial.read_text(encoding="utf-8") == text


def test_a_picture_drawn_into_an_earlier_figure_is_caught(tutorial):
    """It would look different in a notebook, which closes the figures of a cell."""
    figure = "\n```python\nplt.figure()\n```\n\n```python\nplt.plot([0, 1])"
    change(tutorial, "\n```python\nplt.figure()\nplt.plot([0, 1])", figure)
    with pytest.raises(runner.TutorialError, match="begins no new figure"):
        runner.run(tutorial)


def test_blocks_run_when_pasted_into_a_session_in_the_folder(tmp_path):
    """Without the script: the same printed text and, from the folder's style, the same picture."""
    path = tmp_path / "01_pasted.md"
    path.write_text(SOUND, encoding="utf-8")
    runner.run(path, write=True)
    session = tmp_path / "tutorials"
    (session / "pictures").mkdir(parents=True)
    shutil.copy(TUTORIALS / "matplotlibrc", session)
    text = path.read_text(encoding="utf-8")
    blocks = [match["code"] for match in runner.BLOCK.finditer(text) if not match["source"]]
    printed = subprocess.run(
        [sys.executable, "-"], input="\n".join(blocks), text=True, check=True, cwd=session,
        stdout=subprocess.PIPE, env=os.environ | {"MPLBACKEND": "Agg", "MATPLOTLIBRC": ""},
    ).stdout
    assert printed == "a is 1\ndone\n"
    pictures = [folder / "pictures" / "line.png" for folder in (tmp_path, session)]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_show_tells_what_is_different_and_changes_nothing(tutorial, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner.tempfile, "tempdir", str(tmp_path))
    runner.show(tutorial)
    assert capsys.readouterr().out.startswith("01_sound.md: as written")
    change(tutorial, "a = 1\n", "a = 5\n")
    text = tutorial.read_text(encoding="utf-8")
    runner.show(tutorial)
    out = capsys.readouterr().out
    assert "\n-a is 1\n+a is 5\n" in out and "-done" not in out
    assert pathlib.Path(re.search("pictures in (.*)", out)[1], "line.png").is_file()
    assert tutorial.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("options, text", [([], "01_sound.md holds"), (["--show"], "as written")])
def test_only_the_files_given_are_run(tutorial, options, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["run.py", *options, str(tutorial)])
    runner.main()
    out = capsys.readouterr().out
    assert text in out and "01_events" not in out


def test_excerpts_leave_out_docstrings_only():
    assert runner.excerpt("ckd_ref.neuron.spike").splitlines() == [
        "@primitive",
        'def spike(v: ndarray, surrogate: str = "triangle", width: float = 1.0) -> ndarray:',
        "    _check_surrogate(surrogate, width)",
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
    tutorial.write_text(tutorial.read_text(encoding="utf-8") + math, encoding="utf-8")
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
    assert path.read_text(encoding="utf-8").count("```math") == text.count("$$") // 2


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


def needs_docs(*modules):
    for module in modules:
        pytest.importorskip(module, reason='the book needs pip install ".[docs]"')


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Pages of the book, as the command writes them; a warning would be an error."""
    needs_docs("pdoc", "markdown_it", "mdit_py_plugins", "latex2mathml")
    folder = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run.py", "--book", str(folder)])
        runner.main()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".html"}
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in files}


@pytest.fixture
def markup(tmp_path, monkeypatch):
    needs_docs("markdown_it", "mdit_py_plugins", "latex2mathml")
    module = importlib.import_module("markup")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_the_book_has_every_chapter_and_every_public_name(book):
    assert {"index.html", "tutorials.html", "protocol.html", "results.html"} <= set(book)
    assert {f"{path.stem}.html" for path in FILES} <= set(book)
    for name in ckd_ref.__all__:
        link = re.search(rf'href="([^"#]+)#{name}"><code>{name}<', book["names.html"])
        assert f'id="{name}"' in book[link[1]]
    assert 'href="ckd_ref/neuron.html#lif_step"' in book["02_lif_neuron.html"]
    assert "leak factor of the neurons" in book["ckd_ref/config.html"]  # help of an option


def test_the_book_needs_no_network(book):
    for url, text in book.items():
        assert not re.search(r"<script|<link|@import|src=.?http|url\(.?http", text), url


def test_links_of_the_book_lead_somewhere(book):
    ids = {url: set(re.findall(r'id="([^"]+)"', text)) for url, text in book.items()}
    for url, text in book.items():
        for link in re.findall(r'<a [^>]*href="(?!https?:)([^"]*)"', text):
            target, _, anchor = link.partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(url), target) if target else url)
            assert target in book and (not anchor or anchor in ids[target]), f"{url}: {link}"


def test_mathematics_of_the_book_is_mathml(book):
    for path in FILES:
        text = book[f"{path.stem}.html"]
        text = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", text, flags=re.DOTALL)
        assert not re.search(r"\\[a-z]{2,}|\$", text), path.name
        equations = path.read_text(encoding="utf-8").count("```math")
        assert text.count('<div class="formula"><math') == equations
    assert "<span>(3)</span></div>" in book["02_lif_neuron.html"]


CHAPTER = """# One

<!-- source: ckd_ref.neuron.lif -->
```python
a = 1
```

```text
printed
```
## Links

[two](two.md#there) [file](setup.cfg) `lif` `neuron.lif` `<a>` $a_b$ $5 and $6
$\\log x \\big\\| \\lVert y \\rVert_F$
![dot](pictures/dot.png)

```mermaid
flowchart LR
    a["<b>A</b><br/>first,<br/>second"]
    b["<b>B</b>"]
    a --> b
```
"""


def test_a_chapter(markup, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "dot.png").write_bytes(b"dot")
    (tmp_path / "setup.cfg").touch()
    (tmp_path / "one.md").write_text(CHAPTER)
    chapters = markup.Chapters(
        {"one.md": "one.html", "two.md": "two.html"}, {"neuron.lif": "neuron.html#lif"}
    )
    text, sections = chapters.render("one.md")
    assert sections == [("Links", "links")]
    linked = '<a href="neuron.html#lif"><code>neuron.lif</code></a>'
    for part in (
        f'<p class="source">{linked}</p>',
        '<div class="output"><div class="pdoc-code"><pre><span></span>printed',
        '<a href="two.html#there">two</a> <span title="setup.cfg">file</span>',
        f'<code>lif</code> {linked} <code>&lt;a&gt;</code> <span class="math inline"><math',
        "$5 and $6",
        '<mi>log</mi><mspace width="0.17em"/><mi>x</mi>',
        '<msub><mo stretchy="false">&#x02016;</mo><mi>F</mi></msub>',
        '<img src="data:image/png;base64,ZG90" alt="dot" />',
        "<li><b>A</b>: first, second &rarr; b</li>\n<li><b>B</b></li>",
    ):
        assert part in text


@pytest.mark.parametrize("text, message", [
    ("[gone](gone.md)", "leads to gone.md, which does not exist"),
    ("![gone](gone.png)", "gone.png"),
    ("```math\n\\frac{1}{2\n```", "missing brace"),
    ("$\\nothing$", "unknown command"),
    ("```mermaid\nsequenceDiagram\n```", "expected a Mermaid flowchart"),
])
def test_a_chapter_with_a_mistake_is_refused(markup, tmp_path, text, message):
    (tmp_path / "one.md").write_text(text)
    with pytest.raises(Exception, match=message):
        markup.Chapters({"one.md": "one.html"}, {}).render("one.md")


DOCSTRING = """Add, ``a
+ b``, as $a_b$.

Deviation: none. Test: `t`.

Parameters
----------
a, b : (T,) arrays of `float`
    Both.

    Long.
c : int

Raises
------
ValueError
    Never.

Examples
--------
>>> 1 + 1
2
"""


def test_a_docstring_becomes_text_and_definitions(markup):
    text = markup.docstring(DOCSTRING)
    for part in (
        'Add, <code>a + b</code>, as <span class="math inline"><math',
        "<p><em>Deviation:</em> none. <em>Test:</em> <code>t</code>.</p>",
        "<h6>Parameters</h6>\n<dl>\n<dt><code>a, b</code> : (T,) arrays of <code>float</code></dt>",
        "<dd><p>Both.</p>\n<p>Long.</p>\n</dd>\n<dt><code>c</code> : int</dt>\n</dl>",
        "<dt><code>ValueError</code></dt>\n<dd><p>Never.</p>",
        '<span class="gp">&gt;&gt;&gt; </span>',
    ):
        assert part in text


@pytest.mark.parametrize("text, message", [
    ("What ``is this`?", "code without an end"),
    ("It.\n\nReturn\n------\nx : int\n", "Return is no section of numpy's format"),
])
def test_a_docstring_with_a_mistake_is_refused(markup, text, message):
    with pytest.raises(ValueError, match=message):
        markup.docstring(text)


def test_a_warning_stops_the_book(book, monkeypatch, tmp_path):
    module = importlib.import_module("book")
    monkeypatch.setattr(module, "book", lambda: warnings.warn("a docstring with a problem"))
    with pytest.raises(UserWarning, match="a docstring with a problem"):
        module.write(tmp_path)
    assert not list(tmp_path.iterdir())
