"""Sentences about maps: the dull cases too."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.spatial import describe_places
from helpers.spatial.surfaces import measure_vertex_areas

# 2000 directions evenly over a ball of radius 30 mm, and its triangles.
PLACES = np.arange(2000) + 0.5
POLAR, AROUND = np.arccos(1 - 2 * PLACES / 2000), np.pi * (1 + 5**0.5) * PLACES
BALL = 30 * np.stack([np.cos(AROUND) * np.sin(POLAR), np.sin(AROUND) * np.sin(POLAR), np.cos(POLAR)], axis=1)


class Ball:
    vertices_mm = BALL

    @property
    def faces(self):
        from scipy.spatial import ConvexHull

        return ConvexHull(BALL).simplices

    @property
    def areas_mm2(self):
        return measure_vertex_areas(BALL, self.faces)


TEMPLATES = {"liver": Ball()}


def cap(direction, *, cosine=0.8):
    """Where a cap of 10 % of the ball lies around a direction."""
    direction = np.asarray(direction) / np.linalg.norm(direction)
    return BALL @ direction / 30 > cosine


def make_maps(female, male, p, **changes):
    table = pd.DataFrame(
        {
            "model": "sam", "organ": "liver", "attribute": "sex", "vertex": range(2000),
            "error_female": female, "error_male": male, "error_old": np.nan,
            "group_a": "female", "group_b": "male", "difference": np.asarray(female) - np.asarray(male), "p_fwer": p,
        }
    )  # fmt: skip
    return table.assign(**changes)


def say(maps, **kwargs):
    places = describe_places(maps, TEMPLATES, **kwargs)
    return places[places["map"] == "difference"].iloc[0]


LOW_BACK = cap((0, 1, -1))
NOTHING = np.zeros(2000)


def test_significant_place_is_told_of_the_group_that_fails_there():
    row = say(make_maps(np.where(LOW_BACK, -3.1, 0.0), NOTHING, np.where(LOW_BACK, 0.002, 0.6)))
    assert (
        row["sentence"]
        == "Typically 3.1 mm under-segmented in women, compared with men, on the posterior-inferior surface (10 % of "
        "the"
        " surface); adjusted p = 0.002."
    )
    assert row["significant"] and row["p"] == 0.002


def test_the_other_group_may_be_the_one_that_fails():
    row = say(make_maps(NOTHING, np.where(LOW_BACK, 2.0, 0.0), np.where(LOW_BACK, 0.0004, 0.6)))
    assert row["sentence"].startswith("Typically 2.0 mm over-segmented in men, compared with women, ")
    assert row["sentence"].endswith("; adjusted p < 0.001.")


def test_the_place_is_the_significant_one_not_the_largest():
    wild = cap((0, 0, 1), cosine=0.95)
    female = np.where(LOW_BACK, -1.0, 0.0) + np.where(wild, 5.0, 0.0)
    row = say(make_maps(female, NOTHING, np.where(LOW_BACK, 0.01, 0.6)))
    assert row["sentence"].startswith(
        "Typically 1.0 mm under-segmented in women, compared with men, on the posterior-inf"
    )


def test_adjusted_difference_is_what_is_told():
    female = np.where(LOW_BACK, -3.0, 0.0)
    maps = make_maps(female, NOTHING, np.where(LOW_BACK, 0.01, 0.6), adjusted_difference=female / 2)
    assert "Typically 1.5 mm under-segmented" in say(maps)["sentence"]


def test_nothing_significant_is_said_with_the_smallest_p():
    row = say(make_maps(np.where(LOW_BACK, -3.1, 0.0), NOTHING, 0.21))
    assert (
        row["sentence"]
        == "No place differs significantly (smallest adjusted p = 0.21). Where the difference is largest: typically 3.1"
        " mm larger in men than in women on the posterior-inferior surface (10 % of the surface)."
    )
    assert not row["significant"]


def test_no_difference_at_all_has_no_place():
    assert "Where the difference is largest: nowhere over 0.05 mm." in say(make_maps(NOTHING, NOTHING, 1.0))["sentence"]


def test_untested_difference_is_said():
    row = say(make_maps(np.where(LOW_BACK, -3.1, 0.0), NOTHING, np.nan))
    assert row["sentence"].startswith(
        "The difference was not tested. Where it is largest: typically 3.1 mm larger in men"
    )
    assert np.isnan(row["p"])


def make_groups(**suppressed):
    return pd.DataFrame(
        {
            "model": "sam", "organ": "liver", "attribute": "sex", "group": list(suppressed), "n": 20,
            "suppressed": list(suppressed.values()),
        }
    )  # fmt: skip


def test_suppressed_and_single_groups_are_named():
    alone = make_maps(NOTHING, np.nan, np.nan, group_a=None, group_b=None, difference=np.nan)
    assert (
        say(alone, groups=make_groups(female=False, male=True))["sentence"]
        == "Not compared: only “female” is large enough. Too few people in “male”."
    )
    assert say(alone, groups=make_groups(female=False))["sentence"] == "Not compared: only “female” is large enough."
    assert (
        say(alone, groups=make_groups(female=True, male=True))["sentence"]
        == "Not compared: no group is large enough. Too few people in “female”, “male”."
    )
    assert say(alone)["sentence"] == "Not compared: fewer than two groups are large enough."
    apart = make_maps(NOTHING, NOTHING, np.nan, difference=np.nan)
    assert "no place has values of both groups" in say(apart, groups=make_groups(female=False, male=False))["sentence"]


def test_each_group_has_a_sentence_of_its_own():
    places = describe_places(make_maps(np.where(LOW_BACK, -3.1, 0.0), NOTHING, 0.21), TEMPLATES)
    said = places.set_index("group")["sentence"]
    assert (
        said["female"]
        == "In women: typically 3.1 mm too small on the posterior-inferior surface (10 % of the surface)."
    )
    assert said["male"] == "In men: nowhere over 0.1 mm."
    assert "old" not in said.index, "a group without values is not told"


def test_a_spike_does_not_speak_for_the_map():
    spike = np.zeros(2000)
    spike[BALL[:, 2].argmax()] = 13.0
    places = describe_places(make_maps(np.where(LOW_BACK, -3.1, 0.0) + spike, NOTHING, 0.21), TEMPLATES)
    said = places.set_index("group")["sentence"]["female"]
    assert said == "In women: typically 3.1 mm too small on the posterior-inferior surface (10 % of the surface)."


def test_slopes_are_told_per_step():
    slopes = pd.DataFrame(
        {
            "model": "sam", "organ": "liver", "attribute": "age", "vertex": range(2000), "step": 10.0, "unit": "years",
            "slope": np.where(LOW_BACK, 0.44, 0.0), "p_fwer": np.where(LOW_BACK, 0.03, 0.9),
        }
    )  # fmt: skip
    maps = make_maps(NOTHING, NOTHING, 1.0)
    row = describe_places(maps, TEMPLATES, slopes=slopes).iloc[-1]
    assert (row["map"], row["attribute"], row["significant"]) == ("slope", "age", True)
    assert (
        row["sentence"]
        == "Typically 0.4 mm further out with every 10 years on the posterior-inferior surface (10 % of the surface);"
        " adjusted p = 0.030."
    )
    row = describe_places(maps, TEMPLATES, slopes=slopes.assign(p_fwer=0.5)).iloc[-1]
    assert row["sentence"].startswith(
        "No place changes significantly (smallest adjusted p = 0.50). Where the slope is steepest: "
    )


def test_organs_without_a_template_are_left_out_and_nothing_gives_an_empty_table():
    maps = make_maps(NOTHING, NOTHING, 1.0)
    for table, templates in ((maps, {}), (maps.iloc[:0], TEMPLATES)):
        places = describe_places(table, templates)
        assert places.empty and list(places.columns) == [
            "model",
            "organ",
            "attribute",
            "map",
            "group",
            "p",
            "significant",
            "sentence",
        ]
