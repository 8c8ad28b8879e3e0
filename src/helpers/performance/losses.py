"""Who a model fails on, and who lacks a result: tables of counts, by group."""

from __future__ import annotations

import pandas as pd

from helpers import fairness, storage
from helpers.fairness.failures import COMPARISON, hide_subtractable
from helpers.models import label_models, label_table
from helpers.study import Study


def write_losses(study: Study) -> None:
    """Count failures and missing results by group, and write ``failures.csv`` and ``missing.csv``.

    Raises
    ------
    StageError
        01_cohort or 03_performance has not run.
    """
    metrics, included = study.read("metrics"), study.read_included()
    settings, attributes = study.parameters.fairness, list(study.parameters.cohort.attributes)
    storage.write_table(fairness.compare_missing(metrics, included, settings, attributes), study.path("missing"))
    failures = fairness.compare_failures(metrics, included, settings, attributes, study.seed_for("failures"))
    storage.write_table(failures, study.path("failures"))


def load_failures(study: Study) -> pd.DataFrame:
    """Read ``failures.csv`` as it may be shown: models labelled, hidden groups not to be found.

    Raises
    ------
    StageError
        03_performance has not run.
    """
    table = label_table(study.read("failures"), label_models(study.parameters.models))
    return hide_subtractable(table, COMPARISON)
