"""Whole numbers of a field ↔ bits, in bands of rows that threads can work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import decisions, range_coder
from coinpp_xr.coding.pyramid.coders import Coder
from coinpp_xr.coding.pyramid.referred import last_uses
from coinpp_xr.coding.pyramid.schedule import Unit
from coinpp_xr.coding.wavelets.numbers import BLOCK, code_numbers
from coinpp_xr.coding.wavelets.parameters import WEIGHT_PARTS, Told
from coinpp_xr.coding.wavelets.rounding import Steps
from coinpp_xr.coding.wavelets.subbands import AVERAGES, PAD, WAVES, Subband

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
# By subband: of all rows, or of a band of them.
Numbers = list[Int32]

# Subbands of fewer numbers tell no blocks.
_SPARSE = 1024


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A field as its decoder sees it.

    Parameters
    ----------
    values : list of float64 arrays
        By subband.
    numbers : list of list of int32 arrays
        What was left of predictions, padded: by band of rows and subband.
    """

    values: list[Float64]
    numbers: list[Numbers]

    @property
    def nbytes(self) -> int:
        numbers = sum(array.nbytes for band in self.numbers for array in band)
        return numbers + sum(array.nbytes for array in self.values)


class Surroundings(NamedTuple):
    """What the numbers of a subband are coded in the context of: int32 arrays, padded."""

    parent: Int32
    one: Int32
    other: Int32
    first: Int32
    second: Int32

    @classmethod
    def of(
        cls, k: int, subbands: Sequence[Subband], numbers: Numbers, references: list[Numbers]
    ) -> Surroundings:
        """Of the k-th subband, once those before it are known."""
        kind, parent = subbands[k].kind, subbands[k].parent
        rows, columns = numbers[k].shape
        nothing = np.zeros((rows, columns), np.int32)
        above = np.zeros((rows // 2 + PAD + 2, columns // 2 + PAD + 2), np.int32)
        # Subbands of a level come one after the other.
        siblings = numbers[k - kind + 1 : k] if AVERAGES < kind < WAVES else []
        before = [field[k] for field in references]
        (one, other), (first, second) = ((*s, nothing, nothing)[:2] for s in (siblings, before))
        return cls(above if parent is None else numbers[parent], one, other, first, second)


def bands_of(rows: int, count: int) -> list[slice]:
    """As many bands of rows."""
    return [slice(rows * k // count, rows * (k + 1) // count) for k in range(count)]


def room_for(subbands: Sequence[Subband], band: int, count: int) -> Numbers:
    """Zeros for the numbers of a band, and two around them."""
    shapes = [(bands_of(s.shape[0], count)[band], s.shape[1]) for s in subbands]
    return [
        np.zeros((rows.stop - rows.start + 2 * PAD, columns + 2 * PAD), np.int32)
        for rows, columns in shapes
    ]


def joined(numbers: list[Numbers]) -> Numbers:
    """All rows again, without what surrounds them."""
    inner = [[array[PAD:-PAD, PAD:-PAD] for array in band] for band in numbers]
    return [np.concatenate(arrays) for arrays in zip(*inner, strict=True)]


def as_one_band(numbers: list[Numbers]) -> list[Numbers]:
    return numbers if len(numbers) == 1 else [[np.pad(a, PAD) for a in joined(numbers)]]


def predicted(told: Told, references: list[Coefficients], k: int) -> Float64 | float:
    """A subband as the references have it, weighted."""
    total: Float64 | float = 0.0
    # Along time nothing is predicted, and no weight told.
    for weight, field in zip(told.weights, references, strict=False):
        total = total + (int(weight) / WEIGHT_PARTS) * field.values[k]
    return total


def rebuilt(
    numbers: list[Numbers], steps: Steps, told: list[Told], references: list[Coefficients]
) -> Coefficients:
    """An array of its numbers and of what references predict, as encoder and decoder see it."""
    values = [
        steps.values(own) + predicted(told[k], references, k)
        for k, own in enumerate(joined(numbers))
    ]
    return Coefficients(values, numbers)


def code_band(
    coder: Coder,
    told: list[Told],
    subbands: Sequence[Subband],
    references: list[Numbers],
    numbers: Numbers,
    quick: int,
    *,
    decoding: bool,
) -> None:
    """Numbers of a band ↔ bits; those of references are of the same band."""
    for k, (subband, own) in enumerate(zip(subbands, told, strict=True)):
        array = numbers[k]
        rows, columns = (size - 2 * PAD for size in array.shape)
        chain = subband.kind == AVERAGES and not references
        if chain and not decoding:
            array = array.copy()
            _chain(array, back=False)
        sparse = rows * columns >= _SPARSE
        flags = np.zeros((2, -(-columns // BLOCK) + 2), np.uint8)
        if not sparse:
            flags[:] = 1
        around = Surroundings.of(k, subbands, numbers, references)
        row = 0
        while row < rows:
            if not decoding:
                coder.grow(2 * range_coder.BYTES_PER_VALUE * BLOCK * columns)
            row = code_numbers(
                *coder.coder, coder.state, decisions.tables(), own.coefficients, array,
                *around, quick, subband.kind, sparse, bool(references), row, flags,
            )  # fmt: skip
            coder.check()
        if chain and decoding:
            _chain(array, back=True)


def _chain(numbers: Int32, *, back: bool) -> None:
    """Numbers of averages ↔ how they differ from the one to the west, or above."""
    inner = numbers[PAD:-PAD, PAD:-PAD]
    if back:
        np.cumsum(inner[:, 0], out=inner[:, 0])
        np.cumsum(inner, axis=1, out=inner)
    else:
        inner[:, 1:] -= inner[:, :-1].copy()
        inner[1:, 0] -= inner[:-1, 0].copy()


class Referred:
    """Decoded fields, as long as others refer to them."""

    def __init__(self, units: list[Unit]) -> None:
        self._fields: dict[int, Coefficients] = {}
        self._until = last_uses(units)

    def add(self, item: int, field: Coefficients) -> None:
        if item in self._until:
            self._fields[item] = field

    def of(self, items: tuple[int, ...]) -> list[Coefficients]:
        return [self._fields[item] for item in items]

    def forget(self, kind: int) -> None:
        """What no kind of units after this one refers to."""
        for item in [i for i in self._fields if self._until[i] <= kind]:
            del self._fields[item]
