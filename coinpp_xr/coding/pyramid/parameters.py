"""What the encoder tells of all passes ↔ bits: weights of predictions, and sizes of errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.coding.pyramid import range_coder
from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.fitting import BAND_COUNTS, usual_weights
from coinpp_xr.coding.pyramid.grades import GRADES, LARGEST_SHIFT, grade_of
from coinpp_xr.coding.pyramid.levels import PassOfWalk
from coinpp_xr.coding.pyramid.prediction import (
    LARGEST_WEIGHT,
    N_BESIDE,
    N_COEFFICIENTS,
    N_NEAR,
    USUAL_COEFFICIENTS,
)
from coinpp_xr.coding.pyramid.references import N_FEATURES
from coinpp_xr.coding.pyramid.schedule import Unit
from coinpp_xr.errors import CorruptPayloadError

Key = tuple[int, int]


# Kinds of numbers: how many bands, coefficients, steps; then weights, see :func:`_groups`.
_BANDS, _COEFFICIENTS, _SHIFT, _WEIGHTS = range(4)


def _groups(neighbours: int, references: int, beside: bool) -> list[npt.NDArray[np.intp]]:
    """Weights that are alike: of the nearest, the next and other neighbours, and so on."""
    end = neighbours + N_FEATURES * references
    of_references = np.arange(neighbours, end).reshape(references, N_FEATURES)
    return [
        np.arange(4), np.arange(4, N_NEAR), np.arange(N_NEAR, neighbours),
        of_references[:, 0], of_references[:, 1:].ravel(), np.arange(end, end + N_BESIDE * beside),
    ]  # fmt: skip


class _Numbers:
    """Tables of numbers ↔ bits, each kind of table with chances of its own."""

    def __init__(self, stream: bytes | None) -> None:
        self._chances = [range_coder.new_chances() for _ in range(_WEIGHTS + 6)]
        self._coder = binary.encoder(1 << 12) if stream is None else binary.decoder(stream)

    def code(self, kind: int, table: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        numbers = table.astype(np.int32)
        room = range_coder.BYTES_PER_VALUE * numbers.size + 16
        self._coder = binary.with_room(self._coder, room)
        range_coder.code_numbers(*self._coder, self._chances[kind], range_coder.rates(), numbers)
        if binary.is_broken(self._coder):
            raise CorruptPayloadError("the parameters of the pyramid are damaged")
        return numbers

    def weights(
        self, table: npt.NDArray[Any], groups: list[npt.NDArray[np.intp]]
    ) -> npt.NDArray[np.int64]:
        """Steps of weights, shape (bands, weights), group by group."""
        result = np.empty(table.shape, np.int64)
        for kind, columns in enumerate(groups, _WEIGHTS):
            if len(columns):
                numbers = self.code(kind, table[:, columns].reshape(-1, 1))
                result[:, columns] = numbers.reshape(len(table), -1)
        return result

    def finish(self) -> bytes:
        return binary.finish(self._coder)


class _Usual(NamedTuple):
    """What is known of the parameters of a pass before they are told."""

    weights: npt.NDArray[np.int32]
    groups: list[npt.NDArray[np.intp]]
    coefficients: npt.NDArray[np.int64]

    @classmethod
    def of(cls, where: PassOfWalk, references: int, alike: PassParameters | None) -> _Usual:
        layout = where.neighbours, references, where.beside
        coefficients = USUAL_COEFFICIENTS if alike is None else alike.coefficients
        return cls(usual_weights(*layout, alike), _groups(*layout), coefficients)


def pack(
    parameters: dict[int, dict[Key, PassParameters]],
    units: list[Unit],
    passes: list[PassOfWalk],
) -> bytes:
    numbers = _Numbers(None)
    references_of_kinds = references_of(units)
    for kind, (references, _) in references_of_kinds.items():
        before = kind_before(parameters, references_of_kinds, kind)
        for where in passes:
            told = parameters[kind][where.key]
            alike = before.get(where.key) or parameters[kind].get(where.coarser)
            usual = _Usual.of(where, references, alike)
            numbers.code(_BANDS, np.array([[len(told.weights) if told.told else 0]]))
            if told.told:
                numbers.code(_SHIFT, np.array([[told.shift]]))
                steps = np.diff(told.weights, axis=0, prepend=usual.weights[None]) >> told.shift
                numbers.weights(steps, usual.groups)
            grades = grade_of(told.coefficients) - grade_of(usual.coefficients)
            numbers.code(_COEFFICIENTS, grades[None])
    return numbers.finish()


def unpack(
    told: bytes, units: list[Unit], passes: list[PassOfWalk]
) -> dict[int, dict[Key, PassParameters]]:
    numbers = _Numbers(told)
    parameters: dict[int, dict[Key, PassParameters]] = {}
    references_of_kinds = references_of(units)
    for kind, (references, _) in references_of_kinds.items():
        before = kind_before(parameters, references_of_kinds, kind)
        parameters[kind] = {}
        for where in passes:
            alike = before.get(where.key) or parameters[kind].get(where.coarser)
            usual = _Usual.of(where, references, alike)
            bands, shift = int(numbers.code(_BANDS, np.zeros((1, 1)))[0, 0]), 0
            weights = usual.weights[None].astype(np.int64)
            if bands:
                shift = int(numbers.code(_SHIFT, np.zeros((1, 1)))[0, 0])
                if not (0 < bands <= BAND_COUNTS[-1] and 0 <= shift <= LARGEST_SHIFT):
                    raise CorruptPayloadError("the parameters of the pyramid are damaged")
                steps = numbers.weights(np.zeros((bands, weights.shape[1])), usual.groups)
                weights = weights + (steps.cumsum(axis=0) << shift)
                if np.abs(weights).max() > LARGEST_WEIGHT:
                    raise CorruptPayloadError("the parameters of the pyramid are damaged")
            changes = numbers.code(_COEFFICIENTS, np.zeros((1, N_COEFFICIENTS)))[0]
            grades = grade_of(usual.coefficients) + changes
            if grades.min() < 0 or grades.max() >= len(GRADES):
                raise CorruptPayloadError("the parameters of the pyramid are damaged")
            parameters[kind][where.key] = PassParameters(
                weights.astype(np.int32), bands > 0, GRADES[grades], shift
            )
    return parameters


def references_of(units: list[Unit]) -> dict[int, tuple[int, bool]]:
    """To how many others the fields of every kind of units refer, and whether to the background."""
    return {unit.kind: (unit.n_references, unit.refers_to_background) for unit in units}


def kind_before(
    parameters: dict[int, dict[Key, PassParameters]],
    references: dict[int, tuple[int, bool]],
    kind: int,
) -> dict[Key, PassParameters]:
    """Parameters of the last kind before this one whose fields refer to as many.

    ``references`` is what :func:`references_of` gives.
    """
    alike = [k for k in references if k < kind and references[k] == references[kind]]
    return parameters[max(alike)] if alike else {}
