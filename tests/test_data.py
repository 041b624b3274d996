"""What can be loaded, what cannot and why, and how fields become training data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from refusals import refusal

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data import Fields, load_fields, to_training_data

LATITUDE = np.array([60.0, 0.0, -60.0])
LONGITUDE = np.array([0.0, 90.0, 180.0, 270.0])


def needs_data(test: Any) -> Any:
    reason = "COINPP_DATA does not name the data folder"
    return pytest.mark.data(
        pytest.mark.skipif("COINPP_DATA" not in os.environ, reason=reason)(test)
    )


def sample(name: str) -> Path:
    return Path(os.environ["COINPP_DATA"]) / name


def dataset(**changes: Any) -> xr.Dataset:
    """Two times of a temperature whose values count up in the order of storage."""
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    ds = xr.Dataset(
        {"t": (("time", "lat", "lon"), values, {"units": "K"})},
        coords={"time": [0, 6], "lat": LATITUDE, "lon": LONGITUDE},
    )
    return ds.assign(changes)


def counting(items: int, *, start: int = 0, latitude: np.ndarray = LATITUDE) -> Fields:
    """Fields that are constant in space; the values are start, start + 1, ..."""
    grid = SphereGrid(latitude, LONGITUDE)
    level = np.arange(start, start + items, dtype=np.float32)
    return Fields(np.broadcast_to(level[:, None, None], (items, *grid.shape)), grid, "t", "K")


def write_npz(path: Path, level: float, **changes: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    arrays = {
        "latitude": np.linspace(90, -90, 46),
        "longitude": np.arange(90) * 4.0,
        "temperature": np.full((46, 90), level),
    }
    np.savez(path, **(arrays | changes))


@pytest.fixture
def _torch() -> None:
    pytest.importorskip("torch")


with_torch = pytest.mark.usefixtures("_torch")


# ---- xarray objects ---------------------------------------------------------------------------


def test_a_data_array_becomes_float32_items_on_its_grid() -> None:
    array = dataset()["t"].astype(">f8")

    fields = load_fields(array)

    assert (fields.name, fields.units) == ("t", "K")
    assert (fields.values.dtype, fields.values.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(fields.values, array)
    np.testing.assert_array_equal(fields.grid.latitude, LATITUDE)
    np.testing.assert_array_equal(fields.grid.longitude, LONGITUDE)


def test_latitude_and_longitude_go_last_and_other_axes_become_items_in_order() -> None:
    members = xr.concat([dataset()["t"], dataset()["t"] + 100], "member")

    fields = load_fields(members.transpose("lon", "member", "lat", "time"))

    np.testing.assert_array_equal(fields.values, members.values.reshape(4, 3, 4))


def test_a_single_field_is_one_item() -> None:
    fields = load_fields(dataset()["t"].isel(time=0))

    assert fields.values.shape == (1, 3, 4)


def test_rows_keep_the_order_of_the_file() -> None:
    ascending = dataset().isel(lat=slice(None, None, -1))

    fields = load_fields(ascending)

    np.testing.assert_array_equal(fields.grid.latitude, LATITUDE[::-1])
    np.testing.assert_array_equal(fields.values[0, 0], [8, 9, 10, 11])


@pytest.mark.parametrize("names", [("Latitude", "LONGITUDE"), ("y", "x")])
def test_coordinates_without_attributes_are_known_by_their_usual_names(names: tuple) -> None:
    renamed = dataset().rename(dict(zip(("lat", "lon"), names, strict=True)))

    assert load_fields(renamed).values.shape == (2, 3, 4)


def test_coordinates_with_other_names_are_known_by_their_units() -> None:
    ds = dataset().rename(lat="rows", lon="columns")
    ds["rows"].attrs["units"] = "degrees_north"
    ds["columns"].attrs["units"] = "degrees_east"

    assert load_fields(ds).values.shape == (2, 3, 4)


def test_projected_coordinates_are_not_taken_for_degrees() -> None:
    ds = dataset().rename(lat="y", lon="x")
    ds["y"].attrs["units"] = ds["x"].attrs["units"] = "m"

    assert "lies on y, x: models train on axes" in refusal(lambda: load_fields(ds))


def test_the_only_float_variable_on_the_grid_is_chosen() -> None:
    ds = dataset(mask=dataset()["t"].astype(int), bounds=("time", [0.5, 1.5]))

    assert load_fields(ds).name == "t"


def test_of_several_variables_one_must_be_named() -> None:
    ds = dataset(u=dataset()["t"])

    assert "t, u; say which: variable='...'" in refusal(lambda: load_fields(ds))
    assert load_fields(ds, "u").name == "u"


def test_an_unknown_variable_is_refused_with_the_known_ones() -> None:
    message = refusal(lambda: load_fields(dataset(), "temperature"))

    assert message == "no variable 'temperature'; there are: t"


@pytest.mark.parametrize(
    ("ds", "reason"),
    [
        (dataset().astype(int), "no float variable"),
        (xr.Dataset(), "no float variable"),
        (dataset().isel(lat=0, lon=0), "needs latitude and longitude dimensions"),
        (dataset().isel(lat=0), "has no latitude coordinate"),
        (dataset().drop_vars("lon"), "models train on axes of latitude"),
        (dataset().isel(lat=[1, 0, 2]), "strictly monotonic"),
        (dataset().isel(time=[]), "at least one item"),
    ],
)
def test_data_without_fields_on_a_regular_grid_is_refused(ds: xr.Dataset, reason: str) -> None:
    assert reason in refusal(lambda: load_fields(ds))


# ---- files ------------------------------------------------------------------------------------


def test_netcdf_is_read_whatever_its_calendar_and_suffix(tmp_path: Path) -> None:
    ds = dataset()
    ds["time"].attrs["units"] = "fortnights since the flood"
    ds.to_netcdf(tmp_path / "t.dat", engine="netcdf4")

    np.testing.assert_array_equal(load_fields(tmp_path / "t.dat").values, ds["t"])


def test_packed_netcdf_is_unpacked(tmp_path: Path) -> None:
    encoding = {"t": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}}
    dataset().to_netcdf(tmp_path / "t.nc", engine="netcdf4", encoding=encoding)

    np.testing.assert_array_equal(load_fields(tmp_path / "t.nc").values, dataset()["t"])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_folder_is_read(tmp_path: Path, zarr_format: int) -> None:
    dataset().to_zarr(tmp_path / "t", zarr_format=zarr_format, consolidated=False)

    np.testing.assert_array_equal(load_fields(str(tmp_path / "t")).values, dataset()["t"])


def test_a_zipped_zarr_store_is_read(tmp_path: Path) -> None:
    dataset().to_zarr(tmp_path / "t.zarr", consolidated=False)
    zipped = shutil.make_archive(str(tmp_path / "t.zarr"), "zip", tmp_path / "t.zarr")

    np.testing.assert_array_equal(load_fields(zipped).values, dataset()["t"])


def test_a_zarr_url_is_read(tmp_path: Path) -> None:
    dataset().to_zarr(tmp_path / "t.zarr", zarr_format=2)

    fields = load_fields(f"file://{tmp_path}/t.zarr")

    np.testing.assert_array_equal(fields.values, dataset()["t"])


def test_npz_files_of_a_split_are_read_in_sorted_order(tmp_path: Path) -> None:
    for name, level in (("b", 281.0), ("a", 280.0)):
        write_npz(tmp_path / "era5_train" / f"{name}.npz", level)
    write_npz(tmp_path / "era5_val" / "c.npz", 290.0)

    fields = load_fields(tmp_path / "era5")

    assert (fields.name, fields.units, fields.grid.shape) == ("temperature", "K", (46, 90))
    assert fields.values[:, 0, 0].tolist() == [280.0, 281.0]
    assert load_fields(tmp_path / "era5", split="val").values[:, 0, 0].tolist() == [290.0]
    assert load_fields(tmp_path / "era5_val").values[:, 0, 0].tolist() == [290.0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"temperature": np.array([None])}, "b.npz does not hold"),
        ({"longitude": np.arange(90) * 4.0 - 180}, "b.npz is on another grid"),
        ({"temperature": np.zeros((2, 2))}, "same shape"),
    ],
)
def test_an_npz_file_unlike_the_others_is_refused(
    tmp_path: Path, changes: dict, reason: str
) -> None:
    write_npz(tmp_path / "era5_train" / "a.npz", 280.0)
    write_npz(tmp_path / "era5_train" / "b.npz", 281.0, **changes)

    assert reason in refusal(lambda: load_fields(tmp_path / "era5"))


def test_a_typo_in_a_file_name_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    dataset().to_netcdf(tmp_path / "temperature.nc", engine="netcdf4")

    message = refusal(lambda: load_fields(tmp_path / "temprature.nc"), FileNotFoundError)

    assert message.endswith(f"did you mean {tmp_path / 'temperature.nc'}?")


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    message = refusal(lambda: load_fields(tmp_path / "nowhere" / "t.nc"), FileNotFoundError)

    assert "no such file or folder" in message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is not NetCDF"),
        (b"\x89HDF\r\n\x1a\n cut short", "cannot be read"),
        (b"CDF\x01", "cannot be read"),
        (b"PK\x03\x04 cut short", "cannot be read"),
        (b"GRIB\x00\x00\x08\x01 cut short", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "t.nc").write_bytes(content)

    message = refusal(lambda: load_fields(tmp_path / "t.nc"))

    assert f"t.nc {reason}" in message


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    assert "neither" in refusal(lambda: load_fields(tmp_path))


# ---- GRIB and climate samples -----------------------------------------------------------------


@needs_data
def test_grib_members_times_and_levels_become_items() -> None:
    fields = load_fields(sample("grib/era5-levels-members.grib"), "t")

    assert (fields.values.shape, fields.units) == ((10 * 4 * 2, 61, 120), "K")


@needs_data
def test_grib_rows_from_south_to_north_stay_so() -> None:
    northwards = load_fields(sample("grib/scanning_mode_64.grib"))
    southwards = load_fields(sample("grib/regular_ll_sfc.grib"))

    assert northwards.grid.latitude[0] == -90
    np.testing.assert_array_equal(northwards.grid.latitude, southwards.grid.latitude[::-1])
    # Not the same forecast, but the same Earth.
    assert np.abs(northwards.values[0, ::-1] - southwards.values[0]).mean() < 5


@needs_data
def test_grib_reading_leaves_no_index_files(tmp_path: Path) -> None:
    copy = shutil.copy(sample("grib/regular_ll_sfc.grib"), tmp_path)

    load_fields(copy)

    assert [p.name for p in tmp_path.iterdir()] == ["regular_ll_sfc.grib"]


@needs_data
def test_grib_variables_on_different_levels_are_told_apart(tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.grib"
    names = ("hpa_and_pa.grib", "regular_ll_sfc.grib")
    mixed.write_bytes(b"".join(sample(f"grib/{name}").read_bytes() for name in names))

    assert load_fields(mixed, "skt").values.shape == (1, 37, 72)


@needs_data
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("era5-levels-corrupted.grib", "cannot be read"),
        ("empty_file.grib", "is empty"),
        ("lambert_grid.grib", "models train on axes of latitude"),
        ("reduced_gg.grib", "models train on axes of latitude"),
        ("spherical_harmonics.grib", "spherical harmonics"),
        ("tp_on_different_grid_resolutions.grib", "stored several times"),
        ("era5-levels-members.grib", "t, z; say which"),
    ],
)
def test_grib_without_fields_on_one_regular_grid_is_refused(name: str, reason: str) -> None:
    assert reason in refusal(lambda: load_fields(sample(f"grib/{name}")))


@needs_data
def test_missing_grib_values_make_an_item_incomplete() -> None:
    fields = load_fields(sample("grib/fields_with_missing_values.grib"))

    assert "missing values" in refusal(fields.without_missing)


@needs_data
def test_regional_grids_are_loaded() -> None:
    fields = load_fields(sample("grib/era5-single-level-scalar-time.grib"))

    assert fields.values.shape == (1, 121, 201)


# ---- training data ----------------------------------------------------------------------------


def test_items_with_missing_values_are_dropped() -> None:
    values = counting(3).values.copy()
    values[1, 2, 3] = np.nan
    values[2, 0, 0] = np.inf

    complete = Fields(values, counting(3).grid, "t", "K").without_missing()

    assert complete.values[:, 0, 0].tolist() == [0]


def test_values_must_lie_on_the_grid() -> None:
    message = refusal(lambda: Fields(np.zeros((2, 4, 3)), counting(1).grid, "t", "K"))

    assert "(items, 3, 4)" in message


@with_torch
@pytest.mark.parametrize(("items", "held_out"), [(2, 1), (40, 4), (8000, 720)])
def test_the_last_tenth_of_the_first_source_is_held_out(items: int, held_out: int) -> None:
    data, _ = to_training_data([counting(items), counting(3, start=9000)], normalisation=(0.0, 1.0))

    expected = np.arange(items)
    np.testing.assert_array_equal(data.validation[:, 0, 0], expected[-held_out:])
    np.testing.assert_array_equal(data.train[:, 0, 0], [*expected[:-held_out], 9000, 9001, 9002])


@with_torch
def test_validation_can_be_given() -> None:
    data, _ = to_training_data([counting(3)], counting(2, start=5), normalisation=(0.0, 1.0))

    assert data.train[:, 0, 0].tolist() == [0, 1, 2]
    assert data.validation[:, 0, 0].tolist() == [5, 6]


@with_torch
def test_features_are_scaled_by_the_range_of_the_training_values() -> None:
    data, normalisation = to_training_data([counting(6, start=200)], validation_items=1)

    assert normalisation == (200.0, 4.0)
    assert data.scale == 4.0
    assert data.train[:, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert data.validation[:, 0, 0].tolist() == [1.25]


@with_torch
def test_constant_values_are_not_divided_by_zero() -> None:
    data, normalisation = to_training_data([counting(1, start=7)], counting(1, start=7))

    assert normalisation == (7.0, 1.0)
    assert not data.train.any()


@with_torch
def test_points_and_weights_are_those_of_the_grid() -> None:
    fields = counting(3)

    data, _ = to_training_data([fields])

    assert (data.train.shape, data.train.dtype) == ((2, 12, 1), np.float32)
    np.testing.assert_array_equal(data.points, fields.grid.points)
    np.testing.assert_array_equal(data.weights, fields.grid.area_weights)


@with_torch
def test_incomplete_items_are_not_trained_on() -> None:
    values = counting(4).values.copy()
    values[1, 0, 0] = np.nan

    data, _ = to_training_data([Fields(values, counting(4).grid, "t", "K")], validation_items=1)

    assert (len(data.train), len(data.validation)) == (2, 1)


@with_torch
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"train": [counting(2), counting(2, latitude=LATITUDE[:2])]}, "(3, 4) (from 60N"),
        ({"train": [counting(2), counting(2, latitude=LATITUDE[::-1])]}, "(from -60N"),
        ({"train": [counting(2)], "validation": counting(2, latitude=LATITUDE / 2)}, "(from 30N"),
        ({"train": []}, "at least one source"),
        ({"train": [counting(1)]}, "no item is left"),
        ({"train": [counting(2)], "validation_items": 3}, "within 1 .. 2"),
        ({"train": [counting(2)], "validation_items": 0}, "within 1 .. 2"),
        ({"train": [counting(2)], "validation": counting(1), "validation_items": 1}, "not both"),
        ({"train": [counting(2)], "normalisation": (0.0, 0.0)}, "above zero"),
    ],
)
def test_contradictory_training_data_is_refused(arguments: dict, reason: str) -> None:
    assert reason in refusal(lambda: to_training_data(**arguments))
