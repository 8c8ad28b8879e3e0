"""The performance stage: rows per scan, model and organ from files, and what is missing told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from helpers import fairness, performance, storage
from helpers.compute import close_client
from helpers.errors import StageError
from helpers.study import Study, load_study
from helpers.vocabulary.measures import MEASURES

SHAPE = (7, 8, 9)
SPACING_XYZ = (1.0, 2.0, 3.0)
ORGANS = {"liver": 1, "spleen": 2}


def write_labels(path: Path, labels: np.ndarray, *, origin=(0.0, 0.0, 0.0)) -> None:
    image = sitk.GetImageFromArray(labels.astype(np.uint8))
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def draw_labels(*, liver: slice = slice(1, 5), spleen: bool = True) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[liver, 2:5, 1:4] = 1
    if spleen:
        labels[2:4, 2:5, 6:8] = 2
    return labels


@pytest.fixture
def study(tmp_path) -> Study:
    """Four scans of three people, two models; every second scan of `other` is at fault in its own
    way."""
    parameters = {
        "name": "tiny",
        "cohort": {
            "source": "table",
            "path": "people.csv",
            "organs": {name: {"labels": [label]} for name, label in ORGANS.items()},
            "attributes": {"sex": {"categories": ["female", "male"]}},
        },
        "models": [{"name": "exact", "kind": "precomputed"}, {"name": "other", "kind": "precomputed"}],
        "metrics": {"tolerance_mm": 0.5, "tolerances_mm": {"spleen": 4.0}},
        "fairness": {"metrics": ["dice"], "min_group": 2, "bootstrap": 100},
        "compute": {"workers": 0},
    }
    source = tmp_path / "params" / "tiny.yaml"
    source.parent.mkdir()
    source.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    study = load_study(source)
    scans = ["s1", "s2", "s3", "s4"]
    for scan in scans:
        write_labels(tmp_path / "masks" / f"{scan}.nii.gz", draw_labels(spleen=scan != "s4"))
        write_labels(study.prediction_path("exact", scan), draw_labels(spleen=scan != "s4"))
    write_labels(study.prediction_path("other", "s1"), draw_labels(liver=slice(1, 4)))
    write_labels(study.prediction_path("other", "s2"), draw_labels(spleen=False))
    write_labels(study.prediction_path("other", "s3"), draw_labels(), origin=(0.0, 0.0, 10.0))
    statuses = {"exact": ["ok"] * 4, "other": ["ok", "ok", "ok", "failed"]}
    for model, found in statuses.items():
        errors = ["" if status == "ok" else "the GPU was out of memory" for status in found]
        storage.write_table(
            pd.DataFrame({"scan": scans, "status": found, "error": errors}), study.inference_path(model)
        )
    cohort = pd.DataFrame(
        {
            "subject": ["a", "a", "b", "c"],
            "scan": scans,
            "number": [1, 2, 3, 4],
            "reference": [str(tmp_path / "masks" / f"{scan}.nii.gz") for scan in scans],
            "included": True,
            "reason": "",
            "group_sex": pd.Categorical(["female", "female", "male", "male"], ["female", "male"], ordered=True),
        }
    )
    storage.write_table(cohort, study.path("cohort"))
    return study


def pick(metrics: pd.DataFrame, model: str, scan: str, organ: str) -> pd.Series:
    [row] = metrics[(metrics["model"] == model) & (metrics["scan"] == scan) & (metrics["organ"] == organ)].index
    return metrics.loc[row]


def test_every_scan_model_and_organ_has_one_row(study):
    metrics = performance.measure_performance(study)
    assert len(metrics) == 4 * 2 * 2
    assert not metrics.duplicated(["scan", "model", "organ"]).any()
    assert metrics.loc[metrics["scan"] == "s2", "subject"].unique().tolist() == ["a"]
    pd.testing.assert_frame_equal(study.read("metrics"), metrics)
    exact = metrics[(metrics["model"] == "exact") & (metrics["status"] == "ok")]
    assert len(exact) == 7 and (exact["dice"] == 1).all() and (exact["boundary_error_mm"] == 0).all()


def test_numbers_by_hand(study):
    row = pick(performance.measure_performance(study), "other", "s1", "liver")
    # Reference 4 × 3 × 3 voxels of 6 mm³, prediction the first 3 × 3 × 3 of them.
    assert row["dice"] == pytest.approx(2 * 27 / (36 + 27))
    assert row["volume_ref_ml"] == pytest.approx(0.216)
    assert row["volume_error_ml"] == pytest.approx(-0.054)
    assert row["hd95_mm"] == pytest.approx(3.0), "one slice of 3 mm along z"


def test_tolerances_are_per_organ(study, tmp_path):
    # The spleen without its last slice is 3 mm off: within its own 4 mm; the liver's 0.5 mm forgive
    # nothing.
    labels = draw_labels(liver=slice(1, 4))
    labels[3][labels[3] == 2] = 0
    write_labels(study.prediction_path("other", "s1"), labels)
    metrics = performance.measure_performance(study)
    assert pick(metrics, "other", "s1", "spleen")["nsd"] == 1.0
    assert pick(metrics, "other", "s1", "liver")["nsd"] < 1.0


def test_what_is_missing_is_told_and_never_zero(study):
    metrics = performance.measure_performance(study)
    missed = pick(metrics, "other", "s2", "spleen")
    assert (missed["status"], missed["dice"]) == ("prediction_empty", 0.0) and np.isnan(missed["hd95_mm"])
    moved = metrics[(metrics["model"] == "other") & (metrics["scan"] == "s3")]
    assert set(moved["status"]) == {"failed"} and moved["error"].str.contains("the reference's grid").all()
    lost = metrics[(metrics["model"] == "other") & (metrics["scan"] == "s4")]
    assert set(lost["status"]) == {"prediction_missing"}
    assert set(lost["error"]) == {"the GPU was out of memory"}
    measures = [*(name for name in MEASURES if name != "dice_proxy"), "dice_expected"]
    assert pd.concat([moved, lost])[measures].isna().all(axis=None)
    absent = pick(metrics, "exact", "s4", "spleen")
    assert absent["status"] == "both_empty" and np.isnan(absent["dice"])
    assert (metrics.loc[metrics["model"] == "exact", "error"] == "").all()
    assert performance.list_failures(metrics).keys() == {"scan 003, other", "scan 004, other"}


def test_statuses_are_counted_with_their_meaning(study):
    counts = performance.count_statuses(performance.measure_performance(study)).set_index("status")
    assert counts["exact"].to_dict() == {
        "ok": 7,
        "prediction_empty": 0,
        "both_empty": 1,
        "prediction_missing": 0,
        "failed": 0,
    }
    assert counts["other"].to_dict() == {
        "ok": 3,
        "prediction_empty": 1,
        "both_empty": 0,
        "prediction_missing": 2,
        "failed": 2,
    }
    assert counts["meaning"].str.len().min() > 10


def test_an_unreadable_reference_fails_its_own_scan_only(study, tmp_path):
    (tmp_path / "masks" / "s1.nii.gz").write_bytes(b"no image")
    metrics = performance.measure_performance(study)
    assert set(metrics.loc[metrics["scan"] == "s1", "status"]) == {"failed"}
    assert metrics.loc[metrics["scan"] == "s1", "error"].str.len().min() > 10
    assert pick(metrics, "exact", "s2", "liver")["dice"] == 1.0


def test_a_prediction_deleted_after_inference_is_missing(study):
    study.prediction_path("exact", "s1").unlink()
    metrics = performance.measure_performance(study)
    row = pick(metrics, "exact", "s1", "liver")
    assert row["status"] == "prediction_missing" and "run 02_inference" in row["error"]


def test_without_inference_the_stage_to_run_is_named(study):
    study.inference_path("other").unlink()
    with pytest.raises(StageError, match="02_inference"):
        performance.measure_performance(study)


def test_expected_dice_by_hand():
    # Person a has two scans with 1 and 3 mm, b one with 4 mm: the cohort's mean is (2 + 4) / 2 = 3
    # mm, not 8/3.
    metrics = pd.DataFrame(
        {
            "subject": ["a", "a", "b", "c", "d"],
            "model": "m",
            "organ": "liver",
            "boundary_error_mm": [1.0, 3.0, 4.0, np.nan, np.nan],
            "volume_ref_ml": [1.0, 1.0, 0.5, 1.0, 0.0],
            "surface_ref_cm2": [2.0, 2.0, 2.0, 20.0, np.nan],
            "dice": [0.9, 0.7, 0.2, 0.0, np.nan],
        }
    )
    found = performance.add_expected_dice(metrics)["dice_expected"].tolist()
    # 1 − 3 mm · 200 mm² / (2 · 1000 mm³); half the volume costs twice as much; a missed organ is so
    # thin that 0 is the least.
    assert found[:4] == pytest.approx([0.7, 0.7, 0.4, 0.0])
    assert np.isnan(found[4]), "an organ that is not there is expected to score nothing"


def test_equal_boundary_error_makes_expected_and_real_dice_equal(study):
    metrics = performance.measure_performance(study)
    exact = metrics[(metrics["model"] == "exact") & (metrics["status"] == "ok")]
    assert exact["dice_expected"].tolist() == exact["dice"].tolist()


def test_the_audit_is_written(study):
    performance.measure_performance(study)
    found = performance.write_audit(study)
    assert study.read("groups").columns.tolist() == found.groups.columns.tolist()
    disparity = study.read("disparity")
    # Two models and their mean, two organs and both.
    assert len(disparity) == 3 * 3 and "excess_gap" in disparity
    assert (study.folder / "fairness" / "notes.json").read_text(encoding="utf-8").count("several scans") == 1
    people = performance.load_people(study, "dice", "sex")
    assert {"number", "scans", "dice", "group_sex"} <= set(people) and "all" in set(people["organ"])


def test_people_of_small_groups_have_no_group(study):
    performance.measure_performance(study)
    for smallest in (2, 3):
        settings = study.parameters.fairness.model_copy(update={"min_group": smallest})
        study.parameters = study.parameters.model_copy(update={"fairness": settings})
        people = performance.load_people(study, "dice", "sex")
        sizes = people[people["dice"].notna()].groupby(["model", "organ", "group_sex"], observed=True).size()
        assert (sizes >= smallest).all()
    whole, _ = fairness.average_subjects(study.read("metrics"), study.read_included(), ["sex"], ["dice"])
    assert len(people) == len(whole) and people["group_sex"].isna().sum() > whole["group_sex"].isna().sum()


def test_every_table_of_the_audit_is_read_as_it_was_written(study):
    performance.measure_performance(study)
    found = performance.write_audit(study)
    for name in performance.AUDIT_TABLES:
        table = getattr(found, name)
        again = study.read(name)
        assert again.columns.tolist() == table.columns.tolist()
        if len(table):
            pd.testing.assert_frame_equal(again, table, check_dtype=False)
            assert again.isna().sum().to_dict() == table.isna().sum().to_dict(), "empty words stay words"
    disparity = study.read("disparity")
    assert (disparity["worst_group"] == "").any() and "not compared" in set(disparity["verdict"])


def test_a_group_of_an_odd_name_keeps_it(study):
    cohort = study.read("cohort")
    names = np.where(cohort["group_sex"] == "female", "1", "NA")
    storage.write_table(cohort.assign(group_sex=pd.Categorical(names, ["1", "NA"])), study.path("cohort"))
    performance.measure_performance(study)
    performance.write_audit(study)
    assert set(study.read("groups")["group"]) == {"1", "NA"}


def test_without_an_audit_the_stage_to_run_is_named(study):
    with pytest.raises(StageError, match="03_performance"):
        study.read("tests")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", r"ignore:\s*Port:UserWarning")
def test_work_on_local_processes_gives_the_same(study):
    here = performance.measure_performance(study)
    try:
        there = performance.measure_performance(load_study(study.source, {"compute.workers": 2}))
    finally:
        close_client()
    pd.testing.assert_frame_equal(here, there)


@pytest.fixture
def annotated(study) -> Study:
    """The same study with its two models as people; `other` is at fault as before."""
    models = [{"name": name, "kind": "precomputed", "annotator": True} for name in ("exact", "other")]
    return load_study(
        study.source,
        {
            "models": models,
            "fairness.metrics": ["dice", "precision"],
            "fairness.margin": {"dice": 0.02, "precision": 0.02},
        },
    )


def test_each_two_annotators_are_compared_organ_by_organ(annotated):
    performance.measure_performance(annotated)
    pairs = annotated.read("annotators").set_index(["scan", "organ"])
    assert len(pairs) == 4 * 2
    assert set(pairs["annotator_a"]) == {"exact"} and set(pairs["annotator_b"]) == {"other"}
    # As with the reference, which `exact` is: 36 voxels and 27 of them.
    assert pairs.loc[("s1", "liver"), "dice"] == pytest.approx(2 * 27 / (36 + 27))
    missed = pairs.loc[("s2", "spleen")]
    assert (missed["status"], missed["dice"]) == ("one_empty", 0.0) and np.isnan(missed["hd95_mm"])
    absent = pairs.loc["s3"]
    assert set(absent["status"]) == {"prediction_missing"} and absent["error"].str.contains("s grid").all()
    assert absent["dice"].isna().all() and pairs.loc["s4", "error"].eq("the GPU was out of memory").all()


def test_an_unreadable_reference_fails_its_annotators_too(annotated, tmp_path):
    (tmp_path / "masks" / "s1.nii.gz").write_bytes(b"no image")
    performance.measure_performance(annotated)
    pairs = annotated.read("annotators").set_index("scan")
    assert set(pairs.loc["s1", "status"]) == {"failed"} and pairs.loc["s1", "dice"].isna().all()
    assert set(pairs.loc["s2", "status"]) == {"ok", "one_empty"}


def test_agreement_is_written_per_group(annotated):
    performance.measure_performance(annotated)
    found = performance.write_agreement(annotated)
    groups = annotated.read("agreement_groups")
    pd.testing.assert_frame_equal(groups, found.groups, check_dtype=False)
    liver = groups[(groups["organ"] == "liver") & (groups["group"] == "female")]
    assert set(groups["metric"]) == {"dice"}, "precision needs a reference"
    assert liver["n"].tolist() == [1] and liver["suppressed"].all(), "one woman with two scans, shown to nobody"
    assert annotated.read("agreement").empty is False and annotated.read("against_agreement").empty


def test_without_annotators_and_repeated_prompts_agreement_has_no_rows(study):
    storage.write_table(pd.DataFrame({"scan": ["s1"]}), study.path("annotators"))
    performance.measure_performance(study)
    assert not study.path("annotators").exists(), "of a former run with other parameters"
    found = performance.write_agreement(study)
    assert found.disparity.empty and found.groups.empty and found.against.empty
    assert study.read("agreement").columns.tolist() == found.disparity.columns.tolist()


def test_repeated_prompts_are_compared_per_group(study):
    prompts = {"type": "box", "draws": 2}
    models = [{"name": "exact", "kind": "precomputed"}, {"name": "other", "kind": "prompt_only", "prompt": prompts}]
    drawn = load_study(study.source, {"models": models})
    for name, agreement in (("exact", np.nan), ("other", 0.9)):
        table = pd.DataFrame({"model": name, "scan": ["s1", "s3", "s4"], "organ": "liver", "agreement": agreement})
        table["not_drawn"] = ""
        storage.write_table(table, drawn.inference_path(name).with_name("organs.parquet"))
    performance.measure_performance(drawn)
    groups = performance.write_agreement(drawn).groups
    assert set(groups["kind"]) == {"prompts"} and set(groups["model"]) == {"other"}
    assert groups.set_index("group")["n"].to_dict() == {"female": 1, "male": 2}
    assert groups.set_index("group")["mean"]["male"] == pytest.approx(0.9)


def test_what_became_of_empty_masks_is_counted_per_organ(study):
    performance.measure_performance(study)
    counts = study.read("statuses").set_index(["model", "organ", "status"])
    assert counts.loc[("other", "spleen", "prediction_empty"), "scans"] == 1
    assert counts.loc[("other", "spleen", "prediction_empty"), "share"] == pytest.approx(0.25)
    said = counts.loc[("other", "spleen", "prediction_empty"), "measures"]
    assert "dice = 0" in said and "volume_ref_ml measured" in said and "hd95_mm" not in said
    assert counts.loc[("exact", "liver", "ok"), ["scans", "measures"]].tolist() == [4, "all"]
    assert counts.groupby(["model", "organ"])["scans"].sum().eq(4).all()
    assert counts.loc[("other", "liver", "failed"), "measures"] == "none"
