"""Bounds held against the data: nobody loses a variable without having asked for it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal

import coinpp_xr
from coinpp_xr import COINppCodec, CompressionWarning
from coinpp_xr.cli import main
from coinpp_xr.coarseness import Spread
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.spread import Sample
from coinpp_xr.units import are_alike, conversion, unit_of

TIMES = np.datetime64("2020-01-01", "ns") + 6 * np.arange(4) * np.timedelta64(1, "h")


def field(scale: float, units: str | None, offset: float = 0.0, shape: Any = (4, 12, 24)) -> Any:
    """Normal noise with a standard deviation of ``scale``, on every level."""
    noise = np.random.default_rng(5).standard_normal(shape)
    axes = (0, -2, -1)
    noise = (noise - noise.mean(axes, keepdims=True)) / noise.std(axes, keepdims=True)
    values = offset + scale * noise
    attrs = {} if units is None else {"units": units}
    return ("time", *["level"] * (len(shape) - 3), "lat", "lon"), values.astype(np.float32), attrs


def dataset(**variables: Any) -> xr.Dataset:
    grid = next(SphereGrid.usual_layouts(12, 24))
    coords = {"time": TIMES, "lat": grid.latitude, "lon": grid.longitude}
    return xr.Dataset(variables, coords=coords)


@pytest.fixture
def weather() -> xr.Dataset:
    """Temperature, humidity and rain, as a new user has them."""
    return dataset(
        t2m=field(21.0, "K", 280.0), q=field(0.004, "kg kg**-1", 0.01), tp=field(0.001, "m", 0.01)
    )


@pytest.fixture
def levels() -> xr.Dataset:
    """Humidity on three levels, a thousand times less on each."""
    dims, values, attrs = field(1.0, "g/kg", 0.0, (4, 3, 12, 24))
    scaled = values * np.float32([1, 1e-3, 1e-6])[:, None, None]
    return dataset(q=(dims, scaled, attrs)).assign_coords(level=[850, 100, 1])


# ---- one number for several units ---------------------------------------------------------------


@pytest.mark.parametrize("control", ["max_error", "target_rmse"])
def test_one_number_for_several_units_is_refused(weather, control) -> None:
    message = refusal(lambda: weather.coinpp.compress(**{control: 0.5}, model="none"))
    for part in (
        f"{control}=0.5 is meant for several units",
        "t2m 21 K, q 0.004 kg kg**-1, tp 0.001 m",
        f"write {control}={{'t2m': 0.5, 'q': 0.0004, 'tp': 0.0001}}",
    ):
        assert part in message


def test_every_way_to_write_refuses_it(weather, tmp_path) -> None:
    arguments: dict[str, Any] = {"max_error": 0.5, "model": "none"}
    store = tmp_path / "out.zarr"
    for call in (
        lambda: weather.coinpp.compress(**arguments),
        lambda: weather.coinpp.to_zarr(store, **arguments),
        lambda: coinpp_xr.archive(weather, store, **arguments),
        lambda: coinpp_xr.plan_archive(weather, store, **arguments),
    ):
        assert "is meant for several units" in refusal(call)
    assert not store.exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_the_command_line_says_what_to_write_there(weather, tmp_path, capsys, more) -> None:
    weather.to_netcdf(tmp_path / "in.nc", engine="netcdf4")
    line = [str(tmp_path / "in.nc"), str(tmp_path / "out.zarr"), "--max-error", "0.5", *more]
    with pytest.raises(SystemExit) as ended:
        main(["archive", *line, "--model", "none"])
    assert ended.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("coinpp: --max-error 0.5 is meant for several units: ")
    assert said.endswith("write --max-error t2m=0.5,q=0.0004,tp=0.0001")
    assert not (tmp_path / "out.zarr").exists()


def test_what_cannot_be_compressed_does_not_count(weather) -> None:
    ds = weather[["t2m"]].assign(
        count=weather.q.astype("int32"), series=weather.tp.isel(lat=0, lon=0)
    )
    assert ds.coinpp.compress(max_error=0.5, model="none").report["t2m"].max_error <= 0.5


def test_same_units_in_other_spellings_share_a_bound() -> None:
    ds = dataset(u=field(5.0, "m s-1"), v=field(5.0, "m/s"), w=field(5.0, "m s**-1"))
    assert ds.coinpp.compress(max_error=0.1, model="none").ratio > 1
    warm = dataset(t=field(20.0, "K", 280.0), c=field(20.0, "degC"), d=field(20.0, "°C"))
    assert warm.coinpp.compress(max_error=0.1, model="none").ratio > 1


def test_without_any_units_the_spread_alone_decides() -> None:
    ds = dataset(a=field(20.0, None), b=field(5.0, None))
    assert ds.coinpp.compress(max_error=0.1, model="none").ratio > 1
    assert "reaches half" in refusal(lambda: ds.coinpp.compress(max_error=3.0, model="none"))


def test_an_unknown_unit_is_unlike_known_ones() -> None:
    ds = dataset(a=field(20.0, "K"), b=field(20.0, None))
    message = refusal(lambda: ds.coinpp.compress(max_error=0.1, model="none"))
    assert "b 20 without a unit" in message


def test_a_relative_bound_is_one_number_for_all(weather) -> None:
    report = weather.coinpp.compress(max_error_relative=0.001, model="none").report
    assert all(variable.bound == 0.001 for variable in report)


def test_many_variables_are_named_in_part() -> None:
    ds = dataset(**{f"v{i}": field(1.0, "K" if i else "Pa") for i in range(20)})
    message = refusal(lambda: ds.coinpp.compress(max_error=0.1, model="none"))
    assert "and 12 more" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("K", "degC"), ("degC", "°C"), ("m s-1", "m/s"), ("m s**-1", "m s-1"), ("1", "(0 - 1)"),
        ("kg kg-1", "kg kg**-1"), ("hPa", "millibars"), ("", ""), ("m of water equivalent", "m"),
    ],
)  # fmt: skip
def test_units_that_are_alike(one, other) -> None:
    assert are_alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("K", "degF"), ("Pa", "hPa"), ("m", "mm"), ("", "1"), ("K", ""), ("K", "m"), ("%", "1"),
     ("some thing", "another")],
)  # fmt: skip
def test_units_that_are_not(one, other) -> None:
    assert not are_alike(one, other)


def test_errors_convert_between_units() -> None:
    assert conversion("Pa", "hPa") == 0.01
    assert conversion("K", "degC") == 1
    assert conversion("m", "mm") == 1000
    assert conversion("m**2 s**-2", "m") is None
    assert conversion("K", "") is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["9**9**9**9", "m**999999999", "(" * 5000, "9" * 10000, "m" * 10000]
)
def test_arithmetic_in_units_takes_no_time(text) -> None:
    unit_of(text)


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_text_can_stand_for_a_unit(text) -> None:
    assert are_alike(text, text)


# ---- a bound that leaves nothing ----------------------------------------------------------------


def test_a_bound_of_half_the_spread_is_refused(weather) -> None:
    mapping = {"t2m": 0.5, "q": 0.01, "tp": 1e-5}
    message = refusal(lambda: weather.coinpp.compress(max_error=mapping, model="none"))
    assert "max_error=0.01 reaches half of the standard deviation of q (0.004 kg kg**-1)" in message
    assert "write max_error={'q': 0.0004, 't2m': 0.5, 'tp': 1e-05}, or allow_coarse=True" in message
    assert weather.coinpp.compress(max_error=mapping | {"q": 0.0004}, model="none").ratio > 1


def test_the_limit_is_half(weather) -> None:
    half = float(weather.t2m.std()) / 2
    weather.t2m.coinpp.compress(max_error=0.99 * half, model="none")
    message = refusal(lambda: weather.t2m.coinpp.compress(max_error=1.01 * half, model="none"))
    assert "reaches half of the standard deviation of t2m" in message
    weather.t2m.coinpp.compress(target_rmse=0.59 * half, model="none")
    message = refusal(lambda: weather.t2m.coinpp.compress(target_rmse=0.61 * half, model="none"))
    assert "reaches three tenths of the standard deviation of t2m" in message


def test_every_way_refuses_it_and_goes_on_if_asked_to(weather, tmp_path) -> None:
    ds = weather[["q"]]
    arguments: dict[str, Any] = {"target_rmse": 0.5, "model": "none"}
    calls: list[Any] = [
        ds.coinpp.compress,
        ds.q.coinpp.compress,
        lambda **a: ds.coinpp.to_zarr(tmp_path / "a", **a, zarr_format=2),
        lambda **a: ds.coinpp.to_zarr(tmp_path / "b", **a, consolidated=False),
        lambda **a: ds.q.coinpp.to_zarr(tmp_path / "c", **a, zarr_format=2),
        lambda **a: coinpp_xr.plan_archive(ds, tmp_path / "d", **a),
        lambda **a: coinpp_xr.archive(ds, tmp_path / "d", **a),
    ]
    for call in calls:
        message = refusal(lambda call=call: call(**arguments))
        assert "target_rmse=0.5 reaches three tenths of the standard deviation of q" in message
        assert "write target_rmse=0.0004, or allow_coarse=True" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompressionWarning)
        for call in calls:
            call(**arguments, allow_coarse=True)
    with pytest.raises(ValueError, match="allow_coarse must be True or False"):
        ds.coinpp.compress(**arguments, allow_coarse="yes")


def test_the_command_line_goes_on_if_asked_to(weather, tmp_path, capsys) -> None:
    weather[["q"]].to_netcdf(tmp_path / "in.nc", engine="netcdf4")
    line = ["archive", str(tmp_path / "in.nc"), str(tmp_path / "out.zarr"), "--max-error", "0.5"]
    line += ["--model", "none"]
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 1
    assert "write --max-error 0.0004, or --allow-coarse" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*line, "--allow-coarse", "--dry-run"])
    assert not ended.value.code


@pytest.mark.parametrize("make", [lambda ds: ds, lambda ds: ds.chunk(time=2, level=1)])
def test_every_level_is_judged_by_itself(levels, make) -> None:
    message = refusal(lambda: make(levels).coinpp.compress(max_error=1e-4, model="none"))
    assert "of q at level=1 (1e-06 g/kg)" in message
    assert "write max_error=1e-07" in message


def test_levels_of_a_single_time_are_levels(levels) -> None:
    message = refusal(lambda: levels.isel(time=[0]).coinpp.compress(max_error=1e-4, model="none"))
    assert "of q at level=1 (" in message


def test_a_relative_bound_is_held_against_the_root_mean_square() -> None:
    ds = dataset(msl=field(900.0, "Pa", 101_000.0))
    message = refusal(lambda: ds.coinpp.compress(max_error_relative=0.01, model="none"))
    assert "write max_error_relative=0.0009" in message


def test_what_comes_back_exactly_does_not_count() -> None:
    dims, values, _ = field(1.0, "1")
    ds = dataset(
        constant=(dims, np.full_like(values, 3)),
        nothing=(dims, np.full_like(values, np.nan)),
        mask=(dims, (values > 0.5).astype(np.float32)),
        types=(dims, np.round(values).astype(np.float32)),
    )
    ds.coinpp.compress(max_error=10.0, model="none")


def test_few_wet_cells_are_no_categories() -> None:
    dims, values, _ = field(1.0, "m")
    ds = dataset(tp=(dims, np.where(values > 2.3, values, 0).astype(np.float32)))
    assert np.unique(ds.tp).size < 256
    assert "reaches half" in refusal(lambda: ds.coinpp.compress(max_error=0.5, model="none"))


@pytest.mark.parametrize("fill", [np.nan, np.inf, -9999.0, 1e20])
def test_missing_cells_are_left_out(fill) -> None:
    dims, values, attrs = field(1.0, "K", 290.0)
    values[:, :4] = fill
    ds = dataset(sst=(dims, values, attrs))
    assert Sample.of(ds.sst).spread.std == pytest.approx(1.0, rel=0.05)
    assert "reaches half" in refusal(lambda: ds.coinpp.compress(max_error=0.6, model="none"))


def test_bits_are_not_looked_at(era5) -> None:
    era5.isel(time=slice(2)).coinpp.compress(bits=2)


@pytest.mark.parametrize("value", ["much", -1.0, np.nan, np.inf, True])
def test_wrong_values_are_refused_as_before(weather, value) -> None:
    assert "max_error" in refusal(lambda: weather.t2m.coinpp.compress(max_error=value))


def test_a_file_of_other_kinds_is_looked_at_too(tmp_path, capsys) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((32, 32)))
    line = ["compress", str(tmp_path / "a.npy"), "--as", "image", "--max-error", "0.9"]
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.endswith("write --max-error 0.1, or --allow-coarse")
    assert not (tmp_path / "a.npy.coinpp").exists()
    with pytest.raises(SystemExit) as ended:
        main([*line, "--allow-coarse"])
    assert not ended.value.code


# ---- the sample ---------------------------------------------------------------------------------


def test_four_steps_are_read_of_a_long_series(weather) -> None:
    import dask.array

    read = []

    def block(block_info: Any = None) -> Any:
        start = block_info[None]["array-location"][0][0] if block_info else 0
        read.append(start)
        return np.full((1, 12, 24), start, np.float32)

    lazy = dask.array.map_blocks(block, chunks=((1,) * 100, (12,), (24,)), dtype=np.float32)
    array = weather.t2m.isel(time=[0] * 100).copy(data=lazy)
    read.clear()
    Sample.of(array)
    assert sorted({*read}) == [12, 37, 62, 87]


def test_large_grids_are_thinned() -> None:
    grid = next(SphereGrid.usual_layouts(721, 1440))
    values = np.random.default_rng(0).standard_normal((2, 721, 1440)).astype(np.float32)
    array = xr.DataArray(
        values, dims=("time", "lat", "lon"),
        coords={"time": TIMES[:2], "lat": grid.latitude, "lon": grid.longitude},
    )  # fmt: skip
    sample = Sample.of(array)
    assert sample.values.shape[:2] == (2, 1)
    assert sample.values.shape[2] <= 65_536
    assert sample.spread.std == pytest.approx(1, rel=0.02)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=50))
@settings(max_examples=100, deadline=None)
def test_spreads_are_those_of_numpy(values) -> None:
    array = np.array(values, np.float32)
    spread = Spread.of(array)
    wide = array.astype(np.float64)
    assert spread.std == pytest.approx(wide.std(), rel=1e-5, abs=1e-6 * np.abs(wide).max())
    assert spread.largest == np.abs(wide).max()
    assert (spread.low, spread.high) == (wide.min(), wide.max())


# ---- the bare codec -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "text"),
    [
        ({"max_error": 0.5}, "max_error=0.5 reaches half"),
        ({"target_rmse": 0.5}, "target_rmse=0.5 reaches three tenths"),
        ({"max_error_relative": 0.5}, "max_error_relative=0.5 reaches half"),
    ],
)
def test_the_codec_warns_of_a_chunk_that_is_lost(weather, control, text) -> None:
    values = weather.q.values
    with pytest.warns(CompressionWarning, match=text) as caught:
        COINppCodec("none", **control).encode(values)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_the_codec_is_silent_where_nothing_is_lost(weather) -> None:
    values = weather.q.values
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        COINppCodec("none", max_error=0.001).encode(values)
        COINppCodec("none", max_error=0.5).encode(np.full_like(values, 2))
        COINppCodec("none", max_error=0.5).encode(np.full_like(values, np.nan))
        COINppCodec("none", max_error=0.5).encode((values > 0.01).astype(np.float32))


def test_through_xarray_the_codec_warns(weather, tmp_path) -> None:
    encoding = {"q": {"compressors": [COINppCodec("none", max_error=0.5)], "chunks": (4, 12, 24)}}
    with pytest.warns(CompressionWarning, match="reaches half"):
        weather[["q"]].to_zarr(tmp_path / "q.zarr", encoding=encoding, consolidated=False)


def test_data_that_is_added_is_looked_at_by_the_codec(weather, tmp_path) -> None:
    store = tmp_path / "q.zarr"
    ds = weather[["q"]]
    ds.coinpp.to_zarr(store, max_error=0.0005, model="none", consolidated=False, chunk_time=4)
    later = ds.assign_coords(time=ds.time + np.timedelta64(2, "D"))
    calm = later.assign(q=(later.q / 100).assign_attrs(later.q.attrs))
    with pytest.warns(CompressionWarning, match="reaches half"):
        calm.coinpp.to_zarr(store, append_dim="time", consolidated=False)
