"""A chunk of fields under a bound ↔ a head that tells how, and one stream per unit and band.

The head holds what every reader needs: lattice, parameters of all passes, and an index, so that a
field can be decoded from its own bytes and those of the fields that it refers to.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import parameters as told_parameters
from coinpp_xr.coding.pyramid.background import Background
from coinpp_xr.coding.pyramid.coders import (
    BYTES_OF_CODER,
    Coder,
    Decoded,
    PassParameters,
    band_count,
    cut_streams,
)
from coinpp_xr.coding.pyramid.experts import FINGERPRINT_BYTES, Expert, find_expert, no_expert
from coinpp_xr.coding.pyramid.limits import UNIT, Limits
from coinpp_xr.coding.pyramid.means import Means
from coinpp_xr.coding.pyramid.parameters import Key
from coinpp_xr.coding.pyramid.points import Known, Observer
from coinpp_xr.coding.pyramid.referred import ReferredFields, background_on, last_uses
from coinpp_xr.coding.pyramid.scattered_walk import CHECKSUM, checked_surroundings, walk_through
from coinpp_xr.coding.pyramid.schedule import (
    STRENGTH_PARTS,
    UNIT_CELLS,
    Unit,
    key_distance,
    needed_ranges,
    needed_units,
    sample_of,
    schedule,
)
from coinpp_xr.coding.pyramid.strengths import strengths_of
from coinpp_xr.coding.pyramid.walk import NO_LIMITS, Walk
from coinpp_xr.coding.scattered.surroundings import Surroundings
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.lattice import Lattice
from coinpp_xr.parallel import map_compiled

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
DecodedUnit = tuple[list[Coder], Decoded]

PARTS = UNIT
_NO_MASK = np.empty((0, 0, 0), np.bool_)
MOST_CELLS = 1 << 24
# Fields of a chunk.
MOST_ITEMS = 1 << 20
# No value takes less than this: a decision that is as sure as can be.
_LEAST_BITS = 2e-4
_HEAD = struct.Struct("<ddBBII")
_ENTRY = struct.Struct("<II")
_LIMITS = struct.Struct("<iiBi")
_AROUND, _RELATIVE, _EXACT, _EXPERT, _REFERRING, _BACKGROUND, _SHIFTED = 1, 2, 4, 8, 16, 32, 64
_SCATTERED = 128


@dataclass(frozen=True, eq=False)
class Coded:
    """What :func:`encode` gives.

    Parameters
    ----------
    head, streams : bytes
    asks_network : bool
    """

    head: bytes
    streams: bytes
    asks_network: bool = False


def encode(
    values: npt.NDArray[Any],
    valid: Bool,
    order: npt.NDArray[np.integer[Any]],
    lattice: Lattice,
    *,
    around: bool,
    quick: int,
    limits: Limits = NO_LIMITS,
    expert: Expert | None = None,
    observe: Observer | None = None,
    background: Float64 | None = None,
    levels: int = 1,
    means: Means | None = None,
    surroundings: Surroundings | None = None,
) -> Coded:
    """Code fields so that none of the valid values is off by more than half a step.

    Parameters
    ----------
    values : float array, shape (items, n_lat, n_lon)
        Anything where not valid.
    valid : bool array of the same shape
    order : int array, shape (sequences, times)
        Numbers of fields that follow each other.
    lattice : Lattice
    around : bool
        Whether the first column follows the last.
    quick : int
        Classes of expected size that are coded by one context; 0 is the smallest and slowest.
    limits : Limits
    expert : Expert, optional
        A network that has an opinion of decisions.
    observe : callable, optional
        See :class:`coinpp_xr.coding.pyramid.walk.Walk`.
    background : float64 array, shape (n_lat, n_lon), optional
        What fields refer to beside each other; who decodes must have the same, bit for bit. Not
        for relative lattices, whose logarithms differ between machines.
    levels : int
        So many sequences are those of levels, one above the other.
    means : Means, optional
        What means of fields should keep, as far as shifts of anchors bring that about.
    surroundings : Surroundings, optional
        Of cells that are no raster, but laid out in one.
    """
    _, n_lat, n_lon = values.shape
    expert = no_expert() if expert is None else expert
    cells = n_lat * n_lon
    present = np.asarray(valid.any(axis=(1, 2)))
    distance = key_distance(cells, order.shape[1])
    strengths = None
    if levels > 1:
        scaled = lattice.fractions(values, 1) if lattice.relative else values
        unit_step = 1.0 if lattice.relative else lattice.step
        strengths = strengths_of(scaled, valid, order, levels, distance, unit_step)
    units = schedule(
        order, present, cells, distance, background=background is not None, levels=levels,
        strengths=strengths,
    )  # fmt: skip
    if expert.is_for_references_alone and not any(unit.n_references for unit in units):
        expert = no_expert()
    walk = walk_through((n_lat, n_lon), around, quick, limits, expert, observe, surroundings)
    shifting = means is not None and limits.free == 0
    parameters: dict[int, dict[Key, PassParameters]] = {}
    coders: dict[int, list[Coder]] = {}
    decoded = ReferredFields(units, background_on(background, lattice))
    everything = bool(valid[present].all())
    references = told_parameters.references_of(units)
    alike = Counter(unit.kind for unit in units for _ in unit.items)

    def known_of(unit: Unit) -> Known:
        items = list(unit.items)
        # A large field is a unit of its own, and need not be copied.
        some = values[items] if len(items) > 1 else values[items[0]][None]
        target = lattice.fractions(some, PARTS)
        if not everything:
            target[~valid[items]] = 0
        return Known(
            decoded.references(unit), _NO_MASK if everything else valid[items], target,
            alike[unit.kind] / len(items),
            told_parameters.kind_before(parameters, references, unit.kind),
        )  # fmt: skip

    def code(number: int) -> None:
        unit = units[number]
        parents = [None] * band_count(cells) if unit.parent is None else coders[unit.parent]
        known, count = known_of(unit), len(unit.items)
        again = decoded.is_referred_to(unit)

        def walked(coders_of_unit: list[Coder], shifts: Int64 | None) -> Decoded:
            return walk.unit(
                coders_of_unit, parameters[unit.kind], known, count,
                values=again or means is not None, marks=again, shifts=shifts,
            )  # fmt: skip

        coders[number] = [Coder.encoder(parent) for parent in parents]
        fields = walked(coders[number], np.zeros(count, np.int64) if shifting else None)
        if means is not None and shifting:
            errors = means.errors(fields.values, known)
            if not means.are_kept(errors):
                shifts = means.shifts(
                    errors, lambda tried: means.errors(walked([], tried).values, known)
                )
                coders[number] = [Coder.encoder(parent) for parent in parents]
                fields = walked(coders[number], shifts)
        decoded.add(unit, fields)

    for kind, group in groupby(range(len(units)), lambda number: units[number].kind):
        numbers, parameters[kind] = list(group), {}
        if len(numbers) > 1:  # parameters are to suit all of them
            sample = sample_of([units[number] for number in numbers], cells)
            known, count = known_of(sample), len(sample.items)
            walk.unit([], parameters[kind], known, count, values=False, marks=False)
        map_compiled(code, numbers)
        decoded.forget(kind)
    streams = [coder.finish() for number in range(len(units)) for coder in coders[number]]
    flags = _AROUND * around | _RELATIVE * lattice.relative | _EXACT * (limits.free > 0)
    flags |= _EXPERT * bool(expert.fingerprint) | _REFERRING * expert.is_for_references_alone
    flags |= _BACKGROUND * (background is not None) | _SHIFTED * shifting
    flags |= _SCATTERED * (surroundings is not None)
    told = told_parameters.pack(parameters, units, walk.passes)
    head = _HEAD.pack(lattice.step, lattice.origin, flags, quick, distance, len(told)) + told
    if limits.free > 0:
        head += _LIMITS.pack(limits.low, limits.high, limits.free, limits.second)
    head += expert.fingerprint
    head += b"" if surroundings is None else CHECKSUM.pack(surroundings.checksum)
    head += b"" if strengths is None else strengths.astype(np.uint8).tobytes()
    index = b"".join(_ENTRY.pack(len(s), zlib.crc32(s)) for s in streams)
    return Coded(head + index, b"".join(streams), bool(expert.fingerprint))


@dataclass(frozen=True, eq=False)
class Head:
    """What the head of a chunk says, parsed and checked.

    Parameters
    ----------
    lattice : Lattice
    walk : Walk
    units : list of Unit
    parameters : dict
        Kind → (level, pass) → parameters.
    starts : int array
        Where the streams of every unit begin, and the end of the last.
    index : int array, shape (units, bands, 2)
        Lengths and CRC-32s.
    background : Decoded or None
    shifted : bool
        Whether anchors are.
    """

    lattice: Lattice
    walk: Walk
    units: list[Unit]
    parameters: dict[int, dict[Key, PassParameters]]
    starts: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    background: Decoded | None
    shifted: bool

    @classmethod
    def parse(
        cls,
        head: bytes,
        valid: Bool | None,
        order: npt.NDArray[np.integer[Any]],
        shape: tuple[int, int],
        known: Background | None = None,
        levels: int = 1,
        find_surroundings: Callable[[], Surroundings | None] = lambda: None,
    ) -> Head:
        """From bytes of :func:`encode`; ``known`` is what a model brings along.

        Raises
        ------
        CorruptPayloadError, ModelNotFoundError
        """
        if len(head) < _HEAD.size:
            raise CorruptPayloadError("the head of the pyramid is cut short")
        step, origin, flags, quick, distance, length = _HEAD.unpack_from(head)
        cells = shape[0] * shape[1]
        damaged = not (0 < step < inf and abs(origin) < inf) or distance < 1
        if damaged or cells > MOST_CELLS or order.size > MOST_ITEMS:
            raise CorruptPayloadError("the head of the pyramid is damaged")
        if flags & _RELATIVE and origin == 0:
            raise CorruptPayloadError("the head of the pyramid is damaged")
        field = known.field if known and flags & _BACKGROUND else None
        if flags & _BACKGROUND and (field is None or field.shape != shape or flags & _RELATIVE):
            raise CorruptPayloadError("the pyramid wants a background that its model does not have")
        n_bands = band_count(cells)
        told = head[_HEAD.size : _HEAD.size + length]
        entries, limits = head[_HEAD.size + length :], Limits()
        if flags & _EXACT:
            if len(entries) < _LIMITS.size:
                raise CorruptPayloadError("the head of the pyramid is cut short")
            low, high, free, second = _LIMITS.unpack_from(entries)
            limits, entries = Limits(low, high, free, second), entries[_LIMITS.size :]
            if not limits.make_sense():
                raise CorruptPayloadError("the head of the pyramid is damaged")
        expert = no_expert()
        if flags & _EXPERT:
            expert = find_expert(entries[:FINGERPRINT_BYTES], known.expert if known else None)
            if flags & _REFERRING:
                expert = expert.for_references_alone
            entries = entries[FINGERPRINT_BYTES:]
        surroundings = None
        if flags & _SCATTERED:
            surroundings = checked_surroundings(find_surroundings(), cells, entries)
            entries = entries[CHECKSUM.size :]
        strengths = None
        if levels > 1:
            told_strengths = np.frombuffer(entries[: 2 * levels], np.uint8)
            entries = entries[2 * levels :]
            if len(told_strengths) != 2 * levels or told_strengths.max() > STRENGTH_PARTS:
                raise CorruptPayloadError("the head of the pyramid is damaged")
            strengths = told_strengths.reshape(2, levels)
        if valid is None:
            present = np.ones(order.size, np.bool_)
        else:
            present = np.asarray(valid.any(axis=(1, 2)))
        most = max(1, UNIT_CELLS // cells)
        if int(present.sum()) > most * (len(entries) // (_ENTRY.size * n_bands)):
            raise CorruptPayloadError("the head of the pyramid does not fit its shape")
        units = schedule(
            order, present, cells, distance, background=field is not None, levels=levels,
            strengths=strengths,
        )  # fmt: skip
        if len(told) != length or len(entries) != _ENTRY.size * n_bands * len(units):
            raise CorruptPayloadError("the head of the pyramid does not fit its shape")
        index = np.frombuffer(entries, "<u4").reshape(len(units), n_bands, 2).astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(index[:, :, 0].sum(axis=1))])
        lattice = Lattice(step, origin, bool(flags & _RELATIVE))
        walk = walk_through(shape, bool(flags & _AROUND), quick, limits, expert, None, surroundings)
        return cls(
            lattice, walk, units, told_parameters.unpack(told, units, walk.passes), starts, index,
            background_on(field, lattice), bool(flags & _SHIFTED),
        )  # fmt: skip

    def ranges(self, items: set[int], known: Container[int] = ()) -> list[tuple[int, int]]:
        """Which bytes of the streams some fields need, see :func:`needed_ranges`."""
        return needed_ranges(self.units, self.starts, items, known)

    @cached_property
    def _referred(self) -> dict[int, int]:
        return last_uses(self.units)

    def decode(
        self,
        read: Callable[[int, int], bytes],
        valid: Bool | None,
        items: set[int] | None = None,
        known: Mapping[int, DecodedUnit] | None = None,
        keep: Callable[[int, DecodedUnit, int], None] | None = None,
    ) -> Iterator[tuple[int, Int32]]:
        """Numbers of fields and what is decoded of them, in no particular order.

        Fields are in parts of the lattice's step, see :meth:`Lattice.of_fractions`.

        Parameters
        ----------
        read : callable
            (start, end) → those bytes of the streams.
        valid : bool array, shape (items, n_lat, n_lon), or None
        items : set of int, optional
            The fields that are wanted, else all.
        known : mapping, optional
            Number of a unit → what it was decoded to before.
        keep : callable, optional
            Is told the number of every other unit, what it is decoded to, and its bytes.

        Raises
        ------
        CorruptPayloadError
        """
        cells, units = self.walk.shape[0] * self.walk.shape[1], self.units
        wanted = {item for unit in units for item in unit.items} if items is None else items
        known = known or {}
        numbers = needed_units(units, wanted, known)
        coders: dict[int, list[Coder]] = {}
        decoded = ReferredFields([units[number] for number in numbers], self.background)

        def decode(number: int) -> Decoded:
            unit = units[number]
            if number in known:
                coders[number], fields = known[number]
                decoded.add(unit, fields)
                return fields
            data = read(int(self.starts[number]), int(self.starts[number + 1]))
            streams = cut_streams(data, self.index[number], "the pyramid")
            count = len(unit.items) * cells
            own = None if valid is None else valid[list(unit.items)]
            coded = count if own is None else int(own.sum())
            if _LEAST_BITS * coded > 8 * len(data):
                raise CorruptPayloadError("the pyramid is too short for its shape")
            parents = [None] * len(streams) if unit.parent is None else coders[unit.parent]
            coders[number] = [
                Coder.decoder(stream, parent)
                for stream, parent in zip(streams, parents, strict=True)
            ]
            coded_cells = Known(decoded.references(unit), _NO_MASK if own is None else own)
            fields = self.walk.unit(
                coders[number], self.parameters[unit.kind], coded_cells, len(unit.items),
                values=True, marks=any(item in self._referred for item in unit.items),
                shifts=np.zeros(len(unit.items), np.int64) if self.shifted else None,
            )  # fmt: skip
            for coder in coders[number]:
                coder.check_end()
            decoded.add(unit, fields)
            if keep is not None:
                nbytes = fields.nbytes + BYTES_OF_CODER * len(coders[number])
                keep(number, (coders[number], fields), nbytes)
            return fields

        for kind, group in groupby(numbers, lambda number: units[number].kind):
            some = list(group)
            for number, fields in zip(some, map_compiled(decode, some), strict=True):
                for item, field in zip(units[number].items, fields.values, strict=True):
                    if item in wanted:
                        yield item, field
            decoded.forget(kind)
