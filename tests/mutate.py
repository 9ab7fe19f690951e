"""Do the tests notice faults? Make one small fault in the package, run the tests, count.

    python tests/mutate.py --mutants 700 --seed 0 --workers 2 --files neuron losses --out X.jsonl

`faults` makes the mutants. Each runs in a private copy of the tree, first against the tests in
`OWN` that should notice it, then against all others that run the package (all but `APART`). Tests
that fail without any fault are named at the start and left out. Needs POSIX: fork and signals.

Mutants whose line is in --out already are not run again: remove lines to repeat them, for example
those that survived after a test was added, and all of them after a change of the package.
"""

import argparse
import collections
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile

import forks
import tqdm
from faults import ROOT, mutants_of, with_fault

OWN = {
    "events": "events", "color": "color", "neuron": "neuron fused",
    "similarity": "similarity losses", "losses": "losses", "distillation": "distillation losses",
    "table1": "table1", "_numerics": "numerics losses", "schedules": "schedules",
    "batches": "batches training table1",
    "models": "models training", "training": "training table1", "teacher": "teacher training",
    "config": "config training", "nn/blocks": "layers fused winograd",
    "nn/conv": "conv layers winograd", "nn/fused": "fused", "nn/layers": "layers fused",
    "nn/norm": "norm layers fused", "nn/optim": "optim", "nn/winograd": "winograd",
}
"""Files of the package, and the tests that should notice their faults."""

APART = set(
    "architecture benchmarks camera cepdvs convert data files film folders fuzz_files glyphs hdf5 "
    "info ncaltech101 nmnist pairing readers readme survival teacher_logits tutorials".split()
)
"""Tests of data, programs and texts, which are not run."""

PLACE = ("file", "line", "column", "kind", "before", "after")

def without_fault(name):
    code, failures, seconds = forks.run_tests([name], [], 600)
    return name, code, failures, seconds


def with_one(mutant, own, others, deselected, seconds):
    """The mutant's line of results."""
    source, copy = ROOT / mutant["file"], forks.tree / mutant["file"]
    text = with_fault(source.read_bytes(), mutant)
    result = {key: mutant[key] for key in PLACE} | {"outcome": "survived", "seconds": 0}
    try:
        copy.write_bytes(text)
        # No two mutants have a time in common, so compiled code of another is never taken.
        os.utime(copy, (mutant["number"],) * 2)
        for names in filter(None, (own, others)):
            limit = min(60, 10 + 10 * sum(seconds[name] for name in names))
            code, failures, spent = forks.run_tests(names, deselected, limit, "-x")
            result["seconds"] = round(result["seconds"] + spent, 2)
            if code not in (0, 5):
                break
    finally:
        shutil.copy2(source, copy)
    if code is None:
        result["outcome"] = "timeout"
    elif code < 0:
        result |= {"outcome": "killed", "message": f"the process died of signal {-code}"}
    elif code not in (0, 5):
        test, message = failures[0] if failures else ("", f"pytest ended with {code}")
        result |= {"outcome": "killed" if test else "error", "test": test, "message": message}
        number = re.search(r"::test_eq(\d\d)_", test)
        if number and mutant["equations"]:
            result["equation_matches"] = int(number[1]) in mutant["equations"]
    return result


def place(line):
    return tuple(line[key] for key in PLACE)


def measure(mutants, workers, record):
    """Run mutants; `record` is called with each line of results."""
    context = multiprocessing.get_context("fork")
    found = {path.stem[5:] for path in (ROOT / "tests").glob("test_*.py")} - APART
    with tempfile.TemporaryDirectory() as top:
        pool = concurrent.futures.ProcessPoolExecutor(workers, context, forks.start, (top,))
        try:
            seconds, deselected = {}, []
            for name, code, failures, spent in pool.map(without_fault, sorted(found)):
                broken = code not in (0, 1) or not failures and code
                if not broken:
                    seconds[name] = spent
                    deselected += [test for test, _ in failures]
                for test, message in failures or [(f"test_{name}.py", f"code {code}")] * broken:
                    print(f"left out, fails without a fault: {test}: {message}")
            jobs = []
            for mutant in mutants:
                own = OWN[mutant["file"][len("ckd_ref/"):-len(".py")]].split()
                own = [name for name in own if name in seconds]
                others = sorted(seconds.keys() - set(own), key=seconds.get)
                jobs.append(pool.submit(with_one, mutant, own, others, deselected, seconds))
            finished = concurrent.futures.as_completed(jobs)
            for job in tqdm.tqdm(finished, total=len(jobs), disable=None):
                record(job.result())
        finally:
            pool.shutdown(cancel_futures=True)


def summary(lines):
    table = collections.defaultdict(collections.Counter)
    for line in lines:
        table[line["file"]][line["outcome"]] += 1
    columns = ("killed", "timeout", "survived", "error")
    print("\n" + f"{'file':<28}{'sampled':>9}" + "".join(f"{name:>9}" for name in columns))
    table["all"] = sum(table.values(), collections.Counter())
    for file, count in sorted(table.items(), key=lambda item: (item[0] == "all", item[0])):
        numbers = [count.total(), *(count[name] for name in columns)]
        print(f"{file:<28}" + "".join(f"{number:>9}" for number in numbers))
    matches = [line["equation_matches"] for line in lines if "equation_matches" in line]
    print(f"killed by a test of an equation: {len(matches)}, of the same one: {sum(matches)}")
    imports = sum("::" not in line.get("test", "::") for line in lines)
    print(f"killed when the tests were imported: {imports}")
    for line in sorted(lines, key=place):
        where = f"{line['file']}:{line['line']}: {line['kind']}"
        if not line.get("equation_matches", True):
            print(f"\n{where}: another equation's test fails, {line['test']}")
        elif line["outcome"] in ("survived", "error"):
            print(f"\n{where}: {line['outcome']} {line.get('message', '')}")
        else:
            continue
        before, after = (" ".join(line[key].split()) for key in ("before", "after"))
        print(f"    {source_line(line)}\n    {before}  ->  {after}")


def source_line(line):
    return (ROOT / line["file"]).read_text(encoding="utf-8").splitlines()[line["line"] - 1].strip()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--files", nargs="+", choices=OWN, default=list(OWN), metavar="NAME")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))      # so that the copies are removed
    every = [mutant for name in options.files for mutant in mutants_of(name)]
    sample = random.Random(options.seed).sample(every, min(options.mutants, len(every)))
    print(f"{len(sample)} of {len(every)} mutants of {len(options.files)} files")
    for number, mutant in enumerate(sample, 1):
        mutant["number"] = number
    done = {}
    if options.out and options.out.exists():
        done = {place(line): line for line in map(json.loads, options.out.read_text().splitlines())}

    def record(line):
        done[place(line)] = line
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")

    measure([mutant for mutant in sample if place(mutant) not in done], options.workers, record)
    summary([done[place(mutant)] for mutant in sample])


if __name__ == "__main__":
    main()
