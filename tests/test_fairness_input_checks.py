"""Tables of other tools: what cannot be matched is refused in one sentence, what is infinite is
missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers import fairness
from helpers.errors import SegfairError
from helpers.fairness.groups import check_keys, drop_infinite, refuse_repeated_scores
from tests.test_fairness_audit import SIX, make_six


def make_ids_numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(subject=table["subject"].str[1:].astype(int), scan=table["scan"].str[1:].astype(int))


def test_ids_of_two_kinds_are_refused_and_of_one_kind_are_not():
    metrics, cohort = make_six()
    check_keys(metrics, cohort)
    check_keys(make_ids_numbers(metrics), make_ids_numbers(cohort))
    with pytest.raises(
        SegfairError, match="subject holds numbers in metrics and text in cohort: read it as text in both"
    ):
        fairness.run_audit(make_ids_numbers(metrics), cohort, SIX, ["sex"], 1)
    with pytest.raises(SegfairError, match="subject holds text in metrics and numbers in cohort"):
        fairness.run_audit(metrics, make_ids_numbers(cohort), SIX, ["sex"], 1)


def test_a_scan_twice_in_the_cohort_is_refused():
    metrics, cohort = make_six()
    with pytest.raises(SegfairError, match=r"cohort has more than one row for a scan \(1 too many; the first: c2\)"):
        fairness.run_audit(metrics, pd.concat([cohort, cohort.iloc[2:3]]), SIX, ["sex"], 1)


def test_a_score_given_twice_is_refused_unless_rows_are_repeated_measurements():
    metrics, cohort = make_six()
    twice = pd.concat([metrics, metrics.iloc[[1, 4]].assign(dice=0.1)])
    with pytest.raises(
        SegfairError,
        match=r"metrics has more than one row for a scan, model and organ \(2 too many; the first: c1, m, liver\)",
    ):
        fairness.run_audit(twice, cohort, SIX, ["sex"], 1)
    found = fairness.run_audit(twice, cohort, SIX, ["sex"], 1, sizes=metrics)
    assert found.groups.set_index("group")["mean"].to_dict() == pytest.approx(
        {"female": (0.70 + 0.45 + 0.90) / 3, "male": (0.90 + 0.525 + 1.00) / 3}
    )
    refuse_repeated_scores(pd.concat([metrics, metrics.assign(model="other"), metrics.assign(organ="spleen")]))


def test_an_organ_called_as_the_pooled_rows_is_refused():
    metrics, cohort = make_six()
    with pytest.raises(SegfairError, match="metrics has an organ called 'all', which names all organs pooled"):
        fairness.run_audit(metrics.assign(organ="all"), cohort, SIX, ["sex"], 1)


def test_the_audit_leaves_infinite_values_out_and_says_so():
    metrics, cohort = make_six()
    metrics["dice"] = [np.inf, 0.8, 0.9, 0.9, -np.inf, 1.0]
    found = fairness.run_audit(metrics, cohort, SIX, ["sex"], 1)
    assert found.groups.set_index("group")["n"].to_dict() == {"female": 2, "male": 2}
    assert "dice: 2 infinite values count as missing" in found.notes


def test_a_table_without_infinite_values_is_left_alone():
    metrics, _ = make_six()
    kept, notes = drop_infinite(metrics.assign(hd95_mm=pd.array([1, None, 3, 4, 5, 6], "Int64")), ["dice", "hd95_mm"])
    assert notes == [] and kept["hd95_mm"].dtype == "Int64"
