"""Formulas of a notebook's prose as MathML, which browsers draw without a script or a font."""

from __future__ import annotations

import html
from typing import Any


def make_exporter_class() -> type:
    """Return nbconvert's HTML exporter with formulas as MathML (its import takes a second)."""
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def block_math(self, body: str) -> str:
            return write_mathml(body, block=True)

        def inline_math(self, body: str) -> str:
            return write_mathml(body)

        def latex_environment(self, name: str, body: str) -> str:
            return write_mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    class Exporter(HTMLExporter):
        @pass_context
        def markdown2html(self, context: Any, source: str) -> str:
            cell = context.get("cell", {})
            renderer = Renderer(
                escape=False, attachments=cell.get("attachments", {}), embed_images=self.embed_images,
                anchor_link_text=self.anchor_link_text, exclude_anchor_links=self.exclude_anchor_links,
            )  # fmt: skip
            return MarkdownWithMath(renderer=renderer).render(source)

    return Exporter


def write_mathml(latex: str, *, block: bool = False) -> str:
    """Return a LaTeX formula (no dollars) as MathML; what cannot be translated stays as it is."""
    from latex2mathml.converter import convert

    try:
        return convert(latex.strip(), display="block" if block else "inline")
    except Exception:  # the library raises classes of its own for each mistake: the formula stays readable
        return f"<code>{html.escape(latex.strip())}</code>"
