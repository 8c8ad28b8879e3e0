"""References on another grid than their image: out, or brought to it where the study allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import cohort, provenance, volumes
from tests.test_cohort import SHAPE, Project, project, reason_of, save

__all__ = ["project"]  # a fixture of theirs

ALLOWED = {"cohort.resample": "nearest"}


def save_fine_image(project: Project, name: str, *, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
    """Give a scan an image of voxels half as long along x, over the same part of the body."""
    shape = (*SHAPE[:2], 2 * SHAPE[2])
    greys = np.linspace(-1000, 400, np.prod(shape)).reshape(shape)
    image = sitk.GetImageFromArray(greys.astype(np.int16))
    image.SetSpacing((0.5, 1.0, 1.0))
    image.SetOrigin((-0.25 + shift[0], *shift[1:]))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(project.folder / "images" / f"{name}.nii.gz"))


def read(path: str | Path) -> np.ndarray:
    return sitk.GetArrayFromImage(volumes.to_axial(volumes.read_volume(Path(path))))


def test_without_leave_such_a_scan_is_out(project):
    save_fine_image(project, "a")
    assert reason_of(project.build(), "a").startswith("the image is not on the reference's grid (size (18, 8")


def test_a_reference_is_brought_to_its_images_grid_once(project):
    save_fine_image(project, "a")
    study = project.load(**ALLOWED)
    table = cohort.build_cohort(study).table.set_index("scan")
    assert table["included"].all() and table["resampled"].tolist() == [True, False]
    target = study.folder / "references" / "a.nii.gz"
    assert table["reference"]["a"] == str(target) and table["reference"]["b"].endswith("masks/b.nii.gz")
    assert table["reference_recorded"].tolist() == [str(project.folder / "masks" / "a.nii.gz"), ""]
    assert table["note"]["a"] == "the reference was not on its image's grid: resampled by nearest neighbours"
    image = project.folder / "images" / "a.nii.gz"
    assert not volumes.read_grid(target).differences(volumes.read_grid(image))
    np.testing.assert_array_equal(read(target), np.repeat(project.mask, 2, axis=2))
    before = target.stat().st_mtime_ns
    cohort.build_cohort(study)  # it is not written again, so that predictions stay valid
    assert target.stat().st_mtime_ns == before
    save((project.mask == 1).astype(np.uint8), project.folder / "masks" / "a.nii.gz")
    cohort.build_cohort(study)
    assert set(np.unique(read(target))) == {0, 1}


def test_a_change_of_the_recorded_reference_makes_the_cohort_out_of_date(project):
    save_fine_image(project, "a")
    study = project.load(**ALLOWED)
    cohort.build_cohort(study)
    before = provenance.Fingerprints(study).find("01_cohort")
    assert provenance.Fingerprints(study).find("01_cohort") == before
    save((project.mask == 1).astype(np.uint8), project.folder / "masks" / "a.nii.gz")
    assert provenance.Fingerprints(study).find("01_cohort") != before


def test_a_folder_of_masks_stays_one(project):
    for organ, label in (("liver", 1), ("spleen", 2)):
        save((project.mask == label).astype(np.uint8), project.folder / "folders" / "a" / f"{organ}.nii")
    project.rows[0]["reference"] = "folders/a"
    save_fine_image(project, "a")
    organs = {"cohort.organs.liver.files": ["liver"], "cohort.organs.spleen.files": ["spleen"]}
    study = project.load(**ALLOWED, **organs)
    table = cohort.build_cohort(study).table
    assert table["included"].all()
    folder = study.folder / "references" / "a"
    assert table["reference"][0] == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["liver.nii.gz", "spleen.nii.gz"]
    np.testing.assert_array_equal(read(folder / "liver.nii.gz"), np.repeat(project.mask == 1, 2, axis=2))


@pytest.mark.parametrize("shift", [(0.0, 0.6, 0.0), (30.0, 0.0, 0.0)])
def test_one_that_lies_elsewhere_is_out_all_the_same(project, shift):
    save_fine_image(project, "a", shift=shift)
    reason = reason_of(project.build(**ALLOWED), "a")
    assert reason.startswith(f"the reference is moved against its image by up to {max(shift):.1f} mm, so that nearest")


def test_check_says_what_would_be_resampled_and_writes_nothing(project):
    project.add("c")
    save_fine_image(project, "a")
    half = sitk.GetImageFromArray(project.mask[:, :, ::2].copy())
    half.SetSpacing((2.0, 1.0, 1.0))
    half.SetOrigin((0.5, 0.0, 0.0))
    for name in "abc":
        (project.folder / "ours").mkdir(exist_ok=True)
        sitk.WriteImage(half, str(project.folder / "ours" / f"{name}.nii.gz"))
    half.SetOrigin((9.0, 9.0, 9.0))
    sitk.WriteImage(half, str(project.folder / "ours" / "c.nii.gz"))
    masks = {"ours": str(project.folder / "ours" / "{scan}.nii.gz")}
    models = [{"name": "ours", "kind": "precomputed", "path": "ours/{scan}.nii.gz"}]
    study = project.load(**ALLOWED, models=models)
    found = cohort.check_cohort(study, masks)
    (problem,) = found.problems
    assert "models.ours: scan 'c' (row 3) would count as failed: the mask is moved against the reference by" in problem
    assert any("was not on its image's grid" in remark and "'a'" in remark for remark in found.remarks)
    assert not (study.folder / "references").exists()
    refused = cohort.check_cohort(project.load(models=models), masks).problems
    assert any("resample it to the reference with nearest neighbours, or allow it by" in text for text in refused)


def test_the_table_has_no_such_columns_where_nothing_is_allowed(project):
    assert not {"resampled", "reference_recorded"} & set(project.build().table)
