"""A parameter file for tables of scores and of people, as far as their columns tell."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from helpers import storage
from helpers.cohort.columns import MOST_GROUPS, find_columns, is_numeric, propose_bins, read_ages, read_sex
from helpers.cohort.numbers import read_numbers
from helpers.cohort.scores import SCAN_NAMES, list_given_scores
from helpers.cohort.table_files import read_table_file
from helpers.errors import SegfairError
from helpers.parameters import SCORES, Parameters
from helpers.study import Study
from helpers.vocabulary.measures import find_measure, spell_plainly
from helpers.vocabulary.words import list_words

_HEAD = (
    "# Written by segfair audit from the tables it was given. Groups and margins are proposals: change them before\n"
    "# you look at the results. Every key: params/template.yaml\n"
)
_RATIO_MARGIN = 0.02


def write_audit_file(
    scores: str, people: Path, attributes: Sequence[str], *, folder: Path, name: str | None = None
) -> Path:
    """Write ``<name>.yaml`` for an audit of ready-made scores into `folder` and return its path.

    The name is by default that of the table of scores. A file that is there already is kept if it
    says the same.

    Raises a SegfairError: as :func:`propose_audit`; `scores` is a folder; another file of that name
    is there.
    """
    if Path(scores).is_dir():
        raise SegfairError(
            f"{scores}: is a folder: write which part of its paths is what, such as '{scores.rstrip('/')}/{{model}}/"
            "{metric}.csv'"
        )
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", name or Path(scores.split("{")[0]).stem).strip("_-") or "audit"
    path = folder / f"{stem}.yaml"
    root = folder.parent if folder.name == "params" else folder  # what a study's paths are relative to
    section = propose_audit(scores, people, attributes)
    section["path"] = os.path.relpath(storage.expand_home(people).resolve(), root)
    section["scores"]["path"] = os.path.relpath(storage.expand_home(Path(scores)).absolute(), root)
    study: dict[str, Any] = {"name": stem, "cohort": section}
    draft = Study(Parameters.model_validate(study), path)
    study["fairness"] = propose_metrics(list_given_scores(draft))
    Parameters.model_validate(study)
    text = _HEAD + yaml.safe_dump(study, sort_keys=False, allow_unicode=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise SegfairError(
            f"{path.name} is there already and says something else: run it (segfair run {path.name}), or choose "
            "another --name"
        )
    storage.write_text(text, path)
    return path


def propose_audit(scores: str, people: Path, attributes: Sequence[str]) -> dict[str, Any]:
    """Return the section ``cohort`` of a study of ready-made scores.

    Sex and age are found by what they are usually called; another attribute of numbers is cut into
    groups of about equally many people, one of words has the groups that the table names.

    `scores` is a table or a pattern of tables (``{model}/{metric}.csv``); `attributes` are columns
    of `people`, ``sex`` and ``age`` by any usual name.

    Raises a SegfairError: the table of people cannot be read, or lacks a column.
    """
    table = read_table_file(people, "table of people", "its path")
    plain = {spell_plainly(column): column for column in reversed(list(table))}
    subject = next((plain[name] for name in SCAN_NAMES if name in plain), None)
    if subject is None:
        raise SegfairError(
            f"{people.name}: no column names the person; it has {', '.join(table)}: write a parameter file with "
            "cohort.columns (subject: your column)"
        )
    cohort: dict[str, Any] = {"source": SCORES, "path": str(people), "scores": {"path": scores}}
    columns, values, groups = {"subject": subject}, dict[str, dict[str, str]](), dict[str, Any]()
    found = find_columns(table)
    for name in attributes:
        column = name if name in table else found.get(name)
        if column is None:
            raise SegfairError(f"{people.name}: has no column {name!r}; it has {', '.join(table)}")
        if column != name:
            columns[name] = column
        if name == "sex":
            sexes = read_sex(table[column])
            values[name], groups[name] = sexes.meanings, {"categories": sexes.groups} if sexes.unsure else None
        elif name == "age":
            values[name], groups[name] = read_ages(table[column]).meanings, None
        else:
            groups[name] = propose_groups(table[column], people.name)
    cohort |= {"columns": columns, "values": {name: told for name, told in values.items() if told}}
    return cohort | {"attributes": groups}


def propose_metrics(given: Sequence[str]) -> dict[str, Any]:
    """Return the section ``fairness`` that compares groups by the scores that are given.

    Those with a margin of their own, and of ratios all; a SegfairError where that is none.
    """
    margins = {name: find_measure(name).default_margin for name in given}
    margins |= {name: _RATIO_MARGIN for name in given if margins[name] is None and find_measure(name).is_bounded}
    known = {name: margin for name, margin in margins.items() if margin is not None}
    if not known:
        raise SegfairError(
            f"the tables of scores hold only {', '.join(given) or 'no score'}: write a parameter file with a margin"
        )
    return {"metrics": list(known), "margin": known}


def propose_groups(recorded: pd.Series, name: str) -> dict[str, Any]:
    """Return the groups of an attribute: bins of numbers, or the words that stand in the table.

    `name` is the table's. Raises a SegfairError where the column is empty or holds too many words.
    """
    if is_numeric(recorded):
        return {"bins": propose_bins(read_numbers(recorded))}
    words = list(recorded.dropna().value_counts().index)
    if not words:
        raise SegfairError(f"{name}: the column {recorded.name!r} is empty: name other attributes")
    if len(words) > MOST_GROUPS:
        raise SegfairError(
            f"{name}: the column {recorded.name!r} has {len(words)} different words ({list_words(words[:3])}, …), too "
            "many for groups: write a parameter file and name the groups"
        )
    return {"categories": words}
