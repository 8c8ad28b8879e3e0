"""What `segfair check` says of scans beside what the stages did with them: the same, both ways."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd

OUT, FAILED = " would be left out: ", " would count as failed: "


def check_problems(problems: list[str], table: pd.DataFrame, made: pd.DataFrame) -> None:
    """Assert that a check's problems are the scans left out and failed, in number and in words.

    `table` is 01's cohort, `made` what 02 returned.
    """
    left = Counter()
    for who, reason in (text.split(OUT, 1) for text in problems if OUT in text):
        left[reason] += count_scans(who)
    assert left == Counter(table.loc[~table["included"], "reason"])
    failed = made[made["status"] == "failed"]
    told = Counter()
    for who, fault in (text.split(FAILED, 1) for text in problems if FAILED in text):
        model, scans = re.fullmatch(r"models\.(.+?): (.+)", who).groups()
        told[model] += count_scans(scans)
        # A fault of several scans is told without the names of their files and of the model.
        said = failed.loc[failed["model"] == model, "error"].str.replace(f"the mask of {model}", "the mask")
        assert said.str.contains(fault, regex=False).any(), f"{model} does not fail of: {fault}"
    assert told == Counter(failed["model"])


def count_scans(who: str) -> int:
    """Return of how many scans a sentence speaks: `3 scans ('a', 'b', …)`, `scan 'a' (row 1)`."""
    number = re.match(r"(\d+) scans ", who)
    return int(number[1]) if number else 1
