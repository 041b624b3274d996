"""Damage payloads and decode them: nothing but a clear refusal may come of it.

    python fuzz/run.py --suite damaged --payloads 100000
    python fuzz/run.py --suite repaired --payloads 100000 --seconds 600 --seed 1

``damaged`` changes the bytes of payloads: each must be refused. ``repaired`` changes them and
corrects the checksum, so that everything behind it is reached: whatever comes of it, it must
neither crash nor hang, raise nothing but the two errors that the package promises, and take no
more memory than the array that the payload declares would explain.

Inputs that reach a new place in the package are kept and damaged further. Decoding runs in a
process of its own, watched by another: what kills or blocks it is found, too. The first finding
ends the run with exit code 1; the payload is in fuzz/findings/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import multiprocessing
import os
import re
import resource
import struct
import sys
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COINPP_XR_THREADS", "1")

import numpy as np
from corpus import Seed, find_model, seeds
from mutations import damaged, repaired

from coinpp_xr import CorruptPayloadError, ModelNotFoundError
from coinpp_xr.bitstream import Payload
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.settings import config

HERE = Path(__file__).parent
FINDINGS = HERE / "findings"

SUITES = {"damaged": damaged, "repaired": repaired}
# Arrays beyond this are refused: decoding may take time in proportion to what it returns.
MOST_BYTES = 1 << 20
# What decoding may take: so many times the declared array, the payload, and a constant for the
# state of the coders, which does not depend on the payload.
PER_ARRAY_BYTE, PER_PAYLOAD_BYTE, CONSTANT_BYTES = 64, 64, 256 << 20
# Generous: measuring memory is slow, and so is a busy machine. Bytes that are each a plane of their
# own are the slowest ones.
SECONDS_PER_ARRAY_BYTE, SECONDS_PER_PAYLOAD = 2.5e-4, 30.0
# Address space on top of what is there before: a runaway must not take the machine with it.
_SPARE_BYTES = 8 << 30
_MOST_KEPT = 2000
_WATCH_EVERY = 0.2

Decode = Callable[..., Any]


@dataclass
class Summary:
    """What came of a run."""

    suite: str
    seed: int
    payloads: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    places: int = 0
    kept: int = 0
    most_bytes: int = 0
    most_bytes_declared: int = 0
    most_seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


class Finding(Exception):
    """Decoding did what it must not do."""


# ---- one payload ---------------------------------------------------------------------------------


def judge(payload: bytes, grid: Any, *, valid: bool | None, decode: Decode = decode_chunk) -> Any:
    """Decode a payload; what it came to, and at which place in the package.

    Parameters
    ----------
    valid : bool or None
        Whether the payload must be decoded (True) or refused (False), if that is known.

    Raises
    ------
    Finding
    """
    try:
        decoded = decode(payload, find_model, grid=grid)
    except (CorruptPayloadError, ModelNotFoundError) as error:
        if valid:
            raise Finding(f"refused a valid payload: {error}") from error
        if "\n" in str(error):
            raise Finding(f"a message of several lines: {error!r}") from error
        return type(error).__name__, _place_of(error)
    except MemoryError as error:
        raise Finding("takes all memory") from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        raise Finding(f"{type(error).__name__} in {place}: {error}") from error
    if valid is False:
        raise Finding("decoded a damaged payload")
    header = Payload.unpack(payload)
    if (decoded.shape, decoded.dtype) != (header.shape, header.dtype):
        raise Finding(f"returned {decoded.dtype} {decoded.shape}, against its header")
    return "array", (header.kind, header.dtype.str, tuple(header.sections), header.fortran)


def _place_of(error: Exception) -> tuple[Any, ...]:
    frames = traceback.extract_tb(error.__traceback__)
    package = [(f.filename, f.lineno) for f in frames if "coinpp_xr" in f.filename]
    return (*package, re.sub(r"\d+", "N", str(error))[:40])


def declared_bytes(payload: bytes) -> int:
    """Of the array that a payload claims to hold; 0 if it does not say, or is refused for it."""
    try:
        nbytes = Payload.unpack(payload).nbytes
    except CorruptPayloadError:
        return 0
    return nbytes if nbytes <= MOST_BYTES else 0


def allowed_bytes(payload: bytes) -> int:
    return (
        PER_ARRAY_BYTE * declared_bytes(payload) + PER_PAYLOAD_BYTE * len(payload) + CONSTANT_BYTES
    )


def allowed_seconds(payload: bytes) -> float:
    return SECONDS_PER_ARRAY_BYTE * declared_bytes(payload) + SECONDS_PER_PAYLOAD


# ---- many payloads -------------------------------------------------------------------------------


class Window:
    """Memory that both processes see: which payload is being decoded, and since when."""

    _HEAD = struct.Struct("<qqd")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 << 20)

    def show(self, count: int, payload: bytes) -> None:
        self._memory[self._HEAD.size : self._HEAD.size + len(payload)] = payload
        self._HEAD.pack_into(self._memory, 0, count, len(payload), time.monotonic())

    def look(self) -> tuple[int, bytes, float]:
        """Payloads so far, the last one, and for how many seconds it has been decoded."""
        count, length, since = self._HEAD.unpack_from(self._memory)
        payload = self._memory[self._HEAD.size : self._HEAD.size + length]
        return count, payload, time.monotonic() - since if since else 0.0


class Fuzzer:
    """Damages payloads, decodes them, and keeps those that lead somewhere new."""

    def __init__(self, suite: str, seed: int, window: Window, keep_going: bool) -> None:
        self.summary = Summary(suite, seed)
        self._damage, self._window, self._keep_going = SUITES[suite], window, keep_going
        self._rng = np.random.default_rng(seed)
        self._pool: list[Seed] = list(seeds())
        self._valid = {one.payload for one in self._pool}
        self._places: set[Any] = set()
        self._seen: set[str] = set()

    def run(self, payloads: int, seconds: float) -> Summary:
        for one in seeds():  # also compiles, and fills caches
            try:
                judge(one.payload, one.grid, valid=True)
            except Finding as finding:
                self._note(one.payload, str(finding))
                return self.summary
        start = time.monotonic()
        tracemalloc.start()
        while self.summary.payloads < payloads and time.monotonic() - start < seconds:
            self._try(*self._next())
            if self.summary.findings and not self._keep_going:
                break
        tracemalloc.stop()
        self.summary.seconds = round(time.monotonic() - start, 1)
        self.summary.places = len(self._places)
        self.summary.kept = len(self._pool) - len(seeds())
        return self.summary

    def _next(self) -> Seed:
        rng, first = self._rng, len(seeds())
        # What leads somewhere new is as good a start as all valid payloads together.
        new = len(self._pool) > first and rng.random() < 0.5
        one = self._pool[int(rng.integers(first if new else 0, len(self._pool) if new else first))]
        other = self._pool[int(rng.integers(len(self._pool)))]
        return Seed(self._damage(rng, one.payload, other.payload), one.grid)

    def _try(self, payload: bytes, grid: Any) -> None:
        summary = self.summary
        summary.payloads += 1
        self._window.show(summary.payloads, payload)
        tracemalloc.reset_peak()
        before, start = tracemalloc.get_traced_memory()[0], time.monotonic()
        try:
            if payload in self._valid:
                outcome, place = "as it was", None
            else:
                refused = False if summary.suite == "damaged" else None
                outcome, place = judge(payload, grid, valid=refused)
            taken = tracemalloc.get_traced_memory()[1] - before
            if taken > allowed_bytes(payload):
                raise Finding(
                    f"takes {taken:,} bytes for {declared_bytes(payload):,} declared by "
                    f"{len(payload):,}"
                )
        except Finding as finding:
            self._note(payload, str(finding))
            return
        summary.outcomes[outcome] = summary.outcomes.get(outcome, 0) + 1
        summary.most_seconds = max(summary.most_seconds, round(time.monotonic() - start, 3))
        if taken > summary.most_bytes:
            summary.most_bytes, summary.most_bytes_declared = taken, declared_bytes(payload)
        if place is not None and place not in self._places:
            self._places.add(place)
            if len(self._pool) < _MOST_KEPT:
                self._pool.append(Seed(payload, grid))

    def _note(self, payload: bytes, what: str) -> None:
        alike = re.sub(r"\d+", "N", what) if "takes" in what else what
        if alike not in self._seen:
            self._seen.add(alike)
            self.summary.findings.append(save_finding(payload, what))


def save_finding(payload: bytes, what: str) -> str:
    """Write a payload that shows something wrong, with a line about it."""
    FINDINGS.mkdir(exist_ok=True)
    name = hashlib.sha256(payload).hexdigest()[:16]
    (FINDINGS / f"{name}.cnpp").write_bytes(payload)
    (FINDINGS / f"{name}.txt").write_text(what + "\n")
    return f"{what} [fuzz/findings/{name}.cnpp]"


# ---- two processes -------------------------------------------------------------------------------


def _work(options: argparse.Namespace, window: Window, pipe: Connection) -> None:
    warnings.simplefilter("ignore")  # numbers of damaged payloads overflow
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit + _SPARE_BYTES, resource.RLIM_INFINITY))
    with config.set(max_decode_bytes=MOST_BYTES):
        fuzzer = Fuzzer(options.suite, options.seed, window, options.keep_going)
        pipe.send(fuzzer.run(options.payloads, options.seconds))


def watch(options: argparse.Namespace) -> Summary:
    """Run the fuzzer in a process of its own, which may die or hang."""
    window = Window()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(
        target=_work, args=(options, window, theirs)
    )
    worker.start()
    theirs.close()
    while not ours.poll(_WATCH_EVERY):
        count, payload, seconds = window.look()
        # No payload is parsed before it has taken what every payload may take.
        late = count and seconds > SECONDS_PER_PAYLOAD
        if late and seconds > (allowed := allowed_seconds(payload)):
            worker.kill()
            worker.join()
            found = save_finding(payload, f"takes more than {allowed:.0f} seconds")
            return Summary(options.suite, options.seed, count, findings=[found])
    try:
        summary: Summary = ours.recv()
    except EOFError:
        worker.join()
        count, payload, _ = window.look()
        found = f"ends the process with exit code {worker.exitcode}"
        if count:
            found = save_finding(payload, found)
        return Summary(options.suite, options.seed, count, findings=[found])
    worker.join()
    return summary


def write(summary: Summary) -> None:
    """Add the summary to benchmarks/results/fuzz.json."""
    sys.path.append(str(HERE.parent / "benchmarks"))
    from common import RESULTS, write_result

    path = RESULTS / "fuzz.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    limits = {
        "max_decode_bytes": MOST_BYTES, "bytes_per_array_byte": PER_ARRAY_BYTE,
        "bytes_per_payload_byte": PER_PAYLOAD_BYTE, "constant_bytes": CONSTANT_BYTES,
        "seconds_per_array_byte": SECONDS_PER_ARRAY_BYTE,
        "seconds_per_payload": SECONDS_PER_PAYLOAD,
    }  # fmt: skip
    suites = {name: known[name] for name in SUITES if name in known}
    write_result("fuzz", {"limits": limits, **suites, summary.suite: asdict(summary)})


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=list(SUITES), required=True)
    parser.add_argument("--payloads", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first finding")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/fuzz.json")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    summary = watch(options)
    print(json.dumps(asdict(summary), indent=1))
    if options.write:
        write(summary)
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
