"""The walk through the levels of one unit of fields, the same for encoder and decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import prediction, range_coder
from coinpp_xr.coding.pyramid.coders import Coder, Decoded, PassParameters
from coinpp_xr.coding.pyramid.levels import PASSES, interleave, level_count
from coinpp_xr.coding.pyramid.points import Level

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_UNIT = 1 << prediction.UNIT_BITS


@dataclass(frozen=True, eq=False)
class Walk:
    """How the fields of a chunk are gone through.

    Parameters
    ----------
    shape : (n_lat, n_lon)
    around : bool
        Whether the first column follows the last.
    quick : int
        Classes of expected size that are coded by one context.
    """

    shape: tuple[int, int]
    around: bool
    quick: int

    def unit(
        self,
        coders: list[Coder],
        references: list[list[Decoded]],
        parameters: dict[tuple[int, int], PassParameters],
        valid: Bool | None,
        n_items: int,
        wanted: Callable[[int, int, int], Float64] | None,
        copies: float = 1.0,
    ) -> list[Decoded]:
        """Encode or decode fields that belong together.

        Parameters
        ----------
        coders : list of Coder
            One per band of rows.
        references : list of lists of Decoded
            For every item as many.
        parameters : dict
            (level, pass) → parameters. An encoder adds what is missing.
        valid : bool array, shape (items, n_lat, n_lon), or None
            None where all cells count.
        n_items : int
        wanted : callable or None
            (first row, first column, spacing) → values there in 1/64 of a step, float64; None to
            decode.
        copies : float
            How many times as many fields will use parameters that are fitted here.
        """
        levels = level_count(self.shape)
        coarse, marks = self._anchors(coders, references, valid, n_items, wanted, levels)
        for level in range(levels - 1, -1, -1):
            one = Level(
                self.shape,
                level,
                coarse,
                marks,
                references,
                valid,
                around=self.around,
                quick=self.quick,
            )
            for number, which in enumerate(PASSES):
                one.code(which, number, coders, parameters, wanted, copies)
            coarse = interleave(coarse, one.values)
            marks = interleave(marks, one.marks)
        for coder in coders:
            coder.check()
        return [Decoded(v, m) for v, m in zip(coarse, marks, strict=True)]

    def _anchors(
        self,
        coders: list[Coder],
        references: list[list[Decoded]],
        valid: Bool | None,
        n_items: int,
        wanted: Callable[[int, int, int], Float64] | None,
        levels: int,
    ) -> tuple[Int32, Int8]:
        """Anchors follow the mean of their references, or the anchor before them."""
        step = 1 << levels
        rows, columns = (-(-side // step) for side in self.shape)
        sums = np.zeros((n_items, rows, columns), np.int64)
        for item, fields in enumerate(references):
            for known in fields:
                sums[item] += known.values[::step, ::step]
            if fields:
                sums[item] //= len(fields)
        known_cells = None if valid is None else valid[:, ::step, ::step].reshape(n_items, -1)
        expected = sums.reshape(n_items, -1)
        numbers = np.zeros(expected.shape, np.int32)
        chained = not references[0]
        if wanted is not None:
            target = wanted(0, 0, step).reshape(n_items, -1)
            before = np.zeros(n_items)
            for k in range(expected.shape[1]):
                start = before if chained else expected[:, k]
                steps = np.rint((target[:, k] - start) / _UNIT)
                if known_cells is not None:
                    steps = np.where(known_cells[:, k], steps, 0)
                numbers[:, k] = steps
                before = start + _UNIT * steps
        coder = coders[0]
        coder.grow(range_coder.BYTES_PER_VALUE * numbers.size)
        range_coder.code_numbers(*coder.coder, coder.anchors, range_coder.rates(), numbers)
        coder.check()
        if chained:
            values = _UNIT * np.cumsum(numbers, axis=1, dtype=np.int64)
        else:
            values = expected + _UNIT * numbers.astype(np.int64)
        bounded = np.clip(values, -prediction.LARGEST, prediction.LARGEST).astype(np.int32)
        return bounded.reshape(sums.shape), np.zeros(sums.shape, np.int8)
