"""Read what lies in an output folder, and forget at once who is who.

Everything the report shows passes through here. Scans and people become study-local numbers, messages
lose ids and paths, and groups of fewer than `min_group` people are taken out before any sentence or
figure is made, so that later code has nothing to leak.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from helpers import provenance
from helpers.errors import StageError
from helpers.parameters import Parameters, read_parameters
from helpers.spatial import Template
from helpers.study import TABLES

# Columns that can name a person or a place; they end here.
_IDENTIFYING = ("subject", "scan", "reference", "image", "path")
# Groups may be called 1 and 2, or true: they stay words.
_TEXT_COLUMNS = dict.fromkeys(
    (
        "model",
        "organ",
        "metric",
        "attribute",
        "group",
        "worst_group",
        "best_group",
        "group_a",
        "group_b",
        "scan",
        "subject",
    ),
    "str",
)
_QUOTED_PATH = re.compile(r"(['\"`])[^'\"`\n]*[/\\][^'\"`\n]*\1")
_PATH = re.compile(
    r"""(?:[A-Za-z][A-Za-z0-9+.-]*://\S+)            # s3://…, file://…, tcp://host
      | (?:(?<![\w.)])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s'",;:|()]+(?:[/\\][^\s'",;:|()]*)*)   # /a/b, ../a, C:\a
      | (?:[^\s'",;:|()]+(?:[/\\][^\s'",;:|()]+){2,})  # a/b/c
      | (?:[^\s'",;:|()]+\.(?:nii(?:\.gz)?|nrrd|mha|mhd|dcm|csv|tsv|xlsx|parquet|json|ya?ml|pth|pt|safetensors|npz|py)\b)
    """,
    re.VERBOSE,
)
_ADDRESS = re.compile(r"\b[\w.+-]+@[\w.-]+\b")
_DATE = re.compile(r"\b(?:19|20)\d{2}(?:-\d{2}-\d{2}|(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))\b")


class Scrubber:
    """Takes ids, paths, addresses and dates out of messages.

    Parameters
    ----------
    numbers : dict of str to int
        Study-local number of each scan id.
    subjects : iterable of str
        Ids of people.
    paths : iterable of str
        Known paths; their file names are known too.

    Notes
    -----
    An id that is a number of up to three digits cannot be told from any other number: it is replaced only
    after a word such as "scan" or "subject".
    """

    def __init__(
        self, numbers: dict[str, int] | None = None, subjects: Iterable[str] = (), paths: Iterable[str] = ()
    ) -> None:
        numbers = numbers or {}
        self._words = dict.fromkeys(map(str, subjects), "the person")
        self._words |= {scan: f"scan {number:03d}" for scan, number in numbers.items()}
        files: dict[str, str] = {}
        for path in map(str, paths):
            files[path] = "the file"
            files[Path(path).name] = "the file"
            files[str(Path(path).parent)] = "the folder"
        files = {text: word for text, word in files.items() if len(text) > 3}
        self._files = sorted(files.items(), key=lambda item: len(item[0]), reverse=True)
        free = sorted((key for key in self._words if not re.fullmatch(r"\d{1,3}", key)), key=len, reverse=True)
        bound = sorted((key for key in self._words if re.fullmatch(r"\d{1,3}", key)), key=len, reverse=True)
        self._free = _compile_any(free)
        self._bound = _compile_any(
            bound, after=r"(\b(?:scan|subject|case|patient|person|participant|id)s?[ #:=]*['\"]?)"
        )

    def __call__(self, message: Any) -> str:
        """Return `message` on one line, without ids, paths, addresses and dates."""
        if message is None or (not isinstance(message, str) and pd.isna(message)):
            return ""
        text = " ".join(str(message).split())
        # Whole paths first, bare file names last: a name replaced within a path would break the path up.
        for path, word in self._files:
            if "/" in path or "\\" in path:
                text = text.replace(path, word)
        text = _QUOTED_PATH.sub("the file", text)
        text = _PATH.sub("the file", text)
        for name, word in self._files:
            text = text.replace(name, word)
        if self._free is not None:
            text = self._free.sub(lambda match: self._words[match.group(1)], text)
        if self._bound is not None:
            text = self._bound.sub(lambda match: self._words[match.group(2)], text)
        text = _ADDRESS.sub("[address]", text)
        text = _DATE.sub("[date]", text)
        text = re.sub(
            r"\b(scan|subject|case|person|file|patient) (?=(?:scan \d|the (?:person|file|folder)\b))", "", text
        )
        return re.sub(r"(the (?:file|folder))(?:[/\\ ]+the (?:file|folder))+", r"\1", text).strip()


@dataclass(frozen=True)
class Outputs:
    """A study's tables as the report may show them; None where a stage has not been run.

    Attributes
    ----------
    parameters : Parameters
    run : dict
        run.json, empty when absent.
    cohort : DataFrame or None
        number, person (study-local), included, age, bmi, modality, ``group_<attribute>``, …
    exclusions : DataFrame or None
        number, reason.
    inference : DataFrame or None
        model, number, status, error (scrubbed), seconds, device.
    metrics : DataFrame or None
        As the table, with person for subject and without scan.
    groups, disparity : DataFrame or None
        Rows of groups below `min_group` carry no numbers.
    maps : DataFrame or None
        Errors of groups that reach `min_group`; the others' are missing, and so are differences with them.
    spatial_summary : DataFrame or None
        Only comparisons whose groups both reach `min_group`.
    spatial_groups : DataFrame or None
        model, organ, attribute, group, n: people behind each group's map, small groups left out.
    templates : dict of str to Template
        Each organ's mean shape, where it is there.
    small : dict of str to set of str
        Per attribute, the groups of fewer than `min_group` people in the cohort.
    problems : tuple of str
        Files that could not be read.
    """

    parameters: Parameters
    run: dict[str, Any]
    cohort: pd.DataFrame | None = None
    exclusions: pd.DataFrame | None = None
    inference: pd.DataFrame | None = None
    metrics: pd.DataFrame | None = None
    groups: pd.DataFrame | None = None
    disparity: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None
    spatial_summary: pd.DataFrame | None = None
    spatial_groups: pd.DataFrame | None = None
    templates: dict[str, Template] = field(default_factory=dict)
    small: dict[str, set[str]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def included(self) -> pd.DataFrame:
        """The included scans; empty when there is no cohort."""
        return pd.DataFrame() if self.cohort is None else self.cohort[self.cohort["included"].astype(bool)]

    @property
    def attributes(self) -> list[str]:
        """The study's attributes, in the order of the parameters."""
        return list(self.parameters.cohort.attributes)


def read_outputs(folder: Path) -> Outputs:
    """Read an output folder into tables without names.

    Raises
    ------
    StageError
        It is no study's output folder.
    ParameterError
        Its ``study.yaml`` breaks the rules.
    """
    folder = Path(folder)
    snapshot = folder / "study.yaml"
    if not snapshot.is_file():
        raise StageError(
            f"{folder}: is not the output folder of a study (it has no study.yaml): give one such as outputs/demo, or run `segfair run PARAMS`"
        )
    parameters = read_parameters(snapshot)
    problems: list[str] = []
    tables = {name: _read(folder / relative, problems) for name, (relative, _) in TABLES.items()}
    inference = _read_inference(folder, problems)
    cohort = tables["cohort"]
    scrub, people, numbers = _forget_names(cohort, folder)
    small = _find_small_groups(cohort, parameters.fairness.min_group)
    groups = _suppress_groups(tables["groups"], parameters.fairness.min_group, small)
    spatial_groups = _read(folder / "spatial" / "groups.csv", problems)
    few = _find_few(tables["spatial_summary"], spatial_groups, parameters.fairness.min_group, small)
    if spatial_groups is not None and len(spatial_groups):
        spatial_groups = spatial_groups[~_is_few(spatial_groups, "group", few)].reset_index(drop=True)
    return Outputs(
        parameters=parameters,
        run=provenance.read_run(folder),
        cohort=_strip(_replace_names(cohort, people, numbers), scrub),
        exclusions=_strip(_number(tables["exclusions"], numbers), scrub),
        inference=_strip(_number(inference, numbers), scrub),
        metrics=_strip(_replace_names(tables["metrics"], people, numbers), scrub),
        groups=groups,
        disparity=_suppress_disparity(tables["disparity"], groups, small),
        maps=_suppress_maps(tables["maps"], few),
        spatial_summary=_suppress_summary(tables["spatial_summary"], few),
        spatial_groups=spatial_groups,
        templates=_read_templates(folder, problems),
        small=small,
        problems=tuple(problems),
    )


def _compile_any(words: list[str], *, after: str = "()") -> re.Pattern[str] | None:
    if not words:
        return None
    any_of = "|".join(re.escape(word) for word in words)
    # Ids stand alone or within longer tokens joined by _ - or . (`case_7_left`), never within a word.
    pattern = rf"(?<![A-Za-z0-9])({any_of})(?![A-Za-z0-9])"
    return re.compile(
        pattern if after == "()" else after + rf"({any_of})(?![A-Za-z0-9])", re.IGNORECASE if after != "()" else 0
    )


def _read(path: Path, problems: list[str]) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # A group may be called NA: empty cells alone are missing.
        return pd.read_csv(path, dtype=_TEXT_COLUMNS, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except Exception as error:  # any fault of a file: the rest of the report is still worth having
        problems.append(
            f"{path.parent.name + '/' if path.parent.name in ('fairness', 'spatial') else ''}{path.name} cannot be read ({type(error).__name__}): run its stage again."
        )
        return None


def _read_inference(folder: Path, problems: list[str]) -> pd.DataFrame | None:
    tables = []
    for path in sorted((folder / "predictions").glob("*/inference.parquet")):
        table = _read(path, problems)
        if table is not None:
            tables.append(table.assign(model=path.parent.name))
    return pd.concat(tables, ignore_index=True) if tables else None


def _read_templates(folder: Path, problems: list[str]) -> dict[str, Template]:
    templates = {}
    for path in sorted((folder / "spatial").glob("*/template.npz")):
        try:
            templates[path.parent.name] = Template.load(path)
        except StageError:
            problems.append(f"The template of {path.parent.name} cannot be read: run 04_spatial again.")
    return templates


def _forget_names(cohort: pd.DataFrame | None, folder: Path) -> tuple[Scrubber, dict[str, int], dict[str, int]]:
    """Return the scrubber, and study-local numbers of people and scans."""
    if cohort is None or cohort.empty:
        return Scrubber(paths=[str(folder.resolve())]), {}, {}
    named = cohort[cohort["scan"].notna()]
    numbers = dict(zip(named["scan"].astype(str), named["number"].astype(int), strict=True))
    people = {subject: place for place, subject in enumerate(cohort["subject"].dropna().astype(str).unique(), start=1)}
    paths = [str(path) for column in ("reference", "image") if column in cohort for path in cohort[column].dropna()]
    return Scrubber(numbers, people, [*paths, str(folder.resolve())]), people, numbers


def _replace_names(table: pd.DataFrame | None, people: dict[str, int], numbers: dict[str, int]) -> pd.DataFrame | None:
    if table is None or "subject" not in table:
        return table
    return _number(table.assign(person=table["subject"].astype(str).map(people).astype("Int64")), numbers)


def _number(table: pd.DataFrame | None, numbers: dict[str, int]) -> pd.DataFrame | None:
    if table is None or "number" in table or "scan" not in table:
        return table
    return table.assign(number=table["scan"].astype(str).map(numbers).astype("Int64"))


def _strip(table: pd.DataFrame | None, scrub: Scrubber) -> pd.DataFrame | None:
    """Drop what names a person and scrub what was written about one."""
    if table is None:
        return None
    table = table.drop(columns=[name for name in _IDENTIFYING if name in table])
    for name in ("reason", "error", "note"):
        if name in table:
            table[name] = [scrub(text) for text in table[name]]
    return table


def _find_small_groups(cohort: pd.DataFrame | None, min_group: int) -> dict[str, set[str]]:
    if cohort is None or cohort.empty:
        return {}
    included = cohort[cohort["included"].astype(bool)]
    small = {}
    for column in (name for name in cohort if name.startswith("group_")):
        groups = list_groups(cohort[column])
        counts = included.drop_duplicates(["subject", column]).groupby(included[column].astype(str), observed=True)
        people = counts["subject"].nunique().to_dict()
        small[column.removeprefix("group_")] = {group for group in groups if people.get(group, 0) < min_group}
    return small


def list_groups(column: pd.Series) -> list[str]:
    """Return the groups of a ``group_…`` column in their order, empty ones included."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(group) for group in column.cat.categories]
    return sorted(column.dropna().astype(str).unique())


def _suppress_groups(table: pd.DataFrame | None, min_group: int, small: dict[str, set[str]]) -> pd.DataFrame | None:
    if table is None or table.empty or "n" not in table:
        return table
    table = table.astype({"group": str})
    hidden = (table["n"].fillna(0) < min_group) | _is_small(table, "group", small)
    if "suppressed" in table:
        hidden |= table["suppressed"].fillna(False).astype(bool)
    numbers = [name for name in table if name not in ("model", "organ", "metric", "attribute", "group", "suppressed")]
    table = table.assign(suppressed=hidden)
    table[numbers] = table[numbers].astype("Float64").astype("float64").mask(hidden)
    return table


def _suppress_disparity(
    table: pd.DataFrame | None, groups: pd.DataFrame | None, small: dict[str, set[str]]
) -> pd.DataFrame | None:
    """Empty the rows that rest on a group too small to be shown."""
    if table is None or table.empty or "worst_group" not in table:
        return table
    table = table.copy()
    hidden = _is_small(table, "worst_group", small) | _is_small(table, "best_group", small)
    if groups is not None and not groups.empty:
        keys = ["model", "organ", "metric", "attribute"]
        few = set(groups.loc[groups["suppressed"], [*keys, "group"]].astype(str).itertuples(index=False, name=None))
        for side in ("worst_group", "best_group"):
            rows = table[[*keys, side]].astype(str).itertuples(index=False, name=None)
            hidden |= pd.Series([row in few for row in rows], index=table.index)
    keep = {"model", "organ", "metric", "attribute", "margin", "note"}
    for name in table:
        if name not in keep:
            table[name] = table[name].where(~hidden)
    return table


Few: TypeAlias = Callable[[tuple[str, str, str, str]], bool]


def _find_few(
    summary: pd.DataFrame | None, groups: pd.DataFrame | None, min_group: int, small: dict[str, set[str]]
) -> Few:
    """Return what tells whether a (model, organ, attribute, group) has a map of too few people."""
    keys = ["model", "organ", "attribute"]
    found: set[tuple[str, ...]] = set()
    if groups is not None and len(groups):
        low = groups[groups["n"] < min_group]
        found |= set(low[[*keys, "group"]].astype(str).itertuples(index=False, name=None))
    for side in ("a", "b"):
        if summary is not None and f"n_{side}" in summary:
            low = summary[summary[f"n_{side}"] < min_group]
            found |= set(low[[*keys, f"group_{side}"]].astype(str).itertuples(index=False, name=None))
    return lambda place: place in found or place[3] in small.get(place[2], ())


def _is_few(table: pd.DataFrame, column: str, few: Few) -> pd.Series:
    places = table[["model", "organ", "attribute", column]].astype(str).itertuples(index=False, name=None)
    return pd.Series([few(place) for place in places], index=table.index, dtype=bool)


def _suppress_maps(table: pd.DataFrame | None, few: Few) -> pd.DataFrame | None:
    """Empty the maps of groups that are too small, and the differences that rest on one."""
    if table is None or table.empty or "group_a" not in table:
        return table
    table = table.copy()
    hidden = _is_few(table, "group_a", few) | _is_few(table, "group_b", few)
    table["difference"] = table["difference"].mask(hidden)
    for key, part in table.groupby(["model", "organ", "attribute"], sort=False, observed=True):
        for column in (name for name in table if name.startswith("error_")):
            if few((*map(str, key), column.removeprefix("error_"))):
                table.loc[part.index, column] = np.nan
    return table


def _suppress_summary(table: pd.DataFrame | None, few: Few) -> pd.DataFrame | None:
    """Keep the comparisons of two groups that are large enough."""
    if table is None or table.empty or "group_a" not in table:
        return table
    hidden = _is_few(table, "group_a", few) | _is_few(table, "group_b", few)
    return table[~hidden & table["group_a"].notna() & table["group_b"].notna()].reset_index(drop=True)


def _is_small(table: pd.DataFrame, column: str, small: dict[str, set[str]]) -> pd.Series:
    pairs = zip(table["attribute"].astype(str), table[column].astype(str), strict=True)
    return pd.Series([group in small.get(attribute, ()) for attribute, group in pairs], index=table.index)
