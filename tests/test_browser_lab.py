"""JupyterLab as people use it: run all cells, move a widget, brush a cloud of people, read an
error; no network."""

from __future__ import annotations

import pytest

from helpers.widgets.pictures import PLANES
from tests import lab

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    return folder, lab.write_project(folder)


@pytest.fixture(scope="module")
def address(project, repository, tmp_path_factory, chromium):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGFAIR_CHROMIUM", chromium)  # exports have pictures
        with lab.start_lab(project[0], repository, tmp_path_factory.mktemp("jupyter")) as address:
            yield address


LOSE_LIBRARY = """() => {
  window.realCreate = URL.createObjectURL;
  URL.createObjectURL = (blob) => blob.size > 1e6 ? 'blob:lost' : window.realCreate(blob);
}"""


@pytest.fixture
def visit(browser, address):
    """Open a notebook in Lab; afterwards nothing may have been asked of the network, or complained
    of in the console."""
    opened = []

    def open_notebook(name: str) -> lab.LabPage:
        opened.append(lab.LabPage(browser, address, name))
        return opened[-1]

    yield open_notebook
    for page in opened:
        page.close()
        assert page.list_foreign_requests() == []
        assert page.complaints == []


@pytest.fixture(scope="module")
def measured(project, address, browser):
    """03 run in Lab, for the tests that read what it wrote."""
    page = lab.LabPage(browser, address, "03_performance.ipynb")
    page.run_all()
    yield page
    page.close()


def check_run(page: lab.LabPage) -> list[list[dict]]:
    outputs = page.read_outputs()
    assert lab.list_errors(outputs) == {}
    return outputs


def test_03_runs_and_its_menus_change_the_figure(measured):
    outputs = check_run(measured)
    bars = lab.list_bars(outputs)
    assert bars and all("100%|" in bar for bar in bars), "a bar that ends"
    page = measured.page
    menus = page.locator(".jp-Cell .js-plotly-plot .updatemenu-header")
    menus.first.scroll_into_view_if_needed()
    figure = page.locator(".jp-Cell .js-plotly-plot", has=page.locator(".updatemenu-header")).first
    before = figure.locator(".gtitle").text_content()
    menus.first.click()
    figure.locator(".updatemenu-dropdown-button").nth(1).click()
    page.wait_for_function(
        "([figure, before]) => figure.querySelector('.gtitle').textContent !== before",
        arg=[figure.element_handle(), before],
    )
    assert measured.list_foreign_requests() == [] and measured.complaints == []


def test_04_runs_and_its_slices_follow_click_wheel_and_slider(measured, visit):
    lab_page = visit("04_spatial.ipynb")
    lab_page.run_all()
    bars = lab.list_bars(check_run(lab_page))
    assert bars and all("100%|" in bar for bar in bars)
    page = lab_page.page
    page.set_viewport_size({"width": 1366, "height": 900})
    pictures = {name: page.locator(f".jp-OutputArea-output img[alt^='{name}: slice']") for name in PLANES}
    axial = pictures["axial"]
    axial.scroll_into_view_if_needed()

    def changes(name, act):
        before = pictures[name].get_attribute("alt")
        act()
        page.wait_for_function(
            "([picture, before]) => picture.alt !== before", arg=[pictures[name].element_handle(), before]
        )

    axial.hover()
    before = axial.get_attribute("alt")
    page.mouse.wheel(0, 1)
    changes("sagittal", lambda: axial.click(position={"x": 9, "y": 9}))
    assert axial.get_attribute("alt") == before, "before the click the wheel is the page's"
    changes("axial", lambda: page.mouse.wheel(0, 100))
    changes("axial", lambda: page.keyboard.press("ArrowUp"))
    slider = page.get_by_role("slider", name="coronal", exact=True)
    slider.scroll_into_view_if_needed()
    changes("coronal", lambda: slider.fill("2"))
    changes("coronal", lambda: slider.press("ArrowRight"))
    # Three planes at one scale, beside and below each other, and nothing cut.
    boxes = {name: picture.bounding_box() for name, picture in pictures.items()}
    assert all(box["x"] + box["width"] <= 1366 for box in boxes.values())
    assert boxes["axial"]["x"] == boxes["coronal"]["x"] and boxes["axial"]["width"] == boxes["coronal"]["width"]
    assert boxes["coronal"]["height"] == pytest.approx(boxes["sagittal"]["height"], rel=0.02)
    surface = page.locator(".jp-OutputArea-output .js-plotly-plot", has=page.locator(".gl-container canvas")).last
    surface.wait_for()
    assert not [word for word in page.locator(".segfair-word:visible").all_text_contents() if word]


def test_explore_can_be_brushed_changed_and_exported(measured, visit, project):
    lab_page = visit("explore.ipynb")
    page = lab_page.page
    page.evaluate(LOSE_LIBRARY)
    lab_page.run_all()
    check_run(lab_page)
    # Figures that cannot be drawn say so, and are drawn when asked again.
    failures = page.locator(".segfair-word:visible", has_text="The figure could not be drawn")
    failures.first.wait_for()
    assert failures.first.text_content() == (
        "The figure could not be drawn (plotly.js could not be loaded).↻ try again"
    )
    page.evaluate("() => { URL.createObjectURL = window.realCreate; }")
    while failures.count():
        left = failures.count()
        failures.first.get_by_role("button").click()
        page.wait_for_function(
            "left => [...document.querySelectorAll('.segfair-word')].filter((word) => word.offsetParent"
            " && word.textContent.includes('could not')).length < left",
            arg=left,
        )
    lab_page.complaints = [words for words in lab_page.complaints if "blob:lost" not in words]
    # No code in sight.
    assert page.locator(".jp-CodeCell .jp-InputArea:not(.lm-mod-hidden) .cm-content:visible").count() == 0
    output = page.locator(".jp-OutputArea-output", has=page.locator(".widget-select-multiple, .widget-select")).first
    plot = output.locator(".js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".point").first.wait_for()
    drag = plot.locator(".nsewdrag").bounding_box()
    page.mouse.move(drag["x"] + 5, drag["y"] + 5)
    page.mouse.down()
    page.mouse.move(drag["x"] + drag["width"] / 2, drag["y"] + drag["height"] / 2, steps=5)
    page.mouse.move(drag["x"] + drag["width"] - 5, drag["y"] + drag["height"] - 5, steps=5)
    page.mouse.up()
    people = project[1].read_included()["subject"].nunique()
    output.get_by_text(f"{people} people selected").wait_for()
    listed = output.locator(".widget-select select").first.locator("option").all_text_contents()
    assert sum(option.startswith("scan") for option in listed) == people, "each of them has one scan"
    # Another metric: another axis.
    metric = output.locator(".widget-dropdown", has=page.get_by_text("metric", exact=True)).first
    metric.locator("select").select_option("Boundary error")
    plot.locator(".ytitle", has_text="Boundary error").wait_for()
    output.get_by_role("button", name="Export data and figure").click()
    output.get_by_text("Written to outputs/small/exports").wait_for(timeout=90_000)
    written = {path.suffix for path in (project[1].folder / "exports").iterdir()}
    assert written == {".csv", ".html", ".svg", ".png"}


def test_notebook_without_its_inputs_says_what_to_run(visit):
    lab_page = visit("unrun.ipynb")
    lab_page.run_all()
    errors = lab.list_errors(lab_page.read_outputs())
    assert list(errors) == [1], "the cell that loads the study fails, and nothing after it is tried"
    assert (
        errors[1] == "StageError: cohort.parquet is missing for study 'unrun': run 01_cohort and 02_inference or "
        "`segfair run params/unrun.yaml --until 02`"
    )
