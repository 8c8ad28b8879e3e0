"""Sites: their gaps, the random-effects summary by hand, shares of variance of known truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import fairness
from helpers.fairness.score_matrix import Scores
from helpers.fairness.sites import share_variance
from helpers.parameters import Fairness

SETTINGS = Fairness(metrics=["dice"], min_group=10, bootstrap=200, permutations=200)


def make_study(rng, *, sites=8, people=40, gaps=0.03, between=0.02):
    site = np.repeat(np.arange(sites), people)
    sex = np.tile(["female", "male"], len(site) // 2)
    own = gaps + between * rng.normal(size=sites)
    dice = 0.8 + own[site] * (sex == "male") + 0.03 * rng.normal(size=sites)[site] + 0.03 * rng.normal(size=len(site))
    cohort = pd.DataFrame({"subject": [f"p{number:03d}" for number in range(len(site))]})
    cohort = cohort.assign(
        scan=cohort["subject"], number=range(1, len(site) + 1), group_sex=sex, site=[f"s{number}" for number in site]
    )
    return cohort[["subject", "scan"]].assign(model="model", organ="liver", dice=dice), cohort


def test_gaps_of_sites_and_their_summary(rng):
    metrics, cohort = make_study(rng)
    found = fairness.run_audit(metrics, cohort, SETTINGS, ["sex"], 1, cluster="site")
    table = metrics.merge(cohort).query("site == 's3'")
    male, female = (table.loc[table["group_sex"] == name, "dice"] for name in ("male", "female"))
    own = stats.ttest_ind(male, female, equal_var=False)
    row = found.sites.set_index("site").loc["s3"]
    assert (row["best_group"], row["worst_group"], row["n"]) == ("male", "female", 40)
    assert row["gap"] == pytest.approx(male.mean() - female.mean())
    assert [row["low"], row["high"]] == pytest.approx(list(own.confidence_interval()))
    [summary] = found.site_summary.to_dict("records")
    gaps = found.sites["gap"].to_numpy()
    squared = np.array(
        [
            sum(part["dice"].var() / len(part) for _, part in one.groupby("group_sex"))
            for _, one in metrics.merge(cohort).groupby("site")
        ]
    )
    # DerSimonian & Laird 1986, by hand; then Hartung & Knapp 2001.
    weights = 1 / squared
    q = (weights * (gaps - (weights * gaps).sum() / weights.sum()) ** 2).sum()
    between = max((q - 7) / (weights.sum() - (weights**2).sum() / weights.sum()), 0.0)
    weights = 1 / (squared + between)
    mean = (weights * gaps).sum() / weights.sum()
    error = np.sqrt((weights * (gaps - mean) ** 2).sum() / (7 * weights.sum()))
    error = max(error, weights.sum() ** -0.5)
    assert summary["gap"] == pytest.approx(mean) and summary["between_sd"] == pytest.approx(np.sqrt(between))
    assert summary["high"] - summary["gap"] == pytest.approx(stats.t.ppf(0.975, 7) * error)
    assert summary["p_heterogeneity"] == pytest.approx(stats.chi2.sf(q, 7)) and summary["sites"] == 8
    assert summary["new_low"] < summary["low"] < summary["high"] < summary["new_high"]


def test_a_group_that_is_one_site_gets_no_verdict_and_is_named(rng):
    metrics, cohort = make_study(rng)
    cohort["group_maker"] = np.where(np.arange(320) < 24, "GE", "Siemens")
    cohort.loc[[50, 90, 130, 170], "group_maker"] = "GE"
    found = fairness.run_audit(metrics, cohort, SETTINGS, ["maker", "sex"], 1, cluster="site")
    rows = found.disparity.set_index("attribute")
    assert rows.loc["maker", "verdict"] == "not compared" and rows.loc["maker", ["p", "gap_low"]].isna().all()
    assert "no verdict: 24 of 28 in “GE” are of s0: the group cannot be told from it" in rows.loc["maker", "note"]
    assert rows.loc["sex", "test"].startswith("t test with errors of clusters") and rows.loc["sex", "p"] < 0.05


def test_without_sites_there_are_no_gaps_of_sites(rng):
    metrics, cohort = make_study(rng)
    found = fairness.run_audit(metrics, cohort, SETTINGS, ["sex"], 1)
    assert found.sites.empty and found.site_summary.empty and np.isnan(found.variance["sites_share"][0])


def test_shares_of_variance_are_those_planted():
    rng = np.random.default_rng(3)
    site = np.repeat(np.arange(60), 20)
    spread = {"sites": 1.0, "people": 2.0, "models": 3.0, "rest": 4.0}
    values = (
        np.sqrt(spread["sites"]) * rng.normal(size=60)[site][:, None]
        + np.sqrt(spread["people"]) * rng.normal(size=(1200, 1))
        + np.sqrt(spread["models"]) * rng.normal(size=(1, 200))
        + np.sqrt(spread["rest"]) * rng.normal(size=(1200, 200))
    )
    keys = [(f"m{number}", "liver", "dice") for number in range(200)]
    scores = Scores(np.arange(1200).astype(str), values, keys, [], None, None, site, ())
    row = share_variance(scores).iloc[0]
    assert row["total_variance"] == pytest.approx(10.0, rel=0.1)
    for name, part in spread.items():
        assert row[f"{name}_share"] == pytest.approx(part / 10.0, abs=0.05), name


def test_a_significant_gap_is_taken_back_by_the_errors_of_clusters(rng):
    metrics, cohort = make_study(rng, sites=12, gaps=0.08, between=0.05)
    people, sites = (
        fairness.run_audit(metrics, cohort, SETTINGS, ["sex"], 1, cluster=cluster).disparity.iloc[0]
        for cluster in (None, "site")
    )
    assert people["told_gap"] == pytest.approx(sites["gap"], rel=0.01) and sites["p_adjusted"] < 0.05
    assert sites["told_high"] - sites["told_low"] > 1.5 * (people["told_high"] - people["told_low"])


def make_sites_of_one_sex(rng, sites=12, people=30):
    """Sites of women or men and of an age of their own, which differ in scores, and lack some."""
    site = np.repeat(np.arange(sites), people)
    own, number = rng.normal(size=sites)[site], len(site)
    sex, age = np.where(site % 2, "male", "female"), 50 + 10 * rng.normal(size=sites)[site] + rng.normal(size=number)
    dice = 0.8 + 0.04 * own + 0.04 * rng.normal(size=number)
    lacking = rng.random(number) < np.where(own > 0.5, 0.2, 0.02)
    names = [f"p{place:03d}" for place in range(number)]
    cohort = pd.DataFrame({"subject": names, "scan": names, "number": range(1, number + 1), "group_sex": sex})
    cohort["group_age"] = np.where(age < 50, "young", "old")
    cohort = cohort.assign(site=[f"s{place}" for place in site], age=age, bmi=rng.normal(25, 3, number))
    metrics = cohort[["subject", "scan"]].assign(model="model", organ="liver", dice=dice)
    metrics["dice"] = metrics["dice"].mask(lacking)
    metrics["status"] = np.where(lacking, "prediction_missing", "ok")
    volume = 1500 + 100 * rng.normal(size=number)
    return metrics.assign(volume_ref_ml=volume, volume_pred_ml=volume * (1 + 0.05 * own)), cohort


def test_whatever_compares_people_takes_their_clusters_together(rng):
    metrics, cohort = make_sites_of_one_sex(rng)
    alone = cohort.assign(site=cohort["subject"])
    settings = Fairness(metrics=["dice"], bootstrap=200, permutations=200, failure={"dice": [0.8]})
    asked = (settings, ["sex"])

    def audit(cohort, cluster):
        return fairness.run_audit(metrics, cohort, settings, ["sex", "age"], 1, confounders=["bmi"], cluster=cluster)

    people, single, sites = audit(cohort, None), audit(alone, "site"), audit(cohort, "site")

    def measure(found, table, low="low", high="high"):
        row = getattr(found, table).iloc[0]
        return row[high] - row[low]

    for table, low, high in (("matching", "low", "high"), ("trend_tests", "slope_low", "slope_high")):
        widths = [measure(found, table, low, high) for found in (people, single, sites)]
        assert widths[1] == pytest.approx(widths[0], rel=0.15) and widths[2] > 1.8 * widths[0], table
    assert sites.trend_tests["p_trend"].iloc[0] > 20 * people.trend_tests["p_trend"].iloc[0]
    assert single.trend_tests["p_trend"].iloc[0] < 0.01
    # Where nobody has a cluster in common, errors are those of two samples: of the matched alone.
    row = single.matching.iloc[0]
    assert row["gap"] == pytest.approx(people.matching["gap"].iloc[0])
    # Cells have neither an interval nor a test, and it is said.
    [variance] = sites.intersection_variance.to_dict("records")
    assert np.isnan(variance["p_interaction"]) and "no intervals and no test" in variance["note"]
    assert sites.intersections["low"].isna().all() and sites.intersections["pooled"].notna().any()
    assert people.intersections["low"].notna().any()

    for compare, key in (
        (lambda cluster: fairness.compare_failures(metrics, cohort, *asked, 1, cluster=cluster), "gap_"),
        (lambda cluster: fairness.compare_volumes(metrics, cohort, *asked, 1, cluster=cluster), ""),
    ):
        one, other = (compare(cluster).iloc[0] for cluster in (None, "site"))
        assert other["p"] > 10 * one["p"]
        assert other[f"{key}high"] - other[f"{key}low"] > 1.3 * (one[f"{key}high"] - one[f"{key}low"])
    one, other = (
        fairness.compare_missing(metrics, cohort, *asked, cluster=cluster)["p"][0] for cluster in (None, "site")
    )
    assert other > one

    better = metrics.assign(dice=metrics["dice"] + 0.02 * (cohort["site"].isin(["s0", "s1", "s3"])))
    one, other = (
        fairness.compare_studies(
            (metrics, cohort), (better, cohort), [("model", "model")], *asked, 1, cluster=cluster
        ).gaps.iloc[0]
        for cluster in (None, "site")
    )
    assert other["high"] - other["low"] > 1.5 * (one["high"] - one["low"])


def test_failures_of_one_cluster_alone_tell_nothing_of_the_group(rng):
    metrics, cohort = make_sites_of_one_sex(rng)
    metrics = metrics.assign(dice=0.9).assign(status="ok")
    metrics.loc[:20, "dice"] = 0.1  # all in the first site, which has women
    table = fairness.compare_failures(metrics, cohort, SETTINGS, ["sex"], 1, cluster="site")
    row = table[table["metric"] == "dice"].iloc[0]
    assert row["p"] > 0.1 and row["gap_low"] < 0 and row["verdict"] == "inconclusive"
