"""The last step of decoding: values stay within the range that they came from, means are right."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.fields import round_to

Floating = npt.NDArray[np.floating[Any]]
Int = npt.NDArray[np.int64]

_LOW, _HIGH, _SHIFTS, _RELATIVE, _SNAP, _CHANGES = 1, 2, 4, 8, 16, 32
_NUMBER, _UNIT = struct.Struct("<d"), struct.Struct("<f")
LARGEST_SHIFT = 2**24


@dataclass(frozen=True, eq=False)
class Finish:
    """What is done to decoded values before those that are stored exactly take their places.

    Parameters
    ----------
    low, high : float or None
        Numbers of the data's type; values beyond become these.
    fixed : tuple of float
        At most two values that are not shifted.
    snap : float
        What is as near to the second of these becomes that value.
    unit : float
        Of shifts: in the data's unit, or a fraction of each value where ``relative``.
    relative : bool
    shifts : int array, shape (items,)
        Of fields, in units; or of no items, where nothing is shifted.
    """

    low: float | None = None
    high: float | None = None
    fixed: tuple[float, ...] = ()
    snap: float = 0.0
    unit: float = 0.0
    relative: bool = False
    shifts: Int = field(default_factory=lambda: np.empty(0, np.int64))

    def __bool__(self) -> bool:
        return bool(self.low is not None or self.high is not None or self.snap) or bool(
            self.shifts.any()
        )

    def snapped(self, values: Floating) -> None:
        """Bring back, in place, what is next to the second of the fixed values."""
        if self.snap:
            second = values.dtype.type(self.fixed[-1])
            values[np.abs(values - second) <= self.snap] = second

    def apply(self, values: Floating, item: int) -> None:
        """Change values of a field, in place; they are of the data's type."""
        self.snapped(values)
        shift = self.unit * float(self.shifts[item]) if len(self.shifts) else 0.0
        if shift == 0:
            if self.low is not None or self.high is not None:
                np.clip(values, self.low, self.high, out=values)
            return
        numbers = values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = numbers * (1 + shift) if self.relative else numbers + shift
            for value in self.fixed:
                moved[numbers == value] = value
            if self.low is not None or self.high is not None:
                np.clip(moved, self.low, self.high, out=moved)
            values[...] = round_to(moved, values.dtype)

    def applied(self, values: Floating, where: npt.NDArray[np.bool_]) -> Floating:
        """A field in which this was applied where told, for its first item."""
        found = values.copy()
        self.apply(found, 0)
        found[~where] = values[~where]
        return found

    def pack(self, dtype: np.dtype[Any]) -> bytes:
        """As a section of a payload.

        Parameters
        ----------
        dtype : dtype
            The data's.
        """
        ends = [end for end in (self.low, self.high) if end is not None]
        flags = _LOW * (self.low is not None) | _HIGH * (self.high is not None)
        has_shifts = bool(self.shifts.any())
        if not has_shifts and not self.snap:
            return bytes([flags]) + np.array(ends, dtype).tobytes()
        numbers, rest = np.array([*ends, *self.fixed], dtype).tobytes(), b""
        if self.snap:
            flags, rest = flags | _SNAP, _NUMBER.pack(self.snap)
        if has_shifts:
            from coinpp_xr.coding import masks  # compiles, or loads what was compiled

            # Fields that follow each other mostly err alike.
            plain = masks.encode_numbers(self.shifts)
            changes = masks.encode_numbers(np.diff(self.shifts, prepend=0))
            flags |= _SHIFTS | _RELATIVE * self.relative | _CHANGES * (len(changes) < len(plain))
            rest += _UNIT.pack(self.unit) + min(plain, changes, key=len)
        return bytes([flags, len(self.fixed)]) + numbers + rest

    @classmethod
    def unpack(cls, section: bytes, dtype: np.dtype[Any], items: int) -> Self:
        """From :meth:`pack`, for as many fields.

        Raises
        ------
        CorruptPayloadError
        """
        damaged = CorruptPayloadError("the range of the values is damaged")
        flags = section[0] if section else 255
        if flags >= 2 * _CHANGES:
            raise damaged
        longer, n_ends = bool(flags & (_SHIFTS | _SNAP)), (flags & 3).bit_count()
        head = section[1:2] if longer else b"\0"
        if not head or head[0] > 2:
            raise damaged
        start = 1 + longer
        end = start + dtype.itemsize * (n_ends + head[0])
        numbers = section[start:end]
        if len(numbers) != end - start:
            raise damaged
        found = np.frombuffer(numbers, dtype).astype(np.float64).tolist()
        low = found.pop(0) if flags & _LOW else None
        high = found.pop(0) if flags & _HIGH else None
        if not np.isfinite([0 if end is None else end for end in (low, high)]).all():
            raise damaged
        snap = 0.0
        if flags & _SNAP:
            if len(section) < end + _NUMBER.size or not found:
                raise damaged
            (snap,) = _NUMBER.unpack_from(section, end)
            end += _NUMBER.size
        if not 0 <= snap < np.inf:
            raise damaged
        if not flags & _SHIFTS:
            if len(section) != end:
                raise damaged
            return cls(low, high, tuple(found), snap)
        if len(section) < end + _UNIT.size:
            raise damaged
        (unit,) = _UNIT.unpack_from(section, end)
        from coinpp_xr.coding import masks

        shifts = masks.decode_numbers(section[end + _UNIT.size :], items)
        if flags & _CHANGES:
            shifts = np.cumsum(shifts)
        if not np.isfinite(unit) or np.abs(shifts).max(initial=0) > LARGEST_SHIFT:
            raise damaged
        return cls(low, high, tuple(found), snap, unit, bool(flags & _RELATIVE), shifts)
