"""What the exploration shows for which choices; no widgets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from helpers import fairness, storage
from helpers.cohort.grouping import number_levels
from helpers.errors import SegfairError
from helpers.fairness.adjustment import adjust_gaps
from helpers.fairness.confounding import is_numeric
from helpers.fairness.groups import list_groups, read_covariates
from helpers.fairness.partial_residuals import PartialResiduals, measure_partial_residuals
from helpers.fairness.trends import fit_trends
from helpers.figures.explore import MOST_COLOURS, OTHERS, plot_people
from helpers.study import Study, list_measured
from helpers.vocabulary.measures import find_measure, list_scores
from helpers.vocabulary.words import (
    UNITS,
    count,
    format_interval,
    format_value,
    list_words,
    name_for_people,
    name_organ,
    start_sentence,
)
from helpers.widgets.browser import check_choice, find_finding, rank_scores

Kept = str | tuple[float, float]  # a group, or numbers from the first to the last
NOTHING = "nothing"
SIZE = "organ volume"
_CHOICES = ("model", "organ", "metric", "across", "colour", "covariates")  # of a saved view
_GROUPS = "group:"  # marks the choice of an attribute's groups, where its numbers are a choice too


@dataclass(frozen=True)
class PeopleView:
    """What is shown now."""

    model: str
    organ: str
    metric: str
    across: str  # what lies on the x axis: a key of `Explorer.dimensions`
    colour: str  # a key of `Explorer.colours`
    covariates: tuple[str, ...]  # what is adjusted for, in the order of `list_covariates`
    only: tuple[tuple[str, Kept], ...] = ()  # who is looked at: of each column named, these
    selected: tuple[int, ...] = ()  # numbers of the people brushed; empty when nobody is
    # One row per person drawn: number, scans, place, colour, measured (the metric), score (the
    # metric, or what is left of it, adjusted for the covariates).
    points: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    adjusted: bool = False  # whether ``score`` is adjusted: not where that was not possible
    message: str = field(default="", compare=False)
    # The means of groups, or the curve: place, estimate, low, high.
    summary: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    footnote: str = field(default="", compare=False)  # who is not drawn


class Explorer:
    """The people of a study after 03_performance and their scores, to be looked at from all sides.

    `dimensions` is what may lie on the x axis, and its name with its unit; `colours` what people
    may be coloured by, and its name; `view` is what is shown now, which :meth:`show` changes.
    `levels` is what stands for values of a column (:func:`helpers.cohort.grouping.number_levels`).

    Raises
    ------
    StageError
        01_cohort or 03_performance has not run.
    SegfairError
        Nothing was measured.
    """

    def __init__(self, study: Study, *, levels: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.study = study
        self._views_file = study.folder / "views.json"
        self._metrics, self._cohort = study.read("metrics"), study.read_included()
        parameters = study.parameters
        self._attributes = list(parameters.cohort.attributes)
        self.metrics = [name for name in list_scores() if name in self._metrics]
        # The study's own metrics first: the first one of them is its main one.
        chosen = parameters.fairness.metrics
        self.metrics.sort(key=lambda name: chosen.index(name) if name in chosen else len(chosen))
        self._people, _ = fairness.average_subjects(self._metrics, self._cohort, self._attributes, self.metrics)
        if self._people[self.metrics].notna().sum().sum() == 0:
            raise SegfairError(f"nothing was measured in study {study.name!r}: see the reasons in 02_inference and 03")
        self.models, self.organs = (list(dict.fromkeys(self._people[name])) for name in ("model", "organ"))
        confounders = [name for name in parameters.cohort.confounders if name in self._cohort]
        first = self._people.drop_duplicates("subject").set_index("subject")
        self._subjects = first.index
        self._names = list(dict.fromkeys([*self._attributes, *confounders]))
        known = [name for name in self._names if name in self._cohort]
        self._columns = read_covariates(self._cohort, first.index, known)
        told = {name: self._columns[name].map(words) for name, words in (levels or {}).items() if name in known}
        self._columns = self._columns.assign(**told)
        self._groups = first[[f"group_{name}" for name in self._attributes]]
        self.dimensions = self._list_dimensions()
        self.colours = {NOTHING: NOTHING} | {
            key: name.removesuffix(", in groups") for key, name in self.dimensions.items() if key.startswith(_GROUPS)
        }
        found = find_finding(study)
        across = _GROUPS + found.get("attribute", "")
        across = across if across in self.dimensions else next(iter(self.dimensions))
        colour = across if across in self.colours else NOTHING
        model, organ = found.get("model", self.models[-1]), found.get("organ", self.organs[0])
        self.view = PeopleView(model, organ, self.metrics[0], across, colour, ())
        self.show()

    def list_covariates(self, across: str) -> list[str]:
        """Return what can be adjusted for beside what lies on the x axis."""
        taken = across.removeprefix(_GROUPS)
        return [name for name in (*self._names, SIZE) if name != taken]

    def list_filters(self) -> dict[str, list[str] | tuple[float, float]]:
        """Return by what people can be chosen: a column's groups, or its lowest and highest."""
        found: dict[str, list[str] | tuple[float, float]] = {}
        for name in self._names:
            if self._has_numbers(name):
                known = self._columns[name].astype(float)
                if known.min() < known.max():
                    found[name] = (float(known.min()), float(known.max()))
            else:
                groups = self._read(_GROUPS + name, "").cat.remove_unused_categories().cat.categories
                if len(groups) > 1:
                    found[name] = [str(group) for group in groups]
        return found

    def list_views(self) -> dict[str, dict[str, Any]]:
        """Return the views saved with this study, by name; none where they cannot be read."""
        try:
            return dict(json.loads(self._views_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def save_view(self, name: str) -> None:
        """Save what is shown under a name, in the place of what had it, in ``views.json``.

        Raises
        ------
        SegfairError
            The folder cannot be written.
        """
        shown = asdict(replace(self.view, points=pd.DataFrame(), summary=None))
        kept = {key: shown[key] for key in (*_CHOICES, "selected")} | {"only": dict(self.view.only)}
        storage.write_json(self.list_views() | {name: kept}, self._views_file)

    def show_view(self, name: str) -> PeopleView:
        """Show a saved view.

        Raises
        ------
        SegfairError
            The study no longer has what it shows.
        """
        kept = self.list_views().get(name, {})
        only = {key: tuple(one) if isinstance(one, list) else one for key, one in kept.get("only", {}).items()}
        try:
            return self.show(**{key: kept.get(key) for key in (*_CHOICES, "selected")}, only=only)
        except (ValueError, TypeError) as error:
            raise SegfairError(f"the view {name!r} does not fit this study any more: {error}") from error

    def show(
        self,
        *,
        model: str | None = None,
        organ: str | None = None,
        metric: str | None = None,
        across: str | None = None,
        colour: str | None = None,
        covariates: Sequence[str] | None = None,
        only: Mapping[str, Kept] | None = None,
        selected: Sequence[int] | None = None,
    ) -> PeopleView:
        """Change what is shown; what is not given stays, as far as it fits.

        `only` says who is looked at, by columns of :meth:`list_filters`: of one group, or with
        numbers from the first to the last.

        A covariate that comes to lie on the x axis is no longer adjusted for; people who are not
        drawn are no longer selected.

        Raises
        ------
        ValueError
            A value is not among the choices.
        """
        old = self.view
        across = check_choice("across", across or old.across, self.dimensions)
        possible = self.list_covariates(across)
        wanted = old.covariates if covariates is None else covariates
        for name in wanted:
            check_choice("covariates", name, [*self._names, SIZE])
        wished = PeopleView(
            check_choice("model", model or old.model, self.models),
            check_choice("organ", organ or old.organ, self.organs),
            check_choice("metric", metric or old.metric, self.metrics),
            across,
            check_choice("colour", colour or old.colour, self.colours),
            tuple(name for name in possible if name in wanted),
            old.only if only is None else self._check_only(only),
        )
        view = self._fill(wished)
        brushed, drawn = old.selected if selected is None else selected, set(view.points["number"])
        self.view = replace(view, selected=tuple(int(number) for number in brushed if number in drawn))
        return self.view

    def number_values(self) -> Explorer:
        """Return the same view with confounders' values numbered, for whoever has no table."""
        view, levels = self.view, number_levels(self.study.read("cohort"))
        only = {
            name: levels.get(name, {}).get(kept, kept) if isinstance(kept, str) else kept for name, kept in view.only
        }
        other = Explorer(self.study, levels=levels)
        other.show(**{name: getattr(view, name) for name in (*_CHOICES, "selected")}, only=only)
        return other

    def list_scans(self) -> pd.DataFrame:
        """Return the scans of the people selected, worst first: number, score (the metric), status.

        With all organs pooled a scan's score is the mean of its organs.
        """
        view = self.view
        subjects = self._cohort.loc[self._cohort["number"].isin(view.selected), "subject"]
        rows = self._metrics[(self._metrics["model"] == view.model) & self._metrics["subject"].isin(subjects)]
        if view.organ != fairness.POOLED:
            rows = rows[rows["organ"] == view.organ]
        by_scan = rows.groupby("number").agg(score=(view.metric, "mean"), status=("status", "first")).reset_index()
        ranked = by_scan.assign(rank=rank_scores(by_scan["score"], view.metric))
        return ranked.sort_values(["rank", "number"], ignore_index=True).drop(columns="rank")

    def find_worst(self, count: int) -> tuple[int, ...]:
        """Return the numbers of the people with the worst scores among those drawn."""
        points = self.view.points
        order = (points["score"] * find_measure(self.view.metric).sign).sort_values(kind="stable").index
        return tuple(int(number) for number in points.loc[order[:count], "number"])

    def figure(self) -> go.Figure:
        """Return the view as a figure."""
        view = self.view
        names = self._read(view.colour, view.organ).cat.categories.astype(str) if view.colour != NOTHING else []
        return plot_people(
            view.points,
            metric=view.metric,
            across=self.dimensions[view.across],
            colours=[name for name in names if (view.points["colour"] == name).any()],
            summary=view.summary,
            adjusted_for=[name_covariate(name) for name in view.covariates] if view.adjusted else (),
            title=f"{find_measure(view.metric).long_name} of {view.model}: {name_organ(view.organ)}",
            footnote=view.footnote,
            selected=view.selected,
        )

    def tabulate(self) -> pd.DataFrame:
        """Return the view's data for a file: study-local numbers, no names of people or scans."""
        view = self.view
        table = view.points
        place = view.across.removeprefix(_GROUPS).replace(" ", "_") + ("_ml" if view.across == SIZE else "")
        columns = {
            "number": table["number"], "scans": table["scans"], "model": view.model, "organ": view.organ,
            place: table["place"], view.metric: table["measured"],
        }  # fmt: skip
        if view.adjusted:
            columns[f"{view.metric}_adjusted"] = table["score"]
            columns["held_equal"] = "; ".join(view.covariates)
        if view.colour != NOTHING and view.colour != view.across:
            columns["colour_" + view.colour.removeprefix(_GROUPS)] = table["colour"]
        if view.selected:
            columns["selected"] = table["number"].isin(view.selected)
        return pd.DataFrame(columns)

    def _list_dimensions(self) -> dict[str, str]:
        dimensions, attributes = {}, self.study.parameters.cohort.attributes
        for name in self._names:
            words, numbers, attribute = name_for_people(name), self._has_numbers(name), attributes.get(name)
            unit = (attribute.unit if attribute is not None else "") or UNITS.get(name, "")
            if numbers:
                dimensions[name] = f"{words} ({unit})" if unit else words
            if name in attributes or not numbers:
                dimensions[_GROUPS + name] = f"{words}, in groups" if numbers else words
        return dimensions | {SIZE: "organ volume (ml)"}

    def _has_numbers(self, name: str) -> bool:
        return name in self._columns and is_numeric(self._columns[name])

    def _read(self, key: str, organ: str) -> pd.Series:
        """Return a dimension's value of every subject: floats, or an ordered category."""
        if key == SIZE:
            rows = self._metrics if organ == fairness.POOLED else self._metrics[self._metrics["organ"] == organ]
            by_scan = rows[rows["volume_ref_ml"] > 0].drop_duplicates(["subject", "scan", "organ"])
            total = by_scan.groupby(["subject", "scan"])["volume_ref_ml"].sum()
            return total.groupby("subject").mean().reindex(self._subjects).astype(float)
        name = key.removeprefix(_GROUPS)
        if not key.startswith(_GROUPS):
            return self._columns[name].astype(float)
        column = self._groups[f"group_{name}"] if name in self._attributes else self._columns[name]
        names = list_groups(column)
        return pd.Series(
            pd.Categorical(column.astype(object).where(column.notna(), None), names, ordered=True), index=self._subjects
        )

    def _read_covariates(self, names: Sequence[str], organ: str) -> pd.DataFrame:
        """Return covariates as the audit takes them: numbers, else groups; an organ's log size."""
        columns = {}
        for name in names:
            if name == SIZE:
                columns[name] = np.log(self._read(SIZE, organ))
            elif self._has_numbers(name):
                columns[name] = self._read(name, organ)
            else:
                columns[name] = self._read(_GROUPS + name, organ).astype(object)
        return pd.DataFrame(columns, index=self._subjects)

    def _fill(self, view: PeopleView) -> PeopleView:
        """Return the view with its points, its means or curve, and what is to be said."""
        smallest = self.study.parameters.fairness.min_group
        rows = self._people[(self._people["model"] == view.model) & (self._people["organ"] == view.organ)]
        rows = rows.set_index("subject").reindex(self._subjects)
        place = self._read(view.across, view.organ)
        measured = rows[view.metric].astype(float).where(self._find_kept(view.only))
        drawn = measured.notna() & place.notna()
        footnotes = []
        if isinstance(place.dtype, pd.CategoricalDtype):
            counts = place[drawn].value_counts(sort=False)
            few = [str(name) for name, count in counts.items() if 0 < count < smallest]
            drawn &= ~place.astype(object).isin(few)
            place = place.cat.set_categories([name for name, count in counts.items() if count >= smallest])
            if few:
                footnotes.append(f"Not drawn (fewer than {smallest} people): {', '.join(few)}.")
        score, notes = measured, []
        if view.covariates:
            held = measure_partial_residuals(
                measured.to_numpy(), place, self._read_covariates(view.covariates, view.organ), min_group=smallest
            )
            notes += _describe_adjustment(held)
            if not held.note:
                score = pd.Series(held.scores, index=measured.index)
                drawn &= score.notna()
                view = replace(view, adjusted=bool(held.covariates))
        absent = int((measured.notna() & ~drawn).sum())
        summary, words = self._summarise(view, measured.where(drawn), place, smallest)
        notes += words
        colour = self._read(view.colour, view.organ) if view.colour != NOTHING else None
        names = "" if colour is None else self._name_colours(colour, drawn)
        points = rows[["number", "scans"]].assign(place=place, colour=names, measured=measured, score=score)
        points = points[drawn.to_numpy()].reset_index(drop=True).astype({"number": int, "scans": int})
        if isinstance(points["place"].dtype, pd.CategoricalDtype):
            points["place"] = points["place"].cat.remove_unused_categories()
        said = count(len(points), "person", "people") + (f", {absent} not drawn" if absent else "")
        if view.only:
            said += f"; only {list_words(map(_describe_kept, view.only))}"
        return replace(
            view, points=points, message=". ".join([said, *notes]) + ".", summary=summary, footnote=" ".join(footnotes)
        )

    def _check_only(self, only: Mapping[str, Kept]) -> tuple[tuple[str, Kept], ...]:
        known = self.list_filters()
        for name, kept in only.items():
            check_choice("only", name, known)
            if isinstance(kept, str):
                check_choice(name, kept, known[name])
        return tuple(only.items())

    def _find_kept(self, only: tuple[tuple[str, Kept], ...]) -> pd.Series:
        """Return who is looked at, by subject; whose value is unknown is not."""
        kept = pd.Series(True, index=self._subjects)
        for name, wanted in only:
            if isinstance(wanted, str):
                kept &= (self._read(_GROUPS + name, "").astype(object) == wanted).to_numpy(bool)
            else:
                kept &= self._columns[name].astype(float).between(*wanted).to_numpy(bool)
        return kept

    def _summarise(
        self, view: PeopleView, measured: pd.Series, place: pd.Series, smallest: int
    ) -> tuple[pd.DataFrame | None, list[str]]:
        """Return the groups' means or the curve, adjusted for the covariates, and what they say."""
        covariates = self._read_covariates(view.covariates, view.organ)
        values = measured.to_numpy()[:, None]
        if not isinstance(place.dtype, pd.CategoricalDtype):
            found = fit_trends(
                values, place.to_numpy(float), covariates, seed=self.study.seed_for("explore"), min_group=smallest
            )
            note = found.tests["note"].iloc[0]
            curve = found.curves.rename(columns={"value": "place"})[["place", "estimate", "low", "high"]]
            return (curve if len(curve) else None), [start_sentence(note)] if note else []
        adjusted = adjust_gaps(values, place.to_numpy(object), covariates, [view.metric], min_group=smallest)
        means = adjusted.means.rename(columns={"group": "place", "mean": "estimate"})
        gap = adjusted.gaps.iloc[0]
        if means.empty or pd.isna(gap["low"]):
            return (means if len(means) else None), [start_sentence(str(gap["note"]))] if gap["note"] else []
        held = f", adjusted for {list_words(map(name_covariate, view.covariates))}" if view.adjusted else ""
        said = (
            f"Gap in {find_measure(view.metric).name} between {gap['best_group']} (best) and "
            f"{gap['worst_group']}{held}: {format_value(gap['adjusted_gap'], view.metric)} "
            f"(95 % confidence interval {format_interval(gap['low'], gap['high'], view.metric)})"
        )
        return means[["place", "estimate", "low", "high"]], [said]

    def _name_colours(self, colour: pd.Series, drawn: pd.Series) -> pd.Series:
        """Return everyone's colour by name; small, unknown and too many groups share one."""
        counts = colour[drawn].value_counts(sort=False)
        smallest = self.study.parameters.fairness.min_group
        largest = sorted((name for name in counts.index if counts[name] >= smallest), key=lambda name: -counts[name])
        return colour.astype(object).where(colour.isin(largest[:MOST_COLOURS]).to_numpy(), OTHERS)


def _describe_adjustment(held: PartialResiduals) -> list[str]:
    """Return what is to be said of the covariates, in sentences without their full stops."""
    if held.note:
        return [f"Shown as measured: {held.note}"]
    notes = [f"Not adjusted for: {held.dropped}"] if held.dropped else []
    if held.n_missing:
        people = count(held.n_missing, "person is", "people are")
        notes.append(f"{people} left out: a covariate is missing")
    return notes


def name_covariate(name: str) -> str:
    """Return a covariate's name for people."""
    return name if name == SIZE else name_for_people(name)


def list_studies(study: Study) -> dict[str, Study]:
    """Return the studies that can be explored, by name: this one and the others of its outputs."""
    return {study.name: study} | {
        other.name: other for other in list_measured(study.folder.parent) if other.name != study.name
    }


def _describe_kept(kept: tuple[str, Kept]) -> str:
    name, wanted = kept
    words = name_for_people(name)
    return f"{words} {wanted}" if isinstance(wanted, str) else f"{words} {wanted[0]:g} to {wanted[1]:g}"
