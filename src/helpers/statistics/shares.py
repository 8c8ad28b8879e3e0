"""Shares of people: how far apart those of two groups are, and an exact test over all groups."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import special, stats

from helpers.statistics.bootstrap import make_generator

# Tables are drawn until so many are no likelier than what was seen: p is then known to a tenth.
_ENOUGH = 100
_MOST_DRAWS = 160_000


def bound_shares(
    counts: np.ndarray, number: np.ndarray, tail: np.ndarray | float, *, method: Literal["wilson", "beta"] = "wilson"
) -> tuple[np.ndarray, np.ndarray]:
    """Bound shares by Wilson's score interval, or Clopper and Pearson's exact one (``beta``).

    `counts` of `number` people, int, of one shape; `tail` is the error at each end. Low and
    high, float64; NaN where there is nobody. The exact upper end of nobody in n people is
    1 − tail^(1/n), about 3/n for a tail of 5 %.

    Sources: Wilson 1927, *JASA* 22:209; Clopper & Pearson 1934, *Biometrika* 26:404; computed by
    statsmodels.
    """
    from statsmodels.stats.proportion import proportion_confint

    there = np.asarray(number) > 0
    bounds = proportion_confint(
        np.where(there, counts, 0), np.where(there, number, 1), alpha=2 * np.asarray(tail), method=method
    )
    low, high = (np.where(there, bound, np.nan) for bound in bounds)
    return low, high


def bound_differences(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], tail: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Bound the difference of two shares, first − second, by Newcombe's hybrid score interval.

    `first` and `second` are how many of how many people, int arrays of one shape; `tail` is the
    error allowed at each end. Low and high, float64; NaN where a group has nobody.

    Source: Newcombe 1998, *Statistics in Medicine* 17:873, method 10; computed by statsmodels.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    there = (np.asarray(first[1]) > 0) & (np.asarray(second[1]) > 0)
    tables = [
        np.where(there, part, nobody) for one in (first, second) for part, nobody in zip(one, (0, 1), strict=True)
    ]
    bounds = confint_proportions_2indep(*tables, method="newcomb", compare="diff", alpha=2 * np.asarray(tail))
    low, high = (np.where(there, bound, np.nan) for bound in bounds)
    return low, high


@lru_cache(maxsize=4096)
def compare_shares(counts: tuple[int, ...], number: tuple[int, ...], seed: int, draws: int = 5000) -> float:
    """Test exactly whether a share is the same in all groups; NaN if nobody is counted, or all.

    `counts` of `number` people by group. Of two groups Fisher's exact test; of more its extension,
    with tables drawn that have the same margins: at least `draws`, and up to 160,000 until a
    hundred of them are no likelier than what was seen.

    Sources: Fisher 1935; Freeman & Halton 1951, *Biometrika* 38:141; for the p of draws Phipson &
    Smyth 2010, *SAGMB* 9:39.
    """
    total, people = sum(counts), sum(number)
    if len(number) < 2 or total in (0, people):
        return float("nan")
    if len(number) == 2:
        rest = [n - one for one, n in zip(counts, number, strict=True)]
        return float(stats.fisher_exact([counts, rest]).pvalue)
    generator = make_generator(seed, f"shares {counts} of {number}")
    seen = _weigh(np.array([counts]), np.array(number))[0]
    alike = made = 0
    while made < draws or (alike < _ENOUGH and made < _MOST_DRAWS):
        # As many again as there are: few rounds, whatever p is.
        drawn = generator.multivariate_hypergeometric(number, total, size=max(made, draws))
        alike += int((_weigh(drawn, np.array(number)) <= seen + 1e-9).sum())
        made += len(drawn)
    return (alike + 1) / (made + 1)


def _weigh(counts: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the log probability, but for a constant, of tables (tables, groups)."""
    return -(special.gammaln(counts + 1) + special.gammaln(number - counts + 1)).sum(axis=1)
