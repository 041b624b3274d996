"""docs/bitstream.md is complete: the decoder that it spells out reads every golden payload."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bound_cases import OWN
from test_docs import ROOT, run_blocks
from test_golden import GOLDEN, PAYLOADS

# Its loops are Python's; these take ten seconds.
SLOW = {"patches-image-lossless-u1"}
# Told in outline while its format is still in the making.
OUTLINED = {
    "cells-placed-f4",
    "cells-ring-f4",
    "cells-rows-f8",
    "cells-triangles-f4",
    "exact-pyramid-f8",
    "levels-f4",
    "pyramid-exact-f4",
    "pyramid-f4",
    "pyramid-from-model-f4",
    "pyramid-from-model-gaps-f8",
    "pyramid-gaps-second-axis-f8",
    "pyramid-mixed-f4",
    "pyramid-relative-f4",
    "wavelets-f4",
    "wavelets-gaps-f4",
    "waves-f8",
    "waves-in-time-f4",
}
PATHS = [path for path in PAYLOADS if path.stem not in SLOW | OUTLINED]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> dict[str, Any]:
    return run_blocks(ROOT / "docs/bitstream.md", tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def models(page) -> dict[str, Any]:
    found = [page["read_model"](p.read_bytes()) for p in GOLDEN.glob("format-*/*.safetensors")]
    return {model["fingerprint"]: model for model in found}


def test_slow_payloads_are_golden() -> None:
    assert {path.stem for path in PAYLOADS} >= SLOW | OUTLINED


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_the_page_decodes_golden_payloads(page, models, path) -> None:
    expected = np.load(path.with_suffix(".npy"))
    own = (OWN.latitude, OWN.longitude) if "own" in path.stem else None
    with np.errstate(over="ignore", invalid="ignore"):
        got = page["decode"](path.read_bytes(), models, own)
    assert got.dtype == expected.dtype
    assert got.tobytes() == expected.tobytes()
