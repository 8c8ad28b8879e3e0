"""A seeded cohort of torso phantoms in CT and MR, with real-world faults and a planted disparity.

Everything about the cohort is known, so that what the notebooks find can be checked: who is in it, how
large the organs are, and which group's masks were made worse, by how many millimetres, and where.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import storage
from helpers.compute import CaseFailure, map_cases
from helpers.demo.anatomy import EMPTY_ORGAN, ORGANS, Person, draw_phantom
from helpers.demo.planting import describe_planted, plant_errors
from helpers.errors import ParameterError, SegfairError
from helpers.parameters import Phantoms
from helpers.study import Study
from helpers.volumes import to_axial, write_volume

RECIPE_VERSION = 2  # raise it when the drawing changes: scans drawn before are then drawn again
MOVED_MASK = "mask on another grid"


@dataclass(frozen=True)
class _Case:
    person: Person
    phantoms: Phantoms
    organ_ids: dict[str, int]
    folder: Path


def draw_people(phantoms: Phantoms, seed: int) -> list[Person]:
    """Draw who is in the cohort: as many women as men, BMI rising mildly with age, modalities alternating.

    With `faults`, fixed members get a real-world fault: a missing age, an organ removed, a mask moved to
    another grid, and one more row for a second scan of one person.

    Parameters
    ----------
    phantoms : Phantoms
        The recipe.
    seed : int
        The study's seed; person k depends on it and on k alone, so a larger cohort starts with the same people.
    """
    people = []
    for number in range(phantoms.subjects):
        rng = np.random.default_rng([seed, number])
        sex = ("female", "male")[number % 2]
        age = float(np.clip(np.round(rng.uniform(20, 86)), 20, 85))
        bmi = float(np.clip(np.round(rng.normal(26.5 + 0.05 * (age - 50), 4.8), 1), 17, 42))
        modality = phantoms.modalities[(number // 2) % len(phantoms.modalities)]
        name = f"phantom_{number + 1:04d}"
        people.append(Person(name, name, sex, age, bmi, modality, int(rng.integers(2**62)), recorded_age=age))
    if phantoms.faults:
        people = _add_faults(people, phantoms)
    return people


def write_phantoms(study: Study) -> Path:
    """Draw the study's cohort into ``<study>/phantoms`` and return its participants table.

    Scans that were drawn by the same recipe are kept. ``truth.json`` says what was planted and which faults there are.

    Raises
    ------
    ParameterError
        An organ that phantoms do not have.
    SegfairError
        A phantom could not be drawn.
    """
    cohort = study.parameters.cohort
    check_recipe(study)
    folder = study.folder / "phantoms"
    people = draw_people(cohort.phantoms, study.seed_for("phantoms"))
    cases = [_Case(person, cohort.phantoms, study.organ_ids, folder) for person in people]
    todo = [case for case in cases if not _is_drawn(case)]
    results = map_cases(
        _draw_case,
        todo,
        ids=[case.person.scan for case in todo],
        compute=study.parameters.compute,
        label="drawing phantoms",
    )
    failed = [result for result in results if isinstance(result, CaseFailure)]
    if failed:
        raise SegfairError(f"phantom {failed[0].case} could not be drawn: {failed[0].error}")
    rows = [
        {
            "subject": person.subject,
            "scan": person.scan,
            "sex": person.sex,
            "age": person.recorded_age,
            "bmi": person.bmi,
            "modality": person.modality,
            "image": f"images/{person.scan}.nii.gz",
            "reference": f"references/{person.scan}.nii.gz",
        }
        for person in people
    ]
    table = folder / "participants.csv"
    storage.write_table(pd.DataFrame(rows), table)
    truth = {
        "planted": cohort.phantoms.planted.model_dump(mode="json"),
        "in_words": describe_planted(cohort.phantoms.planted),
        "faults": {person.scan: person.fault for person in people if person.fault},
    }
    storage.write_json(truth, folder / "truth.json")
    return table


def tell_truth(study: Study) -> pd.DataFrame:
    """Return what is known of the planted errors, in sentences; for real data, that nothing is."""
    path = study.folder / "phantoms" / "truth.json"
    if study.parameters.cohort.source != "phantoms" or not path.exists():
        return pd.DataFrame({"truth": ["These are not phantoms: what is true of them is not known."]})
    return pd.DataFrame({"truth": json.loads(path.read_text(encoding="utf-8"))["in_words"]})


def check_recipe(study: Study) -> None:
    """Raise ParameterError when the recipe asks for an organ that phantoms do not have."""
    unknown = sorted(set(study.organ_ids) - set(ORGANS))
    if unknown:
        raise ParameterError(
            f"{study.source}: cohort.organs: phantoms have no {', '.join(unknown)}; they have {', '.join(ORGANS)}"
        )


def _add_faults(people: list[Person], phantoms: Phantoms) -> list[Person]:
    """Give fixed members a fault, as far as the cohort is large enough for it."""
    changed = list(people)
    if len(changed) >= 4:
        changed[3] = replace(changed[3], fault="missing age", recorded_age=None)
    if len(changed) >= 6:
        changed[5] = replace(changed[5], fault=EMPTY_ORGAN)
    if len(changed) >= 8:
        changed[7] = replace(changed[7], fault=MOVED_MASK)
    if len(changed) >= 3:
        first = changed[2]
        modalities: list[str] = list(phantoms.modalities)
        other = modalities[(modalities.index(first.modality) + 1) % len(modalities)]
        changed.append(replace(first, scan=f"{first.subject}_b", modality=other, fault="repeated subject"))
    return changed


def _is_drawn(case: _Case) -> bool:
    record = case.folder / "recipes" / f"{case.person.scan}.json"
    files = [case.folder / kind / f"{case.person.scan}.nii.gz" for kind in ("images", "references", "planted")]
    if not all(file.exists() for file in [record, *files]):
        return False
    return json.loads(record.read_text(encoding="utf-8"))["recipe"] == _hash_recipe(case)


def _hash_recipe(case: _Case) -> str:
    # How many people there are beside this one does not matter to it.
    recipe = case.phantoms.model_dump(mode="json", include={"spacing_mm", "planted"})
    return storage.hash_value([RECIPE_VERSION, asdict(case.person), recipe, case.organ_ids])


def _draw_case(case: _Case) -> None:
    person = case.person
    record = case.folder / "recipes" / f"{person.scan}.json"
    record.unlink(missing_ok=True)  # until all three files are new, none of them counts
    image, mask = draw_phantom(person, case.phantoms, case.organ_ids)
    axial = to_axial(mask)
    labels = sitk.GetArrayFromImage(axial)
    rng = np.random.default_rng([person.seed, 1])
    spacing = axial.GetSpacing()[::-1]
    planted = sitk.GetImageFromArray(
        plant_errors(labels, spacing, case.organ_ids, case.phantoms.planted, asdict(person), rng)
    )
    planted.CopyInformation(axial)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(mask.GetDirection())
    planted = sitk.DICOMOrient(planted, code)
    planted.CopyInformation(mask)
    if person.fault == MOVED_MASK:
        mask.SetOrigin(tuple(value + shift for value, shift in zip(mask.GetOrigin(), (10.0, 0.0, 0.0), strict=True)))
    write_volume(image, case.folder / "images" / f"{person.scan}.nii.gz")
    write_volume(mask, case.folder / "references" / f"{person.scan}.nii.gz")
    write_volume(planted, case.folder / "planted" / f"{person.scan}.nii.gz")
    storage.write_json({"recipe": _hash_recipe(case)}, record)
