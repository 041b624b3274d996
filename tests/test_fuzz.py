"""The fuzzer finds what it is there to find, and a few seconds of it find nothing."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from bound_cases import golden_model, golden_patch_model

from coinpp_xr import CorruptPayloadError
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.caching import MOST_BYTES, Recent, computed, remembered
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.coding import masks
from coinpp_xr.exact import pack_bytes
from coinpp_xr.patch_header import Header
from coinpp_xr.patches import Layout, Patching
from coinpp_xr.patterns import encode as pack_levels
from coinpp_xr.transform import cosine_transform

FUZZ = Path(__file__).parent.parent / "fuzz"
sys.path.append(str(FUZZ))

import payloads  # noqa: E402
import run  # noqa: E402
import suites  # noqa: E402
from corpus import seeds  # noqa: E402
from mutations import damaged, repaired  # noqa: E402
from structured import structured  # noqa: E402


@pytest.mark.parametrize("suite", ["structured", "configurations"])
def test_many_inputs_find_nothing(suite) -> None:
    # Not so many seconds: a busy machine would not get far.
    command = [sys.executable, FUZZ / "run.py", "--suite", suite, "--inputs", "100", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["findings"] == []
    refused = "ValueError" if suite == "configurations" else "CorruptPayloadError"
    assert summary["outcomes"][refused] > 20
    if suite == "structured":
        assert summary["kept"] > 5


def test_changed_payloads_get_past_the_checksum() -> None:
    first, *others = seeds()
    for change in (repaired, structured):
        rng, messages = np.random.default_rng(0), []
        for number in range(100):
            payload = change(rng, first, others[number % len(others)])
            try:
                Payload.unpack(payload)
            except CorruptPayloadError as error:
                messages.append(str(error))
        assert len(messages) < (75 if change is repaired else 20)
        assert not any("checksum" in message for message in messages)


def test_damage_depends_on_the_seed_alone() -> None:
    first, second, *_ = seeds()
    for change in (damaged, repaired, structured):
        one, again, other = (
            [change(rng, first, second) for _ in range(20)]
            for rng in (np.random.default_rng(seed) for seed in (0, 0, 1))
        )
        assert one == again
        assert one != other


# ---- what was found ------------------------------------------------------------------------------

_STREAM = bytes(4)
_MEANS = np.zeros(1, "<f4").tobytes()
_STEP_ORIGIN_THOROUGH = struct.pack("<ddB", 1.0, 0.0, 1)


@pytest.mark.parametrize(
    ("kind", "shape", "sections"),
    [
        (Kind.GRID, (8192, 12), {Tag.MEANS: _MEANS, Tag.COEFFICIENTS: _STREAM}),
        (Kind.GRID, (12, 8192), {Tag.MEANS: _MEANS, Tag.COEFFICIENTS: _STREAM}),
        (Kind.GRID, (256, 1024), {Tag.MEANS: _MEANS, Tag.COEFFICIENTS: _STREAM}),
        (Kind.GRID, (8192, 1, 2), {Tag.MEANS: _MEANS, Tag.COEFFICIENTS: _STREAM}),
        (Kind.GRID, (10, 20), {Tag.MEANS: _MEANS[:3], Tag.COEFFICIENTS: _STREAM}),
        (Kind.RESIDUAL, (1, 1 << 18), {Tag.RESIDUAL: _STEP_ORIGIN_THOROUGH + bytes(99)}),
        (Kind.RESIDUAL, (1 << 18, 1), {Tag.RESIDUAL: _STEP_ORIGIN_THOROUGH + bytes(99)}),
        (Kind.LATENTS, (1, 1 << 18), {Tag.LATENTS: _STREAM}),
        (Kind.LATENTS, (1, 1 << 18, 1), {Tag.LATENTS: _STREAM}),
        (Kind.PATTERNS, (1 << 18, 1), {Tag.LEVELS: bytes(12)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("along_time", [False, True])
def test_small_payloads_that_ask_for_much_memory(kind, shape, sections, along_time) -> None:
    payload = Payload(
        kind, shape, np.dtype("<f4"), sections, golden_model().fingerprint, bits=8,
        along_time=along_time,
    ).pack()  # fmt: skip
    tracemalloc.start()
    start = process_time()
    payloads.judge(payload, valid=None)
    # Ten times as much as it is allowed: measuring memory takes time.
    assert process_time() - start < 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < suites.allowed_bytes(payloads.PayloadSuite("damaged"), payload)


def test_a_model_of_another_domain_is_refused() -> None:
    globes, patches = golden_model().fingerprint, golden_patch_model().fingerprint
    tried = set()
    for seed in seeds():
        payload = Payload.unpack(seed)
        if payload.kind.has_model:
            other = globes if payload.kind.of_patches else patches
            changed = replace(payload, fingerprint=other).pack()
            assert payloads.judge(changed, valid=False)[0] == "CorruptPayloadError"
            tried.add(payload.kind)
    assert tried == {kind for kind in Kind if kind.has_model}


def _patches(size: tuple[int, int, int], band_cells: int = 1 << 19) -> bytes:
    header = Header(
        Layout(1), Patching(size, 1), band_cells, 0.0, 1.0, np.zeros(1), np.eye(1, dtype=np.int8)
    )
    return header.pack()


_MASKED = {Tag.MASK: b"\1" + pack_bytes(np.array([255], np.uint8)), Tag.SPECIAL_VALUES: bytes(4)}
_ALL_MISSING = {Tag.COEFFICIENTS: _STREAM, Tag.MEANS: _MEANS, **_MASKED}


def _of_patches(size: tuple[int, int, int], **more: int) -> dict[Tag, bytes]:
    return {Tag.PATCHES: _patches(size, **more), Tag.COEFFICIENTS: _STREAM}


@pytest.mark.parametrize(
    ("kind", "shape", "sections", "header"),
    [
        # All of it is missing: there are no times to transform.
        (Kind.LATENTS_IN_TIME, (3, 2, 4), _ALL_MISSING, {"along_time": True}),
        (Kind.GRID, (3, 2, 4), _ALL_MISSING, {"along_time": True}),
        # A matrix of 512 MB for one patch; patches far larger than what they are of.
        (Kind.PATCHES, (8192,), _of_patches((1, 1, 8192)), {}),
        (Kind.PATCHES, (9, 1), _of_patches((1, 1, 2048)), {}),
        (Kind.PATCHES, (9, 1), _of_patches((1, 1, 1), band_cells=1 << 31), {}),
        # Many fields of next to nothing, each of which takes time.
        (Kind.PATCHES, (1 << 18, 1), _of_patches((1, 1, 1)), {}),
        (Kind.RESIDUAL, (1 << 18, 1, 1), {Tag.RESIDUAL: _STEP_ORIGIN_THOROUGH + bytes(99)}, {}),
        (Kind.GRID, (64, 64, 1, 16), {Tag.MEANS: bytes(256), Tag.COEFFICIENTS: _STREAM}, {}),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_took_long_or_much_memory_is_refused_at_once(kind, shape, sections, header) -> None:
    payload = Payload(
        kind, shape, np.dtype("<f4"), sections, golden_model().fingerprint, **header
    ).pack()
    tracemalloc.start()
    assert payloads.judge(payload, valid=False)[0] == "CorruptPayloadError"
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


_LEVELS = pack_levels(np.arange(40.0).reshape(1, 5, 8), 1.0, 1 << 20)
_FAR = struct.pack("<d", 1e300)
_SHIFT = struct.pack("<f", 1e30) + masks.encode_numbers(np.array([1 << 20]))


@pytest.mark.parametrize(
    ("sections", "dtype"),
    [
        ({Tag.LEVELS: _LEVELS[:2] + struct.pack("<d", 1e308) + _LEVELS[10:]}, "<f4"),
        ({Tag.LEVELS: _LEVELS, Tag.FINISH: bytes([19, 1]) + bytes(6) + _FAR}, "<f2"),
        ({Tag.LEVELS: _LEVELS, Tag.FINISH: bytes([4, 0]) + _SHIFT}, "<f2"),
    ],
    ids=range(3),
)
def test_numbers_that_overflow_are_not_warned_of(sections, dtype) -> None:
    payload = Payload(Kind.PATTERNS, (1, 5, 8), np.dtype(dtype), sections)
    assert payloads.judge(payload.pack(), valid=True)[0] == "array"


def test_a_single_value_in_fortran_order_has_no_axis() -> None:
    payload = Payload(
        Kind.LOSSLESS, (), np.dtype("f4"), {Tag.RAW: pack_bytes(np.float32([1]))}, fortran=True
    )
    assert payloads.judge(payload.pack(), valid=True)[0] == "array"


def test_caches_keep_no_more_than_their_bytes() -> None:
    for length in range(900, 1000):
        cosine_transform(length)
    assert computed.nbytes <= MOST_BYTES
    store = Recent(lambda: 100)
    for number in range(5):
        store.keep(number, f"value {number}", 40)
    assert store.nbytes == 80
    assert [store.find(number) for number in (0, 3, 4)] == [None, "value 3", "value 4"]
    store.keep("large", "value", 101)
    assert store.find("large") is None


def test_what_is_remembered_is_worked_out_once() -> None:
    calls = []

    @remembered()
    def squares(n: int) -> np.ndarray:
        calls.append(n)
        return np.arange(n) ** 2

    assert squares(5) is squares(5)
    assert squares(6)[5] == 25
    assert calls == [5, 6]


# ---- what counts as a finding --------------------------------------------------------------------


def _refuse(*_, **__) -> None:
    raise CorruptPayloadError("damaged\nin two lines")


def _refuse_in_a_line(*_, **__) -> None:
    raise CorruptPayloadError("damaged")


def _crash(*_, **__) -> None:
    raise KeyError("step")


def _warn(*_, **__) -> None:
    np.float32(1e30) * np.float32(1e30)


def _misread(*arguments, **named) -> np.ndarray:
    return decode_chunk(*arguments, **named)[..., :-1]


@pytest.mark.parametrize(
    ("decode", "valid", "message"),
    [
        (_crash, None, "KeyError in test_fuzz.py"),
        (_refuse, None, "several lines"),
        (_warn, None, "RuntimeWarning in test_fuzz.py"),
        (_refuse_in_a_line, True, "refused a valid payload"),
        (_misread, None, "against its header"),
        (decode_chunk, False, "decoded a damaged payload"),
    ],
)
def test_what_must_not_be_is_a_finding(decode, valid, message) -> None:
    with pytest.raises(suites.Finding, match=message):
        payloads.judge(seeds()[0], valid=valid, decode=decode)


def test_valid_payloads_are_arrays_and_damaged_ones_are_refused() -> None:
    payload = seeds()[0]
    assert payloads.judge(payload, valid=True)[0] == "array"
    assert payloads.judge(payload[:-1], valid=False)[0] == "CorruptPayloadError"


def _watched(monkeypatch, tmp_path, judge) -> run.Summary:
    """What the watcher says of a fuzzer whose second payload is judged in this way."""
    monkeypatch.setattr(run, "FINDINGS", tmp_path)
    monkeypatch.setattr(run.Fuzzer, "run", lambda self, *_: judge(self))
    arguments = ["--suite", "damaged", "--inputs", "10"]
    return run.watch(run.parse(arguments))


def test_a_payload_that_ends_the_process_is_a_finding(monkeypatch, tmp_path) -> None:
    def die(fuzzer: run.Fuzzer) -> None:
        fuzzer._window.show(7, b"deadly")
        run.os._exit(9)

    summary = _watched(monkeypatch, tmp_path, die)
    assert "exit code 9" in summary.findings[0]
    assert summary.inputs == 7
    assert [path.read_bytes() for path in tmp_path.glob("?" * 16)] == [b"deadly"]


def test_a_payload_that_takes_too_long_is_a_finding(monkeypatch, tmp_path) -> None:
    def hang(fuzzer: run.Fuzzer) -> None:
        fuzzer._window.show(7, b"endless")
        run.time.sleep(60)

    monkeypatch.setattr(run, "_PATIENCE", 0.2)
    summary = _watched(monkeypatch, tmp_path, hang)
    assert "more than" in summary.findings[0]
    assert [path.read_bytes() for path in tmp_path.glob("?" * 16)] == [b"endless"]


def test_memory_beyond_the_array_is_a_finding(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(run, "FINDINGS", tmp_path)
    monkeypatch.setattr(suites, "CONSTANT_BYTES", -(1 << 30))
    summary = run.Summary("repaired", 0)
    run.Fuzzer(suites.find("repaired"), summary, run.Window(), False).run(inputs=100, seconds=60)
    assert "takes" in summary.findings[0]
    assert summary.inputs < 100
