"""What is to be seen of points that are coded: what a network learns from, and where bits go."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.expert_units import N_INPUTS, N_VARYING
from coinpp_xr.coding.pyramid.limits import UNIT
from coinpp_xr.coding.pyramid.opinions import Asked, blocks, of_pass
from coinpp_xr.coding.pyramid.points import Points
from coinpp_xr.fields import Fields
from coinpp_xr.lattice import Bound

# Passes of fewer points are not looked at.
_FEWEST = 100


class Observations(NamedTuple):
    """Points of a pass.

    Parameters
    ----------
    inputs : int16 array, shape (points, inputs)
        Of a network.
    offsets : float32 array, shape (points,)
        Where values are, from where the network counts, in 1/64 of a step.
    sizes : float32 array, shape (points,)
        What errors were expected to be.
    """

    inputs: npt.NDArray[np.int16]
    offsets: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls, points: Points, parameters: PassParameters, n_bands: int, most: int
    ) -> Observations:
        """About so many points of a pass that an encoder has just put in its place."""
        row, column, spacing = points.which
        every, common = max(1, points.size // most), of_pass(points)
        known, found = points.known, []
        all_blocks = list(blocks(points, n_bands))
        asked = Asked(points, parameters, max(b.size(points.shape[2]) for b in all_blocks))
        assert known.target is not None
        target = known.target[:, row::spacing, column::spacing]
        valid = known.valid[:, row::spacing, column::spacing] if len(known.valid) else None
        for number, block in enumerate(all_blocks):
            asked.look(block)
            rows = block.items, block.rows
            # Other columns in every block, by the golden ratio.
            some = slice((number * 40503 >> 4) % every, None, every)
            offsets = (target[rows].ravel() - asked.centres)[some]
            counts = np.ones(len(offsets), np.bool_)
            if valid is not None:
                counts = valid[rows].ravel()[some]
            varying = asked.inputs[:, some].T[counts]
            inputs = np.zeros((len(varying), N_INPUTS), np.int16)
            inputs[:, : varying.shape[1]] = varying
            inputs[:, N_VARYING:] = common
            found.append((inputs, offsets[counts], asked.sizes[some][counts]))
        inputs, offsets, sizes = (np.concatenate(some) for some in zip(*found, strict=True))
        return cls(inputs, offsets.astype(np.float32), sizes.astype(np.float32))


def observe(
    fields: Fields,
    bound: Bound,
    most_of_pass: int,
    background: npt.NDArray[np.float64] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """What a network would have been told while fields are coded at the usual effort.

    Parameters
    ----------
    fields : Fields
    bound : Bound
    most_of_pass : int
        About how many points of a pass are kept.
    background : float64 array, shape (n_lat, n_lon), optional

    Returns
    -------
    dict
        ``inputs``, ``offsets`` and ``sizes`` of :class:`Observations`, and ``counts``: how many
        points each of them stands for.
    """
    seen: list[tuple[npt.NDArray[Any], ...]] = []

    def look(points: Points, parameters: PassParameters, bands: int) -> None:
        if points.size >= _FEWEST:
            found = Observations.of(points, parameters, bands, most_of_pass)
            count = points.size / max(len(found.inputs), 1)
            seen.append((*found, np.full(len(found.inputs), count, np.float32)))

    bounded.encode(fields, bound, fields.sequences, "default", observe=look, background=background)
    names = ("inputs", "offsets", "sizes", "counts")
    return {n: np.concatenate(some) for n, some in zip(names, zip(*seen, strict=True), strict=True)}


def cell_bits(fields: Fields, bound: Bound) -> npt.NDArray[np.float64] | None:
    """About how many bits every cell takes at the usual effort.

    What its step takes if errors are distributed as widely as is expected at its place; all of
    it scaled to the true length of the streams.

    Returns
    -------
    float64 array, shape (items, n_lat, n_lon), or None
        None where the pyramid is not made for the bound.
    """
    bits = np.zeros((len(fields.values), *fields.grid.shape))

    def look(points: Points, parameters: PassParameters, bands: int) -> None:
        row, column, spacing = points.which
        columns, found = points.shape[2], bits[:, row::spacing, column::spacing]
        all_blocks = list(blocks(points, bands))
        asked = Asked(points, parameters, max(block.size(columns) for block in all_blocks))
        assert points.known.target is not None
        target = points.known.target[:, row::spacing, column::spacing]
        for block in all_blocks:
            asked.look(block)
            where = block.items, block.rows
            scales = (asked.sizes / (2 * UNIT) + 1e-3).reshape(found[where].shape)
            offsets = target[where] - asked.centres.reshape(found[where].shape)
            steps = np.abs(np.rint(offsets / UNIT))
            # Of a logistic distribution, from half a step before to half a step behind.
            start, width = (steps - 0.5) / scales, 1 / scales
            found[where] = np.logaddexp(0, start) + np.logaddexp(0, -start - width)
            found[where] -= np.log(-np.expm1(-width))

    coded = bounded.encode(fields, bound, fields.sequences, "default", observe=look)
    if coded is None:
        return None
    bits[~fields.valid.reshape(bits.shape)] = 0
    return bits * (8 * len(coded.streams) / max(float(bits.sum()), 1e-300))
