"""Bytes at equal RMSE: ``target_rmse`` beside the other codecs' sizes in ``peer_sizes.json``.

COINPP_DATA=… python benchmarks/target_rmse.py
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
from common import RESULTS, climate, open_variable, weighted_rmse, write_result
from hostile import hostile_fields

from coinpp_xr import COINppCodec, load_model
from coinpp_xr.bitstream import Payload
from coinpp_xr.coordinates import area_weights


def measure(codec: COINppCodec, chunk: np.ndarray, latitude: np.ndarray) -> dict[str, Any]:
    """Encode and decode one chunk; its size, error and which scheme was chosen."""
    start = time.perf_counter()
    payload = codec.encode(chunk)
    encoded = time.perf_counter()
    decoded = codec.decode(payload)
    done = time.perf_counter()
    rmse = weighted_rmse(decoded, chunk, area_weights(latitude, chunk.shape[-1]))
    if rmse > codec.target_rmse:
        raise RuntimeError(f"target {codec.target_rmse} missed: {rmse}")
    return {
        "nbytes": len(payload),
        "bits_per_globe": round(8 * len(payload) / len(chunk), 2),
        "rmse": rmse,
        "scheme": Payload.unpack(payload).kind.name,
        "encode_seconds": round(encoded - start, 3),
        "decode_seconds": round(done - encoded, 3),
    }


def main() -> None:
    peers = json.loads((RESULTS / "peer_sizes.json").read_text())
    results: dict[str, Any] = {"data": peers["data"], "gcm": [], "era5": [], "hostile": {}}

    def row(entry: dict[str, Any], codec: COINppCodec, chunk: Any, latitude: Any) -> dict[str, Any]:
        ours = measure(codec, chunk, latitude)
        best = entry[entry["best"]]
        ratio = round(ours["nbytes"] / best["nbytes"], 4)
        print(entry["target_rmse"], ours, "x of", best["name"], ratio, flush=True)
        return {
            "target_rmse": entry["target_rmse"], "globes": len(chunk), **ours,
            "best_peer": best["name"], "best_peer_nbytes": best["nbytes"], "ratio": ratio,
        }  # fmt: skip

    for part, file in (("gcm", "gcm_6hourly_test_46x90.nc"), ("era5", "era5_t2m_46x90.nc")):
        array = open_variable(climate(file))
        values, latitude = array.to_numpy(), array["lat"].to_numpy()
        for entry in peers[part]:
            first = entry.get("first_globe", 0)
            # Half of the ERA5 globes are the model's reference: they must not help here.
            model = load_model("t2m-46x90")
            model = replace(model, reference=None) if part == "era5" else model
            codec = COINppCodec(model, target_rmse=entry["target_rmse"])
            chunk = values[first : first + entry["globes"]].astype(np.float32)
            results[part].append(row(entry, codec, chunk, latitude))
    ratios = []
    for name, (chunk, latitude, longitude) in hostile_fields().items():
        print(name)
        results["hostile"][name] = []
        for entry in peers["hostile"][name]:
            codec = COINppCodec(
                "t2m-46x90", target_rmse=entry["target_rmse"], latitude=latitude,
                longitude=longitude,
            )  # fmt: skip
            results["hostile"][name].append(row(entry, codec, chunk, latitude))
            ratios.append(results["hostile"][name][-1]["ratio"])
    results["hostile_median"], results["hostile_worst"] = float(np.median(ratios)), max(ratios)
    print("hostile: median", np.median(ratios), "worst", max(ratios))
    write_result("target_rmse", results)


if __name__ == "__main__":
    main()
