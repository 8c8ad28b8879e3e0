"""results.json and model cards: what the report says, as data, and nothing that it does not say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from helpers.errors import SegfairError
from helpers.report.outputs import read_outputs
from helpers.report.results import collect_results, write_results
from tests import report_study as study

DOCS = Path(__file__).parents[1] / "docs" / "RESULTS.md"
CARD = {"version": "2.1", "contact": "ai@example.org"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study in which only three people are men, the second model with a card of its own."""
    folder = tmp_path_factory.mktemp("results")
    parameters = study.make_parameters()
    parameters["models"][1]["card"] = CARD
    study.write_whole_study(folder, parameters=parameters)
    outputs = read_outputs(folder)
    write_results(outputs, folder)
    return outputs, folder, json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_every_comparison_is_there_with_verdict_groups_and_what_it_follows_from(written):
    outputs, _, results = written
    assert len(results["comparisons"]) == len(outputs.disparity)
    [row] = [
        row
        for row in results["comparisons"]
        if (row["model"], row["organ"], row["attribute"], row["metric"]) == ("sam_demo", "liver", "sex", "dice")
    ]
    assert (row["verdict"], row["worst_group"], row["follows_from"]) == ("disparity", "female", [])
    means = row["groups"]
    assert row["gap"] == pytest.approx(means["male"]["mean"] - means["female"]["mean"], abs=1e-4)
    assert means["male"]["n"] == means["female"]["n"] == 30 == results["groups"]["sex"]["male"]
    assert sum(results["verdicts"].values()) == sum(row["metric"] == "dice" for row in results["comparisons"])
    [pooled] = [
        row
        for row in results["comparisons"]
        if (row["model"], row["organ"], row["attribute"], row["metric"]) == ("sam_demo", "all", "sex", "dice")
    ]
    assert pooled["follows_from"] == ["liver"]


def test_a_card_has_what_the_audit_found_and_what_the_parameters_say(written):
    _, folder, _ = written
    card = json.loads((folder / "cards" / "sam_demo.json").read_text(encoding="utf-8"))
    text = (folder / "cards" / "sam_demo.md").read_text(encoding="utf-8")
    assert {row["organ"] for row in card["differences"]} == {"liver", "all"} and card["card"]["version"] == ""
    assert "- liver by sex, Dice: worse for women than for men by 0.0" in text and "Contact: not recorded" in text
    other = (folder / "cards" / "annotator.md").read_text(encoding="utf-8")
    assert "Version: 2.1" in other and "Contact: ai@example.org" in other and "None was found" in other


def test_a_small_group_and_names_are_in_none_of_the_files(tmp_path):
    outputs = read_outputs(study.write_whole_study(tmp_path, few="male"))
    paths = write_results(outputs, tmp_path)
    results = collect_results(outputs)
    assert results["groups"]["sex"] == {"female": 57, "male": None}
    assert not any(row["gap"] for row in results["comparisons"] if row["attribute"] == "sex")
    assert not any("male" in row["groups"] for row in results["comparisons"])
    for path in paths:
        assert not re.search("PATIENT|SCAN_|secret_place", path.read_text(encoding="utf-8"))


def test_a_name_in_a_card_is_refused(tmp_path):
    parameters = study.make_parameters()
    parameters["models"][0]["card"] = {"contact": "as PATIENT-0001-Quux says"}
    outputs = read_outputs(study.write_whole_study(tmp_path, parameters=parameters))
    with pytest.raises(SegfairError):
        write_results(outputs, tmp_path)
    assert not (tmp_path / "results.json").exists()


def test_every_key_is_documented(written):
    told = set(re.findall(r"`(\w+)", DOCS.read_text(encoding="utf-8")))
    results = written[2]
    keys = {*results, *results["models"][0], *results["failures"][0], *results["comparisons"][0]}
    detailed = (
        "worst_",
        "best_",
        "excess_",
        "adjusted_",
        "direct_",
        "model",
        "organ",
        "attribute",
        "metric",
        "threshold",
    )
    assert {key for key in keys if not key.startswith(detailed)} <= told
