"""The performance stage: a cohort's masks against its references, then the fairness tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import fairness, storage
from helpers.compute import CaseFailure
from helpers.kept import Kept
from helpers.metrics import predict_dice
from helpers.models import label_models, label_table, list_pooled
from helpers.performance.losses import write_losses
from helpers.performance.measuring import ScanMasks, list_failed, list_pairs, list_rows, list_wanted, measure_missing
from helpers.performance.proxies import measure_proxies
from helpers.performance.scores import collect_scores
from helpers.resuming import map_kept
from helpers.schema import TABLES
from helpers.study import Study
from helpers.vocabulary.statuses import STATUSES, say_measures
from helpers.vocabulary.words import name_scan

# What the audit finds and 03 writes.
AUDIT_TABLES = [field.name for field in fields(fairness.Audit) if field.name in TABLES]
_ROWS_TOGETHER = 10_000


def measure_performance(study: Study) -> pd.DataFrame:
    """Compare every prediction with its reference and write ``metrics.parquet``.

    A study of ready-made scores has nothing to compare: its tables are read instead
    (:func:`helpers.performance.scores.collect_scores`), with the measures that they hold.

    Where several models are annotators (``annotator: true``), each two of them are compared too,
    and ``annotators.parquet`` is written (else it is absent).

    Returns metrics.parquet, one row per included scan × model × organ. A StageError where an
    earlier stage has not run.
    """
    if not study.parameters.cohort.has_masks:
        return _write_metrics(study, collect_scores(study))
    included = study.read_included()
    parameters = study.parameters
    annotators = tuple(model.name for model in parameters.models if model.annotator)
    limits = parameters.metrics
    tolerances = {organ: limits.tolerances_mm.get(organ, limits.tolerance_mm) for organ in study.organ_ids}
    found = {model.name: _find_predictions(study, model.name) for model in parameters.models}
    unscored = study.read_unscored()
    absent = "02_inference has no row for this scan: run it again"
    scans = [
        ScanMasks(
            reference=Path(row.reference),
            predictions={model: paths.get(row.scan, absent) for model, paths in found.items()},
            unscored=unscored.get(row.scan, {}),
            organs=dict(parameters.cohort.organs),
            organ_ids=study.organ_ids,
            tolerances_mm=tolerances,
            annotators=annotators,
        )
        for row in included.itertuples(index=False)
    ]
    results = map_kept(
        measure_missing,
        scans,
        [list_wanted(masks) for masks in scans],
        kept=Kept(study.folder, "measures"),
        ids=[name_scan(number) for number in included["number"]],
        compute=parameters.compute,
        label="comparing masks",
        keep_if=lambda found: not found["error"],
    )
    rows, pairs = _Rows(), _Rows()
    for row, masks, result in zip(included.itertuples(index=False), scans, results, strict=True):
        if isinstance(result, CaseFailure):
            of_models, of_pairs = list_failed(masks, result.error)
        else:
            of_models, of_pairs = list_rows(masks, result), list_pairs(masks, result)
        head = {"subject": row.subject, "scan": row.scan, "number": int(row.number)}
        rows.add(head | values for values in of_models)
        pairs.add(head | values for values in of_pairs)
    metrics = _write_metrics(study, rows.join())
    agreement = pairs.join()
    if len(agreement):
        storage.write_table(agreement[TABLES["annotators"].names], study.path("annotators"))
    else:
        study.path("annotators").unlink(missing_ok=True)
    return metrics


class _Rows:
    """The rows of a table, packed while they come: as dictionaries they would fill gigabytes."""

    def __init__(self) -> None:
        self._waiting: list[dict[str, object]] = []
        self._parts: list[pd.DataFrame] = []

    def add(self, rows: Iterable[dict[str, object]]) -> None:
        self._waiting += rows
        if len(self._waiting) >= _ROWS_TOGETHER:
            self._pack()

    def join(self) -> pd.DataFrame:
        """Return all rows as one table."""
        self._pack()
        return pd.concat(self._parts, ignore_index=True) if self._parts else pd.DataFrame()

    def _pack(self) -> None:
        if self._waiting:
            self._parts.append(pd.DataFrame(self._waiting))
            self._waiting = []


def _write_metrics(study: Study, metrics: pd.DataFrame) -> pd.DataFrame:
    """Write ``metrics.parquet`` and ``statuses.csv``; the expected Dice where sizes are known."""
    if {"dice", "boundary_error_mm", "volume_ref_ml", "surface_ref_cm2"} <= set(metrics):
        metrics = add_expected_dice(metrics)
    names = TABLES["metrics"].names
    place = names.index("dice_expected")
    own = [measure.key for measure in study.parameters.fairness.measures]
    metrics = metrics[[name for name in (*names[:place], *own, *names[place:]) if name in metrics]]
    storage.write_table(metrics, study.path("metrics"))
    storage.write_table(tabulate_statuses(metrics), study.path("statuses"))
    return metrics


def add_expected_dice(metrics: pd.DataFrame) -> pd.DataFrame:
    """Add ``dice_expected``: the Dice each organ would get under the cohort's mean boundary error.

    max(0, 1 − δ̄S/(2V)) with the organ's own reference volume V and surface S, and δ̄ the mean of
    ``boundary_error_mm`` over the cohort's subjects for that model and organ (of several scans,
    their mean counts once). NaN where the organ is not scored. A missed organ has no boundary error
    and does not enter δ̄, but its size is known, so its expectation is too.

    Häntze et al. 2025, on the size dependence of Dice in sex comparisons.
    """
    keys = ["model", "organ"]
    by_subject = metrics.groupby([*keys, "subject"], as_index=False)["boundary_error_mm"].mean()
    mean_mm = by_subject.groupby(keys, as_index=False)["boundary_error_mm"].mean()
    mean_mm = mean_mm.rename(columns={"boundary_error_mm": "mean_boundary_error_mm"})
    merged = metrics.merge(mean_mm, on=keys, how="left", validate="many_to_one")
    scored = metrics["dice"].notna().to_numpy() & (metrics["volume_ref_ml"] > 0).to_numpy()
    expected = np.full(len(metrics), np.nan)
    sizes = ["mean_boundary_error_mm", "volume_ref_ml", "surface_ref_cm2"]
    expected[scored] = predict_dice(*(merged.loc[scored, column].to_numpy() for column in sizes))
    return metrics.assign(dice_expected=expected)


def write_audit(study: Study) -> fairness.Audit:
    """Compare the groups and write every table of the audit to ``fairness/``, with ``notes.json``.

    A StageError where 01_cohort or 03_performance has not run.
    """
    cohort = study.parameters.cohort
    found = fairness.run_audit(
        study.read("metrics"),
        study.read_included(),
        study.parameters.fairness,
        list(cohort.attributes),
        study.seed_for("fairness"),
        confounders=cohort.confounders,
        units={name: attribute.unit for name, attribute in cohort.attributes.items() if attribute is not None},
        ordered=cohort.ordered_attributes,
        cluster=cohort.cluster,
        pooled_models=list_pooled(study.parameters.models) if cohort.has_masks else None,
    )
    write_losses(study)
    found.notes.extend(_write_few_masks(study))
    for name in AUDIT_TABLES:
        storage.write_table(getattr(found, name), study.path(name))
    families = {name: [" · ".join(test) for test in tests] for name, tests in found.families.items()}
    notes = {"notes": found.notes, "families": families}
    storage.write_json(notes, study.path("groups").with_name("notes.json"))
    return found


def _write_few_masks(study: Study) -> list[str]:
    """Write what masks of few and proxies of all tell, where there are such; return notes."""
    cohort, metrics, people = study.parameters.cohort, study.read("metrics"), study.read_included()
    few = None
    notes = []
    if cohort.has_masks and cohort.masked is not None:
        keys = ["subject", "scan", "number", "model", "organ"]
        scored = metrics[[*keys, "dice"]]
        metrics = measure_proxies(study).merge(scored, on=keys, how="left", validate="one_to_one")
        people = pd.concat([people, study.read_proxied()], ignore_index=True)
    if "dice_proxy" in metrics and (metrics["dice_proxy"].notna() & metrics["dice"].isna()).any():
        if cohort.masked == "random":
            attributes, seed = list(cohort.attributes), study.seed_for("few masks")
            settings, clustered = study.parameters.fairness, cohort.cluster is not None
            few = fairness.compare_few_masks(metrics, people, settings, attributes, seed, clustered=clustered)
        else:
            notes.append(
                "scans without an expert's mask have a proxy that is not used: set cohort.masked: random if "
                "those with masks were drawn at random within each group"
            )
    for key, table in (("few_masks", "means"), ("few_masks_gaps", "gaps"), ("few_masks_check", "randomness")):
        if few is None:
            study.path(key).unlink(missing_ok=True)
        else:
            storage.write_table(getattr(few, table), study.path(key))
    return notes


def label_audit(audit: fairness.Audit, study: Study) -> fairness.Audit:
    """Return an audit as it may be shown.

    Models bear the names that tell them apart (:func:`label_models`), and no hidden group's mean
    follows from those of others.
    """
    labels, least = label_models(study.parameters.models), study.parameters.fairness.min_group
    tables = {name: label_table(getattr(audit, name), labels) for name in AUDIT_TABLES}
    shown = fairness.hide_remainders(tables["groups"], ["model", "organ", "metric", "attribute"], least)
    return replace(audit, **(tables | {"groups": shown}))


def load_people(study: Study, metric: str, attribute: str) -> pd.DataFrame:
    """Read one metric as one row per subject, labelled model and organ, with the subject's group.

    From :func:`helpers.fairness.average_subjects`, without groups of fewer than ``min_group``
    people (:func:`helpers.fairness.hide_small_groups`).
    """
    metrics = label_table(study.read("metrics"), label_models(study.parameters.models))
    people, _ = fairness.average_subjects(metrics, study.read_included(), [attribute], [metric])
    return fairness.hide_small_groups(people, metric, attribute, study.parameters.fairness.min_group)


def tabulate_statuses(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count how often each case of :data:`STATUSES` occurred in metrics.parquet.

    Returns statuses.csv: only what occurred, with the measures that have a value all the same and
    which (:data:`helpers.vocabulary.statuses.EMPTY_CASES`).
    """
    keys = ["model", "organ"]
    counts = metrics.groupby([*keys, "status"], sort=False, observed=True).size().rename("scans").reset_index()
    counts["share"] = counts["scans"] / counts.groupby(keys, sort=False)["scans"].transform("sum")
    counts["meaning"] = [STATUSES[status].describe() for status in counts["status"]]
    counts["measures"] = counts["status"].map(say_measures)
    return counts


def count_statuses(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count the rows of metrics.parquet by model and status, over all organs.

    Columns status, meaning, measures (as in :func:`tabulate_statuses`), and one per model; only
    statuses that occur, and always ``ok``.
    """
    counts = pd.crosstab(metrics["status"], metrics["model"])
    present = [status for status in STATUSES if status in counts.index or status == "ok"]
    counts = counts.reindex(index=present, columns=list(dict.fromkeys(metrics["model"])), fill_value=0)
    counts.insert(0, "meaning", [STATUSES[status].describe() for status in present])
    counts.insert(1, "measures", [say_measures(status) for status in present])
    return counts.rename_axis(index="status", columns=None).reset_index()


def list_failures(metrics: pd.DataFrame) -> dict[str, str]:
    """Return why scans could not be compared: ``{"scan 007, sam": "…"}``."""
    failed = metrics[metrics["status"].isin(["failed", "prediction_missing"])]
    return {
        f"{name_scan(row.number)}, {row.model}": row.error
        for row in failed.drop_duplicates(["number", "model"]).itertuples(index=False)
    }


def _find_predictions(study: Study, model: str) -> dict[str, Path | str]:
    """Return each scan's predicted mask, or why there is none, as the inference table tells it."""
    table = study.read("inference", model=model)
    found: dict[str, Path | str] = {}
    for row in table.itertuples(index=False):
        path = study.prediction_path(model, row.scan)
        found[row.scan] = path if storage.is_there(path) else "the predicted mask is missing: run 02_inference again"
        if row.status != "ok":
            found[row.scan] = str(row.error) or "inference failed"
    return found
