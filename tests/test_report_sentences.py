"""Rules from numbers to words, the dull cases included."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.parameters import Prompt
from helpers.report import sentences
from helpers.report.sentences import Outcome

ROW = {
    "model": "sam",
    "organ": "liver",
    "metric": "dice",
    "attribute": "sex",
    "worst_group": "female",
    "best_group": "male",
    "gap": 0.041,
    "gap_low": 0.020,
    "gap_high": 0.062,
    "p": 0.0001,
    "p_adjusted": 0.002,
    "expected_gap": 0.012,
    "excess_gap": 0.029,
    "excess_low": 0.009,
    "excess_high": 0.049,
    "margin": 0.02,
}
LEVELS = {"female": 0.871, "male": 0.912}
BOUNDARY = {"female": 2.61, "male": 1.58}
FORBIDDEN = ("fair", "equal", "unbiased", "equivalent", "no bias")


def change(**values):
    return ROW | values


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        (ROW, Outcome.SHOWN),
        (change(gap=0.012), Outcome.SMALL),
        (change(gap=0.012, margin=np.nan), Outcome.SHOWN),
        (change(p_adjusted=0.05), Outcome.NOT_SHOWN),
        (change(p=0.001, p_adjusted=0.2), Outcome.NOT_SHOWN),
        (change(p_adjusted=np.nan), Outcome.NOT_SHOWN),
        (change(gap=np.nan), Outcome.NOT_COMPARED),
        (change(worst_group=""), Outcome.NOT_COMPARED),
        (change(best_group=np.nan), Outcome.NOT_COMPARED),
    ],
)
def test_a_gap_is_judged_by_its_adjusted_p(row, outcome):
    assert sentences.judge_gap(row, 0.05) is outcome


def test_p_stands_in_only_where_there_is_no_adjusted_column():
    without = {key: value for key, value in ROW.items() if key != "p_adjusted"}
    assert sentences.judge_gap(without, 0.05) is Outcome.SHOWN
    assert sentences.judge_gap(without | {"p": 0.3}, 0.05) is Outcome.NOT_SHOWN


def test_shown_gap_says_points_mm_size_interval_and_adjusted_p():
    said = sentences.describe_gap(ROW, alpha=0.05, levels=LEVELS, boundary_mm=BOUNDARY)
    assert said == (
        "Liver by sex: Dice is 4.1 points lower for “female” (0.871) than for “male” (0.912); "
        "95 % interval of the gap 2.0 to 6.2 points, adjusted p = 0.002. "
        "As a distance, outlines are off by 2.6 mm for “female” and 1.6 mm for “male” on average: 1.0 mm more. "
        "Organ size alone would give a gap of 1.2 points; the rest is 2.9 points (95 % interval 0.9 to 4.9 points), "
        "so organ size does not explain all of it."
    )


def test_distance_gap_is_higher_for_the_worse_group_and_in_mm():
    row = change(metric="hd95_mm", gap=3.2, gap_low=1.0, gap_high=5.4, margin=1.0)
    said = sentences.describe_gap(row, alpha=0.05)
    assert "95 % Hausdorff distance is 3.2 mm higher for “female” than for “male”" in said
    assert "1.0 to 5.4 mm" in said and "Organ size" not in said


def test_gap_below_the_margin_is_said_to_be_small():
    said = sentences.describe_gap(change(gap=0.012), alpha=0.05)
    assert "less than the 2.0 points this study set as the smallest gap of consequence" in said


def test_no_difference_shown_names_the_gap_that_cannot_be_ruled_out():
    row = change(p_adjusted=0.31, gap_low=-0.01, gap_high=0.035)
    said = sentences.describe_gap(row, alpha=0.05)
    assert said == (
        "Liver by sex: no difference in Dice was shown (adjusted p = 0.31); "
        "with this many people a gap of up to 3.5 points cannot be ruled out."
    )
    assert not any(word in said.lower() for word in FORBIDDEN)


def test_the_gap_left_open_may_lie_in_either_direction():
    row = change(p_adjusted=0.9, gap=0.001, gap_low=-0.052, gap_high=0.035)
    assert "up to 5.2 points" in sentences.describe_open_gap(row)


def test_without_an_interval_nothing_is_ruled_out():
    assert "do not say how large" in sentences.describe_open_gap(change(gap_high=np.nan))


def test_too_few_people_is_said():
    said = sentences.describe_gap(change(gap=np.nan, worst_group="", best_group=""), alpha=0.05)
    assert said.startswith("Liver by sex: no comparison")


@pytest.mark.parametrize(
    ("female", "male", "words"),
    [
        (2.0, 1.0, "1.0 mm more"),
        (1.0, 1.4, "the group with the lower Dice has the smaller boundary error"),
        (1.02, 1.04, "to a tenth of a millimetre the same"),
        (np.nan, 1.0, ""),
        (None, 1.0, ""),
    ],
)
def test_distance_may_tell_another_story_than_dice(female, male, words):
    said = sentences.describe_distance("female", "male", {"female": female, "male": male})
    assert said.endswith(f"{words}.") if words else said == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"excess_low": 0.009}, "so organ size does not explain all of it"),
        ({"excess_low": -0.004}, "compatible with organ size explaining all of it"),
        ({"excess_gap": -0.02, "excess_low": -0.03, "excess_high": -0.01}, "this group does better than expected"),
        ({"excess_low": np.nan}, "how sure that rest is was not computed"),
        ({"expected_gap": -0.01}, "Organ size does not explain it"),
    ],
)
def test_the_share_of_organ_size_is_said_with_its_certainty(values, words):
    assert words in sentences.describe_size_share(change(**values))


def test_the_share_of_organ_size_is_left_out_where_it_was_not_computed():
    assert sentences.describe_size_share({"gap": 0.1}) == ""
    assert sentences.describe_size_share(change(excess_gap=np.nan)) == ""


def describe_model(rows, **values):
    table = pd.DataFrame(rows)
    return sentences.describe_model("sam", table, alpha=0.05, levels={}, boundary_mm={}, **values)


def test_model_with_nothing_found_says_the_largest_open_gap_and_where():
    rows = [change(p_adjusted=0.4), change(p_adjusted=0.8, organ="kidney_left", attribute="bmi", gap_high=0.09)]
    assert describe_model(rows) == [
        "sam: no difference in Dice was shown in 2 comparisons; "
        "with this many people a gap of up to 9.0 points (in kidney left by BMI) cannot be ruled out."
    ]


def test_model_tells_the_largest_gaps_first_and_no_more_than_asked():
    rows = [change(gap=0.03, organ="spleen"), change(gap=0.05), change(gap=0.04, organ="aorta"), change(p_adjusted=0.9)]
    said = describe_model(rows, most=2)
    assert said[0].startswith("sam: a difference in Dice was shown in 3 of 4 comparisons. The two largest:")
    assert said[1].startswith("Liver by sex: Dice is 5.0 points") and said[2].startswith("Aorta")
    assert (
        said[3]
        == "In the other 1 comparison no difference was shown; there a gap of up to 6.2 points (liver by sex) cannot be ruled out."
    )


def test_model_that_failed_everywhere_or_has_no_rows_is_not_compared():
    assert describe_model([change(gap=np.nan)]) == ["sam: no groups could be compared."]
    empty = pd.DataFrame(columns=list(ROW))
    assert sentences.describe_model("sam", empty, alpha=0.05, levels={}, boundary_mm={}) == [
        "sam: no groups could be compared."
    ]


def test_pooled_organs_are_named_as_such():
    assert sentences.describe_gap(change(organ="all"), alpha=0.05).startswith("All organs by sex")


def test_certainty_counts_tests_before_and_after_correction():
    table = pd.DataFrame({"p": [0.001, 0.03, 0.5, np.nan], "p_adjusted": [0.003, 0.06, 0.5, np.nan]})
    said = sentences.describe_certainty(table, alpha=0.05, correction="holm")
    assert said.startswith("3 tests were made") and "1 difference remains" in said and "2 would have counted" in said
    said = sentences.describe_certainty(table, alpha=0.05, correction="none")
    assert "not corrected" in said
    empty = sentences.describe_certainty(table.iloc[3:], alpha=0.05, correction="holm")
    assert empty == "No statistical test could be made."


@pytest.mark.parametrize(
    ("scans", "start"),
    [
        (1, "1 scan allows no group statistics"),
        (2, "2 scans allow no group statistics"),
        (0, "No scans allow no group"),
    ],
)
def test_too_small_a_study_is_said_plainly(scans, start):
    assert sentences.describe_no_statistics(scans, 10).startswith(start)


def test_a_study_of_one_group_is_said_plainly():
    assert "nothing to compare it with" in sentences.describe_no_statistics(40, 10, groups=1)


def test_small_groups_are_told_as_fewer_than():
    said = sentences.describe_groups("sex", {"female": 30, "male": None}, 3, min_group=10)
    assert said == "Sex: “female” 30, fewer than 10 in “male”, not recorded for fewer than 10."
    said = sentences.describe_groups("bmi", {"a": None, "b": None, "c": 12}, 0, min_group=10, unit="kg/m²")
    assert said == "BMI (kg/m²): “c” 12, fewer than 10 each in “a” and “b”."
    assert sentences.describe_groups("age", {}, 0, min_group=10) == "Age: no groups."
    assert sentences.describe_groups("age", {}, 2, min_group=10) == "Age: not recorded for anyone."


def test_people_scans_and_phantoms_are_counted_in_words():
    said = sentences.describe_people(1, 2, ["sam"], phantoms=False)
    assert said == "1 model (sam) was compared with the expert's masks on 2 scans of 1 person."
    assert "of 48 phantoms" in sentences.describe_people(48, 49, ["a", "b"], phantoms=True)


def test_failures_are_told_by_model():
    table = pd.DataFrame({"model": ["a", "a", "b", "b", "c"], "status": ["ok", "failed", "failed", "failed", "ok"]})
    said = sentences.describe_failures(table)
    assert said[0].startswith("a failed on 1 of 2 scans") and said[1].startswith("b failed on every one of 2 scans")
    assert len(said) == 2
    assert sentences.describe_failures(table.iloc[[0, 4]]) == ["No model failed on any scan."]


@pytest.mark.parametrize(
    ("total", "excluded", "words"),
    [
        (0, 0, "The cohort holds no scans."),
        (5, 0, "None of 5 scans was left out."),
        (5, 1, "1 of 5 scans was left out before anything was measured."),
        (5, 5, "Every one of 5 scans was left out: nothing could be measured."),
    ],
)
def test_exclusions_are_counted(total, excluded, words):
    assert sentences.describe_exclusions(total, excluded) == words


def test_reasons_that_differ_in_numbers_alone_are_one():
    reasons = ["age 150 is outside 0 to 120", "no mask", "age 0 is outside 0 to 120", ""]
    assert sentences.merge_reasons(reasons) == [
        ("age … is outside 0 to 120", 2),
        ("no mask", 1),
        ("no reason recorded", 1),
    ]


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.0312, "dice", "3.1 points"),
        (-0.0004, "dice", "0.0 points"),
        (-0.02, "nsd", "−2.0 points"),
        (2.26, "hd95_mm", "2.3 mm"),
        (np.nan, "dice", "not measured"),
        (np.inf, "hd95_mm", "not measured"),
        (None, "dice", "not measured"),
        (12.0, "volume_error_ml", "12.0 ml"),
    ],
)
def test_sizes_carry_their_unit(value, metric, text):
    assert sentences.format_size(value, metric) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "p < 0.001"), (0.0123, "p = 0.012"), (0.123, "p = 0.12"), (1.0, "p > 0.99"), (np.nan, "p not computed")],
)
def test_p_is_written_as_clinicians_read_it(p, text):
    assert sentences.format_p(p) == text


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        (ROW, (Outcome.SHOWN, "worse: female", "4.1 points, p = 0.002")),
        (change(p_adjusted=0.5), (Outcome.NOT_SHOWN, "not shown", "up to 6.2 points")),
        (change(gap=np.nan), (Outcome.NOT_COMPARED, "not compared", "")),
        (None, (Outcome.NOT_COMPARED, "not compared", "")),
    ],
)
def test_a_cell_of_the_picture_says_it_in_words(row, cell):
    assert sentences.describe_cell(row, 0.05) == cell


def test_prompts_are_owned_up_to():
    said = sentences.describe_prompts({"sam": Prompt(jitter=0.05), "ours": None})
    assert "sam is given a box" in said and "5 %" in said and "upper bound" in said
    assert "The masks of ours were made elsewhere" in said
    assert "upper bound" not in sentences.describe_prompts({"ours": None})
    both = sentences.describe_prompts({"a": Prompt(), "b": Prompt(), "c": Prompt(type="box3d")})
    assert "a and b are given a box around" in both and "; c is given one box in space" in both


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ({"jitter": 0}, "a box around each separate part of the organ in every slice (parts under 30 mm² get none)"),
        (
            {"jitter_mm": 4, "per": "organ", "min_area_mm2": 0},
            "a box around the organ in every slice, each side moved at random by up to 4 mm",
        ),
        ({"type": "box3d", "jitter": 0, "min_area_mm2": 0}, "one box in space around each separate part of the organ"),
        (
            {"type": "points", "min_area_mm2": 0, "negative": 2},
            "1 point inside (at its centre) and 2 points beside it for each separate part of the organ in every slice",
        ),
        (
            {"type": "box_points", "jitter": 0, "positive": 3, "placement": "random", "min_area_mm2": 0},
            "a box around each separate part of the organ in every slice, and 3 points inside",
        ),
    ],
)
def test_a_prompt_is_put_in_words(prompt, text):
    assert sentences.describe_prompt(Prompt(**prompt)) == text


def test_confounders_are_named_as_not_allowed_for():
    said = sentences.describe_confounders(["sex", "bmi"], ["scanner"])
    assert "sex and BMI may go together" in said and "not allowed for: scanner" in said
    assert "may go together" not in sentences.describe_confounders(["sex"], [])


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_listed(words, text):
    assert sentences.list_words(words) == text
