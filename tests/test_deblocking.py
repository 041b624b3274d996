"""Layers against blocking: what they compute, when they are used, and that they learn."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from bound_cases import golden_patch_model

from coinpp_xr import AudioPatchCodec, CorruptPayloadError, ImagePatchCodec
from coinpp_xr.bitstream import Payload, Tag
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.deblocking import Deblocking, inputs
from coinpp_xr.models import Model
from coinpp_xr.patch_header import Header
from coinpp_xr.patches import Layout, Patching

SIZES = {1: (16,), 2: (16, 8), 3: (8, 8, 8)}


def layers(axes: int, rng: np.random.Generator, taps: int = 3) -> Deblocking:
    extents = [3 if axes == 3 else 1, 3 if axes > 1 else 1, taps]
    sizes = [2 + axes, 4, 1]
    kernels = [rng.standard_normal((b, a, *extents)).astype(np.float32) for a, b in pairwise(sizes)]
    return Deblocking(tuple(kernels), tuple(rng.standard_normal(n).astype("f4") for n in sizes[1:]))


def blocky(rng: np.random.Generator, shape: tuple[int, ...] = (96, 128)) -> np.ndarray:
    """Smooth shapes that coarse steps cut into visible blocks."""
    y, x = np.indices(shape)
    waves = sum(
        np.sin(x * a + y * b + c) for a, b, c in rng.uniform([0.02, 0.02, 0], [0.2, 0.2, 6], (6, 3))
    )
    disc = np.hypot(y - shape[0] / 2, x - shape[1] / 2) < rng.uniform(20, 40)
    return (0.5 + 0.06 * waves + 0.2 * disc).astype(np.float32)[..., None]


@pytest.mark.parametrize(("axes", "taps"), [(1, 3), (1, 9), (2, 3), (3, 3)])
def test_convolutions_are_those_of_the_definition(axes, taps) -> None:
    rng = np.random.default_rng(axes)
    patching = Patching.of(SIZES[axes])
    shape = tuple(2 * n if n > 1 else 1 for n in patching.size)
    values = rng.standard_normal(shape).astype(np.float32)
    least = [n // m for n, m in zip(shape, patching.block_sizes[-1], strict=True)]
    levels = rng.integers(0, patching.levels, least).astype(np.int32)
    network = layers(axes, rng, taps)
    found = inputs(values, levels, patching, 0.7).astype(np.float64)
    for i, (kernel, bias) in enumerate(zip(network.kernels, network.biases, strict=True)):
        reach = [n // 2 for n in kernel.shape[2:]]
        total = np.zeros((len(kernel), *shape)) + bias[:, None, None, None]
        where = np.indices(shape)
        for offset in np.ndindex(*kernel.shape[2:]):
            moved = [
                np.clip(w + o - r, 0, n - 1)
                for w, o, r, n in zip(where, offset, reach, shape, strict=True)
            ]
            weights = kernel[(slice(None), slice(None), *offset)]
            total += np.tensordot(weights, found[(slice(None), *moved)], axes=1)
        found = np.maximum(total, 0) if i == 0 else total
    got = network(values, levels, patching, 0.7)
    np.testing.assert_allclose(got, values + 0.7 * found[0], rtol=1e-4, atol=1e-4)


def test_the_network_sees_where_blocks_end() -> None:
    patching = Patching.of((16, 16))
    levels = np.zeros((1, 4, 8), np.int32)
    levels[0, :, 4:] = 1  # one patch whole, the other in four
    _, level, rows, columns = inputs(np.ones((1, 16, 32), np.float32), levels, patching, 0.5)[:, 0]
    assert level[0, 0] < level[0, 16]
    # What the array ends with is no edge between blocks.
    assert np.flatnonzero(rows[:, 0]).tolist() == []
    assert np.flatnonzero(rows[:, 20]).tolist() == [7, 8]
    assert np.flatnonzero(columns[3]).tolist() == [15, 16, 23, 24]


def test_layers_travel_in_model_files(tmp_path) -> None:
    model = golden_patch_model()
    again = Model.from_file(model.save(tmp_path / "again.safetensors"))
    assert again.fingerprint == model.fingerprint
    assert again.deblocking is not None
    assert replace(model, deblocking=None).fingerprint != model.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"deblocking.kernel.0": np.zeros((2, 4, 1, 3, 4), "f4")},  # even
        {"deblocking.kernel.0": np.zeros((2, 4, 1, 3, 5), "f4")},  # not in threes
        {"deblocking.kernel.1": np.zeros((1, 3, 1, 3, 3), "f4")},  # another width
        {"deblocking.kernel.1": np.zeros((2, 2, 1, 3, 3), "f4"), "deblocking.bias.1": np.zeros(2)},
        {"deblocking.bias.0": np.zeros(3, "f4")},
        {"deblocking.kernel.0": np.zeros((2, 4, 3, 3), "f4")},
        {"deblocking.kernel.0": np.zeros((2, 4, 1, 3, 3), "f8")},
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(change) -> None:
    deblocking = golden_patch_model().deblocking
    assert deblocking is not None
    with pytest.raises(ValueError, match="do not fit"):
        Deblocking.from_tensors({**deblocking.tensors, **change})


def deblocked_payload() -> tuple[np.ndarray, bytes]:
    rng = np.random.default_rng(3)
    values = np.repeat(blocky(rng, (512, 640)), 3, axis=-1)
    values += 0.02 * rng.standard_normal(values.shape).astype(np.float32)
    return values, ImagePatchCodec(target_psnr=32, model=golden_patch_model()).encode(values)


def header_of(payload: bytes) -> Header:
    parsed = Payload.unpack(payload)
    return Header.unpack(parsed.section(Tag.PATCHES), parsed.shape)


def test_they_are_used_where_they_help_and_the_target_holds() -> None:
    values, payload = deblocked_payload()
    codec = ImagePatchCodec(target_psnr=32, model=golden_patch_model())
    decoded = codec.decode(payload)
    assert header_of(payload).deblocked
    assert -10 * np.log10(np.mean((decoded - values) ** 2)) >= 32
    plain = ImagePatchCodec(target_psnr=32, model=replace(golden_patch_model(), deblocking=None))
    assert len(payload) < len(plain.encode(values))


def test_one_channel_gains_as_three_do() -> None:
    values, _ = deblocked_payload()
    payload = ImagePatchCodec(target_psnr=32, model=golden_patch_model()).encode(values[..., 0])
    assert header_of(payload).deblocked


def test_they_are_not_used_where_they_do_harm() -> None:
    rng = np.random.default_rng(4)
    noise = rng.random((64, 64, 3)).astype(np.float32)
    payload = ImagePatchCodec(target_psnr=25, model=golden_patch_model()).encode(noise)
    assert not header_of(payload).deblocked


def test_a_region_is_what_the_whole_has_there() -> None:
    values, _ = deblocked_payload()
    codec = ImagePatchCodec(target_psnr=32, model=golden_patch_model(), band_cells=1 << 16)
    payload = codec.encode(values)
    assert header_of(payload).deblocked
    region = (slice(70, 250), slice(10, 50))
    assert np.array_equal(codec.decode_region(payload, *region), codec.decode(payload)[region])


def test_a_model_without_layers_or_for_other_axes_is_an_error() -> None:
    _, payload = deblocked_payload()
    without = replace(golden_patch_model(), deblocking=None)
    sound = replace(golden_patch_model(), deblocking=layers(1, np.random.default_rng(0)))
    for model in (without, sound):
        with pytest.raises(CorruptPayloadError, match="blocking"):
            decode_chunk(payload, lambda _, model=model: model)


def test_other_axes_go_without_layers() -> None:
    values = np.sin(np.arange(5000) / 30).astype(np.float32)
    with pytest.raises(ValueError, match="patches of 2 axes"):
        AudioPatchCodec(target_psnr=30, model=golden_patch_model()).encode(values)


def test_a_few_seconds_of_training_help_on_other_images() -> None:
    pytest.importorskip("torch")
    from coinpp_xr.deblocking_training import learn_deblocking

    rng = np.random.default_rng(6)
    images = [blocky(rng) for _ in range(8)]
    model = replace(golden_patch_model(), deblocking=None)
    told: list[dict] = []
    network, gains = learn_deblocking(
        images[:6], images[6:], Layout(2, "last"), Patching.of((32, 32)), model,
        minutes=0.1, width=4, depth=3, log=told.append,
    )  # fmt: skip
    assert max(gains) > 0.1
    assert told
    assert network.fits(Patching.of((32, 32)))
    # What was trained is what is used.
    values, step = images[7], 0.2
    from coinpp_xr.patch_learning import coded_at

    ((decoded, exact, levels),) = coded_at(
        values, Layout(2, "last"), Patching.of((32, 32)), model, step
    )
    improved = network(decoded, levels, Patching.of((32, 32)), step)
    assert np.mean((improved - exact) ** 2) < np.mean((decoded - exact) ** 2)


def test_there_must_be_something_to_learn_from() -> None:
    pytest.importorskip("torch")
    from coinpp_xr.deblocking_training import learn_deblocking

    flat = [np.zeros((64, 64, 1), np.float32)]
    with pytest.raises(ValueError, match="all values are the same"):
        learn_deblocking(
            flat, flat, Layout(2, "last"), Patching.of((32, 32)), golden_patch_model(), minutes=0.01
        )
