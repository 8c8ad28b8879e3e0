"""Rules from numbers to words, the dull cases included."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.figures import verdict_matrix
from helpers.parameters import Prompt
from helpers.report.sentences import gaps, summary
from helpers.report.sentences import study as told
from helpers.vocabulary.verdicts import Verdict, read_verdict, trace_pooled

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


def describe_cell(row, alpha):
    verdict = read_verdict(row or {}, alpha)
    return verdict, verdict_matrix.describe_cell(row or {}, verdict)


def change(**values):
    return ROW | values


def test_a_disparity_says_size_interval_adjusted_p_and_margin():
    said = gaps.describe_amount(ROW, alpha=0.05, levels=LEVELS)
    assert said == (
        "Dice is 0.041 lower for women (0.871) than for men (0.912); "
        "95 % confidence interval of the gap 0.022 to 0.062, adjusted p = 0.002. "
        "It is larger than 0.020, the largest difference considered unimportant (the margin)."
    )


def test_a_distance_gap_is_higher_for_the_worse_group_and_in_mm():
    row = change(metric="hd95_mm", gap=3.2, gap_low=1.2, gap_high=15.4, margin=1.0)
    said = gaps.describe_amount(row, alpha=0.05)
    assert "95 % Hausdorff distance is 3.20 mm higher for women than for men" in said
    assert "1.20 to 15.4 mm" in said and "larger than 1.00 mm" in said


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"verdict": "negligible", "gap": 0.012}, "real, but smaller than 0.020"),
        ({"verdict": "difference"}, "whether by more than 0.020, the margin, is uncertain"),
        ({"verdict": "difference", "margin": np.nan}, "by how much is uncertain"),
        ({"verdict": "difference", "gap_low": -0.001}, "which group has the worst mean is uncertain"),
    ],
)
def test_how_a_difference_compares_with_the_margin_is_said(values, words):
    assert words in gaps.describe_amount(change(**values), alpha=0.05)
    assert gaps.describe_verdict(change(**OPEN), 0.05) == "" == gaps.describe_verdict(change(**WITHIN), 0.05)


def test_an_inconclusive_comparison_names_what_cannot_be_ruled_out_and_calls_nothing_alike():
    said = gaps.describe_unknowns(pd.DataFrame([change(**OPEN)]), 0.05)
    assert said == [
        "1 of 1 comparison in Dice is inconclusive: neither a difference nor its absence was found, and a gap of up "
        "to 0.035 (sam, liver by sex) cannot be ruled out."
    ]
    assert not any(word in said[0].lower() for word in FORBIDDEN)


def test_equivalence_is_said_with_its_margin_and_never_called_fair():
    (said,) = gaps.describe_unknowns(pd.DataFrame([change(**WITHIN)]), 0.05)
    assert "means lie within 0.020 of each other" in said and "fair" not in said


def test_the_gap_left_open_may_lie_in_either_direction():
    assert gaps.find_reach(change(gap_low=-0.052, gap_high=0.035)) == 0.052
    assert gaps.find_reach(change(gap_high=np.nan)) is None is gaps.find_reach(change(gap_low=0.0, gap_high=0.0))


@pytest.mark.parametrize(
    ("boundary", "volume", "words"),
    [
        (BOUNDARY, None, "On average the boundary error is 2.61 mm for women and 1.58 mm for men, 1.03 mm more."),
        (None, VOLUME, "On average the volume error is 84.2 ml for women and 40.1 ml for men, 44.1 ml more."),
        (
            None,
            {"female": 130.4, "male": 90.2},
            "the volume error is 130.4 ml for women and 90.2 ml for men, 40.2 ml more",
        ),
        ({"female": 1.0, "male": 1.4}, None, "0.40 mm less, unlike the gap"),
        ({"female": 1.021, "male": 1.024}, None, "1.02 mm for men, the same"),
        ({"female": np.nan, "male": 1.0}, None, ""),
        (None, None, ""),
    ],
)
def test_a_gap_is_told_in_mm_and_ml(boundary, volume, words):
    levels = {"boundary_error_mm": boundary or {}, "volume_error_ml": volume or {}}
    said = gaps.describe_plain_units(ROW, levels)
    assert words in said if words else said == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"excess_low": 0.009}, "so organ size does not explain all of it"),
        ({"excess_low": -0.004}, "compatible with organ size explaining all of it"),
        (
            {"excess_gap": -0.02, "excess_low": -0.03, "excess_high": -0.01},
            "this group does better than its organ size predicts",
        ),
        ({"excess_low": np.nan}, "(no interval), how certain that is was not computed"),
        ({"expected_gap": -0.01}, "Organ size does not explain it"),
        ({"expected_gap": -0.01, "excess_low": -0.01}, "Size alone would give a gap of −0.010"),
    ],
)
def test_the_share_of_organ_size_is_said_with_its_certainty(values, words):
    assert words in gaps.describe_size_share(change(**values))


def test_the_share_of_organ_size_is_left_out_where_it_was_not_computed():
    assert gaps.describe_size_share({"gap": 0.1}) == ""
    assert gaps.describe_size_share(change(excess_gap=np.nan)) == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {},
            "Adjusted for age and BMI, the gap is 0.038 instead of 0.041 (95 % CI 0.017 to 0.059): these do not "
            "explain it.",
        ),
        ({"adjusted_gap": 0.015, "adjusted_low": 0.004}, "these explain part of it"),
        ({"adjusted_gap": 0.012, "adjusted_low": -0.01}, "these may explain it"),
        ({"adjusted_gap": 0.030, "adjusted_low": -0.01}, "now includes zero: these may or may not explain the gap"),
        ({"adjusted_gap": -0.03, "adjusted_low": -0.05, "adjusted_high": -0.01}, "it reverses after adjustment"),
        ({"adjusted_low": np.nan}, "how certain that is was not computed"),
        ({"adjusted_gap": np.nan}, "could not be computed"),
    ],
)
def test_what_adjustment_leaves_of_a_gap_is_said(values, words):
    assert words in gaps.describe_adjustment(change(**values), ["age", "BMI"])


def test_that_nothing_could_be_adjusted_for_is_said():
    assert "Nothing else that was recorded could be adjusted for" in gaps.describe_adjustment(ROW, [])


def test_why_nothing_was_adjusted_is_told_and_nothing_else():
    row = change(adjusted_gap=np.nan, adjusted_low=np.nan, adjusted_high=np.nan)
    why = "sex and scanner cannot be told apart here: nearly all 13 in “female” have scanner B, all 11 in “male” have A"
    said = gaps.describe_adjustment(row, [], note=why, warnings="")
    assert said == f"S{why[1:]}, so there is no adjusted gap."


def test_what_makes_an_adjusted_gap_uncertain_and_the_direct_gap_are_told():
    row = change(adjusted_gap=0.03, adjusted_low=0.02, adjusted_high=0.04)
    row |= {"direct_gap": 0.01, "direct_low": -0.01, "direct_high": 0.03}
    said = gaps.describe_adjustment(row, ["age"], ["diagnosis"], warnings="nobody of male has site two")
    assert " Note: nobody of male has site two." in said
    assert "Diagnosis may be how sex acts: adjusted for that as well, the direct gap is 0.010 (95 % CI" in said


def test_matched_pairs_are_told_beside_the_gap():
    match = {"metric": "dice", "gap": 0.039, "low": 0.01, "high": 0.06, "n_pairs": 20.0}
    said = gaps.describe_match(match, 0.041)
    assert said == "Among 20 matched pairs of people it is 0.039 (95 % CI 0.010 to 0.060), instead of 0.041."
    assert gaps.describe_match(match | {"gap": np.nan}, 0.041) == ""


def summarise(function, rows, **values):
    table = pd.DataFrame(rows, columns=list(ROW))
    return function(dict(list(table.groupby("model", sort=False))), 0.05, **values)


def find(rows, *, levels=None, places=None, many=False, apart=()):
    return summarise(summary.summarise_found, rows, levels=levels or {}, places=places or {}, many=many, apart=apart)


def test_models_with_nothing_found_say_the_largest_open_gap_and_where():
    rows = [change(**OPEN), change(**OPEN | {"gap_high": 0.09}, organ="kidney_left", attribute="bmi"), change(**WITHIN)]
    assert find(rows) == ""
    assert summarise(summary.summarise_rest, rows) == (
        "For sam no difference in Dice was found; a gap of up to 0.090 (left kidney by BMI) cannot be ruled out."
    )
    assert summarise(summary.summarise_rest, [*rows, change(model="net", **WITHIN)], others=["net"]) == (
        "For sam and net no difference in Dice was found; a gap of up to 0.090 (sam, left kidney by BMI) cannot be "
        "ruled out (other measures show differences for net, below)."
    )
    assert summarise(summary.summarise_rest, [change(**WITHIN)]) == (
        "For sam no difference in Dice was found: every comparison is within the margin."
    )
    assert summarise(summary.summarise_rest, [change(**OPEN | {"gap_low": np.nan, "gap_high": np.nan})]) == (
        "For sam no difference in Dice was found; how large a gap may be hidden is not known."
    )
    assert summarise(summary.summarise_rest, [change(gap=np.nan)]) == "For sam no groups could be compared."
    assert summarise(summary.summarise_rest, [ROW, change(**OPEN)]) == "", "what is shown is told before"


def test_the_box_tells_disparities_in_full_and_names_what_is_uncertain():
    rows = [
        change(gap=0.06, organ="all"),
        change(gap=0.05),
        change(gap=0.09, organ="aorta", verdict="difference"),
        change(model="net", organ="spleen", verdict="difference", gap_low=-0.01),
        change(**OPEN, attribute="bmi"),
    ]
    levels = {("sam", "liver", "sex"): {"boundary_error_mm": BOUNDARY, "volume_error_ml": VOLUME}}
    uncertain = (
        "Differences of small or uncertain size: sam for women in the aorta; net for some groups by sex in the spleen."
    )
    assert find(rows, levels=levels) == (
        f"sam is worse for women in the liver (Dice 0.050 lower; boundary error 1.03 mm larger). {uncertain}"
    )
    levels["sam", "liver", "sex"]["dice"] = {"female": 0.88, "male": 0.93}
    places = {("sam", "liver", "sex"): "masks typically 3.0 mm further inside"}
    assert find(rows, levels=levels, places=places) == (
        "sam is worse for women in the liver (mean Dice 0.880 against 0.930 for men; "
        f"{places['sam', 'liver', 'sex']}). {uncertain}"
    )
    assert find(rows, levels=levels, apart={"sam"}).startswith("sam, which is no model, is worse for women")
    assert find(rows[3:]).startswith("No difference is certain to exceed the margin. Differences of small")
    assert find(rows, many=True) == summarise(gaps.describe_many_models, rows)


def test_the_box_begins_with_who_was_compared_and_what_matters():
    groups = {"sex": {"female": 30, "male": None}, "bmi": {"below 25": 20, "over": 10}}
    rows = pd.DataFrame([ROW])
    assert summary.summarise_people("60 people", groups, min_group=5, rows=rows) == (
        "60 people, compared by sex (female: 30, male: fewer than 5) and BMI (below 25: 20, over: 10). Differences in "
        "mean Dice under 0.020, the margin, count as unimportant."
    )
    many = {f"attribute {place}": groups["sex"] for place in range(5)}
    said = summary.summarise_people("60 people", many, min_group=5, rows=rows.assign(margin=np.nan))
    assert said.endswith("attribute 3 (2 groups) and attribute 4 (2 groups).")


def test_the_box_says_what_every_model_is():
    kinds = {"prompt_only": "no model but an ellipse in each box", "a": "known by masks made elsewhere"}
    kinds["b"] = kinds["a"]
    assert summary.summarise_models(kinds) == (
        "prompt_only is no model but an ellipse in each box; a and b are known by masks made elsewhere."
    )
    many = dict.fromkeys("abcdefg", "known by ready-made scores alone")
    assert summary.summarise_models(many) == "7 models are known by ready-made scores alone."


def test_all_organs_follow_from_the_organs_that_show_the_same():
    pooled, other = change(organ="all"), change(organ="spleen", worst_group="male", best_group="female")
    rows = [pooled, ROW, other, change(organ="aorta", **OPEN)]
    assert trace_pooled(pooled, rows, 0.05) == ["liver"]
    assert trace_pooled(pooled, [pooled, other], 0.05) == []
    assert trace_pooled(ROW, rows, 0.05) is None is trace_pooled(change(organ="all", **OPEN), rows, 0.05)


def test_pooled_organs_are_named_as_such():
    assert gaps.name_comparison(change(organ="all")) == "all organs by sex"


def test_other_measures_are_told_where_the_first_one_shows_nothing():
    others = {"metric": "hd95_mm", "gap": 3.0, "margin": 1.0}
    table = pd.DataFrame([change(**OPEN), change(**others), change(organ="spleen"), change(**others, organ="spleen")])
    assert gaps.describe_other_measures(table, "dice", 0.05) == [
        "sam, liver by sex, worse for women: 95 % Hausdorff distance 3.00 mm higher."
    ]
    assert gaps.describe_other_measures(table.iloc[2:], "dice", 0.05) == []


def test_every_difference_of_other_measures_is_told_not_disparities_alone():
    small = {"metric": "boundary_error_mm", "gap": 0.4, "margin": 0.5, "verdict": "negligible", "worst_group": "male"}
    rows = [change(organ=organ, **OPEN) for organ in ("all", "liver", "spleen")]
    rows += [change(organ="all", best_group="female", **small), change(organ="liver", best_group="female", **small)]
    rows += [change(organ="spleen", metric="nsd", verdict="difference", gap=0.03)]
    assert gaps.describe_other_measures(pd.DataFrame(rows), "dice", 0.05) == [
        "sam, spleen by sex, worse for women: surface Dice (NSD) 0.030 lower.",
        "sam, liver by sex, worse for men: boundary error 0.40 mm higher, within the margin.",
        "sam, all organs by sex, worse for men: boundary error 0.40 mm higher, within the margin (follows from liver).",
    ]
    assert gaps.describe_other_measures(pd.DataFrame(rows), "dice", 0.05, most=1)[1:] == [
        "2 more such comparisons: see “Every comparison”."
    ]


def test_a_card_tells_what_other_measures_show_of_its_place():
    rows = pd.DataFrame([ROW, change(metric="nsd", gap=0.06), change(metric="hd95_mm", **OPEN), change(organ="spleen")])
    assert gaps.describe_same_place(ROW, rows, 0.05) == "Found as well: surface Dice (NSD) 0.060 lower."
    assert gaps.describe_same_place(ROW, rows.iloc[[0, 2]], 0.05) == ""


def test_a_gap_that_stands_out_is_told_with_what_it_is_likely_to_be():
    said = gaps.describe_amount(change(told_gap=0.033, told_low=0.004, told_high=0.058), alpha=0.05, levels=LEVELS)
    assert said.endswith("allowing for that, this one is about 0.033 (0.004 to 0.058).")
    sure = gaps.describe_amount(change(told_gap=0.0409, told_low=0.02, told_high=0.06), alpha=0.05, levels=LEVELS)
    assert "overstated" not in sure, "it says the same"


def test_dice_and_surface_dice_that_point_opposite_ways_are_told():
    other = {"metric": "nsd", "worst_group": "male", "best_group": "female", **OPEN}
    rows = pd.DataFrame([ROW, change(**other)])
    said = gaps.describe_opposites(rows, 0.05)
    assert said.startswith(
        "Dice and surface Dice point opposite ways: sam, liver by sex: Dice is worse for women, surface Dice for men. "
    )
    assert gaps.describe_opposites(pd.DataFrame([ROW, change(metric="nsd")]), 0.05) == ""
    assert gaps.describe_opposites(pd.DataFrame([change(**OPEN), change(**other)]), 0.05) == "", "nothing is shown"
    assert gaps.describe_opposites(pd.DataFrame([ROW]), 0.05) == ""


def test_certainty_counts_tests_before_and_after_correction():
    table = pd.DataFrame({"p": [0.001, 0.03, 0.5, np.nan], "p_adjusted": [0.003, 0.06, 0.5, np.nan]})
    said = gaps.describe_certainty(table, alpha=0.05, correction="holm")
    assert (
        said.startswith("3 tests were made")
        and "1 difference remains" in said
        and "each tested alone, 2 would count" in said
    )
    said = gaps.describe_certainty(table, alpha=0.05, correction="none")
    assert "not adjusted for their number: if no group differed, about 0 of 3 would fall below 0.05 by chance" in said
    empty = gaps.describe_certainty(table.iloc[3:], alpha=0.05, correction="holm")
    assert empty == "No statistical test could be made."


def test_what_would_have_been_found_is_said_with_its_extent():
    rows = pd.DataFrame(
        [change(detectable=0.01), change(detectable=0.02), change(detectable=0.05), change(detectable=np.nan)]
    )
    said = gaps.describe_power(rows, 0.8)
    assert (
        "Minimum detectable difference in Dice (80 % power, a single test of two groups): 0.020 (0.010 to 0.050, by"
        in said
    )
    assert "two groups): 0.020. Adjusted" in gaps.describe_power(rows.iloc[[1]], 0.8)
    assert gaps.describe_power(rows.iloc[[3]], 0.8) == "" == gaps.describe_power(rows[["metric"]], 0.8)


def test_what_is_left_open_is_counted_by_kind():
    said = gaps.describe_unknowns(pd.DataFrame([ROW, change(**OPEN), change(**WITHIN), change(gap=np.nan)]), 0.05)
    assert len(said) == 3
    assert said[0].startswith("1 of 3 comparisons in Dice is inconclusive") and "0.035 (sam, liver by sex)" in said[0]
    assert (
        said[1].startswith("In 1 of 3 comparisons the groups' means lie within 0.020") and "single persons" in said[1]
    )
    assert said[2].startswith("1 comparison in Dice could not be made")


def test_nothing_is_left_open_where_everything_is_shown_or_nothing_compared():
    assert gaps.describe_unknowns(pd.DataFrame([ROW]), 0.05) == []
    assert gaps.describe_unknowns(pd.DataFrame([change(gap=np.nan)]), 0.05) == []
    assert (
        "do not say how large" in gaps.describe_unknowns(pd.DataFrame([change(**OPEN | {"gap_low": np.nan})]), 0.05)[0]
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
    said = gaps.describe_model_gaps(pd.DataFrame([row, row | {"organ": "spleen", "p_adjusted": 0.4}]), 0.05)
    assert said == (
        "In 1 of 2 comparisons of two models one has a smaller gap in Dice: liver by sex, the gap of a is 0.030 "
        "smaller than that of b."
    )
    turned = gaps.describe_model_gaps(pd.DataFrame([row | {"difference": 0.03}]), 0.05)
    assert "the gap of b is 0.030 smaller than that of a" in turned
    assert "no model was found" in gaps.describe_model_gaps(pd.DataFrame([row | {"p_adjusted": 0.2}]), 0.05)
    hint = gaps.describe_model_gaps(pd.DataFrame([row | {"p_adjusted": 0.2, "low": -0.05, "high": -0.01}]), 0.05)
    assert hint.endswith("In 1 of them the 95 % confidence interval by itself excludes zero: a hint, not a proof.")
    assert gaps.describe_model_gaps(pd.DataFrame([row | {"difference": np.nan}]), 0.05) == ""


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        (ROW, (Verdict.DISPARITY, "women worse by 0.041 (0.022 to 0.062)")),
        (
            change(verdict="difference"),
            (Verdict.DIFFERENCE, "women worse by 0.041 (0.022 to 0.062)"),
        ),
        (
            change(verdict="negligible", gap=0.01),
            (Verdict.NEGLIGIBLE, "women worse by 0.010 (0.022 to 0.062)"),
        ),
        (change(**WITHIN), (Verdict.EQUIVALENT, "0.004 (−0.004 to 0.011)")),
        (change(**OPEN), (Verdict.INCONCLUSIVE, "0.041 (−0.010 to 0.035)")),
        (change(gap=np.nan), (Verdict.NOT_COMPARED, "")),
        (None, (Verdict.NOT_COMPARED, "")),
    ],
)
def test_a_cell_of_the_picture_says_it_in_words(row, cell):
    assert describe_cell(row, 0.05) == cell


@pytest.mark.parametrize(
    ("scans", "start"),
    [
        (1, "1 scan allows no group statistics"),
        (2, "2 scans allow no group statistics"),
        (0, "No scans allow no group"),
    ],
)
def test_too_small_a_study_is_said_plainly(scans, start):
    assert told.describe_no_statistics(scans, 10).startswith(start)


def test_a_study_of_one_group_is_said_plainly():
    assert "nothing to compare it with" in told.describe_no_statistics(40, 10, groups=1)


def test_small_groups_are_told_as_fewer_than():
    said = told.describe_groups("sex", {"female": 30, "male": None}, 3, min_group=10)
    assert said == "Sex: female (30), fewer than 10 in “male”, not recorded for a few (fewer than 10)."
    said = told.describe_groups("bmi", {"a": None, "b": None, "c": 12}, 0, min_group=10, unit="kg/m²")
    assert said == "BMI (kg/m²): c (12), fewer than 10 each in “a” and “b”."
    assert told.describe_groups("age", {}, 0, min_group=10) == "Age: no groups."
    assert told.describe_groups("age", {}, 2, min_group=10) == "Age: not known for anyone."


def test_people_scans_and_phantoms_are_counted_in_words():
    said = told.describe_people(1, 2, ["sam"], phantoms=False)
    assert said == "The masks of sam were compared with the expert's on 2 scans of 1 person."
    mixed = told.describe_people(5, 5, ["sam", "x", "y"], phantoms=False, annotators=["x", "y"])
    assert mixed.startswith("The masks of sam and 2 human annotators (x and y) were compared")
    assert "of 48 phantoms" in told.describe_people(48, 49, ["a", "b"], phantoms=True)


def test_failures_are_told_by_model():
    table = pd.DataFrame({"model": ["a", "a", "b", "b", "c"], "status": ["ok", "failed", "failed", "failed", "ok"]})
    said = told.describe_failures(table)
    assert said[0].startswith("a failed on 1 of 2 scans") and said[1].startswith("b failed on every one of 2 scans")
    assert len(said) == 2
    assert told.describe_failures(table.iloc[[0, 4]]) == ["No model failed on any scan."]


def test_masks_that_were_brought_to_another_grid_are_counted():
    table = pd.DataFrame(
        {
            "model": ["a", "a", "a", "b"],
            "status": ["ok", "ok", "failed", "ok"],
            "resampled": [True, False, False, False],
        }
    )
    references, model = told.describe_resampled(3, 7, table)
    assert references.startswith(
        "The experts' masks of 3 of 7 scans lay on another grid than the image and were brought"
    )
    assert model.startswith("a: the masks of 1 of 2 scans lay on another grid than the expert's")
    assert told.describe_resampled(0, 7, table[2:]) == told.describe_resampled(0, 7, None) == []


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
    assert told.describe_exclusions(total, excluded) == words


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
    table = pd.DataFrame(rows, columns=["reason", "kind"])
    assert told.count_reasons(table["reason"], table["kind"]) == [
        ("age is not plausible", 2),
        ("withdrew consent", 2),
        ("named under cohort.exclusions.scans; age is not plausible", 2),
        ("bmi 3 kg/m² is outside the plausible 10 to 90", 1),
        ("seen twice", 1),
    ]


def test_reasons_without_a_kind_are_counted_by_their_own_words():
    reasons = pd.Series(["no mask", "spacing differs by 1 mm", "out of memory", "", "out of memory"])
    assert told.count_reasons(reasons) == [
        ("out of memory", 2),
        ("no mask", 1),
        ("spacing differs by 1 mm", 1),
        ("no reason recorded", 1),
    ]


def test_prompts_are_owned_up_to():
    said = told.describe_prompts({"sam": Prompt(jitter=0.05)}, ["ours"])
    assert "sam is given a box" in said and "5 %" in said and "upper bound" in said
    assert "The masks of ours were made elsewhere" in said
    assert "upper bound" not in told.describe_prompts({}, ["ours"])
    assert told.describe_prompts({}, []) == ""
    both = told.describe_prompts({"a": Prompt(), "b": Prompt(), "c": Prompt(type="box3d")}, [])
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
    assert told.describe_prompt(Prompt(**prompt)) == text


def test_what_is_allowed_for_and_what_is_not_is_named():
    said = told.describe_confounders(["sex", "BMI"], ["scanner"])
    assert "what was recorded (sex and BMI)" in said and said.endswith("not adjusted for: scanner.")
    assert "Gaps are not adjusted" in told.describe_confounders([], [])


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
    assert describe_cell(row, 0.05)[1] == "everyone has the same value"
    wide = row | {"gap_low": -0.01, "gap_high": 0.03}
    assert describe_cell(wide, 0.05)[1] == "0.000 (−0.010 to 0.030)"


def test_failures_that_fall_on_one_group_are_told():
    said = told.describe_uneven_failures("sam", "severity", {"low": (14, 14), "high": (0, 26)})
    assert said.startswith("sam, by severity: it failed on 14 of 14 scans of “low”, and on 0 of 26 of “high”.")
    assert "nothing is known of how it does there" in said
    part = told.describe_uneven_failures("sam", "sex", {"female": (6, 20), "male": (1, 20)})
    assert "may not speak for the rest" in part
    assert told.describe_uneven_failures("sam", "sex", {"female": (2, 20), "male": (1, 20)}) == ""
    assert told.describe_uneven_failures("sam", "sex", {"female": (5, 20)}) == ""


def test_a_difference_whose_gap_may_be_zero_names_nobody_as_worse():
    row = {
        "model": "ours", "organ": "spleen", "attribute": "sex", "metric": "dice", "gap": 0.038, "gap_low": -0.054,
        "gap_high": 0.13,
        "p_adjusted": 0.03, "verdict": "difference", "worst_group": "female", "best_group": "male", "margin": 0.02,
        "adjusted_gap": 0.03, "adjusted_low": -0.06, "adjusted_high": 0.12,
    }  # fmt: skip
    assert describe_cell(row, 0.05) == (
        Verdict.DIFFERENCE,
        "0.038 (−0.054 to 0.130); which group is worst is uncertain",
    )
    said = gaps.describe_briefly(row, 0.05)
    assert "worse for" not in said and "spleen by sex: some groups differ" in said
    assert "includes zero, as it did before adjustment" in gaps.describe_adjustment(row, ["age"])
    sure = row | {"gap_low": 0.004}
    assert describe_cell(sure, 0.05)[1].startswith("women worse")
    assert "now includes zero" in gaps.describe_adjustment(sure, ["age"])
    assert "is still 0.030" in gaps.describe_adjustment(sure | {"gap": 0.0301}, ["age"])


def test_the_summary_subtracts_the_numbers_that_the_card_shows():
    row = {
        "model": "ours", "organ": "liver", "attribute": "sex", "metric": "dice", "gap": 0.05, "gap_low": 0.046,
        "gap_high": 0.054,
        "p_adjusted": 0.001, "verdict": "disparity", "worst_group": "female", "best_group": "male", "margin": 0.02,
    }  # fmt: skip
    boundary, volume = {"female": 1.842, "male": 0.587}, {"female": 143.24, "male": 5.578}
    levels = {"boundary_error_mm": boundary, "volume_error_ml": volume}
    said = ", ".join(gaps.tell_sizes(row, levels))
    card = gaps.describe_plain_units(row, levels)
    assert "boundary error 1.25 mm larger, volume error 137.6 ml larger" in said
    assert "1.84 mm for women and 0.59 mm for men, 1.25 mm more" in card
    assert "143.2 ml for women and 5.58 ml for men, 137.6 ml more" in card


def test_images_whose_grey_values_cannot_be_right_are_counted():
    notes = ["", None, "sex is missing; the image is of one grey throughout", "the image is of one grey throughout"]
    assert told.describe_greys(notes) == [
        "2 scans: the image is of one grey throughout. Where a model that reads images fails on such a scan, the image "
        "may be why, and not the person's group."
    ]


# Many models, and what these people can answer


def test_models_in_general_are_told_by_each_persons_mean():
    rows = pd.DataFrame([change(model="all models"), change(**OPEN, model="all models", attribute="bmi")])
    said = gaps.describe_all_models(rows, 0.05)
    assert said == (
        "Averaged over the models, a difference was found in: liver by sex, worse for women than for men (Dice 0.041 "
        "lower)."
    )
    assert gaps.describe_all_models(rows.iloc[:0], 0.05) == ""


def test_attributes_are_told_from_the_one_that_matters_most():
    rows = [
        {
            "metric": "dice",
            "attribute": name,
            "comparisons": 190,
            "disparities": a,
            "differences": b,
            "largest_gap_sd": c,
        }
        for name, a, b, c in (("diagnosis", 10, 12, 1.04), ("sex", 0, 1, np.nan))
    ]
    said = gaps.describe_ranking(pd.DataFrame(rows), "dice")
    assert said == (
        "Groups differ by more than the margin, or by how much is uncertain: by diagnosis in 22 of 190 "
        "comparisons (largest gap 1.0 SD of people) and by sex in 1 of 190 comparisons."
    )
    assert gaps.describe_ranking(pd.DataFrame(rows[:1]), "dice") == "", "of one attribute there is no order"


@pytest.mark.parametrize(
    ("detectable", "said"),
    [
        ([0.08, 0.12], "a gap in Dice under 0.080 would probably be missed: the margin of 0.020 cannot be answered"),
        ([0.01, 0.12], "in Dice can be answered in 1 of 2 comparisons; elsewhere larger gaps, of up to 0.120"),
        ([0.01, 0.02], "These people are enough to answer the margin of 0.020 in Dice in all of 2 comparisons"),
        ([np.nan, np.nan], ""),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_said_before_any_table(detectable, said):
    rows = pd.DataFrame([change(detectable=value, n=60) for value in detectable])
    told = verdict_matrix.describe_answerable(rows)
    assert said in told and bool(told) == bool(said)
    page = verdict_matrix.show_verdicts(rows, "dice", alpha=0.05).html
    assert told in page and (not said or page.index(told) < page.index("<table"))
    assert verdict_matrix.describe_answerable(rows.drop(columns="detectable")) == ""


def test_the_correction_is_told_with_its_family():
    table = pd.DataFrame([change(), change(p_adjusted=0.5)])
    said = gaps.describe_certainty(table, alpha=0.05, correction="holm", family="attribute_metric")
    assert "by Holm's method, together for the comparisons of one attribute and metric, 1 difference remains" in said
