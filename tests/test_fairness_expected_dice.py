"""What size explains of a Dice gap, with the cohort's mean boundary error drawn anew in every
resample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.fairness import average_subjects, expected_dice
from helpers.fairness.group_comparison import compare_attribute
from helpers.fairness.score_matrix import AttributeScores, Scores
from helpers.parameters import Fairness
from helpers.statistics.bootstrap import Resamples
from tests.test_fairness_groups import make_cohort


def make_people(rng, women: int, men: int, organs: int, *, spread=(0.5, 0.5)):
    """The same boundary error for everybody; women's organs are half the size."""
    sex = ["female"] * women + ["male"] * men
    cohort = make_cohort(sex=sex)
    female = np.array(sex) == "female"
    parts = []
    for organ in range(organs):
        steep = np.where(female, 0.18, 0.11) * np.exp(rng.normal(0, 0.08, len(sex)))
        error_mm = 1.2 + (rng.gamma(6.0, 1 / 6, len(sex)) - 1.0) * np.where(female, *spread)
        parts.append(
            cohort[["subject", "scan"]].assign(
                model="m",
                organ=f"o{organ}",
                dice=1 - error_mm * steep,
                boundary_error_mm=error_mm,
                dice_expected=1 - error_mm.mean() * steep,
            )
        )
    return pd.concat(parts, ignore_index=True), cohort


def compare(metrics, cohort, *, bootstrap=2000, boundary=True):
    metrics = metrics if boundary else metrics.drop(columns="boundary_error_mm")
    people, _ = average_subjects(metrics, cohort, ["sex"], ["dice"])
    people = people[people["organ"] != "all"] if metrics["organ"].nunique() > 30 else people
    scores = Scores.spread(people, ["dice"])
    settings = Fairness(metrics=["dice"], min_group=3, bootstrap=bootstrap)
    return scores, compare_attribute(AttributeScores.read(people, "sex", scores, 3), settings, 1)


def test_draws_are_those_of_expectations_computed_anew(rng, monkeypatch):
    metrics, cohort = make_people(rng, 25, 35, 1)
    seen = []
    original = expected_dice.find_difference
    monkeypatch.setattr(expected_dice, "find_difference", lambda *given: seen.append(given) or original(*given))
    scores, found = compare(metrics, cohort, bootstrap=4000)
    [(draws, _, influence, *_)] = seen
    # The slope of each person is known here, so that the expectation can be computed anew without
    # any linearisation.
    error = scores.boundary[:, 0]
    steep = (1 - scores.expected[:, 0]) / error.mean()
    resamples = Resamples(found.groups.codes, 4000, 1, ("sex\x1ffemale", "sex\x1fmale"))
    drawn = resamples.draw_means(np.column_stack([scores.matrix[:, 0], steep, error]))
    mean = (drawn[:, 0, 2] * 25 + drawn[:, 1, 2] * 35) / 60
    excess = drawn[:, 1, 0] - drawn[:, 0, 0] + mean * (drawn[:, 1, 1] - drawn[:, 0, 1])
    assert np.corrcoef(draws[:, 0], excess)[0, 1] > 0.99
    assert draws[:, 0].std() == pytest.approx(excess.std(), rel=0.03)
    # What each person bears on it has the variance of the draws, and the interval is of that width.
    assert np.sqrt((influence**2).sum()) == pytest.approx(excess.std(), rel=0.03)
    assert found.size.high[0] - found.size.low[0] == pytest.approx(2 * 2.0 * excess.std(), rel=0.1)


def test_estimates_do_not_depend_on_the_mean_being_drawn(rng):
    metrics, cohort = make_people(rng, 20, 20, 3)
    _, with_mean = compare(metrics, cohort)
    _, without = compare(metrics, cohort, boundary=False)
    assert with_mean.size.excess_gap == pytest.approx(without.size.excess_gap)
    assert (with_mean.size.high != without.size.high).all()


def test_the_pooled_organs_excess_is_the_mean_of_the_organs(rng):
    metrics, cohort = make_people(rng, 20, 20, 3)
    scores, found = compare(metrics, cohort)
    assert scores.places[-1] == ("m", "all")
    assert found.size.excess_gap[-1] == pytest.approx(found.size.excess_gap[:-1].mean())
    width = found.size.high - found.size.low
    assert 0.4 * width[:-1].mean() < width[-1] < 0.9 * width[:-1].mean()  # three organs: about 1/√3


@pytest.mark.slow
@pytest.mark.parametrize("spread", [(0.5, 0.5), (0.9, 0.3), (0.3, 0.9)])
def test_false_alarms_where_size_is_all_there_is(rng, spread):
    alarms, missed = [], []
    for _ in range(2):
        metrics, cohort = make_people(rng, 60, 60, 150, spread=spread)
        _, found = compare(metrics, cohort, bootstrap=1000)
        alarms.append((found.size.low > 0) | (found.size.high < 0))
        missed.append((found.gap.low > 0) | (found.gap.high < 0))
    # 300 organs: nominal 5 %, Monte-Carlo error 1.3 %. The plain gap is an alarm for nearly all.
    assert np.mean(alarms) < 0.09
    assert np.mean(missed) > 0.9
