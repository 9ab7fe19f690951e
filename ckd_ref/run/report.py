"""Tables and figures of finished runs, from their lines alone."""

import math

from scipy import stats

SPREAD = 0.03
"""Standard deviation between seeds of the difference of two variants of the ladder on the digits,
from the validation runs: what a single seed cannot show."""


def interval(values):
    """Mean and half-width of its 95 % confidence interval (Student's t); nan for one value."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return mean, math.nan
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)


def seeds_needed(effect, spread, power=0.8, level=0.05):
    """How many seeds a two-sided paired t-test needs to see an effect with this power.

    Parameters
    ----------
    effect : float > 0
        Mean of the differences.
    spread : float > 0
        Their standard deviation.
    """
    for n in range(2, 10000):
        limit = stats.t.ppf(1 - level / 2, n - 1)
        shift = effect / spread * math.sqrt(n)
        seen = stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)
        if seen >= power:
            return n
    raise ValueError(f"expected an effect that 10,000 seeds can show, got {effect} of {spread}")


def final(lines, data, variant):
    """Final accuracy of a variant on a data set, by seed."""
    return {
        line["seed"]: line["accuracy"][-1]
        for line in lines if (line["data"], line["variant"]) == (data, variant)
    }


def difference(lines, data, variant, other, other_data=None):
    """Differences in final accuracy between two variants, one for each seed that both have."""
    a, b = final(lines, data, variant), final(lines, other_data or data, other)
    return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def ladder_table(lines, reference=None):
    """One table in Markdown for every data set: accuracies, and differences with their tests.

    Parameters
    ----------
    lines : list of dict, see `run_job`
    reference : str, optional
        The variant from which every other is subtracted. Default: from each variant the one
        before it; from the last of a ladder, ``published``, its `ckd`, the other way round.
    """
    variants = list(dict.fromkeys(line["variant"] for line in lines))
    parts = []
    for data in dict.fromkeys(line["data"] for line in lines):
        of_data = [line for line in lines if line["data"] == data]
        rows = [_row(of_data, data, variant, _pair(variants, variant, reference))
                for variant in variants if final(of_data, data, variant)]
        seeds = sorted({line["seed"] for line in of_data})
        head = ["| variant | final accuracy | best epoch | difference | time |",
                "|---|---|---|---|---|"]
        parts.append("\n".join([_title(of_data, data, seeds), "", *head, *rows, *_note(seeds)]))
    return "\n\n".join(parts) + "\n"


def _title(lines, data, seeds):
    config = lines[0]["config"]
    count = f"{len(seeds)} seeds" if len(seeds) > 1 else "1 seed"
    teachers = [line["accuracy_teacher"] for line in lines if "accuracy_teacher" in line]
    teacher = f"; teacher {_percent(teachers)} of the test images" if teachers else ""
    return (
        f"**{data}**: {lines[0]['described']}; network {config['network']}, width "
        f"{config['width']:g}, T = {config['T']}, {config['epochs'] * config['batches']} updates of "
        f"{config['batch']}; {count}{teacher}."
    )


def _pair(variants, variant, reference):
    """The two variants whose difference stands in a row, or None."""
    if reference:
        return None if variant == reference else (variant, reference)
    if variant == "published":
        return ("ckd", "published") if "ckd" in variants else None
    place = variants.index(variant)
    return (variant, variants[place - 1]) if place else None


def _row(lines, data, variant, pair):
    of_variant = [line for line in lines if line["variant"] == variant]
    values = [line["accuracy"][-1] for line in of_variant]
    best = [max(line["accuracy"]) for line in of_variant]
    seconds = sum(line["seconds"] for line in of_variant) / len(of_variant)
    shown = ""
    if pair and (differences := difference(lines, data, *pair)):
        shown = f"{pair[0]} - {pair[1]}: {_tested(differences)}"
    return f"| {variant} | {_percent(values)} | {_percent(best)} | {shown} | {seconds:.0f} s |"


def _note(seeds):
    if len(seeds) > 1:
        return []
    return ["", f"One seed cannot show differences below {100 * 2 * SPREAD:.0f} points: between "
            f"seeds they vary with a standard deviation of about {100 * SPREAD:.0f}."]


def _percent(values, sign=""):
    mean, half = interval(values)
    text = f"{100 * mean:{sign}.1f}"
    return f"{text} %" if math.isnan(half) else f"{text} ± {100 * half:.1f} %"


def _tested(differences):
    """Mean difference with its interval, and the p-value of the paired t-test."""
    if len(set(differences)) < 2:
        return _percent(differences, "+")
    p = stats.ttest_1samp(differences, 0).pvalue
    return f"{_percent(differences, '+')} (p = {p:.2g})"
