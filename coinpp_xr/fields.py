"""What is to be coded: fields of a chunk, their order in time, and how values are rounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import Plane, SphereGrid

Bool = npt.NDArray[np.bool_]
Floating = npt.NDArray[np.floating[Any]]

# Whoever adds squared errors up in another order finds them below the target, too: by this share.
ROUNDING = 1e-6
# More items have at least so many cells each, or are kept without loss.
_FEW_ITEMS, _FEW_CELLS = 1 << 14, 32
# Cells that stay in a core's cache.
CELLS_AT_ONCE = 1 << 15


@dataclass(frozen=True, eq=False)
class Sequences:
    """Which item of a chunk stands where: rows of fields that follow each other in time.

    Parameters
    ----------
    order : int array, shape (sequences, times)
        Numbers of items; times at which every item is missing are left out.
    levels : int
        So many sequences are those of levels, one above the other.
    """

    order: npt.NDArray[np.intp]
    levels: int = 1

    @classmethod
    def of(
        cls,
        batch: tuple[int, ...],
        time_axis: int,
        present: Bool,
        level_axis: int | None = None,
    ) -> Sequences:
        """From the axes before those of cells, and which items hold anything.

        Parameters
        ----------
        batch : tuple of int
        time_axis : int
        present : bool array, shape (items,)
        level_axis : int, optional
            Another axis along which fields are alike.
        """
        items = np.arange(len(present)).reshape(batch or (1,))
        if level_axis is None:
            order = np.moveaxis(items, time_axis if batch else 0, -1)
        else:
            order = np.moveaxis(items, (level_axis, time_axis), (-2, -1))
        order = order.reshape(-1, order.shape[-1])
        levels = 1 if level_axis is None else batch[level_axis]
        return cls(order[:, present[order].any(axis=0)], levels)

    def take(self, items: npt.NDArray[Any], present: Bool) -> npt.NDArray[Any]:
        """Items arranged as (sequences, times, …); one that is missing repeats its neighbour."""
        order = self.order.copy()
        for row in order:
            known = np.flatnonzero(present[row])
            if 0 < len(known) < len(row):
                nearest = np.abs(np.arange(len(row))[:, None] - known).argmin(axis=1)
                row[:] = row[known[nearest]]
        return items[order]

    def put(self, arranged: Floating, n_items: int) -> Floating:
        """The items again; those that stand nowhere are zero."""
        items = np.zeros((n_items, *arranged.shape[2:]), arranged.dtype)
        items[self.order] = arranged
        return items


@dataclass(frozen=True, eq=False)
class PlaneFields:
    """What is to be kept within a bound: cells in a place.

    Parameters
    ----------
    values : float64 array, shape (items, cells)
        In the data's unit; anything finite where not valid.
    valid : bool array, shape (items, cells)
    dtype : dtype
        Decoded values are rounded to it.
    grid : Plane or SphereGrid
    exact : tuple of float
        At most two values that must come back exactly under a bound.
    """

    values: npt.NDArray[np.float64]
    valid: Bool
    dtype: np.dtype[Any]
    grid: Plane | SphereGrid
    exact: tuple[float, ...] = field(default=(), kw_only=True)

    @cached_property
    def present(self) -> Bool:
        """Items that hold anything, shape (items,)."""
        return np.asarray(self.valid.any(axis=1))


@dataclass(frozen=True, eq=False)
class Fields(PlaneFields):
    """What a chunk of globes holds, ready for the schemes: cells have an area, too.

    Parameters
    ----------
    grid : SphereGrid
    sequences : Sequences
    """

    grid: SphereGrid
    sequences: Sequences

    @classmethod
    def of_sequence(cls, values: npt.NDArray[Any], grid: SphereGrid) -> Fields:
        """Of fields that follow each other, shape (times, n_lat, n_lon); what is not finite is
        missing."""
        table = values.reshape(len(values), -1).astype(np.float64)
        valid = np.isfinite(table)
        sequences = Sequences.of((len(values),), 0, np.asarray(valid.any(axis=1)))
        return cls(np.where(valid, table, 0), valid, np.dtype("f4"), grid, sequences)

    def sequence_means(self) -> npt.NDArray[np.float64]:
        """Area-weighted mean of every sequence, shape (sequences,)."""
        weights = self.grid.area_weights
        sums = (np.where(self.valid, self.values, 0) @ weights)[self.sequences.order].sum(axis=1)
        shares = (self.valid @ weights)[self.sequences.order].sum(axis=1)
        return np.asarray(sums / np.maximum(shares, 1e-300))

    def energy(self, base: Floating) -> float:
        """Area-weighted mean square of what the means of the sequences differ from a base."""
        fields = self.sequences.take(np.where(self.valid, self.values, 0), self.present)
        count = self.sequences.take(self.valid, self.present).sum(axis=1)
        means = fields.sum(axis=1) / np.maximum(count, 1)
        squared = np.where(count > 0, (means - base) ** 2, 0)
        return float((squared @ self.grid.area_weights).sum())

    def likeness(self, base: Floating) -> float:
        """Squared correlation of the means of the sequences with a field, where they go together.

        Parameters
        ----------
        base : float array, shape (cells,)
        """
        fields = self.sequences.take(np.where(self.valid, self.values, 0), self.present)
        count = self.sequences.take(self.valid, self.present).sum(axis=1)
        weights = self.grid.area_weights * (count > 0)
        pair = [fields.sum(axis=1) / np.maximum(count, 1), np.broadcast_to(base, count.shape)]
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
        one, other = (x - (weights * x).sum(axis=1, keepdims=True) / total for x in pair)
        together = np.maximum((weights * one * other).sum(), 0.0)
        apart = (weights * one**2).sum() * (weights * other**2).sum()
        return float(together**2 / max(apart, 1e-300))

    @cached_property
    def _weights(self) -> npt.NDArray[np.float64]:
        weights = self.grid.area_weights
        if self.valid.all():
            return np.asarray(weights / (len(self.valid) * float(weights.sum())))
        return np.asarray(weights / float(weights @ self.valid.sum(axis=0)))

    def mean_squared_error(self, decoded: Floating) -> float:
        """Area-weighted, over the valid cells of the whole chunk, after rounding to the dtype."""
        total, at_once = 0.0, max(1, CELLS_AT_ONCE // max(1, self.values.shape[1]))
        for start in range(0, len(self.values), at_once):
            some = slice(start, start + at_once)
            difference = round_to(decoded[some], self.dtype) - self.values[some]
            if not self.valid[some].all():
                difference[~self.valid[some]] = 0
            total += float(np.einsum("ic,ic,c->", difference, difference, self._weights))
        return total


def are_few(items: int, cells: int) -> bool:
    """Whether items of so many cells are not too many: each takes time and memory of its own."""
    return items <= _FEW_ITEMS or cells >= _FEW_CELLS


def extremes(values: Floating, valid: Bool) -> tuple[float, float]:
    """The lowest and the highest of the valid values; inf and -inf where there are none."""
    if valid.all() and valid.size:
        return float(values.min()), float(values.max())
    values = values.astype(np.float64, copy=False) if values.dtype.kind != "f" else values
    lowest = np.min(values, where=valid, initial=np.inf)
    return float(lowest), float(np.max(values, where=valid, initial=-np.inf))


def round_to(values: Floating, dtype: np.dtype[Any]) -> Floating:
    """Values as they come back: in the data's type, and finite."""
    if dtype.kind != "f":
        if values.dtype == dtype:
            return values
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        values = np.rint(values)
        if dtype.itemsize < 8:
            return np.clip(values, least, most, out=values).astype(dtype)
        # The largest of 64 bits is no float: what reaches it is set afterwards.
        inside = (values >= least) & (values < most)
        numbers = np.where(inside, values, 0).astype(dtype)
        numbers[values < least] = least
        numbers[values >= most] = most
        return numbers
    if dtype.itemsize != 2:
        return values.astype(dtype, copy=False)
    # What was finite must not become infinite.
    with np.errstate(over="ignore"):
        rounded = values.astype(dtype, copy=values.dtype == dtype)
    largest = np.finfo(np.float16).max
    return np.clip(rounded, -largest, largest, out=rounded)
