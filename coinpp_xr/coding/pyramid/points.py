"""The three passes of a level: their points predicted, fitted and coded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import contexts, decisions, prediction, range_coder
from coinpp_xr.coding.pyramid.coders import Coder, Decoded, PassParameters
from coinpp_xr.coding.pyramid.fitting import fit_coefficients, fit_weights, standard_weights
from coinpp_xr.coding.pyramid.levels import PAD, PASSES, Pass, pad, padded_size
from coinpp_xr.coding.pyramid.prediction import BEFORE, BEHIND, N_NEIGHBOURS, Places, Pool, Rows
from coinpp_xr.coding.pyramid.references import N_FEATURES, References, stencil
from coinpp_xr.coding.pyramid.sampling import Sample
from coinpp_xr.parallel import map_compiled

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

# Of every pass, points that parameters are fitted to: one of so many, but not fewer or more. With
# the fast effort a quarter of them, and none for passes of few points.
_SAMPLED, _FEWEST, _MOST = 8, 8_000, 24_000
_QUICKLY, _WORTH_FITTING = 4, 4_000
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
    """

    fields: list[Decoded]
    valid: Bool
    target: Float64 | None = None
    copies: float = 1.0


class Level:
    """The grid of one spacing, as four phases: the coarser grid, and the points of three passes."""

    def __init__(
        self, shape: tuple[int, int], level: int, n_items: int, *, around: bool, quick: int
    ) -> None:
        self._shape, self.level, self._around, self._quick = shape, level, around, quick
        n_lat, n_lon = (-(-side // (1 << level)) for side in shape)
        self._shapes = [
            (n_items, (n_lat + 1 - row) // 2, (n_lon + 1 - column) // 2)
            for row, column in ((0, 0), *((p.row, p.column) for p in PASSES))
        ]
        self._starts = np.concatenate([[0], np.cumsum([padded_size(s) for s in self._shapes])])
        size = int(self._starts[-1])
        self._pool = Pool(np.empty(size, np.int32), np.empty(size, np.int8))

    def phase(self, number: int) -> tuple[Int32, Int8]:
        """Values and marks of a phase, as views: 0 is the coarser grid, 1 to 3 are the passes."""
        values, marks = (self._padded(array, number) for array in self._pool)
        inside = slice(PAD, -PAD)
        return values[:, inside, inside], marks[:, inside, inside]

    def _padded(self, array: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
        items, rows, columns = self._shapes[number]
        part = array[self._starts[number] : self._starts[number + 1]]
        return part.reshape(items, rows + 2 * PAD, columns + 2 * PAD)

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
        shape, which = self._shapes[number], PASSES[number - 1]
        if 0 in shape:
            return
        points = _Points(
            self._pool,
            self._places(which, number),
            self._references(which, shape, known),
            (which.row << self.level, which.column << self.level, 2 << self.level),
            shape,
            known,
        )
        key = (self.level, number - 1)
        if key not in parameters:
            parameters[key] = points.fit(len(coders), quickly=self._quick >= decisions.CLASSES)
        points.code(coders, parameters[key], self._quick)

    def _places(self, which: Pass, number: int) -> Places:
        padded = np.array([(s[1] + 2 * PAD, s[2] + 2 * PAD) for s in self._shapes])
        source, down, right = np.vstack([which.neighbours, [number, 0, 0]]).T
        steps = padded[source, 1]
        return Places(
            self._starts[source] + (PAD + down) * steps + PAD + right,
            steps, padded[source, 0] * steps,
        )  # fmt: skip

    def _references(self, which: Pass, shape: tuple[int, ...], known: Known) -> References:
        count = len(known.fields)
        none = Decoded(np.empty((0, 0, 0), np.int32), np.empty((0, 0, 0), np.int8))
        first, second = (*known.fields, none, none)[:2]
        spacing = 2 << self.level
        n_lat, n_lon = self._shape
        if count:
            rows = stencil(shape[1], which.row << self.level, spacing, n_lat, around=False)
            columns = stencil(
                shape[2], which.column << self.level, spacing, n_lon, around=self._around
            )
        else:
            rows = columns = np.empty((0, 0), np.int64)
        return References(
            count, first.values, second.values, first.marks, second.marks, rows, columns,
            which.row == which.column,
        )  # fmt: skip


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

    def _weights(self, parameters: PassParameters) -> Int32:
        if parameters.weights is not None:
            return parameters.weights
        return standard_weights(N_NEIGHBOURS + N_FEATURES * self.references.number)[None]

    def _map(self, function: Callable[[int], None], count: int) -> None:
        if self.shape[0] * self.shape[1] * self.shape[2] < _WORTH_A_THREAD:
            for number in range(count):
                function(number)
        else:
            map_compiled(function, range(count))

    def fit(self, n_bands: int, *, quickly: bool) -> PassParameters:
        """Parameters for these points, by a sample of them."""
        target, valid = self.known.target, self.known.valid
        assert target is not None
        size = self.shape[0] * self.shape[1] * self.shape[2]
        if quickly and size * self.known.copies < _WORTH_FITTING:
            return PassParameters(None, contexts.USUAL_COEFFICIENTS)
        sample = Sample.of(
            self.pool, self.places, self.references, target, valid, self.which, self.shape,
            int(np.clip(size // _SAMPLED, _FEWEST, _MOST)) // (_QUICKLY if quickly else 1),
        )  # fmt: skip
        weights = fit_weights(sample, self.shape[1], self.known.copies * sample.every)
        parameters = PassParameters(weights, np.zeros(contexts.N_COEFFICIENTS, np.int64))
        all_weights, numbers = self._weights(parameters), self._numbers()
        bands = self._bands(n_bands)

        def quantise(number: int) -> None:
            prediction.quantise_rows(
                self.pool, self.places, all_weights, self.references, target, valid,
                self.which, self._rows(), numbers, *bands[number],
            )  # fmt: skip

        self._map(quantise, n_bands)
        return PassParameters(weights, fit_coefficients(sample, all_weights, numbers))

    def code(self, coders: list[Coder], parameters: PassParameters, quick: int) -> None:
        """Encode or decode; fills the pass's phase of the pool."""
        items, _, columns = self.shape
        tables, weights, numbers = decisions.tables(), self._weights(parameters), self._numbers()
        bands = self._bands(len(coders))
        target = np.empty((0, 0, 0)) if self.known.target is None else self.known.target

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
