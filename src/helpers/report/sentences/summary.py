"""The box that opens the report: who was compared, what the models are, what was found and not."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import pandas as pd

from helpers.report.sentences.gaps import (
    Means,
    Place,
    Row,
    describe_many_models,
    find_place,
    leaves_worst_open,
    name_best,
    name_worst,
    tell_hidden,
    tell_sizes,
)
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, find_reach, rank_rows, read_verdict, trace_pooled
from helpers.vocabulary.words import (
    POOLED,
    count,
    format_number,
    format_value,
    is_known,
    list_words,
    name_for_people,
    name_organ,
)

_MOST_NAMED, _MOST_UNCERTAIN, _MOST_QUIET, _MOST_GROUPS = 3, 5, 6, 9


def summarise_people(
    people: str, groups: Mapping[str, Mapping[str, int | None]], *, min_group: int, rows: pd.DataFrame
) -> str:
    """Say whom the report compares, by what, and what counts as a difference that matters.

    `people` are who, in words, `groups` how many of them by attribute and group (None: fewer than
    `min_group`); `rows` are of disparity.csv for one measure, with its margin.
    """
    several = sum(map(len, groups.values())) > _MOST_GROUPS
    told = [f"{name_for_people(name)} ({_count_groups(sizes, min_group, several)})" for name, sizes in groups.items()]
    margins = sorted({float(margin) for margin in rows["margin"].dropna()}) if "margin" in rows else []
    said = f"{people}, compared by {list_words(told)}."
    if len(margins) != 1:
        return said
    metric = str(rows["metric"].iloc[0])
    name, margin = find_measure(metric).name, format_value(margins[0], metric)
    return f"{said} Differences in mean {name} under {margin}, the margin, count as unimportant."


def _count_groups(sizes: Mapping[str, int | None], min_group: int, several: bool) -> str:
    if not sizes:
        return "not known for anyone"
    if several:
        return count(len(sizes), "group")
    return ", ".join(f"{group}: {f'fewer than {min_group}' if size is None else size}" for group, size in sizes.items())


def summarise_found(
    parts: Mapping[str, pd.DataFrame],
    alpha: float,
    *,
    levels: Mapping[Place, Means],
    places: Mapping[Place, str],
    many: bool,
    apart: Container[str] = (),
) -> str:
    """Say for whom which model works worse: the gravest first, all organs where no single one is.

    `parts` are the rows of disparity.csv for one measure by model, `levels` the means of groups,
    `places` where the masks of a group lie further inside or outside; `many` are told together;
    `apart` are no models, and are said to be none.
    """
    if many:
        return describe_many_models(parts, alpha)
    grave, uncertain = dict[str, list[Row]](), list[Row]()
    for model, part in parts.items():
        rows = part.to_dict("records")
        for row in rank_rows(rows, alpha):
            if trace_pooled(row, rows, alpha):
                continue
            if read_verdict(row, alpha) is Verdict.DISPARITY:
                grave.setdefault(model, []).append(row)
            else:
                uncertain.append(row)
    said = []
    for model, found in grave.items():
        told = [_tell(row, levels, places) for row in found[:_MOST_NAMED]]
        more = f", and {len(found) - len(told)} more" if len(found) > len(told) else ""
        said.append(f"{model}{', which is no model,' * (model in apart)} is worse {list_words(told)}{more}.")
    if uncertain:
        least = "Differences" if said else "No difference is certain to exceed the margin. Differences"
        briefly = [_tell_briefly(row, alpha) for row in uncertain[:_MOST_UNCERTAIN]]
        more = f" and {len(uncertain) - len(briefly)} more" if len(uncertain) > len(briefly) else ""
        said.append(f"{least} of small or uncertain size: {'; '.join(briefly)}{more}.")
    return " ".join(said)


def summarise_rest(parts: Mapping[str, pd.DataFrame], alpha: float, *, others: Sequence[str] = ()) -> str:
    """Say of the other models that nothing was found, and how large a gap may be hidden.

    `others` are the models of which measures other than this one show a difference.
    """
    quiet, unknown, open_ = list[str](), list[str](), list[Row]()
    for model, part in parts.items():
        rows = part.to_dict("records")
        verdicts = [read_verdict(row, alpha) for row in rows]
        if any(verdict.shows_difference for verdict in verdicts):
            continue
        (quiet if any(verdict is not Verdict.NOT_COMPARED for verdict in verdicts) else unknown).append(model)
        open_ += [row for row, verdict in zip(rows, verdicts, strict=True) if verdict is Verdict.INCONCLUSIVE]
    said = []
    if quiet:
        name = find_measure(str(next(iter(parts.values()))["metric"].iloc[0])).name
        whom = list_words(quiet) if len(quiet) <= _MOST_QUIET else f"the other {len(quiet)} models"
        said.append(f"For {whom} no difference in {name} was found")
        if open_ and any(find_reach(row) for row in open_):
            said[-1] += f"; {tell_hidden(open_, name_model=len(quiet) > 1)}"
        else:
            unknown_reach = "; how large a gap may be hidden is not known"
            said[-1] += unknown_reach if open_ else ": every comparison is within the margin"
        other = [model for model in quiet if model in others]
        said[-1] += f" (other measures show differences for {list_words(other)}, below)." if other else "."
    if unknown:
        said.append(f"For {list_words(unknown)} no groups could be compared.")
    return " ".join(said)


def summarise_models(kinds: Mapping[str, str]) -> str:
    """Say what each model is; `kinds` have a phrase by model. Empty where nothing is known."""
    alike: dict[str, list[str]] = {}
    for model, phrase in kinds.items():
        alike.setdefault(phrase, []).append(model)
    told = [
        f"{list_words(models) if len(models) <= _MOST_NAMED else count(len(models), 'model')} "
        f"{'is' if len(models) == 1 else 'are'} {phrase}"
        for phrase, models in alike.items()
        if phrase
    ]
    return f"{'; '.join(told)}." if told else ""


def _tell(row: Row, levels: Mapping[Place, Means], places: Mapping[Place, str]) -> str:
    place = find_place(row)
    known, metric = levels.get(place, {}), str(row["metric"])
    sizes = tell_sizes(row, known)[:2]
    at_worst, at_best = (known.get(metric, {}).get(str(row[side])) for side in ("worst_group", "best_group"))
    if is_known(at_worst) and is_known(at_best):
        means = f"{format_number(at_worst, metric)} against {format_value(at_best, metric)}"
        sizes[0] = f"mean {find_measure(metric).name} {means} for {name_best(row)}"
    if places.get(place):
        sizes[1:] = [places[place]]
    return f"for {name_worst(row)} {_name_organ(place[1])} ({'; '.join(sizes)})"


def _tell_briefly(row: Row, alpha: float) -> str:
    model, organ, attribute = find_place(row)
    whom = name_worst(row)
    if leaves_worst_open(row, alpha):
        whom = f"some groups by {name_for_people(attribute)}"
    return f"{model} for {whom} {_name_organ(organ)}"


def _name_organ(organ: str) -> str:
    return "over all organs" if organ == POOLED else f"in the {name_organ(organ)}"
