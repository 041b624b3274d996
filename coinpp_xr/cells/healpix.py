"""HEALPix: twelve faces of nside × nside pixels (Górski et al. 2005, doi:10.1086/427976)."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

FACES = 12
LARGEST_NSIDE = 1 << 13
# Of every face: the ring of its southern corner in units of nside, and where its centre lies along
# longitude, in eighths of a turn.
_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_EIGHTH = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


def nside_of(cells: int) -> int | None:
    """The nside of a whole sphere of so many pixels; None where there is none."""
    nside = isqrt(cells // FACES)
    return nside if nside > 0 and FACES * nside**2 == cells and nside <= LARGEST_NSIDE else None


class Pixels(NamedTuple):
    """Where pixels lie: face, steps towards the northeast and towards the northwest."""

    face: Int
    x: Int
    y: Int


def nested(nside: int) -> Pixels:
    """Of all pixels in nested order; nside is a power of two."""
    number = np.arange(nside * nside)
    x, y = np.zeros_like(number), np.zeros_like(number)
    for bit in range(nside.bit_length() - 1):
        x |= ((number >> (2 * bit)) & 1) << bit
        y |= ((number >> (2 * bit + 1)) & 1) << bit
    return Pixels(np.repeat(np.arange(FACES), nside**2), np.tile(x, FACES), np.tile(y, FACES))


def ring(nside: int) -> Pixels:
    """Of all pixels in ring order."""
    side = np.arange(nside)
    face, y, x = (a.ravel() for a in np.meshgrid(np.arange(FACES), side, side, indexing="ij"))
    pixels = Pixels(face, x, y)
    jr, in_ring, length, _ = _rings(pixels, nside)
    starts = np.concatenate([[0], np.cumsum(_ring_lengths(nside))])
    number = starts[jr - 1] + (in_ring - 1) % length
    order = np.empty(len(number), np.int64)
    order[number] = np.arange(len(number))
    return Pixels(*(part[order] for part in pixels))


def _ring_lengths(nside: int) -> Int:
    jr = np.arange(1, 4 * nside)
    return 4 * np.minimum(np.minimum(jr, 4 * nside - jr), nside)


def _rings(pixels: Pixels, nside: int) -> tuple[Int, Int, Int, Int]:
    """Ring from the north, place in it from 1, pixels of it, whether it is shifted by none."""
    face, x, y = pixels
    jr = _RING[face] * nside - x - y - 1
    quarter = np.minimum(np.minimum(jr, 4 * nside - jr), nside)
    capped = quarter < nside
    unshifted = np.where(capped, 0, (jr - nside) & 1)
    in_ring = (_EIGHTH[face] * quarter + x - y + 1 + unshifted) // 2
    return jr, in_ring, 4 * quarter, unshifted


def centres(pixels: Pixels, nside: int) -> tuple[Float64, Float64]:
    """Latitude and longitude of pixel centres, degrees."""
    jr, in_ring, length, unshifted = _rings(pixels, nside)
    quarter = length / 4
    cap = 1 - quarter**2 / (3 * nside**2)
    band = (2 * nside - jr) * 2 / (3 * nside)
    z = np.where(jr < nside, cap, np.where(jr > 3 * nside, -cap, band))
    latitude = np.rad2deg(np.arcsin(z))
    longitude = (in_ring - (unshifted + 1) / 2) * 360 / length
    return latitude, longitude % 360


def places(pixels: Pixels, nside: int) -> tuple[tuple[int, int], Int]:
    """A raster of all faces, and where in it pixels are.

    A southern face, the equatorial one northeast of it and the northern one northeast of that are
    side by side, four times one above the other: only between those four are there seams.
    """
    face, x, y = pixels
    row = np.where(face < 8, face % 4, (face - 7) % 4)
    column = np.where(face < 4, 2, np.where(face < 8, 1, 0))
    place = ((row * nside + nside - 1 - y) * 3 + column) * nside + x
    return (4 * nside, 3 * nside), place
