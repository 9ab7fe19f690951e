"""Tables and figures of finished runs, from their lines alone."""

import bisect
import math
import os
import pathlib
import re
import tomllib

from scipy import stats

from ..config import Config
from ..data.files import atomic_write
from . import plots
from .sweep import LADDER, read_lines, read_spec, spec_fields

SPREAD = 0.04
"""Standard deviation between seeds of the difference of two variants on the digits, from the
validation runs of tutorials/protocol.md: what a single seed cannot show."""

STEPS = {
    "static": ("static", "events"),
    "transfer": ("transfer", "static"),
    "ckd": ("ckd", "transfer"),
    "published": ("ckd", "published"),
}
"""What is compared on the ladder, by the variant in whose row it stands."""


MADE = "Made by `python -m ckd_ref report`"
"""How a report is known."""

HEAD = f"""# Results

{MADE} from the lines in this folder, one for each run, which the
commands below repeat. ± is a 95 % confidence interval over seeds, p is from a paired t-test;
accuracies are final ones, in percent of the test recordings; times are those of several machines.

![Differences](differences.png)
"""


def report(folder: str | os.PathLike) -> str:
    """Write ``README.md`` and two pictures from the sweeps in a folder.

    ``differences.png`` has the steps of the ladders and the leaky splits, ``regimes.png`` the map
    of every data set on which the size of the network, of the pools or of the training varies.

    Parameters
    ----------
    folder : path
        With ``NAME.toml`` and ``NAME.jsonl`` of every sweep. Variants of different sweeps on data
        of one name are compared with each other.

    Returns
    -------
    text : str, Markdown
    """
    folder = pathlib.Path(folder)
    readme = folder / "README.md"
    if readme.exists() and MADE not in readme.read_text(encoding="utf-8", errors="replace"):
        raise FileExistsError(
            f"{readme} is no report; move it away, or give the sweeps a folder of their own"
        )
    lines = read_folder(folder)
    text = report_text(folder, lines)
    found = [(label, values, *interval(values)) for label, values in all_differences(lines)]
    plots.differences(folder / "differences.png", found)
    if regimes := all_regimes(lines):
        plots.regimes(folder / "regimes.png", [
            (data, cell, {label: interval(values) for label, values in steps.items()})
            for data, cell, steps in regimes
        ])
    with atomic_write(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def read_folder(folder: str | os.PathLike) -> list[dict]:
    """The lines of all sweeps in a folder."""
    folder, lines = pathlib.Path(folder), []
    for path in _specs(folder):
        lines += read_lines(path.with_suffix(".jsonl"))
    if not lines:
        raise FileNotFoundError(f"{folder}: expected NAME.toml and NAME.jsonl of a sweep, got none")
    return lines


def _specs(folder):
    """Files of the sweeps in a folder that have lines."""
    return sorted(path for path in folder.glob("*.toml") if path.with_suffix(".jsonl").exists())


def report_text(folder: pathlib.Path, lines: list[dict]) -> str:
    """A section for every sweep of a folder, one on leaky splits, one on regimes, in Markdown.

    A sweep whose runs are all in the map of regimes has no section of its own.
    """
    sections, grids = [HEAD], []
    mapped = {data for data, *_ in all_regimes(lines)}
    for path in _specs(folder):
        jobs = read_spec(path)
        spec = tomllib.loads(path.read_text(encoding="utf-8"))
        command = f"`python -m ckd_ref sweep {path.name} --out OUT`"
        shown = [*spec.get("beside", []), *dict.fromkeys(job.variant for job in jobs)]
        shown.sort(key=lambda name: [*LADDER, name].index(name))
        seeds = {job.config.seed for job in jobs}
        chosen = [
            line for line in lines
            if line["data"] in spec["data"] and line["variant"] in shown and line["seed"] in seeds
        ]
        if spec_fields(spec) and all(line["data"] in mapped and _rung(line) for line in chosen):
            grids.append(command)
            continue
        chosen.sort(key=lambda line: shown.index(line["variant"]))
        table = variants_table(chosen, spec.get("reference"))
        sections.append(f"## {spec.get('title', path.stem)}\n\n{command}\n\n{table}")
    if leakage := leakage_table(lines):
        sections.append(f"## What a leaky split gives\n\n{leakage}")
    if regimes := regimes_table(lines):
        commands = ",\n".join(grids)
        sections.append(f"## Where the teacher begins to help\n\n{commands}\n\n"
                        f"![Map](regimes.png)\n\n{regimes}")
    return "\n".join(sections)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % confidence interval (Student's t); nan where undefined."""
    n = len(values)
    if n == 0:
        return math.nan, math.nan
    mean = math.fsum(values) / n
    if n == 1:
        return mean, math.nan
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)


def seeds_needed(effect: float, spread: float, power: float = 0.8, level: float = 0.05) -> int:
    """How many seeds a two-sided paired t-test needs to see an effect with this power.

    Parameters
    ----------
    effect : float > 0
        Mean of the differences.
    spread : float > 0
        Their standard deviation.
    power, level : float in (0, 1)
        Probability of seeing the effect, and of seeing one where there is none.

    Returns
    -------
    n : int
    """
    def seen(n):
        limit = stats.t.ppf(1 - level / 2, n - 1)
        shift = effect / spread * math.sqrt(n)
        return stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)

    counts = range(2, 10_000)
    found = bisect.bisect_left(counts, power, key=seen)        # the power grows with n
    if found == len(counts):
        raise ValueError(f"expected an effect that 10,000 seeds can show, got {effect} of {spread}")
    return counts[found]


def final(lines: list[dict], data: str, variant: str) -> dict[int, float]:
    """Final accuracy of a variant on a data set, by seed."""
    return {
        line["seed"]: line["accuracy"][-1]
        for line in lines if (line["data"], line["variant"]) == (data, variant)
    }


def difference(
    lines: list[dict], data: str, variant: str, other: str, other_data: str | None = None
) -> list[float]:
    """Differences in final accuracy between two variants, one for each seed that both have."""
    return _minus(final(lines, data, variant), final(lines, other_data or data, other))


def variants_table(lines: list[dict], reference: str | None = None) -> str:
    """One table in Markdown for every data set: accuracies, and differences with their tests.

    Parameters
    ----------
    lines : list of dict, see `run_job`
        In the order in which variants are to be shown.
    reference : str, optional
        The variant from which all others are subtracted. Default: the steps of the ladder.
    """
    parts = []
    for data in dict.fromkeys(line["data"] for line in lines):
        of_data = [line for line in lines if line["data"] == data]
        variants = list(dict.fromkeys(line["variant"] for line in of_data))
        seeds = {line["seed"] for line in of_data}
        head = ["| variant | final accuracy | best epoch | difference | time |",
                "|---|---|---|---|---|"]
        rows = [_row(of_data, data, variant, reference, variants) for variant in variants]
        parts.append("\n".join([_title(of_data, data, seeds), "", *head, *rows, *_note(seeds)]))
    return "\n\n".join(parts) + "\n"


def _title(lines, data, seeds):
    configs = [line["config"] for line in lines]
    network, T, size, batch = (
        _common(config[name] for config in configs) for name in ("network", "T", "size", "batch")
    )
    width = _common(f"{config['width']:g}" for config in configs)
    updates = _common(config["epochs"] * config["batches"] for config in configs)
    count = f"{len(seeds)} seeds" if len(seeds) > 1 else "1 seed"
    teachers = [line["accuracy_teacher"] for line in lines if "accuracy_teacher" in line]
    teacher = f"; teacher {_percent(teachers)} of the test images" if teachers else ""
    return (
        f"**{data}**: network {network}, width {width}, T = {T}, size {size}, "
        f"{updates} updates of {batch};\n"
        f"{count}{teacher};\n"
        f"{lines[0]['described']}."
    )


def _common(values):
    """The value that all have, or the word "several"."""
    first, *others = set(values)
    return "several" if others else first


def _row(lines, data, variant, reference, variants):
    of_variant = [line for line in lines if line["variant"] == variant]
    values = [line["accuracy"][-1] for line in of_variant]
    best = [max(line["accuracy"]) for line in of_variant]
    seconds = math.fsum(line["seconds"] for line in of_variant) / len(of_variant)
    pair = (variant, reference) if reference else _step(variant, variants)
    shown = ""
    if pair and pair[0] != pair[1] and (values_of := difference(lines, data, *pair)):
        shown = f"{pair[0]} - {pair[1]}: {with_test(values_of)}"
    return f"| {variant} | {_percent(values)} | {_percent(best)} | {shown} | {seconds:.0f} s |"


def _step(variant, variants):
    """The step of the ladder in a variant's row; where one is left out, from the one before."""
    above, below = STEPS.get(variant, (variant, None))
    if above not in variants or variant not in LADDER:
        return None
    if below in variants:
        return above, below
    place = variants.index(above)
    return (above, variants[place - 1]) if place else None


def _note(seeds):
    if len(seeds) > 1:
        return []
    points = 100 * SPREAD
    return ["", f"One seed cannot show differences below {2 * points:.0f} points: between seeds "
            f"they vary with a standard deviation of about {points:.0f}."]


def ladder_table(lines: list[dict]) -> str:
    """The ladder of every data set in a row: accuracies, and each step with its test."""
    names = [name for name in LADDER if name != "published"]
    head = ["| data | seeds | events | + static stream | + alignment = transfer | + teacher = ckd |"
            " ckd - published |", "|---" * 7 + "|"]
    rows = []
    for data in dict.fromkeys(line["data"] for line in lines if not line["leaky"]):
        if not all(final(lines, data, name) for name in ("events", "transfer", "ckd")):
            continue
        there = [name for name in names if final(lines, data, name)]
        cells = []
        for name in names:
            values = list(final(lines, data, name).values())
            cell = _percent(values) if values else ""
            pair = _step(name, there) if values else None
            if pair:
                cell += f"<br/>{with_test(difference(lines, data, *pair))}"
            cells.append(cell)
        published = difference(lines, data, "ckd", "published")
        cells.append(with_test(published) if published else "")
        seeds = len(final(lines, data, "ckd"))
        rows.append(f"| {data} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join([*head, *rows]) + "\n"


def leakage_table(lines: list[dict]) -> str:
    """What the leaky split of a data set adds to each variant, or an empty text."""
    rows = []
    for clean, leaky, variant, differences in _leaks(lines):
        accuracies = [_percent(list(final(lines, data, variant).values()))
                      for data in (clean, leaky)]
        rows.append(f"| {clean} | {variant} | {accuracies[0]} | {accuracies[1]} | "
                    f"{with_test(differences)} | {len(differences)} |")
    if not rows:
        return ""
    head = ["| data | variant | split by identity | leaky split | difference | seeds |",
            "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _leaks(lines):
    """(clean data, leaky data, variant, differences) of everything that was run on both splits."""
    for leaky in dict.fromkeys(line["data"] for line in lines if line["leaky"]):
        clean = leaky.removesuffix("-leaky")
        for variant in dict.fromkeys(line["variant"] for line in lines if line["data"] == leaky):
            if values := difference(lines, leaky, variant, variant, clean):
                yield clean, leaky, variant, values


def regimes_table(lines: list[dict]) -> str:
    """The map of regimes in a table: a row for every cell of `all_regimes`; empty without any."""
    rows = []
    for data, (width, updates, static), steps in all_regimes(lines):
        cells = " | ".join(with_test(values) if values else "" for values in steps.values())
        seeds = max(map(len, steps.values()))
        rows.append(f"| {data} | {width:g} | {updates} | {static} | {cells} | {seeds} |")
    if not rows:
        return ""
    head = ["| data | width | updates | images per class | transfer - events | ckd - transfer |"
            " seeds |", "|---" * 7 + "|"]
    return "\n".join([*head, *rows]) + "\n"


def all_regimes(lines: list[dict]) -> list[tuple]:
    """What alignment and teacher give wherever a data set was run in more than one regime.

    Returns
    -------
    found : list of (data, (width, updates, static images per class), steps), sorted; steps has
        the differences of seeds by the names "transfer - events" and "ckd - transfer".
    """
    runs: dict = {}
    for line in lines:
        if name := _rung(line):
            cell = _cell(line, seen=name != "events")          # events alone need no images
            where = runs.setdefault(line["data"], {}).setdefault((name, cell), {})
            where[line["seed"]] = line["accuracy"][-1]
    found = []
    for data, by_cell in runs.items():
        cells = sorted({cell for name, cell in by_cell if name == "ckd"})
        for cell in cells if len(cells) > 1 else []:
            events = by_cell.get(("events", (*cell[:2], 0, *cell[3:])), {})
            transfer, ckd = by_cell.get(("transfer", cell), {}), by_cell["ckd", cell]
            found.append((data, cell[:3], {
                "transfer - events": _minus(transfer, events),
                "ckd - transfer": _minus(ckd, transfer),
            }))
    return found


REGIME = "width", "epochs", "batches", "static_per_class", "size", "seed"
"""Fields of Config that do not make a run another rung."""


def _rung(line):
    """The rung of `LADDER` that a run is, in whatever regime, or None."""
    config = Config(**line["config"])
    regime = {name: line["config"][name] for name in REGIME}
    for name in ("events", "transfer", "ckd"):
        if config == Config(**LADDER[name] | regime):
            return name
    return None


def _cell(line, seen):
    """Width, updates and static images per class of a run; epochs and size tell others apart."""
    config = line["config"]
    static = config["static_per_class"] if seen else 0
    if static is None:
        classes, images = (
            int(re.search(rf"(\d+) {word}", line["described"])[1]) for word in ("classes", "static")
        )
        static = images // classes
    updates = config["epochs"] * config["batches"]
    return config["width"], updates, static, config["epochs"], config["size"]


def _minus(a, b):
    """Differences of two accuracies by seed, for the seeds that both have."""
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def all_differences(lines: list[dict]) -> list[tuple[str, list[float]]]:
    """(label, differences) of every step of every complete ladder and of every leaky split."""
    found = []
    for data in dict.fromkeys(line["data"] for line in lines if not line["leaky"]):
        there = list(dict.fromkeys(line["variant"] for line in lines if line["data"] == data))
        if not {"events", "transfer", "ckd"} <= set(there):
            continue
        for variant in LADDER:
            pair = _step(variant, [name for name in LADDER if name in there])
            values = difference(lines, data, *pair) if pair and variant in there else []
            if values:
                found.append((f"{data}: {pair[0]} - {pair[1]}", values))
    for clean, _, variant, values in _leaks(lines):
        found.append((f"{clean}: {variant}, leaky - clean", values))
    return found


def _percent(values, sign=""):
    mean, half = interval(values)
    text = f"{100 * mean:{sign}.1f}"
    return text if math.isnan(half) else f"{text} ± {100 * half:.1f}"


def with_test(differences: list[float]) -> str:
    """Mean difference in points with its interval, and the p-value of the paired t-test."""
    if max(differences) - min(differences) < 1e-9:             # the test needs a spread
        return _percent(differences, "+")
    p = stats.ttest_1samp(differences, 0).pvalue
    return f"{_percent(differences, '+')} (p = {p:.2g})"
