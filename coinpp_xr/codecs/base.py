"""What every codec of the package shares: rate controls, configuration, the two Zarr interfaces."""

from __future__ import annotations

import asyncio
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ensure_ndarray_like, ndarray_copy
from zarr.abc.codec import ArrayBytesCodec, BytesBytesCodec

from coinpp_xr.codecs import recently_decoded
from coinpp_xr.codecs.configuration import checked
from coinpp_xr.errors import CompressionWarning, shown
from coinpp_xr.lattice import Bound
from coinpp_xr.model_schema import is_number
from coinpp_xr.quantization import parse_bits
from coinpp_xr.settings import config

DEFAULT_BITS = 8
# Names of no model: without any network, and with the one that comes with the package alone, which
# is a part of the pyramid.
NO_MODEL, UNIVERSAL = "none", "universal"
WITHOUT_MODEL = (NO_MODEL, UNIVERSAL)


def without_model(asked: Any) -> str:
    """The name of no model where one that was ``asked`` for is not there, or does not pay."""
    return NO_MODEL if asked == NO_MODEL else UNIVERSAL


class _NumcodecsDict(dict[str, Any]):
    """The dictionary form of a codec that also passes as a numcodecs codec.

    For Zarr format 2 zarr-python turns a Zarr v3 codec into a dict and then looks for numcodecs'
    methods on the dict's type; a plain one would be refused as an unknown codec.
    """

    # zarr-python may ask the type; what it writes comes from the codec's configuration.
    codec_id: str = "coinpp"

    def __init__(self, codec: NumcodecsCodec, form: dict[str, Any]) -> None:
        super().__init__(form)
        self._codec, self.codec_id = codec, codec.codec_id

    def encode(self, buf: Any) -> bytes:
        return bytes(self._codec.encode(buf))

    def decode(self, buf: Any, out: Any = None) -> npt.NDArray[Any]:
        return np.asarray(self._codec.decode(buf, out))

    def get_config(self) -> dict[str, Any]:
        return self._codec.get_config()

    def from_config(self, config: dict[str, Any]) -> NumcodecsCodec:
        return self._codec.from_config(config)


class Configured:
    """A codec that is its configuration: plain JSON made from its public attributes."""

    codec_id: ClassVar[str]

    def get_config(self) -> dict[str, Any]:
        """Plain JSON: the constructor's arguments that are not at their default (None)."""
        settings = {name: v for name, v in vars(self).items() if not name.startswith("_")}
        return {"id": self.codec_id, **{k: v for k, v in sorted(settings.items()) if v is not None}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The codec of a configuration, which may come from anybody.

        Raises
        ------
        ModelNotFoundError
        ValueError
            If anything in it is not what it has to be.
        """
        arguments = [name for name in signature(cls).parameters if name != "unknown"]
        return cls(**checked(config, cls.codec_id, arguments))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The codec of Zarr's metadata; see :meth:`from_config`."""
        return cls.from_config(data.get("configuration", {}) if isinstance(data, Mapping) else data)

    def to_dict(self) -> dict[str, Any]:
        config = self.get_config()
        return {"name": config.pop("id"), "configuration": config}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(json.dumps(self.get_config(), sort_keys=True))

    def __repr__(self) -> str:
        shown = [
            f"{name}={_short(value)}" for name, value in self.get_config().items() if name != "id"
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __getstate__(self) -> dict[str, Any]:
        return self.get_config()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**{name: value for name, value in state.items() if name != "id"})  # type: ignore[misc]

    # What a modality provides; arrays in, payloads out.

    def _encode_array(self, values: npt.NDArray[Any]) -> bytes:
        raise NotImplementedError

    def _decode_payload(
        self, data: bytes, expected: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    ) -> npt.NDArray[Any]:
        raise NotImplementedError

    def _check_chunks(self, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> None:
        raise NotImplementedError

    def cell_axes_of(self, shape: tuple[int, ...]) -> int:
        """How many of the last axes of an array hold the cells of a field."""
        return 2

    # Zarr v3's bookkeeping, the same for both of its codec interfaces.

    is_fixed_size = False

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        raise NotImplementedError("the size of a compressed chunk depends on its content")

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        chunk_shape = getattr(chunk_grid, "chunk_shape", None)
        if chunk_shape is not None:
            self._check_chunks(tuple(shape), tuple(chunk_shape))

    async def _encode_single(self, chunk: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._encode_sync, chunk, chunk_spec)

    async def _decode_single(self, chunk: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk, chunk_spec)

    def _encode_sync(self, chunk: Any, chunk_spec: Any) -> Any:
        raise NotImplementedError

    def _decode_sync(self, chunk: Any, chunk_spec: Any) -> Any:
        raise NotImplementedError


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"<{len(value)} values>"
    if isinstance(value, dict):  # an axis, a grid, or weights
        inner = next((each for each in value.values() if isinstance(each, dict)), value)
        count = inner.get("count", inner.get("cells", prod(inner.get("shape", ()))))
        return f"<{count} values>"
    if isinstance(value, str) and len(value) > 80:  # an embedded model
        return f"<{len(value)} characters>"
    return repr(value)


class NumcodecsCodec(Configured, Codec, BytesBytesCodec):  # type: ignore[misc]
    """A numcodecs codec that is a bytes-to-bytes codec of Zarr v3, too.

    In Zarr v3 it must directly follow ``bytes`` with little-endian order, which is what zarr
    writes by default: it then sees the array's bytes and, in the chunk's specification, its shape.
    """

    # Shape and dtype of every chunk: Zarr 2 does not tell them to a codec.
    chunk: list[Any] | None = None

    def encode(self, buf: Any) -> Any:
        """Compress an array to bytes; see the class for what it may hold."""
        if _is_zarr_batch(buf):
            return BytesBytesCodec.encode(self, buf)
        values = np.asarray(ensure_ndarray_like(buf))
        self._check_for_readers(values)
        return self._encode_array(values)

    def _check_for_readers(self, values: npt.NDArray[Any]) -> None:
        """Refuse what a reader would refuse who knows the payload and this codec only."""
        _check_size(values.nbytes)
        chunk = self.expected_chunk
        if chunk is not None and (values.shape, values.dtype.newbyteorder("=")) != (
            chunk[0], chunk[1].newbyteorder("=")
        ):  # fmt: skip
            raise ValueError(
                f"the codec was made for chunks of {chunk[1]} {chunk[0]}, got {values.dtype} "
                f"{values.shape}: use ds.drop_encoding(), or a codec without chunk"
            )

    @property
    def expected_chunk(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and dtype of every chunk, where the configuration tells them."""
        return None if self.chunk is None else (tuple(self.chunk[0]), np.dtype(self.chunk[1]))

    def with_chunk(self, shape: Sequence[int] | None, dtype: npt.DTypeLike) -> Self:
        """The same codec for chunks of one shape and dtype, or without a shape for any."""
        other = object.__new__(type(self))
        other.__dict__.update(vars(self))
        other.chunk = None if shape is None else parse_chunk((shape, np.dtype(dtype).str))
        return other

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The array of a payload, with its original dtype and shape."""
        if _is_zarr_batch(buf):
            return BytesBytesCodec.decode(self, buf)
        chunk = self.expected_chunk
        if chunk is not None:  # which comes from a store, as payloads do
            _check_size(prod(chunk[0]) * chunk[1].itemsize)
        values = self._decode_or_find(ensure_bytes(buf), chunk)
        return values if out is None else ndarray_copy(values, out)

    def to_dict(self) -> dict[str, Any]:
        return _NumcodecsDict(self, super().to_dict())

    def _decode_or_find(
        self, data: bytes, expected: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    ) -> npt.NDArray[Any]:
        """The array of a payload; Zarr asks for the whole chunk again for each of its steps."""
        # Settings are part of the key: a lower limit must refuse a payload again.
        settings = config.get("max_decode_bytes"), str(config.get("device"))
        key = hashlib.blake2b(data, digest_size=16).digest(), self, expected, settings
        found = recently_decoded.find(key)
        if found is None:
            values = self._decode_payload(data, expected)
            if values.nbytes <= config.get("decoded_cache_bytes"):
                recently_decoded.keep(key, values.copy(order="K"), values.nbytes)
            return values
        return np.asarray(found).copy(order="K")

    def _encode_sync(self, chunk: Any, chunk_spec: Any) -> Any:
        dtype = _native_dtype(chunk_spec).newbyteorder("<")
        raw = chunk.as_numpy_array().view(np.uint8).reshape(-1)
        expected = int(np.prod(chunk_spec.shape)) * dtype.itemsize
        if raw.nbytes != expected:
            raise ValueError(
                f"{self.codec_id} received {raw.nbytes} bytes where the chunk has {expected}: "
                "it must come directly after the 'bytes' codec, with no other compressor before it"
            )
        payload = self._encode_array(raw.view(dtype).reshape(chunk_spec.shape))
        return chunk_spec.prototype.buffer.from_bytes(payload)

    def _decode_sync(self, chunk: Any, chunk_spec: Any) -> Any:
        dtype = _native_dtype(chunk_spec)
        values = self._decode_or_find(
            chunk.as_numpy_array().tobytes(), (tuple(chunk_spec.shape), dtype)
        )
        raw = np.ascontiguousarray(values, dtype=dtype.newbyteorder("<"))
        return chunk_spec.prototype.buffer.from_bytes(raw.tobytes())


class ArrayCodec(Configured, ArrayBytesCodec):
    """A serializer of Zarr v3: it receives the array itself, whatever its byte order."""

    def _encode_sync(self, chunk: Any, chunk_spec: Any) -> Any:
        return chunk_spec.prototype.buffer.from_bytes(self._encode_array(chunk.as_numpy_array()))

    def _decode_sync(self, chunk: Any, chunk_spec: Any) -> Any:
        dtype = _native_dtype(chunk_spec)
        values = self._decode_payload(
            chunk.as_numpy_array().tobytes(), (tuple(chunk_spec.shape), dtype)
        )
        return chunk_spec.prototype.nd_buffer.from_numpy_array(
            np.ascontiguousarray(values, dtype=dtype)
        )


@dataclass(frozen=True)
class Rate:
    """The one rate control of a codec."""

    bits: int | None = None
    target_rmse: float | None = None
    target_psnr: float | None = None
    target_bpp: float | None = None
    bound: Bound | None = None

    @property
    def is_lossless(self) -> bool:
        """Whether every value comes back bit for bit."""
        return self.bound is not None and self.bound.is_exact

    @property
    def controls(self) -> dict[str, float]:
        """As an argument of the codec, by its name."""
        if self.bound is not None:
            name = "max_error_relative" if self.bound.relative else "max_error"
            return {name: self.bound.error}
        named = {name: value for name, value in vars(self).items() if name != "bound"}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def parse(cls, *, needs_one: bool = False, **controls: Any) -> Rate:
        """Check the exclusive rate controls that a codec has, each by its name.

        Without any, ``bits`` is used and a warning says so, unless one is needed.

        Raises
        ------
        ValueError
        """
        given = {name: value for name, value in controls.items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"give one rate control, not {' and '.join(given)}")
        if not given:
            if needs_one:
                raise ValueError(f"give one rate control: {', '.join(controls)}")
            warnings.warn(
                f"no rate control given: bits={DEFAULT_BITS} is used, which bounds no error. Data "
                "unlike the model's training data comes back with whatever error the model makes; "
                "give max_error or target_rmse, or check the report of ds.coinpp.compress(...)",
                CompressionWarning,
                stacklevel=4,
            )
            return cls(bits=DEFAULT_BITS)
        name, value = next(iter(given.items()))
        if name == "bits":
            return cls(bits=parse_bits(value))
        unit = _UNITS.get(name, "in the data's unit")
        if name == "max_error" and is_number(value) and value == 0:
            return cls(bound=Bound(0.0))  # nothing is lost
        number = parse_error(name, value, unit)
        if name == "max_error":
            return cls(bound=Bound(number))
        if name == "target_psnr" and number > _MOST_DB:
            raise ValueError(f"target_psnr must be at most {_MOST_DB:,} dB, got {shown(value)}")
        if name == "max_error_relative":
            if number >= 1:
                raise ValueError(
                    f"max_error_relative is a fraction of the value, below 1 (0.01 is 1 %), "
                    f"got {shown(value)}"
                )
            return cls(bound=Bound(number, relative=True))
        return cls(**{name: number})  # type: ignore[arg-type]


# Beyond it the smallest error is none.
_MOST_DB = 6000
# Of controls that are not in the data's unit.
_UNITS = {"target_psnr": "in dB", "target_bpp": "of bits per cell"}


def parse_error(name: str, value: Any, unit: str = "in the data's unit") -> float:
    """Check an error, by default in the data's unit."""
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    if not is_number(value) or not value > 0:
        text = isinstance(value, str) and name == "max_error"
        other = ', or "recommended" where variables are known' if text else ""
        raise ValueError(f"{name} must be a positive number {unit}{other}, got {shown(value)}")
    return float(value)


def parse_chunk(value: Any) -> list[Any] | None:
    """Check the shape and dtype of chunks, as a configuration has them.

    Raises
    ------
    ValueError
    """
    if value is None:
        return None
    try:
        shape, dtype = value
        sizes, name = [int(n) for n in shape], np.dtype(dtype).str
    except (TypeError, ValueError, OverflowError):
        sizes, name = [-1], ""
    if min(sizes, default=0) < 0:
        raise ValueError(f"chunk must be a shape and the name of a dtype, got {shown(value)}")
    return [sizes, name]


def _check_size(nbytes: int) -> None:
    most = config.get("max_decode_bytes")
    if nbytes > most:
        raise ValueError(
            f"an array of {nbytes:,} bytes is larger than config max_decode_bytes ({most:,}), and "
            "is not read where no store says what it holds: write smaller chunks, or raise that "
            "setting, for readers, too (COINPP_XR_MAX_DECODE_BYTES)"
        )


def _is_zarr_batch(buf: Any) -> bool:
    """Whether Zarr v3 is calling, with pairs of chunk and specification: its method names are
    those of numcodecs, whose arguments are buffers."""
    return isinstance(buf, Iterator | list | tuple)


def _native_dtype(chunk_spec: Any) -> np.dtype[Any]:
    dtype = chunk_spec.dtype
    native: np.dtype[Any] = np.dtype(getattr(dtype, "to_native_dtype", lambda: dtype)())
    return native
