"""Real spherical harmonics at any points of the sphere."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt, sqrt

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.elementary import cosine, sine
from coinpp_xr.products import Operand, right, same_product, unit_of

Float64 = npt.NDArray[np.float64]

# Grids are used over and over; what is larger than this is evaluated anew, block by block.
_CACHED_VALUES = 1 << 23


def harmonics(
    points: npt.NDArray[np.float32], degree: int, *, kept: bool = True
) -> npt.NDArray[np.float32]:
    """Real spherical harmonics up to a degree, with mean square one over the sphere.

    Parameters
    ----------
    points : float32 array, shape (points, 3)
        Unit vectors.
    degree : int
    kept : bool
        Whether to keep them for the next time, if they are few. What is kept makes other things
        be forgotten: not worth it where what is made of them is kept.

    Returns
    -------
    float32 array, shape (points, (degree + 1)²)
        Degree l and order m stand in column l² + l + m; negative m are the sines. Truncation to
        a lower degree keeps the first columns.
    """
    if kept and len(points) * (degree + 1) ** 2 <= _CACHED_VALUES:
        return _cached(np.ascontiguousarray(points).tobytes(), degree)
    return _evaluate(points, degree)


@remembered()
def _cached(points: bytes, degree: int) -> npt.NDArray[np.float32]:
    values = _evaluate(np.frombuffer(points, np.float32).reshape(-1, 3), degree)
    values.flags.writeable = False
    return values


def _evaluate(points: npt.NDArray[np.float32], degree: int) -> npt.NDArray[np.float32]:
    x, y, z = points.astype(np.float64).T
    longitude = np.arctan2(y, x)
    values = np.empty(((degree + 1) ** 2, len(points)), np.float32)
    for m, column in enumerate(legendre(np.clip(z, -1, 1), degree)):
        east, north = np.cos(m * longitude), np.sin(m * longitude)
        for l, polynomial in enumerate(column, start=m):  # noqa: E741
            values[l * l + l + m] = polynomial * east
            if m > 0:
                values[l * l + l - m] = polynomial * north
    return np.ascontiguousarray(values.T)


def synthesise(
    coefficients: npt.NDArray[np.float32], latitude: Float64, longitude: Float64
) -> Float64:
    """Sums of harmonics on a grid, the same on every machine.

    Along latitude first, then along longitude.

    Parameters
    ----------
    coefficients : float32 array, shape (items, (degree + 1)²)
        In the order of :func:`harmonics`.
    latitude, longitude : float64 array
        In degrees.

    Returns
    -------
    float64 array, shape (items, n_lat, n_lon)
    """
    degree = isqrt(coefficients.shape[1]) - 1
    columns, starts = _by_order(degree)
    # Rows of an operand for every order, all of them at once.
    numbers = coefficients[:, columns].astype(np.float64)
    unit = unit_of(np.maximum.reduceat(np.abs(numbers), starts, axis=1))
    lengths = np.diff(starts, append=len(columns))
    numbers = np.rint(numbers * np.repeat(1 / unit, lengths, axis=1))
    functions = _legendre_columns(latitude.tobytes(), degree)
    waves = np.empty((2 * degree + 1, len(coefficients), len(latitude)), np.float32)
    for k, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        own, rows = functions[(k + 1) // 2], numbers[:, start : start + length]
        waves[k] = same_product(Operand(rows, None, unit[:, k, None]), own)
    # Transposed, not moved: one product of two matrices.
    found = same_product(waves.reshape(len(waves), -1).T, _waves(longitude.tobytes(), degree))
    return found.reshape(*waves.shape[1:], len(longitude))


@remembered()
def _by_order(degree: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Columns of :func:`harmonics`, those of m = 0, -1, 1, -2, … together; where each starts."""
    orders = [0, *(sign * m for m in range(1, degree + 1) for sign in (-1, 1))]
    columns = [np.array([n * n + n + m for n in range(abs(m), degree + 1)]) for m in orders]
    return np.concatenate(columns), np.cumsum([0, *map(len, columns[:-1])])


@remembered()
def _waves(longitude: bytes, degree: int) -> Operand:
    """1, sin φ, cos φ, sin 2φ, …, shape (2 · degree + 1, n_lon)."""
    phase = np.arange(degree + 1)[:, None] * np.deg2rad(np.frombuffer(longitude))
    shapes = np.empty((2 * degree + 1, phase.shape[1]), np.float32)
    shapes[0::2], shapes[1::2] = cosine(phase), sine(phase[1:])
    return right(shapes)


@remembered()
def _legendre_columns(latitude: bytes, degree: int) -> list[Operand]:
    height = sine(np.deg2rad(np.frombuffer(latitude)))
    return [right(np.array(column, np.float32)) for column in legendre(height, degree)]


def legendre(height: Float64, degree: int, most: int | None = None) -> Iterator[list[Float64]]:
    """Normalised associated Legendre functions of the height, sin(latitude).

    The mean over the sphere of the square of ``P_l^m cos(mφ)`` is one. Stable upward recursion
    in l (Holmes and Featherstone 2002).

    Parameters
    ----------
    height : float64 array
    degree : int
    most : int, optional
        So many functions of each order, not all of them.

    Yields
    ------
    list over l = m .. degree of float64 arrays, shape (len(height),)
        For m = 0 .. degree.
    """
    across = np.sqrt(np.maximum(1 - height * height, 0))
    diagonal = np.ones_like(height)
    for m in range(degree + 1):
        if m > 0:
            diagonal = diagonal * across * sqrt((2 * m + 1) / (2 * m) * (2 if m == 1 else 1))
        column = [diagonal]
        last = degree if most is None else min(degree, m + most - 1)
        if last > m:
            column.append(height * sqrt(2 * m + 3) * diagonal)
        for l in range(m + 2, last + 1):  # noqa: E741
            forward = sqrt((4 * l * l - 1) / (l * l - m * m))
            back = sqrt((2 * l + 1) * (l - 1 + m) * (l - 1 - m) / ((2 * l - 3) * (l * l - m * m)))
            column.append(forward * height * column[-1] - back * column[-2])
        yield column
