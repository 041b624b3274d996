"""A chunk of fields under an RMSE ↔ a head that tells how, and one stream per unit.

Which fields refer to which, and which are decoded as a unit, is as in the pyramid. A field's
coefficients are predicted from those of the fields that it refers to, subband by subband; what is
left is rounded to whole numbers. The head holds what every reader needs, and an index.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.coders import BYTES_OF_CODER, Coder, cut_streams
from coinpp_xr.coding.pyramid.schedule import (
    UNIT_CELLS,
    Unit,
    key_distance,
    needed_ranges,
    needed_units,
    schedule,
)
from coinpp_xr.coding.wavelets import parameters
from coinpp_xr.coding.wavelets.field_coding import (
    Coefficients,
    Numbers,
    Referred,
    code_band,
    joined,
    predicted,
    room_for,
)
from coinpp_xr.coding.wavelets.parameters import Told
from coinpp_xr.coding.wavelets.rounding import Steps
from coinpp_xr.coding.wavelets.subbands import Subband, Transform
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.parallel import map_compiled

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

MOST_CELLS, MOST_ITEMS = 1 << 24, 1 << 20
# Bands of rows, and cells in each.
MOST_BANDS, _FEWEST_OF_BAND = 8, 1 << 8
# Of a grid; shorter ones have no wavelets.
SHORTEST_SIDE = 16
_HEAD = struct.Struct("<fIBBH")
_ENTRY = struct.Struct("<II")


@dataclass(frozen=True, eq=False)
class Plan:
    """What encoder and decoder agree on.

    Parameters
    ----------
    units : list of Unit
    distance : int
        Of key fields.
    """

    units: list[Unit]
    distance: int

    @classmethod
    def of(
        cls,
        order: npt.NDArray[np.integer[Any]],
        present: Bool,
        cells: int,
        distance: int | None = None,
    ) -> Plan:
        distance = key_distance(cells, order.shape[1]) if distance is None else distance
        return cls(schedule(order, present, cells, distance), distance)

    @property
    def references(self) -> list[int]:
        """To how many others fields of every kind of units refer."""
        return [next(group).n_references for _, group in groupby(self.units, lambda u: u.kind)]


def pack(
    plan: Plan,
    subbands: Sequence[Subband],
    origin: float,
    steps: Steps,
    told: list[list[Told]],
    quick: int,
    streams: list[list[bytes]],
) -> tuple[bytes, bytes]:
    """Head and streams; of these, those of all bands of every unit."""
    said, _ = parameters.code(told, None, plan.references, subbands)
    head = _HEAD.pack(origin, plan.distance, len(streams[0]), quick, len(said))
    each = [stream for unit in streams for stream in unit]
    index = b"".join(_ENTRY.pack(len(s), zlib.crc32(s)) for s in each)
    return head + steps.pack() + said + index, b"".join(each)


class Head:
    """What the head of a chunk says, parsed and checked.

    Parameters
    ----------
    head : bytes
    present : bool array, shape (items,)
        Which fields hold anything.
    order : int array, shape (sequences, times)
    transform : Transform
    cells : int
        Of a field.

    Raises
    ------
    CorruptPayloadError
    """

    def __init__(
        self,
        head: bytes,
        present: Bool,
        order: npt.NDArray[np.integer[Any]],
        transform: Transform,
        cells: int,
    ) -> None:
        if len(head) < _HEAD.size:
            raise CorruptPayloadError("the head of the wavelets is cut short")
        self._origin, distance, bands, self._quick, length = _HEAD.unpack_from(head)
        self._steps = Steps.unpack(head[_HEAD.size :])
        start = _HEAD.size + Steps.size()
        said, entries = head[start : start + length], head[start + length :]
        damaged = not abs(self._origin) < inf or distance < 1 or len(said) != length
        damaged = damaged or not 1 <= bands <= MOST_BANDS or cells // bands < _FEWEST_OF_BAND
        if damaged or cells > MOST_CELLS or order.size > MOST_ITEMS:
            raise CorruptPayloadError("the head of the wavelets is damaged")
        most = max(1, UNIT_CELLS // cells)
        if int(present.sum()) > most * (len(entries) // (_ENTRY.size * bands)):
            raise CorruptPayloadError("the head of the wavelets does not fit its shape")
        plan = Plan.of(order, present, cells, distance)
        if len(entries) != _ENTRY.size * bands * len(plan.units):
            raise CorruptPayloadError("the head of the wavelets does not fit its shape")
        self.units, self._transform, self._bands = plan.units, transform, bands
        _, self._told = parameters.code(None, said, plan.references, transform.subbands)
        index = np.frombuffer(entries, "<u4").reshape(len(plan.units), bands, 2)
        self._index = index.astype(np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._index[:, :, 0].sum(axis=1))])

    def ranges(self, items: set[int], known: Container[int] = ()) -> list[tuple[int, int]]:
        """Which bytes of the streams some fields need, see :func:`needed_ranges`."""
        return needed_ranges(self.units, self._starts, items, known)

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
        wanted = {item for unit in self.units for item in unit.items} if items is None else items
        known = known or {}
        numbers = needed_units(self.units, wanted, known)
        coders: dict[int, list[Coder]] = {}
        referred = Referred([self.units[number] for number in numbers])

        def decode(number: int) -> list[tuple[int, Float64]]:
            unit = self.units[number]
            if number in known:
                coders[number], fields = known[number]
            else:
                coders[number] = self._coders(number, read, coders)
                fields = [
                    self._field(coders[number], unit.kind, referred.of(references))
                    for references in unit.references
                ]
                for coder in coders[number]:
                    coder.check_end()
                if keep is not None:
                    kept, nbytes = (coders[number], fields), BYTES_OF_CODER * self._bands
                    keep(number, kept, nbytes + sum(field.nbytes for field in fields))
            found = []
            for item, field in zip(unit.items, fields, strict=True):
                referred.add(item, field)
                if item in wanted:
                    found.append((item, self._transform.inverse(field.values) + self._origin))
            return found

        for kind, group in groupby(numbers, lambda number: self.units[number].kind):
            for found in map_compiled(decode, list(group)):
                yield from found
            referred.forget(kind)

    def _coders(
        self, number: int, read: Callable[[int, int], bytes], coders: dict[int, list[Coder]]
    ) -> list[Coder]:
        data = read(int(self._starts[number]), int(self._starts[number + 1]))
        streams = cut_streams(data, self._index[number], "the wavelets")
        parent = self.units[number].parent
        parents = [None] * self._bands if parent is None else coders[parent]
        return [Coder.decoder(*each) for each in zip(streams, parents, strict=True)]

    def _field(
        self, coders: list[Coder], kind: int, references: list[Coefficients]
    ) -> Coefficients:
        told, subbands = self._told[kind], self._transform.subbands

        def decode(band: int) -> Numbers:
            numbers = room_for(subbands, band, self._bands)
            before = [field.numbers[band] for field in references]
            code_band(coders[band], told, subbands, before, numbers, self._quick, decoding=True)
            return numbers

        numbers = map_compiled(decode, range(self._bands))
        values = [
            self._steps.values(own) + predicted(told[k], references, k)
            for k, own in enumerate(joined(numbers))
        ]
        return Coefficients(values, numbers)
