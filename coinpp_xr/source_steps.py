"""Values that were quantized before ↔ whole numbers, by the arithmetic that made them.

Nearly every field was packed once: in GRIB, as (R + n · 2^E) / 10^D; in NetCDF, as n · scale +
offset; or with a number of decimals. Each whole number then stands for one floating-point value,
bit for bit, if the same operations are done in the same precision and order. What was packed twice
(:mod:`coinpp_xr.inner_steps`) has whole numbers of whole numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.exact import pack_bytes, unpack_bytes

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# Whole numbers of a field are counted from its middle, and are no larger than this.
MOST = 1 << 23
_DAMAGED = "the steps of the source are damaged"
_COUNT = struct.Struct("<I")


class Arithmetic(IntEnum):
    """How a whole number n becomes a value, rounded after each operation."""

    DOUBLE = 0  # n · step + origin, in double precision
    SINGLE = 1  # the same in single precision
    MULTIPLIED = 2  # (n · step + origin) · factor
    DIVIDED = 3  # (n · step + origin) / factor
    ROUNDED = 4  # as DOUBLE, then rounded to single precision


# How steps are told, in columns.
_COLUMNS = np.dtype(
    [
        ("arithmetic", "u1"), ("step", "<f8"), ("origin", "<f8"), ("factor", "<f8"),
        ("first", "<i8"), ("ratio", "<f8"), ("phase", "<f8"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Steps:
    """The values that a field can have, numbered.

    Parameters
    ----------
    step, origin, factor : float
        Of the arithmetic.
    arithmetic : Arithmetic
    first : int
        What number 0 stands for: so that numbers are small.
    ratio, phase : float
        Where values were packed twice, number m stands for round(m · ratio + phase) of the
        outer whole numbers.
    """

    step: float
    origin: float = 0.0
    factor: float = 1.0
    arithmetic: Arithmetic = Arithmetic.DOUBLE
    first: int = 0
    ratio: float = 1.0
    phase: float = 0.0

    @property
    def size(self) -> float:
        """How far apart values are, where the arithmetic does not round."""
        factor = {Arithmetic.MULTIPLIED: self.factor, Arithmetic.DIVIDED: 1 / self.factor}
        return self.step * factor.get(self.arithmetic, 1.0) * self.ratio

    def values(self, numbers: Int, dtype: np.dtype[Any]) -> Array:
        """What numbers stand for."""
        with np.errstate(all="ignore"):  # numbers of damaged payloads may be anything
            if self.ratio != 1:
                numbers = np.rint(numbers * self.ratio + self.phase).astype(np.int64)
            whole = numbers + self.first
            if dtype.kind != "f":
                return np.asarray(whole.astype(dtype))
            if self.arithmetic == Arithmetic.SINGLE:
                single = np.float32
                found = whole.astype(single) * single(self.step) + single(self.origin)
                return np.asarray(found.astype(dtype))
            values = whole * self.step
            values += self.origin
            if self.arithmetic == Arithmetic.MULTIPLIED:
                values *= self.factor
            elif self.arithmetic == Arithmetic.DIVIDED:
                values /= self.factor
            elif self.arithmetic == Arithmetic.ROUNDED:
                values = values.astype(np.float32)
            return np.asarray(values.astype(dtype))

    def numbers(self, values: Array) -> Float64:
        """The nearest numbers, as whole floating-point numbers; anything where none is near."""
        with np.errstate(all="ignore"):
            if values.dtype.kind != "f":
                return values.astype(np.float64) - self.first
            found = values.astype(np.float64)
            if self.arithmetic == Arithmetic.MULTIPLIED:
                found /= self.factor
            elif self.arithmetic == Arithmetic.DIVIDED:
                found *= self.factor
            found -= self.origin
            found /= self.step
            whole = np.rint(found) - self.first
            return np.rint((whole - self.phase) / self.ratio) if self.ratio != 1 else whole

    def exactly(self, values: Array) -> tuple[Int, npt.NDArray[np.bool_]]:
        """Numbers of values, and for which the arithmetic gives them back bit for bit."""
        numbers = self.numbers(values)
        with np.errstate(invalid="ignore"):
            near = np.abs(numbers) <= MOST
        whole = np.where(near, numbers, 0).astype(np.int64)
        bits = np.dtype(f"u{values.dtype.itemsize}")
        rebuilt = self.values(whole, values.dtype.newbyteorder("="))
        own = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        same = rebuilt.view(bits) == own.view(bits)
        return whole, near & same


@dataclass(frozen=True, eq=False)
class SourceSteps:
    """The steps of every field of a chunk.

    Parameters
    ----------
    kinds : sequence of Steps
        Those that there are.
    which : int array, shape (items,)
        Their numbers.
    """

    kinds: Sequence[Steps]
    which: npt.NDArray[np.integer[Any]]

    def of(self, item: int) -> Steps:
        return self.kinds[int(self.which[item])]

    def pack(self) -> bytes:
        """A section for :meth:`unpack`."""
        rows = np.array(
            [
                (s.arithmetic, s.step, s.origin, s.factor, s.first, s.ratio, s.phase)
                for s in self.kinds
            ],
            _COLUMNS,
        )
        parts = [_COUNT.pack(len(rows))]
        columns = [np.ascontiguousarray(rows[name]) for name in _COLUMNS.names or ()]
        if len(rows) == 1:
            return parts[0] + b"".join(column.tobytes() for column in columns)
        columns.append(self.which.astype("<u4"))
        for column in columns:
            packed = pack_bytes(column)
            parts += [_COUNT.pack(len(packed)), packed]
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes, items: int) -> SourceSteps:
        """Of so many fields.

        Raises
        ------
        CorruptPayloadError
        """
        if len(data) < _COUNT.size:
            raise CorruptPayloadError(_DAMAGED)
        (count,), at = _COUNT.unpack_from(data), _COUNT.size
        if not 0 < count <= max(items, 1):
            raise CorruptPayloadError(_DAMAGED)
        rows, which = np.empty(count, _COLUMNS), np.zeros(items, np.intp)
        names: Sequence[str] = _COLUMNS.names or ()
        if count == 1:
            if len(data) != at + _COLUMNS.itemsize:
                raise CorruptPayloadError(_DAMAGED)
            for name in names:
                rows[name] = np.frombuffer(data, _COLUMNS[name], 1, at)
                at += _COLUMNS[name].itemsize
        else:
            told: tuple[str | None, ...] = (*names, None)
            for column in told:
                if len(data) < at + _COUNT.size:
                    raise CorruptPayloadError(_DAMAGED)
                (length,) = _COUNT.unpack_from(data, at)
                packed, at = data[at + _COUNT.size : at + _COUNT.size + length], at + length
                at += _COUNT.size
                if column is None:
                    which = unpack_bytes(packed, items, np.dtype("<u4")).astype(np.intp)
                else:
                    rows[column] = unpack_bytes(packed, count, np.dtype(_COLUMNS[column]))
            if at != len(data):
                raise CorruptPayloadError(_DAMAGED)
        if (which >= count).any():
            raise CorruptPayloadError(_DAMAGED)
        return cls([_checked(row) for row in rows], which)


def _checked(row: Any) -> Steps:
    arithmetic, first = int(row["arithmetic"]), int(row["first"])
    numbers = [float(row[name]) for name in ("step", "origin", "factor", "ratio", "phase")]
    step, origin, factor, ratio, phase = numbers
    sound = all(map(isfinite, numbers)) and step > 0 and factor > 0 and ratio >= 1
    if not sound or arithmetic > max(Arithmetic) or abs(first) > 1 << 62:
        raise CorruptPayloadError(_DAMAGED)
    return Steps(step, origin, factor, Arithmetic(arithmetic), first, ratio, phase)
