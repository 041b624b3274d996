"""``bits`` for images, volumes and sound: latents of a network for patches, and nothing else."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusal

import coinpp_xr
from coinpp_xr import (
    AudioPatchCodec,
    CompressionWarning,
    CorruptPayloadError,
    ImagePatchCodec,
    ModelNotFoundError,
    VolumePatchCodec,
    models,
)
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.cosines import analyse
from coinpp_xr.devices import predict
from coinpp_xr.entropy import fit_histogram
from coinpp_xr.models import Model
from coinpp_xr.network import LinearTail, QuantizedTail
from coinpp_xr.siren import ModulatedSiren

SPREAD = np.array([0.01, 0.01, 0.06, 0.04, 0.03, 0.03, 0.02, 0.02])
DTYPES = ("|u1", "<i2", "<u2", "<f2", "<f4", "<f8", ">i2", ">f4", ">f8")


def make_model(spatial: int, channels: int) -> Model:
    """Two latents of a grey SIREN, and smooth modes of which two have colour."""
    rng = np.random.default_rng(spatial)
    siren = ModulatedSiren.initialise(
        dim_in=spatial, dim_out=channels, width=8, depth=2, latent_dim=2, omega0=10.0,
        shift_scale=0.5, rng=rng,
    )  # fmt: skip
    grey = (*siren.weights[:-1], np.repeat(siren.weights[-1][:1], channels, axis=0))
    siren = replace(siren, weights=grey)
    box = BoxGrid({1: (40,), 2: (12, 8), 3: (6, 5, 4)}[spatial])
    # Of the SIREN's field nothing is left at zero latents: 0.5 is what it adds.
    field = siren(box.points, siren.zeros(1))[0]
    mean = analyse(np.ascontiguousarray((0.5 - field).T), box).reshape(-1)
    modes = np.zeros((6, channels, *box.shape))
    for mode, frequencies in enumerate(np.ndindex(*(6, 2, 2)[:spatial])):
        if mode < len(modes):
            modes[(mode, slice(None), *frequencies)] = 1
    if channels > 1:  # nothing of these is left in grey
        modes[4:] *= np.array([1, -1, 0]).reshape(-1, 1, 1)
    tail = LinearTail(mean, modes.reshape(6, -1).astype(np.float32), box)
    latents = SPREAD * rng.standard_normal((2000, 8))
    center = np.zeros(8)
    model = Model(
        f"small-{spatial}-{channels}", siren, "patch", 0.0, 1.0, center, SPREAD,
        fit_histogram(latents, center, SPREAD), {}, QuantizedTail.of(tail, SPREAD[2:], 1e-4),
        box=box,
    )  # fmt: skip
    return coinpp_xr.load_model(model)


MODELS = {1: make_model(1, 1), 2: make_model(2, 3), 3: make_model(3, 1)}
CODECS = {1: AudioPatchCodec, 2: ImagePatchCodec, 3: VolumePatchCodec}


@pytest.fixture(autouse=True)
def models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """These, whatever other tests have loaded or forgotten."""
    monkeypatch.setattr(models, "_loaded", models.Loaded())
    for model in MODELS.values():
        models.load_model(model)


def known(spatial: int, batch: tuple[int, ...], space: tuple[int, ...], seed: int = 0) -> Any:
    """Features that the model knows, shape (*batch, *space, channels), and a little noise."""
    model, rng = MODELS[spatial], np.random.default_rng(seed)
    assert model.box is not None
    size = model.box.shape
    counts = [-(-n // m) for n, m in zip(space, size, strict=True)]
    items = prod(batch)
    latents = (SPREAD * rng.standard_normal((items * prod(counts), 8))).astype(np.float32)
    patches = predict(model.network, model.box.points, latents)
    blocks = patches.reshape(items, *counts, *size, model.network.dim_out)
    order = [0]
    for axis in range(1, spatial + 1):
        order += [axis, axis + spatial]
    whole = blocks.transpose(*order, 2 * spatial + 1)
    whole = whole.reshape(items, *np.multiply(counts, size), model.network.dim_out)
    cut = whole[(slice(None), *(slice(n) for n in space))]
    values = cut + 0.0005 * rng.standard_normal(cut.shape)
    return values.reshape(*batch, *space, model.network.dim_out)


def grey(spatial: int, batch: tuple[int, ...], space: tuple[int, ...]) -> Any:
    """The same without channels, float32, in the range of the codec."""
    return as_type(known(spatial, batch, space).mean(axis=-1), "<f4", spatial)


def as_type(features: np.ndarray, dtype: str, spatial: int) -> np.ndarray:
    """In the range that the codec takes for granted."""
    features = np.clip(features, 0, 1)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        low, high = float(limits.min), float(limits.max)
        return np.rint(low + features * (high - low)).astype(dtype)
    return (2 * features - 1 if spatial == 1 else features).astype(dtype)


def errors(values: np.ndarray, decoded: np.ndarray) -> float:
    """RMSE as a share of the standard deviation, over what is finite."""
    finite = np.isfinite(values)
    x, y = values[finite].astype(np.float64), decoded[finite].astype(np.float64)
    return float(np.sqrt(np.mean((x - y) ** 2)) / max(x.std(), 1e-12))


# ---- any array -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    spatial: int
    batch: tuple[int, ...]
    space: tuple[int, ...]
    channels: str
    n_channels: int
    dtype: str
    gaps: str
    bits: int
    band_cells: int
    seed: int

    def values(self) -> np.ndarray:
        features = known(self.spatial, self.batch, self.space, self.seed)
        repeats = -(-self.n_channels // features.shape[-1])
        features = np.concatenate([features] * repeats, axis=-1)[..., : self.n_channels]
        values = as_type(features, self.dtype, self.spatial)
        rng = np.random.default_rng(self.seed)
        if values.dtype.kind == "f" and self.gaps != "none":
            missing = rng.random(values.shape[:-1]) < (0.2 if self.gaps == "cells" else 0.97)
            values[missing] = np.nan
            some = rng.random(values.shape) < 0.01
            values[some] = rng.choice([np.inf, -np.inf], int(some.sum())).astype(values.dtype)
        if self.channels == "none":
            return np.ascontiguousarray(values[..., 0])
        if self.channels == "first":
            return np.moveaxis(values, -1, -1 - self.spatial)
        return values

    def codec(self) -> Any:
        return CODECS[self.spatial](
            bits=self.bits, model=MODELS[self.spatial], channels=self.channels,
            band_cells=self.band_cells,
        )  # fmt: skip


@st.composite
def cases(draw: Any) -> Case:
    spatial = draw(st.integers(1, 3))
    longest = {1: 130, 2: 30, 3: 13}[spatial]
    return Case(
        spatial,
        tuple(draw(st.lists(st.integers(0, 3), max_size=2))),
        tuple(draw(st.lists(st.integers(1, longest), min_size=spatial, max_size=spatial))),
        draw(st.sampled_from(["none", "first", "last"])),
        draw(st.integers(1, 5)),
        draw(st.sampled_from(DTYPES)),
        draw(st.sampled_from(["none", "none", "cells", "almost all"])),
        draw(st.integers(1, 16)),
        draw(st.sampled_from([1, 300, 1 << 19])),
        draw(st.integers(0, 1 << 30)),
    )


@given(case=cases(), data=st.data())
@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_whatever_the_array_it_comes_back_no_worse_than_its_mean(case: Case, data: Any) -> None:
    values, codec = case.values(), case.codec()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompressionWarning)  # of too few bits
        payload = codec.encode(values)
    decoded = codec.decode(payload)

    assert (decoded.shape, decoded.dtype) == (values.shape, values.dtype)
    if values.size == 0:
        return
    special = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    assert decoded[special].tobytes() == values[special].tobytes()
    assert np.isfinite(decoded[~special].astype(np.float64)).all()
    if not special.any() and (values != values.flat[0]).any():
        assert errors(values, decoded) < 1.02

    region = tuple(
        slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))))
        for n in values.shape
    )
    np.testing.assert_array_equal(codec.decode_region(payload, *region), decoded[region])


# ---- what is known -------------------------------------------------------------------------------

SHAPES = {1: ((3,), (200,)), 2: ((2,), (36, 40)), 3: ((), (18, 15, 16))}


@pytest.mark.parametrize("spatial", CODECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_is_explained(spatial: int, dtype: str) -> None:
    features = known(spatial, *SHAPES[spatial])
    channels = "last" if spatial == 2 else "none"
    values = as_type(features if spatial == 2 else features[..., 0], dtype, spatial)
    codec = CODECS[spatial](bits=8, model=MODELS[spatial], channels=channels)
    payload = codec.encode(values)
    assert Payload.unpack(payload).kind == Kind.PATCH_LATENTS
    decoded = codec.decode(payload)
    assert decoded.dtype == values.dtype
    assert errors(values, decoded) < 0.03


@pytest.mark.parametrize("spatial", CODECS)
def test_more_bits_are_better(spatial: int) -> None:
    values = grey(spatial, *SHAPES[spatial])
    found, sizes = [], []
    for bits in (3, 4, 6, 8, 12, 16):
        codec = CODECS[spatial](bits=bits, model=MODELS[spatial])
        payload = codec.encode(values)
        sizes.append(len(payload))
        found.append(errors(values, codec.decode(payload)))
    assert all(later <= 1.05 * earlier for earlier, later in pairwise(found))
    assert found[-1] < 0.02 < 0.1 < found[0]
    assert sizes == sorted(sizes)


def test_partial_patches_are_explained() -> None:
    values = known(2, (), (31, 43)).astype(np.float32)
    codec = ImagePatchCodec(bits=10, model=MODELS[2])
    assert errors(values, codec.decode(codec.encode(values))) < 0.05


@pytest.mark.parametrize("n_channels", [1, 2, 4, 5])
def test_channels_that_the_model_does_not_have(n_channels: int) -> None:
    """Grey stands for all colours, alpha for the colours of one more image."""
    shades = known(2, (), (36, 40)).astype(np.float32)
    values = np.concatenate([shades, shades.mean(-1, keepdims=True)] * 2, axis=-1)
    values = values[..., :3].mean(-1, keepdims=True) if n_channels == 1 else values
    values = values[..., :n_channels]
    codec = ImagePatchCodec(bits=10, model=MODELS[2], channels="last")
    decoded = codec.decode(codec.encode(values))
    assert errors(values, decoded) < (0.05 if n_channels in (1, 4) else 0.6)


def test_colours_are_found_where_they_usually_are() -> None:
    values = known(2, (2,), (24, 24)).astype(np.float32)
    auto = ImagePatchCodec(bits=8, model=MODELS[2])
    for colours, channels in ((values, "last"), (np.moveaxis(values, -1, 1), "first")):
        payload = ImagePatchCodec(bits=8, model=MODELS[2], channels=channels).encode(colours)
        assert auto.encode(colours) == payload


def test_gaps_do_not_reach_their_neighbours() -> None:
    values = known(2, (), (36, 40)).astype(np.float32)
    with_gaps = values.copy()
    with_gaps[5:9, 3:20] = np.nan  # some of the patches
    with_gaps[24:36, 8:24, 1] = np.inf  # whole ones, in one channel
    codec = ImagePatchCodec(bits=12, model=MODELS[2])
    decoded = codec.decode(codec.encode(with_gaps))
    kept = np.isfinite(with_gaps)
    assert decoded[~kept].tobytes() == with_gaps[~kept].tobytes()
    whole = kept.copy()
    whole[24:36, 8:24] = False  # channels of a cell are fitted together
    assert np.abs(decoded - values)[whole].max() < 0.02


def test_what_is_not_finite_at_all_comes_back() -> None:
    values = np.full((20, 20), np.nan, np.float32)
    codec = ImagePatchCodec(bits=8, model=MODELS[2])
    assert codec.decode(codec.encode(values)).tobytes() == values.tobytes()


def test_what_the_model_does_not_know_is_kept_and_told() -> None:
    noise = np.random.default_rng(0).random((48, 40, 3), np.float32)
    codec = ImagePatchCodec(bits=8, model=MODELS[2])
    with pytest.warns(CompressionWarning, match="explains only"):
        payload = codec.encode(noise)
    assert errors(noise, codec.decode(payload)) < 1


def test_a_region_needs_no_more_than_its_bands() -> None:
    codec = AudioPatchCodec(bits=8, model=MODELS[1], band_cells=400)
    payload = codec.encode(grey(1, (), (4000,)))
    expected = codec.decode(payload)
    for start, stop in ((0, 1), (799, 801), (3999, 4000), (1234, 3210)):
        region = codec.decode_region(payload, slice(start, stop))
        np.testing.assert_array_equal(region, expected[start:stop])


@pytest.mark.parametrize("spatial", CODECS)
def test_threads_do_not_change_a_bit(spatial: int) -> None:
    values = grey(spatial, (2,), SHAPES[spatial][1])
    values[0].reshape(-1)[::7] = np.nan
    seen = set()
    for threads in (1, 2, 5):
        with coinpp_xr.config.set(threads=threads):
            codec = CODECS[spatial](bits=9, model=MODELS[spatial], channels="none", band_cells=500)
            payload = codec.encode(values)
            seen.add((payload, codec.decode(payload).tobytes()))
    assert len(seen) == 1


# ---- models and configurations -------------------------------------------------------------------


@pytest.mark.parametrize("spatial", CODECS)
def test_the_configuration_names_the_one_model(spatial: int) -> None:
    codec = CODECS[spatial](bits=7, model=MODELS[spatial])
    made = codec.get_config()
    assert (made["bits"], made["fingerprint"]) == (7, MODELS[spatial].fingerprint)
    assert made["model"] == MODELS[spatial].name
    payload = codec.encode(grey(spatial, *SHAPES[spatial]))
    for again in (numcodecs.get_codec(made), pickle.loads(pickle.dumps(codec))):
        assert again == codec
        np.testing.assert_array_equal(again.decode(payload), codec.decode(payload))


@pytest.mark.parametrize(("codec", "other"), [(1, 2), (2, 3), (3, 1)])
def test_a_model_for_other_patches_is_refused(codec: int, other: int) -> None:
    message = refusal(lambda: CODECS[codec](bits=8, model=MODELS[other]))
    assert f"patches of {other} axes" in message


def test_a_model_for_globes_is_refused(tiny_model: Model) -> None:
    assert "globes" in refusal(lambda: ImagePatchCodec(bits=8, model=tiny_model))


def test_bits_need_a_model() -> None:
    assert "bits needs a model" in refusal(lambda: ImagePatchCodec(bits=8, model="none"))


def test_a_model_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(lambda: ImagePatchCodec(bits=8, model="absent"), ModelNotFoundError)
    assert "absent" in message
    codec = ImagePatchCodec(bits=8, model=MODELS[2])
    payload = codec.encode(known(2, (), (24, 24)).astype(np.float32))
    monkeypatch.setattr(models, "_loaded", models.Loaded())
    message = refusal(lambda: codec.decode(payload), ModelNotFoundError)
    assert MODELS[2].name in message


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("spatial", CODECS)
def test_zarr_store(tmp_path: Any, zarr_format: int, spatial: int) -> None:
    values = grey(spatial, (), SHAPES[spatial][1])
    assert MODELS[spatial].box is not None
    size = MODELS[spatial].box.shape
    codec = CODECS[spatial](bits=8, model=MODELS[spatial])
    array = zarr.create_array(
        tmp_path / "out.zarr", shape=values.shape, chunks=tuple(2 * n for n in size),
        dtype=values.dtype, zarr_format=zarr_format, compressors=[codec], fill_value=np.nan,
    )  # fmt: skip
    array[:] = values
    read = zarr.open_array(tmp_path / "out.zarr", mode="r")[:]
    assert errors(values, read) < 0.05


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def payload() -> bytes:
    values = known(2, (2,), (30, 26)).astype(np.float32)
    values[0, 3:5, 4:7] = np.nan
    return ImagePatchCodec(bits=8, model=MODELS[2]).encode(values)


def test_damage_is_seen(payload: bytes) -> None:
    codec, rng = ImagePatchCodec(bits=8, model=MODELS[2]), np.random.default_rng(0)
    for position in rng.integers(0, len(payload), 60):
        flipped = bytearray(payload)
        flipped[position] ^= 1 << int(rng.integers(8))
        refusal(lambda damaged=bytes(flipped): codec.decode(damaged), CorruptPayloadError)
    for length in (0, 3, 20, len(payload) // 2, len(payload) - 1):
        refusal(lambda n=length: codec.decode(payload[:n]), CorruptPayloadError)


@pytest.mark.parametrize("tag", [Tag.LATENTS, Tag.MEANS, Tag.PATCHES, Tag.MASK])
def test_damage_behind_a_valid_checksum_is_an_array_or_refused(payload: bytes, tag: Tag) -> None:
    whole, rng = Payload.unpack(payload), np.random.default_rng(int(tag))
    codec = ImagePatchCodec(bits=8, model=MODELS[2])
    for _ in range(60):
        section = bytearray(whole.section(tag))
        section[rng.integers(len(section))] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.2:
            section = section[: rng.integers(len(section))]
        damaged = Payload(
            whole.kind, whole.shape, whole.dtype, {**whole.sections, tag: bytes(section)},
            whole.fingerprint, bits=whole.bits,
        ).pack()  # fmt: skip
        try:
            decoded = codec.decode(damaged)
        except CorruptPayloadError:
            continue
        assert decoded.shape == whole.shape


@pytest.mark.parametrize("bits", [0, 17, 255])
def test_impossible_bits_are_refused(payload: bytes, bits: int) -> None:
    whole = Payload.unpack(payload)
    damaged = Payload(
        whole.kind, whole.shape, whole.dtype, whole.sections, whole.fingerprint, bits=bits
    ).pack()
    refusal(lambda: ImagePatchCodec(bits=8, model=MODELS[2]).decode(damaged), CorruptPayloadError)


def test_patches_of_another_model_are_refused(payload: bytes) -> None:
    whole = Payload.unpack(payload)
    other = Payload(
        whole.kind, whole.shape, whole.dtype, whole.sections, MODELS[3].fingerprint,
        bits=whole.bits,
    ).pack()  # fmt: skip
    message = refusal(
        lambda: coinpp_xr.chunk_reading.decode_chunk(other, lambda _: MODELS[3]),
        CorruptPayloadError,
    )
    assert "not those of its model" in message
