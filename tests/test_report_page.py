"""The report as one HTML file: offline, escaped, nameless."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from helpers.errors import SegfairError
from helpers.figures.fairness_gaps import plot_gap_ladder
from helpers.figures.verdict_matrix import draw_verdicts
from helpers.report import blocks, build_report, find_leaks, render_report, show_section
from helpers.report.escaping import clean_figure, dump_json, escape_for_plotly
from helpers.report.live import prepare_figure
from helpers.report.stills import draw_stills, list_views
from helpers.vocabulary.verdicts import Verdict
from tests import report_study as study

EVIL = '<img src=x onerror="alert(1)">'


def render(*parts: blocks.Block, title: str = "T") -> str:
    section = blocks.ReportSection("answers", "In short", "In short", tuple(parts))
    return render_report(blocks.Report(title, "subtitle", (section,)))


def drop_library(page: str) -> str:
    return re.sub(r"<script data-library[^>]*>.*?</script>", "", page, flags=re.DOTALL)


class Outline(HTMLParser):
    """Collect elements, headings in order and whatever an element would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[int] = []
        self.loads: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.loads += [value for name, value in attrs if name in ("src", "srcset", "action", "poster", "data")]
        if tag == "link":
            self.loads.append(dict(attrs)["href"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study's folder with its report."""
    folder = study.write_whole_study(tmp_path_factory.mktemp("page"))
    assert build_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_report_is_one_file_with_plotly_once(folder, page):
    assert page.count("<script data-library") == 1
    assert 4e6 < len(page) < 20e6
    assert not list(folder.glob(".partial-*"))


def test_nothing_is_loaded_and_the_browser_is_told_so(page):
    outline = Outline(drop_library(page))
    assert [load for load in outline.loads if not load.startswith("data:")] == []
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page).group(1)
    assert "default-src 'none'" in policy and "http" not in policy
    assert "@import" not in page.split("</style>")[0] and "url(" not in page.split("</style>")[0]
    assert "showSendToCloud" in page


def test_a_report_without_figures_carries_no_library():
    page = render(blocks.Text("words"))
    assert "data-library" not in page and len(page) < 40_000


def test_headings_are_in_order_and_tables_have_captions_and_scopes(page):
    outline = Outline(drop_library(page))
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert ("html", {"lang": "en"}) in outline.attributes
    assert outline.tags.count("caption") == outline.tags.count("table") > 5
    assert all(
        attributes.get("scope") in ("row", "col", "colgroup") for tag, attributes in outline.attributes if tag == "th"
    )
    ids = [attributes["id"] for _, attributes in outline.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a in outline.attributes if tag == "a"]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)


def test_every_text_of_every_block_is_escaped():
    words = dict.fromkeys(("model", "organ", "attribute", "worst_group", "best_group", "note"), EVIL)
    row = words | {"metric": "dice", "verdict": "disparity", "gap": 0.1, "gap_low": 0.05, "gap_high": 0.2, "n": 24}
    figure = go.Figure(
        go.Scatter(x=[1], y=[1], text=[EVIL], name=EVIL, hovertemplate=f"{EVIL}<br>%{{x}}<extra>{EVIL}</extra>")
    )
    figure.update_layout(title=EVIL, xaxis={"ticktext": [EVIL], "tickvals": [1]})
    figure.add_annotation(text=f'<a href="javascript:alert(1)">{EVIL}</a>')
    page = render(
        blocks.Heading(EVIL),
        blocks.Text(EVIL, lead=EVIL),
        blocks.Bullets((EVIL,)),
        blocks.Note(EVIL),
        blocks.ReportTable(EVIL, pd.DataFrame({EVIL: [EVIL], "b": [EVIL]}), numeric=(EVIL,), folded=True),
        draw_verdicts(pd.DataFrame([row]), "dice", alpha=0.05, organs=(EVIL,), attributes=(EVIL,), hover=True),
        blocks.ReportFinding(EVIL, Verdict.DISPARITY, ((EVIL, EVIL),)),
        blocks.Terms((blocks.Term(EVIL, EVIL),)),
        blocks.Figure(lambda: figure, EVIL),
        title=EVIL,
    )
    outline = Outline(drop_library(page))
    assert "img" not in outline.tags
    assert not any("onerror" in attributes for _, attributes in outline.attributes)
    assert "&lt;img src=x" in page
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL).group(1))
    assert "<img" not in json.dumps(data) and "<a " not in json.dumps(data)
    assert data["data"][0]["hovertemplate"].count("<br>") == 1, "plotly's own line breaks stay"
    assert data["data"][0]["hovertemplate"].count("<extra>") == 1


def test_a_figures_words_and_menus_are_the_pages_own():
    """Titles wrap and menus are reached by the keyboard; plotly is left panels and legend."""
    table = pd.DataFrame({"organ": ["liver"], "metric": "dice", "attribute": "sex", "row": "liver", "n": 24})
    table = table.assign(gap=0.1, gap_low=0.0, gap_high=0.2, margin=0.02, best_group="male", worst_group="female")
    table = pd.concat([table.assign(model="first"), table.assign(model="second <b>")], ignore_index=True)
    live = prepare_figure(*draw_both(lambda: plot_gap_ladder(escape_for_plotly(table), "dice")))
    assert live.heading == "What the gaps in Dice are made of: first" and live.views == 2
    layout, menu = live.data["layout"], live.data["menus"][0]
    assert not {"title", "updatemenus", "meta"} & set(layout) and layout["legend"]["y"] == 1
    assert [option["label"] for option in menu["options"]] == ["first", "second <b>"]
    assert menu["options"][1]["title"][0] == "What the gaps in Dice are made of: second <b>"
    assert not any(key.startswith("title") for option in menu["options"] for key in option["args"][1])
    named = [note["text"] for note in live.data["narrow"]["annotations"]]
    assert "liver, n = 24" in named, "on a narrow screen names stand above their rows"
    assert live.data["narrow"]["yaxis"]["showticklabels"] is False
    assert live.data["narrow"]["margin"]["l"] < 20 < layout["margin"]["l"]


def draw_both(plot):
    figure = blocks.Figure(plot, "how")
    return figure.figure, figure.narrow


def test_a_narrow_figure_with_other_traces_is_refused():
    one, other = go.Figure(go.Scatter(y=[1])), go.Figure(go.Scatter(y=[2]))
    with pytest.raises(ValueError, match="must hold the traces of the wide one"):
        prepare_figure(one, other)


def test_without_a_browser_a_figure_says_that_it_needs_scripts():
    page = render(blocks.Figure(lambda: go.Figure(go.Scatter(y=[1])), "how"))
    assert re.search(r"<noscript><p class=\"note\">.*open the file in a browser", page)
    assert 'class="scroll still"' not in page


def test_stills_are_the_same_each_time(monkeypatch, tmp_path):
    script = tmp_path / "browser"
    script.write_text(
        '#!/bin/sh\necho "<pre>data:image/svg+xml,%3Csvg%20id=%22defs-$$abc%22/%3E</pre>"\n', encoding="utf-8"
    )
    script.chmod(0o755)
    monkeypatch.setenv("SEGFAIR_CHROMIUM", str(script))
    live = prepare_figure(figure := go.Figure(go.Scatter(y=[1])), figure)
    first, second = draw_stills([live]), draw_stills([live])
    [[(side, address)]] = first
    assert first == second and base64.b64decode(address.partition(",")[2]) == b'<svg id="defs-f0"/>' and side == ""
    assert draw_stills([live, live]) == [], "one is missing: none is shown"


def test_a_body_has_a_still_from_each_of_four_sides():
    cameras = {"type": "buttons", "buttons": []}
    for side in ("Superior", "Anterior", "Posterior", "Right", "Left"):
        seen = {"scene.camera": {"eye": {"x": len(side)}}, "scene2.camera": {"eye": {"x": len(side)}}}
        cameras["buttons"].append({"label": side, "method": "relayout", "args": [seen]})
    figure = go.Figure(go.Scatter3d(x=[0], y=[0], z=[0]), {"scene": {"aspectmode": "manual"}, "updatemenus": [cameras]})
    views = list_views(prepare_figure(figure, figure))
    assert [side for side, _ in views] == ["Anterior", "Posterior", "Right", "Left"]
    for side, view in views:
        scene = view["layout"]["scene"]
        assert scene["camera"]["eye"]["x"] == len(side) and scene["aspectmode"] == "manual"
        assert "scene2" not in view["layout"], "one body has one scene"


def test_script_ends_in_data_cannot_close_the_script_element():
    text = dump_json({"a": "</script><script>alert(1)</script>", "b": "\u2028 & >"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><script>alert(1)</script>", "b": "\u2028 & >"}


def test_cleaning_keeps_numbers_and_typed_arrays():
    figure = go.Figure(go.Scatter(x=np.arange(5.0), y=[1, 2, 3, 4, 5], text=["a < b", "<b>x</b>", "", "", ""]))
    cleaned = clean_figure(figure)
    assert cleaned["data"][0]["x"] == json.loads(figure.to_json())["data"][0]["x"]
    assert cleaned["data"][0]["text"][:2] == ["a &lt; b", "<b>x</b>"]


def test_no_planted_identifier_is_in_the_page(page):
    planted = ["Quux", "secret_place", "participants.csv", "x86_64", "/data/", "PATIENT-0001", "SCAN_0003", "_XYZ"]
    planted += study.make_cohort(60)["scan"].tolist()
    assert find_leaks(page, planted) == []


def test_host_user_address_and_birth_dates_of_messages_and_columns_stay_out(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "ward7-pc")
    monkeypatch.setattr("getpass.getuser", lambda: "annalena")
    folder = study.write_whole_study(tmp_path)
    table = pd.read_parquet(folder / "predictions" / "sam_demo" / "inference.parquet")
    told = "/home/annalena/x.nii.gz on ward7-pc: annalena born 1958-03-11 of SCAN_0005_XYZ, mail a.b@clinic.example"
    table.loc[table["status"] == "failed", "error"] = told
    table.to_parquet(folder / "predictions" / "sam_demo" / "inference.parquet")
    cohort = pd.read_parquet(folder / "cohort.parquet")
    cohort["birth_date"], cohort["reason"] = "1961-07-23", cohort["reason"].where(cohort["reason"] == "", told)
    cohort.to_parquet(folder / "cohort.parquet")
    page = build_report(folder).read_text(encoding="utf-8")
    planted = [
        "annalena",
        "ward7",
        "1958-03-11",
        "1961-07-23",
        "SCAN_0005",
        "clinic.example",
        str(tmp_path),
        tmp_path.name,
    ]
    assert find_leaks(page, planted) == []
    assert "scan 006" in page, "the message itself is told, with the study's own number"


def test_a_small_group_has_no_numbers_in_any_figure(tmp_path):
    page = build_report(study.write_whole_study(tmp_path, few="male")).read_text(encoding="utf-8")
    told = []
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        told += [text for text in walk(json.loads(data)) if re.search(r"\bmale\b", text)]
    for text in told:
        without = re.sub(r"n < 10|fewer than 10", "", re.sub(r"<[^>]*>", " ", text))
        assert not re.search(r"\bmale\b\D{0,30}\d", without), text


def walk(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)
    elif isinstance(value, dict):
        yield from walk([*value, *value.values()])


@pytest.mark.slow
def test_five_organs_by_four_models_stay_below_forty_megabytes(tmp_path):
    organs, models = ("liver", "kidney_left", "kidney_right", "spleen", "aorta"), ("a", "b", "c", "d")
    cohort = study.make_cohort(60)
    metrics = study.make_metrics(cohort, models=models, organs=organs)
    parameters = study.make_parameters(
        models=[{"name": m, "kind": "precomputed", "path": "{scan}.nii.gz"} for m in models]
    )
    parameters["cohort"]["organs"] = {organ: {"labels": [place]} for place, organ in enumerate(organs, start=1)}
    maps = [study.make_maps(cohort, model=model, organ=organ, vertices=2500) for organ in organs for model in models]
    folder = study.write_study(
        tmp_path,
        cohort=cohort,
        metrics=metrics,
        fairness=study.make_fairness(metrics, cohort, measures=("dice", "boundary_error_mm")),
        maps=tuple(pd.concat(part, ignore_index=True) for part in zip(*maps, strict=True)),
        parameters=parameters,
        run=study.make_run(),
    )
    for organ in organs:
        study.write_template(folder, organ=organ, vertices=2500)
    page = build_report(folder)
    assert 5e6 < page.stat().st_size < 40e6


@pytest.mark.parametrize(
    "hidden",
    [
        "<p>SECRET-1</p>",
        "<p>secret-1</p>",
        "<!-- SECRET-1 -->",
        "<p>SECRET&#45;1</p>",
        f'<img src="data:image/png;base64,{base64.b64encode(b"....text chunk: SECRET-1....").decode()}">',
        f'<script type="application/json">{dump_json({"customdata": [["SECRET-1"]]})}</script>',
        f'<script type="application/json">{dump_json({"x": {"SECRET-1": 1}})}</script>',
        '<script type="application/json">{"t":"SECRET\\u002d1"}</script>',
        '<script>Plotly.newPlot("x", [{"text": ["SECRET\\u002d1"]}])</script>',
    ],
)
def test_leaks_are_found_wherever_they_hide(hidden):
    assert find_leaks(f"<html>{hidden}</html>", ["SECRET-1", "absent"]) == ["SECRET-1"]


def test_numeric_ids_are_found_in_typed_arrays_but_the_library_is_passed_over():
    figure = go.Figure(go.Scatter(x=np.array([1.0, 40417733.0]), y=np.array([1.0, 2.0])))
    page = render(blocks.Figure(lambda: figure, "how"))
    assert '"bdata"' in page
    assert find_leaks(page, ["40417733", "Plotly.newPlot", "1234"]) == ["40417733", "Plotly.newPlot"]
    assert find_leaks("<script data-library>SECRET-1</script>", ["SECRET-1"]) == []


def test_names_of_groups_columns_and_people_stay_text_through_the_whole_report(tmp_path):
    cohort = study.make_cohort(40, sexes=(EVIL, "<b>other</b>"))
    cohort["scan"] = [f"{EVIL}{scan}" for scan in cohort["scan"]]
    metrics = study.make_metrics(cohort)
    parameters = study.make_parameters(title=EVIL)
    parameters["cohort"]["attributes"]["sex"] = {"categories": [EVIL, "<b>other</b>"], "unit": EVIL}
    parameters["cohort"]["confounders"] = [EVIL]
    folder = study.write_study(
        tmp_path,
        cohort=cohort,
        metrics=metrics,
        fairness=study.make_fairness(metrics, cohort),
        maps=study.make_maps(cohort),
        failing=None,
        parameters=parameters,
    )
    page = build_report(folder).read_text(encoding="utf-8")
    outline = Outline(drop_library(page))
    assert "img" not in outline.tags and "onerror" not in {name for _, a in outline.attributes for name in a}
    for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL):
        text = json.dumps(json.loads(data))
        assert "<img" not in text and "<b>other" not in text
    assert "&lt;img src=x" in page


def test_a_folder_that_is_none_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SegfairError, match="nothing: no such folder"):
        build_report(tmp_path / "nothing")
    (tmp_path / "mine.yaml").write_text("name: mine\n", encoding="utf-8")
    with pytest.raises(SegfairError, match=r"mine\.yaml: a file, not a folder: run"):
        build_report(tmp_path / "mine.yaml")
    with pytest.raises(SegfairError, match=r"study\.yaml"):
        build_report(tmp_path)


def test_a_failed_build_leaves_the_former_report(tmp_path):
    folder = study.write_whole_study(tmp_path)
    (folder / "report.html").write_text("former", encoding="utf-8")
    (folder / "study.yaml").write_text("name: [", encoding="utf-8")
    with pytest.raises(SegfairError):
        build_report(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == "former"


def test_a_notebook_shows_the_same_section(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    figure = go.Figure(go.Scatter(x=[1], y=[1], name=EVIL))
    section = blocks.ReportSection(
        "k", "Title", "T", (blocks.Text(EVIL), blocks.Figure(lambda: figure, "look here"), blocks.Note("end"))
    )
    display = show_section(section)
    display._ipython_display_()
    kinds = [type(part).__name__ for part in shown]
    assert kinds == ["HTML", "Figure", "HTML", "HTML"]
    assert "&lt;img" in shown[0].data and "<img" not in shown[0].data
    assert "<img" not in shown[1].to_json() and "look here" in shown[2].data and "end" in shown[3].data
    assert "Mind this" not in display._repr_html_() and "end" in display._repr_html_()


def test_an_unchanged_folder_gives_the_same_report(folder, page):
    assert build_report(folder).read_text(encoding="utf-8") == page
