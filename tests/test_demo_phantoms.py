"""Phantoms: recognisable, seeded, and wrong by exactly what was planted."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from helpers.demo import phantoms as cohort_phantoms
from helpers.demo.anatomy import ORGANS, Person, draw_phantom
from helpers.demo.fields import SmoothField
from helpers.demo.phantoms import draw_people, write_phantoms
from helpers.demo.planting import measure_signed_distance, plant_errors, weigh_region
from helpers.errors import ParameterError
from helpers.parameters import Phantoms, Planted, PlantedEffect
from helpers.study import load_study
from helpers.volumes import to_axial

IDS = {name: place for place, name in enumerate(ORGANS, start=1)}
RECIPE = Phantoms(spacing_mm=(5.0, 5.0, 8.0))
WOMAN = Person("p", "p", "female", 40.0, 24.0, "CT", seed=4)


def draw_ball(radius_mm: float, spacing=(2.0, 1.5, 1.5), margin_mm: float = 12.0) -> np.ndarray:
    half = [int(np.ceil((radius_mm + margin_mm) / step)) for step in spacing]
    z, y, x = np.meshgrid(*[np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True)], indexing="ij")
    return z**2 + y**2 + x**2 < radius_mm**2


def arrays(person: Person, recipe: Phantoms = RECIPE):
    image, mask = (to_axial(part) for part in draw_phantom(person, recipe, IDS))
    assert image.GetSize() == mask.GetSize() and image.GetOrigin() == mask.GetOrigin()
    return sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(mask), mask


def measure_ml(labels: np.ndarray, image: sitk.Image) -> dict[str, float]:
    counts = np.bincount(labels.ravel(), minlength=8) * np.prod(image.GetSpacing()) / 1000
    return {name: counts[value] for name, value in IDS.items()}


def test_organs_are_where_a_body_has_them():
    _, labels, mask = arrays(WOMAN)
    centre = {
        name: np.array(
            mask.TransformContinuousIndexToPhysicalPoint(np.argwhere(labels == value).mean(axis=0)[::-1].tolist())
        )
        for name, value in IDS.items()
    }
    assert centre["liver"][0] < -20 < 20 < centre["spleen"][0], (
        "the liver is on the person's right (−x), the spleen on the left"
    )
    assert centre["kidney_right"][0] < 0 < centre["kidney_left"][0]
    assert centre["lung_right"][0] < 0 < centre["lung_left"][0]
    assert min(centre["lung_right"][2], centre["lung_left"][2]) > centre["liver"][2] > centre["kidney_right"][2]
    assert centre["kidney_left"][1] > centre["liver"][1], "kidneys lie behind the liver (+y)"


def test_organs_have_plausible_volumes_and_intensities():
    image, labels, mask = arrays(WOMAN)
    volumes = measure_ml(labels, mask)
    for name, low, high in (
        ("liver", 800, 2000),
        ("kidney_left", 70, 300),
        ("spleen", 60, 350),
        ("lung_right", 700, 3000),
        ("aorta", 50, 300),
    ):
        assert low < volumes[name] < high, (name, volumes[name])
    assert image[labels == IDS["lung_left"]].mean() < -600
    assert 60 < image[labels == IDS["liver"]].mean() < 150
    assert image.min() >= -1024 and image.dtype == np.int16


def test_women_have_smaller_organs_on_average():
    def mean_liver(sex: str) -> float:
        people = [Person("p", "p", sex, 40.0, 24.0, "CT", seed=seed) for seed in range(8)]
        return float(np.mean([measure_ml(*arrays(person)[1:])["liver"] for person in people]))

    assert 0.7 < mean_liver("female") / mean_liver("male") < 0.93


def test_fat_follows_bmi():
    def widest(bmi: float) -> int:
        image = arrays(Person("p", "p", "male", 40.0, bmi, "CT", seed=2))[0]
        return int((image > -300).any(axis=(0, 1)).sum())

    assert widest(38) > widest(20) + 8


def test_equal_seeds_give_equal_scans_and_storage_order_varies():
    first, second = draw_phantom(WOMAN, RECIPE, IDS), draw_phantom(WOMAN, RECIPE, IDS)
    assert all(
        np.array_equal(sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b)) for a, b in zip(first, second, strict=True)
    )
    directions = {
        draw_phantom(Person("p", "p", "male", 40.0, 24.0, "MR", seed=seed), RECIPE, IDS)[0].GetDirection()
        for seed in (4, 5)
    }
    assert len(directions) == 2


def test_people_are_balanced_and_faults_are_on_fixed_members():
    people = draw_people(Phantoms(subjects=200, faults=False), 1)
    assert [person.recorded_age for person in people] == [person.age for person in people]
    assert sum(person.sex == "female" for person in people) == 100
    age, bmi = np.array([person.age for person in people]), np.array([person.bmi for person in people])
    assert age.min() >= 20 and age.max() <= 85 and 0.05 < np.corrcoef(age, bmi)[0, 1] < 0.5
    with_faults = draw_people(Phantoms(subjects=10), 1)
    assert {person.fault for person in with_faults} == {
        "",
        "missing age",
        "empty organ",
        "mask on another grid",
        "repeated subject",
    }
    assert [person.scan for person in with_faults if person.subject == "phantom_0003"] == [
        "phantom_0003",
        "phantom_0003_b",
    ]
    assert draw_people(Phantoms(subjects=5, faults=False), 1) == draw_people(Phantoms(subjects=9, faults=False), 1)[:5]


def test_signed_distance_of_a_slab_is_exact():
    # Voxels 3, 4 and 5 of 6 mm along z: the faces lie at 18 and 36 mm, the centres at 21, 27 and 33
    # mm.
    mask = np.zeros((9, 7, 8), bool)
    mask[3:6] = True
    distance = measure_signed_distance(mask, (6.0, 2.0, 3.0))
    assert distance[1:-1, 3, 4] == pytest.approx([9, 3, -3, -9, -3, 3, 9], abs=0.5)


@pytest.mark.parametrize("erosion_mm", [3.0, -3.0])
@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (4.0, 1.5, 2.0)])
def test_planted_erosion_is_exact_in_millimetres(erosion_mm, spacing):
    ball = draw_ball(24.0, spacing).astype(np.uint8)
    effect = PlantedEffect(attribute="sex", group="female", erosion_mm=erosion_mm)
    planted = Planted(boundary_error_mm=0.0, effects=[effect])
    result = plant_errors(ball, spacing, {"ball": 1}, planted, {"sex": "female"}, np.random.default_rng(0))
    radius = (3 * result.sum() * np.prod(spacing) / (4 * np.pi)) ** (1 / 3)
    assert radius == pytest.approx(24.0 - erosion_mm, abs=0.5)
    same = plant_errors(ball, spacing, {"ball": 1}, planted, {"sex": "male"}, np.random.default_rng(0))
    assert np.array_equal(same, ball), "who is not in the group keeps the reference"


def test_planted_region_is_eroded_and_the_rest_is_not():
    spacing = (2.0, 2.0, 2.0)
    ball = draw_ball(24.0, spacing).astype(np.uint8)
    planted = Planted(
        boundary_error_mm=0.0, effects=[PlantedEffect(attribute="bmi", above=30, erosion_mm=4.0, region="posterior")]
    )
    result = plant_errors(ball, spacing, {"ball": 1}, planted, {"bmi": 31.0}, np.random.default_rng(0))
    middle = ball.shape[0] // 2
    line, eroded = ball[middle, :, middle], result[middle, :, middle]  # along y: anterior to posterior
    assert np.flatnonzero(line)[0] == np.flatnonzero(eroded)[0], "the anterior side is untouched"
    assert np.flatnonzero(line)[-1] - np.flatnonzero(eroded)[-1] == 2, "4 mm are two voxels"
    assert np.array_equal(
        plant_errors(ball, spacing, {"ball": 1}, planted, {"bmi": float("nan")}, np.random.default_rng(0)), ball
    )


def test_region_weights_follow_direction():
    ball = draw_ball(20.0, (2.0, 2.0, 2.0))
    weights = weigh_region(ball, (2.0, 2.0, 2.0), "superior")
    middle = ball.shape[0] // 2
    assert weights[-1, middle, middle] == 1 and weights[0, middle, middle] == 0 and weights[middle, middle, -1] == 0


def test_random_boundary_error_has_the_size_asked_for():
    spacing = (2.0, 2.0, 2.0)
    ball = draw_ball(30.0, spacing).astype(np.uint8)
    shifts = []
    for seed in range(12):
        result = plant_errors(
            ball,
            spacing,
            {"ball": 1},
            Planted(boundary_error_mm=1.5, smoothness_mm=12),
            {},
            np.random.default_rng(seed),
        )
        shifts.append(
            measure_signed_distance(result > 0, spacing)[np.abs(measure_signed_distance(ball > 0, spacing)) < 1.0]
        )
    assert np.concatenate(shifts).std() == pytest.approx(1.5, abs=0.3)
    assert abs(np.concatenate(shifts).mean()) < 0.3


def test_random_field_has_mean_0_and_sd_1():
    rng = np.random.default_rng(1)
    axes = [np.arange(0.0, 60.0, step) for step in (3.0, 2.0, 2.5)]
    fields = [SmoothField(rng, (0, 0, 0), (60, 60, 60), 10.0).evaluate(*axes) for _ in range(60)]
    values = np.concatenate([field.ravel() for field in fields])
    assert abs(values.mean()) < 0.1 and values.std() == pytest.approx(1.0, abs=0.05)


@pytest.fixture
def study(repository, tmp_path):
    overrides = {
        "outputs": str(tmp_path),
        "cohort.phantoms.subjects": 8,
        "cohort.phantoms.spacing_mm": [8.0, 8.0, 12.0],
        "compute.workers": 0,
    }
    return load_study(repository / "params" / "demo.yaml", overrides)


def test_cohort_is_written_resumed_and_equal_byte_for_byte(study, monkeypatch):
    table = pd.read_csv(write_phantoms(study))
    assert len(table) == 9 and table["age"].isna().sum() == 1 and table["scan"].is_unique
    folder = study.folder / "phantoms"
    files = {path: path.read_bytes() for path in folder.rglob("*.nii.gz")}
    assert len(files) == 27
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert truth["faults"]["phantom_0006"] == "empty organ" and any(
        "liver is moved 4 mm inwards" in line for line in truth["in_words"]
    )

    victim = folder / "planted" / "phantom_0002.nii.gz"
    victim.unlink()
    drawn = []
    original = cohort_phantoms._draw_case
    monkeypatch.setattr(cohort_phantoms, "_draw_case", lambda case: drawn.append(case.person.scan) or original(case))
    write_phantoms(study)
    assert drawn == ["phantom_0002"]
    assert {path: path.read_bytes() for path in folder.rglob("*.nii.gz")} == files


def test_an_organ_that_phantoms_lack_is_named(study):
    other = load_study(study.source, {"cohort.organs.pancreas": {"labels": [9]}})
    with pytest.raises(ParameterError, match="phantoms have no pancreas; they have liver, kidney_right"):
        write_phantoms(other)


def test_a_person_is_all_that_planting_needs():
    assert {"sex", "age", "bmi"} <= set(asdict(WOMAN))
