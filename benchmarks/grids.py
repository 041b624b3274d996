"""This package and other codecs on grids of no latitude and longitude axes, and on levels.

HEALPix and reduced Gaussian fields are made of global 0.25° fields by bilinear interpolation; ICON,
MPAS and the ocean model are as their models wrote them. Others get the cells in the order of the
array, in that of this package's folds, and along a Hilbert curve where coordinates are known, which
costs them nothing; levels in any order of the axes.

    COINPP_DATA=... python benchmarks/grids.py             # minutes
    COINPP_DATA=... python benchmarks/grids.py --best      # levels with effort="best", too
    COINPP_DATA=... python benchmarks/grids.py --done rows.jsonl    # goes on with what is there
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import xarray as xr
from common import data_file, machine, write_result

from coinpp_xr import COINppCodec, choice
from coinpp_xr.cells import healpix
from coinpp_xr.data import Horizontal
from coinpp_xr.peers import Chunk, Goal, smallest
from coinpp_xr.peers.views import View, views_of
from coinpp_xr.selection import Layout

PEERS, LEVEL_PEERS = ("SZ3", "SPERR", "ZFP", "PCodec"), ("SZ3", "SPERR")
NSIDE, ROWS = 128, 2 * 160
TUNED, HELD_OUT = "tuned", "held out"
Values = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Case:
    """A field on a grid, or on levels.

    Parameters
    ----------
    group, half, label : str
    array : DataArray
    bounds : tuple of float
    """

    group: str
    half: str
    label: str
    array: xr.DataArray
    bounds: tuple[float, ...]


def global_field(file: str, name: str) -> xr.DataArray:
    array = xr.open_dataset(data_file(f"native/{file}"))[name].astype(np.float64)
    return array.squeeze(drop=True).load()


def at(array: xr.DataArray, latitude: Values, longitude: Values) -> xr.DataArray:
    """A global field at places in one dimension, by bilinear interpolation."""
    lat, lon = array.latitude.to_numpy(), array.longitude.to_numpy()
    down = (lat[0] - latitude) / (lat[0] - lat[1])
    right = ((longitude - lon[0]) % 360) / (lon[1] - lon[0])
    i, j = np.clip(down.astype(int), 0, len(lat) - 2), right.astype(int)
    y, x, n, values = down - i, right - j, len(lon), array.to_numpy()
    total = (1 - y) * ((1 - x) * values[i, j % n] + x * values[i, (j + 1) % n])
    total += y * ((1 - x) * values[i + 1, j % n] + x * values[i + 1, (j + 1) % n])
    coords = {"latitude": ("cell", latitude), "longitude": ("cell", longitude)}
    return xr.DataArray(total.astype(np.float32)[None], coords, ("time", "cell"), array.name)


def cases() -> Iterator[Case]:
    globes = (
        (TUNED, "GFS t2m", "gfs_t2m_0p25.nc", "t2m", (0.1, 0.5, 1.0)),
        (TUNED, "ERA5 msl", "era5_msl_0p25.nc", "msl", (1.0, 10.0, 50.0)),
        (TUNED, "ERA5 gust", "era5_gust_0p25.nc", "i10fg", (0.1, 0.5, 1.0)),
        (HELD_OUT, "AIFS t500", "aifs_t500_0p25.nc", "t500", (0.02, 0.1, 0.5)),
    )
    pixels = healpix.centres(healpix.nested(NSIDE), NSIDE)
    lengths = 20 + 4 * np.minimum(np.arange(ROWS), np.arange(ROWS)[::-1])
    heights = np.polynomial.legendre.leggauss(ROWS)[0][::-1]
    octahedral = (
        np.repeat(np.rad2deg(np.arcsin(heights)), lengths),
        np.concatenate([np.arange(n) * 360 / n for n in lengths]),
    )
    for half, label, file, name, bounds in globes:
        field = global_field(file, name)
        yield Case("HEALPix", half, f"{label}, nside {NSIDE}", at(field, *pixels), bounds)
        yield Case("reduced Gaussian", half, f"{label}, O{ROWS // 2}", at(field, *octahedral),
                   bounds)  # fmt: skip
    icon = xr.open_dataset(data_file("native/icon_ta850.nc"))
    yield Case("ICON", TUNED, "surface pressure, 12 months", icon["aps"], (50.0, 500.0, 2000.0))
    yield Case("ICON", TUNED, "ta850, 12 months", icon["ta"], (0.05, 0.5, 2.0))
    yield Case("ICON", TUNED, "surface pressure", icon["aps"][:1], (50.0, 500.0, 2000.0))
    mpas = xr.open_dataset(data_file("native/mpas_surface_pressure.nc"))["surface_pressure"]
    yield Case("MPAS", TUNED, "surface pressure", mpas, (10.0, 100.0, 500.0))
    ocean = xr.open_dataset(data_file("native/ocean_curvilinear.nc"))["tos"]
    yield Case("curvilinear", TUNED, "MPI-ESM tos", ocean, (0.01, 0.1, 0.5))
    for name, bounds in (("u", (0.05, 0.25, 1.0)), ("q", (1e-5, 5e-5, 1e-4))):
        hourly = xr.open_dataset(data_file(f"native/era5_hourly_levels_{name}.nc"))[name]
        label = f"ERA5 hourly {name}, 22 levels"
        yield Case("levels and hours", TUNED, label, hourly.astype(np.float32), bounds)
    for name, bounds in (("u", (0.1, 0.5, 1.0)), ("t", (0.1, 0.5, 1.0))):
        array = xr.open_dataset(data_file(f"native/erainterim_37levels_{name}.nc"))[name]
        label = f"ERA-Interim {name}, 37 levels"
        yield Case("levels", TUNED, label, array.astype(np.float32), bounds)
    grib = xr.open_dataset(
        data_file("native/forecast_ml_137levels.grib"), engine="cfgrib",
        backend_kwargs={"indexpath": "", "filter_by_keys": {"typeOfLevel": "hybrid"}},
    )  # fmt: skip
    for name, bounds in (("t", (0.05, 0.2, 0.5)), ("u", (0.1, 0.5, 1.0))):
        if name in grib and grib[name].sizes.get("hybrid", 0) > 100:
            yield Case("levels", HELD_OUT, f"ECMWF {name}, 137 levels", grib[name].load(), bounds)


def hilbert(latitude: Values, longitude: Values, bits: int = 15) -> Values:
    """The order of cells along a Hilbert curve on the six faces of a cube."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], 1)
    axis = np.abs(points).argmax(axis=1)
    main, u, v = (np.take_along_axis(points, ((axis + k) % 3)[:, None], 1)[:, 0] for k in range(3))
    x, y = (
        np.clip((np.arctan2(w, np.abs(main)) / (np.pi / 2) + 0.5) * 2**bits, 0, 2**bits - 1)
        for w in (u, v)
    )
    x, y, place = x.astype(np.int64), y.astype(np.int64), np.zeros(len(lat), np.int64)
    for bit in range(bits - 1, -1, -1):
        side = 1 << bit
        right, up = (x & side) > 0, (y & side) > 0
        place += side * side * ((3 * right) ^ up)
        flip = ~up & right
        x, y = np.where(flip, 2**bits - 1 - x, x), np.where(flip, 2**bits - 1 - y, y)
        x, y = np.where(up, x, y), np.where(up, y, x)
    return np.lexsort((place, 2 * axis + (main > 0)))


def best_peer(case: Case, bound: float) -> tuple[int, str]:
    layout = Layout.of(case.array)
    values = case.array.transpose(*layout.dims).to_numpy().astype(np.float32)
    cells = Horizontal.of(case.array)
    goal, found = Goal(max_error=bound), []
    if case.group.startswith("levels"):
        for name in LEVEL_PEERS:
            for label, arrays in in_any_order(values):
                sizes = [smallest(name, chunk, goal) for chunk in arrays]
                if None not in sizes:
                    found.append((sum(s[0].nbytes for s in sizes), f"{name} {label}"))
        return min(found)
    views = views_of(values, cells)
    if len(cells.dims) == 1 and cells.degrees is not None:
        order = hilbert(*cells.degrees)
        weights = cells.areas.of_cells(cells.shape)[order]
        views.append(View("hilbert", Chunk.on_index(values[..., None, order], weights[None])))
    for name in PEERS:
        for view in views:
            result = smallest(name, view.chunk, goal)
            if result is not None:
                found.append((result[0].nbytes, f"{name} {view.name} {result[0].setting}"))
    return min(found)


def in_any_order(values: Values) -> Iterator[tuple[str, list[Chunk]]]:
    """Chunks of fields: all together, one axis after the other, and apart."""
    weights = np.ones(values.shape[-2:])

    def chunk(part: Values) -> Chunk:
        return Chunk.on_index(np.ascontiguousarray(part), weights)

    yield "together", [chunk(values.reshape(-1, *weights.shape))]
    if values.ndim == 4 and min(values.shape[:2]) > 1:
        turned = values.swapaxes(0, 1)
        yield "turned", [chunk(turned.reshape(-1, *weights.shape))]
        yield "by time", [chunk(part) for part in values]
        yield "by level", [chunk(part) for part in turned]


def own_nbytes(case: Case, bound: float, effort: str, *, levels: bool = True) -> int:
    layout = Layout.of(case.array)
    values = case.array.transpose(*layout.dims).to_numpy().astype(np.float32)
    settings = layout.codec_settings({})
    placed = layout.cells.placed_grid
    if case.group == "MPAS" and placed is not None:  # as for a variable of more fields
        settings["grid"] = placed.config
    codec = COINppCodec("universal", max_error=bound, effort=effort, **settings)
    with mock.patch.object(choice, "_level_axis", choice._level_axis if levels else no_axis):
        payload = codec.encode(values)
    error = np.nanmax(np.abs(codec.decode(payload).astype(np.float64) - values))
    assert error <= bound * (1 + 1e-6), (case.label, error)
    return len(payload)


def no_axis(*_: Any) -> None:
    """Without references to levels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--done", type=Path, help="rows that are there, a line of JSON each")
    parser.add_argument("--only", help="the group of grids or levels to look at, after those")
    arguments = parser.parse_args()
    done = arguments.done
    lines = done.read_text().splitlines() if done and done.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    known = {(row["group"], row["field"], row["bound"]) for row in rows}
    for case in cases():
        if arguments.only not in (None, case.group):
            continue
        for bound in case.bounds:
            if (case.group, case.label, bound) in known:
                continue
            peer_nbytes, peer = best_peer(case, bound)
            row: dict[str, Any] = {
                "group": case.group, "half": case.half, "field": case.label, "bound": bound,
                "values": int(case.array.size), "nbytes": own_nbytes(case, bound, "default"),
                "peer": peer, "peer_nbytes": peer_nbytes,
            }  # fmt: skip
            row["ratio"] = peer_nbytes / row["nbytes"]
            if case.group == "levels and hours":
                row["without_levels"] = own_nbytes(case, bound, "default", levels=False)
            if arguments.best and case.group.startswith("levels"):
                row["best_nbytes"] = own_nbytes(case, bound, "best")
            rows.append(row)
            print(json.dumps(row), flush=True)
            if done:
                done.write_text("".join(json.dumps(each) + "\n" for each in rows))
    summary = {
        group: {
            half: {
                "cases": len(own),
                "ratio": float(np.exp(np.mean(np.log([r["ratio"] for r in own])))),
                "least": min(r["ratio"] for r in own),
            }
            for half in (TUNED, HELD_OUT)
            if (own := [r for r in rows if (r["group"], r["half"]) == (group, half)])
        }
        for group in dict.fromkeys(row["group"] for row in rows)
    }
    mpas = Horizontal.of(next(case.array for case in cases() if case.group == "MPAS"))
    told = 0 if mpas.placed_grid is None else len(json.dumps(mpas.placed_grid.config))
    result = {"machine": machine(), "places_nbytes": told, "summary": summary, "cases": rows}
    write_result("grids", result)


if __name__ == "__main__":
    main()
