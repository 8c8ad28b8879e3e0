"""What stage 04 leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from helpers import storage
from helpers.schema import TABLES
from helpers.spatial.maps import list_blocks
from helpers.spatial.template import Template
from helpers.study import Study
from helpers.vocabulary.words import name_scan


@dataclass(frozen=True)
class SpatialMaps:
    """What stage 04 found."""

    # The tables of spatial/ (docs/TABLES.md): maps.parquet, slopes.parquet, summary.csv,
    # slopes.csv, groups.csv, every organ's quality.csv, and volumes.csv.
    maps: pd.DataFrame
    slopes: pd.DataFrame
    summary: pd.DataFrame
    slope_summary: pd.DataFrame
    groups: pd.DataFrame
    quality: pd.DataFrame
    volumes: pd.DataFrame
    templates: dict[str, Template]  # by organ; organs without enough subjects are absent
    notes: list[str]  # what was left out, and why

    def list_failures(self) -> dict[str, str]:
        """Return the reason per organ and scan that is in no map, for run.json."""
        left_out = self.quality[self.quality["status"].isin(["poor", "failed"])]
        return {f"{row.organ}, {name_scan(row.number)}": row.reason for row in left_out.itertuples()}


def list_organs(study: Study) -> list[str]:
    """Return the organs that are looked at: those of ``spatial.organs``, else the study's first."""
    return list(study.parameters.spatial.organs) or list(study.parameters.cohort.organs)[:1]


def write_maps(study: Study, result: SpatialMaps) -> None:
    """Write a study's tables (templates, errors and volumes are written where they are made)."""
    folder = study.folder / "spatial"
    storage.write_json(result.notes, folder / "notes.json")
    for organ in list_organs(study):
        rows = result.quality[result.quality["organ"] == organ]
        storage.write_table(rows[TABLES["quality"].names], study.path("quality", organ=organ))
    for name, table in (
        ("spatial_groups", result.groups),
        ("spatial_summary", result.summary),
        ("slope_summary", result.slope_summary),
        ("spatial_volumes", result.volumes),
        ("slopes", result.slopes),
        ("maps", result.maps),
    ):
        storage.write_table(table, study.path(name))


def write_errors(study: Study, organ: str, model: str, numbers: np.ndarray, errors_mm: np.ndarray) -> None:
    """Write the signed errors of one model and organ: a row per scan and vertex."""
    scans, vertices = errors_mm.shape
    path = study.folder / "spatial" / organ / f"errors_{model}.parquet"
    with storage.write_atomically(path) as temporary:
        writer = None
        for block in list_blocks(scans, vertices) or [slice(0, 0)]:
            part = np.asarray(errors_mm[block])
            table = pa.table(
                {
                    "number": np.repeat(numbers[block].astype(np.int32), vertices),
                    "vertex": np.tile(np.arange(vertices, dtype=np.int32), len(part)),
                    "error_mm": part.ravel(),
                }
            )
            writer = writer or parquet.ParquetWriter(temporary, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
