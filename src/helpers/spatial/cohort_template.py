"""The templates of a study: made from its cohort, kept from an earlier run, or another study's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.compute import CaseFailure, map_cases
from helpers.errors import StageError
from helpers.parameters import Compute
from helpers.spatial.correspondence import AffineAlignment, DistanceField
from helpers.spatial.measuring import SurfaceCase, measure_shapes
from helpers.spatial.template import (
    MIN_SHAPES,
    AlignmentStep,
    ShapeSum,
    Template,
    add_shapes,
    build_template,
    choose_shapes,
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
    for organ, template in templates.items():
        template.save(folder / organ / "template.npz")
    return templates


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
    """Build a template per organ from the first scan of each subject."""
    compute, vertices = study.parameters.compute, study.parameters.spatial.vertices
    first = cohort.drop_duplicates("subject")
    if len(first) > MAX_TEMPLATE_SUBJECTS:
        chosen = np.random.default_rng(study.seed_for("spatial", "template")).permutation(len(first))
        first = first.iloc[np.sort(chosen[:MAX_TEMPLATE_SUBJECTS])]
        notes.append(
            f"templates are the mean of {MAX_TEMPLATE_SUBJECTS} of {cohort['subject'].nunique()} subjects, "
            "drawn by the study's seed"
        )
    cases = [make_case(study, row, organs) for row in first.itertuples()]
    shapes = map_cases(measure_shapes, cases, ids=[case.name for case in cases], compute=compute, label="organ shapes")
    templates = {}
    for organ in organs:
        of_organ = [found[organ] for found in shapes if not isinstance(found, CaseFailure) and organ in found]
        if len(of_organ) < MIN_SHAPES:
            people = f"{len(of_organ)} subject{'' if len(of_organ) == 1 else 's'} with this organ"
            notes.append(f"{name_organ(organ)}: {people}; a template needs at least {MIN_SHAPES}, so there is no map")
            continue
        made_from = hash_ingredients(choose_shapes(of_organ), vertices=vertices)
        kept = _find_kept(study.folder / "spatial" / organ / "template.npz", made_from)
        if kept is not None:
            templates[organ] = kept
            continue
        # Workers get paths, not pixels, in the study's folder, which a cluster's workers see.
        folder = study.folder / "spatial"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".shapes-", dir=folder) as shapes_folder:
            label = f"template of {name_organ(organ)}"
            add_all = partial(add_all_shapes, folder=Path(shapes_folder), compute=compute, label=label)
            try:
                templates[organ] = build_template(of_organ, add_all, vertices=vertices, made_from=made_from)
            except ValueError as error:
                notes.append(f"{name_organ(organ)}: no template could be made ({error}), so there is no map")
    return templates


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
