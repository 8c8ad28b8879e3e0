"""Words for places: every answer follows from where the values were put."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.spatial import describe_location
from helpers.spatial.location import find_peak, find_significant, measure_quantile

# 20 × 20 × 20 directions evenly over a ball of radius 30 mm.
PLACES = np.arange(2000) + 0.5
POLAR, AROUND = np.arccos(1 - 2 * PLACES / 2000), np.pi * (1 + 5**0.5) * PLACES
BALL = 30 * np.stack([np.cos(AROUND) * np.sin(POLAR), np.sin(AROUND) * np.sin(POLAR), np.cos(POLAR)], axis=1)


def cap(direction, value_mm, *, cosine=0.8):
    """A map that is `value_mm` within a cap (of (1 − cosine)/2 of the ball) around a direction,
    else 0."""
    direction = np.asarray(direction) / np.linalg.norm(direction)
    return np.where(BALL @ direction / 30 > cosine, value_mm, 0.0)


@pytest.mark.parametrize(
    ("direction", "name"),
    [
        ((1, 0, 0), "left"),
        ((-1, 0, 0), "right"),
        ((0, -1, 0), "anterior"),
        ((0, 1, 0), "posterior"),
        ((0, 0, 1), "superior"),
        ((0, 0, -1), "inferior"),
        ((0, 1, -1), "posterior-inferior"),
        ((1, -1, 0), "left-anterior"),
        ((-1, 1, 1), "right-posterior-superior"),
    ],
)
def test_side_is_named(direction, name):
    assert (
        describe_location(BALL, cap(direction, -3.1))
        == f"typically 3.1 mm too small on the {name} surface (10 % of the surface)"
    )


def test_sign_is_put_in_words():
    assert describe_location(BALL, cap((0, 0, 1), 2.0)).startswith("typically 2.0 mm too large")
    said = describe_location(BALL, cap((0, 0, 1), -2.0), positive="larger in women", negative="smaller in women")
    assert said.startswith("typically 2.0 mm smaller in women on the superior surface")


def test_only_the_region_of_the_peak_counts():
    values = cap((0, 0, 1), 3.0) + cap((0, 0, -1), 1.0)  # the other pole is under half the peak
    assert "on the superior surface (10 %" in describe_location(BALL, values)


def test_opposite_sides_have_no_side():
    values = cap((0, 0, 1), 3.0) + cap((0, 0, -1), 3.0)
    assert describe_location(BALL, values) == "typically 3.0 mm too large in several parts (20 % of the surface)"


def test_everywhere_is_the_whole_surface_and_nearly_everywhere_most_of_it():
    assert describe_location(BALL, np.full(2000, -1.24)) == "typically 1.2 mm too small over the whole surface"
    most = np.where(BALL[:, 2] > -12, 2.0, 0.0)
    assert describe_location(BALL, most) == "typically 2.0 mm too large over most of it (70 % of the surface)"


def test_the_median_is_told_not_the_extreme():
    values = np.full(2000, -2.0)
    values[:200] = -9.0  # a tenth of the surface: what the 95th percentile would have told
    assert describe_location(BALL, values, region=np.ones(2000, bool)).startswith("typically 2.0 mm too small")
    peak = find_peak(values, np.ones(2000), region=np.ones(2000, bool), prominence=np.abs(values))
    assert (peak.median_mm, peak.value_mm) == (-2.0, -9.0)


@pytest.mark.parametrize(
    ("organ", "direction", "part"),
    [
        ("liver", (-1, 1, -1), "in the right lobe, posterior-inferior"),
        ("liver", (0, 1, -1), "on the posterior-inferior surface"),
        ("kidney_left", (-1, 0, 1), "at the upper pole, medial"),
        ("kidney_right", (-1, 0, 0), "on the lateral surface"),
        ("lung_right", (0, 0, -1), "at the base"),
        ("pancreas", (1, 0, 0), "in the tail"),
        ("tumour", (0, 0, 1), "on the superior surface"),
    ],
)
def test_parts_are_named_by_anatomy(organ, direction, part):
    said = describe_location(BALL, cap(direction, 2.0), organ=organ)
    assert said == f"typically 2.0 mm too large {part} (10 % of the surface)"


def test_the_cluster_corrected_p_decides_where_there_is_one():
    fwer, tfce, nothing = np.array([0.01, 0.2, np.nan]), np.array([0.01, 0.03, np.nan]), np.full(3, np.nan)
    assert find_significant(fwer, tfce, 0.05).tolist() == [True, True, False]
    assert find_significant(fwer, nothing, 0.05).tolist() == [True, False, False]
    assert find_significant(nothing, nothing, 0.05) is None


def test_small_and_missing_values_are_said():
    assert describe_location(BALL, np.full(2000, 0.04)) == "nowhere over 0.1 mm"
    assert describe_location(BALL, np.full(2000, np.nan)) == "no value anywhere on the surface"
    half = np.where(BALL[:, 2] > 0, np.nan, cap((0, 0, -1), 2.0))
    assert "20 % of the surface" in describe_location(BALL, half), "of the surface that has values"


def test_area_weighs_when_triangles_are_given():
    # Two squares: the upper one of 1 mm², the lower one of 9 mm²; the value sits on the upper.
    upper = np.array([[0.0, 0, 5], [1, 0, 5], [1, 1, 5], [0, 1, 5]])
    lower = np.array([[0.0, 0, -5], [3, 0, -5], [3, 3, -5], [0, 3, -5]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    values = np.array([1.0] * 4 + [0.0] * 4)
    vertices = np.concatenate([upper, lower])
    assert "50 % of the surface" in describe_location(vertices, values)
    assert "10 % of the surface" in describe_location(vertices, values, faces)


def test_a_given_region_is_described_instead_of_the_peak_s():
    values = cap((0, 0, 1), 3.0) + cap((0, 1, 0), -1.0)
    region = cap((0, 1, 0), 1.0) > 0
    said = describe_location(BALL, values, region=region)
    assert said == "typically 1.0 mm too small on the posterior surface (10 % of the surface)"
    assert "superior" in describe_location(BALL, values, region=np.zeros(2000, bool))


def test_peak_is_what_a_twentieth_of_the_surface_exceeds():
    values = np.r_[np.linspace(-1, -2, 99), -50.0]  # one vertex far out
    peak = find_peak(values, np.ones(100), region=np.ones(100, bool), prominence=np.arange(100.0))
    assert peak.value_mm == pytest.approx(np.sort(values)[5], abs=0.02) and peak.vertex == 99
    assert peak.region.all()


def test_the_sign_that_covers_more_of_the_region_counts():
    values, areas = np.array([5.0, 5.0, -2.0, np.nan]), np.array([1.0, 1.0, 3.0, 9.0])
    peak = find_peak(values, areas, region=np.ones(4, bool), prominence=np.abs(values))
    assert (peak.value_mm, peak.vertex, peak.region.tolist()) == (-2.0, 2, [False, False, True, False])
    anywhere = find_peak(values, areas, prominence=np.abs(values))
    assert anywhere.value_mm == 5.0
    with pytest.raises(ValueError, match="a value in the region"):
        find_peak(values, areas, region=np.array([False] * 3 + [True]), prominence=values)


def test_quantile_is_weighted():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 8.0, 1.0])
    assert [measure_quantile(values, weights, part) for part in (0.5, 0.8, 0.85, 0.95, 1.0)] == [1, 1, 2, 3, 3]
