"""Effects on surfaces against brute force, SciPy and nilearn; false alarms and finds in
simulations."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from functools import lru_cache
from itertools import permutations as every_order

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers.spatial.surfaces import measure_vertex_areas
from helpers.statistics import freedman_lane
from helpers.statistics.freedman_lane import infer_effect
from helpers.statistics.mass_univariate import MIN_DEGREES
from helpers.statistics.tfce import enhance_clusters, link_vertices
from tests.test_statistics_tfce import sphere

NAN = np.nan
MAPS = ("effect", "statistic", "p_uncorrected", "p_fwer", "p_tfce", "p_fdr")


@lru_cache
def ball(count):
    """Return the vertices of a ball of radius 1 and its graph."""
    points, faces = sphere(count, radius_mm=1.0)
    return points, link_vertices(faces, measure_vertex_areas(points, faces))


def study(seed, subjects=40, vertices=30):
    generator = np.random.default_rng(seed)
    covariates = generator.standard_normal((subjects, 2))
    group = (generator.random(subjects) < 0.5 + 0.2 * np.sign(covariates[:, 0])).astype(float)
    errors = generator.standard_normal((subjects, vertices)) + covariates[:, :1]
    errors[:, 0] += 2 * group
    return errors, group, covariates


def square_by_definition(values, tested, covariates):
    """Return F of a full against a reduced model (t² for one tested column), by two least-squares
    fits."""
    ones = np.ones((len(values), 1))
    reduced = np.column_stack([ones, covariates])
    full = np.column_stack([reduced, tested])

    def leave(design):
        return float(((values - design @ np.linalg.lstsq(design, values)[0]) ** 2).sum())

    before, after = leave(reduced), leave(full)
    return (before - after) / tested.shape[1] / (after / (len(values) - full.shape[1]))


def vary_by_group(values, design, groups):
    """Return everybody's variance: their group's squared residuals over its degrees of freedom, by
    the hat matrix."""
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    squares, leverage = (values - hat @ values) ** 2, np.diag(hat)
    pooled = squares.sum() / (len(values) - design.shape[1])
    variances = np.empty(len(values))
    for group in set(groups):
        degrees = (1 - leverage[groups == group]).sum()
        variances[groups == group] = squares[groups == group].sum() / degrees if degrees >= MIN_DEGREES else pooled
    return variances


def square_of_groups(values, tested, covariates, groups):
    """Return Wald's statistic with a variance per group, from the sandwich of full least
    squares."""
    design = np.column_stack([np.ones(len(values)), covariates, tested])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ values
    covariance = inverse @ design.T @ np.diag(vary_by_group(values, design, groups)) @ design @ inverse
    last = tested.shape[1]
    return float(coefficients[-last:] @ np.linalg.solve(covariance[-last:, -last:], coefficients[-last:])) / last


def test_two_groups_by_hand():
    # Means 3 and 1; pooled variance (2 + 2) / 4 = 1; standard error sqrt(1/3 + 1/3); t = 2 / 0.8165
    # = 2.449.
    errors = np.array([[2.0], [3.0], [4.0], [0.0], [1.0], [2.0]])
    found = infer_effect(errors, np.array([1.0, 1, 1, 0, 0, 0]), seed=0, permutations=100)
    np.testing.assert_allclose(found.effect, [2.0])
    np.testing.assert_allclose(found.statistic, [2 / np.sqrt(2 / 3)])
    # 20 ways to choose three of six; sums of 9 (2+3+4) or, mirrored, 3; one 2 may stand for the
    # other: 4 of 20.
    assert found.permutations == 19
    np.testing.assert_allclose(found.p_uncorrected, [4 / 20])
    assert np.isnan(found.p_tfce).all() and found.subjects.tolist() == [6]


def test_exhaustive_p_equals_scipy():
    generator = np.random.default_rng(0)
    errors = generator.standard_normal((8, 4)) + np.repeat([[1.5], [0.0]], [3, 5], axis=0)
    found = infer_effect(errors, np.repeat([1.0, 0.0], [3, 5]), seed=0, permutations=100)
    exact = stats.permutation_test(
        (errors[:3], errors[3:]),
        lambda a, b, axis: np.abs(stats.ttest_ind(a, b, axis=axis).statistic),
        n_resamples=np.inf,
        alternative="greater",
        axis=0,
    )
    assert found.permutations == 55
    np.testing.assert_allclose(found.p_uncorrected, exact.pvalue)


def test_a_variance_per_group_gives_welchs_t():
    generator = np.random.default_rng(1)
    errors = np.repeat([[2.0], [1.0]], [6, 12], axis=0) * generator.standard_normal((18, 4))
    group = np.repeat([1.0, 0.0], [6, 12])
    found = infer_effect(errors, group, variance_groups=group, seed=0, permutations=10)
    np.testing.assert_allclose(found.statistic, stats.ttest_ind(errors[:6], errors[6:], equal_var=False).statistic)


def test_a_group_without_any_spread_is_compared_all_the_same():
    errors = np.random.default_rng(2).standard_normal((20, 5))
    errors[:8] = 0.0
    found = infer_effect(errors, np.repeat([1.0, 0.0], [8, 12]), variance_groups=[1] * 8 + [0] * 12, seed=0)
    assert np.isfinite(found.p_fwer).all()
    assert (infer_effect(errors + np.repeat([[5.0], [0]], [8, 12], axis=0), np.repeat([1.0, 0.0], [8, 12]),
                         variance_groups=[1] * 8 + [0] * 12, seed=0).p_fwer < 0.01).all()  # fmt: skip


@pytest.mark.parametrize(("columns", "missing"), [(1, False), (2, True)])
@pytest.mark.parametrize("groups", [None, [0, 1, 0, 1, 1, 0], [0, 1, 2, 1, 1, 0]])
def test_equals_freedman_and_lane_by_brute_force(columns, missing, groups):
    generator = np.random.default_rng(columns)
    count, width = 6, 3
    errors = generator.standard_normal((count, width)) + 1.0
    covariates = generator.standard_normal((count, 1))
    tested = generator.standard_normal((count, columns))
    known = np.ones((count, width), bool)
    if missing:
        known[[0, 4], [1, 2]] = False
    squares = np.empty((720, width))
    for number, order in enumerate(every_order(range(count))):
        rows = np.array(order)
        for vertex in range(width):
            here = known[:, vertex]
            reduced = np.column_stack([np.ones(count), covariates])
            weights = np.linalg.lstsq(reduced[here], errors[here, vertex])[0]
            residuals = errors[:, vertex] - reduced @ weights
            there = here[rows]
            if groups is None:
                permuted = residuals[rows] + reduced @ weights
                squares[number, vertex] = square_by_definition(permuted[there], tested[there], covariates[there])
                continue
            # A residual takes the spread of the group it comes to.
            labels = np.array(groups)
            full = np.column_stack([reduced, tested])
            variances = vary_by_group(errors[here, vertex], full[here], labels[here])
            spread = dict(zip(labels[here], np.sqrt(variances), strict=True))
            to, off = (np.array([spread.get(group, 1.0) for group in names]) for names in (labels, labels[rows]))
            permuted = residuals[rows] * to / off + reduced @ weights
            squares[number, vertex] = square_of_groups(permuted[there], tested[there], covariates[there], labels[there])
    expected = (squares >= squares[0] * (1 - 1e-8)).mean(axis=0)
    corrected = (squares.max(axis=1)[:, None] >= squares[0] * (1 - 1e-8)).mean(axis=0)
    found = infer_effect(
        np.where(known, errors, NAN), tested, covariates=covariates, variance_groups=groups, seed=0,
        permutations=6000,
    )  # fmt: skip
    assert found.permutations == 719
    np.testing.assert_allclose(found.statistic**2 if columns == 1 else found.statistic, squares[0])
    np.testing.assert_allclose(found.p_uncorrected, expected)
    np.testing.assert_allclose(found.p_fwer, corrected)


def test_equals_nilearn():
    nilearn = pytest.importorskip("nilearn.mass_univariate", reason="nilearn is not installed")
    errors, group, covariates = study(1, vertices=25)
    errors += group[:, None] * np.linspace(0, 1.2, 25)
    ours = infer_effect(errors, group, covariates=covariates, seed=1, permutations=4000)
    theirs = nilearn.permuted_ols(
        group[:, None], errors, covariates, n_perm=4000, random_state=1, output_type="dict", n_jobs=1
    )
    np.testing.assert_allclose(ours.statistic, theirs["t"][0], rtol=1e-6)
    expected = 10 ** -theirs["logp_max_t"][0]
    noise = np.sqrt(2 * np.maximum(expected * (1 - expected), 1e-3) / 4000)
    assert (np.abs(ours.p_fwer - expected) < 4 * noise + 1 / 4000).all()
    assert ((expected > 0.01) & (expected < 0.9)).sum() >= 5


def test_effects_and_errors_equal_ordinary_least_squares_where_people_are_missing():
    errors, group, covariates = study(2)
    errors[:7, 3] = NAN
    errors[30:, 4] = NAN
    found = infer_effect(errors, group, covariates=covariates, seed=0, permutations=50)
    for vertex in (0, 3, 4):
        here = np.isfinite(errors[:, vertex])
        design = np.column_stack([np.ones(here.sum()), covariates[here], group[here]])
        weights, rest = np.linalg.lstsq(design, errors[here, vertex])[:2]
        spread = rest[0] / (here.sum() - 4) * np.linalg.inv(design.T @ design)[3, 3]
        np.testing.assert_allclose(found.effect[vertex], weights[3])
        np.testing.assert_allclose(found.statistic[vertex], weights[3] / np.sqrt(spread))
    assert found.subjects[[0, 3, 4]].tolist() == [40, 33, 30]


def test_missing_people_alter_no_other_vertex():
    errors, group, covariates = study(3)
    whole = infer_effect(errors, group, covariates=covariates, seed=0, permutations=3000)
    errors[3:9, 5] = NAN
    holed = infer_effect(errors, group, covariates=covariates, seed=0, permutations=3000)
    others = np.arange(30) != 5
    for name in ("effect", "statistic"):
        np.testing.assert_allclose(getattr(holed, name)[others], getattr(whole, name)[others])
    np.testing.assert_array_equal(holed.p_uncorrected[others], whole.p_uncorrected[others])
    # The errors are normal, so at the vertex the permutation p is close to Student's.
    assert holed.p_uncorrected[5] == pytest.approx(2 * stats.t.sf(abs(holed.statistic[5]), 34 - 4), abs=0.04)


def test_single_precision_reaches_the_same_p_as_full():
    errors, group, covariates = study(4, subjects=7, vertices=20)
    group = np.array([1.0, 0, 1, 0, 1, 0, 1])
    errors[2, ::3] = NAN
    exact = infer_effect(errors, group, covariates=covariates, seed=0, permutations=6000)
    drawn = infer_effect(errors, group, covariates=covariates, seed=0, permutations=5000)
    assert exact.permutations == 5039 and drawn.permutations == 5000
    np.testing.assert_allclose(drawn.p_uncorrected, exact.p_uncorrected, atol=4 * np.sqrt(0.25 / 5000))
    np.testing.assert_allclose(drawn.p_fwer, exact.p_fwer, atol=4 * np.sqrt(0.25 / 5000))


def test_several_groups_give_f_and_the_largest_difference():
    generator = np.random.default_rng(5)
    groups = np.repeat([0, 1, 2], [10, 12, 9])
    errors = generator.standard_normal((31, 6)) + np.array([0.0, 2.0, -1.0])[groups][:, None]
    one_hot = np.eye(3)[groups]
    found = infer_effect(errors, one_hot, seed=0, permutations=200)
    parts = [errors[groups == group] for group in range(3)]
    means = np.array([part.mean(axis=0) for part in parts])
    np.testing.assert_allclose(found.statistic, stats.f_oneway(*parts).statistic)
    np.testing.assert_allclose(found.effect, np.ptp(means, axis=0))
    without_reference = infer_effect(errors, one_hot[:, 1:], seed=0, permutations=200)
    np.testing.assert_allclose(without_reference.effect, found.effect)
    np.testing.assert_allclose(without_reference.p_fwer, found.p_fwer)


def test_two_one_hot_groups_have_the_p_of_their_code():
    _, mesh = ball(42)
    errors, group, covariates = study(6, vertices=42)
    t = infer_effect(errors, group, covariates=covariates, mesh=mesh, seed=0, permutations=99)
    f = infer_effect(
        errors, np.column_stack([1 - group, group]), covariates=covariates, mesh=mesh, seed=0, permutations=99
    )
    np.testing.assert_allclose(f.statistic, t.statistic**2)
    np.testing.assert_allclose(f.effect, np.abs(t.effect))
    for name in ("p_uncorrected", "p_fwer", "p_tfce"):
        np.testing.assert_array_equal(getattr(f, name), getattr(t, name))


def test_a_slope_is_per_unit_and_turns_with_the_sign():
    errors = study(7)[0]
    decades = np.linspace(2.0, 8.0, 40)
    errors[:, 2] = 0.5 * decades + 0.01 * errors[:, 2]
    rising = infer_effect(errors, decades, seed=0, permutations=99)
    falling = infer_effect(-errors, decades, seed=0, permutations=99)
    years = infer_effect(errors, 10 * decades, seed=0, permutations=99)
    assert rising.effect[2] == pytest.approx(0.5, abs=0.01) and rising.statistic[2] > 0
    np.testing.assert_allclose(falling.statistic, -rising.statistic)
    np.testing.assert_allclose(years.effect, rising.effect / 10)
    for other in (falling, years):
        np.testing.assert_array_equal(other.p_fwer, rising.p_fwer)


def test_enhanced_p_counts_the_largest_enhanced_value_of_each_permutation():
    _, mesh = ball(42)
    generator = np.random.default_rng(8)
    errors = generator.standard_normal((6, 42))
    errors[:3, :5] += 2
    group = np.array([1.0, 1, 1, 0, 0, 0])
    found = infer_effect(errors, group, mesh=mesh, seed=0, permutations=100)
    statistics = []
    for order in every_order(range(6)):
        turned = group[list(order)]
        statistics.append(stats.ttest_ind(errors[turned == 1], errors[turned == 0]).statistic)
    enhanced = np.abs(enhance_clusters(np.array(statistics), mesh))
    expected = (enhanced.max(axis=1)[:, None] >= enhanced[0] * (1 - 1e-8)).mean(axis=0)
    np.testing.assert_allclose(found.p_tfce, expected)


def test_people_of_a_cluster_change_places_among_themselves_alone():
    # 3 of 4 in one cluster, 1 of 3 in the other, and one person who is alone: 4 · 3 arrangements.
    group, clusters = np.array([1.0, 1, 1, 0, 1, 0, 0, 1]), np.array([2, 2, 2, 2, 0, 0, 0, -1])
    errors = np.random.default_rng(0).standard_normal((8, 3))
    found = infer_effect(errors, group, clusters=clusters, seed=0, permutations=50)
    assert found.permutations == 11
    squares = []
    for zero in range(4):
        for one in range(4, 7):
            turned = np.array([1.0, 1, 1, 1, 0, 0, 0, 1])
            turned[[zero, one]] = 0, 1
            squares.append(stats.ttest_ind(errors[turned == 1], errors[turned == 0]).statistic ** 2)
    observed = stats.ttest_ind(errors[group == 1], errors[group == 0]).statistic ** 2
    np.testing.assert_allclose(found.p_uncorrected, (np.array(squares) >= observed - 1e-9).mean(axis=0))


def test_what_a_cluster_has_in_common_is_no_effect():
    # 20 sites of 30 people, most of them of one kind at each site, intraclass correlation 0.1.
    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(20), 30)
    group = (rng.random(600) < np.where(site % 2, 0.85, 0.15)).astype(float)
    errors = np.sqrt(0.1) * rng.normal(size=(20, 300))[site] + np.sqrt(0.9) * rng.normal(size=(600, 300))
    alone, within = (
        (infer_effect(errors, group, clusters=clusters, seed=1, permutations=200).p_uncorrected <= 0.05).mean()
        for clusters in (None, site)
    )
    assert alone > 0.12 and 0.02 <= within <= 0.08


def test_nobody_to_change_places_with():
    errors = np.random.default_rng(0).standard_normal((6, 2))
    found = infer_effect(errors, np.array([1.0, 0, 0, 1, 1, 0.5]), clusters=np.arange(6), seed=0, permutations=50)
    assert found.permutations == 0 and found.p_fwer.tolist() == [1.0, 1.0]
    assert any("no other arrangement" in note for note in found.notes)


def test_memory_changes_nothing_and_a_seed_does(monkeypatch):
    _, mesh = ball(42)
    errors, group, covariates = study(11, vertices=42)
    errors[4, 10] = NAN
    one = infer_effect(errors, group, covariates=covariates, mesh=mesh, seed=3, permutations=150)
    monkeypatch.setattr(freedman_lane, "MEMORY_MB", 0.001)
    other = infer_effect(errors, group, covariates=covariates, mesh=mesh, seed=3, permutations=150)
    for name in MAPS:
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    assert (infer_effect(errors, group, seed=4, permutations=150).p_uncorrected != one.p_uncorrected).any()


def test_p_values_keep_their_order_and_bounds():
    _, mesh = ball(42)
    errors, group, covariates = study(12, vertices=42)
    found = infer_effect(errors, group, covariates=covariates, mesh=mesh, seed=0, permutations=99)
    assert found.permutations == 99 and found.notes == ()
    for name in ("p_uncorrected", "p_fwer", "p_tfce", "p_fdr"):
        values = getattr(found, name)
        assert (values >= 0.01).all() and (values <= 1).all()
    assert (found.p_fwer >= found.p_uncorrected).all()
    np.testing.assert_allclose(found.p_fdr, stats.false_discovery_control(found.p_uncorrected))
    assert found.p_fwer[0] <= 0.05  # at the planted vertex, whatever the seed
    with pytest.raises(FrozenInstanceError):
        found.permutations = 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_units_and_offsets_of_covariates_do_not_matter(seed, shift, scale):
    errors, group, covariates = study(seed, subjects=15, vertices=4)
    group[:2] = [0, 1]
    one = infer_effect(errors, group, covariates=covariates, seed=0, permutations=20)
    other = infer_effect(errors, group, covariates=scale * covariates + shift, seed=0, permutations=20)
    np.testing.assert_allclose(other.statistic, one.statistic, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(other.p_uncorrected, one.p_uncorrected, atol=0.05)


def nothing(found):
    return all(np.isnan(getattr(found, name)).all() for name in MAPS) and found.permutations == 0


@pytest.mark.parametrize("columns", [1, 3])
def test_one_group_gives_nothing_and_says_so(columns):
    tested = np.zeros((10, columns))
    tested[:, 0] = 1.0
    found = infer_effect(np.random.default_rng(0).standard_normal((10, 3)), tested, seed=0)
    assert nothing(found) and "same for everybody" in found.notes[0]
    assert found.subjects.tolist() == [10, 10, 10]


def test_an_empty_group_among_several_is_left_out():
    errors = np.random.default_rng(0).standard_normal((12, 3))
    groups = np.repeat([0, 2], 6)
    with_empty = infer_effect(errors, np.eye(3)[groups], seed=0, permutations=50)
    without = infer_effect(errors, np.eye(3)[groups][:, [0, 2]], seed=0, permutations=50)
    np.testing.assert_allclose(with_empty.p_fwer, without.p_fwer)


def test_what_follows_from_the_covariates_cannot_be_tested():
    errors, group, covariates = study(13)
    found = infer_effect(errors, group, covariates=np.column_stack([covariates, 1 - group]), seed=0)
    assert nothing(found) and "follows from the covariates" in found.notes[0]


def test_useless_covariates_are_dropped_by_number():
    errors, group, covariates = study(14)
    more = np.column_stack([np.full(40, 3.0), covariates, covariates @ [1.0, -2.0]])
    found = infer_effect(errors, group, covariates=more, seed=0, permutations=50)
    plain = infer_effect(errors, group, covariates=covariates, seed=0, permutations=50)
    np.testing.assert_allclose(found.statistic, plain.statistic)
    np.testing.assert_array_equal(found.p_fwer, plain.p_fwer)
    assert found.notes == ("covariates that are constant or follow from others are dropped (columns 0, 3)",)


def test_fewer_people_than_parameters():
    errors = study(15, subjects=4)[0]
    found = infer_effect(errors, np.array([0.0, 1, 0, 1]), covariates=np.eye(4)[:, :2], seed=0)
    assert nothing(found) and "no vertex could be tested" in found.notes[0]


def test_vertices_without_data_or_a_group_are_nan_alone():
    _, mesh = ball(42)
    errors, group, _ = study(16, vertices=42)
    errors[:, 1] = NAN
    errors[:, 2] = 0.7
    errors[group == 1, 3] = NAN
    errors[:21, 4] = NAN  # under half of the people are left
    found = infer_effect(errors, group, mesh=mesh, seed=0, permutations=50)
    for name in MAPS:
        assert np.flatnonzero(np.isnan(getattr(found, name))).tolist() == [1, 3, 4], name
    # Everybody's error is the same there: no effect, and no doubt about it.
    assert (found.effect[2], found.p_uncorrected[2], found.p_fwer[2]) == (0.0, 1.0, 1.0)
    assert found.notes == ("3 of 42 vertices could not be tested",)


def test_a_perfect_fit_is_finite_and_significant():
    group = np.repeat([0.0, 1.0], 10)
    found = infer_effect(np.column_stack([group, -group]), group, seed=0, permutations=200)
    assert np.isfinite(found.statistic).all() and found.statistic[0] > 1e6 > -1e6 > found.statistic[1]
    assert (found.p_fwer < 0.01).all()


def test_undescribed_and_empty_scans_are_left_out_and_counted():
    errors, group, covariates = study(17)
    errors[5] = NAN
    group[6], covariates[7, 1] = NAN, np.inf
    found = infer_effect(errors, group, covariates=covariates, seed=0, permutations=50)
    rest = np.setdiff1d(np.arange(40), [5, 6, 7])
    plain = infer_effect(errors[rest], group[rest], covariates=covariates[rest], seed=0, permutations=50)
    np.testing.assert_array_equal(found.p_fwer, plain.p_fwer)
    assert [note[:8] for note in found.notes] == ["2 scans ", "1 scans "]


def test_nobody_at_all():
    assert nothing(infer_effect(np.zeros((0, 4)), np.zeros(0), seed=0))
    assert nothing(infer_effect(np.full((5, 4), NAN), np.arange(5.0), seed=0))
    assert infer_effect(np.zeros((5, 0)), np.arange(5.0), seed=0).effect.shape == (0,)


@pytest.mark.parametrize(
    "change",
    [
        {"errors_mm": np.zeros(6)},
        {"tested": np.zeros(5)},
        {"covariates": np.zeros(6)},
        {"covariates": np.zeros((5, 1))},
        {"mesh": link_vertices(np.array([[0, 1, 2]]), np.ones(3))},
        {"permutations": 0},
    ],
)
def simulate(generator, subjects, near, tested, *, tails):
    """Draw smooth heavy-tailed errors that follow a covariate which follows the tested group."""
    covariate = tested + generator.standard_normal(subjects)
    noise = generator.standard_t(tails, (subjects, len(near))) @ near
    return noise / noise.std() + 0.5 * covariate[:, None], covariate[:, None]


def smoothing(points, width):
    near = np.exp(-(np.linalg.norm(points[:, None] - points[None], axis=2) ** 2) / (2 * width**2))
    return near / np.linalg.norm(near, axis=0)


def test_false_alarms_are_about_as_rare_as_promised():
    points, mesh = ball(80)
    near = smoothing(points, 0.3)
    generator = np.random.default_rng(2024)
    studies, alarms, enhanced_alarms = 300, 0, 0
    group = np.repeat([0.0, 1.0], 15)
    for number in range(studies):
        errors, covariate = simulate(generator, 30, near, group, tails=3)
        errors[generator.random(30) < 0.2, :20] = NAN  # a cap beyond the field of view
        found = infer_effect(errors, group, covariates=covariate, mesh=mesh, seed=number, permutations=99)
        alarms += np.nanmin(found.p_fwer) <= 0.05
        enhanced_alarms += np.nanmin(found.p_tfce) <= 0.05
    # Of 300 studies 15 should; 4 to 28 is 99.9 % of a binomial.
    low, high = stats.binom.interval(0.999, studies, 0.05)
    assert low <= alarms <= high
    assert low <= enhanced_alarms <= high


def test_a_small_group_with_wide_errors_does_not_look_different():
    points, _ = ball(80)
    near = smoothing(points, 0.3)
    generator = np.random.default_rng(11)
    group, studies = np.repeat([1.0, 0.0], [15, 45]), 200
    alarms = {None: 0, "sex": 0}
    for number in range(studies):
        errors = (generator.standard_normal((60, len(points))) @ near) * np.where(group, 2.0, 1.0)[:, None]
        for name in alarms:
            groups = None if name is None else group
            found = infer_effect(errors, group, variance_groups=groups, seed=number, permutations=99)
            alarms[name] += found.p_fwer.min() <= 0.05
    assert alarms["sex"] <= stats.binom.ppf(0.999, studies, 0.05)
    assert alarms[None] >= 0.25 * studies


def test_a_planted_region_is_found():
    points, mesh = ball(300)
    near = smoothing(points, 0.25)
    planted = points[:, 2] > 0.7
    generator = np.random.default_rng(7)
    group = np.tile([0.0, 1.0], 50)
    errors, covariate = simulate(generator, 100, near, group, tails=4)
    errors[group == 1] += 0.9 * planted
    found = infer_effect(errors, group, covariates=covariate, mesh=mesh, seed=0, permutations=300)
    for p in (found.p_fwer, found.p_tfce):
        region = (p <= 0.05) & (found.effect > 0)
        assert 2 * (region & planted).sum() / (region.sum() + planted.sum()) >= 0.6
    assert found.p_tfce[planted].mean() <= found.p_fwer[planted].mean()
    flipped = infer_effect(-errors, group, covariates=covariate, mesh=mesh, seed=0, permutations=300)
    np.testing.assert_array_equal(flipped.p_tfce, found.p_tfce)
    assert replace(found, permutations=0).permutations == 0
