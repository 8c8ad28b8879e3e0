"""Stage 04: templates, correspondence, error maps and their tests, through to a study's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import storage, volumes
from helpers.compute import CaseFailure
from helpers.kept import Ingredients, Kept, hash_code, hash_settings, load_arrays
from helpers.resuming import map_kept, read_contents
from helpers.spatial.cohort_template import make_case, make_templates
from helpers.spatial.correspondence import flag_poor_matches
from helpers.spatial.maps import average_people
from helpers.spatial.measuring import MISSING, OrganErrors, SurfaceCase, measure_missing, sort_states
from helpers.spatial.results import SpatialMaps, list_organs, write_errors, write_maps
from helpers.spatial.surface_tests import list_notes, make_tests, plan_tests, tabulate_tests
from helpers.spatial.tables import AttributeTests, type_table
from helpers.spatial.template import Template
from helpers.spatial.volume_maps import write_volumes
from helpers.study import Study
from helpers.vocabulary.words import name_organ, name_scan

# A registration that folds on more than this part of the surface is not a correspondence.
LARGEST_FOLDED = 0.01


def map_errors(study: Study) -> SpatialMaps:
    """Measure where on each organ each model errs, for which groups, and how surely: stage 04.

    For every organ of ``spatial.organs`` (the study's first, when empty): a template surface from
    the cohort, every scan's correspondence to it, the signed error of every model at every vertex,
    group means, tests of groups and slopes, and frequencies of error in template space. Writes the
    files of ``spatial/`` that docs/DESIGN.md lists. A StageError where 01_cohort has not run, or no
    scan is included.

    With fewer than three subjects who have an organ, that organ gets a note instead of maps.
    """
    cohort = study.read_included()
    cohort = cohort.assign(subject=cohort["subject"].astype(str))
    organs, models = list_organs(study), [model.name for model in study.parameters.models]
    folder = study.folder / "spatial"
    folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    templates = make_templates(study, cohort, organs, notes)
    paths = {organ: folder / organ / "template.npz" for organ in templates}
    wanted: list[AttributeTests] = []
    quality: list[pd.DataFrame] = []
    comparisons: dict[tuple[str, str], list[tuple[int, tuple[Path, Path]]]] = {}
    with storage.open_scratch(folder, ".measured-") as work:
        results = _measure_scans(study, cohort, templates, models)
        for organ in organs:
            found = _list_found(results, organ, templates)
            quality.append(_tabulate_quality(cohort, found).assign(organ=organ))
            _note_left_out(organ, found, notes)
            for model in models:
                comparisons[organ, model] = [
                    (place, (one.files[""], one.files[model]))
                    for place, one in enumerate(found)
                    if one.status == "ok" and model in one.files
                ]
                _note_missed(model, organ, found, notes)
                wanted += _plan(study, cohort, model, organ, templates.get(organ), found, work)
        volumes = write_volumes(study, cohort, templates, comparisons)
        make_tests(study, wanted, paths, notes)
    notes += list_notes(wanted, study.parameters.fairness.min_group)
    result = SpatialMaps(
        **tabulate_tests(study, cohort, wanted, templates),
        quality=type_table(pd.concat(quality, ignore_index=True), "quality", "organ"),
        volumes=volumes,
        templates=templates,
        notes=list(dict.fromkeys(notes)),
    )
    write_maps(study, result)
    return result


def _measure_scans(
    study: Study, cohort: pd.DataFrame, templates: dict[str, Template], models: Sequence[str]
) -> list[dict[str, OrganErrors] | CaseFailure]:
    if not templates:
        return [{} for _ in range(len(cohort))]
    folder, kept = study.folder / "spatial", Kept(study.folder, "surfaces")
    registrations = Kept(study.folder, "registrations")
    finished = {model: _list_finished(study, model) for model in models}
    unscored = study.read_unscored()
    cases = []
    for row in cohort.itertuples():
        paths = {
            model: study.prediction_path(model, row.scan)
            for model, done in finished.items()
            if done is None or row.scan in done
        }
        cases.append(
            replace(
                make_case(study, row, list(templates)),
                predictions={model: path for model, path in paths.items() if storage.is_there(path)},
                unscored=frozenset(unscored.get(row.scan, {})),
                templates={organ: folder / organ / "template.npz" for organ in templates},
                registrations=registrations.folder,
                surfaces=kept.folder,
            )
        )
    wanted = [_list_wanted(case) for case in cases]
    # Arrays are kept in files named by key, so that what files hold must be known beforehand.
    places = (place for parts in wanted for one in parts.values() for place in one.places)
    read_contents(kept.contents, places, study.parameters.compute)
    results = map_kept(
        measure_missing,
        cases,
        wanted,
        kept=kept,
        ids=[name_scan(number) for number in cohort["number"]],
        compute=study.parameters.compute,
        label="errors on the surface",
        is_whole=lambda key, told: not told["file"] or kept.path(key).exists(),
    )
    found = [one if isinstance(one, CaseFailure) else _sort_told(one, list(templates), models, kept) for one in results]
    used = {one.registration for organs in found if isinstance(organs, dict) for one in organs.values()}
    if not any(isinstance(one, CaseFailure) for one in found):
        registrations.sweep(used)
    return found


def _list_wanted(case: SurfaceCase) -> dict[Any, Ingredients]:
    """Return what is wanted of a scan: by organ, and by organ and model that draws it."""
    tables, wanted = volumes.list_lookup_tables(case.reference, case.organs), dict[Any, Ingredients]()
    for organ in case.wanted:
        places = (case.reference, *tables, case.templates[organ])
        settings = hash_settings(hash_code("spatial.measuring"), case.organs, case.organ_ids, organ)
        wanted[organ, ""] = Ingredients(places, settings)
        for model, path in case.predictions.items():
            if (model, organ) not in case.unscored:
                wanted[organ, model] = Ingredients((*places, path), settings)
    return wanted


def _sort_told(
    told: Mapping[Any, Any], organs: Sequence[str], models: Sequence[str], kept: Kept
) -> dict[str, OrganErrors]:
    """Return what was told of a scan by organ; arrays are named by their files."""
    found = {}
    for organ in organs:
        facts = dict(told[organ, ""])
        parts = {model: told[organ, model] for model in models if (organ, model) in told}
        files = {model: kept.path(part["file"]) for model, part in parts.items() if part["file"]}
        if name := facts.pop("file"):
            files[""] = kept.path(name)
        states = {model: parts[model]["state"] if model in parts else MISSING for model in models}
        empty, missing = sort_states(states, facts["status"])
        found[organ] = OrganErrors(**facts, files=files, prediction_empty=empty, prediction_missing=missing)
    return found


def _list_finished(study: Study, model: str) -> set[str] | None:
    """Return the scans a model's inference table calls ok; None where there is no table."""
    path = study.inference_path(model)
    if not path.exists():
        return None
    table = pd.read_parquet(path, columns=["scan", "status"])
    return set(table.loc[table["status"] == "ok", "scan"])


def _list_found(
    results: Sequence[dict[str, OrganErrors] | CaseFailure], organ: str, templates: dict[str, Template]
) -> list[OrganErrors]:
    if organ not in templates:
        nothing = OrganErrors("no_template", "too few subjects have this organ for a template")
        return [nothing] * len(results)
    found = [
        OrganErrors("failed", result.error) if isinstance(result, CaseFailure) else result[organ] for result in results
    ]
    return _flag_poor(found, templates[organ].radius_mm)


def _flag_poor(found: list[OrganErrors], radius_mm: float) -> list[OrganErrors]:
    """Leave out the errors of organs whose registration is not good enough, and say why."""
    usable = [place for place, one in enumerate(found) if one.status == "ok"]
    reasons = flag_poor_matches([found[place].distance_mm for place in usable], radius_mm=radius_mm)
    flagged = list(found)
    for place, reason in zip(usable, reasons, strict=True):
        folded = found[place].folded
        if not reason and folded > LARGEST_FOLDED:
            reason = f"the registration folds on {100 * folded:.0f} % of the surface"
        if reason:
            flagged[place] = replace(found[place], status="poor", reason=reason, files={})
    return flagged


def _plan(
    study: Study,
    cohort: pd.DataFrame,
    model: str,
    organ: str,
    template: Template | None,
    found: Sequence[OrganErrors],
    work: Path,
) -> list[AttributeTests]:
    """Write the errors of one model and organ, and design their tests."""
    vertices = 0 if template is None else len(template.vertices_mm)
    usable = [place for place, one in enumerate(found) if one.status == "ok" and model in one.files]
    missed = [place for place in usable if model in found[place].prediction_empty]
    measured = [place for place in usable if model not in found[place].prediction_empty]
    place_of = work / organ / model
    place_of.mkdir(parents=True, exist_ok=True)
    # In a file: of many scans they would not fit into memory. (One of no length cannot be mapped.)
    errors = np.empty((0, vertices), np.float32)
    if measured and vertices:
        errors = np.lib.format.open_memmap(
            place_of / "errors.npy", mode="w+", dtype=np.float32, shape=(len(measured), vertices)
        )
    for row, place in enumerate(measured):
        errors[row] = load_arrays(found[place].files[model])["errors_mm"]
    write_errors(study, organ, model, cohort["number"].to_numpy()[measured], errors)
    if template is None:
        return []
    subjects = cohort["subject"].astype(str)
    metrics = study.parameters.metrics
    people = average_people(
        errors,
        subjects.iloc[measured],
        np.array([load_arrays(found[place].files[""])["present"] for place in missed], bool).reshape(-1, vertices),
        subjects.iloc[missed],
        tolerance_mm=metrics.tolerances_mm.get(organ, metrics.tolerance_mm),
        folder=place_of if usable else None,
    )
    volumes_ml = pd.Series([one.volume_ml for one in found], index=subjects).groupby(level=0).mean()
    every_missed = [place for place, one in enumerate(found) if model in one.prediction_empty]
    return plan_tests(study, cohort, model, organ, people, list(subjects.iloc[every_missed]), volumes_ml, place_of)


def _tabulate_quality(cohort: pd.DataFrame, found: Sequence[OrganErrors]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": cohort["number"].to_numpy(),
            "distance_mm": np.round([one.distance_mm for one in found], 3),
            "status": [one.status for one in found],
            "reason": [one.reason for one in found],
            "prediction_empty": ["; ".join(one.prediction_empty) for one in found],
            "prediction_missing": ["; ".join(one.prediction_missing) for one in found],
            "affine_distance_mm": np.round([one.affine_distance_mm for one in found], 3),
            "jacobian_min": [round(one.least_change, 3) for one in found],
            "in_view": [round(one.in_view, 4) for one in found],
            "cut": [one.cut for one in found],
        }
    )


def _note_left_out(organ: str, found: Sequence[OrganErrors], notes: list[str]) -> None:
    head = name_organ(organ)
    for status, what in (
        ("poor", "fit the template poorly and were left out"),
        ("failed", "could not be measured"),
        ("reference_empty", "do not show the organ in the reference"),
    ):
        count = sum(one.status == status for one in found)
        if count:
            notes.append(f"{head}: {count} of {len(found)} scans {what} (see spatial/{organ}/quality.csv)")
    cut = sum(one.cut for one in found)
    if cut:
        notes.append(
            f"{head}: the field of view cuts the organ in {cut} of {len(found)} scans; "
            "what it does not show is missing there, not without error"
        )


def _note_missed(model: str, organ: str, found: Sequence[OrganErrors], notes: list[str]) -> None:
    empty = sum(model in one.prediction_empty for one in found)
    if empty:
        notes.append(
            f"{model}, {name_organ(organ)}: {empty} scans with an empty prediction have no surface error; "
            "maps in mm show the others, maps of misses count them everywhere"
        )
    missing = sum(model in one.prediction_missing for one in found)
    if missing:
        notes.append(f"{model}, {name_organ(organ)}: {missing} scans have no usable prediction")
