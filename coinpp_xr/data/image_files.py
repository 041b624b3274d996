"""PNG, TIFF and JPEG: bytes ↔ pixels in the file's own type, with resolution and colour space."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.data.sources import DEFLATE_RATIO, check_claim, optional

_INCH = 0.0254  # metres
# Small parts of a PNG that say how its numbers are meant; they are carried along as they are.
_KEPT_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_OTHER_CHUNKS = {
    b"iCCP": "ICC profile", b"eXIf": "EXIF", b"tEXt": "text", b"zTXt": "text", b"iTXt": "text",
    b"tIME": "time", b"bKGD": "background", b"acTL": "later frames of the animation",
    b"PLTE": "palette (its colours are kept)", b"sBIT": "significant bits",
    b"tRNS": "transparent colour (now an alpha channel)",
}  # fmt: skip
_OTHER_TAGS = {
    270: "description", 305: "software", 306: "time", 315: "artist", 700: "XMP",
    33432: "copyright", 33550: "GeoTIFF", 33922: "GeoTIFF", 34264: "GeoTIFF", 34377: "Photoshop",
    34665: "EXIF", 34675: "ICC profile", 34735: "GeoTIFF", 42113: "GDAL no-data value",
    274: "orientation",
}  # fmt: skip
_TAG_TYPES = {
    1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
_MOST_TAG_VALUES = 16
# Bytes of pixels that one byte of a file can stand for. LZW's longest string grows to a few
# thousand bytes of twelve bits; a block of 64 pixels of a JPEG takes a bit or more. Other codings
# of TIFF have no such limit.
_LZW_RATIO, _JPEG_RATIO = 2600.0, 2048.0
_TIFF_RATIOS = {1: 1.0, 5: _LZW_RATIO, 8: DEFLATE_RATIO, 32946: DEFLATE_RATIO, 32773: 64.0}
# Chunks of a PNG that its pixels follow from; no others reach the decoder, which would inflate
# texts and profiles.
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MOST_CHUNKS = 1 << 16
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Of those that are kept as they are; the longest has 32 bytes.
_MOST_KEPT = 64
# Bytes of a tile that is larger than its image.
_MOST_IN_TILE = 1 << 24
# Whoever needs more looks at every block of the picture so many times.
_MOST_SCANS = 256


def read_png(data: bytes) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode a PNG.

    Parameters
    ----------
    data : bytes
        Of the whole file.

    Returns
    -------
    values : array, shape (rows, columns[, channels]), uint8 or uint16
        1, 2 or 4 bits become 8, and a palette the colours it stands for.
    metadata : dict
        ``dpi`` and ``chunks`` where the file has them, and ``left_out``.

    Raises
    ------
    ValueError or imagecodecs.PngError
        If the file is damaged.
    """
    metadata: dict[str, Any] = {}
    left_out: list[str] = []
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("is not PNG")
    pixels, transparent = [data[:8]], False
    for name, content, whole in _png_chunks(data):
        if name in _PIXEL_CHUNKS:
            pixels.append(whole)
            transparent |= name == b"tRNS"
        if name == b"IHDR" and content[8] < 8 and content[9] != 3:
            left_out.append(f"{content[8]} bits per pixel (now 8)")
        elif name == b"pHYs" and content[8:] == b"\1":
            metadata["dpi"] = [_INCH * n for n in struct.unpack(">2I", content[:8])]
        elif name == b"pHYs":
            left_out.append("shape of pixels")
        elif name in _KEPT_CHUNKS and len(content) <= _MOST_KEPT:
            metadata.setdefault("chunks", {})[name.decode()] = base64.b64encode(content).decode()
        elif name in _OTHER_CHUNKS:
            left_out.append(_OTHER_CHUNKS[name])
    _check_png(data, sum(map(len, pixels)), transparent)
    values = optional("imagecodecs", "reading PNG").png_decode(b"".join(pixels))
    return values, _with_left_out(metadata, left_out)


def write_png(values: npt.NDArray[Any], metadata: dict[str, Any]) -> bytes:
    """Encode an image as PNG.

    Parameters
    ----------
    values : array, shape (rows, columns[, 1 to 4 channels]), uint8 or uint16
    metadata : dict
        ``dpi`` and ``chunks`` are written.

    Raises
    ------
    ValueError
        If PNG has no such pixels.
    """
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.dtype.name not in ("uint8", "uint16") or values.ndim not in (2, 3) or channels > 4:
        raise ValueError(
            "PNG holds uint8 or uint16 of shape (rows, columns[, 1 to 4 channels]), not "
            f"{values.dtype} of shape {values.shape}; write .tif or .npy"
        )
    if not values.size:
        raise ValueError(f"PNG holds at least one pixel, not shape {values.shape}; write .npy")
    pixels = np.ascontiguousarray(values[..., 0] if values.ndim == 3 and channels == 1 else values)
    plain = bytes(optional("imagecodecs", "writing PNG").png_encode(pixels))
    extra = {
        name: base64.b64decode(content) for name, content in metadata.get("chunks", {}).items()
    }
    if "dpi" in metadata:
        per_metre = [round(float(n) / _INCH) for n in metadata["dpi"]]
        extra["pHYs"] = struct.pack(">2IB", *per_metre, 1)
    start = 8 + 25  # signature and IHDR, after which these must come
    return plain[:start] + b"".join(_png_chunk(*item) for item in extra.items()) + plain[start:]


def read_tiff(data: bytes) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode a TIFF.

    Parameters
    ----------
    data : bytes
        Of the whole file.

    Returns
    -------
    values : array, shape ([pages, ]rows, columns[, channels])
        In the file's own type; single bits become uint8, 0 or 255.
    metadata : dict
        ``dpi``, ``pages`` (if more than one) and ``white_is_zero`` where they apply, and
        ``left_out``.

    Raises
    ------
    ValueError
        If pages differ in shape or type, or pixels are neither grey nor RGB.
    imagecodecs.TiffError
        If the file is damaged.
    """
    found = list(_tiff_pages(data))
    # The others are smaller copies and masks, as maps have them.
    pages = [page for page in found if not page.get(254, (0,))[0] & 5] or found
    tags = pages[0]
    photometric = tags.get(262, (1,))[0]
    if photometric == 3:
        raise ValueError("has a palette; save it as RGB first")
    if photometric not in (0, 1, 2) and tags.get(259) != (7,):
        raise ValueError(f"is neither grey nor RGB (PhotometricInterpretation {photometric})")
    layouts = {tuple(page.get(tag) for tag in (256, 257, 258, 277, 339)) for page in pages}
    if len(layouts) > 1:
        raise ValueError("has pages of different shapes or types; save them as files of their own")
    check_claim(sum(_page_bytes(page, len(data)) for page in found), len(data), inf)
    index = None if len(pages) > 1 else 0
    values = optional("imagecodecs", "reading TIFF").tiff_decode(data, index=index)
    metadata: dict[str, Any] = {}
    left_out = [_OTHER_TAGS[tag] for tag in tags if tag in _OTHER_TAGS and tags[tag] != (1,)]
    if len(pages) < len(found):
        left_out.append("smaller copies")
    if len(pages) > 1:
        metadata["pages"] = len(pages)
    if tags.get(284) == (2,) and values.ndim > 2 and tags.get(277, (1,))[0] > 1:
        values = np.moveaxis(values, -3, -1)
    if photometric == 0:
        metadata["white_is_zero"] = True
    if 282 in tags and 283 in tags and tags.get(296, (2,)) in ((2,), (3,)):
        factor = 1.0 if tags.get(296, (2,)) == (2,) else 100 * _INCH
        metadata["dpi"] = [factor * a / (b or 1) for a, b in (tags[282], tags[283])]
    if values.dtype == bool:
        values = values * np.uint8(255)
        left_out.append("1 bit per pixel (now 8)")
    return np.ascontiguousarray(values), _with_left_out(metadata, left_out)


def write_tiff(values: npt.NDArray[Any], metadata: dict[str, Any]) -> bytes:
    """Encode an image, or several as pages, as TIFF.

    Parameters
    ----------
    values : array, shape ([pages, ]rows, columns[, 1 to 4 channels])
    metadata : dict
        ``pages`` says that the first axis is one; ``dpi`` and ``white_is_zero`` are written.

    Raises
    ------
    ValueError
        If TIFF has no such pixels.
    """
    imagecodecs = optional("imagecodecs", "writing TIFF")
    if values.size == 0:  # libtiff would divide by it
        raise ValueError(f"TIFF holds no image of shape {values.shape}; write .npy")
    image = values[0] if metadata.get("pages", 1) > 1 else values
    channels = image.shape[2] if image.ndim == 3 else 1
    if values.dtype.kind not in "uif" or image.ndim not in (2, 3) or channels > 4:
        raise ValueError(
            "TIFF holds numbers of shape (rows, columns[, 1 to 4 channels]), or several such with "
            f"metadata={{'pages': ...}}, not {values.dtype} of shape {values.shape}; write .npy"
        )
    if image.ndim == 3 and channels == 1:
        values = values[..., 0]
    tiff = imagecodecs.TIFF
    photometric = tiff.PHOTOMETRIC.RGB if channels > 2 else tiff.PHOTOMETRIC.MINISBLACK
    if metadata.get("white_is_zero") and channels < 3:
        photometric = tiff.PHOTOMETRIC.MINISWHITE
    options: dict[str, Any] = {"compression": tiff.COMPRESSION.ADOBE_DEFLATE}
    if channels == 2:  # otherwise libtiff would be given rows of pages
        options["extrasample"] = tiff.EXTRASAMPLE.UNASSALPHA
    if "dpi" in metadata:
        options |= {"resolution": tuple(metadata["dpi"]), "resolutionunit": tiff.RESUNIT.INCH}
    pixels = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return bytes(imagecodecs.tiff_encode(pixels, photometric=photometric, **options))


def read_jpeg(data: bytes) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode a JPEG.

    Parameters
    ----------
    data : bytes
        Of the whole file.

    Returns
    -------
    values : array, shape (rows, columns[, 3]), uint8
    metadata : dict
        ``dpi`` where the file has it, and ``left_out``.

    Raises
    ------
    ValueError
        If the file is cut short or holds neither grey nor colour.
    imagecodecs.Jpeg8Error
        If it is damaged.
    """
    metadata: dict[str, Any] = {}
    left_out: list[str] = []
    start, pixels = 2, 0
    while start + 4 <= len(data):
        if data[start] != 0xFF:
            raise ValueError("is damaged: a segment of the JPEG is not where it should be")
        if data[start + 1] == 0xFF:  # fills a gap
            start += 1
            continue
        mark, size = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
        content = data[start + 4 : start + 2 + size]
        if mark == 0xE0 and content[:5] == b"JFIF\0" and content[7] in (1, 2):
            factor = 1.0 if content[7] == 1 else 100 * _INCH
            metadata["dpi"] = [factor * n for n in struct.unpack(">2H", content[8:12])]
        elif mark == 0xE1:
            left_out.append("EXIF" if content[:4] == b"Exif" else "XMP")
        elif mark == 0xE2 and content[:11] == b"ICC_PROFILE":
            left_out.append("ICC profile")
        elif mark == 0xFE:
            left_out.append("comment")
        elif 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            precision, rows, columns, colours = struct.unpack(">BHHB", content[:6])
            if colours not in (1, 3):
                raise ValueError(f"has {colours} colour components (CMYK?); save it as RGB first")
            pixels += rows * columns * colours
            check_claim(pixels * (1 + (precision > 8)), len(data), _JPEG_RATIO)
        start += 2 + size
        if mark == 0xDA:  # pixels follow, in which this pair of bytes is the end
            break
    if data.find(b"\xff\xd9", start) < 0:
        raise ValueError("is cut short: the JPEG has no end")
    if not pixels:
        raise ValueError("is damaged: the JPEG does not say how large it is")
    if data.count(b"\xff\xda", start) > _MOST_SCANS:
        raise ValueError("is no sensible JPEG: it repeats its pixels in too many scans")
    values = optional("imagecodecs", "reading JPEG").jpeg_decode(data)
    return values, _with_left_out(metadata, left_out)


def _with_left_out(metadata: dict[str, Any], left_out: list[str]) -> dict[str, Any]:
    return metadata | ({"left_out": list(dict.fromkeys(left_out))} if left_out else {})


def _check_png(data: bytes, held: int, transparent: bool) -> None:
    """Hold what the first chunk says against the bytes of the pixels."""
    length, name, columns, rows, depth, colours = struct.unpack(">I4sIIBB", data[8:26])
    if (length, name) != (13, b"IHDR") or colours not in _PNG_CHANNELS:
        raise ValueError("does not begin with a header of PNG: damaged")
    channels = _PNG_CHANNELS[colours]
    bits = depth if colours == 3 else depth * channels
    check_claim(rows * (columns * bits // 8 + 1), held, DEFLATE_RATIO)
    # As it is decoded, which may be more: palettes become colours, bits become bytes.
    check_claim(rows * columns * (channels + transparent) * max(1, depth // 8), held, inf)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, content and the whole of every chunk."""
    start = 8
    for _ in range(_MOST_CHUNKS):
        if start + 8 > len(data):
            raise ValueError("is cut short: the PNG has no end")
        size = int.from_bytes(data[start : start + 4], "big")
        name = data[start + 4 : start + 8]
        whole = data[start : start + 12 + size]
        yield name, whole[8:-4], whole
        start += 12 + size
        if name == b"IEND":
            return
    raise ValueError(f"is no sensible PNG: it has more than {_MOST_CHUNKS:,} parts")


def _page_bytes(tags: dict[int, tuple[int, ...]], held: int) -> int:
    """Bytes that a page of a TIFF says it decodes to, held against those of the file."""
    rows, columns, channels = (tags.get(tag, (1,))[0] for tag in (257, 256, 277))
    if min(rows, columns, channels) < 1:
        raise ValueError("has a page without pixels, or of unknown size: damaged")
    pixels, bits = rows * columns, max(tags.get(258, (1,)))
    ratio = _TIFF_RATIOS.get(tags.get(259, (1,))[0], inf)
    check_claim(pixels * channels * bits // 8, held, ratio)
    # Single bits and odd numbers of them become bytes of their own.
    octets = channels * (1 << max(0, (bits - 1).bit_length() - 3))
    # A tile is decoded whole, however small its image.
    in_tile = tags.get(322, (0,))[0] * tags.get(323, (0,))[0]
    if in_tile * octets > max(_MOST_IN_TILE, 4 * pixels * octets):
        raise ValueError(f"has tiles of {in_tile:,} pixels for an image of {pixels:,}: damaged")
    return pixels * octets


def _png_chunk(name: str, content: bytes) -> bytes:
    body = name.encode() + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _tiff_pages(data: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """Tag → values of every page; strings and the like, and long lists, as (0,)."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    offset, number, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    room = struct.calcsize(f"={offset}")
    seen: set[int] = set()
    left = len(data) // entry  # entries of all pages together: honest ones do not overlap
    (start,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    while start:
        if start in seen:
            raise ValueError("has pages that follow each other without end: damaged")
        seen.add(start)
        (count,) = struct.unpack_from(order + number, data, start)
        start += struct.calcsize(f"={number}")
        left -= count
        if left < 0:
            raise ValueError("has more entries in its pages than bytes: damaged")
        tags: dict[int, tuple[int, ...]] = {}
        for position in range(start, start + count * entry, entry):
            tag, kind, length = struct.unpack_from(f"{order}HH{offset}", data, position)
            if tag in tags:
                raise ValueError(f"says twice what tag {tag} is: damaged")
            tags[tag] = (0,)
            if kind in _TAG_TYPES and length <= _MOST_TAG_VALUES:
                form = order + _TAG_TYPES[kind] * length
                place = position + 4 + room
                if struct.calcsize(form) > room:
                    (place,) = struct.unpack_from(order + offset, data, place)
                tags[tag] = struct.unpack_from(form, data, place)
        yield tags
        (start,) = struct.unpack_from(order + offset, data, start + count * entry)
    if not seen:
        raise ValueError("has no page")
