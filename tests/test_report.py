"""Statistics and tables: from the lines of finished runs alone, by independent computations."""

import json
import math
import pathlib
import warnings

import numpy as np
import pytest
from scipy import stats

from ckd_ref.config import Config
from ckd_ref.events import FormatError
from ckd_ref.run import report as module
from ckd_ref.run.report import (
    SPREAD,
    all_differences,
    difference,
    interval,
    ladder_table,
    leakage_table,
    read_folder,
    regimes_table,
    report,
    report_text,
    seeds_needed,
    variants_table,
    with_test,
)
from ckd_ref.run.sweep import LADDER

RESULTS = pathlib.Path(__file__).parents[1] / "tutorials" / "results"
FINAL = {
    "events": [0.50, 0.52, 0.54], "static": [0.55, 0.57, 0.60], "transfer": [0.60, 0.66, 0.63],
    "ckd": [0.70, 0.69, 0.71], "published": [0.65, 0.64, 0.72],
}


DESCRIBED = "2 classes; images: 60 static, 4 test; recordings: 4 train, 4 test"


def line(variant, seed, accuracy, data="set", leaky=False):
    found = {
        "data": data, "variant": variant, "seed": seed, "described": DESCRIBED, "leaky": leaky,
        "accuracy": [0.9, accuracy], "seconds": 7.0, "config": vars(Config(seed=seed)),
    }
    return found | ({"accuracy_teacher": 0.99} if variant == "ckd" else {})


@pytest.fixture
def lines():
    return [line(name, seed, value) for name, values in FINAL.items()
            for seed, value in enumerate(values)]


# Statistics


def test_sums_are_exact_and_so_the_same_by_every_python():
    """The builtin sum is compensated since Python 3.12."""
    assert interval([0.1] * 10) == (0.1, 0.0)


def test_interval_is_that_of_students_t(rng):
    values = rng.normal(0.7, 0.1, 6).tolist()
    mean, half = interval(values)
    low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-12)


def test_one_seed_has_no_interval():
    assert math.isnan(interval([0.5])[1]) and with_test([0.05]) == "+5.0"


@pytest.mark.parametrize("effect, spread", [(0.04, 0.04), (0.03, 0.02)])
def test_seeds_needed_have_the_power_that_was_asked_for(effect, spread, rng):
    """By simulation: with n seeds at least 80 % of experiments see the effect, with n - 1 fewer."""
    def seen(n):
        samples = rng.normal(effect, spread, (20000, n))
        return (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()

    n = seeds_needed(effect, spread)
    assert seen(n) > 0.79 and seen(n - 1) < 0.81
    assert seeds_needed(effect, spread, power=0.95) > n


def test_an_effect_that_no_number_of_seeds_shows_is_refused():
    with pytest.raises(ValueError, match="10,000 seeds"):
        seeds_needed(1e-6, 1.0)


def test_differences_are_paired_by_seed(lines):
    """Order of the lines and seeds that one side lacks do not matter."""
    shuffled = [each for each in reversed(lines) if (each["variant"], each["seed"]) != ("ckd", 1)]
    assert difference(shuffled, "set", "ckd", "transfer") == pytest.approx([0.10, 0.08])
    p = stats.ttest_rel(FINAL["ckd"], FINAL["transfer"]).pvalue
    assert f"p = {p:.2g}" in with_test(difference(lines, "set", "ckd", "transfer"))
    unpaired = stats.ttest_ind(FINAL["ckd"], FINAL["transfer"]).pvalue
    assert f"p = {unpaired:.2g}" not in with_test(difference(lines, "set", "ckd", "transfer"))


# Tables


def cells(table, row):
    found, = [text for text in table.splitlines() if text.startswith(f"| {row} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_every_rung_stands_beside_the_one_below_and_final_accuracy_decides(lines):
    table = variants_table(lines)
    assert cells(table, "events")[1].startswith("52.0 ± ") and cells(table, "events")[3] == ""
    assert cells(table, "events")[2].startswith("90.0 ± "), "the best epoch is shown"
    for row, pair in (("static", "static - events: +5.3"), ("transfer", "transfer - static: +5.7"),
                      ("ckd", "ckd - transfer: +7.0"), ("published", "ckd - published: +3.0")):
        assert cells(table, row)[3].startswith(pair), f"{row}: {cells(table, row)}"
    assert "3 seeds; teacher 99.0 ± 0.0 of the test images" in table


def test_a_rung_that_was_left_out_is_stepped_over(lines):
    few = [each for each in lines if each["variant"] in ("events", "transfer", "ckd")]
    assert cells(variants_table(few), "transfer")[3].startswith("transfer - events: +11.0")


def test_a_reference_is_subtracted_from_all_others(lines):
    table = variants_table(lines, reference="transfer")
    assert cells(table, "events")[3].startswith("events - transfer: -11.0")
    assert cells(table, "transfer")[3] == ""


def test_one_seed_says_what_it_cannot_show(lines):
    table = variants_table([each for each in lines if each["seed"] == 0])
    assert f"cannot show differences below {200 * SPREAD:.0f} points" in table
    assert "p =" not in table and "±" not in table
    assert "cannot show" not in variants_table(lines)


def test_the_ladder_of_a_data_set_is_a_row(lines):
    row = cells(ladder_table(lines + [line("ckd", 0, 0.5, "other")]), "set")
    assert row[1] == "3" and row[2].startswith("52.0")
    assert "+5.7" in row[4] and "+7.0" in row[5] and row[6].startswith("+3.0")
    assert "other" not in ladder_table(lines + [line("ckd", 0, 0.5, "other")])


def test_leakage_pairs_the_same_variant_and_seed_of_both_splits(lines):
    leaky = [line("ckd", seed, value + gain, "set-leaky", leaky=True)
             for seed, (value, gain) in enumerate(zip(FINAL["ckd"], (0.02, 0.03, 0.04)))]
    assert leakage_table(lines) == ""
    row = cells(leakage_table(lines + leaky), "set")
    assert row[1] == "ckd" and row[4].startswith("+3.0 ± ") and row[5] == "3"
    labels = dict(all_differences(lines + leaky))
    assert labels["set: ckd, leaky - clean"] == pytest.approx([0.02, 0.03, 0.04])
    assert labels["set: ckd - transfer"] == pytest.approx([0.10, 0.03, 0.08])


def in_regime(variant, seed, accuracy, **options):
    """A line of a rung of the ladder with these options."""
    config = vars(Config(**LADDER[variant], seed=seed, **options))
    return line(f"{variant}-cell", seed, accuracy) | {"config": config}


@pytest.fixture
def map_lines():
    """Two cells: all 30 images, and 3 of them; the events of both are the same runs."""
    found = []
    for seed, noise in enumerate((0.0, 0.02, -0.01)):
        found += [
            in_regime("events", seed, 0.5),
            in_regime("transfer", seed, 0.6 - noise),
            in_regime("ckd", seed, 0.7 + noise),
            in_regime("transfer", seed, 0.52 + noise, static_per_class=3),
            in_regime("ckd", seed, 0.51 - noise, static_per_class=3),
        ]
    return found


def test_the_map_compares_inside_a_cell_and_events_need_no_images(map_lines):
    table = regimes_table(map_lines)
    few, many = [cells(row, "set") for row in table.splitlines()[2:]]
    assert few[1:4] == ["0.125", "480", "3"] and many[1:4] == ["0.125", "480", "30"]
    assert few[4].startswith("+2.3 ± ") and few[5].startswith("-1.7 ± ")
    assert many[4].startswith("+9.7 ± ") and many[5].startswith("+10.7 ± ")
    assert few[6] == many[6] == "3"


def test_what_is_no_rung_has_no_place_on_the_map(map_lines):
    """Another option than those of the regimes, or a data set with one cell alone."""
    other = in_regime("ckd", 0, 0.9, static_per_class=3, temperature=2.0)
    assert regimes_table(map_lines + [other]) == regimes_table(map_lines)
    alone = [each for each in map_lines if each["config"]["static_per_class"] is None]
    assert regimes_table(alone) == ""


def test_longer_and_wider_runs_are_cells_of_their_own(map_lines):
    longer = [in_regime("ckd", 0, 0.9, batches=90), in_regime("ckd", 0, 0.9, width=0.25)]
    rows = regimes_table(map_lines + longer).splitlines()[2:]
    found = [cells(row, "set")[1:6] for row in rows]
    assert ["0.125", "1440", "30", "", ""] in found and ["0.25", "480", "30", "", ""] in found


@pytest.mark.parametrize("other", [{"size": 32}, {"epochs": 32, "batches": 15}])
def test_runs_of_another_size_or_length_do_not_take_the_place_of_others(map_lines, other):
    """As many updates in all, or none of these: a row more, and the rows before as they were."""
    before = regimes_table(map_lines).splitlines()
    rows = regimes_table(map_lines + [in_regime("ckd", 0, 0.9, **other)]).splitlines()
    assert len(rows) == len(before) + 1 and set(before) <= set(rows)


@pytest.mark.parametrize("variants, cells", [
    ('"transfer", "tks"', [("transfer", {"method": "transfer"}), ("tks", {"method": "tks"})]),
    ('"transfer"', [("transfer", {"method": "transfer"})]),
])
def test_a_grid_that_is_in_part_or_by_its_data_not_on_the_map_has_its_table(
    tmp_path, variants, cells
):
    """With a run that is no rung, or on data without a map; nothing to draw is no fault."""
    (tmp_path / "a.toml").write_text(
        f'seeds = [0, 1]\nvariants = [{variants}]\n[data]\nset = "x.h5"\n[grid]\nwidth = [0.5]\n')
    found = []
    for name, options in cells:
        config = vars(Config(**options, width=0.5))
        found.append(line(f"{name}-width-0.5", 0, 0.5) | {"config": config})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = report(tmp_path)
    assert all(f"| {name}-width-0.5 |" in text for name, _ in cells)


def test_a_mixed_grid_on_data_with_a_map_keeps_its_table(map_lines, tmp_path):
    (tmp_path / "a.toml").write_text(
        'seeds = [0, 1]\nvariants = ["transfer", "tks"]\n[data]\nset = "x.h5"\n'
        '[grid]\nwidth = [0.5]\n')
    found = [in_regime("transfer", 0, 0.5, width=0.5) | {"variant": "transfer-width-0.5"},
             line("tks-width-0.5", 0, 0.5) | {"config": vars(Config(method="tks", width=0.5))}]
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(each) + "\n" for each in [*found, *map_lines]))
    assert "| tks-width-0.5 |" in report(tmp_path)


def test_what_is_no_rung_is_compared_with_nothing_unless_it_is_asked_for():
    others = [line(name, seed, 0.1 * seed) for name in ("one", "two") for seed in (0, 1)]
    assert " - " not in variants_table(others).split("|---")[-1]
    assert "two - one: " in variants_table(others, "one")


def test_a_report_has_the_map_as_table_and_picture(map_lines, tmp_path):
    (tmp_path / "a.toml").write_text(
        'seeds = [0, 3]\n[data]\nset = "gone.h5"\n[grid]\nstatic_per_class = [3]\n')
    ladder = [line(name, 0, 0.5, "other") for name in ("events", "transfer", "ckd")]
    texts = [json.dumps(each) + "\n" for each in map_lines + ladder]
    (tmp_path / "a.jsonl").write_text("".join(texts))
    assert regimes_table(map_lines) in report(tmp_path)
    assert (tmp_path / "regimes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("field, values", [("rate", (1.0, 2.0)), ("width", (0.5, 0.25))])
def test_a_grid_that_is_not_on_the_map_has_a_table_of_its_cells(map_lines, tmp_path, field, values):
    """Others than the rungs of the map are on none, whatever varies."""
    first, second = (f"tks-{field}-{value}" for value in values)
    (tmp_path / "a.toml").write_text(
        f'seeds = [0, 2]\nreference = "{first}"\n[variants.tks]\nmethod = "tks"\n'
        f'[data]\nset = "gone.h5"\n[grid]\n{field} = {list(values)}\n'
    )
    cells = []
    for name, value in ((second, values[1]), (first, values[0])):
        for seed, noise in enumerate((0.2, 0.3)):
            cells.append(line(name, seed, 0.1 * value + noise))
            cells[-1]["config"] = vars(Config(method="tks", seed=seed, **{field: value}))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in cells))
    (tmp_path / "b.toml").write_text('seeds = [0, 3]\n[data]\nset = "gone.h5"\n')
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(each) + "\n" for each in map_lines))
    text = report(tmp_path)
    assert "`python -m ckd_ref sweep a.toml --out OUT`" in text
    rows = [row for row in text.splitlines() if row.startswith("| tks")]
    assert [row.split(" | ")[0] for row in rows] == [f"| {first}", f"| {second}"]
    change = 10 * (values[1] - values[0])
    assert f" {second} - {first}: {change:+.1f} " in rows[1] and " - " not in rows[0]
    assert ("width several" in text) == (field == "width")


def test_a_report_is_made_from_the_lines_alone(lines, tmp_path):
    (tmp_path / "a.toml").write_text('title = "A"\nseeds = [0, 2]\n[data]\nset = "gone.h5"\n')
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (tmp_path / "unfinished.toml").write_text("seeds = [0, 1]\n[data]\n")
    text = report(tmp_path)
    assert "## A\n" in text and "2 seeds" in text and "unfinished" not in text
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "differences.png").read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "differences.png").read_bytes()
    assert report(tmp_path) == text and (tmp_path / "differences.png").read_bytes() == before


def test_a_readme_that_is_no_report_is_not_replaced(lines, tmp_path):
    (tmp_path / "a.toml").write_text('seeds = [0, 2]\n[data]\nset = "gone.h5"\n')
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="README.md is no report; move it away"):
        report(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_spec_that_cannot_be_read_is_named(lines, tmp_path):
    (tmp_path / "a.toml").write_text('seeds = [0, 2]\n[data]\nset = "x.h5"\n[grid]\nalpha = 1.0\n')
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    with pytest.raises(FormatError, match="a.toml: expected a sweep with seeds"):
        report(tmp_path)


def test_a_folder_without_sweeps_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected NAME.toml and NAME.jsonl"):
        report(tmp_path)


# The committed results


def test_the_committed_report_is_that_of_the_committed_lines():
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    made = report_text(RESULTS, read_folder(RESULTS))
    assert made == text, "run python -m ckd_ref report tutorials/results"


def test_the_spread_that_a_single_seed_is_told_is_not_too_small():
    """Of the steps of the digits' ladder between the reported seeds."""
    found = read_folder(RESULTS)
    spreads = [np.std(difference(found, "digits", *module.STEPS[name]), ddof=1)
               for name in ("static", "transfer", "ckd")]
    assert np.mean(spreads) < 1.5 * SPREAD, f"spreads {spreads}"
