"""A segmenter × a cohort: resumable, failures kept apart, predictions on the reference's own
grid."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from helpers import compute, inference, models, performance, provenance, storage, volumes
from helpers.compute import CaseFailure, close_client, count_workers
from helpers.errors import SegfairError, StageError
from helpers.inference import montage, stage
from helpers.study import Study, load_study

SPACING = (2.0, 2.0, 5.0)  # (x, y, z)
SHAPE = (7, 24, 30)  # (z, y, x)


def draw_labels() -> np.ndarray:
    """Two organs in axial slices 1…5: a 10×8 block (1) and, to its left, a 6×6 block (2)."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:6, 6:14, 3:13] = 1
    labels[1:6, 8:14, 20:26] = 2
    return labels


def write_image(array: np.ndarray, path: Path, *, code: str = "LPS") -> None:
    """Write an axial array, stored in another axis order where asked."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin((-30.0, -20.0, 100.0))
    volumes.write_volume(sitk.DICOMOrient(image, code), path)


MakeStudy = Callable[..., Study]


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """Write three scans (the second stored in another axis order), their cohort table and a
    parameter file."""
    data = tmp_path / "data"
    rng = np.random.default_rng(1)
    rows = []
    for number, (scan, code) in enumerate([("a1", "LPS"), ("b2", "SAR"), ("c3", "LPS")], start=1):
        labels = draw_labels()
        write_image(labels, data / f"{scan}_mask.nii.gz", code=code)
        image = np.where(labels > 0, 100, -100) + rng.normal(0, 5, SHAPE)
        write_image(image.astype(np.float32), data / f"{scan}_image.nii.gz", code=code)
        rows.append(
            {
                "subject": f"p{number}", "scan": scan, "number": number, "sex": "female", "age": 50.0, "bmi": 22.0,
                "modality": "CT", "reference": str(data / f"{scan}_mask.nii.gz"),
                "image": str(data / f"{scan}_image.nii.gz"), "included": True, "reason": "", "note": "",
            }
        )  # fmt: skip
    rows.append({**rows[0], "scan": "d4", "number": 4, "included": False, "reason": "left out"})
    (data / "participants.tsv").write_text("scan\n", encoding="utf-8")

    def make(models: list[dict], **overrides: object) -> Study:
        parameters = {
            "name": "small",
            "seed": 7,
            "cohort": {
                "source": "table",
                "path": str(data / "participants.tsv"),
                "organs": {"liver": {"labels": [1]}, "spleen": {"labels": [2]}},
                "attributes": {"sex": {"categories": ["female", "male"]}},
            },
            "models": models,
            "compute": {"workers": 0, "device": "cpu"},
        }
        path = tmp_path / "params" / "small.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
        study = load_study(path, overrides)
        study.folder.mkdir(parents=True, exist_ok=True)
        if not study.path("cohort").exists():
            pd.DataFrame(rows).to_parquet(study.path("cohort"))
        return study

    return make


ELLIPSE = {"name": "ellipse", "kind": "prompt_only", "prompt": {"jitter": 0.0}}
DEMO = {"name": "demo", "kind": "sam_demo"}
MASKS = {"name": "masks", "kind": "precomputed", "path": "masks/{scan}.nii.gz"}


def read_labels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(volumes.to_axial(sitk.ReadImage(str(path))))


def stamp_files(study: Study, model: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in study.prediction_path(model, "x").parent.glob("*.nii.gz")}


def test_predictions_lie_on_the_references_own_grid(make_study: MakeStudy) -> None:
    study = make_study([ELLIPSE])
    table = inference.run_inference(study)
    assert table["status"].tolist() == ["ok"] * 3
    assert table["scan"].tolist() == ["a1", "b2", "c3"]  # the excluded scan is not run
    cohort = study.read_included()
    for row in cohort.itertuples():
        path = study.prediction_path("ellipse", row.scan)
        assert not volumes.read_grid(path).differences(volumes.read_grid(Path(row.reference)))
        assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkUInt8
    # The same anatomy stored in another axis order gives the same mask, voxel by voxel in the body.
    np.testing.assert_array_equal(
        read_labels(study.prediction_path("ellipse", "a1")), read_labels(study.prediction_path("ellipse", "b2"))
    )


def test_the_table_counts_slices_and_prompts(make_study: MakeStudy) -> None:
    study = make_study([ELLIPSE])
    table = inference.run_inference(study)
    assert table["slices"].tolist() == [5, 5, 5]
    assert table["prompts"].tolist() == [10, 10, 10]  # two organs in five slices
    assert table["dropped"].tolist() == [0, 0, 0]
    large = make_study([{**ELLIPSE, "prompt": {"jitter": 0.0, "min_area_mm2": 200.0}}])
    table = inference.run_inference(large)  # the smaller organ has 36 pixels of 4 mm² in each slice
    assert table["prompts"].tolist() == [5, 5, 5]
    assert table["dropped"].tolist() == [5, 5, 5]
    assert 2 not in read_labels(large.prediction_path("ellipse", "a1"))


def test_a_second_run_does_nothing(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study([ELLIPSE, DEMO])
    first = inference.run_inference(study)
    before = stamp_files(study, "ellipse"), stamp_files(study, "demo")
    monkeypatch.setattr(inference.stage, "_segment_scan", lambda job: pytest.fail("segmented again"))
    second = inference.run_inference(study)
    assert (stamp_files(study, "ellipse"), stamp_files(study, "demo")) == before
    assert second["reused"].all()
    assert not first["reused"].any()
    pd.testing.assert_frame_equal(first.drop(columns="reused"), second.drop(columns="reused"))


def test_a_lost_prediction_is_done_again_alone_with_the_same_bytes(make_study: MakeStudy) -> None:
    study = make_study([DEMO])
    inference.run_inference(study)
    before = stamp_files(study, "demo")
    lost = study.prediction_path("demo", "b2")
    content = lost.read_bytes()
    lost.unlink()
    table = inference.run_inference(study)
    assert table.set_index("scan")["reused"].to_dict() == {"a1": True, "b2": False, "c3": True}
    after = stamp_files(study, "demo")
    assert {name for name in before if before[name] != after[name]} == {"b2.nii.gz"}
    assert lost.read_bytes() == content


def test_a_scan_without_its_record_or_with_half_a_file_is_done_again(make_study: MakeStudy) -> None:
    study = make_study([ELLIPSE])
    inference.run_inference(study)
    content = study.prediction_path("ellipse", "a1").read_bytes()
    study.prediction_path("ellipse", "a1").write_bytes(content[: len(content) // 2])
    study.prediction_path("ellipse", "b2").with_name("b2.json").unlink()
    study.prediction_path("ellipse", "c3").with_name("c3.json").write_text('{"scan": "c3", "finger', encoding="utf-8")
    assert inference.run_inference(study)["reused"].tolist() == [False, False, False]
    assert study.prediction_path("ellipse", "a1").read_bytes() == content


def test_a_prediction_of_as_many_other_bytes_is_done_again_and_a_touched_one_is_kept(make_study: MakeStudy) -> None:
    study = make_study([ELLIPSE])
    inference.run_inference(study)
    changed, touched = (study.prediction_path("ellipse", scan) for scan in ("a1", "b2"))
    whole = changed.read_bytes()
    changed.write_bytes(whole[:-1] + b"~")
    touched.touch()
    table = inference.run_inference(study)
    assert table.set_index("scan")["reused"].to_dict() == {"a1": False, "b2": True, "c3": True}
    assert changed.read_bytes() == whole


def test_the_record_is_gone_while_its_prediction_is_replaced(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between the two writes must not leave a former record beside a new mask."""
    study = make_study([ELLIPSE])
    inference.run_inference(study)
    seen = []
    write = volumes.write_volume

    def watch(image: sitk.Image, path: Path) -> None:
        seen.append(path.with_name(path.name.replace(".nii.gz", ".json")).exists())
        write(image, path)

    monkeypatch.setattr(volumes, "write_volume", watch)
    inference.run_inference(make_study([{**ELLIPSE, "prompt": {"jitter": 0.1}}]))
    assert seen == [False, False, False]


def test_a_changed_prompt_redoes_that_model_alone(make_study: MakeStudy) -> None:
    inference.run_inference(make_study([ELLIPSE, {**ELLIPSE, "name": "other"}]))
    study = make_study([{**ELLIPSE, "prompt": {"jitter": 0.2}}, {**ELLIPSE, "name": "other"}])
    table = inference.run_inference(study)
    assert table.groupby("model")["reused"].sum().to_dict() == {"ellipse": 0, "other": 3}


def pack_anew(path: Path) -> None:
    """Give a file other bytes of the same voxels."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=1))


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ("seed", {"ellipse": 0, "masks": 3}),
        ("image", {"ellipse": 3, "masks": 3}),
        ("reference", {"ellipse": 2, "masks": 2}),
        ("mask", {"ellipse": 3, "masks": 2}),
        ("organs", {"ellipse": 0, "masks": 0}),
    ],
)
def test_a_change_redoes_exactly_what_depends_on_it(
    make_study: MakeStudy, tmp_path: Path, change: str, reused: dict[str, int]
) -> None:
    for scan in ("a1", "b2", "c3"):
        write_image(draw_labels(), tmp_path / "data" / "masks" / f"{scan}.nii.gz")
    models = [ELLIPSE, MASKS]
    inference.run_inference(make_study(models))
    overrides: dict[str, object] = {}
    if change == "seed":
        overrides["seed"] = 8
    elif change == "organs":
        overrides["cohort.organs.spleen.labels"] = [3]
    else:
        name = {"image": "a1_image", "reference": "a1_mask", "mask": "masks/a1"}[change]
        pack_anew(tmp_path / "data" / f"{name}.nii.gz")
    table = inference.run_inference(make_study(models, **overrides))
    assert table.groupby("model")["reused"].sum().to_dict() == reused


def test_a_changed_image_redoes_a_model_that_looks_at_it(make_study: MakeStudy, tmp_path: Path) -> None:
    inference.run_inference(make_study([DEMO]))
    os.utime(tmp_path / "data" / "b2_image.nii.gz", ns=(1, 1))  # its bytes are what they were
    pack_anew(tmp_path / "data" / "a1_image.nii.gz")
    assert inference.run_inference(make_study([DEMO]))["reused"].tolist() == [False, True, True]


def test_a_failing_scan_is_recorded_and_the_others_finish(make_study: MakeStudy, tmp_path: Path) -> None:
    inference.run_inference(make_study([DEMO]))
    broken = tmp_path / "data" / "b2_image.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    study = make_study([DEMO, ELLIPSE])
    table = inference.run_inference(study)
    demo = table[table["model"] == "demo"].set_index("scan")
    assert demo["status"].to_dict() == {"a1": "ok", "b2": "failed", "c3": "ok"}
    assert "b2_image.nii.gz" in demo.loc["b2", "error"]
    assert np.isnan(demo.loc["b2", "seconds"])
    assert (table.loc[table["model"] == "ellipse", "status"] == "ok").all()
    # The mask made from the former image is gone, so nothing can take it for a result.
    assert not study.prediction_path("demo", "b2").exists()
    assert inference.list_failures(table) == {"demo / b2": demo.loc["b2", "error"]}
    kept = pd.read_parquet(study.inference_path("demo"))
    assert kept["status"].tolist() == ["ok", "failed", "ok"]


def test_a_failed_scan_is_tried_again(make_study: MakeStudy, tmp_path: Path) -> None:
    for scan in ("a1", "c3"):
        write_image(draw_labels(), tmp_path / "data" / "masks" / f"{scan}.nii.gz")
    study = make_study([MASKS])
    assert inference.run_inference(study)["status"].tolist() == ["ok", "failed", "ok"]
    write_image(draw_labels(), tmp_path / "data" / "masks" / "b2.nii.gz")
    table = inference.run_inference(study)
    assert table["status"].tolist() == ["ok"] * 3
    assert table["reused"].tolist() == [True, False, True]


def test_scans_without_images_fail_with_one_sentence_where_a_model_needs_them(make_study: MakeStudy) -> None:
    study = make_study([DEMO, ELLIPSE])
    cohort = study.read("cohort")
    cohort["image"] = pd.NA
    cohort.to_parquet(study.path("cohort"))
    table = inference.run_inference(study)
    demo = table[table["model"] == "demo"]
    assert (demo["status"] == "failed").all()
    assert demo["error"].str.contains("needs an image").all()
    assert not demo["error"].str.contains("\n").any()
    assert (table.loc[table["model"] == "ellipse", "status"] == "ok").all()


def test_everything_wrong_with_the_models_is_said_before_anything_runs(make_study: MakeStudy) -> None:
    study = make_study(
        [
            {"name": "x", "kind": "nonesuch"},
            {**MASKS, "path": None},
            {"name": "s", "kind": "sam", "checkpoint": "none.pth"},
        ]
    )
    with pytest.raises(SegfairError) as caught:
        inference.run_inference(study)
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "models.x.kind", "models.masks.path", "models.s.checkpoint:",
    ]  # fmt: skip
    assert not (study.folder / "predictions").exists()


def test_every_model_gets_the_same_boxes(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list] = {}

    class Listener:
        device, precision = "cpu", ""

        def __init__(self, name: str) -> None:
            self.name = name

        def segment(self, case: models.ScanCase) -> models.Segmentation:
            corners = {organ: boxes.corners.tolist() for organ, boxes in case.prompts.items()}
            seen.setdefault(self.name, []).append(corners)
            return models.Segmentation(np.zeros(case.shape, np.uint8), 0, 0)

    monkeypatch.setattr(models, "load_segmenter", lambda spec: Listener(spec.name))
    inference.run_inference(make_study([{"name": "one", "kind": "prompt_only"}, {"name": "two", "kind": "sam_demo"}]))
    assert seen["one"] == seen["two"]
    assert seen["one"][0] != seen["one"][2]  # but not two scans of the same anatomy
    assert seen["one"][0]["liver"]


@pytest.mark.slow
def test_local_processes_give_the_same_predictions(make_study: MakeStudy) -> None:
    study = make_study([{**DEMO, "name": "here"}])
    inference.run_inference(study)
    elsewhere = make_study([{**DEMO, "name": "there"}], **{"compute.workers": 2})
    try:
        table = inference.run_inference(elsewhere)
    finally:
        close_client()
    assert table["status"].tolist() == ["ok"] * 3
    for scan in ("a1", "b2", "c3"):
        np.testing.assert_array_equal(
            read_labels(study.prediction_path("here", scan)), read_labels(study.prediction_path("there", scan))
        )


@pytest.mark.parametrize(
    ("device", "models_named", "workers"),
    [
        ("auto", {"ellipse": (16, [], 1), "demo": (2, ["0", "1"], 8)}, "cores"),
        ("cpu", {"ellipse": (16, [], 1), "demo": (16, [], 1)}, "cores"),
        ("cuda:1", {"ellipse": (16, [], 1), "demo": (1, [], 1)}, "cores"),
        ("auto", {"ellipse": (3, [], 1), "demo": (3, ["0", "1"], 5)}, 3),
    ],
)
def test_a_card_gets_one_process_and_models_without_one_all_cores(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, device: str, models_named: dict, workers: object
) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # two cards stand in the machine
    monkeypatch.setattr(compute, "count_cores", lambda: 16)
    monkeypatch.setattr(stage, "count_cores", lambda: 16)
    monkeypatch.setattr(stage, "read_contents", lambda *_: None)  # else 16 processes start, to read six small files
    seen = {}

    def map_cases(function, jobs, *, compute, cards, label, **_):
        seen[label] = (count_workers(compute, cards), list(cards), jobs[0].spec.threads)
        return [CaseFailure(str(job.number), "not run") for job in jobs]

    monkeypatch.setattr(stage, "map_cases", map_cases)
    study = make_study([ELLIPSE, DEMO], **{"compute.workers": workers, "compute.device": device})
    inference.run_inference(study)
    assert seen == models_named


@pytest.mark.parametrize(
    ("visible", "count", "cards"),
    [(None, 2, ["0", "1"]), ("3, 5", 2, ["3", "5"]), ("MIG-1,x", 1, ["MIG-1"]), ("-1", 0, []), ("", 0, [])],
)
def test_cards_are_those_that_this_process_sees(monkeypatch, visible, count, cards) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert models.list_cards("auto") == models.list_cards("cuda") == cards
    assert models.list_cards("cpu") == models.list_cards("cuda:1") == []


def test_hash_checkpoints_names_models_with_weights(make_study: MakeStudy) -> None:
    study = make_study([DEMO, ELLIPSE])
    hashes = inference.hash_checkpoints(study)
    assert list(hashes) == ["demo"]
    table = inference.run_inference(study)
    assert set(table.loc[table["model"] == "demo", "checkpoint_sha256"]) == {hashes["demo"]}
    assert len(hashes["demo"]) == 64


def test_summary_by_hand() -> None:
    table = pd.DataFrame(
        {
            "model": ["m", "m", "m", "f"],
            "scan": ["a", "b", "c", "a"],
            "status": ["ok", "ok", "failed", "failed"],
            "seconds": [1.0, 3.0, np.nan, np.nan],
            "slices": pd.array([10, 20, pd.NA, pd.NA], "Int64"),
            "prompts": pd.array([5, 6, pd.NA, pd.NA], "Int64"),
            "dropped": pd.array([0, 1, pd.NA, pd.NA], "Int64"),
            "device": ["cpu", "cpu", "", ""],
            "precision": ["float32", "float32", "", ""],
            "reused": [True, False, False, False],
        }
    )
    first, second = inference.summarise_inference(table).to_dict("records")
    assert first == {
        "model": "m", "scans": 3, "ok": 2, "failed": 1, "reused": 1, "prompts": 11, "dropped": 1,
        "seconds_per_scan": 2.0, "slices_per_second": 7.5, "device": "cpu", "precision": "float32",
    }  # fmt: skip
    assert (second["ok"], second["failed"]) == (0, 1)
    assert np.isnan(second["seconds_per_scan"])
    assert np.isnan(second["slices_per_second"])


def test_reading_before_running_names_the_stage(make_study: MakeStudy) -> None:
    with pytest.raises(StageError, match="run 02_inference"):
        inference.read_organs(make_study([ELLIPSE]))


def test_progress_and_records_hold_no_paths(
    make_study: MakeStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study([ELLIPSE, {**MASKS, "name": "gone"}])
    inference.run_inference(study)
    shown = capsys.readouterr().out
    assert "scan 001" in shown
    assert str(tmp_path) not in shown
    record = json.loads(study.prediction_path("ellipse", "a1").with_name("a1.json").read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(record)


def note_dice(study: Study, model: str, dice: dict[str, float]) -> None:
    """Overwrite what 02 noted, so that the order of scans is known."""
    path = study.inference_path(model).with_name("organs.parquet")
    table = pd.read_parquet(path)
    table["dice"] = table["scan"].map(dice)
    table.to_parquet(path)


def test_montage_shows_worst_median_and_best_with_outlines(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(montage, "_PANEL_MARGIN_MM", 4.0)
    study = make_study([ELLIPSE])
    inference.run_inference(study)
    note_dice(study, "ellipse", {"a1": 0.9, "b2": 0.2, "c3": 0.5})
    panels = inference.load_montage(study)[:3]
    assert [(panel.number, panel.label, panel.dice) for panel in panels] == [
        (2, "worst", 0.2), (3, "median", 0.5), (1, "best", 0.9),
    ]  # fmt: skip
    # The organ spans 10×8 pixels of 2 mm with 2 pixels around it: its outline runs from 4 mm to 24
    # mm in x.
    panel = panels[0]
    assert panel.image.shape == (12, 14)
    outline = panel.reference[0]
    np.testing.assert_allclose(outline.min(axis=0), [4.0, 4.0])
    np.testing.assert_allclose(outline.max(axis=0), [24.0, 20.0])
    np.testing.assert_array_equal(outline[0], outline[-1])
    assert len(panel.prediction) == 1


def test_montage_of_all_organs_without_images_or_with_a_damaged_mask(make_study: MakeStudy) -> None:
    study = make_study([ELLIPSE])
    inference.run_inference(study)
    cohort = study.read("cohort")
    cohort["image"] = pd.NA
    cohort.to_parquet(study.path("cohort"))
    note_dice(study, "ellipse", {"a1": 0.9, "b2": 0.2, "c3": 0.5})
    panels = inference.load_montage(study)
    assert [(panel.organ, panel.number) for panel in panels] == [
        (organ, number) for organ in ("liver", "spleen") for number in (2, 3, 1)
    ]
    assert set(np.unique(panels[0].image)) == {128}
    study.prediction_path("ellipse", "c3").write_bytes(b"damaged")
    assert [panel.number for panel in inference.load_montage(study)] == [2, 1, 2, 1]


def test_planes_run_through_the_greatest_error_as_radiologists_look_at_them(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that misses the top of the left organ: they meet there, head up."""
    monkeypatch.setattr(montage, "_PLANE_MARGIN_MM", 4.0)
    study = make_study([ELLIPSE])
    labels, row = draw_labels(), study.read("cohort").set_index("scan").loc["b2"]
    labels[4:6, :, 20:26] = 0
    path = study.folder / "model.nii.gz"
    write_image(labels, path)
    axial, coronal, sagittal = inference.load_planes(row, path, "spleen", study.parameters)
    assert [plane.name for plane in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    # 6 × 6 × 5 voxels of 2 × 2 × 5 mm with a margin of 2, 2 and 1: no more is shown.
    assert (axial.image.shape, coronal.image.shape, sagittal.image.shape) == ((10, 10), (7, 10), (7, 10))
    assert axial.spacing_mm == (2.0, 2.0) and coronal.spacing_mm == (5.0, 2.0)
    assert not axial.prediction and axial.reference, "the axial slice is one that the model misses"
    reference, prediction = coronal.reference[0][:, 1], coronal.prediction[0][:, 1]
    np.testing.assert_allclose([reference.min(), reference.max()], [5.0, 30.0])
    np.testing.assert_allclose([prediction.min(), prediction.max()], [15.0, 30.0], err_msg="what is missed is above")
    assert coronal.image[3].astype(int).mean() > coronal.image[0].astype(int).mean(), "the organ is brighter"
    labels[:] = 0
    write_image(labels, path)
    assert not inference.load_planes(row, path, "spleen", study.parameters)[1].prediction


def test_organs_are_noted_with_their_dice_and_the_agreement_of_draws(make_study: MakeStudy) -> None:
    study = make_study([{**ELLIPSE, "prompt": {"jitter": 0.3, "draws": 3}}, {**ELLIPSE, "name": "once"}])
    table = inference.run_inference(study)
    assert table.groupby("model")["prompts"].first().to_dict() == {"ellipse": 30, "once": 10}
    noted = inference.read_organs(study).set_index(["model", "scan", "organ"])
    reference = draw_labels()
    drawn = read_labels(study.prediction_path("ellipse", "a1"))
    overlap = 2 * ((reference == 1) & (drawn == 1)).sum() / ((reference == 1).sum() + (drawn == 1).sum())
    row = noted.loc[("ellipse", "a1", "liver")]
    assert row["dice"] == pytest.approx(overlap, abs=1e-6)
    assert row["prompts"] == 5
    assert 0.3 < row["agreement"] < 1
    assert noted.loc["once", "agreement"].isna().all()
    # The first draw is the one that a study of one draw has.
    alone = make_study([{**ELLIPSE, "prompt": {"jitter": 0.3}}])
    inference.run_inference(alone)
    np.testing.assert_array_equal(read_labels(alone.prediction_path("ellipse", "a1")), drawn)


def test_sensitivity_is_averaged_per_person_and_small_groups_are_left_out() -> None:
    organs = pd.DataFrame(
        {
            "model": "m", "organ": "liver", "scan": ["a", "b", "c", "d", "e"],
            "agreement": [0.5, 0.7, 0.9, 1.0, np.nan],
        }
    )  # fmt: skip
    cohort = pd.DataFrame(
        {
            "scan": ["a", "b", "c", "d", "e"], "subject": ["p", "p", "q", "r", "s"],
            "group_sex": ["f", "f", "f", "m", "f"],
        }
    )  # fmt: skip
    found = inference.summarise_sensitivity(organs, cohort, min_group=2)
    (row,) = found.to_dict("records")
    assert (row["attribute"], row["group"], row["n"]) == ("sex", "f", 2)
    assert row["mean"] == pytest.approx((0.6 + 0.9) / 2)
    assert row["sd"] == pytest.approx(0.3 / np.sqrt(2))
    assert inference.summarise_sensitivity(organs.iloc[4:], cohort, min_group=1).empty


def test_two_processes_on_one_study_take_turns(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study([DEMO])
    script = (
        "import sys\n"
        "from helpers import inference\n"
        "from helpers.study import load_study\n"
        f"table = inference.run_inference(load_study({str(study.source)!r}))\n"
        "sys.stdout.write('reused %d' % table['reused'].sum())\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, encoding="utf-8") for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=300)[0].split()[-1] for process in both)
    assert said == ["0", "3"]
    assert not list(study.inference_path("demo").parent.glob("*.tmp*"))
    assert inference.run_inference(study)["reused"].all()


def test_a_killed_run_keeps_finished_scans_and_ends_as_an_unbroken_one(make_study: MakeStudy, tmp_path: Path) -> None:
    whole = make_study([{**ELLIPSE, "name": "whole"}])
    inference.run_inference(whole)
    study = make_study([{**ELLIPSE, "name": "whole"}, ELLIPSE])
    script = (
        "import os, signal\n"
        "from helpers import inference, storage, volumes\n"
        "from helpers.study import load_study\n"
        "write = volumes.write_volume\n"
        "def write_and_die(image, path):\n"
        "    if path.name == 'b2.nii.gz':\n"
        "        with storage.write_atomically(path) as temporary:\n"
        "            temporary.write_bytes(b'half a file')\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(image, path)\n"
        "volumes.write_volume = write_and_die\n"
        f"inference.run_inference(load_study({str(study.source)!r}))\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert finished.returncode == -signal.SIGKILL
    assert study.prediction_path("ellipse", "a1").exists()
    assert not study.prediction_path("ellipse", "b2").exists()
    table = inference.run_inference(study)
    assert table.loc[table["model"] == "ellipse", "reused"].tolist() == [True, False, False]
    for scan in ("a1", "b2", "c3"):
        # Files hold no time stamp, so they are equal byte by byte.
        one, other = (study.prediction_path(model, scan) for model in ("whole", "ellipse"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_kills_at_any_moment_cost_nothing_but_time(make_study: MakeStudy) -> None:
    whole = make_study([{**DEMO, "name": "whole"}])
    inference.run_inference(whole)
    study = make_study([{**DEMO, "name": "whole"}, DEMO])
    script = (
        "import sys, time\n"
        "from helpers import inference\n"
        "from helpers.study import load_study\n"
        f"study = load_study({str(study.source)!r})\n"
        "inference.run_inference(study)\n"
    )
    rng = np.random.default_rng(4)
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    usual = time.monotonic() - began
    folder = study.inference_path("demo").parent
    shutil.rmtree(folder)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(usual * rng.uniform(0.5, 1.0))  # importing torch takes the first half
        process.kill()
        process.wait()
    table = inference.run_inference(study)
    assert (table["status"] == "ok").all()
    for scan in ("a1", "b2", "c3"):
        one, other = (study.prediction_path(model, scan) for model in ("whole", "demo"))
        assert one.read_bytes() == other.read_bytes()
    assert {path.name for path in folder.glob("*.nii.gz")} == {f"{scan}.nii.gz" for scan in ("a1", "b2", "c3")}


def test_a_new_family_is_one_module_and_one_line(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The module is written here, as a user would write it under src/helpers/models/."""
    (tmp_path / "threshold.py").write_text(
        "import numpy as np\n"
        "from helpers.models.protocol import Segmentation\n"
        "class Threshold:\n"
        "    device, precision = 'cpu', ''\n"
        "    def segment(self, case):\n"
        "        first = next(iter(case.organ_ids.values()))\n"
        "        labels = np.where(case.image > 0, first, 0).astype(np.uint8)\n"
        "        return Segmentation(labels, slices=len(labels), prompts=0)\n"
        "def load(spec):\n"
        "    return Threshold()\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    kind = models.Kind("threshold", "all that is bright", "threshold", prompt_types=())
    monkeypatch.setitem(models.KINDS, "threshold", kind)
    study = make_study([{"name": "bright", "kind": "threshold"}])
    table = inference.run_inference(study)
    assert table["status"].tolist() == ["ok"] * 3
    assert inference.read_organs(study).set_index(["scan", "organ"]).loc[("a1", "liver"), "dice"] > 0.7
    np.testing.assert_array_equal(read_labels(study.prediction_path("bright", "a1")) > 0, draw_labels() > 0)


@pytest.mark.slow
def test_a_long_scan_stays_below_three_gigabytes(tmp_path: Path) -> None:
    """A CT of 512 × 512 × 600 through the small SAM, in a process of its own."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np, SimpleITK as sitk\n"
        "folder = Path(sys.argv[1])\n"
        "shape = (600, 512, 512)\n"
        "labels = np.zeros(shape, np.uint8)\n"
        "labels[300:304, 100:260, 100:300] = 1\n"
        "labels[300:304, 300:400, 300:420] = 2\n"
        "image = np.where(labels, 60, -90).astype(np.int16)\n"
        "for name, array in (('mask', labels), ('image', image)):\n"
        "    sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f'{name}.nii.gz'))\n"
    )
    write = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, encoding="utf-8")
    assert write.returncode == 0, write.stderr
    parameters = {
        "name": "long",
        "cohort": {
            "source": "table", "path": str(tmp_path / "participants.tsv"),
            "organs": {"liver": {"labels": [1]}, "lung_left": {"labels": [2]}},
            "attributes": {"sex": {"categories": ["female", "male"]}},
        },
        "models": [DEMO],
        "compute": {"workers": 0, "device": "cpu"},
    }  # fmt: skip
    (tmp_path / "participants.tsv").write_text("scan\n", encoding="utf-8")
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    study = load_study(path)
    study.folder.mkdir(parents=True, exist_ok=True)
    row = {
        "subject": "p", "scan": "a", "number": 1, "modality": "CT", "reference": str(tmp_path / "mask.nii.gz"),
        "image": str(tmp_path / "image.nii.gz"), "included": True, "reason": "", "note": "",
    }  # fmt: skip
    pd.DataFrame([row]).to_parquet(study.path("cohort"))
    run = (
        "import resource, sys\n"
        "from helpers import inference\n"
        "from helpers.study import load_study\n"
        "table = inference.run_inference(load_study(sys.argv[1]))\n"
        "assert table['status'].tolist() == ['ok'], table['error'].tolist()\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", run, str(path)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 3 * 2**20  # kilobytes


def test_a_models_own_labels_are_read_and_organs_it_lacks_are_not_missed(make_study, tmp_path):
    """What a model does not draw is no Dice of 0."""
    own = (draw_labels() == 1) * np.uint16(5)
    for scan in ("a1", "b2", "c3"):
        write_image(own, tmp_path / "data" / "masks" / f"{scan}.nii.gz")
    study = make_study([MASKS | {"organs": {"liver": {"labels": [5]}}}])
    assert models.describe_model(study.parameters.models[0], study) == [
        "models.masks: spleen: not among its organs, so not drawn by it and not scored"
    ]
    inference.run_inference(study)
    organs = inference.read_organs(study).set_index("organ")
    assert organs.loc["liver", "dice"].tolist() == [1.0, 1.0, 1.0]
    assert organs.loc["spleen", "dice"].isna().all()
    assert set(organs.loc["spleen", "not_drawn"]) == {"the model does not draw this organ"}
    metrics = performance.measure_performance(study).set_index("organ")
    assert set(metrics.loc["spleen", "status"]) == {"not_drawn"}
    assert metrics.loc["spleen", "dice"].isna().all()
    assert set(metrics.loc["liver", "status"]) == {"ok"}


def test_an_organ_without_a_file_in_a_folder_of_masks_is_not_drawn(make_study, tmp_path):
    """One person's folder lacks the spleen's file: that is no missed spleen."""
    for scan in ("a1", "b2", "c3"):
        folder = tmp_path / "data" / "masks" / scan
        write_image((draw_labels() == 1).astype(np.uint8), folder / "liver.nii.gz")
        if scan != "b2":
            write_image((draw_labels() == 2).astype(np.uint8), folder / "spleen.nii.gz")
    places = {"liver": {"files": ["liver"]}, "spleen": {"files": ["spleen"]}}
    study = make_study([MASKS | {"path": "masks/{scan}", "organs": places}])
    inference.run_inference(study)
    metrics = performance.measure_performance(study).set_index(["scan", "organ"])
    assert metrics.loc[("b2", "spleen"), ["status", "error"]].tolist() == [
        "not_drawn",
        "the folder has no mask file of it",
    ]
    assert metrics["dice"].drop(("b2", "spleen")).eq(1.0).all()


def test_labels_of_a_model_that_has_none_of_its_own_are_refused(make_study):
    for kind, organ, said in (
        ("prompt_only", {"labels": [5]}, "prompt_only has no labels of its own: remove the key"),
        ("precomputed", {"labels": ["liver"]}, "must be ids, which label maps hold; got liver"),
    ):
        study = make_study([MASKS | {"kind": kind, "organs": {"liver": organ}}])
        assert any(said in problem for problem in models.check_model(study.parameters.models[0], study))


def test_scans_a_model_was_trained_on_are_left_out_of_its_scores(make_study, tmp_path):
    for scan in ("a1", "b2", "c3"):
        write_image(draw_labels(), tmp_path / "data" / "masks" / f"{scan}.nii.gz")
    (tmp_path / "seen.txt").write_text("a1\n\nelsewhere\n", encoding="utf-8")
    study = make_study([MASKS | {"trained_on_scans": str(tmp_path / "seen.txt")}, {**MASKS, "name": "other"}])
    inference.run_inference(study)
    metrics = performance.measure_performance(study).set_index(["model", "scan"])
    assert set(metrics.loc[("masks", "a1"), "status"]) == {"trained_on"}
    assert metrics.loc[("masks", "a1"), "dice"].isna().all()
    assert metrics.loc[("masks", "b2"), "dice"].eq(1.0).all() and metrics.loc[("other", "a1"), "dice"].eq(1.0).all()
    gone = make_study([MASKS | {"trained_on_scans": "nowhere.txt"}])
    (problem,) = models.check_model(gone.parameters.models[0], gone)
    assert problem == ("models.masks.trained_on_scans: nowhere.txt cannot be read: give a text file, one scan per line")


@pytest.mark.parametrize(
    "keys",
    [
        MASKS | {"trained_on_scans": "seen.txt"},
        {"name": "sat", "kind": "sat", "checkpoint": "nano.pth", "embeddings": "words.npz"},
        {"name": "voxtell", "kind": "voxtell", "folder": "weights", "embeddings": "words.npz"},
        {"name": "ours", "kind": "nnunet", "folder": "weights"},
    ],
)
def test_every_file_that_a_model_names_decides_whether_its_stage_is_out_of_date(make_study, keys):
    """Each file is changed in turn; a folder's files count, and so do those that come later."""
    study = make_study([keys])
    storage.write_table(pd.DataFrame({"scan": ["a1"], "subject": ["p1"]}), study.path("cohort"))
    seen = {provenance.Fingerprints(study).find("02_inference")}
    named = [keys[key] for key in ("trained_on_scans", "checkpoint", "embeddings", "folder") if key in keys]
    for name in named:
        path = study.resolve(name) / "plans.json" if name == "weights" else study.resolve(name)
        for text in ("first", "the second"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            fingerprint = provenance.Fingerprints(study).find("02_inference")
            assert fingerprint not in seen, name
            seen.add(fingerprint)
