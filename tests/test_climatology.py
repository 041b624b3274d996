"""What an archive's fields share: models with a mean field of their own grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from coinpp_xr import COINppArrayCodec, COINppCodec
from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.climatology import Climatology
from coinpp_xr.climatology_building import climatology_model
from coinpp_xr.codecs.base import UNIVERSAL
from coinpp_xr.compact import pack_model, unpack_model
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.models import Model, load_model

SHAPE = (128, 136)
BOUND = 0.1


def made_archive(times: int = 12) -> xr.DataArray:
    """Smooth weather above a surface that neighbours do not tell; a gap that is always there."""
    rng = np.random.default_rng(3)
    grid = next(SphereGrid.usual_layouts(*SHAPE))
    lat, lon = np.radians(grid.latitude)[:, None], np.radians(grid.longitude)
    surface = 280 + 5 * rng.standard_normal(SHAPE)
    step = np.arange(times)[:, None, None]
    values = surface + 8 * np.sin(3 * lat + 0.7 * step) * np.cos(2 * lon - 0.9 * step)
    values += 0.1 * rng.standard_normal(values.shape)
    values[:, 40:50, 20:35] = np.nan
    return xr.DataArray(
        values.astype("f4"), dims=("time", "latitude", "longitude"), name="t",
        coords={"latitude": grid.latitude, "longitude": grid.longitude}, attrs={"units": "K"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def archive() -> xr.DataArray:
    return made_archive()


@pytest.fixture(scope="module")
def model(archive) -> Model:
    """With a network that was hardly trained."""
    found, tried = climatology_model(
        archive, max_error=BOUND, globes=10_000, max_minutes=0.02, name="made"
    )
    assert found is not None
    assert [one.label for one in tried if one.model is None] == ["without a model"]
    return found


def error(decoded: np.ndarray, values: np.ndarray) -> float:
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(values))
    return float(np.nanmax(np.abs(decoded.astype(np.float64) - values)))


@pytest.mark.parametrize("effort", ["fast", "default", "best"])
def test_unseen_fields_take_far_fewer_bytes(archive, model, effort) -> None:
    unseen = archive.values[-1]
    codec = COINppCodec(model, max_error=BOUND, effort=effort)
    payload = codec.encode(unseen)
    assert Payload.unpack(payload).kind == Kind.PYRAMID_FROM_MODEL
    alone = COINppCodec(UNIVERSAL, max_error=BOUND, effort=effort).encode(unseen)
    assert len(payload) < 0.7 * len(alone)
    assert error(codec.decode(payload), unseen) <= BOUND


def test_the_mean_is_kept_as_exactly_as_pays(archive) -> None:
    few, _ = climatology_model(archive, max_error=BOUND, globes=20, max_minutes=0.01)
    many, _ = climatology_model(archive, max_error=BOUND, globes=10**6, max_minutes=0.05)
    assert few is not None
    assert many is not None
    assert few.climatology is not None
    assert many.climatology is not None
    assert len(few.climatology.packed) < len(many.climatology.packed)


def test_an_archive_that_shares_nothing_gets_no_model(archive) -> None:
    noise = np.random.default_rng(0).standard_normal((6, *archive.shape[1:]))
    model, tried = climatology_model(archive[:6].copy(data=noise), max_error=0.1, max_minutes=0.01)
    assert model is None
    assert len(tried) > 1


def test_other_orders_of_rows_and_columns_are_found(archive, model) -> None:
    turned = archive.sortby("latitude").roll(longitude=SHAPE[1] // 2, roll_coords=True)
    values = turned.values[-1]
    codec = COINppCodec(
        model, max_error=BOUND, latitude=turned.latitude.values,
        longitude=(turned.longitude.values + 180) % 360 - 180,
    )  # fmt: skip
    assert Payload.unpack(codec.encode(values)).kind == Kind.PYRAMID_FROM_MODEL
    assert error(codec.decode(codec.encode(values)), values) <= BOUND
    # Without coordinates the usual layout that looks most like it is taken.
    south_first = archive.values[-1, ::-1]
    codec = COINppCodec(model, max_error=BOUND)
    payload = Payload.unpack(codec.encode(south_first))
    assert payload.kind == Kind.PYRAMID_FROM_MODEL
    assert payload.layout > 0
    assert error(codec.decode(codec.encode(south_first)), south_first) <= BOUND


def test_other_grids_other_data_and_relative_bounds_do_without(archive, model) -> None:
    values = archive.values[-1]
    codec = COINppCodec(model, max_error=BOUND)
    for other in (values[::2], values + 1000, np.nan_to_num(values - 280) + 280.5):
        payload = codec.encode(other)
        assert error(codec.decode(payload), other) <= BOUND
    assert Payload.unpack(codec.encode(values[::2])).kind != Kind.PYRAMID_FROM_MODEL
    relative = COINppCodec(model, max_error_relative=1e-3)
    assert Payload.unpack(relative.encode(values)).kind == Kind.PYRAMID
    assert error(relative.decode(relative.encode(values)), values) <= 0.31


def test_steps_of_a_sequence_are_read_one_by_one(archive, model, tmp_path) -> None:
    store = zarr.create_array(
        tmp_path / "a.zarr", shape=archive.shape, chunks=archive.shape, dtype="f4",
        serializer=COINppArrayCodec(model, max_error=BOUND), compressors=None,
    )  # fmt: skip
    store[:] = archive.values
    assert error(store[3], archive.values[3]) <= BOUND
    np.testing.assert_array_equal(store[:][3], store[3])


def test_files_and_embedded_models_are_the_same(archive, model, tmp_path) -> None:
    again = Model.from_file(model.save(tmp_path / "again.safetensors"))
    assert again.fingerprint == model.fingerprint
    embedded = unpack_model(pack_model(model))
    assert embedded.fingerprint == model.fingerprint
    codec = COINppCodec(model, max_error=BOUND, embed_model=True)
    payload = codec.encode(archive.values[-1])
    other = COINppCodec.from_config(codec.get_config())
    np.testing.assert_array_equal(other.decode(payload), codec.decode(payload))
    text = repr(model) + model._repr_html_()
    assert "128 × 136" in text


def test_data_in_another_unit(archive, model) -> None:
    celsius = archive.values[-1] - np.float32(273.15)
    codec = COINppCodec(model, max_error=BOUND, to_model_unit=(1, 273.15))
    payload = codec.encode(celsius)
    assert Payload.unpack(payload).kind == Kind.PYRAMID_FROM_MODEL
    assert error(codec.decode(payload), celsius) <= BOUND


def test_a_model_without_what_a_payload_refers_to_is_refused(archive, model) -> None:
    payload = Payload.unpack(COINppCodec(model, max_error=BOUND).encode(archive.values[-1]))
    bare = load_model(replace(model, name="bare", climatology=None))
    forged = replace(payload, fingerprint=bare.fingerprint).pack()
    with pytest.raises(CorruptPayloadError, match="a background that its model does not have"):
        COINppCodec(bare, max_error=BOUND).decode(forged)
    assert model.climatology is not None
    damaged = replace(model.climatology, packed=model.climatology.packed[:-40])
    cut = load_model(replace(model, name="cut", climatology=damaged))
    forged = replace(payload, fingerprint=cut.fingerprint).pack()
    with pytest.raises(CorruptPayloadError):
        COINppCodec(cut, max_error=BOUND).decode(forged)


def test_a_network_goes_on_from_its_checkpoint(archive, tmp_path) -> None:
    state = tmp_path / "state.pt"
    for _ in range(2):
        climatology_model(archive, max_error=BOUND, max_minutes=0.02, checkpoint=state)
        assert state.exists()


def test_what_makes_no_sense_is_refused(archive) -> None:
    with pytest.raises(ValueError, match="needs one axis before latitude and longitude; select"):
        climatology_model(archive.expand_dims(level=2), max_error=0.1)
    with pytest.raises(ValueError, match="has 2 times; its mean field needs three or more"):
        climatology_model(archive[:2], max_error=0.1)
    with pytest.raises(ValueError, match="holds no finite values"):
        climatology_model(archive.where(False), max_error=0.1)
    with pytest.raises(ValueError, match="the last tenth of the times holds no finite values"):
        climatology_model(archive.where(archive.time < 11), max_error=0.1)
    with pytest.raises(ValueError, match="max_error must be a number above zero, got 0"):
        climatology_model(archive, max_error=0)
    with pytest.raises(TypeError, match="did you mean globes"):
        climatology_model(archive, max_error=0.1, globe=3)
    grid = SphereGrid(archive.latitude.values, archive.longitude.values)
    with pytest.raises(ValueError, match="a mean field needs values"):
        Climatology.of(np.full(SHAPE, np.nan), grid, 0.1)


def test_files_are_read_in_parts(archive, model, tmp_path) -> None:
    path = Path(tmp_path / "weather.nc")
    archive.to_dataset().to_netcdf(path)
    found, _ = climatology_model(
        path, variable="t", max_error=BOUND, globes=10_000, max_minutes=0.02, name="read"
    )
    assert found is not None
    assert found.card["units"] == "K"
    assert found.card["training_items"] == model.card["training_items"] == 11
    assert found.offset == pytest.approx(model.offset)
