"""A hundred million values under bounds, real and hostile: none may come back further away.

    COINPP_DATA=… python benchmarks/soak.py

Without COINPP_DATA there is less real data and more of the other kinds. Every chunk is encoded and
decoded in a process of its own. Memory is measured in two ways:

- ``first_growth_bytes``: by how much the process's resident memory grows, at most, while the chunk
  is encoded after a few cells on another grid, so that the model is loaded and everything compiled.
  Tables of the grid are part of it, and of the model on that grid; they are kept for other chunks.
- ``encode_peak_bytes``: the most that is allocated at a time (as tracemalloc sees it: every
  numpy array) while the same chunk is encoded a second time. Of real chunks only,
  because it takes time.

Seconds are those of the processor, in one thread, for the first chunk on its grid: making the
tables is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COINPP_XR_THREADS", "1")

import numpy as np
from common import climate, open_variable, write_result

from coinpp_xr import COINppCodec
from coinpp_xr.bitstream import Payload

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

from bound_cases import (  # noqa: E402
    BY_SPACING,
    BY_SPREAD,
    KINDS,
    RELATIVE,
    Case,
    broken,
    largest_share,
)

VALUES = 100_000_000
MODEL = "t2m-46x90"
# Smaller chunks take less memory than the state of the coder, about 15 MB, whatever they hold.
LARGE = 1_000_000
# Of synthetic chunks: first one of every kind on a small grid, then all others on a large one.
GLOBES, GRID = (24,), (72, 144)
LARGE_GLOBES, LARGE_GRID = (4,), (400, 720)
# Bound, type and effort of one synthetic chunk after the other.
_BOUNDS = (
    (BY_SPREAD, -2.0),
    (RELATIVE, 1e-3),
    (BY_SPREAD, -5.0),
    (BY_SPACING, 3.7),
    (RELATIVE, 0.1),
)
_DTYPES = ("<f4", ">f4", "<f8", "<f2", "<f4", ">f8", "<f4")
_GAPS = ("none", "land", "cells", "zeros", "none", "globes")
_EFFORTS = ("default", "default", "fast")


@dataclass(frozen=True)
class Chunk:
    """What to encode: its name, a bound, an effort, and how to get the values."""

    name: str
    real: bool
    codec: Callable[[np.ndarray], COINppCodec]
    bound: Callable[[np.ndarray], dict[str, float]]
    values: Callable[[], np.ndarray]


def _real(
    name: str, values: Callable[[], np.ndarray], effort: str = "default", **bound: float
) -> Chunk:
    return Chunk(
        f"{name} {effort}", True, lambda _: COINppCodec(MODEL, effort=effort, **bound),
        lambda _: bound, values,
    )  # fmt: skip


def _of_file(
    file: str, variable: str, globes: slice = slice(None), dtype: str = "<f4"
) -> Callable[[], np.ndarray]:
    return lambda: open_variable(climate(file), variable).to_numpy()[globes].astype(dtype)


def real_chunks() -> Iterator[Chunk]:
    example = ROOT / "examples" / "era5_t2m_46x90.nc"
    for effort in ("default", "fast"):
        yield _real(
            "ERA5 t2m 46x90", lambda: open_variable(example).to_numpy(), effort, max_error=0.5
        )
    if "COINPP_DATA" not in os.environ:
        return
    fine, simulated = "era5_snapshots_1deg.nc", "gcm_6hourly_test_46x90.nc"
    yield _real("ERA5 t2m", _of_file(fine, "t2m"), max_error=0.5)
    yield _real("ERA5 u10", _of_file(fine, "u10"), max_error=0.1)
    yield _real("ERA5 v10", _of_file(fine, "v10", dtype="<f8"), "fast", max_error_relative=0.01)
    yield _real("ERA5 msl", _of_file(fine, "msl"), "fast", max_error=10.0)
    for start, dtype, effort, bound in (
        (0, "<f4", "default", {"max_error": 0.5}),
        (240, ">f8", "fast", {"max_error": 0.01}),
        (480, "<f4", "default", {"max_error_relative": 1e-3}),
    ):
        globes = slice(start, start + 240)
        values = _of_file(simulated, "t2m", globes, dtype)
        yield _real(f"simulation t2m from {start}", values, effort, **bound)


def synthetic_chunks() -> Iterator[Chunk]:
    """Without end."""
    settings = zip(cycle(KINDS), cycle(_BOUNDS), cycle(_DTYPES), cycle(_GAPS), cycle(_EFFORTS))
    for number, (kind, (by, amount), dtype, gaps, effort) in enumerate(settings):
        small = number < len(KINDS)
        globes, grid = (GLOBES, GRID) if small else (LARGE_GLOBES, LARGE_GRID)
        case = Case(
            kind, globes, grid, dtype, gaps, "C", by, amount, effort, model=number % 2 == 0,
            coordinates=False, time_axis=0, seed=number,
        )  # fmt: skip
        name = f"{kind}, gaps: {gaps}, {effort}" + ("" if small else ", large grid")
        yield Chunk(name, False, case.codec, case.bound, case.values)


def chunks() -> Iterator[Chunk]:
    yield from real_chunks()
    yield from synthetic_chunks()


# ---- one chunk -----------------------------------------------------------------------------------


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class PeakMemory:
    """The most resident memory while a block runs, by looking every millisecond."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = resident_bytes()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self.peak = max(self.peak, resident_bytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()


def traced_peak(work: Callable[[], object]) -> int:
    """The most bytes that are allocated at a time."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


def measure(chunk: Chunk) -> dict[str, Any]:
    values = chunk.values()
    bound, codec = chunk.bound(values), chunk.codec(values)
    few = np.linspace(230, 300, 2 * 8 * 12).astype(np.float32).reshape(2, 8, 12)
    codec.decode(codec.encode(few))
    with PeakMemory() as memory:
        start = time.process_time()
        payload = codec.encode(values)
        encoded = time.process_time()
    decoding = time.process_time()
    decoded = codec.decode(payload)
    done = time.process_time()
    growth = memory.peak - memory.before
    peak = traced_peak(lambda: codec.encode(values)) if chunk.real else None
    return {
        "chunk": chunk.name, "real": chunk.real, "shape": values.shape, "dtype": values.dtype.str,
        **bound, "kind": Payload.unpack(payload).kind.name, "values": values.size,
        "chunk_bytes": values.nbytes, "payload_bytes": len(payload),
        "broken": broken(values, decoded, bound),
        "share_of_bound": largest_share(values, decoded, bound),
        "encode_seconds": round(encoded - start, 3), "decode_seconds": round(done - decoding, 3),
        "first_growth_bytes": growth, "encode_peak_bytes": peak,
        "encode_peak_per_chunk_byte": peak and round(peak / values.nbytes, 1),
    }  # fmt: skip


# ---- all of them ---------------------------------------------------------------------------------


def in_own_process(number: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", str(number)]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=VALUES)
    parser.add_argument("--only", type=int, help="measure one chunk and print what came of it")
    options = parser.parse_args()
    if options.only is not None:
        print(json.dumps(measure(next(islice(chunks(), options.only, None)))))
        return
    rows: list[dict[str, Any]] = []
    kinds = sum(1 for _ in real_chunks()) + len(KINDS)
    while sum(row["values"] for row in rows) < options.values or len(rows) < kinds:
        rows.append(in_own_process(len(rows)))
        print(json.dumps(rows[-1]), flush=True)
    seconds = {name: sum(row[f"{name}_seconds"] for row in rows) for name in ("encode", "decode")}
    megabytes = sum(row["chunk_bytes"] for row in rows) / 1e6
    violations = [row["chunk"] for row in rows if row["broken"]]
    result = {
        "values": sum(row["values"] for row in rows),
        "values_of_real_data": sum(row["values"] for row in rows if row["real"]),
        "chunks": len(rows),
        "violations": violations,
        "threads": int(os.environ["COINPP_XR_THREADS"]),
        "encode_mb_per_s": round(megabytes / seconds["encode"], 2),
        "decode_mb_per_s": round(megabytes / seconds["decode"], 2),
        "most_encode_peak_per_chunk_byte": max(
            row["encode_peak_per_chunk_byte"]
            for row in rows
            if row["encode_peak_bytes"] and row["chunk_bytes"] >= LARGE
        ),
        "most_first_growth_bytes": max(row["first_growth_bytes"] for row in rows),
        "rows": rows,
    }
    write_result("soak", result)
    if violations:
        sys.exit(f"bounds were broken: {violations}")


if __name__ == "__main__":
    main()
