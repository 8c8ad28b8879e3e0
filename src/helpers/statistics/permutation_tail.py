"""p-values from permutations: by the tail of their distribution, and adjusted for their number."""

from __future__ import annotations

import numpy as np

FEWEST_BEYOND = 10  # permutations at least as extreme, from which on their share alone is the p-value
LARGEST_TAIL, SMALLEST_TAIL = 250, 50  # of the largest permuted statistics, to which the tail is fitted
TAIL_SHARE = 0.1  # of the permutations, which the tail may hold
# Of Anderson and Darling's A², for generalised Pareto tails fitted as here: exceeded by chance in
# 5 % or less, by simulation (50 to 250 values, shapes 0 to 0.4).
LARGEST_MISFIT = 1.12

# Equal statistics of different permutations differ by rounding: they count as equal.
_ROUNDING = 1e-9


def count_beyond(permuted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Count the permutations at least as extreme as each test, int64, (tests,).

    `permuted`, float64, (permutations, tests); `observed`, float64, (tests,).
    """
    return (permuted >= observed - _ROUNDING * np.maximum(1.0, np.abs(observed))).sum(axis=0)


def find_permutation_p(permuted: np.ndarray, observed: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Return the p-value of each test by its permutations, and beyond them by their tail, (tests,).

    `permuted`, float64, (permutations, tests), are −log of a p-value by a formula, under
    permutation: near an exponential distribution; `observed`, (tests,), the same of the data. No
    p-value taken from the tail is below `least`, (tests,); NaN: none is taken from the tail.

    Notes
    -----
    Where fewer than :data:`FEWEST_BEYOND` are at least as large, a generalised Pareto distribution
    is fitted to the largest by probability-weighted moments, and to fewer of them where it does not
    fit; where none fits, the share stays. Its shape is kept from being bounded, which on the scale
    of −log p makes p too large rather than too small.

    Sources: Knijnenburg et al. 2009, *Bioinformatics* 25:i161; Winkler et al. 2016, *NeuroImage*
    141:502; Hosking & Wallis 1987, *Technometrics* 29:339; Choulakian & Stephens 2001,
    *Technometrics* 43:478.
    """
    share = (1.0 + count_beyond(permuted, observed)) / (1.0 + len(permuted))
    far = np.flatnonzero((share * (1.0 + len(permuted)) < 1.0 + FEWEST_BEYOND) & np.isfinite(least))
    longest = min(LARGEST_TAIL, int(TAIL_SHARE * len(permuted)))
    if longest < SMALLEST_TAIL or not len(far):
        return share
    tails = -np.sort(-np.partition(permuted[:, far], -longest - 1, axis=0)[-longest - 1 :], axis=0)
    found, left = np.full(len(far), np.nan), np.ones(len(far), bool)
    for length in range(longest, SMALLEST_TAIL - 1, -SMALLEST_TAIL):
        p, fits = _extrapolate(tails[: length + 1], observed[far], length / len(permuted))
        found = np.where(left & fits, p, found)
        left &= ~fits
    # The tail refines the share where the permutations end; it never makes a test less certain.
    share[far] = np.where(left, share[far], np.minimum(np.maximum(found, least[far]), share[far]))
    return share


def step_down(observed: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Adjust p-values, (tests,), by the largest statistic of the tests not yet rejected.

    `observed`, (tests,), on one scale, larger is stronger evidence; `permuted`, (permutations,
    tests), the same where nothing is to be found, drawn jointly; no NaN.

    Holm's method prepares for the worst dependence between tests. Tests of the same people are
    strongly dependent; permuting whole people keeps that dependence in the null distribution, and
    the adjustment then is as small as it may be. Westfall & Young 1993, *Resampling-Based Multiple
    Testing*, algorithm 2.8; Ge, Dudoit & Speed 2003, *TEST* 12:1, box 2.
    """
    order = np.argsort(-observed, kind="stable")
    # From the weakest test upwards: the largest among the tests not yet rejected.
    successive = np.maximum.accumulate(permuted[:, order[::-1]], axis=1)[:, ::-1]
    adjusted = np.empty_like(observed)
    share = (1.0 + count_beyond(successive, observed[order])) / (1.0 + len(permuted))
    adjusted[order] = np.maximum.accumulate(share)
    return adjusted


def even_out(permuted: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring tests to one scale, −log p by each one's own permutations: permuted and observed.

    Shapes are those of :func:`find_permutation_p`. Beyond the tail's threshold the scale goes on as
    an exponential distribution of the tail's mean excess. Where formulas are further off for some
    tests than for others (failures in small groups, say), the largest of all would else be theirs
    alone: as with Westfall & Young's min-p, but without its coarse steps.
    """
    permuted, observed = permuted.copy(), observed.copy()
    number = len(permuted)
    length = max(min(LARGEST_TAIL, int(TAIL_SHARE * number)), 1)
    for column in range(permuted.shape[1]):
        ordered = np.sort(permuted[:, column])
        threshold = ordered[-length]
        scale = max(float(np.mean(ordered[-length:] - threshold)), 1e-9)
        for part in (permuted[:, column], observed[column : column + 1]):
            beyond = number - np.searchsorted(ordered, part - _ROUNDING * np.maximum(1.0, np.abs(part)))
            share = -np.log(np.maximum(beyond, length) / number)
            part[:] = share + np.maximum(part - threshold, 0.0) / scale
    return permuted, observed


def _extrapolate(tails: np.ndarray, observed: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return p by the tail fitted to the largest values, and whether it fits; (tests,) each.

    `tails`, (length + 1, tests), descend: the last one is only for the threshold.
    """
    length = len(tails) - 1
    threshold = (tails[-2] + tails[-1]) / 2.0
    excess = (tails[:-1] - threshold)[::-1]
    place = np.arange(1, length + 1)[:, None]
    first = excess.mean(axis=0)
    second = ((1.0 - (place - 0.35) / length) * excess).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = 2.0 - first / (first - 2.0 * second)
        light = ~(shape > 1e-6)
        shape = np.where(light, 0.0, shape)
        scale = np.where(light, first, 2.0 * first * second / (first - 2.0 * second))

        def log_survival(beyond: np.ndarray) -> np.ndarray:
            bent = -np.log1p(shape * np.maximum(beyond, 0.0) / scale) / np.where(light, 1.0, shape)
            return np.where(light, -np.maximum(beyond, 0.0) / scale, bent)

        upper = log_survival(excess)
        lower = np.log(np.clip(-np.expm1(upper), 1e-300, 1.0))
        misfit = -length - ((2 * place - 1) * (lower + upper[::-1])).mean(axis=0)
        p = share * np.exp(log_survival(observed - threshold))
    # A tail that ends sooner than an exponential one makes p too large: it may be used as it is.
    return p, np.isfinite(p) & (scale > 0) & (light | (misfit <= LARGEST_MISFIT)) & (observed >= threshold)
