"""A bound on errors, and the values that keep it: a lattice as coarse as it allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, inf, log1p, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.elementary import exponential
from coinpp_xr.fields import ROUNDING, PlaneFields, extremes

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]

# Of the values on a lattice; see coinpp_xr.causal.LARGEST.
LARGEST = 1 << 24
# Of a step: what predictions and shifts are in.
PARTS = 64
# Values further from zero than so many steps are counted from the middle of their range.
_FAR = 1 << 22
# Arithmetic in double precision takes this share of the bound at most.
_EXACTNESS = 1e-9
_TINY = 1e-290
# Results that the data's type rounds by more than this part of the bound want steps of their own.
_COARSE = 0.125
# Of the values, those that a lattice may leave out; and how far out they must be, in terms of the
# range of the others.
_FEW, _REACH = 0.01, 8.0
# Of a step.
_NEXT_TO_NOTHING = 1e-3
# How often a bound for an RMSE is approached.
_ATTEMPTS = 8
_CLOSE = 0.9995


@dataclass(frozen=True)
class Bound:
    """How far any value may come back from where it was.

    Parameters
    ----------
    error : float
        In the data's unit, or a fraction of the value.
    relative : bool
        Which of the two; exact zeros then stay zeros.
    """

    error: float
    relative: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether nothing may be lost."""
        return self.error == 0

    def __str__(self) -> str:
        name = "max_error_relative" if self.relative else "max_error"
        return f"{name}={self.error:g}"

    def holds(self, decoded: Floating | np.float64, values: Float64) -> Bool:
        """For which values; both in double precision."""
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(decoded - values)
            if not self.relative:
                return np.asarray(error <= (1 - _EXACTNESS) * self.error)
            # A fraction of what is next to nothing cannot be told in double precision.
            held = error <= (1 - _EXACTNESS) * self.error * np.abs(values)
            return np.asarray(np.where(np.abs(values) < _TINY, error == 0, held))


@dataclass(frozen=True)
class Lattice:
    """The values that a decoder can give back.

    Parameters
    ----------
    step : float
        Between neighbours; of the logarithm where ``relative``.
    origin : float
        What zero stands for; the smallest magnitude, which one stands for, where ``relative``.
    relative : bool
    """

    step: float
    origin: float
    relative: bool = False

    @classmethod
    def of(
        cls,
        bound: Bound,
        values: Float64,
        valid: Bool,
        spacing: float,
    ) -> Lattice:
        """The coarsest for a bound on these values.

        Parameters
        ----------
        values : float64 array
            Or what they differ from a base.
        valid : bool array
            Which of them count; at least one.
        spacing : float
            Of the numbers that results are rounded to, where they are largest; relative to the
            value where the bound is.
        """
        if bound.relative:
            magnitudes = np.abs(values)
            least = float(np.min(magnitudes, where=valid & (magnitudes > 0), initial=inf))
            error = bound.error - min(spacing, _COARSE * bound.error)
            return cls(2 * log1p(error) * (1 - _EXACTNESS), min(least, 1e300), True)
        lowest, highest = extremes(values, valid)
        if spacing == 0 or spacing / 2 < _COARSE * bound.error:
            step = 2 * (bound.error - spacing / 2) * (1 - 2 * _EXACTNESS)
        else:
            # Multiples of what the type can tell apart are not rounded at all.
            step = (2 * float(np.floor(bound.error / spacing)) + 1) * spacing
        origin = 0.0
        if step > 0 and max(-lowest, highest) > _FAR * step:
            middle = lowest / 2 + highest / 2
            origin = step * float(np.rint(middle / step)) if middle / step < 2**52 else middle
        return cls(step, origin)

    def through(self, exact: tuple[float, ...]) -> Lattice:
        """One that is no coarser, with one or two given values on it; not where ``relative``.

        The second may be off by a thousandth of a step: a bound of 0.05 wants all but ten steps
        from 0 to 1, and eleven would cost a tenth.
        """
        if not exact:
            return self
        first, distance = exact[0], abs(exact[-1] - exact[0])
        if distance == 0 or not self.step > 0:
            return replace(self, origin=first)
        steps = steps_between(distance, self.step)
        return replace(self, step=min(self.step, distance / steps), origin=first)

    def shifted(self, shift: int) -> Lattice:
        """One whose points are so many 1/64 of a step further on; not where ``relative``."""
        if shift == 0:
            return self
        return replace(self, origin=self.origin + shift / PARTS * self.step)

    def fractions(self, values: Floating, parts: int) -> Float64:
        """Where values lie, in parts of a step from the origin; of one sign where ``relative``."""
        with np.errstate(all="ignore"):
            if not self.relative:
                found = np.subtract(values, self.origin, dtype=np.float64)
                found *= parts / self.step
                return found
            return np.asarray(np.log(values.astype(np.float64) / self.origin) * (parts / self.step))

    def of_fractions(self, fractions: npt.NDArray[np.int32], parts: int) -> Float64:
        """Values of :meth:`fractions`."""
        with np.errstate(over="ignore"):
            if not self.relative:
                return np.asarray(fractions * (self.step / parts) + self.origin)
            return np.asarray(
                self.origin
                * exponential(np.multiply(fractions, self.step / parts, dtype=np.float64))
            )

    def integers(self, values: Float64) -> Float64:
        """The nearest points, as whole numbers; beyond all limits where there is none."""
        with np.errstate(all="ignore"):
            if not self.relative:
                return np.asarray(np.rint((values - self.origin) / self.step))
            rank = 1 + np.rint(np.log(np.abs(values) / self.origin) / self.step)
            return np.asarray(np.where(values == 0, 0.0, np.sign(values) * np.maximum(rank, 1)))

    def values(self, integers: Int) -> Float64:
        with np.errstate(over="ignore"):
            if not self.relative:
                return np.asarray(integers * self.step + self.origin)
            size = self.origin * exponential((np.abs(integers) - 1) * self.step)
            return np.asarray(np.sign(integers) * size)


def steps_between(distance: float, step: float) -> int:
    """How many steps of a lattice, no longer than given or by next to nothing, go into that."""
    return max(1, ceil(distance / step - _NEXT_TO_NOTHING))


def has_room(lattice: Lattice, bound: Bound) -> bool:
    """Whether values between the points of a lattice can be told in the data's type, too."""
    return lattice.relative or lattice.step > 2 * (1 - _COARSE) * bound.error * (1 - _EXACTNESS * 4)


def bound_for_rmse(
    fields: PlaneFields, target_rmse: float, mean_squared_error: Callable[[Float64], float]
) -> Bound | None:
    """The widest bound whose lattice alone, without a base, meets an RMSE.

    Parameters
    ----------
    fields : PlaneFields
    target_rmse : float
        In the data's unit.
    mean_squared_error : callable
        Of decoded values, shape (items, cells).
    """
    # Rounding errors are spread evenly, or smaller where values are few.
    error, best = sqrt(3) * target_rmse, None
    for _ in range(_ATTEMPTS):
        bound = Bound(error)
        lattice = lattice_of(bound, fields, fields.values).through(fields.exact)
        if not 0 < lattice.step < inf:
            break
        wanted = lattice.integers(fields.values)
        coded = fields.valid & (np.abs(wanted) <= LARGEST)
        decoded = lattice.values(np.where(coded, wanted, 0).astype(np.int64))
        share = sqrt(mean_squared_error(np.where(coded, decoded, fields.values))) / target_rmse
        if share <= 1 - ROUNDING and (best is None or error > best.error):
            best = bound
            if share > _CLOSE:
                break
        error *= 0.9998 / max(share, 0.5)
    return best


def _spacing(fields: PlaneFields, bound: Bound, counted: Bool) -> float:
    """Of the data's type, where the values that count are largest."""
    if fields.dtype.kind != "f":
        return 1.0
    if bound.relative:
        return float(np.finfo(fields.dtype).eps)
    number = fields.dtype.newbyteorder("=").type
    lowest, highest = extremes(fields.values, counted)
    largest = number(max(-lowest, highest, 0))
    return float(largest) - float(np.nextafter(largest, number(0)))


def lattice_of(bound: Bound, fields: PlaneFields, rest: Float64) -> Lattice:
    """The coarsest for all values, or, where a few far ones would spoil it, for all but those."""
    valid = fields.valid
    whole = Lattice.of(bound, rest, valid, _spacing(fields, bound, valid))
    if bound.relative or (whole.origin == 0 and whole.step > 2 * (1 - _COARSE) * bound.error):
        return whole
    low, high = np.quantile(rest[valid], [_FEW, 1 - _FEW])
    reach = _REACH * (high - low)
    near = valid & (rest >= low - reach) & (rest <= high + reach)
    if near.sum() == valid.sum() or not near.any():
        return whole
    return Lattice.of(bound, rest, near, _spacing(fields, bound, near))
