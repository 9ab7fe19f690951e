"""What is published says one thing: pyproject, workflow, citation, links on a package index."""

import datetime
import importlib
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from conftest import environment
from release import RELATIVE, absolute

import ckd_ref

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
PYTHONS = [
    line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
]
FINDS_COMMAND = "$(grep -m 1 '^python3 .*pytest' README.md)"


def test_the_workflow_runs_the_pythons_of_the_classifiers():
    assert re.search(r"python: \[(.*)\]", WORKFLOW)[1] == ", ".join(f'"{v}"' for v in PYTHONS)
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    lowest = WORKFLOW.split("\n  lowest:")[1].split("\n  lint:")[0]
    assert f'python-version: "{PYTHONS[0]}"' in lowest, "the lower bounds are of the oldest"


def test_workflow_and_ci_run_the_test_command_of_the_readme():
    """Both find it in the README; on Windows the folder of a virtual environment is another."""
    for text in (WORKFLOW, (ROOT / ".ci/run").read_text(encoding="utf-8")):
        assert f"command={FINDS_COMMAND}" in text and 'bash -c "$command"' in text
    command = re.search(r"^python3 .*pytest.*$", README, re.M)[0]
    fence = README.split(command)[0].rpartition("\n```")[2]
    assert fence == "sh\n", "the first match must be the command of the first screen"
    replaced = re.search(r"command=\$\{command//(\S+)\$BIN\}", WORKFLOW)[1].replace("\\/", "/")
    assert replaced == ".venv/bin/.venv/" and command.count(".venv/bin/") == 2


def test_ci_installs_and_runs_every_linter():
    commands = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert 'pip install --quiet ".[lint]"' in commands
    for requirement in PROJECT["project"]["optional-dependencies"]["lint"]:
        assert f"\n.lint/bin/{requirement.split()[0]}" in commands, requirement


def test_every_process_gives_the_tests_the_same_names(request):
    """pytest-xdist ends a run whose processes differ, as by a time or an order of a set."""
    other_time = "import sys, time, pytest; time.time = lambda: 1.7e9; sys.exit(pytest.main())"
    run = subprocess.run(
        [sys.executable, "-c", other_time, "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT, env=environment(PYTHONHASHSEED="7"), text=True, capture_output=True,
    )
    names = {item.nodeid for item in request.session.items}
    assert not names - set(run.stdout.splitlines()), "tests with other names in another process"


def test_the_installed_command_is_the_command_line():
    module, name = PROJECT["project"]["scripts"]["ckd_ref"].split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_sdist_has_all_that_the_readme_speaks_of():
    included = PROJECT["tool"]["flit"]["sdist"]["include"]
    assert all((ROOT / name).exists() for name in included)
    linked = {target.split("#")[0] for _, _, target in RELATIVE.findall(README)}
    for target in linked - {"LICENSE", "README.md"}:
        assert target.startswith(tuple(included)), f"the README links {target}"
    assert {"tests/", "tutorials/", "data_tools/", "benchmarks/"} <= set(included)


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([a-z-]+): (.+)$", text, re.M))
    assert fields["version"] == ckd_ref.__version__
    assert fields["license"] == PROJECT["project"]["license"]
    assert datetime.date.fromisoformat(fields["date-released"]) >= datetime.date(2026, 1, 1)
    assert f"url: {PROJECT['project']['urls']['Paper']}" in text
    assert not re.search(r"TODO|FIXME|example\.|OWNER|your-", text), "a placeholder"


@pytest.mark.parametrize("text, expected", [
    ("[a](b/c.md#d)", "[a](https://host/us/blob/HEAD/b/c.md#d)"),
    ("![a, b](p.png)", "![a, b](https://host/us/raw/HEAD/p.png)"),
    ("[a](https://other/b) [c](#here)", "[a](https://other/b) [c](#here)"),
    ("[two\nlines](x.md)", "[two\nlines](https://host/us/blob/HEAD/x.md)"),
])
def test_links_of_a_release_are_absolute(text, expected):
    assert absolute(text, "https://host/us") == expected


def test_no_link_of_a_released_readme_is_relative():
    assert len(RELATIVE.findall(README)) > 20
    assert not RELATIVE.findall(absolute(README, "https://host/us"))
