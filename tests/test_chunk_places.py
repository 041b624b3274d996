"""Nothing is silent: chunks that are lost, exchanged or damaged are found, wherever they lie."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner
from zarr.storage import MemoryStore

from coinpp_xr import COINppCodec, CorruptPayloadError
from coinpp_xr.archiving import archive, decompress
from coinpp_xr.archiving.checking import here, look_through
from coinpp_xr.archiving.places import Place
from coinpp_xr.bitstream import Payload, Tag
from coinpp_xr.chunk_places import places_of, placing_array
from coinpp_xr.cli import app
from coinpp_xr.stores import payloads_in

RATE = {"max_error": 0.5, "model": "none", "chunk_time": 4, "effort": "fast"}


@pytest.fixture(scope="module")
def globes() -> xr.Dataset:
    """Twelve globes of 4 × 8 in three chunks, of which the second has no values."""
    values = np.random.default_rng(0).normal(280, 5, (12, 4, 8)).astype("f4")
    values[4:8] = np.nan
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), values, {"units": "K"})},
        {
            "time": pd.date_range("2001-01-01", periods=12, freq="6h"),
            "lat": [67.5, 22.5, -22.5, -67.5],
            "lon": np.arange(0, 360, 45.0),
        },
    )


@pytest.fixture(scope="module")
def written(globes, tmp_path_factory) -> dict[str, Path]:
    """The same in a store, in an archive, in one with shards, and by xarray alone."""
    folder = tmp_path_factory.mktemp("written")
    globes.coinpp.to_zarr(folder / "store", **RATE)
    archive(globes, folder / "archive", **RATE)
    archive(globes, folder / "shards", **RATE, shards=8)
    codec = COINppCodec("none", max_error=0.5)
    encoding = {"t": {"compressors": [codec], "chunks": (4, 4, 8)}}
    globes.to_zarr(folder / "plain", encoding=encoding, zarr_format=3, consolidated=False)
    return {path.name: path for path in folder.iterdir()}


def findings(store: Any, group: str = "") -> Any:
    return look_through(Place(store), zarr.open_group(store, path=group, mode="r"), here)


def reasons(store: Any) -> list[str]:
    return [str(problem) for problem in findings(store).problems]


# ---- what is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["store", "archive", "shards"])
def test_every_chunk_says_where_it_belongs(written, kind) -> None:
    """Also one of missing values only, and the half of a shard that is padding."""
    array = zarr.open_array(written[kind], path="t", mode="r")
    places = places_of(array)
    found = {}
    for where, payload in payloads_in(array, [slice(0, n) for n in array.shape]):
        index = tuple(w.start // n for w, n in zip(where, array.chunks, strict=True))
        found[index] = Payload.unpack(payload).sections[Tag.PLACE]
    assert found == {(i, 0, 0): places.of((i, 0, 0)) for i in range(3)}
    assert len(set(found.values())) == 3
    assert findings(written[kind]).n_placed == 3


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_places_stay_when_a_store_grows_or_moves(globes, tmp_path, zarr_format) -> None:
    store = tmp_path / "a.zarr"
    globes.isel(time=slice(8)).coinpp.to_zarr(store, **RATE, zarr_format=zarr_format, group="g")
    globes.isel(time=slice(8, None)).coinpp.to_zarr(store, append_dim="time", group="g")
    middle = globes.isel(time=slice(4, 8))
    middle.coinpp.to_zarr(store, region={"time": slice(4, 8)}, group="g")
    store.rename(tmp_path / "b.zarr")
    for place in (findings(tmp_path / "b.zarr", "g"), findings(tmp_path / "b.zarr/g")):
        assert place.problems == []
        assert place.n_placed == 3


def test_streams_stay_the_last_section(globes) -> None:
    payload = Payload.unpack(COINppCodec("none", max_error=0.5).encode(globes.t.values[:4]))
    streams = Payload(payload.kind, (4,), payload.dtype, {Tag.PYRAMID: b"1", Tag.STREAMS: b"2"})
    placed = streams.placed(b"12345678")
    assert list(placed.sections) == [Tag.PYRAMID, Tag.PLACE, Tag.STREAMS]
    assert Payload.unpack(placed.pack()).sections == placed.sections


def test_a_store_in_memory_is_verified(globes) -> None:
    store = MemoryStore()
    globes.coinpp.to_zarr(store, **RATE)
    assert globes.coinpp.verify(store).n_compared == 3
    with pytest.raises(CorruptPayloadError, match=r"beyond max_error=0.5 in"):
        (globes + 3).coinpp.verify(store)
    del store._store_dict["t/c/2/0/0"]
    with pytest.raises(
        CorruptPayloadError, match=r"time=2001-01-03T00:00 .* chunk 2/0/0: it is not"
    ):
        globes.coinpp.verify(store)


def test_chunks_may_not_be_left_out(globes, tmp_path) -> None:
    with pytest.raises(ValueError, match="empty or lost"):
        globes.coinpp.to_zarr(tmp_path / "a.zarr", **RATE, write_empty_chunks=False)


# ---- what is found ------------------------------------------------------------------------------


def _lost(store: Path) -> None:
    (store / "t/c/1/0/0").unlink()


def _exchanged(store: Path) -> None:
    first, third = store / "t/c/0/0/0", store / "t/c/2/0/0"
    content = first.read_bytes()
    first.write_bytes(third.read_bytes())
    third.write_bytes(content)


def _damaged(store: Path) -> None:
    content = bytearray((store / "t/c/2/0/0").read_bytes())
    content[len(content) // 2] ^= 1
    (store / "t/c/2/0/0").write_bytes(content)


def _coordinate_damaged(store: Path) -> None:
    (store / "lat/c/0").write_bytes(b"no zstd")


def _coordinate_lost(store: Path) -> None:
    shutil.rmtree(store / "time/c")


def _delayed(store: Path) -> None:
    """All times are a step later."""
    array = zarr.open_array(store, path="time", mode="r+")
    array[:] = array[:] + 6


def _from_elsewhere(store: Path) -> None:
    """Of the same index, but of another time."""
    array = zarr.open_array(store, path="time", mode="r+")
    before = array[:]
    array[4] += 1
    chunk = zarr.open_array(store, path="t", mode="r+")
    placing_array(chunk)[4:8] = np.zeros((4, 4, 8), "f4")
    array[:] = before


DAMAGE: list[tuple[Callable[[Path], None], list[str]]] = [
    (_lost, ["t time=2001-01-02T00:00 … 2001-01-02T18:00: chunk 1/0/0: it is not in the store"]),
    (_exchanged, ["chunk 0/0/0: it is not the chunk", "chunk 2/0/0: it is not the chunk"]),
    (_damaged, ["t time=2001-01-03T00:00 … 2001-01-03T18:00: chunk 2/0/0: payload is damaged"]),
    (_coordinate_damaged, ["lat: chunk 0: "]),
    # The first time is zero, as what is not there reads.
    (_coordinate_lost, ["time: 1 of its chunks are not in", "chunk 1/0/0: it", "chunk 2/0/0: it"]),
    (_delayed, ["t: no chunk was written where it lies: it had another name"]),
    (_from_elsewhere, ["chunk 1/0/0: it is not the chunk that was written here"]),
]


@pytest.mark.parametrize("kind", ["store", "archive"])
@pytest.mark.parametrize(("damage", "expected"), DAMAGE)
def test_damage_is_told_by_variable_time_and_chunk(
    written, globes, tmp_path, kind, damage, expected
) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(written[kind], store)
    damage(store)
    found = reasons(store)
    assert len(found) == len(expected), found
    for reason, part in zip(found, expected, strict=True):
        assert part in reason
        assert "\n" not in reason
    run = CliRunner().invoke
    with pytest.raises(CorruptPayloadError) as caught:
        decompress(store, tmp_path / "a.nc")
    assert expected[0] in str(caught.value)
    assert not (tmp_path / "a.nc").exists()
    inspected = run(app, ["inspect", str(store)])
    assert isinstance(inspected.exception, CorruptPayloadError)
    unread = damage is _coordinate_damaged
    assert run(app, ["inspect", str(store), "--no-check"]).exit_code == unread
    if kind == "archive":
        with pytest.raises(CorruptPayloadError, match="--forget"):
            archive(globes, store, **RATE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr"]


def test_nobody_is_kept_from_unpacking_what_is_left(written, tmp_path) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(written["store"], store)
    _lost(store)
    arguments = ["decompress", str(store), str(tmp_path / "a.nc"), "--no-check"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert (tmp_path / "a.nc").exists()


def test_shards_are_looked_into(written, tmp_path) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(written["shards"], store)
    shard = store / "t/c/1/0/0"
    shard.write_bytes(shard.read_bytes()[:-3])
    assert "the index of a shard is damaged" in reasons(store)[0]
    shutil.copy(store / "t/c/0/0/0", shard)
    assert "chunk 2/0/0: it is not the chunk" in reasons(store)[0]


def test_of_chunks_by_xarray_alone_nothing_is_known_and_said(written, tmp_path) -> None:
    """Zarr leaves out the one of missing values only."""
    found = findings(written["plain"])
    assert found.problems == []
    assert found.unplaced == {"t": 2}
    said = CliRunner().invoke(app, ["inspect", str(written["plain"])], catch_exceptions=False)
    assert "2 do not say where that is" in said.output
    store = tmp_path / "a.zarr"
    shutil.copytree(written["store"], store)
    shutil.copy(written["plain"] / "t/c/0/0/0", store / "t/c/0/0/0")
    assert "chunk 0/0/0: it does not say where it belongs" in reasons(store)[0]


def test_inspect_says_whether_a_chunk_is_in_its_place(written, tmp_path) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(written["store"], store)
    shutil.copy(store / "t/c/0/0/0", store / "t/c/2/0/0")
    for store_, key, expected in [
        (store, "t/0/0/0", "where it belongs"),
        (store, "t/2/0/0", "NOT where it belongs"),
        (written["plain"], "t/0/0/0", "does not say where it belongs"),
    ]:
        arguments = ["inspect", str(store_), "--chunk", key]
        assert expected in CliRunner().invoke(app, arguments, catch_exceptions=False).output
