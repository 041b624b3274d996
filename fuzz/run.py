"""Damage what comes from strangers and read it: nothing but a clear refusal may come of it.

    python fuzz/run.py --suite structured --inputs 100000
    python fuzz/run.py --suite repaired --inputs 100000 --seconds 600 --seed 1

``damaged`` changes the bytes of payloads: each must be refused. ``repaired`` changes them and
corrects the checksum, so that everything behind it is reached; ``structured`` changes what they
say (header, counts, lengths, masks, every field of every section) and corrects all checksums.
``configurations`` are those of codecs, as array metadata holds them. Whatever comes of an input,
it must neither crash nor hang, raise nothing but the errors that the package promises, in one
line, warn of nothing, and take no more time and memory than what it declares would explain.

Payloads that reach a new place in the package are kept and damaged further. All runs in a process
of its own, watched by another: what kills or blocks it is found, too. The first finding ends the
run with exit code 1; the input is in fuzz/findings/.
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
import tracemalloc
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COINPP_XR_THREADS", "1")

import numpy as np
import suites
from suites import Finding, Suite

HERE = Path(__file__).parent
FINDINGS = HERE / "findings"

# An input that takes so many times what it may, with all of its memory traced, hangs.
_PATIENCE = 15.0
# Address space on top of what is there before: a runaway must not take the machine with it.
_SPARE_BYTES = 2 << 30
_WATCH_EVERY = 0.2


@dataclass
class Summary:
    """What came of a run."""

    suite: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    places: int = 0
    kept: int = 0
    most_bytes: int = 0
    most_bytes_declared: int = 0
    most_seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


class Window:
    """Memory that both processes see: which input is being read, and since when."""

    _HEAD = struct.Struct("<qqd")
    _SIZE = 1 << 23

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._SIZE)

    def show(self, count: int, data: bytes) -> None:
        data = data[: self._SIZE - self._HEAD.size]
        self._memory[self._HEAD.size : self._HEAD.size + len(data)] = data
        self._HEAD.pack_into(self._memory, 0, count, len(data), time.monotonic())

    def judged(self) -> None:
        """Nothing is being read: the next input is made, which may take its time."""
        count, length, _ = self._HEAD.unpack_from(self._memory)
        self._HEAD.pack_into(self._memory, 0, count, length, 0.0)

    def look(self) -> tuple[int, bytes, float]:
        """Inputs so far, the last one, and for how many seconds it has been read."""
        count, length, since = self._HEAD.unpack_from(self._memory)
        data = self._memory[self._HEAD.size : self._HEAD.size + length]
        return count, data, time.monotonic() - since if since else 0.0


class Fuzzer:
    """Makes inputs, has them judged, and measures what that takes."""

    def __init__(self, suite: Suite, summary: Summary, window: Window, keep_going: bool) -> None:
        self.summary, self._suite = summary, suite
        self._window, self._keep_going = window, keep_going
        self._rng = np.random.default_rng(summary.seed)
        self._seen: set[str] = set()

    def run(self, inputs: int, seconds: float) -> Summary:
        """Judge so many inputs, or for so long."""
        summary, start = self.summary, time.monotonic()
        tracemalloc.start()
        while summary.inputs < inputs and time.monotonic() - start < seconds:
            self._try(self._suite.mutate(self._rng))
            self._window.judged()
            if summary.findings and not self._keep_going:
                break
        tracemalloc.stop()
        summary.seconds = round(time.monotonic() - start, 1)
        summary.places = len(getattr(self._suite, "places", ()))
        summary.kept = getattr(self._suite, "kept", 0)
        return summary

    def _try(self, data: bytes) -> None:
        summary, suite = self.summary, self._suite
        summary.inputs += 1
        self._window.show(summary.inputs, data)
        try:
            outcome, taken, seconds = self._measured(data)
            if taken > suites.allowed_bytes(suite, data):
                raise Finding(
                    f"takes {taken:,} bytes for {suites.declared_bytes(suite, data):,} declared "
                    f"by {len(data):,}"
                )
            if seconds > suites.allowed_seconds(suite, data):
                # Measuring memory takes time, and so does a busy machine.
                seconds = min(self._untraced_seconds(data) for _ in range(2))
            if seconds > suites.allowed_seconds(suite, data):
                raise Finding(f"takes {seconds:.1f} seconds")
        except (Finding, AssertionError) as finding:
            self._note(data, str(finding))
            return
        summary.outcomes[outcome] = summary.outcomes.get(outcome, 0) + 1
        summary.most_seconds = max(summary.most_seconds, round(seconds, 3))
        if taken > summary.most_bytes:
            summary.most_bytes = taken
            summary.most_bytes_declared = suites.declared_bytes(suite, data)

    def _measured(self, data: bytes) -> tuple[str, int, float]:
        """What came of an input, and the memory and processor time that it took."""
        tracemalloc.reset_peak()
        before, start = tracemalloc.get_traced_memory()[0], time.process_time()
        outcome = self._suite.judge(data)
        seconds = time.process_time() - start
        return outcome, tracemalloc.get_traced_memory()[1] - before, seconds

    def _untraced_seconds(self, data: bytes) -> float:
        tracemalloc.stop()
        try:
            start = time.process_time()
            self._suite.judge(data)
            return time.process_time() - start
        finally:
            tracemalloc.start()

    def _note(self, data: bytes, what: str) -> None:
        alike = re.sub(r"\d+", "N", what) if what.startswith("takes") else what
        if alike not in self._seen:
            self._seen.add(alike)
            self.summary.findings.append(save_finding(data, what))


def save_finding(data: bytes, what: str) -> str:
    """Write an input that shows something wrong, with a line about it."""
    FINDINGS.mkdir(exist_ok=True)
    name = hashlib.sha256(data).hexdigest()[:16]
    (FINDINGS / name).write_bytes(data)
    (FINDINGS / f"{name}.txt").write_text(what + "\n")
    return f"{what} [fuzz/findings/{name}]"


# ---- two processes -------------------------------------------------------------------------------


def _work(options: argparse.Namespace, window: Window, pipe: Connection) -> None:
    summary, suite = Summary(options.suite, options.seed), suites.find(options.suite)
    try:
        getattr(suite, "warm_up", lambda: None)()
    except Finding as finding:
        summary.findings.append(f"at the start: {finding}")
        pipe.send(summary)
        return
    there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (there + _SPARE_BYTES, resource.RLIM_INFINITY))
    fuzzer = Fuzzer(suite, summary, window, options.keep_going)
    pipe.send(fuzzer.run(options.inputs, options.seconds))


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
        count, data, seconds = window.look()
        # Nothing is parsed before it has taken what every input may take.
        late = count and seconds > _PATIENCE * suites.SECONDS
        if late and seconds > _PATIENCE * suites.allowed_seconds(suites.find(options.suite), data):
            worker.kill()
            worker.join()
            found = save_finding(data, f"takes more than {seconds:.0f} seconds")
            return Summary(options.suite, options.seed, count, findings=[found])
    try:
        summary: Summary = ours.recv()
    except EOFError:
        worker.join()
        count, data, _ = window.look()
        found = f"ends the process with exit code {worker.exitcode}"
        if count:
            found = save_finding(data, found)
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
        "bytes_per_array_byte": suites.PER_ARRAY_BYTE,
        "bytes_per_input_byte": suites.PER_INPUT_BYTE,
        "constant_bytes": suites.CONSTANT_BYTES,
        "seconds_per_array_byte": suites.SECONDS_PER_ARRAY_BYTE,
        "seconds": suites.SECONDS,
    }
    others = {name: known[name] for name in suites.names() if name in known}
    write_result("fuzz", {"limits": limits, **others, summary.suite: asdict(summary)})


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=suites.names(), required=True)
    parser.add_argument("--inputs", type=int, default=100_000)
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
