"""Weights of cells: of an average over them, and rounded, in few bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.coding.pyramid.single_field import pack_field, unpack_field
from coinpp_xr.coding.pyramid.stream import MOST_CELLS
from coinpp_xr.coordinates import Plane, area_weights
from coinpp_xr.errors import shown

Float64 = npt.NDArray[np.float64]

# Binary logarithms are kept within this, half a per cent; the least of them, a millionth.
_ERROR = 1 / 128
_LEAST = -20.0


@dataclass(frozen=True, eq=False)
class CellWeights:
    """Weights of the cells of a field.

    Parameters
    ----------
    of_rows : float64 array, shape (rows,)
        Of every cell of a row; one row may be all of a field, or a single cell.
    axes : int
        How many of the last axes of an array hold the cells of a field.
    """

    of_rows: Float64
    axes: int

    @classmethod
    def of_latitudes(cls, latitude: npt.ArrayLike, n_lon: int) -> CellWeights:
        """cos(latitude), as of fields of shape (n_lat, n_lon)."""
        return cls(area_weights(latitude, n_lon)[:, 0], 2)

    def in_rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Fields (…, cells in any shape) as (fields, rows, cells of a row)."""
        fields = values.shape[: values.ndim - self.axes]
        return values.reshape(int(np.prod(fields, dtype=np.int64)), len(self.of_rows), -1)

    def of_cells(self, shape: tuple[int, ...]) -> Float64:
        """Of every cell of a field of that shape."""
        cells = int(np.prod(shape, dtype=np.int64))
        return np.repeat(self.of_rows, cells // len(self.of_rows)).reshape(shape)


def pack(weights: npt.ArrayLike) -> dict[str, Any]:
    """Weights to half a per cent as plain JSON: their shape, and as base85 one field of a pyramid.

    Parameters
    ----------
    weights : array_like, of one axis or two
        What is not finite or not above zero weighs next to nothing, a millionth of the largest.

    Returns
    -------
    dict
        The field is the binary logarithms of the weights.

    Raises
    ------
    ValueError
        If no weight is above zero, or there are too many.
    """
    values = np.asarray(weights, np.float64)
    if values.ndim not in (1, 2) or not 0 < values.size <= MOST_CELLS:
        raise ValueError(
            f"weights must have one axis or two and at most {MOST_CELLS:,} values, got shape "
            f"{values.shape}"
        )
    shape = values.shape
    return {"shape": list(shape), "packed": _packed(values.tobytes(), shape)}


@remembered(lambda text, *_: len(text))
def _packed(data: bytes, shape: tuple[int, ...]) -> str:
    weights = np.frombuffer(data).reshape(shape)
    known = np.isfinite(weights) & (weights > 0)
    if not known.any():
        raise ValueError("weights must be above zero somewhere")
    doublings = np.log2(np.where(known, weights, 1.0) / weights[known].max())
    doublings = np.where(known, np.maximum(doublings, _LEAST), _LEAST)
    rows, columns = _as_rows(shape)
    packed = pack_field(doublings.reshape(rows, columns), Plane((rows, columns)), _ERROR, "default")
    return base64.b85encode(packed).decode("ascii")


def unpack(given: Any) -> Float64:
    """Weights of :func:`pack`, or of plain numbers.

    Raises
    ------
    ValueError
    """
    if not isinstance(given, Mapping):
        return unpack(pack(given))
    try:
        if sorted(given) != ["packed", "shape"]:
            raise ValueError(f"its entries are {shown(list(given))}")
        shape, text = tuple(given["shape"]), given["packed"]
        whole = all(isinstance(n, int) and 0 < n <= MOST_CELLS for n in shape)
        if not whole or len(shape) not in (1, 2) or not isinstance(text, str):
            raise ValueError(f"it claims a shape {shown(shape)}")
        if prod(shape) > MOST_CELLS:
            raise ValueError(f"it claims {prod(shape):,} cells")
        return _unpacked(text, shape)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"weights in a codec's configuration are damaged: {error}") from error


@remembered()
def _unpacked(text: str, shape: tuple[int, ...]) -> Float64:
    doublings = unpack_field(base64.b85decode(text), _as_rows(shape))
    weights = np.exp2(np.clip(doublings, 2 * _LEAST, 1)).reshape(shape)
    weights.flags.writeable = False
    return weights


def _as_rows(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (1, shape[0])
