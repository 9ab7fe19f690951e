"""Run pytest in forks of a process that has imported all libraries: a new package every time.

The process works in a private copy of the tree, see `start`.
"""

import gc
import importlib
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time

from faults import ROOT

LIBRARIES = (
    "pytest h5py matplotlib.pyplot PIL.Image tqdm autograd.numpy autograd.test_util "
    "scipy.integrate scipy.io scipy.ndimage scipy.signal scipy.special scipy.stats"
).split()
"""Imported once by every worker, not by every mutant."""

MEMORY = 8 << 30
"""Bytes of addresses that a mutant may have."""


class Failures:
    """A plugin of pytest: (test, first line of its message) of all that failed."""

    def __init__(self):
        self.found = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr).strip().split("\nE  ")[-1]
            line = text.strip().split("\n")[0][:300]
            self.found.append((report.nodeid, line.replace(f"{tree}{os.sep}", "")))

    pytest_collectreport = pytest_runtest_logreport


def start(top):
    """A copy of the tree, and a process in it that has imported everything but the package."""
    global tree
    tree = pathlib.Path(tempfile.mkdtemp(dir=top)) / ROOT.name
    skipped = shutil.ignore_patterns(".*", "__pycache__", "golden", "results*", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=skipped)
    (tree / "tests" / "golden").symlink_to(ROOT / "tests" / "golden")
    os.chdir(tree)
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(tree)}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"         # takes time to look for
    sys.path[0] = str(tree)                                    # instead of this file's folder
    sys.dont_write_bytecode = False
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def run_tests(names, deselected, timeout, *options):
    """Run files of tests in a fork: (exit code, failures as in `Failures`, seconds).

    The code is pytest's, or minus the number of a signal, or None when the time ran out.
    """
    begin = time.monotonic()
    report = tree.parent / "report.json"
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        run_in_child(names, deselected, options, report)
    status = 0, None
    try:
        while not status[0] and time.monotonic() < begin + timeout:
            time.sleep(0.005)
            status = os.waitpid(child, os.WNOHANG)
    finally:
        try:
            os.killpg(child, signal.SIGKILL)                   # with all that it started
        except ProcessLookupError:
            pass
        if not status[0]:
            os.waitpid(child, 0)
    seconds = time.monotonic() - begin
    if not status[0]:
        return None, [], seconds
    failures = json.loads(report.read_text()) if report.exists() else []
    return os.waitstatus_to_exitcode(status[1]), failures, seconds


def run_in_child(names, deselected, options, report):
    import pytest

    code = 3                                                   # as pytest's internal errors
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        scratch = tree.parent / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
        failures = Failures()
        files = [f"tests/test_{name}.py" for name in names]
        deselect = [f"--deselect={test}" for test in deselected]
        fixed = ["-q", "-p", "no:cacheprovider", f"--basetemp={scratch / 'pytest'}"]
        code = int(pytest.main([*fixed, *options, *files, *deselect], plugins=[failures]))
        package = sys.modules.get("ckd_ref")
        if package and not package.__file__.startswith(str(tree)):
            code, failures.found = 3, [("", f"the package came from {package.__file__}")]
        report.write_text(json.dumps(failures.found))
    finally:
        os._exit(code)
