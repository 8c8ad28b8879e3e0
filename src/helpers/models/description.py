"""What a reader must know of a study's models before comparing them.

Which were told by the expert's mask where the organ lies, which had to find it; of which others a
fusion is made; and which were trained on the very data that is studied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from helpers.models.registry import KINDS
from helpers.parameters import Cohort, FusionModel, Model
from helpers.vocabulary.datasets import HELD, TRAINED_ON, TRAINED_WIDELY, match_datasets
from helpers.vocabulary.words import list_words

PROMPTED, AUTOMATIC, ELSEWHERE = "prompted", "automatic", "made elsewhere"
PLANTED, ANNOTATOR = "planted errors", "annotator"
# The headings of the blocks in which models are compared, in their order.
BLOCKS: dict[str, str] = {
    PROMPTED: "Prompted: told by the expert's mask where each organ lies",
    AUTOMATIC: "Automatic: given the image alone",
    ELSEWHERE: "Made elsewhere: not known whether they were prompted",
    PLANTED: "No model: the expert's masks with planted errors",
    ANNOTATOR: "Drawn by people",
}
NO_RANKING = (
    "A prompted model is told where each organ lies, by a box or point from the expert's own mask; an automatic model "
    "has to find it. Their scores answer different questions: do not rank one against the other."
)


def find_mode(model: Model, models: Sequence[Model]) -> str:
    """Return how a model's masks came about: a key of :data:`BLOCKS`."""
    if model.annotator or model.planted:
        return ANNOTATOR if model.annotator else PLANTED
    if isinstance(model, FusionModel):
        modes = {find_mode(one, models) for one in models if one.name in model.of}
        return next((mode for mode in BLOCKS if mode in modes), AUTOMATIC)
    if model.prompted is not None:
        return PROMPTED if model.prompted else AUTOMATIC
    kind = KINDS.get(model.kind)
    if kind is not None and kind.needs_prompts:
        return PROMPTED
    return ELSEWHERE if kind is None or kind.needs_path else AUTOMATIC


def describe_kind(model: Model, models: Sequence[Model]) -> str:
    """Return what a model is, in a phrase that follows its name and "is"."""
    mode = find_mode(model, models)
    if mode == PLANTED:
        return "no model but the expert's masks with planted errors"
    if mode == ANNOTATOR:
        return "drawn by people"
    if isinstance(model, FusionModel):
        return f"made of the masks of {list_words(model.of)}"
    kind = KINDS.get(model.kind)
    if kind is None or kind.needs_path:
        return "known by masks made elsewhere"
    if model.kind == "prompt_only":
        return "no model but an ellipse in each box, for comparison"
    return f"{re.split('[:;(,]| that ships', kind.description)[0].strip()}"


def needs_reference(model: Model, models: Sequence[Model]) -> bool:
    """Return whether a model's masks cannot be had without an expert's: prompts, or people."""
    members = [one for one in models if isinstance(model, FusionModel) and one.name in model.of]
    kind = KINDS.get(model.kind)
    prompted = kind is not None and kind.needs_prompts
    return prompted or model.annotator or any(needs_reference(one, models) for one in members)


def list_pooled(models: Sequence[Model]) -> list[str]:
    """Return the models that rows over all models average.

    Not people, planted errors, bare prompts, nor what is made of other models.
    """
    return [
        model.name
        for model in models
        if find_mode(model, models) not in (ANNOTATOR, PLANTED) and model.kind not in ("fusion", "prompt_only")
    ]


def is_mixed(models: Sequence[Model]) -> bool:
    """Return whether some of a study's models were prompted and others not, annotators apart."""
    return len({find_mode(model, models) for model in models} - {ANNOTATOR, PLANTED}) > 1


def label_models(models: Sequence[Model]) -> dict[str, str]:
    """Return what each model is called where models are compared.

    Its name, and in brackets what sets it apart: how it was prompted, where a study's models differ
    in that, and that it is a fusion.
    """
    modes = {model.name: find_mode(model, models) for model in models}
    mixed = is_mixed(models)
    labels = {}
    for model in models:
        apart = ["fusion"] if isinstance(model, FusionModel) else []
        apart += [modes[model.name]] if mixed and modes[model.name] not in (ANNOTATOR, PLANTED) else []
        labels[model.name] = f"{model.name} ({', '.join(apart)})" if apart else model.name
    return labels


def list_blocks(models: Sequence[Model]) -> dict[str, str]:
    """Return the heading under which each model stands, by its label."""
    return {
        label: BLOCKS[find_mode(model, models)]
        for model, label in zip(models, label_models(models).values(), strict=True)
    }


def label_table(table: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Return a table with labels for names in its columns of models."""
    columns = [name for name in ("model", "model_a", "model_b") if name in table]
    return table.assign(**{name: table[name].map(lambda one: labels.get(one, one)) for name in columns})


def find_dataset(cohort: Cohort) -> str | None:
    """Return the public data set that a study's scans come from, where it is known."""
    return cohort.dataset or HELD.get(cohort.source)


def list_training(model: Model, models: Sequence[Model]) -> list[str]:
    """Return the data sets a model was trained on, as far as known; a fusion's are its members'."""
    members = [one for one in models if one.name in model.of] if isinstance(model, FusionModel) else []
    own = [*TRAINED_ON.get(model.kind, ()), *(model.trained_on or [])]
    return list(dict.fromkeys([*own, *(name for one in members for name in list_training(one, models))]))


def tell_training(model: Model, models: Sequence[Model], cohort: Cohort) -> str:
    """Say whether a model was trained on the study's own data; empty where nothing is known."""
    held = find_dataset(cohort)
    if held is None or model.annotator:
        return ""
    if match_datasets(list_training(model, models), held):
        told = f"{model.name} was trained on {held}, where these scans come from: its scores are too good"
        if model.trained_on_scans is None:
            return f"{told}, unless these scans were kept out of its training"
        return f"{told} on scans that it saw, which are left out"
    widely = TRAINED_WIDELY.get(model.kind)
    return f"{model.name} was trained on {widely}: look up whether {held} is among them" if widely else ""


def list_overlaps(models: Sequence[Model], cohort: Cohort) -> list[str]:
    """Return a sentence for each model that was, or may have been, trained on the study's data."""
    return [told for model in models if (told := tell_training(model, models, cohort))]


def tabulate_models(models: Sequence[Model], cohort: Cohort) -> pd.DataFrame:
    """Tabulate a study's models for people.

    Returns a DataFrame: model, kind, prompts (how its masks came about), made_of (a fusion's
    members), trained_on and overlap (a sentence where that meets the study's data).
    """
    rows = [
        {
            "model": model.name,
            "kind": model.kind,
            "prompts": find_mode(model, models),
            "made_of": list_words(model.of) if isinstance(model, FusionModel) else "",
            "trained_on": list_words(list_training(model, models)) or TRAINED_WIDELY.get(model.kind, ""),
            "overlap": tell_training(model, models, cohort),
        }
        for model in models
    ]
    return pd.DataFrame(rows, columns=["model", "kind", "prompts", "made_of", "trained_on", "overlap"])
