"""Two studies' output folders → which gaps are new, gone, larger or smaller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers import fairness, storage
from helpers.errors import SegfairError
from helpers.study import Study, find_study
from helpers.vocabulary.measures import find_measure, use_measures
from helpers.vocabulary.words import format_value, name_organ, state_estimate

_SAID = {"new": "new disparity", "gone": "disparity gone", "larger": "gap larger", "smaller": "gap smaller"}


def compare_folders(
    before: Path, after: Path, pairs: Sequence[str] = ()
) -> tuple[fairness.StudiesCompared, list[str], Path]:
    """Compare two studies of the same people; write ``gaps.csv``, ``groups.csv``, ``notes.json``.

    `before` and `after` are output folders, or parameter files; margins, smallest group and
    attributes are the later study's. `pairs` are ``"old=new"`` for models of other names; else
    models of equal names are compared, or the only one of each study. A SegfairError where one is
    no study whose 03_performance has run, or they have nothing in common.

    Returns
    -------
    found : StudiesCompared
        See :func:`helpers.fairness.compare_studies`.
    sentences : list of str
        One for every gap that changed, the gravest first, then the notes.
    folder : Path
        ``compared_with_<name>`` in the later study's folder, where the tables lie.
    """
    former, later = find_study(before), find_study(after)
    (first, _), (second, _) = tables = _read(former), _read(later)
    attributes = [name for name in later.parameters.cohort.attributes if name in former.parameters.cohort.attributes]
    if not attributes:
        raise SegfairError(f"{before} and {after} have no attribute in common: name it alike in both")
    settings = later.parameters.fairness
    metrics = [name for name in settings.metrics if name in first and name in second]
    found = fairness.compare_studies(
        *tables,
        _pair_models(list(dict.fromkeys(first["model"])), list(dict.fromkeys(second["model"])), pairs),
        settings.model_copy(update={"metrics": metrics}),
        attributes,
        later.seed_for("fairness"),
        cluster=later.parameters.cohort.cluster,
    )
    folder = later.folder / f"compared_with_{former.name}"
    storage.write_table(found.gaps, folder / "gaps.csv")
    storage.write_table(found.groups, folder / "groups.csv")
    storage.write_json({"notes": found.notes}, folder / "notes.json")
    with use_measures(settings.measures):
        return found, _describe(found), folder


def _describe(found: fairness.StudiesCompared) -> list[str]:
    lines = []
    for change, said in _SAID.items():
        for row in found.gaps[found.gaps["change"] == change].itertuples(index=False):
            models = (
                row.model_after if row.model_before == row.model_after else f"{row.model_before} → {row.model_after}"
            )
            gaps = " to ".join(format_value(gap, row.metric) for gap in (row.gap_before, row.gap_after))
            lines.append(
                f"{said}: {models}, {name_organ(row.organ)}, {find_measure(row.metric).name}, {row.attribute}: "
                f"from {gaps}, a change of {state_estimate(row.difference, row.low, row.high, row.metric)}; worst off: "
                f"{row.worst_group_after} (before: {row.worst_group_before})"
            )
    changed = len(lines)
    lines.append(f"{len(found.gaps) - changed} of {len(found.gaps)} gaps: no change found")
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _read(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    return study.read("metrics"), study.read_included()


def _pair_models(before: list[str], after: list[str], pairs: Sequence[str]) -> list[tuple[str, str]]:
    """Return which models are compared, by name."""
    found = []
    for text in pairs:
        old, equals, new = text.partition("=")
        if not equals or old not in before or new not in after:
            raise SegfairError(
                f"--pair {text}: write old=new, with old one of {', '.join(before)} and new one of {', '.join(after)}"
            )
        found.append((old, new))
    if found:
        return found
    if common := [(name, name) for name in before if name in after]:
        return common
    if len(before) == len(after) == 1:
        return [(before[0], after[0])]
    raise SegfairError(
        f"the studies have no model of one name ({', '.join(before)}; {', '.join(after)}): give --pair old=new"
    )
