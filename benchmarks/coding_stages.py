"""What every stage of the coder is worth: bits per globe at equal area-weighted RMSE.

From the paper's quantizer of latents, one stage after the other, to what the codec writes, on
simulated test globes in chunks of 256 and with the shipped model's latents. Then the same coder on
plain EOFs of the same training globes, and fields in no order in one chunk and one by one.

    COINPP_DATA=... python benchmarks/coding_stages.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import product
from math import sqrt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from common import climate, open_variable, weighted_rmse, write_result

from coinpp_xr import COINppCodec, entropy, load_model
from coinpp_xr.bitstream import Payload, Tag
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import fit
from coinpp_xr.eofs import PLAIN, HarmonicBasis, LocalisedEofs
from coinpp_xr.fields import Fields, Sequences
from coinpp_xr.models import Model
from coinpp_xr.network import LinearTail, QuantizedTail
from coinpp_xr.quantization import (
    STEPS_PER_OCTAVE,
    UniformQuantizer,
    exponent_of,
    quantize_for_rate,
    step_of,
)
from coinpp_xr.schemes import LatentSynthesis, Quantized, Search, encode_symbols
from coinpp_xr.transform import fit_spectrum

Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]
Symbols = npt.NDArray[np.int32]

GLOBES = 256
# Latents to keep, where keeping fewer can save bits.
COUNTS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 800)
# As models are made: the share of the held-out RMSE that rounding the modes may cost.
TAIL_ROUNDING = 0.05


class Synthesis(Protocol):
    """Coefficients → fields, as :class:`coinpp_xr.schemes.LatentSynthesis` does it."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    def values(self, coefficients: Floating) -> Floating: ...

    def expected(self, exponent: int, along_time: bool) -> npt.NDArray[np.intp] | None: ...


@dataclass(frozen=True, eq=False)
class Chunk:
    """Globes, their latents, and the latents of training globes.

    Parameters
    ----------
    fields : Fields
    synthesis : Synthesis
    latents, training : float array, shape (items, latent_dim)
        Orthonormal in the area metric, times ``unit``.
    unit : float
        Of the latents, in the data's unit.
    """

    fields: Fields
    synthesis: Synthesis
    latents: Floating
    training: Float64
    unit: float

    def error(self, latents: Floating) -> float:
        """Mean squared error of fields with these latents; missing ones are zero."""
        missing = self.latents.shape[1] - latents.shape[1]
        full = np.pad(latents, ((0, 0), (0, missing)))
        return self.fields.mean_squared_error(self.synthesis.values(full[None, :, None]))

    def quick_error(self, latents: Floating) -> float:
        """Very nearly the same without making the fields: latents are orthonormal."""
        wrong = latents - self.latents[:, : latents.shape[1]]
        lost = float(self.by_count[latents.shape[1]]) + float((wrong**2).sum(1).mean())
        return lost * self.unit**2

    @cached_property
    def by_count(self) -> Float64:
        """Squared error, in latents' units, of the first 0, 1, … exact latents."""
        power = (self.latents.astype(np.float64) ** 2).mean(0)
        misfit = self.error(self.latents) / self.unit**2
        return misfit + np.append(np.cumsum(power[::-1])[::-1], 0.0)

    @cached_property
    def pooled(self) -> tuple[Float64, Float64]:
        """Mean and standard deviation of the first 1, 2, … training latents together."""
        count = np.arange(1, self.training.shape[1] + 1)
        mean = np.cumsum(self.training.mean(0)) / count
        square = np.cumsum((self.training**2).mean(0)) / count
        return mean, np.sqrt(square - mean**2)


@dataclass(frozen=True)
class Coded:
    """Bits per globe, and how they came about."""

    bits: float
    rmse: float
    setting: dict[str, Any]


# ---- one table per latent or for all ------------------------------------------------------------


def table_bits(symbols: Symbols, training: Symbols) -> float:
    """Ideal code length with one add-one smoothed table per column, counted on training symbols.

    What lies beyond the symbols seen in training costs one escape and 16 bits.
    """
    low, high = training.min(0), training.max(0)
    width = int((high - low).max()) + 2
    columns = np.arange(symbols.shape[1])

    def cells(values: Symbols) -> npt.NDArray[np.intp]:
        inside = (values >= low) & (values <= high)
        return np.asarray(np.where(inside, values - low, high - low + 1) + columns * width)

    counts = np.bincount(cells(training).ravel(), minlength=width * len(columns))
    counts = counts.reshape(len(columns), width)
    exists = np.arange(width) <= (high - low + 1)[:, None]
    total = (counts + exists).sum(axis=1)
    cost = np.log2(total)[:, None] - np.log2(np.maximum(counts + exists, 1))
    escaped = ((symbols < low) | (symbols > high)).sum()
    return float(cost.ravel()[cells(symbols)].sum() + 16 * escaped)


def fewest_latents(
    chunk: Chunk, target: float, decoded: Callable[[int], Floating]
) -> tuple[int, float] | None:
    """The smallest number of latents whose decoded values meet a target, and the RMSE."""

    def meets(count: int) -> bool:
        return chunk.quick_error(decoded(count)) <= target**2

    high = next((count for count in COUNTS if meets(count)), None)
    if high is None:
        return None
    low = max((count for count in COUNTS if count < high), default=0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    for count in range(high, chunk.latents.shape[1] + 1):
        if (error := chunk.error(decoded(count))) <= target**2:
            return count, sqrt(error)
    return None


@lru_cache(maxsize=64)
def random_axes(count: int) -> Float64:
    """An orthonormal matrix without preferred directions, shape (count, count)."""
    drawn = np.random.default_rng(count).normal(size=(count, count))
    return np.asarray(np.linalg.qr(drawn)[0])


def papers(chunk: Chunk, target: float) -> Coded | None:
    """One mean, one standard deviation and one table for all latents, clipped at 3σ.

    In the principal axes, and in random ones, where all latents vary alike: one range suits
    them, as it suits the latents of a network that nobody has brought into standard form.
    """
    results = []
    for axes, bits in product(("principal", "random"), range(2, 13)):

        def quantized(
            latents: Floating, bits: int = bits, turned: bool = axes == "random"
        ) -> tuple[Symbols, Floating]:
            count = latents.shape[1]
            mean, std = (np.full(count, values[count - 1]) for values in chunk.pooled)
            quantizer = UniformQuantizer(mean, std, bits)
            symbols = quantizer.quantize(
                latents @ random_axes(count) if turned else latents, clip=True
            )
            decoded = quantizer.dequantize(symbols)
            return symbols, decoded @ random_axes(count).T if turned else decoded

        found = fewest_latents(
            chunk, target, lambda count, of=quantized: of(chunk.latents[:, :count])[1]
        )
        if found is not None:
            kept = [quantized(z[:, : found[0]])[0] for z in (chunk.latents, chunk.training)]
            cost = table_bits(*(symbols.reshape(-1, 1) for symbols in kept)) / len(chunk.latents)
            setting = {"axes": axes, "bits": bits, "latents": found[0]}
            results.append(Coded(cost, found[1], setting))
    return cheapest(results)


def own_ranges(chunk: Chunk, target: float) -> Coded | None:
    """Mean, standard deviation and table of every latent: the ``bits`` mode, real bytes."""
    mean, std = chunk.training.mean(0), chunk.training.std(0)
    histogram = entropy.fit_histogram(chunk.training, mean, std)
    results = []
    for bits in range(1, 13):

        def quantized(count: int, bits: int = bits) -> tuple[Symbols, Floating]:
            quantizer = UniformQuantizer(mean[:count], std[:count], bits)
            symbols = quantizer.quantize(chunk.latents[:, :count])
            return symbols, quantizer.dequantize(symbols)

        found = fewest_latents(chunk, target, lambda count, of=quantized: of(count)[1])
        if found is not None:
            symbols = quantized(found[0])[0]
            stream = entropy.encode(symbols, histogram[: found[0]], bits)
            cost = 8 * len(stream) / len(chunk.latents)
            results.append(Coded(cost, found[1], {"bits": bits, "latents": found[0]}))
    return cheapest(results)


def cheapest(results: Sequence[Coded]) -> Coded | None:
    return min(results, key=lambda coded: coded.bits, default=None)


def coarsest(
    error: Callable[[int], float], limit: float, low: int, high: int
) -> tuple[int, float] | None:
    """The largest exponent from ``low`` to ``high`` within a limit, and its error."""
    found = error(low)
    if found > limit:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if (here := error(middle)) <= limit:
            low, found = middle, here
        else:
            high = middle
    # Errors hardly grow from step to step and now and then fall.
    for further in range(high + 1, high + 9):
        if (here := error(further)) <= limit:
            low, found = further, here
    return low, found


def one_step(chunk: Chunk, target: float, *, rounding: str) -> Coded | None:
    """One step for all latents, one table each; ideal code length."""
    sizes = np.maximum(np.abs(chunk.training).mean(0), 1e-9).astype(np.float32)
    results = []
    for count in COUNTS[2:]:

        def symbols_of(latents: Floating, exponent: int, count: int = count) -> Symbols:
            z = latents[:, :count].astype(np.float32)
            if rounding == "plain":
                return np.rint(z / step_of(exponent)).astype(np.int32)
            return quantize_for_rate(z, step_of(exponent), sizes[:count])

        def decoded(exponent: int, symbols_of: Any = symbols_of) -> Floating:
            return symbols_of(chunk.latents, exponent) * step_of(exponent)

        fine = exponent_of(target / chunk.unit / 32)
        found = coarsest(
            lambda exponent, of=decoded: chunk.quick_error(of(exponent)),
            target**2, fine, fine + 10 * STEPS_PER_OCTAVE,
        )  # fmt: skip
        if found is None:
            continue
        exponent = found[0]
        while (error := chunk.error(decoded(exponent))) > target**2:
            exponent -= 1
        training = symbols_of(chunk.training, exponent)
        cost = table_bits(symbols_of(chunk.latents, exponent), training) / len(chunk.latents)
        step = round(step_of(exponent) * chunk.unit, 4)
        results.append(Coded(cost, sqrt(error), {"latents": count, "step_K": step}))
    return cheapest(results)


# ---- coded in context ---------------------------------------------------------------------------


class PlainSearch(Search):
    """Rounds to the nearest level, whatever that costs."""

    def quantized(self, exponent: int) -> Quantized:
        symbols = np.rint(self._coefficients / step_of(exponent)).astype(np.int32)
        return Quantized(symbols, exponent, self._along_time)


def in_context(
    chunk: Chunk, target: float, *, rounding: str = "rate", along_time: bool = True
) -> Coded | None:
    """The adaptive coder of the package, real bytes without the container."""
    kind = PlainSearch if rounding == "plain" else Search
    search = kind(chunk.latents[None, :, None], along_time)

    def error(exponent: int) -> float:
        values = chunk.synthesis.values(search.quantized(exponent).coefficients)
        return chunk.fields.mean_squared_error(values)

    first = search.at(target**2 / chunk.unit**2 - chunk.by_count[-1])
    if first is None:
        return None
    near = STEPS_PER_OCTAVE // 4
    found = coarsest(error, target**2, first.exponent - near, first.exponent + near)
    if found is None:
        return None
    stream = encode_symbols(chunk.synthesis, search.quantized(found[0]))
    step = round(step_of(found[0]) * chunk.unit, 4)
    return Coded(8 * len(stream) / len(chunk.latents), sqrt(found[1]), {"step_K": step})


@dataclass(frozen=True, eq=False)
class WithoutSpectrum:
    """Another synthesis, without what it expects of the coefficients."""

    inner: Synthesis

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.inner.shape

    def values(self, coefficients: Floating) -> Floating:
        return self.inner.values(coefficients)

    def expected(self, exponent: int, along_time: bool) -> None:
        return None


def without_spectrum(chunk: Chunk, target: float) -> Coded | None:
    return in_context(replace(chunk, synthesis=WithoutSpectrum(chunk.synthesis)), target)


# Letter: what it is, whether its bits are real bytes or an ideal code length, how it is measured.
STAGES: dict[str, tuple[str, str, Callable[[Chunk, float], Coded | None]]] = {
    "a": ("the paper: one clipped range and one table for all latents", "ideal", papers),
    "b": ("range and table of every latent (bits)", "bytes", own_ranges),
    "c": (
        "one step in orthonormal axes, table of every latent",
        "ideal",
        partial(one_step, rounding="plain"),
    ),
    "d": ("c + rounding for rate and distortion", "ideal", partial(one_step, rounding="rate")),
    "e": (
        "d + adaptive coding in the context of the globes before",
        "bytes",
        partial(in_context, along_time=False),
    ),
    "f": (
        "e + transform along time, plain rounding",
        "bytes",
        partial(in_context, rounding="plain"),
    ),
    "g": ("f + rounding for rate and distortion (target_rmse)", "bytes", in_context),
    "h": ("g without the model's spectrum", "bytes", without_spectrum),
}


# ---- plain EOFs ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EofSynthesis(LatentSynthesis):
    """Scores → fields; the model is asked only what size to expect of the scores."""

    mean: Float64
    modes: Float64

    def values(self, coefficients: Floating) -> Floating:
        scores = self.sequences.put(coefficients[:, :, 0], self.n_items)
        return np.asarray(scores @ self.modes + self.mean)


@dataclass(frozen=True, eq=False)
class Archive:
    """Training globes and the shipped model.

    Parameters
    ----------
    model : Model
    grid : SphereGrid
    globes : float32 array, shape (items, cells)
        Those that the model was trained on; the items after them are held out.
    held_out : float32 array, shape (items, cells)
    """

    model: Model
    grid: SphereGrid
    globes: npt.NDArray[np.float32]
    held_out: npt.NDArray[np.float32]

    def features(self, values: Floating) -> npt.NDArray[np.float32]:
        return ((values - self.model.offset) / self.model.scale).astype(np.float32)

    def latents(self, model: Model, values: Floating) -> npt.NDArray[np.float32]:
        features = self.features(values)[..., None]
        return fit(model.network, self.grid.points, features, self.grid.area_weights)

    def with_model(self, model: Model) -> Callable[[Fields], Chunk]:
        """Chunks coded with the latents of a model like the shipped one."""
        training = self.latents(model, self.globes).astype(np.float64)

        def chunk(fields: Fields) -> Chunk:
            synthesis = LatentSynthesis(model, self.grid, fields.sequences, len(fields.values))
            latents = self.latents(model, fields.values)
            return Chunk(fields, synthesis, latents, training, model.scale)

        return chunk

    def eofs_as_tail(self) -> Model:
        """The shipped model with plain EOFs for its modes, as harmonics like the model's own."""
        tail = self.model.tail
        basis = HarmonicBasis.of(self.grid.points, self.grid.area_weights)
        assert tail is not None
        assert basis is not None
        mean = self.features(self.globes).mean(0)
        train, held_out = (self.features(v) - mean for v in (self.globes, self.held_out))
        coordinates, judged = basis.analyse(train), basis.analyse(held_out)
        lost = float(((held_out**2) @ basis.weights).mean() - (judged**2).sum(1).mean())
        eofs = LocalisedEofs(basis, coordinates).modes(PLAIN, self.model.latent_dim)
        missed = (judged**2).sum(1).mean() - ((judged @ eofs) ** 2).sum(1).mean()
        modes = LinearTail(tail.tail.mean, basis.to_harmonics(eofs.T))
        tolerance = TAIL_ROUNDING * sqrt(max(missed + max(lost, 0.0), 0.0))
        rounded = QuantizedTail.of(modes, (coordinates @ eofs).std(0), tolerance)
        model = replace(self.model, tail=rounded, spectrum=None)
        return replace(model, spectrum=fit_spectrum([self.latents(model, self.globes[-4096:])]))

    def eofs_on_grid(self, components: int) -> Callable[[Fields], Chunk]:
        """Chunks coded with EOFs that are tables of the grid's cells, rounded as modes are."""
        weights = self.grid.area_weights
        root = np.sqrt(weights)
        mean = self.globes.mean(0, dtype=np.float64)
        scaled = (self.globes - mean) * root
        vectors = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :components]
        held_out = (self.held_out - mean) * root
        missed = (held_out**2).sum(1) - ((held_out @ vectors) ** 2).sum(1)
        tolerance = TAIL_ROUNDING * sqrt(missed.mean())
        scores = scaled @ vectors
        # By regression, because poles that weigh nothing still have values.
        modes = np.linalg.lstsq(scores, self.globes - mean, rcond=None)[0]
        # Every mode gets the same share of the error.
        steps = tolerance * np.sqrt(12 / (components + 1)) / np.append(1.0, scores.std(0))
        mean = np.rint(mean / steps[0]) * steps[0]
        modes = np.rint(modes / steps[1:, None]) * steps[1:, None]
        back = np.linalg.solve((modes * weights) @ modes.T, modes * weights).T
        model = replace(self.model, spectrum=fit_spectrum([scores[-4096:]]))

        def chunk(fields: Fields) -> Chunk:
            n_items = len(fields.values)
            synthesis = EofSynthesis(model, self.grid, fields.sequences, n_items, mean, modes)
            return Chunk(fields, synthesis, (fields.values - mean) @ back, scores, 1.0)

        return chunk


# ---- fields in no order -------------------------------------------------------------------------


def unordered(globes: npt.NDArray[np.float32], target: float) -> dict[str, Any]:
    """Bits per globe of shuffled globes in one chunk, and of each as a chunk of its own."""
    codec = COINppCodec("t2m-46x90", target_rmse=target)
    shuffled = globes[np.random.default_rng(0).permutation(len(globes))]
    together = codec.encode(shuffled)
    apart = [codec.encode(globe[None]) for globe in shuffled]

    def stream(payload: bytes) -> int:
        return len(Payload.unpack(payload).section(Tag.COEFFICIENTS))

    bits = 8 / len(globes)
    result = {
        "in_order": round(bits * len(codec.encode(globes)), 2),
        "shuffled": round(bits * len(together), 2),
        "shuffled_without_container": round(bits * stream(together), 2),
        "one_by_one": round(bits * sum(map(len, apart)), 2),
        "one_by_one_without_container": round(bits * sum(map(stream, apart)), 2),
        "schemes_one_by_one": sorted({Payload.unpack(payload).kind.name for payload in apart}),
        "transformed_along_time": Payload.unpack(together).along_time,
    }
    return {
        **result,
        "ratio": round(result["shuffled"] / result["one_by_one"], 4),
        "ratio_without_container": round(
            result["shuffled_without_container"] / result["one_by_one_without_container"], 4
        ),
    }


def shipped(globes: npt.NDArray[np.float32], target: float, weights: Float64) -> Coded:
    """What the codec writes, container included."""
    codec = COINppCodec("t2m-46x90", target_rmse=target)
    payload = codec.encode(globes)
    rmse = weighted_rmse(codec.decode(payload), globes, weights)
    scheme = Payload.unpack(payload).kind.name
    return Coded(8 * len(payload) / len(globes), rmse, {"scheme": scheme})


def row(
    measure: Callable[[Chunk, float], Coded | None], chunks: list[Chunk], targets: list[float]
) -> dict[str, dict[str, Any]]:
    """By target: mean bits per globe over the chunks, and what led to them."""
    by_target = {}
    for target in targets:
        found = [measure(chunk, target) for chunk in chunks]
        known = [coded for coded in found if coded is not None]
        reached = len(known) == len(found)
        by_target[f"{target:g}"] = {
            "bits_per_globe": round(float(np.mean([c.bits for c in known])), 2)
            if reached
            else None,
            "rmse": [round(c.rmse, 4) for c in known],
            "settings": [c.setting for c in known],
        }
    return by_target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("--quick", action="store_true", help="one chunk, nothing written")
    arguments = parser.parse_args()

    model = load_model("t2m-46x90")
    archive = open_variable(climate("gcm_6hourly_46x90.nc"))
    grid = SphereGrid(archive.lat.values, archive.lon.values)
    globes = archive.values.reshape(len(archive), -1).astype(np.float32)
    used = model.card["training_items"]
    data = Archive(model, grid, globes[:used], globes[used:])
    test = open_variable(climate("gcm_6hourly_test_46x90.nc")).values.astype(np.float32)
    starts = range(0, len(test) - GLOBES + 1, GLOBES)[: 1 if arguments.quick else None]
    parts = [test[start : start + GLOBES] for start in starts]
    order, every = Sequences(np.arange(GLOBES)[None]), np.ones((GLOBES, globes.shape[1]), np.bool_)
    fields = [
        Fields(part.reshape(GLOBES, -1).astype(np.float64), every, part.dtype, grid, order)
        for part in parts
    ]

    chunks = [data.with_model(model)(f) for f in fields]
    stages: dict[str, dict[str, Any]] = {}
    for letter, (what, measured, measure) in STAGES.items():
        stages[letter] = {
            "what": what,
            "measured": measured,
            **row(measure, chunks, arguments.targets),
        }
        print(letter, json.dumps(stages[letter]), flush=True)
    eofs = {}
    for name, maker in (
        ("tables on the grid", data.eofs_on_grid(model.latent_dim)),
        ("spherical harmonics, as the model's modes are", data.with_model(data.eofs_as_tail())),
    ):
        eofs[name] = row(in_context, [maker(f) for f in fields], arguments.targets)
        print(name, json.dumps(eofs[name]), flush=True)
    written = {
        f"{target:g}": [shipped(part, target, grid.area_weights) for part in parts]
        for target in arguments.targets
    }
    result: dict[str, Any] = {
        "data": f"simulated 6-hourly near-surface temperature, 46 x 90: {len(parts)} chunks of "
        f"{GLOBES} test globes from the half year after the training data; model t2m-46x90 "
        f"({model.fingerprint}, {model.latent_dim} latents)",
        "metric": "bits per globe at the coarsest setting whose area-weighted RMSE (K) over the "
        "chunk is at most the target; 'bytes' are coded and 'ideal' are code lengths with tables "
        "of the training globes, both without model, tables and container",
        "stages": stages,
        "written_with_container": {
            target: {
                "bits_per_globe": round(float(np.mean([c.bits for c in coded])), 2),
                "rmse": [round(c.rmse, 4) for c in coded],
                "settings": [c.setting for c in coded],
            }
            for target, coded in written.items()
        },
        "plain_eofs": eofs,
        "model_over_plain_eofs": {
            target: {
                name: round(
                    stages["g"][target]["bits_per_globe"] / eof[target]["bits_per_globe"], 4
                )
                for name, eof in eofs.items()
            }
            for target in written
        },
        "unordered": {f"{target:g}": unordered(parts[0], target) for target in arguments.targets},
    }
    if arguments.quick:
        print(json.dumps(result, indent=1))
    else:
        write_result("coding_stages", result)


if __name__ == "__main__":
    main()
