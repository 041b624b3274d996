"""The suite of codecs' configurations, as an array's metadata holds them: any JSON, and more."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from corpus import OWN_GRID
from suites import Finding, Rng, only_promised_errors

import coinpp_xr
from coinpp_xr.codecs.base import Configured

CODECS: dict[str, type[Any]] = {
    codec.codec_id: codec
    for codec in (
        coinpp_xr.COINppCodec, coinpp_xr.COINppArrayCodec, coinpp_xr.ImagePatchCodec,
        coinpp_xr.VolumePatchCodec, coinpp_xr.AudioPatchCodec,
    )
}  # fmt: skip
_MOST_TEXT = 1 << 20


@cache
def seeds() -> list[dict[str, Any]]:
    """Configurations that are right."""
    uneven = 80 * np.linspace(-1, 1, 9) ** 3
    globes = [
        {"model": "none", "max_error": 0.5},
        {"model": "universal", "max_error": 0.5, "effort": "best"},
        {"model": "none", "max_error_relative": 0.01, "time_axis": 1, "keep": [0.0, 1.0]},
        {"model": "none", "target_rmse": 0.5, "max_mean_error": 0.1, "valid_range": [0.0, 1.0]},
        {"bits": 8, "effort": "fast", "to_model_unit": [1, 273.15]},
        {"bits": 8, "latitude": OWN_GRID.latitude, "longitude": OWN_GRID.longitude},
        {"model": "none", "max_error": 1, "latitude": uneven, "longitude": [0.0, 1.0, 3.0]},
        {"max_error": 1, "chunk": [[24, 46, 90], "<f4"]},
    ]
    patches = [
        {"target_psnr": 30, "data_range": 2.5}, {"target_bpp": 0.5, "model": "none"},
        {"max_error": 2, "channels": "last", "band_cells": 4096}, {"bits": 8},
        {"target_rmse": 1, "patch_size": 8, "chunk": [[8, 8, 8], "|u1"]},
    ]  # fmt: skip
    of_globes = (coinpp_xr.COINppCodec, coinpp_xr.COINppArrayCodec)
    made = [codec(**settings) for codec in of_globes for settings in globes]
    for codec in (coinpp_xr.ImagePatchCodec, coinpp_xr.VolumePatchCodec, coinpp_xr.AudioPatchCodec):
        made += [codec(**settings) for settings in patches]
    return [one.get_config() for one in made]


def mutate(rng: Rng) -> bytes:
    """A configuration with one to three changes, as JSON that Python reads."""
    config = json.loads(json.dumps(_one_of(rng, seeds())))
    for _ in range(int(rng.integers(1, 4))):
        config = _changed(rng, config)
    text = json.dumps(config)
    for mark, number in (("huge", "1" + "0" * 400), ("far", "1e999"), ("vast", "9" * 4000)):
        text = text.replace(f'"<{mark}>"', number)
    return text.encode()


def judge(data: bytes) -> str:
    """Make a codec of a configuration, and use it as a store's reader does.

    Raises
    ------
    Finding
    """
    config = json.loads(data)
    refused: list[Exception] = []
    codec_id = config.get("id") if isinstance(config, dict) else None
    kind = CODECS.get(codec_id, coinpp_xr.COINppCodec) if isinstance(codec_id, str) else None
    kind = kind or coinpp_xr.COINppCodec
    with only_promised_errors(ValueError, refused=refused):
        codec = kind.from_config(config)
    again: list[Exception] = []
    with only_promised_errors(ValueError, refused=again):
        kind.from_dict({"name": kind.codec_id, "configuration": config})
    # Zarr may leave a configuration out, which is one without entries.
    if bool(again) != bool(refused) and config is not None:
        raise Finding("from_dict and from_config do not agree")
    if refused:
        return type(refused[0]).__name__
    with only_promised_errors():
        _use(codec)
    return "codec"


def declared(data: bytes) -> int:
    return 0


def warm_up() -> None:
    """Loads models."""
    for config in seeds():
        if judge(json.dumps(config).encode()) != "codec":
            raise Finding(f"refused a valid configuration: {config}")


def _use(codec: Configured) -> None:
    text = repr(codec)
    if len(text) > 2000 or not text.isprintable():
        raise Finding(f"a long or unprintable repr: {text[:200]!r}")
    config = codec.get_config()
    again = type(codec).from_config(json.loads(json.dumps(config, allow_nan=False)))
    if again != codec or hash(again) != hash(codec):
        raise Finding("is another codec after it was written and read")


# ---- changes -------------------------------------------------------------------------------------


def _one_of(rng: Rng, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _text(rng: Rng) -> str:
    kind = int(rng.integers(7))
    if kind == 0:
        return "x" * int(rng.integers(1, _MOST_TEXT))
    return str(
        _one_of(
            rng,
            (
                "", "none", "auto", "\x1b[2Jevil\n", "../../etc/passwd", "/tmp/model.safetensors",
                "http://127.0.0.1/x", "t2m-46x90", "0" * 16, "é" * 30, "1", "nan", "<f4", "|O", "V",
                "True", "a\x00b", "\u202e", "last", "best",
            ),
        )
    )  # fmt: skip


def _value(rng: Rng, depth: int = 0) -> Any:
    choice = int(rng.integers(12))
    if choice < 5:
        return _one_of(
            rng,
            (
                0, 1, -1, 2, 3, 8, 17, 255, 1 << 16, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 0.5,
                1e-3, 1e-320, 1e300, 1e308, -0.0, True, False, None, float("nan"), float("inf"),
                "<huge>", "<vast>", "<far>",
            ),
        )  # fmt: skip
    if choice < 7:
        return _text(rng)
    if choice < 9:
        return _axis(rng)
    if choice == 9:
        nested: Any = []
        for _ in range(int(rng.integers(1, 400))):
            nested = [nested] if rng.random() < 0.9 else {"a": nested}
        return nested
    if depth > 2:
        return []
    length = _one_of(rng, (0, 1, 2, 2, 2, 3, 5, 1000, 100_000))
    if length > 10:
        return [_one_of(rng, (0.5, 3, "x", True, None, []))] * length
    return [_value(rng, depth + 1) for _ in range(length)]


def _axis(rng: Rng) -> dict[str, Any]:
    axis = {
        "count": _one_of(rng, (4, 5, 0, -1, 1 << 20, 10**12, True, 2.5, "4", "<huge>")),
        "start": _one_of(rng, (-80.0, 0, 1e300, "<huge>", None, "0", float("nan"))),
        "step": _one_of(rng, (1.0, 0, 1e300, -1e308, "<huge>", [1])),
    }
    if rng.random() < 0.5:
        axis["divisor"] = _one_of(rng, (1, 2, 0, 1e-320, "<huge>", "2", -1))
    if rng.random() < 0.3:
        axis["dtype"] = _one_of(rng, ("<f4", "<f8", ">f4", "O", 3, None))
    if rng.random() < 0.4:
        axis["packed"] = _one_of(rng, ("", "!!", "c-n" * 400_000, 5, "é", "c-jFO0Q*P*"))
    if rng.random() < 0.1:
        axis[_text(rng)] = 1
    return axis


def _changed(rng: Rng, config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    config = dict(config)
    names = [name for name in config if name != "id"]
    every = sorted({name for one in seeds() for name in one if name != "id"} | {"embed_model"})
    match int(rng.integers(10)):
        case 0 if names:
            config.pop(_one_of(rng, names))
        case 1:
            config[_text(rng)] = _value(rng)
        case 2:
            config["id"] = _one_of(rng, (*CODECS, "zlib", 5, None))
        case 3 if rng.random() < 0.2:
            return _value(rng)
        case 4 if names:
            name = _one_of(rng, names)
            if isinstance(config[name], dict):
                config[name] = {**config[name], _one_of(rng, sorted(config[name])): _value(rng)}
            elif isinstance(config[name], list) and config[name]:
                values = list(config[name])
                values[int(rng.integers(len(values)))] = _value(rng)
                config[name] = values
        case 5:
            config.update(_one_of(rng, seeds()))
        case 6:
            config["latitude"], config["longitude"] = _axis(rng), _axis(rng)
        case _:
            config[_one_of(rng, every)] = _value(rng)
    return config
