"""Testing other implementations: each wrong version is found, by its equation and in words."""

import itertools
import os
import pathlib
import re
import subprocess
import sys

import pytest
import subject
from conftest import environment

TESTS = pathlib.Path(__file__).parent

FAULTS = [
    # row, function, what is wrong with it, what the table says
    (1, "lif", "step=lambda tau, u, x: u + tau * x", "must be halved at every step"),
    (1, "lif", "step=lambda tau, u, x: tau * (u + x)", "inputs must be added in full"),
    (1, "lif", "step=lambda tau, u, x: tau * u - x", "inputs must be added in full"),
    (2, "spike", "fires=lambda v: v >= 0", "must fire strictly above its threshold, H(0) = 0"),
    (2, "spike", "fires=lambda v: v < 0", "must fire strictly above its threshold, H(0) = 0"),
    (2, "spike", "fires=np.sign", "must fire strictly above its threshold, H(0) = 0"),
    (2, "lif", "fires=lambda v: v >= 0", "potentials at, just above and just below"),
    (3, "lif", "keep=lambda u, s: u", "must start from 0 (hard reset)"),
    (3, "lif", "keep=lambda u, s: u - s", "must start from 0 (hard reset)"),
    (3, "lif", "keep=lambda u, s: u * s", "must start from 0 (hard reset)"),
    (3, "lif", "keep=lambda u, s: -u * (1 - s)", "must start from 0 (hard reset)"),
    (4, "bin_events", "lose_last=True", "all 4 events must be counted, the last one included"),
    (4, "bin_events", "binary=True", "all 4 events must be counted"),
    (4, "bin_events", "swap_axes=True", "each event counts in [its window, its row y"),
    (4, "bin_events", "flip_polarity=True", "each event counts in [its window, its row y"),
    (4, "bin_events", "edge_before=True", "each event counts in [its window, its row y"),
    (5, "linear_cka", "centre=lambda X: X", "features whose mean over the samples is removed"),
    (5, "linear_cka", "centre=lambda X: X - X.mean(1, keepdims=True)", "CKA is <K, L> / (|K| |L|)"),
    (5, "linear_cka", "power=1", "with square roots in the norms"),
    (5, "linear_cka", "number=lambda K, L: np.trace(K) * np.trace(L)", "CKA compares features"),
    (5, "linear_cka", "outcome=lambda cka: 1 - cka", "mean over the samples is removed"),
    (5, "linear_cka", "outcome=lambda cka: -cka", "the result is the negative of the expected"),
    (5, "domain_alignment_loss", "over_time=lambda x: 1 - mean(x)", "the result is 1 minus the"),
    (5, "domain_alignment_loss", "over_time=np.sum", "off by a factor of 3 = T"),
    (5, "domain_alignment_loss",
     "distances=lambda s, d, eps: 1 - linear_cka(np.hstack(s), np.hstack(d))[None]",
     "L_DA is the mean over time of 1 - CKA"),
    (5, "domain_alignment_loss",
     "distances=lambda s, d, eps: 1 - np.array([linear_cka(s.mean(0), d.mean(0))])",
     "L_DA is the mean over time of 1 - CKA"),
    (6, "domain_alignment_loss", "weigh=lambda theta: theta", "weighted by sigmoid(theta_t)"),
    (6, "domain_alignment_loss", "weigh=lambda theta: 1 - sigmoid(theta)", "by sigmoid(theta_t)"),
    (6, "domain_alignment_loss", "weigh=lambda theta: 1 + 0 * theta", "by sigmoid(theta_t)"),
    (6, "domain_alignment_loss",
     "weigh=lambda theta: 2 * np.exp(theta) / np.sum(np.exp(theta))", "by sigmoid(theta_t)"),
    (6, "domain_alignment_loss", "weigh=lambda theta: sigmoid(mean(theta))", "sigmoid(theta_t)"),
    (7, "ckd_loss", "cls_e_counts=2", "+ ln 2 / 4 (L_cls-e)"),
    (7, "ckd_loss", "cls_e_counts=0", "+ ln 2 / 4 (L_cls-e)"),
    (7, "ckd_loss", "cls_e_counts=-1", "+ ln 2 / 4 (L_cls-e)"),
    (7, "ckd_loss", "alpha_counts=False", "2 ln 2 (alpha L_cls-s)"),
    (7, "ckd_loss", "beta_counts=False", "3/8 (beta L_DA)"),
    (7, "ckd_loss", "weigh=lambda theta: theta", "3/8 (beta L_DA)"),
    (7, "ckd_loss", "weigh=lambda theta: sigmoid(-theta)", "3/8 (beta L_DA)"),
    (8, None, "replacement_probability(b, e, bl, n, power=3): return (b + e * bl) / (n * bl)",
     "P is the share of training done, cubed: batch 6 of 12"),
    (8, None, "replacement_probability(b, e, bl, n, power=3): "
     "return (b + 1 + e * bl) / (n * bl) ** power", "the share of training done, cubed"),
    (8, None, "replacement_probability(b, e, bl, n, power=3): "
     "return ((b + 1 + e * bl) / (n * bl)) ** power", "the share of training done, cubed"),
    (8, None, "replacement_probability(b, e, bl, n, power=3): return (e / n) ** power",
     "the share of training done, cubed"),
    (8, None, "replacement_probability(b, e, bl, n, power=3): "
     "return 1 - ((b + e * bl) / (n * bl)) ** power", "the share of training done, cubed"),
    (8, None, "replacement_probability(b, e, bl, n, power=3): "
     "return ((b * n + e) / (n * bl)) ** power", "the share of training done, cubed"),
    (8, None, "replacement_probability(b, e, bl, n, power=3): "
     "return -((b + e * bl) / (n * bl)) ** power", "the result is the negative of the expected"),
    (9, "kd_loss", "power=0", "off by a factor of 0.25 = 1 / (temperature^2)"),
    (9, "kd_loss", "power=1", "off by a factor of 0.5"),
    (9, "kd_loss", "soften=False", "temperature^2 times the mean over the batch of KL"),
    (9, "kd_loss", "over_batch=np.sum", "by a factor of 2 = temperature = batch size = classes"),
    (9, "kd_loss", "swap=True", "KL(teacher || student)"),
    (9, "kd_loss", "sign=-1", "the result is the negative of the expected one"),
    (10, None, "phase_weight(e, threshold, k): return expit(k * (e - threshold))",
     "gamma must fall through 1/2 at the threshold"),
    (10, None, "phase_weight(e, threshold, k): return expit(-k * (e + threshold))",
     "gamma must fall through 1/2 at the threshold"),
    (10, None, "phase_weight(e, threshold, k): return expit(-(e - threshold) / k)",
     "gamma must fall through 1/2 at the threshold"),
    (10, None, "phase_weight(e, threshold, k): return 1.0 * (e < threshold)",
     "gamma must fall through 1/2 at the threshold"),
    (10, None, "phase_weight(e, threshold, k): return -expit(-k * (e - threshold))",
     "the result is the negative of the expected one"),
    (11, "ckd_loss", "gamma_of=lambda gamma: -gamma", "a teacher adds gamma L_KD to the total"),
    (11, "ckd_loss", "gamma_of=lambda gamma: 1.0", "off by a factor of 3.33333 = 1 / (gamma)"),
    (11, "ckd_loss", "distil=lambda t, s, e, tau: right.kd_loss(t, mean(e, 0), tau)",
     "the L_KD is that of loops"),
    (11, "ckd_loss",
     "distil=lambda t, s, e, tau: mean(np.stack([right.kd_loss(t, z, tau) for z in s]))",
     "compares the teacher with the static logits' mean over time"),
    (11, "ckd_loss", "distil=lambda t, s, e, tau: right.kd_loss(t, np.sum(s, 0), tau)",
     "the L_KD is that of loops"),
    (11, "ckd_loss", "distil=lambda t, s, e, tau: right.kd_loss(mean(s, 0), t, tau)",
     "compares the teacher with the static logits' mean over time"),
    ("TET", None, "tet_loss(*args, **kwargs): return tet_of_the_mean(*args, **kwargs)",
     "every time step must be classified, not their mean output"),
]
"""Every wrong version that the tests of equations reject, as a change of another_implementation."""

PLAIN_NUMPY = '''
import numpy as np


def surrogate_grad(v, surrogate="triangle", width=1.0):
    if surrogate != "triangle":
        raise ValueError(f"unknown surrogate {surrogate}")
    return np.maximum(1 - abs(v) / width, 0) / width


def spike(v, surrogate="triangle", width=1.0):
    return (v > 0).astype(v.dtype)


def spike_grad(g, v, surrogate="triangle", width=1.0):
    return (g * surrogate_grad(v, surrogate, width),)


def lif(current, tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True):
    u = np.zeros_like(current)
    for t in range(len(current)):
        u[t] = current[t]
        if t:
            u[t] += tau * u[t - 1] * (u[t - 1] <= v_th)
    return spike(u - v_th), u


def lif_grad(
    g, current, tau=0.5, v_th=1.0, surrogate="triangle", width=1.0, detach_reset=True
):
    s, u = lif(current, tau, v_th)
    slope = surrogate_grad(u - v_th, surrogate, width)
    du = g[0] * slope + g[1]
    for t in reversed(range(len(u) - 1)):
        kept = 1 - s[t] if detach_reset else 1 - s[t] - u[t] * slope[t]
        du[t] += tau * kept * du[t + 1]
    return (du,)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def kd_loss(teacher, student, temperature=4.0):
    log_p, log_q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    return float((np.exp(log_p) * (log_p - log_q)).sum(1).mean() * temperature**2)


def kd_loss_grad(g, teacher, student, temperature=4.0):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    gap = log_softmax(teacher / temperature) - log_softmax(student / temperature)
    scale = g * temperature / len(p)
    return scale * p * (gap - (p * gap).sum(1, keepdims=True)), scale * (q - p)


def linear_cka(X, Y, debiased=False, eps=0.0):
    if debiased:
        raise NotImplementedError("debiased")
    X, Y = np.array(X, X.dtype), np.array(Y, Y.dtype)
    X, Y = X - X[0], Y - Y[0]
    X, Y = X - X.mean(0), Y - Y.mean(0)
    K, L = X @ X.T, Y @ Y.T
    norms = np.sqrt((K * K).sum() * (L * L).sum())
    return (K * L).sum() / (norms + eps + (norms == 0))
'''
"""No autograd; `linear_cka` is not debiased and has no gradient."""

ONLY_KD = "from another_implementation import kd_loss\n"

WRONG_GRADIENT = PLAIN_NUMPY.replace("scale * (q - p)", "scale * (p - q)").replace(
    "kept = 1 - s[t] if detach_reset else", "kept =").replace(
    "return (g * surrogate_grad(v, surrogate, width),)", "return (0 * v,)")

NO_SURROGATE = '''
import autograd.numpy as np


def spike(v, surrogate="triangle", width=1.0):
    return (v > 0) * 1.0


from another_implementation import surrogate_grad
'''


def share_files():
    """Faults that do not disturb each other: one of a row and of a function in a file.

    The two rows of `ckd_loss` do not: Eq. (7) has no teacher, Eq. (11) looks at what one adds.
    """
    files = []
    for fault in FAULTS:
        row, function, *_ = fault
        for file in files:
            rows = [other[0] for other in file]
            functions = [other[1] for other in file if other[1] not in (None, "ckd_loss")]
            if row not in rows and function not in functions:
                file.append(fault)
                break
        else:
            files.append([fault])
    return files


def source(faults):
    text = "import another_implementation as right\nfrom another_implementation import *\n"
    options = {}
    for _, function, change, _ in faults:
        if function is None:
            text += f"def {change}\n"
        else:
            options.setdefault(function, []).append(change)
    for function, changes in options.items():
        text += f"{function} = make_{function}({', '.join(changes)})\n"
    return text


FILES = share_files()

OTHERS = {
    "right.py": "from another_implementation import *\n",
    "right_eq06.py": "from another_implementation import *\n",
    "package.py": f"from ckd_ref import {', '.join(subject.NAMES)}\n",
    "plain_numpy.py": PLAIN_NUMPY,
    "only_kd.py": ONLY_KD,
    "wrong_gradient.py": WRONG_GRADIENT,
    "no_surrogate.py": NO_SURROGATE,
    "one_page.py": (TESTS.parent / "tutorials" / "ckd_in_one_file.py").read_text(encoding="utf-8"),
}


RUNNER = """
import os, sys
import autograd.test_util, h5py, pytest, scipy.integrate, scipy.ndimage, scipy.signal, scipy.stats

for file, tests in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.fork() == 0:
        output = os.open(f"{file}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = pytest.main([
            "-q", "-rs", "--tb=no", f"--implementation={file}", "-p", "no:cacheprovider",
            "-p", "no:unraisableexception",  # it collects garbage, which takes longest
            *(["-k", tests] if tests else [])])
        sys.stdout.flush()
        os._exit(code)
    with open(f"{file}.code", "w") as code:
        code.write(str(os.waitstatus_to_exitcode(os.wait()[1])))
"""
"""Tests one file after the other, each in a process that has its libraries already."""

CHOSEN = {
    "plain_numpy.py": "eq01 or eq02 or eq03 or eq05 or eq09",
    "right_eq06.py": "eq06",
    "wrong_gradient.py": "eq02 or eq03 or eq09",
    "no_surrogate.py": "eq02",
}
FIRST = "by_hand or eq02_neuron or mean_output or equals_the_sum_of_loops"
"""Which tests a file meets, if not all. Those of faults meet the first of each equation, where they
must be found."""


def start(*arguments):
    """Begin to run Python where it finds the tests and the package."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=TESTS.parent, env=environment(PYTHONPATH=path, COLUMNS="200"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )


def start_pytest(file):
    return start("-m", "pytest", "-q", "--tb=no", f"--implementation={file}")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Exit code and output of pytest for every file, by its name."""
    if not hasattr(os, "fork"):
        pytest.skip("files are tested in forked processes")
    folder = tmp_path_factory.mktemp("implementations")
    texts = OTHERS | {f"faults_{i}.py": source(faults) for i, faults in enumerate(FILES)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    chosen = CHOSEN | {name: FIRST for name in texts if name.startswith("faults")}
    asked = [(str(folder / name), chosen.get(name, "")) for name in texts]
    process = start("-c", RUNNER, *itertools.chain(*asked))
    output, _ = process.communicate()
    assert process.returncode == 0, output

    def report(name):
        code, text = (folder / f"{name}.{end}" for end in ("code", "txt"))
        return int(code.read_text()), text.read_text()

    return {name: report(name) for name in texts}


def row_of(output, row):
    """Numbers of tests passed, failed and skipped, and the line under the row."""
    name = f"Eq. {row:>2}" if isinstance(row, int) else row
    line = re.search(rf"^{re.escape(name)} .*?(\d+) +(\d+) +(\d+)\n(.*)", output, re.MULTILINE)
    assert line, f"no row {name} in\n{output}"
    return [int(number) for number in line.groups()[:3]], line[4].strip()


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{row}-{change}" for row, _, change, _ in FAULTS])
def test_a_wrong_version_is_found_by_its_equation(reports, fault):
    row, _, change, words = fault
    file = next(i for i, faults in enumerate(FILES) if fault in faults)
    code, output = reports[f"faults_{file}.py"]
    (_, failed, _), sentence = row_of(output, row)
    assert code == pytest.ExitCode.TESTS_FAILED, f"exit code {code}\n{output}"
    assert failed > 0, f"{change}: no test of row {row} failed"
    start = f"Eq. ({row}): " if isinstance(row, int) else f"{row}: "
    assert sentence.startswith(start), f"{change}: expected a sentence on {row}, got {sentence!r}"
    assert words in sentence, f"{change}: expected {words!r} in {sentence!r}"
    assert "expected " in sentence and "got " in sentence, sentence


@pytest.mark.parametrize("name", ["right.py", "one_page.py"])
def test_a_right_implementation_passes(reports, name):
    """The second is the tutorial that has the whole paper in one file."""
    code, output = reports[name]
    assert code == pytest.ExitCode.OK, output
    for row in range(1, 12):
        (passed, failed, _), _ = row_of(output, row)
        assert passed > 3 and failed == 0, f"Eq. ({row}): {passed} passed, {failed} failed"


def test_the_package_as_another_implementation_passes_without_a_skip(reports):
    code, output = reports["package.py"]
    assert code == pytest.ExitCode.OK, output
    for row in [*range(1, 12), "TET", "Tab. II"]:
        (passed, failed, skipped), _ = row_of(output, row)
        assert passed > 5 and failed == skipped == 0, f"{row}: {failed} failed, {skipped} skipped"


@pytest.mark.parametrize("reason", [
    "right.py: surrogate_grad does not have this option (no surrogate fast_sigmoid)",
    "right.py: lif does not have this option (no surrogate fast_sigmoid)",
    "right.py: bin_events does not have this option (rule tonic)",
    "unexpected keyword argument 'kd_per_step')",
    "right.py defines no dkd_loss",
])
def test_missing_options_are_skipped_with_their_reason(reports, reason):
    assert reason in reports["right.py"][1]


def test_missing_functions_are_skipped(reports):
    code, output = reports["only_kd.py"]
    assert code == pytest.ExitCode.OK, output
    for row in range(1, 12):
        (passed, failed, skipped), _ = row_of(output, row)
        assert failed == 0 and (passed > 10) == (row == 9), f"Eq. ({row}): {passed} passed"
        assert skipped > 0 or row == 9, f"Eq. ({row}): nothing was skipped"
    assert "only_kd.py defines no lif" in output


def test_gradients_without_autograd(reports):
    code, output = reports["plain_numpy.py"]
    assert code == pytest.ExitCode.OK, output
    for row, least in ((1, 10), (2, 15), (3, 15), (9, 20)):
        (passed, failed, _), _ = row_of(output, row)
        assert passed >= least and failed == 0, f"Eq. ({row}): {passed} passed, {failed} failed"
    (passed, failed, skipped), _ = row_of(output, 5)
    assert passed > 3 and skipped > 20, f"Eq. (5): {passed} passed, {skipped} skipped"
    assert "autograd cannot trace linear_cka, and there is no linear_cka_grad" in output


@pytest.mark.parametrize("row, words", [
    (2, "the spike's gradient with the surrogate"),
    (3, "the gradients are those of"),
    (9, "grad_student; expected"),
])
def test_a_wrong_gradient_is_found(reports, row, words):
    code, output = reports["wrong_gradient.py"]
    (_, failed, _), sentence = row_of(output, row)
    assert code == pytest.ExitCode.TESTS_FAILED and failed > 0, output
    assert words in sentence, sentence


def test_a_spike_without_surrogate_is_found_under_autograd(reports):
    """The gradient of the comparison is 0, which is a wrong number and not a missing gradient."""
    code, output = reports["no_surrogate.py"]
    (_, failed, _), sentence = row_of(output, 2)
    assert code == pytest.ExitCode.TESTS_FAILED and failed > 0, output
    assert "the spike's gradient with the surrogate" in sentence, sentence


def test_one_equation_alone(reports):
    code, output = reports["right_eq06.py"]
    assert code == pytest.ExitCode.OK, output
    assert row_of(output, 6)[0] == [6, 0, 1] and row_of(output, 9)[0] == [0, 0, 0], output


@pytest.mark.parametrize("text, message", [
    (None, "expected a Python file, got "),
    ("x = 1\n", "defines none of check_events, bin_events, "),
    ("raise SystemExit('no GPU')\n", "SystemExit: no GPU"),
    ("class kd_loss:\n    pass\n", "expected kd_loss to be a function, got <class "),
    ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
])
def test_a_file_that_cannot_be_tested_is_refused(tmp_path, text, message):
    file = tmp_path / "file.py"
    if text is not None:
        file.write_text(text)
    process = start_pytest(file)
    output, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.USAGE_ERROR, output
    assert message in output, output
