"""Text from data, made harmless for plotly and within scripts."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pandas as pd
import plotly.graph_objects as go

# What plotly may take as markup in a figure's text; everything else that looks like a tag is text.
_FOREIGN_TAG = re.compile(r"<(?!/?(?:br|b|i|em|strong|sub|sup|extra|span)\s*/?>|span style=(['\"])[\w:;#%. -]+\1>)")
_KEPT_KEYS = ("dtype", "bdata", "shape")


def escape_for_plotly(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts and column names plotly shows as they are.

    plotly reads ``<b>``, ``<a href=…>`` and entities in any text; data must not speak to it.
    """
    escaped = table.rename(columns=lambda name: escape_text(str(name)))
    for name in escaped:
        column = escaped[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            escaped[name] = column.cat.rename_categories([escape_text(str(value)) for value in column.cat.categories])
        elif not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
            texts = [value for value in column.unique() if isinstance(value, str)]
            changed = {value: shown for value in texts if (shown := escape_text(value)) != value}
            if changed:
                escaped[name] = column.map(lambda value, changed=changed: changed.get(value, value), na_action="ignore")
    return escaped


def escape_text(text: str) -> str:
    """Return `text` with ``& < >`` as entities, which plotly draws as the characters."""
    return html.escape(text, quote=False)


def clean_figure(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as a dict in which no text can be a link, an image or a script.

    plotly takes some HTML in titles, labels and hover texts. Line breaks and emphasis are kept; any
    other tag becomes text. This is the second lock: texts from data are escaped before.
    """
    return clean_texts(json.loads(figure.to_json()))


def clean_texts(value: Any) -> Any:
    """Return a figure's JSON value with every tag but line breaks and emphasis turned into text."""
    if isinstance(value, str):
        return _FOREIGN_TAG.sub("&lt;", value)
    if isinstance(value, list):
        return [clean_texts(item) for item in value]
    if isinstance(value, dict):
        return {clean_texts(key): item if key in _KEPT_KEYS else clean_texts(item) for key, item in value.items()}
    return value


def dump_json(value: Any) -> str:
    """Return `value` as JSON that can stand inside a script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
