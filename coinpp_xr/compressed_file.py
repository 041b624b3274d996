"""One media file ↔ one ``.coinpp`` file: its values through a codec, and what else it says.

Layout::

    "CNPF"  version u8
    JSON, deflated: name, kind, metadata, configuration of the codec; the stream ends by itself
    payload of the codec, up to the CRC
    CRC-32 u32 of everything before it, little-endian
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from coinpp_xr.bitstream import Payload
from coinpp_xr.coarseness import Spread, how_much
from coinpp_xr.codecs.patches import AudioPatchCodec, ImagePatchCodec, VolumePatchCodec
from coinpp_xr.data.media import Media
from coinpp_xr.data.nifti import shape_in
from coinpp_xr.errors import CorruptPayloadError, UnsuitableBoundError
from coinpp_xr.file_header import check_header, pack_header, unpack_header
from coinpp_xr.patch_header import LARGEST
from coinpp_xr.patches import MOST_CHANNELS

MAGIC = b"CNPF"
VERSION = 1
SUFFIX = ".coinpp"

PatchCodec = AudioPatchCodec | ImagePatchCodec | VolumePatchCodec

_CODECS: dict[str, type[PatchCodec]] = {
    "audio": AudioPatchCodec,
    "image": ImagePatchCodec,
    "volume": VolumePatchCodec,
}
_BY_ID = {codec.codec_id: codec for codec in _CODECS.values()}
MODALITIES = tuple(_CODECS)
# PSNR in dB where no rate is given. Quiet sound is far below what its type can hold.
DEFAULT_PSNR = {"audio": 60.0, "image": 40.0, "volume": 40.0}
_CRC_BYTES = 4
# Controls in the unit of the file.
_IN_UNITS = ("max_error", "target_rmse")


@dataclass(frozen=True, eq=False)
class CompressedFile:
    """What a ``.coinpp`` file holds.

    Parameters
    ----------
    name : str
        Of the original file, without folders.
    kind : {"image", "volume", "audio", "array"}
    metadata : dict
        What the original says besides its values; plain JSON.
    codec : dict
        Configuration of the codec as it was asked for, errors in the unit of the stored values.
    payload : bytes
        What the codec made of the values.

    Raises
    ------
    ValueError
        If anything of it may not stand in such a file.
    """

    name: str
    kind: str
    metadata: dict[str, Any]
    codec: dict[str, Any]
    payload: bytes

    def __post_init__(self) -> None:
        check_header(self.name, self.kind, self.metadata, self.codec)

    def media(self) -> Media:
        """Decode.

        Raises
        ------
        CorruptPayloadError, ModelNotFoundError
        """
        self.parsed()
        try:
            codec = _BY_ID[self.codec["id"]].from_config(self.codec)
        except (TypeError, ValueError) as error:
            raise CorruptPayloadError(f"file names no codec that there is ({error})") from error
        values = codec.decode(self.payload)
        if self.kind == "volume" and values.ndim == 4:
            values = np.moveaxis(values, 0, -1)
        return Media(self.kind, values, self.metadata)

    def parsed(self) -> Payload:
        """The payload's container, held against what else the file says.

        Raises
        ------
        CorruptPayloadError
        """
        payload = Payload.unpack(self.payload)
        if why := _why_not(self.kind, self.metadata, payload.shape):
            raise CorruptPayloadError(
                f"payload is of another file: its array has shape {payload.shape}, {why}"
            )
        return payload

    def pack(self) -> bytes:
        """The bytes of the file.

        Raises
        ------
        ValueError
            If the metadata is too large.
        """
        header = pack_header(self.name, self.kind, self.metadata, self.codec)
        body = b"".join([MAGIC, bytes([VERSION]), header, self.payload])
        return body + zlib.crc32(body).to_bytes(_CRC_BYTES, "little")

    @classmethod
    def unpack(cls, data: bytes) -> CompressedFile:
        """Parse and check a file; the payload is checked when it is decoded.

        Raises
        ------
        CorruptPayloadError
            If anything in it does not add up.
        """
        start = len(MAGIC) + 1
        if len(data) < start + _CRC_BYTES or not data.startswith(MAGIC):
            raise CorruptPayloadError("not a .coinpp file: too short, or it starts otherwise")
        if data[len(MAGIC)] != VERSION:
            raise CorruptPayloadError(
                f"file of format {data[len(MAGIC)]}, this version of coinpp-xr reads format "
                f"{VERSION}; install the version that wrote it"
            )
        if zlib.crc32(data[:-_CRC_BYTES]) != int.from_bytes(data[-_CRC_BYTES:], "little"):
            raise CorruptPayloadError("file is damaged: its checksum does not match its content")
        try:
            return cls(*unpack_header(data[start:-_CRC_BYTES]))
        except (zlib.error, ValueError, RecursionError) as error:
            raise CorruptPayloadError(f"file is damaged: its header is none ({error})") from error


def modality_of(media: Media, wanted: str | None = None) -> str:
    """What the values are compressed as: "image", "volume" or "audio".

    Parameters
    ----------
    media : Media
        An array of the kind "array" is whatever is wanted; without a wish, its number of axes
        decides: one is sound, two or a last one of length 3 or 4 an image, three a volume.
    wanted : str, optional

    Raises
    ------
    ValueError
        If the file is another thing, or nothing can be guessed.
    """
    if wanted is not None and wanted not in MODALITIES:
        raise ValueError(f"an array can be {', '.join(MODALITIES)}, not {wanted!r}")
    if media.kind != "array":
        if wanted not in (None, media.kind):
            raise ValueError(f"holds {media.kind} data, which cannot be taken for {wanted}")
        return media.kind
    if wanted is not None:
        return wanted
    shape = media.values.shape
    if len(shape) == 1:
        return "audio"
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] in (3, 4)):
        return "image"
    if len(shape) == 3:
        return "volume"
    raise ValueError(f"has shape {shape}: say what it is, {', '.join(MODALITIES)}")


def _why_not(kind: str, metadata: dict[str, Any], shape: tuple[int, ...]) -> str:
    """What keeps a payload's array from being that of a file; empty if nothing does."""
    pages = metadata.get("pages", 1)
    axes = {"audio": (1, 2), "image": (2, 3), "volume": (3, 4)}.get(kind)
    if axes is not None and len(shape) - (kind == "image" and pages > 1) not in axes:
        return f"which is no {kind}"
    if kind == "image" and pages > 1 and shape[0] != pages:
        return f"not {pages} pages"
    if kind == "volume" and "header" in metadata:
        in_file = (*shape[1:], shape[0]) if len(shape) == 4 else shape
        said = shape_in(metadata["header"])
        if said is not None and said != in_file:
            return f"not the {' x '.join(map(str, said))} voxels of its header"
    return ""


def unit_of(media: Media) -> float:
    """What a difference of one in the stored values is in the unit of the file."""
    return abs(float(media.metadata.get("scl_slope", 1.0))) or 1.0


def peak_of(media: Media, modality: str) -> float:
    """The range that PSNR refers to, in stored values.

    What the type can hold for sound and for images of whole numbers; what the values span for
    volumes, whose types are wider than what scanners make, and for other floats.
    """
    values = media.values
    if media.metadata.get("subtype") == "PCM_24":  # in int32
        return float(2**24 - 1)
    if values.dtype.kind in "iu" and modality != "volume":
        limits = np.iinfo(values.dtype)
        return float(limits.max) - float(limits.min)
    if media.kind == "audio":
        return 2.0
    if values.dtype.kind in "iuf":
        values = values[np.abs(values.astype(np.float64, copy=False)) < LARGEST]
        if values.size and values.max() > values.min():
            return float(values.max()) - float(values.min())
    return 1.0


def cells_of(shape: tuple[int, ...], codec: dict[str, Any]) -> int:
    """Pixels, voxels or samples of an array, all channels together."""
    return prod(shape[:-1] if codec.get("channels") == "last" else shape)


def refuse_coarse_bound(media: Media, rate: dict[str, float]) -> None:
    """Refuse a bound or target that is coarse for a file, see :class:`Spread`.

    Parameters
    ----------
    media : Media
    rate : dict
        As for :func:`compress`.

    Raises
    ------
    UnsuitableBoundError
    """
    values = media.values
    if values.dtype.kind not in "iuf":
        return
    spread = Spread.of(values[np.isfinite(values)].astype(np.float64) * unit_of(media))
    for control in (*_IN_UNITS, "max_error_relative"):
        value = rate.get(control)
        # Values that are no rates the codec refuses.
        if spread is None or value is None or not spread.would_be_reached(control, value):
            continue
        said = (
            f"reaches {how_much(control)} of the standard deviation ({spread.std:.3g}): little "
            "would be left"
        )
        tenth, option = spread.tenth(control), f"--{control.replace('_', '-')}"
        raise UnsuitableBoundError(
            f"{control}={value:g} {said}; write {control}={tenth:g}",
            f"{option} {value:g} {said}; write {option} {tenth:g}, or --allow-coarse",
        )


def compress(media: Media, name: str, modality: str, rate: dict[str, float]) -> CompressedFile:
    """Compress what a file holds.

    Parameters
    ----------
    media : Media
    name : str
        Of the file, without folders.
    modality : {"image", "volume", "audio"}
        See :func:`modality_of`.
    rate : dict
        One rate control of the codecs by its name, or ``kbps`` (1,000 bits per second) for sound.
        ``max_error`` and ``target_rmse`` are in the unit of the file (NIfTI: after ``scl_slope``).
        ``target_bpp`` and ``kbps`` count the whole file.

    Raises
    ------
    ValueError
        If there is no such rate, or the array is none of numbers.
    """
    values = media.values
    codec = _codec_for(media, modality, rate)
    if media.kind == "volume" and values.ndim == 4:
        values = np.moveaxis(values, -1, 0)  # axes before those of space count volumes
    compressed = CompressedFile(name, media.kind, media.metadata, codec.get_config(), b"")
    if codec.target_bpp is not None and values.size:
        around = 8 * len(compressed.pack()) / cells_of(values.shape, compressed.codec)
        # Where that leaves nothing, the codec makes its smallest.
        left = max(codec.target_bpp - around, 1e-9)
        codec = codec.from_config(compressed.codec | {"target_bpp": left})
    try:
        return replace(compressed, payload=codec.encode(values))
    except TypeError as error:  # of objects and records
        raise ValueError(str(error)) from error


def _codec_for(media: Media, modality: str, rate: dict[str, float]) -> PatchCodec:
    values, metadata = media.values, media.metadata
    settings: dict[str, Any] = dict(rate)
    if "kbps" in settings:
        if modality != "audio" or "sample_rate" not in metadata:
            raise ValueError("kbps is for sound of a known sample rate; use target_bpp")
        settings["target_bpp"] = settings.pop("kbps") * 1000 / metadata["sample_rate"]
    for control in _IN_UNITS:
        if control in settings:
            settings[control] /= unit_of(media)
    if "max_error_relative" in settings and metadata.get("scl_inter"):
        raise ValueError(
            "max_error_relative does not go with scl_inter, which moves the zero; use max_error"
        )
    if "target_psnr" in settings:
        settings["data_range"] = peak_of(media, modality)
    if modality == "image":
        if media.kind == "image":
            coloured = values.ndim - (metadata.get("pages", 1) > 1) == 3
        else:
            coloured = values.ndim > 2 and values.shape[-1] in (3, 4)
        settings["channels"] = "last" if coloured else "none"
    elif modality == "audio" and values.ndim == 2 and values.shape[1] <= MOST_CHANNELS:
        settings["channels"] = "last"
    return _CODECS[modality](**settings)
