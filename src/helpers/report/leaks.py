"""Search a finished page for what must not be in it."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

_LIBRARY = re.compile(r"<script data-library[^>]*>.*?</script>", re.DOTALL)
_JSON_ELEMENT = re.compile(r"<script type=\"application/json\"[^>]*>(.*?)</script>", re.DOTALL)
_TYPED_ARRAY = re.compile(r'"dtype":\s*"([a-z]\d)",\s*"bdata":\s*"([^"]+)"')
_BASE64 = re.compile(r"base64,([A-Za-z0-9+/=]{16,})")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


def find_leaks(page: str, planted: Iterable[str]) -> list[str]:
    """Return which of the `planted` texts can be read from an HTML page.

    Looks into the source, the text with entities and escapes resolved, every JSON string of the figures, images as
    bytes, and the numbers in lists and in plotly's typed arrays; plotly.js itself is passed over.

    Parameters
    ----------
    page : str
    planted : iterable of str
        Identifiers, paths or names that must not be there.
    """
    page = _LIBRARY.sub("", page)
    unescaped = _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), page)
    haystack = [page, html.unescape(page), unescaped, html.unescape(unescaped)]
    numbers: set[str] = set()
    for match in _JSON_ELEMENT.finditer(page):
        value = json.loads(match.group(1))
        for text in _walk_texts(value):
            haystack += [text, html.unescape(text)]
        for array in _walk_lists(value):
            numbers |= _write_numbers(array)
    for dtype, encoded in _TYPED_ARRAY.findall(unescaped):
        numbers |= _write_numbers(np.frombuffer(base64.b64decode(encoded), dtype=dtype))
    for encoded in _BASE64.findall(unescaped):
        try:
            haystack.append(base64.b64decode(encoded).decode("latin-1"))
        except (binascii.Error, ValueError):
            continue
    everything = "\n".join(haystack).casefold()
    return sorted({text for text in map(str, planted) if text.casefold() in everything or text in numbers})


def _write_numbers(array: np.ndarray) -> set[str]:
    found = np.unique(array[np.isfinite(array)]).tolist()
    return {f"{number:g}" for number in found} | {str(int(number)) for number in found if float(number).is_integer()}


def _walk_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _walk_texts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            if key != "bdata":
                yield from _walk_texts(item)


def _walk_lists(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _walk_lists(item)
    elif isinstance(value, list):
        numbers = [item for item in value if isinstance(item, (int, float)) and not isinstance(item, bool)]
        if numbers:
            yield np.asarray(numbers, dtype=float)
        for item in value:
            yield from _walk_lists(item)
