"""Who lacks a value of a measure: counted beside every number, and never called equivalent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers import fairness
from helpers.fairness.incomplete import count_lacking
from helpers.parameters import Fairness

PEOPLE = 40  # women and men by turns


@pytest.fixture
def cohort():
    names = [f"p{number:02d}" for number in range(PEOPLE)]
    return pd.DataFrame(
        {
            "subject": names,
            "scan": names,
            "number": range(1, PEOPLE + 1),
            "group_sex": pd.Categorical(["female", "male"] * (PEOPLE // 2)),
        }
    )


@pytest.fixture
def metrics(cohort, rng):
    """Return scores alike for all but eight women: four missed, three failed, one never drawn."""
    parts = []
    for organ in ("liver", "spleen"):
        part = cohort[["subject", "scan", "number"]].assign(
            model="m", organ=organ, dice=0.9 + rng.normal(0, 1e-3, PEOPLE), hd95_mm=2 + rng.normal(0, 1e-3, PEOPLE)
        )
        part["status"] = "ok"
        if organ == "liver":
            part.loc[[0, 2, 4, 6], ["dice", "hd95_mm", "status"]] = [0.0, np.nan, "prediction_empty"]
            part.loc[[8, 10, 12], ["dice", "hd95_mm", "status"]] = [np.nan, np.nan, "prediction_missing"]
            part.loc[[14], ["dice", "hd95_mm", "status"]] = [np.nan, np.nan, "not_drawn"]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def run(metrics, cohort):
    settings = Fairness(
        metrics=["dice", "hd95_mm"],
        margin={"dice": 0.02, "hd95_mm": 1.0},
        min_group=5,
        bootstrap=100,
        correction="holm",
    )
    return fairness.run_audit(metrics, cohort, settings, ["sex"], 1)


def test_people_without_a_value_are_counted_by_group_and_cause(metrics, cohort):
    found = count_lacking(metrics, cohort, ["sex"], ["dice", "hd95_mm"]).set_index(["metric", "organ", "group"])
    women = {
        key[:2]: tuple(row) for key, row in found[["people", "lacking", "missed"]].iterrows() if key[2] == "female"
    }
    # Of 20 women one was not to be drawn; all three organs pooled keep her, for her spleen.
    assert women == {
        ("dice", "liver"): (19, 3, 0),
        ("dice", "all"): (20, 3, 0),
        ("hd95_mm", "liver"): (19, 7, 4),
        ("hd95_mm", "all"): (20, 7, 4),
    }
    assert (found.loc[pd.IndexSlice[:, :, "male"], ["people", "lacking"]].to_numpy() == [20, 0]).all()


def test_counts_stand_beside_the_numbers_and_in_the_row_of_the_comparison(metrics, cohort):
    audit = run(metrics, cohort)
    groups = audit.groups.set_index(["organ", "metric", "group"])
    assert groups.loc[("liver", "hd95_mm", "female"), ["n", "lacking"]].tolist() == [12, 7]
    assert groups.loc[("liver", "dice", "female"), ["n", "lacking"]].tolist() == [16, 3]
    assert groups.loc[("spleen", "hd95_mm", "female"), ["n", "lacking"]].tolist() == [20, 0]
    rows = audit.disparity.set_index(["organ", "metric"])["incomplete"]
    assert rows["liver", "hd95_mm"] == "7 of 19 in “female”, 0 of 20 in “male”"
    assert rows["liver", "dice"] == "3 of 19 in “female”, 0 of 20 in “male”"
    assert rows["spleen", "hd95_mm"] == rows["spleen", "dice"] == ""


def test_where_organs_were_missed_nothing_is_called_equivalent(metrics, cohort):
    verdicts = run(metrics, cohort).disparity.set_index(["organ", "metric"])["verdict"]
    assert verdicts["spleen", "hd95_mm"] == "equivalent", "everybody has a value"
    assert verdicts["liver", "hd95_mm"] == verdicts["all", "hd95_mm"] == "inconclusive"
    assert verdicts["liver", "dice"] not in ("equivalent", "negligible"), "misses count as 0"
    complete = metrics.assign(
        hd95_mm=metrics["hd95_mm"].fillna(2.0), dice=metrics["dice"].replace(0.0, np.nan).fillna(0.9)
    )
    table = run(complete.assign(status="ok"), cohort).disparity
    # So few people do not show that no Dice of 0 was missed; a distance has no such worst value.
    assert (table.loc[table["metric"] == "hd95_mm", "verdict"] == "equivalent").all()


def test_groups_too_small_to_be_shown_are_not_counted_in_words(metrics, cohort):
    few = cohort.assign(group_sex=pd.Categorical(["female"] * 36 + ["male"] * 4))
    lacking = metrics.copy()
    lacking.loc[37, ["hd95_mm", "status"]] = [np.nan, "prediction_empty"]
    audit = run(lacking, few)
    assert not audit.disparity["incomplete"].str.contains("male”, ").any()
    assert not audit.disparity["incomplete"].str.contains("“male”").any()
