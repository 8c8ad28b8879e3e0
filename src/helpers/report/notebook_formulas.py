"""Formulas of a notebook's prose as MathML, which browsers draw without a script or a font."""

from __future__ import annotations

import html
import os
import sys
from pathlib import Path
from typing import Any

# Where nbconvert's own templates are installed.
_SHARED = Path(sys.prefix, "share", "jupyter")


def make_exporter_class() -> type:
    """Return nbconvert's HTML exporter with formulas as MathML (its import takes a second).

    Its templates are its own, not those of the same name in the user's home.
    """
    os.environ.setdefault("JUPYTER_DATA_DIR", str(_SHARED))  # else it needs a home to be imported
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
        def get_prefix_root_dirs(self) -> list[str]:
            own = (_SHARED / "nbconvert" / "templates" / "lab").is_dir()
            return [str(_SHARED)] if own else super().get_prefix_root_dirs()

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
