"""Attributes of scans: paired truths, who counts, and errors that are those of the estimate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import fairness
from helpers.fairness.within_people import _make_pseudo_values
from helpers.parameters import Fairness

SETTINGS = Fairness(metrics=["dice"], min_group=10, bootstrap=400, permutations=200)


def make_phases(rng, *, pairs=400, alone=200, gap=-0.0986, groups=("arterial", "portal"), sd=0.02):
    """People with a scan in each phase, and others with one scan; people differ by 0.2."""
    people = [f"p{number:04d}" for number in range(pairs + alone)]
    level = 0.7 + 0.2 * rng.normal(size=len(people))
    rows = []
    for number, person in enumerate(people):
        mine = range(len(groups)) if number < pairs else [int(rng.integers(len(groups)))]
        rows += [(person, groups[place], level[number] + gap * (place == 0) + sd * rng.normal()) for place in mine]
    table = pd.DataFrame(rows, columns=["subject", "phase", "dice"])
    table["scan"] = [f"s{number:05d}" for number in range(len(table))]
    cohort = table[["subject", "scan"]].assign(
        number=range(1, len(table) + 1),
        group_phase=pd.Categorical(table["phase"], list(groups)),
        group_sex=["female" if int(person[1:]) % 2 else "male" for person in table["subject"]],
    )
    metrics = table[["subject", "scan", "dice"]].assign(model="model", organ="liver")
    return metrics, cohort


def test_a_paired_truth_comes_out_with_a_tight_interval(rng):
    metrics, cohort = make_phases(rng)
    found = fairness.run_audit(metrics, cohort, SETTINGS, ["phase", "sex"], 1)
    row = found.disparity.set_index("attribute").loc["phase"]
    assert (row["best_group"], row["worst_group"]) == ("portal", "arterial")
    wide = (
        metrics.merge(cohort).pivot_table(index="subject", observed=True, columns="group_phase", values="dice").dropna()
    )
    own = stats.ttest_rel(wide["portal"], wide["arterial"])
    low, high = own.confidence_interval()
    assert row["gap"] == pytest.approx((wide["portal"] - wide["arterial"]).mean())
    assert [row["gap_low"], row["gap_high"]] == pytest.approx([low, high], abs=0.1 * (high - low))
    assert row["gap_low"] < 0.0986 < row["gap_high"] and row["gap_high"] - row["gap_low"] < 0.01
    assert row["p"] < 1e-6 and row["verdict"] == "disparity" and row["n"] == 800
    assert np.isnan(row["adjusted_gap"]) and "everybody is compared with themself" in row["note"]
    assert any("the 400 people with scans in several groups" in note for note in found.notes)
    assert set(found.disparity["attribute"]) == {"phase", "sex"} and set(found.matching["attribute"]) == {"sex"}


def test_few_who_change_are_left_out_and_counted(rng):
    metrics, cohort = make_phases(rng, pairs=15, alone=300, sd=0.0, gap=0.0)
    found = fairness.run_audit(metrics, cohort, SETTINGS, ["phase"], 1)
    assert found.groups["n"].sum() == 300
    assert any("15 subjects have scans in several phase groups and take no part" in note for note in found.notes)


@pytest.mark.parametrize("lost", [0.0, 0.4])
def test_intervals_of_three_groups_hold_the_truth_whoever_lacks_one(lost):
    rng, held = np.random.default_rng(2), 0
    for _ in range(150):
        values = rng.normal(size=(80, 1)) * 3 + np.array([0.0, 0.5, 1.0]) + rng.normal(size=(80, 3))
        values[rng.random(values.shape) < lost] = np.nan
        pseudo = _make_pseudo_values(values, 10)
        pseudo = pseudo[np.isfinite(pseudo).all(axis=1)]
        difference = pseudo[:, 2] - pseudo[:, 0]
        held += stats.ttest_1samp(difference, 1.0).pvalue > 0.05
    assert 0.89 <= held / 150 <= 0.99


def test_pseudo_values_have_the_means_of_least_squares(rng):
    values = rng.normal(size=(40, 1)) + rng.normal(size=(40, 3))
    values[rng.random(values.shape) < 0.3] = np.nan
    pseudo = _make_pseudo_values(values, 2)
    place, group = np.nonzero(np.isfinite(values))
    design = np.column_stack([place[:, None] == np.arange(40), group[:, None] == np.arange(1, 3)]).astype(float)
    effects = np.linalg.lstsq(design, values[place, group], rcond=None)[0][-2:]
    means = np.nanmean(pseudo, axis=0)
    np.testing.assert_allclose(means[1:] - means[0], effects)
