"""The suites of payloads: each is decoded, and must be refused or become what its header says."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any

from corpus import find_model, grid_for, seeds
from mutations import Rng, damaged, repaired
from structured import structured
from suites import Finding, only_promised_errors

from coinpp_xr import CorruptPayloadError
from coinpp_xr.bitstream import Payload
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.settings import config

# Arrays beyond this are refused: decoding may take time in proportion to what it returns.
MOST_BYTES = 1 << 20
_MUTATIONS = {"damaged": damaged, "repaired": repaired, "structured": structured}
_MOST_KEPT = 2000

Decode = Callable[..., Any]


class PayloadSuite:
    """Damages payloads, decodes them, and keeps those that lead somewhere new.

    Parameters
    ----------
    name : {"damaged", "repaired", "structured"}
    """

    def __init__(self, name: str) -> None:
        self.name, self._change = name, _MUTATIONS[name]
        self._pool = list(seeds())
        self._valid = set(self._pool)
        self.places: set[Any] = set()

    @property
    def kept(self) -> int:
        """How many payloads led somewhere new."""
        return len(self._pool) - len(seeds())

    def warm_up(self) -> None:
        """Compiles, and fills caches."""
        for payload in seeds():
            judge(payload, valid=True)

    def declared(self, data: bytes) -> int:
        return declared_bytes(data)

    def mutate(self, rng: Rng) -> bytes:
        first = len(seeds())
        # What leads somewhere new is as good a start as all valid payloads together.
        new = len(self._pool) > first and rng.random() < 0.5
        one = self._pool[int(rng.integers(first if new else 0, len(self._pool) if new else first))]
        other = self._pool[int(rng.integers(len(self._pool)))]
        return self._change(rng, one, other)

    def judge(self, data: bytes) -> str:
        if data in self._valid:
            return "as it was"
        outcome, place = judge(data, valid=False if self.name == "damaged" else None)
        if place not in self.places:
            self.places.add(place)
            if len(self._pool) < _MOST_KEPT:
                self._pool.append(data)
        return outcome


def judge(payload: bytes, *, valid: bool | None, decode: Decode = decode_chunk) -> tuple[str, Any]:
    """Decode a payload; what it came to, and at which place in the package.

    Parameters
    ----------
    payload : bytes
    valid : bool or None
        Whether it must be decoded (True) or refused (False), if that is known.

    Raises
    ------
    Finding
    """
    refused: list[Exception] = []
    with only_promised_errors(refused=refused), config.set(max_decode_bytes=MOST_BYTES):
        decoded = decode(payload, find_model, grid=grid_for(payload))
    if refused:
        if valid:
            raise Finding(f"refused a valid payload: {refused[0]}") from refused[0]
        return type(refused[0]).__name__, _way_to(refused[0])
    if valid is False:
        raise Finding("decoded a damaged payload")
    header = Payload.unpack(payload)
    if (decoded.shape, decoded.dtype) != (header.array_shape, header.dtype):
        raise Finding(f"returned {decoded.dtype} {decoded.shape}, against its header")
    return "array", (header.kind, header.dtype.str, tuple(header.sections), header.fortran)


def _way_to(error: Exception) -> tuple[Any, ...]:
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
