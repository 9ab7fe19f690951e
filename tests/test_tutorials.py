"""The tutorials hold, and the script that checks them notices when they do not."""

import importlib.util
import pathlib
import re

import pytest

TUTORIALS = pathlib.Path(__file__).parents[1] / "tutorials"
SPEC = importlib.util.spec_from_file_location("tutorials_run", TUTORIALS / "run.py")
runner = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(runner)

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
plt.plot([0, 1])
save("line.png")
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


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_tutorial_holds(path):
    runner.run(path)


def test_every_picture_is_shown_and_small():
    texts = "".join(
        path.read_text() for path in [*TUTORIALS.glob("[0-9]*.md"), TUTORIALS.parent / "README.md"]
    )
    shown = set(re.findall(r"\(\S*pictures/([^)]+)\)", texts))
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
        change(tutorial, 'save("line.png")', 'save("line.png")'),
        "line.png is not in pictures/",
    ):
        runner.run(tutorial)


@pytest.mark.parametrize("old, new, place", [
    ("![a line](pictures/line.png)", "", "shown in the text"),
    ('save("line.png")', "", "saved by a block"),
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


def test_excerpts_leave_out_docstrings_only():
    assert runner.excerpt("ckd_ref.neuron.spike").splitlines() == [
        "@primitive",
        'def spike(v, surrogate="triangle", width=1.0):',
        "    return (v > 0).astype(v.dtype)",
    ]
    assert runner.excerpt("ckd_ref.events.EVENT_DTYPE").startswith("EVENT_DTYPE = np.dtype(")
    assert "# rounded up" in runner.excerpt("ckd_ref.events.window_edges")
