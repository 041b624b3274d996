"""Random fields with exact values, limits and masks, and what must be true of them afterwards."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from coinpp_xr import COINppCodec
from coinpp_xr.coordinates import area_weights
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.shared_values import shared_values

KINDS = ("fraction", "rain", "saturated", "steps", "night", "flags", "smooth", "packed")
SHAPES = ((1, 12, 24), (5, 9, 30), (2, 31, 17), (1, 46, 90), (3, 24, 48))


def smooth(rng, shape, roughness=0.1):
    """Fields around zero, of a size of about one."""
    items, rows, columns = shape
    y, x = np.linspace(0, 3, rows)[:, None], np.linspace(0, 2 * np.pi, columns)
    fields = np.zeros(shape)
    for _ in range(4):
        a, b, c = rng.uniform(-2, 2), rng.integers(1, 4), rng.uniform(0, 6)
        drift = 0.2 * np.arange(items)[:, None, None]
        fields += rng.uniform(0.2, 0.6) * np.sin(a * y + b * x + c + drift)
    return fields + roughness * rng.standard_normal(shape)


def mean_errors(back, values):
    """Of every field, by area, over finite cells; and the mean magnitude."""
    rows, columns = values.shape[-2:]
    weights = area_weights(np.linspace(90, -90, rows), columns).reshape(rows, columns)
    counted = np.isfinite(values)
    area = np.maximum((counted * weights).sum(axis=(-2, -1)), 1e-30)
    known = np.where(counted, values, 0).astype("f8")
    errors = np.where(counted, back.astype("f8") - known, 0)
    return [np.abs((a * weights).sum((-2, -1))) / area for a in (errors, np.abs(known))]


def wrong(values, back, control: dict[str, float], exact: dict[str, Any]) -> str:
    """What came back otherwise than promised, if anything did."""
    finite, (limit,) = np.isfinite(values), control.values()
    if back.dtype != values.dtype or not np.array_equal(
        back[~finite], values[~finite], equal_nan=True
    ):
        return "missing values are not what they were"
    if back[finite].min() < values[finite].min() or back[finite].max() > values[finite].max():
        return "values are out of the range of the original"
    rows, columns = values.shape[-2:]
    shared = shared_values(values.reshape(-1, rows, columns), finite.reshape(-1, rows, columns))
    for value in [*shared, *exact.get("keep", ())]:
        if not (back[values == value] == value).all():
            return f"{value} is no longer what it was"
    off, sizes = mean_errors(back, values)
    allowed: Any = exact.get("max_mean_error", limit / 20)
    if "max_error_relative" in control and "max_mean_error" not in exact:
        allowed = limit / 20 * sizes
    if not (off <= allowed * (1 + 1e-3) + 1e-9 * sizes).all():
        return f"a mean is off by {(off / allowed).max():.3g} times what it may be"
    errors = np.abs(back[finite].astype("f8") - values[finite])
    if "max_error" in control and errors.max() > limit:
        return "the bound is not kept"
    if "max_error_relative" in control and (errors > limit * np.abs(values[finite])).any():
        return "the relative bound is not kept"
    return ""


@dataclass(frozen=True)
class ExactCase:
    """One array and how it is coded."""

    seed: int
    kind: str
    shape: tuple[int, ...]
    dtype: str
    gaps: str
    control: str
    limit: float
    effort: str
    beside: str

    @classmethod
    def random(cls, rng: np.random.Generator) -> Self:
        return cls(
            int(rng.integers(2**31)), str(rng.choice(KINDS)), SHAPES[rng.integers(len(SHAPES))],
            str(rng.choice(["f4", "f4", "f4", "f8", "f2", ">f4"])),
            str(rng.choice(["none", "none", "land", "scattered"])),
            str(rng.choice(["max_error", "max_error", "target_rmse", "max_error_relative"])),
            float(10 ** rng.uniform(-3, -0.4)),
            str(rng.choice(["fast", "fast", "default"])),
            str(rng.choice(["nothing", "nothing", "keep", "max_mean_error"])),
        )  # fmt: skip

    def values(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        field = smooth(rng, self.shape, rng.choice([0.01, 0.1, 0.4]))
        low = float(np.quantile(field, rng.uniform(0.02, 0.9)))
        high = max(float(np.quantile(field, rng.uniform(0.5, 0.98))), low + 0.05)
        if self.kind == "fraction":
            field = (np.clip(field, low, high) - low) / (high - low)
        elif self.kind == "rain":
            field = np.maximum(field - low, 0) ** 2
        elif self.kind == "saturated":
            field = np.minimum(field, high) + 280
        elif self.kind == "steps":
            field = np.where(field > low, field + 5, -1.5)
        elif self.kind == "night":
            field = np.where(np.abs(smooth(rng, self.shape)) < 0.4, 0.25, field)
        elif self.kind == "flags":
            field = np.floor(3 * field)
        elif self.kind == "packed":
            field = np.round(field, 2)
        if self.gaps == "land":
            field = np.where(smooth(rng, (1, *self.shape[1:]), 0) > 0.3, np.nan, field)
        elif self.gaps == "scattered":
            field = np.where(rng.random(self.shape) < 0.1, np.nan, field)
        return field.astype(self.dtype)

    def code(self) -> tuple[np.ndarray, bytes, np.ndarray, dict[str, float], dict[str, Any]]:
        """Values, payload, what comes back, the control and what stands beside it."""
        values = self.values()
        control = {self.control: self.limit}
        exact: dict[str, Any] = {}
        if self.beside == "keep":
            exact["keep"] = (
                [float(values[np.isfinite(values)][0])] if np.isfinite(values).any() else [0.0]
            )
        elif self.beside == "max_mean_error":
            exact["max_mean_error"] = self.limit / 100
        rows, columns = self.shape[1:]
        codec = COINppCodec(
            model="none", effort=self.effort, **control, **exact,
            latitude=np.linspace(90, -90, rows), longitude=np.arange(columns) * 360 / columns,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CompressionWarning)
            payload = codec.encode(values)
        return values, payload, codec.decode(payload), control, exact

    def check(self) -> str:
        values, _, back, control, exact = self.code()
        if not np.isfinite(values).any():
            return ""
        return wrong(values, back, control, exact)
