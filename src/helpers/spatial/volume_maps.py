"""The volumetric view of stage 04: NIfTI files of where masks are wrong, in template space, and a table that names them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import volumes
from helpers.spatial.frequencies import KINDS, TemplateGrid, count_errors
from helpers.spatial.maps import ATTRIBUTE_PREFIX, list_attributes
from helpers.spatial.tables import VOLUME_COLUMNS, type_table
from helpers.spatial.template import Template
from helpers.study import Study

FOLDER = "volumes"


def write_volumes(
    study: Study,
    cohort: pd.DataFrame,
    organ: str,
    template: Template,
    comparisons: Mapping[str, Sequence[tuple[int, Path]]],
) -> list[dict[str, object]]:
    """Write how often models draw too much and too little, over everybody and per group that is large enough.

    Parameters
    ----------
    study : Study
    cohort : DataFrame
        The included scans.
    organ : str
    template : Template
    comparisons : mapping of str to sequence of (int, Path)
        By model: the place of a scan in the cohort, and its file of :func:`helpers.spatial.frequencies.write_comparison`.

    Returns
    -------
    list of dict
        Rows of volumes.csv.
    """
    folder, min_group = study.folder / "spatial", study.parameters.fairness.min_group
    for stale in (folder / organ / FOLDER).glob("*.nii.gz"):
        stale.unlink()
    grid = TemplateGrid.of(template)
    path = folder / organ / FOLDER / "template.nii.gz"
    volumes.write_volume(grid.as_image(grid.inside.astype(np.uint8)), path)
    rows: list[dict[str, object]] = [
        {"organ": organ, "kind": "template", "n": template.subjects, "file": str(path.relative_to(folder))}
    ]
    taken: set[str] = {path.name}
    for model, found in comparisons.items():
        if not found:
            continue
        scans = cohort.iloc[[place for place, _ in found]]
        names, members = list_members(scans)
        weights = 1 / scans.groupby("subject")["subject"].transform("size").to_numpy(float)
        counted = count_errors([file for _, file in found], weights, members, model, grid, min_people=min_group)
        for (attribute, group), frequencies in zip(names, counted, strict=True):
            if frequencies.people < min_group:
                continue
            for kind in KINDS:
                path = folder / organ / FOLDER / _name_file([model, attribute, group, kind], taken)
                volumes.write_volume(grid.as_image(getattr(frequencies, kind)), path)
                rows.append(
                    {
                        "organ": organ, "model": model, "attribute": attribute, "group": group, "kind": kind,
                        "n": frequencies.people, "file": str(path.relative_to(folder)),
                    }
                )  # fmt: skip
    return rows


def tabulate_volumes(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Return volumes.csv."""
    return type_table(pd.DataFrame(list(rows), columns=VOLUME_COLUMNS), VOLUME_COLUMNS)


def list_members(scans: pd.DataFrame) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return (attribute, group) of everybody ("", "") and of every group, and which scans belong to each."""
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
