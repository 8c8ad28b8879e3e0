"""Counts of too few people, hidden so that they do not follow from the counts beside them."""

from __future__ import annotations

import numpy as np


def hide_counts(counts: np.ndarray, least: int) -> np.ndarray:
    """Tell which cells of a table of counts may not be shown beside the sums of its lines.

    `counts`, int, of any number of axes, are people by groups; along each axis somebody may know
    the sums. Returns bool, as `counts`: cells of fewer than `least` people, but not of none, and
    the smallest other cell of every line in which one alone would be hidden (complementary
    suppression: Hundepool et al., Statistical Disclosure Control, 2012, 4.2).
    """
    hidden = (counts > 0) & (counts < least)
    changed = counts.size > 0  # no group is large enough: there is nothing to hide
    while changed:
        changed = False
        for axis in range(counts.ndim):
            of_lines = np.moveaxis(counts, axis, -1).reshape(-1, counts.shape[axis])
            places = np.moveaxis(np.arange(counts.size).reshape(counts.shape), axis, -1).reshape(of_lines.shape)
            for line, place in zip(of_lines, places, strict=True):
                shown = (line > 0) & ~hidden.flat[place]
                if hidden.flat[place].sum() == 1 and shown.any():
                    hidden.flat[place[np.argmin(np.where(shown, line, np.iinfo(line.dtype).max))]] = True
                    changed = True
    return hidden
