"""Words about places agree with the maps: planted everywhere, planted locally, and mere spots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from helpers.report.outputs import read_outputs
from helpers.report.sections.spatial import compose_spatial, locate_gap, tell_where
from helpers.report.sentences import places
from tests import report_study as study

PLACE = {"organ": "liver", "model": "sam", "attribute": "sex", "group_a": "female", "group_b": "male"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A study in which BMI 30 and over is drawn 2 mm too small everywhere, women 4 mm in one place.

    A spot of one vertex is significant for a second model. Vertices alone are so in few places.
    """
    cohort, metrics, fairness = study.make_whole(60, None)
    by_sex, row = study.make_maps(cohort)
    by_sex = by_sex.drop(columns=["error_female", "error_male"])
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.2, len(by_sex))
    local = np.where((by_sex["y"] > 20) & (by_sex["z"] < -20), -4.0, 0.0)
    local[0] = -11.0  # one vertex far out, as at a fold
    everywhere = by_sex.assign(
        attribute="bmi", group_a="30 and over", group_b="below 25", difference=-2.0 + noise, p_tfce=0.001,
        p_fwer=np.where(noise < -0.3, 0.001, 0.2),
        **{"error_below 25": 0.0, "error_25 to 30": 0.5, "error_30 and over": -2.0 + noise},
    )  # fmt: skip
    sex = by_sex.assign(
        difference=local + noise / 10, error_female=local, error_male=0.0,
        p_tfce=np.where(local < 0, 0.001, 0.5), p_fwer=0.3,
    )  # fmt: skip
    spot = sex.assign(model="annotator", p_tfce=np.where(np.arange(len(sex)) == 100, 0.02, 0.5))
    tested = {"permutations": 999, "min_p_tfce": 0.001, "p_adjusted": 0.004, "n_a": 30, "n_b": 30}
    row = row.assign(**tested, significant_fraction=0.0)
    summary = pd.concat(
        [
            row.assign(significant_fraction_tfce=float((local < 0).mean())),
            row.assign(attribute="bmi", group_a="30 and over", group_b="below 25", significant_fraction_tfce=1.0),
            row.assign(model="annotator", significant_fraction_tfce=0.006, min_p_tfce=0.02, p_adjusted=0.5),
        ],
        ignore_index=True,
    )
    folder = tmp_path_factory.mktemp("planted")
    study.write_template(folder)
    maps = pd.concat([sex, everywhere, spot], ignore_index=True)
    study.write_study(folder, cohort=cohort, metrics=metrics, fairness=fairness, maps=(maps, summary))
    return read_outputs(folder)


def test_planted_errors_are_told_by_median_and_extent_and_spots_in_one_clause(planted):
    _, said, *_ = compose_spatial(planted).blocks
    assert said.items == (
        "sam_demo, liver by sex: masks typically 4.0 mm smaller in women than in men on the posterior-inferior surface "
        "(10 % of the surface).",
        "sam_demo, liver by BMI: masks typically 2.0 mm smaller in BMI 30 and over than in BMI below 25 over the whole "
        "surface.",
        "Also in small spots, under 3 % of the surface: annotator, liver by sex.",
    )


def test_the_floor_of_p_is_told_once(planted):
    how, said, *_ = compose_spatial(planted).blocks
    assert how.text.endswith(
        "With 999 permutations p cannot be below 0.001 for one map, or p = 0.004 adjusted for all maps of the study: "
        "where no p is given, it is that."
    )
    assert not any("p =" in item or "p <" in item for item in said.items)


@pytest.mark.parametrize(
    ("gap", "told"),
    [
        (
            {},
            "Masks typically 4.0 mm smaller in women than in men on the posterior-inferior surface (10 % of the "
            "surface).",
        ),
        (
            {"attribute": "bmi", "worst_group": "30 and over", "best_group": "25 to 30"},
            "Masks typically 2.5 mm smaller in BMI 30 and over than in BMI 25 to 30 over the whole surface, by the two "
            "groups' mean maps. The test was of BMI 30 and over against BMI below 25: significant.",
        ),
        ({"organ": "all"}, "All organs together have no surface: see them one by one."),
        ({"organ": "kidney_left"}, "Not known: this organ was not mapped."),
    ],
)
def test_a_card_tells_the_place_of_its_own_two_groups(planted, gap, told):
    row = PLACE | {"model": "sam_demo", "worst_group": "female", "best_group": "male"} | gap
    assert locate_gap(planted, row) == told


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "; not tested"),
        ({"significant_fraction": 0.12, "min_p_fwer": 0.002}, "; p = 0.002"),
        ({"significant_fraction_tfce": 0.12, "min_p_tfce": 0.001, "permutations": 999}, ""),
        (
            {"significant_fraction_tfce": 0.0, "min_p_tfce": 0.3, "p_adjusted": 0.9},
            "; not significant, p = 0.30, over all maps p = 0.90",
        ),
    ],
)
def test_a_place_is_told_with_its_certainty(values, words):
    assert places.describe_place(PLACE | values, "back") == f"sam, liver by sex: back{words}."


def test_what_is_significant_in_its_own_map_alone_is_one_clause():
    rows = [PLACE | {"p_adjusted": 0.4}, PLACE | {"p_adjusted": 0.14, "organ": "spleen"}]
    assert places.describe_alone(rows) == (
        "Significant in a map by itself, but not among all maps of the study: sam, liver by sex (p = 0.40); sam, "
        "spleen by sex (p = 0.14)."
    )
    assert places.describe_alone([]) == "" == places.describe_spots([])


def test_a_map_that_is_significant_by_itself_alone_is_no_place_of_a_difference(planted):
    alone = planted.spatial_summary.assign(p_adjusted=0.4)
    outputs = replace(planted, spatial_summary=alone)
    gap = {
        "model": "sam_demo", "organ": "liver", "attribute": "bmi",
        "worst_group": "30 and over", "best_group": "25 to 30",
    }  # fmt: skip
    assert (
        tell_where(planted, gap) == "masks typically 2.5 mm further inside the expert's outline over the whole surface"
    )
    assert not tell_where(outputs, gap)
    assert locate_gap(planted, gap).endswith("below 25: significant.")
    assert locate_gap(outputs, gap).endswith("significant in this map by itself, not among all maps (p = 0.40).")
