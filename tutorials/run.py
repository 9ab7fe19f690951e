"""Run the tutorials, so that neither their code nor their printed results drift from the package.

    python tutorials/run.py             check every tutorial
    python tutorials/run.py --write     renew printed results, source excerpts and pictures in place

A tutorial is plain Markdown with four conventions:

* The ``python`` blocks of a file run in order, in one namespace.
* A ``text`` block directly after a ``python`` block holds what that block prints.
* A ``python`` block under ``<!-- source: ckd_ref.module.name -->`` is not run: it is that source,
  without docstring.
* ``save("name.png")`` in a block writes the current figure to ``pictures/``, and the text shows
  it. Each picture must be saved, shown and present; its pixels are not compared, since they vary
  with the versions of fonts and libraries.
"""

import argparse
import ast
import contextlib
import importlib
import inspect
import io
import itertools
import pathlib
import re
import shutil
import sys
import tempfile
import traceback

import matplotlib.pyplot as plt

FOLDER = pathlib.Path(__file__).resolve().parent
BLOCK = re.compile(
    r"(?:^<!-- source: (?P<source>[\w.]+) -->\n)?^```python\n(?P<code>.*?)^```\n"
    r"(?:\n?^```text\n.*?^```\n)?",
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


def renew(path, text, scratch):
    """The renewed text of a tutorial; its pictures are drawn in the folder `scratch`."""
    def save(name):
        plt.savefig(pathlib.Path(scratch, name))
        plt.close("all")

    def block(match):
        code, source = match["code"], match["source"]
        above = text[:match.start("code")].count("\n")
        with located(path, above), contextlib.redirect_stdout(io.StringIO()) as printed:
            if source:
                return f"<!-- source: {source} -->\n```python\n{excerpt(source)}```\n"
            exec(compile("\n" * above + code, str(path), "exec"), namespace)
        renewed = f"```python\n{code}```\n"
        if output := printed.getvalue():
            renewed += f"\n```text\n{output}```\n"
        return renewed

    namespace = {"save": save}
    with plt.style.context(["default", {"figure.constrained_layout.use": True, "font.size": 9}]):
        return BLOCK.sub(block, text)


def run(path, write=False):
    """Check a tutorial or, with `write`, renew it; raise TutorialError at the first difference."""
    plt.switch_backend("Agg")
    text = path.read_text(encoding="utf-8")
    pictures = path.parent / "pictures"
    with tempfile.TemporaryDirectory() as scratch:
        renewed = renew(path, text, scratch)
        saved = {picture.name for picture in pathlib.Path(scratch).iterdir()}
        shown = set(PICTURE.findall(text))
        if write:
            shutil.copytree(scratch, pictures, dirs_exist_ok=True)
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


def main():
    """Run all tutorials, up to the first that does not hold."""
    parser = argparse.ArgumentParser(description="Check the tutorials, or renew their results.")
    parser.add_argument(
        "--write", action="store_true", help="renew printed results, excerpts and pictures in place"
    )
    write = parser.parse_args().write
    for path in sorted(FOLDER.glob("[0-9]*.md")):
        try:
            run(path, write)
        except TutorialError as error:
            sys.exit(str(error))
        print(f"{path.name} {'renewed' if write else 'holds'}")


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parent))  # the package of this checkout, installed or not
    main()
