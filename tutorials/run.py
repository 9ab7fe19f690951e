"""Run the tutorials, so that neither their code nor their printed results drift from the package.

    python tutorials/run.py                     check every tutorial
    python tutorials/run.py FILE...             check these
    python tutorials/run.py --show FILE...      run edited copies: what is different now
    python tutorials/run.py --write             renew results, source excerpts and pictures in place
    python tutorials/run.py --notebooks FOLDER  the tutorials as Jupyter notebooks
    python tutorials/run.py --book FOLDER       README, tutorials and API reference as HTML

A tutorial is plain Markdown with four conventions:

* The ``python`` blocks of a file run in order, in one namespace, as if pasted into a session that
  was started in this folder. Its ``matplotlibrc`` is the style of the pictures.
* A ``text`` block directly after a ``python`` block holds what that block prints.
* A ``python`` block under ``<!-- source: ckd_ref.module.name -->`` is not run: it is that source,
  without docstring.
* A block that ends with ``plt.savefig("pictures/NAME.png")`` begins a new figure, and the text
  shows the picture. Each picture must be saved, shown and present; its pixels are not compared,
  since they vary with the versions of fonts and libraries.
"""

import argparse
import ast
import contextlib
import difflib
import importlib
import inspect
import io
import itertools
import os
import pathlib
import re
import shutil
import sys
import tempfile
import traceback
from unittest import mock

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

FOLDER = pathlib.Path(__file__).resolve().parent
TUTORIALS = "[0-9A-Z]*_*.md"
BLOCK = re.compile(
    r"(?:^<!-- source: (?P<source>[\w.]+) -->\n)?^```python\n(?P<code>.*?)^```\n"
    r"(?:\n?^```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
PICTURE = re.compile(r"!\[[^\]]*\]\(pictures/([^)]+)\)")


class TutorialError(Exception):
    """A tutorial that does not hold; the message begins with its file and line."""


def excerpt(name):
    """Source of a function, class or constant, ``package.module.name``, without its docstring."""
    module, _, name = name.rpartition(".")
    source = inspect.getsource(importlib.import_module(module))
    for node in ast.parse(source).body:
        target = getattr(node, "targets", [node])[0]  # what has the name
        if getattr(target, "id", getattr(target, "name", None)) == name:
            first = min(part.lineno for part in (node, *getattr(node, "decorator_list", [])))
            lines = source.splitlines(keepends=True)[first - 1:node.end_lineno]
            if target is node and ast.get_docstring(node) is not None:
                del lines[node.body[0].lineno - first:node.body[0].end_lineno - first + 1]
            return "".join(lines)
    raise LookupError(f"{module} defines no {name}")


@contextlib.contextmanager
def located(path, line):
    """Name the tutorial's file and line in any error: the line that raised, else the one given."""
    try:
        yield
    except Exception as error:
        inside = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        line = [getattr(error, "lineno", line), *inside][-1]
        raise TutorialError(f"{path}:{line}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def session(scratch):
    """What a session started in this folder has, in `scratch`, a copy of it without pictures."""
    ignored = shutil.ignore_patterns("pictures", "__pycache__")
    shutil.copytree(FOLDER, scratch, ignore=ignored, dirs_exist_ok=True)
    pathlib.Path(scratch, "pictures").mkdir()
    plt.switch_backend("Agg")
    no_window = mock.patch.object(FigureCanvasAgg, "draw_idle")            # would draw all twice
    style = plt.style.context(["default", FOLDER / "matplotlibrc"])
    with contextlib.chdir(scratch), style, no_window:
        try:
            yield
        finally:
            plt.close("all")


def renew(path, text, scratch):
    """The renewed text of a tutorial; its pictures are drawn in ``pictures`` of `scratch`."""
    def block(match):
        code, source = match["code"], match["source"]
        above = text[:match.start("code")].count("\n")
        figures, pictures = plt.get_fignums(), os.listdir("pictures")
        with located(path, above), contextlib.redirect_stdout(io.StringIO()) as printed:
            if source:
                return f"<!-- source: {source} -->\n```python\n{excerpt(source)}```\n"
            exec(compile("\n" * above + code, str(path), "exec"), namespace)
            if os.listdir("pictures") != pictures and plt.get_fignums() == figures:
                raise RuntimeError("the block saves a picture but begins no new figure")
        renewed = f"```python\n{code}```\n"
        if output := printed.getvalue():
            renewed += f"\n```text\n{output}```\n"
        return renewed

    namespace = {"__name__": "__main__"}
    with session(scratch):
        return BLOCK.sub(block, text)


def run(path, write=False):
    """Check a tutorial or, with `write`, renew it; raise TutorialError at the first difference."""
    text = path.read_text(encoding="utf-8")
    pictures = path.parent / "pictures"
    with tempfile.TemporaryDirectory() as scratch:
        renewed = renew(path, text, scratch)
        drawn = pathlib.Path(scratch, "pictures")
        saved = {picture.name for picture in drawn.iterdir()}
        shown = set(PICTURE.findall(text))
        if write:
            shutil.copytree(drawn, pictures, dirs_exist_ok=True)
            path.write_text(renewed, encoding="utf-8")
    lines = itertools.zip_longest(text.splitlines(), renewed.splitlines())
    for line, (present, due) in enumerate(lines, start=1):
        if present != due and not write:
            raise TutorialError(
                f"{path}:{line}: expected {due!r}, but the tutorial has {present!r}"
            )
    there = {picture.name for picture in pictures.glob("*")}
    for names, place in (
        (saved, "saved by a block"),
        (shown, "shown in the text"),
        (there, "in pictures/"),
    ):
        for name in sorted((saved | shown) - names):
            line = len(text[:text.find(name)].splitlines())
            raise TutorialError(f"{path}:{line}: picture {name} is not {place}")


def show(path):
    """Run an edited copy of a tutorial and tell, without changing it, what is different now."""
    text = path.read_text(encoding="utf-8")
    scratch = tempfile.mkdtemp()
    renewed = renew(path, text, scratch)
    lines = text.splitlines(keepends=True), renewed.splitlines(keepends=True)
    print("".join(difflib.unified_diff(*lines, f"{path.name}, as it is", "as it runs now")), end="")
    print(f"{path.name}: {'as written' if renewed == text else 'different, see above'}", end="; ")
    print("pictures in", pathlib.Path(scratch, "pictures"))


def main():
    """Run tutorials, up to the first that does not hold, or make notebooks or a book of them."""
    parser = argparse.ArgumentParser(description="Check the tutorials, or renew their results.")
    parser.add_argument(
        "files", nargs="*", type=pathlib.Path, metavar="FILE", help="default: every tutorial"
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--show", action="store_true",
        help="print how outputs and excerpts of an edited copy differ from what it says",
    )
    mode.add_argument(
        "--write", action="store_true", help="renew printed results, excerpts and pictures in place"
    )
    mode.add_argument(
        "--notebooks", type=pathlib.Path, metavar="FOLDER",
        help='write Jupyter notebooks; needs pip install ".[notebooks]"',
    )
    mode.add_argument(
        "--book", type=pathlib.Path, metavar="FOLDER",
        help='write an HTML book with an API reference; needs pip install ".[docs]"',
    )
    args = parser.parse_args()
    files = [path.resolve() for path in args.files] or sorted(FOLDER.glob(TUTORIALS))
    if args.notebooks:
        import notebooks
        notebooks.write(files, args.notebooks)
    elif args.book:
        import book
        book.write(args.book)
    else:
        for path in files:
            try:
                if args.show:
                    show(path)
                else:
                    run(path, args.write)
                    print(f"{path.name} {'renewed' if args.write else 'holds'}")
            except TutorialError as error:
                sys.exit(str(error))


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))  # the package of this checkout, installed or not
    main()
