"""The error bound: what a base misses, on a lattice fine enough for every value.

Fields are what the base says plus a whole number of steps, and no step is wider than twice the
bound. The whole numbers are coded without loss (:mod:`coinpp_xr.causal`), in integers only; they
and the base are the same everywhere. Cells that rounding would take beyond the bound are kept
exactly.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.fields import PlaneFields, Sequences, are_few, round_to
from coinpp_xr.lattice import LARGEST, PARTS, Bound, Lattice, has_room, lattice_of
from coinpp_xr.models import Model
from coinpp_xr.reference import FRACTION

if TYPE_CHECKING:
    from coinpp_xr import causal

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]

# A chunk of more is not one of globes.
MOST_ITEMS = 1 << 20
# Bytes a cell of what is remembered of a globe that is alone, and of one among others; so many
# times as much as the array, and bytes that do not matter.
_ALONE, _AMONG_OTHERS, _TIMES, _LITTLE = 30, 92, 9, 3 << 24
_MOST_CELLS = 1 << 24
# No value takes less: two decisions that are as sure as can be.
_LEAST_BITS = 4e-5

_HEADER = struct.Struct("<ddB")
_LENGTH = struct.Struct("<I")
_THOROUGH, _AROUND, _RELATIVE, _SHIFTED = 1, 2, 4, 8
# Of lattices, small ones first; values are rounded after decoding, too.
_SHIFTS = (0, *(sign * size for size in range(1, PARTS // 2) for sign in (1, -1)))
_MARGIN = 0.9


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


def are_in_proportion(items: int, cells: int, nbytes: int) -> bool:
    """Whether what a coder remembers of globes is little memory beside an array of them."""
    remembered = (_ALONE if items == 1 else _AMONG_OTHERS) * cells
    return cells <= _MOST_CELLS and remembered <= _TIMES * nbytes + _LITTLE


def encode(
    fields: PlaneFields,
    bound: Bound,
    sequences: Sequences,
    base: Floating | None = None,
    model: Model | None = None,
    *,
    thorough: bool = True,
    mean_error: float | None = None,
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
    mean_error : float, optional
        How far means of fields, by area, should be off at most, in the unit of the bound.

    Returns
    -------
    Residual or None
        None where there is a base and the bound is relative, or the base is no longer the same
        because of cells that must be kept; where there is no reference for this grid or bound.
    """
    valid = fields.valid
    rest = fields.values if base is None else fields.values - base
    if base is not None and bound.relative:
        return None
    lattice = lattice_of(bound, fields, rest)
    if base is None:
        lattice = lattice.through(fields.exact)
    items, cells = fields.values.shape
    few = items <= MOST_ITEMS and are_few(items, cells)
    nbytes = fields.values.size * fields.dtype.itemsize
    if not 0 < lattice.step < inf or not few or not are_in_proportion(items, cells, nbytes):
        return None
    coded = np.empty_like(valid)
    shifts: Int | None = None
    shiftable = base is None and not lattice.relative
    if mean_error is not None and shiftable and has_room(lattice, bound):
        shifts = _shifts_of(fields, lattice, mean_error)

    def shift_of(item: int) -> int:
        return 0 if shifts is None else int(shifts[item])

    def integers_of(item: int) -> Float64:
        wanted = lattice.shifted(shift_of(item)).integers(rest[item])
        return np.where(valid[item] & (np.abs(wanted) <= LARGEST), wanted, np.nan)

    for item in range(len(coded)):
        integers = integers_of(item)
        whole = np.nan_to_num(integers).astype(np.int64)
        decoded = lattice.shifted(shift_of(item)).values(whole)
        decoded = decoded if base is None else decoded + base[item]
        rounded = round_to(decoded, fields.dtype).astype(np.float64)
        within = bound.holds(rounded, fields.values[item])
        coded[item] = ~np.isnan(integers) & within
    if base is not None and not (coded.any(axis=1) == fields.present).all():
        return None
    shape = fields.grid.shape

    def globe_of(item: int) -> tuple[Int, Bool]:
        integers = np.where(coded[item], integers_of(item), 0).astype(np.int64)
        return integers.reshape(shape), coded[item].reshape(shape)

    from coinpp_xr import causal  # compiles, or loads what was compiled
    from coinpp_xr.coding import masks

    thorough = thorough and causal.can_look_around(shape)
    around = fields.grid.goes_around
    grid = fields.grid if isinstance(fields.grid, SphereGrid) else None
    alone = sequences.order.size == 1
    prior = _prior(model, grid, shape, lattice, around, thorough, alone)
    if prior is None:
        return None
    stream = causal.encode(
        sequences.order, globe_of, prior, around=around, levels=sequences.levels, shifts=shifts
    )
    flags = _THOROUGH * thorough | _AROUND * around | _RELATIVE * bound.relative
    flags |= _SHIFTED * (shifts is not None)
    header = _HEADER.pack(lattice.step, lattice.origin, flags)
    if shifts is not None:
        told = masks.encode_numbers(shifts)
        header += _LENGTH.pack(len(told)) + told
    return Residual(header + stream, valid & ~coded)


def _shifts_of(fields: PlaneFields, lattice: Lattice, mean_error: float) -> Int | None:
    """By how much the lattice is shifted for each field, so that rounding errors average out.

    The least that keeps the mean, or what brings it nearest; not where values must come back
    exactly. None where no field needs any.
    """
    grid, most = fields.grid, _MARGIN * mean_error / lattice.step
    cells = fields.values.shape[1]
    weights = grid.area_weights if isinstance(grid, SphereGrid) else np.ones(cells)
    shifts = np.zeros(len(fields.values), np.int64)
    for item in np.flatnonzero(fields.present):
        valid = fields.valid[item]
        if fields.exact and np.isin(fields.values[item][valid], fields.exact).any():
            continue  # these lie on the lattice
        where, shares = lattice.fractions(fields.values[item][valid], 1), weights[valid]
        shares = shares / max(float(shares.sum()), 1e-300)
        least = np.inf
        for shift in _SHIFTS:
            part = where - shift / PARTS
            off = abs(float((np.rint(part) - part) @ shares))
            if off < least:
                least, shifts[item] = off, shift
            if least <= most:
                break
    return shifts if shifts.any() else None


def _prior(
    model: Model | None,
    grid: SphereGrid | None,
    shape: tuple[int, int],
    lattice: Lattice,
    around: bool,
    thorough: bool,
    alone: bool,
) -> causal.Prior | None:
    """What is known before a chunk, to be changed; None where there is no such reference."""
    from coinpp_xr import causal

    if model is None:
        return causal.no_prior(shape, thorough=thorough, alone=alone)
    if grid is None or lattice.relative:
        return None
    learned = _learned(model, grid, lattice, around, thorough)
    return None if learned is None else causal.copy_of(learned)


@remembered()
def _learned(
    model: Model, grid: SphereGrid, lattice: Lattice, around: bool, thorough: bool
) -> causal.Prior | None:
    """From the model's reference; the same for chunk after chunk, and never changed."""
    from coinpp_xr import causal

    reference = None if model.reference is None else model.reference.on(grid)
    if reference is None:
        return None
    integers = lattice.integers(model.offset + reference / FRACTION)
    if not np.abs(integers).max() <= LARGEST:
        return None
    return causal.prior_of(integers.astype(np.int64), around=around, thorough=thorough)


def decode(
    section: bytes,
    mask: Bool | None,
    shape: tuple[int, int],
    sequences: Sequences,
    dtype: np.dtype[Any],
    base: Floating | None = None,
    model: Model | None = None,
    grid: SphereGrid | None = None,
) -> npt.NDArray[Any]:
    """Fields of :func:`encode`, shape (items, cells); anything where masked.

    Parameters
    ----------
    mask : bool array, shape (items, cells), or None
        Cells that are not coded.
    shape : (n_lat, n_lon)
    sequences : Sequences
        Of all items.
    dtype : dtype
        What values are rounded to.
    base : float array, shape (items, cells), optional
        See :func:`encode`.

    Raises
    ------
    CorruptPayloadError
    """
    if len(section) < _HEADER.size:
        raise CorruptPayloadError("the residual is cut short")
    step, origin, flags = _HEADER.unpack_from(section)
    if not (0 < step < inf and abs(origin) < inf and flags < 16):
        raise CorruptPayloadError("the residual's header is damaged")
    items = sequences.order.size
    values = items * shape[0] * shape[1] - (0 if mask is None else int(mask.sum()))
    cells = shape[0] * shape[1]
    if not are_in_proportion(items, cells, items * cells * dtype.itemsize):
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
    thorough, alone = bool(flags & _THOROUGH), items == 1
    prior = _prior(model, grid, shape, lattice, around, thorough, alone)
    if prior is None:
        raise CorruptPayloadError("the residual wants a reference that the model does not have")
    stream, shifts = section[_HEADER.size :], None
    if flags & _SHIFTED:
        shifts, stream = _read_shifts(stream, items)
        if lattice.relative or base is not None:
            raise CorruptPayloadError("the residual's header is damaged")
    fields = np.empty((items, shape[0] * shape[1]), dtype)
    for item, integers in causal.decode(
        stream, sequences.order, valid_of, prior, around=around, levels=sequences.levels,
        shifts=shifts,
    ):  # fmt: skip
        own = lattice if shifts is None else lattice.shifted(int(shifts[item]))
        decoded = own.values(integers).reshape(-1)
        if base is not None:
            decoded += base[item]
        fields[item] = round_to(decoded, dtype)
    return fields


def _read_shifts(data: bytes, items: int) -> tuple[Int, bytes]:
    """Shifts of the lattices of all fields, and the rest.

    Raises
    ------
    CorruptPayloadError
    """
    from coinpp_xr.coding import masks

    if len(data) < _LENGTH.size:
        raise CorruptPayloadError("the residual is cut short")
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    shifts = masks.decode_numbers(data[_LENGTH.size : end], items).astype(np.int64)
    if end > len(data) or np.abs(shifts).max(initial=0) >= PARTS // 2:
        raise CorruptPayloadError("the residual's header is damaged")
    return shifts, data[end:]
