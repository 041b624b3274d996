"""Quantized coefficients ↔ bits, each coded in the context of those around it.

A transform along time and over the sphere leaves coefficients whose size changes smoothly from
frequency to frequency. Every decision about a coefficient (is it zero, is it larger than one, …)
is predicted from the sizes of its decoded neighbours, its position, and the size that the model
expects there, by the integer mixing of :mod:`coinpp_xr.mixing`. No float takes part, so the same
payload gives the same symbols everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import constriction
import numpy as np
import numpy.typing as npt

from coinpp_xr.elementary import exponential, power_of_two
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.mixing import COUNT, ONE, Mixer

Symbols = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]
Bool = npt.NDArray[np.bool_]

# Sizes of neighbours are sorted into this many classes, two per octave; positions into four.
_SIZES = 24
_POSITIONS = 44
# Classes of expected size: quarter octaves of standard deviation / step, from 2⁻⁸ to 2⁸.
PRIOR_CLASSES = 64
# Exponents of magnitudes beyond two; symbols stay inside int32.
_EXPONENTS = 29
LARGEST = 2**_EXPONENTS
# So many wavefronts in any case, and one more for so many bytes of the array.
_FEW_FRONTS, _BYTES_PER_FRONT = 300, 512
_HALF = ONE // 2


def are_few_fronts(shape: tuple[int, int, int, int], nbytes: int) -> bool:
    """Whether coefficients are coded in few steps, for an array of so many bytes.

    Every wavefront takes some milliseconds, however few coefficients are in it.
    """
    sequences, frequencies, orders, _ = shape
    return sequences * (frequencies + orders - 1) <= _FEW_FRONTS + nbytes // _BYTES_PER_FRONT


def encode(symbols: Symbols, prior: Index | None = None) -> bytes:
    """Code an array of symbols.

    Parameters
    ----------
    symbols : int32 array, shape (sequences, frequencies, orders, waves)
        |symbol| < 2^29. Frequencies run along time; orders and waves over the sphere, in the
        sequence of falling size.
    prior : int array, shape (frequencies, waves), optional
        Class of the size that the model expects of every coefficient.

    Returns
    -------
    bytes
        For :func:`decode` with the same shape and prior.
    """
    extents = [_extent(symbols, axis) for axis in (1, 2, 3)]
    writer = _Writer()
    for extent, full in zip(extents, symbols.shape[1:], strict=True):
        writer.number(extent, full)
    _walk(writer, symbols, extents, prior)
    return writer.finish()


def decode(stream: bytes, shape: tuple[int, int, int, int], prior: Index | None = None) -> Symbols:
    """The symbols of :func:`encode`.

    Raises
    ------
    CorruptPayloadError
    """
    if len(stream) % 4:
        raise CorruptPayloadError("the coefficients' stream is cut short")
    reader = _Reader(stream)
    symbols = np.zeros(shape, np.int32)
    try:
        extents = [reader.number(0, full) for full in shape[1:]]
        if max(e > n for e, n in zip(extents, shape[1:], strict=True)):
            raise CorruptPayloadError("the coefficients' stream does not fit its shape")
        _walk(reader, symbols, extents, prior)
        exhausted = reader.exhausted()
    except (AssertionError, ValueError, OverflowError) as error:
        raise CorruptPayloadError("the coefficients' stream is damaged") from error
    if not exhausted:
        raise CorruptPayloadError("the coefficients' stream holds more than its shape says")
    return symbols


class _Writer:
    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()
        self._flag = constriction.stream.model.Bernoulli(perfect=False)

    def flags(self, p: npt.NDArray[np.int64], values: Bool) -> Bool:
        self._coder.encode(values.astype(np.int32), self._flag, p / ONE)
        return values

    def number(self, value: int, largest: int) -> int:
        self._coder.encode(value, constriction.stream.model.Uniform(largest + 2))
        return value

    def finish(self) -> bytes:
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class _Reader:
    def __init__(self, stream: bytes) -> None:
        words = np.frombuffer(stream, dtype="<u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._flag = constriction.stream.model.Bernoulli(perfect=False)

    def flags(self, p: npt.NDArray[np.int64], values: Bool) -> Bool:
        decoded: Bool = self._coder.decode(self._flag, p / ONE).astype(np.bool_)
        return decoded

    def number(self, value: int, largest: int) -> int:
        return int(self._coder.decode(constriction.stream.model.Uniform(largest + 2)))

    def exhausted(self) -> bool:
        return bool(self._coder.maybe_exhausted())


def _walk(
    coder: _Writer | _Reader, symbols: Symbols, extents: Sequence[int], prior: Index | None
) -> None:
    """Visit all coefficients inside the extents, in the same way for both directions.

    Those with the same frequency + order form a wavefront: none of them is a context of another,
    so that they are handled as one array.
    """
    frequencies, orders, waves = extents
    if 0 in extents:
        return
    contexts = _Contexts(symbols.shape, extents, prior)
    for sequence in symbols:
        contexts.start_sequence()
        for front in range(frequencies + orders - 1):
            t = np.arange(max(0, front - orders + 1), min(frequencies, front + 1))
            n = front - t
            where = contexts.of(t, n)
            values = sequence[t, n, :waves].reshape(-1)
            values = contexts.code(coder, values, where)
            sequence[t, n, :waves] = values.reshape(len(t), waves)
            contexts.remember(t, n, np.abs(values).reshape(len(t), waves))


class _Contexts:
    """What is known about a coefficient before it is decoded."""

    def __init__(self, shape: Sequence[int], extents: Sequence[int], prior: Index | None) -> None:
        self._extents = extents
        self._waves = extents[2]
        wave = (np.arange(self._waves) + 1) // 2  # cosine and sine of one wavenumber
        self._wave_class = _position_class(wave)
        self._wave = wave
        self._prior = prior
        pair, sized = _start(_SIZES * _SIZES), _start(_SIZES * _POSITIONS)
        if prior is None:
            place = _start(_POSITIONS * _POSITIONS)
            self._zero = Mixer([pair, pair, sized, place, sized])
        else:
            self._zero = Mixer([pair, pair, *_starts_by_prior()])
        self._one = Mixer([pair, pair, sized])
        self._exponent = Mixer([_start(_SIZES * 32), _start(32)])
        self._mantissa = Mixer([_start(_SIZES * 32), _start(32)])

    def start_sequence(self) -> None:
        # Sizes of decoded coefficients, summed over neighbouring waves; two rows of margin.
        frequencies, orders, waves = self._extents
        self._sums = np.zeros((frequencies + 2, orders + 2, waves), np.int64)

    def remember(self, t: Index, n: Index, sizes: npt.NDArray[np.int32]) -> None:
        padded = np.pad(np.minimum(sizes, 1 << 20).astype(np.int64), ((0, 0), (2, 2)))
        around = padded[:, 1:-3] + padded[:, 3:-1] + padded[:, :-4] + padded[:, 4:]
        self._sums[t + 2, n + 2] = 2 * padded[:, 2:-2] + around

    def of(self, t: Index, n: Index) -> dict[str, Index]:
        lower, second = self._sums[t + 2, n + 1], self._sums[t + 2, n]
        before, earlier = self._sums[t + 1, n + 2], self._sums[t, n + 2]
        beside = earlier + self._sums[t + 1, n + 1]
        shape = before.shape
        total = _size_class(2 * lower + second + 2 * before + beside)
        near = _size_class(lower) * _SIZES + _size_class(before)
        wide = _size_class(lower + second) * _SIZES + _size_class(before + beside)
        degree = _position_class(n[:, None] + self._wave)
        time = np.broadcast_to(_size_class(t)[:, None], shape)
        context = {
            "near": near,
            "wide": wide,
            "total": total,
            "total_degree": total * _POSITIONS + degree,
            "place": np.broadcast_to(
                self._wave_class * _POSITIONS + _position_class(n)[:, None], shape
            ),
            "time_degree": time * _POSITIONS + degree,
        }
        if self._prior is not None:
            expected = self._prior[t, : self._waves]
            context["prior"] = expected
            context["prior_size"] = expected * _SIZES + total
        return {name: index.reshape(-1) for name, index in context.items()}

    def code(self, coder: _Writer | _Reader, values: Symbols, where: dict[str, Index]) -> Symbols:
        """Code one wavefront; the decoder is given zeros and gets the values."""
        names = (
            ("near", "wide", "total_degree", "place", "time_degree")
            if self._prior is None
            else ("near", "wide", "prior", "prior_size")
        )
        sizes = np.abs(values)
        nonzero = self._decide(coder, self._zero, [where[name] for name in names], sizes > 0)
        kept = np.flatnonzero(nonzero)
        if len(kept) == 0:
            return np.zeros_like(values)
        negative = coder.flags(np.full(len(kept), _HALF), values[kept] < 0)
        one = [where[name][kept] for name in ("near", "wide", "total_degree")]
        larger = self._decide(coder, self._one, one, sizes[kept] > 1)
        out = np.zeros_like(values)
        out[kept] = 1
        large = kept[larger]
        if len(large):
            out[large] = 2 + self._code_rest(coder, sizes[large] - 2, where["total"][large])
        out[kept] = np.where(negative, -out[kept], out[kept])
        return out

    def _code_rest(self, coder: _Writer | _Reader, rest: Symbols, size_class: Index) -> Symbols:
        """Exponent and mantissa of rest + 1, as in an exponential Golomb code."""
        exponent = np.zeros(len(rest), np.int64)
        going = np.arange(len(rest))
        for level in range(_EXPONENTS):
            contexts = [size_class[going] * 32 + level, np.full(len(going), level)]
            more = self._decide(
                coder,
                self._exponent,
                contexts,
                (rest[going].astype(np.int64) + 1) >> (level + 1) > 0,
            )
            going = going[more]
            exponent[going] += 1
            if len(going) == 0:
                break
        value = np.ones(len(rest), np.int64)
        for bit in range(int(exponent.max(initial=0))):
            # From the bit below the leading one downwards; the first of them is worth learning.
            going = np.flatnonzero(exponent > bit)
            truth = ((rest[going].astype(np.int64) + 1) >> (exponent[going] - 1 - bit)) & 1 == 1
            if bit == 0:
                contexts = [size_class[going] * 32 + exponent[going], exponent[going]]
                decided = self._decide(coder, self._mantissa, contexts, truth)
            else:
                decided = coder.flags(np.full(len(going), _HALF), truth)
            value[going] = 2 * value[going] + decided
        result: Symbols = (value - 1).astype(np.int32)
        return result

    def _decide(
        self, coder: _Writer | _Reader, mixer: Mixer, contexts: Sequence[Index], truth: Bool
    ) -> Bool:
        if len(truth) == 0:
            return truth
        decided = coder.flags(mixer.predict(contexts), truth)
        mixer.learn(decided)
        return decided


def _extent(symbols: Symbols, axis: int) -> int:
    others = tuple(i for i in range(symbols.ndim) if i != axis)
    used = np.flatnonzero((symbols != 0).any(axis=others))
    return int(used[-1]) + 1 if len(used) else 0


def _size_class(sizes: npt.NDArray[np.integer]) -> Index:
    return np.searchsorted(_THRESHOLDS[2][: _SIZES - 1], sizes, side="right")


def _position_class(positions: npt.NDArray[np.integer]) -> Index:
    return np.searchsorted(_THRESHOLDS[4][: _POSITIONS - 1], positions, side="right")


def _thresholds(per_octave: int) -> Int:
    """Smallest whole numbers x with (1 + x) ≥ 2^(i / per_octave), in integer arithmetic."""
    powers = [1 << i for i in range(1, 49)]
    for _ in range(per_octave.bit_length() - 1):
        powers = [isqrt(power - 1) + 1 for power in powers]
    return np.array(sorted({power - 1 for power in powers}), np.int64)


Int = npt.NDArray[np.int64]
_THRESHOLDS = {n: _thresholds(n) for n in (2, 4)}


def _start(contexts: int) -> Int:
    return np.full((contexts, 2), 2 * COUNT // 5)


def _starts_by_prior() -> tuple[Int, Int]:
    """A Laplace distribution of the expected size, with a rounding threshold of 0.6 steps."""
    sizes = [power_of_two(PRIOR_CLASSES // 2 - k, 4) for k in range(PRIOR_CLASSES)]
    p = exponential(-0.6 * np.sqrt(2) * np.array(sizes))
    yes = np.rint(np.clip(p, 1e-4, 1 - 1e-4) * 8 * COUNT * 64)
    counts = np.stack([8 * COUNT * 64 - yes, yes], 1).astype(np.int64) // 64 + 1
    return counts, np.repeat(counts, _SIZES, axis=0) // 4 + 1
