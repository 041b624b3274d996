"""This package without a model and other codecs on fields at native resolution, at given bounds.

Single globes of 0.25°; fields with masks, zeros and edges; and sequences of hours or days. Most
fields were in sight when constants of the coder were chosen, the few that are held out were not.

    COINPP_DATA=... python benchmarks/native.py                # what is missing; hours, mostly EBCC
    COINPP_DATA=... python benchmarks/native.py --ours-only    # this package anew, and SZ3's times
    COINPP_DATA=... python benchmarks/native.py --efforts best # slow: tens of seconds for a globe

Every case is written when it is done, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from common import RESULTS, data_file, load, open_variable, write_result

from coinpp_xr import COINppCodec
from coinpp_xr.parallel import thread_count
from coinpp_xr.peers import Chunk, Goal, NotInstalledError, Result, smallest

PEERS = ("SZ3", "SZ3 3.4", "SPERR", "ZFP", "JPEG 2000", "EBCC")
EFFORTS = ("fast", "default", "best")
HALVES = ("tuned", "held out")
IMAGE_CODEC = "JPEG 2000 + residual"
# The fastest run counts; after so many seconds there is no other.
REPEATS, ENOUGH_SECONDS = 3, 10.0


@dataclass(frozen=True)
class Field:
    """A variable of a file of the data folder.

    Parameters
    ----------
    group : {"globes", "rough", "sequences"}
    half : {"tuned", "held out"}
        Whether constants of the coder were chosen with it in sight.
    label, file, variable : str
    bounds : tuple of float
        In the unit of the file, from far below the noise to coarse.
    globes : int, optional
        Only the first.
    levels : tuple of int
        These levels, each a chunk of its own; else the whole variable is one chunk.
    """

    group: str
    half: str
    label: str
    file: str
    variable: str
    bounds: tuple[float, ...]
    globes: int | None = None
    levels: tuple[int, ...] = ()

    def chunks(self) -> list[xr.DataArray]:
        """As float32; packed values were unpacked in double precision."""
        array = open_variable(data_file(self.file), self.variable).astype(np.float32)
        array = array[: self.globes] if self.globes else array
        return [array.sel(level=level) for level in self.levels] or [array]


TUNED, HELD_OUT = HALVES
ONE_DEGREE = "climate/era5_snapshots_1deg.nc"
HOURLY, SURFACE = "native/era5_hourly", "native/era5_surface_1deg.nc"
KELVIN, WINDS = (0.02, 0.1, 0.5, 1.0), (0.02, 0.1, 0.5, 1.0)
LEVELS = (20, 60, 90, 110, 125, 137)
FIELDS = (
    Field("globes", TUNED, "ERA5 msl 0.25°", "native/era5_msl_0p25.nc", "msl",
          (0.5, 1.0, 10.0, 50.0, 100.0)),
    Field("globes", TUNED, "ERA5 gust 0.25°", "native/era5_gust_0p25.nc", "i10fg",
          (0.02, 0.05, 0.1, 0.5, 1.0)),
    Field("globes", TUNED, "GFS t2m 0.25°", "native/gfs_t2m_0p25.nc", "t2m",
          (0.02, 0.05, 0.1, 0.5, 1.0)),
    Field("globes", TUNED, "AIFS t500 0.25°", "native/aifs_t500_0p25.nc", "t500",
          (0.02, 0.05, 0.1, 0.5)),
    Field("rough", TUNED, "AIFS wave height 0.25°", "native/aifs_wave_0p25.nc", "swh",
          (0.01, 0.05, 0.2)),
    Field("rough", TUNED, "AIFS bathymetry 0.25°", "native/aifs_wave_0p25.nc", "wmb",
          (0.1, 1.0, 10.0)),
    Field("rough", TUNED, "IFS cloud cover 0.25°", "native/ifs_cloud_snow_0p25.nc", "tcc",
          (0.01, 0.05, 0.2)),
    Field("rough", TUNED, "IFS snow depth 0.25°", "native/ifs_cloud_snow_0p25.nc", "sd",
          (0.001, 0.01, 0.05)),
    Field("rough", TUNED, "ERA5 precipitation 1°", "native/era5_tp_1deg.nc", "tp",
          (1e-5, 1e-4, 1e-3)),
    Field("rough", HELD_OUT, "GFS t on a PV surface 0.25°", "native/gfs_t_pv_0p25.nc", "t_pv",
          (0.1, 0.5, 1.0)),
    Field("rough", TUNED, "ERA5 orography 1°", SURFACE, "z", (1.0, 10.0, 100.0, 500.0)),
    Field("rough", TUNED, "ERA5 sst 1°", SURFACE, "sst", (0.01, 0.1, 0.5)),
    Field("rough", TUNED, "ERA5 sea ice 1°", SURFACE, "siconc", (0.001, 0.01, 0.05)),
    Field("rough", TUNED, "ERSST monthly sst 2°", "native/ersst_monthly_2deg.nc", "sst",
          (0.01, 0.05, 0.2, 1.0)),
    Field("rough", TUNED, "IFS gh700 0.4°", "native/ifs_gh_0p4.nc", "gh700", (0.5, 2.0, 10.0)),
    Field("rough", TUNED, "ERA-Interim u on 37 levels", "native/erainterim_37levels_u.nc", "u",
          WINDS),
    Field("rough", TUNED, "ERA-Interim t on 37 levels", "native/erainterim_37levels_t.nc", "t",
          KELVIN),
    Field("sequences", TUNED, "ERA5 hourly u, 6 levels", f"{HOURLY}_levels_u.nc", "u",
          (0.01, 0.1, 0.5, 1.0), levels=LEVELS),
    Field("sequences", TUNED, "ERA5 hourly q, 6 levels", f"{HOURLY}_levels_q.nc", "q",
          (1e-6, 1e-5, 1e-4), levels=LEVELS),
    Field("sequences", TUNED, "ERA5 hourly precipitation", f"{HOURLY}_surface.nc", "tp",
          (1e-6, 1e-5, 1e-4)),
    Field("sequences", HELD_OUT, "ERA5 hourly evaporation", f"{HOURLY}_surface.nc", "e",
          (1e-7, 1e-6, 1e-5)),
    Field("sequences", TUNED, "ERA5 hourly sp", f"{HOURLY}_surface.nc", "sp",
          (1.0, 10.0, 50.0, 100.0)),
    Field("sequences", TUNED, "ERA5 t2m 1°", ONE_DEGREE, "t2m", KELVIN),
    Field("sequences", TUNED, "ERA5 u10 1°", ONE_DEGREE, "u10", WINDS),
    Field("sequences", HELD_OUT, "ERA5 v10 1°", ONE_DEGREE, "v10", WINDS),
    Field("sequences", TUNED, "ERA5 msl 1°", ONE_DEGREE, "msl", (1.0, 10.0, 50.0, 100.0)),
    Field("sequences", TUNED, "simulated t2m 46 × 90, 64 globes",
          "climate/gcm_6hourly_test_46x90.nc", "t2m", (0.05, 0.1, 0.5, 1.0), globes=64),
    Field("sequences", TUNED, "ERA5 t2m 46 × 90", "climate/era5_t2m_46x90.nc", "t2m",
          (0.1, 0.5, 1.0)),
)  # fmt: skip
GROUPS = tuple(dict.fromkeys(field.group for field in FIELDS))


# ---- measuring ---------------------------------------------------------------------------------


def fastest(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest of a few runs, of one if it is slow, and what came of it."""
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        made = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), made


def own(arrays: Sequence[npt.NDArray[Any]], bound: float, effort: str) -> dict[str, Any]:
    """This package on every chunk.

    Raises
    ------
    RuntimeError
        If anything comes back outside of the bound, or anything but a finite value changed.
    """
    codec = COINppCodec("universal", max_error=bound, effort=effort)
    # What was compiled is loaded before anything is timed.
    corner = np.ascontiguousarray(arrays[0][..., :32, :64])
    codec.decode(codec.encode(corner))
    row = {"nbytes": 0, "max_error": 0.0, "encode_seconds": 0.0, "decode_seconds": 0.0}
    for array in arrays:
        encoding, payload = fastest(partial(codec.encode, array))
        decoding, decoded = fastest(partial(codec.decode, payload))
        decoded = np.asarray(decoded).reshape(array.shape)
        finite = np.isfinite(array)
        difference = decoded[finite].astype(np.float64) - array[finite].astype(np.float64)
        error = float(np.abs(difference).max())
        kept = np.array_equal(decoded[~finite].view(np.uint32), array[~finite].view(np.uint32))
        if not error <= bound or not kept or decoded.dtype != array.dtype:
            raise RuntimeError(f"{effort} does not keep {bound:g}: error {error:g}, rest {kept}")
        row["nbytes"] += len(payload)
        row["max_error"] = max(row["max_error"], error)
        row["encode_seconds"] += encoding
        row["decode_seconds"] += decoding
    return {"codec": f"COIN++ {effort}", "effort": effort, "threads": thread_count(), **row}


def peer(name: str, chunks: Sequence[Chunk], bound: float) -> dict[str, Any]:
    """Another codec at its best settings for every chunk, or why there is no size of it."""
    results = []
    for chunk in chunks:
        runs: list[Result] = []
        start = time.perf_counter()
        while len(runs) < REPEATS and time.perf_counter() - start < ENOUGH_SECONDS:
            try:
                found = smallest(name, chunk, Goal(max_error=bound))
            except NotInstalledError:
                raise
            except Exception as error:  # whatever a foreign library does, the rest must be measured
                return {"codec": name, "note": f"failed: {' '.join(str(error).split())[:80]}"}
            if found is None:
                return {"codec": name, "note": "no setting meets it"}
            runs.append(found[0])
        results.append(runs)
    best = [min(runs, key=lambda run: run.nbytes) for runs in results]
    return {
        "codec": best[0].peer,
        "setting": "; ".join(dict.fromkeys(run.setting for run in best)),
        "nbytes": sum(run.nbytes for run in best),
        "max_error": max(run.max_error for run in best),
        "encode_seconds": sum(min(run.encode_seconds for run in runs) for runs in results),
        "decode_seconds": sum(min(run.decode_seconds for run in runs) for runs in results),
    }


def measure(
    field: Field,
    bound: float,
    old: Sequence[dict[str, Any]],
    efforts: Sequence[str],
    names: Sequence[str],
) -> dict[str, Any]:
    """One field at one bound: these efforts and others, beside the rows that are there.

    Whenever this package is timed, SZ3 is timed beside it.
    """
    rows = {peer_of(row): row for row in old}
    arrays = field.chunks()
    values = [array.to_numpy() for array in arrays]
    chunks = [Chunk.of(array.to_numpy(), array[array.dims[-2]].to_numpy()) for array in arrays]
    for name in names if "SZ3" in names or not efforts else ("SZ3", *names):
        try:
            rows[name] = peer(name, chunks, bound)
        except NotInstalledError as error:
            print(f"{name} is left out: {error}", flush=True)
    for effort in efforts:
        row = own(values, bound, effort)
        for step in ("encode_seconds", "decode_seconds"):
            if step in rows.get("SZ3", {}):
                row[f"sz3_{step}"] = rows["SZ3"][step]
        rows[row["codec"]] = row
    order = [*(f"COIN++ {effort}" for effort in EFFORTS), *PEERS]
    return derived(
        {
            "group": field.group, "half": field.half, "field": field.label, "file": field.file,
            "variable": field.variable, "unit": str(arrays[0].attrs.get("units", "")),
            "chunks": len(values), "shape": list(values[0].shape), "max_error": bound,
            "missing": round(float(np.mean([~np.isfinite(array) for array in values])), 4),
            "float32_bytes": sum(array.nbytes for array in values),
            "rows": [rows[name] for name in order if name in rows],
        }
    )  # fmt: skip


def peer_of(row: dict[str, Any]) -> str:
    """The name that a row is asked for by."""
    return str(row["codec"]).removesuffix(" + residual")


# ---- what follows from it ----------------------------------------------------------------------


def derived(case: dict[str, Any]) -> dict[str, Any]:
    """A case with ratios to float32, to the best of the others, and to the times of SZ3."""
    sized = [row for row in case["rows"] if "nbytes" in row]
    for row in sized:
        row["ratio"] = round(case["float32_bytes"] / row["nbytes"], 3)
    others = [row for row in sized if "effort" not in row]
    for key, candidates in (
        ("best_peer", others),
        ("best_peer_but_jpeg2000", [row for row in others if row["codec"] != IMAGE_CODEC]),
    ):
        case[key] = None
        if candidates:
            best = min(candidates, key=lambda row: row["nbytes"])
            case[key] = best["codec"]
            for row in sized:
                if "effort" in row:
                    smaller = best["nbytes"] / row["nbytes"]
                    row[f"times_smaller_than_{key}"] = round(smaller, 4)
    for row in sized:
        for step in ("encode", "decode"):
            if row.get(f"sz3_{step}_seconds"):
                slower = row[f"{step}_seconds"] / row[f"sz3_{step}_seconds"]
                row[f"{step}_time_of_sz3"] = round(slower, 3)
    return case


def summary(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and minima over the cases of every group, half and effort."""
    lines = []
    for group in GROUPS:
        for half in (*HALVES, "all"):
            for effort in EFFORTS:
                some = [
                    (case, row)
                    for case in cases
                    if case["group"] == group and half in (case["half"], "all")
                    for row in case["rows"]
                    if row.get("effort") == effort and "times_smaller_than_best_peer" in row
                ]
                if some:
                    lines.append({"group": group, "half": half, "effort": effort, **means(some)})
    return lines


def means(some: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Of cases with their row of one effort; speeds are all bytes by all seconds."""
    rows = [row for _, row in some]
    megabytes = sum(case["float32_bytes"] for case, _ in some) / 1e6
    line: dict[str, Any] = {
        "cases": len(some),
        "losses": sum(row["times_smaller_than_best_peer"] < 1 for row in rows),
    }
    for name in (
        "ratio", "times_smaller_than_best_peer", "times_smaller_than_best_peer_but_jpeg2000",
        "encode_time_of_sz3", "decode_time_of_sz3",
    ):  # fmt: skip
        numbers = [row[name] for row in rows if name in row]
        if numbers:
            line[name] = {
                "geometric_mean": round(float(np.exp(np.log(numbers).mean())), 4),
                "minimum": min(numbers),
                "maximum": max(numbers),
            }
    for step in ("encode", "decode"):
        seconds = sum(row[f"{step}_seconds"] for row in rows)
        line[f"{step}_mb_per_s"] = round(megabytes / seconds, 3)
        beside = [row[f"sz3_{step}_seconds"] for row in rows if f"sz3_{step}_seconds" in row]
        if len(beside) == len(rows):
            line[f"sz3_{step}_mb_per_s"] = round(megabytes / sum(beside), 1)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--fields", nargs="+", default=[""], help="parts of labels, by default all")
    parser.add_argument("--efforts", nargs="+", choices=EFFORTS, default=("fast", "default"))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument(
        "--ours-only", action="store_true",
        help="measure this package anew, and SZ3 for the time; others stay as they are",
    )  # fmt: skip
    arguments = parser.parse_args()
    known = load("native")["cases"] if (RESULTS / "native.json").exists() else []
    cases = {(case["field"], case["max_error"]): case for case in known}
    for field in FIELDS:
        if field.group not in arguments.groups:
            continue
        if not any(part in field.label for part in arguments.fields):
            continue
        for bound in field.bounds:
            old = cases[field.label, bound]["rows"] if (field.label, bound) in cases else []
            have = {peer_of(row) for row in old}
            efforts, names = arguments.efforts, []
            if not arguments.ours_only:
                efforts = [effort for effort in efforts if f"COIN++ {effort}" not in have]
                names = [name for name in arguments.peers if name not in have]
            if not efforts and not names:
                continue
            case = measure(field, bound, old, efforts, names)
            cases[field.label, bound] = case
            show(case)
            write_result("native", result(cases), show=False)


def show(case: dict[str, Any]) -> None:
    print(f"{case['field']}, {case['max_error']:g} {case['unit']}")
    for row in case["rows"]:
        if "nbytes" in row:
            smaller = row.get("times_smaller_than_best_peer")
            print(
                f"  {row['codec']:22}{row['nbytes']:9,} bytes, {row['encode_seconds']:7.3f} s and "
                f"{row['decode_seconds']:7.3f} s" + (f", {smaller:.3f} ×" if smaller else "")
            )
        else:
            print(f"  {row['codec']:22}{row['note']}")
    sys.stdout.flush()


def result(cases: dict[tuple[str, float], dict[str, Any]]) -> dict[str, Any]:
    """What is written, in the order of the fields."""
    keys = [(field.label, bound) for field in FIELDS for bound in field.bounds]
    ordered = [cases[key] for key in keys if key in cases]
    return {
        "data": "real reanalyses, initial states and forecasts on the grids on which their sources "
        "offer them, and one simulation; bounds in the unit of the file",
        "metric": "bytes at a pointwise bound, of this package without a model; others at their "
        "best settings, without the mask of missing cells, which this package counts. Seconds: the "
        f"fastest of {REPEATS} runs, or of fewer that take {ENOUGH_SECONDS:g} s; this package on "
        "the number of threads that is given, others on one. Times of SZ3 are from the run that "
        "timed this package",
        "summary": summary(ordered),
        "cases": ordered,
    }


if __name__ == "__main__":
    main()
