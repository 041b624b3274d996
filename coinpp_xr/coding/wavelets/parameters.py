"""What the encoder tells of all subbands ↔ bits.

For units of every kind, subband by subband: how fields are predicted from those that they refer
to, and what features magnitudes are expected from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.coding.pyramid import range_coder
from coinpp_xr.coding.pyramid.grades import GRADES, grade_of
from coinpp_xr.coding.wavelets.numbers import N_FEATURES
from coinpp_xr.coding.wavelets.rounding import USUAL
from coinpp_xr.coding.wavelets.subbands import KINDS, Subband
from coinpp_xr.errors import CorruptPayloadError

Int64 = npt.NDArray[np.int64]

# Weights of references are in 1/64.
WEIGHT_PARTS, LARGEST_WEIGHT = 64, 160
_TOLD, _GRADES, _WEIGHTS = range(3)


@dataclass(eq=False)
class Told:
    """Of a subband.

    Parameters
    ----------
    coefficients : int64 array, shape (9,)
        What features count; grades.
    weights : int64 array, shape (references,)
    """

    coefficients: Int64
    weights: Int64

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Told)
            and np.array_equal(self.coefficients, other.coefficients)
            and np.array_equal(self.weights, other.weights)
        )


def usual_weights(references: int) -> Int64:
    """Of fields between two that they refer to, or after one."""
    return np.array([[], [56], [32, 32]][references], np.int64)


def code(
    told: list[list[Told]] | None,
    stream: bytes | None,
    references: list[int],
    subbands: Sequence[Subband],
) -> tuple[bytes, list[list[Told]]]:
    """Encode, or decode a stream; by kind of unit and subband. Nothing where all is as usual.

    Raises
    ------
    CorruptPayloadError
    """
    usual = [[Told(USUAL_GRADED, usual_weights(n))] * len(subbands) for n in references]
    if stream == b"" or (told is not None and told == usual):
        return b"", usual
    coder = binary.encoder(1 << 12) if stream is None else binary.decoder(stream)
    chances = [range_coder.new_chances() for _ in range(3)]
    found: list[list[Told]] = []

    def number(kind: int, wanted: Int64) -> Int64:
        nonlocal coder
        numbers = wanted.astype(np.int32)[None]
        coder = binary.with_room(coder, range_coder.BYTES_PER_VALUE * numbers.size + 16)
        range_coder.code_numbers(*coder, chances[kind], range_coder.rates(), numbers)
        if binary.is_broken(coder):
            raise CorruptPayloadError("the parameters of the wavelets are damaged")
        return np.asarray(numbers[0], np.int64)

    for kind, count in enumerate(references):
        own: list[Told] = []
        # Of the last subband of the same kind: usually one level coarser.
        last = [Told(USUAL_GRADED, usual_weights(count)) for _ in range(KINDS)]
        for k, subband in enumerate(subbands):
            before = last[subband.kind]
            wanted = before if told is None else told[kind][k]
            weights, coefficients = before.weights, before.coefficients
            if count:
                weights = before.weights + number(_WEIGHTS, wanted.weights - before.weights)
                if np.abs(weights).max() > LARGEST_WEIGHT:
                    raise CorruptPayloadError("the parameters of the wavelets are damaged")
            differ = not np.array_equal(wanted.coefficients, before.coefficients)
            if number(_TOLD, np.array([differ]))[0]:
                steps = grade_of(wanted.coefficients) - grade_of(before.coefficients)
                grades = grade_of(before.coefficients) + number(_GRADES, steps)
                if grades.min() < 0 or grades.max() >= len(GRADES):
                    raise CorruptPayloadError("the parameters of the wavelets are damaged")
                coefficients = GRADES[grades]
            last[subband.kind] = Told(coefficients, weights)
            own.append(last[subband.kind])
        found.append(own)
    return (binary.finish(coder) if stream is None else b""), found


USUAL_GRADED: Int64 = GRADES[grade_of(USUAL)]
assert len(USUAL_GRADED) == N_FEATURES
