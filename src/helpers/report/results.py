"""What a study found, for programs: ``results.json`` and a card per model beside the report.

All of it comes from the tables as the report shows them: small groups are suppressed, nobody named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import __version__, storage
from helpers.models.description import describe_kind
from helpers.report.leaks import refuse_leaks
from helpers.report.outputs import Outputs
from helpers.report.sections.methods import read_date
from helpers.report.sections.questions import count_exclusions, count_groups, read_key
from helpers.report.sentences.gaps import name_best, name_comparison, name_worst
from helpers.report.sentences.places import read_extent
from helpers.vocabulary.measures import find_measure
from helpers.vocabulary.verdicts import Verdict, read_verdict, trace_pooled
from helpers.vocabulary.words import (
    format_interval,
    format_number,
    format_value,
    is_known,
    list_words,
    name_for_people,
    name_organ,
)

_SHOWN = {one.value for one in Verdict if one.shows_difference}
FORMAT = 1  # raised when a key changes its meaning or is taken away
_GAP = (
    "model", "organ", "attribute", "metric", "worst_group", "best_group", "n", "gap", "gap_low", "gap_high",
    "p_adjusted", "margin", "detectable", "excess_gap", "excess_low", "excess_high", "adjusted_gap", "adjusted_low",
    "adjusted_high", "direct_gap", "direct_low", "direct_high",
)  # fmt: skip
_FAILURE = (
    "model", "organ", "attribute", "metric", "threshold", "worst_group", "best_group", "worst_failed", "worst_n",
    "best_failed", "best_n", "gap", "gap_low", "gap_high", "p_adjusted", "margin",
)  # fmt: skip
_PLACE = ("model", "organ", "attribute", "group_a", "group_b", "n_a", "n_b", "median_difference_mm", "p_adjusted",
          "location")  # fmt: skip


def collect_results(outputs: Outputs) -> dict[str, Any]:
    """Return what a study found as the object that ``results.json`` holds.

    docs/RESULTS.md says what each key means. A number that is not known is None.
    """
    parameters, fairness = outputs.parameters, outputs.parameters.fairness
    total, excluded = count_exclusions(outputs)
    comparisons = _list_comparisons(outputs)
    return {
        "format": FORMAT,
        "segfair": __version__,
        "study": parameters.name,
        "title": parameters.title,
        "date": read_date(outputs),
        "phantoms": outputs.is_phantoms,
        "primary": fairness.primary,
        "alpha": fairness.alpha,
        "margins": {name: value for name, value in fairness.margin.items() if name in fairness.metrics},
        "min_group": fairness.min_group,
        "scans": {"all": total, "left_out": excluded},
        "people": int(outputs.included["person"].nunique()) if len(outputs.included) else 0,
        "groups": {name: count_groups(outputs, name) for name in outputs.attributes},
        "models": _list_models(outputs),
        "verdicts": _count_verdicts(outputs, comparisons),
        "comparisons": comparisons,
        "failures": [_pick(row, _FAILURE) | {"verdict": _judge(row, outputs)} for row in outputs.failing],
        "places": _list_places(outputs),
    }


def write_results(outputs: Outputs, folder: Path) -> list[Path]:
    """Write ``results.json``, and ``cards/<model>.json`` and ``.md``; return their paths.

    A SegfairError where one of them would show an id, a path or this machine's name.
    """
    results = collect_results(outputs)
    texts = {"results.json": _dump(results)}
    for model in results["models"]:
        card = make_card(results, model)
        texts[f"cards/{model['file']}.json"] = _dump(card)
        texts[f"cards/{model['file']}.md"] = write_card(card)
    for text in texts.values():
        refuse_leaks(text, outputs.secrets, shown=outputs.list_shown())
    for name, text in texts.items():
        storage.write_text(text, folder / name)
    return [folder / name for name in texts]


def make_card(results: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of one of the models of :func:`collect_results`."""
    mine = [row for row in results["comparisons"] if row["model"] == model["name"]]
    primary = [row for row in mine if row["metric"] == results["primary"]]
    return {
        **{key: value for key, value in model.items() if key != "file"},
        "evaluated": {
            key: results[key]
            for key in ("study", "title", "date", "people", "groups", "phantoms", "primary", "margins")
        },
        "differences": [row for row in mine if row["verdict"] in _SHOWN],
        "inconclusive": sum(row["verdict"] == Verdict.INCONCLUSIVE for row in primary),
        "compared": sum(row["verdict"] != Verdict.NOT_COMPARED for row in primary),
        "failures": [row for row in results["failures"] if row["model"] == model["name"] and row["verdict"] in _SHOWN],
        "limits": [
            "A difference that was not found may still be there.",
            "The results hold for people like those studied, scanned as they were.",
            *(["The people are computer-drawn phantoms."] if results["phantoms"] else []),
        ],
        "segfair": results["segfair"],
    }


def write_card(card: Mapping[str, Any]) -> str:
    """Return a card as Markdown."""
    told, known = card["card"], card["evaluated"]
    groups = [
        f"- {name_for_people(name)}: {', '.join(f'{group} ({people})' for group, people in found.items() if people)}"
        for name, found in known["groups"].items()
    ]
    scores = [
        f"| {name_organ(row['organ'])} | {row['people']} | {format_number(row['median'], known['primary'])} |"
        for row in card["performance"]
    ]
    measure = find_measure(known["primary"]).label
    found = [_write_difference(row) for row in card["differences"]] or ["- None was found."]
    failing = [_write_failure(row) for row in card["failures"]]
    lines = [
        f"# Model card: {card['name']}",
        "",
        f"What it is: {card['is']}." + (f" Trained on {card['trained_on']}." if card["trained_on"] else ""),
        "",
        "## As its makers describe it",
        "",
        *(f"- {name.replace('_', ' ').capitalize()}: {text or 'not recorded'}" for name, text in told.items()),
        "",
        "## How it was evaluated",
        "",
        f"{known['title'] or known['study']}, {known['date']}: {known['people']} people"
        f"{' (phantoms)' if known['phantoms'] else ''}, by segfair {card['segfair']}.",
        "",
        *groups,
        "",
        f"## Performance: {measure}",
        "",
        "| organ | people | median |",
        "|---|---:|---:|",
        *scores,
        "",
        "## For whom it works worse",
        "",
        *found,
        *failing,
        f"- {card['inconclusive']} of {card['compared']} comparisons in this measure are inconclusive.",
        "",
        "## Limits",
        "",
        *(f"- {text}" for text in card["limits"]),
        "",
    ]
    return "\n".join(lines)


def _write_difference(row: Mapping[str, Any]) -> str:
    metric = row["metric"]
    follows = f"; follows from {list_words(map(name_organ, row['follows_from']))}" if row["follows_from"] else ""
    return (
        f"- {name_comparison(row)}, {find_measure(metric).name}: worse for {name_worst(row)} than for "
        f"{name_best(row)} by {format_value(row['gap'], metric)} "
        f"(95 % CI {format_interval(row['gap_low'], row['gap_high'], metric)}): {row['verdict']}{follows}"
    )


def _write_failure(row: Mapping[str, Any]) -> str:
    return (
        f"- {name_comparison(row)}: fails on {row['worst_failed']} of {row['worst_n']} {name_worst(row)}, "
        f"{row['best_failed']} of {row['best_n']} {name_best(row)}: {row['verdict']}"
    )


def _list_models(outputs: Outputs) -> list[dict[str, Any]]:
    models = outputs.parameters.models
    facts = {row["model"]: row for row in outputs.model_facts.to_dict("records")}
    described = {model.name: model for model in models}
    listed = []
    for name in dict.fromkeys((*described, *outputs.models)):
        model = described.get(name)
        listed.append(
            {
                "name": name,
                "file": _name_file(name if model is None else name.partition(" (")[0]),
                "kind": "scores" if model is None else model.kind,
                "is": "known by ready-made scores alone" if model is None else describe_kind(model, models),
                "trained_on": str(facts.get(name, {}).get("trained_on") or ""),
                "card": {} if model is None else model.card.model_dump(),
                "performance": _list_medians(outputs, name),
            }
        )
    return listed


def _name_file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def _list_medians(outputs: Outputs, model: str) -> list[dict[str, Any]]:
    """Return the median of the primary measure over people, by organ: it gives no group away."""
    metrics, metric = outputs.metrics, outputs.main_metric
    if metrics is None or metric not in metrics:
        return []
    mine = metrics[metrics["model"] == model].groupby(["organ", "person"], sort=False)[metric].mean().dropna()
    return [
        {"organ": str(organ), "people": len(values), "median": _clean(values.median())}
        for organ, values in mine.groupby(level=0, sort=False)
    ]


def _list_comparisons(outputs: Outputs) -> list[dict[str, Any]]:
    if outputs.disparity is None or outputs.disparity.empty:
        return []
    rows, alpha = outputs.disparity.to_dict("records"), outputs.parameters.fairness.alpha
    means = _list_means(outputs.groups)
    same: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        same.setdefault((str(row["model"]), str(row["metric"]), str(row["attribute"])), []).append(row)
    return [
        _pick(row, _GAP)
        | {
            "verdict": _judge(row, outputs),
            "follows_from": trace_pooled(
                row, same[str(row["model"]), str(row["metric"]), str(row["attribute"])], alpha
            ) or [],
            "groups": means.get(read_key(row), {}),
        }
        for row in rows
    ]  # fmt: skip


def _list_means(groups: pd.DataFrame | None) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return mean and people of each group that may be shown, by comparison."""
    if groups is None or groups.empty or "mean" not in groups:
        return {}
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in groups[groups["mean"].notna() & groups["n"].notna()].to_dict("records"):
        cells = {"n": int(row["n"]), "mean": _clean(row["mean"]), "sd": _clean(row.get("sd"))}
        found.setdefault(read_key(row), {})[str(row["group"])] = cells
    return found


def _list_places(outputs: Outputs) -> list[dict[str, Any]]:
    table = outputs.spatial_summary
    if table is None or table.empty:
        return []
    return [_pick(row, _PLACE) | {"extent": _clean(read_extent(row))} for row in table.to_dict("records")]


def _count_verdicts(outputs: Outputs, comparisons: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    told = [row["verdict"] for row in comparisons if row["metric"] == outputs.main_metric]
    return {verdict.value: told.count(verdict.value) for verdict in Verdict}


def _judge(row: Mapping[str, Any], outputs: Outputs) -> str:
    return read_verdict(row, outputs.parameters.fairness.alpha).value


def _pick(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: _clean(row[name]) for name in names if name in row}


def _clean(value: Any) -> Any:
    """Return a cell as JSON takes it: None where nothing is known, numbers to six digits."""
    if not is_known(value):
        return None
    if isinstance(value, str):
        return value
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 1e9 else float(f"{number:.6g}")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
