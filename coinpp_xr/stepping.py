"""The search for the step that meets an error or a size, in few trials."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Protocol, TypeVar

import numpy as np

from coinpp_xr.quantization import STEPS_PER_OCTAVE

# Steps that single precision can count with.
MOST_EXPONENT = 110 * STEPS_PER_OCTAVE
# Trials in all, and at least after the first within the limit.
_ATTEMPTS, _MORE = 10, 6
# What is within this share of the limit is close enough.
_CLOSE = 0.985
# Octaves from one trial to the next, at most.
_FARTHEST = 12


class Coded(Protocol):
    """What a trial returns; steps are 2^(exponent / 64)."""

    @property
    def exponent(self) -> int: ...


Trial = TypeVar("Trial", bound=Coded)


def search_step(
    code: Callable[[int], Trial],
    measure: Callable[[Trial], float],
    curve: Callable[[int], float],
    limit: float,
    *,
    growing: bool,
    start: int,
) -> Trial | None:
    """The trial closest to a limit of those within it.

    Parameters
    ----------
    code : callable
        Makes a trial at an exponent.
    measure : callable
        What is limited: non-negative, and monotonic but for small jumps.
    curve : callable
        The same roughly, by the exponent; it is corrected by what trials were measured to have.
    limit : float
    growing : bool
        Whether it grows with the step, as errors do, or falls, as sizes do.
    start : int
        The first exponent to look at on the curve.

    Returns
    -------
    trial or None
        None if all trials were beyond the limit.

    Raises
    ------
    OverflowError
        If the very first step was too small for the values.
    """
    sign = 1 if growing else -1
    # A little inside of the limit, so that it is met.
    wanted = log2(limit) + 0.5 * log2(_CLOSE)
    best: Trial | None = None
    inside: int | None = None  # the closest known to be within the limit
    outside: int | None = None
    points: dict[int, float] = {}  # what to add to the curve
    exponent, move, gap = _met(curve, points, wanted, start, sign), 0, 1 << 30
    # Something within the limit is worth any number of trials; getting closer to it is not.
    left = _ATTEMPTS
    while best is None or left > 0:
        left -= 1
        try:
            trial = code(exponent)
        except OverflowError:  # too fine a step for the values
            if best is None:
                raise
            break
        value = measure(trial)
        points[exponent] = log2(max(value, 1e-300)) - log2(max(curve(exponent), 1e-300))
        if value <= limit:
            if best is None:
                left = max(left, _MORE)
            if inside is None or sign * (exponent - inside) > 0:
                best, inside = trial, exponent
            if value >= _CLOSE * limit:
                break
        elif outside is None or sign * (exponent - outside) < 0:
            outside = exponent
        if inside is not None and outside is not None and abs(inside - outside) <= 1:
            break
        following = _met(curve, points, wanted, exponent, sign)
        if inside is not None and outside is not None:
            low, high = sorted((inside, outside))
            following = min(max(following, low + 1), high - 1)
            if 2 * (high - low) > gap + 2:  # one side is steep and draws all trials to the other
                following = (low + high) // 2
            gap = high - low
        elif inside is not None:
            following += sign * (following == exponent)
        else:
            # Where the error is that of noise, it hardly depends on the step: do not creep.
            least = 2 * move or 1
            following = min(following, exponent - sign * least, key=lambda e: sign * e)
        if following in points or abs(following) > MOST_EXPONENT:
            break
        if value <= limit and abs(following - exponent) <= 1:
            break  # one step is 1 % of an error or a size: not worth a trial
        move, exponent = abs(following - exponent), following
    return best


def _met(
    curve: Callable[[int], float], points: dict[int, float], wanted: float, around: int, sign: int
) -> int:
    """Where the corrected curve, in logarithms, is as wanted or just within."""
    known = sorted(points)

    def excess(exponent: int) -> float:
        value = log2(max(curve(exponent), 1e-300)) - wanted
        if known:
            value += float(np.interp(exponent, known, [points[e] for e in known]))
        return value

    reach = sign * _FARTHEST * STEPS_PER_OCTAVE
    good = min(max(around - reach, -MOST_EXPONENT), MOST_EXPONENT)
    bad = min(max(around + reach, -MOST_EXPONENT), MOST_EXPONENT)
    if excess(bad) <= 0:
        return bad
    while abs(good - bad) > 1:
        middle = (good + bad) // 2
        if excess(middle) <= 0:
            good = middle
        else:
            bad = middle
    return good
