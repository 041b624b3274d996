"""Safeguards as plain JSON, for the tests and the benchmark."""

from __future__ import annotations

from typing import Any


def bound(error: float) -> dict[str, Any]:
    return {"kind": "eb", "type": "abs", "eb": error}


def stencil(qoi: str, axis: int, before: int, boundary: str, error: float) -> dict[str, Any]:
    neighbourhood = [{"axis": axis, "before": before, "after": 1, "boundary": boundary}]
    return {
        "kind": "qoi_eb_stencil", "qoi": qoi, "neighbourhood": neighbourhood, "type": "abs",
        "eb": error, "qoi_dtype": "float64",
    }  # fmt: skip
