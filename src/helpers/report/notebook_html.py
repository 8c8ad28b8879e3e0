"""An executed notebook → one offline HTML file, code folded away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.io as pio
from plotly.offline import get_plotlyjs

from helpers import storage
from helpers.errors import StageError
from helpers.figures.style import CONFIG, SVG_BUTTON_SCRIPT, SVG_LINK
from helpers.report.escaping import clean_texts
from helpers.report.notebook_cleaning import clean_figure_words, clean_notebook
from helpers.report.notebook_formulas import make_exporter_class
from helpers.report.scrubbing import Scrubber

_PLOTLY = "application/vnd.plotly.v1+json"
_WIDGET = "application/vnd.jupyter.widget-view+json"
_HIDDEN_TAGS = ("parameters", "injected-parameters", "remove-cell")
_WIDGET_TEXT = "<p><em>A browser of single scans stands here in JupyterLab; it needs a running notebook.</em></p>"
_TEMPLATE = """\
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_css -%}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';
 style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'">
<link rel="icon" href="data:,">
<style>
.segfair-code > summary { cursor: pointer; color: #4d5862; font-size: 12px; margin: 0 0 4px; }
.segfair-code pre { font-size: 12px; background: #f3f5f7; padding: 8px; overflow-x: auto; }
.jp-RenderedMarkdown code { white-space: normal !important; overflow-wrap: anywhere; }
/* On a narrow screen figures and tables keep a legible width and are scrolled. */
@media (max-width: 900px) {
  .jp-OutputArea-output { overflow-x: auto; }
  .jp-OutputArea-output.more { box-shadow: inset -14px 0 12px -12px rgba(29, 35, 41, .45); }
  .jp-OutputArea-output.more::after { content: "more to the right \\2192"; position: sticky; left: 0; display: block;
    width: max-content; color: #4d5862; font-size: 12px; }
  .jp-OutputArea-output .plotly-graph-div { min-width: 880px; }
  .jp-OutputArea-output > table, .jp-OutputArea-output .dataframe { width: max-content; max-width: 880px; }
}
</style>
{%- if resources.plotlyjs -%}
<script>window.PlotlyConfig = {MathJaxConfig: 'local'};</script>
<script data-library>{{ resources.plotlyjs }}</script>
<script>{{ resources.svg_button }}</script>
{%- endif -%}
{%- endblock -%}
{%- block input_group -%}
{%- if cell.source | trim -%}
<details class="segfair-code"><summary>code</summary><pre>{{ cell.source | escape }}</pre></details>
{%- endif -%}
{%- endblock input_group -%}
{%- block body_footer -%}<script>{{ resources.tables_js }}</script>{{ super() }}{%- endblock body_footer -%}
"""
_SCRIPT = Path(__file__).parent / "templates" / "tables.js"


def export_notebook(executed: Path, target: Path, *, scrub: Scrubber | None = None) -> Path:
    """Write an executed notebook as one offline HTML file and return its path.

    Figures stay interactive with plotly.js inside, once; code is folded away under "code"; formulas
    become MathML; widgets, which need a kernel, leave a line that says so; cells tagged
    ``parameters``, ``injected-parameters`` or ``remove-cell`` are left out. Ids, paths, machine
    names and dates are taken out of outputs, and an error keeps its message alone. Nothing is
    loaded from the network.

    Parameters
    ----------
    executed, target : Path
        The notebook with its outputs, and the HTML file.
    scrub : Scrubber, optional
        Knows the study's ids (:func:`helpers.report.outputs.make_scrubber`); without it paths,
        addresses and dates are found.

    Raises
    ------
    StageError
        The notebook is missing or is not one.
    SegfairError
        The target cannot be written.
    """
    import nbformat
    from jinja2 import DictLoader

    exporter_class = make_exporter_class()
    from nbconvert.preprocessors import TagRemovePreprocessor
    from traitlets.config import Config

    executed, target = Path(executed), Path(target)
    if not executed.is_file():
        raise StageError(f"{executed}: no such notebook: run its stage first")
    try:
        notebook = nbformat.read(executed, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise StageError(f"{executed}: is not a notebook ({type(error).__name__}): run its stage again") from error
    notebook.metadata.pop("widgets", None)
    notebook.metadata["title"] = _find_title(notebook, executed)
    scrub = scrub or Scrubber()
    clean_notebook(notebook, scrub)
    drawn = _draw_outputs(notebook, scrub)
    config = Config()
    config.TagRemovePreprocessor.remove_cell_tags = set(_HIDDEN_TAGS)
    name, loader = "segfair.html.j2", DictLoader({"segfair.html.j2": _TEMPLATE})
    looks = {"exclude_input_prompt": True, "exclude_output_prompt": True, "embed_images": True}
    from_network = {"require_js_url": "", "mathjax_url": ""}
    exporter = exporter_class(config=config, extra_loaders=[loader], template_file=name, **looks, **from_network)
    exporter.register_preprocessor(TagRemovePreprocessor(config=config), enabled=True)
    scripts = {
        "plotlyjs": get_plotlyjs() if drawn else "",
        "svg_button": SVG_BUTTON_SCRIPT,
        "tables_js": _SCRIPT.read_text(encoding="utf-8"),
    }
    page, _ = exporter.from_notebook_node(notebook, resources=scripts)
    storage.write_text(page, target)
    return target


def _draw_outputs(notebook: Any, scrub: Scrubber) -> int:
    """Turn figures into live HTML, widgets into a line, in place; return the number of figures."""
    from nbformat.v4 import new_output

    drawn = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            data = output.get("data", {})
            if output.get("metadata", {}).get(SVG_LINK):
                continue
            if _PLOTLY in data:
                drawn += 1
                figure = _draw_figure(data[_PLOTLY], f"figure-{drawn}", scrub)
                output = new_output("display_data", {"text/html": figure})
            elif _WIDGET in data:
                output = new_output("display_data", {"text/html": _WIDGET_TEXT})
            kept.append(output)
        cell.outputs = kept
    return drawn


def _draw_figure(figure: dict[str, Any], place: str, scrub: Scrubber) -> str:
    kept = {key: figure[key] for key in ("data", "layout", "frames") if key in figure}
    figure = clean_texts(clean_figure_words({"layout": {}, **kept}, scrub))
    height = f"{figure['layout'].get('height') or 450}px"
    bare = dict.fromkeys(("include_plotlyjs", "include_mathjax", "full_html", "validate", "auto_play"), False)
    return pio.to_html(figure, config=CONFIG, div_id=place, default_height=height, **bare)


def _find_title(notebook: Any, executed: Path) -> str:
    """Return the notebook's first heading; its file name where there is none."""
    prose = (cell.source.splitlines() for cell in notebook.cells if cell.cell_type == "markdown")
    headings = (line.removeprefix("# ").strip() for lines in prose for line in lines if line.startswith("# "))
    return next(headings, executed.stem)
