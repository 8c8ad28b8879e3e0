"""Sites: each one's own gap, what they have in common, what people, models and sites vary by."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.fairness.group_comparison import GroupComparison
from helpers.fairness.score_matrix import Scores
from helpers.fairness.tables import make_table
from helpers.statistics.bootstrap import CONFIDENCE
from helpers.statistics.hypothesis_tests import find_squared_error
from helpers.vocabulary.words import ALL_MODELS

LEAST_SITES = 3  # with a gap of their own, for a summary over them


def compare_sites(compared: GroupComparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return each site's gap between the groups that a row names, and their summary over sites.

    The tables ``sites``, a row per model, organ, metric, attribute and site with `min_group` people
    of both groups, and ``site_summary``, a row per comparison with three such sites: a
    random-effects mean with its interval, and how far sites differ. Empty without clusters, and for
    attributes of scans.

    Gaps have Welch's errors. The mean is DerSimonian & Laird's, its interval Hartung & Knapp's
    (Röver et al. 2015, *BMC Medical Research Methodology* 15:99), by
    `statsmodels.stats.meta_analysis`; the interval of another site's gap is that of Higgins et al.
    2009, *JRSS A* 172:137.
    """
    groups, found = compared.groups, compared.found
    clusters = groups.scores.clusters
    if clusters is None or groups.within_people:
        return make_table([], "sites"), make_table([], "site_summary")
    rows: list[dict[str, Any]] = []
    summaries: list[dict[str, Any]] = []
    for column in np.flatnonzero(found.best >= 0):
        head = groups.name_row(int(column))
        best, worst = int(found.best[column]), int(found.worst[column])
        values, sign = groups.scores.matrix[:, column], groups.scores.sign[column]
        gaps, squared = [], []
        for site, name in enumerate(groups.scores.cluster_names):
            one, other = (
                part[np.isfinite(part)]
                for part in (values[(clusters == site) & (groups.codes == code)] for code in (best, worst))
            )
            if min(len(one), len(other)) < max(groups.min_group, 2):
                continue
            error, df = find_squared_error(
                *(np.array(part) for part in (len(one), one.var(ddof=1), len(other), other.var(ddof=1)))
            )
            if not error > 0:
                continue
            gap, reach = sign * (one.mean() - other.mean()), stats.t.ppf(0.5 + CONFIDENCE / 2, df) * np.sqrt(error)
            rows.append(
                head
                | {"site": name, "best_group": groups.names[best], "worst_group": groups.names[worst]}
                | {"n": len(one) + len(other), "gap": gap, "low": gap - reach, "high": gap + reach}
            )
            gaps.append(gap)
            squared.append(float(error))
        if len(gaps) >= LEAST_SITES:
            summaries.append(head | {"sites": len(gaps)} | _summarise(np.array(gaps), np.array(squared)))
    return make_table(rows, "sites"), make_table(summaries, "site_summary")


def _summarise(gaps: np.ndarray, squared: np.ndarray) -> dict[str, float]:
    """Return the random-effects summary of the sites' gaps with their squared errors."""
    from statsmodels.stats.meta_analysis import combine_effects

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = combine_effects(gaps, squared, method_re="chi2", use_t=True)
    mean, between, number = float(found.mean_effect_re), max(float(found.tau2), 0.0), len(gaps)
    weights = 1.0 / (squared + between)
    plain = 1.0 / np.sqrt(weights.sum())
    knapp = np.sqrt((weights * (gaps - mean) ** 2).sum() / ((number - 1) * weights.sum()))
    error = max(plain, knapp)
    reach = stats.t.ppf(0.5 + CONFIDENCE / 2, number - 1) * error
    # Where another site's gap may lie: two degrees of freedom go to the mean and the variance.
    wide = stats.t.ppf(0.5 + CONFIDENCE / 2, number - 2) * np.sqrt(between + error**2)
    return {
        "gap": mean,
        "low": mean - reach,
        "high": mean + reach,
        "between_sd": np.sqrt(between),
        "i2": max(float(found.i2), 0.0),
        "p_heterogeneity": float(stats.chi2.sf(found.q, number - 1)),
        "new_low": mean - wide,
        "new_high": mean + wide,
    }


def share_variance(scores: Scores) -> pd.DataFrame:
    """Return what share of a score's variance lies between sites, people and models.

    The table ``variance``, a row per organ and metric, of the people whom every model has a value
    for: ``sites`` (empty without clusters), ``people`` (within sites), ``models`` and ``rest`` (a
    model on a person). Expected mean squares of the two-way layout person × model, and of sites
    over people's means (Searle, Casella & McCulloch 1992, *Variance Components*, chapters 3 and 4);
    what comes out below 0 is 0.
    """
    rows = []
    models = list(dict.fromkeys(model for model, _, _ in scores.keys if model != ALL_MODELS))
    for organ, metric in dict.fromkeys((organ, metric) for _, organ, metric in scores.keys):
        columns = [place for place, key in enumerate(scores.keys) if key[1:] == (organ, metric) and key[0] in models]
        values = scores.matrix[:, columns]
        whole = np.isfinite(values).all(axis=1)
        values = values[whole]
        people, number = values.shape
        if people < 2 * LEAST_SITES:
            continue
        person, model = values.mean(axis=1), values.mean(axis=0)
        rest = 0.0
        if number > 1:
            residual = values - person[:, None] - model[None, :] + values.mean()
            rest = float((residual**2).sum() / ((people - 1) * (number - 1)))
        parts = {"rest": rest, "models": max(model.var(ddof=1) - rest / people, 0.0) if number > 1 else 0.0}
        parts |= _split_sites(person, None if scores.clusters is None else scores.clusters[whole], rest / number)
        total = sum(part for part in parts.values() if np.isfinite(part))
        if total > 0:
            shares = {f"{name}_share": part / total for name, part in parts.items()}
            rows.append({"organ": organ, "metric": metric, "n": people, "total_variance": total} | shares)
    return make_table(rows, "variance")


def _split_sites(person: np.ndarray, clusters: np.ndarray | None, noise: float) -> dict[str, float]:
    """Return the variance between sites and that of people within them, less a mean's own noise."""
    if clusters is None or (clusters >= 0).sum() < 2 or len(np.unique(clusters[clusters >= 0])) < LEAST_SITES:
        return {"sites": np.nan, "people": max(person.var(ddof=1) - noise, 0.0)}
    person, clusters = person[clusters >= 0], clusters[clusters >= 0]
    codes = np.unique(clusters, return_inverse=True)[1].ravel()
    sizes = np.bincount(codes)
    means = np.bincount(codes, person) / sizes
    groups, people = len(sizes), len(person)
    if people == groups:
        return {"sites": np.nan, "people": max(person.var(ddof=1) - noise, 0.0)}
    within = ((person - means[codes]) ** 2).sum() / (people - groups)
    between = (sizes * (means - person.mean()) ** 2).sum() / (groups - 1)
    typical = (people - (sizes**2).sum() / people) / (groups - 1)
    return {"sites": max((between - within) / typical, 0.0), "people": max(within - noise, 0.0)}
