"""Fixtures, the option --implementation, and the specification table that ends every run."""

import collections
import contextlib
import ctypes
import importlib
import multiprocessing
import os
import pathlib
import re
import signal
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")            # before numpy: bits and speed
# Many tests start Python: none of these processes should compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import numpy as np
import pytest
import subject
from assertions import relative_error as relative_error  # for `from conftest import`

from ckd_ref.run import pytest_option

# A background job of a shell, and its children, would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

GOLDEN = pathlib.Path(__file__).parent / "golden" / "golden.h5"
SHARED = pathlib.Path(
    os.environ.get("CKD_REF_SHARED", pathlib.Path(__file__).parents[2] / "shared")
)

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
    "TET": "temporal efficient training, and cross-entropy",
    "Tab. II": "alternatives to Eq. 9",
}

EQUATION_FILES = (
    "test_numerics.py", "test_neuron.py", "test_events.py", "test_similarity.py",
    "test_losses.py", "test_schedules.py",
)
"""The tests of the equations, in the order in which one builds on the other."""

LONGEST = "test_survival.py", "test_tutorials.py", "test_implementation.py"
"""Begun early, so that of two processes none is left with one of them at the end."""


def equation(test):
    """The row of the table that a test belongs to, by its name; None for all others."""
    name = re.match(r"test_(?:eq(\d\d)|(tet|cross_entropy)|(table_2|dkd|dist|luminet))_", test)
    if name is None:
        return None
    return int(name[1]) if name[1] else "TET" if name[2] else "Tab. II"


def pytest_addoption(parser):
    with contextlib.suppress(ValueError):                      # already there if it is installed
        pytest_option.pytest_addoption(parser)


def pytest_configure(config):
    config.addinivalue_line("markers", "package_only: not a test of other implementations")
    if config.option.implementation:
        try:
            subject.load(config.invocation_params.dir / config.option.implementation)
        except ValueError as error:
            raise pytest.UsageError(f"--implementation: {error}") from None


def pytest_make_parametrize_id(val):
    """Bytes are no name: those of a compressed file hold the time, and processes have to agree."""
    return "bytes" if isinstance(val, bytes) else None


def pytest_report_header(config):
    if config.option.implementation:
        names = [name for name in subject.NAMES if hasattr(subject.file, name)]
        return f"implementation under test: {subject.file.__file__}: {', '.join(names)}"


def pytest_ignore_collect(collection_path, config):
    """Another implementation is asked about the equations alone."""
    if config.option.implementation and collection_path.name.startswith("test_"):
        return collection_path.name not in EQUATION_FILES or None


def pytest_collection_modifyitems(config, items):
    """Equations first, in their order, so that the first failure names the one at fault."""
    if config.option.implementation:
        kept = [
            item for item in items
            if equation(item.name) and not item.get_closest_marker("package_only")
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Under ``-n 2`` a process takes a file at a time: fixtures of a file are made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False                     # the order of `place`
    return LoadFileScheduling(config, log)


def place(item):
    """Sorting key: shared helpers, Eqs. (1) to (4), classification, Eqs. (5) to (11), the rest."""
    if item.path.name not in EQUATION_FILES:
        return 100 + (item.path.name not in LONGEST), 0
    file = EQUATION_FILES.index(item.path.name)
    if file == 0:
        return 0, 0
    row = equation(item.name)
    return {"TET": 4.5, "Tab. II": 12, None: 99}.get(row, row), file


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The present folder can be written: by default, results go there."""
    monkeypatch.chdir(tmp_path)


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
def glyph_file(tmp_path_factory):
    """Three static images, two training and two test recordings of each glyph."""
    from ckd_ref.data import glyphs

    path = tmp_path_factory.mktemp("data") / "g.h5"
    return glyphs.build(path, teacher=2, static=3, events=2, test=2, size=16, progress=False)


@pytest.fixture
def glyph_data(glyph_file):
    from ckd_ref.data.paired import open_paired

    with open_paired(glyph_file) as data:
        yield data


@pytest.fixture
def random_logits(glyph_data):
    """What a teacher that knows nothing says of every image."""
    shape = len(glyph_data.image_label), len(glyph_data.classes)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="session")
def shared():
    """The folder of real recordings, which the project does not ship."""
    if not (SHARED / "data" / "nmnist").is_dir():
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


def environment(**more):
    """For a pytest that a test starts: without the user's own options and colours."""
    users = "PYTEST_ADDOPTS", "FORCE_COLOR"
    kept = {name: value for name, value in os.environ.items() if name not in users}
    return kept | {"PY_COLORS": "0", "OPENBLAS_NUM_THREADS": "1"} | more


def peak_memory(use):
    """By how many bytes a call raises the memory of its own process, C libraries included."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the memory of a process is measured by Linux's /proc alone")
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    status = pathlib.Path("/proc/self/status")

    def kilobytes(what):
        return int(status.read_text().split(f"{what}:")[1].split()[0])

    def measure():
        use()                                                  # loads the code that it runs
        # Freed memory would be used again unnoticed: return it first.
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.mallopt(-3, 2**17)                         # M_MMAP_THRESHOLD, its default
            library.malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak is what is there now
        before = kilobytes("VmRSS")
        use()
        send.send(1024 * (kilobytes("VmHWM") - before))

    process = context.Process(target=measure)
    process.start()
    send.close()                                               # the end of a failed call is noticed
    result = receive.recv()
    process.join()
    return result


def pytest_terminal_summary(terminalreporter, config):
    """One row per equation: how many of its tests passed, failed and were skipped, and why."""
    if config.option.collectonly:
        return
    count, first = collections.Counter(), {}
    for outcome, column in (("passed", 0), ("failed", 1), ("error", 1), ("skipped", 2)):
        for report in terminalreporter.stats.get(outcome, ()):
            test = report.nodeid.split("::", 1)[-1]
            row = equation(test)
            if row and getattr(report, "when", None) in ("setup", "call"):
                count[row, column] += 1
                if column == 1:
                    first.setdefault(row, in_words(row, test, report))
    terminalreporter.section("specification")
    heads = "".join(f"{head:>8}" for head in ("passed", "failed", "skipped"))
    terminalreporter.write_line(f"{'equation':<60}{heads}")
    for row, title in EQUATIONS.items():
        name = f"Eq. {row:>2}" if isinstance(row, int) else row
        numbers = "".join(f"{count[row, column]:>8}" for column in range(3))
        failed = row in first
        terminalreporter.write_line(f"{f'{name:<8}{title}':<60}{numbers}", red=failed)
        if failed:
            terminalreporter.write_line(f"        {first[row]}", red=True)


def in_words(row, test, report):
    """The first line of a failure; where it is not a sentence about the equation, with its test."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash else str(report.longrepr)
    line = message.strip().split("\n")[0].removeprefix("AssertionError: ")
    if isinstance(row, int) and not line.startswith("Eq. ("):
        return f"Eq. ({row}), {test}: {line}"
    return line
