"""How many people a margin needs: by exact formulas, by resampling a pilot, and with few masks."""

from __future__ import annotations

from bisect import bisect_left
from typing import Literal

import numpy as np
from scipy import special

from helpers.errors import SegfairError
from helpers.statistics.bootstrap import make_generator
from helpers.statistics.hypothesis_tests import find_least_p, find_squared_error

Question = Literal["difference", "equivalence"]

MOST_PEOPLE = 1_000_000  # per group: beyond it no number is given
_NODES = 400  # of the integral over the estimated standard error: power to 1e-5
_DRAWS = 1000  # of a pilot
_CHUNK = 2**22


def find_power(question: Question, sd: tuple[float, float], n: int, margin: float, alpha: float) -> float:
    """Return the chance that a study of two groups of `n` people answers a question.

    Parameters
    ----------
    question : str
        "difference": a true difference as large as the margin is found (Welch's t, two-sided).
        "equivalence": where there is no difference, it is shown to be within the margin (two
        one-sided tests).
    sd : tuple of float
        Standard deviations of the two groups, in the metric's unit; not both 0.
    n : int
        People in each group, at least 2.
    margin, alpha : float

    Notes
    -----
    Both powers are the mean of a normal probability over the χ² distribution of the estimated
    standard error: exact for equal SDs; for others as exact as Welch's test itself.

    Sources: Cohen 1988, *Statistical Power Analysis*, chapter 2; Phillips 1990, *Journal of
    Pharmacokinetics and Biopharmaceutics* 18:137 (the exact power of two one-sided tests).
    """
    number = np.array(float(n))
    squared, df = find_squared_error(number, np.square(sd[0]), number, np.square(sd[1]))
    error = np.sqrt(squared)
    # The distribution of the estimated standard error over the true one, at equal probabilities.
    ratio = np.sqrt(special.chdtri(df, 1.0 - (np.arange(_NODES) + 0.5) / _NODES) / df)
    if question == "difference":
        reach = special.stdtrit(df, 1.0 - alpha / 2.0) * ratio
        return float(np.mean(special.ndtr(margin / error - reach) + special.ndtr(-margin / error - reach)))
    room = margin / error - special.stdtrit(df, 1.0 - alpha) * ratio
    return float(np.mean(np.where(room > 0, 2.0 * special.ndtr(room) - 1.0, 0.0)))


def find_group_size(
    question: Question, sd: tuple[float, float], margin: float, *, alpha: float, power: float
) -> int | None:
    """Return the smallest number of people per group with a power, None beyond `MOST_PEOPLE`.

    See :func:`find_power`; a SegfairError for a margin or SDs that are not above 0, or a power not
    between alpha and 1.
    """
    if margin <= 0 or min(sd) < 0 or max(sd) <= 0:
        raise SegfairError(f"margin and spread must be above 0; got {margin:g} and {max(sd):g}")
    if not alpha < power < 1:
        raise SegfairError(f"power must be above alpha ({alpha:g}) and below 1; got {power:g}")

    def is_enough(n: int) -> bool:
        # The test that decides is a permutation test: very few people have too few arrangements.
        if question == "difference" and find_least_p(np.array([n, n])) > alpha:
            return False
        return find_power(question, sd, n, margin, alpha) >= power

    # More people are never worse.
    n = 2 + bisect_left(range(2, MOST_PEOPLE + 1), True, key=is_enough)
    return n if n <= MOST_PEOPLE else None


def resample_power(
    question: Question,
    groups: tuple[np.ndarray, np.ndarray],
    n: int,
    margin: float,
    alpha: float,
    *,
    seed: int,
) -> float:
    """Return the share of 1,000 resampled pilots of `n` people per group that answer a question.

    `groups`, float64, are the two groups' values, drawn with replacement about their own means: the
    spread, the skewness and the failures are the pilot's, the difference is 0 or the margin.
    """
    generator = make_generator(seed, f"plan\x1f{question}\x1f{n}")
    first, second = (values - values.mean() for values in groups)
    found = 0
    for start in range(0, _DRAWS, step := max(_CHUNK // n, 1)):
        size = min(step, _DRAWS - start)
        samples = [values[generator.integers(0, len(values), (size, n))] for values in (first, second)]
        variances = [sample.var(axis=1, ddof=1) for sample in samples]
        squared, df = find_squared_error(np.array(float(n)), variances[0], np.array(float(n)), variances[1])
        difference = samples[0].mean(axis=1) - samples[1].mean(axis=1)
        error = np.sqrt(squared)
        if question == "difference":
            hit = np.abs(difference + margin) > special.stdtrit(df, 1.0 - alpha / 2.0) * error
        else:
            hit = np.abs(difference) + special.stdtrit(df, 1.0 - alpha) * error < margin
        found += int(np.count_nonzero(hit & (squared > 0)))
    return found / _DRAWS


def count_masks(n: int, people: int, correlation: float) -> int | None:
    """Return how many of a group's `people` need an expert mask, where the rest have a proxy.

    `n` people with masks would be needed without a proxy (:func:`find_group_size`); all `people` of
    the group have the proxy's value, whose `correlation` with the score is within the group. The
    masked are a random part of the people. None where even a mask for everybody is not enough.

    Source: docs/METHODS.md, section 13; Angelopoulos, Duchi & Zrnic 2023, *PPI++*, section 6.
    """
    if people < n:
        return None
    room = 1.0 / n - correlation**2 / people
    return min(int(np.ceil((1.0 - correlation**2) / room - 1e-9)), n) if room > 0 else n
