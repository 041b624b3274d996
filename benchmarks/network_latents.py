"""What modulations of the pyramid's network would save if they were fitted to every chunk.

COIN++ shifts the hidden units of a shared network by a few latents of each item, through one linear
map. Here the network that ships is fitted to each chunk's own points, by a few Gauss–Newton steps:

- all shifts of its hidden units, the most that any number of latents could reach;
- 4, 8 and 16 latents, through a map that is learned from the shifts of all other variables'
  chunks (their leading directions, as the curvature of the loss measures them);
- shifts, and besides them gains of all inputs and hidden units, and the last layer.

What these numbers would take in the payload is counted at eight bits each, in a column of its own.
Weights of the linear predictions, which every payload tells anyway, are fitted in all cases; what
they alone bring is the column without a network.

    COINPP_DATA=... python benchmarks/network_latents.py    # some minutes
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import write_result

sys.path.insert(0, str(Path(__file__).parent.parent / "pretrained"))
from universal import fields

from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.expert_units import (
    ACTIVATION,
    HIGHEST_SCALE,
    LARGEST_ACTIVATION,
    LOWEST_SCALE,
    REFERENCES,
    SCALE_PARTS,
    WEIGHT,
)
from coinpp_xr.coding.pyramid.experts import ARRAYS, KINDS, Expert, shipped
from coinpp_xr.coding.pyramid.limits import UNIT
from coinpp_xr.coding.pyramid.observing import observe
from coinpp_xr.fields import Fields
from coinpp_xr.lattice import Bound
from coinpp_xr.recognition import layouts_of

CASES = (
    "t2m-gfs_t2m_0p25", "msl-era5_msl_0p25", "t2m-1deg-6", "u10-1deg-1",
    "t2m-1deg-sequence", "u10-1deg-sequence", "t-erainterim", "u-erainterim", "u-hourly-5",
    "q-hourly-10", "q-tl31", "t-model-levels", "sst-ersst", "gcm-3000",
)  # fmt: skip
# Parts of the spread: the first is measured, all are learned from.
SHARES = (0.01, 0.002, 0.05)
LATENTS = (4, 8, 16)
MOST_OF_PASS, POINTS, STEPS, PRIOR = 20_000, 16_000, 5, 2.0
UNITS = (WEIGHT, WEIGHT * ACTIVATION) * 3
Array = np.ndarray[Any, np.dtype[np.float64]]


class Points(NamedTuple):
    inputs: Array
    offsets: Array
    sizes: Array


class Forward(NamedTuple):
    """Activations, their derivatives, and outputs."""

    first: Array
    first_slope: Array
    second: Array
    second_slope: Array
    out: Array


def _hidden(weights: Array, bias: Array, x: Array) -> tuple[Array, Array]:
    before, most = x @ weights.T + bias, LARGEST_ACTIVATION / ACTIVATION
    slope = np.where(before > 0, 1.0, 0.125)
    value = before * slope
    return np.clip(value, -most, most), slope * (np.abs(value) < most)


def forward(network: Sequence[Array], x: Array) -> Forward:
    a, b, c, d, e, f = network
    first, second = _hidden(a, b, x), None
    second = _hidden(c, d, first[0])
    return Forward(*first, *second, second[0] @ e.T + f)


def bits(out: Array, points: Points) -> Array:
    """Of every point, by the network alone: its step of a logistic distribution."""
    octaves = np.clip(out[:, 1], LOWEST_SCALE / SCALE_PARTS, HIGHEST_SCALE / SCALE_PARTS)
    scale = points.sizes * 2.0**octaves / 2 + 1e-3
    step = np.rint(points.offsets)
    start, width = (np.abs(step - points.sizes * out[:, 0]) - 0.5) / scale, 1 / scale
    nats = np.logaddexp(0, start) + np.logaddexp(0, -start - width) - np.log(-np.expm1(-width))
    return np.asarray(nats / np.log(2))


class Fitting:
    """Numbers that change a network: shifts, and gains and the last layer where ``more``."""

    def __init__(self, network: Sequence[Array], *, more: bool) -> None:
        self._network, self._more = network, more
        a, b, _, d, e, f = network
        self._sizes = [len(b), len(d)]
        if more:
            self._sizes += [a.shape[1], len(b), e.size, f.size]
        self.count = sum(self._sizes)

    def network(self, numbers: Array) -> list[Array]:
        a, b, c, d, e, f = self._network
        parts = np.split(numbers, np.cumsum(self._sizes)[:-1])
        b, d = b + parts[0], d + parts[1]
        if self._more:
            a, c = a * np.exp(parts[2]), c * np.exp(parts[3])
            e, f = e + parts[4].reshape(e.shape), f + parts[5]
        return [a, b, c, d, e, f]

    def _derivatives(self, numbers: Array, x: Array) -> tuple[Array, list[Array]]:
        a, _, c, _, e, f = network = self.network(numbers)
        seen = forward(network, x)
        found = []
        for k in range(2):
            second = e[k] * seen.second_slope
            at_first = second @ c
            first = at_first * seen.first_slope
            columns = [first, second]
            if self._more:
                last, bias = np.zeros((len(x), e.size)), np.zeros((len(x), f.size))
                width = e.shape[1]
                last[:, k * width : (k + 1) * width], bias[:, k] = seen.second, 1
                columns += [(first @ a) * x, at_first * seen.first, last, bias]
            found.append(np.concatenate(columns, axis=1))
        return seen.out, found

    def curvature(self, numbers: Array, points: Points, basis: Array) -> tuple[Array, Array]:
        """Gauss–Newton's matrix, and the gradient, of all bits along the rows of a basis."""
        out, derivatives = self._derivatives(numbers, points.inputs)
        # What a step hides of an error's place and scale, of a logistic distribution.
        scale2 = 4.0 ** np.clip(out[:, 1], -6, 4) / 4
        blurred = scale2 + 1 / (39.5 * points.sizes**2)
        curvatures = [1 / (3 * blurred), 1.43 * np.log(2) ** 2 * (scale2 / blurred) ** 2]
        matrix, gradient = np.zeros((len(basis),) * 2), np.zeros(len(basis))
        for k in range(2):
            step = np.where(np.arange(2) == k, 1e-2, 0)
            slope = (bits(out + step, points) - bits(out - step, points)) / 2e-2
            along = derivatives[k] @ basis.T
            matrix += along.T @ (along * curvatures[k][:, None]) / np.log(2)
            gradient += along.T @ slope
        return matrix, gradient

    def fit(self, points: Points, basis: Array | None = None) -> list[Array]:
        """Numbers after every step, the first of them zeros."""
        basis = np.eye(self.count) if basis is None else basis
        latents, damping = np.zeros(len(basis)), 0.1
        found = [latents @ basis]

        def loss(latents: Array) -> float:
            numbers = latents @ basis
            out = forward(self.network(numbers), points.inputs).out
            return float(bits(out, points).sum() + PRIOR / 2 * (numbers @ numbers))

        best = loss(latents)
        for _ in range(STEPS):
            matrix, gradient = self.curvature(latents @ basis, points, basis)
            prior = PRIOR * basis @ basis.T
            for _ in range(4):
                damped = matrix + np.diag(damping * matrix.diagonal() + 1e-9) + prior
                tried = latents - np.linalg.solve(damped, gradient + prior @ latents)
                if (now := loss(tried)) < best:
                    latents, best, damping = tried, now, damping / 4
                    break
                damping *= 6
            found.append(latents @ basis)
        return found


def whole(network: Sequence[Array], kind: str, base: Expert) -> Expert:
    """The shipped expert with another network for one kind of fields."""
    tensors = {}
    for other in KINDS:
        arrays = getattr(base, other)[: len(ARRAYS)]
        if other == kind:
            arrays = [np.rint(array * unit) for array, unit in zip(network, UNITS, strict=True)]
        for name, array in zip(ARRAYS, arrays, strict=True):
            tensors[f"own.{other}.{name}"] = np.asarray(array, "i4")
    return Expert.of(tensors, "own")


class Chunk(NamedTuple):
    name: str
    fields: Fields
    bound: Bound
    points: Points
    kind: str

    @classmethod
    def of(cls, name: str, known: Fields, share: float) -> Chunk:
        bound = Bound(share * float(known.values.std(where=known.valid)))
        observed = observe(known, bound, MOST_OF_PASS)
        referring = len(known.values) > 1
        inputs, counts = observed["inputs"], observed["counts"].astype(float)
        counts *= inputs[:, REFERENCES].any(axis=1) == referring
        generator, count = np.random.default_rng(0), min(POINTS, int(np.count_nonzero(counts)))
        some = generator.choice(len(counts), count, False, counts / counts.sum())
        points = Points(
            inputs[some] / ACTIVATION,
            observed["offsets"][some] / UNIT,
            observed["sizes"][some] / UNIT,
        )
        return cls(name, known, bound, points, KINDS[referring])

    def nbytes(self, expert: Expert | None) -> int:
        known = self.fields
        coded = bounded.encode(known, self.bound, known.sequences, "default", expert)
        assert coded is not None
        return len(coded)


def directions(shifts: list[Array], curvatures: list[Array], count: int) -> Array:
    """Leading directions of shifts where lengths are what they change in the loss."""
    mean = np.mean([c / np.trace(c) for c in curvatures], axis=0)
    root = np.linalg.cholesky(mean + 1e-9 * np.eye(len(mean)))
    _, _, axes = np.linalg.svd(np.stack(shifts) @ root, full_matrices=False)
    return np.asarray(np.linalg.solve(root.T, axes[:count].T).T)


def main() -> None:
    small, chunks = shipped()["small"], []
    for name, values, _ in fields():
        if name in CASES:
            known = Fields.of_sequence(values, layouts_of(*values.shape[-2:])[0])
            chunks += [Chunk.of(name, known, share) for share in SHARES]
    bases, fitted = {}, {}
    for kind in KINDS:
        arrays = getattr(small, kind)[: len(ARRAYS)]
        bases[kind] = [np.asarray(a, float) / u for a, u in zip(arrays, UNITS, strict=True)]
    for number, chunk in enumerate(chunks):
        fitting = Fitting(bases[chunk.kind], more=False)
        steps = fitting.fit(chunk.points)
        matrix, _ = fitting.curvature(steps[-1], chunk.points, np.eye(fitting.count))
        fitted[number] = steps, matrix
    rows = []
    for number, chunk in enumerate(chunks[:: len(SHARES)]):
        number *= len(SHARES)
        fitting = Fitting(bases[chunk.kind], more=False)

        def nbytes(numbers: Array, fitting: Fitting = fitting, chunk: Chunk = chunk) -> int:
            return chunk.nbytes(whole(fitting.network(numbers), chunk.kind, small))

        row: dict[str, Any] = {
            "field": chunk.name, "fields": len(chunk.fields.values), "bound": chunk.bound.error,
            "without": chunk.nbytes(None), "latents": {"0": chunk.nbytes(small)},
        }  # fmt: skip
        variable = chunk.name.split("-")[0]
        others = [
            k for k, other in enumerate(chunks)
            if other.kind == chunk.kind and other.name.split("-")[0] != variable
        ]  # fmt: skip
        for count in LATENTS:
            if count <= len(others):
                basis = directions(
                    [fitted[k][0][-1] for k in others], [fitted[k][1] for k in others], count
                )
                row["latents"][str(count)] = nbytes(fitting.fit(chunk.points, basis)[-1])
        steps = fitted[number][0]
        row["shifts"] = {str(k): nbytes(numbers) for k, numbers in enumerate(steps)}
        row["bytes of shifts"] = fitting.count
        more = Fitting(bases[chunk.kind], more=True)
        network = more.network(more.fit(chunk.points)[-1])
        row["gains and last layer"] = chunk.nbytes(whole(network, chunk.kind, small))
        row["bytes of gains and last layer"] = more.count
        rows.append(row)
        print(row, flush=True)
    write_result("network_latents", {"bound": "0.01 of the spread", "cases": rows})


if __name__ == "__main__":
    main()
