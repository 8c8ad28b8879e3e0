"""Two masks → numbers: answers derived by hand, and agreement with Google DeepMind's
surface-distance."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from helpers import metrics
from helpers.metrics import compare_annotators, compare_masks, masks
from helpers.metrics.nearest_surface import measure_surface_distances
from helpers.vocabulary.measures import MEASURES, list_symmetric
from helpers.vocabulary.statuses import EMPTY_CASES, MEASURED

SHAPE = (7, 8, 9)


def mask_of(*voxels: tuple[int, int, int], shape=SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def ask_deepmind(reference, prediction, spacing, tolerance_mm) -> dict[str, float]:
    """Return the same numbers from the surface-distance package (its PyPI release still uses
    scipy's old names)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import surface_distance

        found = surface_distance.compute_surface_distances(reference, prediction, spacing)
        there, back = surface_distance.compute_average_surface_distance(found)
        return {
            "nsd": surface_distance.compute_surface_dice_at_tolerance(found, tolerance_mm),
            "hd95_mm": surface_distance.compute_robust_hausdorff(found, 95),
            "dice": surface_distance.compute_dice_coefficient(reference, prediction),
            "surface_ref_cm2": found["surfel_areas_gt"].sum() / 100,
            "there_mm": there,
            "back_mm": back,
            "area_ref": found["surfel_areas_gt"].sum(),
            "area_pred": found["surfel_areas_pred"].sum(),
        }


def check_against_deepmind(reference, prediction, spacing, tolerance_mm) -> None:
    ours = compare_masks(reference, prediction, spacing, tolerance_mm=tolerance_mm)
    theirs = ask_deepmind(reference, prediction, spacing, tolerance_mm)
    for name in ("nsd", "hd95_mm", "dice", "surface_ref_cm2"):
        assert getattr(ours, name) == pytest.approx(theirs[name], abs=1e-6, rel=0), name
    surfaces = measure_surface_distances(reference, prediction, spacing)
    there_mm = np.average(surfaces.reference_to_prediction_mm, weights=surfaces.reference_areas_mm2)
    back_mm = np.average(surfaces.prediction_to_reference_mm, weights=surfaces.prediction_areas_mm2)
    assert (there_mm, back_mm) == pytest.approx((theirs["there_mm"], theirs["back_mm"]), abs=1e-6, rel=0)
    both = theirs["area_ref"] * theirs["there_mm"] + theirs["area_pred"] * theirs["back_mm"]
    assert ours.assd_mm == pytest.approx(both / (theirs["area_ref"] + theirs["area_pred"]), abs=1e-6, rel=0)


def test_one_of_two_voxels_found_by_hand():
    # Two voxels along x of 2 × 3 × 4 mm = 24 mm³ each; the prediction has the first.
    reference, prediction = mask_of((3, 4, 4), (3, 4, 5)), mask_of((3, 4, 4))
    found = compare_masks(reference, prediction, (2.0, 3.0, 4.0), tolerance_mm=3.9)
    assert found.status == "ok"
    assert found.dice == pytest.approx(2 / 3)
    assert found.iou == pytest.approx(1 / 2)
    assert (found.precision, found.recall) == (1.0, 0.5)
    assert (found.volume_ref_ml, found.volume_pred_ml) == (pytest.approx(0.048), pytest.approx(0.024))
    assert found.volume_error_ml == pytest.approx(-0.024)
    assert found.volume_error_relative == pytest.approx(0.024 / found.volume_ref_ml)
    # Surfels sit on voxel corners. A corner that touches one voxel cuts off a triangle whose normal
    # is (1/8)(dy·dz, dx·dz, dx·dy) in the faces' areas; one that touches two neighbours along x has
    # two of them, which together span (0, 1/4·…, 1/4·…) across x: here areas of faces across z, y,
    # x are 12, 8, 6 mm².
    corner = math.sqrt((12 / 8) ** 2 + (8 / 8) ** 2 + (6 / 8) ** 2)
    area_ref, area_pred = _area(reference), _area(prediction)
    assert area_pred == pytest.approx(8 * corner)
    assert found.surface_ref_cm2 == pytest.approx(area_ref / 100)
    # Reference corners at x = 4, 5, 6 (four each), prediction's at 4 and 5: only the four at x = 6
    # are apart, by one step of 4 mm. They carry 4 · corner of area, more than 5 % of the
    # reference's.
    assert found.hd95_mm == pytest.approx(4.0)
    assert found.nsd == pytest.approx(1 - 4 * corner / (area_ref + area_pred))
    assert found.assd_mm == pytest.approx(4 * corner * 4.0 / (area_ref + area_pred))
    # 2V(1 − Dice)/S with V = 48 mm³: in mm.
    assert found.boundary_error_mm == pytest.approx(2 * 48 * (1 / 3) / area_ref)


def _area(mask: np.ndarray) -> float:
    """Sum the documented areas of corner surfels: corners that touch one voxel, and corners that
    touch two along x."""
    single = math.sqrt((12 / 8) ** 2 + (8 / 8) ** 2 + (6 / 8) ** 2)
    count = {1: 8, 2: 8}[int(mask.sum())]
    # A corner between two voxels along x: the surface runs straight along x, cutting the edge of
    # two faces diagonally; marching cubes draws a rectangle of length dx = 4 over the hypotenuse of
    # half a voxel in z and y.
    pair = 4.0 * math.hypot(2 / 2, 3 / 2)
    return count * single + (4 * pair if mask.sum() == 2 else 0.0)


@pytest.mark.parametrize(("steps", "start"), [(5, 69), (30, 46)])
def test_tolerance_equal_to_a_whole_number_of_voxels_counts_as_within(steps, start):
    # Differences of coordinates round: (46 + 30)·0.9 − 46·0.9 is a little more than 30·0.9. Five
    # steps are found among the near offsets, thirty by the tree. The voxel at 0 keeps the crop from
    # starting at `start`.
    reference = mask_of((1, 1, 0), (1, 1, start), shape=(3, 4, 90))
    prediction = mask_of((1, 1, 0), (1, 1, start + steps), shape=(3, 4, 90))
    assert (start + steps) * 0.9 - start * 0.9 > steps * 0.9
    found = compare_masks(reference, prediction, (5.0, 5.0, 0.9), tolerance_mm=steps * 0.9)
    assert found.nsd == 1.0


def test_identical_masks_are_perfect():
    mask = mask_of((0, 0, 0), (6, 7, 8), (3, 3, 3))
    found = compare_masks(mask, mask.copy(), (1.0, 2.0, 3.0), tolerance_mm=1.0)
    assert (found.dice, found.iou, found.nsd, found.precision, found.recall) == (1, 1, 1, 1, 1)
    assert (found.hd95_mm, found.assd_mm, found.volume_error_ml, found.boundary_error_mm) == (0, 0, 0, 0)


@pytest.mark.parametrize("status", ["reference_empty", "prediction_empty", "both_empty"])
def test_empty_masks_follow_the_table(status):
    full, empty = mask_of((3, 4, 5), (3, 4, 6)), np.zeros(SHAPE, bool)
    reference = empty if status in ("reference_empty", "both_empty") else full
    prediction = empty if status in ("prediction_empty", "both_empty") else full
    found = compare_masks(reference, prediction, (1.0, 1.0, 10.0), tolerance_mm=2.0)
    assert found.status == status
    # What can be measured on the mask that is not empty stays measured: two voxels of 10 mm³.
    by_hand = {
        "reference_empty": {"volume_pred_ml": 0.02},
        "prediction_empty": {
            "volume_ref_ml": 0.02,
            "volume_error_ml": -0.02,
            "surface_ref_cm2": found.surface_ref_cm2,
        },
    }.get(status, {})
    assert status != "prediction_empty" or found.surface_ref_cm2 > 0
    assert {name for name, value in EMPTY_CASES[status].items() if value is MEASURED} == set(by_hand)
    measured = EMPTY_CASES[status] | by_hand
    for name in MEASURES:
        value = getattr(found, name)
        if name in measured:
            assert value == pytest.approx(measured[name]), name
        else:
            assert math.isnan(value), name


def test_missed_organ_has_no_distance():
    found = compare_masks(mask_of((3, 4, 5)), np.zeros(SHAPE, bool), (1.0, 1.0, 1.0), tolerance_mm=1.0)
    assert (found.dice, found.nsd, found.recall) == (0, 0, 0)
    assert all(math.isnan(value) for value in (found.precision, found.hd95_mm, found.assd_mm, found.boundary_error_mm))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prediction": np.zeros((7, 8, 8), bool)}, "one shape"),
        ({"reference": np.zeros((7, 8), bool)}, "reference"),
        ({"prediction": np.zeros(SHAPE, np.uint8)}, "prediction"),
        ({"spacing_zyx_mm": (1.0, 1.0)}, "spacing_zyx_mm"),
        ({"spacing_zyx_mm": (1.0, 0.0, 1.0)}, "spacing_zyx_mm"),
        ({"spacing_zyx_mm": (1.0, float("nan"), 1.0)}, "spacing_zyx_mm"),
        ({"tolerance_mm": -1.0}, "tolerance_mm"),
        ({"tolerance_mm": float("nan")}, "tolerance_mm"),
    ],
)
def test_bad_arguments_are_named(change, named):
    arguments = {
        "reference": mask_of((1, 1, 1)),
        "prediction": mask_of((1, 1, 1)),
        "spacing_zyx_mm": (1.0, 1.0, 1.0),
        "tolerance_mm": 1.0,
    } | change
    with pytest.raises(ValueError, match=named):
        compare_masks(**arguments)


sides = st.integers(1, 7)
spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), shape=st.tuples(sides, sides, sides), spacing=spacings, tolerance_mm=st.floats(0.05, 8.0))
def test_any_masks_agree_with_deepmind(data, shape, spacing, tolerance_mm):
    # Arrays this small touch the border more often than not; single voxels, planes and holes come
    # by themselves.
    reference = data.draw(npst.arrays(bool, shape))
    prediction = data.draw(npst.arrays(bool, shape))
    reference[tuple(side // 2 for side in shape)] = True
    prediction[0, -1, 0] = True
    check_against_deepmind(reference, prediction, spacing, tolerance_mm)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), spacing=spacings, tolerance_mm=st.floats(0.05, 30.0))
def test_single_voxels_far_apart_agree_with_deepmind(data, spacing, tolerance_mm):
    shape = (9, 21, 34)
    first, second = (tuple(data.draw(st.integers(0, side - 1)) for side in shape) for _ in range(2))
    check_against_deepmind(mask_of(first, shape=shape), mask_of(second, shape=shape), spacing, tolerance_mm)


def test_smooth_organs_agree_with_deepmind(rng):
    z, y, x = np.ogrid[:23, :40, :37]
    for _ in range(4):
        spacing = tuple(rng.uniform(0.6, 4.0, 3))
        radius = rng.uniform(5, 9, 3)
        shift = rng.uniform(-2, 2, 3)
        first = ((z - 11) / radius[0]) ** 2 + ((y - 20) / radius[1]) ** 2 + ((x - 18) / radius[2]) ** 2 < 1
        second = ((z - 11 - shift[0]) / 6) ** 2 + ((y - 20 - shift[1]) / 8) ** 2 + ((x - 18 - shift[2]) / 7) ** 2 < 1
        check_against_deepmind(first, second, spacing, 2.0)


def test_surfaces_all_equally_far_apart_agree_with_deepmind():
    z, y, x = np.ogrid[:40, :41, :42]
    squared = (z - 20) ** 2 + (y - 20) ** 2 + (x - 20) ** 2
    check_against_deepmind(squared < 19**2, squared < 5**2, (1.0, 1.0, 1.0), 13.5)


@pytest.mark.data
def test_real_kidneys_agree_with_deepmind(data_folder):
    folder = data_folder / "kits23_annotators"
    name = sorted(path.name for path in (folder / "reference").glob("*.nii.gz"))[0]
    image = sitk.ReadImage(str(folder / "reference" / name))
    reference = sitk.GetArrayFromImage(image) > 0
    for annotator in ("annotator1", "annotator3"):
        prediction = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / annotator / name))) > 0
        check_against_deepmind(reference, prediction, image.GetSpacing()[::-1], 2.0)


def test_dice_and_boundary_error_are_each_others_inverse():
    # V = 1000 mm³, S = 600 mm² (a cube of 10 mm): 1 mm costs 600 / 2000 = 0.3 of Dice.
    assert metrics.predict_dice(1.0, 1.0, 6.0) == pytest.approx(0.7)
    assert metrics.convert_dice_to_boundary_error(0.7, 1.0, 6.0) == pytest.approx(1.0)
    assert metrics.predict_dice(10.0, 1.0, 6.0) == 0.0


def test_two_annotators_by_hand():
    # Two voxels and one of them, as above: neither is the reference, so volume and surface are
    # their means.
    first, second = mask_of((3, 4, 4), (3, 4, 5)), mask_of((3, 4, 4))
    found = compare_annotators(first, second, (2.0, 3.0, 4.0), tolerance_mm=3.9)
    assert (found.status, found.dice, found.volume_error_ml) == ("ok", pytest.approx(2 / 3), pytest.approx(-0.024))
    surface_mm2 = (_area(first) + _area(second)) / 2
    assert found.boundary_error_mm == pytest.approx(2 * 36 * (1 / 3) / surface_mm2)


def test_annotators_can_be_exchanged(rng):
    first, second = (rng.random((9, 10, 11)) > 0.5 for _ in range(2))
    spacing = (1.5, 0.8, 2.5)
    there = compare_annotators(first, second, spacing, tolerance_mm=1.0)
    back = compare_annotators(second, first, spacing, tolerance_mm=1.0)
    against = compare_masks(first, second, spacing, tolerance_mm=1.0)
    for name in list_symmetric():
        sign = -1 if name == "volume_error_ml" else 1
        assert getattr(there, name) == pytest.approx(sign * getattr(back, name), rel=1e-12), name
        if name != "boundary_error_mm":
            assert getattr(there, name) == pytest.approx(getattr(against, name), rel=1e-12), name


def test_an_organ_that_one_annotator_alone_has_drawn_is_a_full_disagreement():
    full, empty = mask_of((3, 4, 5), (3, 4, 6)), np.zeros(SHAPE, bool)
    for first, second, volume_ml in ((full, empty, -0.02), (empty, full, 0.02)):
        found = compare_annotators(first, second, (1.0, 1.0, 10.0), tolerance_mm=2.0)
        assert (found.status, found.dice, found.iou, found.nsd) == ("one_empty", 0.0, 0.0, 0.0)
        assert found.volume_error_ml == pytest.approx(volume_ml)
        assert all(math.isnan(getattr(found, name)) for name in ("hd95_mm", "assd_mm", "boundary_error_mm"))
    neither = compare_annotators(empty, empty, (1.0, 1.0, 10.0), tolerance_mm=2.0)
    assert neither.status == "both_empty"
    assert all(math.isnan(getattr(neither, name)) for name in list_symmetric())


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 1.5, 2.0]), min_size=1, max_size=60),
    seed=st.integers(0, 99),
    percent=st.sampled_from([5.0, 50.0, 75.0, 95.0, 100.0]),
)
def test_the_percentile_is_that_of_a_full_sort(values, seed, percent):
    values = np.array(values)
    weights = np.random.default_rng(seed).choice([0.5, 1.0, 1.0 / 3.0], len(values))
    order = np.lexsort((weights, values))
    share = np.cumsum(weights[order]) / weights[order].sum()
    expected = values[order][min(np.searchsorted(share, percent / 100.0), len(values) - 1)]
    assert masks._find_weighted_percentile(values, weights, percent) == expected
