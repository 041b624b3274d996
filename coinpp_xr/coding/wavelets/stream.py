"""A chunk of fields under an RMSE ↔ a head that tells how, and one stream per unit.

Which fields refer to which, and which are decoded as a unit, is as in the pyramid. A field's
coefficients are predicted from those of the fields that it refers to, subband by subband; what is
left is rounded to whole numbers. The head holds what every reader needs, and an index.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from itertools import groupby
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.byte_reading import ByteReader, varint
from coinpp_xr.coding.pyramid.coders import BYTES_OF_CODER, Coder, cut_streams
from coinpp_xr.coding.pyramid.schedule import (
    UNIT_CELLS,
    Unit,
    needed_ranges,
    needed_units,
)
from coinpp_xr.coding.wavelets import parameters
from coinpp_xr.coding.wavelets.field_coding import (
    Coefficients,
    Numbers,
    Referred,
    code_band,
    rebuilt,
    room_for,
)
from coinpp_xr.coding.wavelets.parameters import Told
from coinpp_xr.coding.wavelets.plan import Plan, Transform, bears_frequencies
from coinpp_xr.coding.wavelets.rounding import Steps
from coinpp_xr.coding.wavelets.subbands import wavelets_on
from coinpp_xr.coding.wavelets.waves import Waves
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.parallel import map_compiled
from coinpp_xr.transform import is_transformable

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

MOST_CELLS, MOST_ITEMS = 1 << 24, 1 << 20
# Bands of rows, and cells in each.
MOST_BANDS, _FEWEST_OF_BAND = 8, 1 << 8
# Of a grid; shorter ones have no wavelets.
SHORTEST_SIDE = 16
_HEAD = struct.Struct("<fBB")
# Beside the number of bands: how fields are transformed, and whether single precision does.
_WAVES, _SINGLE, _SHORT_STREAM = 16, 32, 64
# Who looks for streams has read so much before.
_SHORT = 1 << 12
# Of the index: a length and a checksum.
_CHECKSUM = struct.Struct("<I")
_LEAST_ENTRY = 1 + _CHECKSUM.size


def pack(
    plan: Plan,
    transform: Transform,
    origin: float,
    steps: Steps,
    told: list[list[Told]],
    quick: int,
    streams: list[list[bytes]],
) -> tuple[bytes, bytes]:
    """Head and streams; of these, those of all bands of every unit.

    One that is short stands in the head, and there are no others.
    """
    said, _ = parameters.code(told, None, plan.references, transform.subbands)
    how, numbers = len(streams[0]), [plan.distance, len(said)]
    if isinstance(transform, Waves):
        how |= _WAVES | _SINGLE * transform.single
        numbers += transform.extent
    each = [stream for unit in streams for stream in unit]
    short = len(each) == 1 and len(each[0]) < _SHORT
    how |= _SHORT_STREAM * short
    index = b"".join(varint(len(s)) + _CHECKSUM.pack(zlib.crc32(s)) for s in each)
    head = _HEAD.pack(origin, how, quick) + steps.pack() + b"".join(map(varint, numbers))
    return (head + said + each[0], b"") if short else (head + said + index, b"".join(each))


class Head:
    """What the head of a chunk says, parsed and checked.

    Parameters
    ----------
    head : bytes
    present : bool array, shape (items,)
        Which fields hold anything.
    order : int array, shape (sequences, times)
    grid : SphereGrid
    nbytes : int
        Of the array.

    Raises
    ------
    CorruptPayloadError
    """

    def __init__(
        self,
        head: bytes,
        present: Bool,
        order: npt.NDArray[np.integer[Any]],
        grid: SphereGrid,
        nbytes: int,
    ) -> None:
        reader, cells = ByteReader(head), grid.shape[0] * grid.shape[1]
        self._origin, how, self._quick = _HEAD.unpack(reader.take(_HEAD.size))
        self._steps = Steps.unpack(reader.take(Steps.size()))
        distance, length = reader.varint(), reader.varint()
        self._transform: Transform = wavelets_on(grid)
        if how & _WAVES:
            if not is_transformable(grid.shape, nbytes):
                raise CorruptPayloadError("payload claims a grid that no transform was made for")
            extent = reader.varint(), reader.varint()
            self._transform = _waves(grid, extent, single=bool(how & _SINGLE))
        bands, said = how % _WAVES, reader.take(length)
        damaged = not abs(self._origin) < inf or how >= 2 * _SHORT_STREAM
        damaged = damaged or not 1 <= bands <= MOST_BANDS or cells // bands < _FEWEST_OF_BAND
        if damaged or cells > MOST_CELLS or order.size > MOST_ITEMS:
            raise CorruptPayloadError("the head of the wavelets is damaged")
        # Before anything is made of it that takes time.
        most_units = 1 if how & _SHORT_STREAM else reader.left // (_LEAST_ENTRY * bands)
        least_units = len(order)
        if distance > 0:
            least_units = -(-int(present.sum()) // max(1, UNIT_CELLS // cells))
        if least_units > most_units:
            raise CorruptPayloadError("the head of the wavelets does not fit its shape")
        if distance > 0:
            self._plan = Plan.of(order, present, cells, distance)
        elif bears_frequencies(order, cells):
            self._plan = Plan.of_frequencies(order, cells)
        else:
            raise CorruptPayloadError("the wavelets' sequence is too long for its fields")
        self.units, self._bands = self._plan.units, bands
        self._short = b""
        if how & _SHORT_STREAM:
            self._short = reader.take(reader.left)
            entries = [(0, zlib.crc32(self._short))]
        else:
            entries = _read_index(reader, len(self.units) * bands)
        if not reader.at_end or len(entries) != len(self.units) * bands:
            raise CorruptPayloadError("the head of the wavelets does not fit its shape")
        self._index = np.array(entries, np.int64).reshape(len(self.units), bands, 2)
        subbands = self._transform.subbands
        _, self._told = parameters.code(None, said, self._plan.references, subbands)
        self._starts = np.concatenate([[0], np.cumsum(self._index[:, :, 0].sum(axis=1))])

    def ranges(self, items: set[int], known: Container[int] = ()) -> list[tuple[int, int]]:
        """Which bytes of the streams some fields need, see :func:`needed_ranges`."""
        return needed_ranges(self.units, self._starts, self._plan.holding(items), known)

    def decode(
        self,
        read: Callable[[int, int], bytes],
        items: set[int] | None = None,
        known: Mapping[int, Any] | None = None,
        keep: Callable[[int, Any, int], None] | None = None,
    ) -> Iterator[tuple[int, Float64]]:
        """Numbers of fields and fields, in no particular order.

        Parameters
        ----------
        read : callable
            (start, end) → those bytes of the streams.
        items : set of int, optional
            The fields that are wanted, else all.
        known : mapping, optional
            Number of a unit → what was kept of it before.
        keep : callable, optional
            Is told the number of every other unit, what it is decoded to, and its bytes.

        Raises
        ------
        CorruptPayloadError
        """
        known = known or {}
        if items is None:
            numbers = list(range(len(self.units)))
        else:
            numbers = needed_units(self.units, self._plan.holding(items), known)
        coders: dict[int, list[Coder]] = {}
        referred = Referred([self.units[number] for number in numbers])

        def decode(number: int) -> tuple[Unit, list[list[Float64]]]:
            unit = self.units[number]
            if number in known:
                coders[number], arrays = known[number]
                for item, found in zip(unit.items, arrays, strict=True):
                    referred.add(item, found)
            else:
                coders[number], arrays = self._coders(number, read, coders), []
                for item, references in zip(unit.items, unit.references, strict=True):
                    found = self._decoded(coders[number], unit.kind, referred.of(references))
                    referred.add(item, found)
                    arrays.append(found)
                for coder in coders[number]:
                    coder.check_end()
                if keep is not None:
                    kept, nbytes = (coders[number], arrays), BYTES_OF_CODER * self._bands
                    keep(number, kept, nbytes + sum(array.nbytes for array in arrays))
            return unit, [array.values for array in arrays]

        for kind, group in groupby(numbers, lambda number: self.units[number].kind):
            decoded = self._plan.in_parts(decode, list(group))
            for item, field in self._plan.fields(decoded, self._transform, items):
                yield item, field + self._origin
            referred.forget(kind)

    def _coders(
        self, number: int, read: Callable[[int, int], bytes], coders: dict[int, list[Coder]]
    ) -> list[Coder]:
        data = read(int(self._starts[number]), int(self._starts[number + 1]))
        streams = [self._short]
        if not self._short:
            streams = cut_streams(data, self._index[number], "the wavelets")
        parent = self.units[number].parent
        parents = [None] * self._bands if parent is None else coders[parent]
        return [Coder.decoder(*each) for each in zip(streams, parents, strict=True)]

    def _decoded(
        self, coders: list[Coder], kind: int, references: list[Coefficients]
    ) -> Coefficients:
        told, subbands = self._told[kind], self._transform.subbands

        def decode(band: int) -> Numbers:
            numbers = room_for(subbands, band, self._bands)
            before = [field.numbers[band] for field in references]
            code_band(coders[band], told, subbands, before, numbers, self._quick, decoding=True)
            return numbers

        numbers = map_compiled(decode, range(self._bands))
        return rebuilt(numbers, self._steps, told, references)


def _waves(grid: SphereGrid, extent: tuple[int, int], *, single: bool) -> Waves:
    orders, waves = extent
    if not (0 < orders <= grid.shape[0] and 0 < waves <= grid.shape[1]):
        raise CorruptPayloadError("the head of the wavelets is damaged")
    return Waves(grid, extent, single=single)


def _read_index(reader: ByteReader, count: int) -> list[tuple[int, int]]:
    """Lengths and checksums."""
    return [
        (reader.varint(), _CHECKSUM.unpack(reader.take(_CHECKSUM.size))[0]) for _ in range(count)
    ]
