"""What the benchmarks of images, volumes and sound share: peers through ffmpeg, curves, results.

Pictures and sound are coded by x265, SVT-AV1, LAME and libopus through PyAV. Every peer's curve of
rate and PSNR is kept in the result file, so that ``--ours-only`` measures this package again and
takes the peers from there, as long as neither the data nor a peer's version has changed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import imagecodecs
import numpy as np
from common import RESULTS, machine

# A setting's bytes and what comes back.
Coder = Callable[[float], tuple[float, np.ndarray]]
# Bytes and mean square error, from small to large.
Points = Iterable[tuple[float, float]]
Curve = list[tuple[float, float]]
OURS = "coinpp-xr"


def folder(name: str) -> Path:
    """Part of the data folder named by COINPP_DATA."""
    if "COINPP_DATA" not in os.environ:
        sys.exit(f"set COINPP_DATA to the folder with {name}/")
    return Path(os.environ["COINPP_DATA"]) / name


def mean_square_error(values: np.ndarray, decoded: np.ndarray) -> float:
    return float(np.mean((values.astype(np.float64) - decoded) ** 2))


def decibels(mse: float, peak: float) -> float:
    return float(-10 * np.log10(max(mse, 1e-12) / peak**2))


def points(values: np.ndarray, coder: Coder, settings: Iterable[float]) -> Points:
    for setting in settings:
        size, decoded = coder(setting)
        yield size, mean_square_error(values, decoded)


# ---- curves --------------------------------------------------------------------------------------


def at_rate(curve: Curve, rate: float) -> float | None:
    """PSNR between the two points around a rate, linear in its logarithm; None beyond them.

    This favours codecs of few settings: no file of exactly that size need exist.
    """
    if not curve or not curve[0][0] <= rate <= curve[-1][0]:
        return None
    bits, scores = np.array(curve).T
    return float(np.interp(np.log(rate), np.log(bits), scores))


def rate_at(curve: Curve, score: float) -> float | None:
    """Rate between the two points around a PSNR; None beyond them."""
    if not curve or not curve[0][1] <= score <= curve[-1][1]:
        return None
    bits, scores = np.array(curve).T
    return float(np.exp(np.interp(score, scores, np.log(bits))))


def rising(found: Curve) -> Curve:
    """Points that no smaller file reaches."""
    best: Curve = []
    for bits, score in sorted(found):
        if not best or score > best[-1][1]:
            if best and bits == best[-1][0]:
                best.pop()
            best.append((bits, score))
    return best


def envelope(ways: Sequence[Curve]) -> Curve:
    """One curve of all ways of a codec: at the rate of every point the PSNR of the best way."""
    ways = [rising(way) for way in ways]
    rates = {bits for way in ways for bits, _ in way}
    return rising(
        [
            (bits, round(max(s for way in ways if (s := at_rate(way, bits)) is not None), 3))
            for bits in rates
        ]
    )


# ---- results -------------------------------------------------------------------------------------


def published(dataset: str) -> dict[str, Curve]:
    """The COIN++ paper's points of a data set, by codec."""
    found: dict[str, Curve] = {}
    with (folder("paper") / "rd_points.csv").open() as file:
        for row in csv.DictReader(file):
            if row["dataset"] == dataset and row["variant"] in ("paper_curve", "baseline", "coin"):
                point = (round(float(row["bpp_or_kbps"]), 4), round(float(row["psnr_db"]), 2))
                found.setdefault(row["codec"], []).append(point)
    return {codec: sorted(curve) for codec, curve in found.items()}


def versions() -> dict[str, str]:
    """Of everything that encodes for others."""
    known = dict(part.rsplit("-", 1) for part in imagecodecs.version().split(", ") if "-" in part)
    names = ("libjpeg_turbo", "openjpeg", "libjxl", "libavif", "sz3", "sperr", "zfp")
    # PyAV's wheels pin their ffmpeg with x265, SVT-AV1, LAME and libopus.
    return {"imagecodecs": imagecodecs.__version__, "PyAV": av.__version__} | {
        name: known[name] for name in names if name in known
    }


def measure(
    name: str,
    data: str,
    items: dict[str, np.ndarray],
    rates: Sequence[float],
    ours: Callable[[np.ndarray, float], tuple[int, np.ndarray]],
    peers: Callable[[np.ndarray], dict[str, list[Points]]],
    *,
    paper: str,
    cells: Callable[[np.ndarray], int] = lambda values: values.size,
    peak: float = 1.0,
    unit: float = 1.0,
    rate_name: str = "bpp",
    more: Callable[[dict[str, Any]], dict[str, Any]] = lambda old: {},
) -> None:
    """Write ``results/NAME.json``: this package at the rates, its peers as curves, both compared.

    ``unit`` is what one bit per cell is in the rates' unit. Each of ``peers``' ways is followed
    until it takes one and a half times the highest rate.
    """
    path = RESULTS / f"{name}.json"
    digest = hashlib.sha256()
    for label, values in items.items():
        digest.update(f"{label} {values.shape} {values.dtype}".encode() + values.tobytes())
    about: dict[str, Any] = {"data_sha256": digest.hexdigest(), "versions": versions()}
    kept: dict[str, Any] = {}
    if "--ours-only" in sys.argv:
        kept = json.loads(path.read_text()) if path.exists() else {}
        if any(kept.get("peers", {}).get(key) != value for key, value in about.items()):
            sys.exit(f"{path.name} has other data or peers: run without --ours-only")
    here = machine()
    about["machine"] = kept["peers"]["machine"] if kept else here
    curves: dict[str, dict[str, Curve]] = kept["peers"]["curves"] if kept else {}
    own: dict[str, list[float]] = {}
    result = {"machine": here, "data": data, rate_name: list(rates), "rows": []}
    ending = {
        "ours": own,
        "published_by_the_paper": published(paper),
        "peers": {**about, "curves": curves},
    }

    def per_byte(values: np.ndarray) -> float:
        return 8 * unit / cells(values)

    if not kept:
        for label, values in items.items():
            curves[label] = {
                peer: envelope(
                    [_followed(way, per_byte(values), peak, 1.5 * rates[-1]) for way in ways]
                )
                for peer, ways in peers(values).items()
            }
            shown = {peer: at_rate(curve, rates[-1]) for peer, curve in curves[label].items()}
            print(label, {k: v and round(v, 2) for k, v in shown.items()}, flush=True)
        _write(path, result | ending)  # peers are there, whatever becomes of ours
    for label, values in items.items():
        own[label] = []
        for rate in rates:
            size, decoded = ours(values, rate)
            if size > np.ceil(rate / per_byte(values) - 1e-9):
                sys.exit(f"{label}: {size} bytes are more than a rate of {rate}")
            own[label].append(round(decibels(mean_square_error(values, decoded), peak), 3))
        print(label, own[label], flush=True)
    result["rows"] = rows(own, curves, rates, rate_name)
    _write(path, result | more(kept) | ending)


def _write(path: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1)
    # Numbers side by side.
    text = re.sub(r"\[[-\d.,\s]+\]", lambda found: " ".join(found[0].split()), text)
    path.write_text(text.replace("[ ", "[").replace(" ]", "]") + "\n")


def _followed(way: Points, per_byte: float, peak: float, most: float) -> Curve:
    found: Curve = []
    for size, mse in way:
        found.append((round(size * per_byte, 5), round(decibels(mse, peak), 3)))
        if found[-1][0] > most:
            break
    return found


def rows(
    own: dict[str, list[float]],
    curves: dict[str, dict[str, Curve]],
    rates: Sequence[float],
    rate_name: str,
) -> list[dict[str, Any]]:
    """Means per codec and rate; how many bits ours takes of a peer's at equal PSNR."""
    found = []
    for codec in (OURS, *next(iter(curves.values()))):
        for number, rate in enumerate(rates):
            scores, better, shares = [], 0, []
            for label, ours in own.items():
                if codec == OURS:
                    scores.append(ours[number])
                    continue
                curve = [(bits, score) for bits, score in curves[label][codec]]
                score = at_rate(curve, rate)
                if score is not None:
                    scores.append(score)
                    better += score > ours[number]
                bits = rate_at(curve, ours[number])
                if bits is not None:
                    shares.append(rate / bits)
            row = {"codec": codec, rate_name: rate, "items": len(scores)}
            row["psnr_db"] = round(float(np.mean(scores)), 3) if scores else None
            if codec != OURS:
                row["better_than_ours_on"] = better
                row["our_share_of_its_bits"] = (
                    round(float(np.exp(np.mean(np.log(shares)))), 4) if shares else None
                )
                row["shares"] = len(shares)
            found.append(row)
    return found
