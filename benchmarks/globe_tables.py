"""Tables of what globes take: sizes, errors and speed, from the result files."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import load, table


def shipped_model() -> str:
    result = load("shipped_model")
    rows = []
    for data, by_bits in result.items():
        if not isinstance(by_bits, list):
            continue
        rows += [
            [
                data,
                str(row["bits"]),
                f"{row['bits_per_point']:.4f}",
                f"{row['ratio']:,.0f} ×",
                f"{row['rmse']:.2f}",
                f"{row['max_error']:.1f}",
            ]
            for row in by_bits
            if row["bits"] in (4, 6, 8)
        ]
    header = ["data", "bits", "bits per cell", "ratio to float32", "RMSE °C", "max error °C"]
    size = result["model_bytes"] / 1e3
    return (
        f"The shipped model ({result['latents']} latents per globe, a file of {size:.0f} kB, which "
        "the ratios do not count); RMSE is area-weighted "
        "([results](benchmarks/results/shipped_model.json)):\n\n" + table(header, rows)
    )


def target_rmse() -> str:
    result, peers = load("target_rmse"), load("peer_sizes")
    header = ["data", "RMSE", "bits per globe", "SPERR", "SZ3", "of the better one"]
    rows = []
    for part, label in (("gcm", "simulation"), ("era5", "real ERA5")):
        for target in sorted({row["target_rmse"] for row in result[part]}):
            ours = [row for row in result[part] if row["target_rmse"] == target]
            theirs = [row for row in peers[part] if row["target_rmse"] == target]
            globes = sum(row["globes"] for row in ours)
            nbytes = {
                "ours": sum(row["nbytes"] for row in ours),
                **{name: sum(row[name]["nbytes"] for row in theirs) for name in ("sperr", "sz3")},
            }
            bits = {name: 8 * n / globes for name, n in nbytes.items()}
            best = min(nbytes["sperr"], nbytes["sz3"])
            rows.append(
                [
                    f"{label}, {globes} globes",
                    f"{target:g} °C",
                    *(f"{bits[name]:,.1f}" for name in ("ours", "sperr", "sz3")),
                    f"{nbytes['ours'] / best:.2f} ×",
                ]
            )
    hostile = [row["ratio"] for rows in result["hostile"].values() for row in rows]
    return (
        "Bytes at equal RMSE with `target_rmse` and the shipped model, everything in a payload "
        "counted ([results](benchmarks/results/target_rmse.json)). *Simulation* is the half year "
        "after the model's training data in chunks of 256 globes; *real ERA5* is one chunk of 12 "
        "snapshots, on which no model was fitted (two constants of the coder, the price of a bit "
        "and the slope of the isotropic field, worth a few per cent, were chosen with them in "
        "sight). SPERR and SZ3 each with their best mode, layout and setting:\n\n"
        + table(header, rows)
        + f"\nOn {len(result['hostile'])} fields that no model was made for, each at three targets "
        "(white noise, steps, a checkerboard, spikes, a ramp, wind, pressure, 1° temperature, "
        f"single globes, shuffled time): median {np.median(hostile):.2f} ×, worst "
        f"{max(hostile):.2f} × of the better one.\n"
    )


def model_size() -> str:
    result = load("model_size")
    header = ["globes", "no model", "best model", "its latents", "its size", "shipped model"]

    def kilobytes(nbytes: float) -> str:
        return f"{nbytes / 1e3:,.0f} kB"

    rows = [
        [
            f"{row['globes']:,}",
            kilobytes(row["no_model_nbytes"]),
            kilobytes(row["best_total_nbytes"]),
            "none" if row["best_latents"] is None else str(row["best_latents"]),
            f"{row['best_model_nbytes'] / 1e3:,.1f} kB",
            kilobytes(row["shipped_model_nbytes"]),
        ]
        for row in result["break_even"]
    ]
    archives = " and ".join(
        f"{row['globes']:,} globes: {kilobytes(row['chunk_nbytes'] + row['model_nbytes'])}, "
        f"{row['ratio']:.2f} × of SPERR" for row in result["archives"]
    )  # fmt: skip
    return (
        f"Archives at RMSE {result['target_rmse']:g} °C, model and chunks counted together, on the "
        "simulation ([results](benchmarks/results/model_size.json)). Zero latents are a mean "
        "field. Larger archives are extrapolated from bits per globe on unseen months:\n\n"
        + table(header, rows)
        + "\n`ds.coinpp.to_zarr(..., target_rmse=1.0, train_minutes=5, embed_model=True)`: "
        f"{archives} in three dimensions.\n"
    )


def coding_stages() -> str:
    result = load("coding_stages")
    targets = ("0.5", "1", "1.5")

    def row(label: str, measured: str, by_target: dict[str, Any]) -> list[str]:
        return [label, measured, *(f"{by_target[t]['bits_per_globe']:,.1f}" for t in targets)]

    rows = [row(f"{k}. {s['what']}", s["measured"], s) for k, s in result["stages"].items()]
    plain = result["plain_eofs"]["tables on the grid"]
    rows.append(row("g with plain EOFs instead of the model's modes", "bytes", plain))
    return (
        "What each stage of the coder does: bits per globe at RMSE 0.5, 1 and 1.5 °C on two chunks "
        "of 256 simulated globes after the training data, latents of the shipped model, without "
        "container; *ideal* is a code length with tables of the training globes "
        "([results](benchmarks/results/coding_stages.json)):\n\n"
        + table(["stage", "measured", *(f"{t} °C" for t in targets)], rows)
    )


def fitting() -> str:
    result = load("fitting")
    rows = [
        [
            row["method"], str(row["batch"]), f"{row['ms_per_globe']:.3g}", f"{row['rmse_K']:.4f}",
            f"{row['times_as_fast_as_3_sgd_steps']:,.3g} ×",
        ]
        for row in result["rows"]
        if row["batch"] in (1, 256) and row["rmse_K"] is not None
    ]  # fmt: skip
    header = ["inner loop", "batch", "ms per globe", "RMSE K", "as fast as 3 SGD steps"]
    return (
        "Fitting 16 latents of one SIREN, without a tail, on the same simulated globes; "
        "*default* is three chord steps ([results](benchmarks/results/fitting.json)):\n\n"
        + table(header, rows)
    )


def train_your_own() -> str:
    result = load("train_your_own")
    rows = [
        [
            "`coinpp train`" if row["recipe"] == "default" else "COIN++'s recipe",
            str(row["latents"]),
            f"{row['minutes']:.1f}",
            f"{row['rmse_K']:.3f}",
            f"{row['eof_rmse_K']:.3f}",
            f"{row['ratio_to_eof']:.3f}",
            f"{row['ratio_to_eof_plain']:.3f}",
        ]
        for row in result["models"]
    ]
    header = ["recipe", "latents", "minutes", "RMSE K", "EOFs K", "ratio", "ratio, plain RMSE"]
    return (
        "Models trained within minutes on simulated weather, against EOF truncation with as many "
        "components of the same training globes, on the half year after them "
        "([results](benchmarks/results/train_your_own.json)); unquantized, area-weighted but for "
        "the last column:\n\n" + table(header, rows)
    )


def throughput(*, short: bool = False) -> str:
    """Speeds of the default device; ``short`` leaves most settings out."""
    result = load("throughput")
    rows = [
        ["bits=8", "globes/s", result["encode_globes_per_second"]["default"],
         result["decode_globes_per_second"]],
    ]  # fmt: skip
    for target in ("0.5", "1", "1.5"):
        speed = result["target_rmse"][target]
        both = [speed[f"{way}_globes_per_second"] for way in ("encode", "decode")]
        rows.append([f"target_rmse={target}", "globes/s", *both])
    for key, speed in result["max_error_mb_per_s"].items():
        if key != "data":
            both = [speed[f"{way}_two_threads"] for way in ("encode", "decode")]
            rows.append([key, "MB/s", *both])
    if short:
        kept = (
            "bits=8",
            "target_rmse=0.5",
            "ERA5, max_error=0.5, default",
            "ERA5, max_error=0.5, fast",
        )
        rows = [row for row in rows if row[0] in kept]
    text = (
        f"Speed on {result['machine']['cores']} CPU cores with the shipped model: globes of "
        "46 × 90, of a simulation where not said otherwise, in chunks of 64 (`bits`, `max_error`; "
        "MB of float32, two chunks at a time) and 256 "
        "([results](benchmarks/results/throughput.json)):\n\n"
    )
    numbers = [
        [name, unit, *(f"{speed:,.0f}" if unit == "globes/s" else f"{speed:.2f}" for speed in both)]
        for name, unit, *both in rows
    ]
    return text + table(["", "", "encode", "decode"], numbers)
