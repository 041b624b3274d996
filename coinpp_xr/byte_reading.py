"""Bytes, read one part after the other, and numbers of any length."""

from __future__ import annotations

from dataclasses import dataclass, field

from coinpp_xr.errors import CorruptPayloadError


class CutShortError(CorruptPayloadError):
    """There is less than what is said to follow."""


@dataclass
class ByteReader:
    """Takes bytes from the front.

    Raises
    ------
    CorruptPayloadError
        From all methods, where there are fewer.
    """

    data: bytes
    position: int = field(default=0)

    @property
    def at_end(self) -> bool:
        return self.left == 0

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise CutShortError("payload is cut short")
        self.position += count
        return self.data[self.position - count : self.position]

    def byte(self) -> int:
        return self.take(1)[0]

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def varint(self) -> int:
        """A number as :func:`varint` writes it."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise CorruptPayloadError("payload holds a number of more than 63 bits")


def varint(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
