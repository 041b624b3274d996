"""Arrays of every kind and bounds of every size, and an exact check of what comes back.

Without a test framework, so that benchmarks can use the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from math import inf, prod
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

import coinpp_xr
from coinpp_xr import COINppCodec
from coinpp_xr.bitstream import Payload
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.models import Model

GOLDEN = Path(__file__).parent / "golden" / "format-1"
# Of golden payloads with coordinates of their own.
OWN = SphereGrid(np.array([60.0, 20.0, -10.0, -50.0]), np.array([0.0, 50.0, 100.0, 200.0, 300.0]))

DTYPES = ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8")
BATCHES = ((), (1,), (2,), (5,), (17,), (2, 3), (3, 1, 2), (0,))
GRIDS = ((1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (8, 12), (10, 20), (13, 9), (1, 40), (0, 5))

Rng = np.random.Generator
Shape = tuple[int, ...]


@cache
def golden_model() -> Model:
    """A small model with everything that a model can have: tail, spectrum, reference."""
    return coinpp_xr.load_model(Model.from_file(GOLDEN / "golden.safetensors"))


@cache
def golden_patch_model() -> Model:
    """One for patches of images with three channels: tail, prior, layers against blocking."""
    return coinpp_xr.load_model(Model.from_file(GOLDEN / "golden-patch.safetensors"))


@cache
def golden_climatology_model() -> Model:
    """One that holds what fields of one grid share, and a network."""
    return coinpp_xr.load_model(Model.from_file(GOLDEN / "golden-climatology.safetensors"))


def golden_models() -> dict[str, Model]:
    """By fingerprint."""
    models = (golden_model(), golden_patch_model(), golden_climatology_model())
    return {model.fingerprint: model for model in models}


def usual_layout(grid: Shape) -> SphereGrid:
    """The layout in which a globe of (n_lat, n_lon) is usually stored."""
    return next(SphereGrid.usual_layouts(*grid))


# ---- kinds of fields, float64 of shape (..., n_lat, n_lon) ---------------------------------------


def _smooth(rng: Rng, shape: Shape) -> np.ndarray:
    values = rng.standard_normal(shape)
    for axis in range(max(0, len(shape) - 3), len(shape)):
        values = values.cumsum(axis)
    return values


def _known(rng: Rng, shape: Shape) -> np.ndarray:
    """What the model knows."""
    model, grid = golden_model(), usual_layout(shape[-2:])
    walk = rng.standard_normal((prod(shape[:-2]), model.latent_dim)).cumsum(0) / 3
    features = model.network(grid.points, walk.astype(np.float32))[..., 0]
    return (model.offset + model.scale * features).astype(np.float64).reshape(shape)


def _like_the_reference(rng: Rng, shape: Shape) -> np.ndarray:
    reference = golden_model().reference.numbers
    rows, columns = (np.arange(n) % m for n, m in zip(shape[-2:], reference.shape[1:], strict=True))
    mean = reference.mean(0)[rows[:, None], columns] / 128
    return golden_model().offset + mean + rng.standard_normal(shape)


def _constant(rng: Rng, shape: Shape) -> np.ndarray:
    globes = rng.choice([0.0, 1.5, -999.0], (*shape[:-2], 1, 1))
    return np.broadcast_to(globes, shape).copy()


def _some_constant(rng: Rng, shape: Shape) -> np.ndarray:
    return np.where(
        rng.random((*shape[:-2], 1, 1)) < 0.5, _constant(rng, shape), _smooth(rng, shape)
    )


def _spikes(rng: Rng, shape: Shape) -> np.ndarray:
    sizes = rng.choice([1e30, -1e30, 6e4], shape)
    return np.where(rng.random(shape) < 0.05, sizes, _smooth(rng, shape))


def _fill(rng: Rng, shape: Shape) -> np.ndarray:
    fill = rng.choice([-999.0, 9.96921e36, -32767.0, 1e20])
    return np.where(rng.random(shape[-2:]) < 0.3, fill, _smooth(rng, shape))


def _rain(rng: Rng, shape: Shape) -> np.ndarray:
    return np.where(rng.random(shape) < 0.6, 0.0, rng.exponential(1e-3, shape) ** 3)


def _magnitudes(rng: Rng, shape: Shape) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape) * 10 ** rng.uniform(-45, 40, shape)


# In units that the type of the data decides; see Case.values.
DENORMALS, LARGEST, BITS = "denormals", "as large as can be", "random bits"

KINDS: dict[str, Callable[[Rng, Shape], np.ndarray]] = {
    "smooth": _smooth,
    "noise": lambda rng, shape: rng.standard_normal(shape),
    "steps": lambda rng, shape: rng.integers(0, 4, shape).astype(float),
    "hundredths": lambda rng, shape: np.round(_smooth(rng, shape), 2),
    "spikes": _spikes,
    "heavy tails": lambda rng, shape: rng.standard_cauchy(shape) ** 3,
    "magnitudes": _magnitudes,
    "constant": _constant,
    "some constant": _some_constant,
    "fill values": _fill,
    "offset": lambda rng, shape: 1e8 + _smooth(rng, shape),
    "small offset": lambda rng, shape: 1e4 + 1e-3 * _smooth(rng, shape),
    "rain": _rain,
    "known": _known,
    "known and noise": lambda rng, shape: _known(rng, shape) + rng.standard_normal(shape),
    "like the reference": _like_the_reference,
    DENORMALS: lambda rng, shape: rng.integers(-1000, 1000, shape).astype(float),
    LARGEST: lambda rng, shape: rng.choice([1.0, -1.0, 0.5], shape) * rng.uniform(0.9, 1, shape),
    BITS: lambda rng, shape: np.zeros(shape),
}


def typed(kind: str, dtype: str, rng: Rng, shape: Shape) -> np.ndarray:
    """Floats of a kind."""
    native = np.dtype(dtype).newbyteorder("=")
    limits = np.finfo(native)
    values = KINDS[kind](rng, shape)
    if kind == BITS:
        raw = rng.integers(0, 256, (*shape, native.itemsize), np.uint8)
        return raw.reshape(-1).view(native).reshape(shape).astype(dtype)
    if kind == DENORMALS:
        values = values * float(limits.smallest_subnormal)
    if kind == LARGEST:
        values = values * float(limits.max)
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(dtype)


# ---- cells that must come back bit for bit -------------------------------------------------------

GAPS = ("none", "land", "cells", "zeros", "globes", "almost all", "all")


def with_gaps(values: np.ndarray, gaps: str, rng: Rng) -> np.ndarray:
    shape = values.shape
    missing = {
        "none": np.zeros(shape, bool),
        "land": np.broadcast_to(rng.random(shape[-2:]) < 0.4, shape),
        "cells": rng.random(shape) < 0.2,
        "zeros": rng.random(shape) < 0.2,
        "globes": np.broadcast_to(rng.random((*shape[:-2], 1, 1)) < 0.4, shape),
        "almost all": rng.random(shape) < 0.98,
        "all": np.ones(shape, bool),
    }[gaps]
    specials = np.array([np.nan, np.inf, -np.inf, -0.0, -np.nan])
    if gaps in ("land", "globes"):
        specials = specials[:1]
    if gaps == "zeros":
        specials = np.array([-0.0, 0.0])
    values[missing] = rng.choice(specials, int(missing.sum())).astype(values.dtype)
    return values


# ---- memory order --------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: np.ascontiguousarray(a[..., ::-1, ::-1])[..., ::-1, ::-1],
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), a.dtype, a.size, 1).reshape(a.shape),
}

# ---- bounds --------------------------------------------------------------------------------------

# What a number stands for: 10^x of the spread, x of the spacing at the largest value, itself.
BY_SPREAD, BY_SPACING, BY_ITSELF, RELATIVE = "spread", "spacing", "itself", "relative"
SPACINGS = (0.1, 0.49, 0.5, 0.51, 1.0, 1.5, 2.0, 3.7, 10.0, 100.0)
ABSOLUTE = (5e-324, 1e-310, 1e-45, 1e-30, 0.5, 1e30, 1e300, 1.7e308)
FRACTIONS = (5e-324, 1e-20, 1.1e-16, 6e-8, 1e-7, 5e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 1 - 2**-53)


def largest_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Of the finite values, neither of them zero."""
    finite = values[np.isfinite(values)].astype(np.float64)
    largest = float(np.abs(finite).max(initial=0)) or 1.0
    spread = float((finite / largest).std()) * largest if finite.size else 1.0
    return largest, spread or largest


def _error(values: np.ndarray, by: str, amount: float) -> float:
    """A bound in the data's unit."""
    largest, spread = largest_and_spread(values)
    error = amount
    if by == BY_SPACING:
        number = values.dtype.newbyteorder("=").type(largest)
        # Below, not above: the largest number of a type has no neighbour above.
        error = amount * (largest - float(np.nextafter(number, type(number)(0))))
    elif by == BY_SPREAD:
        error = spread * 10**amount
    return min(max(error, 5e-324), 1.7e308)


def choose(rng: Rng, names: Any) -> Any:
    """One of some names, as it is: numpy would make it one of its own types."""
    names = list(names)
    return names[rng.integers(len(names))]


@dataclass(frozen=True)
class Case:
    """An array and a codec with a bound; see the tables above for the names."""

    kind: str
    batch: Shape
    grid: Shape
    dtype: str
    gaps: str
    layout: str
    by: str
    amount: float
    effort: str
    model: bool
    coordinates: bool
    time_axis: int
    seed: int

    @classmethod
    def random(cls, rng: Rng) -> Case:
        one_of = partial(choose, rng)
        by = one_of([BY_SPREAD, BY_SPREAD, BY_SPACING, BY_ITSELF, RELATIVE, RELATIVE])
        amounts = {
            BY_SPREAD: [rng.uniform(-14, 3)],
            BY_SPACING: SPACINGS,
            BY_ITSELF: ABSOLUTE,
            RELATIVE: [*FRACTIONS, *10 ** rng.uniform(-9, 0, len(FRACTIONS))],
        }
        return cls(
            one_of(KINDS), one_of(BATCHES), one_of(GRIDS), one_of(DTYPES), one_of(GAPS),
            one_of(LAYOUTS), by, float(one_of(amounts[by])), one_of(["default", "fast"]),
            one_of([True, False]), one_of([True, False]), int(rng.integers(3)),
            int(rng.integers(2**32)),
        )  # fmt: skip

    def values(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        known = self.kind.startswith("known") and 0 not in (*self.batch, *self.grid)
        kind = "smooth" if self.kind.startswith("known") and not known else self.kind
        values = typed(kind, self.dtype, rng, (*self.batch, *self.grid))
        return LAYOUTS[self.layout](with_gaps(values, self.gaps, rng))

    def bound(self, values: np.ndarray) -> dict[str, float]:
        if self.by == RELATIVE:
            return {"max_error_relative": min(max(self.amount, 5e-324), 1 - 2**-53)}
        return {"max_error": _error(values, self.by, self.amount)}

    def codec(self, values: np.ndarray) -> COINppCodec:
        options: dict[str, Any] = {"effort": self.effort, **self.bound(values)}
        if len(self.batch) > 1:
            options["time_axis"] = self.time_axis % len(self.batch)
        # A codec refuses data that it knows on coordinates that are not the data's.
        if self.coordinates and not self.model and 0 not in self.grid:
            rng = np.random.default_rng(self.seed)
            options["latitude"] = np.sort(rng.uniform(-90, 90, self.grid[0]))[::-1]
            options["longitude"] = np.sort(rng.uniform(0, 360, self.grid[1]))
        return COINppCodec(golden_model() if self.model else "none", **options)

    def check(self) -> str:
        """What is wrong with what comes back, also the second time; empty where all is well."""
        values = self.values()
        codec = self.codec(values)
        decoded = codec.decode(codec.encode(values))
        return broken(values, decoded, self.bound(values)) or broken(
            decoded, codec.decode(codec.encode(decoded)), self.bound(values)
        )


# ---- the check -----------------------------------------------------------------------------------


def unlike(values: np.ndarray, decoded: np.ndarray, special: np.ndarray) -> str:
    """What came back in another form or, of special values, with other bits; empty if nothing."""
    if decoded.shape != values.shape or decoded.dtype != values.dtype:
        return f"{values.dtype} {values.shape} came back as {decoded.dtype} {decoded.shape}"
    if values[special].tobytes() != decoded[special].tobytes():
        return "special values came back with other bits"
    if not np.isfinite(decoded[~special]).all():
        return "a finite value came back infinite or as NaN"
    return ""


def broken(values: np.ndarray, decoded: np.ndarray, bound: dict[str, float]) -> str:
    """What a codec with ``max_error`` or ``max_error_relative`` got wrong; empty if nothing."""
    whole = values.dtype.kind in "iu"
    special = ~np.isfinite(values)
    if not whole:
        special |= (values == 0) & np.signbit(values)
    wrong = unlike(values, decoded, special)
    if wrong:
        return wrong
    given, found = values[~special], decoded[~special]
    relative = "max_error_relative" in bound
    (error,) = bound.values()
    x, y = given.astype(np.float64), found.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        apart = np.abs(x - y)
        allowed = error * np.abs(x) if relative else np.full(x.shape, error)
        # Rounding does not matter where errors are clearly smaller, but products may underflow.
        unsure = (apart > (1 - 1e-9) * allowed) | ((allowed < 1e-300) & (apart > 0))
    if whole:
        unsure |= np.abs(x) > 2**52  # which double precision rounds
    number = int if whole else float
    for cell in np.flatnonzero(unsure):
        a, b = Fraction(number(given[cell])), Fraction(number(found[cell]))
        if abs(a - b) > Fraction(error) * (abs(a) if relative else 1):
            return f"{given[cell]!r} came back as {found[cell]!r} with {bound}"
    return ""


def largest_share(values: np.ndarray, decoded: np.ndarray, bound: dict[str, float]) -> float:
    """Of the bound that was used, at most."""
    ((name, error),) = bound.items()
    finite = np.isfinite(values) & (values != 0)
    x, y = values[finite].astype(np.longdouble), decoded[finite].astype(np.longdouble)
    allowed = error * np.abs(x) if name == "max_error_relative" else np.longdouble(error)
    share = (np.abs(x - y) / allowed).max(initial=0)
    return float(share) if share < inf else inf


def golden_array(path: Path) -> np.ndarray:
    """What a golden payload decodes to; cells anywhere by the configuration beside it."""
    if (config := path.with_suffix(".json")).exists():
        codec = numcodecs.get_codec(json.loads(config.read_text()))
        shape = Payload.unpack(path.read_bytes()).array_shape
        return codec.decode(path.read_bytes()).reshape(shape)
    grid = OWN if "own" in path.stem else None
    return decode_chunk(path.read_bytes(), golden_models().__getitem__, grid=grid)
