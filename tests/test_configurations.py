"""What a store says of its codecs may be anything: a codec comes of it, or one line."""

from __future__ import annotations

import json
import tracemalloc
from time import process_time

import numpy as np
import pytest
import xarray as xr
import zarr

import coinpp_xr
from coinpp_xr import COINppArrayCodec, COINppCodec, CorruptPayloadError, ImagePatchCodec
from coinpp_xr.axes import axis_values
from coinpp_xr.errors import shown

BASE = {"id": "coinpp", "model": "none", "max_error": 0.5}


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "entries",
    [
        {"unknown": 1},
        {"\x1b[2J" * 100: 1},
        {"x" * 50_000_000: 1},
        {"max_error": True},
        {"max_error": "0.5"},
        {"max_error": 10**400},
        {"max_error": float("nan")},
        {"max_error": -1},
        {"max_error": 1j},
        {"max_error": [0.5]},
        {"max_error": {}},
        {"bits": 8.5, "max_error": None},
        {"time_axis": True},
        {"time_axis": 10**30},
        {"keep": "1"},
        {"keep": [True]},
        {"keep": [0.0] * 2000},
        {"keep": _nested(5000)},
        {"valid_range": [0, 10**400]},
        {"valid_range": [1, 0]},
        {"to_model_unit": [1, float("inf")]},
        {"effort": 3},
        {"effort": "y" * 50_000_000},
        {"model": 5},
        {"model": ["none"]},
        {"fingerprint": 10**400},
        {"embed_model": 5},
        {"latitude": [0, 1]},
        {"latitude": ["0", "1"], "longitude": [0, 1]},
        {"latitude": [[0, 1]], "longitude": [0, 1]},
        {"latitude": [0, None], "longitude": [0, 1]},
        {"latitude": [0.0] * (1 << 17), "longitude": [0, 1]},
        {"chunk": 5},
        {"chunk": [[2, -1], "<f4"]},
        {"chunk": [[2, 1], "nonsense"]},
    ],
    ids=lambda entries: str(next(iter(entries)))[:12],
)
def test_what_is_wrong_is_one_short_line(entries) -> None:
    config = BASE | entries
    for codec in (COINppCodec, COINppArrayCodec):
        tracemalloc.start()
        start = process_time()
        with pytest.raises(ValueError) as caught:
            codec.from_config(config)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
        tracemalloc.stop()
        assert process_time() - start < 2
        assert type(caught.value) is ValueError
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
        with pytest.raises(ValueError, match=r"."):
            codec.from_dict({"name": "coinpp", "configuration": config})


@pytest.mark.parametrize(
    "axis",
    [
        {},
        {"count": 10**12},
        {"count": True},
        {"count": "4"},
        {"count": 4, "step": 1e300},
        {"count": 4, "start": 10**400},
        {"count": 4, "start": "0", "step": 1},
        {"count": 4, "step": 1, "divisor": 0},
        {"count": 4, "step": 1, "dtype": "O"},
        {"count": 4, "step": 1, "other": 1},
        {"count": 4, "packed": "!" * 50_000_000},
        {"count": 4, "packed": 5},
        {"count": 4, "packed": "c-jFO0Q*P*"},
    ],
    ids=range(13),
)
def test_axes_that_claim_what_cannot_be(axis) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match="is damaged"):
        axis_values(axis)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_patch_codecs_check_theirs() -> None:
    for entries in (
        {"patch_size": [8192]}, {"patch_size": [[8]]}, {"patch_size": True}, {"channels": 5},
        {"band_cells": 1 << 31}, {"band_cells": 1.5}, {"target_psnr": 10**400},
        {"target_psnr": 1e300}, {"data_range": "1"}, {"latitude": [0, 1]},
    ):  # fmt: skip
        config = {"id": "coinpp-image", **({} if "target_psnr" in entries else {"target_rmse": 1})}
        with pytest.raises(ValueError, match=r"^.{1,300}$"):
            ImagePatchCodec.from_config(config | entries)


def test_users_see_their_typing_errors_as_before() -> None:
    with pytest.raises(TypeError, match="did you mean max_error"):
        COINppCodec(model="none", max_eror=1)
    with pytest.raises(ValueError, match="has no setting"):
        COINppCodec.from_config({"model": "none", "max_eror": 1})
    for data in (None, 5, "coinpp", [], {"configuration": "x"}):
        with pytest.raises(ValueError, match="configuration"):
            COINppCodec.from_config(data)


def test_values_in_messages_are_short() -> None:
    assert shown("a\x1b[31m\nb") == "'a\\x1b[31m\\nb'"
    assert shown(10**400) == "a whole number of more than 77 digits"
    assert len(shown("x" * 10**6)) <= 60
    assert len(shown(_nested(100_000))) <= 60
    assert len(shown({"a": ["b" * 100] * 100})) <= 60


# ---- Zarr 2: chunks that the configuration tells -------------------------------------------------


def _fields() -> xr.Dataset:
    values = np.random.default_rng(0).standard_normal((5, 4, 6)).astype("f4")
    return xr.Dataset({"t": (("time", "lat", "lon"), values)})


def test_a_store_of_format_2_tells_its_codec_what_chunks_it_has(tmp_path) -> None:
    codec = COINppCodec("none", max_error=0.1)
    encoding = {"t": {"compressors": [codec], "chunks": (2, 4, 6)}}
    _fields().to_zarr(tmp_path / "2.zarr", encoding=encoding, zarr_format=2, consolidated=False)
    told = json.loads((tmp_path / "2.zarr/t/.zarray").read_text())["compressor"]
    assert told["chunk"] == [[2, 4, 6], "<f4"]
    assert codec.chunk is None
    opened = xr.open_zarr(tmp_path / "2.zarr", consolidated=False)
    assert float(abs(opened.t - _fields().t).max()) <= 0.1

    # A payload of something else is refused, however small what it claims is.
    (tmp_path / "2.zarr/t/0.0.0").write_bytes(codec.encode(np.ones((3, 4, 6), "f4")))
    with pytest.raises(CorruptPayloadError, match="the store expects"):
        opened.t.load()

    # Written again in other chunks and formats, it tells those, or needs not.
    for zarr_format, chunks in ((2, (5, 4, 6)), (3, (5, 4, 6))):
        path = tmp_path / f"again-{zarr_format}.zarr"
        fresh = _fields()
        fresh.t.encoding = opened.t.encoding | {"chunks": chunks, "preferred_chunks": {}}
        if zarr_format == 3:
            fresh.t.encoding = {"compressors": [codec.with_chunk((2, 4, 6), "f4")]}
        fresh.to_zarr(path, zarr_format=zarr_format, consolidated=False)
        assert xr.open_zarr(path, consolidated=False).t.load().shape == (5, 4, 6)


def test_codecs_that_are_told_their_chunks_take_no_others() -> None:
    codec = COINppCodec("none", max_error=0.1, chunk=((2, 4, 6), "<f4"))
    again = COINppCodec.from_config(codec.get_config())
    assert again == codec
    assert again.decode(again.encode(np.ones((2, 4, 6), ">f4"))).shape == (2, 4, 6)
    with pytest.raises(ValueError, match="made for chunks"):
        codec.encode(np.ones((3, 4, 6), "f4"))
    huge = COINppCodec.from_config(BASE | {"chunk": [[10**6, 10**6], "<f4"]})
    with pytest.raises(ValueError, match="max_decode_bytes"):
        huge.decode(codec.encode(np.ones((2, 4, 6), "f4")))


def test_more_than_readers_take_is_not_written(tmp_path) -> None:
    values = np.zeros((4, 8, 8), "f4")
    with coinpp_xr.config.set(max_decode_bytes=1000):
        for codec in (COINppCodec("none", max_error=0.1), ImagePatchCodec(target_rmse=1)):
            with pytest.raises(ValueError, match="max_decode_bytes"):
                codec.encode(values)
        # A store of format 3 says what its chunks hold.
        array = zarr.create_array(
            tmp_path / "3.zarr", data=values, chunks=(4, 8, 8),
            compressors=COINppCodec("none", max_error=0.1),
        )  # fmt: skip
        assert (array[:] == 0).all()
