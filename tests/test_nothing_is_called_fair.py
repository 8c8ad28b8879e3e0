"""Nothing is ever called fair, or fairer than something else: a gap is large, small, or not
shown."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("figures", "widgets", "explore", "demo", "vocabulary", "spatial", "performance", "inference", "report")
# Not "fairness" (the field, a room, a section of the parameters) nor FairSeg, FairMedFM (names).
CALLED_FAIR = re.compile(r"\b(un)?fair(er|est|ly)?\b", re.IGNORECASE)
# Where fairness is denied, or a wrong sentence quoted as wrong, the word must be said: these
# phrases, as they stand, and nothing else.
DENIALS = (
    "That a model is fair: *inconclusive* means",  # 03, What it cannot tell you
    "Nothing is ever called fair.",  # the rule itself
    "A signal processing approach to fair surface design",  # a reference
)


def list_texts(path: Path) -> list[str]:
    """Return a module's string literals, docstrings among them, or a notebook's cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
    if path.suffix == ".py":
        nodes = ast.walk(ast.parse(text))
        return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text]


def find_praise(folder: Path) -> list[str]:
    """Return the lines of a folder's texts in which something is called fair."""
    found = []
    for path in sorted(path for kind in ("py", "j2", "js", "ipynb") for path in folder.rglob(f"*.{kind}")):
        for text in list_texts(path):
            for phrase in DENIALS:
                text = text.replace(phrase, "")
            lines = [" ".join(line.split()) for line in text.splitlines() if CALLED_FAIR.search(line)]
            found += [f"{path.name}: {line}" for line in lines]
    return found


@pytest.mark.parametrize(
    "folder",
    ["notebooks", *(f"src/helpers/{room}" for room in ROOMS)],
)
def test_no_text_calls_anything_fair(folder):
    assert (ROOT / folder).is_dir()
    assert find_praise(ROOT / folder) == []


@pytest.mark.parametrize(
    "text", ["first model fairer →", "less fair ↑", "Is it unfair?", "The fairest of all", "A model is Fair."]
)
def test_the_rule_finds_what_it_is_for(text, tmp_path):
    (tmp_path / "made.py").write_text(f"TITLE = {text!r}\nALLOWED = 'fairness of FairSeg'\n", encoding="utf-8")
    assert find_praise(tmp_path) == [f"made.py: {text}"]
