"""Matrix products that are the same on every machine, from any BLAS.

A sum of products depends on the order of its terms and on what is rounded between them, and every
library, processor and number of threads has its own. Sums of whole numbers below 2⁵³ do not: so
operands are rounded to whole numbers of 21 bits, in units of their row or column, before they are
multiplied. Double precision has two such slices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]

BITS = 21
# More would leave the 53 bits of a double.
MOST_TERMS = 1 << (53 - 2 * BITS)
_LEAST_EXPONENT = -500


class Operand(NamedTuple):
    """A matrix, or a stack of them, in whole numbers of up to 2²¹.

    Parameters
    ----------
    high : float64 array
        Whole numbers of units.
    low : float64 array or None
        What is left of them, in 2⁻²¹ of a unit.
    unit : float64 array
        A power of two for every row, shape (..., n, 1), or column, (..., 1, n).
    """

    high: Float64
    low: Float64 | None
    unit: Float64

    def leading(self, rows: int) -> Operand:
        """The first rows of a right operand."""
        low = None if self.low is None else self.low[:rows]
        return Operand(self.high[:rows], low, self.unit)


def left(values: Floating) -> Operand:
    """An operand with one unit per row; in one slice in single precision, else in two."""
    return _operand(values, -1)


def right(values: Floating) -> Operand:
    """One with a unit per column."""
    return _operand(values, -2)


def right_in_place(numbers: Float64, *, single: bool) -> Operand:
    """:func:`right` of numbers of either precision, whose memory becomes the operand's."""
    return _sliced(numbers, -2, single)


def _operand(values: Floating, axis: int) -> Operand:
    return _sliced(values.astype(np.float64), axis, values.dtype != np.float64)


def _sliced(numbers: Float64, axis: int, single: bool) -> Operand:
    largest = np.maximum(
        numbers.max(axis, keepdims=True, initial=0), -numbers.min(axis, keepdims=True, initial=0)
    )
    unit = unit_of(largest)
    numbers *= 1 / unit
    if single:
        return Operand(np.rint(numbers, out=numbers), None, unit)
    high = np.rint(numbers)
    numbers -= high
    numbers *= 1 << BITS
    return Operand(high, np.rint(numbers, out=numbers), unit)


def unit_of(largest: Float64) -> Float64:
    """Of the numbers of a row or column: the least power of two that none exceeds, over 2²¹."""
    fraction, exponent = np.frexp(largest)
    exponent = np.maximum(exponent - (fraction == 0.5), _LEAST_EXPONENT)
    return np.asarray(np.ldexp(1.0, exponent - BITS))


def same_product(a: Floating | Operand, b: Floating | Operand) -> Float64:
    """``a @ b`` of matrices, or stacks of them.

    Parameters
    ----------
    a : array, shape (..., m, k), or Operand
    b : array, shape (..., k, n), or Operand

    Returns
    -------
    float64 array, shape (..., m, n)
        Within some 2⁻²¹ of the largest products, or 2⁻⁴¹ where both are in double precision.
    """
    a = a if isinstance(a, Operand) else left(a)
    b = b if isinstance(b, Operand) else right(b)
    found: Float64 = exact_sums(a.high, b.high)
    if a.low is not None and b.low is not None:
        small = exact_sums(a.high, b.low)
        small += exact_sums(a.low, b.high)
        small *= 1 / (1 << BITS)
        found += small
    found *= a.unit
    found *= b.unit
    return found


def exact_sums(a: Any, b: Any) -> Any:
    """``a @ b`` of whole numbers of up to 2²¹, numpy's or torch's in double precision."""
    found = a[..., :MOST_TERMS] @ b[..., :MOST_TERMS, :]
    for start in range(MOST_TERMS, a.shape[-1], MOST_TERMS):
        part = slice(start, start + MOST_TERMS)
        found = found + a[..., part] @ b[..., part, :]
    return found
