"""An output folder → the report's sections: which tables, figures and sentences, in which order.

Reads the folder alone. What a stage has not written yet is said, and the rest is composed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from helpers import __version__, provenance, storage
from helpers.errors import SegfairError
from helpers.figures.style import METRIC_LABELS, name_for_people
from helpers.parameters import Parameters
from helpers.report import sentences

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Text:
    """Paragraphs, or the points of a list when `listed`."""

    paragraphs: list[str]
    listed: bool = False


@dataclass(frozen=True)
class Figure:
    """A plotly figure, its heading, and how to read it."""

    figure: go.Figure
    title: str
    caption: str
    folded: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first column heads the rows.

    `tones` (same shape, words such as ``shown-2``) colours cells; the words in the cells say the same.
    """

    table: pd.DataFrame
    caption: str
    tones: pd.DataFrame | None = None
    folded: bool = False


@dataclass(frozen=True)
class Note:
    """A remark that must not be missed: something absent, or a limit."""

    text: str


Block = Text | Figure | Table | Note


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        """The section's id within the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Report:
    """The composed report."""

    title: str
    sections: list[Section]

    def list_sections(self) -> pd.DataFrame:
        """Return one row per section: section, texts, figures, tables, notes (counts)."""
        kinds = {"texts": Text, "figures": Figure, "tables": Table, "notes": Note}
        return pd.DataFrame(
            [
                {"section": section.title}
                | {name: sum(isinstance(block, kind) for block in section.blocks) for name, kind in kinds.items()}
                for section in self.sections
            ],
            columns=["section", *kinds],
        )


@dataclass(frozen=True)
class Results:
    """Everything an output folder holds, as far as it is there; `absent` says what is not."""

    folder: Path
    parameters: Parameters
    run: dict[str, Any]
    cohort: pd.DataFrame | None
    inference: pd.DataFrame | None
    metrics: pd.DataFrame | None
    groups: pd.DataFrame | None
    disparity: pd.DataFrame | None
    summary: pd.DataFrame | None
    absent: list[str] = field(default_factory=list)

    @property
    def included(self) -> pd.DataFrame:
        """The included scans; no rows where there is no cohort."""
        if self.cohort is None:
            return pd.DataFrame(columns=["subject", "scan", "number"])
        return self.cohort[self.cohort["included"].astype(bool)]

    @property
    def attributes(self) -> list[str]:
        """The attributes that the cohort has groups for, in the order of the parameters."""
        if self.cohort is None:
            return list(self.parameters.cohort.attributes)
        grouped = [column.removeprefix("group_") for column in self.cohort if column.startswith("group_")]
        named = [name for name in self.parameters.cohort.attributes if name in grouped]
        return named + [name for name in grouped if name not in named]

    @property
    def organs(self) -> list[str]:
        """The organs, in the order of the parameters."""
        return list(self.parameters.cohort.organs)

    @property
    def models(self) -> list[str]:
        """The models, in the order of the parameters."""
        return [model.name for model in self.parameters.models]

    def count_people(self, attribute: str) -> pd.Series:
        """Return the number of people (not scans) in each group, empty groups included."""
        groups = self.included[f"group_{attribute}"]
        named = (
            list(groups.cat.categories)
            if isinstance(groups.dtype, pd.CategoricalDtype)
            else sorted(groups.dropna().unique())
        )
        subjects = self.included["subject"]
        return pd.Series({group: subjects[groups == group].nunique() for group in named}, dtype="int64")

    def list_testable(self) -> list[str]:
        """Return the attributes with at least two groups of `fairness.min_group` people."""
        smallest = self.parameters.fairness.min_group
        if self.cohort is None:
            return []
        return [name for name in self.attributes if (self.count_people(name) >= smallest).sum() >= 2]


class Scrubber:
    """Takes out of free text what could say who somebody is: source ids, paths, addresses.

    Scan and subject ids become study-local numbers (``scan 012``); ids of under four digits, which any
    count may equal, only where a word such as "scan" stands before them.
    """

    def __init__(self, cohort: pd.DataFrame | None) -> None:
        known: dict[str, str] = {}
        self._files: list[str] = []
        if cohort is not None:
            for row in cohort.itertuples():
                label = f"scan {int(row.number):03d}"
                for value in (row.subject, row.scan):
                    if isinstance(value, str) and value.strip():
                        known.setdefault(value, label)
            for column in ("reference", "image"):
                if column in cohort:
                    paths = [Path(text) for text in cohort[column].dropna().astype(str)]
                    self._files += [str(path) for path in paths] + [path.name for path in paths if path.name]
        self._files = sorted(set(self._files), key=len, reverse=True)
        self._known = known
        distinct = sorted((key for key in known if not _is_plain(key)), key=len, reverse=True)
        plain = sorted((key for key in known if _is_plain(key)), key=len, reverse=True)
        self._distinct = _join_pattern(distinct, before="")
        self._plain = _join_pattern(
            plain, before=r"(?P<word>\b(?:scan|case|subject|patient|participant|person)s?[\s:#=]*)"
        )

    def clean(self, text: Any) -> str:
        """Return `text` in one line without ids, paths, file names and addresses."""
        cleaned = " ".join(str(text).split())
        for name in self._files:
            cleaned = cleaned.replace(name, "a file")
        cleaned = re.sub(r"([\"'])(?=[^\"']*[/\\])[^\"']*\1", "a file", cleaned)
        cleaned = re.sub(r"\b[a-z][a-z0-9+.-]*://\S+", "an address", cleaned, flags=re.IGNORECASE)
        cleaned = re.sub(r"[\w.+-]+@[\w.-]+", "an address", cleaned)
        cleaned = re.sub(r"\S*[/\\]\S*", _hide_path, cleaned)
        cleaned = re.sub(
            r"\S+\.(?:nii(?:\.gz)?|dcm|nrrd|mha|mhd|csv|tsv|xlsx|parquet|ya?ml|json|pth?|safetensors|npz?)\b",
            "a file",
            cleaned,
        )
        return self.mask_ids(cleaned)

    def mask_ids(self, text: str) -> str:
        """Return `text` with source ids replaced by scan numbers."""
        if text in self._known and not _is_plain(text):
            return self._known[text]
        if self._distinct is not None:
            text = self._distinct.sub(lambda match: self._known[match["id"]], text)
        if self._plain is not None:
            text = self._plain.sub(lambda match: self._known[match["id"]], text)
        return re.sub(r"\b(?:scan|case|subject|patient)\s+(scan \d{3,})", r"\1", text)

    def has_ids(self, values: Iterable[Any]) -> bool:
        """Tell whether any of `values` is a source id as it stands."""
        return any(str(value) in self._known and not _is_plain(str(value)) for value in values)


def read_results(folder: Path) -> Results:
    """Read what lies in an output folder.

    Raises
    ------
    SegfairError
        The folder is no study's output folder, or its ``study.yaml`` is damaged.
    """
    folder = Path(folder)
    snapshot = folder / "study.yaml"
    if not snapshot.is_file():
        raise SegfairError(
            f"{folder}: is no output folder (study.yaml is not in it): name one such as outputs/demo, or run the study first"
        )
    try:
        parameters = Parameters.model_validate(yaml.safe_load(snapshot.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise SegfairError(
            f"{snapshot}: cannot be read as parameters ({type(error).__name__}): run the study again"
        ) from error
    absent: list[str] = []

    def read(name: str, stage: str, what: str) -> pd.DataFrame | None:
        path = folder / name
        if not path.exists():
            absent.append(f"{what}: stage {stage} has not been run.")
            return None
        try:
            return storage.read_table(path, made_by=stage)
        except (OSError, ValueError) as error:
            absent.append(f"{what}: {name} cannot be read ({type(error).__name__}); run stage {stage} again.")
            return None

    cohort = read("cohort.parquet", "01_cohort", "Who was studied")
    if cohort is not None:
        cohort = cohort.assign(subject=cohort["subject"].astype(str), scan=cohort["scan"].astype(str))
    tables = []
    for model in parameters.models:
        table = read(f"predictions/{model.name}/inference.parquet", "02_inference", f"Inference by {model.name}")
        if table is not None:
            tables.append(table.assign(model=model.name))
    return Results(
        folder=folder,
        parameters=parameters,
        run=provenance.read_run(folder),
        cohort=cohort,
        inference=pd.concat(tables, ignore_index=True) if tables else None,
        metrics=read("metrics.parquet", "03_performance", "Performance"),
        groups=read("fairness/groups.csv", "03_performance", "Performance by group"),
        disparity=read("fairness/disparity.csv", "03_performance", "Gaps between groups"),
        summary=read("spatial/summary.csv", "04_spatial", "Where in the organ"),
        absent=absent,
    )


def compose_report(folder: Path) -> Report:
    """Compose the report of an output folder.

    Parameters
    ----------
    folder : Path
        A study's output folder, such as ``outputs/demo``.

    Raises
    ------
    SegfairError
        The folder is none.
    """
    results = read_results(folder)
    scrubber = Scrubber(results.cohort)
    sections = [
        _compose_summary(results),
        _compose_cohort(results, scrubber),
        _compose_performance(results, scrubber),
        _compose_location(results, scrubber),
        _compose_limits(results),
        _compose_glossary(),
        _compose_methods(results),
    ]
    title = results.parameters.title or name_for_people(results.parameters.name)
    return Report(title=scrubber.clean(title), sections=sections)
