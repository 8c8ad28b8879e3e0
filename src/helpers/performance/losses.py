"""On whom a model fails, who lacks a result, and which volumes are lost, by group."""

from __future__ import annotations

import pandas as pd

from helpers import fairness, storage
from helpers.fairness.failures import COMPARISON, hide_subtractable
from helpers.models import label_models, label_table
from helpers.study import Study


def write_losses(study: Study) -> None:
    """Write the tables of ``fairness/`` on what groups lose beside overlap.

    A StageError where 01_cohort or 03_performance has not run.
    """
    metrics, included = study.read("metrics"), study.read_included()
    settings, attributes = study.parameters.fairness, list(study.parameters.cohort.attributes)
    cluster = study.parameters.cohort.cluster
    asked = (metrics, included, settings, attributes)
    storage.write_table(fairness.compare_missing(*asked, cluster=cluster), study.path("missing"))
    storage.write_table(fairness.bound_missing(*asked), study.path("missing_bounds"))
    storage.write_table(fairness.compare_absent(*asked, cluster=cluster), study.path("absent"))
    failures = fairness.compare_failures(*asked, study.seed_for("failures"), cluster=cluster)
    storage.write_table(failures, study.path("failures"))
    volumes = fairness.compare_volumes(*asked, study.seed_for("volumes"), cluster=cluster)
    storage.write_table(volumes, study.path("volumes"))


def load_failures(study: Study) -> pd.DataFrame:
    """Read ``failures.csv`` as it may be shown: models labelled, hidden groups not to be found.

    A StageError where 03_performance has not run.
    """
    return hide_subtractable(_read_labelled(study, "failures"), COMPARISON)


def load_missing(study: Study) -> pd.DataFrame:
    """Read ``missing.csv`` as it may be shown, like :func:`load_failures`."""
    return hide_subtractable(_read_labelled(study, "missing"), ["model", "organ", "attribute"])


def load_volumes(study: Study) -> pd.DataFrame:
    """Read ``volumes.csv`` with the models labelled, a measure in ml as its metric."""
    return _read_labelled(study, "volumes").assign(metric="volume_error_ml")


def _read_labelled(study: Study, key: str) -> pd.DataFrame:
    return label_table(study.read(key), label_models(study.parameters.models))
