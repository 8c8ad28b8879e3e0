"""What the demo teaches: hand-derived Dice of a shared error, and the truth beside what was
found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers.demo.lessons import compare_with_truth, tabulate_same_error, tell_truth
from helpers.study import load_study
from helpers.vocabulary.verdicts import Verdict, read_verdict
from tests import lab

SEXES = pd.CategoricalDtype(["female", "male"], ordered=True)


def make_tables():
    """Two women with 100 ml of spleen, two men with 200 ml, all with the surface 100 cm²; a liver
    ten times as large."""
    cohort = pd.DataFrame(
        {
            "subject": ["a", "a", "b", "c", "d"],
            "scan": ["a1", "a2", "b", "c", "d"],
            "group_sex": pd.Series(["female", "female", "female", "male", "male"], dtype=SEXES),
        }
    )
    volume = cohort["group_sex"].map({"female": 100.0, "male": 200.0}).astype(float)
    organs = [
        cohort[["subject", "scan"]].assign(
            organ=organ, volume_ref_ml=factor * volume, surface_ref_cm2=surface, model=model
        )
        for organ, factor, surface in (("spleen", 1, 100.0), ("liver", 10, 500.0))
        for model in ("one", "other")
    ]
    return pd.concat(organs, ignore_index=True), cohort


def test_same_error_costs_the_smaller_organ_more():
    metrics, cohort = make_tables()
    table = tabulate_same_error(metrics, cohort, min_group=2)
    # 1 mm is 0.1 cm: 1 − 0.1 · 100 / (2 · 100) = 0.95 and 1 − 0.1 · 100 / (2 · 200) = 0.975; liver:
    # 1 − 50 / 2000 and 1 − 50 / 4000.
    assert table["organ"].tolist() == ["liver", "spleen"], "the one that loses most comes last"
    spleen = table.set_index("organ").loc["spleen"]
    assert spleen[["Dice, female", "Dice, male", "gap"]].tolist() == [0.95, 0.975, 0.025]
    assert spleen[["volume, female (ml)", "volume, male (ml)"]].tolist() == [100.0, 200.0]
    assert table.set_index("organ").loc["liver", "Dice, female"] == 0.975


def test_person_counts_once_and_small_groups_do_not_show():
    metrics, cohort = make_tables()
    metrics.loc[metrics["scan"] == "a2", "volume_ref_ml"] *= 2
    female = tabulate_same_error(metrics, cohort, min_group=2).set_index("organ")["Dice, female"]
    assert female["spleen"] == np.round(((0.95 + 0.975) / 2 + 0.95) / 2, 3)
    cohort["group_sex"] = pd.Series(["female", "female", "male", "male", "male"], dtype=SEXES)
    table = tabulate_same_error(metrics, cohort, min_group=2)
    assert "Dice, male" in table and "Dice, female" not in table
    note = tabulate_same_error(metrics, cohort, min_group=5)["note"].tolist()
    assert note == ["No group of sex has 5 people: nothing is compared."]


@pytest.fixture
def study(tmp_path):
    """A study of phantoms in which the livers of women were moved, by the parameter file alone."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(lab.PARAMETERS, allow_unicode=True), encoding="utf-8")
    return load_study(path)


def make_row(model, organ, attribute, verdict, *, worst="female"):
    return {
        "model": model,
        "organ": organ,
        "metric": "dice",
        "attribute": attribute,
        "verdict": verdict,
        "worst_group": worst,
        "gap": 0.1,
    }


def test_truth_stands_beside_what_was_found(study):
    rows = [
        make_row("planted", "liver", "sex", "disparity"),
        make_row("planted", "spleen", "sex", "inconclusive"),
        make_row("planted", "all", "sex", "disparity"),
        make_row("planted", "spleen", "bmi", "disparity", worst="below 27"),
        make_row("prompt_only", "liver", "sex", "disparity"),
        make_row("prompt_only", "liver", "bmi", "equivalent"),
    ]
    other_metric = make_row("planted", "spleen", "age", "disparity") | {"metric": "boundary_error_mm"}
    table = compare_with_truth(study.parameters, pd.DataFrame([*rows, other_metric]), "dice")
    assert table[["planted", "model", "organ", "attribute", "found"]].to_numpy().tolist() == [
        [
            "Where sex is female, the surface of liver is moved 6 mm inwards everywhere.",
            "planted",
            "liver",
            "sex",
            "found",
        ],
        ["nothing", "planted", "spleen", "bmi", "a false alarm"],
        ["nothing", "prompt_only", "liver", "sex", "not planted: this model errs by itself"],
    ]


@pytest.mark.parametrize(
    ("path", "planted", "found"),
    [
        ("elsewhere/{scan}.nii.gz", True, "found"),
        ("planted/{scan}.nii.gz", False, "not planted: this model errs by itself"),
    ],
)
def test_the_parameter_marks_the_planted_model_wherever_its_masks_lie(study, path, planted, found):
    marked = load_study(study.source, {"models.planted.path": path, "models.planted.planted": planted})
    table = compare_with_truth(
        marked.parameters, pd.DataFrame([make_row("planted", "liver", "sex", "disparity")]), "dice"
    )
    assert table["found"].tolist() == [found]


@pytest.mark.parametrize(
    ("verdict", "worst", "said"),
    [
        ("inconclusive", "female", "missed: too few people to be sure of it"),
        ("equivalent", "female", "missed"),
        ("difference", "female", "found, of uncertain size"),
        ("disparity", "male", "found, but with male as the worse group"),
        ("difference", "male", "found, of uncertain size, but with male as the worse group"),
    ],
)
def test_missed_and_mistaken_effects_are_called_so(study, verdict, worst, said):
    table = compare_with_truth(
        study.parameters, pd.DataFrame([make_row("planted", "liver", "sex", verdict, worst=worst)]), "dice"
    )
    assert table["found"].tolist() == [said]


def test_a_difference_reads_as_in_every_other_table(study):
    row = make_row("planted", "liver", "sex", "difference") | {"p_adjusted": 0.01}
    table = compare_with_truth(study.parameters, pd.DataFrame([row]), "dice")
    assert read_verdict(table.iloc[0], 0.05) is Verdict.DIFFERENCE


def test_the_mean_over_models_is_no_model_of_its_own(study):
    row = make_row("all models", "liver", "sex", "disparity")
    assert compare_with_truth(study.parameters, pd.DataFrame([row]), "dice").empty


def test_nothing_is_said_of_the_truth_of_real_people(study):
    real = study.parameters.model_copy(
        update={"cohort": study.parameters.cohort.model_copy(update={"source": "table"})}
    )
    study.parameters = real
    assert list(compare_with_truth(study.parameters, pd.DataFrame(), "dice")) == ["truth"]
    assert tell_truth(study)["truth"].tolist() == ["These are not phantoms: what is true of them is not known."]
