"""What a payload of fields must keep, and the finish that makes what is decoded keep it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.fields import CELLS_AT_ONCE, ROUNDING, extremes
from coinpp_xr.finishing import LARGEST_SHIFT, Finish
from coinpp_xr.lattice import Bound
from coinpp_xr.parallel import map_compiled

Bool = npt.NDArray[np.bool_]
Floating = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

# The mean of a field may be off by this share of a bound or target, unless another is asked for.
MEAN_SHARE = 1 / 20
# Shifts are told in this part of what a mean may be off by, and aim at this part of it.
_FINENESS, _AIM = 1.0, 0.95
_ATTEMPTS = 4
# Of a narrower bound, means are better by this power.
_SHRINKS = 0.8


@dataclass(frozen=True)
class Goal:
    """What was asked for.

    Parameters
    ----------
    bound : Bound or None
    target_rmse : float or None
        One of the two at most; None of both where nothing but the range is kept.
    max_mean_error : float or None
        Of every field's area-weighted mean, in the data's unit. Default: a twentieth of the bound
        or target; of a relative bound, a twentieth of that fraction of the mean magnitude.
    """

    bound: Bound | None = None
    target_rmse: float | None = None
    max_mean_error: float | None = None


@dataclass(frozen=True, eq=False)
class Given:
    """A chunk as it was given, to be held against what is decoded.

    Parameters
    ----------
    values : float array, shape (items, cells)
    counted : bool array of that shape
        Which cells have a say in errors and means; others must come back bit for bit.
    weights : float64 array, shape (cells,)
        Areas.
    holes : bool array, shape (cells,), optional
        Places without a cell, of which nothing is asked.
    """

    values: Floating
    counted: Bool
    weights: Float64
    holes: Bool | None = None

    @cached_property
    def area(self) -> Float64:
        """Of the counted cells of every field."""
        return np.asarray(self.counted @ self.weights)

    def tolerances(self, goal: Goal) -> Float64:
        """How far the mean of every field may be off; infinite where that is nobody's business."""
        items = len(self.values)
        if goal.max_mean_error is not None:
            return np.full(items, goal.max_mean_error)
        if goal.bound is None:
            share = np.inf if goal.target_rmse is None else MEAN_SHARE * goal.target_rmse
            return np.full(items, share)
        if not goal.bound.relative:
            return np.full(items, MEAN_SHARE * goal.bound.error)
        sizes = np.array([np.abs(self._numbers(k)) @ self.weights for k in range(items)])
        return np.asarray(MEAN_SHARE * goal.bound.error * sizes / np.maximum(self.area, 1e-300))

    def _numbers(self, item: int) -> Float64:
        numbers: Float64 = self.values[item].astype(np.float64)
        if not self.counted[item].all():
            numbers[~self.counted[item]] = 0
        return numbers

    def finish(
        self, decoded: Floating, coded: Bool, fixed: tuple[float, ...], goal: Goal
    ) -> tuple[Finish, float] | None:
        """What makes decoded values keep the goal.

        Parameters
        ----------
        decoded : array, shape (items, cells)
        coded : bool array of that shape
            Cells that were not stored exactly.
        fixed : tuple of float
            Values that must have come back exactly.

        Returns
        -------
        (Finish, float) or None
            The float is 1, or by how much bound or target must be narrowed for a finish to keep
            them. None where a value did not come back exactly.
        """
        low, high = extremes(self.values, coded)
        tolerances = self.tolerances(goal)
        relative = goal.bound is not None and goal.bound.relative
        unit = _FINENESS * float(tolerances.min())
        if goal.bound is not None and relative:
            unit = _FINENESS * MEAN_SHARE * goal.bound.error
        error = goal.bound.error if goal.bound is not None else goal.target_rmse or 0.0
        snap = error / 4 if len(fixed) == 2 else 0.0
        # In single precision, as it is stored.
        unit = float(np.float32(unit)) if np.isfinite(unit) else 0.0
        clip = Finish(low, high, fixed, snap, unit, relative)

        def settle(item: int) -> _Settled:
            raw, part = decoded[item], coded[item]
            first = self._look(item, raw, part, clip, goal)
            area = max(float(self.area[item]), 1e-300)
            mean, tolerance, shift, now = first.signed / area, float(tolerances[item]), 0, first
            wide = abs(mean) / tolerance if tolerance else np.inf
            for _ in range(_ATTEMPTS):
                if abs(mean) <= tolerance:
                    break
                found = replace(clip, shifts=np.array([shift])).applied(raw, part)
                shift += self._shift(item, mean, tolerance, found, part, clip, goal)
                if abs(shift) > LARGEST_SHIFT:
                    return first._replace(wide=wide, slack=np.inf)
                one = replace(clip, low=None, high=None, shifts=np.array([shift]))
                now = self._look(item, one.applied(raw, part), part, clip, goal)
                mean = now.signed / area
            slack = abs(shift) * clip.unit if abs(mean) <= tolerance else np.inf
            return now._replace(
                exact=first.exact, snapped=first.snapped, shift=shift, slack=slack, wide=wide
            )

        settled = [settle(item) for item in range(len(decoded))]
        if not all(one.exact for one in settled):
            return None
        shifts = np.array([one.shift for one in settled], np.int64)
        result = replace(
            clip,
            low=low if any(one.below for one in settled) else None,
            high=high if any(one.above for one in settled) else None,
            snap=snap if any(one.snapped for one in settled) else 0.0,
            shifts=shifts,
        )
        return result, self._narrowing(settled, goal)

    def _look(self, item: int, found: Floating, part: Bool, clip: Finish, goal: Goal) -> _Settled:
        """What is off in a field, block by block."""
        wanted, counted = self.values[item], self.counted[item]

        def look(start: int) -> _Settled:
            block = slice(start, start + CELLS_AT_ONCE)
            given, got, own, has_say = wanted[block], found[block], part[block], counted[block]
            snapped = False
            if clip.snap:
                before, got = got, got.copy()
                clip.snapped(got)
                snapped = bool((got != before)[own].any())
            inside = got if own.all() else got[own]
            below = above = False
            if len(inside):
                below, above = bool(inside.min() < clip.low), bool(inside.max() > clip.high)
            exact = all(bool((got[given == v] == v).all()) for v in clip.fixed)
            numbers = got.astype(np.float64)
            if (below or above) and own.all():
                np.clip(numbers, clip.low, clip.high, out=numbers)
            elif below or above:
                numbers[own] = np.clip(numbers[own], clip.low, clip.high)
            target = given.astype(np.float64)
            if not has_say.all():
                kept = ~has_say if self.holes is None else ~has_say & ~self.holes[block]
                exact &= got[kept].tobytes() == given[kept].tobytes()
                numbers[~has_say] = target[~has_say] = 0
            weights, loss = self.weights[block], 0.0
            if goal.bound is not None:
                loss = float(len(target) - np.count_nonzero(goal.bound.holds(numbers, target)))
            numbers -= target
            if goal.bound is None:
                loss = float(np.einsum("c,c,c->", numbers, numbers, weights))
            return _Settled(below, above, exact, snapped, float(numbers @ weights), loss)

        blocks = map_compiled(look, range(0, len(wanted), CELLS_AT_ONCE))
        return _Settled(
            any(b.below for b in blocks), any(b.above for b in blocks),
            all(b.exact for b in blocks), any(b.snapped for b in blocks),
            sum(b.signed for b in blocks), sum(b.loss for b in blocks),
        )  # fmt: skip

    def _shift(
        self,
        item: int,
        mean: float,
        tolerance: float,
        found: Floating,
        part: Bool,
        clip: Finish,
        goal: Goal,
    ) -> int:
        """How many units away from a mean error; no more than are needed where they cost slack."""
        moved = part.copy()
        for value in clip.fixed:
            moved &= found != value
        sizes = np.where(moved, self.weights, 0)
        if clip.relative:
            sizes = sizes * np.where(moved, found, 0).astype(np.float64)
        leverage = float(sizes.sum()) / max(float(self.area[item]), 1e-300)
        if leverage == 0 or clip.unit == 0:
            return 0
        wanted = -mean
        if goal.bound is not None:
            wanted = -np.sign(mean) * max(abs(mean) - _AIM * tolerance, 0)
        units = wanted / (leverage * clip.unit)
        if not abs(units) < LARGEST_SHIFT:
            return 0
        return int(np.sign(units)) * ceil(abs(units)) if goal.bound is not None else round(units)

    def _narrowing(self, settled: list[_Settled], goal: Goal) -> float:
        slack, loss = max(one.slack for one in settled), sum(one.loss for one in settled)
        # Errors of means shrink about as bounds do.
        wide = max([1.0, *(one.wide for one in settled)])
        by_itself = float(np.clip(wide**-_SHRINKS, 0.5, 0.97))
        if not np.isfinite(slack):
            return by_itself
        if goal.bound is not None:
            if loss == 0:
                return 1.0
            return max(by_itself, min(1 - 1.05 * slack / goal.bound.error, 0.99))
        if goal.target_rmse is None:
            return 1.0
        rmse = sqrt(loss / max(float(self.area.sum()), 1e-300))
        share = rmse / (goal.target_rmse * (1 - ROUNDING))
        return 1.0 if share <= 1 else float(np.clip(0.998 / share, 0.5, 0.998))


class _Settled(NamedTuple):
    """What was found out about a field.

    Parameters
    ----------
    below, above : bool
        Whether values leave the range.
    exact, snapped : bool
        Whether those that must are exact, missing ones bit for bit; whether they are not by
        themselves.
    signed, loss : float
        Sums of errors by area, and of their squares under a target; how many values are beyond a
        bound.
    shift : int
    slack : float
        What the shift takes of a bound; infinite where none brings the mean back.
    wide : float
        How far the mean was off, of what it may be.
    """

    below: bool
    above: bool
    exact: bool
    snapped: bool
    signed: float
    loss: float
    shift: int = 0
    slack: float = 0.0
    wide: float = 1.0
