"""Exact tails of the binomial distribution: the p-values of all watermarks.

A watermark is read as `trials` independent draws, each of which hits with probability p when the
key knows nothing of the suspect. The number of hits is then Bin(trials, p), exactly and at every
size, so the tail below is the p-value itself and no approximation of one.

Terms are summed in logarithms, away from the mean, where each is smaller than the one before by
more than a constant; the smallest of them stop mattering after some square roots of `trials`
steps. Rounding may make a tail too large or too small, by a few parts in 10^13 of itself
(measured against exact fractions: 1.2e-13 too small at most); no decision is that close. A tail too
small for a float comes back as the smallest float, never as zero.
"""

from math import exp, inf, lgamma, log, log1p

SMALLEST = 5e-324  # the least positive float
_NEGLIGIBLE = 1e-18  # a term of this share of the sum no longer changes it


def binomial_tail(hits: int, trials: int, p: float) -> float:
    """P[X >= hits] for X ~ Bin(trials, p), at least `SMALLEST`.

    Raises:
        ValueError: `trials` is negative or p is not strictly between 0 and 1.
    """
    return max(SMALLEST, exp(log_binomial_tail(hits, trials, p)))


def log_binomial_tail(hits: int, trials: int, p: float) -> float:
    """The natural logarithm of P[X >= hits]; minus infinity where hits > trials.

    Raises:
        ValueError: `trials` is negative or p is not strictly between 0 and 1.
    """
    _demand_distribution(trials, p)
    if hits <= 0:
        return 0.0
    if hits > trials:
        return -inf
    if hits > trials * p:
        return min(0.0, _log_sum(hits, trials, p))
    below = exp(_log_sum(trials - hits + 1, trials, 1.0 - p))  # P[X < hits], of the mirror image
    return log1p(-below) if below < 1.0 else -inf


def randomised_tail(hits: int, trials: int, p: float, u: float) -> float:
    """P[X > hits] + u P[X = hits]: uniform under the null where u is uniform on [0, 1).

    A p-value of a discrete statistic is not uniform but stochastically larger; this one is
    exactly uniform, which is what a test of the null itself (Kolmogorov-Smirnov) needs.

    Raises:
        ValueError: as `binomial_tail`, or u is not in [0, 1].
    """
    if not 0.0 <= u <= 1.0:
        raise ValueError("u is not in [0, 1]")
    above = log_binomial_tail(hits + 1, trials, p)
    return exp(above) + u * exp(_log_term(hits, trials, p))


def _log_sum(hits: int, trials: int, p: float) -> float:
    """Log P[X >= hits] for hits above the mean, where the terms only shrink."""
    odds = p / (1.0 - p)
    term = total = 1.0  # both in units of P[X = hits]
    for number in range(hits, trials):
        term *= (trials - number) / (number + 1) * odds
        total += term
        if term < total * _NEGLIGIBLE:
            break
    return _log_term(hits, trials, p) + log(total)


def _log_term(hits: int, trials: int, p: float) -> float:
    """Log P[X = hits]."""
    if not 0 <= hits <= trials:
        return -inf
    ways = lgamma(trials + 1) - lgamma(hits + 1) - lgamma(trials - hits + 1)
    return ways + hits * log(p) + (trials - hits) * log1p(-p)


def _demand_distribution(trials: int, p: float) -> None:
    if trials < 0 or not 0.0 < p < 1.0:
        raise ValueError(f"no binomial distribution: trials {trials}, p {p}")
