"""Steps and origins that leave every value in its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


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
    for _ in range(70):
        third, fourth = left + 0.382 * (right - left), left + 0.618 * (right - left)
        (low, high), (other_low, other_high) = (
            room(below, above, numbers, each) for each in (third, fourth)
        )
        if high - low < other_high - other_low:
            left = third
        else:
            right = fourth
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
