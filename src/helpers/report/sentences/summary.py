"""The box that opens the report: what was found, what was not, and what the models are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from helpers.report.sentences.gaps import (
    Means,
    Place,
    Row,
    describe_many_models,
    find_place,
    leaves_worst_open,
    rank_rows,
    tell_hidden,
    tell_sizes,
)
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, find_reach, read_verdict, trace_pooled
from helpers.vocabulary.words import (
    POOLED,
    count,
    list_words,
    name_for_people,
    name_group,
    name_organ,
)

_MOST_NAMED, _MOST_UNCERTAIN, _MOST_QUIET = 3, 5, 6


def summarise_found(
    parts: Mapping[str, pd.DataFrame],
    alpha: float,
    *,
    levels: Mapping[Place, Means],
    places: Mapping[Place, str],
    many: bool,
) -> str:
    """Say for whom which model works worse: the gravest first, all organs where no single one is.

    `parts` are the rows of disparity.csv for one measure by model, `levels` the means of groups,
    `places` where in the organ a group is drawn smaller or larger; `many` models are told together.
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
        said.append(f"{model} works worse {list_words(told)}{more}.")
    if uncertain:
        least = "Also" if said else "No difference is certain to exceed the margin, but"
        briefly = [_tell_briefly(row, alpha) for row in uncertain[:_MOST_UNCERTAIN]]
        more = f" and {len(uncertain) - len(briefly)} more" if len(uncertain) > len(briefly) else ""
        said.append(f"{least} shown, of uncertain or small size: {'; '.join(briefly)}{more}.")
    return " ".join(said)


def summarise_rest(parts: Mapping[str, pd.DataFrame], alpha: float, *, others: Sequence[str] = ()) -> str:
    """Say of the other models that nothing was shown, and how large a gap may be hidden.

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
        said.append(f"For {whom} no difference in {name} was shown")
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
    """Say what each model is; `kinds` have a phrase by model."""
    alike: dict[str, list[str]] = {}
    for model, phrase in kinds.items():
        alike.setdefault(phrase, []).append(model)
    told = [
        f"{list_words(models) if len(models) <= _MOST_NAMED else count(len(models), 'model')} "
        f"{'is' if len(models) == 1 else 'are'} {phrase}"
        for phrase, models in alike.items()
        if phrase
    ]
    return f"What they are: {'; '.join(told)}." if told else ""


def _tell(row: Row, levels: Mapping[Place, Means], places: Mapping[Place, str]) -> str:
    place = find_place(row)
    sizes = ", ".join(tell_sizes(row, levels.get(place, {}))[:2])
    where = f", drawn {places[place]}" if places.get(place) else ""
    return f"for {name_group(place[2], row['worst_group'])} {_name_organ(place[1])} ({sizes}{where})"


def _tell_briefly(row: Row, alpha: float) -> str:
    model, organ, attribute = find_place(row)
    whom = name_group(attribute, row["worst_group"])
    if leaves_worst_open(row, alpha):
        whom = f"some groups by {name_for_people(attribute)}"
    return f"{model} for {whom} {_name_organ(organ)}"


def _name_organ(organ: str) -> str:
    return "over all organs" if organ == POOLED else f"in the {name_organ(organ)}"
