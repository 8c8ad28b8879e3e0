"""Sites in the report: what their gaps have in common, what scores vary by, and no site's name."""

from __future__ import annotations

import re

import pytest

from helpers.fairness import run_audit
from helpers.parameters import Fairness
from helpers.report import compose_report, render_report
from tests import report_study as study
from tests.test_report_sections import read_text


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Sites of 40 people each, four of which read women's livers worse than the first two do."""
    cohort = study.make_cohort(240)
    person = cohort["subject"].str.extract(r"(\d+)")[0].astype(int)
    cohort["site"] = "Saint Quux " + (person // 40 % 6).astype(str)
    metrics = study.make_metrics(cohort, models=("sam_demo",), gap=0.0)
    worse = metrics.merge(cohort[["scan", "site", "sex"]]).eval(
        "sex == 'female' and organ == 'liver' and site not in ('Saint Quux 0', 'Saint Quux 1')"
    )
    metrics["dice"] -= 0.06 * worse.to_numpy()
    included = cohort[cohort["included"]].reset_index(drop=True)
    settings = Fairness(metrics=["dice"], min_group=10, bootstrap=100, permutations=100)
    parameters = study.make_parameters()
    parameters["cohort"] |= {"cluster": "site"}
    folder = study.write_study(
        tmp_path_factory.mktemp("sites"),
        cohort=cohort,
        metrics=metrics,
        fairness=run_audit(metrics, included, settings, ["sex"], 7, cluster="site"),
        parameters=parameters | {"fairness": {"metrics": ["dice"], "min_group": 10}},
    )
    report = compose_report(folder)
    return read_text(report["performance"]), render_report(report)


def test_gaps_over_sites_are_told(told):
    text, _ = told
    section = text[text.index("Does it hold at every site?") :]
    assert "Of 3 comparisons with enough people of both groups at three sites or more" in section
    assert re.search(r"sites differ in their gap beyond chance in [23] \(Cochran", section)
    row = re.search(r"sam_demo,liver,sex,women than men,6,(\S+) \(.*?\),(\S+) to (\S+),(\S+),(.*)\n", section)
    gap, low, high, spread = (float(row[place].replace("−", "-")) for place in range(1, 5))
    assert 0.03 < gap < 0.05 and low < gap < high and spread > 0.02 and row[5] == "< 0.001"
    assert "Between people of a site" in section


def test_sites_have_no_names(told):
    assert "Quux" not in told[1]


def test_without_sites_nothing_is_said(tmp_path):
    report = compose_report(study.write_whole_study(tmp_path))
    assert "every site" not in read_text(report["performance"])
