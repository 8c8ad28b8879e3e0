"""The report put together from whatever an output folder holds."""

from __future__ import annotations

import html
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers.figures.verdict_matrix import VerdictMatrix
from helpers.report import compose_report, render_report
from helpers.report.blocks import (
    Bullets,
    Figure,
    Heading,
    Note,
    Report,
    ReportFinding,
    ReportSection,
    ReportTable,
    Summary,
    Terms,
    Text,
)
from helpers.report.escaping import escape_for_plotly
from helpers.report.sections import performance
from helpers.vocabulary.statuses import STATUSES
from helpers.vocabulary.verdicts import Verdict
from helpers.vocabulary.words import SPREADS
from tests import report_study as study
from tests.test_figures_verdict_matrix import read_cells

KEYS = [
    "answers",
    "people",
    "losses",
    "performance",
    "spatial",
    "limits",
    "glossary",
    "methods",
    "checklist",
]  # of phantoms also "truth"


def read_text(part: Report | ReportSection) -> str:
    """Return every word of a section or report, figures apart."""
    words = []
    for section in part.sections if isinstance(part, Report) else [part]:
        for block in section.blocks:
            match block:
                case Text():
                    words += [block.lead, block.text]
                case Summary():
                    words += [f"{lead} {text}" for lead, text in block.sentences]
                case Note():
                    words.append(block.text)
                case Bullets():
                    words += block.items
                case ReportTable():
                    words += [block.caption, block.frame.to_csv(index=False)]
                case Heading():
                    words.append(block.text)
                case ReportFinding():
                    words += [block.headline, *itertools.chain.from_iterable(block.answers)]
                case Terms():
                    words += [f"{term.name} {term.meaning}" for term in block.items]
                case VerdictMatrix():
                    words.append(html.unescape(re.sub("<.*?>", " ", block.html)))
    return "\n".join(words)


def find(section: ReportSection, kind: type) -> list:
    return [block for block in section.blocks if isinstance(block, kind)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Report:
    return compose_report(study.write_whole_study(tmp_path_factory.mktemp("whole")))


def test_sections_come_in_the_reader_s_order(whole):
    assert [section.key for section in whole.sections] == KEYS
    assert whole.title == "A synthetic study" and "2026-02-03" in whole.subtitle
    with pytest.raises(KeyError, match="answers, people"):
        whole["nothing"]


def test_first_page_answers_for_whom_by_how_much_where_why_and_how_sure(whole):
    text = read_text(whole["answers"])
    assert "61 scans of 60 people, compared by sex (female: 30, male: 30) and BMI (below 25: " in text
    assert "Differences in mean Dice under 0.020, the margin, count as unimportant." in text
    assert "sam_demo is a small SAM" in text
    assert re.search(r"sam_demo is worse for women in the liver \(mean Dice 0\.\d{3} against 0\.\d{3} for men; ", text)
    assert "For annotator no difference in Dice was found" in text
    assert "72 tests were made" in text and "Minimum detectable difference in Dice (80 % power" in text
    text = read_text(whole["limits"])
    assert "how large a gap may be hidden" in text and "a clinician's prompts would do worse" in text


def test_the_gravest_difference_is_told_in_full(whole):
    first = find(whole["answers"], ReportFinding)[0]
    assert (
        first.headline == "sam_demo, liver by sex: worse for women than for men" and first.verdict is Verdict.DISPARITY
    )
    answers = dict(first.answers)
    assert "lower for women" in answers["By how much?"] and "adjusted p < 0.001" in answers["By how much?"]
    assert "mm more" in answers["In mm and ml"] and "ml" in answers["In mm and ml"]
    where = answers["Where in the organ?"]
    assert where.startswith("Masks typically 3.0 mm smaller in women than in men on the posterior-inferior surface (")
    assert where.endswith(" % of the surface); not tested.")
    assert "Organ size" in answers["Is it organ size?"]
    assert "Adjusted for modality, the gap" in answers["Is it something else recorded?"]
    assert (
        "BMI may be how sex acts: adjusted for that as well, the direct gap is"
        in answers["Is it something else recorded?"]
    )
    assert "matched pairs of people" in answers["Is it something else recorded?"]


def test_a_trend_over_ordered_groups_is_told_with_its_p():
    row = {"p_ordered_adjusted": 0.012, "ordered_step": -0.0214}
    assert performance._tell_trend(row, "dice") == "−0.021 per group (p = 0.012)"
    assert performance._tell_trend({"p_ordered_adjusted": np.nan}, "dice") == performance._tell_trend({}, "dice") == "–"


def test_raw_and_adjusted_gaps_stand_side_by_side(whole):
    tables = {table.caption: table for table in find(whole["performance"], ReportTable)}
    made, every = (tables[name].frame for name in ("What every gap is made of", "Every comparison"))
    row = made[made["Comparison"] == "sam_demo, liver by sex, Dice"].iloc[0]
    for column in ("Gap (95 % CI)", "Excess", "Adjusted"):
        assert row[column].count(" to ") == 1, column
    means = every[every["Measure"].str.startswith("Dice")].iloc[0]["Means (people)"]
    assert re.fullmatch(r"female 0\.\d{3} \(30\); male 0\.\d{3} \(30\)", means)
    design = next(table for table in find(whole["methods"], ReportTable) if table.caption.startswith("The design"))
    assert {"Dice ~ sex + modality", "Dice ~ BMI + sex + modality"} == set(
        design.frame["Linear model of the adjusted gap"]
    )


def test_the_picture_has_a_cell_for_every_model_organ_and_attribute(whole):
    (matrix,) = find(whole["answers"], VerdictMatrix)
    heads = re.findall(r'<th scope="\w+">(.*?)</th>', matrix.html)
    assert heads == ["organ", "sex", "BMI", "sex", "BMI", "all organs", "liver", "left kidney"]
    assert re.findall(r'scope="colgroup" colspan="2">(.*?)<', matrix.html) == ["sam_demo", "annotator"]
    assert '<a href="#finding-1"><b>▲ 0.0' in matrix.html and whole["answers"].blocks.index(matrix) == 1
    _, *cells = read_cells(matrix)
    assert len(cells) == 12 and cells[4]["title"].startswith("disparity: women worse by 0.0")
    assert all(cell["title"].count("\n") == 0 for cell in cells), "a page that is passed on says less"
    assert {cell["class"] for cell in cells} == set(re.findall(r'"swatch (tone-\w+)"', matrix.html))


def test_of_a_pair_of_groups_both_are_named():
    row = {"model": "m", "organ": "liver", "metric": "dice", "attribute": "bmi", "test": "Dunn", "p": 0.01}
    pairs = pd.DataFrame([row | {"group_a": "below 25", "group_b": "30 and over"}])
    [table] = performance._tabulate_pairs(SimpleNamespace(pairs=pairs))
    assert table.frame["Groups"].tolist() == ["BMI below 25 and BMI 30 and over"]


def test_no_verdict_of_fairness_is_ever_given(whole):
    text = read_text(whole).lower()
    # Titles of papers, and items of TRIPOD+AI and FUTURE-AI, name the field.
    for named in (
        "empirical study on the fairness",
        "approaches to fairness",
        "issues of fairness",
        "fairness 1",
        "fairness 2",
        "fairness 3",
    ):
        text = text.replace(named, "")
    assert not re.search(r"\bfair(?!seg|medfm)|unbiased|no bias", text)


def test_who_was_studied_is_counted_by_person(whole):
    (table,) = find(whole["people"], ReportTable)
    women = table.frame[table.frame["Group"] == "female"].iloc[0]
    assert women["People"] == "30" and women["Share"] == "50 %"
    assert "60 people with 61 scans" in read_text(whole["people"])
    assert "Several scans of one person count as one" in read_text(whole["people"])


def test_losses_are_told_by_reason_without_names(whole):
    text = read_text(whole["losses"])
    assert "2 of 63 scans were left out" in text
    assert "age … is outside 0 to 120" in text
    assert "sam_demo failed on 2 of 61 scans" in text and "truncated" in text
    assert "Quux" not in text and "secret" not in text and "XYZ" not in text


def test_performance_shows_gaps_people_and_every_comparison(whole):
    section = whole["performance"]
    titles = [figure.figure.layout.title.text for figure in find(section, Figure)]
    for words in (
        "Gap in Dice",
        "are made of",
        "everyone is a dot",
        "over BMI",
        "smaller gaps",
    ):
        assert any(words in title for title in titles), (words, titles)
    place = section.blocks.index(Heading("Does one model have smaller gaps than another?"))
    assert isinstance(section.blocks[place + 1], Text) and isinstance(section.blocks[place + 2], Figure)
    assert all(len(figure.how_to_read) > 60 for figure in find(section, Figure))
    (every,) = [table for table in find(section, ReportTable) if table.caption == "Every comparison"]
    assert len(every.frame) == 72 and every.folded
    assert every.frame["Verdict"].str.contains("disparity").any()
    forest = next(one.figure for one in find(section, Figure) if "Gap in Dice" in one.figure.layout.title.text)
    offered = [button.label for button in forest.layout.updatemenus[0].buttons]
    assert offered[0] == "Dice" and "Boundary error" in offered


def test_the_measures_that_papers_quote_are_shown_with_their_intervals(whole):
    section = whole["performance"]
    (table,) = [table for table in find(section, ReportTable) if table.caption.startswith("Measures of spread")]
    assert table.folded and len(table.frame) == 12 and set(SPREADS.values()) <= set(table.frame)
    assert all(
        table.frame[name].str.fullmatch(r"\d\.\d{3} \(\d\.\d{3} to \d\.\d{3}\)").all() for name in SPREADS.values()
    )
    assert "FairSeg's (ESSP)" in read_text(section) and "None of them is tested" in read_text(section)


def test_where_in_the_organ_is_said_in_words(whole):
    text = read_text(whole["spatial"])
    assert (
        "sam_demo, liver by sex: masks typically 3.0 mm smaller in women than in men on the posterior-inferior" in text
    )
    (figure,) = find(whole["spatial"], Figure)
    menus = [[button.label for button in menu.buttons] for menu in figure.figure.layout.updatemenus[:4]]
    assert menus[:3] == [["model: sam_demo"], ["organ: liver"], ["attribute: sex"]]
    assert len(menus[3]) == 4 and all(label.startswith("map: ") for label in menus[3])
    assert "The difference was not tested" in figure.figure.layout.title.text


def test_limits_own_up_to_prompts_confounders_and_small_groups(whole):
    text = read_text(whole["limits"])
    for words in (
        "upper bound",
        "not proof that there is none",
        "not adjusted for: scanner",
        "modality and sex",
        "docs/validity.md",
        "fewer than 10 people",
        "taken for the truth",
    ):
        assert words in text


def test_methods_name_versions_and_parameters_but_no_machine(whole):
    text = read_text(whole["methods"])
    assert "numpy 2.4.6" in text and "2000 draws" in text and "Holm's method" in text and "tolerance of 3 mm" in text
    assert "012345678 with local changes" in text and "absent" not in text
    assert "x86_64" not in text and "secret_place" not in text


def test_phantoms_are_called_phantoms(tmp_path):
    parameters = study.make_parameters()
    parameters["cohort"] |= {"source": "phantoms", "path": None}
    report = compose_report(study.write_whole_study(tmp_path, parameters=parameters))
    first = report["answers"].blocks[0]
    assert isinstance(first, Note) and first.kind == "warning" and "phantoms" in first.text.lower().lower()
    assert "60 phantoms" in read_text(report["answers"])
    assert report.sections[-1].key == "truth" and "errs by itself" in read_text(report["truth"])


def test_two_scans_allow_no_group_statistics(tmp_path):
    cohort = study.make_cohort(2, excluded=0).iloc[:2]
    metrics = study.make_metrics(cohort)
    folder = study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), failing=0
    )
    report = compose_report(folder)
    assert "2 scans allow no group statistics" in read_text(report["answers"])
    assert "2 scans allow no group statistics" in read_text(report["limits"])
    assert "fewer than 10" in read_text(report["answers"])
    (overall,) = find(report["performance"], ReportTable)
    assert sorted(overall.frame["Organ"]) == ["left kidney", "left kidney", "liver", "liver"]


def test_one_large_group_has_nothing_to_be_compared_with(tmp_path):
    cohort = study.make_cohort(40, few="male").drop(columns=["group_bmi"])
    metrics = study.make_metrics(cohort)
    parameters = study.make_parameters()
    del parameters["cohort"]["attributes"]["bmi"]
    folder = study.write_study(
        tmp_path,
        cohort=cohort,
        metrics=metrics,
        fairness=study.make_fairness(metrics, cohort, attributes=("sex",)),
        parameters=parameters,
    )
    assert "nothing to compare it with" in read_text(compose_report(folder)["answers"])


def test_small_groups_appear_nowhere_but_as_fewer_than(tmp_path):
    cohort = study.make_cohort(60, few="male")
    metrics = study.make_metrics(cohort)
    folder = study.write_study(
        tmp_path,
        cohort=cohort,
        metrics=metrics,
        fairness=study.make_fairness(metrics, cohort, min_group=2),
        maps=study.make_maps(cohort),
    )
    report = compose_report(folder)
    (table,) = find(report["people"], ReportTable)
    male = table.frame[table.frame["Group"] == "male"].iloc[0]
    assert male["People"] == "fewer than 10" and set(male.drop(["Attribute", "Group", "People"])) == {""}
    (every,) = [
        table.frame for table in find(report["performance"], ReportTable) if table.caption == "Every comparison"
    ]
    assert set(every["By"]) == {"BMI"}
    assert "No two groups were large enough to compare" in read_text(report["spatial"])
    (matrix,) = find(report["answers"], VerdictMatrix)
    assert {cell["text"].strip() for cell in read_cells(matrix)[1:13:2]} == {"–"}
    # An attribute of one group has people enough, and nobody to compare them with.
    assert Verdict.NOT_COMPARED.meaning == "fewer than two groups with enough people, or nothing measured"


def test_all_metrics_missing_is_a_result(tmp_path):
    cohort = study.make_cohort(30)
    metrics = study.make_metrics(cohort)
    measured = metrics.select_dtypes("float").columns
    metrics[measured] = np.nan
    metrics["status"] = "prediction_missing"
    folder = study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), failing=31
    )
    report = compose_report(folder)
    text = read_text(report)
    assert "Nothing could be measured" in text and "failed on every one of 31 scans" in text
    assert not re.search(r"\bnan\b", text.lower())


def test_every_scan_excluded_is_a_result(tmp_path):
    cohort = study.make_cohort(5)
    cohort["included"], cohort["reason"] = False, "mask on another grid"
    text = read_text(compose_report(study.write_study(tmp_path, cohort=cohort)))
    assert "Every one of 8 scans was left out" in text and "mask on another grid" in text


def test_an_attribute_nobody_has_is_told(tmp_path):
    cohort = study.make_cohort(30)
    cohort["group_bmi"] = pd.Categorical([None] * len(cohort), categories=list(study.BMI_GROUPS), ordered=True)
    metrics = study.make_metrics(cohort)
    folder = study.write_study(tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort))
    report = compose_report(folder)
    assert "and BMI (not known for anyone)." in read_text(report["answers"])
    (table,) = find(report["people"], ReportTable)
    assert (table.frame["Group"] == "not recorded").any()


def test_a_model_that_failed_on_one_group_is_not_told_as_a_mere_number(tmp_path):
    cohort = study.make_cohort(60)
    cohort = cohort.sort_values("sex", kind="stable").reset_index(
        drop=True
    )  # the first scans, on which it fails, are women's
    metrics = study.make_metrics(cohort)
    folder = study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), failing=20
    )
    text = read_text({section.key: section for section in compose_report(folder).sections}["losses"])
    told = re.search(r"by sex: it failed on (\d+) of \d+ scans of women, and on 0 of \d+ of men", text)
    assert told and int(told[1]) in (19, 20), "the scans it failed on, but for those that were left out before"


STAGES = ("cohort", "metrics", "fairness", "maps", "failing", "run")


@pytest.mark.parametrize(
    "given", [STAGES[:last] for last in range(len(STAGES) + 1)] + [("metrics",), ("maps",), ("fairness", "cohort")]
)
def test_whatever_is_missing_the_report_says_so_and_stands(tmp_path, given):
    cohort, metrics, fairness = study.make_whole(60, None)
    parts = {
        "cohort": cohort,
        "metrics": metrics,
        "fairness": fairness,
        "maps": study.make_maps(cohort),
        "failing": 1,
        "run": study.make_run(),
    }
    report = compose_report(study.write_study(tmp_path, **{name: parts[name] for name in given}))
    text = read_text(report)
    assert [section.key for section in report.sections] == KEYS
    assert all(section.blocks for section in report.sections)
    assert ("spatial analysis has not been run" in text) == ("maps" not in given)
    assert ("01_cohort has not been run" in text) == ("cohort" not in given)
    assert ("Performance has not been measured" in text) == ("metrics" not in given)
    assert ("models have not been run" in text) == ("failing" not in given or "cohort" not in given)


def test_empty_tables_stand_too(tmp_path):
    folder = study.write_whole_study(tmp_path)
    for name in ("fairness/groups.csv", "fairness/disparity.csv", "spatial/summary.csv"):
        (folder / name).write_text("", encoding="utf-8")
    report = compose_report(folder)
    assert "allow no group statistics" in read_text(report["answers"])


def test_a_stage_that_stopped_is_told(tmp_path):
    run = study.make_run()
    run["stages"]["04_spatial"] = {"status": "failed", "failures": {"stage": "/home/anna/x: broke"}}
    text = read_text(compose_report(study.write_study(tmp_path, cohort=study.make_cohort(20), run=run)))
    assert "04_spatial stopped with an error" in text and "anna" not in text


def test_text_from_data_is_escaped_for_plotly():
    table = pd.DataFrame({"group": ["<b>a</b>", None], "n": [1, 2]})
    table["<i>c</i>"] = pd.Categorical(["x & y", "x & y"])
    escaped = escape_for_plotly(table)
    assert escaped["group"].tolist()[0] == "&lt;b&gt;a&lt;/b&gt;" and pd.isna(escaped["group"].iloc[1])
    assert list(escaped["&lt;i&gt;c&lt;/i&gt;"].cat.categories) == ["x &amp; y"]
    assert escaped["n"].tolist() == [1, 2]


def test_nothing_found_is_an_answer(tmp_path):
    cohort = study.make_cohort(60)
    metrics = study.make_metrics(cohort, gap=0.0)
    fairness = study.make_fairness(metrics, cohort)
    report = compose_report(study.write_study(tmp_path, cohort=cohort, metrics=metrics, fairness=fairness))
    text = read_text(report["answers"])
    assert "For sam_demo and annotator no difference in Dice was found" in text
    assert not find(report["answers"], ReportFinding)
    assert "inconclusive" in text or "lie within 0.020" in text
    assert "The people behind the largest gap" in read_text(report["performance"])


def test_empty_masks_are_counted_with_what_they_count_as(tmp_path):
    cohort, metrics, fairness = study.make_whole(60, None)
    metrics = metrics.copy()
    metrics.loc[metrics.index[0], "status"] = "prediction_empty"
    report = compose_report(study.write_study(tmp_path, cohort=cohort, metrics=metrics, fairness=fairness))
    (table,) = [t.frame for t in find(report["losses"], ReportTable) if t.caption.startswith("Conventions")]
    row = table[table["What happened"].str.startswith("the model drew nothing")].iloc[0]
    assert row["What it counts as"].startswith("Dice, IoU, surface Dice (NSD) and recall are 0")
    assert row["sam_demo (organ–scan pairs)"] == "1" and row["annotator (organ–scan pairs)"] == "0"
    assert len(table) == sum(status.of_scores is not True for status in STATUSES.values()) - 1


def test_the_glossary_draws_every_measure(whole):
    (terms,) = find(whole["glossary"], Terms)
    drawn = {term.name for term in terms.items if term.drawing}
    for name in (
        "Dice",
        "Surface Dice, NSD",
        "95 % Hausdorff distance (mm)",
        "Boundary error (mm)",
        "Volume error (ml)",
        "Gap",
    ):
        assert name in drawn
    assert {"Expected gap and excess gap", "Adjusted gap", "Verdicts and margin"} <= drawn
    (verdicts,) = [term.drawing for term in terms.items if term.name == "Verdicts and margin"]
    for verdict in (Verdict.DISPARITY, Verdict.NEGLIGIBLE, Verdict.EQUIVALENT, Verdict.INCONCLUSIVE):
        assert f">{verdict.sign} {verdict.word}<" in verdicts
    assert not any("surface distance" in term.name or term.name == "IoU" for term in terms.items), "not in this study"
    assert next(term for term in terms.items if term.name == "Surface Dice, NSD").meaning.count("here 3 mm") == 1


def test_checklists_are_filled_where_the_files_know_and_say_so_where_not(whole):
    frame = find(whole["checklist"], ReportTable)[0].frame
    answers = {(row["Checklist"], row["Item"].split(" ")[0]): row["Answer"] for row in frame.to_dict("records")}
    assert answers["CLAIM 2024", "35"] == "63 scans, 2 left out by reason (“Left out”), 61 studied in 5 groups"
    assert answers["CLAIM 2024", "18"] == "not recorded" and answers["TRIPOD+AI", "3c"] == "not recorded"
    assert "gaps adjusted for" in answers["TRIPOD+AI", "14"] and "Holm" in answers["CLAIM 2024", "29"]
    open_items = int((frame["Answer"] == "not recorded").sum())
    assert f"{open_items} items marked" in read_text(whole["checklist"])


def test_the_methods_paragraph_cites_what_was_used(whole):
    text = read_text(whole["methods"])
    for words in (
        "studentised permutation test of means",
        "The primary measure is Dice",
        "studentised bootstrap",
        "Schuirmann",
        "Holm S.",
        "arXiv:2406.12646",
        "modality and sex",
    ):
        assert words in text


def test_a_birth_date_that_was_declared_as_a_confounder_stays_out(tmp_path):
    cohort = study.make_cohort(60)
    cohort["birth_date"] = [f"19{50 + place % 40}-03-{1 + place % 28:02d}" for place in range(len(cohort))]
    metrics = study.make_metrics(cohort)
    parameters = study.make_parameters()
    parameters["cohort"]["confounders"] = ["birth_date"]
    folder = study.write_study(
        tmp_path, cohort=cohort, metrics=metrics, fairness=study.make_fairness(metrics, cohort), parameters=parameters
    )
    page = render_report(compose_report(folder))
    assert not any(date in page for date in cohort["birth_date"])


def test_scans_left_out_are_counted_by_the_kind_of_their_reason(tmp_path):
    folder = study.write_study(tmp_path, cohort=study.make_cohort(20, excluded=4))
    table = pd.read_csv(folder / "exclusions.csv")
    table["kind"] = ["age_implausible", "reference_unusable", "age_implausible", "reference_unusable"]
    table.loc[table["kind"] == "reference_unusable", "reason"] = ["reference: truncated", "reference: no image"]
    table.to_csv(folder / "exclusions.csv", index=False)
    (shown,) = find(compose_report(folder)["losses"], ReportTable)
    assert shown.frame.to_dict("records") == [
        {"Reason": "age … is outside 0 to 120 in the file", "Scans": "2"},
        {"Reason": "the reference cannot be used", "Scans": "2"},
    ]


def test_prompted_and_automatic_models_are_told_apart(tmp_path):
    """First page, picture and model table say which models were told where the organs lie."""
    cohort, metrics, fairness = study.make_whole(60, None)
    parameters = study.make_parameters()
    parameters["cohort"]["dataset"] = "AMOS"
    parameters["models"][1] |= {"prompted": False, "trained_on": ["AMOS22"]}
    folder = study.write_study(tmp_path, cohort=cohort, metrics=metrics, fairness=fairness, parameters=parameters)
    report = compose_report(folder)
    text = read_text(report["answers"])
    assert "do not rank one against the other" in text
    assert "annotator was trained on AMOS, where these scans come from: its scores are too good" in text
    (matrix,) = find(report["answers"], VerdictMatrix)
    assert ">sam_demo (prompted)<" in matrix.html and ">annotator (automatic)<" in matrix.html
    assert "annotator (automatic)" in read_text(report["performance"])
    assert "AMOS22" in read_text(report["methods"]) and "trained on AMOS" in read_text(report["checklist"])
