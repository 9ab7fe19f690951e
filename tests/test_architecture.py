"""The house: who imports whom, what stands alone, what is public, where the equations stand."""

import ast
import importlib
import inspect
import pydoc
import re
import shutil
import subprocess
import sys

import pytest
from readme_parts import EQUATIONS, METHOD, PACKAGE, documented, group, imports, modules

import ckd_ref

MODULES = modules()
HELPERS = {
    "losses": {"_numerics", "similarity"}, "distillation": {"_numerics"},
    "table1": {"_numerics", "losses", "similarity"},
}
"""What equation files may import of the package."""


def violation(name, own, foreign):
    """The rule that a module breaks by its imports, or None."""
    own = own & set(MODULES)
    if group(name) == "equations":
        if own - HELPERS.get(name, set()):
            return "rule 1: an equation file imports nothing of the package but what it names"
        foreign = foreign - set(sys.stdlib_module_names)
        if foreign - {"numpy", "scipy", "autograd"}:
            return "rule 1: an equation file imports numpy, scipy and autograd only"
    if group(name) == "method":
        for other in own:
            downwards = other in METHOD and METHOD.index(other) < METHOD.index(name)
            if group(other) not in ("equations", "nn") and not downwards:
                return "rule 2: a method file imports equations, nn and the method files below it"
    if group(name) == "nn" and {other for other in own if group(other) != "nn"} - {"neuron"}:
        return "rule 3: nn imports neuron, and nothing else of the package"
    if group(name) == "data" and {group(other) for other in own} - {"equations", "data"}:
        return "rule 4: data imports what stands above it"
    if group(name) == "run" and "main" in {group(other) for other in own}:
        return "rule 4: run does not import the command line"
    return None


@pytest.mark.parametrize("name", MODULES)
def test_imports_keep_to_the_rules(name):
    own, foreign = imports(MODULES[name], name)
    broken = violation(name, own, foreign)
    assert not broken, f"{name} imports {sorted(own)}: {broken}"
    assert "ckd_ref" not in foreign, "siblings are imported relatively"


@pytest.mark.parametrize("name, own, foreign, rule", [
    ("events", {"color"}, set(), 1), ("neuron", set(), {"matplotlib"}, 1),
    ("losses", {"distillation"}, set(), 1), ("training", {"data.paired"}, set(), 2),
    ("batches", {"models"}, set(), 2), ("models", {"run.session"}, set(), 2),
    ("nn.fused", {"models"}, set(), 3), ("data.camera", {"run.plots"}, set(), 4),
    ("data.paired", {"training"}, set(), 4), ("run.session", {"__main__"}, set(), 4),
])
def test_a_wrong_import_is_caught(name, own, foreign, rule):
    assert f"rule {rule}" in violation(name, own, foreign)


def private_uses(path, name):
    """Private names of other modules of the package that a module uses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bound, used = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            used += [alias.name for alias in node.names if alias.name.startswith("_")]
            bound |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
            if isinstance(node.value, ast.Name) and node.value.id in bound:
                used.append(f"{node.value.id}.{node.attr}")
    return used


@pytest.mark.parametrize("name", MODULES)
def test_no_private_name_of_another_module_is_used(name):
    assert not private_uses(MODULES[name], name)


def test_a_private_name_would_be_seen(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("from .losses import _weighted\nfrom . import color\ncolor._check_rgb(1)\n")
    assert private_uses(path, "x") == ["_weighted", "color._check_rgb"]


@pytest.mark.parametrize("name", MODULES)
def test_no_other_framework(name):
    """But for Fig. 3, whose t-SNE is scikit-learn's, an extra."""
    banned = {"torch", "jax", "tensorflow", "numba", "cupy", "sklearn", "pandas"}
    banned -= {"sklearn"} if name == "run.tsne" else set()
    assert not imports(MODULES[name], name)[1] & banned


def test_every_equation_file_runs_alone_in_an_empty_folder(tmp_path):
    """Together with the files that it names, and without the package."""
    for name in EQUATIONS:
        folder = tmp_path / f"alone_{name}"
        folder.mkdir()
        for file in {name} | HELPERS.get(name, set()):
            shutil.copy(MODULES[file], folder)
    lines = [f"import alone_{name}.{name}" for name in EQUATIONS]
    script = "\n".join([*lines, "import sys; print('ckd_ref' in sys.modules)"])
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, text=True,
                         capture_output=True)
    assert run.stdout.strip() == "False", run.stderr


def test_importing_the_package_is_quick_and_loads_nothing_heavy():
    """In a fresh interpreter: modules are loaded where a name of theirs is first used."""
    script = "import sys, ckd_ref; print(*sys.modules); ckd_ref.lif; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, text=True,
                         capture_output=True, check=True)
    first, second = (set(line.split()) for line in run.stdout.splitlines())
    assert "numpy" not in first and "ckd_ref.neuron" in second
    assert not {"matplotlib", "PIL", "h5py", "scipy.ndimage", "tqdm"} & second


# What is public

def defined_in(name):
    """Public functions and classes that a module defines, not those that it imports."""
    module = importlib.import_module(f"ckd_ref.{name}")
    for attribute, thing in vars(module).items():
        owner = getattr(getattr(thing, "fun", thing), "__module__", None)
        callable_ = inspect.isfunction(getattr(thing, "fun", thing)) or inspect.isclass(thing)
        if callable_ and owner == module.__name__ and not attribute.startswith("_"):
            yield attribute


INTERNAL = {
    "check_sensor_size", "reset_grad", "layer", "preactivation", "streams", "batch_loss",
    "distillation", "check_finite", "event_loss", "weight_of_epoch", "batches_of_teacher",
}
"""Steps of a public function that its file shows but nobody needs to call."""


def test_every_function_of_the_paper_and_the_method_is_a_name_of_the_package():
    for name in (*EQUATIONS, *METHOD):
        listed = set(ckd_ref.PUBLIC[name])
        assert set(defined_in(name)) - INTERNAL <= listed, f"{name}: add to ckd_ref.PUBLIC"
    assert len(ckd_ref.__all__) == len(set(ckd_ref.__all__)), "a name twice"


@pytest.mark.parametrize("module, name", [
    (module, name) for module, names in ckd_ref.PUBLIC.items() for name in names
])
def test_public_names_are_there_and_documented(module, name):
    thing = getattr(ckd_ref, name)
    assert thing is getattr(importlib.import_module(f"ckd_ref.{module}"), name)
    if inspect.isfunction(thing) or inspect.isclass(thing):
        assert inspect.getdoc(thing), f"{name} needs a docstring"


def test_help_lists_every_public_name_with_a_line():
    text = pydoc.render_doc(ckd_ref, renderer=pydoc.plaintext)
    for names in ckd_ref.PUBLIC.values():
        for name, line in names.items():
            assert re.search(rf"\b{name} +{re.escape(line)}", text), name
    assert set(dir(ckd_ref)) == set(ckd_ref.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ckd_ref.nonsense


# Where the equations stand

@pytest.mark.parametrize("n", range(1, 12))
def test_every_equation_is_named_in_a_docstring(n):
    named = [where for where, doc in documented() if f"Eq. ({n})" in doc]
    assert named, f"no docstring names Eq. ({n})"


def test_the_formula_of_an_equation_stands_in_one_docstring():
    """``Eq. (n):`` followed by its formula in double backquotes."""
    places = {}
    for where, doc in documented():
        for n in set(re.findall(r"Eq\. \((\d+)\):\s+``", doc)):
            places.setdefault(int(n), set()).add(where)
    assert set(places) >= {2, 3, 5, 6, 7, 8, 9, 10, 11}
    assert all(len(where) == 1 for where in places.values()), places


def test_formula_and_code_of_an_equation_fit_on_a_screen():
    """From ``def`` to the last line at most 60 lines, docstring included; the total has more
    arguments to explain than fit."""
    for name in EQUATIONS:
        tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name != "ckd_loss":
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 64, f"{name}.{node.name} has {lines} lines"
