"""The error bound: what a base misses, on a lattice fine enough for every value.

Fields are what the base says plus a whole number of steps, and no step is wider than twice the
bound. The whole numbers are coded without loss (:mod:`coinpp_xr.causal`), in integers only, so
that they are the same everywhere; the base may differ by its rounding on another machine, which
the steps leave room for. Cells that rounding would take beyond the bound are kept exactly.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, log1p, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.models import Model
from coinpp_xr.reference import FRACTION
from coinpp_xr.schemes import ROUNDING, PlaneFields, Sequences, round_to

if TYPE_CHECKING:
    from coinpp_xr import causal

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]

# Of the values on a lattice; see coinpp_xr.causal.LARGEST.
_LARGEST = 1 << 24
# Values further from zero than so many steps are counted from the middle of their range.
_FAR = 1 << 22
# Arithmetic in double precision takes this share of the bound at most.
_EXACTNESS = 1e-9
_TINY = 1e-290
# Bases come from single precision, which machines round differently: by this share of the
# largest value. Where that is a large part of the bound, there is no use in a base.
_SHAKE = 2e-6
_MOST_SHAKE = 0.05
# Results that the data's type rounds by more than this part of the bound want steps of their own.
_COARSE = 0.125

# Of the values, those that a lattice may leave out; and how far out they must be, in terms of the
# range of the others.
_FEW, _REACH = 0.01, 8.0
# How often a bound for an RMSE is approached.
_ATTEMPTS = 8
_CLOSE = 0.9995
# A chunk of more is not one of globes.
MOST_ITEMS = 1 << 20
# All that is remembered of a globe takes some 150 bytes a cell.
_MOST_CELLS = 1 << 24
# No value takes less: two decisions that are as sure as can be.
_LEAST_BITS = 4e-5

_HEADER = struct.Struct("<ddB")
_THOROUGH, _AROUND, _RELATIVE = 1, 2, 4


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

    def __str__(self) -> str:
        name = "max_error_relative" if self.relative else "max_error"
        return f"{name}={self.error:g}"

    def holds(self, decoded: Floating, values: Float64) -> Bool:
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
        shake: float,
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
        shake : float
            What the base may differ by between machines.
        """
        if bound.relative:
            magnitudes = np.abs(values)
            least = float(np.min(magnitudes, where=valid & (magnitudes > 0), initial=inf))
            error = bound.error - min(spacing, _COARSE * bound.error)
            return cls(2 * log1p(error) * (1 - _EXACTNESS), min(least, 1e300), True)
        lowest = float(np.min(values, where=valid, initial=inf))
        highest = float(np.max(values, where=valid, initial=-inf))
        if spacing == 0 or spacing / 2 < _COARSE * bound.error:
            step = 2 * (bound.error - spacing / 2 - shake) * (1 - 2 * _EXACTNESS)
        else:
            # Multiples of what the type can tell apart are not rounded at all.
            step = (2 * float(np.floor(bound.error / spacing)) + 1) * spacing
        origin = 0.0
        if step > 0 and max(-lowest, highest) > _FAR * step:
            middle = lowest / 2 + highest / 2
            origin = step * float(np.rint(middle / step)) if middle / step < 2**52 else middle
        return cls(step, origin)

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
            size = self.origin * np.exp((np.abs(integers) - 1) * self.step)
            return np.asarray(np.sign(integers) * size)


@dataclass(frozen=True, eq=False)
class Residual:
    """What makes the error of fields stay within a bound.

    Parameters
    ----------
    section : bytes
        For :func:`decode`.
    kept : bool array, shape (items, cells)
        Valid cells that must be stored exactly.
    """

    section: bytes
    kept: Bool


def encode(
    fields: PlaneFields,
    bound: Bound,
    sequences: Sequences,
    base: Floating | None = None,
    model: Model | None = None,
    *,
    thorough: bool = True,
) -> Residual | None:
    """Code what brings the fields within a bound.

    Parameters
    ----------
    fields : PlaneFields
    bound : Bound
    sequences : Sequences
        Of all items, those that hold nothing among them.
    base : array, shape (items, cells), optional
        What a decoder knows already, in the data's unit; not for relative bounds.
    model : Model, optional
        Whose reference to start from, instead of a base.
    thorough : bool
        See :func:`coinpp_xr.causal.encode`.

    Returns
    -------
    Residual or None
        None where a base is too uncertain for such a bound, or no longer the same because of
        cells that must be kept; where there is no reference for this grid or bound.
    """
    valid = fields.valid
    rest = fields.values if base is None else fields.values - base
    shake = 0.0
    if base is not None:
        shake = _SHAKE * float(np.abs(base).max(initial=0))
        if bound.relative or shake > _MOST_SHAKE * bound.error:
            return None
    lattice = _lattice(bound, fields, rest, shake)
    items, cells = fields.values.shape
    if not 0 < lattice.step < inf or items > MOST_ITEMS or cells > _MOST_CELLS:
        return None
    allowed = replace(bound, error=bound.error - shake)
    coded = np.empty_like(valid)

    def integers_of(item: int) -> Float64:
        wanted = lattice.integers(rest[item])
        return np.where(valid[item] & (np.abs(wanted) <= _LARGEST), wanted, np.nan)

    for item in range(len(coded)):
        integers = integers_of(item)
        decoded = lattice.values(np.nan_to_num(integers).astype(np.int64))
        decoded = decoded if base is None else decoded + base[item]
        rounded = round_to(decoded, fields.dtype).astype(np.float64)
        within = allowed.holds(rounded, fields.values[item])
        coded[item] = ~np.isnan(integers) & within
    if base is not None and not (coded.any(axis=1) == fields.present).all():
        return None
    shape = fields.grid.shape

    def globe_of(item: int) -> tuple[Int, Bool]:
        integers = np.where(coded[item], integers_of(item), 0).astype(np.int64)
        return integers.reshape(shape), coded[item].reshape(shape)

    from coinpp_xr import causal  # compiles, or loads what was compiled

    thorough = thorough and causal.can_look_around(shape)
    around = fields.grid.goes_around
    grid = fields.grid if isinstance(fields.grid, SphereGrid) else None
    prior = _prior(model, grid, shape, lattice, around, thorough)
    if prior is None:
        return None
    stream = causal.encode(sequences.order, globe_of, prior, around=around)
    flags = _THOROUGH * thorough | _AROUND * around | _RELATIVE * bound.relative
    header = _HEADER.pack(lattice.step, lattice.origin, flags)
    return Residual(header + stream, valid & ~coded)


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
        lattice = _lattice(bound, fields, fields.values, 0)
        if not 0 < lattice.step < inf:
            break
        wanted = lattice.integers(fields.values)
        coded = fields.valid & (np.abs(wanted) <= _LARGEST)
        decoded = lattice.values(np.where(coded, wanted, 0).astype(np.int64))
        share = sqrt(mean_squared_error(np.where(coded, decoded, fields.values))) / target_rmse
        if share <= 1 - ROUNDING and (best is None or error > best.error):
            best = bound
            if share > _CLOSE:
                break
        error *= 0.9998 / max(share, 0.5)
    return best


def _prior(
    model: Model | None,
    grid: SphereGrid | None,
    shape: tuple[int, int],
    lattice: Lattice,
    around: bool,
    thorough: bool,
) -> causal.Prior | None:
    """What is known before a chunk, to be changed; None where there is no such reference."""
    from coinpp_xr import causal

    if model is None:
        return causal.no_prior(shape, thorough=thorough)
    if grid is None or lattice.relative:
        return None
    learned = _learned(model, grid, lattice, around, thorough)
    return None if learned is None else causal.copy_of(learned)


@lru_cache(maxsize=4)
def _learned(
    model: Model, grid: SphereGrid, lattice: Lattice, around: bool, thorough: bool
) -> causal.Prior | None:
    """From the model's reference; the same for chunk after chunk, and never changed."""
    from coinpp_xr import causal

    reference = None if model.reference is None else model.reference.on(grid)
    if reference is None:
        return None
    integers = lattice.integers(model.offset + reference / FRACTION)
    if not np.abs(integers).max() <= _LARGEST:
        return None
    return causal.prior_of(integers.astype(np.int64), around=around, thorough=thorough)


def _spacing(fields: PlaneFields, bound: Bound, counted: Bool) -> float:
    """Of the data's type, where the values that count are largest."""
    if fields.dtype.kind != "f":
        return 1.0
    if bound.relative:
        return float(np.finfo(fields.dtype).eps)
    number = fields.dtype.newbyteorder("=").type
    largest = number(np.abs(fields.values).max(where=counted, initial=0))
    return float(largest) - float(np.nextafter(largest, number(0)))


def _lattice(bound: Bound, fields: PlaneFields, rest: Float64, shake: float) -> Lattice:
    """The coarsest for all values, or, where a few far ones would spoil it, for all but those."""
    valid = fields.valid
    whole = Lattice.of(bound, rest, valid, _spacing(fields, bound, valid), shake)
    usual = 2 * (bound.error - shake)
    if bound.relative or (whole.origin == 0 and whole.step > (1 - _COARSE) * usual):
        return whole
    low, high = np.quantile(rest[valid], [_FEW, 1 - _FEW])
    reach = _REACH * (high - low)
    near = valid & (rest >= low - reach) & (rest <= high + reach)
    if near.sum() == valid.sum() or not near.any():
        return whole
    return Lattice.of(bound, rest, near, _spacing(fields, bound, near), shake)


def decode(
    section: bytes,
    mask: Bool | None,
    shape: tuple[int, int],
    sequences: Sequences,
    base: Floating | None = None,
    model: Model | None = None,
    grid: SphereGrid | None = None,
) -> Float64:
    """Fields of :func:`encode`, shape (items, cells); anything where masked.

    Parameters
    ----------
    mask : bool array, shape (items, cells), or None
        Cells that are not coded.
    shape : (n_lat, n_lon)

    Raises
    ------
    CorruptPayloadError
    """
    if len(section) < _HEADER.size:
        raise CorruptPayloadError("the residual is cut short")
    step, origin, flags = _HEADER.unpack_from(section)
    if not (0 < step < inf and abs(origin) < inf and flags < 8):
        raise CorruptPayloadError("the residual's header is damaged")
    items = sequences.order.size
    values = items * shape[0] * shape[1] - (0 if mask is None else int(mask.sum()))
    if shape[0] * shape[1] > _MOST_CELLS:
        raise CorruptPayloadError("the residual claims more cells than a globe may have")
    if items > MOST_ITEMS or _LEAST_BITS * values > 8 * len(section):
        raise CorruptPayloadError("the residual is too short for its shape")
    everywhere = np.ones(shape, np.bool_)

    def valid_of(item: int) -> Bool:
        return everywhere if mask is None else ~mask[item].reshape(shape)

    from coinpp_xr import causal  # compiles, or loads what was compiled

    if flags & _THOROUGH and not causal.can_look_around(shape):
        raise CorruptPayloadError("the residual's header does not fit its shape")
    lattice = Lattice(step, origin, bool(flags & _RELATIVE))
    around = bool(flags & _AROUND)
    prior = _prior(model, grid, shape, lattice, around, bool(flags & _THOROUGH))
    if prior is None:
        raise CorruptPayloadError("the residual wants a reference that the model does not have")
    fields = np.zeros((items, shape[0] * shape[1])) if base is None else base.astype(np.float64)
    for item, integers in causal.decode(
        section[_HEADER.size :], sequences.order, valid_of, prior, around=around
    ):
        fields[item] += lattice.values(integers).reshape(-1)
    return fields
