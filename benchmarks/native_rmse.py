"""This package without a model and other codecs on native grids, at equal area-weighted RMSE.

Single 0.25° globes, from near the noise of the data to a tenth of its spread; and sequences and
levels. Half of the globes were in sight when constants of the coder were chosen, the others were
not. EBCC, which takes minutes for every case, is left out, and JPEG XL and the coder of patches,
which are behind JPEG 2000 on such fields (``transform_coders.py``).

    COINPP_DATA=... python benchmarks/native_rmse.py    # some twenty minutes
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import data_file, open_variable, write_result
from native import fastest

from coinpp_xr import COINppCodec
from coinpp_xr.bitstream import Payload
from coinpp_xr.parallel import thread_count
from coinpp_xr.peers import Chunk, Goal, smallest

TUNED, HELD_OUT, TOGETHER = "tuned", "held out", "together"
FIELDS = (
    ("era5_msl_0p25", "msl", TUNED), ("gfs_t2m_0p25", "t2m", TUNED),
    ("era5_gust_0p25", "i10fg", TUNED), ("aifs_t500_0p25", "t500", HELD_OUT),
    ("gfs_t_pv_0p25", "t_pv", HELD_OUT), ("ifs_gh_0p4", "gh700", HELD_OUT),
)  # fmt: skip
SEQUENCES = (
    ("climate/era5_snapshots_1deg", "t2m"), ("climate/era5_snapshots_1deg", "u10"),
    ("climate/era5_snapshots_1deg", "msl"), ("native/erainterim_37levels_t", "t"),
    ("native/erainterim_37levels_u", "u"),
)  # fmt: skip
# Of a field's spread.
SHARES, SHARES_OF_MANY = (0.002, 0.006, 0.02, 0.05, 0.1), (0.002, 0.01, 0.05)
PEERS = ("SPERR", "SZ3", "JPEG 2000")


def measure(file: str, variable: str, half: str, share: float) -> dict[str, Any]:
    array = open_variable(data_file(f"{file}.nc"), variable).squeeze().astype(np.float32)
    values, latitude = array.to_numpy(), array[array.dims[-2]].to_numpy()
    chunk, target = Chunk.of(values, latitude), share * float(np.nanstd(values))
    rows: list[dict[str, Any]] = []
    for effort in ("fast", "default"):
        codec = COINppCodec("universal", target_rmse=target, effort=effort)
        encoding, payload = fastest(lambda codec=codec: codec.encode(values))
        decoding, decoded = fastest(lambda codec=codec, payload=payload: codec.decode(payload))
        squared = (np.asarray(decoded, np.float64) - values.astype(np.float64)) ** 2
        counted = chunk.weights * np.isfinite(values)
        rmse = float(np.sqrt(np.nansum(squared * counted) / counted.sum()))
        if rmse > target:
            raise RuntimeError(f"{effort} does not keep {target:g}: {rmse:g}")
        rows.append(
            {
                "codec": f"COIN++ {effort}", "kind": Payload.unpack(payload).kind.name,
                "nbytes": len(payload), "rmse": rmse, "encode_seconds": round(encoding, 3),
                "decode_seconds": round(decoding, 3),
            }
        )  # fmt: skip
    for name in PEERS:
        found = smallest(name, chunk, Goal(target_rmse=target))
        if found is not None:
            best = found[0]
            rows.append(
                {
                    "codec": best.peer, "setting": best.setting, "nbytes": best.nbytes,
                    "rmse": best.rmse, "encode_seconds": round(best.encode_seconds, 3),
                    "decode_seconds": round(best.decode_seconds, 3),
                }
            )  # fmt: skip
    least = min(row["nbytes"] for row in rows if not row["codec"].startswith("COIN++"))
    sperr = next(row for row in rows if row["codec"] == "SPERR")
    for row in rows:
        if row["codec"].startswith("COIN++"):
            row["times_smaller_than_best_peer"] = round(least / row["nbytes"], 3)
            for step in ("encode", "decode"):
                key = f"{step}_seconds"
                row[f"{step}_time_of_sperr"] = round(row[key] / max(sperr[key], 1e-3), 1)
    return {
        "field": variable, "file": file, "half": half, "share of spread": share,
        "target_rmse": target, "cells": values.size, "rows": rows,
    }  # fmt: skip


def main() -> None:
    # What has to be compiled is compiled now.
    noise = np.random.default_rng(0).standard_normal((2, 180, 360)) ** 3
    noise[:, 60:90] = np.nan
    for effort in ("fast", "default"):
        for values in (noise, noise[:1], noise[:, :50], noise[:, 90:]):
            codec = COINppCodec("universal", target_rmse=0.1, effort=effort)
            codec.decode(codec.encode(values))
    cases = []
    single = [(f"native/{file}", name, half, SHARES) for file, name, half in FIELDS]
    many = [(*sequence, TOGETHER, SHARES_OF_MANY) for sequence in SEQUENCES]
    for file, variable, half, shares in single + many:
        for share in shares:
            cases.append(measure(file, variable, half, share))
            print(cases[-1], flush=True)
    summary = {
        f"{effort}, {half}": round(
            float(
                np.exp(
                    np.mean(
                        [
                            np.log(row["times_smaller_than_best_peer"])
                            for case in cases
                            for row in case["rows"]
                            if case["half"] == half and row["codec"] == f"COIN++ {effort}"
                        ]
                    )
                )
            ),
            3,
        )
        for effort in ("fast", "default")
        for half in (TUNED, HELD_OUT, TOGETHER)
    }
    write_result(
        "native_rmse",
        {"threads": thread_count(), "times smaller than best peer": summary, "cases": cases},
        show=False,
    )
    print(summary)


if __name__ == "__main__":
    main()
