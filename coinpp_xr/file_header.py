"""The JSON of a ``.coinpp`` file: bytes ↔ a checked header.

Every value is checked by its key: nothing that a stranger wrote reaches codecs,
writers of other formats or a terminal unseen.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from math import isfinite
from sys import float_info
from typing import Any

from coinpp_xr.errors import shown
from coinpp_xr.models import parse_name
from coinpp_xr.patches import CHANNELS, MOST_CELLS

# Codecs by what an array is compressed as.
CODECS = {"audio": "coinpp-audio", "image": "coinpp-image", "volume": "coinpp-volume"}
KINDS = (*CODECS, "array")
RATES = (
    "target_psnr", "target_rmse", "target_bpp", "max_error", "max_error_relative", "bits"
)  # fmt: skip
# Bytes of the JSON, and commas and the like in it: each stands for up to a hundred bytes of memory.
MOST_JSON, _MOST_MARKS = 1 << 23, 1 << 17
_LONGEST_NAME, _LONGEST_TEXT = 1024, 200
# What most files say: the JSON is deflated as if it followed this, which belongs to the format.
_USUAL = (
    b'{"n":".npy","k":"array","m":{"format":"NumPy"},"c":{"id":"coinpp-volume","data_range":1.0,"'
    b'max_error_relative":0.01}}{"n":".nii.gz","k":"volume","m":{"format":"NIfTI","version":1,"'
    b'header":"XAEAAAAAAAAAAAAAAAAAAAAAAAAA","affine":[[1.0,0.0,0.0,-90.0],[0.0,0.0,0.0,1.0]],"zooms'
    b'":[1.0,1.0,1.0],"units":["mm","sec"],"scl_slope":1.0,"scl_inter":0.0},"c":{"id":"coinpp-volume'
    b'","max_error":0.5}}{"n":".tif","k":"image","m":{"format":"TIFF","pages":1,"white_is_zero":true'
    b',"dpi":[72.0,72.0]},"c":{"channels":"none","id":"coinpp-image","target_rmse":1.0}}{"n":".jpg",'
    b'"k":"image","m":{"format":"JPEG","left_out":["EXIF","ICC profile","text"]},"c":{"channels":"'
    b'last","data_range":65535.0,"id":"coinpp-image","target_psnr":40.0}}{"n":".png","k":"image","m"'
    b':{"format":"PNG"},"c":{"channels":"last","data_range":255.0,"id":"coinpp-image","target_psnr":'
    b'40.0}}{"n":".flac","k":"audio","m":{"format":"FLAC","sample_rate":44100,"subtype":"PCM_24","'
    b'container":"FLAC"},"c":{"channels":"last","id":"coinpp-audio","target_bpp":0.5}}{"n":".wav","k'
    b'":"audio","m":{"format":"WAV","sample_rate":16000,"subtype":"PCM_16","container":"WAV"},"c":{"'
    b'data_range":65535.0,"id":"coinpp-audio","target_psnr":60.0}}'
)

Check = Callable[[Any], bool]


def _one_of(*choices: Any) -> Check:
    return lambda value: any(type(value) is type(one) and value == one for one in choices)


def _whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _number(least: float = -float_info.max, most: float = float_info.max) -> Check:
    # Python compares integers beyond all floats with them exactly.
    return lambda value: type(value) in (int, float) and least <= value <= most


def _text(most: int, pattern: str = r"[^\x00-\x1f]*") -> Check:
    return lambda value: (
        isinstance(value, str) and len(value) <= most and re.fullmatch(pattern, value) is not None
    )


def _list(entry: Check, *lengths: int) -> Check:
    return lambda value: (
        isinstance(value, list) and len(value) in lengths and all(map(entry, value))
    )


def _any_float(value: Any) -> bool:
    return _number()(value) or (isinstance(value, float) and not isfinite(value))


def _is_name(value: Any) -> bool:
    try:
        return len(parse_name(value)) <= _LONGEST_TEXT
    except ValueError:
        return False


_POSITIVE = _number(float_info.min * float_info.epsilon)
_BASE64 = r"[A-Za-z0-9+/]*={0,2}"
_CHECKS: dict[str, dict[str, Check]] = {
    "metadata": {
        "format": _one_of("NIfTI", "WAV", "FLAC", "PNG", "TIFF", "JPEG", "NumPy"),
        "left_out": _list(_text(_LONGEST_TEXT), *range(33)),
        # Of volumes
        "version": _one_of(1, 2),
        "header": _text(MOST_JSON, _BASE64),
        "affine": _list(_list(_any_float, 4), 4),
        "zooms": _list(_any_float, 3, 4),
        "units": _list(_text(_LONGEST_TEXT), 2),
        "scl_slope": _number(),
        "scl_inter": _number(),
        # Of sound
        "sample_rate": _whole(1, (1 << 31) - 1),
        "subtype": _text(20, r"[A-Z0-9_]+"),
        "container": _text(20, r"[A-Z0-9_]+"),
        # Of images
        "dpi": _list(_number(0.0), 2),
        "chunks": lambda value: (
            isinstance(value, dict)
            and value.keys() <= {"gAMA", "cHRM", "sRGB", "cICP"}
            and all(map(_text(_LONGEST_TEXT, _BASE64), value.values()))
        ),
        "pages": _whole(1, (1 << 31) - 1),
        "white_is_zero": _one_of(True),
    },
    "codec": {
        "id": _one_of(*CODECS.values()),
        **dict.fromkeys(RATES, _POSITIVE),
        "bits": _whole(1, 16),
        "model": _is_name,
        "fingerprint": _text(16, r"[0-9a-f]{16}"),
        "channels": _one_of("auto", *CHANNELS),
        "data_range": _POSITIVE,
        "band_cells": _whole(1, (1 << 32) - 1),
        "patch_size": _list(_whole(1, MOST_CELLS), 1, 2, 3),
    },
}


def check_header(name: Any, kind: Any, metadata: Any, codec: Any) -> None:
    """Refuse a header that says what none may say.

    Raises
    ------
    ValueError
    """
    if not _text(_LONGEST_NAME, r"(?s:.*)")(name):
        raise ValueError(f"its name is {shown(name)}, no text of {_LONGEST_NAME} characters")
    if not _one_of(*KINDS)(kind):
        raise ValueError(f"its kind is {shown(kind)}, none of {', '.join(KINDS)}")
    for part, found in (("metadata", metadata), ("codec", codec)):
        if not isinstance(found, Mapping):
            raise ValueError(f"its {part} is {shown(found)}, no object")
        for key, value in found.items():
            if not _CHECKS[part].get(key, lambda _: False)(value):
                raise ValueError(f"its {part} may not have {shown(key)} = {shown(value)}")
    if "id" not in codec or len([rate for rate in RATES if rate in codec]) != 1:
        raise ValueError("its codec needs an id and one rate")
    if codec["id"] != CODECS.get(kind, codec["id"]):
        raise ValueError(f"its codec {codec['id']} is not for {kind} data")


def pack_header(name: str, kind: str, metadata: dict[str, Any], codec: dict[str, Any]) -> bytes:
    """The JSON, deflated.

    Raises
    ------
    ValueError
        If it is too long.
    """
    described = json.dumps(
        {"n": name, "k": kind, "m": metadata, "c": codec}, separators=(",", ":")
    ).encode("ascii")
    if len(described) > MOST_JSON:
        raise ValueError(
            f"{name}: metadata takes {len(described):,} bytes, at most {MOST_JSON:,} fit"
        )
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=_USUAL)
    return deflate.compress(described) + deflate.flush()


def unpack_header(data: bytes) -> tuple[str, str, dict[str, Any], dict[str, Any], bytes]:
    """Name, kind, metadata and codec, not checked yet, and the bytes that follow.

    Raises
    ------
    zlib.error, ValueError, RecursionError
        If they are none.
    """
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=_USUAL)
    described = inflate.decompress(data, MOST_JSON + 1)
    if not inflate.eof or not described.isascii():
        raise ValueError("it does not end, or is no ASCII")
    if sum(map(described.count, (b",", b":", b"[", b"{"))) > _MOST_MARKS:
        raise ValueError("it has too many parts")
    header = json.loads(described)
    if not isinstance(header, dict) or sorted(header) != ["c", "k", "m", "n"]:
        raise ValueError("it is no object of n, k, m and c")
    return header["n"], header["k"], header["m"], header["c"], inflate.unused_data
