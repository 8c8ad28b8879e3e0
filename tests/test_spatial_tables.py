"""Rows of stage 04's tables, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers.schema import TABLES
from helpers.spatial.contrasts import SIGNED, Design
from helpers.spatial.maps import average_groups
from helpers.spatial.surface_tests import list_notes
from helpers.spatial.tables import (
    AttributeTests,
    adjust_over_maps,
    list_groups,
    list_map_columns,
    summarise_maps,
    summarise_slopes,
    tabulate_maps,
    tabulate_slopes,
    type_table,
)
from helpers.spatial.template import Template
from helpers.statistics.freedman_lane import SurfaceEffect

NAN = np.nan
# An upper square of 1 mm² and a lower one of 9 mm²: their corners stand for 0.25 and 2.25 mm² on
# average.
VERTICES = np.array([[0.0, 0, 5], [1, 0, 5], [1, 1, 5], [0, 1, 5], [0, 0, -5], [3, 0, -5], [3, 3, -5], [0, 3, -5]])
FACES = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
TEMPLATE = Template(VERTICES, FACES, None, 4)
GROUPS = pd.Series(pd.Categorical(["female", "female", "male", "male"], ["female", "male"]))


def make_effect(effect, t, p_fwer, **changes):
    p = np.array(p_fwer, float)
    made = SurfaceEffect(np.array(effect, float), np.array(t, float), p, p, p, p, np.full(8, 4), 99, ())
    return replace(made, **changes)


@pytest.fixture
def maps():
    errors = np.array([[1.0] * 8, [2.0] * 8, [5.0] * 8, [6.0] * 8])
    return {name: average_groups(errors, GROUPS, min_group=2) for name in ("signed", "absolute", "miss")}


@pytest.fixture
def design():
    people = np.arange(3)
    return Design(people, np.ones(3), np.zeros((3, 1)), people, ("female", "male"), ("age",), 1, "bmi: constant")


def make_tests(maps, attribute="sex", **changes):
    return AttributeTests(("sam", "liver", attribute), maps, {"female": 1, "male": 0}, Path(), **changes)


# Half a square's surface: vertices 4, 5 and 7 of the lower one share its 9 mm² with 6 as 3, 1.5, 3,
# 1.5.
LOWER = [0, 0, 0, 0, 1, 1, 1, 1]


def test_map_table_has_a_column_per_group_of_all_attributes(maps):
    cohort = pd.DataFrame({"group_sex": GROUPS, "group_age": pd.Categorical(["young", "old"] * 2, ["young", "old"])})
    columns = list_map_columns(cohort)
    assert [name for name in columns if name.startswith("error_")] == [
        "error_female", "error_male", "error_young", "error_old",
    ]  # fmt: skip
    effect = make_effect([-4.0] * 8, [-3.0] * 8, [0.02] * 8)
    table = tabulate_maps(make_tests(maps, effects={"signed": effect}), TEMPLATE, columns)
    assert list(table.columns) == columns and len(table) == 8
    row = table.iloc[1]
    assert (row["x"], row["y"], row["z"], row["vertex"], row["n"]) == (1.0, 0.0, 5.0, 1, 4)
    assert (row["error_female"], row["error_male"], row["difference"]) == (1.5, 5.5, -4.0)
    assert (row["miss_female"], row["adjusted_difference"], row["t"]) == (1.5, -4.0, -3.0)
    assert row["p_fwer"] == np.float32(0.02) and np.isnan(row["f"]) and np.isnan(row["absolute_p_fwer"])
    assert np.isnan(row["error_young"]) and table["difference"].dtype == np.float32


def test_without_a_test_the_map_has_means_alone(maps):
    columns = list_map_columns(pd.DataFrame({"group_sex": GROUPS}))
    table = tabulate_maps(make_tests(maps), TEMPLATE, columns)
    assert table["p_fwer"].isna().all() and (table["n"] == 0).all() and (table["difference"] == -4.0).all()


def test_summary_speaks_of_the_significant_surface(maps, design):
    values = np.where(LOWER, [0, 0, 0, 0, -2.0, -3.0, -2.5, 0.5], 9.0)  # the upper square is not significant
    p = np.where(LOWER, 0.01, 0.4)
    effect = make_effect(values, [1, 1, 1, 1, -3, -9, -4, 2], p)
    row = summarise_maps(make_tests(maps, effects={"signed": effect}, designs={"signed": design}), TEMPLATE, alpha=0.05)
    assert set(row) | {"p_adjusted"} == set(TABLES["spatial_summary"].names)
    assert (row["n"], row["n_a"], row["n_b"], row["n_tested"], row["vertices"]) == (4, 2, 2, 3, 8)
    assert row["significant_fraction"] == 0.9 and row["min_p_fwer"] == 0.01
    # Below −2 lies all of it but one twentieth and more; of the negative part −3 covers more than 5
    # %.
    assert (row["peak_difference_mm"], row["region"]) == (-3.0, "significant")
    assert (row["peak_x"], row["peak_y"], row["peak_z"]) == (3.0, 0.0, -5.0)
    assert row["location"] == "typically 2.5 mm smaller in women than in men over most of it (75 % of the surface)"
    assert row["median_difference_mm"] == -2.5
    assert (row["covariates"], row["left_out"], row["permutations"]) == ("age", 1, 99)
    assert row["note"] == "not adjusted for: bmi: constant"
    assert np.isnan(row["f_significant_fraction"])


def test_summary_without_significance_speaks_of_the_whole_surface(maps, design):
    effect = make_effect(np.linspace(0.1, 0.8, 8), [1] * 7 + [3], [0.5] * 8)
    row = summarise_maps(make_tests(maps, effects={"signed": effect}, designs={"signed": design}), TEMPLATE, alpha=0.05)
    assert (row["significant_fraction"], row["region"]) == (0.0, "surface")
    assert row["peak_difference_mm"] == pytest.approx(0.8) and row["peak_x"] == 0.0


def test_summary_without_a_difference_is_empty_not_zero():
    alone = {name: average_groups(np.zeros((4, 8)), GROUPS, min_group=3) for name in ("signed", "absolute", "miss")}
    row = summarise_maps(make_tests(alone), TEMPLATE, alpha=0.05)
    assert row["group_a"] is None and row["n_a"] is None and np.isnan(row["peak_difference_mm"])
    assert (row["vertices"], row["n_tested"], row["location"]) == (0, 0, "")


def test_slopes_are_stated_per_step(maps, design):
    effect = make_effect([0.3] * 8, [3] * 8, [0.01] * 8)
    age = make_tests(
        maps,
        "age",
        slopes={"signed": effect, "absolute": effect},
        slope_designs={"signed": design},
        step=10.0,
        unit="years",
    )
    table = tabulate_slopes(age, TEMPLATE)
    assert (
        table["slope"].iloc[0] == np.float32(0.3) and table["step"].iloc[0] == 10 and table["unit"].iloc[0] == "years"
    )
    row = summarise_slopes(age, TEMPLATE, alpha=0.05)
    assert row["peak_slope_mm"] == 0.3 and row["location"].startswith("typically 0.3 mm larger per 10 years")


def test_p_is_adjusted_over_all_maps_by_holm():
    summary, slopes = adjust_over_maps(pd.DataFrame({"min_p_tfce": [0.01, NAN]}), pd.DataFrame({"min_p_tfce": [0.04]}))
    assert summary["p_adjusted"].iloc[0] == pytest.approx(0.02) and np.isnan(summary["p_adjusted"].iloc[1])
    assert slopes["p_adjusted"].tolist() == pytest.approx([0.04])


def test_group_means_are_over_the_surface_by_area(maps):
    errors = np.array([[0.0] * 4 + [1.0] * 4] * 4)
    by_area = {name: average_groups(errors, GROUPS, min_group=2) for name in ("signed", "absolute", "miss")}
    rows = list_groups(make_tests(by_area), TEMPLATE)
    assert [row["error_mm"] for row in rows] == [0.9, 0.9]
    assert [(row["group"], row["n"], row["prediction_empty"], row["suppressed"]) for row in rows] == [
        ("female", 2, 1, False), ("male", 2, 0, False),
    ]  # fmt: skip


def test_tables_survive_being_written(tmp_path):
    quality = type_table(
        pd.DataFrame({"number": [1], "distance_mm": [0.5], "status": ["ok"], "cut": [True]}), "quality"
    )
    quality.to_csv(tmp_path / "quality.csv", index=False)
    pd.testing.assert_frame_equal(type_table(pd.read_csv(tmp_path / "quality.csv"), "quality"), quality)
    assert quality["prediction_empty"].tolist() == [""]
    groups = type_table(pd.DataFrame(), "spatial_groups")
    assert groups.empty and str(groups["prediction_empty"].dtype) == "Int64"


def test_what_holds_for_several_models_is_said_once():
    def make(model: str, left_out: int) -> SimpleNamespace:
        maps = {SIGNED: SimpleNamespace(suppressed=["diverse"], counts={"female": 9, "male": 9}, group_a="male")}
        designs = {SIGNED: SimpleNamespace(left_out=left_out, note="")}
        shared = {"maps": maps, "designs": designs, "slope_designs": {}, "drawn": 0, "changing": 0}
        return SimpleNamespace(key=(model, "kidney_left", "sex"), **shared)

    assert list_notes([make("a", 1), make("b", 1), make("c", 0)], 5) == [
        "sex: no map for diverse (fewer than 5 subjects)",
        "a and b, left kidney, sex: 1 person is in no test, because a covariate is not known of them",
    ]
