"""What the encoder tells of all passes ↔ bits: weights of predictions, and sizes of errors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.coding.pyramid import prediction, range_coder
from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.contexts import (
    LARGEST_COEFFICIENT,
    N_COEFFICIENTS,
    USUAL_COEFFICIENTS,
)
from coinpp_xr.coding.pyramid.decisions import CLASSES
from coinpp_xr.coding.pyramid.fitting import standard_weights
from coinpp_xr.coding.pyramid.levels import PASSES, Pass, level_count
from coinpp_xr.coding.pyramid.prediction import N_BESIDE, N_NEIGHBOURS
from coinpp_xr.coding.pyramid.references import N_FEATURES
from coinpp_xr.coding.pyramid.schedule import Unit
from coinpp_xr.errors import CorruptPayloadError

Key = tuple[int, int]

# Of rows, each with weights of its own.
_MOST_BANDS = 8


def _keys(shape: tuple[int, int]) -> Iterator[Key]:
    """(level, pass) of all passes that have points."""
    for level in range(level_count(shape) - 1, -1, -1):
        n_lat, n_lon = (-(-side // (1 << level)) for side in shape)
        for number, which in enumerate(PASSES):
            if n_lat > which.row and n_lon > which.column:
                yield level, number


class _Numbers:
    """Tables of numbers ↔ bits, each kind of table with chances of its own."""

    def __init__(self, stream: bytes | None) -> None:
        self._chances = [range_coder.new_chances() for _ in range(3)]
        self._coder = binary.encoder(1 << 12) if stream is None else binary.decoder(stream)

    def code(self, kind: int, table: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        numbers = table.astype(np.int32)
        room = range_coder.BYTES_PER_VALUE * numbers.size + 16
        self._coder = binary.with_room(self._coder, room)
        range_coder.code_numbers(*self._coder, self._chances[kind], range_coder.rates(), numbers)
        if binary.is_broken(self._coder):
            raise CorruptPayloadError("the parameters of the pyramid are damaged")
        return numbers

    def finish(self) -> bytes:
        return binary.finish(self._coder)


def pack(
    parameters: dict[int, dict[Key, PassParameters]],
    units: list[Unit],
    shape: tuple[int, int],
    quick: int,
) -> bytes:
    numbers = _Numbers(None)
    for kind, references in _kinds(units):
        usual = USUAL_COEFFICIENTS
        for key in _keys(shape):
            standard = _standard(PASSES[key[1]], references, quick)
            told = parameters[kind][key]
            bands = 0 if told.weights is None else len(told.weights)
            numbers.code(0, np.array([[bands]]))
            if told.weights is not None:
                numbers.code(1, np.diff(told.weights, axis=0, prepend=standard[None]))
            numbers.code(2, (told.coefficients - usual)[None])
            usual = told.coefficients
    return numbers.finish()


def unpack(
    told: bytes, units: list[Unit], shape: tuple[int, int], quick: int
) -> dict[int, dict[Key, PassParameters]]:
    numbers = _Numbers(told)
    parameters: dict[int, dict[Key, PassParameters]] = {}
    for kind, references in _kinds(units):
        usual = USUAL_COEFFICIENTS
        parameters[kind] = {}
        for key in _keys(shape):
            standard = _standard(PASSES[key[1]], references, quick)
            bands = int(numbers.code(0, np.zeros((1, 1)))[0, 0])
            if not 0 <= bands <= _MOST_BANDS:
                raise CorruptPayloadError("the parameters of the pyramid are damaged")
            weights = None
            if bands:
                changes = numbers.code(1, np.zeros((bands, len(standard)))).astype(np.int64)
                weights = standard + changes.cumsum(axis=0)
                if np.abs(weights).max() > prediction.LARGEST_WEIGHT:
                    raise CorruptPayloadError("the parameters of the pyramid are damaged")
                weights = weights.astype(np.int32)
            coefficients = usual + numbers.code(2, np.zeros((1, N_COEFFICIENTS)))[0]
            if coefficients.min() < 0 or coefficients.max() > LARGEST_COEFFICIENT:
                raise CorruptPayloadError("the parameters of the pyramid are damaged")
            usual = coefficients
            parameters[kind][key] = PassParameters(weights, coefficients.astype(np.int64))
    return parameters


def _kinds(units: list[Unit]) -> Iterator[tuple[int, int]]:
    """All kinds of units, and to how many others the fields of each refer."""
    for kind, group in groupby(units, lambda unit: unit.kind):
        yield kind, next(group).n_references


def _standard(which: Pass, references: int, quick: int) -> npt.NDArray[np.int32]:
    """Weights of a pass, if none are told."""
    beside = which.diagonal and quick < CLASSES
    return standard_weights(N_NEIGHBOURS + N_FEATURES * references + N_BESIDE * beside)
