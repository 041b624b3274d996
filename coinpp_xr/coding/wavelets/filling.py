"""What is put where nothing is known, so that a wavelet has little to tell of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def filled(field: Float64, valid: npt.NDArray[np.bool_]) -> Float64:
    """A field with gaps closed by means of what is around, from coarse to fine.

    Parameters
    ----------
    field : float64 array, shape (rows, columns)
        Anything where not valid.
    valid : bool array of the same shape
        Somewhere true.
    """
    if valid.all():
        return field
    sums, counts = (_pairwise(x) for x in (np.where(valid, field, 0), valid.astype(np.float64)))
    coarse = filled(sums / np.maximum(counts, 1e-300), counts > 0)
    return np.where(valid, field, _between(coarse, field.shape))


def _pairwise(values: Float64) -> Float64:
    """Sums of two rows and two columns."""
    rows, columns = values.shape
    even = np.pad(values, ((0, rows % 2), (0, columns % 2)))
    return np.asarray(even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2])


def _between(coarse: Float64, shape: tuple[int, ...]) -> Float64:
    """Linear interpolation between centres of twos."""
    for axis in (0, 1):
        padded = np.pad(coarse, [(1, 1) if k == axis else (0, 0) for k in (0, 1)], mode="edge")

        def part(start: int, padded: Any = padded, axis: int = axis) -> Any:
            count = padded.shape[axis] - 2
            return np.take(padded, np.arange(start, start + count), axis)

        pair = [0.25 * part(0) + 0.75 * part(1), 0.75 * part(1) + 0.25 * part(2)]
        coarse = np.stack(pair, axis + 1).reshape(
            [2 * n if k == axis else n for k, n in enumerate(coarse.shape)]
        )
    return coarse[: shape[0], : shape[1]]
