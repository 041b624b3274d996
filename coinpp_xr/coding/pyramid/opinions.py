"""What a network expects of all points of a pass, before any of them is coded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import expert
from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.decisions import tables
from coinpp_xr.coding.pyramid.expert_units import (
    ACTIVATION,
    LARGEST_ACTIVATION,
    MOST_SEEN,
    N_INPUTS,
    N_OF_PASS,
    N_VARYING,
    PAST,
    REFERRED,
)
from coinpp_xr.coding.pyramid.points import Points
from coinpp_xr.coding.pyramid.prediction import Rows
from coinpp_xr.coding.pyramid.references import N_FEATURES
from coinpp_xr.parallel import thread_count

Float32 = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]

# Points that a network is asked about at once: what they need fits into a processor's cache.
_AT_ONCE = 4096
NO_OPINIONS = np.zeros((0, 0, 0), np.int64)


class Block(NamedTuple):
    """Rows of some fields; ``top`` is the one that must not look at the row above."""

    items: slice
    top: int
    rows: slice

    def size(self, columns: int) -> int:
        fields, rows = (some.stop - some.start for some in (self.items, self.rows))
        return int(fields * rows * columns)


def blocks(points: Points, n_bands: int) -> Iterator[Block]:
    """All rows of all fields of a pass, in blocks of about so many points."""
    items, _, columns = points.shape
    for top, end in points.bands(n_bands):
        rows = min(max(1, _AT_ONCE // columns), end - top)
        if not rows:
            continue
        # Fields of few points are asked about together.
        fields = max(1, _AT_ONCE // (rows * columns)) if rows == end - top else 1
        for item in range(0, items, fields):
            for first in range(top, end, rows):
                some = slice(item, min(item + fields, items))
                yield Block(some, top, slice(first, min(first + rows, end)))


def table(room: Float32, rows: int, columns: int) -> Float32:
    """The beginning of an array as one of two axes, without gaps."""
    return room[: rows * columns].reshape(rows, columns)


def varying_count(references: int) -> int:
    """Inputs that differ from point to point."""
    return REFERRED + N_FEATURES * min(references, MOST_SEEN) if references else PAST


class Asked:
    """Room for what a network is told of the points of a pass, block by block.

    Attributes
    ----------
    inputs : float32 array, shape (inputs that vary, points)
    centres, sizes : int64 arrays, shape (points,)
        From where it counts, in 1/64 of a step, and in what.
    """

    def __init__(self, points: Points, parameters: PassParameters, most: int) -> None:
        columns = points.shape[2]
        self._points, self._parameters = points, parameters
        self._rows, self._room = Rows.of(columns, points.references.number), expert.Room.of(columns)
        self._count = varying_count(points.references.number)
        self._inputs = np.empty(self._count * most, np.float32)
        self._whole = np.empty((2, most), np.int64)
        self.inputs = table(self._inputs, self._count, most)
        self.centres, self.sizes = self._whole

    def look(self, block: Block) -> None:
        points, parameters = self._points, self._parameters
        count = block.size(points.shape[2])
        self.inputs = table(self._inputs, self._count, count)
        self.centres, self.sizes = self._whole[:, :count]
        items, rows = block.items, block.rows
        expert.look(
            points.pool, points.places, points.references, points.limits, parameters.weights,
            parameters.coefficients, items.start, items.stop, block.top, rows.start, rows.stop,
            points.shape[1], self._rows, self._room, self.inputs, self.centres, self.sizes,
        )  # fmt: skip


def of_pass(points: Points) -> Float32:
    """Inputs that all points of a pass have in common, shape (6,)."""
    row, column, spacing = points.which
    inputs = np.zeros(N_OF_PASS, np.float32)
    inputs[0 if row == column else 1 if row < column else 2] = ACTIVATION
    if points.references.number:
        inputs[2 + min(points.references.number, MOST_SEEN)] = ACTIVATION
    inputs[5] = min(64 * (spacing.bit_length() - 1), LARGEST_ACTIVATION)
    return inputs


def opinions(
    points: Points, parameters: PassParameters, n_bands: int, quick: int
) -> tuple[Int, Int]:
    """Centres and inverse scales of the distributions of all points, see :mod:`expert`.

    Returns
    -------
    two int64 arrays, shape (items, rows, columns)
        Of no items where there is no network; scales are zero where it is not asked.
    """
    references, columns = points.references.number, points.shape[2]
    network = points.expert.network(references)
    if not len(network.first):
        return NO_OPINIONS, NO_OPINIONS
    # Sizes of errors that are coded by one context, which needs no other opinion.
    sure = int(np.searchsorted(tables().size_class, quick))
    centres, scales = np.empty((2, *points.shape), np.int64)
    varying = np.ascontiguousarray(network.first[:, : varying_count(references)])
    # What is the same in all of a pass is added up once.
    bias = network.first_bias + network.first[:, N_VARYING:N_INPUTS] @ of_pass(points)
    widths = varying.shape[1], len(varying), len(network.second), len(network.last)
    all_blocks = list(blocks(points, n_bands))
    most = max(block.size(columns) for block in all_blocks)
    threads = min(thread_count(), len(all_blocks))

    def work(number: int) -> None:
        asked, chosen = Asked(points, parameters, most), np.empty(most, np.int64)
        found = np.empty(most, np.int64)
        rooms = [np.empty(width * most, np.float32) for width in widths]
        for block in all_blocks[number::threads]:
            asked.look(block)
            count = expert.choose(asked.sizes, sure, chosen)
            told, hidden, second, out = (
                table(room, width, count) for room, width in zip(rooms, widths, strict=True)
            )
            if count == len(asked.sizes):
                told = asked.inputs
            else:
                expert.take(asked.inputs, chosen, told)
            np.matmul(varying, told, out=hidden)
            expert.activate(hidden, bias)
            np.matmul(network.second, hidden, out=second)
            expert.activate(second, network.second_bias)
            np.matmul(network.last, second, out=out)
            own = found[: len(asked.sizes)]
            expert.conclude(network, out, chosen, asked.centres, asked.sizes, own)
            where = block.items, block.rows
            centres[where] = asked.centres.reshape(centres[where].shape)
            scales[where] = own.reshape(centres[where].shape)

    points.map(work, threads)
    return centres, scales
