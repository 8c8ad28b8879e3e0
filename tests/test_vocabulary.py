"""Names, numbers and verdicts: one record each, from which everything else derives."""

from __future__ import annotations

import math

import pytest

from helpers.errors import SegfairError
from helpers.metrics import MaskComparison
from helpers.vocabulary.measures import MEASURES, find_measure, list_default_margins, list_scores, list_symmetric
from helpers.vocabulary.statuses import EMPTY_CASES, STATUSES, say_measures
from helpers.vocabulary.verdicts import Verdict, read_verdict
from helpers.vocabulary.words import (
    compare_p,
    count,
    format_estimate,
    format_interval,
    format_number,
    format_p,
    format_value,
    is_known,
    list_words,
    name_organ,
)


def test_a_record_per_measure_that_is_computed():
    assert set(MEASURES) == set(MaskComparison.__dataclass_fields__) - {"status"}
    assert all(key == measure.key for key, measure in MEASURES.items())
    assert set(list_symmetric()) <= set(list_scores()) < set(MEASURES)
    assert list_default_margins() == {"dice": 0.02, "nsd": 0.02, "hd95_mm": 1.0, "boundary_error_mm": 0.5}


def test_direction_sign_and_word_agree():
    assert {key for key in list_scores() if MEASURES[key].worse == "lower"} == {
        "dice",
        "iou",
        "nsd",
        "precision",
        "recall",
    }
    for key in list_scores():
        measure = MEASURES[key]
        assert (measure.sign == 1.0) == (measure.worse == "lower") == bool(measure.higher_is_better)


def test_labels_hold_scale_and_direction():
    assert MEASURES["dice"].label == "Dice (0–1, higher is better)"
    assert MEASURES["hd95_mm"].label == "95 % Hausdorff distance (mm, lower is better)"
    assert MEASURES["volume_error_ml"].label == "Volume error (ml, 0 is best)"
    assert MEASURES["volume_ref_ml"].label == "Reference volume (ml)"
    assert MEASURES["dice"].say_best("is more alike") == "higher is more alike"


def test_an_unknown_measure_is_refused_by_name():
    with pytest.raises(SegfairError, match=r"metrics must be among dice, iou, .*; got .dise."):
        find_measure("dise")


def test_statuses_say_what_the_empty_cases_hold():
    assert set(EMPTY_CASES) - {"one_empty"} < set(STATUSES)
    missed = STATUSES["prediction_empty"].counts_as
    for key, value in EMPTY_CASES["prediction_empty"].items():
        if MEASURES[key].is_score and value is not None:
            assert f"{MEASURES[key].name} is 1" in missed if value else MEASURES[key].name in missed
    assert "are 0" in missed and "distances are not defined" in missed
    assert "nothing is scored" in STATUSES["both_empty"].counts_as
    assert say_measures("ok") == "all" and say_measures("failed") == "none"
    assert say_measures("both_empty") == "volume_ref_ml = 0, volume_pred_ml = 0"


def test_every_verdict_has_looks_of_its_own():
    for name in ("sign", "word", "meaning", "colour", "tone"):
        assert len({getattr(verdict, name) for verdict in Verdict}) == len(Verdict)
    assert Verdict("disparity") is Verdict.DISPARITY == "disparity" and Verdict("not compared").word == "not compared"


ROW = {"worst_group": "a", "best_group": "b", "gap": 0.1, "verdict": "inconclusive", "p_adjusted": 0.2}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.INCONCLUSIVE),
        ({"verdict": "difference", "p_adjusted": 0.01}, Verdict.DIFFERENCE),
        ({"verdict": "", "p_adjusted": 0.05, "gap_low": 0.01, "gap_high": 0.2}, Verdict.DIFFERENCE),
        ({"verdict": "", "p_adjusted": 0.05, "gap_low": -0.01, "gap_high": 0.2}, Verdict.INCONCLUSIVE),
        ({"verdict": "", "p_adjusted": math.nan}, Verdict.INCONCLUSIVE),
        ({"verdict": "disparity", "p_adjusted": 0.01}, Verdict.DISPARITY),
        ({"verdict": "negligible", "p_adjusted": 0.01}, Verdict.NEGLIGIBLE),
        ({"verdict": "equivalent"}, Verdict.EQUIVALENT),
        ({"gap": math.nan, "verdict": "disparity"}, Verdict.NOT_COMPARED),
        ({"worst_group": ""}, Verdict.NOT_COMPARED),
    ],
)
def test_a_row_has_one_verdict(change, verdict):
    assert read_verdict(ROW | change, 0.05) is verdict


def test_without_an_adjusted_p_the_tests_own_counts():
    row = {"worst_group": "a", "best_group": "b", "gap": 0.1, "gap_low": 0.05, "gap_high": 0.2, "p": 0.01}
    assert read_verdict(row, 0.05) is Verdict.DIFFERENCE


def test_a_number_is_written_in_one_way():
    assert format_value(0.0412, "dice") == "0.041" and format_value(-0.0412, "dice", signed=True) == "−0.041"
    assert format_value(0.0412, "dice", signed=True) == "+0.041"
    assert format_value(2.6, "hd95_mm") == "2.60 mm" and format_value(12.34, "volume_error_ml") == "12.3 ml"
    assert format_value(-0.0001, "dice", signed=True) == "0.000"
    assert format_value(math.nan, "dice") == "not measured" and format_number(math.inf, "dice") == "–"
    assert format_interval(-0.3, 2.1, "assd_mm") == "−0.30 to 2.10 mm"
    assert format_interval(None, 2.1, "assd_mm") == "no interval"
    assert format_estimate(0.041, 0.02, 0.0621, "dice") == "0.041 (0.020 to 0.062)"
    assert format_estimate(0.041, None, None, "dice") == "0.041" and format_estimate(None, 0, 1, "dice") == "–"


def test_a_p_value_is_written_in_one_way():
    assert [format_p(p) for p in (0.0001, 0.0123, 0.2345, 0.999, math.nan)] == [
        "p < 0.001",
        "p = 0.012",
        "p = 0.23",
        "p > 0.99",
        "p not computed",
    ]
    assert compare_p(0.0123) == "= 0.012" and compare_p(None) == "–"


def test_names_and_lists():
    assert name_organ("all") == "all organs" and name_organ("kidney_left") == "left kidney"
    assert count(1, "scan") == "1 scan" and count(0, "scan") == "no scans" and count(2, "body", "bodies") == "2 bodies"
    assert list_words([]) == "" and list_words(["a", "b", "c"], last="or") == "a, b or c"
    assert is_known(0) and is_known("x") and not any(map(is_known, (None, "", math.nan, math.inf)))
