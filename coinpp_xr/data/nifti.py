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

from coinpp_xr.data.sources import DEFLATE_RATIO, check_claim, optional

# Header and extensions, which are carried along.
_MOST_BEFORE = 1 << 22
_AT_ONCE = 1 << 20
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
    zipped = data[:2] == b"\x1f\x8b"
    plain = io.BytesIO(data)
    file = gzip.GzipFile(fileobj=plain) if zipped else plain
    # No more is unpacked than what the header asks for.
    header = _header(file.read(540))
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if dtype.fields:
        raise ValueError("holds colours (RGB) in place of numbers, which is not supported")
    if len(shape) not in (3, 4):
        raise ValueError(f"has shape {shape}; volumes have 3 or 4 axes")
    if min(shape) < 1:
        raise ValueError(f"has shape {shape}: no voxels")
    start, nbytes = int(header["vox_offset"]), math.prod(shape) * dtype.itemsize
    if start < header.sizeof_hdr:
        raise ValueError(f"says that its voxels start at byte {start}, inside the header")
    if start > _MOST_BEFORE:
        raise ValueError(f"has {start:,} bytes before its voxels, more than {_MOST_BEFORE:,}")
    check_claim(nbytes, len(data), DEFLATE_RATIO if zipped else math.inf)
    if not zipped and start + nbytes > len(data):
        raise ValueError(f"is cut short: {start + nbytes - len(data)} bytes are missing")
    file.seek(0)
    raw = _read(file, start + nbytes)
    stored = np.frombuffer(raw, dtype, offset=start).reshape(shape, order="F")
    slope, inter = header.get_slope_inter()
    metadata = {
        "version": 1 if header.sizeof_hdr == 348 else 2,
        "header": base64.b64encode(raw[:start].data).decode(),
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


def shape_in(header: str) -> tuple[int, ...] | None:
    """What the metadata's ``header`` says of its voxels' shape; None if nothing can be told."""
    block = base64.b64decode(header[: 4 * 180])
    for order in "<>":
        size = struct.unpack(f"{order}i", block[:4])[0] if len(block) >= 4 else 0
        if size in _SIZES and len(block) >= size:
            count, *dims = struct.unpack_from(
                *((f"{order}8h", block, 40) if size == 348 else (f"{order}8q", block, 16))
            )
            return tuple(dims[:count]) if 1 <= count <= 7 and min(dims[:count]) > 0 else None
    return None


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


def _read(file: io.BytesIO | gzip.GzipFile, nbytes: int) -> npt.NDArray[np.uint8]:
    """So many bytes, where there may be some more."""
    found, done = np.empty(nbytes, np.uint8), 0
    try:
        while done < nbytes:
            piece = file.read(min(nbytes - done, _AT_ONCE))
            if not piece:
                raise ValueError(f"is cut short: {nbytes - done} bytes are missing")
            found[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
        file.read(1)  # at its end, a gzip stream checks what came out of it
    except EOFError:
        raise ValueError("is cut short: the gzip stream has no end") from None
    return found
