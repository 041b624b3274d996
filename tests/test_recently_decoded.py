"""Chunks that are decoded as a whole are decoded once for a loop over their steps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr

import coinpp_xr
from coinpp_xr import COINppCodec, CorruptPayloadError
from coinpp_xr.codecs import recently_decoded, sphere

VALUES = np.random.default_rng(0).normal(size=(6, 10, 20)).cumsum(axis=2).astype(np.float32)


@pytest.fixture(autouse=True)
def nothing_kept():
    with coinpp_xr.config.set(decoded_cache_bytes=2**27):
        recently_decoded.forget_all()
        yield
        recently_decoded.forget_all()


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Lengths of the payloads that were really decoded."""
    lengths = []
    decode = sphere.decode_chunk

    def counting(data, *args, **options):
        lengths.append(len(data))
        return decode(data, *args, **options)

    monkeypatch.setattr(sphere, "decode_chunk", counting)
    return lengths


def codec(error: float = 0.1) -> COINppCodec:
    return COINppCodec(model="none", max_error=error)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_loop_over_steps_decodes_a_chunk_once(tmp_path, decoded, zarr_format) -> None:
    ds = xr.Dataset({"t": (("time", "latitude", "longitude"), VALUES)})
    ds.to_zarr(
        tmp_path, zarr_format=zarr_format, encoding={"t": {"compressors": [codec()]}},
        consolidated=False,
    )  # fmt: skip
    for step in range(6):
        one = xr.open_zarr(tmp_path, chunks=None, consolidated=False)["t"].isel(time=step).values
        assert np.abs(one - VALUES[step]).max() <= 0.1
    assert len(decoded) == 1


def test_nothing_is_kept_where_that_is_turned_off(decoded) -> None:
    payload = codec().encode(VALUES)
    with coinpp_xr.config.set(decoded_cache_bytes=0):
        codec().decode(payload)
        codec().decode(payload)
    assert len(decoded) == 2


def test_the_oldest_is_given_up_for_the_newest(decoded) -> None:
    payloads = [codec().encode(VALUES + k) for k in range(3)]
    with coinpp_xr.config.set(decoded_cache_bytes=2 * VALUES.nbytes):
        for payload in (*payloads, payloads[2], payloads[1], payloads[0]):
            codec().decode(payload)
    assert len(decoded) == 4


def test_nothing_is_found_once_it_is_turned_off(decoded) -> None:
    payload = codec().encode(VALUES)
    codec().decode(payload)
    with coinpp_xr.config.set(decoded_cache_bytes=0):
        codec().decode(payload)
    assert len(decoded) == 2


def test_what_a_reader_changes_is_its_own() -> None:
    payload = codec().encode(VALUES)
    for _ in range(3):
        values = codec().decode(payload)
        assert np.abs(values - VALUES).max() <= 0.1
        values[:] = 7


def test_damage_is_found_every_time() -> None:
    payload = bytearray(codec().encode(VALUES))
    codec().decode(bytes(payload))
    payload[20] ^= 1
    for _ in range(2):
        with pytest.raises(CorruptPayloadError):
            codec().decode(bytes(payload))


def test_a_lower_limit_refuses_what_was_decoded_before() -> None:
    payload = codec().encode(VALUES)
    codec().decode(payload)
    with coinpp_xr.config.set(max_decode_bytes=10), pytest.raises(CorruptPayloadError):
        codec().decode(payload)


def test_threads_share_it() -> None:
    payload = codec().encode(VALUES)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: codec().decode(payload), range(40)))
    assert all((one == results[0]).all() for one in results)
