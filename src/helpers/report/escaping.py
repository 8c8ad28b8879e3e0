"""Text from data, made harmless for plotly."""

from __future__ import annotations

import html

import pandas as pd


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
