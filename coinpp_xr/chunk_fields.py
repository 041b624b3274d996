"""Fields of a chunk → the smallest payload that keeps what was asked for, checked by decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.choice import MEDIUM_GLOBE, once_more, smallest_for_bound
from coinpp_xr.chunk_reading import decode_fields
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.fields import Fields, Sequences
from coinpp_xr.finishing import Finish
from coinpp_xr.guarantees import Given, Goal
from coinpp_xr.kept_cells import not_coded
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model
from coinpp_xr.rmse_choice import smallest_for_rmse
from coinpp_xr.shared_values import Exactly, shared_values, ways_to_keep
from coinpp_xr.ways import Chunk

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# How often a bound or target is narrowed so that means keep theirs, too.
_ATTEMPTS = 6
# A bound or target so near to one that was too wide is narrow enough.
_CLOSE = 0.96
# Of a target's mean square, what values next to shared ones may take, that become these.
_ROUNDED_AWAY = 0.1


@dataclass(frozen=True, eq=False)
class Task:
    """A chunk to be coded.

    Parameters
    ----------
    values : array, shape (..., n_lat, n_lon)
    usable : bool array, shape (items, cells)
        Cells that may come back with an error.
    grid : SphereGrid
    model : Model or None
    latents : callable
        Cells that are coded → float32 array, shape (items, latent_dim), or None.
    effort : str
    goal : Goal
        With a bound or a target.
    keep : tuple of float
        Values that must come back exactly.
    place : dict
        Entries of the payload's header: layout, coordinates, time axis; and the fold, if any.
    network : bool
        Whether the pyramid may ask its network.
    """

    values: npt.NDArray[Any]
    usable: Bool
    grid: SphereGrid
    model: Model | None
    latents: Callable[[Bool], Float32 | None]
    effort: str
    goal: Goal
    keep: tuple[float, ...]
    place: dict[str, Any]
    network: bool

    @cached_property
    def given(self) -> Given:
        """What every way of keeping shared values is held against."""
        table = self.values.reshape(self.usable.shape)
        fold = self.place["fold"]
        holes = None if fold is None else fold.holes
        return Given(table, self.usable, self.grid.area_weights, holes)

    def smallest(self) -> bytes | None:
        """The smallest payload, None where nothing but the values themselves will do."""
        goal, shape = self.goal, (len(self.usable), *self.grid.shape)
        values, usable = self.values.reshape(shape), self.usable.reshape(shape)
        shared = shared_values(values, usable)
        shared += [v for v in self.keep if v not in shared and bool((values == v).any())]
        # Errors of rounding are spread evenly.
        bound = goal.bound or Bound(sqrt(3) * (goal.target_rmse or 0))
        ways = ways_to_keep(shared, values, usable, bound, self.effort)
        payloads = []
        for way in ways:
            payload = self._keeping(way)
            if payload is None:
                continue
            payloads.append(payload)
            # Digit by digit shared values cost next to nothing, however they are kept.
            by_digits = Payload.unpack(payload).kind == Kind.DIGITS
            if by_digits and self.effort != "best" and prod(self.grid.shape) >= MEDIUM_GLOBE:
                break
        return min(payloads, key=len, default=None)

    def _keeping(self, way: Exactly) -> bytes | None:
        """A payload that keeps shared values in one way."""
        given = self.given
        coded, values, target = self.usable, self.values, self.goal.target_rmse
        if way.masked:
            rounded, loss = self._rounded_away(way.masked)
            values = rounded.reshape(self.values.shape)
            coded = self.usable & ~np.isin(rounded, way.masked)
            if target is not None:
                rest = float((coded @ given.weights).sum())
                budget = target**2 * float(given.area.sum()) - loss
                target = sqrt(budget / rest) if rest else target
        if not coded.any():
            return None
        chunk = self._chunk(values, coded, way.on_lattice)
        narrowed = too_wide = 1.0
        kept, best = 0.0, None
        payload: bytes | None = None
        for attempt in range(_ATTEMPTS):
            payload = self._payload(chunk, target, narrowed, payload)
            if payload is None:
                break
            found = given.finish(*self._decoded(payload), way.on_lattice, self.goal)
            if found is None:
                break
            finish, narrowing = found
            if narrowing < 1:
                # Further each time: lattices through two values do not change with every bit.
                too_wide, by = narrowed, narrowing ** (1 + attempt)
                narrowed = narrowed * by if best is None else (narrowed + kept) / 2
            else:
                payload = with_finish(payload, finish)
                kept, best = narrowed, min((p for p in (payload, best) if p), key=len)
                narrowed = (narrowed + too_wide) / 2
            if kept > _CLOSE * too_wide:
                break
        return best

    def _rounded_away(self, masked: tuple[float, ...]) -> tuple[Any, float]:
        """Values of which those next to shared ones became these; the squared errors of that."""
        given, target = self.given, self.goal.target_rmse
        table = given.values
        if target is None:
            return table, 0.0
        nearest = np.full(table.shape, masked[0], table.dtype)
        for value in masked[1:]:
            closer = np.abs(table - value) < np.abs(table - nearest)
            nearest[closer] = value
        distances = np.abs(table.astype(np.float64) - nearest)
        squares = np.where(given.counted, distances, np.inf) ** 2
        budget = _ROUNDED_AWAY * target**2 * float(given.area.sum())
        low, high = 0.0, target
        for _ in range(12):
            middle = (low + high) / 2
            loss = float((np.where(distances <= middle, squares, 0) @ given.weights).sum())
            low, high = (middle, high) if loss <= budget else (low, middle)
        chosen = given.counted & (distances <= low)
        loss = float((np.where(chosen, squares, 0) @ given.weights).sum())
        rounded = table.copy()
        rounded[chosen] = nearest[chosen]
        return rounded, loss

    def _chunk(self, values: npt.NDArray[Any], coded: Bool, exact: tuple[float, ...]) -> Chunk:
        numbers = values.reshape(coded.shape).astype(np.float64)
        if not coded.all():
            numbers[~coded] = 0
        sequences = Sequences.of(
            values.shape[:-2], self.place["time_axis"], np.asarray(coded.any(axis=1))
        )
        fields = Fields(numbers, coded, values.dtype, self.grid, sequences, exact=exact)
        latents = self.latents(coded)
        tolerances = self.given.tolerances(self.goal)
        alike = bool((tolerances == tolerances[:1]).all() and np.isfinite(tolerances).all())
        return Chunk(
            values, fields, self.model, latents, self.effort, self.place, self.network,
            float(tolerances[0]) if alike else None,
        )  # fmt: skip

    def _payload(
        self, chunk: Chunk, target: float | None, narrowed: float, before: bytes | None
    ) -> bytes | None:
        if self.goal.bound is not None:
            bound = replace(self.goal.bound, error=narrowed * self.goal.bound.error)
            if before is None:
                return smallest_for_bound(chunk, bound)
            return once_more(chunk, bound, before)
        assert target is not None
        return smallest_for_rmse(chunk, narrowed * target)

    def _decoded(self, data: bytes) -> tuple[npt.NDArray[Any], Bool]:
        """What a decoder makes of a payload, and which cells are not stored exactly."""
        models = {} if self.model is None else {self.model.fingerprint: self.model}
        return decoded_fields(data, models.__getitem__, self.grid)


def decoded_fields(
    data: bytes, find_model: Callable[[str], Model], grid: SphereGrid
) -> tuple[npt.NDArray[Any], Bool]:
    """Fields of a payload, shape (items, cells), and which cells of it are not stored exactly."""
    payload = Payload.unpack(data)
    with np.errstate(all="ignore"):
        decoded = np.ascontiguousarray(decode_fields(payload, find_model, grid))
    coded = coded_cells(payload)
    return decoded.reshape(coded.shape), coded


def coded_cells(payload: Payload) -> Bool:
    """Which cells of the fields are coded, not kept as they are; shape (items, cells)."""
    mask = not_coded(payload)
    shape = prod(payload.shape[:-2]), prod(payload.shape[-2:])
    return np.ones(shape, np.bool_) if mask is None else ~mask


def with_finish(data: bytes, finish: Finish) -> bytes:
    """A payload whose decoder does this last."""
    if not finish:
        return data
    payload = Payload.unpack(data)
    sections = {Tag.FINISH: finish.pack(payload.dtype), **payload.sections}
    return replace(payload, sections=sections).pack()
