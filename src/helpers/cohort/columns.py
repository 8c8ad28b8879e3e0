"""What the columns of somebody's table of people are, by their names and values: guesses.

A guess says what it rests on. What cannot be known, such as which sex a 1 stands for, is not
guessed but named as to be checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from helpers.cohort.numbers import count_years, read_numbers
from helpers.vocabulary.recorded import COLUMNS, MODALITIES, SEX_CODES, SEXES, SEXES_BESIDE_H, spell_word
from helpers.vocabulary.words import list_words

FEWEST_NUMBERS = 7  # a column of fewer different numbers holds codes
MOST_GROUPS = 20  # a column of more different words holds names
_MANY_PEOPLE = 30  # from here on three groups, below two
_LEAST_SHARE = 0.75  # of an equal share of people that a group keeps when edges are rounded
_SHOWN = 6  # different values told of a column


@dataclass(frozen=True)
class Recorded:
    """What a column holds, in the study's words."""

    meanings: dict[str, str] = field(default_factory=dict)  # recorded → ours, where they differ
    groups: list[str] = field(default_factory=list)  # in ours
    unsure: str = ""  # what nobody can tell from the table alone


def find_columns(table: pd.DataFrame) -> dict[str, str]:
    """Find which columns hold what, by name and else by value; our name → theirs.

    Of two columns with a name for the same thing the one with the more usual name is taken; a
    column is taken once.
    """
    spelled = {spell_word(column): column for column in reversed(list(table))}
    found: dict[str, str] = {}
    for name, words in COLUMNS.items():
        column = next((spelled[word] for word in words if word in spelled), None)
        if column is not None and column not in found.values() and table[column].notna().any():
            found[name] = column
    free = [column for column in table if column not in found.values() and table[column].notna().any()]
    tests = {"sex": _holds_sexes, "modality": _holds_modalities, "age": _holds_dicom_ages}
    for name, holds in tests.items():
        column = next((column for column in free if name not in found and holds(table[column])), None)
        if column is not None:
            found[name] = column
            free.remove(column)
    return found


def read_sex(recorded: pd.Series) -> Recorded:
    """Tell what is recorded as sex: words of five languages are mapped, codes are left as they are.

    Letters that mean one sex in one language and another in the next (M beside H, M beside V) are
    read by what stands beside them, or not at all.
    """
    words = _list_common(recorded)
    spelled = {word: spell_word(word) for word in words}
    letters = set(spelled.values())
    if {"m", "v"} <= letters:
        return Recorded(groups=words, unsure="M and V are man and woman in Dutch, woman and man in Spanish")
    known = SEXES_BESIDE_H if {"h", "m"} <= letters and not letters & {"f", "w"} else {}
    meant = {word: known.get(letter, SEXES.get(letter)) for word, letter in spelled.items()}
    if not any(meant.values()):
        usual = ", ".join(f"{code} {SEX_CODES[code]}" for code in words if code in SEX_CODES)
        return Recorded(groups=words, unsure=f"which sex is meant{f' (by ISO 5218: {usual})' if usual else ''}")
    values = {word: sex for word, sex in meant.items() if sex and word != sex}
    groups = [sex for sex in ("female", "male") if sex in meant.values()]
    foreign = [word for word, sex in meant.items() if sex is None]
    return Recorded(values, groups, f"what {list_words(map(repr, foreign))} means" if foreign else "")


def read_modality(recorded: pd.Series) -> Recorded:
    """Tell what is recorded as modality; words that are neither CT nor MR are named."""
    meant = {word: MODALITIES.get(spell_word(word)) for word in _list_common(recorded)}
    values = {word: kind for word, kind in meant.items() if kind and word != kind}
    foreign = [word for word, kind in meant.items() if kind is None]
    unsure = f"whether {list_words(map(repr, foreign))} is CT or MR" if foreign else ""
    return Recorded(values, sorted({kind for kind in meant.values() if kind}), unsure)


def read_ages(recorded: pd.Series) -> Recorded:
    """Tell which ages are written with a unit: DICOM's 063Y, 018M, or 63 with a word behind it."""
    values = {}
    for text in recorded[recorded.notna() & read_numbers(recorded).isna()].unique():
        years = _read_years(text)
        if years is not None:
            values[text] = f"{years:.4g}"
    return Recorded(dict(sorted(values.items())))


def _read_years(text: str) -> float | None:
    if (coded := count_years(text.strip().upper())) is not None:
        return coded
    worded = re.fullmatch(r"(\d{1,3})(?:years?|yearsold|yrs?|yo|jahre?|j|ans?|anos?|岁)", spell_word(text))
    return float(worded.group(1)) if worded else None


def propose_bins(numbers: pd.Series) -> list[float]:
    """Propose edges of groups of about equally many people, as round as people would choose them.

    Three groups of 30 or more people, else two. Of the steps 1, 5, 10, 50, … the largest is taken
    on which every group keeps three quarters of its equal share.
    """
    values = np.sort(numbers.dropna().to_numpy(float))
    groups = 3 if len(values) >= _MANY_PEOPLE else 2
    cuts = np.quantile(values, np.arange(1, groups) / groups)
    span = float(values[-1] - values[0]) or 1.0
    steps = [digit * 10.0**power for power in range(int(np.floor(np.log10(span))), -4, -1) for digit in (5, 1)]
    for step in steps:
        rounded = np.round(cuts / step) * step
        outer = np.floor(values[0] / step) * step, np.ceil(values[-1] / step) * step
        proposed = np.unique(np.round([outer[0], *rounded, outer[1]], 6))
        counts = count_in_bins(values, proposed)
        if len(counts) == groups and min(counts) >= _LEAST_SHARE * len(values) / groups:
            return [float(edge) for edge in proposed]
    return [float(edge) for edge in np.unique([values[0], *cuts, values[-1]])]


def count_in_bins(values: np.ndarray, edges: Sequence[float] | np.ndarray) -> list[int]:
    """Count values between edges, closed on the left, the last bin on both sides."""
    return np.histogram(values, edges)[0].tolist() if len(edges) > 1 else []


def is_numeric(recorded: pd.Series) -> bool:
    """Tell whether a column holds numbers to be cut into groups, not codes and not words."""
    numbers = read_numbers(recorded).dropna()
    return len(numbers) == recorded.notna().sum() and numbers.nunique() >= FEWEST_NUMBERS


def show_counts(recorded: pd.Series) -> str:
    """Return a column's most common values with their counts: ``F 14, M 10``."""
    counts = recorded.value_counts()
    shown = ", ".join(f"{' '.join(str(value).split())} {number}" for value, number in counts.head(_SHOWN).items())
    more = len(counts) - _SHOWN
    empty = int(recorded.isna().sum())
    return shown + (f" and {more} more" if more > 0 else "") + (f", empty {empty}" if empty else "")


def _list_common(recorded: pd.Series) -> list[str]:
    return [str(word) for word in recorded.value_counts().index]


def _holds_sexes(recorded: pd.Series) -> bool:
    words = {spell_word(word) for word in recorded.dropna().unique()}
    return len(words) == 2 and words <= set(SEXES)


def _holds_modalities(recorded: pd.Series) -> bool:
    return all(spell_word(word) in MODALITIES for word in recorded.dropna().unique())


def _holds_dicom_ages(recorded: pd.Series) -> bool:
    return bool(recorded.dropna().str.fullmatch(r"\d{3}[DWMY]").all())
