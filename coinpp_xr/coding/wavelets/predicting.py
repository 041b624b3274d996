"""What references predict of an array, and what rounding leaves of the rest: the encoder's side."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import decisions
from coinpp_xr.coding.wavelets import rounding
from coinpp_xr.coding.wavelets.arrays import Arrays
from coinpp_xr.coding.wavelets.encoding import Member
from coinpp_xr.coding.wavelets.field_coding import (
    Coefficients,
    Numbers,
    Surroundings,
    bands_of,
    predicted,
    room_for,
)
from coinpp_xr.coding.wavelets.parameters import LARGEST_WEIGHT, WEIGHT_PARTS, Told
from coinpp_xr.coding.wavelets.subbands import Subband
from coinpp_xr.parallel import map_compiled

Float64 = npt.NDArray[np.float64]


class Lookup(Protocol):
    """Arrays that others refer to."""

    def of(self, items: tuple[int, ...]) -> list[Coefficients]: ...


def left(own: list[Float64], others: list[Coefficients], told: list[Told]) -> list[Float64]:
    """Coefficients of an array, less what others predict."""
    if not others or not len(told[0].weights):
        return own
    return [values - predicted(told[k], others, k) for k, values in enumerate(own)]


def fitted_weights(
    arrays: Arrays, members: list[Member], referred: Lookup
) -> list[npt.NDArray[np.int64]]:
    """How subbands are predicted from references, by least squares over all members."""
    count = 0 if arrays.plan.along_time else len(members[0][1])
    subbands = len(arrays.subbands)
    if not count:
        return [np.zeros(0, np.int64)] * subbands
    products, sides = np.zeros((subbands, count, count)), np.zeros((subbands, count))
    for item, references in members:
        others = referred.of(references)
        for k, own in enumerate(arrays.of(item)):
            before = [field.values[k] for field in others]
            products[k] += [[float((a * b).sum()) for b in before] for a in before]
            sides[k] += [float((a * own).sum()) for a in before]
    ridge = 1e-6 * np.trace(products, axis1=1, axis2=2)[:, None, None] + 1e-300
    solutions = np.linalg.solve(products + ridge * np.eye(count), sides[:, :, None])[:, :, 0]
    most = LARGEST_WEIGHT / WEIGHT_PARTS
    parts = np.rint(np.clip(np.nan_to_num(solutions), -most, most) * WEIGHT_PARTS)
    return list(parts.astype(np.int64))


def plainly_rounded(
    values: list[Float64], step: float, subbands: tuple[Subband, ...], bands: int
) -> list[Numbers]:
    def plain(band: int) -> Numbers:
        numbers = room_for(subbands, band, bands)
        for own, target in zip(values, numbers, strict=True):
            rounding.round_plainly(own[bands_of(len(own), bands)[band]], step, target)
        return numbers

    return map_compiled(plain, range(bands))


def counts_of(
    numbers: list[Numbers],
    others: list[list[Numbers]],
    subbands: tuple[Subband, ...],
    looked_at: int,
) -> Float64:
    """How often magnitudes occur where as much is expected, see :func:`rounding.count`.

    Parameters
    ----------
    numbers, others : list
        Of an array, and of those that it refers to.
    looked_at : int
        About so many numbers of each subband.
    """
    counts = np.zeros((decisions.CLASSES, rounding.KINDS + 1))
    for band, own in enumerate(numbers):
        before = [array[band] for array in others]
        for k, array in enumerate(own):
            every = max(1, array.size // looked_at)
            part = np.zeros_like(counts)
            rounding.count(
                rounding.USUAL, array, *Surroundings.of(k, subbands, own, before),
                decisions.tables().size_class, every, part,
            )  # fmt: skip
            counts += every * part
    return counts
