"""The tables' and stages' records: what they say is what stands in the files and in the
documents."""

from __future__ import annotations

from helpers.parameters import Parameters
from helpers.schema import STAGES, TABLES, list_identifying, list_outputs, write_reference


def test_every_table_has_a_maker_and_a_path_of_its_own():
    assert {table.made_by for table in TABLES.values()} <= set(STAGES)
    assert len({table.path for table in TABLES.values()}) == len(TABLES)
    assert all(table.key == key and len(set(table.names)) == len(table.names) for key, table in TABLES.items())


def test_what_a_stage_needs_is_made_before_it():
    order = list(STAGES)
    for stage in STAGES.values():
        earlier = order[: order.index(stage.name)]
        assert set(stage.after) <= set(earlier)
        assert all(TABLES[name].made_by in earlier for name in stage.needs)
        assert set(stage.sections) <= set(Parameters.model_fields)


def test_identifying_columns_are_columns():
    assert set(list_identifying()) == {"subject", "scan", "reference", "reference_recorded", "image"}
    for table in TABLES.values():
        assert set(table.identifying) == set(table.names) & set(list_identifying()), table.key


def test_a_pattern_gives_way_to_a_whole_name():
    cohort = TABLES["cohort"]
    assert cohort.find_kind("included") == "flag" and cohort.find_kind("age") == "number"
    assert cohort.find_kind("group_site") == "text" and cohort.find_kind("site") == "text"
    assert TABLES["maps"].find_kind("error_18–44") == "number" == TABLES["maps"].find_kind("error_mm_group")
    assert TABLES["disparity"].find_kind("of nobody") == "text"


def test_outputs_name_a_file_per_model():
    assert list(list_outputs("02_inference", ["a", "b"])) == [
        f"predictions/{model}/{name}.parquet" for name in ("inference", "organs") for model in "ab"
    ]
    assert list(list_outputs("05_report", ["a"])) == ["report.html"]
    assert "annotators.parquet" not in list(list_outputs("03_performance", [])), "only where there are annotators"


def test_the_page_of_tables_is_as_they_are(repository):
    """`python docs/make_tables.py` writes the page."""
    assert (repository / "docs" / "TABLES.md").read_text(encoding="utf-8").endswith(write_reference())
