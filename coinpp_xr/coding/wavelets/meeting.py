"""The largest step by which fields meet an RMSE, and what is told of it."""

from __future__ import annotations

from itertools import groupby
from math import exp, log, prod, sqrt

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import decisions
from coinpp_xr.coding.pyramid.coders import band_count
from coinpp_xr.coding.pyramid.schedule import Unit
from coinpp_xr.coding.wavelets import rounding
from coinpp_xr.coding.wavelets.arrays import Arrays
from coinpp_xr.coding.wavelets.encoding import Coded, Member, Rounded, encode, members_of
from coinpp_xr.coding.wavelets.estimating import AT_FIRST, LEAST_OF_STEP, Known, first_step
from coinpp_xr.coding.wavelets.field_coding import (
    Coefficients,
    Numbers,
    Referred,
    Surroundings,
    bands_of,
    joined,
    rebuilt,
    room_for,
)
from coinpp_xr.coding.wavelets.parameters import USUAL_GRADED, Told
from coinpp_xr.coding.wavelets.predicting import (
    Lookup,
    counts_of,
    fitted_weights,
    left,
    plainly_rounded,
)
from coinpp_xr.coding.wavelets.rounding import SHIFT_PARTS, Steps
from coinpp_xr.fields import ROUNDING, round_to
from coinpp_xr.parallel import map_compiled

Float64 = npt.NDArray[np.float64]

# How often, how near is near enough, and how far a try may be from the last one.
_TRIES, _FARTHEST = 6, 2.0
_NEAR_ENOUGH = {"fast": 0.97, "default": 0.99, "paper": 0.99, "best": 0.995}
# Steps that single precision tells well.
_LEAST_STEP, _MOST_STEP = 1e-35, 1e35
# Numbers of a subband that are looked at to find what magnitudes take; and of how many frequencies.
_COUNTED, _FREQUENCIES = 2_000, 8
# Classes of expected size for which one context decides what is zero.
_QUICK = {"fast": 12, "default": 6, "paper": 6, "best": 0}


class Meeting:
    """Fields that are to be coded.

    Parameters
    ----------
    arrays : Arrays
        Of the fields that are to be coded.
    target_rmse : float
    effort : str
    """

    def __init__(self, arrays: Arrays, target_rmse: float, effort: str) -> None:
        self._arrays, self._target_rmse = arrays, target_rmse
        self._plan = arrays.plan
        self._quick, self._near_enough = _QUICK[effort], _NEAR_ENOUGH[effort]
        self._aimed = (1 + self._near_enough) / 2 * target_rmse
        self._first, self._slope = first_step(arrays, self._aimed)
        arrays.drop_waves(LEAST_OF_STEP * self._first)
        self._subbands = arrays.subbands
        self._bands = band_count(prod(arrays.fields.grid.shape))
        # From the first try on: by kind of units, what magnitudes take; and how values are rounded.
        self._bits: dict[int, Float64] = {}
        self._towards_zero = AT_FIRST

    def smallest(self) -> Coded | None:
        """What meets the target; None where no step was found that does."""
        step, slope, target_rmse = self._first, self._slope, self._target_rmse
        tried: list[tuple[float, float]] = []
        best, found = None, None
        for _ in range(_TRIES):
            del found  # takes as much memory as the fields
            step = float(np.float32(step))
            if not _LEAST_STEP < step < _MOST_STEP:
                break
            found = self._round(step)
            if found.rmse <= target_rmse * (1 - ROUNDING):
                if best is None or found.steps.step > best.steps.step:
                    best = found
                if found.rmse > self._near_enough * target_rmse:
                    break
            if not tried:
                self._learn(found)
            tried.append((log(step), log(max(found.rmse, 1e-300))))
            if len(tried) > 1 and tried[-1][0] != tried[-2][0]:
                slope = (tried[-1][1] - tried[-2][1]) / (tried[-1][0] - tried[-2][0])
            aim = log(self._aimed) - tried[-1][1]
            step *= exp(min(max(aim / min(max(slope, 0.3), 1.1), -_FARTHEST), _FARTHEST))
        return None if best is None else encode(self._arrays, best, self._quick)

    def _round(self, step: float) -> Rounded:
        """All arrays in steps of some size, each after those that it refers to."""
        arrays, plan, fields = self._arrays, self._plan, self._arrays.fields
        referred = Referred(plan.units)
        steps, decoded = Steps(step, self._towards_zero), self._as_given()
        found, whole = Rounded(steps, {}, {}, 0.0), bool(arrays.coded.all())
        for kind, group in groupby(plan.units, lambda unit: unit.kind):
            units = list(group)
            members = members_of(units)
            weights = found.weights[kind] = fitted_weights(arrays, members, referred)
            told = [Told(USUAL_GRADED, own) for own in weights]
            if kind not in self._bits:
                some = self._some_of(members)
                known = Known(arrays, some, step, self._bands) if plan.along_time else referred
                self._bits[kind] = self._plain_bits(some, known, told, step)
            bits = self._bits[kind]

            def code(
                unit: Unit, told: list[Told] = told, bits: Float64 = bits
            ) -> tuple[Unit, list[list[Float64]]]:
                values = []
                for item, references in zip(unit.items, unit.references, strict=True):
                    others = referred.of(references)
                    numbers = self._numbers(
                        left(arrays.of(item), others, told), others, steps, bits
                    )
                    found.numbers[item] = numbers
                    array = rebuilt(numbers, steps, told, others)
                    values.append(array.values)
                    referred.add(item, array)
                return unit, values

            for item, field in plan.fields(plan.in_parts(code, units), arrays.transform):
                rounded = round_to((field + arrays.origin).ravel(), decoded.dtype)
                np.copyto(decoded[item], rounded, where=whole or arrays.coded[item])
            referred.forget(kind)
        found.rmse = sqrt(fields.mean_squared_error(decoded))
        return found

    def _learn(self, found: Rounded) -> None:
        """What further tries go by."""
        for kind, group in groupby(self._plan.units, lambda unit: unit.kind):
            counts, some = np.zeros(()), self._some_of(members_of(group))
            for item, references in some:
                before = [found.numbers[other] for other in references]
                own = counts_of(found.numbers[item], before, self._subbands, _COUNTED)
                counts = counts + own
            self._bits[kind] = rounding.bits_of(counts)
            if kind == 0:
                self._towards_zero = self._shifts(some, found.numbers, found.steps.step)

    def _as_given(self) -> npt.NDArray[np.floating]:
        """The fields in the precision in which they are decoded; anything where they are coded."""
        fields, coded = self._arrays.fields, self._arrays.coded
        dtype = fields.dtype if fields.dtype.itemsize > 2 else np.dtype(np.float32)
        given = np.empty(fields.values.shape, dtype)
        if not coded.all():
            given[~coded] = fields.values[~coded]
        return given

    def _some_of(self, members: list[Member]) -> list[Member]:
        """Of a kind, what rounding goes by: frequencies differ more than fields do."""
        count = min(_FREQUENCIES if self._plan.along_time else 1, len(members))
        return [members[(2 * k + 1) * len(members) // (2 * count)] for k in range(count)]

    def _plain_bits(
        self, members: list[Member], known: Lookup, told: list[Told], step: float
    ) -> Float64:
        """What magnitudes take, by plain rounding of some arrays."""
        counts = np.zeros(())
        for item, references in members:
            others = known.of(references)
            wanted = left(self._arrays.of(item), others, told)
            numbers = plainly_rounded(wanted, step, self._subbands, self._bands)
            before = [field.numbers for field in others]
            counts = counts + counts_of(numbers, before, self._subbands, _COUNTED)
        return rounding.bits_of(counts)

    def _shifts(
        self, members: list[Member], numbers: dict[int, list[Numbers]], step: float
    ) -> tuple[float, float, float]:
        """By which parts of a step values of 1, of 2 and of more are nearer to zero."""
        sums = np.zeros((2, rounding.KINDS))
        for item, _ in members:
            for values, own in zip(self._arrays.of(item), joined(numbers[item]), strict=True):
                rounding.add_shifts(values, step, own, sums)
        shifts = np.where(sums[0] > 0, sums[1] / np.maximum(sums[0], 1), [0, *AT_FIRST])
        one, two, more = (
            round(SHIFT_PARTS * min(max(s, 0), 0.25)) / SHIFT_PARTS for s in shifts[1:].tolist()
        )
        return one, two, more

    def _numbers(
        self, wanted: list[Float64], others: list[Coefficients], steps: Steps, bits: Float64
    ) -> list[Numbers]:
        shifts = np.array([0.0, *steps.towards_zero])

        def round_band(band: int) -> Numbers:
            numbers = room_for(self._subbands, band, self._bands)
            before = [field.numbers[band] for field in others]
            for k, (values, own) in enumerate(zip(wanted, numbers, strict=True)):
                rows = bands_of(len(values), self._bands)[band]
                rounding.round_well(
                    values[rows], steps.step, rounding.USUAL, own,
                    *Surroundings.of(k, self._subbands, numbers, before),
                    decisions.tables().size_class, bits, shifts,
                )  # fmt: skip
            return numbers

        return map_compiled(round_band, range(self._bands))
