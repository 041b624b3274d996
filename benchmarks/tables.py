"""Write tables of README.md and pages of docs from the result files, or check them.

python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import table
from science_tables import science_tables

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
COMPARISON = HERE.parent / "docs" / "comparison.md"
MEDIA_PAGE = HERE.parent / "docs" / "media.md"
ARCHIVES = HERE.parent / "docs" / "archives.md"
MODELS_PAGE = HERE.parent / "docs" / "models.md"
PRETRAINED = HERE.parent / "pretrained"
REPRODUCE = HERE.parent / "docs" / "reproduce.md"
MEASURED = HERE.parent / "docs" / "measurements.md"
SCIENCE = HERE.parent / "docs" / "science.md"
START, END = "<!-- results -->\n", "<!-- /results -->"


def load(name: str) -> dict[str, Any]:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


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


def throughput() -> str:
    result = load("throughput")
    cores = result["machine"]["cores"]
    rows = [
        ["encode, bits=8", f"{result['encode_globes_per_second']['default']:,.0f}"],
        ["decode, bits=8", f"{result['decode_globes_per_second']:,.0f}"],
    ]
    for target in ("0.5", "1", "1.5"):
        speed = result["target_rmse"][target]
        rows += [
            [f"{way}, target_rmse={target}", f"{speed[f'{way}_globes_per_second']:,.0f}"]
            for way in ("encode", "decode")
        ]
    for key, speed in result["max_error_mb_per_s"].items():
        if key != "data":
            rows += [
                [f"{way}, {key} (MB/s)", f"{speed[f'{way}_two_threads']:.2f}"]
                for way in ("encode", "decode")
            ]
    return (
        f"Speed on {cores} CPU cores with the shipped model, simulated globes of 46 × 90 in chunks "
        "of 64 (`bits`, `max_error`; MB of float32, two chunks at a time) and 256 "
        "([results](benchmarks/results/throughput.json)):\n\n"
        + table(["", "globes per second"], rows)
    )


PARTS = {
    "era5": "real ERA5 temperature, 46 × 90",
    "gcm": "simulation, 46 × 90",
    "era5_1deg": "real ERA5 at 1°",
}
# Codecs that a bound is made for, the others on a residual of ours or rounded beforehand.
BOUNDED = ("SZ3", "SPERR", "ZFP", "EBCC", "JPEG 2000 + residual")


def against_others() -> str:
    """One line per chunk and goal: this package, the best of the codecs, and how they compare."""
    result = load("against_others")
    rows = []
    for entry in result["tables"]:
        own, best = size_of(entry, "COIN++"), size_of(entry, entry["best_peer"])
        goal = f"±{entry['max_error']:g}" if entry["max_error"] else f"{entry['target_rmse']:g}"
        kind = "every value" if entry["max_error"] else "RMSE"
        rows.append(
            [
                entry["chunk"],
                f"{kind} {goal} {entry['unit']}".strip(),
                f"{own:,}",
                f"{entry['best_peer']} {best:,}",
                f"{best / own:.2f} ×",
            ]
        )
    header = ["chunk", "goal", "COIN++ bytes", "best of the others", "times smaller"]
    return table(header, rows)


# Result files: the rates' name and unit, and the published codecs that stand beside.
MEDIA = {
    "images": ("bpp", "bits per pixel", ("COIN", "COIN++", "JPEG2000", "BPG")),
    "audio": ("kbps", "kilobits per second", ("COIN++", "MP3")),
    "volumes": ("bpp", "bits per voxel", ("COIN++", "JPEG2000", "BPG")),
}


def by_codec(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows in the order of the rates."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault(row["codec"], []).append(row)
    return found


def decibels(name: str) -> str:
    """Mean PSNR of every codec and of what the paper published."""
    result = load(name)
    rate_name, unit, published = MEDIA[name]
    rates, items = result[rate_name], len(result["ours"])
    lines = []
    for codec, rows in by_codec(result).items():
        # A mean over the easy items says nothing.
        cells = [
            f"{row['psnr_db']:.2f}" if row["items"] == items else
            f"({row['items']} only)" if row["items"] else "–"
            for row in rows
        ]  # fmt: skip
        lines.append([codec, *cells])
    for codec in published:
        x, y = zip(*result["published_by_the_paper"][codec], strict=True)
        lines.append(
            [
                f"{codec}, published",
                *(
                    f"{np.interp(rate, x, y):.1f}" if 0.98 * x[0] <= rate <= 1.01 * x[-1] else "–"
                    for rate in rates
                ),
            ]
        )
    return table([unit, *(f"{rate:g}" for rate in rates)], lines)


def shares(name: str) -> str:
    """How many bits ours takes of those that a peer takes for the same PSNR, and who wins where."""
    result = load(name)
    rate_name, unit, _ = MEDIA[name]
    items = len(result["ours"])
    lines = []
    for codec, rows in list(by_codec(result).items())[1:]:
        share = [
            f"{row['our_share_of_its_bits']:.2f} ×" if row["shares"] == items else "–"
            for row in rows
        ]
        wins = [
            f"{row['better_than_ours_on']} of {row['items']}" if row["items"] else "–"
            for row in rows
        ]
        lines.append([codec, *share, *wins])
    rates = [f"{rate:g}" for rate in result[rate_name]]
    return table([unit, *rates, *(f"better at {rate}" for rate in rates)], lines)


def standing(name: str) -> str:
    """In words, who is ahead of us and who is not."""
    result = load(name)
    items = len(result["ours"])
    codecs = by_codec(result)
    own = next(iter(codecs.values()))
    ahead, behind, between = [], [], []
    for codec, rows in list(codecs.items())[1:]:
        known = [
            (ours["psnr_db"] - row["psnr_db"], row)
            for ours, row in zip(own, rows, strict=True)
            if row["items"] == items
        ]
        if not known:
            continue
        margins = [margin for margin, _ in known]
        low, high = sorted((abs(min(margins)), abs(max(margins))))
        span = f"{high:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f} to {high:.1f}"
        text = f"{codec} by {span} dB"
        if min(margins) > 0:
            behind.append(text)
        elif max(margins) < 0:
            bits = [r["our_share_of_its_bits"] for _, r in known if r["shares"] == items]
            more = f", and we take {min(bits):.2f} to {max(bits):.2f} × its bits" if bits else ""
            ahead.append(text + more)
        else:
            rates = [f"{r[MEDIA[name][0]]:g}" for margin, r in known if margin < 0]
            between.append(f"{codec} at {', '.join(rates)} {MEDIA[name][1]}")
    sentences = []
    if ahead:
        sentences.append(f"Better than ours at every rate: {'; '.join(ahead)}.")
    if between:
        sentences.append(f"Better than ours at some rates: {'; '.join(between)}.")
    if behind:
        sentences.append(
            "Ours is better, at every rate that they reach on every item, than "
            f"{'; '.join(behind)}."
        )
    return " ".join(sentences)


def each_item(name: str, rate: float, label: str) -> str:
    """PSNR of every item at one rate."""
    result = load(name)
    number = result[MEDIA[name][0]].index(rate)
    lines = []
    for item, curves in result["peers"]["curves"].items():
        scores = [at_rate(curve, rate) for curve in curves.values()]
        own = f"{result['ours'][item][number]:.2f}"
        lines.append([item, own, *("–" if s is None else f"{s:.2f}" for s in scores)])
    return table([label, *by_codec(result)], lines)


def at_rate(curve: list[list[float]], rate: float) -> float | None:
    if not curve or not curve[0][0] <= rate <= curve[-1][0]:
        return None
    x, y = np.array(curve).T
    return float(np.interp(np.log(rate), np.log(x), y))


def media_speed() -> str:
    result = load("media_throughput")
    threads = list(result["by_threads"])
    names = {
        "images": ("images, megapixels per second", "{way}_megapixels_per_s"),
        "speech": ("speech, times real time", "{way}_times_real_time"),
        "volume of 256^3": ("256³ voxels, seconds", "{way}_s"),
    }
    lines = []
    for key, (label, field) in names.items():
        for setting in result["by_threads"][threads[0]][key]:
            cells = [
                f"{result['by_threads'][n][key][setting][field.format(way=way)]:.3g}"
                for way in ("encode", "decode")
                for n in threads
            ]
            lines.append([f"{label}: {setting}", *cells])
    header = [f"{way}, {n} thread{'s' * (n != '1')}" for way in ("encode", "decode")
              for n in threads]  # fmt: skip
    return table(["", *header], lines)


def without_loss() -> str:
    """In words, this package's rate beside FLAC's."""
    rates = load("audio")["lossless_kbps"]
    ratio = rates["coinpp-xr"] / rates["FLAC"]
    return f"ours takes {ratio:.2f} × the bits of FLAC"


def media() -> str:
    """Images, speech and heads in brief."""
    kbps = load("audio")["lossless_kbps"]
    link = "[results](benchmarks/results/{}.json)"
    return (
        f"`ImagePatchCodec`, {load('images')['data']} in 8 bits, mean PSNR in dB at the COIN++ "
        "paper's bits per pixel; every codec as good as it gets within the rate. What the paper "
        "published is over all 24 images, interpolated between its points; its BPG is HEVC's "
        f"coding of still images ({link.format('images')}; all tables and plots are in "
        "[docs/media.md](docs/media.md)):\n\n"
        + decibels("images")
        + f"\n`AudioPatchCodec`, {load('audio')['data']}, mean PSNR in dB of (x + 1) / 2. Neither "
        "MP3 nor Opus aims at PSNR: what is heard is not measured here. The paper's points are "
        f"of test-clean ({link.format('audio')}). Without loss ours takes {kbps['coinpp-xr']:g} "
        f"kilobits per second, FLAC {kbps['FLAC']:g}:\n\n"
        + decibels("audio")
        + f"\n`VolumePatchCodec`, {load('volumes')['data']} as floats in [0, 1], mean PSNR in dB. "
        "The paper's points are of FastMRI "
        f"({link.format('volumes')}):\n\n"
        + decibels("volumes")
        + "\nSpeed with one and with two threads, beside OpenJPEG and libaom "
        f"({link.format('media_throughput')}):\n\n" + media_speed()
    )


def media_page() -> str:
    link = "[{0}.json](../benchmarks/results/{0}.json)"
    equal = (
        "Our bits as a multiple of a peer's at the PSNR that ours reaches at the rate (geometric "
        "mean; below 1 ours is smaller), and on how many items the peer has the higher PSNR:\n"
    )
    return "\n".join(
        [
            "# Images, volumes and sound: measured\n",
            "Measured by `benchmarks/images.py`, `audio.py`, `volumes.py` and "
            "`media_throughput.py`, written by `benchmarks/tables.py` and `media_plots.py`. Every "
            "payload of ours keeps to the rate, everything in it counted. Others stand at the best "
            "of the settings that the scripts name, interpolated between the two around the rate, "
            "boxes and containers not counted. *Published* points are the COIN++ paper's and of "
            "other data. A number in brackets says how many items a codec can make so small.\n",
            "## Where ours falls short\n",
            f"Images. {standing('images')}\n",
            f"Speech. {standing('audio')} This is PSNR: MP3 and Opus spend their bits on what is "
            "heard, which is not measured here, and may well sound better. Without loss "
            f"{without_loss()}.\n",
            f"Heads. {standing('volumes')}\n",
            "Speed. Ours is slower than most codecs in C, see the last table.\n",
            "## Images\n",
            "![Rate and PSNR of 16 Kodak images](images/kodak.png)\n",
            f"{load('images')['data']}, mean PSNR in dB ({link.format('images')}). Published "
            "points are means over all 24 images. JPEG XL does not aim at PSNR.\n",
            decibels("images"),
            equal,
            shares("images"),
            "Every image at 0.266 bits per pixel:\n",
            each_item("images", 0.266, "image"),
            "## Speech\n",
            "![Rate and PSNR of speech](images/speech.png)\n",
            f"{load('audio')['data']}, mean PSNR in dB ({link.format('audio')}). Published points "
            "are of test-clean. The output of MP3 and Opus went through the filter that brings it "
            "nearest to the original, which favours them.\n",
            decibels("audio"),
            equal,
            shares("audio"),
            "Without loss, in kilobits per second: "
            + ", ".join(f"{name} {rate:g}" for name, rate in load("audio")["lossless_kbps"].items())
            + ".\n",
            "## Heads\n",
            "![Rate and PSNR of MRI heads](images/heads.png)\n",
            f"{load('volumes')['data']}, mean PSNR in dB ({link.format('volumes')}). Published "
            "points are of FastMRI: other scans. HEVC film predicts slices "
            "from their neighbours, HEVC-intra does not.\n",
            decibels("volumes"),
            equal,
            shares("volumes"),
            "Every volume at 0.2 bits per voxel:\n",
            each_item("volumes", 0.2, "volume"),
            "## Speed\n",
            f"{load('media_throughput')['data']}, by the number of threads "
            f"({link.format('media_throughput')}). Some codecs use one thread in any case.\n",
            media_speed(),
        ]
    )


def size_of(entry: dict[str, Any], codec: str) -> int:
    return next(row["nbytes"] for row in entry["rows"] if row["codec"] == codec)


def bounds_summary() -> str:
    """Per kind of data and goal, the mean over chunks of how many times smaller."""
    result = load("against_others")
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in result["tables"]:
        if "no model" in entry["chunk"]:
            continue
        name = PARTS[entry["part"]]
        if entry["part"] == "era5_1deg":
            name += f", {entry['chunk'].split()[1]}"
        limit = "max_error" if entry["max_error"] else "target_rmse"
        groups.setdefault((name, limit, f"{entry[limit]:g} {entry['unit']}"), []).append(entry)
    rows = []
    for (name, limit, goal), entries in groups.items():
        own = sum(size_of(e, "COIN++") for e in entries)
        raw = sum(4 * size_in_values(e) for e in entries)
        best = sum(size_of(e, e["best_peer"]) for e in entries)
        made_for_bounds = "–"
        if limit == "max_error":
            theirs = [
                min(r["nbytes"] for r in e["rows"] if r["codec"] in BOUNDED and "nbytes" in r)
                for e in entries
            ]
            made_for_bounds = f"{sum(theirs) / own:.2f} ×"
        peers = " / ".join(sorted({e["best_peer"] for e in entries}))
        cells = [name, f"{limit}={goal}", f"{raw / own:.1f} ×", f"{best / own:.2f} ×", peers]
        rows.append([*cells, made_for_bounds])
    header = [
        "data", "goal", "ratio to float32", "than the best other", "which is", "than SZ3 … EBCC",
    ]  # fmt: skip
    return (
        "How many times smaller than other codecs at their best settings, 12 of them: SZ3, SPERR, "
        "ZFP, EBCC, JPEG 2000, JPEG XL, JPEG, AVIF, EOF truncation, BitRound, PCodec and Blosc "
        "(fewer on large chunks; HEVC-intra was not installed; *SZ3 … EBCC* are those that keep a "
        "bound by themselves, and JPEG 2000 with a residual). Real ERA5 at 46 × 90 in two halves "
        "of six globes, each with the other as the model's reference (constants of the "
        "coder were chosen with these in sight); "
        "at 1° nothing was learned from ERA5 t2m of that resolution. [All of them, chunk by "
        "chunk](docs/comparison.md):\n\n" + table(header, rows)
    )


def size_in_values(entry: dict[str, Any]) -> int:
    own = next(row for row in entry["rows"] if row["codec"] == "COIN++")
    return round(own["ratio"] * own["nbytes"] / 4)


def comparison_page() -> str:
    """Every chunk and goal with every codec."""
    result = load("against_others")
    parts = [
        "# This package and other codecs\n",
        "Bytes of the same chunk at the same error, every codec at the best of its settings that "
        "keeps the goal; measured by `benchmarks/against_others.py`, written by "
        "`benchmarks/tables.py`. " + result["metric"].capitalize() + ".\n",
        "Where we lose: in speed, by two orders of magnitude to SZ3, ZFP and PCodec. The margin is "
        "smallest at fine bounds on rough fields, where noise decides. Image codecs get a residual "
        "packed by PCodec under a bound. EOFs are those of the chunk itself, counted with it. "
        "Masks and shapes are not counted for others.\n",
        "## All chunks\n",
        against_others(),
        "## All codecs\n",
    ]
    for entry in result["tables"]:
        goal = f"max_error={entry['max_error']:g}" if entry["max_error"] else ""
        goal = goal or f"target_rmse={entry['target_rmse']:g}"
        rows = [
            [
                row["codec"], row.get("setting", row.get("note", "")),
                *(
                    f"{row[name]:{form}}" if name in row else "–"
                    for name, form in (
                        ("nbytes", ","), ("ratio", ".2f"), ("max_error", ".3g"), ("rmse", ".3g"),
                        ("encode_mb_per_s", ".3g"), ("decode_mb_per_s", ".3g"),
                    )
                ),
            ]
            for row in entry["rows"]
        ]  # fmt: skip
        header = [
            "codec", "setting", "bytes", "ratio", "max error", "RMSE", "encode MB/s", "decode MB/s",
        ]  # fmt: skip
        parts += [f"### {entry['chunk']}, {goal} {entry['unit']}\n", table(header, rows)]
    return "\n".join(parts)


def archive_scale() -> str:
    """Archives of several sizes, and what follows for clusters and a petabyte on paper."""
    result = load("archive_scale")
    machine, plan = result["machine"], result["plan"]
    seconds = {(case["globes"], case["workers"]): case["seconds"] for case in result["cases"]}
    rows = [
        [
            f"{case['globes']:,}",
            str(case["workers"]),
            f"{case['seconds']:,.1f}",
            f"{case['globes_per_s']:,.0f}",
            f"{case['mb_per_s']:.2f}",
            f"{seconds[case['globes'], 1] / case['seconds']:.2f} ×",
            f"{case['peak_nbytes_per_worker'] / 2**20:,.0f}",
            f"{100 * case['share_not_busy']:.1f} %",
            f"{case['ratio']:,.0f} ×",
            f"{case['raw_nbytes'] / case['files_nbytes']:,.0f} ×",
        ]
        for case in result["cases"]
    ]
    header = [
        "globes", "workers", "seconds", "globes/s", "MB/s", "speed-up", "peak MiB per worker",
        "not busy", "ratio", "ratio, all files",
    ]  # fmt: skip
    return "\n".join(
        [
            f"Measured on {machine['cores']} cores ({machine['cpu']}, {machine['system']}, Python "
            f"{machine['python']}, {machine['date']}), which workers share with client and "
            f"scheduler: {result['data']}. `target_rmse={result['settings']['target_rmse']:g}`, "
            f"model {result['settings']['model']}, chunks of {result['settings']['chunk_time']} "
            "globes, every block read back and verified. Workers are processes of one thread. "
            "*MB* are of float32, the time is that from the first block to the last one, *peak* is "
            "the most memory that a worker ever had, *not busy* the share of the workers' time in "
            "which they neither made nor archived a block, the last one's wait at the end "
            "included, *all files* counts metadata, coordinates and the manifest "
            "([results](../benchmarks/results/archive_scale.json)):\n",
            table(header, rows),
            growth(result),
            rates_of_a_worker(result),
            clusters_on_paper(plan),
            petabyte(plan),
        ]
    )


def rates_of_a_worker(result: dict[str, Any]) -> str:
    """In words, what other rate controls cost."""
    said = [
        ", ".join(f"`{name}={value:g}`" for name, value in case["rate"].items())
        + f" {case['mb_per_s']:.2f} MB/s at {case['ratio']:,.0f} ×"
        for case in result["rates"]
    ]
    return (
        f"What is asked for decides how fast it is: one worker, {result['rates'][0]['globes']:,} "
        f"globes in one run: {'; '.join(said)}.\n"
    )


def growth(result: dict[str, Any]) -> str:
    """In words, seconds over globes."""
    lines = [
        f"{count(int(workers), 'worker')}: {line['start_seconds']:.2f} s and "
        f"{1e3 * line['seconds_per_globe']:.2f} s per 1,000 globes, off by at most "
        f"{100 * line['largest_relative_deviation']:.0f} % (seconds grow like globes to the power "
        f"of {line['exponent']:.2f})"
        for workers, line in result["linear"].items()
        if line is not None
    ]
    if not lines:
        return ""
    return f"Seconds as a line over globes: {'; '.join(lines)}.\n"


def clusters_on_paper(plan: dict[str, Any]) -> str:
    """Where clusters stop scaling, by what is in a block."""
    rows = [
        [
            block_name(row),
            f"{row['nbytes'] / 1e6:,.1f}",
            f"{row['busy_seconds']:,.2f}",
            *(f"{rate:,.0f}" for rate in row["mb_per_s_by_workers"].values()),
            f"{row['workers_at_most']:,.0f}",
            f"{row['mb_per_s_at_most']:,.0f}",
        ]
        for row in plan["blocks"]
    ]
    header = [
        "block", "MB", "seconds of a worker",
        *(f"MB/s, {int(n):,} workers" for n in plan["blocks"][0]["mb_per_s_by_workers"]),
        "workers at most", "MB/s at most",
    ]  # fmt: skip
    workers, globes = plan["from"]["workers"], plan["from"]["globes"]
    return (
        f"On paper: a busy worker does {plan['mb_per_s_per_busy_worker']:.2f} MB/s (with "
        f"{count(workers, 'worker')} and {globes:,} globes, as above), and blocks in which "
        "nothing is done pass client, scheduler and workers at one per "
        f"{1e3 * plan['scheduling_seconds_per_block']:.1f} ms, "
        f"{plan['blocks_per_s_at_most']:,.0f} a second; "
        f"{1e3 * plan['scheduling_processor_seconds_per_block']:.1f} ms of it are the processor's "
        "time of client and scheduler. More workers than *at most* wait for their next block. That "
        "a worker does as many MB/s on every grid, that a block costs the scheduler the same "
        "whatever is in it, and that the store keeps up, is extrapolated, not measured:\n\n"
        + table(header, rows)
    )


def petabyte(plan: dict[str, Any]) -> str:
    """Days, files and tasks for a petabyte, extrapolated."""
    whole = plan["petabyte"]
    sizes = [cluster["workers"] for cluster in whole["by_block"][0]["clusters"]]
    rows = [
        [
            block_name(row),
            f"{row['blocks']:,}",
            f"{row['files']:,}",
            *(f"{cluster['days']:,.1f}" for cluster in row["clusters"]),
            *(f"{cluster['blocks_per_s_wanted']:,.2f}" for cluster in row["clusters"]),
            f"{row['manifest_seconds'] / 60:,.0f}",
        ]
        for row in whole["by_block"]
    ]
    header = [
        "block", "tasks", "files", *(f"days, {n:,} workers" for n in sizes),
        *(f"tasks/s, {n:,} workers" for n in sizes), "minutes to read the manifest",
    ]  # fmt: skip
    n_lat, n_lon = whole["grid"]
    return (
        f"One petabyte of float32, hourly fields of 0.25° ({n_lat} × {n_lon}): "
        f"{whole['globes'] / 1e6:,.0f} million globes, {whole['worker_days']:,.0f} days of one "
        f"worker. If they compressed {whole['ratio']:,.0f} × as the globes above do, the archive "
        f"would be {whole['archive_nbytes_at_this_ratio'] / 1e12:,.2f} TB. A task is a chunk, or a "
        "shard of several; each makes a file, and one of the manifest. "
        f"The scheduler is good for {whole['blocks_per_s_at_most']:,.0f} tasks/s; below are those "
        "that it would be asked for:\n\n" + table(header, rows)
    )


def models_page() -> str:
    """The cards of the shipped models on one page."""
    cards = [
        (PRETRAINED / f"{line.split()[0].removesuffix('.safetensors')}.md").read_text()
        for line in (PRETRAINED / "registry.txt").read_text().splitlines()
    ]
    intro = (
        "# Models\n\nThese travel with the package. `coinpp models list` shows what else is at "
        "hand, `coinpp models show NAME` a card. How they were trained: "
        "[pretrained/TRAINING.md](../pretrained/TRAINING.md).\n"
    )
    return "\n".join([intro, *(card.replace("# ", "## ", 1).rstrip() + "\n" for card in cards)])


def reproduction() -> str:
    """The paper's claims, its table, and its figures."""
    from coinpp_xr.reproduction import ITEMS
    from coinpp_xr.reproduction.claims import table as claims

    records = {
        name: json.loads(path.read_text())
        for name in ITEMS
        if (path := HERE / "results" / "reproduction" / f"{name}.json").exists()
    }
    if not records:
        return ""
    machine = next(iter(records.values()))["machine"]
    hours = sum(record["seconds"] for record in records.values()) / 3600
    parts = [
        "## The paper's claims\n\nBy results of `coinpp reproduce all --quick` "
        f"({machine['processor']}, {machine['cores']} cores, {hours:.1f} hours in one unattended "
        "run beside other work, Table 1 once more with nothing beside it; "
        "[results](../benchmarks/results/reproduction)). Where there are several seeds, "
        "differences are of means with their standard errors; less than two of them is "
        "*undecided*. The rules behind the verdicts are in `coinpp_xr/reproduction/claims.py`. "
        "Learned image codecs (BMS, MBT, CST) and VTM were not run here, and no PSNR of the paper "
        "can be checked on other data.\n",
        claims(records),
        "## Data\n",
        data_of(records),
        "## Table 1\n",
        encoding_times(records["table1"]["findings"]) if "table1" in records else "",
        "## Figures\n",
        *(
            f"**{record['title']}** ({record['seconds'] / 60:.0f} min)\n\n"
            f"![{record['title']}](images/reproduction/{name}.png)\n"
            for name, record in records.items()
        ),
    ]
    return "\n".join(parts)


def data_of(records: dict[str, Any]) -> str:
    notes = {study: note for record in records.values() for study, note in record["data"].items()}
    return table(["for", "quick runs take"], [[study, note] for study, note in notes.items()])


def encoding_times(findings: dict[str, Any]) -> str:
    """Table 1."""
    rows = [
        [
            label,
            f"{1e3 * row['encode']:,.3g}",
            "–" if row["decode"] is None else f"{1e3 * row['decode']:,.3g}",
            f"{row['rate']:.2f}",
            f"{row['psnr']:.1f}",
        ]
        for label, row in findings["rows"].items()
    ]
    header = ["32 × 32 images, one thread", "encoding, ms", "decoding, ms", "bits per pixel", "dB"]
    return (
        f"COIN++ with {findings['latents']} latents, the SIREN with a linear tail with "
        f"{findings['latents_with_tail']}, all of {findings['bits']} bits, entropy coded; "
        "times per image, all measured in one run. *As in the paper* is meta-learned through its "
        "inner loop, at quick sizes; the other COIN++ is one network, meta-learned through matrix "
        "steps, "
        "which its inner loop or one matrix product encodes. Making that matrix takes "
        f"{1e3 * findings['seconds_to_make_the_matrix']:.0f} ms, once for all images:\n\n"
        + table(header, rows)
    )


def block_name(row: dict[str, Any]) -> str:
    chunk = f"{row['globes'] // row['chunks']:,} globes"
    name = chunk if row["chunks"] == 1 else f"{row['chunks']} × {chunk} in a shard"
    return f"{name}, {row['grid'][0]} × {row['grid'][1]}" if "grid" in row else name


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def with_results(page: Path, tables: str) -> str:
    """A page's text with new tables between its marks."""
    before, rest = page.read_text().split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{tables}\n{END}{after}"


def from_docs(text: str) -> str:
    """Links as a page in docs has them."""
    return text.replace("](benchmarks/", "](../benchmarks/").replace("](docs/", "](")


def main() -> None:
    rest = [
        target_rmse(), model_size(), coding_stages(), train_your_own(), fitting(), shipped_model(),
    ]  # fmt: skip
    pages = {
        README: with_results(README, "\n".join([bounds_summary(), throughput()])),
        MEASURED: with_results(MEASURED, from_docs("\n".join([*rest, media()]))),
        COMPARISON: comparison_page(),
        MEDIA_PAGE: media_page(),
        ARCHIVES: with_results(ARCHIVES, archive_scale()),
        MODELS_PAGE: models_page(),
        REPRODUCE: with_results(REPRODUCE, reproduction()),
        SCIENCE: with_results(SCIENCE, science_tables(load("science"))),
    }
    if "--check" in sys.argv:
        old = [page.name for page, content in pages.items() if page.read_text() != content]
        sys.exit(f"{', '.join(old)}: run python benchmarks/tables.py" if old else None)
    for page, content in pages.items():
        page.write_text(content)


if __name__ == "__main__":
    main()
