"""Scores of many cases: their mean with its uncertainty, and whether two models differ.

Participants are what is drawn from a population: sessions and seeds of one participant are
averaged first, and participants are resampled. A score that is undefined (NaN, infinite) leaves
its case out, and that is counted; of two models a case counts where both are defined.

Below ``MIN_VALUES`` participants there are neither intervals nor p-values: of 5 no permutation of
signs can give a two-sided p below 2 / 2^5 = 0.06, and the interval of so few covers the truth
too rarely. It is 6, from where on both can mean something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_VALUES = 6
LEVEL = 0.95
RESAMPLES = 10_000
EXACT = 16  # participants up to which all 2^n signs are tried


@dataclass(frozen=True)
class Comparison:
    """Two models on the same cases; NaN where undefined.

    Attributes
    ----------
    first, second : means over participants.
    difference : second less first.
    low, high : ends of its interval.
    p : two-sided, signs of the participants' differences permuted.
    p_wilcoxon : two-sided, signed ranks.
    participants : with both scores defined.
    undefined : cases left out.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_wilcoxon: float
    participants: int
    undefined: int


def compare_models(
    first: Sequence[float],
    second: Sequence[float],
    participants: Sequence[str],
    *,
    random: np.random.Generator,
    level: float = LEVEL,
) -> Comparison:
    """Compare the scores of two models on the same cases.

    Parameters
    ----------
    first, second : one score per case, in the same order; NaN is undefined.
    participants : whose case it is.
    random : draws resamples and, of many participants, signs.
    level : of the interval of the difference.
    """
    scores = np.stack([np.asarray(first, float), np.asarray(second, float)], axis=1)
    means, undefined = _by_participant(scores, participants)
    differences = means[:, 1] - means[:, 0]
    low, high = interval(differences, random=random, level=level)
    return Comparison(
        first=_mean(means[:, 0]),
        second=_mean(means[:, 1]),
        difference=_mean(differences),
        low=low,
        high=high,
        p=permutation_p(differences, random=random),
        p_wilcoxon=wilcoxon_p(differences),
        participants=len(means),
        undefined=undefined,
    )


def interval(
    values: np.ndarray, *, random: np.random.Generator, level: float = LEVEL
) -> tuple[float, float]:
    """Bootstrap interval of a mean; NaN below ``MIN_VALUES`` values.

    The expanded percentile interval (Hesterberg, Am Stat 2015;69:371): percentiles of the
    resampled means, further out by what the plain ones are known to be too narrow in small
    samples.

    Parameters
    ----------
    values : one per participant.
    """
    count = len(values)
    if count < MIN_VALUES:
        return math.nan, math.nan
    from scipy import stats

    tail = stats.norm.cdf(math.sqrt(count / (count - 1)) * stats.t.ppf((1 - level) / 2, count - 1))
    means = values[random.integers(0, count, (RESAMPLES, count))].mean(axis=1)
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def permutation_p(differences: np.ndarray, *, random: np.random.Generator) -> float:
    """Two-sided p that a mean difference arises if signs mean nothing; NaN below ``MIN_VALUES``.

    Up to 16 participants all signs are tried, of more 10000, the observed among them
    (Phipson and Smyth, Stat Appl Genet Mol Biol 2010;9:39).

    Parameters
    ----------
    differences : one per participant.
    """
    count = len(differences)
    if count < MIN_VALUES:
        return math.nan
    if count <= EXACT:
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
    else:
        bits = random.integers(0, 2, (RESAMPLES, count))
        bits[0] = 0
    sums = np.abs((1 - 2 * bits) @ differences)
    # rounding: the same sum in another order is as large
    return float((sums >= abs(differences.sum()) * (1 - 1e-9) - 1e-12).mean())


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, zeros left out; NaN below ``MIN_VALUES``."""
    if len(differences) < MIN_VALUES:
        return math.nan
    if not differences.any():
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon(differences, zero_method='wilcox').pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p-values of one family, adjusted by Holm's step-down (Scand J Stat 1979;6:65).

    Undefined ones (NaN) stay so and are not counted.
    """
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    adjusted = [math.nan] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted


def _by_participant(scores: np.ndarray, participants: Sequence[str]) -> tuple[np.ndarray, int]:
    """Means (participants, columns) of the rows that are finite, and how many are not."""
    if len(scores) != len(participants):
        raise ValueError(f'{len(scores)} scores of {len(participants)} cases')
    finite = np.isfinite(scores).all(axis=1)
    names = np.asarray(participants, str)[finite]
    means = [scores[finite][names == name].mean(axis=0) for name in sorted(set(names.tolist()))]
    return np.array(means).reshape(-1, scores.shape[1]), int((~finite).sum())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
