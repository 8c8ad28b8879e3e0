"""Stage 04 on a cohort of ellipsoids with a planted error, and on real kidneys."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from helpers import volumes
from helpers.errors import StageError
from helpers.kept import find_file, load_arrays
from helpers.schema import TABLES
from helpers.spatial import Template, describe_location, describe_places, map_errors
from helpers.spatial.measuring import SurfaceCase, measure_missing, measure_shapes
from helpers.spatial.tables import type_table
from tests.spatial_cohort import draw_ellipsoid, make_study, write_cohort, write_prediction

EROSION_MM = 4.0


def draw_empty():
    image = draw_ellipsoid((20.0, 20.0, 20.0))
    return image * 0


def read_errors(study, organ, model):
    """Return the scans' numbers and their signed errors, (n_scans, n_vertices), from the file of
    stage 04."""
    table = pd.read_parquet(study.folder / "spatial" / organ / f"errors_{model}.parquet")
    numbers = table["number"].unique()
    return numbers, table["error_mm"].to_numpy(np.float32).reshape(len(numbers), -1)


def select_maps(result, model):
    """Return the maps of one model, all attributes."""
    return result.maps[result.maps["model"] == model].reset_index(drop=True)


@pytest.fixture(scope="module")
def ellipsoids(tmp_path_factory):
    """Twelve people and a thirteenth scan; women's predictions lack 4 mm at the back."""
    study = make_study(tmp_path_factory.mktemp("ellipsoids"))
    rng = np.random.default_rng(12)
    rows, shapes = [], []
    for subject in range(12):
        shape = {
            "radii_xyz_mm": tuple(rng.uniform(0.85, 1.15) * radius for radius in (22.0, 20.0, 27.0)),
            "centre_mm": tuple(rng.uniform(-4, 4, 3)),
        }
        sex = "female" if subject % 2 == 0 else "male"
        group = ["18 to 50", "50 to 65", "65 and over"][min(subject // 5, 2)]
        rows.append({"subject": f"p{subject}", "sex": sex, "age_group": group, "reference": draw_ellipsoid(**shape)})
        shapes.append(shape)
    # Person 0 comes again.
    rows.append({**rows[0], "reference": draw_ellipsoid(**shapes[0])})
    shapes.append(shapes[0])
    # Storage order must not matter: half the scans are stored with other axes.
    for row in rows[::2]:
        row["reference"] = sitk.DICOMOrient(row["reference"], "PIR")
    cohort = write_cohort(study, rows)
    for number, (row, shape) in enumerate(zip(rows, shapes, strict=True), start=1):
        erosion = EROSION_MM if row["sex"] == "female" and number != 13 else 0.0  # 13: the second scan is right
        prediction = draw_ellipsoid(**shape, posterior_erosion_mm=erosion)
        code = volumes.get_grid(row["reference"])
        write_prediction(study, "eroded", number, volumes.from_axial(prediction, code))
        if number not in (4, 6):
            write_prediction(study, "exact", number, row["reference"])
    write_prediction(study, "exact", 4, volumes.from_axial(draw_empty(), volumes.get_grid(rows[3]["reference"])))
    return study, cohort, map_errors(study)


def test_planted_erosion_is_found_where_it_was_planted(ellipsoids):
    _, _, result = ellipsoids
    template = result.templates["organ"]
    rows = select_maps(result, "eroded")
    by_sex = rows[rows["attribute"] == "sex"]
    direction = template.vertices_mm / np.linalg.norm(template.vertices_mm, axis=1, keepdims=True)
    back, front = direction[:, 1] > 0.7, direction[:, 1] < 0.3
    difference = by_sex["difference"].to_numpy()
    # Five women with the whole erosion, and one with half of it: the mean of her two scans.
    assert difference[back].mean() == pytest.approx(-EROSION_MM * 5.5 / 6, abs=1.0)
    np.testing.assert_allclose(difference[front], 0, atol=0.5)
    np.testing.assert_allclose(by_sex["error_male"], 0, atol=1e-4)
    assert (by_sex["group_a"] == "female").all() and (by_sex["group_b"] == "male").all()
    said = describe_location(template.vertices_mm, difference, template.faces)
    assert "mm too small on the posterior surface (" in said


def test_summary_points_at_the_back(ellipsoids):
    _, _, result = ellipsoids
    row = result.summary.query("model == 'eroded' and attribute == 'sex'").iloc[0]
    assert list(result.summary.columns) == TABLES["spatial_summary"].names
    assert (row["group_a"], row["group_b"], row["n"], row["n_a"], row["n_b"]) == ("female", "male", 12, 6, 6)
    assert row["n_tested"] == 12, "age is listed after sex: nobody is left out for it"
    assert 0.8 * len(result.templates["organ"].vertices_mm) < row["vertices"], "also where nobody's mask errs"
    assert row["min_p_fwer"] < 0.05 and row["region"] == "significant"
    assert "mm smaller in women than in men on the posterior surface (" in row["location"]
    assert row["peak_difference_mm"] < -3.0 and row["peak_y"] > 8.0


def test_summary_and_sentences_speak_of_the_same_place(ellipsoids):
    _, _, result = ellipsoids
    places = describe_places(result.maps, result.templates, groups=result.groups, alpha=0.05)
    sentences = places[places["map"] == "difference"].set_index(["model", "organ", "attribute"])["sentence"]
    told = 0
    for row in result.summary[result.summary["location"] != ""].itertuples():
        where = re.search(r"typically ([\d.]+ mm).*( (on|in|over|at) the [^(]*\(\d+ % of the surface\))", row.location)
        if where:
            told += 1
            assert {where[1], where[2].rpartition(" (")[2]} <= set(
                re.findall(r"[\d.]+ mm|\d+ % of the surface\)", sentences[row.model, row.organ, row.attribute])
            )
    assert told > 1


def test_of_three_groups_the_oldest_are_compared_with_the_youngest(ellipsoids):
    _, _, result = ellipsoids
    row = result.summary.query("model == 'eroded' and attribute == 'age'").iloc[0]
    assert (row["group_a"], row["group_b"], row["n_a"], row["n_b"]) == ("65 and over", "18 to 50", 2, 5)


def test_exact_predictions_have_no_error(ellipsoids):
    _, _, result = ellipsoids
    rows = select_maps(result, "exact")
    np.testing.assert_allclose(rows.loc[rows["attribute"] == "sex", "difference"], 0, atol=1e-4)


def test_empty_and_missing_predictions_are_missing_and_counted(ellipsoids):
    study, _, result = ellipsoids
    numbers, errors = read_errors(study, "organ", "exact")
    assert set(range(1, 14)) - set(numbers) == {4, 6}
    assert np.isfinite(errors).all()
    quality = result.quality.set_index("number")
    assert quality.loc[4, "prediction_empty"] == "exact" and quality.loc[6, "prediction_missing"] == "exact"
    assert quality.loc[1, "prediction_empty"] == "" and quality.loc[1, "prediction_missing"] == ""
    counts = result.groups.query("model == 'exact' and attribute == 'sex'").set_index("group")
    assert counts["prediction_empty"].to_dict() == {"female": 0, "male": 1}
    assert counts["n"].to_dict() == {"female": 6, "male": 4}
    assert any("1 scans with an empty prediction" in note for note in result.notes)
    # The missed man is one of five who were looked at; everybody else's masks are exact.
    by_sex = select_maps(result, "exact").query("attribute == 'sex'")
    np.testing.assert_allclose(by_sex["miss_male"], 0.2, atol=1e-6)
    np.testing.assert_allclose(by_sex["miss_female"], 0.0)
    volumes_of = result.volumes.query("model == 'exact' and group == 'male' and kind == 'false_negative'")
    assert volumes_of["n"].tolist() == [5]


def test_template_is_built_from_people_and_errors_averaged_over_their_scans(ellipsoids):
    study, _, result = ellipsoids
    assert result.templates["organ"].subjects == 12
    numbers, errors = read_errors(study, "organ", "eroded")
    assert numbers.tolist() == list(range(1, 14))
    by_sex = select_maps(result, "eroded").query("attribute == 'sex'")
    people = np.concatenate([[(errors[0] + errors[12]) / 2], errors[2:12:2]])
    np.testing.assert_allclose(by_sex["error_female"], people.mean(axis=0), atol=1e-4)


def test_files_follow_the_contract(ellipsoids):
    study, cohort, _ = ellipsoids
    folder = study.folder / "spatial"
    assert sorted(path.name for path in folder.iterdir()) == [
        "groups.csv",
        "maps.parquet",
        "notes.json",
        "organ",
        "slopes.csv",
        "slopes.parquet",
        "summary.csv",
        "volumes.csv",
    ]
    with np.load(folder / "organ" / "template.npz") as template:
        count = len(template["vertices"])
        assert template["faces"].max() == count - 1
    assert count == pytest.approx(400, rel=0.1)
    maps = pd.read_parquet(folder / "maps.parquet")
    groups = ["female", "male", "18 to 50", "50 to 65", "65 and over"]
    assert list(maps.columns) == [
        "model", "organ", "attribute", "vertex", "x", "y", "z",
        *(f"{measure}_{group}" for measure in ("error", "absolute", "miss") for group in groups),
        "group_a", "group_b", "difference", "adjusted_difference", "t", "p", "p_fwer", "p_tfce", "p_fdr", "n",
        "absolute_difference", "absolute_p_fwer", "miss_difference", "miss_p_fwer", "f", "f_p_fwer",
    ]  # fmt: skip
    assert len(maps) == 2 * 2 * count
    assert maps.loc[maps["attribute"] == "age", "error_female"].isna().all()
    errors = pd.read_parquet(folder / "organ" / "errors_eroded.parquet")
    assert errors.dtypes.astype(str).to_dict() == {"number": "int32", "vertex": "int32", "error_mm": "float32"}
    assert len(errors) == 13 * count
    quality = pd.read_csv(folder / "organ" / "quality.csv")
    assert list(quality.columns) == TABLES["quality"].names
    assert quality["number"].tolist() == cohort["number"].tolist()
    assert (quality["status"] == "ok").all() and (quality["distance_mm"] < 1.5).all()
    for file in folder.rglob("*"):
        if file.suffix in (".csv", ".json"):
            assert "secret" not in file.read_text(encoding="utf-8"), f"{file.name} names a scan"


def test_maps_are_read_back_as_they_were_written(ellipsoids):
    study, _, result = ellipsoids
    folder = study.folder / "spatial"
    pd.testing.assert_frame_equal(study.read("maps"), result.maps)
    pd.testing.assert_frame_equal(type_table(study.read("spatial_summary"), "spatial_summary"), result.summary)
    pd.testing.assert_frame_equal(type_table(study.read("spatial_groups"), "spatial_groups"), result.groups)
    quality = type_table(study.read("quality", organ="organ"), "quality")
    pd.testing.assert_frame_equal(quality, result.quality[TABLES["quality"].names])
    assert json.loads((folder / "notes.json").read_text(encoding="utf-8")) == result.notes
    again = Template.load(folder / "organ" / "template.npz")
    np.testing.assert_allclose(again.vertices_mm, result.templates["organ"].vertices_mm, atol=1e-4)


def measure_all(case, folder):
    """Return by model, "" for the scan alone, what is told of a case's organ, and the arrays."""
    [organ] = case.wanted
    missing = {(organ, name): f"{number}" * 32 for number, name in enumerate(["", *case.predictions])}
    told = {name: found for (_, name), found in measure_missing(replace(case, surfaces=folder), missing).items()}
    return told, {name: load_arrays(find_file(folder, one["file"])) for name, one in told.items() if one["file"]}


def test_storage_order_does_not_change_a_single_error(ellipsoids, tmp_path):
    study, _, _ = ellipsoids
    straight = draw_ellipsoid((21.0, 19.0, 26.0), centre_mm=(2.0, -1.0, 3.0))
    predicted = draw_ellipsoid((21.0, 19.0, 26.0), centre_mm=(2.0, -1.0, 3.0), posterior_erosion_mm=4.0)
    found = []
    for code in ("LPS", "IRA"):
        paths = {name: tmp_path / f"{name}_{code}.nii.gz" for name in ("reference", "prediction")}
        volumes.write_volume(sitk.DICOMOrient(straight, code), paths["reference"])
        volumes.write_volume(sitk.DICOMOrient(predicted, code), paths["prediction"])
        case = SurfaceCase(
            "scan 001", paths["reference"], study.parameters.cohort.organs, study.organ_ids, ("organ",), 5.0,
            {"model": paths["prediction"]}, {"organ": study.folder / "spatial" / "organ" / "template.npz"},
        )  # fmt: skip
        found.append(measure_all(case, tmp_path / code)[1]["model"]["errors_mm"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    assert found[0].min() < -3.0


def test_prediction_on_another_grid_or_damaged_is_missing(ellipsoids, tmp_path):
    study, cohort, _ = ellipsoids
    other, broken = tmp_path / "other.nii.gz", tmp_path / "broken.nii.gz"
    volumes.write_volume(draw_ellipsoid((20.0,) * 3, spacing_xyz_mm=(4.0, 4.0, 4.0)), other)
    broken.write_bytes(b"not an image")
    case = SurfaceCase(
        "scan 002", Path(cohort["reference"][1]), study.parameters.cohort.organs, study.organ_ids, ("organ",), 5.0,
        {"other": other, "broken": broken, "absent": tmp_path / "absent.nii.gz"},
        {"organ": study.folder / "spatial" / "organ" / "template.npz"},
    )  # fmt: skip
    told, arrays = measure_all(case, tmp_path)
    assert told[""]["status"] == "ok" and list(arrays) == [""]
    assert [told[model]["state"] for model in case.predictions] == ["missing"] * 3


def test_another_run_suppresses_small_groups_and_leaves_out_failed_predictions(ellipsoids, tmp_path, monkeypatch):
    study, cohort, _ = ellipsoids

    def refuse(*_):
        raise AssertionError("registered again")

    # Neither templates nor registrations are made again: their ingredients are the same.
    monkeypatch.setattr("helpers.spatial.template.add_shapes", refuse)
    monkeypatch.setattr("helpers.spatial.cohort_template.add_shapes", refuse)
    monkeypatch.setattr("helpers.spatial.registrations.deform", refuse)
    strict = make_study(tmp_path, **{"fairness.min_group": 4})
    shutil.copytree(study.folder, strict.folder)
    table = pd.DataFrame({"scan": cohort["scan"], "status": ["ok"] * 12 + ["failed"]})
    table.to_parquet(strict.inference_path("eroded"))
    result = map_errors(strict)
    rows = select_maps(result, "eroded").query("attribute == 'age'")
    assert rows["error_65 and over"].isna().all()
    assert (rows["group_a"] == "50 to 65").all() and (rows["group_b"] == "18 to 50").all()
    assert "age: no map for 65 and over (fewer than 4 subjects)" in result.notes
    suppressed = result.groups.query("model == 'eroded' and attribute == 'age'").set_index("group")["suppressed"]
    assert suppressed.to_dict() == {"18 to 50": False, "50 to 65": False, "65 and over": True}
    assert result.quality.set_index("number").loc[13, "prediction_missing"] == "eroded"


def test_organs_cut_by_the_field_of_view_lack_what_it_does_not_show(ellipsoids, tmp_path):
    source, _, whole = ellipsoids
    template = whole.templates["organ"]
    study = make_study(tmp_path, **{"spatial.template": str(source.folder / "spatial")})
    rows, top = [], 8  # slices of 4 mm above the organ's middle that are not cut away
    for number in range(5):
        image = draw_ellipsoid((21.0 + number, 20.0, 27.0))
        middle = image.GetSize()[2] // 2
        rows.append(
            {"subject": f"p{number}", "sex": "female" if number < 3 else "male",
             "reference": image if number == 0 else image[:, :, : middle + top // 4 + 1]}
        )  # fmt: skip
    write_cohort(study, rows)
    for number, row in enumerate(rows, start=1):
        write_prediction(study, "exact", number, row["reference"])
    result = map_errors(study)
    np.testing.assert_allclose(result.templates["organ"].vertices_mm, template.vertices_mm, atol=1e-4)
    quality = result.quality.set_index("number")
    assert (quality["status"] == "ok").all() and quality["cut"].tolist() == [False] + [True] * 4
    assert quality.loc[1, "in_view"] == 1.0 and (quality.loc[2:, "in_view"] < 0.8).all()
    errors = read_errors(study, "organ", "exact")[1]
    above, below = template.vertices_mm[:, 2] > 16, template.vertices_mm[:, 2] < 4
    assert np.isnan(errors[1:][:, above]).all() and np.isfinite(errors[:, below]).all()
    by_sex = select_maps(result, "exact").query("attribute == 'sex'")
    assert by_sex["error_male"][above].isna().all(), "not without error: not known"
    assert any("cuts the organ in 4 of 5 scans" in note for note in result.notes)
    assert any("another study's" in note for note in result.notes)


def test_a_template_that_is_not_there_is_named(tmp_path):
    study = make_study(tmp_path, **{"spatial.template": "nowhere/spatial"})
    write_cohort(study, [{"subject": "p", "sex": "female", "reference": draw_ellipsoid((20.0,) * 3)}])
    with pytest.raises(StageError, match="whose templates include organ"):
        map_errors(study)


def test_two_people_give_a_note_and_empty_tables(tmp_path):
    study = make_study(tmp_path)
    rows = [{"subject": f"p{k}", "sex": "female", "reference": draw_ellipsoid((20.0,) * 3)} for k in range(2)]
    write_cohort(study, rows)
    result = map_errors(study)
    assert result.notes == ["organ: 2 subjects with this organ; a template needs at least 3, so there is no map"]
    assert result.maps.empty and "error_female" in result.maps and "difference" in result.maps
    assert result.summary.empty and list(result.summary.columns) == TABLES["spatial_summary"].names
    assert (result.quality["status"] == "no_template").all() and not result.templates
    assert study.read("maps").empty
    assert pd.read_parquet(study.folder / "spatial" / "organ" / "errors_exact.parquet").empty


def test_broken_and_empty_references_do_not_stop_the_others(tmp_path):
    study = make_study(tmp_path)
    rows = [
        {"subject": f"p{k}", "sex": "female", "reference": draw_ellipsoid((20.0 + k,) * 3, centre_mm=(k, 0, 0))}
        for k in range(5)
    ]
    rows[1]["reference"] = draw_empty()
    cohort = write_cohort(study, rows)
    Path(cohort["reference"][2]).write_bytes(b"damaged")
    write_prediction(study, "exact", 1, rows[0]["reference"])
    result = map_errors(study)
    assert result.quality["status"].tolist() == ["ok", "reference_empty", "failed", "ok", "ok"]
    assert result.templates["organ"].subjects == 3
    said = " ".join([*result.notes, *result.quality["reason"]])
    assert "the reference: is not an image" in said and "secret" not in said


def test_without_a_cohort_the_stage_to_run_is_named(tmp_path):
    with pytest.raises(StageError, match="01_cohort"):
        map_errors(make_study(tmp_path))


@pytest.mark.data
def test_real_kidneys_are_matched_closely(data_folder, tmp_path):
    from helpers.parameters import Compute, Organ
    from helpers.spatial.cohort_template import add_all_shapes
    from helpers.spatial.template import build_template

    organs = {"kidney_right": Organ(labels=[1], side="right"), "kidney_left": Organ(labels=[1], side="left")}
    ids = {"kidney_right": 1, "kidney_left": 2}
    cases = [
        SurfaceCase(
            f"scan {number:03d}", data_folder / "kits23_annotators" / "reference" / f"case_{number:05d}.nii.gz", organs,
            ids, ("kidney_left",), 4.0,
        )
        for number in (7, 11, 13, 18)
    ]  # fmt: skip
    fields = [measure_shapes(case)["kidney_left"] for case in cases]
    add_all = partial(add_all_shapes, folder=tmp_path, compute=Compute(workers=0), label="kidneys")
    template = build_template(fields, add_all, vertices=1500)
    path = tmp_path / "template.npz"
    template.save(path)
    assert np.ptp(Template.load(path).vertices_mm[:, 2]) == pytest.approx(105, abs=20), "a kidney is about 11 cm long"
    for case in cases:
        annotator = data_folder / "kits23_annotators" / "annotator1" / case.reference.name
        reference = volumes.read_label_map(case.reference, organs, ids)
        predicted = volumes.read_label_map(annotator, organs, ids, midline_x_mm=reference.midline_x_mm)
        volumes.write_volume(predicted.image, tmp_path / case.reference.name)
        full = SurfaceCase(
            case.name, case.reference, organs, ids, ("kidney_left",), 4.0,
            {"annotator1": tmp_path / case.reference.name}, {"kidney_left": path},
        )  # fmt: skip
        told, arrays = measure_all(full, tmp_path / case.name)
        of_scan = told[""]
        assert of_scan["distance_mm"] < 1.5 and of_scan["distance_mm"] < 0.7 * of_scan["affine_distance_mm"]
        assert of_scan["least_change"] > 0 and of_scan["folded"] == 0, "no place is folded"
        errors = arrays["annotator1"]["errors_mm"]
        assert np.isfinite(errors).mean() > 0.95
        assert np.median(np.abs(errors)) < 1.0, "a human annotator agrees with the majority to a millimetre"
