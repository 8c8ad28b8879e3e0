"""The table that papers print, as a spreadsheet and for LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from helpers import fairness, storage
from helpers.fairness.paper import RELATIVE_VOLUME
from helpers.models.description import NO_RANKING, is_mixed, label_models, label_table
from helpers.parameters import Fairness, FusionModel, Model, RelativeMargin
from helpers.study import Study
from helpers.vocabulary.measures import MEASURES
from helpers.vocabulary.words import (
    POOLED,
    UNKNOWN,
    compare_p,
    format_number,
    format_value,
    is_known,
    list_words,
    name_for_people,
    name_organ,
    write_number,
)

# A column's heading is the attribute, this, and the group (or "ANOVA p").
BETWEEN = ": "
_KEYS = ["modality", "measure", "organ", "model"]
_SPECIAL = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    # What pdfTeX has only in formulas, or reads as something else.
    | {"<": "$<$", ">": "$>$", "±": r"$\pm$", "−": "$-$", "≤": r"$\leq$", "≥": r"$\geq$", "÷": r"$\div$"}
    | {"|": "$|$", "²": "$^2$", "–": "--", "“": "``", "”": "''", "\u00a0": "~", "\n": " "}
    # At the beginning of a row these are taken for an option of the end of the row before it.
    | {"[": "{[}", "*": "{*}"}
)


@dataclass(frozen=True)
class PaperTable:
    """The table as it is printed: all cells are text."""

    printed: pd.DataFrame  # fairness/paper_table.csv: a row per modality, measure, organ and model
    caption: str  # what its numbers are, in sentences


def write_paper(study: Study) -> PaperTable:
    """Write the paper table, after :func:`helpers.performance.measure_performance`.

    ``fairness/paper.csv`` (:func:`helpers.fairness.tabulate_paper`) has its numbers with all
    digits; ``paper_table.csv`` and ``paper_table.tex`` (booktabs, longtable, pdflscape) are laid
    out as papers have it: CT and MR in blocks, a row per organ and model, a column per group.

    A StageError where 01_cohort or 03_performance has not run.
    """
    settings = study.parameters.fairness
    included = study.read_included()
    numbers = fairness.tabulate_paper(
        study.read("metrics"), included, settings, list(study.parameters.cohort.attributes)
    )
    models = study.parameters.models
    printed = print_paper(label_table(numbers, label_models(models)), settings.min_group)
    table = PaperTable(printed, describe_paper(settings, models))
    storage.write_table(numbers, study.path("paper"))
    storage.write_table(table.printed, study.path("paper_table"))
    storage.write_text(write_latex(table), study.path("paper_table").with_suffix(".tex"))
    return table


def print_paper(numbers: pd.DataFrame, min_group: int) -> pd.DataFrame:
    """Return fairness/paper.csv as it is printed, with the columns of fairness/paper_table.csv."""
    places = list(dict.fromkeys(numbers[["attribute", "group"]].itertuples(index=False, name=None)))
    # An attribute's p stands behind its groups, everyone before all.
    attributes = list(dict.fromkeys(attribute for attribute, _ in places if attribute))
    headings = {("", ""): "everyone"}
    for attribute in attributes:
        groups = [group for name, group in places if name == attribute and group]
        headings |= {(attribute, group): f"{attribute}{BETWEEN}{group}" for group in groups}
        headings[attribute, ""] = f"{attribute}{BETWEEN}ANOVA p"
    rows: list[dict[str, str]] = []
    for modality, part in numbers.groupby("modality", sort=False):
        rows.append({"modality": str(modality), "measure": "people"} | _count_people(part, headings, min_group))
        for metric, of_metric in part.groupby("metric", sort=False):
            head = {"modality": str(modality), "measure": _name_measure(str(metric))}
            rows += (head | row for row in _print_measure(of_metric, str(metric), headings))
    columns = [*_KEYS, *headings.values()]
    columns.insert(len(_KEYS) + 1, "worst 5 %")
    return pd.DataFrame(rows, columns=columns).fillna("")


def _tell_margin(margin: float | RelativeMargin, metric: str) -> str:
    return str(margin) if isinstance(margin, RelativeMargin) else format_value(margin, metric)


def describe_paper(settings: Fairness, models: Sequence[Model]) -> str:
    """Return what the printed numbers are, and what they cannot tell."""
    margins = [
        f"{MEASURES[metric].long_name} {_tell_margin(settings.margin[metric], metric)}"
        for metric in ("dice", "hd95_mm")
        if metric in settings.margin
    ]
    shown = f"shown to be within the margin ({list_words(margins)})" if margins else "shown to be within a margin"
    # No apostrophe: between two of them, a stroke would look like a path to whoever cleans a page.
    few = f"fewer than {settings.min_group} people"
    sentences = [
        "Mean ± SD over people; several scans of one person are averaged first.",
        "“Worst 5 %” is the mean of the worst 5 % of people.",
        "p is that of a one-way analysis of variance between the groups, not adjusted for the number of tests.",
        "“SD over organs” is the SD of the means of the organs.",
        f"“Not significant / equivalent” counts the organs with p above {settings.alpha:g} and, beside them, those in "
        f"which every difference between groups is {shown}.",
        "Where few people are studied, everything is “not significant”: it does not show that groups are served alike.",
        "Volume error is |predicted − reference| ÷ reference volume.",
        f"{UNKNOWN} is a group of {few}, or a value that was not measured. Beside a group of {few}, everyone is shown "
        "as median and quartiles, because its mean would follow from that of everyone.",
    ]
    sentences += [f"{one.name} is made of {list_words(one.of)}." for one in models if isinstance(one, FusionModel)]
    sentences += [NO_RANKING] if is_mixed(models) else []
    return " ".join(sentences)


def write_latex(table: PaperTable) -> str:
    """Return the table as a LaTeX fragment: booktabs rules, as many pages as it needs."""
    columns = [name for name in table.printed if name not in ("modality", "measure")]
    head = rf"{_write_heads(columns[2:])}\midrule"
    lines = [
        r"% \usepackage{booktabs,longtable,pdflscape}",
        r"\begin{landscape}",
        r"\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{@{{}}ll{'r' * (len(columns) - 2)}@{{}}}}",
        rf"\caption{{{escape_latex(table.caption)}}}\label{{tab:paper}}\\",
        rf"\toprule{head}\endfirsthead",
        rf"\toprule{head}\endhead",
        r"\bottomrule\endfoot",
    ]
    rows = table.printed.to_dict("records")
    for place, (block, members) in enumerate(groupby(rows, key=lambda row: (row["modality"], row["measure"]))):
        title = escape_latex(", ".join(filter(None, block)))
        lines += [r"\midrule"] if place else []
        lines += [rf"\multicolumn{{{len(columns)}}}{{@{{}}l}}{{\textbf{{{title}}}}} \\*"]
        organ = None
        for row in members:
            cells = [row[name] for name in columns]
            if cells[0] == organ:
                cells[0] = ""
            elif organ is not None:
                lines += [r"\addlinespace"]
            organ = row["organ"]
            lines += [rf"{' & '.join(map(escape_latex, cells))} \\"]
    return "\n".join([*lines, r"\end{longtable}", r"\end{landscape}"]) + "\n"


def escape_latex(text: str) -> str:
    """Return a text as LaTeX prints it; letters outside Latin scripts need LuaLaTeX or XeLaTeX."""
    return text.translate(_SPECIAL)


def split_heading(heading: str) -> tuple[str, str]:
    """Return a column's attribute, empty where there is none, and its group."""
    before, between, after = heading.partition(BETWEEN)
    return (before, after) if between else ("", heading)


def _write_heads(columns: Sequence[str]) -> str:
    """Return the two lines of headings, the first with a rule over each attribute's groups."""
    above, rules, place = ["", ""], [], 3
    for attribute, members in groupby(map(split_heading, columns), key=lambda pair: pair[0]):
        width = len(list(members))
        above += [rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(name_for_people(attribute))}}}"]
        rules += [rf"\cmidrule(lr){{{place}-{place + width - 1}}}"] if attribute else []
        place += width
    below = ["organ", "model", *(escape_latex(split_heading(name)[1]) for name in columns)]
    return rf"{' & '.join(above)} \\ {''.join(rules)} {' & '.join(below)} \\"


def _name_measure(metric: str) -> str:
    if metric == RELATIVE_VOLUME:
        return "Volume error (%)"
    return f"{MEASURES[metric].long_name} ({MEASURES[metric].unit})".removesuffix(" ()")


def _print_measure(part: pd.DataFrame, metric: str, headings: Mapping[Any, str]) -> Iterator[dict[str, str]]:
    """Yield the rows of one modality and measure: the organs, and what is told of all of them."""

    def number(value: Any) -> str:
        if metric != RELATIVE_VOLUME:
            return format_number(value, metric)
        return write_number(100 * value, 1) if is_known(value) else UNKNOWN

    def estimate(row: Mapping[str, Any]) -> str:
        if not row["group"] and row["attribute"]:
            return compare_p(row["anova_p"]).removeprefix("= ")
        if is_known(row["mean"]):
            return f"{number(row['mean'])} ± {number(row['sd'])}"
        low, high = number(row["q1"]), number(row["q3"])
        return f"{number(row['median'])} ({low} to {high})" if is_known(row["median"]) else UNKNOWN

    def spread(row: Mapping[str, Any]) -> str:
        return "" if row["attribute"] and not row["group"] else number(row["sd_organs"])

    for organ in dict.fromkeys(part["organ"]):
        worst = part[(part["organ"] == organ) & (part["attribute"] == "")].set_index("model")["worst"]
        for row in _print_rows(part[part["organ"] == organ], name_organ(organ), headings, estimate):
            yield row | {"worst 5 %": number(worst[row["model"]])}
    pooled = part[part["organ"] == POOLED]
    yield from _print_rows(pooled, "SD over organs", headings, spread)
    if metric != RELATIVE_VOLUME:
        yield from _print_rows(pooled, "not significant / equivalent", headings, _count_organs)


def _print_rows(
    part: pd.DataFrame, label: str, headings: Mapping[Any, str], write: Callable[[Mapping[str, Any]], str]
) -> Iterator[dict[str, str]]:
    """Yield a row per model."""
    for model, rows in part.groupby("model", sort=False):
        cells = {headings[row["attribute"], row["group"]]: write(row) for row in rows.to_dict("records")}
        yield {"organ": label, "model": str(model)} | cells


def _count_organs(row: Mapping[str, Any]) -> str:
    """Return in how many organs nothing was significant, and in how many all was equivalent."""
    if row["group"] or not row["attribute"]:
        return ""
    if not row["organs"]:
        return UNKNOWN
    counts = [
        f"{row['organs'] * row[name]:.0f}" if is_known(row[name]) else UNKNOWN
        for name in ("not_significant", "equivalent")
    ]
    return f"{' / '.join(counts)} of {row['organs']:.0f}"


def _count_people(part: pd.DataFrame, headings: Mapping[Any, str], min_group: int) -> dict[str, str]:
    """Return the people of one modality: in each group, those with any measured organ."""
    people = part[(part["metric"] == "dice")].groupby(["attribute", "group"], sort=False)["n"].max()
    shown: Iterable[tuple[Any, int]] = ((key, n) for key, n in people.items() if key[1] or not key[0])
    return {headings[key]: str(n) if n >= min_group else f"< {min_group}" for key, n in shown}
