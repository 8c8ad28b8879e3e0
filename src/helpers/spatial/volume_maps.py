"""The volumes of stage 04: NIfTI files of where masks are wrong, in template space."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import volumes
from helpers.compute import CaseFailure, map_cases
from helpers.kept import load_arrays
from helpers.spatial.frequencies import KINDS, TemplateGrid, count_errors
from helpers.spatial.maps import ATTRIBUTE_PREFIX, list_attributes
from helpers.spatial.tables import type_table
from helpers.spatial.template import Template
from helpers.study import Study

FOLDER = "volumes"


@dataclass(frozen=True)
class ModelVolumes:
    """The volumes of one model and organ that are to be written.

    Groups smaller than `min_group` get no volume; a voxel that fewer people's scans show is 0.
    """

    organ: str
    model: str
    folder: Path  # the study's "spatial"
    files: tuple[tuple[Path, Path], ...]  # per scan: what it shows, and where the model is wrong
    weights: np.ndarray  # (n_scans,): one over the number of the person's scans
    names: tuple[tuple[str, str], ...]  # attribute and group; ("", "") for everybody
    members: np.ndarray  # bool, (n_groups, n_scans)
    min_group: int


def write_volumes(
    study: Study,
    cohort: pd.DataFrame,
    templates: Mapping[str, Template],
    comparisons: Mapping[tuple[str, str], Sequence[tuple[int, tuple[Path, Path]]]],
) -> pd.DataFrame:
    """Write how often models draw too much and too little, of everybody and per large enough group.

    `comparisons` has, by organ and model, the places of scans in the cohort and their files, with
    ``seen`` and ``wrong`` (:func:`helpers.spatial.frequencies.count_errors`). Returns
    volumes.csv: a row per file.
    """
    folder, min_group, rows = study.folder / "spatial", study.parameters.fairness.min_group, []
    for organ, template in templates.items():
        for stale in (folder / organ / FOLDER).rglob("*.nii.gz"):
            stale.unlink()
        grid = TemplateGrid.of(template)
        path = folder / organ / FOLDER / "template.nii.gz"
        volumes.write_volume(grid.as_image(grid.inside.astype(np.uint8)), path)
        rows.append(
            {"organ": organ, "kind": "template", "n": template.subjects, "file": path.relative_to(folder).as_posix()}
        )
    cases = []
    for (organ, model), found in comparisons.items():
        if not found:
            continue
        scans = cohort.iloc[[place for place, _ in found]]
        groups, members = list_members(scans)
        weights = 1 / scans.groupby("subject")["subject"].transform("size").to_numpy(float)
        files = tuple(file for _, file in found)
        cases.append(ModelVolumes(organ, model, folder, files, weights, tuple(groups), members, min_group))
    names = [f"{case.model}, {case.organ}" for case in cases]
    written = map_cases(write_model_volumes, cases, ids=names, compute=study.parameters.compute, label="error volumes")
    for part in written:
        rows += [] if isinstance(part, CaseFailure) else part
    return type_table(pd.DataFrame(rows), "spatial_volumes")


def write_model_volumes(case: ModelVolumes) -> list[dict[str, object]]:
    """Write the volumes of one model and organ; return their rows of volumes.csv."""
    grid = TemplateGrid.of(Template.load(case.folder / case.organ / "template.npz"))
    scans = ((load_arrays(shown)["seen"], load_arrays(compared)["wrong"]) for shown, compared in case.files)
    counted = count_errors(scans, case.weights, case.members, grid, min_people=case.min_group)
    rows: list[dict[str, object]] = []
    taken: set[str] = set()
    for (attribute, group), frequencies in zip(case.names, counted, strict=True):
        if frequencies.people < case.min_group:
            continue
        for kind in KINDS:
            path = case.folder / case.organ / FOLDER / case.model / _name_file([attribute, group, kind], taken)
            volumes.write_volume(grid.as_image(getattr(frequencies, kind)), path)
            rows.append(
                {
                    "organ": case.organ, "model": case.model, "attribute": attribute, "group": group, "kind": kind,
                    "n": frequencies.people, "file": path.relative_to(case.folder).as_posix(),
                }
            )  # fmt: skip
    return rows


def list_members(scans: pd.DataFrame) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return (attribute, group) of everybody ("", "") and each group, and their scans."""
    names, members = [("", "")], [np.ones(len(scans), bool)]
    for attribute in list_attributes(scans):
        groups = scans[f"{ATTRIBUTE_PREFIX}{attribute}"].astype("category")
        for group in groups.cat.categories:
            names.append((attribute, str(group)))
            members.append((groups == group).to_numpy(bool))
    return names, np.array(members)


def _name_file(parts: Sequence[str], taken: set[str]) -> str:
    """Return a file name made of words that any system takes, unlike those there are."""
    stem = "_".join(re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-") or "x" for part in parts if part)
    number, name = 1, f"{stem}.nii.gz"
    while name in taken:
        number += 1
        name = f"{stem}_{number}.nii.gz"
    taken.add(name)
    return name
