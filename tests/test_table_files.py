"""Tables as spreadsheets and programs write them: read as they look, or refused in words."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import openpyxl
import pandas as pd
import pytest

from helpers import cohort
from helpers.cohort.numbers import read_numbers
from helpers.cohort.table_files import REMARKS, read_table_file
from helpers.errors import SegfairError
from helpers.study import load_study


@pytest.fixture
def book():
    """Return a workbook of one sheet, and the sheet."""
    made = openpyxl.Workbook()
    sheet = made.active
    for row in (["subject", "sex", "age"], ["007", "F", 61], [8, None, 62.5], ["c", "M", None]):
        sheet.append(row)
    return made, sheet


def read(made, folder):
    made.save(folder / "people.xlsx")
    return read_table_file(folder / "people.xlsx")


def test_cells_are_read_as_they_look(book, tmp_path):
    made, sheet = book
    sheet.append([True, datetime.date(2026, 3, 4), "#DIV/0!"])
    sheet["C5"].data_type = "e"
    table = read(made, tmp_path)
    assert table["subject"].tolist() == ["007", "8", "c", "True"]
    assert table["age"].tolist()[:2] == ["61", "62.5"] and pd.isna(table["age"][2])
    assert table["age"][3] == "#DIV/0!", "an error is no missing value"
    assert table["sex"][3] == "2026-03-04 00:00:00"


def test_cells_merged_downwards_have_one_value(book, tmp_path):
    made, sheet = book
    sheet.merge_cells("B2:B3")
    assert read(made, tmp_path)["sex"].tolist() == ["F", "F", "M"]


def test_hidden_sheets_are_passed_over_and_hidden_rows_told(book, tmp_path):
    made, sheet = book
    sheet.row_dimensions[3].hidden = True
    first = made.create_sheet("old", 0)
    first.append(["another table"])
    first.append(["of one row"])
    first.sheet_state = "hidden"
    made.active = 1
    table = read(made, tmp_path)
    assert table["subject"].tolist() == ["007", "8", "c"] and table.attrs["place"] == "row 1"
    assert table.attrs[REMARKS] == ["people.xlsx: 1 row is hidden and read as the others"]
    first.sheet_state = "visible"
    assert read(made, tmp_path).attrs["place"] == "row 1 of 'old', the first of several sheets"


def test_formulas_without_results_are_no_empty_cells(book, tmp_path):
    made, sheet = book
    sheet["C2"], sheet["C3"] = "=2026-1965", "=C2+1"
    with pytest.raises(SegfairError, match=r"holds formulas without results \(cell C2\): open it in Excel"):
        read(made, tmp_path)


def test_the_check_tells_of_hidden_rows_and_of_names_that_are_nearly_alike(book, tmp_path):
    made, sheet = book
    sheet.row_dimensions[2].hidden = True
    sheet.append(["C", "M", 50])
    sheet.append(["7", "M", 51])
    for row in range(2, 7):
        sheet.cell(row, 4, "CT"), sheet.cell(row, 5, "none.nii.gz")
    sheet["D1"], sheet["E1"] = "modality", "reference"
    made.save(tmp_path / "people.xlsx")
    study = {
        "name": "s", "models": [{"name": "m", "kind": "prompt_only"}], "compute": {"workers": 0},
        "cohort": {"source": "table", "path": "people.xlsx", "organs": {"liver": {"labels": [1]}},
                   "attributes": {"sex": {"categories": ["F", "M"]}}},
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(study), encoding="utf-8")
    remarks = cohort.check_cohort(load_study(tmp_path / "s.yaml")).remarks
    assert "people.xlsx: 1 row is hidden and read as the others" in remarks
    assert any(
        said.startswith("subject: '007' and '7', 'c' and 'C' differ in capitals, spaces or zeros in front alone")
        for said in remarks
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"\xd0\xcf\x11\xe0" + bytes(600), "is encrypted, or of an old Excel: save it as .xlsx"),
        ("a.xlsx", b"PK\x03\x04" + bytes(600), "it may be damaged, or of another kind than its name says"),
        ("a.parquet", b"PAR1" + bytes(60), "it may be damaged, or of another kind than its name says"),
        ("a.csv", b'subject,sex\na,"F\nb,M\n', "a quotation mark up to line 3 is not closed, or text follows it"),
        ("a.csv", b'subject,sex\na,"F"x\nb,M\n', "a quotation mark up to line 2 is not closed, or text follows it"),
        ("a.csv", "subject,sex\na,F\n".encode("utf-16-le"), "is not UTF-8 text: save it as UTF-8"),
        ("a.csv", "Größe\n1\n".encode("cp1252"), "is not UTF-8 text: save it as UTF-8"),
        ("a.csv", b"", "the participants table is empty"),
        ("a.csv", b"\n\nsubject,sex\n,\n", r"has no rows below its header \(line 3\)"),
        ("a.csv", b"subject,sex\na,F,3\n", "has rows with more values than its header has names"),
        ("a.ods", b"", "a participants table must be .csv, .tsv, .xlsx or .parquet"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_in_words(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SegfairError, match=f"^{name}: .*{said}") as caught:
        read_table_file(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_text_is_one_spelling_whatever_wrote_it(tmp_path):
    lines = ["subject;name;note", 'e\u0301 ;\u00e9\u00a0;"' + "x" * 200_000 + '"']
    (tmp_path / "a.csv").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    table = read_table_file(tmp_path / "a.csv")
    assert table["subject"][0] == table["name"][0] == "é" and len(table["note"][0]) == 200_000
    typed = pd.DataFrame({"subject": [b"a", b"b"], "x": [Decimal("1.50"), None], "n": pd.array([3, None], "Int64")})
    typed.to_parquet(tmp_path / "a.parquet")
    table = read_table_file(tmp_path / "a.parquet")
    assert table["subject"].tolist() == ["a", "b"] and table["x"][0] == "1.50" and table["n"][0] == "3"


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (["6.3e1", "+63", ".5"], [63, 63, 0.5]),
        (["61,5", "58"], [61.5, 58]),
        (["61,5", "1.234,5"], [None, None]),
        (["63 years", "P63Y", "063Y", "63%", "6_3", "0x3f", "12:30"], [None] * 7),
        (["inf", "1e999", "-Infinity", "nan"], [None] * 4),
        (["1,234", "2,345"], [None, None]),
    ],
)
def test_what_is_a_number_and_what_is_not(recorded, expected):
    found = read_numbers(pd.Series(recorded)).tolist()
    assert [None if value != value else value for value in found] == expected
