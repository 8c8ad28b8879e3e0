"""The share of each group's people on whom a model fails: a table per model, organs by groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.fairness.failures import pair_groups
from helpers.figures.panels import MANY_MODELS, put_first
from helpers.figures.verdict_matrix import Place, VerdictMatrix, draw_line, escape
from helpers.vocabulary.verdicts import Verdict, read_verdict
from helpers.vocabulary.words import (
    MISSED_ORGAN,
    POOLED,
    UNKNOWN,
    format_p,
    format_share,
    is_known,
    name_failure,
    name_for_people,
    name_organ,
)

# The share from which a cell has the tint: sign and number say the same.
_TINTS = ((0.20, "high"), (0.05, "some"), (1e-9, "few"))
_STYLE = """\
<style>
.failures td.high { background: #F4A582; }
.failures td.some { background: #FBD5BF; }
.failures td.few { background: #FEF0E6; }
.failures thead th:first-child { width: 8.5rem; }
.failures td, .failures tbody th { height: 1.7rem; white-space: nowrap; }
.failures td small { color: #444; }
</style>
"""


def choose_kind(failures: pd.DataFrame, metric: str) -> tuple[str, float] | None:
    """Return the kind of failure that is told first: the gravest threshold of `metric`.

    Of another metric where that has none, of missed organs where no metric has; None where nothing
    was counted.
    """
    kinds = failures[["metric", "threshold"]].drop_duplicates()
    of_measures = kinds[kinds["metric"] != MISSED_ORGAN]
    for part in (of_measures[of_measures["metric"] == metric], of_measures, kinds):
        if len(part):
            # Thresholds of a metric stand from the mildest to the gravest.
            chosen = part[part["metric"] == part["metric"].iloc[0]].iloc[-1]
            return str(chosen["metric"]), float(chosen["threshold"])
    return None


def take_kind(failures: pd.DataFrame, kind: tuple[str, float]) -> pd.DataFrame:
    """Return the rows of one kind of failure."""
    metric, threshold = kind
    same = (failures["threshold"] == threshold) | (failures["threshold"].isna() & pd.isna(threshold))
    return failures[(failures["metric"] == metric) & same]


def show_failures(
    failures: pd.DataFrame, metric: str, *, alpha: float, blocks: Mapping[str, str] | None = None
) -> VerdictMatrix:
    """Show how often each model fails, in each group: a table per model, organs by groups.

    `failures` is ``fairness/failures.csv`` as it may be shown
    (:func:`helpers.fairness.failures.hide_subtractable`); of several kinds of failure that of
    :func:`choose_kind` stands open, the others are folded beneath. `alpha` as in
    :func:`helpers.figures.verdict_matrix.show_verdicts`. A cell holds the share and the number of
    people; a sign marks the worst group where a difference is found. Texts are escaped; `blocks`
    gives each model its heading (:func:`helpers.models.list_blocks`).
    """
    first = choose_kind(failures, metric)
    if first is None:
        return VerdictMatrix("<p>No failures were counted: there is no attribute, or nothing to count.</p>")
    kinds = list(failures[["metric", "threshold"]].drop_duplicates().itertuples(index=False, name=None))
    others = [kind for kind in kinds if name_failure(*kind) != name_failure(*first)]
    folded = [
        f"<details><summary>{escape(name_failure(*kind))}</summary>{_draw(failures, kind, alpha, blocks)}</details>"
        for kind in others
    ]
    return VerdictMatrix("".join([_STYLE, _draw(failures, first, alpha, blocks), *folded]))


def _draw(failures: pd.DataFrame, kind: tuple[str, float], alpha: float, blocks: Mapping[str, str] | None) -> str:
    part = take_kind(failures, kind)
    compared = {
        (row["model"], row["organ"], row["attribute"]): (row, read_verdict(row, alpha)) for row in pair_groups(part)
    }
    cells = {(row.model, row.organ, row.attribute, row.group): row for row in part.itertuples(index=False)}
    columns = list(dict.fromkeys(part[["attribute", "group"]].itertuples(index=False, name=None)))
    organs = put_first(part["organ"], POOLED)
    caption = f"On how many people each model fails: {name_failure(*kind)}, by organ and group"
    head = "".join(
        f'<th scope="col">{escape(name_for_people(attribute))}: {escape(group)}</th>' for attribute, group in columns
    )
    nobody = [model for model, rows in part.groupby("model", sort=False) if (rows["failed"] == 0).all()]
    tables = {}
    for model in (model for model in dict.fromkeys(part["model"]) if model not in nobody):
        lines = []
        for organ in organs:
            drawn = [
                _draw_cell(cells.get((model, organ, *column)), *compared.get((model, organ, column[0]), ({}, None)))
                for column in columns
            ]
            name = f"{name_organ(organ)}{' (any)' * (organ == POOLED)}"
            lines.append(draw_line(name, "".join(drawn)))
        tables[model] = (
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(f"{model}: {caption}")}"><table>'
            f'<caption>{escape(model)}</caption><thead><tr><th scope="col">organ</th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )
    by_block: dict[str, list[str]] = {}
    for model, table in tables.items():
        by_block.setdefault((blocks or {}).get(model, ""), []).append(table)
    grid = "".join(
        f'<p class="block">{escape(heading)}</p>' * (len(by_block) > 1)
        + f'<div class="models{" wide" * (len(columns) > 3)}">{"".join(together)}</div>'
        for heading, together in by_block.items()
    )
    if nobody:
        grid += f"<p>On nobody: {escape(', '.join(map(str, nobody)))}.</p>"
    signs = ", ".join(f"{one.sign} {one.word}" for one in Verdict if one.shows_difference)
    page = (
        f'<figure class="verdicts failures"><figcaption>{escape(caption)}</figcaption>{grid}<p class="how">'
        "<strong>How to read this.</strong> The share of a group's people on whom the model fails, and how many they "
        f"are. A sign in the worst group says that groups were found to differ ({signs}); where there is none, none "
        "was found, which is no proof that there is none. No numbers stand beside a group that is too small to be "
        "shown, because its own would follow from them.</p></figure>"
    )
    is_long = len(tables) > MANY_MODELS
    return f"<details><summary>{escape(caption)}</summary>{page}</details>" if is_long else page


def _draw_cell(row: Any, compared: Mapping[str, Any], verdict: Verdict | None) -> str:
    if row is None or not is_known(row.share):
        return f"<td>{UNKNOWN}</td>"
    tint = next((name for least, name in _TINTS if row.share >= least), "")
    worst = verdict is not None and verdict.shows_difference and compared["worst_group"] == row.group
    sign = f"{verdict.sign} " if worst and verdict is not None else ""
    told = f"{row.failed:.0f} of {row.n:.0f} people, 95 % CI {format_share(row.low)} to {format_share(row.high)}"
    if worst:
        told += f"; adjusted {format_p(compared['p_adjusted'])}"
    text = f"<b>{sign}{format_share(row.share)}</b> <small>({row.failed:.0f})</small>"
    return f'<td class="{tint}" title="{escape(told)}">{text}</td>'


def find_failing(failures: pd.DataFrame | None, metric: str, alpha: float) -> frozenset[Place]:
    """Return the model, organ and attribute where groups differ in the failures told first.

    `failures` is ``fairness/failures.csv`` as it may be shown, `metric` that of the verdicts.
    """
    kind = None if failures is None or failures.empty else choose_kind(failures, metric)
    if failures is None or kind is None:
        return frozenset()
    return frozenset(
        (row["model"], row["organ"], row["attribute"])
        for row in pair_groups(take_kind(failures, kind))
        if read_verdict(row, alpha).shows_difference
    )
