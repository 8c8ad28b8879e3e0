"""Who is in the study: every guard is seen firing, every row keeps its reason."""

from __future__ import annotations

import errno
import gzip

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from helpers import cohort, volumes
from helpers.cohort import validation
from helpers.cohort.grouping import group_attribute
from helpers.cohort.reasons import name_kinds
from helpers.errors import SegfairError, StageError
from helpers.inference import run_inference
from helpers.models import check_model, list_templates
from helpers.parameters import Attribute
from helpers.provenance import stage_is_current
from helpers.study import load_study
from helpers.volumes import containers

SHAPE = (7, 8, 9)


def save(array: np.ndarray, path, origin=(0.0, 0.0, 0.0)) -> None:
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetOrigin(origin + (0.0,) * (image.GetDimension() - 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


class Project:
    """A study of a few tiny scans in a temporary folder."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.rows: list[dict] = []
        mask = np.zeros(SHAPE, np.uint8)
        mask[2:5, 2:6, 2:5], mask[2:5, 2:6, 6:8] = 1, 2
        self.mask = mask

    def add(self, name: str, *, mask=None, origin=(0.0, 0.0, 0.0), **values) -> None:
        save(self.mask if mask is None else mask, self.folder / "masks" / f"{name}.nii.gz", origin)
        save(np.where(self.mask > 0, 50, -1000).astype(np.int16), self.folder / "images" / f"{name}.nii.gz")
        row = {
            "subject": name,
            "scan": name,
            "sex": "female",
            "age": 50,
            "bmi": 24,
            "modality": "CT",
            "image": f"images/{name}.nii.gz",
            "reference": f"masks/{name}.nii.gz",
        }
        self.rows.append(row | values)

    def load(self, *, name="people.csv", **overrides):
        path = self.folder / name
        if not path.exists():
            pd.DataFrame(self.rows).to_csv(path, index=False)
        raw = {
            "name": "tiny",
            "cohort": {
                "source": "table",
                "path": str(path),
                "organs": {"liver": {"labels": [1]}, "spleen": {"labels": [2]}},
                "attributes": {"sex": None, "age": {"bins": [18, 45, 65, 120]}, "bmi": None},
            },
            "models": [{"name": "ellipse", "kind": "prompt_only"}],
            "compute": {"workers": 0},
        }
        parameters = self.folder / "tiny.yaml"
        parameters.write_text(yaml.safe_dump(raw), encoding="utf-8")
        return load_study(parameters, overrides)

    def build(self, **overrides) -> cohort.StudyCohort:
        return cohort.build_cohort(self.load(**overrides))


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.add("a")
    project.add("b", sex="male", age=70, bmi=31)
    return project


def reason_of(built: cohort.StudyCohort, scan: str) -> str:
    row = built.table.set_index("scan").loc[scan]
    assert not row["included"]
    assert scan in set(built.exclusions["scan"])
    return row["reason"]


def test_good_rows_are_in_and_grouped(project):
    built = project.build()
    table = built.table
    assert table["included"].all() and table["number"].tolist() == [1, 2] and built.exclusions.empty
    assert table["group_sex"].tolist() == ["female", "male"]
    assert table["group_age"].tolist() == ["45–64", "65 and over"]
    assert table["group_bmi"].tolist() == ["normal weight", "obese"]
    saved = pd.read_parquet(project.load().path("cohort"))
    assert saved["group_age"].cat.ordered and list(saved["group_age"].cat.categories) == [
        "18–44",
        "45–64",
        "65 and over",
    ]


def corrupt(path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda p: p.add("x", age=0), None),
        (lambda p: p.add("x", age=150), "age 150 years is outside the plausible 0 to 120"),
        (lambda p: p.add("x", bmi=3), "bmi 3 kg/m² is outside the plausible 10 to 90"),
        (lambda p: p.add("x", age="old"), "age is not a number"),
        (lambda p: p.add("x", modality="US"), "modality must be CT or MR; got 'US'"),
        (lambda p: p.add("x", reference="masks/none.nii.gz"), "no such file"),
        (lambda p: p.add("x", image="images/none.nii.gz"), "no such file"),
        (lambda p: p.add("x", reference=None), "reference is missing"),
        (
            lambda p: p.add("x", origin=(10.0, 0.0, 0.0)),
            "not on the reference's grid (origin (0, 0, 0) against (10, 0, 0); up to 10 mm apart)",
        ),
        (
            lambda p: p.add("x", mask=np.zeros((7, 8, 10), np.uint8) + 1),
            "the image is not on the reference's grid (size",
        ),
        (lambda p: p.add("x", mask=np.zeros(SHAPE, np.uint8)), "the mask holds none of the study's organs"),
        (lambda p: p.add("x", mask=p.mask * 9), "none of the study's organs"),
        (lambda p: p.add("x", mask=np.where(p.mask == 1, 1, 7).astype(np.uint8)), "labels that no organ names (7)"),
        (lambda p: (p.add("x"), corrupt(p.folder / "masks" / "x.nii.gz")), "truncated or damaged"),
        (
            lambda p: (p.add("x"), (p.folder / "images" / "x.nii.gz").write_bytes(gzip.compress(b"text"))),
            "is not an image",
        ),
        (lambda p: p.add("x", mask=np.stack([p.mask, p.mask])), "must be a 3D image"),
        (lambda p: p.add("x", scan="../x"), "cannot be a file name"),
        (lambda p: p.add("x", scan="x\u202egnp"), "cannot be a file name"),
        (lambda p: p.add("x", scan="series" * 40), "cannot be a file name: use up to 200 letters"),
    ],
)
def test_each_fault_leaves_one_scan_out_with_its_reason_and_the_others_in(project, damage, expected):
    damage(project)
    built = project.build()
    assert built.table.loc[[0, 1], "included"].all()
    scan = built.table["scan"].iloc[2]
    if expected is None:  # a newborn is plausible unless the study says otherwise
        assert built.table["included"].all()
        built = project.build(**{"cohort.exclusions.plausible.age": [18, 110]})
        expected = "age 0 years is outside the plausible 18 to 110"
    assert expected in reason_of(built, scan)


def test_several_faults_of_one_row_are_all_told(project):
    project.add("x", age=150, modality="US")
    reason = reason_of(project.build(), "x")
    assert "modality must be CT or MR" in reason and "age 150 years is outside" in reason


def test_duplicate_scans_are_all_out(project):
    project.add("a")
    built = project.build()
    assert built.table["included"].tolist() == [False, True, False]
    assert "used by more than one row" in built.exclusions["reason"].iloc[0]


def test_named_exclusions_and_ignored_labels(project):
    project.add("x", mask=np.where(project.mask == 1, 1, 7).astype(np.uint8))
    built = project.build(**{"cohort.ignore_labels": [7], "cohort.exclusions.scans": {"a": "withdrew consent"}})
    assert reason_of(built, "a") == "withdrew consent"
    assert built.table.set_index("scan").loc["x", "note"] == "not in the mask: spleen"


def test_missing_values_keep_the_scan_without_a_group(project):
    project.add("x", age=None, sex=None)
    project.add("y", sex="transgender_male_to_female")
    built = project.build()
    rows = built.table.set_index("scan")
    assert rows["included"].all()
    assert pd.isna(rows.loc["x", "group_age"]) and "age is missing" in rows.loc["x", "note"]
    assert rows.loc["y", "sex"] == "transgender_male_to_female" and pd.isna(rows.loc["y", "group_sex"])
    assert any("sex: 1 scan has a value that belongs to no group" in note for note in built.notes)


def test_all_missing_attribute_does_not_stop_the_study(project):
    for row in project.rows:
        row["bmi"] = None
    built = project.build()
    assert built.table["included"].all()
    assert any("no comparison by bmi" in note for note in built.notes)
    described = cohort.describe_cohort(built.table, {"sex": None, "age": None, "bmi": None}, [], 1)
    assert described["characteristic"].tolist() == ["people", "age", "modality"]


def test_direct_identifiers_stay_outside(project):
    for row in project.rows:
        row |= {"name": "Jane Doe", "birth_date": "1970-01-01", "site": "north"}
    built = project.build(**{"cohort.confounders": ["site"]})
    assert not {"name", "birth_date"} & set(built.table) and "site" in built.table
    assert b"Jane" not in project.load().path("cohort").read_bytes()


def test_ids_stay_text(project):
    project.rows.clear()
    project.add("00007")
    assert project.build().table["subject"].tolist() == ["00007"]


def test_every_scan_excluded_is_one_sentence_and_the_reasons_are_kept(project):
    for row in project.rows:
        row["modality"] = "US"
    with pytest.raises(
        StageError, match=r"every one of the 2 scans is excluded, 2 of them because: modality must be CT or MR"
    ):
        project.build()
    assert len(pd.read_csv(project.load().path("exclusions"))) == 2


def test_missing_empty_and_unreadable_tables(project, tmp_path):
    study = project.load()
    (tmp_path / "people.csv").write_text("", encoding="utf-8")
    with pytest.raises(SegfairError, match="table is empty"):
        cohort.build_cohort(study)
    (tmp_path / "people.csv").write_text("subject,reference,modality,sex,age,bmi\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="has no rows"):
        cohort.build_cohort(study)
    (tmp_path / "people.csv").unlink()
    with pytest.raises(SegfairError, match="no such participants table: correct"):
        cohort.build_cohort(study)
    (tmp_path / "people.parquet").write_bytes(b"nonsense")
    with pytest.raises(SegfairError, match="cannot be read"):
        project.build(name="people.parquet")
    (tmp_path / "people.doc").write_bytes(b"nonsense")
    with pytest.raises(SegfairError, match=r"must be \.csv, \.tsv, \.xlsx or \.parquet"):
        project.build(name="people.doc")


def test_missing_column_says_how_to_map_it(project):
    for row in project.rows:
        row["gender"] = row.pop("sex")
    with pytest.raises(
        SegfairError,
        match=r"no column 'sex' for attribute 'sex'; it has .*gender.*: map it in tiny.yaml under cohort.columns",
    ):
        project.build()
    built = project.build(**{"cohort.columns": {"sex": "gender"}})
    assert built.table["sex"].tolist() == ["female", "male"]
    with pytest.raises(SegfairError, match="columns maps agee"):
        project.build(**{"cohort.columns": {"sex": "gender", "agee": "age"}})


def test_all_missing_columns_are_told_at_once(project):
    project.rows = [
        {
            "Patient": row["subject"],
            "Gender": row["sex"],
            **{name: row[name] for name in ("age", "bmi", "modality", "reference")},
        }
        for row in project.rows
    ]
    with pytest.raises(SegfairError) as error:
        project.build()
    assert "no column 'subject' for 'subject', 'sex' for attribute 'sex'; it has Patient, Gender, age" in str(
        error.value
    )
    assert str(error.value).endswith("under cohort.columns (subject: your column, sex: your column)")


@pytest.mark.parametrize("name", ["people.tsv", "people.xlsx", "people.parquet", "semicolons.csv"])
def test_four_kinds_of_table_are_read(project, tmp_path, name):
    table = pd.DataFrame(project.rows)
    path = tmp_path / name
    if name.endswith(".tsv"):
        table.to_csv(path, sep="\t", index=False)
    elif name.endswith(".xlsx"):
        table.to_excel(path, index=False)
    elif name.endswith(".parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, sep=";", index=False, encoding="utf-8-sig")
    assert project.build(name=name).table["age"].tolist() == [50.0, 70.0]


def test_values_are_mapped_and_nothing_else_is_recoded(project):
    project.rows[0]["sex"], project.rows[1]["sex"] = "F", "U"
    built = project.build(**{"cohort.values": {"sex": {"F": "female", "M": "male"}}})
    assert built.table["sex"].tolist() == ["female", "U"]


def test_text_is_tidied_and_only_names_may_be_called_na(project):
    project.rows[0]["sex"] = " female "
    project.rows[1] |= {"subject": "NA", "age": "NA"}
    project.add("x", scan="  ", subject="x")
    built = project.build()
    assert built.table["sex"].tolist() == ["female", "male", "female"]
    assert built.table["subject"].tolist()[1] == "NA" and np.isnan(built.table["age"][1])
    assert built.table["scan"].tolist()[2] == "x", "a blank scan name is none: the subject stands in"


def test_numbers_in_a_typed_table_are_mapped_like_words(project, tmp_path):
    table = pd.DataFrame(project.rows).assign(sex=[1.0, 2.0])
    table.to_parquet(tmp_path / "typed.parquet")
    built = project.build(name="typed.parquet", **{"cohort.values": {"sex": {"1": "female", "2": "male"}}})
    assert built.table["sex"].tolist() == ["female", "male"]


def test_rows_longer_than_the_header_are_refused(project, tmp_path):
    text = pd.DataFrame(project.rows).to_csv(index=False).splitlines()
    (tmp_path / "shifted.csv").write_text(
        "\n".join([text[0], *(line + ",more" for line in text[1:])]) + "\n", encoding="utf-8"
    )
    with pytest.raises(SegfairError, match="more values than its header"):
        project.build(name="shifted.csv")
    (tmp_path / "twice.csv").write_text("subject,sex,sex \na,female,male\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="two columns named 'sex'"):
        project.build(name="twice.csv")


def test_an_exclusion_that_names_no_scan_is_refused(project):
    with pytest.raises(SegfairError, match="names aa, which is no scan of the table"):
        project.build(**{"cohort.exclusions.scans": {"aa": "withdrew consent"}})


def test_scans_of_one_person_that_disagree_are_noted(project):
    project.add("a2", subject="a", sex="male")
    said = "sex: 1 person has scans that disagree: 03 compares these people with themselves, or leaves them out"
    assert said in project.build().notes


def test_check_lists_problems_and_writes_nothing(project):
    project.add("x", age=150)
    study = project.load(**{"fairness.min_group": 2})
    found = cohort.check_cohort(study)
    assert found.problems == ["scan 'x' (row 3) would be left out: age 150 years is outside the plausible 0 to 120"]
    assert sorted(found.remarks) == [
        "age: fewer than 2 people in 18–44 0, 45–64 1, 65 and over 1: not compared (fairness.min_group)",
        (
            "bmi: fewer than 2 people in underweight 0, normal weight 1, overweight 0, obese 1: not compared"
            " (fairness.min_group)"
        ),
        "sex: fewer than 2 people in female 1, male 1: not compared (fairness.min_group)",
    ]
    assert not study.folder.exists()


def test_check_tells_scans_of_one_reason_together(project):
    for place in range(7):
        project.add(f"x{place}", modality="XA")
    (problem,) = cohort.check_cohort(project.load()).problems
    assert problem.startswith("7 scans ('x0', 'x1', 'x2', 'x3', 'x4', …) would be left out: modality must be CT or MR")


def test_check_counts_nobody_where_every_scan_is_left_out(project):
    found = cohort.check_cohort(project.load(**{"cohort.exclusions.plausible.age": [18, 20]}))
    assert "would be left out" in found.problems[0]
    assert not [remark for remark in found.remarks if "fewer than" in remark]


def test_check_says_when_an_attribute_has_no_known_value(project):
    for row in project.rows:
        row["sex"] = {"female": "F", "male": "M"}[row["sex"]]
    project.add("c", sex="F", age=17)
    found = cohort.check_cohort(project.load())
    assert found.problems == [
        "sex: none of the recorded values ('F', 'M') belongs to a group of this study (female, male): "
        "map them under cohort.values, or name your groups under cohort.attributes"
    ]
    assert "age: 1 scan has a value without a group (17): no part in the comparison by age" in found.remarks
    mapped = cohort.check_cohort(project.load(**{"cohort.values": {"sex": {"F": "female"}}}))
    assert mapped.problems == []
    assert "sex: 1 scan has a value without a group ('M'): no part in the comparison by sex" in mapped.remarks


EGFR = {"cohort.attributes": {"egfr": {"bins": [0, 60, 200]}}}


def record(project, name: str, values: list[str]) -> None:
    for row, value in zip(project.rows, values, strict=True):
        row[name] = value


def test_decimal_commas_are_read_where_the_whole_column_has_them(project, tmp_path):
    record(project, "egfr", ["64,4", "58"])
    record(project, "thickness", ["0,625", "1,250"])
    record(project, "bmi", ["24,5", "31,0"])
    text = pd.DataFrame(project.rows).to_csv(sep=";", index=False, lineterminator="\r\n")
    (tmp_path / "german.csv").write_text(text, encoding="utf-8-sig", newline="")
    overrides = {**EGFR, "cohort.confounders": ["thickness", "bmi"], "fairness.min_group": 2}
    table = project.build(name="german.csv", **overrides).table
    assert table["egfr"].tolist() == [64.4, 58.0] and table["bmi"].tolist() == [24.5, 31.0]
    assert table["thickness"].tolist() == [0.625, 1.25], "adjusted for as a number, not by levels"
    assert table["group_egfr"].tolist() == ["60 to 200", "under 60"]
    assert cohort.check_cohort(project.load(name="german.csv", **overrides)).problems == []


@pytest.mark.parametrize(
    ("values", "read", "told"),
    [
        (["64,4", "58.1"], [np.nan, 58.1], "egfr is recorded as '64,4' in 1 scan, which is not a number: write digits"),
        (["64", "54 y"], [64, np.nan], "egfr is recorded as '54 y' in 1 scan, which is not a number: write digits"),
        # Thousands or thousandths? Nobody but the writer knows.
        (["1,234", "2,500"], [np.nan] * 2, "egfr is recorded as '1,234', '2,500' in 2 scans, which is not a number"),
    ],
)
def test_a_number_that_cannot_be_read_is_told_and_not_called_missing(project, values, read, told):
    record(project, "egfr", values)
    built = project.build(**EGFR)
    np.testing.assert_array_equal(built.table["egfr"], read)
    assert built.table["included"].all()
    assert built.table.loc[np.isnan(read), "note"].eq("egfr is not a number").all()
    (note,) = [note for note in built.notes if "not a number" in note]
    assert note.startswith(f"egfr: {np.isnan(read).sum()} scan") and values[0] not in note
    (problem,) = cohort.check_cohort(project.load(**EGFR)).problems
    assert problem.startswith(told)


def test_a_confounder_of_numbers_and_other_values_is_told(project):
    record(project, "thickness", ["2.5", "5 mm"])
    overrides = {"cohort.confounders": ["thickness"], "fairness.min_group": 2}
    built = project.build(**overrides)
    assert built.table["thickness"].tolist() == ["2.5", "5 mm"]
    assert any(note.startswith("thickness: some values are decimal numbers") for note in built.notes)
    found = cohort.check_cohort(project.load(**overrides))
    assert found.problems == [] and any("no numbers ('5 mm'): adjusted for as words" in text for text in found.remarks)
    record(project, "thickness", ["site 1", "2"])
    (project.folder / "people.csv").unlink()
    assert not any("thickness" in text for text in cohort.check_cohort(project.load(**overrides)).remarks)


def test_an_age_nobody_asks_for_costs_nobody_their_place(project):
    record(project, "age", ["54 y", "70"])
    unasked = {"cohort.attributes": {"sex": None}}
    table = project.build(**unasked).table
    assert table["included"].all() and table["note"].tolist() == ["age is not a number", ""]
    found = cohort.check_cohort(project.load(**unasked))
    assert found.problems == [] and any(text.startswith("age is recorded as '54 y'") for text in found.remarks)
    for asked in ({"cohort.confounders": ["age"]}, {"cohort.exclusions.plausible.age": [18, 90]}):
        assert reason_of(project.build(**unasked, **asked), "a").startswith("age is not a number: write digits alone")
        problems = cohort.check_cohort(project.load(**unasked, **asked)).problems
        assert len(problems) == 2 and problems[1].startswith("age is recorded as '54 y' in 1 scan")


def test_words_for_missing_that_are_groups_or_mapped_keep_their_meaning(project):
    record(project, "smoking", ["None", "NA"])
    record(project, "site", ["NA", "EU"])
    record(project, "alcohol", ["None", "null"])
    attributes = {
        "smoking": {"categories": ["None", "Current"]},
        "site": {"categories": ["NA", "EU"]},
        "alcohol": {"categories": ["never"]},
    }
    table = project.build(**{"cohort.attributes": attributes, "cohort.values": {"alcohol": {"None": "never"}}}).table
    assert table["group_site"].tolist() == ["NA", "EU"]
    assert table["group_smoking"][0] == "None" and table["smoking"].isna().tolist() == [False, True]
    assert table["group_alcohol"][0] == "never" and table["alcohol"].isna().tolist() == [False, True]


def check_masks(project, template: str) -> list[str]:
    return cohort.check_cohort(project.load(), {"ours": str(project.folder / template)}).problems


def test_check_looks_for_every_ready_made_mask(project):
    project.add("c")
    for name in "abc":
        save(project.mask, project.folder / "ours" / f"{name}.nii.gz")
        save((project.mask == 1).astype(np.uint8), project.folder / "folders" / name / "mask.nii.gz")
        save((project.mask == 1).astype(np.uint8), project.folder / "named" / name / "liver.nii.gz")
    assert check_masks(project, "ours/{scan}.nii.gz") == []
    assert check_masks(project, "named/{subject}") == [], "an organ's own name, where it has labels alone"
    (problem,) = check_masks(project, "folders/{subject}")
    assert problem.endswith("holds none of the masks that cohort.organs names"), "organs by label alone"
    save(project.mask.astype(np.float32), project.folder / "ours" / "a.nii.gz")
    flipped = sitk.DICOMOrient(sitk.ReadImage(str(project.folder / "ours" / "b.nii.gz")), "RAS")
    sitk.WriteImage(flipped, str(project.folder / "ours" / "b.nii.gz"))
    assert check_masks(project, "ours/{scan}.nii.gz") == [], (
        "whole numbers as floats, and another order of the same voxels"
    )
    assert check_masks(project, "nowhere/{scan}.nii.gz") == [
        "models.ours: 3 scans ('a', 'b', 'c') would count as failed: there is no mask for this scan where the model's"
        " path says (nowhere/{scan}.nii.gz): add it or correct models.*.path"
    ]
    save(project.mask * 0.5, project.folder / "ours" / "a.nii.gz")
    save(project.mask[:, :-1], project.folder / "ours" / "b.nii.gz")
    (project.folder / "ours" / "c.nii.gz").write_bytes(b"no image")
    fractions, grid, damaged = check_masks(project, "ours/{scan}.nii.gz")
    assert fractions.startswith("models.ours: scan 'a' (row 1) would count as failed: a mask must hold whole numbers")
    assert "'b' (row 2) would count as failed: the mask is not on the reference's grid (size (9, 7, 7)" in grid
    assert "'c' (row 3) would count as failed: is not an image that can be opened" in damaged


def test_masks_of_scans_that_are_out_are_not_asked_for(project):
    project.rows[0]["modality"] = "US"
    save(project.mask, project.folder / "ours" / "b.nii.gz")
    (problem,) = check_masks(project, "ours/{scan}.nii.gz")
    assert "modality must be" in problem


def test_check_names_organs_that_masks_lack(project):
    project.add("c", mask=(project.mask == 1).astype(np.uint8))
    found = cohort.check_cohort(project.load(**{"cohort.organs.pancreas": {"labels": [3]}}))
    assert found.problems == [
        "cohort.organs.pancreas: no mask holds it (labels [3]): correct where it is found, or leave the organ out"
    ]
    assert "spleen: not in the mask of scan 'c' (row 3): scored where it is there" in found.remarks


@pytest.mark.parametrize(
    ("value", "group"),
    [
        (17.9, None),
        (18, "18–44"),
        (44.9, "18–44"),
        (45, "45–64"),
        (65, "65 and over"),
        (120, "65 and over"),
        (121, None),
        (np.nan, None),
    ],
)
def test_bins_are_closed_on_the_left_and_the_last_on_both_sides(value, group):
    (found,) = group_attribute(pd.Series([value]), "age", Attribute(bins=[18, 45, 65, 120]))
    assert found == group or (group is None and pd.isna(found))


def test_who_bands_are_the_default():
    bmi = group_attribute(pd.Series([18.4, 18.5, 25.0, 30.0]), "bmi", None)
    assert bmi.tolist() == ["underweight", "normal weight", "overweight", "obese"]
    age = group_attribute(pd.Series([10, 20, 50, 60, 90]), "age", None)
    assert age.tolist() == ["under 18", "18–44", "45–59", "60–74", "75 and over"]


def test_tables_of_description(project):
    project.add("c", sex="male", age=None)
    project.add("a2", subject="a")
    built = project.build()
    missing = cohort.count_missing(built.table, ["sex", "age"]).set_index("attribute")
    assert missing.loc["age"].tolist() == [3, 0, 1]
    overlaps = cohort.count_overlaps(built.table, ["sex", "age"], 1).set_index(["group_a", "group_b"])["n"]
    assert overlaps["female", "45–64"] == 1, "a person with two scans counts once"
    assert overlaps["female", "18–44"] == 0, "empty pairs stay visible"
    assert len(overlaps) == 6
    described = cohort.describe_cohort(built.table, {"sex": None, "age": None, "bmi": None}, ["modality"], 1)
    assert described.loc[0, ["all", "female", "male"]].tolist() == ["3", "1", "2"]
    assert described.set_index("characteristic").loc["modality", ["level", "all", "male"]].tolist() == [
        "CT", "3 (100 %)", "2 (100 %)",
    ]  # fmt: skip
    flow = built.flow.set_index("step")["scans"]
    assert flow["found"] == 4 and flow["included"] == 4


def test_reasons_are_counted_by_kind(project):
    project.add("x", age=150)
    project.add("y", age=160)
    built = project.build()
    assert built.flow["step"].tolist() == ["found", "age is not plausible", "included"]
    assert built.flow["scans"].tolist() == [4, 2, 2]


def test_every_reason_has_a_kind_without_values_and_what_was_written_is_read_back_in_words(project):
    project.add("x", age=150, modality="US")
    project.add("y", reference="masks/none.nii.gz")
    project.add("z", mask=np.where(project.mask == 1, 1, 7).astype(np.uint8))
    project.add("w")
    built = project.build(**{"cohort.exclusions.scans": {"w": "seen twice, as case 0042"}})
    written = pd.read_csv(project.load().path("exclusions"))
    assert written.columns.tolist() == ["number", "scan", "subject", "reason", "kind"]
    assert written["kind"].tolist() == [
        "modality_unknown; age_implausible", "reference_no_file", "mask_unknown_labels", "scan_listed",
    ]  # fmt: skip
    assert [name_kinds(kind) for kind in written["kind"]] == [
        "modality must be CT or MR; age is not plausible",
        "there is no such reference",
        "the mask holds labels that no organ names",
        "named under cohort.exclusions.scans",
    ]
    # Their words may name somebody: they stand in exclusions.csv alone.
    assert built.flow["step"].tolist()[-2:] == ["named under cohort.exclusions.scans", "included"]
    assert "kind" not in built.table


def test_a_fault_of_one_mask_in_a_folder_says_that_it_is_the_references(project):
    project.add("x", reference="folders/x")
    for organ, shift in (("liver", 0.0), ("spleen", 5.0)):
        save((project.mask > 0).astype(np.uint8), project.folder / "folders" / "x" / f"{organ}.nii.gz", (shift, 0, 0))
    organs = {organ: {"files": [organ], "labels": [place]} for place, organ in enumerate(("liver", "spleen"), start=1)}
    built = project.build(**{"cohort.organs": organs})
    assert reason_of(built, "x").startswith("reference spleen.nii.gz: is not on the grid of liver.nii.gz (origin")
    assert built.flow["step"].tolist()[1] == "the reference cannot be used"


def test_kits23_table(data_folder, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_DATA", str(data_folder))
    study = load_study(
        repository / "params" / "kits23_annotators.yaml", {"outputs": str(tmp_path), "compute.workers": 0}
    )
    table = cohort.build_cohort(study).table
    assert len(table) == 60 and table["included"].sum() == 58
    assert set(table.loc[~table["included"], "age"]) == {0}
    assert table["image"].isna().all()


def test_totalsegmentator_layout(data_folder, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGFAIR_DATA", str(data_folder))
    study = load_study(
        repository / "params" / "totalsegmentator_example.yaml", {"outputs": str(tmp_path), "compute.workers": 0}
    )
    table = cohort.build_cohort(study).table
    assert table[["scan", "modality", "included"]].to_numpy().tolist() == [["s0001", "CT", True], ["s0002", "MR", True]]


def test_totalsegmentator_meta_is_joined_by_id(tmp_path, project):
    for scan in ("s0002", "s0001"):
        save(np.zeros(SHAPE, np.int16), tmp_path / "ts" / scan / "ct.nii.gz")
        save((project.mask == 1).astype(np.uint8), tmp_path / "ts" / scan / "segmentations" / "liver.nii.gz")
    (tmp_path / "ts" / "meta.csv").write_text(
        "image_id;age;gender\ns0009;1;m\ns0002;60;f\ns0001;70;m\n", encoding="utf-8-sig"
    )
    overrides = {
        "cohort.source": "totalsegmentator",
        "cohort.path": str(tmp_path / "ts"),
        "cohort.organs": {"liver": {"files": ["liver"]}},
    }
    table = project.build(**overrides).table.set_index("scan")
    assert table.loc["s0001", ["sex", "age"]].tolist() == ["male", 70.0]
    assert table.loc["s0002", ["sex", "age"]].tolist() == ["female", 60.0]
    (tmp_path / "ts" / "s0001" / "ct.nii.gz").unlink()
    assert (
        "modality must be CT or MR; got nothing"
        in project.build(**overrides).table.set_index("scan").loc["s0001", "reason"]
    )
    (tmp_path / "ts" / "meta.csv").write_text("id;age\ns0001;70\n", encoding="utf-8")
    with pytest.raises(SegfairError, match="has no column image_id or gender"):
        project.build(**overrides)


def test_an_image_that_run_could_not_read_is_out_by_check_already(project):
    project.add("x")
    corrupt(project.folder / "images" / "x.nii.gz")
    (problem,) = cohort.check_cohort(project.load()).problems
    assert problem.startswith("scan 'x' (row 3) would be left out: image x.nii.gz: cannot be read, it may be truncated")


def test_grey_values_are_remarked_on_by_check_and_by_01(project):
    for name, image in (("x", project.mask + 1024.0), ("y", project.mask * 0), ("z", project.mask / 1.0)):
        project.add(name)
        save(image.astype(np.float32 if name == "z" else np.int16), project.folder / "images" / f"{name}.nii.gz")
    study = project.load()
    shifted = "the image is called CT and is not in Hounsfield units (air −1000, water 0)"
    found = cohort.check_cohort(study)
    assert found.problems == []
    assert f"2 scans ('x', 'z'): {shifted}" in found.remarks
    assert "scan 'y' (row 4): the image is of one grey throughout" in found.remarks
    built = cohort.build_cohort(study)
    assert f"2 scans: {shifted}" in built.notes and "1 scan: the image is of one grey throughout" in built.notes
    assert built.table["note"].tolist()[2] == shifted and built.table["included"].all()


def test_ready_made_masks_are_read_as_inference_reads_them(project):
    for name in "ab":
        for organ, label in (("liver", 1), ("spleen", 2)):
            save((project.mask == label).astype(np.uint8), project.folder / "ours" / name / f"{organ}.nii.gz")
        save(np.ones((3, 3, 3), np.uint8), project.folder / "ours" / name / "body.nii.gz")  # no organ's
        (project.folder / "ours" / name / "._liver.nii.gz").write_bytes(b"\0\5\26\7")
    organs = {organ: {"files": [organ], "labels": [place]} for place, organ in enumerate(("liver", "spleen"), start=1)}
    study = project.load(**{"cohort.organs": organs})
    masks = {"ours": str(project.folder / "ours/{scan}")}
    assert cohort.check_cohort(study, masks).problems == []
    save(project.mask * 0.3 + 0.01, project.folder / "ours" / "a" / "liver.nii.gz")
    corrupt(project.folder / "ours" / "b" / "spleen.nii.gz")
    fractions, damaged = cohort.check_cohort(study, masks).problems
    assert "scan 'a' (row 1) would count as failed: liver.nii.gz: the mask of one organ must hold two" in fractions
    assert "scan 'b' (row 2) would count as failed: spleen.nii.gz: cannot be read, it may be truncated" in damaged


def test_links_and_odd_paths_cost_one_scan_at_most(project):
    store = project.folder / "store"
    store.mkdir()
    for number, place in enumerate(("masks/a.nii.gz", "images/a.nii.gz")):
        (project.folder / place).rename(store / f"{number}f00")
        (project.folder / place).symlink_to(store / f"{number}f00")
    for name, reference in (
        ("loop", "masks/loop.nii.gz"),
        ("long", f"masks/{'long' * 100}.nii.gz"),
        ("dots", " ./masks/../masks//dots.nii.gz "),
        ("windows", "masks\\windows.nii.gz"),
        ("decomposed", "masks/\u00e4.nii.gz"),
    ):
        project.add(name, reference=reference)
    (project.folder / "masks" / "decomposed.nii.gz").rename(project.folder / "masks" / "a\u0308.nii.gz")
    (project.folder / "masks" / "loop.nii.gz").unlink()
    (project.folder / "masks" / "loop.nii.gz").symlink_to("loop.nii.gz")
    table = project.build().table.set_index("scan")
    assert table.index[~table["included"]].tolist() == ["loop", "long"]
    assert table.loc["loop", "reason"].endswith(
        "masks/loop.nii.gz: no such file: correct its path in the participants table"
    )
    assert table.loc["a", "reference"] == str(project.folder / "masks" / "a.nii.gz")


def test_a_linked_table_and_a_linked_parameter_file_lie_where_their_links_do(project):
    study = project.load()
    (project.folder / "store").mkdir()
    for file in ("people.csv", "tiny.yaml"):
        (project.folder / file).rename(project.folder / "store" / "f00")
        (project.folder / "store" / "f00").rename(project.folder / "store" / f"{file}00")
        (project.folder / file).symlink_to(f"store/{file}00")
    again = load_study(project.folder / "tiny.yaml")
    assert again.root == study.root and cohort.build_cohort(again).table["included"].all()


def test_braces_are_filled_in_the_models_own_path_alone(project, monkeypatch):
    inside = project.folder / "export {final} {scan}"
    monkeypatch.setenv("PLACE", str(inside))
    for name in "ab":
        save(project.mask, inside / "ours {x}" / f"{name}.nii.gz")
    pd.DataFrame(project.rows).to_csv(inside / "people.csv", index=False)
    (inside / "masks").symlink_to(project.folder / "masks")
    (inside / "images").symlink_to(project.folder / "images")
    for path in ("ours {x}/{scan}.nii.gz", "${PLACE}/ours {x}/{subject}.nii.gz"):
        study = project.load(
            name=inside.name + "/people.csv", models=[{"name": "ours", "kind": "precomputed", "path": path}]
        )
        assert check_model(study.parameters.models[0], study) == []
        assert cohort.check_cohort(study, list_templates(study)).problems == []
        cohort.build_cohort(study)
        found = run_inference(study)
        assert found["status"].tolist() == ["ok", "ok"]
        assert stage_is_current(study, "02_inference") is False, "the masks are stamped without a fault"
    study = project.load(models=[{"name": "ours", "kind": "precomputed", "path": "ours/{scan:>9}.nii.gz"}])
    (problem,) = check_model(study.parameters.models[0], study)
    assert "must hold {scan} or {subject}, else every scan gets the same mask" in problem


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("female", "Größe").encode("cp1252"), "is not UTF-8 text: save it as UTF-8"),
        (lambda text: text.encode("utf-16"), "is not UTF-8 text: save it as UTF-8"),
        (lambda text: text.encode("utf-16-le"), "is not UTF-8 text: save it as UTF-8"),
        (lambda text: b"Export of 2 March\n\n" + text.encode(), r"it has Export of 2 March \(line 1\): map it"),
        (lambda text: b"sep=,\n" + text.upper().encode(), r"it has SUBJECT, .* \(line 2\): map it"),
        (lambda text: text.replace("bmi", "age").encode(), "two columns named 'age': rename one of them"),
        (lambda text: text.replace("bmi", " age ").encode(), "two columns named 'age'"),
        (lambda text: (text + '"open').encode(), "cannot be read"),
    ],
)
def test_a_text_table_that_cannot_be_used_is_told_in_words(project, change, told):
    study = project.load()
    path = project.folder / "people.csv"
    path.write_bytes(change(path.read_text("utf-8")))
    with pytest.raises(SegfairError, match=told):
        cohort.build_cohort(study)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"sep=;\r\n" + text.replace(",", ";").replace("\n", "\r\n").encode(),
        lambda text: b"SEP=\t\n" + text.replace(",", "\t").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", ",\n").encode(),
        lambda text: (text + ",,,,,,,\n\n").encode("utf-8-sig"),
        lambda text: ("\n" + text).encode(),
    ],
)
def test_text_tables_of_spreadsheets_are_read(project, change):
    study = project.load()
    path = project.folder / "people.csv"
    path.write_bytes(change(path.read_text("utf-8")))
    table = cohort.build_cohort(study).table
    assert table["included"].tolist() == [True, True] and table["bmi"].tolist() == [24, 31]


def test_typed_tables_are_read_as_text(project, tmp_path):
    table = pd.DataFrame(project.rows)
    table["sex"] = pd.Categorical(["F", "M"], categories=["F", "M", "X"])
    table["bmi"] = np.array([24.3, 31.0], np.float32)
    table["age"] = pd.array([50, None], dtype="Int64")
    table["contrast"] = pd.array([True, None], dtype="boolean")
    table.set_index("subject").to_parquet(tmp_path / "typed.parquet")
    attributes = {"sex": {"categories": ["female", "male"]}, "contrast": {"categories": ["True", "False"]}}
    built = project.build(
        name="typed.parquet",
        **{"cohort.attributes": attributes, "cohort.values": {"sex": {"F": "female", "M": "male"}}},
    )
    assert built.table["group_sex"].tolist() == ["female", "male"]
    assert built.table["bmi"].tolist() == [24.3, 31.0] and built.table["age"].isna().tolist() == [False, True]
    assert built.table["contrast"].tolist()[0] == "True" and built.table["subject"].tolist() == ["a", "b"]


def test_a_workbooks_coloured_rows_are_nobody_and_its_first_sheet_is_named(project, tmp_path):
    from openpyxl import Workbook
    from openpyxl.styles import PatternFill

    rows = pd.DataFrame(project.rows)
    book = Workbook()
    book.active.append(list(rows.columns))
    for row in rows.to_numpy(object):
        book.active.append(list(row))
    for number in range(1, 40):
        for column in range(1, 15):
            book.active.cell(number, column).fill = PatternFill("solid", fgColor="FFFF00")
    book.save(tmp_path / "people.xlsx")
    assert project.build(name="people.xlsx").table["included"].tolist() == [True, True]
    book.create_sheet("{Notes}", 0).append(["Please read me"])
    book.save(tmp_path / "notes.xlsx")
    with pytest.raises(
        SegfairError, match=r"has no rows below its header \(row 1 of '\{Notes\}', the first of several sheets\)"
    ):
        project.build(name="notes.xlsx")
    book["{Notes}"].append(["first"])
    book.save(tmp_path / "more.xlsx")
    with pytest.raises(
        SegfairError, match=r"it has Please read me \(row 1 of '\{Notes\}', the first of several sheets\): map it"
    ):
        project.build(name="more.xlsx")
    book["{Notes}"].insert_rows(1)
    book["{Notes}"]["A1"], book["{Notes}"]["B1"] = "age", "age"
    book.save(tmp_path / "twice.xlsx")
    with pytest.raises(SegfairError, match="two columns named 'age'"):
        project.build(name="twice.xlsx")


def test_what_the_table_lacks_is_filled_in(project):
    project.add("c")
    for row in project.rows:
        row.update(subject=f"person {row['scan']}", image=None)
        del row["reference"]
    project.rows[0].update(modality=None, image="images/b.nii.gz")
    fill = {
        "reference": "masks/{scan}.nii.gz",
        "image": "images/{scan}.nii.gz",
        "modality": "CT",
        "site": "of {subject}",
    }
    built = project.build(**{"cohort.fill": fill, "cohort.confounders": ["site"]})
    table = built.table
    assert table["included"].all() and table["site"].tolist() == ["of person a", "of person b", "of person c"]
    assert [path.rpartition("/")[2] for path in table["image"]] == ["b.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert [path.rpartition("/")[2] for path in table["reference"]] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    with pytest.raises(SegfairError, match=r"cohort\.fill names colour, which is neither a column of ours"):
        project.build(**{"cohort.fill": fill | {"colour": "red"}, "cohort.confounders": ["site"]})
    with pytest.raises(SegfairError, match="scan cannot be filled in: it is what the others are filled in from"):
        project.load(**{"cohort.fill": {"scan": "x"}})


def test_a_row_without_a_name_gets_nothing_filled_in(project):
    project.rows[1].update(subject=None, scan=None, reference=None)
    project.rows[0]["reference"] = None
    table = project.build(**{"cohort.fill": {"reference": "masks/{scan}.nii.gz"}}).table
    assert table["included"].tolist() == [True, False]
    assert table["reason"][1] == "subject is missing; reference is missing: give the path of the expert's mask"


def test_groups_that_are_a_scanner_are_named_before_anything_is_run(project):
    for number in range(13):
        project.add(f"w{number:02d}", sex="female", scanner="B" if number else "A")
    for number in range(11):
        project.add(f"m{number:02d}", sex="male", scanner="A")
    overrides = {"cohort.confounders": ["scanner", "bmi"], "fairness.min_group": 3}
    built, names = project.build(**overrides), ["sex"]
    counted = cohort.count_confounders(built.table, names, ["scanner", "bmi"], 3)
    counted = counted[counted["confounder"] == "scanner"].set_index("level")
    # One woman has A; her number would follow from that of B, or of the men.
    assert counted.loc["A", ["sex: female", "sex: male"]].tolist() == ["few", "few"]
    assert counted.loc["B", ["sex: female", "sex: male"]].tolist() == ["few", "0"]
    said = (
        "sex and scanner cannot be told apart here: nearly all 13 in “female” have scanner B, all 11 in “male” have A"
    )
    remarks = cohort.check_cohort(project.load(**overrides)).remarks
    assert f"{said}: their gap is not adjusted" in remarks
    assert cohort.list_indistinguishable(built.table, names, ["bmi"], 3) == []


@pytest.mark.parametrize("times", [1, 9])
def test_a_fault_of_the_disk_leaves_no_scan_out(project, monkeypatch, times):
    """Read once more it is well; where it stays, 01 stops, and nobody is missing from the
    cohort."""
    faults = [OSError(errno.EIO, "Input/output error")] * times

    def read_label_map(path, *arguments, **options):
        if path.name == "b.nii.gz" and faults:
            with containers.explain_unreadable(path):
                raise faults.pop()
        return volumes.read_label_map(path, *arguments, **options)

    monkeypatch.setattr(validation, "read_label_map", read_label_map)
    if times == 1:
        assert project.build().table["included"].tolist() == [True, True]
    else:
        with pytest.raises(SegfairError, match=r"1 scan could not be read for a fault of the machine.*scan 2: b"):
            project.build()
        assert not project.load().path("cohort").exists()
