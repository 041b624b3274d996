"""Valid payloads to start from: of every kind, type and section, all small."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.cells.places import unpack
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.coarseness import checked_before
from coinpp_xr.coordinates import IndexGrid, SphereGrid
from coinpp_xr.errors import CorruptPayloadError, ModelNotFoundError
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model

TESTS = Path(__file__).parent.parent / "tests"
sys.path.append(str(TESTS))

from bound_cases import KINDS, golden_model, golden_models  # noqa: E402

OWN_GRID = SphereGrid(
    np.array([60.0, 20.0, -10.0, -50.0]), np.array([0.0, 50.0, 100.0, 200.0, 300.0])
)


def grid_for(payload: bytes) -> SphereGrid:
    """Where cells are: at the places of the golden payload, if there are as many; or the grid."""
    places = _golden_places()
    try:
        shape = Payload.unpack(payload).shape
    except CorruptPayloadError:
        return OWN_GRID
    return places if shape[-2:] == places.shape else OWN_GRID


@cache
def _golden_places() -> SphereGrid:
    (config,) = TESTS.glob("golden/format-*/cells-placed-*.json")
    places = unpack(json.loads(config.read_text())["grid"]["places"])
    return IndexGrid.of((1, places.shape[1]), places=places)


def find_model(fingerprint: str) -> Model:
    """One of the models that there are."""
    if fingerprint not in golden_models():
        raise ModelNotFoundError(f"no model with fingerprint {fingerprint}")
    return golden_models()[fingerprint]


@cache
def seeds() -> list[bytes]:
    """The golden payloads, and others that are encoded now.

    Those with coordinates of their own have those of :data:`OWN_GRID`.
    """
    golden = sorted(TESTS.glob("golden/format-*/*.cnpp"))
    found = [path.read_bytes() for path in golden]
    with checked_before():  # bounds are coarse for some
        found += [
            encode_chunk(values, golden_model() if known else None, **options)
            for values, known, options in _arrays()
        ]
    found += [
        Payload.unpack(payload).placed(bytes(range(8))).pack() for payload in (found[0], found[-1])
    ]
    _check_that_nothing_is_missing(found)
    return found


def _arrays() -> list[tuple[np.ndarray, bool, dict[str, Any]]]:
    """Arrays, whether the model is given, and options of the encoder."""
    rng = np.random.default_rng(0)
    chosen: list[tuple[np.ndarray, bool, dict[str, Any]]] = []
    rates = [
        {"target_rmse": 0.5},
        {"bound": Bound(0.3)},
        {"bound": Bound(0.3), "effort": "fast"},
        {"bound": Bound(0.01, relative=True)},
    ]
    for kind in ("smooth", "known", "known and noise", "steps", "spikes", "rain"):
        for number, options in enumerate(rates):
            for shape in ((5, 10, 20), (2, 3, 6, 9), (8, 12)):
                values = KINDS[kind](rng, shape).astype(("<f4", ">f4", "<f8", ">f8")[number])
                if rng.random() < 0.4:
                    values[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -0.0])
                if rng.random() < 0.3:
                    values[..., :3, 2:5] = np.nan
                time_axis = int(rng.integers(0, max(1, len(shape) - 2)))
                known = kind.startswith("known")
                chosen.append((values, known, {**options, "time_axis": time_axis}))
    points = next(SphereGrid.usual_layouts(10, 20)).points
    swell = np.sin(np.arange(60)[:, None] / 25 + points @ np.array([3.0, 5.0, 1.0]))
    waves = np.sin(np.arange(30)[:, None] / 9 + np.arange(5)).astype(np.float32)
    slow = 200 + 100 * golden_model().network(points, waves)[..., 0].reshape(-1, 10, 20)
    for bound in (Bound(0.2), Bound(0.5)):
        chosen.append((20 * swell.reshape(-1, 10, 20), False, {"bound": bound}))
        chosen.append((slow.astype(np.float32), True, {"bound": bound}))
    for dtype in ("i2", ">i4", "u1", "?", "c8", "S5", "M8[ns]", "f4", ">f2"):
        values = rng.integers(0, 50, (2, 4, 5)).astype(dtype)
        chosen.append((values, False, {"bound": Bound(1e-9)}))
        chosen.append((np.asfortranarray(values), False, {"bound": Bound(1e-9)}))
    packed = np.rint(8 * KINDS["smooth"](rng, (4, 10, 20)))
    for dtype, step in (("<f4", 0.01), (">f8", 0.01), ("<f4", 0.25), ("<i2", 1)):
        values = (packed * step + 280 * (step < 1)).astype(dtype)
        for effort in ("fast", "default"):
            chosen.append((values, False, {"bound": Bound(0.0), "effort": effort}))
    noisy = packed * np.float32(0.01) + rng.choice([0, 0.001], (4, 1, 1))
    noisy[:, 2:4, 3:9] = np.nan
    chosen.append((noisy.astype(np.float32), False, {"bound": Bound(0.0)}))
    for dtype in ("<f4", ">f8"):
        never = KINDS["known and noise"](rng, (4, 10, 20)).astype(dtype)
        never[0, 3:5] = np.nan
        chosen.append((never, False, {"bound": Bound(0.0)}))
    like = KINDS["like the reference"](rng, (3, 10, 20)).astype(np.float32)
    like[:, 4] = np.nan
    chosen.append((like, True, {"bound": Bound(0.5)}))
    return chosen


def _check_that_nothing_is_missing(found: list[bytes]) -> None:
    payloads = [Payload.unpack(payload) for payload in found]
    missing = set(Kind) - {payload.kind for payload in payloads}
    missing |= set(Tag) - {tag for payload in payloads for tag in payload.sections}
    if missing:
        raise RuntimeError(f"no payload to start from has {missing}")
