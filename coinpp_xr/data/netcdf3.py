"""Whether a classic NetCDF file is whole: its library reads zeros past the end without a word."""

from __future__ import annotations

import io
from math import prod
from pathlib import Path

_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12
# Bytes of a value, by the number of its type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


def check_whole(path: Path) -> None:
    """Refuse a classic NetCDF file (CDF-1, -2 or -5) that is shorter than its header says.

    Raises
    ------
    EOFError
    """
    with path.open("rb") as file:
        header = _Header(file)
        try:
            expected = header.end_of_data()
        except (EOFError, KeyError, IndexError) as error:
            raise EOFError("its header is damaged or cut off") from error
        found = file.seek(0, io.SEEK_END)
    if found < expected:
        raise EOFError(f"it was cut off: {found:,} of {expected:,} bytes are there")


class _Header:
    """Reads the header in the grammar of the NetCDF user's guide, appendix B."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        version = self._bytes(4)[3]
        self._count_size = 8 if version == 5 else 4
        self._offset_size = 4 if version == 1 else 8

    def end_of_data(self) -> int:
        records = self._count()
        streaming = 256**self._count_size - 1
        dims = [self._dimension() for _ in range(self._list_of(_DIMENSION))]
        self._skip_attributes()
        variables = [self._variable(dims) for _ in range(self._list_of(_VARIABLE))]
        ends = [begin + size for begin, size, is_record in variables if not is_record]
        in_records = [(begin, size) for begin, size, is_record in variables if is_record]
        if in_records and records and records != streaming:
            # A single variable is not padded.
            alone = len(in_records) == 1
            per_record = sum(size if alone else _padded(size) for _, size in in_records)
            ends += [begin + (records - 1) * per_record + size for begin, size in in_records]
        return max(ends, default=0)

    def _variable(self, dims: list[int]) -> tuple[int, int, bool]:
        """Where a variable begins, its bytes (of one record), and whether it has records."""
        self._bytes(_padded(self._count()))
        shape = [dims[self._count()] for _ in range(self._count())]
        self._skip_attributes()
        size = _SIZES[self._number(4)]
        self._count()  # vsize, which large variables do not fit into
        begin = self._number(self._offset_size)
        is_record = bool(shape) and shape[0] == 0
        return begin, size * prod(shape[1:] if is_record else shape), is_record

    def _skip_attributes(self) -> None:
        for _ in range(self._list_of(_ATTRIBUTE)):
            self._bytes(_padded(self._count()))
            size = _SIZES[self._number(4)]
            self._bytes(_padded(size * self._count()))

    def _list_of(self, kind: int) -> int:
        found, length = self._number(4), self._count()
        if found not in (kind, 0):
            raise KeyError(found)
        return length

    def _dimension(self) -> int:
        self._bytes(_padded(self._count()))
        return self._count()

    def _count(self) -> int:
        return self._number(self._count_size)

    def _number(self, size: int) -> int:
        return int.from_bytes(self._bytes(size), "big")

    def _bytes(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data


def _padded(size: int) -> int:
    return -(-size // 4) * 4
