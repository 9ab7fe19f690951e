"""Fixtures, and the specification table that ends every run."""

import collections
import importlib
import multiprocessing
import os
import pathlib
import re
import signal
import sys

import numpy as np
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)       # a background job of a shell and its children ignore it

GOLDEN = pathlib.Path(__file__).parent / "golden" / "golden.h5"
SHARED = pathlib.Path(os.environ.get("CKD_REF_SHARED", pathlib.Path(__file__).parents[2] / "shared"))

EQUATIONS = {
    1: "membrane potential: leak and input",
    2: "spike: the threshold and its surrogate gradient",
    3: "membrane potential with hard reset",
    4: "event stream, and the frames made of it",
    5: "domain alignment by CKA",
    6: "domain alignment with learned coefficients",
    7: "loss of the baseline",
    8: "probability of replacement",
    9: "knowledge distillation",
    10: "phase weight of the distillation",
    11: "loss of CKD",
}


@pytest.fixture
def rng():
    return np.random.default_rng(20250712)


@pytest.fixture(scope="session")
def golden():
    """Values made by the original functions; see golden/README.md."""
    import h5py

    with h5py.File(GOLDEN) as file:
        yield file


@pytest.fixture(scope="session")
def shared():
    """The folder of real recordings, which the project does not ship."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real recordings at {SHARED / 'data'} (CKD_REF_SHARED names their folder)")
    return SHARED


@pytest.fixture
def small_disk():
    """A function that limits the size of files."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def converter():
    """A function that imports a program of data_tools by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pathlib.Path(__file__).parents[1] / "data_tools")
        yield importlib.import_module


def golden_keys(group, pattern=""):
    """Names in a group of the golden file that match a pattern, for `pytest.mark.parametrize`."""
    import h5py

    with h5py.File(GOLDEN) as file:
        return [name for name in file[group] if re.match(pattern, name)]


def relative_error(result, reference):
    """Largest difference over the reference's largest magnitude; an all-zero reference must be met exactly."""
    result, reference = np.asarray(result), np.asarray(reference)
    assert result.shape == reference.shape, f"shape {result.shape}, expected {reference.shape}"
    return np.max(np.abs(result - reference)) / max(np.max(np.abs(reference)), np.finfo(float).tiny)


def peak_memory(use):
    """By how many bytes a call raises the memory of a process of its own, libraries in C included."""
    if sys.platform != "linux":
        pytest.skip("memory of processes is measured on Linux only")
    import resource

    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)

    def measure():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            use()
        finally:
            send.send(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))

    process = context.Process(target=measure)
    process.start()
    result = receive.recv()
    process.join()
    return result


def pytest_terminal_summary(terminalreporter, config):
    """One row per equation: how many of the tests named after it passed, failed and were skipped."""
    if config.option.collectonly:
        return
    count = collections.Counter()
    for outcome, column in (("passed", 0), ("failed", 1), ("error", 1), ("skipped", 2)):
        for report in terminalreporter.stats.get(outcome, ()):
            name = re.search(r"::test_eq(\d\d)_", report.nodeid)
            if name and getattr(report, "when", None) in ("setup", "call"):
                count[int(name[1]), column] += 1
    terminalreporter.section("specification")
    terminalreporter.write_line(f"{'equation':<60}{'passed':>8}{'failed':>8}{'skipped':>8}")
    for n, title in EQUATIONS.items():
        row = "".join(f"{count[n, column]:>8}" for column in range(3))
        terminalreporter.write_line(f"{f'Eq. {n:>2}  {title}':<60}{row}", red=bool(count[n, 1]))
