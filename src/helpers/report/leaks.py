"""Search a finished page for what must not be in it, and refuse it where something is."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import helpers
from helpers.errors import SegfairError

_LIBRARY = re.compile(r"<script data-library[^>]*>.*?</script>", re.DOTALL)
_JSON_ELEMENT = re.compile(r"<script type=\"application/json\"[^>]*>(.*?)</script>", re.DOTALL)
_TYPED_ARRAY = re.compile(r'"dtype":\s*"([a-z]\d)",\s*"bdata":\s*"([A-Za-z0-9+/=]+)"')
_BASE64 = re.compile(r"base64,([A-Za-z0-9+/=]{16,})")
_DRAWN = re.compile(r"<svg.*?</svg>", re.DOTALL)  # the glossary's, without any text from data
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_WORD = re.compile(r"[a-z0-9]+")
_FEWEST_LETTERS, _FEWEST_DIGITS, _FEWEST_DIGITS_OF_DATA = 4, 5, 7
# What the report itself calls people and scans.
_OWN_NUMBER = re.compile(r"(?:scan|person|phantom) \d+")


def refuse_leaks(page: str, secrets: Mapping[str, str], *, shown: Iterable[str] = ()) -> None:
    """Refuse a page in which an id, a path or a name of this machine can be read.

    Parameters
    ----------
    secrets : mapping of str to str
        Text → what it is, from :meth:`helpers.report.scrubbing.Scrubber.list_secrets`.
    shown : iterable of str
        What the study itself shows: its title, models, organs, groups. No part of these is secret.

    Raises
    ------
    SegfairError
        One stands in the page, alone or within a longer name; the message says what kind it is.

    Notes
    -----
    Texts that cannot be told from others are passed over: words that segfair or the study itself
    uses, fewer than 4 letters and digits, numbers below 10000 (years, counts) and, among the
    figures' numbers, below a million.
    """
    innocent = "\n".join(shown).casefold()
    wanted = {text.casefold(): what for text, what in secrets.items()}
    # A path holds ids: the longest text found says best what was found.
    telling = sorted((text for text in wanted if text not in innocent and _is_telling(text)), key=len, reverse=True)
    texts, numbers = _read_page(page)
    words = set(_WORD.findall(texts))
    for text in telling:
        # Looking its words up comes first: a page is long, and ids are many.
        alone = r"(?<![a-z0-9.,])%s(?![a-z0-9]|[.,]\d)" if text.isdigit() else r"(?<![a-z0-9])%s(?![a-z0-9])"
        read = words.issuperset(_WORD.findall(text)) and re.search(alone % re.escape(text), texts)
        if read or (text.isdigit() and len(text) >= _FEWEST_DIGITS_OF_DATA and int(text) in numbers):
            raise SegfairError(
                f"the report was not written, for it would show {wanted[text]} (it begins with {text[0]!r} and has "
                f"{len(text)} characters): this is a fault of segfair; please tell its authors without the text "
                "itself. The study's tables are complete"
            )


def find_leaks(page: str, planted: Iterable[str]) -> list[str]:
    """Return which of the `planted` texts can be read from an HTML page, even within a word.

    Looks into the source, with entities and escapes resolved too, every JSON string of the figures,
    words within images, and the numbers of lists and typed arrays; not into plotly.js itself.
    """
    texts, numbers = _read_page(page)
    return sorted(
        {text for text in map(str, planted) if text.casefold() in texts or (text.isdigit() and int(text) in numbers)}
    )


def _is_telling(text: str) -> bool:
    """Tell whether a text can be told from the words and numbers that any report is made of."""
    if _OWN_NUMBER.fullmatch(text):
        return False
    if text.isdigit():
        return len(text) >= _FEWEST_DIGITS
    return len(text) >= _FEWEST_LETTERS and not (text.isalpha() and is_own(text))


def is_own(text: str) -> bool:
    """Tell whether segfair itself uses every word of a text, so that it names nobody."""
    return set(_WORD.findall(text.casefold())) <= _list_own_words()


@lru_cache(maxsize=1)
def _list_own_words() -> set[str]:
    """Return every word of segfair's own code and templates."""
    own = (path for path in Path(helpers.__file__).parent.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js"))
    return {word for path in own for word in _WORD.findall(path.read_text(encoding="utf-8").casefold())}


def _read_page(page: str) -> tuple[str, set[int]]:
    """Return all that can be read in a page, in small letters, and its figures' whole numbers."""
    page = _DRAWN.sub("", _LIBRARY.sub("", page))
    texts: set[str] = set()
    numbers: set[int] = set()
    for element in _JSON_ELEMENT.findall(page):
        for value in _walk(json.loads(element)):
            if isinstance(value, str):
                texts |= {value, html.unescape(value)}
            else:
                numbers |= _list_whole(value)
    for dtype, encoded in _TYPED_ARRAY.findall(page):
        numbers |= _list_whole(np.frombuffer(base64.b64decode(encoded), dtype=dtype))
    rest = _TYPED_ARRAY.sub("", _JSON_ELEMENT.sub("", page))
    resolved = _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), rest)
    texts |= {rest, resolved, html.unescape(rest), html.unescape(resolved)}
    for encoded in _BASE64.findall("\n".join(texts)):
        try:
            texts |= {text.decode() for text in re.findall(rb"[\x20-\x7e]{8,}", base64.b64decode(encoded))}
        except ValueError:
            continue
    return "\n".join(texts).casefold(), numbers


def _list_whole(array: np.ndarray) -> set[int]:
    found = np.unique(array[np.isfinite(array)])
    return set(found[found == np.floor(found)].astype(int).tolist())


def _walk(value: Any) -> Iterator[str | np.ndarray]:
    """Yield the texts, keys too, and the lists of numbers of a JSON value; no typed arrays."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        numbers = [item for item in value if isinstance(item, (int, float)) and not isinstance(item, bool)]
        if numbers:
            yield np.asarray(numbers, dtype=float)
        for item in value:
            yield from _walk(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            if key != "bdata":
                yield from _walk(item)
