"""What is made by a program: results, deviations, architecture in the README; the types' stub.

    python tests/readme_parts.py --write

Without the option it prints them. `test_readme.py` compares them with the README,
`test_signatures.py` the stub with the package.
"""

import argparse
import ast
import functools
import pathlib
import re
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ckd_ref"
STUB = PACKAGE / "__init__.pyi"

EQUATIONS = ("events", "color", "neuron", "similarity", "losses", "distillation", "table1",
             "schedules")
METHOD = ("batches", "models", "config", "training", "teacher", "energy")
GROUPS = {
    "equations": f"<b>equations</b><br/>{', '.join(EQUATIONS[:4])}<br/>{', '.join(EQUATIONS[4:])}",
    "nn": "<b>nn/</b><br/>convolution, batch norm,<br/>the fused layer, AdamW",
    "method": f"<b>method</b><br/>{', '.join(METHOD)}",
    "data": "<b>data/</b><br/>paired HDF5, readers,<br/>camera, glyphs",
    "run": "<b>run/</b><br/>session, checkpoint, teachers,<br/>sweep, report, comparison, tsne",
    "main": "<b>__main__</b><br/>command line",
}
"""The folders of the package, and what stands in front of them, in the order of their imports."""


def modules():
    """Path of every module by its dotted name inside the package; packages by their own name."""
    found = {}
    for path in sorted(PACKAGE.glob("**/*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts).removesuffix("__init__").rstrip(".")
        if name:
            found[name] = path
    return found


def group(name):
    """The group of `GROUPS` that a module belongs to."""
    first = name.split(".")[0]
    if first in ("nn", "data", "run"):
        return first
    if first == "__main__":
        return "main"
    return "method" if first in METHOD else "equations"


def imports(path, name):
    """Modules of the package, and foreign packages, that a module imports anywhere."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    own, foreign = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            foreign |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            foreign.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[:-1] if node.level == 2 else package.split(".")
            base = [part for part in base if part]
            if node.module:
                base += node.module.split(".")
            for alias in node.names:
                full = ".".join([*base, alias.name])
                own.add(full if full in modules() else ".".join(base))
    return own - {name}, foreign


def architecture():
    """The package's groups and their imports as a diagram, an arrow from what is imported."""
    edges = set()
    for name, path in modules().items():
        for other in imports(path, name)[0]:
            edges.add((group(other), group(name)))
    lines = ["```mermaid", "flowchart LR"]
    lines += [f'    {key}["{label}"]' for key, label in GROUPS.items()]
    order = list(GROUPS)
    for a, b in sorted(edges, key=lambda edge: (order.index(edge[0]), order.index(edge[1]))):
        if a != b:
            lines.append(f"    {a} --> {b}")
    return "\n".join([*lines, "```"])


@functools.cache
def documented():
    """Every documented function and class, `module.name` and docstring, of package and tools."""
    found = []
    places = {name: path for name, path in modules().items()}
    places |= {f"data_tools.{path.stem}": path for path in (ROOT / "data_tools").glob("*.py")}
    for module, path in places.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if doc := ast.get_docstring(tree):
            found.append((module, doc))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                if doc := ast.get_docstring(node):
                    found.append((f"{module}.{node.name}", doc))
    return found


MARK = re.compile(
    r"(Deviation|Assumption): (.*?)(?=\n\s*\n|\n\s*(?:Deviation|Assumption): |\Z)", re.S
)


def marks():
    """(kind, where, statement, baseline, test) of every mark in a docstring."""
    for where, doc in documented():
        for kind, text in MARK.findall(doc):
            text = " ".join(text.split())
            text, _, test = text.partition(" Test: ")
            text, _, baseline = text.partition(" Baseline: ")
            yield kind, where, text, baseline, test.strip("`. ")


def deviations():
    """The list of deviations and assumptions, one item each."""
    items = []
    deviations_first = sorted(marks(), key=lambda mark: mark[0] != "Deviation")
    for kind, where, text, baseline, test in deviations_first:
        item = f"- *{kind}*, `{where}`: {text}"
        if baseline:
            item += f" *Baseline*: {baseline}"
        item += f" (`{test}`)"
        items.append("\n".join(textwrap.wrap(item, 100, subsequent_indent="  ")))
    return "\n".join(items)


def results():
    """The ladder of every data set, the map of regimes and what a leaky split gives.

    All from the committed lines.
    """
    from ckd_ref.run.report import ladder_table, leakage_table, read_folder, regimes_table

    lines = read_folder(ROOT / "tutorials" / "results")
    parts = [ladder_table(lines)]
    if regimes := regimes_table(lines):
        parts.append("**Regimes**: what the images with alignment give, and what the teacher "
                     "gives, by width, updates\nand images per class:\n\n"
                     "![Map of regimes](tutorials/results/regimes.png)\n\n" + regimes)
    if leakage := leakage_table(lines):
        parts.append("**Leakage**: the same recordings and the same number of static images, of "
                     "which a part are those\nthat the test recordings filmed:\n\n" + leakage)
    return "\n".join(parts).strip()


PARTS = {"results": results, "architecture": architecture, "deviations": deviations}


def renewed(text):
    """The README with its made parts as they should be."""
    for name, make in PARTS.items():
        begin = f"<!-- {name}: made by tests/readme_parts.py -->\n"
        end = f"\n<!-- end of {name} -->"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"README.md: expected the marks {begin.strip()!r} and {end.strip()!r}")
        text = before + begin + make() + end + after
    return text


def stub():
    """`ckd_ref/__init__.pyi`: where a type checker finds the names that are loaded lazily."""
    from ckd_ref import PUBLIC

    lines = ['"""Types of the public names; made by tests/readme_parts.py."""', ""]
    lines += sorted({f"from . import {name} as {name}"
                     for name in (module.split(".")[0] for module in PUBLIC)})
    for module, names in PUBLIC.items():
        lines += [f"from .{module} import {name} as {name}" for name in names]
    return "\n".join([*lines, "", "PUBLIC: dict[str, dict[str, str]]", "__version__: str", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="renew README and stub in place")
    if parser.parse_args().write:
        path = ROOT / "README.md"
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
        STUB.write_text(stub(), encoding="utf-8")
    else:
        print(*(make() for make in (*PARTS.values(), stub)), sep="\n\n")


if __name__ == "__main__":
    main()
