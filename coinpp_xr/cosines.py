"""Cosines in a box at any of its points: for patches what harmonics are for globes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.elementary import cosine
from coinpp_xr.products import same_product

Float32 = npt.NDArray[np.float32]

# Combining the places of all axes pays while they make at most so many times the points.
_MOST_COMBINED = 8


def synthesise(coefficients: Float32, points: Float32, box: BoxGrid) -> Float32:
    """Sums of products of cosines along the axes, with mean square one over the box's cells.

    The same on every machine.

    Parameters
    ----------
    coefficients : float32 array, shape (items, cells)
        By frequency along each axis, as many as the box has cells.
    points : float32 array, shape (points, axes)
        Any; points of a grid are fastest.
    box : BoxGrid

    Returns
    -------
    float32 array, shape (items, points)
    """
    axes = [np.unique(points[:, axis], return_inverse=True) for axis in range(len(box.shape))]
    if prod(len(places) for places, _ in axes) > _MOST_COMBINED * len(points):
        return same_product(coefficients, _at_points(points, box)).astype(np.float32)
    values = coefficients.reshape(len(coefficients), *box.shape)
    for n, (places, _) in zip(box.shape, axes, strict=True):
        # The axis comes last; after all of them they are in their order again.
        functions = _along(places, n, box).astype(np.float32)
        values = same_product(np.moveaxis(values, 1, -1), functions).astype(np.float32)
    where: list[Any] = [index for _, index in axes]
    found: Float32 = values[(slice(None), *where)]
    return found


def analyse(values: Float32, box: BoxGrid) -> Float32:
    """The coefficients of values on the box's own cells, shape (items, cells)."""
    coefficients = values.reshape(len(values), *box.shape)
    for n in box.shape:
        places = np.linspace(box.low, box.high, n, dtype=np.float32)
        functions = (_along(places, n, box) / n).astype(np.float32)
        coefficients = np.tensordot(coefficients, functions, axes=(1, 1))
    return coefficients.reshape(len(values), prod(box.shape))


def _at_points(points: Float32, box: BoxGrid) -> Float32:
    """Products of cosines at points that share few places, shape (cells, points)."""
    functions = np.ones((1, len(points)))
    for axis, n in enumerate(box.shape):
        along = _along(points[:, axis], n, box)
        functions = (functions[:, None] * along).reshape(-1, len(points))
    return functions.astype(np.float32)


def _along(places: Float32, n: int, box: BoxGrid) -> npt.NDArray[np.float64]:
    """Cosines along an axis, shape (n, places)."""
    cell = (places.astype(np.float64) - box.low) / (box.high - box.low) * (n - 1)
    frequency = np.arange(n)[:, None]
    size = np.where(frequency == 0, 1.0, np.sqrt(2.0))
    return np.asarray(size * cosine(np.pi / n * frequency * (cell + 0.5)))
