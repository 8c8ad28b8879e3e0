"""How many people and masks a margin needs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestIndPower
from typer.testing import CliRunner

from helpers import cli
from helpers.errors import SegfairError
from helpers.figures.plan import plot_plan
from helpers.planning import Wanted, write_plan
from helpers.statistics.planning import count_masks, find_group_size, find_power, resample_power
from tests.test_studies_compared import make_scores, studies

__all__ = ["studies"]  # a fixture


@pytest.mark.parametrize(("n", "effect"), [(5, 1.0), (20, 0.5), (100, 0.4), (1000, 0.1)])
def test_power_of_a_difference_is_that_of_statsmodels(n, effect):
    expected = TTestIndPower().power(effect, n, 0.05)
    assert find_power("difference", (1.0, 1.0), n, effect, 0.05) == pytest.approx(expected, abs=1e-4)


def test_sizes_are_the_fewest_with_the_power():
    size = find_group_size("difference", (0.05, 0.05), 0.02, alpha=0.05, power=0.8)
    assert size == int(np.ceil(TTestIndPower().solve_power(0.4, alpha=0.05, power=0.8)))
    # Julious 2004, Statistics in Medicine 23:1921: 2 (z_0.95 + z_0.90)² / 0.4² = 107.04.
    assert find_group_size("equivalence", (0.05, 0.05), 0.02, alpha=0.05, power=0.8) == 108
    # Of three people each there are 20 arrangements: p is never below 0.1.
    assert find_group_size("difference", (0.001, 0.001), 0.02, alpha=0.05, power=0.8) == 4
    for question in ("difference", "equivalence"):
        n = find_group_size(question, (0.02, 0.08), 0.02, alpha=0.05, power=0.9)
        assert find_power(question, (0.02, 0.08), n, 0.02, 0.05) >= 0.9
        assert find_power(question, (0.02, 0.08), n - 1, 0.02, 0.05) < 0.9
    assert find_group_size("difference", (1.0, 1.0), 1e-6, alpha=0.05, power=0.8) is None
    # Up to a million there is a number.
    assert find_group_size("difference", (1.0, 1.0), 0.0048, alpha=0.05, power=0.8) == pytest.approx(681_000, rel=0.01)
    with pytest.raises(SegfairError, match="margin and spread must be above 0"):
        find_group_size("difference", (0.0, 0.0), 0.02, alpha=0.05, power=0.8)


@pytest.mark.parametrize("question", ["difference", "equivalence"])
def test_resampling_normal_people_gives_the_formulas_power(question):
    pilot = tuple(np.random.default_rng(0).normal(0.8, 0.05, (2, 20_000)))
    expected = find_power(question, (0.05, 0.05), 90, 0.02, 0.05)
    assert resample_power(question, pilot, 90, 0.02, 0.05, seed=0) == pytest.approx(expected, abs=0.025)


def test_masks_are_as_few_as_the_variance_allows():
    """The estimator itself, drawn many times, has the variance that was asked for."""
    n, people, correlation = 100, 1000, 0.9
    masks = count_masks(n, people, correlation)
    assert masks == 21
    rng = np.random.default_rng(1)
    proxy = rng.normal(size=(4000, people))
    score = correlation * proxy + np.sqrt(1 - correlation**2) * rng.normal(size=proxy.shape)
    weight = correlation * (1 - masks / people)  # the best one, for equal spreads; the rest has no mask
    rest = proxy[:, masks:].mean(axis=1)
    estimate = score[:, :masks].mean(axis=1) + weight * (rest - proxy[:, :masks].mean(axis=1))
    assert estimate.var() * n == pytest.approx(1.0, abs=0.08)
    assert count_masks(100, 100, 0.9) == 100 and count_masks(100, 99, 0.9) is None
    assert count_masks(100, 1000, 0.0) == 100


def test_a_stated_spread_is_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(cli.app, ["plan", "--sd", "0.05", "--proxy", "0.9"])
    assert said.exit_code == 0, said.output
    assert "to find a difference of 0.020: 100 people per group" in said.output
    assert "to show that no difference exceeds 0.020: 108 people per group" in said.output
    table = pd.read_csv(tmp_path / "plan" / "plan.csv").set_index("question")
    assert table["people_per_group"].to_dict() == {"difference": 100, "equivalence": 108}
    masks = pd.read_csv(tmp_path / "plan" / "plan_masks.csv")
    assert count_masks(108, 1080, 0.9) in set(masks["masks_per_group"])
    page = (tmp_path / "plan" / "plan.html").read_text(encoding="utf-8")
    assert "people in each group" in page and "108 per group" in page


def test_a_pilot_with_failures_asks_for_more_than_the_formula(studies, tmp_path):
    scores = make_scores()
    scores[[3, 11, 42]] = 0.0
    study = studies("pilot", scores)
    sentences, folder = write_plan(study.folder, None, Wanted(margin=0.1, tests=4))
    table = pd.read_csv(folder / "plan.csv").set_index("question")
    spread = [scores[::2].std(ddof=1), scores[1::2].std(ddof=1)]
    assert table.loc["difference", ["sd_a", "sd_b"]].tolist() == pytest.approx(spread)
    assert table["alpha"].to_dict() == {"difference": 0.0125, "equivalence": 0.05}
    assert folder == study.folder / "plan" and len(sentences) == 3
    short = table[table["power_resampled"] < 0.75]
    assert (short["people_resampled"] > short["people_per_group"]).all()
    assert (folder / "plan_masks.csv").exists()


def test_what_cannot_be_planned_is_one_sentence(studies):
    with pytest.raises(SegfairError, match="give a pilot study, or --sd"):
        write_plan(None, None, Wanted())
    with pytest.raises(SegfairError, match="--proxy is a correlation"):
        write_plan(None, 0.05, Wanted(proxy=1.0))
    with pytest.raises(SegfairError, match="--tests counts tests"):
        write_plan(None, 0.05, Wanted(tests=0))
    with pytest.raises(SegfairError, match="has no margin: give --margin"):
        write_plan(None, 0.05, Wanted(margin=-1.0))
    study = studies("flat", np.full(80, 0.9))
    with pytest.raises(SegfairError, match="no two groups are large enough and vary"):
        write_plan(study.folder, None, Wanted())
    with pytest.raises(SegfairError, match="has no nsd: choose --metric"):
        write_plan(study.folder, None, Wanted(metric="nsd"))


def test_a_plan_beyond_reach_has_no_curve_and_says_so():
    table = pd.DataFrame({"question": ["difference"], "people_per_group": pd.array([pd.NA], "Int64")})
    assert "No number of people" in plot_plan(table, "dice").layout.annotations[0].text
