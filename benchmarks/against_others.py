"""This package and other codecs on the same chunks, at given pointwise bounds and RMSEs.

Simulated months from after the training data, and real ERA5: at 46 x 90 in two halves of six
globes, each coded with the other as the model's reference; at 1 degree without a reference.

    COINPP_DATA=... python benchmarks/against_others.py            # about an hour on one core
    COINPP_DATA=... python benchmarks/against_others.py --parts era5
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from common import RESULTS, climate, open_variable, write_result

from coinpp_xr import load_model
from coinpp_xr.comparison import compare
from coinpp_xr.comparison_table import Comparison
from coinpp_xr.models import Model
from coinpp_xr.peers import PEERS
from coinpp_xr.reference import FRACTION, Reference

BOUNDS, TARGETS = (0.1, 0.5, 1.0), (0.25, 0.5, 1.0, 2.0)
GLOBES = 64
# EBCC takes minutes on large chunks, and image codecs have nothing to gain from their length.
SLOW = ("EBCC", "AVIF")
OF_1_DEGREE = ("SZ3", "SPERR", "ZFP", "JPEG 2000", "PCodec")


@dataclass(frozen=True, eq=False)
class Case:
    """A chunk, the unit in which the goals are meant, and who takes part."""

    part: str
    label: str
    array: xr.DataArray
    unit: float
    model: Model
    peers: tuple[str, ...]


def with_reference(model: Model, fields: xr.DataArray) -> Model:
    """A model with other globes as reference."""
    numbers = np.rint((fields.values.astype(np.float64) - model.offset) * FRACTION)
    axes = (fields[name].values.astype(np.float64) for name in ("lat", "lon"))
    other = replace(model, reference=Reference(numbers.astype(np.int16), *axes))
    return load_model(replace(other, name=f"reference-{other.fingerprint[:8]}"))


def cases() -> Iterator[Case]:
    model = load_model("t2m-46x90")
    era5 = open_variable(climate("era5_t2m_46x90.nc"))
    halves = era5[:6], era5[6:]
    for half, other in (halves, halves[::-1]):
        times = f"globes {'1–6' if half is halves[0] else '7–12'}, reference the other six"
        yield Case(
            "era5", f"ERA5 t2m 46 × 90, {times}", half, 1.0, with_reference(model, other),
            tuple(PEERS),
        )  # fmt: skip
    yield Case(
        "era5", "ERA5 t2m 46 × 90, globes 1–12, no model", era5, 1.0,
        replace(model, reference=None), ("SZ3", "SPERR", "PCodec"),
    )  # fmt: skip
    gcm = open_variable(climate("gcm_6hourly_test_46x90.nc")).astype(np.float32)
    for start in (0, 320, 640):
        some = tuple(name for name in PEERS if name not in SLOW)
        chunk = gcm[start : start + GLOBES]
        yield Case("gcm", f"GCM test, globes {start}–{start + GLOBES - 1}", chunk, 1.0, model, some)
    for name in ("t2m", "u10", "v10", "msl"):
        array = open_variable(climate("era5_snapshots_1deg.nc"), name)
        unit = 100.0 if name == "msl" else 1.0  # hPa
        yield Case("era5_1deg", f"ERA5 {name} 1°", array, unit, model, OF_1_DEGREE)


def row(case: Case, table: Comparison) -> dict[str, Any]:
    """One table, and how many times smaller this package is than the best of the others."""
    best, own = table.best_peer, table["COIN++"]
    assert own.nbytes
    result: dict[str, Any] = {
        "part": case.part, "chunk": case.label, "globes": len(case.array),
        "max_error": table.goal.max_error, "target_rmse": table.goal.target_rmse,
        "unit": str(case.array.attrs.get("units", "")),
        "best_peer": best and best.codec,
        "times_smaller": best and best.nbytes and round(best.nbytes / own.nbytes, 4),
    }  # fmt: skip
    if table.goal.max_error is not None:
        fast = table["COIN++ fast"].nbytes
        assert fast
        result["times_smaller_fast"] = best and best.nbytes and round(best.nbytes / fast, 4)
    result["rows"] = [{k: v for k, v in vars(r).items() if v not in (None, "")} for r in table.rows]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["era5", "gcm", "era5_1deg"])
    arguments = parser.parse_args()
    path = RESULTS / "against_others.json"
    # Parts that are not measured now stay as they are.
    known = json.loads(path.read_text())["tables"] if path.exists() else []
    tables = [table for table in known if table["part"] not in arguments.parts]
    for case in cases():
        if case.part not in arguments.parts:
            continue
        goals = [{"max_error": case.unit * b} for b in BOUNDS]
        goals += [{"target_rmse": case.unit * t} for t in TARGETS]
        for goal in goals:
            table = compare(
                case.array, **goal, names=case.peers, model=case.model, chunk=GLOBES, whole=True
            )
            tables.append(row(case, table))
            print({k: v for k, v in tables[-1].items() if k != "rows"}, flush=True)
        write_result(
            "against_others",
            {
                "data": "real ERA5 of 2026-03-25 … 28 at 46 x 90 and at 1 degree; simulated "
                f"6-hourly temperature (chunks of {GLOBES} globes) from after the training data. "
                "Goals and errors of msl are in Pa, of others in the unit of the data",
                "metric": "bytes of one chunk; speeds in MB of float32 a second on one thread, "
                "the machine doing other things, too",
                "tables": tables,
            },
        )


if __name__ == "__main__":
    main()
