"""The pyramid's arithmetic in torch: the same whole numbers as from the compiled loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr.coding.pyramid import stream
from coinpp_xr.coding.pyramid.levels import level_count
from coinpp_xr.coding.pyramid.tensors import TensorWalk
from coinpp_xr.coding.pyramid.walk import Walk
from coinpp_xr.lattice import Lattice

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
sides = st.integers(1, 70)


def walks(values, valid, *, around, device):
    """Of every unit: a walk, its target, anchors and valid cells, and what numba decoded."""
    order = np.arange(len(values))[None]
    lattice = Lattice(0.2, 280.0)
    made = stream.encode(values, valid, order, lattice, around=around, quick=48)
    head = stream.Head.parse(made.head, valid, order, values.shape[1:])
    fields = np.zeros(values.shape, np.int32)
    for item, field in head.decode(lambda start, end: made.streams[start:end], valid):
        fields[item] = field
    step = 1 << level_count(values.shape[1:])
    for unit in head.units:
        items = list(unit.items)
        references = [
            torch.from_numpy(fields[list(each)]).to(device)
            for each in zip(*unit.references, strict=True)
        ]
        walk = TensorWalk(head.walk, head.parameters[unit.kind], references)
        target = np.where(valid[items], lattice.fractions(values[items], stream.PARTS), 0)
        decoded = torch.from_numpy(fields[items]).to(device, torch.int64)
        yield (
            walk, torch.from_numpy(target).to(device), decoded[:, ::step, ::step],
            torch.from_numpy(valid[items]).to(device), decoded,
        )  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@given(
    shape=st.tuples(st.integers(1, 6), sides, sides),
    around=st.booleans(),
    gaps=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_torch_has_the_whole_numbers_of_numba(device, shape, around, gaps, seed) -> None:
    rng = np.random.default_rng(seed)
    times, rows, columns = (np.arange(size) for size in shape)
    wave = np.sin(columns * 2 * np.pi / shape[2]) * np.cos(rows / 7)[:, None]
    values = 280 + 9 * wave + 0.3 * rng.standard_normal(shape) + times[:, None, None]
    valid = rng.random(shape) < (0.7 if gaps else 2)
    for walk, target, anchors, counted, decoded in walks(
        values, valid, around=around, device=device
    ):
        steps = walk.steps(target, anchors, counted)
        assert torch.equal(walk.fields(steps, anchors, counted), decoded)
        off = (decoded - target).abs()[counted]
        assert len(off) == 0 or off.max() <= 32


def test_fitted_weights_and_two_threads_too() -> None:
    """Passes of so many points have weights of their own, and bands of rows."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:400, :640]
    values = (
        280 + 9 * np.sin(columns / 9) * np.cos(rows / 7) + 0.3 * rng.standard_normal((400, 640))
    )
    whole = np.ones((1, 400, 640), bool)
    for walk, target, anchors, _, decoded in walks(values[None], whole, around=False, device="cpu"):
        steps = walk.steps(target, anchors)
        assert max(int(own.abs().max()) for own in steps.values()) > 1
        assert torch.equal(walk.fields(steps, anchors), decoded)


def test_what_depends_on_its_own_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="effort='fast'"):
        TensorWalk(Walk((9, 9), around=True, quick=8), {}, [])
