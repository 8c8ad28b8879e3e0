"""Where organs lie and how large they are: measured, compared with an adult's body, and told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from helpers import cohort
from helpers.cohort.organ_places import SeenOrgan, describe_organs
from helpers.parameters import Cohort
from helpers.report.sentences.study import describe_misplaced
from helpers.vocabulary.anatomy import ORGANS, find_organ, judge_organ, write_ml
from helpers.volumes import find_body_x_mm, find_middle_x_mm, get_grid, measure_regions, to_axial

from .small_volumes import make_image
from .test_cohort import project as project


def make_labels() -> np.ndarray:
    labels = np.zeros((6, 5, 10), np.uint16)
    labels[1:3, 1:4, 6:8] = 1  # 12 voxels around (z, y, x) = (1.5, 2, 6.5)
    labels[4:6, 2, 1] = 300  # reaches the last slice
    return labels


def test_regions_have_the_volumes_and_middles_of_their_voxels():
    regions = measure_regions(make_image(make_labels(), spacing=(2.0, 3.0, 4.0), origin=(10.0, 20.0, 30.0)))
    assert set(regions) == {1, 300}
    assert regions[1].volume_ml == pytest.approx(12 * 24 / 1000)
    assert regions[1].center_mm == pytest.approx((10 + 6.5 * 2, 20 + 2 * 3, 30 + 1.5 * 4))
    assert (regions[1].is_cut, regions[300].is_cut) == (False, True)


@pytest.mark.parametrize("order", ["RAS", "SPL", "AIR", "ILP"])
def test_regions_are_the_same_in_any_axis_order(order):
    image = make_image(make_labels())
    expected, found = measure_regions(image), measure_regions(sitk.DICOMOrient(image, order))
    for label in (1, 300):
        assert found[label].center_mm == pytest.approx(expected[label].center_mm)
        assert found[label].volume_ml == pytest.approx(expected[label].volume_ml)
        assert found[label].is_cut == expected[label].is_cut


@pytest.mark.parametrize(("modality", "air", "tissue"), [("CT", -1000.0, 40.0), ("MR", 0.0, 300.0)])
def test_the_middle_of_the_body_is_not_that_of_the_image(modality, air, tissue):
    greys = np.full((10, 20, 40), air, np.float32)
    greys[:, 4:16, 20:36] = tissue
    image = make_image(greys, spacing=(2.0, 2.0, 2.0), origin=(0.0, 0.0, 0.0))
    assert find_body_x_mm(image, modality) == pytest.approx(27.5 * 2, abs=1.5)
    assert find_body_x_mm(to_axial(sitk.DICOMOrient(image, "RPS")), modality) == pytest.approx(27.5 * 2, abs=1.5)
    assert find_middle_x_mm(get_grid(image)) == pytest.approx(19.5 * 2)
    assert find_body_x_mm(make_image(greys * 0 + air, origin=(0.0, 0.0, 0.0)), modality) == pytest.approx(39.0)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Left Kidney", "kidney_left"),
        ("kidney_r", "kidney_right"),
        ("Lung, right", "lung_right"),
        ("urinary_bladder", "bladder"),
        ("adrenal gland left", "adrenal_gland_left"),
        ("kidneys", None),
        ("liver_tumour", None),
        ("Leber", None),
    ],
)
def test_organs_are_known_by_name(name, wanted):
    found = find_organ(name)
    assert (found and found.name) == wanted


def test_the_records_are_those_of_a_body():
    assert all(one.mean_ml[0] <= one.mean_ml[1] and one.spread >= 2 for one in ORGANS.values())
    assert all(one.side == one.name.rpartition("_")[2] for one in ORGANS.values() if one.name.count("_"))
    liver, spleen = ORGANS["liver"], ORGANS["spleen"]
    assert judge_organ(liver, side="right", volume_ml=1410) == judge_organ(spleen, side=None, volume_ml=138) == []
    assert judge_organ(spleen, side="right", volume_ml=30) == [
        "spleens lie left",
        "spleens of adults have 90 ml to 476 ml",
    ]
    assert [write_ml(value) for value in (1412.3, 138.4, 4.31)] == ["1,410 ml", "138 ml", "4.3 ml"]


def see(volume_ml, left_mm, *, is_cut=False) -> SeenOrgan:
    return SeenOrgan(volume_ml, left_mm, is_cut)


def describe(organs, seen, ages=None):
    whole = Cohort.model_validate({"source": "table", "path": "x.csv", "organs": organs, "attributes": {"sex": None}})
    return describe_organs(whole, seen, pd.Series(ages or [50.0] * len(seen)))


ORGAN_LABELS = {"liver": {"labels": [1]}, "spleen": {"labels": [2]}}


def test_a_wrong_label_is_told_with_its_side_and_size():
    right = [{"liver": see(1400.0 + place, -60.0), "spleen": see(200.0, 90.0)} for place in range(5)]
    assert list(describe(ORGAN_LABELS, right).values()) == [
        "liver = label 1: in 5 of 5 scans, median 1,400 ml, on the person's right",
        "spleen = label 2: in 5 of 5 scans, median 200 ml, on the person's left",
    ]
    wrong = [{"liver": see(1400.0, -60.0), "spleen": see(138.0, -55.0)}] * 23 + [{"liver": see(1400.0, -60.0)}]
    assert describe(ORGAN_LABELS, wrong)["spleen"] == (
        "spleen = label 2: in 23 of 24 scans, median 138 ml, on the person's right: spleens lie left"
    )
    swapped = [{"liver": see(200.0, 90.0), "spleen": see(1400.0, -60.0)}] * 3
    assert describe(ORGAN_LABELS, swapped)["liver"].endswith(
        "on the person's left: livers lie right, livers of adults have 706 ml to 3,420 ml and smaller than the "
        "spleen, which no adult has"
    )


def test_places_are_named_with_side_and_files():
    organs = {"kidney_left": {"labels": [1], "side": "left"}, "lung_left": {"files": ["upper", "lower"]}}
    told = describe(organs, [{"kidney_left": see(150.0, 60.0), "lung_left": see(2000.0, 80.0)}])
    assert told["kidney_left"].startswith("kidney_left = label 1, its left part: in 1 of 1 scan, median 150 ml, on")
    assert told["lung_left"].startswith("lung_left = files upper, lower: in 1 of 1 scan, median 2,000 ml, on")


def test_children_and_organs_cut_by_the_scan_s_edge_are_not_judged_by_size():
    small = [{"liver": see(300.0, -60.0), "spleen": see(40.0, 90.0)}] * 3
    assert ": livers of adults" in describe(ORGAN_LABELS, small)["liver"]
    assert describe(ORGAN_LABELS, small, [4.0, 9.0, 15.0])["liver"].endswith("on the person's right")
    cut = [{name: see(one.volume_ml, one.left_mm, is_cut=True) for name, one in scan.items()} for scan in small]
    assert describe(ORGAN_LABELS, cut)["liver"].endswith("on the person's right")


def test_check_01_and_the_report_tell_an_organ_on_the_wrong_side(project):
    """The image's body is 90 mm wide: what the study calls spleen lies 30 mm to its right."""
    mask = np.zeros((20, 20, 30), np.uint8)
    mask[5:15, 5:15, 3:7] = 2
    mask[5:15, 5:15, 20:28] = 1
    for name in ("r", "s"):
        project.add(name)
        for folder, array in (("masks", mask), ("images", np.where(mask > 0, 50, -50).astype(np.int16))):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((3.0, 3.0, 3.0))
            sitk.WriteImage(image, str(project.folder / folder / f"{name}.nii.gz"))
    project.rows = project.rows[2:]
    study = project.load()
    found = cohort.check_cohort(study)
    assert found.problems == []
    liver, spleen = found.organs
    assert liver.startswith("liver = label 1: in 2 of 2 scans, median 22 ml, on the person's left: livers lie right")
    assert spleen.startswith("spleen = label 2: in 2 of 2 scans, median 11 ml, on the person's right: spleens lie left")
    built = cohort.build_cohort(study)
    assert any(note.startswith("spleen: spleens lie left") for note in built.notes)
    said = describe_misplaced(list(built.table["note"]))
    assert said[1] == (
        "2 scans of 2: spleen lies on the person's right, where spleens do not lie. Is it another organ's label, or "
        "are the scans mirrored?"
    )
    assert describe_misplaced([*built.table["note"], *[""] * 3]) == []
