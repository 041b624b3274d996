"""Real fields in a model: what they teach the coder of residuals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from coinpp_xr import COINppCodec, load_model
from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.models import Model
from coinpp_xr.reference import Reference


@pytest.fixture(scope="module")
def unseen(era5: xr.Dataset) -> xr.DataArray:
    """The six globes that are not in the shipped model."""
    return era5.t2m[6:]


def without_reference() -> Model:
    plain = replace(load_model("t2m-46x90"), reference=None)
    return load_model(replace(plain, name="t2m-46x90-plain"))


@pytest.mark.parametrize("effort", ["default", "fast"])
def test_it_saves_bytes_on_unseen_globes(unseen, effort) -> None:
    values = unseen.values
    payload = COINppCodec(max_error=0.5, effort=effort).encode(values)
    alone = COINppCodec(without_reference(), max_error=0.5, effort=effort).encode(values)
    assert Payload.unpack(payload).kind == Kind.RESIDUAL_FROM_MODEL
    assert len(payload) < 0.97 * len(alone)


def test_it_is_found_in_other_orders_of_rows_and_columns(unseen) -> None:
    turned = unseen.sortby("lat").roll(lon=45, roll_coords=True)
    turned = turned.assign_coords(lon=(turned.lon + 180) % 360 - 180)
    codec = COINppCodec(max_error=0.5, latitude=turned.lat.values, longitude=turned.lon.values)
    payload = codec.encode(turned.values)
    assert Payload.unpack(payload).kind == Kind.RESIDUAL_FROM_MODEL
    assert np.abs(codec.decode(payload) - turned.values.astype(np.float64)).max() <= 0.5


def test_other_grids_and_other_data_do_without(unseen) -> None:
    halved = unseen[:, :, ::2]
    codec = COINppCodec(max_error=0.5, latitude=halved.lat.values, longitude=halved.lon.values)
    assert Payload.unpack(codec.encode(halved.values)).kind == Kind.RESIDUAL
    anomaly = (unseen - unseen.mean("time")).values
    assert Payload.unpack(COINppCodec(max_error=0.5).encode(anomaly)).kind != (
        Kind.RESIDUAL_FROM_MODEL
    )


def test_a_reference_is_part_of_the_fingerprint_and_survives_the_file(tmp_path) -> None:
    model = load_model("t2m-46x90")
    assert without_reference().fingerprint != model.fingerprint
    again = Model.from_file(model.save(tmp_path / "again.safetensors"))
    assert again.reference is not None
    assert model.reference is not None
    np.testing.assert_array_equal(again.reference.numbers, model.reference.numbers)


def test_a_payload_that_wants_what_its_model_lacks_is_refused(unseen) -> None:
    payload = Payload.unpack(COINppCodec(max_error=0.5).encode(unseen.values))
    plain = without_reference()
    forged = Payload(**{**vars(payload), "fingerprint": plain.fingerprint}).pack()
    with pytest.raises(CorruptPayloadError, match="a reference that the model does not have"):
        COINppCodec(plain, max_error=0.5).decode(forged)


def test_the_same_points_are_found_and_others_are_not() -> None:
    numbers = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    reference = Reference(numbers, np.array([60.0, 0, -60]), np.array([0.0, 90, 180, 270]))
    same = reference.on(SphereGrid(np.array([-60.0, 0, 60]), np.array([-90.0, 0, 90, 180])))
    np.testing.assert_array_equal(same, numbers[:, ::-1][:, :, [3, 0, 1, 2]])
    assert reference.on(SphereGrid(np.array([50.0, 0, -60]), reference.longitude)) is None
    assert reference.on(SphereGrid(reference.latitude, np.array([0.0, 120, 240]))) is None
