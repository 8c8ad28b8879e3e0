"""The maps' figure in a real browser: its menus and cameras work from a file, without a kernel or a
request."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from helpers.figures.frequencies import plot_frequency_slices
from helpers.figures.spatial import plot_error_maps
from helpers.report import export_notebook
from tests.test_figures_frequencies import ADDED, MISSED
from tests.test_figures_spatial import TEMPLATES, make_maps, make_slopes
from tests.visiting import Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def visit(browser, tmp_path_factory):
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    maps = pd.concat([make_maps(), make_maps(organ="spleen", p_fwer=0.2), make_maps(model="medsam", error_female=0.3)])
    figures = [plot_error_maps(maps, TEMPLATES, slopes=make_slopes()), plot_frequency_slices([MISSED, ADDED])]
    cells = [
        new_code_cell(
            "", outputs=[new_output("display_data", {"application/vnd.plotly.v1+json": figure.to_plotly_json()})]
        )
        for figure in figures
    ]
    folder = tmp_path_factory.mktemp("maps")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Maps"), *cells]), folder / "maps.ipynb")
    visit = Visit(browser, export_notebook(folder / "maps.ipynb", folder / "maps.html"))
    visit.page.wait_for_selector("#figure-1 .gl-container canvas", state="attached")
    yield visit
    visit.context.close()


def look(page, figure=1):
    """Return what is shown now: title, values, outline, camera."""
    return page.evaluate(
        """place => { const shown = document.getElementById('figure-' + place), trace = shown._fullData[0];
            return {title: shown._fullLayout.title.text, values: Array.from(trace.intensity || []),
                    outlined: (shown._fullData[2] || {}).visible === true,
                    eye: (shown._fullLayout.scene || {camera: {}}).camera.eye}; }""",
        figure,
    )


def choose(page, noun, label, figure=1):
    """Open a menu and click an entry, as a reader does."""
    before = look(page, figure)["title"]
    page.locator(f"#figure-{figure} .updatemenu-header").filter(has_text=f"{noun}: ").click()
    page.locator(f"#figure-{figure} .updatemenu-dropdown-button").filter(has_text=f"{noun}: {label}").first.click()
    page.wait_for_function(
        "([place, before]) => document.getElementById('figure-' + place)._fullLayout.title.text !== before",
        arg=[figure, before],
    )
    return look(page, figure)


def test_menus_lead_from_map_to_map(visit):
    start = look(visit.page)
    assert start["title"].startswith("Liver, drawn by sam, by sex") and start["outlined"]
    assert start["values"] == pytest.approx([-1.8, 0, 0, 0, 0, 0])
    male = choose(visit.page, "map", "“male”")
    assert "“male”: mean signed error" in male["title"] and male["values"] == pytest.approx([0, 0, 0, 0, 0, 0.5])
    medsam = choose(visit.page, "model", "medsam")
    assert medsam["title"].startswith("Liver, drawn by medsam") and "“male”" in medsam["title"]
    female = choose(visit.page, "map", "“female”")
    assert female["values"] == pytest.approx([0.3] * 6)
    spleen = choose(visit.page, "organ", "spleen")
    assert spleen["title"].startswith("Spleen, drawn by sam") and not spleen["outlined"]
    choose(visit.page, "organ", "liver")
    age = choose(visit.page, "attribute", "age")
    assert "change of the signed error with every 10 years" in age["title"]
    back = choose(visit.page, "attribute", "sex")
    assert back["outlined"]


@pytest.mark.parametrize(("side", "eye"), [("Posterior", (0, 2, 0)), ("Left", (2, 0, 0)), ("Inferior", (0, 0, -2))])
def test_camera_buttons_turn_the_organ_and_menus_leave_it_turned(visit, side, eye):
    page = visit.page
    page.locator("#figure-1 .updatemenu-button").filter(has_text=side).click()
    page.wait_for_function(
        "eye => { const now = document.getElementById('figure-1')._fullLayout.scene.camera.eye; return Math.abs(now.x -"
        " eye[0]) + Math.abs(now.y - eye[1]) + Math.abs(now.z - eye[2]) < 1e-6; }",
        arg=list(eye),
    )
    organ = "liver" if look(page)["title"].startswith("Spleen") else "spleen"
    after = choose(page, "organ", organ)
    assert [after["eye"][axis] for axis in "xyz"] == pytest.approx(eye)


def test_hover_tells_mm_and_p(visit):
    page = visit.page
    if look(page)["title"].startswith("Spleen"):
        choose(page, "organ", "liver")
    if "minus" not in look(page)["title"]:
        choose(page, "map", "difference")
    page.locator("#figure-1 .updatemenu-button").filter(has_text="Inferior").click()
    page.locator("#figure-1").scroll_into_view_if_needed()
    middle = page.evaluate(
        "() => { const size = document.getElementById('figure-1')._fullLayout._size; return [size.l + size.w / 2,"
        " size.t + size.h / 2]; }"
    )
    figure = page.locator("#figure-1").bounding_box()
    for step in np.linspace(-12, 12, 9):
        page.mouse.move(figure["x"] + middle[0] - 20 + step, figure["y"] + middle[1] + step)
        page.wait_for_timeout(150)
        texts = page.locator("#figure-1 .hovertext").all_text_contents()
        if texts:
            break
    assert texts and re.search(r"[+−-]\d\.\d\d mm.*p = \d\.\d{3}", texts[0])


def test_frequency_slices_are_drawn(visit):
    page = visit.page
    page.locator("#figure-2").scroll_into_view_if_needed()
    assert page.locator("#figure-2 .heatmaplayer image").count() == 6
    assert "everybody (n = 21)" in look(page, 2)["title"]


def test_nothing_is_asked_for_and_nothing_complained_of(visit):
    assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [visit.url]
    assert visit.complaints == []
