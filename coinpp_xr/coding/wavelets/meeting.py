"""The largest step by which fields meet an RMSE, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import decisions
from coinpp_xr.coding.pyramid.coders import Coder, band_count
from coinpp_xr.coding.pyramid.grades import graded_least_squares
from coinpp_xr.coding.pyramid.schedule import Unit
from coinpp_xr.coding.wavelets import rounding, stream
from coinpp_xr.coding.wavelets.field_coding import (
    Coefficients,
    Numbers,
    Referred,
    Surroundings,
    as_one_band,
    bands_of,
    code_band,
    joined,
    predicted,
    room_for,
)
from coinpp_xr.coding.wavelets.filling import filled
from coinpp_xr.coding.wavelets.numbers import COEFFICIENT_BITS, N_FEATURES
from coinpp_xr.coding.wavelets.parameters import (
    LARGEST_WEIGHT,
    USUAL_GRADED,
    WEIGHT_PARTS,
    Told,
)
from coinpp_xr.coding.wavelets.rounding import SHIFT_PARTS, Steps
from coinpp_xr.coding.wavelets.stream import Plan
from coinpp_xr.coding.wavelets.subbands import PAD, transform_of
from coinpp_xr.fields import ROUNDING, Fields, Sequences, round_to
from coinpp_xr.parallel import map_compiled

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
# A field and those that it refers to.
Member = tuple[int, tuple[int, ...]]

# Rounding that is worth its bits leaves values nearer to zero by about these parts of a step, and
# makes errors about so much larger.
_AT_FIRST, _LARGER = (0.04, 0.035, 0.025), 1.05
# How often, how near is near enough, what is aimed at, and how far a try may be from the last one.
_TRIES, _AIMED, _FARTHEST = 6, 0.997, 2.0
_NEAR_ENOUGH = {"fast": 0.97, "default": 0.99, "paper": 0.99, "best": 0.995}
# Steps that single precision tells well.
_LEAST_STEP, _MOST_STEP = 1e-35, 1e35
# Logarithms of steps by which a slope is found.
_APART = 0.05
# Coefficients of fields are kept while steps are tried, if they are no more than that.
_KEPT = 1 << 24
# Coefficients that a first step is found by; numbers of a subband that are looked at to find what
# magnitudes depend on, and what they take.
_TRIED, _LOOKED_AT, _COUNTED = 60_000, 10_000, 4_000
# Numbers of a field that are not zero, from which on each band of rows is coded by itself.
_WORTH_A_BAND = 30_000
# Classes of expected size for which one context decides what is zero.
_QUICK = {"fast": 12, "default": 6, "paper": 6, "best": 0}
# A subband tells what features count if it has so many numbers that are not zero.
_WORTH_TELLING, _RIDGE = 300, 1e-4
# Steps are a few RMSEs at fine errors, and many at coarse ones.
_FEWEST, _MOST = 1.5, 400.0


@dataclass(frozen=True, eq=False)
class Coded:
    """Head and streams of :mod:`coinpp_xr.coding.wavelets.stream`."""

    head: bytes
    streams: bytes

    def __len__(self) -> int:
        return len(self.head) + len(self.streams)


@dataclass(eq=False)
class _Rounded:
    """All fields in some steps."""

    steps: Steps
    numbers: dict[int, list[Numbers]]
    weights: dict[int, list[npt.NDArray[np.int64]]]
    values: npt.NDArray[np.floating]
    rmse: float


class Meeting:
    """Fields that are to be coded.

    Parameters
    ----------
    fields : Fields
    sequences : Sequences
        Which item follows which.
    coded : bool array, shape (items, cells)
        What is not kept elsewhere, exactly. Somewhere true.
    effort : str
    """

    def __init__(self, fields: Fields, sequences: Sequences, coded: Bool, effort: str) -> None:
        self._fields, self._coded, shape = fields, coded, fields.grid.shape
        present = np.asarray(coded.any(axis=1))
        self._plan = Plan.of(sequences.order, present, shape[0] * shape[1])
        self._transform = transform_of(fields.grid)
        self._subbands = self._transform.subbands
        self._origin = float(np.float32(fields.values.mean(where=coded)))
        self._quick, self._near_enough = _QUICK[effort], _NEAR_ENOUGH[effort]
        self._bands = band_count(shape[0] * shape[1])
        # Found out by the last try: by kind of units, what magnitudes take; how values are rounded.
        self._bits: dict[int, Float64] = {}
        self._towards_zero = _AT_FIRST
        self._known: dict[int, list[Float64]] = {}
        self._keeps = fields.values.size <= _KEPT

    def smallest(self, target_rmse: float) -> Coded | None:
        """What meets an RMSE; None where no step was found that does."""
        (step, slope), best, tried = self._first_step(target_rmse), None, []
        for _ in range(_TRIES):
            step = float(np.float32(step))
            if not _LEAST_STEP < step < _MOST_STEP:
                break
            found = self._round(step)
            if found.rmse <= target_rmse * (1 - ROUNDING):
                if best is None or found.steps.step > best.steps.step:
                    best = found
                if found.rmse > self._near_enough * target_rmse:
                    break
            tried.append((log(step), log(max(found.rmse, 1e-300))))
            if len(tried) > 1 and tried[-1][0] != tried[-2][0]:
                slope = (tried[-1][1] - tried[-2][1]) / (tried[-1][0] - tried[-2][0])
            aim = log(_AIMED * target_rmse) - tried[-1][1]
            step *= exp(min(max(aim / min(max(slope, 0.3), 1.1), -_FARTHEST), _FARTHEST))
        return None if best is None else self._code(best)

    def _forward(self, item: int) -> list[Float64]:
        """Coefficients of a field."""
        if item in self._known:
            return self._known[item]
        shape = self._fields.grid.shape
        field = (self._fields.values[item] - self._origin).reshape(shape)
        found = self._transform.forward(filled(field, self._coded[item].reshape(shape)))
        if self._keeps:
            self._known[item] = found
        return found

    def _first_step(self, target_rmse: float) -> tuple[float, float]:
        """By which rounding of one field by itself leaves about such an error.

        And how logarithms of errors follow those of steps there.
        """
        item = self._plan.units[0].items[0]
        values = np.concatenate([array.ravel() for array in self._forward(item)])
        low, high = log(_FEWEST * target_rmse), log(_MOST * target_rmse)
        target_rmse /= _LARGER
        values = values[:: max(1, len(values) // _TRIED)][None]
        numbers = np.zeros((1 + 2 * PAD, values.shape[1] + 2 * PAD), np.int32)

        def error(step: float) -> float:
            """The logarithm of the error."""
            rounding.round_plainly(values, exp(step), numbers)
            off = Steps(exp(step), _AT_FIRST).values(numbers[PAD:-PAD, PAD:-PAD]) - values
            return log(max(float((off**2).mean()), 1e-300)) / 2

        for _ in range(9):
            step = (low + high) / 2
            if error(step) > log(target_rmse):
                high = step
            else:
                low = step
        slope = (error(step + _APART) - error(step - _APART)) / (2 * _APART)
        return exp((low + high) / 2), slope

    def _round(self, step: float) -> _Rounded:
        """All fields in steps of some size, each after those that it refers to."""
        units, fields = self._plan.units, self._fields
        referred = Referred(units)
        dtype = fields.dtype if fields.dtype.itemsize > 2 else np.dtype(np.float32)
        steps = Steps(step, self._towards_zero)
        found = _Rounded(steps, {}, {}, np.zeros(fields.values.shape, dtype), 0.0)
        for kind, group in groupby(units, lambda unit: unit.kind):
            members = _members(group)
            weights = found.weights[kind] = self._weights(members, referred)
            told = [Told(USUAL_GRADED, own) for own in weights]
            item, references = members[len(members) // 2]
            again = kind in self._bits
            if not again:
                others = referred.of(references)
                self._bits[kind] = self._plain_bits(self._left(item, others, told), others, step)
            bits = self._bits[kind]

            def code(member: Member, told: list[Told] = told, bits: Float64 = bits) -> Coefficients:
                item, references = member
                others = referred.of(references)
                numbers = self._numbers(self._left(item, others, told), others, steps, bits)
                values = [
                    steps.values(own) + predicted(told[k], others, k)
                    for k, own in enumerate(joined(numbers))
                ]
                decoded = self._transform.inverse(values) + self._origin
                found.values[item] = self._with_kept(item, round_to(decoded.ravel(), dtype))
                return Coefficients(values, numbers)

            for member, coefficients in zip(members, map_compiled(code, members), strict=True):
                referred.add(member[0], coefficients)
                found.numbers[member[0]] = coefficients.numbers
            if not again:  # what other tries go by
                others = referred.of(references)
                self._bits[kind] = self._bits_of(found.numbers[item], others)
                if kind == 0:
                    self._towards_zero = self._shifts(item, found.numbers[item], step)
            referred.forget(kind)
        found.rmse = sqrt(fields.mean_squared_error(found.values))
        return found

    def _with_kept(self, item: int, decoded: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        coded, values = self._coded[item], self._fields.values[item]
        return decoded if coded.all() else np.where(coded, decoded, values.astype(decoded.dtype))

    def _left(self, item: int, others: list[Coefficients], told: list[Told]) -> list[Float64]:
        """Coefficients, less what others predict."""
        found = self._forward(item)
        if not others:
            return found
        return [own - predicted(told[k], others, k) for k, own in enumerate(found)]

    def _weights(self, members: list[Member], referred: Referred) -> list[npt.NDArray[np.int64]]:
        """How subbands are predicted from references, by least squares over all fields."""
        count = len(members[0][1])
        if not count:
            return [np.zeros(0, np.int64)] * len(self._subbands)
        products = np.zeros((len(self._subbands), count, count))
        sides = np.zeros((len(self._subbands), count))
        for item, references in members:
            others = referred.of(references)
            for k, own in enumerate(self._forward(item)):
                before = [field.values[k] for field in others]
                products[k] += [[float((a * b).sum()) for b in before] for a in before]
                sides[k] += [float((a * own).sum()) for a in before]
        ridge = 1e-6 * np.trace(products, axis1=1, axis2=2)[:, None, None] + 1e-300
        solutions = np.linalg.solve(products + ridge * np.eye(count), sides[:, :, None])[:, :, 0]
        most = LARGEST_WEIGHT / WEIGHT_PARTS
        parts = np.rint(np.clip(np.nan_to_num(solutions), -most, most) * WEIGHT_PARTS)
        return list(parts.astype(np.int64))

    def _plain_bits(
        self, wanted: list[Float64], others: list[Coefficients], step: float
    ) -> Float64:
        """What magnitudes take, by plain rounding of a field."""

        def plain(band: int) -> Numbers:
            numbers = room_for(self._subbands, band, self._bands)
            for values, own in zip(wanted, numbers, strict=True):
                rows = bands_of(len(values), self._bands)[band]
                rounding.round_plainly(values[rows], step, own)
            return numbers

        return self._bits_of(map_compiled(plain, range(self._bands)), others)

    def _bits_of(self, numbers: list[Numbers], others: list[Coefficients]) -> Float64:
        """What magnitudes take, by how often they occur in a field."""
        counts = np.zeros((decisions.CLASSES, rounding.KINDS))
        for band, own in enumerate(numbers):
            before = [field.numbers[band] for field in others]
            for k, array in enumerate(own):
                every = max(1, array.size // _COUNTED)
                part = np.zeros_like(counts)
                rounding.count(
                    rounding.USUAL, array, *Surroundings.of(k, self._subbands, own, before),
                    decisions.tables().size_class, every, part,
                )  # fmt: skip
                counts += every * part
        return rounding.bits_of(counts)

    def _shifts(self, item: int, numbers: list[Numbers], step: float) -> tuple[float, float, float]:
        """By which parts of a step values of 1, of 2 and of more are nearer to zero."""
        sums = np.zeros((2, rounding.KINDS))
        for values, own in zip(self._forward(item), joined(numbers), strict=True):
            rounding.add_shifts(values, step, own, sums)
        shifts = np.where(sums[0] > 0, sums[1] / np.maximum(sums[0], 1), [0, *_AT_FIRST])
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

    def _code(self, found: _Rounded) -> Coded:
        units = self._plan.units
        coders: dict[int, list[Coder]] = {}
        told: list[list[Told]] = []
        numbers, bands = found.numbers, self._bands
        some = sum(np.count_nonzero(a) for own in numbers.values() for b in own for a in b)
        if some < _WORTH_A_BAND * len(numbers):  # each band has to learn by itself
            numbers, bands = {k: as_one_band(own) for k, own in numbers.items()}, 1
        for kind, group in groupby(range(len(units)), lambda number: units[number].kind):
            some_units = list(group)
            members = _members(units[number] for number in some_units)
            own = self._told(members, numbers, found.weights[kind])
            told.append(own)

            def code(number: int, own: list[Told] = own) -> None:
                unit = units[number]
                parents = [None] * bands if unit.parent is None else coders[unit.parent]
                coders[number] = [Coder.encoder(parent) for parent in parents]

                def code_rows(band: int) -> None:
                    for item, references in zip(unit.items, unit.references, strict=True):
                        before = [numbers[reference][band] for reference in references]
                        code_band(
                            coders[number][band], own, self._subbands, before,
                            numbers[item][band], self._quick, decoding=False,
                        )  # fmt: skip

                map_compiled(code_rows, range(bands))

            map_compiled(code, some_units)
        streams = [[c.finish() for c in coders[number]] for number in range(len(units))]
        head = self._plan, self._subbands, self._origin, found.steps, told, self._quick
        return Coded(*stream.pack(*head, streams))

    def _told(
        self,
        members: list[Member],
        numbers: dict[int, list[Numbers]],
        weights: list[npt.NDArray[np.int64]],
    ) -> list[Told]:
        """What magnitudes of every subband are expected from, where that is worth telling."""
        usual = dict.fromkeys(range(4), USUAL_GRADED)
        told, x = [], np.zeros(N_FEATURES)
        for k, subband in enumerate(self._subbands):
            sums = np.zeros((N_FEATURES + 1, N_FEATURES))
            some, size = 0, len(members) * subband.shape[0] * subband.shape[1]
            every = max(1, size // _LOOKED_AT)
            for item, references in members:
                for band, own in enumerate(numbers[item]):
                    some += int(np.count_nonzero(own[k]))
                    before = [numbers[reference][band] for reference in references]
                    around = Surroundings.of(k, self._subbands, own, before)
                    rounding.add_sums(own[k], *around, every, x, sums)
            if some >= _WORTH_TELLING:
                usual[subband.kind] = graded_least_squares(
                    sums[:N_FEATURES], sums[N_FEATURES], COEFFICIENT_BITS, _RIDGE
                )
            told.append(Told(usual[subband.kind], weights[k]))
        return told


def _members(units: Iterable[Unit]) -> list[Member]:
    return [member for u in units for member in zip(u.items, u.references, strict=True)]
