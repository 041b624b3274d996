"""The container around one chunk: magic, version, shape, dtype, streams, CRC-32.

Layout (little-endian; ``varint`` is unsigned LEB128)::

    "CNPP"  version u8  kind u8 (+128: Fortran order)  dtype u8 [length u8, name]
    ndim u8  shape ndim × varint
    kinds with a model:  its fingerprint, 8 bytes
    kinds with a grid:   layout u8 [coordinates CRC-32 u32]
    kinds 1 and 9:       bits u8
    kinds 2 to 4, 8, 10: step exponent i16
    kinds with time:     time axis u8 (+128: transformed along time)
    sections until the CRC:  tag u8, length varint, bytes; streams, which come last, start with
        the CRC-32 u32 of everything before their tag
    CRC-32 u32 of everything before it

Reading checks every length against what is there before any memory is taken.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.byte_reading import ByteReader, CutShortError, varint
from coinpp_xr.cells.folding import Fold
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.exact import pack_bytes, pack_mask, pack_special_values

MAGIC = b"CNPP"
VERSION = 1
# The layout byte of a payload whose coordinates stand in the codec's configuration.
EXPLICIT_COORDINATES = 255

_DTYPES = (
    "<f4", "<f8", "<f2", ">f4", ">f8", ">f2", "|b1", "|i1", "|u1", "<i2", "<i4", "<i8", "<u2",
    "<u4", "<u8", ">i2", ">i4", ">i8", ">u2", ">u4", ">u8",
)  # fmt: skip
_NAMED_DTYPE = 255
_PLAIN_DTYPE = re.compile(r"[<>|][biufcmMSUV][1-9]\d{0,5}(\[\d*[a-zA-Z]+\])?")
# Added to the kind byte when the array was in Fortran order. Values do not depend on it, but
# Zarr 2 reads what a codec returns in memory order.
_FORTRAN = 0x80
# Added to the time axis.
_ALONG_TIME = 0x80
_MAX_DIMENSIONS = 32
_CRC_BYTES = 4


class Kind(IntEnum):
    """How a chunk is stored."""

    LOSSLESS = 0
    # One b-bit symbol per latent, as in the paper.
    LATENTS = 1
    # Coefficients of the model's latents along time.
    LATENTS_IN_TIME = 2
    # Coefficients of a transform over the sphere of what the fields differ from …
    GRID = 3  # … a mean value
    GRID_FROM_MODEL = 4  # … the model's mean field
    # Quantized values as they stand.
    PATTERNS = 5
    # A residual and nothing below it. Kinds 2 to 4 may have one on top.
    RESIDUAL = 6
    RESIDUAL_FROM_MODEL = 7  # predicted by what the model's reference fields teach
    # Patches of images, volumes or sound, with a residual on top or alone.
    PATCHES = 8
    PATCH_LATENTS = 9  # one b-bit symbol per latent
    PATCHES_FROM_MODEL = 10  # coded by what a model has learned
    PYRAMID = 11  # from coarse to fine, every field readable by itself
    DIGITS = 12  # whole numbers, row by row
    PYRAMID_FROM_MODEL = 13  # a pyramid whose fields refer to the model's climatology
    WAVELETS = 14  # subbands of a wavelet, every field readable by itself

    @property
    def has_grid(self) -> bool:
        return self.has_coefficients or self in (
            Kind.LATENTS, Kind.RESIDUAL_FROM_MODEL, Kind.PYRAMID_FROM_MODEL, Kind.WAVELETS
        )  # fmt: skip

    @property
    def has_model(self) -> bool:
        return self in (
            Kind.LATENTS, Kind.LATENTS_IN_TIME, Kind.GRID_FROM_MODEL, Kind.RESIDUAL_FROM_MODEL,
            Kind.PATCH_LATENTS, Kind.PATCHES_FROM_MODEL, Kind.PYRAMID_FROM_MODEL,
        )  # fmt: skip

    @property
    def has_streams(self) -> bool:
        """Whether fields can be read one by one."""
        return self in _WITH_STREAMS

    @property
    def of_patches(self) -> bool:
        return self in (Kind.PATCHES, Kind.PATCH_LATENTS, Kind.PATCHES_FROM_MODEL)

    @property
    def has_bits(self) -> bool:
        return self in (Kind.LATENTS, Kind.PATCH_LATENTS)

    @property
    def has_coefficients(self) -> bool:
        return self in (Kind.LATENTS_IN_TIME, Kind.GRID, Kind.GRID_FROM_MODEL)

    @property
    def has_step(self) -> bool:
        return self.has_coefficients or self in (Kind.PATCHES, Kind.PATCHES_FROM_MODEL)

    @property
    def has_time(self) -> bool:
        return self.has_coefficients or self.has_streams or self in (
            Kind.RESIDUAL, Kind.RESIDUAL_FROM_MODEL, Kind.DIGITS
        )  # fmt: skip


_WITH_STREAMS = (Kind.PYRAMID, Kind.PYRAMID_FROM_MODEL, Kind.WAVELETS)


class Tag(IntEnum):
    """What a section holds."""

    RAW = 1
    LATENTS = 2
    MASK = 3
    SPECIAL_VALUES = 4
    COEFFICIENTS = 5
    MEANS = 6
    LEVELS = 7
    RESIDUAL = 8
    PATCHES = 9
    PYRAMID = 10
    # The last section where there is one, so that parts of it can be read by themselves.
    STREAMS = 11
    # What decoded values are brought back to: the range that they came from, the right means.
    FINISH = 12
    PLACE = 13  # where the chunk belongs, hashed; see chunk_places
    STEPS = 14  # the arithmetic that makes values of whole numbers
    DIGITS = 15
    MANTISSAS = 16
    WAVELETS = 17
    CELLS = 18  # how cells of one dimension are folded into rows and columns
    LEVEL_AXIS = 19  # a second axis along which fields refer to each other


@dataclass(frozen=True)
class Payload:
    """The parsed container of one chunk."""

    kind: Kind
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sections: dict[Tag, bytes]
    fingerprint: str = ""
    layout: int = 0
    coordinates_crc: int = 0
    bits: int = 0
    exponent: int = 0
    time_axis: int = 0
    along_time: bool = False
    fortran: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the array that this payload decodes to, before it is unfolded."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def cells(self) -> int:
        """How many cells of one dimension are folded into rows and columns; 0 if none are."""
        section = self.sections.get(Tag.CELLS)
        if section is None:
            return 0
        reader = ByteReader(section)
        reader.byte()
        return reader.varint()

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Of the array that this payload decodes to.

        Raises
        ------
        CorruptPayloadError
        """
        if Tag.CELLS not in self.sections:
            return self.shape
        if len(self.shape) < 2:
            raise CorruptPayloadError("payload's header contradicts itself")
        return *self.shape[:-2], self.cells

    def pack(self) -> bytes:
        parts = [
            MAGIC,
            bytes([VERSION, self.kind | (_FORTRAN if self.fortran else 0)]),
            _pack_dtype(self.dtype),
        ]
        parts += [bytes([len(self.shape)]), *map(varint, self.shape)]
        if self.kind.has_model:
            parts.append(bytes.fromhex(self.fingerprint))
        if self.kind.has_grid:
            parts.append(bytes([self.layout]))
            if self.layout == EXPLICIT_COORDINATES:
                parts.append(self.coordinates_crc.to_bytes(4, "little"))
        if self.kind.has_bits:
            parts.append(bytes([self.bits]))
        if self.kind.has_step:
            parts.append(self.exponent.to_bytes(2, "little", signed=True))
        if self.kind.has_time:
            parts.append(bytes([self.time_axis | (_ALONG_TIME if self.along_time else 0)]))
        for tag, section in self.sections.items():
            if tag == Tag.STREAMS:
                # Who reads no more than this and some streams has a checksum, too.
                parts = [b"".join(parts)]
                section = zlib.crc32(parts[0]).to_bytes(4, "little") + section
            parts += [bytes([tag]), varint(len(section)), section]
        body = b"".join(parts)
        return body + zlib.crc32(body).to_bytes(4, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Payload:
        """Parse and check a container.

        Raises
        ------
        CorruptPayloadError
            If anything in it does not add up.
        """
        if len(data) < 12 or data[:4] != MAGIC:
            raise CorruptPayloadError(
                "not a coinpp payload: it is too short or does not start with CNPP"
            )
        if data[4] != VERSION:
            raise CorruptPayloadError(
                f"payload of format {data[4]}, this version of coinpp-xr reads format {VERSION}; "
                "install the version that wrote it"
            )
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise CorruptPayloadError("payload is damaged: its checksum does not match its content")
        return cls._parse(data[:-4], whole=True)[0]

    @staticmethod
    def has_streams(data: bytes) -> bool:
        """Whether the beginning of a container says that parts of it can be read."""
        same = len(data) >= 12 and data[:4] == MAGIC and data[4] == VERSION
        return same and data[5] & ~_FORTRAN in _WITH_STREAMS

    @classmethod
    def unpack_head(cls, data: bytes) -> tuple[Payload, int] | None:
        """Parse the beginning of a container whose last section are streams.

        Returns
        -------
        (Payload, int) or None
            The payload without its streams, and where in the container those begin. None where
            there are none, or where more bytes are needed.

        Raises
        ------
        CorruptPayloadError
        """
        if not cls.has_streams(data):
            return None
        try:
            payload, at = cls._parse(data, whole=False)
        except CutShortError:
            return None
        return payload, at

    @classmethod
    def _parse(cls, data: bytes, *, whole: bool) -> tuple[Payload, int]:
        """A container without its checksum; or its beginning, as far as its streams."""
        reader = ByteReader(data, position=5)
        try:
            kind_and_order = reader.byte()
            kind = Kind(kind_and_order & ~_FORTRAN)
            dtype = _read_dtype(reader)
            n_dims = reader.byte()
            if n_dims > _MAX_DIMENSIONS:
                raise CorruptPayloadError(f"payload claims {n_dims} dimensions")
            header: dict[str, Any] = {
                "shape": tuple(reader.varint() for _ in range(n_dims)),
                "fortran": bool(kind_and_order & _FORTRAN),
            }
            if kind.has_model:
                header["fingerprint"] = reader.take(8).hex()
            if kind.has_grid:
                header["layout"] = reader.byte()
                if header["layout"] == EXPLICIT_COORDINATES:
                    header["coordinates_crc"] = int.from_bytes(reader.take(4), "little")
            if kind.has_bits:
                header["bits"] = reader.byte()
            if kind.has_step:
                header["exponent"] = int.from_bytes(reader.take(2), "little", signed=True)
            if kind.has_time:
                axis = reader.byte()
                header["time_axis"] = axis & ~_ALONG_TIME
                header["along_time"] = bool(axis & _ALONG_TIME)
            sections: dict[Tag, bytes] = {}
            while not (whole and reader.at_end):
                if not whole and reader.left <= _CRC_BYTES:
                    raise CutShortError("payload has no streams")
                before = reader.position
                tag = Tag(reader.byte())
                if tag in sections:
                    raise CorruptPayloadError(f"payload holds its section {tag.name} twice")
                if Tag.STREAMS in sections:
                    raise CorruptPayloadError(f"payload holds {tag.name} behind its streams")
                length = reader.varint()
                if tag == Tag.STREAMS:
                    if length < 4:
                        raise CorruptPayloadError("payload is cut short")
                    if int.from_bytes(reader.take(4), "little") != zlib.crc32(data[:before]):
                        raise CorruptPayloadError("payload's head is damaged")
                    length -= 4
                    if not whole:
                        break
                sections[tag] = reader.take(length)
        except CorruptPayloadError:
            raise
        except (ValueError, TypeError) as error:
            raise CorruptPayloadError(f"payload is damaged: {error}") from error
        if Tag.CELLS in sections and (kind == Kind.LOSSLESS or kind.of_patches):
            raise CorruptPayloadError("payload folds cells of what has no rows and columns")
        return cls(kind=kind, dtype=dtype, sections=sections, **header), reader.position

    def placed(self, place: bytes) -> Payload:
        """The same payload with another place."""
        sections = {**self.sections, Tag.PLACE: place}
        if Tag.STREAMS in sections:  # the last section
            sections[Tag.STREAMS] = sections.pop(Tag.STREAMS)
        return replace(self, sections=sections)

    def section(self, tag: Tag) -> bytes:
        """The bytes of a section that must be there."""
        if tag not in self.sections:
            raise CorruptPayloadError(f"payload lacks its section {tag.name}")
        return self.sections[tag]


def _pack_dtype(dtype: np.dtype[Any]) -> bytes:
    if dtype.hasobject or dtype.fields is not None or not _PLAIN_DTYPE.fullmatch(dtype.str):
        raise TypeError(f"cannot store values of dtype {dtype}: only plain fixed-size types")
    if dtype.str in _DTYPES:
        return bytes([_DTYPES.index(dtype.str)])
    name = dtype.str.encode("ascii")
    return bytes([_NAMED_DTYPE, len(name)]) + name


def _read_dtype(reader: ByteReader) -> np.dtype[Any]:
    code = reader.byte()
    if code == _NAMED_DTYPE:
        name = reader.take(reader.byte()).decode("ascii")
        if not _PLAIN_DTYPE.fullmatch(name):
            raise CorruptPayloadError("payload claims a dtype that it cannot hold")
        return np.dtype(name)
    if code >= len(_DTYPES):
        raise CorruptPayloadError(f"payload claims an unknown dtype code {code}")
    return np.dtype(_DTYPES[code])


def pack_fields(
    values: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    kind: Kind,
    sections: dict[Tag, bytes],
    fold: Fold | None = None,
    level_axis: int | None = None,
    **header: Any,
) -> bytes:
    """A container whose sections hold the valid values, shape (items, cells); others are added.

    But for holes of a ``fold``, by which ``values`` were laid out; ``level_axis`` is a second axis
    along which fields refer to each other.
    """
    if level_axis is not None:
        sections = {Tag.LEVEL_AXIS: bytes([level_axis]), **sections}
    if fold is not None:
        sections = {Tag.CELLS: fold.pack(), **sections}
        valid = valid if fold.holes is None else valid | fold.holes
    if not valid.all():
        table, columns = values.reshape(valid.shape), values.shape[-1]
        near = None if kind.of_patches else columns
        sections = {
            Tag.MASK: pack_mask(~valid, near),
            Tag.SPECIAL_VALUES: pack_special_values(table[~valid], ~valid, near),
            **sections,
        }
    return Payload(
        kind, values.shape, values.dtype, sections, fortran=is_fortran(values), **header
    ).pack()


def pack_lossless(values: npt.NDArray[Any]) -> bytes:
    """A container that holds the values' bytes."""
    sections = {Tag.RAW: pack_bytes(values)}
    return Payload(
        Kind.LOSSLESS, values.shape, values.dtype, sections, fortran=is_fortran(values)
    ).pack()


def is_fortran(values: npt.NDArray[Any]) -> bool:
    return bool(values.flags.f_contiguous and not values.flags.c_contiguous)
