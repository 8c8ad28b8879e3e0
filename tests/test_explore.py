"""The exploration without a browser: which people are drawn for which choices, what is said, what
is exported."""

from __future__ import annotations

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import yaml

from helpers import pipeline, provenance, storage
from helpers.errors import SegfairError, StageError
from helpers.explore import explore_study
from helpers.explore.explorer import NOTHING, SIZE, Explorer, list_studies
from helpers.explore.export import draw_pictures, export_view
from helpers.fairness.adjustment import adjust_gaps
from helpers.figures.explore import OTHERS
from helpers.report import find_leaks
from helpers.study import load_study
from tests import report_study

PEOPLE = 60


def make_study(folder, *, name="synthetic", cohort=None, metrics=None, min_group=10):
    """Write parameters, cohort.parquet and metrics.parquet of a study whose masks are not there."""
    cohort = report_study.make_cohort(PEOPLE) if cohort is None else cohort
    metrics = report_study.make_metrics(cohort) if metrics is None else metrics
    parameters = report_study.make_parameters(name=name, fairness={"min_group": min_group})
    path = folder / "params" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(parameters, sort_keys=False), encoding="utf-8")
    study = load_study(path)
    study.folder.mkdir(parents=True)
    cohort.to_parquet(study.path("cohort"))
    metrics.to_parquet(study.path("metrics"))
    provenance.write_snapshot(study)
    return study


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path)


@pytest.fixture
def explorer(study):
    return Explorer(study)


def test_choices_are_those_of_the_study(explorer):
    assert explorer.models == ["sam_demo", "annotator"]
    assert explorer.organs == ["liver", "kidney_left", "all"]
    assert explorer.metrics[:4] == ["dice", "nsd", "hd95_mm", "boundary_error_mm"]
    assert explorer.dimensions == {
        "group:sex": "sex",
        "bmi": "BMI (kg/m²)",
        "group:bmi": "BMI, in groups",
        "group:scanner": "scanner",
        "group:modality": "modality",
        SIZE: "organ volume (ml)",
    }
    grouped = {"group:sex": "sex", "group:bmi": "BMI", "group:scanner": "scanner", "group:modality": "modality"}
    assert explorer.colours == {NOTHING: NOTHING, **grouped}
    assert (
        explorer.list_covariates("bmi") == explorer.list_covariates("group:bmi") == ["sex", "scanner", "modality", SIZE]
    )


def test_everyone_is_drawn_once_with_the_mean_of_their_scans(explorer, study):
    view = explorer.show(model="sam_demo", organ="liver", metric="dice", across="group:sex")
    assert len(view.points) == PEOPLE and view.points["number"].is_unique
    repeated = view.points[view.points["scans"] == 2]
    metrics = study.read("metrics")
    mine = metrics[
        (metrics["subject"] == "PATIENT-0000-Quux") & (metrics["model"] == "sam_demo") & (metrics["organ"] == "liver")
    ]
    assert len(repeated) == 1 and repeated["score"].iloc[0] == pytest.approx(mine["dice"].mean(), abs=1e-12)
    assert view.points["measured"].equals(view.points["score"]) and not view.adjusted


def test_gap_is_said_in_words_and_is_the_difference_of_the_means_drawn(explorer):
    view = explorer.show(model="sam_demo", organ="liver", metric="dice", across="group:sex")
    means = view.points.groupby("place", observed=True)["score"].mean()
    gap = means["male"] - means["female"]
    assert 0.03 < gap < 0.07, "0.05 is planted"
    assert f"between male (best) and female: {gap:.3f} (95 % confidence interval" in view.message
    assert view.summary.set_index("place")["estimate"].to_dict() == pytest.approx(means.to_dict(), abs=1e-12)


def test_adjusting_shows_the_points_of_the_audit_s_ancova(explorer, study):
    view = explorer.show(model="sam_demo", organ="liver", metric="dice", across="group:sex", covariates=["bmi"])
    assert view.adjusted and not view.points["measured"].equals(view.points["score"])
    cohort = study.read_included().sort_values("number").drop_duplicates("subject").set_index("number")
    people = view.points.set_index("number")
    rows = cohort.loc[people.index]
    expected = adjust_gaps(
        people["measured"].to_numpy()[:, None], rows["sex"].to_numpy(object), rows[["bmi"]], ["dice"], min_group=10
    )
    shown = people.groupby("place", observed=True)["score"].mean()
    assert shown.to_dict() == pytest.approx(expected.means.set_index("group")["mean"].to_dict(), abs=1e-12)
    assert "adjusted for BMI:" in view.message


def test_what_lies_across_is_not_adjusted_for_too(explorer):
    explorer.show(covariates=["bmi", SIZE], across="group:sex")
    assert explorer.show(across="bmi").covariates == (SIZE,)
    assert explorer.show(across="group:sex").covariates == (SIZE,)


def test_constant_covariate_is_named_as_not_adjusted_for(explorer):
    view = explorer.show(across="group:sex", covariates=["scanner"])
    assert "Not adjusted for: scanner: constant" in view.message and not view.adjusted
    assert "adjusted for scanner" not in view.message


def test_number_across_gives_a_curve(explorer):
    view = explorer.show(model="sam_demo", organ="liver", across="bmi", colour="group:sex")
    assert list(view.summary) == ["place", "estimate", "low", "high"] and view.summary["place"].is_monotonic_increasing
    assert (view.summary["low"] < view.summary["estimate"]).all()
    figure = explorer.figure()
    assert [trace.mode for trace in figure.data] == ["markers"] * 2 + ["lines"] * 3, "women, men, band and curve"
    assert figure.layout.xaxis.title.text == "BMI (kg/m²)"


def test_curve_that_cannot_be_fitted_is_said(explorer):
    assert (
        "Nothing was fitted: nearly every subject has the same value"
        in explorer.show(across=SIZE, organ="liver").message
    )


def test_group_of_few_people_is_named_and_not_drawn(tmp_path):
    study = make_study(tmp_path, cohort=report_study.make_cohort(PEOPLE, few="female"))
    explorer = Explorer(study)
    view = explorer.show(across="group:sex")
    assert set(view.points["place"]) == {"male"}
    assert view.footnote == "Not drawn (fewer than 10 people): female."
    assert "3 not drawn" in view.message
    coloured = explorer.show(across="bmi", colour="group:sex").points["colour"].value_counts().to_dict()
    assert coloured == {"male": PEOPLE - 3, OTHERS: 3}


def test_person_without_a_value_is_counted(tmp_path):
    cohort = report_study.make_cohort(PEOPLE)
    cohort.loc[4, ["bmi", "group_bmi"]] = None
    explorer = Explorer(make_study(tmp_path, cohort=cohort))
    assert explorer.show(across="bmi").message.startswith(f"{PEOPLE - 1} people, 1 not drawn")
    held = explorer.show(across="group:sex", covariates=["bmi"])
    assert "1 person is left out: a covariate is missing" in held.message
    assert len(held.points) == PEOPLE - 1


@pytest.mark.parametrize(("metric", "worst_is_low"), [("dice", True), ("hd95_mm", False)])
def test_scans_of_the_brushed_are_listed_worst_first(explorer, metric, worst_is_low):
    view = explorer.show(model="sam_demo", organ="liver", metric=metric, across="bmi")
    brushed = view.points["number"].iloc[:6].tolist()
    explorer.show(selected=brushed)
    scans = explorer.list_scans()
    assert len(scans) == 7, "one of the six has two scans"
    assert scans["score"].is_monotonic_increasing if worst_is_low else scans["score"].is_monotonic_decreasing
    worst = explorer.find_worst(1)[0]
    scores = view.points.set_index("number")["score"]
    assert scores[worst] == (scores.min() if worst_is_low else scores.max())


def test_selection_stays_as_far_as_it_is_drawn(tmp_path):
    cohort = report_study.make_cohort(PEOPLE)
    cohort.loc[4, "group_sex"] = None
    explorer = Explorer(make_study(tmp_path, cohort=cohort))
    explorer.show(across="bmi", selected=[5, 6])
    assert explorer.show(across="group:sex").selected == (6,)


def test_figure_has_units_numbers_and_symbols_beside_colours(explorer):
    explorer.show(
        model="sam_demo", organ="liver", metric="dice", across="group:sex", colour="group:bmi", selected=[1, 2]
    )
    figure = explorer.figure()
    assert figure.layout.yaxis.title.text.startswith("Dice")
    assert all("n = " in text for text in figure.layout.xaxis.ticktext)
    shown = [trace for trace in figure.data if trace.customdata is not None]
    assert len({trace.marker.symbol for trace in shown}) == len({trace.marker.color for trace in shown}) == 3
    assert all("n = " in trace.name for trace in shown)
    marked = [int(trace.customdata[place][0]) for trace in shown for place in trace.selectedpoints]
    assert sorted(marked) == [1, 2]


def test_wrong_choices_are_refused(explorer):
    with pytest.raises(ValueError, match="across must be one of group:sex, bmi"):
        explorer.show(across="height")
    with pytest.raises(ValueError, match="covariates must be one of"):
        explorer.show(covariates=["height"])
    assert explorer.view.across == "group:sex"


def test_export_is_whole_and_names_nobody(explorer, study, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHROMIUM", "no-such-browser")
    explorer.show(model="sam_demo", organ="liver", across="bmi", colour="group:sex", covariates=["sex"], selected=[1])
    exported = export_view(explorer)
    assert [path.name for path in exported.files] == [
        "sam_demo-liver-dice-by-bmi-colour-sex-held-sex.csv", "sam_demo-liver-dice-by-bmi-colour-sex-held-sex.html",
    ]  # fmt: skip
    assert "outputs/synthetic/exports" in exported.message and "camera" in exported.message
    table = pd.read_csv(exported.files[0])
    assert list(table) == [
        "number", "scans", "model", "organ", "bmi", "dice", "dice_adjusted", "held_equal", "colour_sex", "selected",
    ]  # fmt: skip
    points = explorer.view.points
    np.testing.assert_allclose(table["dice_adjusted"], points["score"])
    assert table.loc[table["selected"], "number"].tolist() == [1]
    cohort = study.read("cohort")
    planted = [*cohort["subject"], *cohort["scan"], str(study.root), "secret_place"]
    assert find_leaks(exported.files[1].read_text(encoding="utf-8"), planted) == []
    assert not [name for name in planted if name in exported.files[0].read_text(encoding="utf-8")]


def test_export_numbers_what_confounders_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHROMIUM", "no-such-browser")
    cohort = report_study.make_cohort(PEOPLE)
    cohort["scanner"] = np.where(np.arange(len(cohort)) % 3, "Dr. Oberhuber", "Dr. Quasimodo")
    explorer = Explorer(make_study(tmp_path, cohort=cohort))
    seen = explorer.show(across="group:scanner", colour="group:scanner", only={"scanner": "Dr. Oberhuber"})
    assert set(seen.points["place"]) == {"Dr. Oberhuber"}, "on the screen of whoever has the table"
    exported = export_view(explorer)
    for path in exported.files:
        text = path.read_text(encoding="utf-8")
        assert "Oberhuber" not in text and "Quasimodo" not in text and "scanner 1" in text
    assert pd.read_csv(exported.files[0])["dice"].tolist() == seen.points["measured"].tolist()
    assert set(explorer.view.points["place"]) == {"Dr. Oberhuber"}


def test_exploration_before_the_metrics_names_the_stage(study):
    study.path("metrics").unlink()
    with pytest.raises(StageError, match=r"metrics\.parquet is missing .* run 03_performance or `segfair run params/"):
        Explorer(study)


def test_other_studies_of_the_folder_can_be_picked(study, tmp_path):
    other = make_study(tmp_path, name="other")
    for name, text in (("broken", "name: 3\n"), ("unrun", yaml.safe_dump(report_study.make_parameters(name="unrun")))):
        storage.write_text(text, tmp_path / "outputs" / name / "study.yaml")
    assert list(list_studies(study)) == ["synthetic", "other"]
    widget = explore_study(study)
    widget.study.value = "other"
    assert widget.explorer.study.folder == other.folder


def test_filters_choose_who_is_looked_at(explorer):
    assert explorer.list_filters()["sex"] == ["female", "male"]
    low, high = explorer.list_filters()["bmi"]
    everyone = explorer.show(across="group:sex", model="sam_demo", organ="liver", metric="dice")
    women = explorer.show(only={"sex": "female"})
    assert set(women.points["place"]) == {"female"} and "; only sex female." in women.message
    kept = explorer.show(only={"bmi": (low, (low + high) / 2)})
    assert 0 < len(kept.points) < len(everyone.points)
    assert kept.points["number"].isin(everyone.points["number"]).all()
    assert explorer.show(organ="kidney_left").only == kept.only, "a filter stays"
    assert len(explorer.show(only={}, organ="liver").points) == len(everyone.points)
    with pytest.raises(ValueError, match="only must be one of"):
        explorer.show(only={"height": (1, 2)})
    with pytest.raises(ValueError, match="sex must be one of female, male"):
        explorer.show(only={"sex": "other"})


def test_views_are_kept_with_the_study(explorer, study):
    shown = explorer.show(across="bmi", metric="hd95_mm", only={"sex": "male", "bmi": (20, 30)}, selected=[])
    explorer.save_view("men, slim")
    explorer.show(across="group:sex", metric="dice", only={})
    explorer.save_view("sexes")
    again = Explorer(study)
    assert list(again.list_views()) == ["men, slim", "sexes"]
    assert again.show_view("men, slim") == shown
    assert len(again.view.points) == len(shown.points)
    storage.write_json({"old": {"metric": "gone"}}, study.folder / "views.json")
    with pytest.raises(SegfairError, match="the view 'old' does not fit this study any more: metric must be one of"):
        again.show_view("old")
    storage.write_text("[", study.folder / "views.json")
    assert again.list_views() == {}


def test_widget_filters_and_keeps_views(study):
    widget = explore_study(study)
    everyone = len(widget.explorer.view.points)
    widget.filters["sex"].value = "female"
    widget.filters["bmi"].value = (20, 30)
    assert widget.explorer.view.only == (("sex", "female"), ("bmi", (20, 30)))
    widget.keep.click()
    assert widget.saved.value == "give the view a name first"
    widget.view_name.value = "women"
    widget.keep.click()
    assert widget.views.value == "women"
    widget.filters["sex"].value = "all"
    widget.filters["bmi"].value = (widget.filters["bmi"].min, widget.filters["bmi"].max)
    assert len(widget.explorer.view.points) == everyone
    widget.views.value = ""
    widget.views.value = "women"
    assert widget.filters["sex"].value == "female" and widget.explorer.view.only[1] == ("bmi", (20, 30))


def brush(widget, numbers):
    """Tell the widget what the browser tells it when a box is drawn."""
    widget.plot._handle_custom_msg({"brushed": numbers}, [])


def test_widget_opens_with_the_worst_and_follows_the_brush(study):
    widget = explore_study(study)
    assert len(widget.explorer.view.selected) == 10
    brush(widget, [5, 8, 11])
    assert widget.explorer.view.selected == (5, 8, 11)
    assert "3 people selected" in widget.chosen.value
    assert {number for _, number in widget.scans.options} == {5, 8, 11}
    assert widget.scans.value == widget.cases.number.value == widget.explorer.list_scans()["number"].iloc[0]
    widget.scans.value = 8
    assert widget.cases.browser.view.number == 8
    brush(widget, [])
    assert widget.explorer.view.selected == () and "Nobody selected" in widget.chosen.value
    assert (widget.cases.model.value, widget.cases.organ.value) == ("annotator", "liver")


def test_widget_s_figure_is_the_view_s(study):
    widget = explore_study(study)
    before = widget.plot.figure
    widget.metric.value = "hd95_mm"
    assert widget.plot.figure != before and "95 % Hausdorff" in widget.plot.figure
    widget.across.value = "bmi"
    assert widget.covariates["bmi"].disabled and not widget.covariates["sex"].disabled
    before = widget.plot.figure
    widget.covariates["sex"].value = True
    assert widget.explorer.view.adjusted and widget.plot.figure != before
    assert widget.plot.figure == widget.figure().to_json()
    assert widget.plot.config["showSendToCloud"] is False


def test_widget_says_where_it_has_exported_to(study, monkeypatch):
    monkeypatch.setenv("SEGFAIR_CHROMIUM", "no-such-browser")
    widget = explore_study(study)
    widget.save.click()
    assert "outputs/synthetic/exports" in widget.saved.value and not widget.save.disabled
    assert len(list((study.folder / "exports").iterdir())) == 2
    widget.organ.value = "kidney_left"
    assert widget.saved.value == "", "the message is about a view that is no longer shown"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*kernel.*:RuntimeWarning")
def test_notebook_runs_through_papermill_and_its_copy_shows_the_view(study):
    executed = pipeline.run_notebook(study, "explore", overrides={})
    outputs = [output for cell in nbformat.read(executed, as_version=4).cells for output in cell.get("outputs", [])]
    assert any("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs)
    assert "widgets" not in nbformat.read(executed, as_version=4).metadata
    assert "Dice of annotator: liver" in executed.with_suffix(".html").read_text(encoding="utf-8")


def test_pictures_are_drawn_by_the_browser_that_is_named_sandboxed_unless_root(tmp_path, monkeypatch):
    browser = tmp_path / "browser"
    pictures = "<pre>data:image/svg+xml,%3Csvg%3E</pre><pre>data:image/png;base64,AAEC</pre>"
    told = tmp_path / "told"
    browser.write_text(f"#!/bin/sh\necho \"$@\" > {told}\necho '{pictures}'\n", encoding="utf-8")
    browser.chmod(0o755)
    monkeypatch.setenv("SEGFAIR_CHROMIUM", str(browser))
    for user, sandboxed in ((1000, True), (0, False)):
        monkeypatch.setattr("os.geteuid", lambda user=user: user)
        assert draw_pictures(go.Figure()) == {"svg": b"<svg>", "png": b"\x00\x01\x02"}
        assert ("--no-sandbox" not in told.read_text(encoding="utf-8")) is sandboxed
    monkeypatch.setenv("SEGFAIR_CHROMIUM", "no-such-browser")
    assert draw_pictures(go.Figure()) == {}
