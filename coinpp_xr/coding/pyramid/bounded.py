"""Fields within a bound through the pyramid: which cells it codes, and on which lattice."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, inf
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import stream
from coinpp_xr.coding.pyramid.background import Background
from coinpp_xr.coding.pyramid.experts import Expert
from coinpp_xr.coding.pyramid.limits import LARGEST, UNIT, Limits
from coinpp_xr.coding.pyramid.means import Means
from coinpp_xr.coding.pyramid.points import Observer
from coinpp_xr.coding.scattered.surroundings import surroundings_on
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.fields import Fields, PlaneFields, Sequences, are_few, extremes
from coinpp_xr.lattice import Bound, Lattice, has_room, lattice_of

Bool = npt.NDArray[np.bool_]

# Numbers beyond this are kept exactly: predictions need room around them.
_FARTHEST = LARGEST // 2
# How many steps around exact values are on the lattice: of fields rough enough, and of others.
_FREE, _LITTLE_FREE, _ROUGH, _EVERY = 4, 2, 0.3, 7
# Classes of expected size that are coded by a single context, by effort.
QUICK = {"fast": 48, "default": 8, "best": 0, "paper": 8}


@dataclass(frozen=True, eq=False)
class Bounded:
    """What keeps fields within a bound.

    Parameters
    ----------
    head, streams : bytes
        Of :mod:`coinpp_xr.coding.pyramid.stream`.
    kept : bool array, shape (items, cells)
        Valid cells that must be stored exactly.
    refers_to_background, asks_network : bool
    """

    head: bytes
    streams: bytes
    kept: Bool
    refers_to_background: bool
    asks_network: bool

    def __len__(self) -> int:
        return len(self.head) + len(self.streams)


def encode(
    fields: PlaneFields,
    bound: Bound,
    sequences: Sequences,
    effort: str,
    expert: Expert | None = None,
    observe: Observer | None = None,
    background: npt.NDArray[np.float64] | None = None,
    slack: int = 0,
    mean_error: float | None = None,
) -> Bounded | None:
    """Code fields within a bound.

    Parameters
    ----------
    fields : PlaneFields
    bound : Bound
    sequences : Sequences
    effort : str
    expert, observe, background :
        See :func:`coinpp_xr.coding.pyramid.stream.encode`.
    slack : int
        See :class:`coinpp_xr.coding.pyramid.limits.Limits`; values may be beyond the bound by so
        many 1/128 of it. Not where some must come back exactly.
    mean_error : float, optional
        How far means of fields, by area, should be off at most, in the unit of the bound; of fields
        of areas alone.

    Returns
    -------
    Bounded or None
        None for what the pyramid is not made for: bounds near the precision of the data's type,
        relative ones for values of both signs or with zeros, and more cells than it can index.
    """
    items, cells = fields.values.shape
    shape = fields.grid.shape
    if items > stream.MOST_ITEMS or cells > stream.MOST_CELLS or not are_few(items, cells):
        return None
    valid, values = fields.valid, fields.values
    lowest, highest = extremes(values, valid)
    if bound.relative and lowest <= 0 <= highest:
        return None
    lattice = lattice_of(bound, fields, values)
    if not 0 < lattice.step < inf or not has_room(lattice, bound):
        return None
    lattice = lattice.through(fields.exact)
    if bound.relative and highest < 0:
        lattice = Lattice(lattice.step, -lattice.origin, True)
    coded = valid
    ends = lattice.fractions(np.array([lowest, highest]), stream.PARTS)
    if not (np.abs(ends) <= _FARTHEST).all():
        coded = np.empty_like(valid)
        for item in range(items):
            with np.errstate(invalid="ignore"):
                fractions = lattice.fractions(values[item], stream.PARTS)
                coded[item] = valid[item] & (np.abs(fractions) <= _FARTHEST)
    if len(fields.exact) == 2:
        coded = coded & ~_at_the_edge(values, fields.exact[1], bound, lattice)
    means = None
    if mean_error is not None and not lattice.relative and isinstance(fields, Fields):
        means = Means(fields.grid.area_weights, mean_error / lattice.step * stream.PARTS)
    result = stream.encode(
        values.reshape(items, *shape), coded.reshape(items, *shape), sequences.order, lattice,
        around=fields.grid.goes_around, quick=QUICK[effort],
        limits=_limits(lattice, fields, lowest, highest, slack), expert=expert, observe=observe,
        background=background, levels=sequences.levels, means=means,
        surroundings=surroundings_on(fields.grid),
    )  # fmt: skip
    return Bounded(
        result.head, result.streams, valid & ~coded, background is not None, result.asks_network
    )


def _at_the_edge(values: Any, second: float, bound: Bound, lattice: Lattice) -> Bool:
    """Values that are rounded to the second exact one, which is not quite on the lattice."""
    with np.errstate(invalid="ignore"):
        near = np.abs(values - second) <= 1.01 * bound.error
        parts = lattice.fractions(values, stream.PARTS) - lattice.fractions(
            np.array([second]), stream.PARTS
        )
        rounded = near & (np.abs(parts) <= (0.5 + 1e-3) * stream.PARTS)
        return np.asarray(rounded & ~bound.holds(np.float64(second), values))


def _limits(
    lattice: Lattice, fields: PlaneFields, lowest: float, highest: float, slack: int
) -> Limits:
    """For values that must come back exactly, and none beyond the lowest and the highest."""
    if not fields.exact:
        return Limits(slack=slack)
    low, high, last = lattice.fractions(
        np.array([lowest, highest, fields.exact[-1]]), stream.PARTS
    ).tolist()
    second = UNIT * round(last / UNIT)
    exactly = {fields.exact[0]: 0, fields.exact[-1]: second}
    low, high = exactly.get(lowest, ceil(low)), exactly.get(highest, floor(high))
    free = _FREE if _roughness(fields) > _ROUGH * lattice.step else _LITTLE_FREE
    return Limits(max(low, -LARGEST), min(high, LARGEST), free, second)


def _roughness(fields: PlaneFields) -> float:
    """The mean difference between neighbours, of a few rows, of those that are not exact."""
    rows = fields.values.reshape(-1, fields.grid.shape[1])[::_EVERY]
    counted = fields.valid.reshape(-1, fields.grid.shape[1])[::_EVERY]
    counted = counted & ~np.isin(rows, fields.exact)
    pairs = counted[:, 1:] & counted[:, :-1]
    return float(np.abs(np.diff(rows)).mean(where=pairs)) if pairs.any() else 0.0


def read_head(
    head: bytes,
    mask: Bool | None,
    sequences: Sequences,
    shape: tuple[int, int],
    background: Background | None = None,
    grid: SphereGrid | None = None,
) -> tuple[stream.Head, Any]:
    """The head of a chunk, and which cells of it are coded, shape (items, n_lat, n_lon).

    Raises
    ------
    CorruptPayloadError
    """
    valid = None if mask is None else ~mask.reshape(-1, *shape)
    order, levels = sequences.order, sequences.levels
    parsed = stream.Head.parse(
        head, valid, order, shape, background, levels, lambda: surroundings_on(grid)
    )
    return parsed, valid
