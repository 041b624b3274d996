"""What the encoder tells of all passes ↔ bits: weights of predictions, and sizes of errors."""

from __future__ import annotations

from collections.abc import Iterator
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
from coinpp_xr.coding.pyramid.fitting import BAND_COUNTS, usual_weights
from coinpp_xr.coding.pyramid.levels import PASSES, level_count, reach_of
from coinpp_xr.coding.pyramid.schedule import Unit
from coinpp_xr.errors import CorruptPayloadError

Key = tuple[int, int]


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
    references_of_kinds = references_of(units)
    for kind, references in references_of_kinds.items():
        before = kind_before(parameters, references_of_kinds, kind)
        last = USUAL_COEFFICIENTS
        for key in _keys(shape):
            told, previous = parameters[kind][key], before.get(key)
            numbers.code(0, np.array([[len(told.weights) if told.told else 0]]))
            if told.told:
                usual = _usual(key, references, quick, previous)
                numbers.code(1, np.diff(told.weights, axis=0, prepend=usual[None]))
            expected = last if previous is None else previous.coefficients
            numbers.code(2, (told.coefficients - expected)[None])
            last = told.coefficients
    return numbers.finish()


def unpack(
    told: bytes, units: list[Unit], shape: tuple[int, int], quick: int
) -> dict[int, dict[Key, PassParameters]]:
    numbers = _Numbers(told)
    parameters: dict[int, dict[Key, PassParameters]] = {}
    references_of_kinds = references_of(units)
    for kind, references in references_of_kinds.items():
        before = kind_before(parameters, references_of_kinds, kind)
        last = USUAL_COEFFICIENTS
        parameters[kind] = {}
        for key in _keys(shape):
            previous = before.get(key)
            bands = int(numbers.code(0, np.zeros((1, 1)))[0, 0])
            if not 0 <= bands <= BAND_COUNTS[-1]:
                raise CorruptPayloadError("the parameters of the pyramid are damaged")
            weights = _usual(key, references, quick, previous)[None].astype(np.int64)
            if bands:
                changes = numbers.code(1, np.zeros((bands, weights.shape[1]))).astype(np.int64)
                weights = weights + changes.cumsum(axis=0)
                if np.abs(weights).max() > prediction.LARGEST_WEIGHT:
                    raise CorruptPayloadError("the parameters of the pyramid are damaged")
            expected = last if previous is None else previous.coefficients
            coefficients = expected + numbers.code(2, np.zeros((1, N_COEFFICIENTS)))[0]
            if coefficients.min() < 0 or coefficients.max() > LARGEST_COEFFICIENT:
                raise CorruptPayloadError("the parameters of the pyramid are damaged")
            last = coefficients.astype(np.int64)
            parameters[kind][key] = PassParameters(weights.astype(np.int32), bands > 0, last)
    return parameters


def references_of(units: list[Unit]) -> dict[int, int]:
    """To how many others the fields of every kind of units refer."""
    return {unit.kind: unit.n_references for unit in units}


def kind_before(
    parameters: dict[int, dict[Key, PassParameters]], references: dict[int, int], kind: int
) -> dict[Key, PassParameters]:
    """Parameters of the last kind before this one whose fields refer to as many.

    ``references`` is what :func:`references_of` gives.
    """
    alike = [k for k in references if k < kind and references[k] == references[kind]]
    return parameters[max(alike)] if alike else {}


def _usual(
    key: Key, references: int, quick: int, previous: PassParameters | None
) -> npt.NDArray[np.int32]:
    reach, number = reach_of(quick), key[1]
    return usual_weights(reach.neighbours[number], references, reach.beside[number], previous)
