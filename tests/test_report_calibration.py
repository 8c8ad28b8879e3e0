"""The numbers that reports quote of the audit itself are those of the tables in docs/."""

from __future__ import annotations

import json
import re

import pytest

from helpers.report import calibration
from helpers.report.sentences.study import describe_total_failures
from tests.calibration.calibrate_spatial import CHECKS, ERODED_MASKS, NULL_MASKS
from tests.calibration.questions import EXTREME, FAILURES, SETTINGS
from tests.calibration.running import keep_numbers


def list_estimates(path):
    """Return the tables' rows, text and estimate, as shares or in their unit."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and re.fullmatch(r"-?[\d.]+( %)?", cells[2]):
            number = float(cells[2].removesuffix(" %"))
            found.append((cells[0], number / 100 if cells[2].endswith("%") else number))
    return found


def test_what_is_quoted_of_the_audit_is_in_its_tables(repository):
    quoted = json.loads(calibration.PATH.read_text(encoding="utf-8"))["fairness"]
    rows = dict(list_estimates(repository / "docs" / "validity.md"))
    assert quoted["false_alarms"] == pytest.approx(rows['any verdict "disparity" (Holm)'], abs=6e-4)
    usual = [text for name, (text, _) in SETTINGS.items() if name not in (*EXTREME, *FAILURES)]
    kinds = ("gap between", "excess gap,", "adjusted gap,")
    gaps = [
        estimate
        for text, estimate in rows.items()
        if any(text.startswith(f"{setting}: {kind}") for setting in usual for kind in kinds)
    ]  # fmt: skip
    assert len(gaps) == 7 * len(usual)
    assert (quoted["covered_least"], quoted["covered_most"]) == pytest.approx((min(gaps), max(gaps)), abs=6e-4)
    wrong = [estimate for text, estimate in rows.items() if text.startswith('said to be "equivalent" or "negligible"')]
    assert len(wrong) == 3 and quoted["wrong_equivalent"] == pytest.approx(max(wrong), abs=6e-4)


def test_what_is_quoted_of_places_is_in_their_tables(repository):
    quoted = json.loads(calibration.PATH.read_text(encoding="utf-8"))["spatial"]
    table = list_estimates(repository / "docs" / "validity_spatial.md")
    checks = [(check.run, check.seen) for _, _, checks in CHECKS for check in checks]
    rows = dict(zip(checks, (estimate for _, estimate in table), strict=True))
    assert quoted["false_alarms"] == pytest.approx(max(rows[run, "tfce"] for run in NULL_MASKS), abs=6e-4)
    assert quoted["overlap"] == pytest.approx(min(rows[run, "dice_tfce"] for run in ERODED_MASKS), abs=6e-3)


def test_the_report_says_how_often_the_audit_was_right():
    quoted = json.loads(calibration.PATH.read_text(encoding="utf-8"))
    said = calibration.describe_calibration(places=False)
    assert f"in {100 * quoted['fairness']['false_alarms']:.1f} % of the cohorts" in said
    assert "surfaces" not in said and "docs/validity.md" in said
    places = calibration.describe_calibration(places=True)
    assert f"overlap (Dice) of {quoted['spatial']['overlap']:.2f}" in places


def test_one_calibration_keeps_the_others_numbers(tmp_path):
    path = tmp_path / "calibration.json"
    keep_numbers("fairness", {"false_alarms": 0.01}, path)
    keep_numbers("spatial", {"overlap": 0.9}, path)
    keep_numbers("fairness", {"false_alarms": 0.02}, path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["fairness"]["false_alarms"] == 0.02 and kept["spatial"]["overlap"] == 0.9
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", kept["fairness"]["made"])


def test_complete_failures_are_said_and_their_absence_is_not():
    assert describe_total_failures(0, 500, below=0.1) == ""
    said = describe_total_failures(7, 1021, below=0.1)
    assert said.startswith("In 7 of 1,021 comparisons") and "luck" in said
