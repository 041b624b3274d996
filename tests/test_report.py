"""What a report says: metrics against independent formulas, units, tables, HTML and maps."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr.bitstream import Kind
from coinpp_xr.cells.weights import CellWeights
from coinpp_xr.codecs.base import Rate
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.labels import display_unit, in_digits
from coinpp_xr.lattice import Bound
from coinpp_xr.maps import coastlines
from coinpp_xr.metrics import field_errors, zonal_spectrum
from coinpp_xr.plots import plot_maps, plot_result
from coinpp_xr.report import Report, share_of_spread
from coinpp_xr.text_tables import fold, plain_text
from coinpp_xr.variable_report import (
    StoredChunk,
    VariableReport,
    source_itemsize,
    variable_report,
)

LATITUDE = np.array([90.0, 45.0, 0.0, -60.0])
LONGITUDE = np.array([0.0, 120.0, 240.0])


def field(values: Any = 280.0, *, units: str | None = "K", **attrs: Any) -> xr.DataArray:
    """Two times of a field, constant unless values of shape (2, 4, 3) are given."""
    values = np.broadcast_to(np.asarray(values, np.float32), (2, 4, 3)).copy()
    return xr.DataArray(
        values,
        dims=("time", "lat", "lon"),
        coords={
            "time": np.array(["2020-01-01T00", "2020-01-01T06"], "M8[ns]"),
            "lat": LATITUDE,
            "lon": LONGITUDE,
        },
        name="t",
        attrs=attrs if units is None else {"units": units, **attrs},
    )


def noisy(array: xr.DataArray) -> xr.DataArray:
    return array + np.random.default_rng(1).normal(0, 2, array.shape).astype(np.float32)


class NamedModel:
    """What a report needs of a model."""

    name, nbytes, offset, scale, units = "tiny", 90, 200.0, 100.0, "K"


def report_on(
    original: xr.DataArray,
    decoded: xr.DataArray,
    chunks: list[StoredChunk] | None = None,
    **facts: Any,
) -> VariableReport:
    errors = field_errors(
        original.values,
        decoded.values,
        CellWeights.of_latitudes(original.lat.values, original.shape[-1]),
    )
    if chunks is None:
        chunks = [StoredChunk((slice(None),) * errors.ndim, 10, Kind.LATENTS)]
    return variable_report(
        original, errors, chunks, **{"model": NamedModel(), "rate": Rate(bits=8)} | facts
    )


def example(**changes: Any) -> Report:
    """A report on one encoded variable and one that was left alone."""
    facts: dict[str, Any] = {
        "name": "t", "outcome": "compressed", "unit": "°C", "n_globes": 1234, "n_points": 500_000,
        "missing_cells": 77, "nbytes": 4321, "schemes": {"latents in time": 4, "grid": 1},
        "model": "t2m-46x90", "model_nbytes": 100_000, "target_rmse": 1.357, "rmse": 1.234,
        "rmse_plain": 2.345, "max_error": 34.56, "bias": -0.0567, "worst_chunk_rmse": 1.345,
        "worst_chunk_label": "time=2020-01-01T00:00 … 2020-01-02T18:00", "worst_globe_rmse": 3.456,
        "worst_globe_index": 17, "worst_globe_label": "time=2020-01-01T06:00",
        "encode_seconds": 0.11, "decode_seconds": 0.022,
    }  # fmt: skip
    left_alone = VariableReport(name="count", outcome="integers: kept as they are")
    return Report((VariableReport(**facts | changes), left_alone), 321, 654)


# ---- units ------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", ["K", "kelvin", "Kelvin", "degC", "celsius", "degrees_Celsius"])
def test_errors_in_kelvin_and_celsius_are_in_celsius(units) -> None:
    original = field(units=units)
    report = report_on(original, original + 3)
    assert (report.unit, report.bias) == ("°C", pytest.approx(3.0))


@pytest.mark.parametrize("units", ["degF", "fahrenheit", "Fahrenheit", "degree_Fahrenheit"])
def test_errors_in_fahrenheit_stay_in_fahrenheit(units) -> None:
    original = field(units=units)
    report = report_on(original, original + 9, rate=Rate(target_rmse=9.5))
    assert report.unit == "°F"
    assert [report.rmse, report.max_error, report.bias] == [pytest.approx(9.0)] * 3
    assert (report.target_rmse, report.asked) == (9.5, "RMSE 9.5 °F")


@pytest.mark.parametrize(
    "units", ["m s-1", "Pa", "kg m**-2 s**-1", "(0 - 1)", "%", "K s-1", "K*9**9**9**9", "???"]
)
def test_other_units_stay_as_they_are(units) -> None:
    original = field(units=units)
    report = report_on(original, original + 3)
    assert (report.unit, report.bias) == (units, pytest.approx(3.0))


def test_without_units_the_unit_is_empty() -> None:
    assert report_on(field(units=None), field(units=None)).unit == ""


@pytest.mark.parametrize(
    ("attrs", "shown"),
    [
        ({"units": "K"}, 0.0),
        ({"units": "degC"}, 273.15),
        ({"units": "degF"}, 273.15),
        ({"units": "K", "units_metadata": "temperature: difference"}, 273.15),
        ({"units": "K", "standard_name": "air_temperature_anomaly"}, 273.15),
    ],
)
def test_shown_temperatures_have_the_zero_of_celsius_unless_they_are_differences(
    attrs, shown
) -> None:
    assert 273.15 + display_unit(attrs).offset == pytest.approx(shown)


# ---- metrics ----------------------------------------------------------------------------------


def test_rmse_is_weighted_by_the_cosine_of_latitude() -> None:
    original = field()
    decoded = noisy(original)
    squares = (decoded - original).astype(float) ** 2
    expected = np.sqrt(squares.weighted(np.cos(np.deg2rad(original.lat))).mean())
    assert report_on(original, decoded).rmse == pytest.approx(float(expected), rel=1e-6)


def test_an_error_at_the_pole_weighs_nothing_but_counts_as_largest_and_in_the_plain_rmse() -> None:
    original = field()
    decoded = original.copy()
    decoded[0, 0, 0] += 12
    report = report_on(original, decoded)
    assert report.rmse < 1e-3
    assert report.max_error == 12.0
    assert report.rmse_plain == pytest.approx(np.sqrt(12**2 / original.size))


def test_bias_is_the_area_weighted_mean_of_reconstruction_minus_original() -> None:
    original = field()
    decoded = original.copy()
    decoded[:, 3] -= 4  # at 60°S
    cosine = np.cos(np.deg2rad(LATITUDE))
    expected = -4 * cosine[3] / cosine.sum()
    assert report_on(original, decoded).bias == pytest.approx(expected)


def test_the_worst_globe_is_named() -> None:
    original = field()
    decoded = original + np.array([1, 2], np.float32)[:, None, None]
    report = report_on(original, decoded)
    assert report.worst_globe_index == 1
    assert report.worst_globe_rmse == pytest.approx(2.0)
    assert report.worst_globe_label == "time=2020-01-01T06:00"


def test_the_worst_globe_is_found_along_several_axes_with_or_without_coordinates() -> None:
    original = xr.concat([field(), field(), field()], "member")  # (member, time, lat, lon)
    decoded = original.copy()
    decoded[2, 1] += 5
    report = report_on(original, decoded)
    assert report.worst_globe_index == 5
    assert report.worst_globe_label == "member=2, time=2020-01-01T06:00"


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_missing_cells_count_in_no_error(missing) -> None:
    original = field()
    decoded = noisy(original)
    original[0, 1:3] = missing
    decoded[0, 1:3] = missing
    valid = np.isfinite(original.values)
    error = decoded.values[valid].astype(float) - original.values[valid]
    weights = np.broadcast_to(np.cos(np.deg2rad(LATITUDE))[:, None], (2, 4, 3))[valid]
    report = report_on(original, decoded)
    assert report.missing_cells == 6
    assert report.rmse == pytest.approx(np.sqrt(np.average(error**2, weights=weights)), rel=1e-6)
    assert report.rmse_plain == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert report.bias == pytest.approx(np.average(error, weights=weights), rel=1e-6)
    assert report.max_error == pytest.approx(np.abs(error).max())


def test_without_a_valid_cell_there_is_no_error_to_report() -> None:
    original = field(np.nan)
    report = report_on(original, original)
    assert (report.rmse, report.max_error, report.worst_globe_label) == (None, None, "")


@pytest.mark.parametrize("mean", [0.0, 280.0, 1e6])
def test_the_spread_is_the_standard_deviation_by_area(mean) -> None:
    rng = np.random.default_rng(3)
    original = field(rng.normal(0, 5, (2, 4, 3)), units="Pa").astype(float) + mean
    original[1, 2, 1] = np.nan
    report = report_on(original, original)
    expected = original.weighted(np.cos(np.deg2rad(original.lat))).std()
    assert report.spread == pytest.approx(float(expected), rel=1e-9)
    assert report.least_spread == report.spread


def test_the_spread_that_errors_are_held_against_is_that_of_the_calmest_level() -> None:
    rng = np.random.default_rng(3)
    calm, wild, still = (field(280 + rng.normal(0, s, (2, 4, 3))) for s in (1, 50, 0))
    original = xr.concat([wild, calm, still], "level").transpose("time", "level", ...)
    report = report_on(original, original, rate=Rate(target_rmse=0.1))
    assert report.least_spread == pytest.approx(report_on(calm, calm).spread)
    assert report.spread == pytest.approx(
        float(original.astype(float).weighted(np.cos(np.deg2rad(original.lat))).std())
    )
    assert report.asked_of_spread == pytest.approx(0.1 / report.least_spread)


@pytest.mark.parametrize("value", [0.0, 273.15, np.nan, 1e30])
def test_what_does_not_vary_has_no_spread(value) -> None:
    report = report_on(field(value), field(value))
    assert (report.spread, report.least_spread, report.rmse_of_spread) == (None, None, None)


def test_huge_values_have_no_spread_and_raise_nothing() -> None:
    huge = field(1.0).astype(float) * 1e300 * np.arange(1, 4)
    assert report_on(huge, huge).spread is None


def test_half_precision_does_not_overflow() -> None:
    original = field(60000.0).astype(np.float16)
    report = report_on(original, -original)
    assert report.rmse == pytest.approx(120000.0, rel=1e-3)


def test_large_fields_are_summed_in_slabs() -> None:
    rng = np.random.default_rng(2)
    original = rng.normal(size=(5, 600, 1000)).astype(np.float32)
    decoded = original + np.arange(5, dtype=np.float32)[:, None, None]
    errors = field_errors(
        original, decoded, CellWeights.of_latitudes(np.linspace(-89, 89, 600), original.shape[-1])
    )
    assert np.sqrt(errors["squared"] / errors["weight"]) == pytest.approx(np.arange(5), abs=1e-5)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        field_errors(
            np.zeros((2, 4, 3)), np.zeros((1, 4, 3)), CellWeights.of_latitudes(LATITUDE, 3)
        )


def test_ratios_and_bits_per_point_follow_from_the_bytes() -> None:
    chunks = [StoredChunk((slice(i, i + 1),), 6, Kind.LATENTS) for i in range(2)]
    report = report_on(field().astype(np.float64), field(), chunks, embedded_nbytes=36)
    assert report.raw_nbytes_float32 == 4 * 24
    assert report.ratio == 8.0
    assert report.ratio_with_model == 2.0
    assert report.bits_per_point == 4.0


@pytest.mark.parametrize(
    ("encoding", "dtype", "itemsize"),
    [
        ({"dtype": np.dtype("i2"), "scale_factor": 0.01}, "f4", 2),
        ({"dtype": "int8"}, "f4", 1),
        ({}, "f8", 8),
        ({"dtype": "f8"}, "f4", 8),
        ({"dtype": str}, "f4", 4),
        ({"dtype": "nonsense"}, "f4", 4),
        ({"dtype": None}, "f2", 2),
    ],
)
def test_the_source_has_its_own_size(encoding, dtype, itemsize) -> None:
    array = field().astype(dtype)
    array.encoding = encoding
    assert source_itemsize(array) == itemsize


def test_the_ratio_to_the_source_is_shown_where_it_was_not_float32() -> None:
    packed = example(source_nbytes=1_000_000)
    assert packed["t"].ratio_to_source == packed["t"].ratio / 2
    assert packed.to_dict()["ratio_to_source"] == packed["t"].ratio_to_source
    for text in (str(packed), packed._repr_html_()):
        assert "463×" in text
        assert "231×" in text
        assert "463× smaller than float32, 231× than the source" in " ".join(text.split())
    assert "source" not in str(example(source_nbytes=2_000_000))
    assert "source" not in str(example())


def test_a_report_adds_its_variables_up_and_counts_the_model_once() -> None:
    one, other = report_on(field(), field()), report_on(field().rename("u"), field())
    report = Report((one, other, VariableReport(name="n", outcome="integers")))
    assert (report.nbytes, report.model, report.model_nbytes) == (20, "tiny", 90)
    assert report.ratio == pytest.approx(2 * 96 / 20)
    assert report.ratio_with_model == pytest.approx(2 * 96 / 110)


def test_every_copy_of_an_embedded_model_counts() -> None:
    arrays = (field(), field().rename("u"))
    report = Report(tuple(report_on(array, array, embedded_nbytes=40) for array in arrays))
    assert (report.model, report.model_nbytes) == ("tiny", 80)


def test_a_model_that_no_chunk_needs_counts_only_where_it_is_embedded() -> None:
    chunks = [StoredChunk((slice(None),), 10, Kind.GRID)]
    report = report_on(field(), field(), chunks)
    assert (report.model, report.model_nbytes, report.ratio_with_model) == ("none", 0, report.ratio)
    assert report_on(field(), field(), chunks, embedded_nbytes=40).model_nbytes == 40
    assert "no model needed" in Report((report,)).headline


# ---- chunks ------------------------------------------------------------------------------------


def in_two(kinds: tuple[Kind, Kind]) -> list[StoredChunk]:
    """One chunk for each of the two times."""
    return [StoredChunk((slice(i, i + 1),), 10, kind) for i, kind in enumerate(kinds)]


def test_the_schemes_are_counted_and_the_worst_chunk_is_named() -> None:
    original = field()
    decoded = original + np.array([1, 2], np.float32)[:, None, None]
    chunks = in_two((Kind.GRID, Kind.LATENTS_IN_TIME))
    report = report_on(original, decoded, chunks, rate=Rate(target_rmse=2.5))
    assert report.schemes == {"grid": 1, "latents in time": 1}
    assert report.worst_chunk_rmse == pytest.approx(2.0)
    assert report.worst_chunk_label == "time=2020-01-01T06:00"
    assert report.target_rmse == 2.5


def test_a_chunk_of_several_times_is_named_by_its_ends() -> None:
    label = report_on(field(), noisy(field())).worst_chunk_label
    assert label == "time=2020-01-01T00:00 … 2020-01-01T06:00"


@pytest.mark.parametrize(
    ("values", "bits", "reason"),
    [
        (np.nan, 8, "missing values only"),
        (280.0, 8, "constant, or missing values only"),
        (np.arange(24).reshape(2, 4, 3) * 1000, 8, "values 0 … 23000, which model 'tiny' (200 …"),
        (np.arange(24).reshape(2, 4, 3), None, "nothing smaller meets the target"),
    ],
)
def test_the_outcome_says_why_chunks_were_stored_without_loss(values, bits, reason) -> None:
    original = field(values)
    report = report_on(
        original, original, in_two((Kind.LOSSLESS, Kind.LOSSLESS)), rate=Rate(bits=bits)
    )
    assert report.outcome.startswith(f"stored without loss: {reason}")


def test_the_outcome_counts_the_chunks_that_were_stored_without_loss() -> None:
    report = report_on(field(), field(), in_two((Kind.GRID, Kind.LOSSLESS)))
    assert report.outcome.startswith("compressed, except for 1 of 2 chunks stored without loss")


# ---- text, JSON, HTML -------------------------------------------------------------------------

SHOWN = ["4,321", "463×", "19.2×", "0.0691", "1.23", "2.35", "34.6", "−0.0567", "3.46", "°C",
         "came back as they were: t 77", "RMSE 1.36 °C", "t: 5 chunks (4 latents in time, 1 grid)",
         "RMSE of the worst chunk: t 1.34 °C",
         "metadata 321 bytes", "654 bytes", "104,321 bytes", "time=2020-01-01T06:00", "0.11 s",
         "integers: kept as they are", "t2m-46x90", "100,000 bytes", "0.022 s"]  # fmt: skip


@pytest.mark.parametrize("text", SHOWN)
def test_the_table_shows(text) -> None:
    assert text in str(example())


@pytest.mark.parametrize("text", SHOWN)
def test_the_html_shows(text) -> None:
    assert text in example()._repr_html_()


def test_the_table_is_plain_text_of_at_most_80_columns() -> None:
    text = str(example(outcome="stored without loss: " + 40 * "because "))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


NUMBERS = st.floats(1e-12, 1e12)


@st.composite
def variables(draw: Any, number: int) -> VariableReport:
    """A variable with a name of 30 characters and a unit of 20, each in pieces of any length."""
    letters = st.sampled_from("abcdefgh_ ")
    name = f"{draw(st.text(letters, min_size=27, max_size=27))}v{number:02d}"
    return VariableReport(
        name=name, outcome="compressed", unit=draw(st.text(letters, min_size=20, max_size=20)),
        n_globes=9, n_points=draw(st.integers(1, 10**13)), nbytes=draw(st.integers(1, 10**12)),
        source_nbytes=draw(st.integers(1, 10**13)), missing_cells=draw(st.integers(0, 10**12)),
        schemes={"pyramid": 3}, model="t2m-46x90", model_nbytes=10**6, bound=draw(NUMBERS),
        rmse=draw(NUMBERS), rmse_plain=draw(NUMBERS), max_error=draw(NUMBERS),
        bias=-draw(NUMBERS), spread=1.0, least_spread=draw(NUMBERS),
        worst_globe_rmse=draw(NUMBERS), worst_globe_label="time=2020-01-01T06:00",
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_line_is_longer_than_80_and_no_number_is_cut(data) -> None:
    report = Report(tuple(data.draw(variables(number)) for number in range(12)))
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    words = set(text.split())
    for v in report:
        shown = [f"{v.nbytes:,}", in_digits(v.bias), f"±{in_digits(v.bound)}"]
        shown += map(in_digits, (v.rmse, v.rmse_plain, v.max_error, v.bits_per_point))
        assert not set(shown) - words


def test_small_numbers_with_long_units_stay_whole() -> None:
    text = str(example(
        name="precipitation_flux_at_the_surface", unit="kg m-2 s-1", rmse=6.21e-05, bound=1e-4,
        bias=-5.01e-10, max_error=9.99e-05,
    ))  # fmt: skip
    for whole in ("6.21e-05", "−5.01e−10", "9.99e-05", "±0.0001", "kg m-2 s-1", "precipitation"):
        assert whole in text


def test_a_wide_terminal_folds_nothing() -> None:
    name = "precipitation_flux_at_the_surface"
    assert name in plain_text(example(name=name, unit="kg m-2 s-1"), 160)


def test_a_narrow_terminal_gets_more_tables() -> None:
    text = plain_text(example(name="air_temperature_of_today"), 44)
    assert max(map(len, text.splitlines())) <= 44
    assert "−0.0567" in text


def test_html_has_a_table_of_sizes_and_one_of_errors() -> None:
    assert example().table_html().count("<table>") == 2


def test_notes_are_told_once_for_all_variables() -> None:
    t = example(model_choice="a reason")["t"]
    report = Report((t, replace(t, name="u"), replace(t, name="v", schemes={"grid": 1})))
    text = " ".join(str(report).split())
    assert "t, u: 5 chunks (4 latents in time, 1 grid)" in text
    assert "v: 1 chunk (grid)" in text
    assert "worst globe: t, u, v (time=2020-01-01T06:00)" in text
    assert "came back as they were: t 77; u 77; v 77" in text
    assert text.count("a reason") == 1


def test_under_a_bound_no_chunk_is_the_worst() -> None:
    assert "worst chunk" in str(example())
    assert "worst chunk" not in str(example(bound=0.5))


def test_the_target_is_a_column_only_where_there_is_one() -> None:
    assert "asked" not in str(example(target_rmse=None))


def test_bounds_are_shown_in_the_unit_of_the_errors() -> None:
    original = field(units="degF")
    absolute = report_on(original, original, rate=Rate(bound=Bound(9.0)))
    assert (absolute.bound, absolute.asked) == (9.0, "±9 °F")
    assert "±0.5 °C" in str(example(bound=0.5))


def test_relative_bounds_have_no_unit() -> None:
    original = field(units="K")
    relative = report_on(original, original, rate=Rate(bound=Bound(0.01, relative=True)))
    assert (relative.asked, relative.asked_of_spread) == ("±1 %", None)
    assert "±1 %  4,321" in str(example(bound=0.01, bound_relative=True))


def test_errors_are_told_as_shares_of_the_spread() -> None:
    much = example(spread=9.0, least_spread=9.0)
    assert much["t"].asked_of_spread == pytest.approx(1.357 / 9)
    assert much.to_dict()["variables"]["t"]["rmse_of_spread"] == pytest.approx(1.234 / 9)
    assert "15 % !" in str(much)
    assert "!: more than a tenth of the spread" in str(much)
    assert "15 % !" in much._repr_html_()
    little = str(example(spread=100.0, least_spread=100.0))
    assert "1.2 %" in little
    assert "!" not in little


@pytest.mark.parametrize(
    ("part", "shown"),
    [(None, "–"), (0.0, "0 %"), (1e-9, "< 0.01 %"), (0.00123, "0.12 %"), (0.1, "10 %"),
     (0.32, "32 % !"), (12.345, "1,234 % !")],
)  # fmt: skip
def test_shares_are_short(part, shown) -> None:
    assert share_of_spread(part) == shown


def test_a_variable_without_errors_shows_dashes_instead_of_numbers() -> None:
    nothing = dict.fromkeys(["rmse", "rmse_plain", "max_error", "bias", "worst_globe_rmse"])
    assert str(example(**nothing)).count("–") == 6  # and none of the RMSE in the spread


def test_to_dict_survives_json() -> None:
    report = example(rmse=None).to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_to_dict_holds_what_follows_from_the_fields() -> None:
    variable = example().to_dict()["variables"]["t"]
    assert variable["ratio"] == pytest.approx(2_000_000 / 4321)
    assert variable["bits_per_point"] == pytest.approx(8 * 4321 / 500_000)


def test_measured_reports_are_plain_json() -> None:
    report = Report((report_on(field(), noisy(field())),)).to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match="there are: t, count"):
        example()["u"]


def test_errors_of_a_part_are_told_apart_from_the_bytes_of_the_whole() -> None:
    report = replace(example(), part="lat=60 … 30")
    assert "errors of a part (lat=60 … 30); bytes, ratios and chunks of the whole" in str(report)
    assert report.to_dict()["part"] == "lat=60 … 30"
    assert "part" not in example().to_dict()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("t2m", ["t2m"]),
        ("air_temperature_2m", ["air_", "temperature_", "2m"]),
        ("kg m-2 s-1", ["kg m-2 s-1"]),
        ("±6.21e-05 kg m-2", ["±6.21e-05 kg", "m-2"]),
        ("precipitationflux_of_today", ["precip…flux_", "of_today"]),
        ("", [""]),
    ],
)
def test_texts_fold_behind_separators_only(text, lines) -> None:
    assert fold(text, 12) == lines


# ---- spectra ----------------------------------------------------------------------------------


EVERY_TEN_DEGREES = np.arange(0, 360, 10.0)


def waves(wavenumber: int, longitude: np.ndarray = EVERY_TEN_DEGREES) -> Any:
    """Two globes of 3 × sin(m λ) on every latitude, and their grid."""
    fields = 3 * np.sin(np.deg2rad(wavenumber * longitude)) + np.zeros((2, 4, 1))
    return fields, SphereGrid(LATITUDE, longitude)


def test_a_wave_has_its_power_at_its_wavenumber() -> None:
    wavenumbers, power = zonal_spectrum(*waves(5))
    assert wavenumbers[power.argmax()] == 5
    assert power[5] == pytest.approx(3**2 / 2)
    assert power.sum() == pytest.approx(3**2 / 2)


@pytest.mark.parametrize("count", [36, 35])
def test_powers_add_up_to_the_mean_square_by_area(count) -> None:
    fields = np.random.default_rng(5).normal(size=(3, 4, count))
    grid = SphereGrid(LATITUDE, np.arange(count) * 360 / count)
    _, power = zonal_spectrum(fields, grid)
    cosine = np.cos(np.deg2rad(LATITUDE))
    expected = ((fields**2).mean((0, 2)) * cosine).sum() / cosine.sum()
    assert power.sum() == pytest.approx(expected)


def test_a_meridian_that_is_stored_twice_counts_once() -> None:
    _, power = zonal_spectrum(*waves(5, np.arange(0, 361, 10.0)))
    assert power[5] == pytest.approx(3**2 / 2)


def test_circles_with_missing_cells_are_left_out() -> None:
    fields, grid = waves(5)
    fields[0, 1, 7] = np.nan
    fields[1, 2] *= 100
    fields[1, 2, 0] = np.nan
    assert zonal_spectrum(fields, grid)[1][5] == pytest.approx(3**2 / 2)


@pytest.mark.parametrize(
    "longitude", [np.arange(0, 90, 10.0), np.array([0.0, 100.0, 190.0, 280.0])], ids=str
)
def test_regions_and_uneven_longitudes_have_no_zonal_wavenumbers(longitude) -> None:
    assert zonal_spectrum(*waves(1, longitude)) is None


def test_without_a_complete_circle_there_is_no_spectrum() -> None:
    fields, grid = waves(1)
    fields[..., 3] = np.nan
    assert zonal_spectrum(fields, grid) is None


# ---- maps -------------------------------------------------------------------------------------


def drawn(figure: Any) -> list[np.ndarray]:
    """The values in the three maps, north up, west to east."""
    images = [axes.collections[0] for axes in figure.axes[:3]]
    return [np.ma.filled(image.get_array(), np.nan).reshape(4, 3) for image in images]


def test_maps_show_original_reconstruction_and_residual_in_celsius() -> None:
    original = field(273.15)
    shown, decoded, residual = drawn(plot_maps(original, original + 2))
    np.testing.assert_allclose(shown, 0, atol=1e-3)
    np.testing.assert_allclose(decoded, 2, atol=1e-3)
    np.testing.assert_allclose(residual, 2, atol=1e-3)


def test_colour_bars_are_labelled_with_quantity_and_unit() -> None:
    figure = plot_maps(field(long_name="2 metre temperature"), noisy(field()))
    labels = [axes.get_xlabel() for axes in figure.axes[3:]]
    assert labels == [
        "2 metre temperature (°C)",
        "2 metre temperature (°C)",
        "reconstruction − original (°C)",
    ]


def test_maps_share_their_colours_and_the_residual_is_centred_on_zero() -> None:
    original = field()
    figure = plot_maps(original, noisy(original))
    limits = [axes.collections[0].get_clim() for axes in figure.axes[:3]]
    assert limits[0] == limits[1]
    assert limits[2][0] == -limits[2][1]


@pytest.mark.parametrize(("item", "level"), [(0, 1.0), (1, 2.0), (-1, 2.0)])
def test_the_item_chooses_the_globe(item, level) -> None:
    original = field(units="m")
    decoded = original + np.array([1, 2], np.float32)[:, None, None]
    assert drawn(plot_maps(original, decoded, item=item))[2] == pytest.approx(level)


@pytest.mark.parametrize("item", [2, -3])
def test_an_item_that_does_not_exist_is_refused(item) -> None:
    with pytest.raises(IndexError, match="there are 2 globes"):
        plot_maps(field(), field(), item=item)


def test_a_single_globe_needs_no_batch_axis() -> None:
    globe = field(units="m")[0]
    assert drawn(plot_maps(globe, globe + 1))[2] == pytest.approx(1.0)


def test_maps_do_not_depend_on_the_order_of_dimensions() -> None:
    original = noisy(field())
    decoded = noisy(original)
    swapped = plot_maps(original.transpose("lon", "time", "lat"), decoded.transpose("lon", ...))
    for a, b in zip(drawn(plot_maps(original, decoded)), drawn(swapped), strict=True):
        np.testing.assert_array_equal(a, b)


def test_missing_cells_are_left_blank() -> None:
    original = field()
    original[0, 2, 1] = np.nan
    for values in drawn(plot_maps(original, original)):
        assert np.argwhere(np.isnan(values)).tolist() == [[2, 1]]


def test_a_globe_of_missing_values_can_be_drawn() -> None:
    assert np.isnan(drawn(plot_maps(field(np.nan), field(np.nan)))).all()


def test_maps_can_be_drawn_in_threads() -> None:
    def draw(_: int) -> bytes:
        return plot_maps(field(), noisy(field()))._repr_png_()

    with ThreadPoolExecutor(2) as pool:
        pictures = list(pool.map(draw, range(2)))
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]


def test_maps_leave_pyplot_alone() -> None:
    script = (
        "import sys, numpy as np, xarray as xr, coinpp_xr.plots as p\n"
        "a = xr.DataArray(np.ones((2, 2)), {'lat': [1., 0.], 'lon': [0., 1.]}, ('lat', 'lon'))\n"
        "p.plot_maps(a, a)\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# ---- all of a result ---------------------------------------------------------------------------


def globes(count: int = 3) -> xr.DataArray:
    """A few globes on 10 degrees."""
    grid = next(SphereGrid.usual_layouts(19, 36))
    values = np.random.default_rng(4).normal(280, 9, (count, 19, 36)).astype(np.float32)
    coords = {"time": np.arange(count), "lat": grid.latitude, "lon": grid.longitude}
    return xr.DataArray(values, coords, ("time", "lat", "lon"), "t", {"units": "K"})


def panels(figure: Any) -> dict[str, Any]:
    return {axes.get_title().split(",")[0]: axes for axes in figure.axes if axes.get_title()}


def test_a_result_has_five_panels_in_celsius() -> None:
    shown = panels(plot_result(globes(), noisy(globes())))
    assert list(shown) == [
        "original", "reconstruction", "residual", "errors by area", "power spectrum",
    ]  # fmt: skip
    assert shown["errors by area"].get_xlabel() == "reconstruction − original (°C)"
    assert shown["power spectrum"].get_ylabel() == "power (°C²)"
    assert shown["power spectrum"].get_title() == "power spectrum, 3 globes"


def test_the_histogram_shows_shares_of_the_area() -> None:
    original = globes()
    decoded = original + xr.where(original.lat > 0, 2.0, -1.0)
    bars = panels(plot_result(original, decoded))["errors by area"].patches
    heights = np.array([bar.get_height() for bar in bars])
    assert heights.sum() == pytest.approx(100)
    cosine = np.cos(np.deg2rad(original.lat))
    assert heights[-1] == pytest.approx(float(100 * cosine[original.lat > 0].sum() / cosine.sum()))


def test_the_spectrum_shows_original_reconstruction_and_error() -> None:
    lines = panels(plot_result(globes(), noisy(globes())))["power spectrum"].lines
    assert [line.get_label() for line in lines] == ["original", "reconstruction", "error"]
    assert all(line.get_xdata()[0] == 1 for line in lines)


def test_a_region_has_no_spectrum() -> None:
    region = globes().isel(lon=slice(3, 12), lat=slice(2, 9))
    assert list(panels(plot_result(region, noisy(region))))[3:] == ["errors by area"]


def test_many_globes_are_sampled_and_dask_data_near_the_item() -> None:
    many = globes(200)
    assert "64 of 200 globes" in panels(plot_result(many, many))["errors by area"].get_title()
    touched = set()

    def look(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:
            touched.add(block_info[0]["chunk-location"][0])
        return block

    lazy = many.chunk(time=50)
    watched = lazy.copy(data=lazy.data.map_blocks(look, dtype=np.float32))
    plot_result(watched, lazy, item=-1)
    assert touched == {2, 3}


def test_an_exact_or_missing_result_can_be_drawn() -> None:
    plot_result(globes(), globes())._repr_png_()
    plot_result(globes() * np.nan, globes())._repr_png_()


def test_a_single_row_makes_no_map() -> None:
    row = globes().isel(lat=[3])
    with pytest.raises(ValueError, match="here are 1 × 36; select a larger part"):
        plot_result(row, row)


# ---- coastlines ---------------------------------------------------------------------------------


def test_coastlines_travel_with_the_package() -> None:
    points = np.concatenate(coastlines())
    assert len(points) > 5000
    assert np.abs(points).max(axis=0).tolist() == [180, pytest.approx(85.6, abs=0.1)]
    # Borders are not among them: a thousand kilometres inland there is none.
    for inland in [(-100, 45), (25, 0), (-55, -12), (85, 60), (135, -25)]:
        assert np.hypot(*(points - inland).T).min() > 5


def test_maps_have_coastlines_wherever_the_longitudes_begin() -> None:
    axes = plot_maps(globes(), globes()).axes[0]
    segments = axes.collections[1].get_segments()
    assert len(segments) == 3 * len(coastlines())
    west, east = (f(s[:, 0].tolist()[0] for s in segments) for f in (min, max))
    assert west < -360
    assert east > 360
    assert axes.get_xlim() == (-5.0, 355.0)
