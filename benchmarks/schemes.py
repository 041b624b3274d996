"""Which scheme is worth its place: what chunks take by each, and by the best of the others.

Every way that the encoder knows to store a chunk, with nothing ruled out by samples, on coarse and
fine grids, with and without the shipped model. A scheme that is nowhere 2 % smaller than the best
of the others is not worth its format.

    COINPP_DATA=... python benchmarks/schemes.py     # half an hour
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from common import climate, open_variable, write_result
from hostile import hostile_fields, targets
from native import FIELDS

from coinpp_xr import COINppCodec, choice
from coinpp_xr import chunk as chunk_module
from coinpp_xr.bitstream import Payload, Tag, pack_lossless
from coinpp_xr.lattice import Bound, bound_for_rmse
from coinpp_xr.ways import Chunk

Sizes = dict[str, int]
GLOBES = 256  # of 46 × 90
TARGETS = (0.5, 1.0, 1.5)
# More of a field would only take longer.
MOST_FIELDS = 24


def under_a_bound(chunk: Chunk, bound: Bound) -> Iterator[bytes | None]:
    """A payload per scheme."""
    yield choice._pyramid(chunk, bound)
    for model in choice._teachers(chunk):
        yield choice._alone_from(chunk, bound, model)
    # More bits than these are spent on noise, which no base foresees.
    bits = choice._NOISY * float(chunk.fields.valid.sum())
    for way, rmse, _ in choice._bases(chunk, bound, bits):
        yield choice._with_base(chunk, bound, way, rmse)


def for_an_rmse(chunk: Chunk, target: float) -> Iterator[bytes | None]:
    """A payload per scheme."""
    ways = [chunk.of_latents(), chunk.of_grid(target) if chunk.suits_transforms else None]
    for way in ways:
        quantized = None if way is None else way.trial.meet(target)
        if way is not None and quantized is not None:
            yield way.payload(quantized)
    fields = chunk.fields
    bound = bound_for_rmse(fields, target, fields.mean_squared_error)
    yield None if bound is None else choice._alone(chunk, bound)
    yield choice._of_patterns(chunk, target, chunk.values.nbytes)


def name_of(payload: bytes) -> str:
    parsed = Payload.unpack(payload)
    name = parsed.kind.name.lower().replace("_", " ")
    on_top = parsed.kind.has_coefficients and Tag.RESIDUAL in parsed.sections
    return f"{name} + residual" if on_top else name


def sizes(values: npt.NDArray[Any], model: str, **goal: float) -> Sizes:
    """Bytes by scheme, and without loss."""
    found: Sizes = {}

    def collect(chunk: Chunk, wanted: Any) -> bytes | None:
        schemes = under_a_bound if isinstance(wanted, Bound) else for_an_rmse
        payloads = [payload for payload in schemes(chunk, wanted) if payload is not None]
        for payload in payloads:
            name = name_of(payload)
            found[name] = min(len(payload), found.get(name, len(payload)))
        return min(payloads, key=len, default=None)

    with (
        mock.patch.object(chunk_module, "smallest_for_bound", collect),
        mock.patch.object(chunk_module, "smallest_for_rmse", collect),
    ):
        COINppCodec(model, effort="best", **goal).encode(values)
    found["lossless"] = len(pack_lossless(values))
    return found


def cases() -> Iterator[tuple[str, npt.NDArray[Any], str, dict[str, float]]]:
    """Label, values, model and goal."""
    simulated = open_variable(climate("gcm_6hourly_test_46x90.nc"))[:GLOBES].values
    analysed = open_variable(climate("era5_t2m_46x90.nc")).values
    for label, values in (("simulated t2m 46 × 90", simulated), ("ERA5 t2m 46 × 90", analysed)):
        for model in ("t2m-46x90", "universal"):
            for target in TARGETS:
                yield f"{label}, model {model}", values, model, {"target_rmse": target}
                yield f"{label}, model {model}", values, model, {"max_error": target}
    for name, (values, latitude, _) in hostile_fields().items():
        for target in targets(values, latitude).values():
            yield name, values, "universal", {"target_rmse": target}
    for field in FIELDS:
        if field.group == "globes":
            continue
        values = field.chunks()[0].values
        values = values.reshape(-1, *values.shape[-2:])[:MOST_FIELDS]
        for bound in field.bounds[1:]:
            yield field.label, values, "universal", {"max_error": bound}
        yield field.label, values, "universal", {"target_rmse": field.bounds[-1]}


def worth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every scheme: how often it is the smallest, and by how much the others are larger."""
    lines = []
    for name in sorted({name for row in rows for name in row["nbytes"]}):
        times = []
        for row in rows:
            others = [size for other, size in row["nbytes"].items() if other != name]
            own = row["nbytes"].get(name)
            if own is not None and others and min(others) > own:
                times.append(min(others) / own)
        lines.append(
            {
                "scheme": name,
                "cases": sum(name in row["nbytes"] for row in rows),
                "smallest": len(times),
                "smaller_by_2_percent": sum(t >= 1.02 for t in times),
                "most": round(max(times, default=1.0), 4),
                "where_smallest": round(exp(sum(map(log, times)) / max(len(times), 1)), 4),
            }
        )
    return lines


def main() -> None:
    rows = []
    for label, values, model, goal in cases():
        row = {
            "case": label, "shape": list(values.shape), **goal,
            "nbytes": sizes(np.ascontiguousarray(values, dtype=np.float32), model, **goal),
        }  # fmt: skip
        print(row, flush=True)
        rows.append(row)
    write_result("schemes", {"schemes": worth(rows), "cases": rows})


if __name__ == "__main__":
    main()
