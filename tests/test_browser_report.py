"""The report in a real browser: from the file system, without a single request, script in names
harmless."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.report import build_report, export_notebook
from tests import report_study as study
from tests.visiting import Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Pictures other than the figures' stills.
STRANGE = "Array.from(document.images).filter(one => one.onerror || !one.closest('.still')).length"
STICKING_OUT = """Array.from(document.querySelectorAll('main *')).filter(one =>
  !one.closest('.scroll, .canvas, svg') && one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.outerHTML)"""
# Letters under 7 points on a page 180 mm wide; stills are SVG within an address.
TINY = """Array.from(document.querySelectorAll('.segfair *')).filter(one => one.checkVisibility()).flatMap(one => {
  const image = one.matches('.still img'), source = image ? atob(one.src.split(',')[1]) : '';
  const drawn = Array.from(source.matchAll(/font-size: ?([\\d.]+)px/g), found => Number(found[1]));
  const written = Array.from(one.childNodes).some(node => node.nodeType === 3 && node.textContent.trim());
  const sizes = image ? drawn : written ? [parseFloat(getComputedStyle(one).fontSize)] : [];
  const scale = image ? one.clientWidth / one.naturalWidth : one.getScreenCTM ? one.getScreenCTM().a : 1;
  return sizes.map(size => 0.75 * scale * size).filter(points => points < 6.99)
    .map(points => [points, one.outerHTML.slice(0, 90)]);
})"""
COVERED = """Array.from(document.querySelectorAll('.canvas')).filter(one => {
  const [bar, drawn] = ['.modebar', '.main-svg'].map(part => one.querySelector(part).getBoundingClientRect());
  return one.checkVisibility() && bar.bottom > drawn.top + 1; }).length"""
# A body's letters stand at the ends of a square as wide as its place is high, times the zoom.
BODY = "Array.from(document.querySelectorAll('.canvas')).find(one => one._fullLayout && one._fullLayout.scene)"
FITS = f"""() => {{ const full = {BODY}._fullLayout;
  return ['scene', 'scene2'].filter(name => full[name]).every(name => {{ const across = full[name].domain.x;
    return full[name].aspectratio.x / 1.9 <= (across[1] - across[0]) * full._size.w / full._size.h + 0.02; }}); }}"""
ZOOM = f"""async () => {{ const canvas = {BODY};
  await Plotly.relayout(canvas, {{'scene.aspectratio': {{x: 0.7, y: 0.7, z: 0.7}}}});
  await Plotly.relayout(canvas, {{'legend.x': 0.1}});
  return canvas._fullLayout.scene.aspectratio.x; }}"""
EVIL = '<img src=x onerror="window.harmed=1">'


@pytest.fixture(scope="module")
def folder(tmp_path_factory, chromium) -> Path:
    cohort = study.make_cohort(60, sexes=(EVIL, "male"))
    cohort["subject"] = [f"{EVIL}{subject}" for subject in cohort["subject"]]
    metrics = study.make_metrics(cohort)
    parameters = study.make_parameters(title=f"Report {EVIL}")
    parameters["cohort"]["attributes"]["sex"] = {"categories": [EVIL, "male"]}
    folder = study.write_study(
        tmp_path_factory.mktemp("report"),
        cohort=cohort,
        metrics=metrics,
        fairness=study.make_fairness(metrics, cohort),
        maps=study.make_maps(cohort),
        failing=2,
        parameters=parameters,
        run=study.make_run(),
    )
    study.write_template(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGFAIR_CHROMIUM", chromium)
        build_report(folder)
    return folder


@pytest.fixture(scope="module")
def visit(browser, folder):
    visit = Visit(browser, folder / "report.html")
    visit.figures = visit.draw_all()
    yield visit
    visit.context.close()


def test_not_one_request_leaves_the_file(visit):
    assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [visit.url]


def test_the_console_is_silent_and_every_figure_is_drawn(visit):
    assert visit.figures >= 4
    assert visit.complaints == []
    drawn = visit.page.evaluate("document.querySelectorAll('.canvas .main-svg, .canvas canvas').length")
    assert drawn >= visit.figures


def test_the_surface_is_drawn_in_three_dimensions(visit):
    assert visit.page.locator(".canvas .gl-container canvas").count() >= 1


def test_script_in_names_stays_text(visit):
    page = visit.page
    assert page.evaluate("window.harmed") is None
    assert page.evaluate(STRANGE) == 0
    assert EVIL in page.locator("h1").inner_text()
    assert EVIL in page.locator("#answers").inner_text()
    ticks = page.evaluate(
        "Array.from(document.querySelectorAll('.canvas text')).map(text => text.textContent).join(' ')"
    )
    assert "<img src=x onerror=" in ticks, "plotly shows the name as it is written"


def test_hovering_a_name_with_script_does_no_harm(visit):
    page = visit.page
    page.locator(".canvas").first.scroll_into_view_if_needed()
    page.evaluate("Plotly.Fx.hover(document.querySelector('.canvas'), [{curveNumber: 0, pointNumber: 0}])")
    page.wait_for_selector(".canvas .hovertext", state="attached")
    assert "onerror" in page.locator(".canvas .hovertext").first.text_content()
    assert page.evaluate("window.harmed") is None
    assert page.evaluate(STRANGE) == 0


def test_figures_offer_no_upload(visit):
    titles = visit.page.evaluate(
        "Array.from(document.querySelectorAll('.modebar-btn')).map(b => b.dataset.title || '').join('|')"
    )
    assert "hare" not in titles and "cloud" not in titles.lower() and "Download" in titles


def test_tables_unfold_and_contents_lead_to_their_sections(visit):
    page = visit.page
    page.click("nav a[href='#performance']")
    assert page.locator("#performance h2").is_visible()
    folded = page.locator("details:has(table)").first  # others hold a sentence alone, where nobody failed
    assert not folded.locator("table").first.is_visible()
    folded.locator("summary").first.click()
    assert folded.locator("table").first.is_visible()


@pytest.mark.parametrize("width", [400, 768, 1280])
def test_the_page_is_never_wider_than_the_screen(browser, folder, width):
    visit = Visit(browser, folder / "report.html", width=width)
    try:
        visit.draw_all()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        assert visit.page.evaluate(STICKING_OUT) == [], "clipped, and not in a box that scrolls"
        assert visit.page.evaluate(COVERED) == 0, "a figure's buttons lie over its legend"
        visit.page.wait_for_function(FITS)
        assert visit.page.evaluate(ZOOM) == 0.7, "who has zoomed in stays there"
    finally:
        visit.context.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_axe_finds_nothing_against_wcag_aa(browser, folder, width):
    """Every rule of WCAG 2.1 A and AA that axe-core knows, contrast among them; plotly's own
    drawings apart."""
    from axe_playwright_python.sync_playwright import Axe

    visit = Visit(browser, folder / "report.html", width=width)
    try:
        visit.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
        rules = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
        outcome = Axe().run(visit.page, context={"exclude": [[".canvas"]]}, options={"runOnly": rules}).response
        found = [f"{rule['id']}: {node['html'][:120]}" for rule in outcome["violations"] for node in rule["nodes"]]
        assert found == []
        assert any(rule["id"] == "color-contrast" for rule in outcome["passes"])
    finally:
        visit.context.close()


def test_every_cell_of_the_picture_carries_a_sign_and_a_number(visit):
    cells = visit.page.evaluate(
        "Array.from(document.querySelectorAll('.overview tbody td')).map(cell => cell.innerText.trim())"
    )
    assert len(cells) == 12 and all(cell[0] in "▲△▽=?–" and len(cell) > 5 for cell in cells)
    visit.page.click(".overview td a")
    assert visit.page.evaluate("location.hash") == "#finding-1" and visit.page.locator("#finding-1").is_visible()


def test_long_tables_sort_and_filter(visit):
    page = visit.page
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    table = page.locator("table.data", has=page.locator("caption", has_text="Every comparison"))
    rows = table.locator("tbody tr")
    everything = rows.count()
    table.locator("button.sort", has_text="Adjusted p").click()
    heads = table.locator("thead th").all_inner_texts()
    place = next(number for number, head in enumerate(heads) if head.startswith("Adjusted p"))
    cell = rows.first.locator("th, td").nth(place)
    first = float(cell.inner_text().strip("<=> "))
    table.locator("button.sort", has_text="Adjusted p").click()
    assert first <= 0.001 and float(cell.inner_text().strip("<=> ")) > 0.5
    page.locator("details", has=table).locator(".filter input").fill("liver sex")
    shown = page.locator("table.data tbody tr:visible", has_text="liver").count()
    assert 0 < table.locator("tbody tr:visible").count() < everything and shown
    assert all("liver" in text for text in table.locator("tbody tr:visible").all_inner_texts())


def test_print_shows_stills_and_leaves_out_what_is_folded_and_what_is_clicked(browser, folder):
    visit = Visit(browser, folder / "report.html")
    try:
        page = visit.page
        page.emulate_media(media="print")
        shown = "Array.from(document.querySelectorAll('{}')).filter(one => one.checkVisibility()).length"
        figures = page.locator("main > section > figure.plot").count()
        assert page.evaluate(shown.format("main > section > figure.plot > .still")) == figures > 3
        assert page.evaluate(shown.format("figure.plot > .still.round img")) == 4, "a body from four sides"
        for gone in (".canvas", ".controls", "details", "nav", ".modebar"):
            assert page.evaluate(shown.format(gone)) == 0, gone
        assert page.evaluate(shown.format(".off-screen")) > 1, "words stand where menus were"
        assert page.evaluate("document.querySelector('.verdicts').offsetTop") < 500, "the verdicts come first"
        page.set_viewport_size({"width": 680, "height": 900})
        assert page.evaluate(TINY) == []
    finally:
        visit.context.close()


def test_without_scripts_every_figure_is_there(browser, folder):
    visit = Visit(browser, folder / "report.html", scripts=False)
    try:
        figures, stills = visit.page.locator("figure.plot"), visit.page.locator("figure.plot .still")
        assert stills.count() == figures.count() > 3
        visit.page.locator("main > section > figure.plot .still img").first.scroll_into_view_if_needed()
        assert visit.page.evaluate("Array.from(document.images).every(one => one.complete && one.naturalWidth > 300)")
        assert visit.page.locator(".canvas").first.is_hidden()
    finally:
        visit.context.close()


def test_on_a_phone_forests_fit_and_tables_say_that_there_is_more(browser, folder):
    visit = Visit(browser, folder / "report.html", width=400)
    try:
        visit.draw_all()
        page = visit.page
        wide = "Array.from(document.querySelectorAll('.canvas .main-svg')).filter(one => one.clientWidth > 400).length"
        assert page.evaluate(wide) == 0
        assert page.evaluate(
            "Array.from(document.querySelectorAll('.scroll:not(.still)')).filter(one => one.checkVisibility())"
            ".every(one => one.classList.contains('more') === one.scrollWidth - one.clientWidth > 4)"
        )
        assert page.locator(".scroll.more").count() > 0
    finally:
        visit.context.close()


def test_menus_are_the_browsers_own_and_the_keyboard_reaches_them(visit):
    page = visit.page
    body = page.locator("figure.plot:has(.gl-container canvas)")
    menu, heading = body.locator("select").last, body.locator(".below")
    before = heading.inner_text()
    menu.focus()
    menu.press("ArrowDown")
    page.wait_for_function("([one, before]) => one.textContent !== before", arg=[heading.element_handle(), before])
    assert body.locator("button:visible").all_inner_texts()[:2] == ["Anterior", "Posterior"]


def test_the_wheel_is_the_pages_until_the_figure_is_clicked(visit):
    page = visit.page
    canvas = page.locator(".canvas:has(.gl-container canvas)")
    canvas.scroll_into_view_if_needed()
    canvas.hover()
    before = page.evaluate("window.scrollY")
    page.mouse.wheel(0, -200)
    page.wait_for_function("before => window.scrollY < before", arg=before)


def test_an_exported_notebook_is_offline_too(browser, tmp_path):
    import nbformat
    import plotly.graph_objects as go
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name=EVIL)).to_plotly_json()
    figure = {"data": [figure["data"][0]], "layout": {"height": 300}}
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A notebook\n\nwith a formula $\\frac{a}{b}$"),
            new_code_cell("plot()", outputs=[new_output("display_data", {"application/vnd.plotly.v1+json": figure})]),
        ]
    )
    nbformat.write(notebook, tmp_path / "n.ipynb")
    visit = Visit(browser, export_notebook(tmp_path / "n.ipynb", tmp_path / "n.html"))
    try:
        visit.page.wait_for_selector(".main-svg", state="attached")
        assert [url for url in visit.requests if not url.startswith(("data:", "blob:"))] == [visit.url]
        assert visit.complaints == [] and visit.page.evaluate("window.harmed") is None
        assert not visit.page.locator(".segfair-code pre").is_visible()
        tall, letter = (visit.page.locator(tag).first.bounding_box()["height"] for tag in ("mfrac", "mfrac mi"))
        assert tall > 1.5 * letter, "the browser draws the fraction itself, one letter above the other"
    finally:
        visit.context.close()
