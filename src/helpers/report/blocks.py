"""What a report is made of: sections of blocks. Texts are plain; the renderer escapes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import pandas as pd
import plotly.graph_objects as go

from helpers.figures.panels import draw_narrow
from helpers.figures.verdict_matrix import VerdictMatrix
from helpers.vocabulary.measures import Measure
from helpers.vocabulary.verdicts import Verdict


@dataclass(frozen=True)
class Summary:
    """The box that opens the report: a few sentences, each led by a word or two."""

    sentences: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Heading:
    """A heading within a section; `key` is an anchor that cells and cards lead to."""

    text: str
    key: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph; `lead` is set off before it."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """Something the reader must not miss; ``warning`` is the stronger kind."""

    text: str
    kind: Literal["note", "warning"] = "note"


@dataclass(frozen=True)
class ReportTable:
    """A table of ready-made text; its first column heads the rows, `numeric` ones stand right.

    A `folded` table opens on a click, and is not printed. Long ones can be sorted and filtered.
    """

    caption: str
    frame: pd.DataFrame
    numeric: tuple[str, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """An interactive figure and how to read it; drawn when it is asked for, which takes a while.

    Data-borne text in what `plot` draws is already escaped. A `folded` one opens on a click.
    """

    plot: Callable[[], go.Figure]
    how_to_read: str
    folded: bool = False
    half: bool = False  # whether two of its kind stand side by side in print

    @cached_property
    def figure(self) -> go.Figure:
        """It itself."""
        return self.plot()

    @cached_property
    def narrow(self) -> go.Figure:
        """The same one, laid out for a phone."""
        with draw_narrow():
            return self.plot()


@dataclass(frozen=True)
class ScanPicture:
    """One person's organ: an SVG of our own without any text from data, and what it shows."""

    svg: str  # empty where the scan cannot be read
    caption: str


@dataclass(frozen=True)
class ReportFinding:
    """One difference that was found, told in full: a headline, and the answer to each question.

    `key` is its anchor, `links` are words and the anchors of the page that they lead to.
    """

    headline: str
    verdict: Verdict
    answers: tuple[tuple[str, str], ...]
    key: str = ""
    links: tuple[tuple[str, str], ...] = ()
    pictures: tuple[ScanPicture, ...] = ()


@dataclass(frozen=True)
class Term:
    """One entry of the glossary: a word, what it means, and an SVG of our own where one helps."""

    name: str
    meaning: str
    drawing: str = ""


@dataclass(frozen=True)
class Terms:
    """A glossary."""

    items: tuple[Term, ...]


Block: TypeAlias = (
    Summary | Heading | Text | Bullets | Note | ReportTable | Figure | VerdictMatrix | ReportFinding | Terms
)


@dataclass(frozen=True)
class ReportSection:
    """One part of the report."""

    key: str  # stable: the anchor in the page, and what a notebook asks for
    title: str  # the question it answers
    short: str  # a word or two for the table of contents
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A whole report; ``report["people"]`` is its section of that key."""

    title: str
    subtitle: str  # question, date and version
    sections: tuple[ReportSection, ...] = ()
    date: str = ""  # of the latest stage, for the margin of printed pages
    measures: tuple[Measure, ...] = ()  # the study's own: its figures are drawn with them

    def __getitem__(self, key: str) -> ReportSection:
        """Return a section by its key."""
        for section in self.sections:
            if section.key == key:
                return section
        raise KeyError(f"section must be one of {', '.join(section.key for section in self.sections)}; got {key!r}")
