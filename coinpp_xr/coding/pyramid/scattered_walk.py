"""The walk through cells that lie anywhere, the same for encoder and decoder.

Every pass is one long row of cells, each with its neighbours laid beside it: the coder of rasters
sees no difference. To its twelve nearest neighbours come four values that these foretell by
distance and direction, and the weights of all sixteen are fitted to the data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.anchors import KnownAnchors, code_anchors
from coinpp_xr.coding.pyramid.coders import Coder, Decoded, PassParameters
from coinpp_xr.coding.pyramid.experts import Expert
from coinpp_xr.coding.pyramid.levels import PassOfWalk
from coinpp_xr.coding.pyramid.limits import LARGEST, Limits
from coinpp_xr.coding.pyramid.points import Known, Observer, Points
from coinpp_xr.coding.pyramid.prediction import Places, Pool
from coinpp_xr.coding.pyramid.references import References
from coinpp_xr.coding.pyramid.schedule import MOST_REFERENCES
from coinpp_xr.coding.pyramid.walk import NO_FIELDS, Walk
from coinpp_xr.coding.scattered.kriging import N_NEIGHBOURS, PREDICTIONS
from coinpp_xr.coding.scattered.surroundings import CellPass, Surroundings
from coinpp_xr.errors import CorruptPayloadError

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_SLOTS = N_NEIGHBOURS + PREDICTIONS
# Of a thinned grid: two passes each.
_PASSES_PER_LEVEL = 2
# Of surroundings, in the head of a chunk.
CHECKSUM = struct.Struct("<I")
# Where a cell, two neighbours beside it and two above and below are in a table of three rows.
_CROSS = ((0, 1), (0, 0), (0, 2), (1, 1), (2, 1))


@dataclass(frozen=True, eq=False)
class ScatteredWalk(Walk):
    """How fields of cells anywhere are gone through.

    Parameters
    ----------
    surroundings : Surroundings
        Of the cells, counted along rows.
    """

    surroundings: Surroundings = field(kw_only=True)

    @property
    def passes(self) -> list[PassOfWalk]:
        count = len(self.surroundings.passes)
        return [
            PassOfWalk((number, 0), (number + _PASSES_PER_LEVEL, 0), _SLOTS, False)
            for number in range(count - 1, -1, -1)
        ]

    def unit(
        self,
        coders: list[Coder],
        parameters: dict[tuple[int, int], PassParameters],
        known: Known,
        n_items: int,
        *,
        values: bool,
        marks: bool,
        shifts: Int64 | None = None,
    ) -> Decoded:
        flat = _flat(known)
        cells = self.surroundings.cells
        done = Decoded(np.zeros((n_items, cells), np.int32), np.zeros((n_items, cells), np.int8))
        anchors = self.surroundings.anchors
        some = KnownAnchors.of(flat, lambda fields: fields[:, anchors])
        shape = n_items, len(anchors)
        done.values[:, anchors] = code_anchors(coders, some, shape, self.limits, shifts)
        for where, one in zip(self.passes, self.surroundings.passes, strict=True):
            points = self._points(one, flat, done)
            self.code(points, where.key, where.coarser, coders, parameters, bands=1)
            own = -n_items * len(one.cells)
            for fields, pool in (
                (done.values, points.pool.values),
                (done.marks, points.pool.marks),
            ):
                fields[:, one.cells] = pool[own:].reshape(n_items, -1)
        for coder in coders:
            coder.check()
        whole = n_items, *self.shape
        return Decoded(done.values.reshape(whole), done.marks.reshape(whole))

    def _points(self, one: CellPass, flat: Known, done: Decoded) -> Points:
        """The cells of a pass as a row, and what is known around them."""
        items, n = len(done.values), len(one.cells)
        pool = Pool(
            np.empty((_SLOTS + 1, items, n), np.int32), np.zeros((_SLOTS + 1, items, n), np.int8)
        )
        for k, neighbours in enumerate(one.neighbours):
            pool.values[k], pool.marks[k] = done.values[:, neighbours], done.marks[:, neighbours]
        pool.values[N_NEIGHBOURS:_SLOTS] = one.predict(lambda at: done.values[:, at], LARGEST)
        places = Places(
            np.arange(_SLOTS + 1) * (items * n), np.zeros(_SLOTS + 1, np.int64),
            np.full(_SLOTS + 1, n), beside=False, around=False,
        )  # fmt: skip

        def row(fields: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.ascontiguousarray(fields[:, None, one.cells])

        known = Known(
            flat.fields, row(flat.valid) if len(flat.valid) else flat.valid,
            None if flat.target is None else row(flat.target), flat.copies, flat.usual,
        )  # fmt: skip
        return Points(
            Pool(pool.values.reshape(-1), pool.marks.reshape(-1)), places,
            _references(one, flat.fields), self.limits, (0, 0, 1), (items, 1, n), known,
            self.expert,
        )  # fmt: skip


def _flat(known: Known) -> Known:
    """With fields of shape (items, cells)."""
    return Known(
        [Decoded(_cells_of(f.values), _cells_of(f.marks)) for f in known.fields],
        _cells_of(known.valid) if len(known.valid) else known.valid,
        None if known.target is None else _cells_of(known.target), known.copies, known.usual,
    )  # fmt: skip


def _cells_of(fields: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return fields.reshape(len(fields), -1)


def _references(one: CellPass, fields: list[Decoded]) -> References:
    """Other fields at the cells of a pass and their four nearest neighbours."""
    n = len(one.cells)
    at = 1 + 3 * np.arange(n)
    columns = np.stack([at, at - 1, at + 1, at - 1, at + 1])
    crosses = [Decoded(_cross(one, f.values), _cross(one, f.marks)) for f in fields]
    first, second, third = (*crosses, *[NO_FIELDS] * MOST_REFERENCES)[:MOST_REFERENCES]
    return References(
        len(fields), (first.values, second.values, third.values),
        (first.marks, second.marks, third.marks), np.array([[0], [1], [2], [1], [2]]), columns,
        False,
    )  # fmt: skip


def _cross(one: CellPass, fields: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A table of three rows for each field, in which neighbours are where rasters have them."""
    table = np.zeros((len(fields), 3, 3 * len(one.cells)), fields.dtype)
    for (row, column), at in zip(_CROSS, (one.cells, *one.neighbours[:4]), strict=True):
        table[:, row, column::3] = fields[:, at]
    return table


def walk_through(
    shape: tuple[int, int],
    around: bool,
    quick: int,
    limits: Limits,
    expert: Expert,
    observe: Observer | None,
    surroundings: Surroundings | None,
) -> Walk:
    """The walk through a raster, or through cells anywhere where their surroundings are known."""
    how = shape, around, quick, limits, expert, observe
    return Walk(*how) if surroundings is None else ScatteredWalk(*how, surroundings=surroundings)


def checked_surroundings(found: Surroundings | None, cells: int, entries: bytes) -> Surroundings:
    """The surroundings of cells, if they are those that the encoder knew.

    Raises
    ------
    CorruptPayloadError
    """
    if len(entries) < CHECKSUM.size:
        raise CorruptPayloadError("the head of the pyramid is cut short")
    if found is None or found.cells != cells:
        raise CorruptPayloadError(
            "payload was written for cells at known places; give the codec the grid with the "
            "latitude and longitude that it was written with"
        )
    if (found.checksum,) != CHECKSUM.unpack_from(entries):
        raise CorruptPayloadError(
            "payload was written with other latitudes and longitudes of cells than the codec's"
        )
    return found
