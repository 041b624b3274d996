"""The fuzzer finds what it is there to find, and a few seconds of it find nothing."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bound_cases import golden_model, golden_patch_model

from coinpp_xr import CorruptPayloadError
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.chunk_reading import decode_chunk

FUZZ = Path(__file__).parent.parent / "fuzz"
sys.path.append(str(FUZZ))

import run  # noqa: E402
from corpus import seeds  # noqa: E402
from mutations import damaged, repaired  # noqa: E402


@pytest.mark.parametrize("suite", ["damaged", "repaired"])
def test_a_few_hundred_payloads_find_nothing(suite) -> None:
    # Not so many seconds: a busy machine would not get far.
    command = [
        sys.executable,
        FUZZ / "run.py",
        "--suite",
        suite,
        "--payloads",
        "300",
        "--seed",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["findings"] == []
    assert summary["outcomes"]["CorruptPayloadError"] > 20
    if suite == "repaired":
        assert summary["kept"] > 5


def test_repaired_payloads_get_past_the_checksum() -> None:
    rng, (first, *others) = np.random.default_rng(0), seeds()
    messages = []
    for number in range(200):
        payload = repaired(rng, first.payload, others[number % len(others)].payload)
        try:
            Payload.unpack(payload)
        except CorruptPayloadError as error:
            messages.append(str(error))
    assert len(messages) < 150
    assert not any("checksum" in message for message in messages)


def test_damage_depends_on_the_seed_alone() -> None:
    first, second, *_ = (seed.payload for seed in seeds())
    for change in (damaged, repaired):
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
    run.judge(payload, None, valid=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < run.allowed_bytes(payload)


def test_a_model_of_another_domain_is_refused() -> None:
    globes, patches = golden_model().fingerprint, golden_patch_model().fingerprint
    tried = set()
    for seed in seeds():
        payload = Payload.unpack(seed.payload)
        if payload.kind.has_model:
            other = globes if payload.kind.of_patches else patches
            changed = replace(payload, fingerprint=other).pack()
            assert run.judge(changed, seed.grid, valid=False)[0] == "CorruptPayloadError"
            tried.add(payload.kind)
    assert tried == {kind for kind in Kind if kind.has_model}


# ---- what counts as a finding --------------------------------------------------------------------


def _refuse(*_, **__) -> None:
    raise CorruptPayloadError("damaged\nin two lines")


def _crash(*_, **__) -> None:
    raise KeyError("step")


def _misread(*arguments, **named) -> np.ndarray:
    return decode_chunk(*arguments, **named)[..., :-1]


@pytest.mark.parametrize(
    ("decode", "valid", "message"),
    [
        (_crash, None, "KeyError in test_fuzz.py"),
        (_refuse, None, "several lines"),
        (_refuse, True, "refused a valid payload"),
        (_misread, None, "against its header"),
        (decode_chunk, False, "decoded a damaged payload"),
    ],
)
def test_what_must_not_be_is_a_finding(decode, valid, message) -> None:
    payload, grid = seeds()[0]
    with pytest.raises(run.Finding, match=message):
        run.judge(payload, grid, valid=valid, decode=decode)


def test_valid_payloads_are_arrays_and_damaged_ones_are_refused() -> None:
    payload, grid = seeds()[0]
    assert run.judge(payload, grid, valid=True)[0] == "array"
    assert run.judge(payload[:-1], grid, valid=False)[0] == "CorruptPayloadError"


def _watched(monkeypatch, tmp_path, judge) -> run.Summary:
    """What the watcher says of a fuzzer whose second payload is judged in this way."""
    monkeypatch.setattr(run, "FINDINGS", tmp_path)
    monkeypatch.setattr(run.Fuzzer, "run", lambda self, *_: judge(self))
    arguments = ["--suite", "damaged", "--payloads", "10"]
    return run.watch(run.parse(arguments))


def test_a_payload_that_ends_the_process_is_a_finding(monkeypatch, tmp_path) -> None:
    def die(fuzzer: run.Fuzzer) -> None:
        fuzzer._window.show(7, b"deadly")
        run.os._exit(9)

    summary = _watched(monkeypatch, tmp_path, die)
    assert "exit code 9" in summary.findings[0]
    assert summary.payloads == 7
    assert [path.read_bytes() for path in tmp_path.glob("*.cnpp")] == [b"deadly"]


def test_a_payload_that_takes_too_long_is_a_finding(monkeypatch, tmp_path) -> None:
    def hang(fuzzer: run.Fuzzer) -> None:
        fuzzer._window.show(7, b"endless")
        run.time.sleep(60)

    monkeypatch.setattr(run, "SECONDS_PER_PAYLOAD", 0.5)
    summary = _watched(monkeypatch, tmp_path, hang)
    assert "more than" in summary.findings[0]
    assert [path.read_bytes() for path in tmp_path.glob("*.cnpp")] == [b"endless"]


def test_memory_beyond_the_array_is_a_finding(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(run, "FINDINGS", tmp_path)
    monkeypatch.setattr(run, "CONSTANT_BYTES", -(1 << 30))
    fuzzer = run.Fuzzer("repaired", 0, run.Window(), keep_going=False)
    summary = fuzzer.run(payloads=100, seconds=60)
    assert "takes" in summary.findings[0]
    assert summary.payloads < 100
