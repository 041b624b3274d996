"""Where the cells of a field lie, made ready for coding: passes, neighbours, weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.scattered.kriging import N_NEIGHBOURS, WEIGHT_BITS, weights_of
from coinpp_xr.coding.scattered.nearest import nearest
from coinpp_xr.coding.scattered.passes import passes_of
from coinpp_xr.coordinates import IndexGrid, Plane, SphereGrid
from coinpp_xr.elementary import cosine, sine

Int = npt.NDArray[np.int64]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CellPass:
    """Cells that are coded one after the other, and what is decoded around them before.

    Parameters
    ----------
    cells : int64 array, shape (n,)
    neighbours : int64 array, shape (12, n)
        The nearest first; where there are fewer, that one again.
    weights : int16 array, shape (4, neighbours, n)
        Of :mod:`coinpp_xr.coding.scattered.kriging`.
    """

    cells: Int
    neighbours: Int
    weights: Int16

    def predict(self, value_at: Callable[[Int], Int32], largest: int) -> Int32:
        """What the neighbours foretell, shape (4, …, n), within ±``largest``.

        Parameters
        ----------
        value_at : callable
            Cells, shape (n,) → their values, shape (…, n).
        largest : int
        """
        base = value_at(self.neighbours[0]).astype(np.int64)
        totals = np.full((len(self.weights), *base.shape), 1 << (WEIGHT_BITS - 1), np.int64)
        for k in range(1, self.weights.shape[1]):
            apart = value_at(self.neighbours[k]) - base
            for total, weights in zip(totals, self.weights[:, k], strict=True):
                total += weights * apart
        return np.clip(base + (totals >> WEIGHT_BITS), -largest, largest).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Of all cells of a field.

    Parameters
    ----------
    cells : int
        Of all places in rows and columns, holes among them.
    anchors : int64 array, shape (anchors,)
        Cells that are coded first.
    passes : list of CellPass
    """

    cells: int
    anchors: Int
    passes: list[CellPass]

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of all whole numbers: a machine that found others must not decode by them."""
        found = zlib.crc32(self.anchors.astype("<i8").tobytes())
        for one in self.passes:
            for array, dtype in ((one.cells, "<i8"), (one.neighbours, "<i8"), (one.weights, "<i2")):
                found = zlib.crc32(np.ascontiguousarray(array, dtype).tobytes(), found)
        return found


def surroundings_on(grid: SphereGrid | Plane | None) -> Surroundings | None:
    """The surroundings of the cells of a grid that knows where each of them is, else None."""
    places = grid.places if isinstance(grid, IndexGrid) else None
    return None if places is None else surroundings_of(places)


def surroundings_of(degrees: Float64) -> Surroundings:
    """The surroundings of cells, by latitude and longitude, shape (2, cells).

    Where these are no numbers, there is none.
    """
    return _surroundings(degrees.tobytes())


# What is known of a cell takes 150 bytes, and more time than coding it.
@lru_cache(maxsize=2)
def _surroundings(data: bytes) -> Surroundings:
    degrees = np.frombuffer(data).reshape(2, -1)
    there = np.flatnonzero(np.isfinite(degrees).all(axis=0))
    latitude, longitude = np.deg2rad(degrees[:, there])
    across = cosine(latitude)
    points = np.stack([across * cosine(longitude), across * sine(longitude), sine(latitude)], -1)
    anchors, all_cells = passes_of(points)
    passes, decoded = [], [anchors]
    for cells in all_cells:
        known = np.concatenate(decoded)
        count = min(N_NEIGHBOURS, len(known))
        neighbours, _ = nearest(points, known, cells, count)
        weights = weights_of(points, cells, neighbours)
        again = np.repeat(neighbours[:, :1], N_NEIGHBOURS - count, axis=1)
        table = np.ascontiguousarray(np.concatenate([neighbours, again], axis=1).T)
        passes.append(CellPass(there[cells], there[table], weights))
        decoded.append(cells)
    return Surroundings(degrees.shape[1], there[anchors], passes)
