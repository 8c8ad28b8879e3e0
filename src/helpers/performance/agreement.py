"""For whom annotators agree less with each other, and a model with itself when prompted again."""

from __future__ import annotations

import pandas as pd

from helpers import fairness, inference, storage
from helpers.fairness import ANNOTATORS, Agreement
from helpers.study import Study
from helpers.vocabulary.measures import list_symmetric


def write_agreement(study: Study) -> Agreement:
    """Compare the groups in agreement, after :func:`helpers.performance.measure_performance`.

    Writes ``agreement.csv``, ``agreement_groups.csv`` and ``against_agreement.csv`` to
    ``fairness/``: without annotators and repeated prompts, columns without rows.

    A StageError where 01_cohort, 02_inference or 03_performance has not run.
    """
    cohort = study.parameters.cohort
    included = study.read_included()
    found = fairness.audit_agreement(
        {"annotators": _read_annotators(study), "prompts": _read_draws(study, included)},
        study.read("metrics"),
        included,
        study.parameters.fairness,
        list(cohort.attributes),
        study.seed_for("fairness"),
        confounders=cohort.confounders,
        units={name: attribute.unit for name, attribute in cohort.attributes.items() if attribute is not None},
        ordered=cohort.ordered_attributes,
        cluster=cohort.cluster,
    )
    storage.write_table(found.disparity, study.path("agreement"))
    storage.write_table(found.groups, study.path("agreement_groups"))
    storage.write_table(found.against, study.path("against_agreement"))
    return found


def _read_annotators(study: Study) -> pd.DataFrame:
    """Return the pairs of annotators as rows of one pseudo-model."""
    if sum(model.annotator for model in study.parameters.models) < 2:
        return pd.DataFrame()
    return study.read("annotators")[["subject", "scan", "organ", *list_symmetric()]].assign(model=ANNOTATORS)


def _read_draws(study: Study, included: pd.DataFrame) -> pd.DataFrame:
    """Return the models with repeated prompts: the Dice between the masks of their draws."""
    if all(model.prompt.draws < 2 for model in study.parameters.models):
        return pd.DataFrame()
    noted = inference.read_organs(study).merge(included[["scan", "subject"]], on="scan", validate="many_to_one")
    drawn = noted[noted.groupby("model")["agreement"].transform("count") > 0]
    return drawn[["subject", "scan", "model", "organ"]].assign(dice=drawn["agreement"])
