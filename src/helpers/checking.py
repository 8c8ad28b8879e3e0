"""What `segfair check` finds: all that stages would stumble over, before any of them runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.cohort import SOURCES, CohortCheck, check_cohort
from helpers.errors import ParameterError, SegfairError, suggest
from helpers.models import KINDS, check_model, describe_model, list_overlaps, list_refused, list_templates, try_model
from helpers.notebook import check_output_folder
from helpers.parameters import read_raw
from helpers.study import Study, blame, find_parameter_file, load_study


def load_checked(params: str | Path, overrides: dict[str, Any]) -> Study:
    """Load a study as :func:`helpers.study.load_study` does, and say at once all that is wrong.

    Where keys are, the names of its source and of its models' kinds are looked at all the same,
    which else come later.

    Raises a ParameterError: the parameter file cannot be used.
    """
    try:
        return load_study(params, overrides)
    except ParameterError as error:
        path = find_parameter_file(params)
        faults = _list_unknown_names(read_raw(path, overrides), path, overrides)
        raise ParameterError("\n".join([str(error), *faults])) from error


def _list_unknown_names(raw: dict[str, Any], path: Path, overrides: dict[str, Any]) -> list[str]:
    cohort, models = raw.get("cohort"), raw.get("models")
    named: list[tuple[str, Any, Mapping[str, Any]]] = []
    if isinstance(cohort, dict):
        named.append(("cohort.source", cohort.get("source"), SOURCES))
    for place, model in enumerate(models if isinstance(models, list) else []):
        if isinstance(model, dict):
            named.append((f"models.{model.get('name', place)}.kind", model.get("kind"), KINDS))
    return [
        f"{blame(key, path, overrides)}: must be one of {', '.join(known)}; got {name!r}{suggest(name, known)}"
        for key, name, known in named
        if isinstance(name, str) and name not in known
    ]


def check_study(study: Study) -> CohortCheck:
    """Check table, files, models and output folder as the stages will use them; nothing is kept."""
    found = check_cohort(study, list_templates(study), list_refused(study))
    for model in study.parameters.models:
        faults = check_model(model, study) or try_model(model, study)
        found.problems.extend(faults)
        try:
            found.remarks.extend([] if faults else describe_model(model, study))
        except SegfairError as error:  # what only its set-up tells, such as a version command that fails
            found.problems.append(str(error))
    found.remarks.extend(list_overlaps(study.parameters.models, study.parameters.cohort))
    try:
        check_output_folder(study)
    except SegfairError as error:
        found.problems.append(str(error))
    return found
