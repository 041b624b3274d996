"""Ten million values without loss: packed in every way there is, with gaps, zeros and strangers.

Every field is smooth, rough, spiky or made of copies, packed by GRIB, NetCDF, decimals, twice, or
not at all, in a random type and byte order; some cells are NaN with payloads, infinite, -0.0 or
beside the steps. Whatever comes back other than bit for bit is counted.

    python benchmarks/lossless_soak.py [--values 10000000] [--seed 0]
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from typing import Any

import numpy as np
from common import write_result

from coinpp_xr import COINppCodec
from coinpp_xr.bitstream import Payload

DTYPES = ("<f4", ">f4", "<f8", ">f8", "<f2", "<i2", ">i4", "u1", "<u2", "<i8")
SHAPES = ((1, 40, 60), (4, 46, 90), (2, 3, 30, 44), (90, 61), (12, 20, 33), (1, 181, 360))


def whole_numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Something like weather."""
    size = 10 ** rng.uniform(0.5, 4.3)
    noise = rng.standard_normal(shape)
    match int(rng.integers(5)):
        case 0:
            field = noise.cumsum(-1).cumsum(-2)
        case 1:
            field = noise
        case 2:  # rain
            field = np.maximum(noise.cumsum(-1), 0) ** 2
        case 3:  # the nearest of fewer cells
            coarse = noise[..., ::3].repeat(3, axis=-1)
            field = coarse[..., : shape[-1]]
        case _:  # masks and categories
            field = np.where(noise > rng.uniform(-1, 1), 1.0, np.round(noise))
    return np.rint(size * field / max(float(np.abs(field).max()), 1e-9))


def packed(rng: np.random.Generator, n: np.ndarray) -> np.ndarray:
    """Values of whole numbers, by arithmetic that somebody uses."""
    scale, offset = (
        10 ** rng.uniform(-9, 4),
        float(rng.choice([0, 1, -1])) * 10 ** rng.uniform(-3, 5),
    )
    match int(rng.integers(8)):
        case 0:
            return n * scale + offset
        case 1:
            return n.astype("f4") * np.float32(scale) + np.float32(offset)
        case 2:
            reference = float(np.float32(offset))
            return (n * 2.0 ** int(rng.integers(-12, 6)) + reference) * 10.0 ** -int(
                rng.integers(0, 5)
            )
        case 3:
            return (n * 2.0 ** int(rng.integers(-12, 6)) + float(np.float32(offset))) / 10.0**2
        case 4:
            return np.round(n * scale, int(rng.integers(0, 6)))
        case 5:
            unpacked = n * 2.0**-9 + 271.3
            low, high = unpacked.min(), unpacked.max()
            step = max((high - low) / 65532, 1e-9)
            return np.rint((unpacked - low) / step) * step + low
        case 6:
            return n * np.random.default_rng(int(n.size)).standard_normal()
        case _:
            return n + rng.standard_normal(n.shape)  # never quantized


def array(rng: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(DTYPES[int(rng.integers(len(DTYPES)))])
    n = whole_numbers(rng, SHAPES[int(rng.integers(len(SHAPES)))])
    with np.errstate(all="ignore"):
        if dtype.kind != "f":
            low = np.iinfo(dtype).min
            values = (n - (n.min() if low == 0 else 0)).astype(dtype)
            if rng.random() < 0.4:
                values[..., 2:5, 3:9] = low
            return values
        values = packed(rng, n).astype(dtype)
        if rng.random() < 0.5:
            chosen = rng.random(values.shape) < rng.choice([0.001, 0.1])
            values[chosen] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 0.1234567])
        if rng.random() < 0.3:
            values[..., 1:4, 2:9] = np.nan
        if rng.random() < 0.2:  # a NaN that carries something
            own = np.ascontiguousarray(values)
            bits = own.view(f"u{dtype.itemsize}")
            bits[..., 0, 0] = np.array(np.nan, dtype).view(bits.dtype) | 1
            values = own
    return values if rng.random() < 0.8 else np.asfortranarray(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=10**7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds: Counter[str] = Counter()
    found: dict[str, Any] = {"seed": options.seed, "values": 0, "arrays": 0, "wrong": []}
    started = time.monotonic()
    while found["values"] < options.values:
        rng = np.random.default_rng([options.seed, found["arrays"]])
        values = array(rng)
        effort = str(rng.choice(["fast", "default", "best"]))
        codec = COINppCodec(model="none", lossless=True, effort=effort)
        payload = codec.encode(values)
        back = codec.decode(payload)
        kinds[f"{Payload.unpack(payload).kind.name.lower()}, {values.dtype.kind}"] += 1
        if back.dtype != values.dtype or back.tobytes() != values.tobytes():
            found["wrong"].append(found["arrays"])
        found["values"] += values.size
        found["arrays"] += 1
    seconds = round(time.monotonic() - started, 1)
    write_result(
        "lossless_soak", {**found, "seconds": seconds, "kinds": dict(sorted(kinds.items()))}
    )
    print(found, kinds, seconds)


if __name__ == "__main__":
    main()
