"""The tutorials as Jupyter notebooks: ``python tutorials/run.py --notebooks FOLDER``.

A block that runs becomes a cell, with what the tutorial says that it prints and draws; all else is
text. A notebook draws its pictures itself when it is run, and also saves them to ``pictures``.
"""

import base64
import os
import pathlib
import re
import shutil

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from run import BLOCK, FOLDER, PICTURE

FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
SAVED = re.compile(r'savefig\("pictures/([^"]+)"\)')


def write(paths, folder):
    """Write one notebook for each tutorial, and what they need beside them."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for name in "matplotlibrc", "ckd_in_one_file.py":
        shutil.copy(FOLDER / name, folder)
    shutil.copytree(FOLDER / "results", folder / "results", dirs_exist_ok=True)
    for path in paths:
        target = folder / f"{path.stem}.ipynb"
        nbformat.write(convert(path, folder), target)
        print(target)


def convert(path, folder):
    """The notebook of a tutorial; its links lead from `folder`."""
    text, cells, end = path.read_text(encoding="utf-8"), [], 0
    blocks = [match for match in BLOCK.finditer(text) if not match["source"]]
    for match in blocks:
        cells += _text_cell(text[end:match.start()], path, folder)
        cells.append(_code_cell(match["code"], match["output"], path.parent / "pictures"))
        end = match.end()
    cells += _text_cell(text[end:], path, folder)
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"                             # not a random one: same file again
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.validate(notebook)
    return notebook


def _text_cell(text, path, folder):
    """A list of one cell, or of none if there is no text."""
    def link(match):
        target = match[1]
        if re.fullmatch(r"[^/]+_[^/]+\.md", target):
            return f"]({target.removesuffix('.md')}.ipynb)"
        return f"]({pathlib.Path(os.path.relpath(path.parent / target, folder)).as_posix()})"

    parts = FENCE.split(re.sub(r"^<!-- source: .* -->\n", "", text, flags=re.MULTILINE))
    for i in range(0, len(parts), 2):                          # the prose between the fences
        parts[i] = re.sub(r"\]\(([^():#]+)\)", link, PICTURE.sub("", parts[i]))
    for i in range(1, len(parts), 2):
        parts[i] = re.sub(r"^```math\n(.*)```$", r"$$\n\1$$", parts[i], flags=re.DOTALL)
    text = "".join(parts).strip("\n")
    return [new_markdown_cell(text)] if text else []


def _code_cell(code, output, pictures):
    cell = new_code_cell(code.rstrip("\n"))
    if output:
        cell.outputs.append(new_output("stream", name="stdout", text=output))
    for name in SAVED.findall(code):
        picture = base64.b64encode((pictures / name).read_bytes()).decode()
        cell.outputs.append(new_output("display_data", {"image/png": picture}))
    return cell
