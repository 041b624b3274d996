"""Arrays for the codecs of patches: every type, every kind of numbers, every rate control."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from bound_cases import (
    GAPS,
    KINDS,
    LAYOUTS,
    Rng,
    Shape,
    broken,
    choose,
    largest_and_spread,
    typed,
    unlike,
    with_gaps,
)

from coinpp_xr import AudioPatchCodec, ImagePatchCodec, VolumePatchCodec
from coinpp_xr.bitstream import pack_lossless

CODECS = {"image": ImagePatchCodec, "volume": VolumePatchCodec, "audio": AudioPatchCodec}
# What needs a globe's model is no matter of patches.
PATCH_KINDS = [kind for kind in KINDS if not kind.startswith(("known", "like"))]
PATCH_DTYPES = [
    order + name
    for name in ("f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    for order in "<>"
]
CONTROLS = ("max_error", "max_error_relative", "target_rmse", "target_psnr", "target_bpp")
EXTENTS = (1, 2, 3, 5, 8, 13, 20, 33)
MOST_CELLS = 20_000
# Of integers, in units of the last place.
SPANS = (10.0, 1e3, 1e9, 1e15, 1e18)
OFFSETS = (0, 100, 2**53, 2**62)
# What a payload says of itself, at most.
HEADER = 100


@dataclass(frozen=True)
class PatchCase:
    """An array and a codec of patches; see the tables above for the names."""

    codec: str
    kind: str
    shape: Shape
    dtype: str
    gaps: str
    layout: str
    control: str
    amount: float
    seed: int

    @classmethod
    def random(cls, rng: Rng) -> PatchCase:
        one_of = partial(choose, rng)
        codec = one_of(CODECS)
        shape = [one_of(EXTENTS) for _ in range(int(rng.integers(3, 6)))]
        while prod(shape) > MOST_CELLS:
            shape[shape.index(max(shape))] = 2
        control = one_of(CONTROLS)
        amounts = {"target_psnr": (10, 90), "target_bpp": (-2, 1.2), "max_error_relative": (-8, 0)}
        amount = float(rng.uniform(*amounts.get(control, (-5, 1))))
        return cls(
            codec, one_of(PATCH_KINDS), tuple(shape), one_of(PATCH_DTYPES), one_of(GAPS),
            one_of(LAYOUTS), control, amount, int(rng.integers(2**32)),
        )  # fmt: skip

    def values(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        if np.dtype(self.dtype).kind == "f":
            values = with_gaps(typed(self.kind, self.dtype, rng, self.shape), self.gaps, rng)
        else:
            values = _whole(self.kind, self.dtype, rng, self.shape)
        return LAYOUTS[self.layout](values)

    def options(self, values: np.ndarray) -> dict[str, float]:
        """The rate control: a multiple of the spread, where it is an error."""
        spread = min(max(largest_and_spread(values)[1], 1e-300), 1e300)
        if self.control == "target_psnr":
            return {"target_psnr": self.amount, "data_range": 20 * spread}
        amount = 10**self.amount
        if self.control in ("max_error", "target_rmse"):
            amount *= spread
        return {self.control: min(max(amount, 5e-324), 1.7e308)}

    def check(self) -> str:
        """What is wrong with what comes back; empty where all is well."""
        values = self.values()
        options = self.options(values)
        codec = CODECS[self.codec](**options)
        payload = codec.encode(values)
        decoded = codec.decode(payload)
        if len(payload) > len(pack_lossless(values)):
            return f"{len(payload)} bytes are more than without loss"
        if self.control.startswith("max_error"):
            return broken(values, decoded, options)
        return unlike(values, decoded, ~np.isfinite(values)) or self._beyond(
            values, decoded, payload
        )

    def _beyond(self, values: np.ndarray, decoded: np.ndarray, payload: bytes) -> str:
        options = self.options(values)
        if self.control == "target_bpp":
            allowed = options["target_bpp"] * values.size / 8 + HEADER
            # What is stored exactly comes on top: no numbers, and those that no double holds.
            with np.errstate(invalid="ignore"):  # signalling NaN
                usual = np.isfinite(values) & (np.abs(values.astype(np.float64)) < 2**53)
            special = 0 if usual.all() else values.nbytes
            long = len(payload) > allowed + special
            return f"{len(payload)} bytes, not {allowed:.0f}" if long else ""
        limit = options.get("target_rmse")
        if limit is None:
            limit = options["data_range"] / 10 ** (options["target_psnr"] / 20)
        usable = np.isfinite(values)
        # Exact for every type, and for squares that double precision does not hold.
        scale = np.longdouble(limit) or np.longdouble(1)
        error = (values[usable].astype(np.longdouble) - decoded[usable]) / scale
        rmse = float(np.sqrt((error**2).mean())) if error.size else 0.0
        return "" if rmse <= 1 + 1e-9 else f"an RMSE of {rmse:.6f} of the target"


def _whole(kind: str, dtype: str, rng: Rng, shape: Shape) -> np.ndarray:
    """Integers of some span around some number, as far as the type reaches, which some do."""
    limits = np.iinfo(dtype)
    numbers = KINDS[kind](rng, shape)
    largest = float(np.abs(numbers).max(initial=0)) or 1.0
    span, offset = rng.choice(SPANS), int(rng.choice(OFFSETS))
    near = np.rint(numbers / largest * span).astype(np.int64).astype(object) + offset
    values = np.clip(near, limits.min, limits.max).astype(dtype)
    if rng.random() < 0.3:
        values.flat[rng.integers(values.size)] = limits.min if rng.random() < 0.5 else limits.max
    return values
