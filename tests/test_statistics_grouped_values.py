"""Values in groups: moments and ranks by hand, each computed once."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.errors import SegfairError
from helpers.statistics import grouped_values
from helpers.statistics.grouped_values import GroupedValues, PairMembers, list_pairs

NAN = np.nan
VALUES = np.array([[1.0, 0.1], [3.0, 0.1], [NAN, 0.1], [5.0, NAN], [9.0, 2.0]])
CODES = np.array([0, 0, 0, 1, -1])


def test_moments_by_hand():
    found = GroupedValues(VALUES, CODES, 3).moments
    assert found.n.tolist() == [[2, 3], [1, 0], [0, 0]]
    np.testing.assert_array_equal(found.mean, [[2.0, 0.1], [5.0, NAN], [NAN, NAN]])
    # Of equal values exactly 0, whatever their rounded mean.
    np.testing.assert_array_equal(found.variance, [[2.0, 0.0], [NAN, NAN], [NAN, NAN]])


def test_ranks_are_of_those_with_a_value_and_a_group():
    found = GroupedValues(VALUES, CODES).ranks
    np.testing.assert_array_equal(found.matrix, [[1, 2], [2, 2], [NAN, 2], [3, NAN], [NAN, NAN]])
    assert found.groups == 2 and found.codes.tolist() == CODES.tolist()


def test_groups_that_do_not_count_are_hidden_and_columns_taken():
    grouped = GroupedValues(VALUES, CODES)
    hidden = grouped.keep(np.array([[True, False], [False, True]]))
    np.testing.assert_array_equal(hidden.matrix[:, 0], [1, 3, NAN, NAN, NAN])
    assert np.isnan(hidden.matrix[:, 1]).all()
    assert grouped.take([1]).matrix.shape == (5, 1)


def test_what_is_computed_is_kept(monkeypatch):
    calls = []
    original = grouped_values.summarise_columns
    monkeypatch.setattr(grouped_values, "summarise_columns", lambda given: calls.append(given) or original(given))
    grouped = GroupedValues(VALUES, CODES)
    assert grouped.moments is grouped.moments and grouped.ranks is grouped.ranks
    assert grouped.ranks.moments is grouped.ranks.moments and len(calls) == 2


def test_pairs_are_in_lexical_order_and_nobody_has_no_group():
    assert [pair.tolist() for pair in list_pairs(3)] == [[0, 0, 1], [1, 2, 2]]
    assert GroupedValues(np.empty((0, 2)), np.empty(0, int)).moments.n.shape == (0, 2)


def test_wrong_input_says_what_to_do():
    with pytest.raises(SegfairError, match="add the missing axis"):
        GroupedValues(np.zeros(4), np.zeros(4, int))
    with pytest.raises(SegfairError, match="for each of 4 subjects"):
        GroupedValues(np.zeros((4, 1)), np.zeros(3, int))
    with pytest.raises(SegfairError, match="whole number"):
        GroupedValues(np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(SegfairError, match="code the groups anew"):
        GroupedValues(np.zeros((4, 1)), np.full(4, -2))
    with pytest.raises(SegfairError, match="one for each of 2 columns"):
        PairMembers.select(GroupedValues(np.zeros((4, 2)), np.zeros(4, int)), np.array([0, 1, 0]), 1)
