"""01_cohort: who is in, who is out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from helpers import storage
from helpers.cohort.description import list_indistinguishable
from helpers.cohort.dicom_tree import TOLD
from helpers.cohort.grouping import group_attribute
from helpers.cohort.numbers import find_unreadable, is_half_numeric
from helpers.cohort.organ_places import describe_organs, find_odd_organs
from helpers.cohort.reasons import GREY_FAULTS, SENTENCES, Finding, join_kinds, join_sentences, name_kinds
from helpers.cohort.references import rewrite_references
from helpers.cohort.scores import ScoreTable, match_scans, read_scores
from helpers.cohort.sources import check_made, read_source
from helpers.cohort.table_files import REMARKS
from helpers.cohort.validation import Found, inspect_rows, is_asked
from helpers.errors import SegfairError, StageError, list_some, quote
from helpers.kept import Kept
from helpers.parameters import Cohort
from helpers.study import Study
from helpers.vocabulary.words import count, name_scan


@dataclass(frozen=True)
class StudyCohort:
    """The people of a study."""

    table: pd.DataFrame  # cohort.parquet: every scan, in or out, with its groups
    exclusions: pd.DataFrame  # exclusions.csv: number, scan, subject, reason, kind of every scan that is out
    flow: pd.DataFrame  # scans by step (``step``, ``scans``): found, out by each kind of reason, included
    notes: list[str] = field(default_factory=list)  # what else to know, in sentences

    def list_failures(self) -> dict[str, str]:
        """Return the reason per scan left out, by study-local number, for run.json."""
        return {name_scan(row.number): row.reason for row in self.exclusions.itertuples()}

    def summarise(self) -> pd.DataFrame:
        """Return the closing table: scans and people in and out, and the notes."""
        included = self.table[self.table["included"]]
        rows = [
            ("scans found", str(len(self.table))),
            ("scans left out", str(len(self.exclusions))),
            ("scans included", str(len(included))),
            ("people included", str(included["subject"].nunique())),
            *(("note", note) for note in self.notes),
        ]
        return pd.DataFrame(rows, columns=["", "count"])


def build_cohort(study: Study) -> StudyCohort:
    """Read, check and group the study's scans; write cohort.parquet and exclusions.csv.

    Raises
    ------
    SegfairError
        The source cannot be read.
    StageError
        Every scan is excluded; the two files are written first, with the reasons.
    """
    raw, base = read_source(study)
    scores, told = _match_scores(study, raw)
    table, found = inspect_rows(raw, base, study, scores=scores, kept=Kept(study.folder, "checks"))
    if study.parameters.cohort.resample is not None or any(one.unpacked for one in found):
        failed = rewrite_references(table, found, study)
        for place, error in failed.items():
            found[place].reasons.append(Finding("scan_failed", {"error": error}))
        table["included"] = [not one.reasons for one in found]
        table["reason"] = [join_sentences(one.reasons) for one in found]
    for name, attribute in study.parameters.cohort.attributes.items():
        table[f"group_{name}"] = group_attribute(table[name], name, attribute)
    kinds = pd.Series([join_kinds(one.reasons) for one in found], index=table.index, dtype="str")
    out = table.assign(kind=kinds)[~table["included"]]
    exclusions = out[["number", "scan", "subject", "reason", "kind"]].reset_index(drop=True)
    storage.write_table(table, study.path("cohort"))
    storage.write_table(exclusions, study.path("exclusions"))
    if len(exclusions) == len(table):
        (reason, number), *_ = Counter(exclusions["reason"]).most_common(1)
        raise StageError(
            f"every one of the {len(table)} scans is excluded, {number} of them because: {reason} "
            f"(all reasons: {study.path('exclusions')})"
        )
    notes = [*raw.attrs.get(REMARKS, ()), *told, *(sentence for sentence, _ in raw.attrs.get(TOLD, ()))]
    notes += _note_unreadable(raw, study.parameters.cohort) + _note_groups(table, study.parameters.cohort)
    notes += [f"{count(len(scans), 'scan')}: {fault}" for fault, scans in _find_grey_faults(table, found).items()]
    included = table["included"]
    seen = [one.seen for one in found if not one.reasons]
    odd = find_odd_organs(study.parameters.cohort, seen, table.loc[included, "age"])
    notes += [f"{name}: {said}: is it another organ's label?" for name, said in odd.items()]
    return StudyCohort(table, exclusions, count_flow([one.reasons for one in found]), notes)


def _match_scores(study: Study, people: pd.DataFrame) -> tuple[ScoreTable | None, list[str]]:
    """Return the scores of a study that has them, and what is to be said of them."""
    if study.parameters.cohort.has_masks:
        return None, []
    scores, notes = match_scans(read_scores(study), people["scan"])
    return scores, [*scores.notes, *notes]


def _note_groups(table: pd.DataFrame, cohort: Cohort) -> list[str]:
    """Say where values give no group, where scans of one person disagree, and who has several."""
    notes = []
    included = table[table["included"]]
    for name in cohort.attributes:
        groups = included[f"group_{name}"]
        outside = int((included[name].notna() & groups.isna()).sum())
        if outside:
            have = count(outside, "scan has", "scans have")
            notes.append(f"{name}: {have} a value that belongs to no group and no part in the comparison by {name}")
        if groups.isna().all():
            notes.append(f"{name}: no scan has a usable value; there is no comparison by {name}")
    for name in (name for name in cohort.attributes if name not in ("age", "bmi")):
        differing = int(included.groupby("subject")[name].nunique().gt(1).sum())
        if differing:
            people = count(differing, "person has", "people have")
            notes.append(
                f"{name}: {people} scans that disagree: 03 compares these people with themselves, or leaves them out"
            )
    repeated = int((included.groupby("subject").size() > 1).sum())
    if repeated:
        notes.append(f"{count(repeated, 'person has', 'people have')} several scans; everyone counts once")
    return notes


@dataclass(frozen=True)
class CohortCheck:
    """What :func:`check_cohort` found: what is wrong, and what is only worth knowing."""

    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    organs: list[str] = field(default_factory=list)  # of each organ where it was found, and how large


def check_cohort(
    study: Study,
    masks: Mapping[str, str] | None = None,
    refused: Mapping[str, Mapping[str, str]] | None = None,
) -> CohortCheck:
    """List all that is wrong with a study's table and files, and who could not be compared.

    Nothing is written. Scans that would be left out for one reason are told together, and so are
    those on which a model would fail. Problems too: an attribute whose recorded values are all
    foreign to its groups, values that should be numbers and are not, an organ in no mask. Remarks:
    a group too small to be compared, a value without a group, an organ that some masks lack, an
    image whose grey values cannot be right. Of each organ it is said where it lies, how large it
    is, and what of that no adult's body has. A source that makes its scans is asked what it cannot
    make. `masks`: where the ready-made masks of models lie (:func:`helpers.models.list_templates`),
    of which each scan's is read too. `refused`: what of a scan's image fails it for a model
    (:func:`helpers.models.list_refused`).
    """
    try:
        if check_made(study):
            return CohortCheck()
        raw, base = read_source(study)
        scores, told = _match_scores(study, raw)
        table, rows = inspect_rows(raw, base, study, masks=masks, refused=refused, scores=scores)
    except SegfairError as error:
        return CohortCheck([str(error)])
    cohort = study.parameters.cohort
    placed = (f"{said} ({list_some(paths)})" if paths else said for said, paths in raw.attrs.get(TOLD, ()))
    remarks = [*raw.attrs.get(REMARKS, ()), *told, *placed]
    found = CohortCheck(remarks=remarks)
    unscored = {SENTENCES[kind] for kind in ("reference_proxied", "scores_missing", "scores_empty")}
    for reason, part in table[~table["included"]].groupby("reason", sort=False):
        # People beyond those who were scored are no fault of the table.
        tell = found.remarks if reason in unscored and table["included"].any() else found.problems
        tell.append(f"{_name_scans(part)} would be left out: {reason}")
    _tell_alike(table["subject"], found)
    _tell_unusable(table, rows, found)
    _tell_undrawn(table, rows, found)
    _tell_unreadable(raw, cohort, found)
    _tell_absent(table, rows, cohort, found)
    seen = [row.seen for row in rows if not row.reasons]
    found.organs.extend(describe_organs(cohort, seen, table.loc[table["included"], "age"]).values())
    resampled = table[[row.resampled for row in rows]]
    if len(resampled):
        found.remarks.append(f"{_name_scans(resampled)}: {Finding('reference_resampled').sentence}")
    found.remarks.extend(f"{_name_scans(one)}: {fault}" for fault, one in _find_grey_faults(table, rows).items())
    for name, attribute in cohort.attributes.items():
        groups = group_attribute(table[name], name, attribute)
        _tell_groups(table, name, groups, study.parameters.fairness.min_group, found)
        table[f"group_{name}"] = groups
    found.remarks.extend(
        list_indistinguishable(table, list(cohort.attributes), cohort.confounders, study.parameters.fairness.min_group)
    )
    return found


def _tell_alike(subjects: pd.Series, found: CohortCheck) -> None:
    """Tell which people's names differ in capitals, zeros in front or spaces alone."""
    names = subjects.dropna().drop_duplicates()
    plain = names.str.casefold().str.replace(r"\s+", "", regex=True).str.lstrip("0")
    pairs = [part.head(2).map(quote) for _, part in names.groupby(plain, sort=False) if len(part) > 1]
    if pairs:
        found.remarks.append(
            f"subject: {list_some(map(' and '.join, pairs))} differ in capitals, spaces or zeros in front alone and "
            "are taken for different people: write each person's name alike"
        )


def _tell_groups(table: pd.DataFrame, name: str, groups: pd.Series, min_group: int, found: CohortCheck) -> None:
    """Tell which recorded values of an attribute have no group, and which groups are too small."""
    included, valued = table["included"], table[name].notna()
    names = list(groups.cat.categories)
    if valued.any() and groups.isna().all():
        found.problems.append(
            f"{name}: none of the recorded values ({_list_values(table.loc[valued, name])}) belongs to a group of this "
            f"study ({', '.join(names)}): map them under cohort.values, or name your groups under cohort.attributes"
        )
        return
    foreign = table.loc[included & valued & groups.isna(), name]
    if len(foreign):
        found.remarks.append(
            f"{name}: {count(len(foreign), 'scan has', 'scans have')} a value without a group "
            f"({_list_values(foreign)}): no part in the comparison by {name}"
        )
    people = table[included].assign(group=groups[included]).drop_duplicates("subject")["group"].value_counts()
    small = [f"{group} {people[group]}" for group in names if people[group] < min_group]
    if small and included.any():
        found.remarks.append(
            f"{name}: fewer than {min_group} people in {', '.join(small)}: not compared (fairness.min_group)"
        )


def _find_unreadable(raw: pd.DataFrame, cohort: Cohort) -> tuple[dict[str, pd.Series], dict[str, pd.Series]]:
    """Return by column what is no number: where all must be, and beside decimals in confounders."""
    binned = [name for name, one in cohort.attributes.items() if one is not None and one.bins is not None]
    needed = {name: find_unreadable(raw[name]) for name in ("age", "bmi", *binned)}
    free = [name for name in cohort.confounders if name not in cohort.attributes and name not in ("age", "bmi")]
    mixed = {name: find_unreadable(raw[name]) for name in free if is_half_numeric(raw[name])}
    return {name: bad for name, bad in needed.items() if len(bad)}, mixed


def _note_unreadable(raw: pd.DataFrame, cohort: Cohort) -> list[str]:
    """Say which columns hold values that are no numbers; `segfair check` shows the values."""
    needed, mixed = _find_unreadable(raw, cohort)
    # Scans without a readable age or BMI are out, with that reason.
    notes = [
        f"{name}: {count(len(bad), 'scan has', 'scans have')} a value that is not a number and no part "
        f"in the comparison by {name} (segfair check shows it)"
        for name, bad in needed.items()
        if name not in ("age", "bmi")
    ]
    return notes + [
        f"{name}: some values are decimal numbers and others are no numbers: adjusted for as words "
        f"(segfair check shows them)"
        for name in mixed
    ]


def _tell_unreadable(raw: pd.DataFrame, cohort: Cohort, found: CohortCheck) -> None:
    needed, mixed = _find_unreadable(raw, cohort)
    for name, bad in needed.items():
        if name not in ("age", "bmi") or is_asked(name, cohort):
            found.problems.append(
                f"{name} is recorded as {_list_values(bad)} in {count(len(bad), 'scan', 'scans')}, which is not a "
                f"number: write digits alone with a decimal point, such as 64.4, or map the values under cohort.values"
            )
        else:
            found.remarks.append(
                f"{name} is recorded as {_list_values(bad)}, which is not a number; this study does not ask for it"
            )
    for name, bad in mixed.items():
        found.remarks.append(
            f"{name}: some values are decimal numbers and others are no numbers ({_list_values(bad)}): "
            f"adjusted for as words; write all alike to have them adjusted for as numbers"
        )


def _tell_absent(table: pd.DataFrame, rows: list[Found], cohort: Cohort, found: CohortCheck) -> None:
    """Tell which organs no mask holds, and which ones some lack."""
    for name, organ in cohort.organs.items() if cohort.has_masks else ():
        lacking = table[[name in row.absent for row in rows]]
        if len(lacking) and len(lacking) == table["included"].sum():
            place = f"labels {organ.labels}" if organ.labels else f"files {organ.files}"
            found.problems.append(
                f"cohort.organs.{name}: no mask holds it ({place}): correct where it is found, or leave the organ out"
            )
        elif len(lacking):
            found.remarks.append(f"{name}: not in the mask of {_name_scans(lacking)}: scored where it is there")


def _tell_unusable(table: pd.DataFrame, rows: list[Found], found: CohortCheck) -> None:
    """Tell on which scans a model would fail: for want of an image or of a mask it can use."""
    for (model, fault), scans in _group_scans(table, [row.unusable.items() for row in rows]).items():
        found.problems.append(f"models.{model}: {_name_scans(scans)} would count as failed: {fault}")


def _find_grey_faults(table: pd.DataFrame, rows: Sequence[Found]) -> dict[str, pd.DataFrame]:
    """Return the included scans with each fault of an image's grey values, by its sentence."""
    found = {}
    for kind, sentence in GREY_FAULTS.items():
        has = [not row.reasons and any(note.kind == kind for note in row.notes) for row in rows]
        if any(has):
            found[sentence] = table[has]
    return found


def _tell_undrawn(table: pd.DataFrame, rows: list[Found], found: CohortCheck) -> None:
    """Tell which organs have no file in a model's folder of masks: they are not scored."""
    lacking = [[(model, organ) for model, organs in row.undrawn.items() for organ in organs] for row in rows]
    for (model, organ), scans in _group_scans(table, lacking).items():
        named = _name_scans(scans)
        found.remarks.append(f"models.{model}: no mask file of {organ} for {named}: not drawn, so not scored there")


def _group_scans(table: pd.DataFrame, told: Sequence[Iterable[tuple[str, str]]]) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the scans of which the same is told, by what that is; `told` has a part for each."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, of_scan in enumerate(told):
        for one in of_scan:
            places.setdefault(one, []).append(place)
    return {one: table.iloc[where] for one, where in places.items()}


def _name_scans(scans: pd.DataFrame) -> str:
    if len(scans) == 1:
        return f"scan {quote(scans['scan'].iloc[0])} (row {scans['number'].iloc[0]})"
    return f"{len(scans)} scans ({list_some(map(quote, scans['scan']))})"


def _list_values(values: pd.Series) -> str:
    return list_some(dict.fromkeys(quote(value) if isinstance(value, str) else f"{value:g}" for value in values))


def count_flow(reasons: Sequence[Sequence[Finding]]) -> pd.DataFrame:
    """Count scans by step: found, out by kind of reason (the first of each), included."""
    first = [of_scan[0] for of_scan in reasons if of_scan]
    kinds = Counter(name_kinds(one.kind) for one in first)
    rows = [("found", len(reasons)), *kinds.most_common(), ("included", len(reasons) - kinds.total())]
    return pd.DataFrame(rows, columns=["step", "scans"])
