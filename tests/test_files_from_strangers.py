"""Hostile files: each is refused in one line, soon, and before it takes the memory it claims."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from refusals import refusal

from coinpp_xr import cli
from coinpp_xr.compressed_file import compress
from coinpp_xr.data import Media, load_items
from coinpp_xr.data.image_files import write_tiff
from coinpp_xr.data.media import read_media
from coinpp_xr.file_header import _USUAL
from coinpp_xr.notebook_html import table
from coinpp_xr.settings import config
from coinpp_xr.text_tables import Column, plain_text, printable, text_tables
from coinpp_xr.training import TrainingConfig

imagecodecs = pytest.importorskip("imagecodecs")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("nibabel")

GIGABYTE = 1 << 30
SPARE = 64 << 20
PIXELS = np.arange(300, dtype=np.uint8).reshape(15, 20)
EVIL = "\x1b]0;owned\x07\x1b[31m\u202ered\x9b2J[red]\r\n<script>"


# ---- files --------------------------------------------------------------------------------------


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def ihdr(columns: int, rows: int, depth: int = 8, colours: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colours, 0, 0, 0)


SOME = (b"IDAT", zlib.compress(bytes(1000)))
END = (b"IEND", b"")


def tiff(tags: dict[int, tuple[int, int, int]], *, then: int = 0, data: bytes = bytes(64)) -> bytes:
    """One page: tag → type, count, value."""
    entries = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    return (
        struct.pack("<2sHI", b"II", 42, 8)
        + struct.pack("<H", len(tags))
        + entries
        + (struct.pack("<I", then) + data)
    )


def page(columns: int, rows: int, **more: int) -> dict[int, tuple[int, int, int]]:
    values = {256: columns, 257: rows, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: rows, 279: 64}
    values |= {int(tag[1:]): value for tag, value in more.items()}
    return {tag: (4, 1, value) for tag, value in values.items()}


def jpeg(rows: int, columns: int, mark: int = 0xC0, scans: int = 1) -> bytes:
    content = bytearray(imagecodecs.jpeg_encode(PIXELS))
    at = content.index(b"\xff\xc0")
    content[at + 1] = mark
    content[at + 5 : at + 9] = struct.pack(">HH", rows, columns)
    start = content.index(b"\xff\xda")
    return bytes(content[:start] + content[start:-2] * scans + b"\xff\xd9")


def nifti(dims: tuple[int, ...], *, start: float = 352, kind: int = 4, data: bytes = b"") -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(dims), *(*dims, 1, 1, 1, 1, 1, 1, 1)[:7])
    struct.pack_into("<hh", header, 70, kind, 16)
    struct.pack_into("<f", header, 108, start)
    header[344:348] = b"n+1\0"
    return bytes(header) + data


def nifti2(dims: tuple[int, ...]) -> bytes:
    header = bytearray(544)
    struct.pack_into("<i8s", header, 0, 540, b"n+2\0\r\n\x1a\n")
    struct.pack_into("<hh", header, 12, 4, 16)
    struct.pack_into("<8q", header, 16, len(dims), *(*dims, 1, 1, 1, 1, 1, 1, 1)[:7])
    struct.pack_into("<q", header, 168, 544)
    return bytes(header)


def flac(samples: int, *, channels: int = 2) -> bytes:
    """A short file that says it is longer."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((4000, channels), np.int16), 44100, "PCM_16", format="FLAC")
    content = bytearray(file.getvalue())
    counted = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    content[18:26] = counted.to_bytes(8, "big")
    content[26:42] = bytes(16)  # no MD5
    return bytes(content)


def wav(size: int, *, name: bytes = b"RIFF", channels: int = 1, code: int = 1) -> bytes:
    form = struct.pack("<HHIIHH", code, channels, 8000, 16000, 2, 16)
    return (
        name
        + struct.pack("<I", 36)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + (b"data" + struct.pack("<I", size) + bytes(64))
    )


def npy(text: str) -> bytes:
    text += " " * (63 - (len(text) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


def npy_of(descr: str, shape: str) -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")


IMAGE = compress(Media("image", PIXELS, {"format": "PNG"}), "i.png", "image", {"max_error": 1})
HEADER = {"n": "i.png", "k": "image", "m": {"format": "PNG"}, "c": IMAGE.codec}


def coinpp(header: Any, payload: bytes = IMAGE.payload) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=_USUAL)
    body = b"CNPF\x01" + deflate.compress(text) + deflate.flush() + payload
    return body + zlib.crc32(body).to_bytes(4, "little")


def changed(**parts: dict[str, Any]) -> bytes:
    """With other entries in metadata and codec; None takes one out."""
    header: dict[str, Any] = dict(HEADER)
    for part, entries in parts.items():
        merged = header[part] | entries
        header[part] = {key: value for key, value in merged.items() if value is not None}
    return coinpp(header)


MEDIA: dict[str, Callable[[], bytes]] = {
    # Claimed beyond any limit, and beyond what the bytes can hold.
    "huge.png": lambda: png(ihdr(1 << 30, 1 << 30), SOME, END),
    "large.png": lambda: png(ihdr(20_000, 20_000), SOME, END),
    "deep.png": lambda: png(ihdr(9000, 9000, 16, 6), SOME, END),
    "palette.png": lambda: png(ihdr(60_000, 60_000, 1, 3), (b"PLTE", bytes(6)), SOME, END),
    "colours.png": lambda: png(ihdr(10, 10, 8, 7), SOME, END),
    "twice.png": lambda: png(ihdr(10, 10), ihdr(30_000, 30_000), SOME, END),
    "late.png": lambda: png((b"tEXt", b"a\0b"), ihdr(10, 10), SOME, END),
    "short.png": lambda: png((b"IHDR", b"\0"), SOME, END),
    "endless.png": lambda: png(ihdr(10, 10), *[(b"IDAT", b"")] * (1 << 18)),
    "huge.tif": lambda: tiff(page(1 << 31, 1 << 31)),
    "large.tif": lambda: tiff(page(30_000, 30_000)),
    "packed.tif": lambda: tiff(page(30_000, 30_000, t259=8)),
    "fax.tif": lambda: tiff(page(1 << 20, 1 << 20, t258=1, t259=4)),
    "signed.tif": lambda: tiff({**page(20, 20), 256: (9, 1, 1 << 30), 257: (9, 1, 1 << 30)}),
    "channels.tif": lambda: tiff(page(20, 20, t277=1 << 30)),
    "tile.tif": lambda: tiff(page(8, 8, t322=1 << 15, t323=1 << 15, t324=8, t325=64)),
    "nothing.tif": lambda: tiff(page(0, 0)),
    "loop.tif": lambda: tiff(page(4, 4), then=8),
    "overlap.tif": lambda: b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 60_000) * 4000,
    "many.tif": lambda: struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", 1 << 60),
    "huge.jpg": lambda: jpeg(65_500, 65_500),
    "large.jpg": lambda: jpeg(20_000, 20_000),
    "arithmetic.jpg": lambda: jpeg(65_500, 65_500, mark=0xC9),
    "lossless.jpg": lambda: jpeg(65_500, 65_500, mark=0xC3),
    "scans.jpg": lambda: jpeg(15, 20, scans=300),
    "frameless.jpg": lambda: jpeg(15, 20, mark=0xFE),
    "huge.nii": lambda: nifti((32_000, 32_000, 32_000)),
    "short.nii": lambda: nifti((300, 300, 300)),
    "far.nii": lambda: nifti((2, 2, 2), start=3e38, data=bytes(16)),
    "inside.nii": lambda: nifti((2, 2, 2), start=8, data=bytes(16)),
    "nan.nii": lambda: nifti((2, 2, 2), start=np.nan, data=bytes(16)),
    "infinite.nii": lambda: nifti((2, 2, 2), start=np.inf, data=bytes(16)),
    "before.nii": lambda: nifti((2, 2, 2), start=1 << 24, data=bytes(1 << 10)),
    "negative.nii": lambda: nifti((2, -2, 2), data=bytes(16)),
    "kind.nii": lambda: nifti((2, 2, 2), kind=999, data=bytes(16)),
    "axes.nii": lambda: nifti((2, 2, 2, 2, 2, 2, 2), data=bytes(256)),
    "huge2.nii": lambda: nifti2((1 << 40, 1 << 40, 1 << 40)),
    "bomb.nii.gz": lambda: gzip.compress(nifti((900, 900, 600), data=bytes(1 << 22))),
    "limit.nii.gz": lambda: gzip.compress(nifti((3000, 3000, 3000), data=bytes(1 << 20))),
    "cut.nii.gz": lambda: gzip.compress(nifti((40, 40, 40), data=bytes(128_000)))[:-9],
    "huge.flac": lambda: flac((1 << 36) - 1),
    "large.flac": lambda: flac(200_000_000),
    "cut.flac": lambda: flac(1_000_000),
    "huge.wav": lambda: wav((1 << 32) - 16),
    "channels.wav": lambda: wav(64, channels=65535),
    "code.wav": lambda: wav(64, code=0x55),
    "other.wav": lambda: b"OggS" + bytes(100),
    "long.npy": lambda: npy_of("'<f8'", "(1 << 40,)"),
    "huge.npy": lambda: npy_of("'<f8'", f"({1 << 40},)"),
    "negative.npy": lambda: npy_of("'<f8'", "(-1, 2)"),
    "object.npy": lambda: npy_of("'|O'", "(3,)"),
    "nothing.npy": lambda: npy_of("'|V0'", f"({1 << 60},)"),
    "wide.npy": lambda: npy_of("'|S2147483647'", "(3,)"),
    "deep.npy": lambda: npy("(" * 4000),
    "axes.npy": lambda: npy_of("'<f8'", "(" + "1," * 200 + ")"),
    "text.npy": lambda: npy("__import__('os').system('true')"),
}  # fmt: skip

COMPRESSED: dict[str, Callable[[], bytes]] = {
    "psnr": lambda: changed(c={"max_error": None, "target_psnr": 10**400}),
    "digits": lambda: coinpp(json.dumps(HEADER).replace('"i.png"', "9" * 9999).encode()),
    "left_out": lambda: changed(m={"left_out": 5}),
    "left_out of numbers": lambda: changed(m={"left_out": [5]}),
    "path": lambda: changed(c={"model": "/etc/passwd"}),
    "path up": lambda: changed(c={"model": "../mine"}),
    "model of another type": lambda: changed(c={"model": {"a": 1}}),
    "fingerprint": lambda: changed(c={"fingerprint": "../../../../etc/pa"}),
    "two rates": lambda: changed(c={"bits": 8}),
    "no rate": lambda: changed(c={"max_error": None}),
    "rate of text": lambda: changed(c={"max_error": "1"}),
    "NaN": lambda: changed(c={"max_error": float("nan")}),
    "unknown setting": lambda: changed(c={"embed_model": "AAAA"}),
    "unknown metadata": lambda: changed(m={"note": "x"}),
    "codec of another kind": lambda: changed(c={"id": "coinpp-audio"}),
    "patch size": lambda: changed(c={"patch_size": [1 << 40] * 3}),
    "bands": lambda: changed(c={"band_cells": 0}),
    "sample rate": lambda: changed(m={"sample_rate": 10**400}),
    "slope": lambda: changed(m={"scl_slope": "2"}),
    "affine": lambda: changed(m={"affine": [[1]]}),
    "dpi": lambda: changed(m={"dpi": [-1, 1]}),
    "chunks": lambda: changed(m={"chunks": {"tEXt": "AAAA"}}),
    "pages": lambda: changed(m={"pages": True}),
    "base64": lambda: changed(m={"header": "\x1b[2J"}),
    "other pages": lambda: changed(m={"pages": 7}),
    "kind": lambda: coinpp(HEADER | {"k": "audio", "c": HEADER["c"] | {"id": "coinpp-audio"}},
                           compress(Media("array", np.zeros((4, 4, 4))), "a", "volume",
                                    {"max_error": 1}).payload),
    "voxels": lambda: coinpp({
        "n": "v.nii", "k": "volume",
        "m": {"header": "XAEAAAAAAA" + "A" * 46 + "AwAHAAcABwABAAEAAQABAA" + "A" * 400},
        "c": {"id": "coinpp-volume", "max_error": 1},
    }, compress(Media("volume", np.zeros((4, 4, 4))), "v", "volume", {"max_error": 1}).payload),
    "nested": lambda: coinpp(b"[" * 100_000),
    "nested within": lambda: coinpp(
        json.dumps(HEADER).replace('"PNG"', "[" * 60_000 + "]" * 60_000).encode()
    ),
    "many": lambda: coinpp(b"[" + b"{}," * 2_000_000 + b"{}]"),
    "long": lambda: coinpp(b'"' + b"a" * (1 << 25) + b'"'),
    "endless": lambda: coinpp(b" " * (1 << 27)),
    "not ASCII": lambda: coinpp(json.dumps(HEADER).replace("i.png", "é").encode()),
    "list": lambda: coinpp([1, 2]),
    "more": lambda: coinpp(HEADER | {"p": "/etc"}),
    "name": lambda: coinpp(HEADER | {"n": 5}),
    "long name": lambda: coinpp(HEADER | {"n": "a" * 5000}),
    "no payload": lambda: coinpp(HEADER, b""),
    "half a payload": lambda: coinpp(HEADER, IMAGE.payload[:-9]),
    "two payloads": lambda: coinpp(HEADER, IMAGE.payload * 2),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def refused(capfd: Any, *arguments: str, seconds: float = 2.0, spare: int = SPARE) -> str:
    """What the command line says of it."""
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    spent, peak = time.perf_counter() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    said = capfd.readouterr()
    assert ended.value.code in (1, 2), said
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    assert said.err[:-1].isprintable(), said.err
    assert peak < spare, f"{peak:,} bytes"
    # Tracing makes everything several times slower.
    assert spent < 5 * seconds
    return str(said.err)


@pytest.mark.parametrize("name", MEDIA)
def test_a_media_file_that_claims_too_much_is_refused(
    name: str, tmp_path: Path, capfd: Any
) -> None:
    path = tmp_path / name
    path.write_bytes(MEDIA[name]())

    said = refused(capfd, "compress", str(path), spare=SPARE + 10 * path.stat().st_size)

    assert said.startswith(f"coinpp: {path}")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_file_that_says_what_it_may_not_is_refused(
    name: str, tmp_path: Path, capfd: Any
) -> None:
    path = tmp_path / "a.coinpp"
    path.write_bytes(COMPRESSED[name]())

    said = refused(capfd, "decompress", str(path))

    assert said.startswith(f"coinpp: {path}")
    assert list(tmp_path.iterdir()) == [path]


# ---- gridded data and training sets -------------------------------------------------------------


def unwritten(path: Path, n: int, *, coordinate: bool) -> None:
    """NetCDF of dimensions that no value was ever written along."""
    import netCDF4

    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("latitude", 8), ("longitude", 16), ("time", n)):
            file.createDimension(name, size)
            if name != "time" or coordinate:
                axis = file.createVariable(name, "f8", (name,), chunksizes=(min(size, 1024),))
                axis.units = {"latitude": "degrees_north", "longitude": "degrees_east"}.get(
                    name, "1"
                )
        file["latitude"][:], file["longitude"][:] = np.linspace(70, -70, 8), np.arange(16) * 22.5
        dims = ("time", "latitude", "longitude")
        file.createVariable("t", "f4", dims, chunksizes=(1, 8, 16))


def constant_grib(path: Path, n_lon: int, n_lat: int) -> None:
    """One value for all points of a grid, which takes no bits."""
    import eccodes

    message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    start = bytearray(eccodes.codes_get_message(message))
    eccodes.codes_release(message)
    at = 16
    while start[at + 4] != 3:
        at += int.from_bytes(start[at : at + 4], "big")
    struct.pack_into(">I", start, at + 6, min(n_lon * n_lat, (1 << 32) - 1))
    struct.pack_into(">II", start, at + 30, n_lon, n_lat)
    path.write_bytes(start)


def npz(path: Path, content: bytes, packed: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", packed) as file:
        for name in ("latitude", "longitude", "temperature"):
            file.writestr(f"{name}.npy", content)


def cdf(n: int) -> bytes:
    """A classic header that claims a variable of n records."""
    name = struct.pack(">I", 1) + b"t\0\0\0"
    dims = struct.pack(">II", 10, 1) + name + struct.pack(">I", 0)
    variable = name + struct.pack(">II", 1, 0) + bytes(8) + struct.pack(">III", 6, 8, 200)
    return b"CDF\1" + struct.pack(">I", n) + dims + bytes(8) + struct.pack(">II", 11, 1) + variable


GRIDDED: dict[str, Callable[[Path], Any]] = {
    "values.nc": lambda path: unwritten(path, 1 << 24, coordinate=False),
    "axis.nc": lambda path: unwritten(path, 1 << 30, coordinate=True),
    "classic.nc": lambda path: path.write_bytes(cdf(1 << 30)),
    "cut.nc": lambda path: path.write_bytes(b"CDF\1" + b"\x7f\xff\xff\xff" * 8),
    "cut.grib": lambda path: path.write_bytes(b"GRIB\xff\xff\xff\x02" + b"\x7f" * 8 + bytes(99)),
    "huge.grib": lambda path: constant_grib(path, 60_000, 60_000),
    "bomb.npz": lambda path: npz(path, npy_of("'<f8'", f"({1 << 30},)")),
    "zeros.npz": lambda path: npz(path, bytes(1 << 24)),
    "bzip2.npz": lambda path: npz(path, bytes(1 << 20), zipfile.ZIP_BZIP2),
    "no.npz": lambda path: path.write_bytes(b"PK\3\4" + bytes(99)),
    "no.zip": lambda path: path.write_bytes(b"PK\3\4" + bytes(99)),
}


@pytest.mark.parametrize("name", GRIDDED)
def test_fields_that_claim_too_much_are_refused(name: str, tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / name
    GRIDDED[name](path)

    said = refused(
        capfd, "compare", str(path), "--max-error", "1", "--whole", "--chunk", "99999999"
    )

    assert name in said


def test_a_sample_is_read_of_a_file_that_claims_much(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "values.nc"
    unwritten(path, 1 << 24, coordinate=False)

    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(path), "--max-error", "1e30", "--peers", "sz3"])

    assert ended.value.code in (None, 0)
    assert "a sample of 16777216" in capfd.readouterr().out


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def tuples(levels: int) -> bytes:
    return b"(" + b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(levels))


BATCHES: dict[str, Callable[[], bytes]] = {
    "memory": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
    "remembered": lambda: pickled(b"}r\xff\xff\xff\x3f"),
    "repeated": lambda: pickled(b")q\x00", tuples(60), b"}"),
    "command": lambda: pickle.dumps(os.getcwd, 2),
    "extension": lambda: pickled(b"\x82\x01"),
    "number": lambda: pickled(b"\x8b\xff\xff\xff\x7f"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_pickles_that_do_more_than_hold_images_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(BATCHES[name]())

    assert "data_batch_1" in refusal(lambda: load_items(path, "cifar10"))


def test_volumes_of_training_sets_are_in_their_own_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "raw").write_bytes(bytes(16 * 4 * 4 * 4))
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file.create_dataset(
            "reconstruction_rss", (16, 4, 4), "f4", external=[(tmp_path / "raw", 0, 1024)]
        )
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("reconstruction_rss", (16, 1 << 20, 1 << 20), "f4", chunks=(1, 64, 64))
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["reconstruction_rss"] = h5py.ExternalLink("outside.h5", "reconstruction_rss")
    for name, hint in (("outside", "another file"), ("link", "another file"), ("large", "claims")):
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "a") as file:
            file.attrs["acquisition"] = "AXT2"

        assert hint in refusal(lambda path=path: load_items(path, "fastmri"))


def test_devices_pipes_and_sparse_files_are_not_read(tmp_path: Path, capfd: Any) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "sparse.npy").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "device.png").symlink_to("/dev/zero")

    for name in ("pipe.png", "sparse.npy", "device.png"):
        for command in ("compress", "inspect", "decompress"):
            assert name in refused(capfd, command, str(tmp_path / name))


def test_a_larger_limit_is_what_the_message_says(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bytes(imagecodecs.png_encode(PIXELS)))

    with config.set(max_decode_bytes=250):
        assert "COINPP_XR_MAX_DECODE_BYTES" in refusal(lambda: read_media(path))
    assert read_media(path).values.shape == PIXELS.shape


@pytest.mark.parametrize(
    "change",
    [{"width": "64"}, {"width": 10**400}, {"omega0": np.nan}, {"omega0": 10**400}, {"depth": True},
     {"seed": None}, {"schedule": 3}, {"steps": 1.5}],
    ids=str,
)  # fmt: skip
def test_a_configuration_of_training_has_types_and_ranges(change: dict[str, Any]) -> None:
    assert next(iter(change)) in refusal(lambda: TrainingConfig(**{"latent_dim": 8} | change))


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../up.png", "/tmp/up.png", "..", ".", "", "a/b.png", "a\\b.png", "C:up.png", "C:\\up.png",
        "\\\\server\\up.png", "nul.png", "COM1.png", "con .x.png", "up.png:stream", "up.png.",
        "up.png ",
        "a\0.png", "\x1b[2J.png", "\u202egnp.exe", "a\nb.png", "\udce9.png", "up?.png",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_name_of_an_original_leads_nowhere_else(name: str, tmp_path: Path, capfd: Any) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "a.coinpp"
    path.write_bytes(replace(IMAGE, name=name).pack())

    said = refused(capfd, "decompress", str(path))

    assert "say -o" in said
    assert [*tmp_path.rglob("*")] == [folder, path]


def test_links_in_a_folder_are_not_followed(tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "a.coinpp").write_bytes(IMAGE.pack())
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    link = tmp_path / "i.png"
    for target in (victim, tmp_path / "not there"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)

        assert "exists" in refused(capfd, "decompress", str(tmp_path / "a.coinpp"))
    link.unlink()
    link.symlink_to(victim)
    with pytest.raises(SystemExit) as ended:
        cli.main(["decompress", str(tmp_path / "a.coinpp"), "--force"])
    assert ended.value.code == 0
    assert victim.read_bytes() == b"kept"
    assert not link.is_symlink()


# ---- terminals and pages ------------------------------------------------------------------------


def assert_harmless(said: str) -> None:
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said), ascii(
        said
    )


def test_control_characters_are_spelled_out() -> None:
    assert (
        printable("m s\u207b\u00b9 \u00b0C \u00b1\u00a0\u4e2d")
        == "m s\u207b\u00b9 \u00b0C \u00b1\u00a0\u4e2d"
    )
    assert printable("a\x1b[0m\u202e\udc80\n") == r"a\x1b[0m\u202e\udc80\n"
    assert printable("a\n\tb", keep="\n") == "a\n\\tb"


def test_tables_and_pages_show_hostile_names_as_text() -> None:
    shown = "".join(plain_text(t) for t in text_tables([Column(EVIL, [EVIL], least=4)], 200))
    page = table([(EVIL, "left")], [[EVIL]])

    for text in (shown, page):
        assert_harmless(text)
        assert "[red]" in text
    assert "<script>" not in page


def test_nothing_in_a_store_reaches_the_terminal(tmp_path: Path, capfd: Any) -> None:
    name = EVIL.replace("/", "")
    axes = {"latitude": np.linspace(70, -70, 8), "longitude": np.arange(16) * 22.5}
    values = np.random.default_rng(0).normal(0, 1, (2, 8, 16)).astype("f4")
    dataset = xr.Dataset(
        {name: (("time", *axes), values, {"units": EVIL, "long_name": EVIL})}, axes
    )
    dataset.attrs["title"] = EVIL
    source, store = tmp_path / "a.zarr", tmp_path / "b.zarr"
    dataset.to_zarr(source, zarr_format=3, consolidated=False)
    dataset.coinpp.to_zarr(store, max_error=0.1, model="none")
    commands = [
        ("inspect", str(store)),
        ("inspect", str(store), "--chunk", f"{name}/c/0/0/0"),
        ("decompress", str(store), str(tmp_path / f"{name}.nc")),
        ("compress", str(tmp_path / f"{name}.png")),
        ("compare", str(source), "--max-error", "0.1", "--model", "none", "--peers", "zfp"),
    ]

    for command in commands:
        warnings.simplefilter("default")
        with pytest.raises(SystemExit):
            cli.main(command)
        said = capfd.readouterr()
        assert_harmless(said.out + said.err)
        assert r"\x1b" in said.out + said.err


def test_metadata_and_messages_of_a_file_are_spelled_out(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "a.coinpp"
    metadata = {
        "format": "PNG",
        "left_out": [EVIL.replace("\x1b", "\u009b").replace("\r\n", "").replace("\x07", "")],
    }
    path.write_bytes(replace(IMAGE, name="\x1b[2J", metadata=metadata).pack())
    for arguments in (("inspect", str(path)), ("decompress", str(path), str(tmp_path / "a.png"))):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        said = capfd.readouterr()
        assert_harmless(said.out + said.err)
        assert r"\x9b" in said.out + said.err


@pytest.mark.parametrize("shape", [(0, 4), (4, 0, 3), (2, 0, 4)])
def test_an_image_of_nothing_is_no_tiff(shape: tuple[int, ...]) -> None:
    metadata = {"pages": 2} if shape[0] == 2 else {}
    with pytest.raises(ValueError, match="TIFF holds no image of shape"):
        write_tiff(np.zeros(shape, np.uint8), metadata)
