"""What a table's columns are taken for, in five languages, and what is left to be checked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.cohort.columns import (
    count_in_bins,
    find_columns,
    propose_bins,
    read_ages,
    read_modality,
    read_sex,
    show_counts,
)

TABLES = {
    "English": ("Patient ID", "Gender", "Age (years)", "BMI", "Weight [kg]", "Height (cm)", "Hospital", "Manufacturer"),
    "German": ("Patientennummer", "Geschlecht", "Alter", "BMI", "Gewicht", "Größe", "Klinik", "Gerät"),
    "French": ("Patient", "Sexe", "Âge", "IMC", "Poids", "Taille", "Hôpital", "Fabricant"),
    "Spanish": ("Paciente", "Sexo", "Edad", "IMC", "Peso", "Talla", "Centro", "Fabricante"),
    "Chinese": ("患者编号", "性别", "年龄", "体重指数", "体重", "身高", "医院", "设备"),
}


@pytest.mark.parametrize("language", TABLES)
def test_columns_are_found_by_their_names(language):
    names = ("subject", "sex", "age", "bmi", "weight", "height", "site", "scanner")
    table = pd.DataFrame([["x"] * 8], columns=list(TABLES[language]), dtype="str")
    assert find_columns(table) == dict(zip(names, TABLES[language], strict=True))


def text(*values) -> pd.Series:
    return pd.Series(values, dtype="str")


def test_columns_are_found_by_their_values_where_names_tell_nothing():
    table = pd.DataFrame(
        {"c1": ["p1", "p2"], "c2": ["M", "W"], "c3": ["063Y", "018M"], "c4": ["MRT", "CT"]}, dtype="str"
    )
    assert find_columns(table) == {"sex": "c2", "age": "c3", "modality": "c4"}
    # A column of that name that is empty is nothing.
    assert "sex" not in find_columns(pd.DataFrame({"sex": [None, None]}, dtype="str"))


@pytest.mark.parametrize(
    ("recorded", "values"),
    [
        (("F", "M"), {"F": "female", "M": "male"}),
        (("female", "male"), {}),
        (("W", "M"), {"W": "female", "M": "male"}),
        (("weiblich", "Männlich"), {"weiblich": "female", "Männlich": "male"}),
        (("F", "H"), {"F": "female", "H": "male"}),
        (("H", "M"), {"H": "male", "M": "female"}),
        (("femme", "Homme"), {"femme": "female", "Homme": "male"}),
        (("Mujer", "Varón"), {"Mujer": "female", "Varón": "male"}),
        (("女", "男"), {"女": "female", "男": "male"}),
    ],
)
def test_sexes_are_mapped(recorded, values):
    found = read_sex(text(*recorded))
    assert (found.meanings, found.groups, found.unsure) == (values, ["female", "male"], "")


def test_a_code_s_meaning_is_not_asserted():
    found = read_sex(text("1", "2", "1"))
    assert found.meanings == {} and found.groups == ["1", "2"]
    assert found.unsure == "which sex is meant (by ISO 5218: 1 male, 2 female)"
    assert read_sex(text("0", "1", "0")).unsure == "which sex is meant (by ISO 5218: 1 male)"
    dutch = read_sex(text("M", "V"))
    assert dutch.meanings == {} and "Dutch" in dutch.unsure
    assert read_sex(text("F", "M", "X")).unsure == "what 'X' means"


def test_ages_with_units_are_read_in_years():
    found = read_ages(text("063Y", "018M", "54 years", "61 J.", "70", "elderly"))
    assert found.meanings == {"018M": "1.5", "063Y": "63", "54 years": "54", "61 J.": "61"}


def test_modalities_are_mapped():
    found = read_modality(text("MRI", "CT", "PET"))
    assert (found.meanings, found.groups) == ({"MRI": "MR"}, ["CT", "MR"])
    assert found.unsure == "whether 'PET' is CT or MR"


def test_bins_hold_equal_people_between_round_edges(rng):
    ages = pd.Series(rng.integers(18, 90, 300).astype(float))
    edges = propose_bins(ages)
    assert all(edge % 5 == 0 for edge in edges) and edges[0] <= ages.min() and edges[-1] >= ages.max()
    counts = count_in_bins(ages.to_numpy(), edges)
    assert len(counts) == 3 and sum(counts) == 300 and min(counts) >= 75
    assert len(propose_bins(ages[:20])) == 3  # two groups of few people
    fine = pd.Series(rng.normal(2.31, 0.004, 60))
    assert min(count_in_bins(fine.to_numpy(), propose_bins(fine))) >= 15
    assert propose_bins(pd.Series([5.0, 5.0, np.nan])) == [5.0]


def test_counts_are_told_in_one_line():
    assert show_counts(text("F", "F", "M\nx", None)) == "F 2, M x 1, empty 1"
    assert show_counts(text(*"abcdefgh")).endswith("and 2 more")
