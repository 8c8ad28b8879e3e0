"""Where scans and people come from: one reader per layout, behind one registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd

from helpers.cohort.amos import read_amos
from helpers.cohort.bids import read_bids
from helpers.cohort.chaos import read_chaos
from helpers.cohort.dicom_tree import FAULTS, TOLD, read_dicom
from helpers.cohort.kits23 import read_kits23
from helpers.cohort.layouts import BTCV, FLARE, WORD
from helpers.cohort.table_files import PLACE, REMARKS, read_table_file
from helpers.cohort.totalsegmentator import read_totalsegmentator
from helpers.errors import ParameterError, SegfairError, suggest
from helpers.parameters import SCORES, Cohort
from helpers.study import Study

# Words for a missing value, except in names of people and scans, and where the study uses them.
_MISSING = ("NA", "N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "#N/A")
_PLACES = ("scan", "modality", "reference", "image")  # a data set's reader alone knows them
CONTRACT = ("subject", "scan", "sex", "age", "bmi", "modality", "reference", "image")
Reader = Callable[[Study], tuple[pd.DataFrame, Path]]


@dataclass(frozen=True)
class Source:
    """One layout of a dataset. A new one is a function and a line in :data:`SOURCES`."""

    description: str  # one line for `segfair sources`
    # Study → (table with our column names and every value as text, the folder its paths are
    # relative to). A direct identifier that the reader needs (a birth date) must not be a column.
    # Where scans are made, not found: the module whose ``read_source`` makes them and whose
    # ``check_source`` says what it cannot make; imported when first used.
    reader: Reader | str
    # Whether it tells anyone's sex, age or BMI; else a table of people must (``cohort.people``).
    has_people: bool = True

    def read(self, study: Study) -> tuple[pd.DataFrame, Path]:
        """Read, or make, what the reader gives."""
        reader = import_module(self.reader).read_source if isinstance(self.reader, str) else self.reader
        return reader(study)


def read_source(study: Study) -> tuple[pd.DataFrame, Path]:
    """Read the study's people and scans, one row per scan, every value as recorded.

    Raises a SegfairError: there is no such source; the table is missing, empty, unreadable, or
    lacks a column.

    Returns
    -------
    table : DataFrame
        The columns of :data:`CONTRACT` (missing ones filled with NA), the declared attributes and
        confounders, and nothing else: names, birth dates and accession numbers stay where they are.
        ``attrs`` may hold what a source tells beside (:mod:`helpers.cohort.dicom_tree`).
    base : Path
        The folder that paths in the table are relative to.
    """
    source = _find_source(study)
    raw, base = source.read(study)
    if study.parameters.cohort.people is not None:
        raw = _join_people(raw, study)
    elif not source.has_people:
        raise SegfairError(
            f"{study.source.name}: cohort.people is missing: the data set comes without sex, age or BMI: name a table "
            f"with a column subject ({', '.join(raw['subject'].head(2))}, …) and what you know of each"
        )
    return _take_declared(raw, study.parameters.cohort, study), base


def check_made(study: Study) -> bool:
    """Return whether the study's source makes its scans; raise SegfairError if it cannot."""
    reader = _find_source(study).reader
    if isinstance(reader, str):
        import_module(reader).check_source(study)
    return isinstance(reader, str)


def _find_source(study: Study) -> Source:
    name = study.parameters.cohort.source
    if name not in SOURCES:
        raise ParameterError(
            f"{study.blame('cohort.source')}: must be one of {', '.join(SOURCES)}; got {name!r}{suggest(name, SOURCES)}"
        )
    return SOURCES[name]


def _read_table(study: Study) -> tuple[pd.DataFrame, Path]:
    path = study.resolve(str(study.parameters.cohort.path))
    return read_table_file(path), path.parent


def _join_people(raw: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Lay the user's own table over what a data set tells of its people, by subject."""
    cohort = study.parameters.cohort
    key = cohort.columns.get("subject", "subject")
    path = study.resolve(str(cohort.people))
    people = read_table_file(path, what="table of people", key="cohort.people")
    if key not in people:
        raise SegfairError(
            f"{path.name}: has no column {key!r}; it has {', '.join(people)}: map it under cohort.columns "
            "(subject: your column)"
        )
    people = people.dropna(subset=[key]).drop(columns=[name for name in _PLACES if name in people])
    for twice in people.loc[people[key].duplicated(), key]:
        raise SegfairError(f"{path.name}: {key} names somebody twice ({twice}): remove one of the rows")
    known = raw["subject"].isin(people[key])
    if not known.any():
        raise SegfairError(
            f"{path.name}: {key} names nobody of the data set ({', '.join(raw['subject'].head(2))}, …): "
            "write the names as the data set does"
        )
    raw = raw.drop(columns=[name for name in people if name in raw and name != "subject"])
    return raw.rename(columns={"subject": key}).merge(people, on=key, how="left", validate="many_to_one")


def _take_declared(raw: pd.DataFrame, cohort: Cohort, study: Study) -> pd.DataFrame:
    clusters = [cohort.cluster] if cohort.cluster else []
    declared = list(dict.fromkeys([*CONTRACT, *cohort.attributes, *cohort.confounders, *clusters]))
    table = pd.DataFrame(index=raw.index)
    table.attrs = raw.attrs
    absent: dict[str, str] = {}
    for name in declared:
        column = cohort.columns.get(name, name)
        if column in raw:
            recorded = raw[column].mask(raw[column].isin(_list_missing(name, cohort)))
            table[name] = recorded.replace(cohort.values[name]) if name in cohort.values else recorded  # noqa: PD011
            continue
        if name in cohort.fill and name not in cohort.columns:
            table[name] = pd.NA
            continue
        # A dataset's table need not know everything; one's own that is asked for sex must have it.
        own = cohort.source in ("table", SCORES) or cohort.people is not None
        optional = (
            name in ("scan", "image")
            or (name in ("sex", "age", "bmi") and not (own and name in cohort.attributes))
            or (name in ("modality", "reference") and not cohort.has_masks)
        )
        if name in cohort.columns or not optional:
            what = "attribute " if name in cohort.attributes else "confounder " if name in cohort.confounders else ""
            what = what or "cluster " * (name == cohort.cluster)
            absent[name] = f"{column!r} for {what}{name!r}"
            continue
        table[name] = pd.NA
    if absent:
        place = f" ({raw.attrs[PLACE]})" if raw.attrs.get(PLACE) else ""
        raise SegfairError(
            f"the participants table has no column {', '.join(absent.values())}; "
            f"it has {', '.join(map(str, raw.columns))}{place}: map it in {study.source.name} under cohort.columns "
            f"({', '.join(f'{name}: your column' for name in absent)})"
        )
    for key, named in (("columns maps", set(cohort.columns)), ("fill names", set(cohort.fill))):
        if unknown := sorted(named - set(declared)):
            raise SegfairError(
                f"{study.source.name}: cohort.{key} {', '.join(unknown)}, which is neither a column of ours nor an "
                "attribute or confounder"
            )
    table["scan"] = table["scan"].fillna(table["subject"])
    for name, text in cohort.fill.items():
        table[name] = table[name].astype(object).fillna(_fill_in(text, table))
    table.attrs = {key: raw.attrs[key] for key in (FAULTS, TOLD, REMARKS) if key in raw.attrs}
    return table


def _fill_in(text: str, table: pd.DataFrame) -> pd.Series:
    """Return a text per row with its person and scan filled in, None where they have no name."""
    names = table[["subject", "scan"]]
    filled = [
        text.replace("{subject}", str(one.subject)).replace("{scan}", str(one.scan)) for one in names.itertuples()
    ]
    return pd.Series(filled, table.index, object).where(names.notna().all(axis=1), None)


def _list_missing(name: str, cohort: Cohort) -> list[str]:
    """Return a column's words for a missing value: not those that are a group or mapped there."""
    if name in ("subject", "scan"):
        return []
    attribute = cohort.attributes.get(name)
    groups = (attribute.categories if attribute is not None else None) or []
    declared = {*groups, *cohort.values.get(name, {})}  # noqa: PD011
    return [word for word in _MISSING if word not in declared]


SOURCES: dict[str, Source] = {
    "table": Source("a CSV, TSV, XLSX or Parquet table with one row per scan", _read_table),
    SCORES: Source("a table of people with one row per scan, and tables of ready-made scores of them", _read_table),
    "totalsegmentator": Source(
        "the TotalSegmentator dataset's folders (sXXXX/ct.nii.gz or mri.nii.gz, segmentations/) and its meta.csv",
        read_totalsegmentator,
    ),
    "kits23": Source("the KiTS23 challenge's folder dataset: case_XXXXX/segmentation.nii.gz, kits23.json", read_kits23),
    "amos": Source(
        "the AMOS22 challenge's folders (labelsTr, imagesTr, …) with labeled_data_meta_0000_0599.csv beside them",
        read_amos,
    ),
    "bids": Source(
        "a BIDS data set: participants.tsv, sessions, and label maps (_dseg) or masks (_mask) under derivatives/",
        read_bids,
    ),
    "flare": Source("FLARE22's folders images and labels; no people", FLARE.read, has_people=False),
    "btcv": Source("BTCV abdomen's RawData: Training/img, Training/label; no people", BTCV.read, has_people=False),
    "word": Source("WORD's imagesTr, labelsTr, imagesVal, …; no people", WORD.read, has_people=False),
    "chaos": Source(
        "CHAOS's folder CT or MR: DICOM_anon and Ground (masks drawn as PNG); no people", read_chaos, has_people=False
    ),
    "dicom": Source(
        "a tree of DICOM files: series of CT and MR, their masks (segmentations or structure sets), people by the tags",
        read_dicom,
    ),
    "phantoms": Source("torso phantoms drawn here, with known truth", "helpers.demo.phantoms"),
}
