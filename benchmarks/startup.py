"""What a new user waits for: import in a fresh process, embedded data set, tests, main job."""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import timing

ROOT = pathlib.Path(__file__).parents[1]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=11, help="fresh processes per import, in turn"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of BLAS")
    arguments = parser.parse_args()
    timing.set_threads(arguments.threads)
    print(timing.heading(("numpy", "torch")))
    print(timing.HEADER)
    ours = python("-c", "import ckd_ref; ckd_ref.train")  # names are loaded when first used
    imports = {"ours": ours, "torch": python("-c", "import torch")}
    print(timing.rows("import in a fresh process", timing.compare(imports, arguments.rounds)))
    with tempfile.TemporaryDirectory() as folder:
        build = (
            "from ckd_ref.data import glyphs; "
            f"glyphs.build({str(pathlib.Path(folder, 'glyphs.h5'))!r}, progress=False)"
        )
        once("glyphs, the embedded data set: 3240 pictures, 540 recordings", python("-c", build))
        once(
            "the main job (`python -m ckd_ref`), its data made anew",
            python(
                "-m", "ckd_ref", "--out", str(pathlib.Path(folder, "results")),
                XDG_CACHE_HOME=folder,
            ),
        )
    once("the tests (`python -m pytest -n 2`)", python("-m", "pytest", "-q", "-n", "2"))


def python(*arguments, **environment):
    """A function that runs this Python in the project's folder and fails if that does."""
    return lambda: subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | environment, check=True,
        stdout=subprocess.DEVNULL,
    )


def once(what, run):
    (seconds,) = timing.compare({"ours": run}, rounds=1, warm_up=False)["ours"]
    print(timing.row(what, f"{seconds:.1f} s"), flush=True)


if __name__ == "__main__":
    main()
