"""The three passes of a level: their points predicted, fitted and coded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import contexts, prediction, range_coder
from coinpp_xr.coding.pyramid.coders import Coder, Decoded, PassParameters
from coinpp_xr.coding.pyramid.fitting import fit_coefficients, fit_weights, standard_weights
from coinpp_xr.coding.pyramid.levels import (
    N_NEIGHBOURS,
    PAD,
    PASSES,
    Pass,
    pad_into,
    padded_size,
    phase,
)
from coinpp_xr.parallel import map_in_threads

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

# Of every pass, points that parameters are fitted to.
_SAMPLE = 16_000
N_FEATURES_OF_REFERENCE = 5
_UNIT = 1 << prediction.UNIT_BITS


class Level:
    """The three passes of a level, and what they look at."""

    def __init__(
        self,
        shape: tuple[int, int],
        level: int,
        coarse: Int32,
        marks: Int8,
        references: list[list[Decoded]],
        valid: Bool | None,
        *,
        around: bool,
        quick: int,
    ) -> None:
        self.spacing = 1 << level
        self.around, self.quick = around, quick
        self._level = level
        self._references, self._valid = references, valid
        n_items = len(coarse)
        n_lat, n_lon = (-(-side // (1 << level)) for side in shape)
        self._shapes = [
            (n_items, (n_lat + 1 - row) // 2, (n_lon + 1 - column) // 2)
            for row, column in ((0, 0), *((p.row, p.column) for p in PASSES))
        ]
        sizes = [padded_size(shape) for shape in self._shapes[:3]]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._pool = np.empty(self._starts[-1], np.int32)
        self._pool_of_marks = np.empty(self._starts[-1], np.int8)
        self.values: list[Int32] = []
        self.marks: list[Int8] = []
        self._add(0, coarse, marks)

    def _add(self, source: int, values: Int32, marks: Int8) -> None:
        where = slice(self._starts[source], self._starts[source + 1])
        pad_into(self._pool[where], values, around=self.around)
        pad_into(self._pool_of_marks[where], marks, around=self.around)

    def code(
        self,
        which: Pass,
        number: int,
        coders: list[Coder],
        parameters: dict[tuple[int, int], PassParameters],
        wanted: Callable[[int, int, int], Float64] | None,
        copies: float,
    ) -> None:
        shape = self._shapes[number + 1]
        values, marks = np.zeros(shape, np.int32), np.zeros(shape, np.int8)
        if 0 not in shape:
            pass_ = _Points(self, which, shape)
            target = (
                None
                if wanted is None
                else wanted(which.row << self._level, which.column << self._level, 2 << self._level)
            )
            key = (self._level, number)
            if target is not None and key not in parameters:
                parameters[key] = pass_.fit(target, len(coders), copies)
            pass_.code(coders, parameters[key], target, values, marks)
        self.values.append(values)
        self.marks.append(marks)
        if number < 2:
            self._add(number + 1, values, marks)


class _Points:
    """The points of one pass."""

    def __init__(self, level: Level, which: Pass, shape: tuple[int, ...]) -> None:
        self._level, self._which, self._shape = level, which, shape
        self._h = 1 << level._level
        padded = np.array([(s[1] + 2 * PAD, s[2] + 2 * PAD) for s in level._shapes[:3]])
        source, down, right = which.neighbours.T
        self._steps = padded[source, 1].astype(np.int64)
        self._strides = (padded[source, 0] * padded[source, 1]).astype(np.int64)
        self._offsets = (level._starts[source] + (PAD + down) * self._steps + PAD + right).astype(
            np.int64
        )
        valid = level._valid
        self._valid: Bool = np.zeros((0, 0, 0), np.bool_)
        if valid is not None:
            self._valid = np.ascontiguousarray(phase(valid, level._level, which.row, which.column))
        self._look_at_references()
        self._predicted = np.empty(shape, np.int32)
        self._sizes = np.empty((5, *shape), np.int32)
        self._numbers = np.zeros(shape, np.int32)
        self._is_predicted = False

    def _look_at_references(self) -> None:
        level, which = self._level, self._which
        references = level._references
        count = len(references[0])
        items, rows, columns = self._shape
        n = N_FEATURES_OF_REFERENCE
        self._features = np.empty((n * count, items, rows, columns), np.int32)
        self._reference_sizes = np.zeros((2, items if count else 0, rows, columns), np.int32)
        diagonal = which.row == which.column

        def look(item: int) -> None:
            old = self._reference_sizes[0, item]
            for k, known in enumerate(references[item]):
                features = np.empty((n, rows, columns), np.int32)
                prediction.look_at_reference(
                    known.values, known.marks, self._h, which.row, which.column, diagonal,
                    level.around, features, old,
                )  # fmt: skip
                self._features[n * k : n * (k + 1), item] = features

        if count:
            map_in_threads(look, range(items))
            first = self._features[0]
            apart = np.abs(first - self._features[n]) if count > 1 else np.abs(first)
            self._reference_sizes[1] = apart

    def fit(self, target: Float64, n_bands: int, copies: float) -> PassParameters:
        """Parameters for these points, by a sample of them; what they predict is kept."""
        items, rows, columns = self._shape
        every = max(1, target.size // _SAMPLE)
        every += every % 2 == 0 and columns % 2 == 0  # not the same columns in all rows
        sample = np.arange(every // 2, target.size, every)
        if len(self._valid):
            sample = sample[self._valid.reshape(-1)[sample]]
        item, rest = np.divmod(sample, rows * columns)
        row, column = np.divmod(rest, columns)
        if items > 1:
            by_row = np.argsort(row, kind="stable")
            item, row, column = item[by_row], row[by_row], column[by_row]
        flat = (item, row, column)
        where = (
            self._offsets + item[:, None] * self._strides + row[:, None] * self._steps
            + column[:, None]
        )  # fmt: skip
        near = self._level._pool[where].astype(np.int64)
        base = (near[:, :4].sum(axis=1) + 2) >> 2
        features = np.concatenate(
            [near - base[:, None], self._features[:, item, row, column].T], axis=1
        ).astype(np.float64)
        scale = copies * target.size / max(len(sample), 1)
        weights = fit_weights(features, target[flat] - base, row, rows, scale)
        self._predict_bands(weights, target, n_bands)
        errors = np.abs(target[flat] - self._predicted[flat])
        coefficients = fit_coefficients(self._features_of_sizes(flat), errors)
        return PassParameters(weights, coefficients)

    def _features_of_sizes(self, flat: tuple[Int64, Int64, Int64]) -> Float64:
        item, row, column = flat
        steps = np.pad(np.abs(self._numbers), ((0, 0), (2, 0), (2, 2)))

        def at(down: int, right: int) -> Int64:
            return steps[item, row + 2 + down, column + 2 + right].astype(np.int64)

        around = 2 * (at(0, -1) + at(-1, 0)) + at(-1, -1) + at(-1, 1) + at(0, -2) + at(-2, 0)
        sizes, count = self._sizes, len(item)
        old = apart = np.zeros(count)
        if self._reference_sizes.shape[1]:
            old, apart = (self._reference_sizes[k][flat] for k in (0, 1))
        return np.stack(
            [
                np.ones(count), sizes[0][flat], np.abs(sizes[1][flat]), _UNIT * sizes[2][flat],
                _UNIT * sizes[3][flat], _UNIT * around, _UNIT * old, apart,
            ], axis=1,
        ).astype(np.float64)  # fmt: skip

    def _band(self, number: int, n_bands: int) -> slice:
        rows = self._shape[1]
        return slice(rows * number // n_bands, rows * (number + 1) // n_bands)

    def _predict_bands(self, weights: Int32 | None, target: Float64, n_bands: int) -> None:
        map_in_threads(
            lambda number: self._predict(weights, target, self._band(number, n_bands)),
            range(n_bands),
        )
        self._is_predicted = True

    def _predict(self, weights: Int32 | None, target: Float64 | None, part: slice) -> None:
        """Predictions of some rows and, to encode, the steps from there."""
        rows = self._shape[1]
        if weights is None:
            weights = standard_weights(N_NEIGHBOURS + len(self._features))[None]
        prediction.predict_rows(
            self._level._pool, self._level._pool_of_marks, self._offsets, self._steps,
            self._strides, weights, np.arange(rows) * len(weights) // rows, self._features,
            part.start, part.stop, self._predicted, self._sizes,
            np.empty((3, max(self._shape[2], N_NEIGHBOURS)), np.int64),
        )  # fmt: skip
        if target is not None:
            steps = np.rint((target[:, part] - self._predicted[:, part]) / _UNIT)
            if len(self._valid):
                steps[~self._valid[:, part]] = 0
            self._numbers[:, part] = steps

    def code(
        self,
        coders: list[Coder],
        parameters: PassParameters,
        target: Float64 | None,
        values: Int32,
        marks: Int8,
    ) -> None:
        """Encode or decode; fills values and marks."""
        items, _, columns = self._shape
        tables, quick = contexts.tables(), self._level.quick

        def code_band(number: int) -> None:
            coder, part = coders[number], self._band(number, len(coders))
            if part.start == part.stop:
                return
            if not self._is_predicted:
                self._predict(parameters.weights, target, part)
            at, end = 0, items * (part.stop - part.start)
            while at < end:
                at = contexts.code_rows(
                    *coder.coder, coder.state, tables, quick,
                    part.start, at, part.stop, self._numbers, self._valid, self._sizes,
                    self._reference_sizes, parameters.coefficients,
                )  # fmt: skip
                coder.check()
                if at < end:
                    coder.grow(2 * range_coder.BYTES_PER_VALUE * columns)
            numbers = self._numbers[:, part]
            values[:, part] = self._predicted[:, part] + (numbers << prediction.UNIT_BITS)
            np.clip(numbers, -127, 127, out=marks[:, part], casting="unsafe")

        map_in_threads(code_band, range(len(coders)))
