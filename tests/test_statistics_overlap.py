"""Overlap: exceptions counted by hand and by brute force, and what is said of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.statistics.covariates import encode_covariates
from helpers.statistics.overlap import count_exceptions, explain_pair

NUMBERS = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 7.5]), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(first=NUMBERS, second=NUMBERS)
def test_exceptions_are_as_few_as_any_rule_leaves(first, second):
    one, other = np.array(first), np.array(second)
    cuts = [-1.0, *first, *second]
    least = min(min((one > cut).sum() + (other <= cut).sum(), (one <= cut).sum() + (other > cut).sum()) for cut in cuts)
    assert count_exceptions(one, other, ordered=True)[0] == least
    alike = sum(min((one == level).sum(), (other == level).sum()) for level in {*first, *second})
    assert count_exceptions(one, other, ordered=False)[0] == alike


def tell(first, second, least=5):
    covariate = encode_covariates(pd.DataFrame({"scan_site": [*first, *second]}))[0]
    sides = [np.arange(len(first)), np.arange(len(first), len(first) + len(second))]
    return explain_pair("sex", ("female", "male"), covariate, sides, least)


def test_counts_are_told_in_words_for_levels_and_numbers():
    assert tell(["B"] * 12 + ["A"], ["A"] * 11) == (
        "sex and scan site cannot be told apart here: nearly all 13 in “female” have scan site B, "
        "all 11 in “male” have A"
    )
    assert tell(list("BBBCCDEFG"), list("AAAAAAAAAB")) == (
        "sex and scan site cannot be told apart here: all 9 in “female” have scan site B, C, D or 3 others, "
        "nearly all 10 in “male” have A"
    )
    assert tell([60.0, 70.0, 80.0, 90.0, 20.0], [20.0, 30.0, 40.0, 50.0]) == (
        "sex and scan site cannot be told apart here: nearly all 5 in “female” have scan site above 50, "
        "all 4 in “male” have up to 50"
    )


def test_as_many_exceptions_as_asked_for_tell_nothing():
    women, men = ["B"] * 10 + ["A"] * 3, ["A"] * 10 + ["B"] * 2
    assert tell(women, men) == "" and tell(women, men, least=6) != ""
    assert tell([1.0, np.nan], [np.nan, np.nan]) == "", "nobody of the second group is known"
