"""COIN, the codec that COIN++ grew from: every item is a small SIREN, its weights are the code.

Dupont et al. 2021, "COIN: COmpression with Implicit Neural representations"; the settings with
which the COIN++ paper compares are in its appendix B.1. Nothing is shared between items, so there
is nothing to train beforehand, and every item takes thousands of steps. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.quantization import STD_RANGE, UniformQuantizer, parse_bits
from coinpp_xr.siren import ModulatedSiren

Float32 = npt.NDArray[np.float32]
Listener = Callable[[int, Float32], None]

# Bits with which the paper stores weights: half floats.
HALF = 16
# Mean and standard deviation before quantized weights.
_RANGE_BYTES = 8
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# Activations of one block should stay in the processor's cache.
_POINTS_PER_BLOCK = 4608


@dataclass(frozen=True)
class CoinNetwork:
    """The shape of the SIREN that an item becomes; configuration, not part of the code.

    Parameters
    ----------
    dim_in, dim_out : int
        Coordinates and channels.
    width : int
        Units in every sine layer. The COIN++ paper takes 12, 14, 16, 18, 20 and 22 for images of
        32 × 32.
    depth : int
        Number of sine layers.
    omega0 : float
        Frequency of the sines.

    Raises
    ------
    ValueError
        For sizes below one.
    """

    dim_in: int
    dim_out: int
    width: int
    depth: int = 2
    omega0: float = 30.0

    def __post_init__(self) -> None:
        if min(self.dim_in, self.dim_out, self.width, self.depth) < 1:
            raise ValueError(f"a network needs at least one unit in every layer, got {self}")

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of every layer's matrix, (out, in + 1): the last column is the bias."""
        sizes = [self.dim_in, *[self.width] * self.depth, self.dim_out]
        return [(fan_out, fan_in + 1) for fan_in, fan_out in pairwise(sizes)]

    @property
    def parameter_count(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)

    def nbytes(self, bits: int = HALF) -> int:
        """Length of a payload at this many bits per weight."""
        if parse_bits(bits) == HALF:
            return 2 * self.parameter_count
        return _RANGE_BYTES + (self.parameter_count * bits + 7) // 8

    def layers(self, parameters: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Views of parameters (..., parameter_count) as one matrix (..., out, in + 1) a layer."""
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])[:-1]
        parts = np.split(parameters, ends, axis=-1)
        return [
            part.reshape(*part.shape[:-1], *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]

    def initialise(self, rng: np.random.Generator) -> Float32:
        """Fresh parameters, drawn as a SIREN's are, float32, shape (parameter_count,)."""
        siren = ModulatedSiren.initialise(
            dim_in=self.dim_in, dim_out=self.dim_out, width=self.width, depth=self.depth,
            latent_dim=0, omega0=self.omega0, shift_scale=0.0, rng=rng,
        )  # fmt: skip
        matrices = (
            np.column_stack(layer) for layer in zip(siren.weights, siren.biases, strict=True)
        )
        return np.concatenate([matrix.ravel() for matrix in matrices])

    def __call__(self, parameters: Float32, coordinates: Float32) -> Float32:
        """What a network of these parameters gives at coordinates.

        Parameters
        ----------
        parameters : float32 array, shape (parameter_count,)
        coordinates : float32 array, shape (points, dim_in)

        Returns
        -------
        float32 array, shape (points, dim_out)
        """
        layers = self.layers(parameters)
        weights, biases = [m[:, :-1] for m in layers], [m[:, -1] for m in layers]
        no_latents = np.zeros((self.depth * self.width, 0), np.float32)
        siren = ModulatedSiren.of(
            (*weights, *biases, no_latents), depth=self.depth, omega0=self.omega0
        )
        output: Float32 = siren(coordinates, np.zeros((1, 0), np.float32))[0]
        return output


@dataclass(frozen=True)
class Schedule:
    """How many steps Adam takes, and its learning rate.

    The rate is constant: of all parameters on the way the best are kept, so that letting it fall
    gains nothing.

    Raises
    ------
    ValueError
        For negative steps, or a rate that is not positive.
    """

    steps: int
    learning_rate: float

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.learning_rate > 0:
            raise ValueError(f"steps must not be negative, learning rates positive, got {self}")


# COIN++, appendix B.1.
PAPER = Schedule(50_000, 2e-4)
# Within 0.15 dB of the paper's PSNR or above it, in two fifths of the steps.
DEFAULT = Schedule(20_000, 1e-3)


def fit(
    features: npt.ArrayLike,
    coordinates: npt.ArrayLike,
    network: CoinNetwork,
    schedule: Schedule = DEFAULT,
    *,
    weights: npt.ArrayLike | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> Float32:
    """Fit one network to every item, all of them side by side, by Adam on the squared error.

    Of all parameters on the way those with the least error are kept, as COIN does.

    Parameters
    ----------
    features : array, shape (items, points, dim_out)
        Around 0 .. 1.
    coordinates : array, shape (points, dim_in)
    network : CoinNetwork
    schedule : Schedule
    weights : array, shape (points,) or (items, points), optional
        What points count in the error, zero where they are masked; any scale.
    seed : int
        Of the first parameters; the same item at the same place of a batch starts the same.
    listener : callable, optional
        Called with (updates so far, squared errors of all items, shape (items,)), before the
        first update, after every one, and to be done quickly.

    Returns
    -------
    float32 array, shape (items, parameter_count)

    Raises
    ------
    ValueError
        If shapes do not fit together, something is not finite, or an item has no weight.
    """
    targets, points = _parse(features, coordinates, network)
    shares = _parse_weights(weights, targets)
    starts = [network.initialise(np.random.default_rng([seed, i])) for i in range(len(targets))]
    parameters = np.stack(starts)
    gradient, losses = np.empty_like(parameters), np.empty(len(targets), np.float32)
    mean, square = np.zeros_like(parameters), np.zeros_like(parameters)
    best, least = parameters.copy(), np.full(len(targets), np.inf, np.float32)
    blocks = [
        (part, _differentiator(network, points, targets[part], shares[part]))
        for part in _blocks(*targets.shape[:2])
    ]
    for step in range(schedule.steps + 1):
        for part, differentiate in blocks:
            losses[part] = differentiate(parameters[part], gradient[part])
        better = losses < least
        least[better], best[better] = losses[better], parameters[better]
        if listener is not None:
            listener(step, losses.copy())
        if step == schedule.steps:
            break
        mean += np.float32(1 - _BETA1) * (gradient - mean)
        square += np.float32(1 - _BETA2) * (gradient * gradient - square)
        root = np.sqrt(square) / np.float32(sqrt(1 - _BETA2 ** (step + 1))) + np.float32(_EPSILON)
        parameters -= np.float32(schedule.learning_rate / (1 - _BETA1 ** (step + 1))) * mean / root
    return best


def _differentiator(
    network: CoinNetwork, coordinates: Float32, targets: Float32, shares: Float32
) -> Callable[[Float32, Float32], npt.NDArray[Any]]:
    """A function from parameters to errors, shape (items,), that writes their gradient to its
    second argument. All its memory is taken once.
    """
    omega0 = np.float32(network.omega0)
    n_items, n_points = targets.shape[:2]
    # Points come last, so that sines run over long rows; a row of ones carries the bias.
    wanted = np.ascontiguousarray(targets.swapaxes(1, 2)) - np.float32(0.5)
    share = shares[:, None] / np.float32(network.dim_out)
    hidden = [np.ones((n_items, columns, n_points), np.float32) for _, columns in network.shapes]
    hidden[0][:, :-1] = coordinates.T
    phases = [np.empty_like(below[:, :-1]) for below in hidden[1:]]
    cosines = [np.empty_like(phase) for phase in phases]
    error = np.empty_like(wanted)

    def differentiate(parameters: Float32, gradient: Float32) -> npt.NDArray[Any]:
        layers, slopes = network.layers(parameters), network.layers(gradient)
        scaled = [*(omega0 * layer for layer in layers[:-1]), layers[-1]]
        for index, phase in enumerate(phases):
            np.matmul(scaled[index], hidden[index], out=phase)
            np.sin(phase, out=hidden[index + 1][:, :-1])
            np.cos(phase, out=cosines[index])
        np.matmul(layers[-1], hidden[-1], out=error)
        np.subtract(error, wanted, out=error)
        cotangent = error * share
        losses = np.asarray(np.einsum("icp,icp->i", error, cotangent))
        cotangent *= 2
        for index in range(network.depth, -1, -1):
            np.matmul(cotangent, hidden[index].swapaxes(1, 2), out=slopes[index])
            if index:
                back = scaled[index][..., :-1].swapaxes(1, 2)
                # Phases are not needed any more: their memory is.
                cotangent = np.matmul(back, cotangent, out=phases[index - 1])
                cotangent *= cosines[index - 1]
        for slope in slopes[:-1]:
            slope *= omega0
        return losses

    return differentiate


def _blocks(n_items: int, n_points: int) -> Iterator[slice]:
    """Items that are worked on together."""
    count = max(1, _POINTS_PER_BLOCK // n_points)
    return (slice(start, start + count) for start in range(0, n_items, count))


def _parse(
    features: npt.ArrayLike, coordinates: npt.ArrayLike, network: CoinNetwork
) -> tuple[Float32, Float32]:
    targets, points = np.asarray(features, np.float32), np.asarray(coordinates, np.float32)
    wanted = ("items", *points.shape[:1], network.dim_out)
    if points.ndim != 2 or points.shape[1] != network.dim_in or 0 in points.shape:
        raise ValueError(f"coordinates must be (points, {network.dim_in}), got {points.shape}")
    if targets.ndim != 3 or targets.shape[1:] != wanted[1:] or not len(targets):
        raise ValueError(f"features must be {wanted}, got {targets.shape}")
    if not (np.isfinite(targets).all() and np.isfinite(points).all()):
        raise ValueError("COIN needs finite values: fill what is missing and give it no weight")
    return targets, points


def _parse_weights(weights: npt.ArrayLike | None, targets: Float32) -> Float32:
    """Weights that sum to one for every item, shape (items, points)."""
    given = np.ones(1) if weights is None else np.asarray(weights, np.float64)
    spread = np.broadcast_to(given, targets.shape[:2])
    total = spread.sum(axis=1, keepdims=True)
    if not np.isfinite(total).all() or spread.min() < 0 or total.min() <= 0:
        raise ValueError("weights must be finite, not negative, and not all zero for any item")
    return np.asarray(spread / total, np.float32)


# ---- the code -----------------------------------------------------------------------------------


def encode(parameters: npt.ArrayLike, bits: int = HALF) -> bytes:
    """The code of one item: its weights, quantized, and nothing else.

    With 16 bits these are half floats, as in the paper. With fewer they are symbols of the
    uniform quantizer, packed, behind the mean and the standard deviation of all weights, two
    float32. Architecture and coordinates are configuration, which decoders are told.

    Parameters
    ----------
    parameters : array, shape (parameter_count,)
    bits : int
        1 to 16.

    Raises
    ------
    ValueError
        If a parameter is not finite, or too large for a half float.
    """
    weights = _parse_parameters(parameters)
    if parse_bits(bits) == HALF:
        if np.abs(weights).max() > np.finfo(np.float16).max:
            raise ValueError("a weight is too large for a half float; use fewer bits")
        return weights.astype("<f2").tobytes()
    span = _span(weights)
    symbols = _quantizer(span, bits).quantize(weights, clip=True)
    planes = symbols[:, None] >> np.arange(bits - 1, -1, -1) & 1
    return span.tobytes() + np.packbits(planes.astype(np.uint8)).tobytes()


def decode(
    payload: bytes, network: CoinNetwork, coordinates: npt.ArrayLike, bits: int = HALF
) -> Float32:
    """What a payload of :func:`encode` holds, float32, shape (points, dim_out).

    Raises
    ------
    CorruptPayloadError
        If it has another length than that of such a network, or is damaged in a way that shows.
    """
    return network(decode_parameters(payload, network, bits), np.asarray(coordinates, np.float32))


def decode_parameters(payload: bytes, network: CoinNetwork, bits: int = HALF) -> Float32:
    """The weights in a payload, float32, shape (parameter_count,); raises as :func:`decode`."""
    expected = network.nbytes(bits)
    if len(payload) != expected:
        raise CorruptPayloadError(
            f"COIN payload has {len(payload)} bytes, this network takes {expected} at {bits} bits"
        )
    if bits == HALF:
        weights = np.frombuffer(payload, "<f2").astype(np.float32)
    else:
        span = np.frombuffer(payload, "<f4", count=2)
        if not (np.isfinite(span).all() and span[1] > 0):
            raise CorruptPayloadError("COIN payload holds no valid range of its weights")
        stream = np.unpackbits(np.frombuffer(payload, np.uint8, offset=_RANGE_BYTES))
        end = network.parameter_count * bits
        if stream[end:].any():
            raise CorruptPayloadError("COIN payload has bits set after its last weight")
        symbols = stream[:end].reshape(-1, bits) @ (
            1 << np.arange(bits - 1, -1, -1, dtype=np.int32)
        )
        with np.errstate(over="ignore"):
            weights = _quantizer(span, bits).dequantize(symbols)
    if not np.isfinite(weights).all():
        raise CorruptPayloadError("COIN payload holds weights that are not finite")
    return weights


def quantized(parameters: npt.ArrayLike, bits: int) -> Float32:
    """Weights of one item after the uniform quantizer, at 16 bits, too.

    2^bits levels from mean − kσ to mean + kσ with k = 3 + 3 (bits − 1) / 15; what is beyond is
    clipped (COIN++, appendix B.1).

    Parameters
    ----------
    parameters : array, shape (parameter_count,)
    bits : int
        1 to 16.

    Returns
    -------
    float32 array, shape (parameter_count,)
    """
    weights = _parse_parameters(parameters)
    quantizer = _quantizer(_span(weights), bits)
    return quantizer.dequantize(quantizer.quantize(weights, clip=True))


def quantizer_range(bits: int) -> float:
    """Standard deviations on either side of the mean that levels spread over."""
    return 3 + 3 * (parse_bits(bits) - 1) / 15


def _span(weights: Float32) -> Float32:
    """Mean and standard deviation, as payloads hold them."""
    std = max(float(weights.std(dtype=np.float64)), float(np.finfo(np.float32).tiny))
    return np.array([weights.mean(dtype=np.float64), std], "<f4")


def _quantizer(span: Float32, bits: int) -> UniformQuantizer:
    mean, std = span.astype(np.float64)
    # That one spreads its levels over a number of deviations of its own.
    return UniformQuantizer(mean, std * quantizer_range(bits) / STD_RANGE, bits)


def _parse_parameters(parameters: npt.ArrayLike) -> Float32:
    weights = np.asarray(parameters, np.float32)
    if weights.ndim != 1 or not weights.size or not np.isfinite(weights).all():
        raise ValueError(f"COIN codes finite weights of one item, got shape {weights.shape}")
    return weights
