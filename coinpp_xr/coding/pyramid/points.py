"""The three passes of a level: their points predicted, fitted and coded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import contexts, decisions, prediction, range_coder
from coinpp_xr.coding.pyramid.coders import Coder, Decoded, PassParameters
from coinpp_xr.coding.pyramid.fitting import Sizes, fit_weights, share, usual_weights
from coinpp_xr.coding.pyramid.geometry import geometry
from coinpp_xr.coding.pyramid.levels import PAD, pad, reach_of
from coinpp_xr.coding.pyramid.prediction import (
    BEFORE,
    BEHIND,
    Places,
    Pool,
    Rows,
    neighbour_count,
)
from coinpp_xr.coding.pyramid.references import References
from coinpp_xr.coding.pyramid.sampling import Sample
from coinpp_xr.parallel import map_compiled

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

# Of every pass, points that parameters are fitted to: one of so many, but not fewer or more. Half
# of them where nothing is mixed, and none for passes of few points that are a small part of all;
# four times as many where everything is mixed.
_SAMPLED, _FEWEST, _MOST = 8, 8_000, 24_000
_QUICKLY, _THOROUGHLY, _WORTH_FITTING = 0.5, 16, 4_000
# How often weights are fitted, each time with the errors that the last ones leave: at best.
_ROUNDS = 2

# Parts of a sample, at least: for two threads.
_PARTS = 2
_NO_FIELDS = Decoded(np.empty((0, 0, 0), np.int32), np.empty((0, 0, 0), np.int8))
_NO_TARGET = np.empty((0, 0, 0))
# Passes of fewer points are not worth a second thread.
_WORTH_A_THREAD = 12_000


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the fields of a unit before they are coded.

    Parameters
    ----------
    fields : list of Decoded
        Those that all of them refer to, each for all items: none, one or two.
    valid : bool array, shape (items, n_lat, n_lon)
        Of no items, where all cells count.
    target : float64 array, shape (items, n_lat, n_lon), or None
        For an encoder, in 1/64 of a step.
    copies : float
        How many times as many fields will use parameters that are fitted here.
    usual : dict
        (level, pass) → parameters of fields that refer to as many others, to begin with.
    """

    fields: list[Decoded]
    valid: Bool
    target: Float64 | None = None
    copies: float = 1.0
    usual: dict[tuple[int, int], PassParameters] = field(default_factory=dict)


class Level:
    """The grid of one spacing, as four phases: the coarser grid, and the points of three passes."""

    def __init__(
        self, shape: tuple[int, int], level: int, n_items: int, *, around: bool, quick: int
    ) -> None:
        self._level, self._around, self._quick = level, around, quick
        self._geometry = geometry(shape, level, n_items, reach_of(quick), around=around)
        size = self._geometry.starts[-1]
        self._pool = Pool(np.empty(size, np.int32), np.empty(size, np.int8))

    def phase(self, number: int) -> tuple[Int32, Int8]:
        """Values and marks of a phase, as views: 0 is the coarser grid, 1 to 3 are the passes."""
        values, marks = (self._padded(array, number) for array in self._pool)
        inside = slice(PAD, -PAD)
        return values[:, inside, inside], marks[:, inside, inside]

    def _padded(self, array: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
        items, rows, columns = self._geometry.shapes[number]
        start, end = self._geometry.starts[number : number + 2]
        return array[start:end].reshape(items, rows + 2 * PAD, columns + 2 * PAD)

    def pad(self, number: int) -> None:
        """What surrounds a phase, once that is filled."""
        for array in self._pool:
            pad(self._padded(array, number), around=self._around)

    def code(
        self,
        number: int,
        coders: list[Coder],
        parameters: dict[tuple[int, int], PassParameters],
        known: Known,
    ) -> None:
        """Encode or decode the pass of a phase. An encoder adds parameters that are missing."""
        where = self._geometry.passes[number - 1]
        if 0 in where.shape:
            return
        fields = known.fields
        first, second = (*fields, _NO_FIELDS, _NO_FIELDS)[:2]
        references = References(
            len(fields), first.values, second.values, first.marks, second.marks,
            where.rows, where.columns, where.diagonal,
        )  # fmt: skip
        points = _Points(self._pool, where.places, references, where.which, where.shape, known)
        key, numbers = (self._level, number - 1), None
        if key not in parameters:
            parameters[key], numbers = points.fit(
                len(coders), self._quick, known.usual.get(key),
                parameters.get((self._level + 1, number - 1)),
            )  # fmt: skip
        points.code(coders, parameters[key], self._quick, numbers)


@dataclass(frozen=True, eq=False)
class _Points:
    """The points of one pass."""

    pool: Pool
    places: Places
    references: References
    which: tuple[int, int, int]
    shape: tuple[int, ...]
    known: Known

    def _bands(self, count: int) -> list[tuple[int, int]]:
        rows = self.shape[1]
        return [(rows * k // count, rows * (k + 1) // count) for k in range(count)]

    def _numbers(self) -> Int32:
        items, rows, columns = self.shape
        return np.zeros((items, rows, BEFORE + columns + BEHIND), np.int32)

    def _rows(self) -> Rows:
        return Rows.of(self.shape[2], self.references.number)

    def _map(self, function: Callable[[int], None], count: int) -> None:
        if self.shape[0] * self.shape[1] * self.shape[2] < _WORTH_A_THREAD:
            for number in range(count):
                function(number)
        else:
            map_compiled(function, range(count))

    def fit(
        self,
        n_bands: int,
        quick: int,
        previous: PassParameters | None,
        coarser: PassParameters | None,
    ) -> tuple[PassParameters, Int32 | None]:
        """Parameters for these points, by a sample of them; and the steps, if they are known."""
        target, valid = self.known.target, self.known.valid
        assert target is not None
        size = self.shape[0] * self.shape[1] * self.shape[2]
        usual = usual_weights(
            neighbour_count(self.places), self.references.number, self.places.beside, previous
        )
        quickly = not decisions.mixes(quick)
        if quickly and size * self.known.copies < min(_WORTH_FITTING, target.size // 16):
            expected = contexts.USUAL_COEFFICIENTS if previous is None else previous.coefficients
            return PassParameters(usual[None], False, expected), None
        times = _QUICKLY if quickly else _THOROUGHLY if quick == 0 else 1
        every = max(1, int(size / (times * np.clip(size // _SAMPLED, _FEWEST, _MOST))))
        bands, parts = self._bands(n_bands), self._bands(max(n_bands, _PARTS))
        samples: list[Sample] = [None] * len(parts)  # type: ignore[list-item]

        def gather(number: int) -> None:
            samples[number] = Sample.of(
                self.pool, self.places, self.references, target, valid, self.which, self.shape,
                every, *parts[number],
            )  # fmt: skip

        def quantise(number: int) -> None:
            prediction.quantise_rows(
                self.pool, self.places, weights, self.references, target, valid,
                self.which, self._rows(), numbers, *bands[number],
            )  # fmt: skip

        def cost() -> float:
            return sum(prediction.cost(numbers, *band) for band in bands)

        def top_of(number: int) -> int:
            return next(first for first, last in bands if parts[number][0] < max(last, 1))

        def look_beside(number: int) -> None:
            samples[number].look_beside(self.pool, self.places, top_of(number))

        def sizes_of_errors() -> Int64:
            sizes = Sizes(len(parts))
            self._map(
                lambda number: sizes.add(
                    number, samples[number], weights, numbers, top_of(number)
                ),
                len(parts),
            )
            return sizes.coefficients()

        self._map(gather, len(parts))
        scale, rows = self.known.copies * every, self.shape[1]
        numbers = self._numbers()
        weights, coefficients = usual[None], contexts.USUAL_COEFFICIENTS
        if coarser is not None:
            weights, coefficients = coarser.weights, coarser.coefficients
        for _ in range(_ROUNDS if quick == 0 else 1):
            if quick == 0:
                coefficients = sizes_of_errors()
            share(samples, weights, coefficients, rows, self._map)
            fitted = fit_weights(samples, usual, rows, scale, self._map)
            weights = usual[None] if fitted is None else fitted
        self._map(quantise, n_bands)
        if self.places.beside:
            # What is decoded beside a point depends on weights: these are without it.
            without, most = fitted, cost()
            self._map(look_beside, len(parts))
            fitted = fit_weights(samples, usual, rows, scale, self._map)
            weights = usual[None] if fitted is None else fitted
            self._map(quantise, n_bands)
            if cost() > most:  # where fields are mostly flat, errors would be carried along
                fitted, weights = without, usual[None] if without is None else without
                self._map(quantise, n_bands)
        return PassParameters(weights, fitted is not None, sizes_of_errors()), numbers

    def code(
        self,
        coders: list[Coder],
        parameters: PassParameters,
        quick: int,
        numbers: Int32 | None,
    ) -> None:
        """Encode or decode; fills the pass's phase of the pool."""
        items, _, columns = self.shape
        tables, weights, bands = decisions.tables(), parameters.weights, self._bands(len(coders))
        known, target = numbers, self.known.target
        numbers = self._numbers() if known is None else known
        if target is None or known is not None:
            target = _NO_TARGET

        def code_band(number: int) -> None:
            coder, (first, last) = coders[number], bands[number]
            at, end = 0, items * (last - first)
            rows = self._rows()
            while at < end:
                at = contexts.code_rows(
                    *coder.coder, coder.state, tables, quick, first, at, last,
                    self.pool, self.places, weights, self.references, self.which, target,
                    self.known.valid, numbers, parameters.coefficients, rows,
                )  # fmt: skip
                coder.check()
                if at < end:
                    coder.grow(2 * range_coder.BYTES_PER_VALUE * columns)

        self._map(code_band, len(coders))
