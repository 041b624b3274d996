"""Models inside a codec's configuration."""

from __future__ import annotations

import contextlib
import json
import pickle

import numpy as np
import pytest
from refusals import refusal

import coinpp_xr
from coinpp_xr import COINppCodec
from coinpp_xr.compact import pack_model, pack_text, unpack_model, unpack_text
from coinpp_xr.models import Model
from coinpp_xr.network import LinearTail, QuantizedTail


@pytest.fixture
def with_tail(tiny_model: Model) -> Model:
    rng = np.random.default_rng(0)
    modes = rng.standard_normal((6, 25)) * 0.5 ** np.arange(6)[:, None]
    tail = QuantizedTail.of(LinearTail(rng.standard_normal(25), modes), np.ones(6), 1e-3)
    spectrum = rng.integers(-40, 0, (20, 9)).astype(np.int8)
    parts = {**vars(tiny_model), "name": "with-tail", "tail": tail, "spectrum": spectrum}
    names = Model.__dataclass_fields__
    return Model(**{name: value for name, value in parts.items() if name in names})


def test_the_same_model_comes_back(with_tail, tiny_model) -> None:
    for model in (with_tail, tiny_model):
        again = unpack_text(pack_text(model))
        assert again.fingerprint == model.fingerprint
        assert (again.name, again.units) == (model.name, model.units)


def test_packed_is_smaller_than_the_file(with_tail) -> None:
    assert len(pack_model(with_tail)) < 0.7 * len(with_tail.to_bytes())


def test_a_codec_carries_its_model(with_tail, tiny_globes, monkeypatch) -> None:
    codec = COINppCodec(with_tail, target_rmse=0.5, embed_model=True)
    payload = codec.encode(tiny_globes)
    config = json.loads(json.dumps(codec.get_config()))
    monkeypatch.setattr(
        coinpp_xr.models, "_loaded", coinpp_xr.models.Loaded()
    )  # as in another process
    again = COINppCodec.from_config(config)
    np.testing.assert_allclose(again.decode(payload), codec.decode(payload), atol=1e-4)
    assert len(repr(codec)) < 300
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert COINppCodec.from_config(again.get_config()) == codec


@pytest.mark.parametrize("position", range(0, 400, 7))
def test_damage_is_one_line(with_tail, position) -> None:
    packed = bytearray(pack_model(with_tail))
    packed[position % len(packed)] ^= 0x5A
    with contextlib.suppress(ValueError):
        # What passes can only be told by the fingerprint in the configuration.
        assert unpack_model(bytes(packed)).fingerprint != with_tail.fingerprint


def test_a_forged_model_is_refused(with_tail, tiny_model) -> None:
    config = COINppCodec(with_tail, target_rmse=1.0, embed_model=True).get_config()
    config["embed_model"] = pack_text(tiny_model)
    assert "fingerprint" in refusal(lambda: COINppCodec.from_config(config))


def test_large_models_are_refused_with_advice() -> None:
    message = refusal(lambda: COINppCodec(target_rmse=1.0, embed_model=True))
    assert "train a smaller one" in message


def test_truncated_text_is_refused(with_tail) -> None:
    refusal(lambda: unpack_text(pack_text(with_tail)[:50]))
    refusal(lambda: unpack_text('"not base85"'))
