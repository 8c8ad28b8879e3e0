"""Tables of ready-made scores, long or wide → one row per scan, model and organ.

A table says of each score which scan, model, organ and metric it is of: by a column, by a file's
own name (``{model}/{metric}.csv``), or by a column's name (``liver``, ``liver_dice``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cohort.numbers import find_unreadable, read_numbers
from helpers.cohort.table_files import read_table_file
from helpers.errors import SegfairError, list_some
from helpers.parameters import RESERVED_ORGAN, ReadyScores
from helpers.study import Study
from helpers.vocabulary.measures import find_alias, find_measure, spell_plainly, use_measures
from helpers.vocabulary.words import count, list_words

KEYS = ("scan", "model", "organ")
SIZES = ("volume_ref_ml", "surface_ref_cm2")  # of the reference: the same for every model
_VOLUMES = {"volume_ref_ml", "volume_pred_ml"}
# What follows from measures that are given.
DERIVED = {
    "boundary_error_mm": {"dice", *SIZES},
    "volume_error_ml": _VOLUMES,
    "volume_error_relative": _VOLUMES,
}
# What columns are taken for where the study does not name them, in small letters and digits alone.
SCAN_NAMES = (
    "scan", "scanid", "case", "caseid", "imageid", "subject", "subjectid", "patient", "patientid", "id", "name",
    "image", "filename", "file",
)  # fmt: skip
_ALIASES = {
    "scan": SCAN_NAMES,
    "model": ("model", "method", "algorithm", "network", "architecture"),
    "organ": ("organ", "structure", "class", "label", "region"),
    "run": ("run", "seed", "repeat", "repetition"),
    "metric": ("metric", "measure"),
    "value": ("value", "score"),
}
_SUMMARIES = ("mean", "average", "avg", "overall", "total", RESERVED_ORGAN)  # columns that are no organ
_OF_PEOPLE = ("sex", "age", "bmi", "modality", "person")
_ONLY_MODEL, _ONLY_ORGAN = "model", "organ"  # names where no table gives one
_SUFFIX = r"\.(?:nii|nii\.gz|mha|nrrd)$"
_MISSING = ("na", "n/a", "nan", "null", "none", "#n/a", "-")


@dataclass(frozen=True)
class ScoreTable:
    """What the tables of scores hold."""

    # scan, model, organ, a column per measure (float64, NaN where the cell is empty); every cell
    # that the tables list, by scan, model and organ in the order in which they are first named.
    rows: pd.DataFrame
    notes: list[str] = field(default_factory=list)  # what had to be decided, in sentences

    @property
    def measures(self) -> list[str]:
        """The measures that are given."""
        return [name for name in self.rows if name not in KEYS]

    def list_scored(self) -> set[str]:
        """Return the scans that have a score."""
        return set(self.rows.loc[self.rows[self.measures].notna().any(axis=1), "scan"])


def read_scores(study: Study) -> ScoreTable:
    """Read the scores of a study whose source they are.

    Raises a SegfairError: a table is missing or does not say what its scores are of, a score is no
    number or lies outside its measure's range, a scan has two rows, or a metric, model or organ
    that the study asks for is not there.
    """
    table, given = _read_rows(study)
    if missing := [name for name in study.parameters.fairness.metrics if name not in given]:
        raise SegfairError(
            f"the tables of scores hold no {list_words(missing, last='or')}: list what they hold under "
            f"fairness.metrics ({', '.join(given)})"
        )
    return table


def list_given_scores(study: Study) -> list[str]:
    """Return the measures that a study's tables of scores give, whatever the study asks for."""
    return _read_rows(study)[1]


def _read_rows(study: Study) -> tuple[ScoreTable, list[str]]:
    """Return the scores, and which measures groups can be compared by are given or follow."""
    wanted = study.parameters.cohort.scores
    if wanted is None:
        raise SegfairError(f"{study.source.name}: has no ready-made scores (cohort.scores)")
    with use_measures(study.parameters.fairness.measures):
        cells, notes = _read_cells(study, wanted)
        cells = _rename(cells, wanted, study)
        cells["value"] = _scale(cells, wanted)
        _check_ranges(cells)
        _refuse_repeated(cells)
        if cells["run"].notna().any():
            cells = _average_runs(cells, notes)
        table = ScoreTable(_spread(cells), notes)
        given = [name for name in table.measures if find_measure(name).is_score]
    given += [name for name, needed in DERIVED.items() if needed <= set(table.measures) and name not in given]
    return table, given


def match_scans(scores: ScoreTable, people: pd.Series) -> tuple[ScoreTable, list[str]]:
    """Name the scores' scans as the table of people does, and say what has no person.

    Raises a SegfairError: no scan of the scores is in the table of people.
    """
    known, names = set(people.dropna().astype(str)), scores.rows["scan"]
    plain = names.str.replace(_SUFFIX, "", regex=True)
    names = names.where(names.isin(known), plain)
    found = names.isin(known)
    if not found.any():
        raise SegfairError(
            f"no scan of the scores ({list_some(names.unique())}) is in the table of people "
            f"({list_some(people.dropna().unique())}): name the columns that hold the same ids, under "
            "cohort.scores.columns (scan: …) and under cohort.columns (subject: … or scan: …)"
        )
    notes = []
    if not found.all():
        lost = names[~found]
        number = len(set(lost))
        notes.append(
            f"{count(number, 'scan')} of the scores ({list_some(lost.unique())}) {'is' if number == 1 else 'are'} not "
            "in the table of people: no part in the study"
        )
    rows = scores.rows.assign(scan=names)[found].reset_index(drop=True)
    if rows.duplicated(list(KEYS)).any():
        raise _say_repeated(rows[rows.duplicated(list(KEYS), keep=False)].iloc[0])
    return ScoreTable(rows, scores.notes), notes


def _read_cells(study: Study, wanted: ReadyScores) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per cell of any table: scan, model, organ, run, metric, value (text)."""
    cohort = study.parameters.cohort
    reader = _Reader(
        wanted,
        own=[one.name for one in study.parameters.fairness.declared],
        only_organ=next(iter(cohort.organs)) if len(cohort.organs) == 1 else _ONLY_ORGAN,
        people={*_OF_PEOPLE, *cohort.attributes, *cohort.confounders, *filter(None, [cohort.cluster])},
    )
    parts: list[pd.DataFrame] = []
    for pattern in wanted.path:
        files = study.find_score_files(pattern)
        if not files:
            raise SegfairError(f"{study.resolve(pattern)}: no such table of scores: correct cohort.scores.path")
        for path, told in files:
            parts += reader.read(path, told)
    aside = reader.aside
    if not sum(map(len, parts)):
        raise SegfairError(
            f"the tables of scores hold none ({list_some(aside)} is no metric): name the metric under "
            "cohort.scores.values (metric: …)"
        )
    cells = pd.concat(parts, ignore_index=True)
    notes = [f"what is no score is left aside: {list_some(aside)}"] if aside else []
    return cells, notes


@dataclass
class _Reader:
    """How a study's tables of scores are read."""

    wanted: ReadyScores
    own: Sequence[str]  # metrics that the study declares
    only_organ: str  # the organ's name where no table gives one
    people: set[str]  # columns that tell of people, not of organs
    aside: dict[str, None] = field(default_factory=dict)  # columns that are no score

    def read(self, path: Path, told: Mapping[str, str]) -> Iterator[pd.DataFrame]:
        """Yield a table's cells, column by column; `told` is what the path says they are of."""
        if "metric" in told and self._read_metric(told["metric"]) is None:
            self.aside[path.name] = None  # such as the table of people beside them
            return
        table = read_table_file(path, "table of scores", "cohort.scores.path")
        roles = self._find_roles(table, path, told)
        head = table[[roles[name] for name in (*KEYS, "run", "metric") if name in roles]]
        head = head.set_axis([name for name in (*KEYS, "run", "metric") if name in roles], axis=1).assign(**told)
        if "scan" not in head:
            raise SegfairError(
                f"{path.name}: no column names the scan; it has {', '.join(table)}: name it under "
                "cohort.scores.columns (scan: your column)"
            )
        columns = [column for column in table if column not in roles.values() and not self._is_aside(column)]
        # Where no column names a metric, the file may: dsc.csv, with a column per organ.
        if "metric" not in head and self._read_metric(path.stem) and not any(map(self._names_metric, columns)):
            head = head.assign(metric=path.stem)
        places = self._read_metric_columns(columns) if "metric" not in head else self._read_organ_columns(columns)
        if "value" in roles and "metric" in head:
            places = {roles["value"]: (None, None)}
        elif "organ" in head and "metric" in head and len(places) > 1:
            raise SegfairError(
                f"{path.name}: {', '.join(places)} may all be the score: name its column under cohort.scores.columns "
                "(value: your column)"
            )
        if not places:
            raise SegfairError(
                f"{path.name}: no column is a metric; it has {', '.join(table)}: name it under cohort.scores.columns "
                "(dice: your column), or declare a metric of your own under fairness.metrics"
            )
        for column, (organ, metric) in places.items():
            cells = head.assign(value=table[column])
            if "organ" not in cells:
                cells["organ"] = organ or self.only_organ
            if metric is None:
                known = {text: self._read_metric(text) for text in cells["metric"].dropna().unique()}
                self.aside |= {f"metric {text}": None for text, key in known.items() if key is None}
                cells["metric"] = cells["metric"].map(known)
                cells = cells[cells["metric"].notna()]
            else:
                cells["metric"] = metric
            yield cells.reindex(columns=[*KEYS, "run", "metric", "value"])

    def _read_organ_columns(self, columns: list[str]) -> dict[str, tuple[str | None, str | None]]:
        """Return the organ of each column of a table whose metric is known."""
        self.aside |= dict.fromkeys(column for column in columns if column.lower() in _SUMMARIES)
        return {column: (column, None) for column in columns if column not in self.aside}

    def _read_metric_columns(self, columns: list[str]) -> dict[str, tuple[str | None, str | None]]:
        """Return organ and metric of each column that names a metric, or organ and metric."""
        plain = {column: key for column in columns if (key := self._read_metric(column))}
        wide = {column: pair for column in columns if column not in plain and (pair := self._split(column))}
        wide = {column: pair for column, pair in wide.items() if pair[0].lower() not in _SUMMARIES}
        # Beside ``liver_dice``, a column ``dice`` is of no organ: a mean over them.
        found: dict[str, tuple[str | None, str | None]] = {**wide} or {
            column: (None, key) for column, key in plain.items()
        }
        self.aside |= dict.fromkeys(column for column in columns if column not in found)
        return found

    def _read_metric(self, text: str) -> str | None:
        named = {column: name for name, column in self.wanted.columns.items() if name not in _ALIASES}
        renamed = self.wanted.values.get("metric", {})  # noqa: PD011
        return find_alias(named.get(text) or renamed.get(text, text), self.own)

    def _names_metric(self, column: str) -> bool:
        return self._read_metric(column) is not None or self._split(column) is not None

    def _split(self, column: str) -> tuple[str, str] | None:
        """Split ``liver_dice`` or ``DSC liver`` into organ and metric; None where it is neither."""
        words = re.split(r"[_\s.:-]+", column)
        for size in range(len(words) - 1, 0, -1):
            for organ, metric in ((words[:-size], words[-size:]), (words[size:], words[:size])):
                if key := self._read_metric("_".join(metric)):
                    return "_".join(organ), key
        return None

    def _is_aside(self, column: str) -> bool:
        roles = {alias for aliases in _ALIASES.values() for alias in aliases}
        return column.startswith("Unnamed:") or column in self.people or spell_plainly(column) in roles

    def _find_roles(self, table: pd.DataFrame, path: Path, told: Mapping[str, str]) -> dict[str, str]:
        """Return the columns that say what a score is of, by role; none that the path tells."""
        absent = [column for column in self.wanted.columns.values() if column not in table]
        # Several tables need not hold the same columns, but one alone must.
        if absent and not told and len(self.wanted.path) == 1:
            raise SegfairError(
                f"{path.name}: has no column {absent[0]!r}, which cohort.scores.columns names; it has "
                f"{', '.join(table)}"
            )
        plain = {spell_plainly(column): column for column in reversed(list(table))}
        found = {}
        for role, aliases in _ALIASES.items():
            if role in told:
                continue
            if (named := self.wanted.columns.get(role)) in table:
                found[role] = str(named)
            elif (alias := next((alias for alias in aliases if alias in plain), None)) is not None:
                found[role] = plain[alias]
        return found


def _rename(cells: pd.DataFrame, wanted: ReadyScores, study: Study) -> pd.DataFrame:
    """Rename and keep models and organs; a score without a model is the only model's."""
    nowhere = cells["scan"].isna() | (cells["organ"].isna() & cells["value"].notna())
    if nowhere.any():
        what = "scan" if cells.loc[nowhere, "scan"].isna().any() else "organ"
        raise SegfairError(f"the tables of scores have {int(nowhere.sum())} scores without {what}: fill it in")
    sizes = cells["metric"].isin(SIZES)
    if not cells.loc[~sizes, "model"].notna().any():
        cells["model"] = cells["model"].mask(~sizes, _ONLY_MODEL)
    elif (lost := cells["model"].isna() & ~sizes).any():
        raise SegfairError(f"the tables of scores have {int(lost.sum())} scores without a model: fill it in")
    for name in ("model", "organ"):
        cells[name] = cells[name].replace(wanted.values.get(name, {}))  # noqa: PD011
    asked = {"model": wanted.models, "organ": list(study.parameters.cohort.organs)}
    places = {"model": "cohort.scores.models", "organ": "cohort.organs"}
    for name, kept in asked.items():
        there = cells[name].dropna().unique()
        if absent := [one for one in kept if one not in set(there)]:
            raise SegfairError(
                f"{places[name]} names {', '.join(absent)}, which no table of scores has; they have "
                f"{', '.join(map(str, there))}: correct it, or rename under cohort.scores.values ({name}: …)"
            )
        if kept:
            cells = cells[cells[name].isin(kept) | cells[name].isna()]
    if RESERVED_ORGAN in set(cells["organ"]):
        raise SegfairError(
            f"the tables of scores have an organ {RESERVED_ORGAN!r}, which names all organs pooled: rename it under "
            "cohort.scores.values, or list the organs to keep under cohort.organs"
        )
    return cells.reset_index(drop=True)


def _scale(cells: pd.DataFrame, wanted: ReadyScores) -> pd.Series:
    """Read the scores as numbers, those in percent as shares."""
    text = cells["value"].mask(cells["value"].str.lower().isin(_MISSING))
    values = pd.Series(np.nan, index=cells.index)
    for metric, part in text.groupby(cells["metric"]):
        values[part.index] = read_numbers(part)
        if len(bad := find_unreadable(part)):
            first = cells.loc[bad.index[0]]
            raise SegfairError(
                f"the tables of scores have {bad.iloc[0]!r} for {metric} ({_name_cell(first)}), which is not a number: "
                "write digits alone, or leave the cell empty"
            )
    percent = {find_alias(name) or name for name in wanted.percent}
    if unknown := sorted(percent - set(cells["metric"])):
        raise SegfairError(f"cohort.scores.percent names {', '.join(unknown)}, which the tables of scores do not have")
    return values.mask(cells["metric"].isin(percent), values / 100)


def _check_ranges(cells: pd.DataFrame) -> None:
    """Refuse scores that their measure cannot have."""
    for metric, part in cells.groupby("metric"):
        low, high = find_measure(str(metric)).bounds
        values = part["value"]
        outside = part[(values < low) | (values > high)]
        if outside.empty:
            continue
        first = outside.iloc[0]
        told = (
            f"the tables of scores have {metric} {first['value']:g} ({_name_cell(first)}), outside {low:g} to "
            f"{high:g}, in {len(outside)} of {int(values.notna().sum())} scores"
        )
        if (low, high) == (0.0, 1.0) and values.min() >= 0 and values.max() <= 100:
            raise SegfairError(f"{told}: if they are percent, write cohort.scores.percent: [{metric}]")
        raise SegfairError(f"{told}: correct them, or leave those cells empty")


def _refuse_repeated(cells: pd.DataFrame) -> None:
    again = cells.duplicated([*KEYS, "run", "metric"], keep=False)
    if again.any():
        raise _say_repeated(cells[again].iloc[0])


def _say_repeated(first: pd.Series) -> SegfairError:
    return SegfairError(
        f"the tables of scores have two rows for {_name_cell(first)}: keep one, or name the column that tells repeated "
        "runs apart under cohort.scores.columns (run: your column), and they are averaged"
    )


def _average_runs(cells: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Average each score over its runs."""
    by = cells.groupby([*KEYS, "metric"], sort=False, dropna=False)["value"]
    runs = by.count()
    scored = runs[runs > 0]
    most = int(scored.max()) if len(scored) else 0
    fewer = int((scored < most).sum())
    less = f"; {count(fewer, 'score rests', 'scores rest')} on fewer" if fewer else ""
    notes.append(f"scores are means over {count(most, 'run')}{less}")
    return by.mean().reset_index()


def _spread(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row per scan, model and organ with a column per measure; sizes for every model."""
    keys, shared = list(KEYS), cells["model"].isna()
    rows = cells.loc[~shared, keys].drop_duplicates().reset_index(drop=True)
    for of, on in ((~shared, keys), (shared, ["scan", "organ"])):
        for metric, part in cells[of].groupby("metric", sort=False):
            if metric in rows:
                raise SegfairError(f"the tables of scores give {metric} with models and without: leave one out")
            rows = rows.join(part.set_index(on)["value"].rename(str(metric)), on=on)
    return rows


def _name_cell(cell: pd.Series) -> str:
    return ", ".join(f"{name} {cell[name]!r}" for name in KEYS if isinstance(cell.get(name), str))
