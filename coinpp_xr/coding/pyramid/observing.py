"""What a network would have been told of points that are coded: what it learns from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.expert_units import N_INPUTS, N_VARYING
from coinpp_xr.coding.pyramid.opinions import Asked, blocks, of_pass
from coinpp_xr.coding.pyramid.points import Points


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
