"""Payloads written by released versions stay readable, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bound_cases import OWN, golden_array, golden_model

from coinpp_xr import coefficients, entropy
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.chunk_reading import synthesis_of
from coinpp_xr.coordinates import NO_GLOBE, IndexGrid, SphereGrid
from coinpp_xr.kept_cells import not_coded
from coinpp_xr.patch_header import Header

GOLDEN = Path(__file__).parent / "golden"
PAYLOADS = sorted(GOLDEN.glob("format-*/*.cnpp"))


def test_there_are_golden_payloads_of_every_kind() -> None:
    payloads = [Payload.unpack(path.read_bytes()) for path in PAYLOADS]
    assert {payload.kind for payload in payloads} == set(Kind)
    patches = [(p.kind, set(p.sections)) for p in payloads if p.kind.of_patches]
    for kind in (Kind.PATCHES, Kind.PATCHES_FROM_MODEL):
        assert (kind, {Tag.PATCHES, Tag.COEFFICIENTS}) in patches
        assert (kind, {Tag.PATCHES, Tag.COEFFICIENTS, Tag.RESIDUAL}) in patches
    assert (Kind.PATCHES, {Tag.PATCHES, Tag.RESIDUAL}) in patches
    headers = [
        Header.unpack(p.section(Tag.PATCHES), p.shape) for p in payloads if p.kind.of_patches
    ]
    assert {header.deblocked for header in headers} == {False, True}
    with_base = {p.kind for p in payloads if Tag.RESIDUAL in p.sections and p.kind.has_coefficients}
    assert with_base >= {Kind.GRID, Kind.LATENTS_IN_TIME}


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden_payload_decodes_to_its_array(path) -> None:
    expected = np.load(path.with_suffix(".npy"))
    got = golden_array(path)
    assert got.dtype == expected.dtype
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden_symbols_code_to_the_same_bytes(path) -> None:
    """The entropy coder and its tables have not moved by a single bit."""
    payload = Payload.unpack(path.read_bytes())
    if not (payload.kind.has_coefficients or payload.kind == Kind.LATENTS):
        pytest.skip("nothing of these coders")
    model = golden_model()
    items = int(np.prod(payload.shape[:-2]))
    if payload.kind.has_coefficients:
        grid = OWN if "own" in path.stem else next(SphereGrid.usual_layouts(*payload.shape[-2:]))
        if payload.layout == NO_GLOBE:
            grid = IndexGrid.of(payload.shape[-2:])
        mask = not_coded(payload)
        known = model if payload.kind.has_model else None
        synthesis = synthesis_of(payload, known, grid, mask)
        expected = synthesis.expected(payload.exponent, payload.along_time)
        stream = payload.section(Tag.COEFFICIENTS)
        symbols = coefficients.decode(stream, synthesis.shape, expected)
        assert coefficients.encode(symbols, expected) == stream
        return
    stream = payload.section(Tag.LATENTS)
    symbols = entropy.decode(stream, items, model.histogram, payload.bits)
    assert entropy.encode(symbols, model.histogram, payload.bits) == stream
