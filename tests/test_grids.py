"""Grids of no latitude and longitude axes: rows and columns of an index, and cells in one axis."""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from refusals import refusal

import coinpp_xr
from coinpp_xr import COINppCodec, residual
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.cells import healpix, rows, triangles
from coinpp_xr.cells.folding import FoldKind, fold_of, folds_of, folds_of_rows
from coinpp_xr.cells.weights import pack, unpack
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.coordinates import IndexGrid
from coinpp_xr.data import Horizontal
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.fields import Fields
from coinpp_xr.lattice import Bound

LENGTHS = 20 + 4 * np.minimum(np.arange(20), np.arange(20)[::-1])
NSIDE = 16


def field(latitude: np.ndarray, longitude: np.ndarray, times: int = 3) -> np.ndarray:
    """Smooth fields of degrees Celsius at any places."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    time = np.arange(times).reshape(-1, *[1] * np.ndim(latitude))
    waves = 5 * np.cos(3 * lon + time / 2) * np.cos(lat) ** 2 + np.sin(9 * lat + 5 * lon)
    return (30 * np.cos(lat) - 10 + waves).astype(np.float32)


def dataset(kind: str) -> xr.Dataset:
    """Three times on a grid of a kind, in K."""
    attrs = {"units": "K", "standard_name": "air_temperature"}
    if kind == "regular":
        lat, lon = np.linspace(85, -85, 18), np.arange(36) * 10.0
        dims, coords = ("lat", "lon"), {"lat": lat, "lon": lon}
        values = field(*np.meshgrid(lat, lon, indexing="ij"))
    elif kind in ("curvilinear", "projected"):
        y, x = np.mgrid[:40, :56]
        lat, lon = 20 + y + x / 9, 100 + x * 1.2 - y / 4
        dims, values = ("y", "x"), field(lat, lon)
        coords = {"lat": (dims, lat), "lon": (dims, lon)} if kind == "curvilinear" else {}
    else:
        dims, coords = ("cell",), {}
        lat, lon = places(kind)
        values = field(lat, lon)
        if kind not in ("healpix-without", "icon-without"):
            coords = {"lat": ("cell", lat), "lon": ("cell", lon)}
    values = values + np.float32(273.15)
    coords["time"] = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
    return xr.Dataset({"t": (("time", *dims), values, attrs)}, coords)


def places(kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind.startswith("healpix"):
        order = healpix.ring if kind == "healpix-ring" else healpix.nested
        return healpix.centres(order(NSIDE), NSIDE)
    if kind == "rows":
        latitude = np.linspace(87, -87, len(LENGTHS))
        lon = np.concatenate([np.arange(n) * 360 / n for n in LENGTHS])
        return np.repeat(latitude, LENGTHS), lon
    if kind.startswith("icon"):
        return of_triangles(3)
    rng = np.random.default_rng(1)
    return np.rad2deg(np.arcsin(rng.uniform(-1, 1, 1500))), rng.uniform(0, 360, 1500)


def of_triangles(halvings: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of triangles within those of an icosahedron, in ICON's order."""
    golden = (1 + 5**0.5) / 2
    points = np.array([(a, b * golden, 0.0) for a in (1, -1) for b in (1, -1)])
    points = np.concatenate([np.roll(points, k, axis=1) for k in range(3)])
    points /= np.linalg.norm(points[0])
    apart = np.linalg.norm(points[:, None] - points, axis=-1)
    near = (apart > 0) & (apart < 1.1)
    faces = [
        points[[i, j, k]]
        for i in range(12) for j in range(i) for k in range(j)
        if near[i, j] and near[j, k] and near[i, k]
    ]  # fmt: skip
    (_, width), place = triangles.places(4**halvings, halvings)
    row, column = np.divmod(place, width)
    side = 1 << halvings
    x, y = (column // 2 + (1 + column % 2) / 3) / side, (row + (1 + column % 2) / 3) / side
    centres = np.concatenate([f[0] + np.outer(x, f[1] - f[0]) + np.outer(y, f[2] - f[0])
                              for f in faces])  # fmt: skip
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return np.rad2deg(np.arcsin(centres[:, 2])), np.rad2deg(np.arctan2(*centres.T[1::-1])) % 360


KINDS = {
    "regular": (None, "cos(latitude)"),
    "curvilinear": ("index", "cos(latitude)"),
    "projected": ("index", "nothing: all cells count alike"),
    "healpix": ("healpix", "equal areas"),
    "healpix-ring": ("healpix-ring", "equal areas"),
    "healpix-without": ("cells", "nothing: all cells count alike"),
    "icon": ("icon", "nothing: all cells count alike"),
    "icon-without": ("cells", "nothing: all cells count alike"),
    "rows": ("rows", "areas of rows"),
    "scattered": ("cells", "nothing: all cells count alike"),
}
every_grid = pytest.mark.parametrize("kind", KINDS)


# ---- what a grid is -----------------------------------------------------------------------------


@every_grid
def test_a_grid_is_known_by_its_coordinates(kind) -> None:
    found = Horizontal.of(dataset(kind)["t"])
    name, weighting = KINDS[kind]
    assert (found.grid and found.grid.name) == name
    assert found.weighting == weighting


@pytest.mark.parametrize(
    ("attrs", "name"),
    [
        ({"healpix_nside": NSIDE, "healpix_order": "nested"}, "healpix"),
        ({"grid_mapping_name": "healpix", "healpix_order": "ring"}, "healpix-ring"),
        ({"GRIB_gridType": "healpix", "GRIB_orderingConvention": "ring"}, "healpix-ring"),
    ],
)
def test_healpix_is_known_by_what_the_array_says(attrs, name) -> None:
    array = dataset("healpix-without")["t"].assign_attrs(attrs)
    assert Horizontal.of(array).grid.name == name


def test_areas_come_from_cell_measures_and_from_corners() -> None:
    ds = dataset("curvilinear")
    area = 1e6 * (2 + np.cos(np.deg2rad(ds.lat)))
    named = ds.assign(areacello=area)
    named["t"].attrs["cell_measures"] = "area: areacello"
    report = named.coinpp.compress(variables="t", target_rmse=0.1).report["t"]
    assert report.weighting == "areas (areacello)"
    steps = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)])
    lat, lon = (a.to_numpy()[..., None] + steps[:, k] for k, a in enumerate((ds.lat, ds.lon)))
    bounded = ds.assign(lat_bnds=(("y", "x", "corner"), lat), lon_bnds=(("y", "x", "corner"), lon))
    for axis in ("lat", "lon"):
        bounded[axis].attrs["bounds"] = f"{axis}_bnds"
    result = bounded.coinpp.compress(variables="t", target_rmse=0.1)
    assert result.report["t"].weighting == "areas within bounds"
    assert set(result.dataset.coords) == set(bounded.coords)


def test_an_rmse_is_that_of_the_areas(tmp_path) -> None:
    ds = dataset("curvilinear")
    area = np.exp(ds.lat / 9)  # some cells count a thousand times as much
    named = ds.assign_coords(area=area)
    named["t"].attrs["cell_measures"] = "area: area"
    report = named.coinpp.to_zarr(tmp_path / "t.zarr", target_rmse=0.05)["t"]
    decoded = xr.open_zarr(tmp_path / "t.zarr")["t"].transpose(*ds["t"].dims)
    squares = (decoded - ds["t"]) ** 2
    rmse = float(np.sqrt((squares * area).sum() / (3 * area.sum())))
    assert rmse == pytest.approx(report.rmse, rel=0.02)
    assert report.rmse <= 0.05 * (1 + 1e-6)


def test_what_is_no_field_is_told_in_one_line() -> None:
    series = xr.Dataset({"t": ("time", np.zeros(5, np.float32))})
    message = refusal(lambda: series.coinpp.compress(max_error=0.1))
    assert message == "no variable can be compressed (t: no latitude/longitude)"
    profile = xr.Dataset({"t": (("time", "depth"), np.zeros((5, 3), np.float32))})
    message = refusal(lambda: profile.coinpp.compress(max_error=0.1))
    assert "name dimensions of rows and columns 'y' and 'x'" in message
    assert "regrid" not in message


# ---- every door ---------------------------------------------------------------------------------


@every_grid
@pytest.mark.parametrize("rate", [{"max_error": 0.1}, {"target_rmse": 0.1}, {"lossless": True}])
def test_the_accessor_keeps_what_was_asked_for(kind, rate) -> None:
    ds = dataset(kind)
    ds["t"][1, ..., 5] = np.nan
    result = ds.coinpp.compress(**rate)
    report = result.report["t"]
    assert "without loss" not in report.outcome or "lossless" in rate
    assert report.missing_cells == int(ds["t"].isnull().sum())
    off = np.abs(result.dataset["t"] - ds["t"])
    if "max_error" in rate:
        assert float(off.max()) <= 0.1
    elif "target_rmse" in rate:
        assert report.rmse <= 0.1 * (1 + 1e-6)
    else:
        xr.testing.assert_identical(result.dataset, ds)
    assert ("weighted by" in str(result.report)) == (kind != "regular")
    json.dumps(result.report.to_dict())


@every_grid
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_are_written_verified_and_grow(kind, zarr_format, tmp_path) -> None:
    ds, store = dataset(kind), tmp_path / "t.zarr"
    ds.isel(time=[0, 1]).coinpp.to_zarr(store, max_error=0.1, chunk_time=1, zarr_format=zarr_format)
    ds.isel(time=[2]).coinpp.to_zarr(store, append_dim="time")
    assert ds.coinpp.verify(store).is_sound
    one = xr.open_zarr(store)["t"].isel(time=1).load()
    assert float(np.abs(one - ds["t"].isel(time=1)).max()) <= 0.1


@every_grid
def test_archives_and_the_command_line_take_it(kind, tmp_path) -> None:
    from typer.testing import CliRunner

    from coinpp_xr.cli import app

    ds, source, store = dataset(kind), tmp_path / "t.nc", tmp_path / "a.zarr"
    ds.to_netcdf(source)
    assert coinpp_xr.archive(source, store, max_error=0.1).is_complete
    for arguments in (
        ["verify", store, "--source", source], ["inspect", store],
        ["decompress", store, tmp_path / "d.zarr"],
    ):  # fmt: skip
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
    decoded = xr.open_zarr(tmp_path / "d.zarr")["t"]
    assert float(np.abs(decoded - ds["t"]).max()) <= 0.1


@every_grid
def test_pictures_are_drawn(kind, tmp_path) -> None:
    ds = dataset(kind)
    ds["t"][0, ..., :3] = np.nan
    result = ds.coinpp.compress(max_error=0.1)
    result.plot().savefig(tmp_path / "errors.png")
    assert "img" in result._repr_html_()
    if kind != "regular":  # of eighteen rows there are no means
        result.plot("bits").savefig(tmp_path / "bits.png")


@every_grid
def test_other_codecs_get_the_order_that_suits_them(kind) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = dataset(kind).coinpp.compare(max_error=0.2, peers=["SZ3", "ZFP"])
    sizes = {row.codec: row.nbytes for row in table.rows}
    assert None not in sizes.values()
    table.plot_errors() if hasattr(table, "plot_errors") else None


@every_grid
def test_bits_say_what_they_need(kind) -> None:
    if kind not in ("projected", "healpix-without", "icon-without"):
        return  # the codec knows where the cells are
    message = refusal(lambda: dataset(kind).coinpp.compress(bits=8))
    assert "bits needs to know where cells are: latitude and longitude, HEALPix, or" in message


def test_another_grid_is_not_appended(tmp_path) -> None:
    dataset("healpix").coinpp.to_zarr(tmp_path / "t.zarr", max_error=0.1, chunk_time=3)
    other = dataset("healpix-ring")
    message = refusal(lambda: other.coinpp.to_zarr(tmp_path / "t.zarr", append_dim="time"))
    assert message == "'t' is on another grid than in the store"


# ---- the codec by itself ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_cells_of_any_type_and_order(dtype, order) -> None:
    values = np.asarray(dataset("rows")["t"].to_numpy(), dtype, order=order)
    values[0, 7], values[1, 9], values[2, 1] = np.nan, -np.inf, -0.0
    codec = COINppCodec("universal", grid={"rows": LENGTHS}, max_error=0.25)
    decoded = codec.decode(codec.encode(values))
    assert decoded.dtype == values.dtype
    assert decoded.flags.f_contiguous == values.flags.f_contiguous
    known = np.isfinite(values)
    assert np.abs(decoded[known].astype("f8") - values[known].astype("f8")).max() <= 0.25
    assert decoded[~known].tobytes() == values[~known].tobytes()
    assert np.signbit(decoded[2, 1])


def test_nothing_depends_on_what_values_look_like() -> None:
    rng = np.random.default_rng(3)
    for values in (rng.normal(size=(4, 4140)), 280 + rng.normal(size=(4, 4140))):
        codec = COINppCodec(max_error=0.1)
        decoded = codec.decode(codec.encode(values.astype(np.float32)))
        assert np.abs(decoded - values).max() <= 0.1001


def test_cells_in_their_order_are_fewer_bytes_than_in_none() -> None:
    lengths = 20 + 4 * np.minimum(np.arange(64), np.arange(64)[::-1])
    lon = np.concatenate([np.arange(n) * 360 / n for n in lengths])
    grids = (
        ("healpix", healpix.centres(healpix.nested(32), 32)),
        ("icon", of_triangles(4)),
        ({"rows": lengths}, (np.repeat(np.linspace(88, -88, 64), lengths), lon)),
    )
    for told, where in grids:
        values = field(*where)
        sizes = [
            len(COINppCodec("universal", grid=grid, max_error=0.01).encode(v))
            for grid, v in ((told, values), ("index", values[:, None]), ("cells", values))
        ]
        assert sizes[0] < 0.97 * sizes[1]
        # By their number alone the same is found.
        assert sizes[2] <= 1.01 * sizes[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": "hexagons"}, "grid must be one of 'index', 'cells'"),
        ({"grid": {"rows": [0, 4]}}, "rows must be how many cells each has"),
        ({"grid": {"lines": [1]}}, "grid must be one of"),
        ({"weights": [1.0]}, "weights stand beside grid"),
        ({"grid": "cells", "weights": [0.0, np.nan]}, "weights must be above zero somewhere"),
        ({"grid": "index", "latitude": [0, 1], "longitude": [0, 1]}, "not both"),
    ],
)
def test_settings_that_make_no_sense(settings, message) -> None:
    assert message in refusal(lambda: COINppCodec("universal", max_error=0.1, **settings))


def test_arrays_of_another_grid_are_refused() -> None:
    values = np.zeros((2, 1000), np.float32)
    values += np.arange(1000)
    codec = COINppCodec("universal", grid="healpix", max_error=0.1)
    assert "no healpix grid has so many" in refusal(lambda: codec.encode(values))
    codec = COINppCodec("universal", grid={"rows": LENGTHS}, max_error=0.1)
    assert "cells together, the array has 1,000" in refusal(lambda: codec.encode(values))
    told = {"rows": LENGTHS, "latitude": np.linspace(85, -85, len(LENGTHS))}
    codec = COINppCodec(grid=told, bits=8)
    assert "cells together, the array has 1,000" in refusal(lambda: codec.encode(values))
    codec = COINppCodec("universal", grid="cells", weights=np.ones(9), max_error=0.1)
    assert "does not match weights" in refusal(lambda: codec.encode(values))


def test_weights_travel_in_few_bytes() -> None:
    weights = np.cos(np.deg2rad(dataset("curvilinear").lat.to_numpy()))
    packed = pack(weights)
    assert len(json.dumps(packed)) < 0.2 * weights.size
    np.testing.assert_allclose(unpack(packed), weights / weights.max(), rtol=0.006)
    codec = COINppCodec("universal", grid="index", weights=weights, target_rmse=0.1)
    again = COINppCodec.from_config(json.loads(json.dumps(codec.get_config())))
    assert again == codec
    for damaged in ({"shape": [3], "packed": "x"}, {"shape": [-1, 2], "packed": ""}, {"shape": 3},
                    {"shape": [1 << 29], "packed": packed["packed"]}):  # fmt: skip
        assert "damaged" in refusal(lambda damaged=damaged: unpack(damaged))


# ---- folds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 12 * 16**2, 12 * 9, 20 * 4**3, 4 * 32 * 41, 1000])
def test_folds_are_what_their_bytes_say(cells) -> None:
    for fold in [*folds_of(cells), *folds_of_rows(LENGTHS)]:
        again = fold_of(fold.pack())
        np.testing.assert_array_equal(again.places, fold.places)
        values = np.arange(2 * fold.cells).reshape(2, -1)
        np.testing.assert_array_equal(again.unfold(fold.fold(values)), values)
        assert len(np.unique(fold.places)) == fold.cells


@pytest.mark.parametrize("kind", ["healpix", "healpix-ring", "icon"])
def test_neighbours_in_a_fold_are_neighbours_on_the_sphere(kind) -> None:
    lat, lon = map(np.deg2rad, places(kind))
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    name = {"icon": FoldKind.TRIANGLES, "healpix": FoldKind.HEALPIX_NESTED}
    (fold,) = folds_of(len(lat), name.get(kind, FoldKind.HEALPIX_RING))
    raster = np.stack([fold.fold(axis) for axis in points.T], -1)
    apart = np.linalg.norm(np.diff(raster, axis=1), axis=-1)
    assert np.median(apart) < 1.6 * np.sqrt(4 * np.pi / len(lat))


def test_damaged_folds_are_refused() -> None:
    (fold,) = folds_of(12 * 16**2, FoldKind.HEALPIX_NESTED)
    assert rows.octahedral(4 * 32 * 41).sum() == 4 * 32 * 41
    for section in (b"", b"\x09\x05", b"\x01\x05", fold.pack() + b"\0", b"\x00\xff\xff\xff\xff\x7f",
                    b"\x04\x05\x04\x01abc"):  # fmt: skip
        with pytest.raises(CorruptPayloadError):
            fold_of(section)
    codec = COINppCodec("universal", grid="healpix", max_error=0.1)
    payload = Payload.unpack(codec.encode(dataset("healpix")["t"].to_numpy()))
    for kind, cells in ((0, 12 * 16**2), (1, 12 * 32**2), (3, 20 * 64)):
        section = bytes([kind]) + folds_of(cells)[0].pack()[1:]
        sections = {**payload.sections, Tag.CELLS: section}
        damaged = Payload(**{**vars(payload), "sections": sections}).pack()
        with pytest.raises(CorruptPayloadError):
            decode_chunk(damaged, {}.__getitem__)


# ---- levels -------------------------------------------------------------------------------------


def levels(times: int = 6, count: int = 8) -> np.ndarray:
    """Fields that change with time alike on all levels."""
    rng = np.random.default_rng(4)
    change = rng.normal(size=(times, 1, 24, 28)).cumsum(axis=0)
    return (change + rng.normal(size=(times, count, 24, 28)) / 20).astype(np.float32)


BY_PYRAMID_AND_ROWS = pytest.mark.parametrize(
    ("effort", "kind"), [("fast", Kind.PYRAMID), ("default", Kind.RESIDUAL)]
)


@BY_PYRAMID_AND_ROWS
def test_levels_refer_to_each_other_where_that_pays(effort, kind) -> None:
    values = levels()
    codec = COINppCodec("universal", grid="index", max_error=0.05, effort=effort)
    payload = codec.encode(values)
    found = Payload.unpack(payload)
    assert found.kind == kind
    assert found.section(Tag.LEVEL_AXIS) == b"\1"
    apart = sum(len(codec.encode(values[:, k])) for k in range(values.shape[1]))
    assert len(payload) < 0.8 * apart
    assert np.abs(codec.decode(payload) - values).max() <= 0.05
    noise = np.random.default_rng(5).normal(size=values.shape).astype(np.float32)
    assert Tag.LEVEL_AXIS not in Payload.unpack(codec.encode(noise)).sections


def test_levels_without_times_are_like_times() -> None:
    values = levels(1, 9)
    codec = COINppCodec("universal", grid="index", max_error=0.05)
    payload = codec.encode(values)
    assert np.abs(codec.decode(payload).reshape(values.shape) - values).max() <= 0.05
    assert len(payload) < 1.02 * len(codec.encode(values[0])) + 40


@pytest.mark.parametrize("effort", ["fast", "default"])
def test_levels_with_gaps_and_any_axes(effort) -> None:
    values = levels()
    values[2, 3], values[:, 5], values[4, :, 3:9] = np.nan, np.nan, np.nan
    for axes in ((0, 1), (1, 0)):
        turned = values.transpose(*axes, 2, 3)
        codec = COINppCodec(
            "universal", grid="index", max_error=0.05, time_axis=axes.index(0), effort=effort
        )
        payload = codec.encode(turned)
        decoded = codec.decode(payload)
        assert np.nanmax(np.abs(decoded - turned)) <= 0.05
        np.testing.assert_array_equal(np.isnan(decoded), np.isnan(turned))
        assert Tag.LEVEL_AXIS in Payload.unpack(payload).sections


def test_one_field_of_a_chunk_with_levels(tmp_path: Path) -> None:
    values = levels()
    ds = xr.Dataset({"u": (("time", "level", "y", "x"), values)})
    encoding = {"u": {"chunks": values.shape}}
    ds.coinpp.to_zarr(tmp_path / "u.zarr", max_error=0.05, encoding=encoding)
    whole = xr.open_zarr(tmp_path / "u.zarr")["u"].load()
    one = xr.open_zarr(tmp_path / "u.zarr")["u"].isel(time=3, level=4).load()
    np.testing.assert_array_equal(one, whole.isel(time=3, level=4))
    assert float(np.abs(whole - ds["u"]).max()) <= 0.05


@BY_PYRAMID_AND_ROWS
def test_damaged_level_axes_are_refused(effort, kind) -> None:
    codec = COINppCodec("universal", grid="index", max_error=0.05, effort=effort)
    payload = Payload.unpack(codec.encode(levels()))
    assert payload.kind == kind
    for section in (b"", b"\0", b"\2", b"\1\1"):
        sections = {**payload.sections, Tag.LEVEL_AXIS: section}
        if Tag.STREAMS in sections:
            sections[Tag.STREAMS] = sections.pop(Tag.STREAMS)
        damaged = Payload(**{**vars(payload), "sections": sections}).pack()
        with pytest.raises(CorruptPayloadError):
            decode_chunk(damaged, {}.__getitem__)


def test_lattices_of_rows_are_shifted_for_means() -> None:
    rng = np.random.default_rng(8)
    values = (rng.normal(size=(30, 1, 1)) * 3 + rng.normal(size=(30, 18, 20)) / 3).astype("f4")
    fields = Fields.of_sequence(values, IndexGrid.of((18, 20)))
    coded = residual.encode(fields, Bound(1.0), fields.sequences, mean_error=0.05)

    def decoded(section: bytes) -> np.ndarray:
        return residual.decode(section, None, (18, 20), fields.sequences, values.dtype)

    off = decoded(coded.section) - values.reshape(30, -1)
    assert np.abs(off).max() <= 1
    assert np.abs(off.mean(axis=1)).max() <= 0.05
    plain = residual.encode(fields, Bound(1.0), fields.sequences)
    assert np.abs((decoded(plain.section) - values.reshape(30, -1)).mean(axis=1)).max() > 0.05
    assert len(coded.section) < 1.25 * len(plain.section)
    for at, byte in ((17, 255), (20, 3), (21, 77), (24, 200)):
        section = bytearray(coded.section)
        section[at] = byte
        with contextlib.suppress(CorruptPayloadError):
            assert decoded(bytes(section)).shape == (30, 360)
    for end in (18, 22):
        with pytest.raises(CorruptPayloadError):
            decoded(coded.section[:end])


def test_means_are_kept_without_a_narrower_bound() -> None:
    rng = np.random.default_rng(6)
    smooth = rng.normal(size=(40, 1, 1)) + rng.normal(size=(40, 6, 7)).repeat(6, 1).repeat(6, 2) / 9
    codec = COINppCodec("universal", grid="index", max_error=0.4)
    free = COINppCodec("universal", grid="index", max_error=0.4, max_mean_error=1e9)
    payload = codec.encode(smooth.astype(np.float32))
    off = codec.decode(payload) - smooth
    assert np.abs(off.mean(axis=(1, 2))).max() <= 0.4 / 20 + 1e-6
    assert len(payload) < 1.5 * len(free.encode(smooth.astype(np.float32)))


# ---- what the page says -------------------------------------------------------------------------


def test_the_page_tells_of_every_grid_that_is_tested() -> None:
    """Its table says yes where the tests above pass, and no for bits without coordinates."""
    page = (Path(__file__).parent.parent / "docs/grids.md").read_text()
    table = page.split("<!-- grids -->")[1].split("<!-- /grids -->")[0].strip().splitlines()
    header = [cell.strip().strip("`") for cell in table[0].strip("|").split("|")]
    told = {}
    for line in table[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        told[name] = dict(zip(header[1:], cells, strict=True))
    assert list(told) == [
        "latitude × longitude", "curvilinear", "projected", "HEALPix", "ICON", "reduced Gaussian",
        "other cells",
    ]  # fmt: skip
    for name, own in told.items():
        bits = own.pop("bits")
        assert bits == ("no" if name == "projected" else "yes")
        assert set(own.values()) == {"yes"}


# ---- models where the cells are ------------------------------------------------------------------


def between(array: xr.DataArray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Fields of a globe at places in one dimension, by bilinear interpolation."""
    lat, lon, values = *(array[dim].to_numpy() for dim in array.dims[1:]), array.to_numpy()
    down = (lat[0] - latitude) / (lat[0] - lat[1])
    right, n = ((longitude - lon[0]) % 360) / (lon[1] - lon[0]), len(lon)
    i, j = np.clip(down.astype(int), 0, len(lat) - 2), right.astype(int)
    y, x = down - i, right - j
    total = (1 - y) * ((1 - x) * values[:, i, j % n] + x * values[:, i, (j + 1) % n])
    total += y * ((1 - x) * values[:, i + 1, j % n] + x * values[:, i + 1, (j + 1) % n])
    return total.astype(np.float32)


@pytest.mark.parametrize(
    "kind", ["healpix", "healpix-ring", "rows", "icon", "scattered", "curvilinear"]
)
def test_a_model_is_evaluated_where_the_cells_are(kind) -> None:
    source = xr.open_dataset(Path(__file__).parent.parent / "examples/era5_t2m_46x90.nc")
    t2m = source["t2m"].isel(time=slice(0, 3)).load()
    latitude, longitude = (t2m[dim] for dim in t2m.dims[1:])
    regular = t2m.to_dataset().coinpp.compress(bits=8)
    if kind == "rows":
        lengths = 20 + 4 * np.minimum(np.arange(48), np.arange(48)[::-1])
        rows_at = np.repeat(np.linspace(88, -88, 48), lengths)
        where = rows_at, np.concatenate([np.arange(n) * 360 / n for n in lengths])
    elif kind == "icon":
        where = of_triangles(4)
    elif kind == "scattered":
        rng = np.random.default_rng(0)
        where = np.rad2deg(np.arcsin(rng.uniform(-0.998, 0.998, 9000))), rng.uniform(0, 360, 9000)
    elif kind == "curvilinear":
        i, j = np.mgrid[-86:86:60j, :356:90j]
        where = i + np.sin(np.deg2rad(j)), (j + i / 9) % 360
    else:
        order = healpix.ring if kind == "healpix-ring" else healpix.nested
        where = healpix.centres(order(32), 32)
    dims = ("j", "i") if kind == "curvilinear" else ("cell",)
    values = between(t2m, *map(np.ravel, where)).reshape(-1, *where[0].shape)
    cells = xr.DataArray(
        values, {"time": t2m.time}, ("time", *dims), attrs=t2m.attrs
    ).assign_coords(latitude=(dims, where[0]), longitude=(dims, where[1]))
    result = cells.to_dataset(name="t2m").coinpp.compress(bits=8)
    report = result.report["t2m"]
    assert report.schemes == {"latents": 1}
    # Of the same fields; between the cells of the regular grid they are smoother.
    assert report.rmse < 1.05 * regular.report["t2m"].rmse
    there = result.dataset["t2m"].isel({dims[-1]: slice(0, 5)})
    again = COINppCodec.from_config(result._codecs["t2m"].get_config())
    stored = again.decode(again.encode(cells.to_numpy()))
    np.testing.assert_array_equal(stored.reshape(cells.shape)[..., :5], there)
    elsewhere = result.decode_at(latitude=latitude, longitude=longitude)
    weights = np.cos(np.deg2rad(latitude))
    rmse = float(np.sqrt((((elsewhere.to_numpy() - t2m) ** 2) * weights).mean() / weights.mean()))
    assert rmse < 1.1 * regular.report["t2m"].rmse


def test_only_latents_can_be_had_elsewhere() -> None:
    result = dataset("healpix").coinpp.compress(max_error=0.1)
    message = refusal(lambda: result.decode_at(latitude=[0.0], longitude=[0.0]))
    assert "compress it with bits" in message
    codec = COINppCodec("universal", max_error=0.1)
    payload = codec.encode(dataset("regular")["t"].to_numpy())
    message = refusal(lambda: codec.decode_at(payload, latitude=[0.0], longitude=[0.0]))
    assert "only what bits wrote can be evaluated elsewhere" in message
