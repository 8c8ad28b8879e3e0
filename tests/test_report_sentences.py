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
    "gap_low": 0.022,
    "gap_high": 0.062,
    "p": 0.0001,
    "p_adjusted": 0.002,
    "expected_gap": 0.012,
    "excess_gap": 0.029,
    "excess_low": 0.009,
    "excess_high": 0.049,
    "adjusted_gap": 0.038,
    "adjusted_low": 0.017,
    "adjusted_high": 0.059,
    "margin": 0.02,
    "detectable": 0.031,
    "verdict": "disparity",
}
LEVELS = {"female": 0.871, "male": 0.912}
BOUNDARY = {"female": 2.61, "male": 1.58}
VOLUME = {"female": 84.2, "male": 40.1}
FORBIDDEN = ("fair", "equal", "unbiased", "equivalent", "no bias")
OPEN = {"verdict": "inconclusive", "p_adjusted": 0.31, "gap_low": -0.01, "gap_high": 0.035}
WITHIN = {"verdict": "equivalent", "p_adjusted": 0.6, "gap": 0.004, "gap_low": -0.004, "gap_high": 0.011}


def change(**values):
    return ROW | values


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        (ROW, Outcome.DISPARITY),
        (change(verdict="negligible", gap=0.012), Outcome.NEGLIGIBLE),
        (change(**WITHIN), Outcome.EQUIVALENT),
        (change(**OPEN), Outcome.INCONCLUSIVE),
        (change(verdict="inconclusive"), Outcome.SIZE_OPEN),
        (change(verdict="inconclusive", p_adjusted=0.05), Outcome.SIZE_OPEN),
        (change(verdict="inconclusive", p=0.001, p_adjusted=0.2), Outcome.INCONCLUSIVE),
        (change(verdict="inconclusive", p_adjusted=np.nan), Outcome.INCONCLUSIVE),
        (change(verdict=""), Outcome.SIZE_OPEN),
        (change(gap=np.nan), Outcome.NOT_COMPARED),
        (change(worst_group=""), Outcome.NOT_COMPARED),
        (change(best_group=np.nan), Outcome.NOT_COMPARED),
    ],
)
def test_a_comparison_is_judged_by_its_verdict(row, outcome):
    assert sentences.judge_gap(row, 0.05) is outcome


def test_p_stands_in_only_where_there_is_no_corrected_column():
    without = {key: value for key, value in ROW.items() if key not in ("p_adjusted", "verdict")}
    assert sentences.judge_gap(without, 0.05) is Outcome.SIZE_OPEN
    assert sentences.judge_gap(without | {"p": 0.3}, 0.05) is Outcome.INCONCLUSIVE


def test_a_disparity_says_points_interval_corrected_p_and_margin():
    said = sentences.describe_gap(ROW, alpha=0.05, levels=LEVELS)
    assert said == (
        "Liver by sex: Dice is 4.1 points lower for “female” (0.871) than for “male” (0.912); "
        "95 % interval of the gap 2.2 to 6.2 points, corrected p = 0.002. "
        "It is more than the 2.0 points that this study set as the largest difference of no consequence."
    )
    assert sentences.describe_gap(ROW, alpha=0.05, name_model=True).startswith("sam, liver by sex: Dice is")


def test_a_distance_gap_is_higher_for_the_worse_group_and_in_mm():
    row = change(metric="hd95_mm", gap=3.2, gap_low=1.2, gap_high=5.4, margin=1.0)
    said = sentences.describe_gap(row, alpha=0.05)
    assert "95 % Hausdorff distance is 3.2 mm higher for “female” than for “male”" in said
    assert "1.2 to 5.4 mm" in said and "more than the 1.0 mm" in said


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"verdict": "negligible", "gap": 0.012}, "less than the 2.0 points"),
        ({"verdict": "negligible", "gap": 0.012}, "real, but small"),
        ({"verdict": "inconclusive"}, "whether by more than 2.0 points, the margin of this study, is open"),
        ({"verdict": "inconclusive", "margin": np.nan}, "by how much is open"),
        ({"verdict": "inconclusive", "gap_low": -0.001}, "it is open which of them has the worse mean"),
    ],
)
def test_how_a_difference_compares_with_the_margin_is_said(values, words):
    assert words in sentences.describe_gap(change(**values), alpha=0.05)


def test_an_inconclusive_comparison_names_what_cannot_be_ruled_out_and_what_would_have_been_found():
    said = sentences.describe_gap(change(**OPEN), alpha=0.05)
    assert said == (
        "Liver by sex: the data cannot tell. No difference in Dice was shown (corrected p = 0.31); with this many people a gap of "
        "up to 3.5 points cannot be ruled out, and only a true one of 3.1 points or more would probably have been found."
    )
    assert not any(word in said.lower() for word in FORBIDDEN)


def test_equivalence_is_said_with_its_margin_and_never_called_fair():
    said = sentences.describe_gap(change(**WITHIN), alpha=0.05)
    assert "differ by less than 2.0 points in Dice" in said and "fair" not in said


def test_the_gap_left_open_may_lie_in_either_direction():
    row = change(p_adjusted=0.9, gap=0.001, gap_low=-0.052, gap_high=0.035, detectable=np.nan)
    assert sentences.describe_open_gap(row) == "with this many people a gap of up to 5.2 points cannot be ruled out."


def test_without_an_interval_nothing_is_ruled_out():
    assert "do not say how large" in sentences.describe_open_gap(change(gap_high=np.nan))


def test_too_few_people_is_said():
    said = sentences.describe_gap(change(gap=np.nan, worst_group="", best_group=""), alpha=0.05)
    assert said.startswith("Liver by sex: no comparison")


@pytest.mark.parametrize(
    ("boundary", "volume", "words"),
    [
        (BOUNDARY, None, "On average the outline is off by 2.6 mm for “female” and 1.6 mm for “male”, 1.0 mm more."),
        (None, VOLUME, "On average the volume is off by 84.2 ml for “female” and 40.1 ml for “male”, 44.1 ml more."),
        (
            None,
            {"female": 130.4, "male": 90.2},
            "the volume is off by 130 ml for “female” and 90 ml for “male”, 40 ml more",
        ),
        ({"female": 1.0, "male": 1.4}, None, "0.4 mm less, unlike the gap in Dice"),
        ({"female": 1.02, "male": 1.04}, None, "to a tenth of a mm the same"),
        ({"female": np.nan, "male": 1.0}, None, ""),
        (None, None, ""),
    ],
)
def test_a_gap_is_told_in_mm_and_ml(boundary, volume, words):
    said = sentences.describe_plain_units("female", "male", boundary, volume)
    assert words in said if words else said == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"excess_low": 0.009}, "so organ size does not explain all of it"),
        ({"excess_low": -0.004}, "compatible with organ size explaining all of it"),
        ({"excess_gap": -0.02, "excess_low": -0.03, "excess_high": -0.01}, "this group does better than expected"),
        ({"excess_low": np.nan}, "how sure that rest is was not computed"),
        ({"expected_gap": -0.01}, "Organ size does not explain it"),
        ({"expected_gap": -0.01, "excess_low": -0.01}, "Size alone would give a gap of −1.0 points"),
    ],
)
def test_the_share_of_organ_size_is_said_with_its_certainty(values, words):
    assert words in sentences.describe_size_share(change(**values))


def test_the_share_of_organ_size_is_left_out_where_it_was_not_computed():
    assert sentences.describe_size_share({"gap": 0.1}) == ""
    assert sentences.describe_size_share(change(excess_gap=np.nan)) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {},
            "With age and BMI held equal the gap is 3.8 points instead of 4.1 points (95 % interval 1.7 to 5.9 points): these do not explain it.",
        ),
        ({"adjusted_gap": 0.015, "adjusted_low": 0.004}, "these explain part of it"),
        ({"adjusted_gap": 0.012, "adjusted_low": -0.01}, "these may explain it"),
        ({"adjusted_gap": 0.030, "adjusted_low": -0.01}, "may or may not explain it"),
        ({"adjusted_gap": -0.03, "adjusted_low": -0.05, "adjusted_high": -0.01}, "the direction turns round"),
        ({"adjusted_low": np.nan}, "how sure that is was not computed"),
        ({"adjusted_gap": np.nan}, "could not be computed"),
    ],
)
def test_what_others_held_equal_leave_of_a_gap_is_said(values, words):
    assert words in sentences.describe_adjustment(change(**values), ["age", "BMI"])


def test_that_nothing_could_be_held_equal_is_said():
    assert "Nothing else that was recorded could be held equal" in sentences.describe_adjustment(ROW, [])


def test_matched_pairs_are_told_beside_the_gap():
    match = {"metric": "dice", "gap": 0.039, "low": 0.01, "high": 0.06, "n_pairs": 20.0}
    said = sentences.describe_match(match, 0.041)
    assert (
        said
        == "Among 20 pairs of people matched one by one it is 3.9 points (95 % interval 1.0 to 6.0 points), instead of 4.1 points."
    )
    assert sentences.describe_match(match | {"gap": np.nan}, 0.041) == ""


def describe_model(rows, **values):
    return sentences.describe_model("sam", pd.DataFrame(rows), alpha=0.05, **values)


def test_a_model_with_nothing_found_says_the_largest_open_gap_and_where():
    rows = [change(**OPEN), change(**OPEN | {"gap_high": 0.09}, organ="kidney_left", attribute="bmi"), change(**WITHIN)]
    assert describe_model(rows) == (
        "sam: no difference in Dice was shown in 3 comparisons: 1 within the margin of 2.0 points and 2 in which the data cannot tell "
        "(a gap of up to 9.0 points (kidney left by BMI) cannot be ruled out)."
    )


def test_a_model_tells_the_gravest_first_in_plain_units_and_no_more_than_asked():
    key = ("liver", "sex")
    rows = [
        change(gap=0.03, organ="spleen"),
        change(gap=0.06, organ="all"),
        change(gap=0.05),
        change(gap=0.09, organ="aorta", verdict="inconclusive"),
        change(**OPEN, attribute="bmi"),
    ]
    said = describe_model(rows, most=2, boundary_mm={key: BOUNDARY}, volume_ml={key: VOLUME})
    assert said.startswith(
        "sam: a difference in Dice was shown in 4 of 5 comparisons: liver, worse for “female” than for “male” (Dice 5.0 points lower, "
        "outline 1.0 mm further off, volume 44.1 ml further off); spleen, worse for"
    )
    assert "; two more in the picture. In the others: 1 in which the data cannot tell" in said
    assert describe_model(rows, most=4).index("all organs") < describe_model(rows, most=4).index("aorta")


def test_a_model_without_any_comparison_says_so():
    assert describe_model([change(gap=np.nan)]) == "sam: no groups could be compared."
    assert (
        sentences.describe_model("sam", pd.DataFrame(columns=list(ROW)), alpha=0.05)
        == "sam: no groups could be compared."
    )


def test_pooled_organs_are_named_as_such():
    assert sentences.describe_gap(change(organ="all"), alpha=0.05).startswith("All organs by sex")


def test_other_measures_are_told_where_the_first_one_shows_nothing():
    others = {"metric": "hd95_mm", "gap": 3.0, "margin": 1.0}
    table = pd.DataFrame([change(**OPEN), change(**others), change(organ="spleen"), change(**others, organ="spleen")])
    said = sentences.describe_other_measures(table, "dice", 0.05)
    assert said == (
        "Other measures show a disparity where Dice does not: sam, liver by sex (“female”: 95 % Hausdorff distance 3.0 mm)."
    )
    assert sentences.describe_other_measures(table.iloc[2:], "dice", 0.05) == ""


def test_certainty_counts_tests_before_and_after_correction():
    table = pd.DataFrame({"p": [0.001, 0.03, 0.5, np.nan], "p_adjusted": [0.003, 0.06, 0.5, np.nan]})
    words = sentences.CORRECTIONS
    said = sentences.describe_certainty(table, alpha=0.05, correction="holm", words=words)
    assert said.startswith("3 tests were made") and "1 difference remains" in said and "2 would have counted" in said
    said = sentences.describe_certainty(table, alpha=0.05, correction="none", words=words)
    assert "not corrected" in said
    empty = sentences.describe_certainty(table.iloc[3:], alpha=0.05, correction="holm", words=words)
    assert empty == "No statistical test could be made."


def test_what_would_have_been_found_is_said_with_its_extent():
    rows = pd.DataFrame(
        [change(detectable=0.01), change(detectable=0.02), change(detectable=0.05), change(detectable=np.nan)]
    )
    said = sentences.describe_power(rows, 0.8)
    assert (
        "a true difference in Dice of 2.0 points (1.0 to 5.0 points, by comparison) would have been found in 80 of 100"
        in said
    )
    assert "of 2.0 points would" in sentences.describe_power(rows.iloc[[1]], 0.8)
    assert sentences.describe_power(rows.iloc[[3]], 0.8) == "" == sentences.describe_power(rows[["metric"]], 0.8)


def test_what_is_left_open_is_counted_by_kind():
    said = sentences.describe_unknowns(pd.DataFrame([ROW, change(**OPEN), change(**WITHIN), change(gap=np.nan)]), 0.05)
    assert len(said) == 3
    assert (
        said[0].startswith("In 1 of 3 comparisons in Dice the data cannot tell")
        and "3.5 points (sam, liver by sex)" in said[0]
    )
    assert (
        said[1].startswith("In 1 of 3 comparisons the groups' means lie within 2.0 points")
        and "single persons" in said[1]
    )
    assert said[2].startswith("1 comparison in Dice could not be made")


def test_nothing_is_left_open_where_everything_is_shown_or_nothing_compared():
    assert sentences.describe_unknowns(pd.DataFrame([ROW]), 0.05) == []
    assert sentences.describe_unknowns(pd.DataFrame([change(gap=np.nan)]), 0.05) == []
    assert (
        "do not say how large"
        in sentences.describe_unknowns(pd.DataFrame([change(**OPEN | {"gap_low": np.nan})]), 0.05)[0]
    )


def test_models_are_compared_by_their_gaps():
    row = {
        "model_a": "a",
        "model_b": "b",
        "organ": "liver",
        "attribute": "sex",
        "metric": "dice",
        "difference": -0.03,
        "p_adjusted": 0.01,
    }
    said = sentences.describe_model_gaps(pd.DataFrame([row, row | {"organ": "spleen", "p_adjusted": 0.4}]), 0.05)
    assert said == (
        "In 1 of 2 comparisons of two models one has a smaller gap in Dice: liver by sex, the gap of a is 3.0 points smaller than that of b."
    )
    turned = sentences.describe_model_gaps(pd.DataFrame([row | {"difference": 0.03}]), 0.05)
    assert "the gap of b is 3.0 points smaller than that of a" in turned
    assert "no model was shown" in sentences.describe_model_gaps(pd.DataFrame([row | {"p_adjusted": 0.2}]), 0.05)
    hint = sentences.describe_model_gaps(pd.DataFrame([row | {"p_adjusted": 0.2, "low": -0.05, "high": -0.01}]), 0.05)
    assert hint.endswith("In 1 of them the 95 % interval by itself leaves zero out: a hint, not a proof.")
    assert sentences.describe_model_gaps(pd.DataFrame([row | {"difference": np.nan}]), 0.05) == ""


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        (ROW, (Outcome.DISPARITY, "worse: female", "4.1 points (2.2 to 6.2)")),
        (change(verdict="inconclusive"), (Outcome.SIZE_OPEN, "worse: female", "how much is open: 2.2 to 6.2 points")),
        (
            change(verdict="negligible", gap=0.01),
            (Outcome.NEGLIGIBLE, "small: female", "1.0 points, within 2.0 points"),
        ),
        (change(**WITHIN), (Outcome.EQUIVALENT, "within 2.0 points", "")),
        (change(**OPEN), (Outcome.INCONCLUSIVE, "cannot tell", "up to 3.5 points")),
        (change(gap=np.nan), (Outcome.NOT_COMPARED, "not compared", "")),
        (None, (Outcome.NOT_COMPARED, "not compared", "")),
    ],
)
def test_a_cell_of_the_picture_says_it_in_words(row, cell):
    assert sentences.describe_cell(row, 0.05) == cell


PLACE = {"organ": "liver", "model": "sam", "attribute": "sex", "group_a": "female", "group_b": "male"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "Not tested."),
        ({"significant_fraction": 0.12, "min_p_fwer": 0.002}, "Beyond chance on 12 % of the surface (p = 0.002)."),
        (
            {"significant_fraction": 0.0, "min_p_fwer": 0.3, "p_adjusted": 0.9},
            "Nowhere shown to be beyond chance (p = 0.30, all maps of the study together p = 0.90).",
        ),
    ],
)
def test_a_place_is_told_with_its_certainty(values, words):
    row = PLACE | values
    assert sentences.describe_place(row, "back") == f"Liver (sam) by sex, “female” against “male”: back. {words}"
    assert sentences.describe_place_of_gap("liver", row, "back") == f"Back (“female” against “male”). {words}"


def test_an_organ_without_a_map_has_no_place():
    assert "was not mapped" in sentences.describe_place_of_gap("liver", None, "")
    assert "one by one" in sentences.describe_place_of_gap("all", None, "")


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
    assert said == "Sex: “female” 30, fewer than 10 in “male”, not known for fewer than 10."
    said = sentences.describe_groups("bmi", {"a": None, "b": None, "c": 12}, 0, min_group=10, unit="kg/m²")
    assert said == "BMI (kg/m²): “c” 12, fewer than 10 each in “a” and “b”."
    assert sentences.describe_groups("age", {}, 0, min_group=10) == "Age: no groups."
    assert sentences.describe_groups("age", {}, 2, min_group=10) == "Age: not known for anyone."


def test_people_scans_and_phantoms_are_counted_in_words():
    said = sentences.describe_people(1, 2, ["sam"], phantoms=False)
    assert said == "1 model (sam) was compared with the expert's masks on 2 scans of 1 person."
    mixed = sentences.describe_people(5, 5, ["sam", "x", "y"], phantoms=False, annotators=["x", "y"])
    assert mixed.startswith("1 model (sam) and 2 human annotators (x and y) were compared")
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


def test_scans_left_out_are_counted_by_kind_and_nobodys_value_is_told_of_several():
    rows = [
        ("age 103 years is outside the plausible 0 to 100", "age_implausible"),
        ("withdrew consent", "scan_listed"),
        ("age 101 years is outside the plausible 0 to 100", "age_implausible"),
        ("bmi 3 kg/m² is outside the plausible 10 to 90", "bmi_implausible"),
        ("seen twice", "scan_listed"),
        ("withdrew consent", "scan_listed"),
        ("withdrew consent; age 104 years is outside the plausible 0 to 100", "scan_listed; age_implausible"),
        ("died; age 102 years is outside the plausible 0 to 100", "scan_listed; age_implausible"),
    ]
    assert sentences.count_reasons(pd.DataFrame(rows, columns=["reason", "kind"])) == [
        ("age is not plausible", 2),
        ("withdrew consent", 2),
        ("named under cohort.exclusions.scans; age is not plausible", 2),
        ("bmi 3 kg/m² is outside the plausible 10 to 90", 1),
        ("seen twice", 1),
    ]
    before = pd.DataFrame({"reason": ["age 103 is outside 0 to 100", "age 101 is outside 0 to 100"]})
    assert sentences.count_reasons(before) == [("age … is outside 0 to 100", 2)]


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


def test_what_is_allowed_for_and_what_is_not_is_named():
    said = sentences.describe_confounders(["sex", "BMI"], ["scanner"])
    assert "what was recorded (sex and BMI)" in said and said.endswith("not allowed for: scanner.")
    assert "Gaps are not adjusted" in sentences.describe_confounders([], [])


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [(0.041, 0.02, 0.062, "4.1 (2.0 to 6.2)"), (0.041, np.nan, 0.062, "4.1"), (np.nan, 0.0, 1.0, "–")],
)
def test_an_estimate_in_a_table_carries_its_interval(value, low, high, text):
    assert sentences.format_estimate(value, low, high, "dice") == text


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_listed(words, text):
    assert sentences.list_words(words) == text


def test_a_gap_without_any_spread_is_no_gap_that_cannot_be_ruled_out():
    row = {
        "metric": "dice",
        "gap": 0.0,
        "gap_low": 0.0,
        "gap_high": 0.0,
        "verdict": "inconclusive",
        "worst_group": "a",
        "best_group": "b",
    }
    assert sentences.describe_cell(row, 0.05)[1:] == ("cannot tell", "everyone has the same value")
    wide = row | {"gap_low": -0.01, "gap_high": 0.03}
    assert sentences.describe_cell(wide, 0.05)[1:] == ("cannot tell", "up to 3.0 points")


def test_failures_that_fall_on_one_group_are_told():
    said = sentences.describe_uneven_failures("sam", "severity", {"low": (14, 14), "high": (0, 26)})
    assert said.startswith("sam, by severity: it failed on 14 of 14 scans in “low”, and on 0 of 26 in “high”.")
    assert "nothing is known of how it does there" in said
    part = sentences.describe_uneven_failures("sam", "sex", {"female": (6, 20), "male": (1, 20)})
    assert "may not speak for the rest" in part
    assert sentences.describe_uneven_failures("sam", "sex", {"female": (2, 20), "male": (1, 20)}) == ""
    assert sentences.describe_uneven_failures("sam", "sex", {"female": (5, 20)}) == ""


def test_a_difference_of_ranks_alone_names_nobody_as_worse():
    row = {
        "model": "ours", "organ": "spleen", "attribute": "sex", "metric": "dice", "gap": 0.038, "gap_low": -0.054, "gap_high": 0.13,
        "p_adjusted": 0.03, "verdict": "inconclusive", "worst_group": "female", "best_group": "male", "margin": 0.02,
        "adjusted_gap": 0.03, "adjusted_low": -0.06, "adjusted_high": 0.12,
    }  # fmt: skip
    _, headline, detail = sentences.describe_cell(row, 0.05)
    assert (headline, detail) == ("groups differ", "which is worse on average is open: −5.4 to 13.0 points")
    told = sentences.describe_model("ours", pd.DataFrame([row]), alpha=0.05)
    assert "worse for" not in told and "“female” and “male” differ by their ranks" in told
    assert "no longer" not in sentences.describe_adjustment(row, ["age"])
    sure = row | {"gap_low": 0.004}
    assert sentences.describe_cell(sure, 0.05)[1] == "worse: female"
    assert "zero is no longer left out" in sentences.describe_adjustment(sure, ["age"])
    assert "is still 3.0 points" in sentences.describe_adjustment(sure | {"gap": 0.0301}, ["age"])


def test_the_summary_subtracts_the_numbers_that_the_card_shows():
    row = {
        "model": "ours", "organ": "liver", "attribute": "sex", "metric": "dice", "gap": 0.05, "gap_low": 0.046, "gap_high": 0.054,
        "p_adjusted": 0.001, "verdict": "disparity", "worst_group": "female", "best_group": "male", "margin": 0.02,
    }  # fmt: skip
    key = ("liver", "sex")
    boundary, volume = {"female": 1.842, "male": 0.584}, {"female": 143.2, "male": 5.6}
    told = sentences.describe_model(
        "ours", pd.DataFrame([row]), alpha=0.05, boundary_mm={key: boundary}, volume_ml={key: volume}
    )
    card = sentences.describe_plain_units("female", "male", boundary, volume)
    assert "outline 1.2 mm further off, volume 137 ml further off" in told
    assert "1.2 mm more" in card and "137 ml more" in card
