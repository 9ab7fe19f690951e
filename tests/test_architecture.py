"""The layout of the package: who imports whom, how much importing it loads, where the equations stand."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import ckd_ref

PACKAGE = pathlib.Path(ckd_ref.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

LAYERS = (
    {"events", "color", "neuron", "similarity", "losses", "schedules", "files", "team", "winograd"},
    {"layers", "camera", "readers", "optim", "batches", "hdf5"},
    {"spiking"},
    {"models"},
    {"data", "runs", "teacher"},
    {"glyphs", "training", "info"},
    {"plots", "experiment"},
    {"__main__"},
)
"""From the leaves up; a module imports from lower layers only."""

EXCEPTIONS = {("losses", "similarity"), ("experiment", "plots")}
"""Imports within a layer: Eq. (5) is made of CKA; an experiment draws its curves."""


def parse(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def imports(tree):
    """Siblings and foreign packages that a module imports, at its top or inside functions."""
    siblings, foreign = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            foreign |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            foreign.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            siblings |= {node.module} if node.module else {alias.name for alias in node.names}
    return siblings, foreign


def rank(module):
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


def violations(module, siblings):
    return {s for s in siblings if rank(s) >= rank(module) and (module, s) not in EXCEPTIONS}


def test_every_module_has_its_layer():
    assert set(MODULES) <= set.union(*LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    siblings, foreign = imports(parse(module))
    assert not violations(module, siblings & set(MODULES))
    assert "ckd_ref" not in foreign, "import siblings relatively"


@pytest.mark.parametrize("module, line", [("events", "from .camera import record"), ("neuron", "from . import layers"),
                                          ("models", "def f():\n    from .training import train")])
def test_a_wrong_import_is_caught(module, line):
    assert violations(module, imports(ast.parse(line))[0])


@pytest.mark.parametrize("module", MODULES)
def test_no_other_framework(module):
    assert not imports(parse(module))[1] & {"torch", "jax", "tensorflow", "numba", "cupy", "sklearn", "pandas"}


def test_importing_the_package_loads_nothing_heavy():
    """In a fresh interpreter: what draws, resamples or shows progress is loaded where it is used."""
    heavy = {"matplotlib", "PIL", "scipy.ndimage", "tqdm"}
    loaded = subprocess.run([sys.executable, "-c", "import sys, ckd_ref; print(*sys.modules)"], cwd=PACKAGE.parent,
                            capture_output=True, text=True, check=True).stdout.split()
    assert "ckd_ref.neuron" in loaded and not heavy & set(loaded)


def docstrings():
    """Every bare string of the package: docstrings of modules, classes and functions, and of constants."""
    for module in MODULES:
        for node in ast.walk(parse(module)):
            if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
                yield module, node.value.value


@pytest.mark.parametrize("n", range(1, 12))
def test_every_equation_is_named_in_a_docstring(n):
    assert any(f"Eq. ({n})" in text for _, text in docstrings())


def test_no_formula_of_an_equation_stands_in_two_docstrings():
    """``Eq. (n)`` followed by its formula in double backquotes."""
    places = {}
    for module, text in docstrings():
        for n in re.findall(r"Eq\. \((\d+)\):\s+``", text):
            places.setdefault(int(n), []).append(module)
    assert places and all(len(modules) == 1 for modules in places.values()), places
