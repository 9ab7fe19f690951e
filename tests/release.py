"""Build the sdist and the wheel for a package index, where links need a host.

    python tests/release.py ADDRESS

ADDRESS is that of the public repository. In a copy of the last commit it becomes a link of the
project, and the README's relative links and pictures lead there. The two files are built into
`dist` and checked. Needs the extra "release".
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
RELATIVE = re.compile(r"(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)]+)\)")
"""A link or picture of this repository: its mark "!", text and target."""


def absolute(text, address):
    """The text with its relative links and pictures led to a repository's address."""
    def link(match):
        mark, label, target = match.groups()
        return f"{mark}[{label}]({address}/{'raw' if mark else 'blob'}/HEAD/{target})"

    return RELATIVE.sub(link, text)


def main(address):
    address = address.rstrip("/")
    run = [sys.executable, "-m"]
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, "ckd_ref")
        subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True)
        readme, project = copy / "README.md", copy / "pyproject.toml"
        readme.write_text(absolute(readme.read_text("utf-8"), address), "utf-8")
        table = "[project.urls]\n"
        added = project.read_text("utf-8").replace(table, f'{table}Source = "{address}"\n')
        project.write_text(added, "utf-8")
        subprocess.run([*run, "build", "--outdir", ROOT / "dist", copy], check=True)
    built = sorted((ROOT / "dist").iterdir())
    subprocess.run([*run, "twine", "check", "--strict", *built], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
