"""Read what lies in an output folder, and forget at once who is who.

Everything the report shows passes through here. Scans and people become study-local numbers,
messages lose ids and paths, and groups of fewer than `min_group` people are taken out before any
sentence or figure is made, so that later code has nothing to leak.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import provenance, storage
from helpers.cohort.grouping import number_levels
from helpers.errors import StageError
from helpers.fairness import average_subjects
from helpers.fairness.confounding import VOLUME
from helpers.fairness.failures import pair_groups
from helpers.fairness.groups import hide_small_groups, list_groups
from helpers.fairness.ranking import rank_attributes
from helpers.inference import OrganPlane, load_planes
from helpers.models import KINDS, label_models, label_table, list_blocks, tabulate_models
from helpers.parameters import Parameters, Prompt, read_parameters
from helpers.report import suppression
from helpers.report.scrubbing import Scrubber
from helpers.report.sentences.gaps import PLAIN_UNITS, Place, Row, find_place
from helpers.schema import TABLES, Table, list_identifying
from helpers.spatial import Template
from helpers.statistics.covariates import split_covariates
from helpers.study import choose_place, find_snapshot
from helpers.vocabulary.verdicts import rank_rows
from helpers.vocabulary.words import ALL_MODELS, is_known, name_for_people

LoadPlanes = Callable[[str, str, int], tuple[OrganPlane, ...]]


@dataclass(frozen=True)
class Outputs:
    """A study's tables as the report may show them; None where a stage has not been run.

    Groups of fewer than `min_group` people carry no numbers in any of them.
    """

    parameters: Parameters
    run: dict[str, Any]  # run.json; empty when absent
    cohort: pd.DataFrame | None = None  # number, person (study-local), included, age, bmi, group_<attribute>, …
    exclusions: pd.DataFrame | None = None  # number, reason; kind where the stage wrote it
    inference: pd.DataFrame | None = None  # model, number, status, error (scrubbed), seconds, device
    metrics: pd.DataFrame | None = None  # with person for subject and without scan
    groups: pd.DataFrame | None = None
    disparity: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None  # this and matching: without rows that name a small group
    matching: pd.DataFrame | None = None
    adjusted_notes: pd.DataFrame | None = None
    trends: pd.DataFrame | None = None
    trend_tests: pd.DataFrame | None = None
    intersections: pd.DataFrame | None = None
    missing: pd.DataFrame | None = None  # this and failures: without numbers from which a small group's would follow
    failures: pd.DataFrame | None = None
    absent: pd.DataFrame | None = None
    missing_bounds: pd.DataFrame | None = None
    volumes: pd.DataFrame | None = None
    site_summary: pd.DataFrame | None = None
    variance: pd.DataFrame | None = None
    model_gaps: pd.DataFrame | None = None
    effort: pd.DataFrame | None = None
    few_masks_gaps: pd.DataFrame | None = None
    agreement: pd.DataFrame | None = None  # of annotators and of repeated prompts
    against_agreement: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None  # errors of small groups, and differences with them, are missing
    slopes: pd.DataFrame | None = None  # missing where fewer than min_group people stand behind them
    spatial_summary: pd.DataFrame | None = None  # without comparisons with a small group
    spatial_groups: pd.DataFrame | None = None  # model, organ, attribute, group, n: people behind each map
    templates: dict[str, Template] = field(default_factory=dict)  # each organ's mean shape, where it is there
    model_facts: pd.DataFrame = field(default_factory=pd.DataFrame)  # helpers.models.tabulate_models, by the shown name
    blocks: dict[str, str] = field(default_factory=dict)  # by model: the heading that says how it was prompted
    small: dict[str, set[str]] = field(default_factory=dict)  # groups below min_group in the cohort, by attribute
    told_apart: set[str] = field(default_factory=set)  # attributes whose means would tell a small group's
    load_planes: LoadPlanes | None = field(default=None, repr=False)  # None where no pictures are shown
    problems: tuple[str, ...] = ()  # files that could not be read
    secrets: dict[str, str] = field(default_factory=dict, repr=False)  # what no page may show -> what it is

    @cached_property
    def included(self) -> pd.DataFrame:
        """The included scans; empty when there is no cohort."""
        return pd.DataFrame() if self.cohort is None else self.cohort[self.cohort["included"].astype(bool)]

    @property
    def attributes(self) -> list[str]:
        """The study's attributes, in the order of the parameters."""
        return list(self.parameters.cohort.attributes)

    def list_shown(self) -> list[str]:
        """Return the names that a study's page shows: title, models, organs, attributes, groups."""
        cohort, table = self.parameters.cohort, self.included
        names = [self.parameters.title or "", self.parameters.name, *cohort.organs, *cohort.attributes]
        names += [*cohort.confounders, *self.models, *(model.kind for model in self.parameters.models), *self.organs]
        groups = (list_groups(table[key]) for key in table if key.startswith("group_"))
        return [*names, *itertools.chain.from_iterable(groups)]

    @cached_property
    def has_masks(self) -> bool:
        """Whether masks were compared, rather than ready-made scores read."""
        return self.parameters.cohort.has_masks

    @cached_property
    def knows_size(self) -> bool:
        """Whether the organs' sizes are known, and with them what they explain of a gap."""
        return self.metrics is not None and "dice_expected" in self.metrics

    @cached_property
    def knows_distance(self) -> bool:
        """Whether anything was measured in millimetres."""
        return self.metrics is not None and any(name.endswith("_mm") for name in self.metrics)

    @cached_property
    def models(self) -> list[str]:
        """The names of the models: the study's, or those that its tables of scores name."""
        return [model.name for model in self.parameters.models] or self._list_scored("model")

    @cached_property
    def organs(self) -> list[str]:
        """The organs: the study's, or those that its tables of scores name."""
        return list(self.parameters.cohort.organs) or self._list_scored("organ")

    def _list_scored(self, name: str) -> list[str]:
        return [] if self.metrics is None else list(self.metrics[name].unique())

    @property
    def is_phantoms(self) -> bool:
        """Whether the scans are computer-drawn."""
        return self.parameters.cohort.source == "phantoms"

    @cached_property
    def prompts(self) -> dict[str, Prompt]:
        """The prompt of each model that is given any, made from the expert's masks."""
        models = self.parameters.models
        return {m.name: m.prompt for m in models if m.kind in KINDS and KINDS[m.kind].needs_prompts}

    @cached_property
    def ready_made(self) -> list[str]:
        """The models whose masks were made elsewhere."""
        return [m.name for m in self.parameters.models if m.kind in KINDS and KINDS[m.kind].needs_path]

    @cached_property
    def main_metric(self) -> str:
        """The metric of the first page: the study's primary one."""
        return self.parameters.fairness.primary

    @cached_property
    def is_compared(self) -> bool:
        """Whether any two groups could be compared."""
        return self.disparity is not None and len(self.disparity) > 0 and self.disparity["gap"].notna().any()

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """The rows of disparity.csv for the first page's metric, of single models."""
        rows = self._of_main_metric
        return rows[rows["model"] != ALL_MODELS]

    @cached_property
    def of_all_models(self) -> pd.DataFrame:
        """The same rows over all models; none of one model alone."""
        rows = self._of_main_metric
        return rows[rows["model"] == ALL_MODELS]

    @cached_property
    def _of_main_metric(self) -> pd.DataFrame:
        if self.disparity is None or self.disparity.empty:
            return pd.DataFrame(columns=["model", "organ", "metric", "attribute", "gap"])
        return self.disparity[self.disparity["metric"] == self.main_metric]

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """The attributes by how often groups differ, of what may be shown."""
        disparity, groups = self.disparity, self.groups
        if disparity is None or groups is None or not {"verdict", "gap"} <= set(disparity) or "sd" not in groups:
            return pd.DataFrame(columns=["metric", "attribute"])
        return rank_attributes(disparity, groups)

    @cached_property
    def found(self) -> list[Row]:
        """The comparisons of the first page's metric that show a difference, gravest first."""
        return rank_rows(self.comparisons.to_dict("records"), self.parameters.fairness.alpha)

    @cached_property
    def failing(self) -> list[dict[str, Any]]:
        """The comparisons of how often models fail, a record each."""
        return [] if self.failures is None or self.failures.empty else pair_groups(self.failures)

    @cached_property
    def covariates(self) -> dict[tuple[str, ...], list[str]]:
        """What each gap is adjusted for, for people, by (model, organ, metric, attribute)."""
        return self._list_names("covariates")

    @cached_property
    def mediators(self) -> dict[tuple[str, ...], list[str]]:
        """What each direct gap holds equal besides, in the same form."""
        return self._list_names("mediators")

    def _list_names(self, column: str) -> dict[tuple[str, ...], list[str]]:
        notes = self.adjusted_notes
        if notes is None or notes.empty or column not in notes:
            return {}
        keys = notes[["model", "organ", "metric", "attribute"]].astype(str).itertuples(index=False, name=None)
        return dict(zip(keys, map(_read_covariates, notes[column]), strict=True))

    def find_adjusted_note(self, row: Row) -> dict[str, str]:
        """Return why a row of disparity.csv has no adjusted gap (``note``), and what to mind."""
        notes, keys = self.adjusted_notes, ["model", "organ", "metric", "attribute"]
        if notes is None or notes.empty:
            return {}
        found = notes[np.all([notes[key].astype(str) == str(row[key]) for key in keys], axis=0)]
        told = found[[name for name in ("note", "warnings") if name in found]].fillna("").astype(str).to_dict("records")
        return {str(name): text for name, text in told[0].items()} if told else {}

    @cached_property
    def adjusted_for(self) -> list[str]:
        """Everything that any gap is adjusted for."""
        return sorted({name for names in self.covariates.values() for name in names})

    @cached_property
    def levels(self) -> dict[Place, dict[str, dict[str, float]]]:
        """Means by (model, organ, attribute), metric and group, for the first page.

        From groups.csv, without groups of too few people; measures that the study did not compare
        (volume errors, by default) are averaged here.
        """
        found: dict[Place, dict[str, dict[str, float]]] = {}
        for metric in dict.fromkeys((self.main_metric, *PLAIN_UNITS)):
            for model, organ, attribute, group, mean in self._average_groups(metric):
                found.setdefault((model, organ, attribute), {}).setdefault(metric, {})[group] = float(mean)
        return found

    @cached_property
    def incomplete(self) -> dict[Place, dict[str, str]]:
        """Who lacks a value, by (model, organ, attribute) and metric: from disparity.csv."""
        found: dict[Place, dict[str, str]] = {}
        if self.disparity is not None and "incomplete" in self.disparity:
            for row in self.disparity[self.disparity["incomplete"].astype(str) != ""].to_dict("records"):
                found.setdefault(find_place(row), {})[str(row["metric"])] = str(row["incomplete"])
        return found

    def _average_groups(self, metric: str) -> Iterable[tuple[str, str, str, str, float]]:
        if self.groups is not None and len(self.groups) and (self.groups["metric"] == metric).any():
            rows = self.groups[(self.groups["metric"] == metric) & self.groups["mean"].notna()]
            yield from rows[["model", "organ", "attribute", "group", "mean"]].itertuples(index=False, name=None)
            return
        people = self.average_people([metric])
        for attribute in (name for name in self.attributes if f"group_{name}" in people):
            shown = hide_small_groups(people, metric, attribute, self.parameters.fairness.min_group)
            known = shown[shown[metric].notna() & shown[f"group_{attribute}"].notna()]
            groups = known[f"group_{attribute}"].astype(str)
            for (model, organ, group), mean in (
                known.groupby(["model", "organ", groups], sort=False)[metric].mean().items()
            ):
                yield model, organ, attribute, group, mean

    def average_people(self, names: list[str]) -> pd.DataFrame:
        """Return these metrics' means by model, organ and person, for :func:`hide_small_groups`."""
        included, metrics = self.included, self.metrics
        if metrics is None or not set(names) <= set(metrics) or included.empty:
            return pd.DataFrame(columns=["model", "organ", "number", *names])
        cohort = included.assign(subject=included["person"], scan=included["number"])
        attributes = [name for name in self.attributes if f"group_{name}" in cohort]
        scans = metrics.assign(subject=metrics["person"], scan=metrics["number"])
        return average_subjects(scans, cohort, attributes, names)[0].drop(columns="subject")

    def find_match(self, row: Row) -> Mapping[str, Any] | None:
        """Return a gap's row of matching.csv: best group ``group_a``, worst ``group_b``."""
        if self.matching is None or self.matching.empty or "group_a" not in self.matching:
            return None
        wanted = {name: str(row[name]) for name in ("model", "organ", "metric", "attribute")}
        wanted |= {"group_a": str(row["best_group"]), "group_b": str(row["worst_group"])}
        kept = self.matching[(self.matching[list(wanted)].astype(str) == list(wanted.values())).all(axis=1)]
        return None if kept.empty else kept.iloc[0].to_dict()


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
    parameters = read_parameters(find_snapshot(folder))
    attributes, min_group = list(parameters.cohort.attributes), parameters.fairness.min_group
    problems: list[str] = []
    wanted = ["agreement_groups", *(one.name for one in fields(Outputs) if one.name in TABLES)]
    tables = {name: _read(folder, TABLES[name], problems) for name in wanted}
    scans = tables["cohort"]
    scrub, people, numbers = _forget_names(tables["cohort"], folder, parameters.cohort.path)
    small = suppression.find_small_groups(tables["cohort"], min_group)
    told_apart = suppression.find_told_apart(tables["cohort"], min_group, small)
    suppression.suppress_small(tables, attributes, min_group, small, told_apart)
    disparity = tables["disparity"]
    if disparity is not None and len(disparity) and "verdict" not in disparity:
        problems.append("fairness/disparity.csv has no verdicts, so that none is given: run 03_performance again.")
    tables = {name: _replace_names(table, people, numbers, scrub) for name, table in tables.items()}
    del tables["agreement_groups"]
    # From here on every model bears the name that tells it apart where models are compared.
    models, labels = parameters.models, label_models(parameters.models)
    tables = {name: None if table is None else label_table(table, labels) for name, table in tables.items()}
    return Outputs(
        parameters=parameters.model_copy(
            update={"models": [model.model_copy(update={"name": labels[model.name]}) for model in models]}
        ),
        model_facts=label_table(tabulate_models(models, parameters.cohort), labels),
        blocks=list_blocks(models),
        run=provenance.read_run(folder),
        templates=_read_templates(folder, problems),
        small=small,
        told_apart=told_apart,
        load_planes=_open_scans(folder, scans, labels, parameters) if parameters.shows_scans else None,
        problems=tuple(problems),
        secrets=scrub.list_secrets(),
        **tables,
    )


def make_scrubber(folder: Path) -> Scrubber:
    """Return what takes the ids, paths and dates of a study's output folder out of texts.

    Without a readable cohort.parquet, paths, dates and addresses are found all the same.
    """
    return _forget_names(_read(Path(folder), TABLES["cohort"], []), Path(folder))[0]


def _read(folder: Path, table: Table, problems: list[str]) -> pd.DataFrame | None:
    """Return a table, that of all models together; None where it is absent or cannot be read."""
    found = []
    for path in sorted(folder.glob(table.path.replace("<model>", "*"))):
        try:
            one = storage.read_table(path, table)
            found.append(one.assign(model=path.parent.name) if "<model>" in table.path else one)
        except pd.errors.EmptyDataError:
            found.append(pd.DataFrame())
        except Exception as error:  # any fault of a file: the rest of the report is still worth having
            name = table.path.removeprefix("predictions/<model>/")
            problems.append(f"{name} cannot be read ({type(error).__name__}): run its stage again.")
    return pd.concat(found, ignore_index=True) if found else None


def _open_scans(
    folder: Path, cohort: pd.DataFrame | None, labels: Mapping[str, str], parameters: Parameters
) -> LoadPlanes | None:
    """Return what draws a model's organ in a scan, by the model's shown name and the number."""
    if cohort is None or cohort.empty:
        return None
    rows, names = cohort.set_index("number"), {label: name for name, label in labels.items()}

    def load(model: str, organ: str, number: int) -> tuple[OrganPlane, ...]:
        row = rows.loc[number]
        mask = choose_place(folder / "predictions" / names[model], f"{row['scan']}.nii.gz", many=False)
        return load_planes(row, mask, organ, parameters)

    return load


def _read_templates(folder: Path, problems: list[str]) -> dict[str, Template]:
    templates = {}
    for path in sorted((folder / "spatial").glob("*/template.npz")):
        try:
            templates[path.parent.name] = Template.load(path)
        except StageError:
            problems.append(f"The template of {path.parent.name} cannot be read: run 04_spatial again.")
    return templates


def _forget_names(
    cohort: pd.DataFrame | None, folder: Path, table: str | None = None
) -> tuple[Scrubber, dict[str, int], dict[str, int]]:
    """Return the scrubber, and numbers of people and scans; `table` is the study's own table."""
    folders = [str(folder.resolve())]
    # A single word ("data") is no path that could be told from other words.
    folders += [str(path) for path in (Path(table), Path(table).parent) if len(path.parts) > 1] if table else []
    if cohort is None or cohort.empty:
        return Scrubber(folders=folders), {}, {}
    named = cohort[cohort["scan"].notna()]
    numbers = dict(zip(named["scan"].astype(str), named["number"].astype(int), strict=True))
    people = {subject: place for place, subject in enumerate(cohort["subject"].dropna().astype(str).unique(), start=1)}
    paths = [str(path) for column in ("reference", "image") if column in cohort for path in cohort[column].dropna()]
    words = {word: told for levels in number_levels(cohort).values() for word, told in levels.items()}
    return Scrubber(numbers, people, paths, folders, words), people, numbers


def _replace_names(
    table: pd.DataFrame | None, people: dict[str, int], numbers: dict[str, int], scrub: Scrubber
) -> pd.DataFrame | None:
    """Put numbers for people and scans, and scrub what was written about one."""
    if table is None:
        return None
    if "subject" in table:
        table = table.assign(person=table["subject"].astype(str).map(people).astype("Int64"))
    if "number" not in table and "scan" in table:
        table = table.assign(number=table["scan"].astype(str).map(numbers).astype("Int64"))
    table = table.drop(columns=[name for name in list_identifying() if name in table])
    scrubbed = [name for name in ("reason", "error", "note", "warnings") if name in table]
    # Each text once: thousands of rows say the same, or nothing.
    told = {name: {text: scrub(text) for text in table[name].dropna().unique()} for name in scrubbed}
    return table.assign(**{name: table[name].map(texts).fillna("") for name, texts in told.items()})


def _read_covariates(told: Any) -> list[str]:
    """Return the covariates that a cell of adjusted_notes.csv names, for people."""
    names = split_covariates(told) if is_known(told) else []
    return ["organ size" if name == VOLUME else name_for_people(name) for name in names]
