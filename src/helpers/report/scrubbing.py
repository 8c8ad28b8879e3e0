"""Messages and page texts without ids, paths, addresses and dates."""

from __future__ import annotations

import getpass
import html
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.report.leaks import is_own
from helpers.storage import expand_home
from helpers.vocabulary.words import name_scan

_QUOTED_PATH = re.compile(r"(['\"`])[^'\"`\n]*[/\\][^'\"`\n]*\1")
_PATH = re.compile(
    r"""(?:[A-Za-z][A-Za-z0-9+.-]*://\S+)            # s3://…, file://…, tcp://host
      | (?:(?<![\w.)])(?:~|\.{1,2}|[A-Za-z]:)?[/\\][^\s'",;:|()]+(?:[/\\][^\s'",;:|()]*)*)  # /a, ../a, C:\a
      | (?:[^\s'",;:|()]+(?:[/\\][^\s'",;:|()]+){2,})  # a/b/c
      | (?:[^\s'",;:|()]+\.(?:nii(?:\.gz)?|nrrd|mha|mhd|dcm|csv|tsv|xlsx|parquet|json|ya?ml|pth?|safetensors|npz|py)\b)
    """,
    re.VERBOSE,
)
# A table of the study itself, which a reader is sent to.
_OWN_TABLE = re.compile(r"(?:spatial|fairness)/(?:\w+/)?\w+\.csv")
_ADDRESS = re.compile(r"\b[\w.+-]+@[\w.-]+\b")
# A person's own value is nobody's business: "age 103 years is outside the plausible 18 to 90".
_IMPLAUSIBLE = re.compile(r"\b(\w+) -?\d+(?:\.\d+)?((?: \S+)? is outside (?:the plausible )?-?\d)")
# What is no text to be read: tags, comments, and what stands in styles and scripts.
_MARKUP = re.compile(
    r"(<style\b.*?</style>|<script\b.*?</script>|<!--.*?-->|</?[A-Za-z][^<>]*>)", re.DOTALL | re.IGNORECASE
)
_PART = re.compile("[A-Za-z0-9]+")
_BREAK = re.compile(r"(?:\s|<br ?/?>)+")
_TELLING_NOTHING = ("root", "user", "users", "admin", "localhost", "jovyan", "runner", "home")
_DATE = re.compile(r"\b(?:19|20)\d{2}(?:-\d{2}-\d{2}|(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))\b")


class Scrubber:
    """Takes ids, paths, addresses and dates out of messages.

    It knows the study-local number of each scan id, the ids of people, `paths` with their file
    names, and `folders` by their whole path alone: the last part of a study's own is its name; and
    `values`, words that may be names, with what stands for each. An
    id that is a number of up to three digits cannot be told from other numbers: it is replaced only
    after a word such as "scan" or "subject".
    """

    def __init__(
        self,
        numbers: dict[str, int] | None = None,
        subjects: Iterable[str] = (),
        paths: Iterable[str] = (),
        folders: Iterable[str] = (),
        values: Mapping[str, str] | None = None,
    ) -> None:
        self._words = dict.fromkeys(map(str, subjects), "the person")
        self._words |= {scan: name_scan(number) for scan, number in (numbers or {}).items()}
        # Words that anybody uses ("yes", "north") name nobody.
        names = {word: told for word, told in (values or {}).items() if len(word) > 3 and not is_own(word)}
        self._words = names | self._words
        self._values = set(names)
        files: dict[str, str] = {}
        for path in map(str, paths):
            files |= {path: "the file", Path(path).name: "the file", str(Path(path).parent): "the folder"}
        files |= dict.fromkeys(map(str, folders), "the folder")
        files = {text: word for text, word in files.items() if len(text) > 3}
        self._files = files
        self._known_files = _Index(files)
        self._known_paths = _Index((path for path in files if "/" in path or "\\" in path), within=True)
        ids = sorted(self._words, key=len, reverse=True)
        free = [key for key in ids if not re.fullmatch(r"\d{1,3}", key)]
        self._free = _Index(free)
        self._broken = _Index((word for word in free if len(word.split()) > 1), within=True)
        after = r"(\b(?:scan|subject|case|patient|person|participant|id)s?[ #:=]*['\"]?)"
        bound = [key for key in ids if re.fullmatch(r"\d{1,3}", key)]
        self._bound = _compile_any(bound, after=after, ignore_case=True)
        self._machine = _compile_any(name_machine(), ignore_case=True)

    def list_secrets(self) -> dict[str, str]:
        """Return what no page may show, and what each is: ids, files, paths, this machine."""
        secrets = {
            key: "a value of the participants table" if key in self._values else f"the id of {_name_bearer(word)}"
            for key, word in self._words.items()
        }
        # The name of a folder alone may be any word: an organ, a model.
        secrets |= {
            text: f"the path of {word.replace('the', 'a')}"
            for text, word in self._files.items()
            if "." in text.strip(".") or text.count("/") + text.count("\\") > 1
        }
        home = str(expand_home(Path("~")))
        secrets |= {home: "the path of a folder"} if len(Path(home).parts) > 2 else {}
        return secrets | dict.fromkeys(name_machine(), "the name of this machine or its user")

    def __call__(self, message: Any) -> str:
        """Return `message` on one line, without ids, paths, addresses and dates."""
        if message is None or (not isinstance(message, str) and pd.isna(message)):
            return ""
        return self.clean(" ".join(str(message).split())).strip()

    def clean(self, text: str) -> str:
        """Return a plain text, its spaces as they are, without ids, paths, addresses and dates."""
        if "/" in text or "\\" in text:
            # Whole paths first: a name replaced within a path would break the path up.
            for path in self._known_paths.find(text):
                # Told once: a file in a known folder is a file.
                text = re.sub(re.escape(path) + r"[/\\][^\s'\",;:|()]+", "the file", text)
                text = text.replace(path, self._files[path])
            text = _QUOTED_PATH.sub("the file", text)
        text = _PATH.sub(lambda match: match[0] if _OWN_TABLE.fullmatch(match[0]) else "the file", text)
        for name in self._known_files.find(text):
            # Alone: within a longer word (a model, an organ) the same letters are no file.
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", self._files[name], text)
        free = _compile_any(self._free.find(text))
        if free is not None:
            text = free.sub(lambda match: self._words[match.group(1)], text)
        if self._bound is not None:
            text = self._bound.sub(lambda match: self._words[match.group(2)], text)
        if self._machine is not None:
            text = self._machine.sub("[machine]", text)
        text = _ADDRESS.sub("[address]", text)
        text = _DATE.sub("[date]", text)
        text = _IMPLAUSIBLE.sub(r"\1 …\2", text)
        text = re.sub(
            r"\b(scan|subject|case|person|file|patient) (?=(?:scan \d|the (?:person|file|folder)\b))", "", text
        )
        return re.sub(r"(the (?:file|folder))(?:[/\\ ]+the (?:file|folder))+", r"\1", text)

    def clean_markup(self, text: str) -> str:
        """Return HTML or a text of plotly's with its words cleaned; tags, styles, scripts stay."""
        if "<br" in text:  # figures break names into lines
            joined = _BREAK.sub(" ", text)
            for word in self._broken.find(joined):
                text = re.sub(_BREAK.pattern.join(map(re.escape, word.split())), self._words[word], text)
        parts = _MARKUP.split(text)
        for place in range(0, len(parts), 2):
            if parts[place].strip():
                plain = html.unescape(parts[place])
                cleaned = self.clean(plain)
                if cleaned != plain:
                    parts[place] = html.escape(cleaned, quote=False)
        return "".join(parts)


class _Index:
    """Finds which of many words stand in a text, each by the part of it that fewest others have.

    To look for one after the other would take, of a cohort's ids in a cohort's messages, the square
    of its size. The words stand alone in the text, or `within` longer ones.
    """

    def __init__(self, words: Iterable[str], *, within: bool = False) -> None:
        parts = {word: _PART.findall(word) for word in sorted(words, key=len, reverse=True)}
        if within:  # its ends may go on in the text
            parts = {word: _PART.findall(re.sub(r"^[A-Za-z0-9]+|[A-Za-z0-9]+$", "", word)) for word in parts}
        bearers = Counter(part for found in parts.values() for part in found)
        self._ranks = {word: rank for rank, word in enumerate(parts)}
        self._words: dict[str, list[str]] = defaultdict(list)
        for word, found in parts.items():
            self._words[min(found, key=bearers.__getitem__, default="")].append(word)

    def find(self, text: str) -> list[str]:
        """Return the words that stand in a text, the longest first."""
        parts = {"", *_PART.findall(text)}
        found = [word for part in parts for word in self._words.get(part, ()) if word in text]
        return sorted(found, key=self._ranks.__getitem__)


def _name_bearer(word: str) -> str:
    return "a person" if word == "the person" else "a scan"


def name_machine() -> list[str]:
    """Return the names of this machine and its user; ``root`` and the like tell nothing."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = ""
    names = {user, platform.node(), platform.node().partition(".")[0]}
    telling = [name for name in names if len(name) > 3 and name.lower() not in _TELLING_NOTHING]
    return sorted(telling, key=len, reverse=True)


def _compile_any(words: list[str], *, after: str = "", ignore_case: bool = False) -> re.Pattern[str] | None:
    if not words:
        return None
    any_of = "|".join(re.escape(word) for word in words)
    # Ids stand alone or within tokens joined by _ - or . (`case_7_left`), never within a word.
    before = after or r"(?<![A-Za-z0-9])"
    return re.compile(before + rf"({any_of})(?![A-Za-z0-9])", re.IGNORECASE if ignore_case else 0)
