"""The README says what the code says: its map of the paper and its list of deviations."""

import importlib
import inspect
import pathlib
import pkgutil
import re

import pytest

import ckd_ref

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROWS = re.findall(r"^\| Eq\. \((\d+)\).*? \| `(\S+)` \| `test_eq(\d\d)_\*` in (\S+) \|(?: \[\d+\]\((\S+)\))? \|$", README, re.M)


def documented():
    """Every function and class of the package with its docstring, as `module.name`."""
    for info in pkgutil.iter_modules(ckd_ref.__path__):
        if info.name != "__main__":
            module = importlib.import_module(f"ckd_ref.{info.name}")
            for name, thing in vars(module).items():
                owner = getattr(thing, "fun", thing)
                if getattr(owner, "__module__", None) == module.__name__ and inspect.getdoc(thing):
                    yield f"{info.name}.{name}", inspect.getdoc(thing)


def test_map_has_every_equation():
    assert {int(number) for number, *_ in ROWS} == set(range(1, 12))


@pytest.mark.parametrize("number, function, tests, file, tutorial", ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_row_of_the_map(number, function, tests, file, tutorial):
    """The function's docstring names the equation, the file has tests of it, the tutorial mentions it."""
    docs = dict(documented())
    assert f"({number})" in docs[function] or f"Eq. {number}" in docs[function]
    assert int(tests) == int(number) and f"def test_eq{tests}_" in (ROOT / file).read_text()
    if tutorial:
        assert f"({number})" in (ROOT / tutorial).read_text()


def test_deviations_are_collected():
    section = README.split("## Deviations and assumptions")[1].split("\n## ")[0]
    listed = re.findall(r"^- `(\S+)`:", section, re.M)
    owners = [name for name, doc in documented() if re.search(r"(Deviation|Assumption):", doc)]
    assert sorted(listed) == sorted(owners)
