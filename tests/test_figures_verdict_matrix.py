"""The verdict matrix: every verdict in words, who does worse, and the same word as everywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from helpers.figures.panels import put_first
from helpers.figures.tables import style_table
from helpers.figures.verdict_matrix import draw_verdicts, show_verdicts
from helpers.vocabulary.verdicts import Verdict, read_verdict
from helpers.vocabulary.words import name_for_people, name_organ
from tests.test_figures_fairness_overview import ATTRIBUTES, MODELS, ORGANS, make_disparity

ROWS = ("all", *ORGANS[:2])
EVIL = "<script>x</script>"


class Cells(HTMLParser):
    """Reads the cells of every table: style, tooltip and words."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[dict[str, str]] = []
        self._open = False

    def handle_starttag(self, tag, attrs):
        if tag == "td":
            self.cells.append({"text": "", **dict(attrs)})
            self._open = True

    def handle_endtag(self, tag):
        self._open = self._open and tag != "td"

    def handle_data(self, data):
        if self._open:
            self.cells[-1]["text"] += f"{data} "


def read_cells(matrix) -> list[dict[str, str]]:
    parser = Cells()
    parser.feed(matrix._repr_html_())
    return parser.cells


def test_every_cell_holds_its_verdict_gap_and_interval_and_leads_to_what_is_told_of_it():
    disparity = make_disparity(("dice",))
    place = (MODELS[0], ROWS[1], ATTRIBUTES[0])
    matrix = draw_verdicts(disparity, "dice", alpha=0.01, links={place: "finding-1"})
    _, *cells = read_cells(matrix)
    places = [(m, o, a) for o in ROWS for m in MODELS for a in ATTRIBUTES]
    for cell, key in zip(cells, places, strict=True):
        row = disparity[(disparity[["model", "organ", "attribute"]] == list(key)).all(axis=1)].iloc[0]
        verdict, text = read_verdict(row, 0.01), " ".join(cell["text"].split())
        assert text.startswith(verdict.sign) and cell["title"].startswith(verdict.word)
        assert cell["class"] == f"tone-{verdict.tone}"
        assert f".{cell['class']} {{ background: {verdict.colour}" in matrix.to_html()
        if verdict is Verdict.DISPARITY:
            assert f" worse by {row['gap']:.3f}" in cell["title"]
        if verdict is not Verdict.NOT_COMPARED:
            assert re.match(r". −?\d\.\d{3} −?\d\.\d{3} to −?\d\.\d{3}", text), text
        assert (str(row["worst_group"]) in text.split()) is verdict.shows_difference, "nobody is named undecided"
    assert matrix.html.count('<a href="#finding-1">') == 1


def test_the_same_row_has_the_same_word_in_matrix_and_table():
    disparity = make_disparity(("dice",))
    for told, sign in (("inconclusive", "?"), ("difference", "△")):
        row = disparity[disparity["verdict"] == "inconclusive"].iloc[:1].assign(verdict=told)
        *_, cell = read_cells(draw_verdicts(row, "dice", alpha=0.05))
        table = style_table(row, ["verdict"], alpha=0.05).to_html().replace("\u00a0", " ")
        assert cell["text"].startswith(sign) and cell["title"].startswith(told) and f"{sign} {told}" in table


def test_what_a_cell_says_follows_its_verdict():
    row = make_disparity(("dice",)).iloc[0].to_dict() | {"gap": 0.03, "gap_low": 0.01, "gap_high": 0.05}
    rows = [
        ({"verdict": "disparity"}, "“a” worse by 0.030 (0.010 to 0.050)"),
        ({"verdict": "negligible"}, "“a” worse by 0.030 (0.010 to 0.050)"),
        ({"verdict": "equivalent"}, "equivalent: 0.030 (0.010 to 0.050)"),
        ({"verdict": "difference"}, "“a” worse by 0.030 (0.010 to 0.050)"),
        ({"verdict": "difference", "gap_low": -0.01}, "0.030 (−0.010 to 0.050); which group is worst is uncertain"),
        ({"verdict": "inconclusive", "p_adjusted": 0.5, "gap_low": -0.07}, "inconclusive: 0.030 (−0.070 to 0.050)"),
        (
            {"verdict": "inconclusive", "p_adjusted": 0.5, "gap_low": 0.0, "gap_high": 0.0},
            "everyone has the same value",
        ),
        ({"gap": np.nan}, "not compared"),
    ]
    for changes, said in rows:
        *_, cell = read_cells(draw_verdicts(pd.DataFrame([row | changes]), "dice", alpha=0.05))
        assert cell["title"].endswith(said), cell


def test_pointing_at_a_verdict_tells_interval_and_what_could_be_found():
    disparity = make_disparity(("hd95_mm",))
    told = [cell["title"] for cell in read_cells(show_verdicts(disparity, "hd95_mm", alpha=0.05))[1:]]
    [told_first] = [text for text in told if "0.01 mm (0.00 to 0.03 mm)" in text][:1]
    for part in ("difference 0.05 mm", "adjusted p = 0.040", "n = 24"):
        assert part in told_first, told
    assert "not compared\nnothing to compare" in told
    page = draw_verdicts(disparity, "hd95_mm", alpha=0.05).html
    assert "adjusted p" not in page and "Point at a cell" not in page, "a page that is passed on says less"


def test_the_key_has_what_occurs_with_one_margin():
    page = draw_verdicts(make_disparity(("dice",)), "dice", alpha=0.01).html
    key = page[page.index("<ul") :]
    assert [verdict for verdict in Verdict if verdict.meaning in key] == [
        verdict for verdict in Verdict if verdict is not Verdict.DIFFERENCE
    ]
    assert "The margin is 0.020" in page


def test_what_is_no_model_stands_last_and_equal_is_explained_where_it_occurs():
    disparity = make_disparity(("dice",))
    levels = dict.fromkeys(MODELS, "0.800 to 0.900")
    page = draw_verdicts(disparity, "dice", alpha=0.01, levels=levels, apart={MODELS[0]}).html
    heads = re.findall(r'colspan="\d+">(.*?)<small>(.*?)</small>', page)
    assert heads[-1] == (MODELS[0], "no model; median 0.800 to 0.900")
    assert not any("no model" in told for _, told in heads[:-1]) and len(heads) == len(MODELS)
    assert "Equivalent (=)" in page
    undecided = draw_verdicts(disparity.assign(verdict="inconclusive"), "dice", alpha=0.01).html
    assert "Equivalent (=)" not in undecided and "margin" in undecided


def test_rows_and_columns_stand_in_the_order_asked_for():
    disparity = make_disparity(("dice",))
    organs, attributes = [*ORGANS[::-1], "lung"], ("unknown", *ATTRIBUTES[::-1])
    page = draw_verdicts(disparity, "dice", alpha=0.05, organs=organs, attributes=attributes).html
    heads = re.findall(r'<th scope="(row|col)">(.*?)</th>', page)
    rows = [name_organ(organ) for organ in put_first(organs, "all") if organ != "lung"]
    columns = [name_for_people(attribute) for attribute in attributes] * len(MODELS)
    assert heads == [("col", "organ"), *(("col", name) for name in columns), *(("row", name) for name in rows)]
    assert Verdict.NOT_COMPARED.meaning in page[page.index("<ul") :]


def test_more_organs_than_one_screen_holds_are_folded_the_gravest_stand_open():
    row = make_disparity(("dice",)).iloc[0].to_dict() | {"verdict": "inconclusive"}
    organs = [f"organ {place}" for place in range(15)]
    many = pd.DataFrame([row | {"organ": organ} for organ in organs])
    many.loc[14, "verdict"] = "disparity"
    opened, folded = draw_verdicts(many, "dice", alpha=0.05).html.split("<details><summary>3 more organs</summary>")
    assert "organ 14</th>" in opened and opened.count('scope="row"') == 12 and folded.count('scope="row"') == 3


def test_other_metrics_are_folded_the_chosen_one_is_open():
    page = show_verdicts(make_disparity(), "boundary_error_mm", alpha=0.05).html
    first, folded = page.split("<details><summary>Dice</summary>", 1)
    assert "gap in boundary error" in first and "gap in Dice" in folded
    assert "Nothing was compared" in show_verdicts(make_disparity().iloc[:0], alpha=0.05).html
    assert "Nothing was compared" in show_verdicts(make_disparity(), "nsd", alpha=0.05).html


def test_names_of_people_s_making_are_escaped():
    disparity = make_disparity(("dice",)).assign(worst_group=EVIL, best_group=EVIL, note=EVIL)
    disparity["model"] = disparity["organ"] = disparity["attribute"] = EVIL
    page = show_verdicts(disparity.iloc[:1], "dice", alpha=0.05)._repr_html_()
    assert EVIL not in page and "&lt;script&gt;" in page


def test_a_sign_is_used_once_and_text_stands_out():
    verdicts = list(Verdict)
    assert len({verdict.sign for verdict in verdicts}) == len({verdict.word for verdict in verdicts}) == len(verdicts)
    for verdict in verdicts:
        assert re.fullmatch("#[0-9A-F]{6}", verdict.colour)
        parts = [int(verdict.colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
        assert (luminance + 0.05) / (0.016 + 0.05) > 7, "dark text (#222222) on it: WCAG AAA"


def test_many_models_or_attributes_stay_one_screen_with_the_gravest_in_each_cell():
    disparity = make_disparity(("dice",))
    many = pd.concat([disparity.assign(model=f"net {place}") for place in range(19)])
    page = draw_verdicts(many, "dice", alpha=0.05).html
    opened = page[: page.index("<details>")]
    assert opened.count("<tr>") == 1 + 19 and opened.count("<td") == 19 * len(ATTRIBUTES)
    shown = re.findall(r"<b>(.) (\w+) of (\d+)", opened)
    assert len(shown) and all(int(of) == len(ORGANS) - 1 for _, _, of in shown), "of single organs"
    assert page.count("<summary>Organ by organ: by ") == len(ATTRIBUTES)
    wide = pd.concat([disparity.assign(attribute=f"attribute {place}") for place in range(10)])
    opened = (page := draw_verdicts(wide.drop_duplicates(["model", "organ", "attribute"]), "dice", alpha=0.05).html)
    opened = page[: page.index("<details>")]
    assert opened.count("<tr>") == 1 + len(MODELS) and opened.count("<td") == 10 * len(MODELS)


def test_a_difference_over_all_organs_alone_colours_the_cell_of_many_models():
    """Words count it among the differences shown: the picture must have it too."""
    disparity = make_disparity(("dice",)).assign(verdict="inconclusive")
    disparity.loc[disparity["organ"] == "all", "verdict"] = "disparity"
    many = pd.concat([disparity.assign(model=f"net {place}") for place in range(7)])
    many = many.drop_duplicates(["model", "organ", "attribute"])
    opened = draw_verdicts(many, "dice", alpha=0.05, levels={"net 0": "0.800 to 0.900"}).html.split("<details>")[0]
    cell = re.search(r'<td class="tone-shown"[^>]*>(.*?)</td>', opened)
    assert cell and cell[1].startswith("<b>▲ all organs together</b><small>")
    assert cell[1].endswith(f"; alone 0 of {len(ORGANS) - 1}</small>")
    assert 'scope="row">net 0<small>0.800 to 0.900</small>' in opened
