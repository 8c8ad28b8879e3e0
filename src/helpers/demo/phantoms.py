"""A seeded cohort of torso phantoms in CT and MR, with real-world faults and planted errors.

All is known of it, so that what the notebooks find can be checked: who is in it, how large the
organs are, and which group's masks were made worse, by how many millimetres, and where.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from helpers import storage
from helpers.cohort.table_files import read_table_file
from helpers.compute import CaseFailure, map_cases
from helpers.demo.anatomy import EMPTY_ORGAN, ORGANS, Person, draw_phantom
from helpers.demo.planting import describe_planted, plant_errors
from helpers.errors import ParameterError, SegfairError
from helpers.parameters import Phantoms
from helpers.study import Study
from helpers.volumes import from_axial, get_grid, get_spacing_zyx_mm, make_image, to_axial, write_volume

RECIPE_VERSION = 2  # raise it when the drawing changes: scans drawn before are then drawn again
MOVED_MASK = "mask on another grid"


@dataclass(frozen=True)
class _Case:
    person: Person
    phantoms: Phantoms
    organ_ids: dict[str, int]
    folder: Path


def read_source(study: Study) -> tuple[pd.DataFrame, Path]:
    """Draw the study's cohort; return its participants table and the folder that it lies in."""
    table = write_phantoms(study)
    return read_table_file(table), table.parent


def check_source(study: Study) -> None:
    """Raise ParameterError when the study asks for an organ that phantoms do not have."""
    unknown = sorted(set(study.organ_ids) - set(ORGANS))
    if unknown:
        raise ParameterError(
            f"{study.blame('cohort.organs')}: phantoms have no {', '.join(unknown)}; they have {', '.join(ORGANS)}"
        )


def draw_people(phantoms: Phantoms, seed: int) -> list[Person]:
    """Draw who is in the cohort: half are women, BMI rises mildly with age, modalities alternate.

    With `faults`, fixed members get a real-world fault: a missing age, an organ removed, a mask
    moved to another grid, and one more row for a second scan of one person. Person k depends on the
    study's seed and on k alone: a larger cohort begins with the same people.
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
    return _add_faults(people, phantoms) if phantoms.faults else people


def write_phantoms(study: Study) -> Path:
    """Draw the study's cohort into its folder of sources and return the participants table.

    Scans drawn by the same recipe before are kept. ``truth.json`` says what was planted and which
    faults there are.

    Raises
    ------
    ParameterError
        An organ that phantoms do not have.
    SegfairError
        A phantom could not be drawn.
    """
    check_source(study)
    recipe, folder = study.parameters.cohort.phantoms, study.table_folder
    people = draw_people(recipe, study.seed_for("phantoms"))
    cases = [_Case(person, recipe, study.organ_ids, folder) for person in people]
    todo = [case for case in cases if not _is_drawn(case)]
    names = [case.person.scan for case in todo]
    results = map_cases(_draw_case, todo, ids=names, compute=study.parameters.compute, label="drawing phantoms")
    failed = [result for result in results if isinstance(result, CaseFailure)]
    if failed:
        raise SegfairError(f"phantom {failed[0].case} could not be drawn: {failed[0].error}")
    rows = pd.DataFrame(people)
    rows["age"] = rows["recorded_age"]
    for column, kind in (("image", "images"), ("reference", "references")):
        rows[column] = f"{kind}/" + rows["scan"] + ".nii.gz"
    table = folder / "participants.csv"
    columns = ["subject", "scan", "sex", "age", "bmi", "modality", "image", "reference"]
    storage.write_table(rows[columns], table)
    truth = {
        "planted": recipe.planted.model_dump(mode="json"),
        "in_words": describe_planted(recipe.planted),
        "faults": {person.scan: person.fault for person in people if person.fault},
    }
    storage.write_json(truth, folder / "truth.json")
    return table


def _add_faults(people: list[Person], phantoms: Phantoms) -> list[Person]:
    """Give fixed members a fault, as far as the cohort is large enough for it."""
    faults: dict[int, dict[str, Any]] = {
        3: {"fault": "missing age", "recorded_age": None},
        5: {"fault": EMPTY_ORGAN},
        7: {"fault": MOVED_MASK},
    }
    changed = [replace(person, **faults.get(number, {})) for number, person in enumerate(people)]
    if len(people) > 2:
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
    rng = np.random.default_rng([person.seed, 1])
    labels, spacing = sitk.GetArrayFromImage(axial), get_spacing_zyx_mm(axial)
    moved = plant_errors(labels, spacing, case.organ_ids, case.phantoms.planted, asdict(person), rng)
    planted = from_axial(make_image(moved, get_grid(axial)), get_grid(mask))
    if person.fault == MOVED_MASK:
        x, y, z = mask.GetOrigin()
        mask.SetOrigin((x + 10.0, y, z))
    for kind, volume in (("images", image), ("references", mask), ("planted", planted)):
        write_volume(volume, case.folder / kind / f"{person.scan}.nii.gz")
    storage.write_json({"recipe": _hash_recipe(case)}, record)
