"""Fields without loss: bytes and seconds, beside other codecs.

Every variable of the native grids, of climate data and of the GRIB files, as float32. The others
are PCodec and Blosc on the floats, as users would; and, where values lie on steps, as if somebody
had told them which, PCodec, Blosc and JPEG XL on the whole numbers. Each with its best setting.

    COINPP_DATA=... python benchmarks/lossless.py     # a quarter of an hour
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from math import exp, log, prod
from typing import Any

import imagecodecs
import numpy as np
import xarray as xr
from common import data_file, seconds_of, write_result
from numcodecs import Blosc
from pcodec import ChunkConfig, standalone

from coinpp_xr import COINppCodec
from coinpp_xr.bitstream import Payload
from coinpp_xr.step_search import find_steps

GRIB = ("era5-2mt-2019-03-uk", "era5-levels-members", "regular_gg_sfc", "alternate-scanning")
EFFORTS = ("fast", "default", "best")
# Of longer sequences, and of levels one after the other, so many fields.
MOST_FIELDS = 96
FEWEST_CELLS, FEWEST_VALUES = 10_000, 256
# Times of smaller arrays are those of what is done once; each is taken so often.
FEWEST_TIMED, REPEATED = 100_000, 3
SZ3 = "SZ3 at half a step"


def variables() -> Iterator[tuple[str, np.ndarray]]:
    """Names and values, shape (..., n_lat, n_lon)."""
    folders = (data_file(name) for name in ("native", "climate"))
    for path in (path for folder in folders for path in sorted(folder.glob("*.nc"))):
        with xr.open_dataset(path, engine="netcdf4", decode_times=False) as ds:
            for name, array in ds.data_vars.items():
                if array.ndim >= 2 and array.shape[-2] > 1 and array.dtype.kind == "f":
                    yield f"{path.stem} {name}", array.values
    for stem in GRIB:
        how: dict[str, Any] = {"backend_kwargs": {"indexpath": ""}, "decode_times": False}
        with xr.open_dataset(data_file(f"grib/{stem}.grib"), engine="cfgrib", **how) as ds:
            for name, array in ds.data_vars.items():
                yield f"{stem} {name}", array.values


def numbers_of(fields: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Whole numbers of all fields, from the lowest on, gaps zero; and the least of their steps."""
    found, steps, least = np.zeros(fields.shape, np.int64), None, np.inf
    for field, own in zip(fields, found, strict=True):
        valid = np.isfinite(field)
        if valid.any():
            steps = find_steps(field[valid], [] if steps is None else [steps])
            if steps is None:
                return None
            least = min(least, steps.size)
            numbers = steps.exactly(field[valid])[0]
            own[valid] = numbers - numbers.min() + 1
    return found.astype(np.uint16 if found.max() < 1 << 16 else np.uint32), least


def seconds_of_sz3(fields: np.ndarray, step: float) -> list[float]:
    """Of encoding and decoding, gaps filled."""
    filled = np.where(np.isfinite(fields), fields, np.nanmean(fields)).astype(np.float32)

    def encode() -> bytes:
        return imagecodecs.sz3_encode(filled, mode="abs", abs=0.49 * step)

    data = encode()
    shape, dtype = filled.shape, filled.dtype
    works = encode, lambda: imagecodecs.sz3_decode(data, shape=shape, dtype=dtype)
    return [round(seconds_of(work, REPEATED), 4) for work in works]


def others(fields: np.ndarray, numbers: np.ndarray | None) -> dict[str, Callable[[], int]]:
    """What each of the others takes, by name."""

    def pcodec(values: np.ndarray) -> int:
        flat = np.ascontiguousarray(values).reshape(-1)
        return len(standalone.simple_compress(flat, ChunkConfig(compression_level=12)))

    def blosc(values: np.ndarray) -> int:
        ways = (Blosc("zstd", 9, shuffle) for shuffle in (Blosc.SHUFFLE, Blosc.BITSHUFFLE))
        return min(len(way.encode(values)) for way in ways)

    def jpeg_xl(values: np.ndarray) -> int:
        if values.dtype != np.uint16:
            return values.nbytes
        return sum(len(imagecodecs.jpegxl_encode(v, lossless=True, effort=9)) for v in values)

    on_floats = {
        "PCodec": lambda: pcodec(fields),
        "Blosc": lambda: blosc(np.ascontiguousarray(fields)),
    }
    if numbers is None:
        return on_floats
    return on_floats | {
        "PCodec, whole numbers": lambda: pcodec(numbers),
        "Blosc, whole numbers": lambda: blosc(numbers),
        "JPEG XL, whole numbers": lambda: jpeg_xl(numbers),
    }


def row(name: str, values: np.ndarray, found_numbers: Any) -> dict[str, Any]:
    """Bytes and seconds of one variable."""
    numbers, step = found_numbers or (None, 0.0)
    fields = values.reshape(-1, *values.shape[-2:])
    found: dict[str, Any] = {
        "name": name, "quantized": numbers is not None, "shape": list(values.shape),
        "nbytes": values.nbytes, "bytes": {}, "seconds": {}, "kinds": {},
    }  # fmt: skip
    for effort in EFFORTS:
        codec = COINppCodec(model="none", lossless=True, effort=effort)
        payload = codec.encode(values)
        if codec.decode(payload).tobytes() != values.tobytes():
            raise RuntimeError(f"{name} did not come back")
        found["bytes"][effort] = len(payload)
        found["seconds"][effort] = [
            round(seconds_of(partial(work, data), 1 if effort == "best" else REPEATED), 3)
            for work, data in ((codec.encode, values), (codec.decode, payload))
        ]
        found["kinds"][effort] = Payload.unpack(payload).kind.name.lower()
    if numbers is not None:
        found["seconds"][SZ3] = seconds_of_sz3(fields, step)
    for peer, size in others(fields, numbers).items():
        started = time.perf_counter()
        found["bytes"][peer] = size()
        found["seconds"][peer] = round(time.perf_counter() - started, 3)
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means, and the least, of what others take over what we take."""

    def ratios(effort: str, peers: list[str]) -> list[float]:
        return [min(r["bytes"][p] for p in peers) / r["bytes"][effort] for r in rows]

    peers = [name for name in rows[0]["bytes"] if name not in EFFORTS]
    found: dict[str, Any] = {}
    for effort in EFFORTS:
        for told, some in (("PCodec", ["PCodec"]), ("best of all others", peers)):
            own = ratios(effort, some)
            mean = exp(sum(map(log, own)) / len(own))
            found[f"{effort} beside {told}"] = {"mean": round(mean, 3), "least": round(min(own), 3)}
    timed = [r for r in rows if SZ3 in r["seconds"] and prod(r["shape"]) >= FEWEST_TIMED]
    for effort in EFFORTS if timed else ():
        times = [
            [
                log(own / sz3)
                for own, sz3 in zip(r["seconds"][effort], r["seconds"][SZ3], strict=True)
            ]
            for r in timed
        ]
        means = [round(exp(sum(each) / len(each)), 2) for each in zip(*times, strict=True)]
        found[f"{effort}, seconds beside {SZ3}"] = {"encoding": means[0], "decoding": means[1]}
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    for effort in EFFORTS:  # compiles
        COINppCodec(model="none", lossless=True, effort=effort).encode(np.eye(80, dtype="i2"))
    rows = []
    for name, values in variables():
        others_of_time = prod(values.shape[1:-2]) if values.ndim > 2 else 0
        short = values[: max(1, MOST_FIELDS // others_of_time)] if others_of_time else values
        fields = short.astype(np.float32)
        numbers = numbers_of(fields.reshape(-1, *fields.shape[-2:]))
        if fields.size < FEWEST_CELLS or len(np.unique(fields)) < FEWEST_VALUES:
            continue
        rows.append(row(name, fields, numbers))
        print(name, rows[-1]["bytes"], flush=True)
    quantized = [one for one in rows if one["quantized"]]
    never = [one for one in rows if not one["quantized"]]
    write_result(
        "lossless",
        {"rows": rows, "summary": summary(quantized), "summary_of_never_quantized": summary(never)},
    )


if __name__ == "__main__":
    main()
