"""The templates of a study: made from its cohort, kept from an earlier run, or another study's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import volumes
from helpers.compute import CaseFailure, map_cases
from helpers.errors import StageError
from helpers.kept import Ingredients, Kept, hash_code, hash_settings
from helpers.parameters import Compute
from helpers.resuming import read_contents
from helpers.spatial.correspondence import AffineAlignment, DistanceField
from helpers.spatial.measuring import SurfaceCase, measure_shapes
from helpers.spatial.template import (
    MIN_SHAPES,
    AlignmentStep,
    ShapeSum,
    Template,
    add_shapes,
    build_template,
    choose_whole,
    hash_ingredients,
)
from helpers.study import Study
from helpers.vocabulary.words import name_organ, name_scan

# More people make the mean shape no better, only slower.
MAX_TEMPLATE_SUBJECTS = 60
# Shapes that one piece of work adds up: what comes back is one sum, however many they are.
SHAPES_PER_PART = 6


def make_templates(study: Study, cohort: pd.DataFrame, organs: Sequence[str], notes: list[str]) -> dict[str, Template]:
    """Return a template per organ, and leave each as ``spatial/<organ>/template.npz``.

    Of the included scans in `cohort`. Sentences on what is left out are added to `notes`. A
    StageError where ``spatial.template`` names a folder that lacks a template.
    """
    folder = study.folder / "spatial"
    if study.parameters.spatial.template is not None:
        source = study.resolve(study.parameters.spatial.template)
        templates = {organ: _take_template(source, organ) for organ in organs}
        notes.append("the templates are another study's: places can be compared between the two")
    else:
        templates = _build_templates(study, cohort, organs, notes)
    paths = {organ: folder / organ / "template.npz" for organ in templates}
    for organ, template in templates.items():
        template.save(paths[organ])
    # As a later run finds them: a file holds fewer digits.
    return {organ: Template.load(path) for organ, path in paths.items()}


def make_case(study: Study, row: object, organs: Sequence[str]) -> SurfaceCase:
    """Return what a worker needs to know of one row of the cohort."""
    return SurfaceCase(
        name=name_scan(row.number),  # type: ignore[attr-defined]
        reference=Path(row.reference),  # type: ignore[attr-defined]
        organs=study.parameters.cohort.organs,
        organ_ids=study.organ_ids,
        wanted=tuple(organs),
        grid_mm=study.parameters.spatial.grid_mm,
    )


def _take_template(source: Path, organ: str) -> Template:
    path = source / organ / "template.npz"
    if not path.exists():
        raise StageError(
            f"spatial.template: {path} is missing: name the folder `spatial` of a study whose templates include "
            f"{organ}, or leave the key out"
        )
    return Template.load(path)


def _build_templates(
    study: Study, cohort: pd.DataFrame, organs: Sequence[str], notes: list[str]
) -> dict[str, Template]:
    """Build a template per organ from the first scan of each subject, or take the one there is."""
    compute, vertices = study.parameters.compute, study.parameters.spatial.vertices
    first = cohort.drop_duplicates("subject")
    if len(first) > MAX_TEMPLATE_SUBJECTS:
        first = _draw_subjects(study, first)
        notes.append(
            f"templates are the mean of {MAX_TEMPLATE_SUBJECTS} of {cohort['subject'].nunique()} subjects, "
            "drawn by the study's seed"
        )
    cases = [make_case(study, row, organs) for row in first.itertuples()]
    kept = Kept(study.folder, "shapes")
    read_contents(kept.contents, [path for case in cases for path in _want(case).places], compute)
    keys = [kept.make_key(_want(case)) for case in cases]
    known = [None if key is None else kept.records.get(key) for key in keys]
    shapes: list[dict[str, DistanceField]] = []

    def measure() -> list[dict[str, tuple[str, bool]]]:
        ids = [case.name for case in cases]
        found = map_cases(measure_shapes, cases, ids=ids, compute=compute, label="organ shapes")
        shapes.extend({} if isinstance(one, CaseFailure) else one for one in found)
        noted = [{organ: (one.hash_content(), bool(one.cut.any())) for organ, one in of.items()} for of in shapes]
        for key, note, one in zip(keys, noted, found, strict=True):
            if key is not None and not isinstance(one, CaseFailure):
                kept.records.put(key, note)
        kept.records.sweep([key for key in keys if key is not None])
        return noted

    noted: list[Any] = known if all(one is not None for one in known) else measure()
    templates = {}
    for organ in organs:
        of_organ = [one[organ] for one in noted if organ in one]
        if len(of_organ) < MIN_SHAPES:
            people = f"{len(of_organ)} subject{'' if len(of_organ) == 1 else 's'} with this organ"
            notes.append(f"{name_organ(organ)}: {people}; a template needs at least {MIN_SHAPES}, so there is no map")
            continue
        chosen = choose_whole([cut for _, cut in of_organ])
        made_from = hash_ingredients([of_organ[place][0] for place in chosen], vertices=vertices)
        former = _find_kept(study.folder / "spatial" / organ / "template.npz", made_from)
        if former is not None:
            templates[organ] = former
            continue
        if not shapes:
            measure()
        # Workers get paths, not pixels, in the study's folder, which a cluster's workers see.
        folder = study.folder / "spatial"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".shapes-", dir=folder) as shapes_folder:
            label = f"template of {name_organ(organ)}"
            add_all = partial(add_all_shapes, folder=Path(shapes_folder), compute=compute, label=label)
            fields = [found[organ] for found in shapes if organ in found]
            try:
                templates[organ] = build_template(fields, add_all, vertices=vertices, made_from=made_from)
            except ValueError as error:
                notes.append(f"{name_organ(organ)}: no template could be made ({error}), so there is no map")
    return templates


def _draw_subjects(study: Study, first: pd.DataFrame) -> pd.DataFrame:
    """Draw the template's subjects, each by a number of their own: who joins changes few others."""
    numbers = [study.seed_for("spatial", "template", subject) for subject in first["subject"]]
    return first.iloc[np.sort(np.argsort(numbers, kind="stable")[:MAX_TEMPLATE_SUBJECTS])]


def _want(case: SurfaceCase) -> Ingredients:
    places = (case.reference, *volumes.list_lookup_tables(case.reference, case.organs))
    settings = hash_settings(hash_code("spatial.measuring"), case.organs, case.organ_ids, case.wanted, case.grid_mm)
    return Ingredients(places, settings)


def _find_kept(path: Path, made_from: str) -> Template | None:
    """Return an earlier run's template, if made from the same shapes in the same way."""
    try:
        template = Template.load(path)
    except StageError:
        return None
    return template if template.made_from == made_from else None


def add_all_shapes(
    canvas: DistanceField,
    fields: Sequence[DistanceField],
    starts: Sequence[AffineAlignment],
    step: AlignmentStep,
    *,
    folder: Path,
    compute: Compute,
    label: str,
) -> list[ShapeSum]:
    """Add shapes up on a canvas, a few at a time, wherever `compute` says, by way of `folder`."""
    mean = folder / f"mean{len(list(folder.glob('mean*')))}.npz"
    canvas.save(mean)
    paths = [folder / f"{field.name}.npz" for field in fields]
    for field, path in zip(fields, paths, strict=True):
        if not path.exists():
            field.save(path)
    parts = [slice(start, start + SHAPES_PER_PART) for start in range(0, len(fields), SHAPES_PER_PART)]
    found = map_cases(
        _add_some,
        [(mean, paths[part], starts[part], step) for part in parts],
        ids=[f"{fields[part][0].name} to {fields[part][-1].name}" for part in parts],
        compute=compute,
        label=label,
    )
    failed = [one for one in found if isinstance(one, CaseFailure)]
    if failed:
        raise ValueError(failed[0].error)
    return found


def _add_some(case: tuple[Path, Sequence[Path], Sequence[AffineAlignment], AlignmentStep]) -> ShapeSum:
    mean, paths, starts, step = case
    return add_shapes(_load_mean(mean), [DistanceField.load(path) for path in paths], starts, step)


@lru_cache(maxsize=2)
def _load_mean(path: Path) -> DistanceField:
    return DistanceField.load(path)
