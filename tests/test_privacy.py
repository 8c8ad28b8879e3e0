"""Nothing of a small group can be worked out from what is shown, nobody's words are passed on, and
no text of a table becomes a formula."""

from __future__ import annotations

import csv
import itertools
import re

import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers import cohort, storage
from helpers.fairness import hide_small_groups
from helpers.figures.tables import link_csv
from helpers.report import compose_report, render_report
from helpers.report.blocks import ReportTable
from helpers.report.leaks import find_leaks
from helpers.report.notebook_cleaning import clean_notebook
from helpers.report.outputs import make_scrubber, read_outputs
from helpers.report.results import collect_results
from helpers.report.sections.limits import compose_limits
from helpers.report.sections.questions import tell_groups
from helpers.report.suppression import find_small_groups, find_told_apart, suppress_small
from helpers.schema import TABLES
from helpers.statistics.disclosure import hide_counts
from tests import report_study as study

LEAST = 5
ATTRIBUTES = {"ethnicity": {"categories": ["Terran", "Venusian", "Martian"]}, "sex": {"categories": list(study.SEXES)}}


def make_people(martians=3, unknown=0, people=44):
    """Return a cohort of which a few people are Martians, older and heavier than the others, and
    all that is shown of whom is counted by hand."""
    table = study.make_cohort(people, excluded=0).head(people).drop(columns="group_bmi")
    words = ["Martian"] * martians + [None] * unknown
    words += [("Terran", "Venusian")[place % 2] for place in range(people - len(words))]
    table["ethnicity"] = words
    table["group_ethnicity"] = pd.Categorical(words, categories=ATTRIBUTES["ethnicity"]["categories"], ordered=True)
    table.loc[:martians, "age"] += 20
    return table


def write(tmp_path, table, *, intersections=None):
    """Write the tables that tell of people, without a measured mask."""
    parameters = study.make_parameters(fairness={"min_group": LEAST})
    parameters["cohort"] |= {"attributes": ATTRIBUTES}
    study.write_study(tmp_path, cohort=table, parameters=parameters)
    if intersections is not None:
        storage.write_table(intersections, tmp_path / TABLES["intersections"].path)
    return tmp_path


def find_sizes(total, shown, hidden, missing):
    """Return every number of people that the hidden groups may have, as far as a reader can tell.

    `missing` is how many are said to have no value; None where nothing is said.
    """
    rest = total - sum(shown)
    possible = itertools.product(range(LEAST), repeat=hidden)
    return {sizes for sizes in possible if sum(sizes) <= rest and (missing is None or sum(sizes) == rest - missing)}


def read_groups(report):
    """Return the rows of “People in each group”, and how many people there are in all."""
    (table,) = (block for block in report["people"].blocks if isinstance(block, ReportTable))
    (total,) = re.findall(r"(\d+) people with", report["people"].blocks[0].text)
    return table.frame, int(total)


def add_up(means, people):
    """Return the sum that rounded means (SD) and numbers of people tell."""
    return sum(float(text.split()[0]) * int(n) for text, n in zip(means, people, strict=True))


@pytest.mark.parametrize(("martians", "unknown"), [(3, 0), (1, 0), (3, 1), (4, 9)])
def test_size_age_and_bmi_of_a_small_group_do_not_follow_from_the_report(tmp_path, martians, unknown):
    table = make_people(martians, unknown)
    report = compose_report(write(tmp_path, table))
    rows, total = read_groups(report)
    mine = rows[rows["Attribute"] == "ethnicity"].set_index("Group")
    shown = pd.to_numeric(mine["People"], errors="coerce").dropna()
    missing = mine.loc["not recorded", "People"] if "not recorded" in mine.index else None
    assert mine.loc["Martian", "People"] == "fewer than 5" and shown.sum() + martians + unknown == total
    assert len(find_sizes(total, shown.astype(int), 1, missing)) > 1
    said = next(text for text in tell_groups(read_outputs(tmp_path)) if text.startswith("Ethnicity"))
    assert "not known" not in said and str(martians) not in re.findall(r"\d+", said.replace("fewer than 5", ""))
    # Everybody's sum follows from the groups by sex, and theirs would from that and the others'.
    of_all = rows[rows["Attribute"] == "sex"]
    numeric = [name for name in rows if name.startswith(("Age", "BMI"))]
    assert (of_all[numeric] != "").all(axis=None)
    followed = martians + unknown
    for name in numeric:
        means = mine.loc[["Terran", "Venusian"], name]
        assert (means == "").all() == (followed < LEAST), name
        if followed >= LEAST:
            everybody = sum(
                float(text.split()[0]) * int(n) for text, n in zip(of_all[name], of_all["People"], strict=True)
            )
            others = sum(float(text.split()[0]) * n for text, n in zip(means, shown, strict=True))
            mean = (everybody - others) / followed  # of more people than a group needs, not of the hidden ones
            assert mean == pytest.approx(
                table.loc[: followed - 1, "age" if name.startswith("Age") else "bmi"].mean(), abs=2
            )


def test_size_age_and_bmi_of_a_small_group_do_not_follow_from_notebook_01():
    table = make_people()
    table["referring"] = [f"Dr. {'AB'[place % 2]} Oberhuber" for place in range(len(table))]
    shown = cohort.hide_small(table, list(ATTRIBUTES), LEAST)
    described = cohort.describe_cohort(shown, dict.fromkeys(ATTRIBUTES), ["referring"], LEAST)
    text = described.to_csv() + cohort.count_missing(shown, list(ATTRIBUTES)).to_csv()
    text += cohort.count_overlaps(shown, list(ATTRIBUTES), LEAST).to_csv()
    text += cohort.count_confounders(shown, list(ATTRIBUTES), ["referring"], LEAST).to_csv()
    assert "Martian" not in text and "mean" not in text
    by_ethnicity = described[described["characteristic"] == "ethnicity"]
    assert by_ethnicity["level"].tolist() == ["Venusian", "Terran"] or by_ethnicity["level"].tolist() == [
        "Terran",
        "Venusian",
    ]
    # Of those in no group shown, nothing tells who has no value and who is a Martian.
    missing = cohort.count_missing(make_people(2, 1).pipe(cohort.hide_small, list(ATTRIBUTES), LEAST), list(ATTRIBUTES))
    assert missing.equals(cohort.count_missing(shown, list(ATTRIBUTES)))
    kept = cohort.hide_small(make_people(LEAST), list(ATTRIBUTES), LEAST)
    assert "Martian" in kept["group_ethnicity"].cat.categories


@pytest.mark.parametrize("shape", [(6,), (2, 3), (4, 3), (2, 3, 3)])
def test_no_hidden_count_follows_from_its_line(shape):
    rng = np.random.default_rng(5)
    for _ in range(50):
        counts = rng.integers(0, 30, shape) * rng.integers(0, 2, shape)
        counts[rng.random(shape) < 0.3] = rng.integers(1, LEAST)
        hidden = hide_counts(counts, LEAST)
        assert hidden[(counts > 0) & (counts < LEAST)].all() and not hidden[counts == 0].any()
        for axis in range(counts.ndim):
            alone = hidden.sum(axis=axis, keepdims=True) == 1
            others = ((counts > 0) & ~hidden).any(axis=axis, keepdims=True)
            assert not (alone & others).any(), counts


def test_where_every_group_is_too_small_there_is_nothing_to_hide():
    people = pd.DataFrame({"person": ["a", "b"], "included": True, "group_sex": ["female", "male"], "group_age": "old"})
    people = people.assign(sex=people["group_sex"], age=60.0)
    people["subject"] = people["person"]
    for name in ("group_sex", "group_age"):
        people[name] = people[name].astype("category")
    assert hide_counts(np.zeros((0, 2), int), LEAST).shape == (0, 2)
    shown = cohort.hide_small(people, ["sex", "age"], LEAST)
    assert cohort.count_overlaps(shown, ["sex", "age"], LEAST).empty


def test_intersections_do_not_tell_the_size_of_a_hidden_one(tmp_path):
    """Of the women three alone are Venusian: how many follows from all women and the Terrans."""
    sizes = {
        ("female", "Terran"): "18",
        ("female", "Venusian"): "<5",
        ("male", "Terran"): "9",
        ("male", "Venusian"): "14",
    }
    rows = [
        {"model": "m", "organ": "liver", "metric": "dice", "sex": a, "ethnicity": b, "n": n}
        for (a, b), n in sizes.items()
    ]
    cells = pd.DataFrame(rows).assign(mean=0.9, suppressed=lambda table: table["n"].str.startswith("<"))
    kept = read_outputs(write(tmp_path, make_people(0), intersections=cells)).intersections
    assert kept["n"].tolist() == ["<5"] * 4 and kept["mean"].isna().all()
    cells["n"] = ["18", "6", "9", "14"]
    kept = read_outputs(write(tmp_path, make_people(0), intersections=cells.assign(suppressed=False))).intersections
    assert kept["n"].tolist() == ["18", "6", "9", "14"]


def test_words_that_may_name_somebody_are_numbered_in_what_is_shared(tmp_path):
    table = make_people()
    table["scanner"] = ["Dr. Oberhuber", "Spital Zwetschgenbaum"] * (len(table) // 2)
    report = compose_report(write(tmp_path, table))
    text = render_report(report)
    scrub = make_scrubber(tmp_path)
    assert scrub("all have scanner Dr. Oberhuber") == "all have scanner scanner 1"
    assert scrub.clean_markup("scanner: Dr.<br>Oberhuber<br>and others") == "scanner: scanner 1<br>and others"
    page = "<td>Spital Zwetschgenbaum</td>" + link_csv(table[["scanner"]].to_csv(), "table")
    made = nbformat.v4.new_output("display_data", {"text/html": page, "text/plain": "Dr. Oberhuber"})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[made])])
    clean_notebook(notebook, scrub)
    found = find_leaks(text + "".join(notebook.cells[0].outputs[0].data.values()), ["Oberhuber", "Zwetschgenbaum"])
    assert not found


FORMULAS = [
    "=HYPERLINK(1)",
    "+cmd",
    "@SUM(A1)",
    "\ttab",
    "-x",
    "'=quoted",
    "''=twice",
    "'plain",
    "-2",
    "+1.5",
    "plain",
    "",
]


def test_no_text_becomes_a_formula_and_all_are_read_back(tmp_path):
    table = pd.DataFrame({"model": FORMULAS, "note": FORMULAS[::-1], "mean": np.linspace(-1, 1, len(FORMULAS))})
    path = tmp_path / "groups.csv"
    storage.write_table(table, path)
    with path.open(encoding="utf-8", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    for cell in cells:
        if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
            float(cell)
    assert storage.read_table(path, TABLES["groups"])[["model", "note"]].to_dict() == table[["model", "note"]].to_dict()
    assert "'\rx" in storage.format_csv(pd.DataFrame({"=a": ["\rx"]}))
    assert storage.format_csv(pd.DataFrame({"=a": [1]})) == "'=a\n1\n"
    assert storage.format_csv(table.set_index("model"), index=True).count("'=HYPERLINK") == 2


def add_groups(means):
    """Return the people, and the sum of their values, that means of groups tell, by comparison and
    attribute."""
    found = {}
    for row in means:
        place, attribute = (row["model"], row["organ"], row["metric"]), row["attribute"]
        for group in row["groups"].values():
            n, total = found.setdefault(place, {}).get(attribute, (0, 0.0))
            found[place][attribute] = n + group["n"], total + group["n"] * group["mean"]
    return found


@pytest.mark.parametrize(("martians", "followed"), [(3, False), (LEAST, True)])
def test_scores_of_a_small_group_do_not_follow_from_means_ratios_or_dots(tmp_path, martians, followed):
    table = make_people(martians)
    parameters = study.make_parameters(fairness={"min_group": LEAST})
    parameters["cohort"] |= {"attributes": ATTRIBUTES}
    metrics = study.make_metrics(table)
    audit = study.make_fairness(metrics, table, min_group=LEAST, attributes=tuple(ATTRIBUTES), measures=("dice",))
    study.write_study(tmp_path, cohort=table, metrics=metrics, fairness=audit, parameters=parameters)
    outputs = read_outputs(tmp_path)
    shared = collect_results(outputs)["comparisons"]
    assert {row["attribute"] for row in shared if row["gap"] is not None} == set(ATTRIBUTES)
    people = outputs.average_people(["dice"])
    for place, sums in add_groups(shared).items():
        n, total = sums["sex"]
        assert ("ethnicity" in sums) == followed, place
        if followed:
            rest = n - sums["ethnicity"][0]
            assert rest == 0 and total == pytest.approx(sums["ethnicity"][1], abs=1e-4 * n)
    for attribute in ATTRIBUTES:
        dots = hide_small_groups(people, "dice", attribute, LEAST)
        unnamed = dots[f"group_{attribute}"].isna().groupby([dots["model"], dots["organ"]]).sum()
        assert not unnamed.between(1, LEAST - 1).any()
    by_ethnicity = outputs.disparity[outputs.disparity["attribute"] == "ethnicity"]
    assert by_ethnicity["ser"].notna().any() == followed and by_ethnicity["gap"].notna().all()
    (limits, _) = compose_limits(outputs).blocks
    assert any("Means by ethnicity are not shown" in text for text in limits.items) != followed


def test_the_map_of_a_small_group_does_not_follow_from_those_of_others():
    """What is shown of ethnicity is the difference of two large groups alone."""
    table = make_people(3)
    maps, summary = study.make_maps(table)
    maps, summary = (one.assign(attribute="ethnicity") for one in (maps, summary))
    first, second = maps["group_a"].iloc[0], maps["group_b"].iloc[0]
    table["group_ethnicity"] = table["group_ethnicity"].cat.rename_categories({"Terran": first, "Venusian": second})
    tables = dict.fromkeys(TABLES) | {"cohort": table, "maps": maps, "spatial_summary": summary}
    small = find_small_groups(table, LEAST)
    told_apart = find_told_apart(table, LEAST, small)
    suppress_small(tables, list(ATTRIBUTES), LEAST, small, told_apart)
    assert told_apart == {"ethnicity"} and tables["maps"]["difference"].notna().any()
    assert tables["maps"][[f"error_{first}", f"error_{second}"]].isna().all(axis=None)
    assert not find_told_apart(table.assign(group_ethnicity=make_people(LEAST)["group_ethnicity"]), LEAST, small)
