"""Where scans and people come from: one reader per layout, behind one registry."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers.cohort.phantoms import write_phantoms
from helpers.errors import SegfairError
from helpers.parameters import Cohort
from helpers.study import Study
from helpers.volumes import SUFFIXES

REQUIRED = ("subject", "modality", "reference")
# Words that stand for a missing value, except in names of people and scans.
_MISSING = ("NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "#N/A")
CONTRACT = ("subject", "scan", "sex", "age", "bmi", "modality", "reference", "image")


@dataclass(frozen=True)
class Source:
    """One layout of a dataset.

    Attributes
    ----------
    description : str
        One line for `segfair sources`.
    read : callable
        Study → (raw table with the contract's column names, the folder its paths are relative to).
    """

    description: str
    read: Callable[[Study], tuple[pd.DataFrame, Path]]


def read_source(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read the study's people and scans, one row per scan, with our column names and every value as recorded.

    Returns
    -------
    table : DataFrame
        The contract's columns (missing ones filled with NA) and the declared attributes and confounders,
        and nothing else: names, birth dates and accession numbers stay where they are.
    base : Path
        The folder that paths in the table are relative to.

    Raises
    ------
    SegfairError
        The table is missing, empty, unreadable, or lacks a column.
    """
    cohort = study.parameters.cohort
    raw, base = SOURCES[cohort.source].read(study)
    return _take_declared(raw, cohort, study), base


def _read_phantoms(study: Study) -> tuple[pd.DataFrame, Path]:
    table = write_phantoms(study)
    return _read_file(table), table.parent


def _read_table(study: Study) -> tuple[pd.DataFrame, Path]:
    path = study.resolve(str(study.parameters.cohort.path))
    return _read_file(path), path.parent


def _read_totalsegmentator(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read the TotalSegmentator dataset's layout: sXXXX/ct.nii.gz or mri.nii.gz, sXXXX/segmentations/, meta.csv."""
    folder = study.resolve(str(study.parameters.cohort.path))
    if not folder.is_dir():
        raise SegfairError(f"{folder}: no such folder: cohort.path must be the TotalSegmentator dataset's folder")
    rows = []
    for scan in sorted(entry for entry in folder.iterdir() if (entry / "segmentations").is_dir()):
        for name, modality in (("ct", "CT"), ("mri", "MR")):
            image = next(
                (f"{scan.name}/{name}{suffix}" for suffix in SUFFIXES if (scan / f"{name}{suffix}").exists()), None
            )
            if image is not None:
                rows.append(
                    {
                        "subject": scan.name,
                        "modality": modality,
                        "image": image,
                        "reference": f"{scan.name}/segmentations",
                    }
                )
                break
        else:
            rows.append({"subject": scan.name, "reference": f"{scan.name}/segmentations"})
    if not rows:
        raise SegfairError(
            f"{folder}: holds no scan: folders such as s0001 with a folder segmentations in each are expected"
        )
    table = pd.DataFrame(rows, columns=["subject", "modality", "image", "reference"])
    meta = folder / "meta.csv"
    if meta.exists():
        people = _read_file(meta).rename(columns={"image_id": "subject", "gender": "sex"})
        absent = [name for name, ours in (("image_id", "subject"), ("gender", "sex")) if ours not in people]
        if absent:
            raise SegfairError(
                f"{meta}: has no column {' or '.join(absent)}: the TotalSegmentator dataset's own meta.csv is expected"
            )
        people["sex"] = people["sex"].replace({"m": "male", "f": "female"})
        people = people.drop(columns=[column for column in ("modality", "image", "reference") if column in people])
        if people["subject"].duplicated().any():
            raise SegfairError(
                f"{meta}: image_id names a scan twice ({people.loc[people['subject'].duplicated(), 'subject'].iloc[0]}): remove one of the rows"
            )
        table = table.merge(people, on="subject", how="left", validate="one_to_one")
    return table, folder


def _read_file(path: Path) -> pd.DataFrame:
    """Read a participants table of any of four kinds with every value as text: ids keep their zeros."""
    if not path.is_file():
        raise SegfairError(f"{path}: no such participants table: correct cohort.path")
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv", ".txt"):
            table = _read_text(path)
        elif kind in (".xlsx", ".xlsm"):
            table = pd.read_excel(path, dtype="str", keep_default_na=False)
        elif kind == ".parquet":
            table = pd.read_parquet(path)
            table = table.map(_write_out)
        else:
            raise SegfairError(f"{path.name}: a participants table must be .csv, .tsv, .xlsx or .parquet")
    except pd.errors.EmptyDataError:
        raise SegfairError(
            f"{path.name}: the participants table is empty: it needs a header and one row per scan"
        ) from None
    except (ValueError, OSError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, SegfairError):
            raise
        raise SegfairError(
            f"{path.name}: the participants table cannot be read ({' '.join(str(error).split())[:120]})"
        ) from error
    table.columns = [str(column).strip() for column in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise SegfairError(
            f"{path.name}: the participants table has two columns named {twice[0]!r}: rename one of them"
        )
    # Spaces around a word are typing, not data; what is then empty is missing.
    table = table.map(lambda value: value.strip() if isinstance(value, str) else value)
    table = table.mask(table == "")
    if table.empty:
        raise SegfairError(f"{path.name}: the participants table has no rows: it needs one row per scan")
    return table


def _read_text(path: Path) -> pd.DataFrame:
    """Read a text table as text; a row longer than the header would shift its columns, so it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                path,
                sep=_find_separator(path),
                dtype="str",
                encoding="utf-8-sig",
                keep_default_na=False,
                index_col=False,
            )
        except pd.errors.ParserWarning:
            raise SegfairError(
                f"{path.name}: has rows with more fields than its header: remove separators at the ends of lines, quote values that hold one"
            ) from None


def _write_out(value: object) -> object:
    """Return a value of a typed table as text: 1.0 reads 1, as it would in a CSV file."""
    if value is None or value is pd.NA or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _find_separator(path: Path) -> str:
    """Tell comma, semicolon and tab apart by the header line."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        header = stream.readline()
    return max("\t;,", key=header.count)


def _take_declared(raw: pd.DataFrame, cohort: Cohort, study: Study) -> pd.DataFrame:
    declared = [*CONTRACT, *cohort.attributes, *cohort.confounders]
    declared = list(dict.fromkeys(declared))
    table = pd.DataFrame(index=raw.index)
    for name in declared:
        column = cohort.columns.get(name, name)
        if column in raw:
            recorded = raw[column] if name in ("subject", "scan") else raw[column].mask(raw[column].isin(_MISSING))
            table[name] = recorded.replace(cohort.values[name]) if name in cohort.values else recorded  # noqa: PD011
            continue
        optional = name in ("scan", "image", "sex", "age", "bmi") or (cohort.source != "table" and name not in REQUIRED)
        if name in cohort.columns or not optional or (cohort.source == "table" and name in cohort.attributes):
            what = "attribute " if name in cohort.attributes else "confounder " if name in cohort.confounders else ""
            raise SegfairError(
                f"the participants table has no column {column!r} for {what}{name!r}; it has {', '.join(map(str, raw.columns))}: "
                f"map it in {study.source.name} under cohort.columns ({name}: your column)"
            )
        table[name] = pd.NA
    unknown = sorted(set(cohort.columns) - set(declared))
    if unknown:
        raise SegfairError(
            f"{study.source.name}: cohort.columns maps {', '.join(unknown)}, which is neither a column of ours nor an attribute or confounder"
        )
    table["scan"] = table["scan"].fillna(table["subject"])
    return table


SOURCES: dict[str, Source] = {
    "table": Source("a CSV, TSV, XLSX or Parquet table with one row per scan", _read_table),
    "totalsegmentator": Source(
        "the TotalSegmentator dataset's folders (sXXXX/ct.nii.gz or mri.nii.gz, segmentations/) and its meta.csv",
        _read_totalsegmentator,
    ),
    "phantoms": Source("torso phantoms drawn here, with known truth", _read_phantoms),
}
