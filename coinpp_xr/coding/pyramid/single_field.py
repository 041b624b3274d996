"""One field within an error ↔ bytes, for what travels with models and configurations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.stream import PARTS
from coinpp_xr.coordinates import Plane, SphereGrid
from coinpp_xr.fields import PlaneFields, Sequences
from coinpp_xr.lattice import Bound

Float64 = npt.NDArray[np.float64]

_LENGTH_BYTES = 4
_ALONE = Sequences(np.zeros((1, 1), np.intp))


def pack_field(
    field: Float64, grid: SphereGrid | Plane, error: float, effort: str = "best"
) -> bytes:
    """A field as one of a pyramid.

    Parameters
    ----------
    field : float64 array, shape (rows, columns)
        NaN where there is nothing.
    grid : SphereGrid or Plane
    error : float
    effort : str

    Raises
    ------
    ValueError
        If the error is near the precision of single numbers.
    """
    table = field.reshape(1, -1)
    valid = np.isfinite(table)
    fields = PlaneFields(np.where(valid, table, 0), valid, np.dtype("f4"), grid)
    coded = bounded.encode(fields, Bound(error), _ALONE, effort)
    if coded is None or coded.kept.any():
        raise ValueError(f"a field cannot be kept within {error:g}")
    return len(coded.head).to_bytes(_LENGTH_BYTES, "little") + coded.head + coded.streams


def unpack_field(
    data: bytes, shape: tuple[int, int], missing: npt.NDArray[np.bool_] | None = None
) -> Float64:
    """The field of :func:`pack_field`, shape (rows, columns).

    Parameters
    ----------
    data : bytes
    shape : (rows, columns)
    missing : bool array of that shape, optional
        Where the field had nothing; what comes back there suits the rest.

    Raises
    ------
    CorruptPayloadError
    """
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    mask = None if missing is None else missing.reshape(1, -1)
    head, valid = bounded.read_head(data[_LENGTH_BYTES:start], mask, _ALONE, shape)
    streams = data[start:]
    with np.errstate(all="ignore"):  # numbers of damaged fields may be anything
        fields = dict(head.decode(lambda first, last: streams[first:last], valid))
        return head.lattice.of_fractions(fields[0], PARTS)
