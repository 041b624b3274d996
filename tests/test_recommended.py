"""Recommended bounds: which entry is a variable's, what it means as a rate, who takes it."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from refusals import refusal

import coinpp_xr
from coinpp_xr import CompressionWarning, recommended
from coinpp_xr.cli import main
from coinpp_xr.coarseness import Spread
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.ecmwf_units import _units
from coinpp_xr.recommendation_table import VariableRecommendation
from coinpp_xr.units import unit_of


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("compression_recommendations")


installed = pytest.mark.usefixtures("_installed")


def noise(scale: float, units: str, offset: float = 0.0, **attrs: Any) -> Any:
    values = offset + scale * np.random.default_rng(5).standard_normal((4, 12, 24))
    return ("time", "lat", "lon"), values.astype(np.float32), {"units": units} | attrs


def dataset(**variables: Any) -> xr.Dataset:
    grid = next(SphereGrid.usual_layouts(12, 24))
    times = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(6, "h")
    coords = {"time": times, "lat": grid.latitude, "lon": grid.longitude}
    return xr.Dataset(variables, coords=coords)


def on_levels(ds: xr.Dataset, **coordinate: Any) -> xr.Dataset:
    return ds.expand_dims(level=[500, 850]).assign_coords(level=("level", [500, 850], coordinate))


def only(ds: xr.Dataset) -> VariableRecommendation:
    (one,) = ds.coinpp.recommend()
    return one


# ---- which entry --------------------------------------------------------------------------------


@installed
@pytest.mark.parametrize(
    ("name", "attrs"),
    [
        ("t2m", {}),
        ("2t", {}),
        ("anything", {"GRIB_shortName": "2t"}),
        ("anything", {"GRIB_shortName": "2t", "GRIB_typeOfLevel": "heightAboveGround"}),
    ],
)
def test_a_variable_is_known_by_its_names(name, attrs) -> None:
    found = only(dataset(**{name: noise(20, "K", 280, **attrs)}))
    assert (found.control, found.value) == ("max_error", 0.01)
    assert found.share == pytest.approx(0.01 / 20, rel=0.1)


@installed
def test_a_standard_name_will_do() -> None:
    found = only(dataset(p=noise(900, "Pa", 1e5, standard_name="air_pressure_at_mean_sea_level")))
    assert (found.control, found.value) == ("max_error", 1.0)
    assert "air_pressure_at_mean_sea_level" in found.source


@installed
@pytest.mark.parametrize(
    ("name", "units", "factor"), [("msl", "hPa", 0.01), ("t2m", "degC", 1), ("d2m", "°C", 1)]
)
def test_bounds_follow_the_unit(name, units, factor) -> None:
    inside = {"msl": 1.0, "t2m": 0.01, "d2m": 0.01}[name]
    assert only(dataset(**{name: noise(20, units)})).value == pytest.approx(factor * inside)


@installed
@pytest.mark.parametrize(
    ("name", "units", "said"),
    [
        ("t2m", "", "without a unit"),
        ("z", "m", "in m, and z is in m**2 s**-2 there"),
        ("e", "1", "in 1, and e is in m there"),
        ("weird", "K", "not known"),
    ],
)
def test_what_does_not_fit_is_left_to_the_user(name, units, said) -> None:
    found = only(dataset(**{name: noise(20, units)}))
    assert not found.is_known
    assert said in found.remarks


@installed
def test_levels_of_pressure_have_entries_of_their_own() -> None:
    ds = on_levels(dataset(t=noise(20, "K", 250), u=noise(9, "m/s")), units="hPa")
    table = ds.coinpp.recommend()
    assert (table["t"].control, table["t"].value) == ("max_error", 0.01)
    assert (table["u"].control, table["u"].value) == ("max_error", 0.001)
    assert table[0].source.endswith("pressure")
    model = on_levels(dataset(t=noise(20, "K", 250)), units="1", positive="down")
    assert only(model).remarks == "neither at the surface nor on levels of pressure"
    assert not only(dataset(t=noise(20, "K", 250))).is_known


@installed
def test_a_single_level_of_pressure_is_one() -> None:
    ds = on_levels(dataset(t=noise(20, "K", 250)), units="hPa").isel(level=0)
    assert only(ds).source.endswith("pressure")


@installed
def test_every_entry_has_a_unit() -> None:
    names = {g["grib-short-name"] for e in recommended.entries() for g in e.names}
    assert names <= set(_units())


@pytest.mark.parametrize("name", ["2t", "msl", "tp", "z", "ssr", "pv", "swvl1", "10u", "mwd"])
def test_units_are_those_that_eccodes_tells(name) -> None:
    eccodes = pytest.importorskip("eccodes")
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib1")
    try:
        eccodes.codes_set(handle, "centre", "ecmf")
        eccodes.codes_set(handle, "shortName", name)
        assert unit_of(eccodes.codes_get(handle, "units")) == unit_of(_units()[name])
    finally:
        eccodes.codes_release(handle)


# ---- from requirements to a rate ----------------------------------------------------------------

SPREAD = Spread(
    std=2.0, mean_magnitude=4.0, rms_magnitude=4.0, largest=10.0, low=-2.0, high=10.0,
    is_exact=False,
)  # fmt: skip
ABSOLUTE = {"kind": "max-pointwise-absolute-error-bound", "value": 0.5}
RELATIVE = {"kind": "max-pointwise-relative-error-bound", "value": 0.01}
RANGE = {"kind": "max-pointwise-range-relative-error-bound", "value": 0.01}
MEAN = {"kind": "mean-absolute-error-bound", "value": 0.2}
MEAN_RELATIVE = {"kind": "mean-relative-error-bound", "value": 0.01}
MEAN_RANGE = {"kind": "mean-range-relative-error-bound", "value": 0.01}
LIMITS = {"kind": "data-limits", "minimum": 0.0, "maximum": 1.0}


def all_(*requirements: Any) -> Any:
    return {"kind": "all", "requirements": requirements}


def any_(*requirements: Any) -> Any:
    return {"kind": "any", "requirements": requirements}


def control(*requirements: Any, factor: float = 1.0, own_zero: bool = False) -> Any:
    needs = recommended._all_of(requirements, factor, lambda: SPREAD, own_zero)
    if needs is None:
        return None
    found = recommended._as_control(VariableRecommendation("x"), needs, SPREAD)
    return "lossless" if found.lossless else (found.control, found.value)


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ([ABSOLUTE], ("max_error", 0.5)),
        ([RELATIVE], ("max_error_relative", 0.01)),
        ([RANGE], ("max_error", 0.12)),
        ([MEAN], ("target_rmse", 0.2)),
        ([MEAN_RELATIVE], ("target_rmse", 0.04)),
        ([MEAN_RANGE], ("target_rmse", 0.12)),
        # All must hold: the tightest.
        ([ABSOLUTE, RANGE], ("max_error", 0.12)),
        ([all_(all_(ABSOLUTE, MEAN))], ("max_error", 0.2)),
        ([MEAN, MEAN_RELATIVE], ("target_rmse", 0.04)),
        # 1 % of the largest value, 10, is within 0.5; not so within 0.05.
        ([ABSOLUTE, RELATIVE], ("max_error_relative", 0.01)),
        ([ABSOLUTE | {"value": 0.05}, RELATIVE], ("max_error_relative", 0.005)),
        ([RELATIVE, MEAN_RELATIVE | {"value": 0.001}], ("max_error_relative", 0.001)),
        # One is enough.
        ([any_(RELATIVE, ABSOLUTE)], ("max_error", 0.5)),
        ([any_(MEAN, RELATIVE)], ("max_error_relative", 0.01)),
        ([any_({"kind": "lossless"}, MEAN)], ("target_rmse", 0.2)),
        ([any_({"kind": "of-the-future"}, MEAN)], ("target_rmse", 0.2)),
        ([{"kind": "lossless"}], "lossless"),
        ([ABSOLUTE, {"kind": "lossless"}], "lossless"),
        ([MEAN | {"value": 0.0}, MEAN_RELATIVE], "lossless"),
        ([ABSOLUTE, LIMITS], ("max_error", 0.5)),
        ([LIMITS], (None, None)),
        ([ABSOLUTE, {"kind": "of-the-future", "value": 3}], None),
    ],
)
def test_requirements_as_rate_controls(requirements, expected) -> None:
    found = control(*requirements)
    if isinstance(expected, tuple) and expected[1] is not None:
        assert found == (expected[0], pytest.approx(expected[1]))
    else:
        assert found == expected


def test_absolute_sizes_follow_the_unit_and_fractions_do_not() -> None:
    assert control(ABSOLUTE, factor=0.01) == ("max_error", 0.005)
    assert control(RELATIVE, factor=0.01) == ("max_error_relative", 0.01)
    assert control(RANGE, factor=0.01) == ("max_error", 0.12)
    # 1 % of a temperature in °C is not 1 % of it in K.
    assert control(RELATIVE, own_zero=True) is None
    assert control(RANGE, own_zero=True) == ("max_error", 0.12)


# ---- the table ----------------------------------------------------------------------------------


@installed
def test_the_table() -> None:
    ds = dataset(
        t2m=noise(20, "K", 280), slt=noise(2, "~", 4), tcc=noise(0.2, "(0 - 1)", 0.5),
        odd=noise(1, "K"),
    )  # fmt: skip
    table = ds.coinpp.recommend()
    assert [one.name for one in table] == ["t2m", "slt", "tcc", "odd"]
    assert len(table) == 4
    assert table["slt"].lossless
    assert "limits 0 … 1" in table["tcc"].remarks
    assert table.rates == {
        "max_error": {"t2m": 0.01}, "target_rmse": {"tcc": table["tcc"].value}
    }  # fmt: skip
    for text in (str(table), table._repr_html_()):
        for part in ("known for 3 of 4 variables", "±0.01 K", "without loss", "not known"):
            assert part in text
    assert json.loads(json.dumps(table.to_dict()))["t2m"]["value"] == 0.01
    with pytest.raises(KeyError, match="no variable 'q'"):
        table["q"]
    assert only(ds[["t2m"]]) == ds.t2m.coinpp.recommend()[0]


# ---- who takes them -----------------------------------------------------------------------------


@pytest.fixture
def known() -> xr.Dataset:
    return dataset(t2m=noise(20, "K", 280), msl=noise(900, "Pa", 1e5), slt=noise(2, "~", 4))


@installed
def test_compress_takes_them(known) -> None:
    result = known.coinpp.compress(max_error="recommended", model="none")
    assert result.report["t2m"].bound == 0.01
    assert result.report["msl"].bound == 1.0
    assert result.report["slt"].outcome.startswith("recommended to be without loss")
    xr.testing.assert_identical(result.dataset.slt, known.slt)


@installed
@pytest.mark.parametrize("explicit", [True, False])
def test_stores_and_archives_take_them(known, tmp_path, explicit) -> None:
    arguments: dict[str, Any] = {"max_error": "recommended"} if explicit else {}
    for name, write in (
        ("a", lambda p, **a: known.coinpp.to_zarr(p, consolidated=False, **a)),
        ("b", lambda p, **a: coinpp_xr.archive(known, p, **a)),
        ("c", lambda p, **a: coinpp_xr.archive(known, p, variables=list(known), **a)),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CompressionWarning)
            write(tmp_path / name, model="none", **arguments)
        said = [w for w in caught if issubclass(w.category, CompressionWarning)]
        assert len(said) == (0 if explicit else 1)
        for warning in said:
            assert "t2m max_error=0.01, msl max_error=1, slt without loss" in str(warning.message)
            assert warning.filename == __file__
        with xr.open_zarr(tmp_path / name, consolidated=False) as back:
            assert float(abs(back.t2m - known.t2m).max()) <= 0.01
            assert float(abs(back.msl - known.msl).max()) <= 1
            np.testing.assert_array_equal(back.slt, known.slt)


@installed
def test_an_archive_goes_on_with_what_it_was_begun_with(known, tmp_path) -> None:
    arguments: dict[str, Any] = {"max_error": "recommended", "model": "none"}
    ds = known[["t2m"]]
    coinpp_xr.archive(
        ds, tmp_path / "a", chunk_time=2, times=slice(None, "2020-01-01T06"), **arguments
    )
    report = coinpp_xr.archive(ds, tmp_path / "a", chunk_time=2, **arguments)
    assert report.is_complete
    assert coinpp_xr.archive(ds, tmp_path / "a", chunk_time=2, model="none").n_new == 0


@installed
def test_a_mapping_may_hold_them(known) -> None:
    ds = known[["t2m"]].assign(q=noise(0.004, "kg kg-1"))
    report = ds.coinpp.compress(max_error={"t2m": "recommended", "q": 1e-4}, model="none").report
    assert (report["t2m"].bound, report["q"].bound) == (0.01, 1e-4)


@installed
def test_variables_without_one_are_named(known) -> None:
    ds = known[["t2m"]].assign(q=noise(0.004, "kg kg-1"), odd=noise(1, ""))
    for arguments in ({"max_error": "recommended"}, {}):
        message = refusal(lambda arguments=arguments: ds.coinpp.compress(**arguments))
        assert message == (
            "nothing is recommended for q (not known), odd (not known); write "
            "max_error={'q': …, 'odd': …, 't2m': 'recommended'}"
        )


@installed
def test_a_recommended_bound_is_held_against_the_data() -> None:
    ds = dataset(tp=noise(1e-6, "m", 1e-4), t2m=noise(20, "K", 280))
    message = refusal(lambda: ds.coinpp.compress(max_error="recommended", model="none"))
    assert "target_rmse=1e-05 reaches three tenths of the standard deviation of tp" in message
    assert "write max_error={'tp': 1e-07, 't2m': 'recommended'}" in message


@installed
def test_other_controls_beside_it_are_refused(known) -> None:
    message = refusal(
        lambda: known.coinpp.compress(max_error="recommended", target_rmse={"t2m": 0.1})
    )
    assert message == "give one rate control, not max_error and target_rmse"


@installed
@pytest.mark.parametrize("more", [[], ["--max-error", "recommended"]])
def test_the_command_line_takes_them(known, tmp_path, capsys, more) -> None:
    known[["t2m"]].to_netcdf(tmp_path / "in.nc", engine="netcdf4")
    line = ["archive", str(tmp_path / "in.nc"), str(tmp_path / "out.zarr"), "--dry-run", *more]
    with pytest.raises(SystemExit) as ended:
        main([*line, "--model", "none"])
    assert not ended.value.code
    said = capsys.readouterr().err
    assert ("coinpp: no rate control given: what is recommended is taken: t2m" in said) != bool(
        more
    )


# ---- without the package ------------------------------------------------------------------------


@pytest.fixture
def not_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "compression_recommendations", None)
    recommended.entries.cache_clear()
    yield
    recommended.entries.cache_clear()


@pytest.mark.usefixtures("not_installed")
def test_without_the_package_a_bound_must_be_given(known, tmp_path, capsys) -> None:
    ds = known[["t2m"]]
    install = "in the variable's unit, or for recommended bounds pip install"
    for call in (
        ds.coinpp.compress,
        lambda: ds.coinpp.to_zarr(tmp_path / "a"),
        lambda: coinpp_xr.archive(ds, tmp_path / "b"),
    ):
        assert refusal(call).startswith(f"no bound is given for t2m: write max_error=… {install}")
    message = refusal(lambda: known.coinpp.compress(max_error="recommended"))
    assert message.startswith(
        "nothing can be recommended for t2m, msl, slt: write max_error={'t2m'"
    )
    assert "pip install compression-recommendations" in refusal(ds.coinpp.recommend)
    ds.to_netcdf(tmp_path / "in.nc", engine="netcdf4")
    with pytest.raises(SystemExit):
        main(["archive", str(tmp_path / "in.nc"), str(tmp_path / "out.zarr")])
    assert "write --max-error … in the variable's unit" in capsys.readouterr().err


# ---- what goes beside a rate control ------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"keep": 0}, {"keep": [0]}),
        ({"keep": (0, 1)}, {"keep": [0, 1]}),
        ({"keep": {"t2m": [273.15]}}, {"keep": [273.15]}),
        ({"max_mean_error": 0.1}, {"max_mean_error": 0.1}),
        ({"max_mean_error": {"t2m": 0.1}, "keep": None}, {"max_mean_error": 0.1}),
        ({"keep": {"msl": 0}}, {}),
    ],
)
def test_what_goes_beside_a_rate_reaches_the_codec(known, arguments, expected) -> None:
    from coinpp_xr.rate_requests import settle

    settled = settle(
        known, None, {"max_error": {"t2m": 0.5, "msl": 10.0}}, beside=arguments, allow_coarse=False
    )
    assert settled.rates["t2m"] == {"max_error": 0.5, **expected}
    assert "slt" not in settled.rates


def test_names_beside_a_rate_are_checked(known) -> None:
    message = refusal(lambda: known.coinpp.compress(max_error={"t2m": 1}, keep={"t2n": 0}))
    assert "did you mean t2m" in message
    message = refusal(lambda: known.coinpp.compress(max_error={"t2m": 1}, keep={"msl": 0}))
    assert message == "cannot compress 'msl': no rate control given for it: written without loss"


def test_values_to_keep_on_the_command_line() -> None:
    from coinpp_xr.cli.archive import _values_to_keep

    assert _values_to_keep("0,1") == [0, 1]
    assert _values_to_keep("siconc=0:1,tp=0") == {"siconc": [0, 1], "tp": [0]}
    assert _values_to_keep(None) is None
