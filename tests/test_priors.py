"""What the coder of patches has learned elsewhere: small, exact, harmless where it is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bound_cases import golden_patch_model
from refusals import refusal

import coinpp_xr
from coinpp_xr import CorruptPayloadError, ImagePatchCodec, VolumePatchCodec
from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.blocks import State, new_state
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.compact import pack_text, unpack_text
from coinpp_xr.models import Model
from coinpp_xr.patch_learning import learn_prior
from coinpp_xr.patches import Layout, Patching
from coinpp_xr.priors import Prior


def shades(seed: int, rows: int = 96, columns: int = 80) -> np.ndarray:
    """Clouds of random colour, float32."""
    rng = np.random.default_rng(seed)
    clouds = rng.standard_normal((rows, columns, 3)).cumsum(0).cumsum(1)
    return (clouds / clouds.std() + 0.03 * rng.standard_normal(clouds.shape)).astype(np.float32)


def stripes(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :80]
    waves = np.sin(rows / rng.uniform(1, 2) + columns)[..., None] * [1, -1, 0.5]
    return np.asarray(np.sign(waves) + 0.3 * rng.standard_normal(waves.shape), np.float32)


def learned(arrays: list[np.ndarray]) -> Prior:
    return learn_prior(arrays, Layout(2, "last"), Patching.of((32, 32)))


@pytest.fixture(scope="module")
def prior() -> Prior:
    return learned([shades(seed) for seed in range(6)])


def with_prior(prior: Prior | None) -> Model:
    """A model of nothing else."""
    return coinpp_xr.load_model(
        replace(golden_patch_model(), name="learned", prior=prior, deblocking=None)
    )


def same(one: State, other: State) -> bool:
    return all(
        np.array_equal(a.chances, b.chances) and np.array_equal(a.weights, b.weights)
        for a, b in zip(one, other, strict=True)
    )


def test_a_prior_is_small_and_comes_back(prior: Prior, tmp_path: Any) -> None:
    assert len(prior.packed) < 60_000
    assert not same(prior.state, new_state())
    assert same(Prior(prior.packed.copy()).state, prior.state)
    model = with_prior(prior)
    model.save(tmp_path / "learned.safetensors")
    for again in (
        Model.from_file(tmp_path / "learned.safetensors"), unpack_text(pack_text(model))
    ):  # fmt: skip
        assert again.prior is not None
        assert same(again.prior.state, prior.state)
        assert again.fingerprint == model.fingerprint


def test_learning_is_deterministic_and_its_seed_counts(prior: Prior) -> None:
    arrays = [shades(seed) for seed in range(6)]
    assert learned(arrays).packed.tobytes() == prior.packed.tobytes()
    other = learn_prior(arrays, Layout(2, "last"), Patching.of((32, 32)), seed=1)
    assert other.packed.tobytes() != prior.packed.tobytes()


def test_nothing_can_be_learned_from_constants() -> None:
    constants = [np.zeros((40, 40, 3), np.float32), np.ones((9, 9, 3), np.float32)]
    assert "all values are the same" in refusal(lambda: learned(constants))
    assert learned([*constants, shades(0)]).packed.size > 0


def test_data_like_it_takes_fewer_bytes(prior: Prior) -> None:
    unseen = shades(100, 60, 50)
    for control in ({"target_rmse": 0.05}, {"target_rmse": 0.2}, {"target_psnr": 23}):
        alone = ImagePatchCodec(model="none", **control)
        helped = ImagePatchCodec(model=with_prior(prior), **control)
        with_help = helped.encode(unseen)
        assert len(with_help) < 0.95 * len(alone.encode(unseen))
        assert Payload.unpack(with_help).kind == Kind.PATCHES_FROM_MODEL


@pytest.mark.parametrize(
    "control",
    [{"target_rmse": 0.2}, {"target_bpp": 1.5}, {"max_error": 0.3}, {"max_error_relative": 0.2}],
    ids=str,
)
def test_data_unlike_it_keeps_to_every_rate(prior: Prior, control: dict[str, float]) -> None:
    values = stripes(0)
    codec = ImagePatchCodec(model=with_prior(prior), **control)
    payload = codec.encode(values)
    error = np.abs(codec.decode(payload).astype(np.float64) - values)
    if "target_rmse" in control:
        assert np.sqrt((error**2).mean()) <= control["target_rmse"]
    elif "target_bpp" in control:
        assert 8 * len(payload) <= control["target_bpp"] * values[..., 0].size
    else:
        allowed = control.get("max_error") or control["max_error_relative"] * np.abs(values)
        assert (error <= allowed).all()


def test_a_prior_for_other_axes_is_not_used(prior: Prior) -> None:
    volume = shades(0)[..., 0].reshape(16, 20, 24)
    message = refusal(lambda: VolumePatchCodec(target_rmse=0.1, model=with_prior(prior)))
    assert "patches of 2 axes" in message
    alone = VolumePatchCodec(target_rmse=0.1, model="none").encode(volume)
    assert Payload.unpack(alone).kind == Kind.PATCHES


def test_decoding_with_another_prior_is_refused_or_wrong_but_ends(prior: Prior) -> None:
    values = shades(7)
    codec = ImagePatchCodec(target_rmse=0.1, model=with_prior(prior))
    payload = codec.encode(values)
    right = codec.decode(payload)
    for other in (learned([stripes(1), stripes(2)]), None):
        model = with_prior(other)
        try:
            wrong = decode_chunk(payload, lambda _, model=model: model)
        except CorruptPayloadError:
            continue
        assert wrong.shape == right.shape
        assert not np.array_equal(wrong, right)


def test_half_a_prior_is_refused(prior: Prior) -> None:
    for packed in (
        prior.packed[: len(prior.packed) // 2], prior.packed[:-50], prior.packed[:0],
        np.zeros(100, np.uint8), np.full(100, 255, np.uint8),
    ):  # fmt: skip
        message = refusal(lambda packed=packed: Prior(packed).state)
        assert "prior is damaged" in message


def test_a_damaged_prior_is_refused_or_merely_useless(prior: Prior) -> None:
    """Model files are protected by their fingerprint; what it lets through must not crash."""
    rng, values = np.random.default_rng(0), shades(8, 40, 40)
    usable = 0
    for position in rng.integers(0, len(prior.packed), 25):
        packed = prior.packed.copy()
        packed[position] ^= 1 << int(rng.integers(8))
        damaged = Prior(packed)
        try:
            _ = damaged.state
        except ValueError as error:
            assert "prior is damaged" in str(error)  # noqa: PT017
            continue
        usable += 1
        codec = ImagePatchCodec(target_rmse=0.2, model=with_prior(damaged))
        error = codec.decode(codec.encode(values)).astype(np.float64) - values
        assert np.sqrt((error**2).mean()) <= 0.2
    assert usable < 25


def test_a_model_file_with_another_prior_is_refused(prior: Prior, tmp_path: Any) -> None:
    path = tmp_path / "learned.safetensors"
    with_prior(prior).save(path)
    content = path.read_bytes()
    start = content.index(prior.packed.tobytes())
    damaged = bytearray(content)
    damaged[start + 1000] ^= 1
    path.write_bytes(damaged)
    assert "prior is damaged" in refusal(lambda: Model.from_file(path))
