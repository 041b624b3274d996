"""Steps and origins that leave every value in its interval."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

_GOLDEN = (sqrt(5) - 1) / 2
# How often an interval of steps is made shorter by that.
_NARROWED = 48


def room(below: Array, above: Array, numbers: Float64, step: float) -> tuple[Any, Any]:
    """The lowest and the highest origin that this step allows."""
    products = step * numbers.astype(below.dtype)
    return (below - products).max(), (above - products).min()


def roomiest(
    below: Array, above: Array, numbers: Float64, step: float, off: float
) -> tuple[float, float, float]:
    """The step that allows most origins, and the lowest and highest of those.

    The room is concave in the step: the golden section finds where it is largest.
    """
    left, right = step - 2 * off, step + 2 * off

    def width(each: float) -> Any:
        low, high = room(below, above, numbers, each)
        return high - low

    third, fourth = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
    of_third, of_fourth = width(third), width(fourth)
    for _ in range(_NARROWED):
        if of_third < of_fourth:
            left, third, of_third = third, fourth, of_fourth
            fourth = left + _GOLDEN * (right - left)
            of_fourth = width(fourth)
        else:
            right, fourth, of_fourth = fourth, third, of_third
            third = right - _GOLDEN * (right - left)
            of_third = width(third)
    middle = (left + right) / 2
    low, high = room(below, above, numbers, middle)
    return float(middle), float(low), float(high)


def roundest(low: float, high: float) -> float:
    """A number of an interval, with as few digits as there are."""
    if low <= 0 <= high:
        return 0.0
    middle = (low + high) / 2
    for digits in range(1, 17):
        told = float(f"{middle:.{digits}g}")
        if low < told < high:
            return told
    return middle
