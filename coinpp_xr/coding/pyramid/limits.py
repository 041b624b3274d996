"""What decoded values keep to: a range, and values that must come back exactly; compiled.

All in 1/64 of a step, in which predictions are, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
from coinpp_xr.compiled import inlined

UNIT_BITS = 6
UNIT = 1 << UNIT_BITS
# Of fields.
LARGEST = 1 << 30
# As :attr:`Limits.free`: all predictions and values are whole numbers of steps.
WHOLE = 255


class Limits(NamedTuple):
    """What decoded values must keep to, in 1/64 of a step.

    A value that must come back exactly is a whole number of steps: zero, or ``second``. So many
    steps around them predictions are whole numbers, too, and so is what is as far from its
    prediction. Whatever the prediction, values then are at most a step apart, and those two are
    among them.

    Parameters
    ----------
    low, high : int
        No value is outside.
    free : int
        Fewer steps than this may lead from a prediction to what is no whole number; 0 where
        nothing must come back exactly, :data:`WHOLE` where everything must.
    second : int
        A multiple of 64; zero if there is no second.
    slack : int
        Of an encoder that has no bound to keep: how much further than half a step a value may be
        from where it comes back, without a step. Where errors are rare that saves more bits than
        a wider bound.
    """

    low: int = -LARGEST
    high: int = LARGEST
    free: int = 0
    second: int = 0
    slack: int = 0

    def make_sense(self) -> bool:
        """Whether there is a value that keeps to them, and room for arithmetic."""
        return -LARGEST <= self.low <= self.high <= LARGEST and self.second % UNIT == 0


@inlined
def _within(value: Any, limits: Any) -> Any:
    return at_most(at_least(value, limits.low), limits.high)


@inlined
def as_prediction(value: Any, limits: Any) -> Any:
    """A prediction that keeps to the limits."""
    value = _within(value, limits)
    if limits.free > 0:
        near = limits.free * UNIT - UNIT // 2
        whole = limits.free == WHOLE
        if whole or abs(value) <= near or abs(value - limits.second) <= near:
            value = (value + UNIT // 2) & -UNIT
    return value


@inlined
def rebuilt(predicted: Any, steps: Any, limits: Any) -> Any:
    """The value that is so many steps from its prediction."""
    value = predicted + (steps << UNIT_BITS)
    if limits.free > 0:
        if steps >= limits.free:
            value &= -UNIT
        elif steps <= -limits.free:
            value = (value + UNIT - 1) & -UNIT
    return _within(value, limits)


@inlined
def steps_to(wanted: Any, predicted: Any, limits: Any) -> Any:
    """The steps from a prediction that end within half a step of what is wanted, or almost."""
    off = wanted - predicted
    steps = np.int64(np.rint(off * (1 / UNIT)))
    if limits.slack > 0 and steps != 0:
        far = abs(off)
        if far <= UNIT // 2 + limits.slack:
            return np.int64(0)
        fewer = np.int64(np.rint((far - 0.5 * limits.slack) * (1 / UNIT)))
        steps = fewer if off > 0 else -fewer
    if limits.free > 0:
        left = wanted - rebuilt(predicted, steps, limits)
        if left > UNIT // 2:
            steps += 1
        elif left < -UNIT // 2:
            steps -= 1
    return steps
