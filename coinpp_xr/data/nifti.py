"""NIfTI-1 and NIfTI-2 in one file: bytes ↔ the stored voxels and everything before them."""

from __future__ import annotations

import base64
import gzip
import io
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.data.sources import optional

_SIZES = {348: "Nifti1Header", 540: "Nifti2Header"}


def read_nifti(data: bytes) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode a NIfTI file, gzipped or not.

    Parameters
    ----------
    data : bytes
        Of the whole file.

    Returns
    -------
    values : array, shape (x, y, z) or (x, y, z, t)
        As stored, before ``scl_slope``, in native byte order.
    metadata : dict
        ``header`` holds all bytes before the voxels, extensions included, in base64; ``affine``
        (mm), ``zooms``, ``units``, ``scl_slope``, ``scl_inter`` and ``version`` are read from it.

    Raises
    ------
    ValueError
        If it is no such file, is cut short, or holds anything but numbers on 3 or 4 axes.
    """
    raw = _unzipped(data)
    header = _header(raw[:540])
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.fields:
        raise ValueError("holds colours (RGB) in place of numbers, which is not supported")
    if len(shape) not in (3, 4):
        raise ValueError(f"has shape {shape}; volumes have 3 or 4 axes")
    if min(shape) < 1:
        raise ValueError(f"has shape {shape}: no voxels")
    start = int(header["vox_offset"])
    if start < header.sizeof_hdr:
        raise ValueError(f"says that its voxels start at byte {start}, inside the header")
    count = math.prod(shape)
    missing = start + count * dtype.itemsize - len(raw)
    if missing > 0:
        raise ValueError(f"is cut short: {missing} bytes are missing")
    stored = np.frombuffer(raw, dtype, count, start).reshape(shape, order="F")
    slope, inter = header.get_slope_inter()
    metadata = {
        "version": 1 if header.sizeof_hdr == 348 else 2,
        "header": base64.b64encode(raw[:start]).decode(),
        "affine": header.get_best_affine().tolist(),
        "zooms": [float(zoom) for zoom in header.get_zooms()],
        "units": list(header.get_xyzt_units()),
        "scl_slope": 1.0 if slope is None else float(slope),
        "scl_inter": 0.0 if inter is None else float(inter),
    }
    return np.ascontiguousarray(stored, dtype.newbyteorder("=")), metadata


def write_nifti(values: npt.NDArray[Any], metadata: dict[str, Any]) -> bytes:
    """Encode a volume, not gzipped.

    Parameters
    ----------
    values : array, shape (x, y, z) or (x, y, z, t)
    metadata : dict
        With ``header``, that is what is written before the voxels, with shape and type of
        ``values``. Without, a NIfTI-1 header is made from ``affine`` (default: 1 mm voxels).

    Raises
    ------
    ValueError
        If NIfTI has no such type or the array another number of axes.
    """
    if values.ndim not in (3, 4):
        raise ValueError(f"NIfTI holds volumes of 3 or 4 axes, not shape {values.shape}")
    if "header" in metadata:
        before = base64.b64decode(metadata["header"])
        header = _header(before[:540])
        rest = before[header.sizeof_hdr :]
    else:
        nibabel = optional("nibabel", "writing NIfTI")
        affine = np.asarray(metadata.get("affine", np.eye(4)), dtype=float)
        header = nibabel.Nifti1Header()
        header.set_data_shape(values.shape[:3])
        header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
        header.set_sform(affine, code="aligned")
        header.set_xyzt_units("mm")
        header["magic"], header["vox_offset"], rest = b"n+1", 352, bytes(4)
    if header.get_data_shape() != values.shape:
        header.set_data_shape(values.shape)
    stored = values.astype(values.dtype.newbyteorder(header.endianness), copy=False)
    if header.get_data_dtype() != stored.dtype:
        header.set_data_dtype(stored.dtype)
    return bytes(header.binaryblock) + rest + stored.tobytes(order="F")


def _header(block: bytes) -> Any:
    """The header at the start of a file, as it is: nibabel's checks would repair it."""
    nibabel = optional("nibabel", "reading or writing NIfTI")
    for order in "<>":
        size = struct.unpack(f"{order}i", block[:4])[0] if len(block) >= 4 else 0
        if size in _SIZES and len(block) >= size:
            header = getattr(nibabel, _SIZES[size])(block[:size], order, check=False)
            magic = bytes(header["magic"].item())
            if magic[:2] == b"ni":
                raise ValueError("is half of a pair (.hdr, .img); convert it to one .nii file")
            if magic[:2] == b"n+":
                return header
    raise ValueError("is not NIfTI, or its header is cut short")


def _unzipped(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read()
    except EOFError:
        raise ValueError("is cut short: the gzip stream has no end") from None
