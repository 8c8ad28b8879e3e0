"""What a model's prompts cost a person, beside what they buy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers import performance, storage
from helpers.figures.effort import plot_effort
from helpers.study import load_study
from helpers.vocabulary.words import POOLED
from tests import report_study


@pytest.fixture
def measured(tmp_path):
    """A study of a prompted and an automatic model, with 2 and 3 boxes drawn per scan and organ."""
    cohort, metrics, audit = report_study.make_whole(60, None)
    parameters = report_study.make_parameters()
    parameters["models"][1]["prompted"] = False
    path = tmp_path / "params" / "study.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(parameters, allow_unicode=True), encoding="utf-8")
    study = load_study(path)
    scans = cohort.loc[cohort["included"], "scan"]
    for model, drawn in (("sam_demo", [2, 3]), ("annotator", [None, None])):
        organs = pd.DataFrame(
            [
                {"scan": scan, "organ": organ, "drawn": count, "not_drawn": ""}
                for scan in scans
                for organ, count in zip(study.organ_ids, drawn, strict=False)
            ]
        )
        storage.write_table(organs, study.path("organs", model=model))
    return study, metrics, audit


def test_effort_stands_beside_mean_and_gap(measured):
    study, _, audit = measured
    effort = performance.write_effort(study, audit)
    pd.testing.assert_frame_equal(study.read("effort"), effort.reset_index(drop=True), check_dtype=False)
    drawn = effort.groupby("model")["drawn"].unique()
    assert drawn["sam_demo"].tolist() == [5.0] and drawn["annotator"].tolist() == [0.0]
    wanted = "model == 'sam_demo' and metric == 'dice' and attribute == 'sex'"
    (row,) = effort.query(wanted).to_dict("records")
    groups = audit.groups.query(f"{wanted} and organ == '{POOLED}'")
    assert row["mean"] == pytest.approx(np.average(groups["mean"], weights=groups["n"]))
    (gap,) = audit.disparity.query(f"{wanted} and organ == '{POOLED}'").to_dict("records")
    assert all(row[name] == gap[name] for name in ("gap", "gap_low", "gap_high", "verdict"))


def test_effort_is_drawn_where_it_differs(measured):
    study, _, audit = measured
    effort = performance.write_effort(study, audit)
    figure = plot_effort(effort, "dice")
    first = [trace for trace in figure.data if trace.xaxis in (None, "x") and trace.visible is not False]
    assert {trace.name: trace.x[0] for trace in first} == {"sam_demo": 5.0, "annotator": 0.0}
    same = plot_effort(effort[effort["model"] == "sam_demo"], "dice")
    assert not same.data and "nothing to compare" in same.layout.annotations[0].text
