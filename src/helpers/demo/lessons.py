"""What the demo teaches: equal errors cost small organs more Dice; what was planted, and found."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd

from helpers.demo.planting import describe_effect
from helpers.fairness.groups import POOLED, list_groups
from helpers.metrics import predict_dice
from helpers.parameters import Parameters, PlantedEffect
from helpers.study import Study
from helpers.vocabulary.verdicts import Verdict
from helpers.vocabulary.words import ALL_MODELS, name_organ

TRUTH_COLUMNS = (
    "planted", "model", "organ", "metric", "attribute", "verdict", "worst_group", "gap", "gap_low", "gap_high",
    "excess_gap", "excess_low", "excess_high", "p_adjusted", "found",
)  # fmt: skip
_ERROR_MM = 1.0
_NOT_KNOWN = pd.DataFrame({"truth": ["These are not phantoms: what is true of them is not known."]})


def tabulate_same_error(metrics: pd.DataFrame, cohort: pd.DataFrame, *, min_group: int) -> pd.DataFrame:
    """Work out everybody's Dice if every outline were off by 1 mm, everywhere.

    People are grouped by sex where the cohort has it, else by its first attribute.

    `metrics` is metrics.parquet (its volumes and surfaces); `cohort` the included scans with their
    ``group_<attribute>``, of which groups with fewer than `min_group` people are left out.

    Returns
    -------
    DataFrame
        One row per organ, the one that loses most last: ``organ``; of each group the mean
        ``volume, <group> (ml)`` and ``Dice, <group>``; ``gap`` between the highest and the lowest
        mean Dice. To be read, hence rounded to millilitres and thousandths. A subject with several
        scans counts once, with their mean. One column ``note`` where no group is large enough, or
        no size is known.

    Notes
    -----
    Dice = 1 − δS/(2V) with the organ's own volume V and surface S
    (:func:`helpers.metrics.predict_dice`). No model has any part in it.
    """
    if not {"volume_ref_ml", "surface_ref_cm2"} <= set(metrics):
        return pd.DataFrame({"note": ["The organs' volumes and surfaces are not known: the table takes both."]})
    known = [name.removeprefix("group_") for name in cohort if name.startswith("group_")]
    attribute = "sex" if "sex" in known else known[0]
    organs = metrics[metrics["volume_ref_ml"] > 0].drop_duplicates(["scan", "organ"])
    dice = predict_dice(_ERROR_MM, organs["volume_ref_ml"].to_numpy(), organs["surface_ref_cm2"].to_numpy())
    people = organs.assign(dice=dice, volume=organs["volume_ref_ml"])
    people = people.groupby(["organ", "subject"], as_index=False)[["dice", "volume"]].mean()
    groups = cohort.drop_duplicates("subject").set_index("subject")[f"group_{attribute}"]
    people["group"] = people["subject"].map(groups.astype(object))
    size = people.groupby(["organ", "group"])["subject"].transform("size")
    means = people[size >= min_group].pivot_table(index="organ", columns="group", values=["dice", "volume"])
    names = [name for name in list_groups(groups) if name in means.columns.get_level_values("group")]
    if not names:
        return pd.DataFrame({"note": [f"No group of {attribute} has {min_group} people: nothing is compared."]})
    table = pd.DataFrame({"organ": list(dict.fromkeys(people["organ"]))}).set_index("organ")
    scores, volumes = (means[name].reindex(index=table.index, columns=names) for name in ("dice", "volume"))
    for name in names:
        table[f"volume, {name} (ml)"] = volumes[name].round(0)
        table[f"Dice, {name}"] = scores[name].round(3)
    table["gap"] = (scores.max(axis=1) - scores.min(axis=1)).round(3)
    order = scores.mean(axis=1).sort_values(ascending=False).index
    return table.loc[order].rename(index=name_organ).reset_index()


def tell_truth(study: Study) -> pd.DataFrame:
    """Return what was planted, in sentences; for real data, that nothing is known."""
    path = study.table_folder / "truth.json"
    if not _has_truth(study.parameters) or not path.exists():
        return _NOT_KNOWN.copy()
    return pd.DataFrame({"truth": json.loads(path.read_text(encoding="utf-8"))["in_words"]})


def compare_with_truth(parameters: Parameters, disparity: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Set what disparity.csv holds of a metric beside what was planted; for real data, say so.

    Returns
    -------
    DataFrame
        :data:`TRUTH_COLUMNS`: one row per planted effect, organ and model marked ``planted``, then
        one per disparity that was found where none was planted. ``found`` says how the two agree.
        For a study of real people a single column ``truth``.

    Notes
    -----
    The truth is the parameter file's own (``cohort.phantoms.planted``), not measured. The pooled
    organ counts as planted where one of its organs is: its gap is theirs, diluted.
    """
    if not _has_truth(parameters):
        return _NOT_KNOWN.copy()
    models = [model.name for model in parameters.models if model.planted]
    known = disparity[disparity["metric"] == metric].set_index(["model", "organ", "attribute"])
    rows, planted = [], set()
    for effect in parameters.cohort.phantoms.planted.effects:
        organs = effect.organs or list(parameters.cohort.organs)
        planted |= {(organ, effect.attribute) for organ in (*organs, POOLED)}
        for key in itertools.product(models, organs, [effect.attribute]):
            if key in known.index:
                row = known.loc[key]
                rows.append(_set_beside(key, row, describe_effect(effect), _judge_found(effect, row)))
    for key, row in known.iterrows():
        if key[0] == ALL_MODELS or (key[0] in models and key[1:] in planted):
            continue
        if row["verdict"] == Verdict.DISPARITY:
            found = "a false alarm" if key[0] in models else "not planted: this model errs by itself"
            rows.append(_set_beside(key, row, "nothing", found))
    return pd.DataFrame(rows, columns=list(TRUTH_COLUMNS)).assign(metric=metric)


def _has_truth(parameters: Parameters) -> bool:
    return parameters.cohort.source == "phantoms"


def _set_beside(key: tuple[str, str, str], row: pd.Series, planted: str, found: str) -> dict[str, object]:
    values = {name: row.get(name, np.nan) for name in TRUTH_COLUMNS if name != "metric"}
    return values | dict(zip(("model", "organ", "attribute"), key, strict=True)) | {"planted": planted, "found": found}


def _judge_found(effect: PlantedEffect, row: pd.Series) -> str:
    """Say whether the audit's verdict is that of the truth."""
    if row["verdict"] not in (Verdict.DISPARITY, Verdict.DIFFERENCE):
        return "missed: too few people to be sure of it" if row["verdict"] == Verdict.INCONCLUSIVE else "missed"
    found = "found" if row["verdict"] == Verdict.DISPARITY else "found, of uncertain size"
    if effect.group is not None and row["worst_group"] != effect.group:
        return f"{found}, but with {row['worst_group']} as the worse group"
    return found
