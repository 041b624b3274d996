"""Fields of a pyramid, or in wavelets, one by one or all of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.coding.pyramid import bounded, stream
from coinpp_xr.coding.pyramid.background import Background
from coinpp_xr.coding.pyramid.limits import UNIT_BITS
from coinpp_xr.coding.pyramid.stream import PARTS
from coinpp_xr.coding.wavelets import stream as wavelets
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.fields import CELLS_AT_ONCE, Sequences, are_few, round_to
from coinpp_xr.finishing import Finish
from coinpp_xr.kept_cells import not_coded, put_kept
from coinpp_xr.parallel import map_compiled
from coinpp_xr.source_steps import SourceSteps


def items_of(batch: tuple[int, ...], selection: tuple[Any, ...]) -> set[int]:
    """Numbers of the fields that a selection of an array touches, by its axes before the cells."""
    numbers = np.arange(prod(batch)).reshape(batch)
    return set(np.atleast_1d(numbers[selection[: len(batch)]]).ravel().tolist())


class FieldReader:
    """Reads fields of a payload one by one, without its streams at first.

    Parameters
    ----------
    payload : Payload
        Of a kind that holds fields in streams, which are not looked at.
    background : Background, optional
        What fields of a pyramid may refer to.
    grid : SphereGrid, optional
        Where fields in wavelets are; and cells anywhere.

    Raises
    ------
    CorruptPayloadError
    """

    def __init__(
        self,
        payload: Payload,
        background: Background | None = None,
        grid: SphereGrid | None = None,
    ) -> None:
        if len(payload.shape) < 2 or 0 in payload.shape or not is_of_numbers(payload):
            raise CorruptPayloadError("payload's header contradicts itself")
        batch, self._shape = payload.shape[:-2], payload.shape[-2:]
        self._items, cells = prod(batch), prod(self._shape)
        few = self._items <= stream.MOST_ITEMS and are_few(self._items, cells)
        if payload.time_axis >= max(len(batch), 1) or not few:
            raise CorruptPayloadError("payload's header contradicts itself")
        self._payload = payload
        self._finish = finish_of(payload, self._items)
        self._mask = not_coded(payload)
        level_axis = level_axis_of(payload)
        everything = np.ones(self._items, np.bool_)
        sequences = Sequences.of(batch, payload.time_axis, everything, level_axis)
        if payload.kind == Kind.WAVELETS:
            assert grid is not None
            self._coded: _Pyramid | _Wavelets = _Wavelets(payload, self._mask, sequences, grid)
        else:
            self._coded = _Pyramid(payload, self._mask, sequences, self._items, background, grid)

    @property
    def units(self) -> int:
        """How many parts of the streams are decoded as a whole."""
        return len(self._coded.head.units)

    def ranges(self, items: set[int], known: Container[int] = ()) -> list[tuple[int, int]]:
        """Which bytes of the streams some fields need: starts and ends."""
        return self._coded.head.ranges(items, known)

    def decode(
        self,
        read: Callable[[int, int], bytes],
        items: set[int] | None = None,
        **memory: Any,
    ) -> npt.NDArray[Any]:
        """All fields, shape (items, n_lat, n_lon); those that are not wanted hold anything.

        Parameters
        ----------
        read : callable
            (start, end) → those bytes of the streams.
        items : set of int, optional
            Numbers of the fields that are wanted, else all.
        **memory
            What is ``known`` and how to ``keep`` more of it, see
            :meth:`coinpp_xr.coding.pyramid.stream.Head.decode`.

        Raises
        ------
        CorruptPayloadError
        """
        dtype = self._payload.dtype
        values = np.zeros((self._items, *self._shape), dtype)
        with np.errstate(all="ignore"):  # numbers of damaged payloads may be anything
            for item in self._coded.fill(values, read, items, **memory):
                self._finish.apply(values[item], item)
        put_kept(self._payload, self._mask, values.reshape(self._items, -1))
        return values


class _Pyramid:
    """Fields of a pyramid."""

    def __init__(
        self,
        payload: Payload,
        mask: npt.NDArray[np.bool_] | None,
        sequences: Sequences,
        items: int,
        background: Background | None,
        grid: SphereGrid | None,
    ) -> None:
        shape = payload.shape[-2], payload.shape[-1]
        self._steps = steps_of(payload, items)
        self.head, self._valid = bounded.read_head(
            payload.section(Tag.PYRAMID), mask, sequences, shape, background, grid
        )

    def fill(
        self,
        values: npt.NDArray[Any],
        read: Callable[[int, int], bytes],
        items: set[int] | None,
        **memory: Any,
    ) -> Iterator[int]:
        """Fields that are wanted into their places; their numbers."""
        with self.head.walk.expert.undisturbed():
            for item, field in self.head.decode(read, self._valid, items, **memory):
                self._fill(values[item], field, item)
                yield item

    def _fill(self, values: npt.NDArray[Any], field: npt.NDArray[np.int32], item: int) -> None:
        """Values of a field, block by block."""
        rows = max(1, CELLS_AT_ONCE // values.shape[1])
        steps = None if self._steps is None else self._steps.of(item)

        def fill(start: int) -> None:
            part = slice(start, start + rows)
            if steps is not None:
                whole = (field[part] >> UNIT_BITS).astype(np.int64)
                values[part] = steps.values(whole, values.dtype)
                return
            numbers = self.head.lattice.of_fractions(field[part], PARTS)
            values[part] = round_to(numbers, values.dtype)

        map_compiled(fill, range(0, len(values), rows))


class _Wavelets:
    """Fields in wavelets."""

    def __init__(
        self,
        payload: Payload,
        mask: npt.NDArray[np.bool_] | None,
        sequences: Sequences,
        grid: SphereGrid,
    ) -> None:
        present = np.ones(sequences.order.size, np.bool_)
        if mask is not None:
            present = ~np.asarray(mask.all(axis=1))
        if (
            Tag.STEPS in payload.sections
            or min(grid.shape) < wavelets.SHORTEST_SIDE
            or not present.any()
        ):
            raise CorruptPayloadError("payload's header contradicts itself")
        head = payload.section(Tag.WAVELETS)
        self.head = wavelets.Head(head, present, sequences.order, grid, payload.nbytes)

    def fill(
        self,
        values: npt.NDArray[Any],
        read: Callable[[int, int], bytes],
        items: set[int] | None,
        **memory: Any,
    ) -> Iterator[int]:
        """Fields that are wanted into their places; their numbers."""
        for item, field in self.head.decode(read, items, **memory):
            values[item] = round_to(field, values.dtype)
            yield item


def decoded_whole(
    payload: Payload,
    background: Background | None = None,
    grid: SphereGrid | None = None,
    wanted: set[int] | None = None,
) -> npt.NDArray[Any]:
    """All fields of a payload, or those that are wanted, shape (items, n_lat, n_lon).

    Raises
    ------
    CorruptPayloadError
    """
    streams = payload.sections.get(Tag.STREAMS, b"")
    reader = FieldReader(payload, background, grid)
    return reader.decode(lambda start, end: streams[start:end], wanted)


def level_axis_of(payload: Payload) -> int | None:
    """The second axis along which fields refer to each other; None where there is none.

    Raises
    ------
    CorruptPayloadError
    """
    section = payload.sections.get(Tag.LEVEL_AXIS)
    if section is None:
        return None
    if len(section) != 1 or section[0] >= len(payload.shape) - 2:
        raise CorruptPayloadError("payload's header contradicts itself")
    if section[0] == payload.time_axis:
        raise CorruptPayloadError("payload's header contradicts itself")
    return section[0]


def is_of_numbers(payload: Payload) -> bool:
    """Whether a payload of fields says that they are of a type that it can hold."""
    whole = Tag.STEPS in payload.sections and payload.dtype.itemsize < 8
    return payload.dtype.kind in ("fiu" if whole else "f")


def steps_of(payload: Payload, items: int) -> SourceSteps | None:
    if Tag.STEPS not in payload.sections:
        return None
    return SourceSteps.unpack(payload.section(Tag.STEPS), items)


def finish_of(payload: Payload, items: int) -> Finish:
    if Tag.FINISH not in payload.sections:
        return Finish()
    on_lattice = payload.kind == Kind.DIGITS and payload.dtype.kind == "f"
    exact = Tag.MANTISSAS in payload.sections or (Tag.STEPS in payload.sections and not on_lattice)
    if exact:
        raise CorruptPayloadError("payload's header contradicts itself")  # nothing was lost
    return Finish.unpack(payload.section(Tag.FINISH), payload.dtype, items)
