"""What every figure shares: colours, fonts, the configuration that keeps patient data at home."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio
from plotly.io.base_renderers import ExternalRenderer

# Okabe & Ito (2008), readable with every common colour-vision deficiency; yellow is left out: it is
# too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star")
# Every figure begins with it: given to each, plotly would check all of it each time.
pio.templates.default = "plotly_white"
# For groups, apart from the models' colours: Tol's muted scheme (personal.sron.nl/~pault, 2021).
GROUP_PALETTE = ("#332288", "#CC6677", "#999933", "#882255", "#44AA99", "#661100", "#777777")
FIXED_COLOURS = {"female": "#CC6677", "male": "#332288"}
# Over- and under-segmentation: blue to red through a light neutral, symmetrical about zero.
DIVERGING = [[0.0, "#2166AC"], [0.25, "#92C5DE"], [0.5, "#F7F7F7"], [0.75, "#F4A582"], [1.0, "#B2182B"]]

# `showSendToCloud: False` takes away plotly's upload button: patient data stays where it is. The
# camera saves a PNG of twice the size on the screen.
CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,
    "toImageButtonOptions": {"format": "png", "filename": "segfair", "scale": 2},
}
# A second button of every figure of a page saves it as SVG, under its title. To be run once, after
# plotly.js and before any figure is drawn; a button of one's own needs a function, which a
# configuration in JSON cannot hold.
SVG_BUTTON_SCRIPT = """\
Plotly.setPlotConfig({modeBarButtonsToAdd: [{
  name: "toSvg", title: "Download plot as an SVG", icon: Plotly.Icons.disk,
  click: function (figure) {
    var title = (figure.layout.title && figure.layout.title.text || "").split("<br>")[0];
    var name = title.replace(/<[^>]*>/g, "").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
    Plotly.downloadImage(figure, {format: "svg", filename: name || "segfair"});
  }
}]});"""


def colour_groups(groups: Sequence[str]) -> dict[str, str]:
    """Return a colour per group, the same wherever the same list of groups is drawn."""
    colours = GROUP_PALETTE
    return {group: FIXED_COLOURS.get(group, colours[place % len(colours)]) for place, group in enumerate(groups)}


def colour_models(models: Sequence[str]) -> dict[str, str]:
    """Return a colour per model, or per kind of number, that no group has."""
    return {model: PALETTE[place % len(PALETTE)] for place, model in enumerate(models)}


def mark_groups(groups: Sequence[str]) -> dict[str, str]:
    """Return a marker symbol per group, so that colour is never the only carrier."""
    return {group: SYMBOLS[place % len(SYMBOLS)] for place, group in enumerate(groups)}


def style_figure(figure: go.Figure, *, title: str, height: int = 420) -> go.Figure:
    """Give a figure the house's fonts, margins and title, and return it."""
    figure.update_layout(
        title={"text": title, "x": 0.0, "xanchor": "left", "font": {"size": 16}},
        font={"family": "Arial, Helvetica, sans-serif", "size": 13, "color": "#222222"},
        height=height,
        margin={"l": 70, "r": 30, "t": 60, "b": 60},
        legend={"title": None},
        meta={"head": 40},  # pixels of the top that title and menus take: a page writes these itself
    )
    return figure


SVG_LINK = "segfair_svg_link"  # marks the link's output in a notebook: an exported page has a button instead
_SVG_LINK = """\
<p style="margin: 0; font-size: 12px; text-align: right"><a href="#" onclick="
  var figure = [...document.querySelectorAll('.js-plotly-plot')].findLast(
    figure => this.compareDocumentPosition(figure) &amp; Node.DOCUMENT_POSITION_PRECEDING);
  var options = figure._context.toImageButtonOptions, format = options.format;
  options.format = 'svg';
  figure._fullLayout._modeBar.element.querySelector('.modebar-btn').click();
  options.format = format;
  return false;">save as SVG</a></p>"""


class _SvgLink(ExternalRenderer):
    """Puts a link beneath a figure that saves it as SVG: Lab takes no button of one's own."""

    def render(self, fig: dict[str, Any]) -> None:
        from IPython.display import display

        display({"text/html": _SVG_LINK, "text/plain": ""}, raw=True, metadata={SVG_LINK: True})


def use_safe_renderer() -> None:
    """Make JupyterLab's figures leave out the upload button, and offer themselves as SVG too."""
    pio.renderers["plotly_mimetype"].config = dict(CONFIG)
    pio.renderers["segfair_svg_link"] = _SvgLink()
    pio.renderers.default = "plotly_mimetype+segfair_svg_link"
