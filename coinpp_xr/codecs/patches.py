"""Codecs for what is cut into patches: images, volumes, sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Never

import numpy as np
import numpy.typing as npt
from numcodecs.compat import ensure_bytes

from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.codecs.base import NO_MODEL, NumcodecsCodec, Rate, parse_chunk, parse_error
from coinpp_xr.codecs.named_model import NamesModel, check_named, chosen_model
from coinpp_xr.errors import refuse_unknown, shown
from coinpp_xr.models import Model
from coinpp_xr.patch_chunk import BAND_CELLS, PatchRate, encode_patches
from coinpp_xr.patch_header import MOST_BAND_CELLS
from coinpp_xr.patch_latents import patching_of
from coinpp_xr.patches import CHANNELS, DEFAULT_SIZES, Layout, Patching, check_patch_size

_PARAMETERS = """Parameters
    ----------
    target_psnr : float, optional
        Peak signal-to-noise ratio of every chunk in dB, never less: 20 log10(data_range / RMSE).
    target_rmse : float, optional
        Root mean square error of every chunk in the data's unit, never exceeded.
    target_bpp : float, optional
        Bits per {cell} that are never exceeded{together}.
    max_error : float, optional
        No finite value comes back further away than this; 0.5 is without loss for integers. NaN,
        infinities and -0.0 come back with their bits, and so do integers beyond ±2⁵³.
    max_error_relative : float, optional
        The same as a fraction of each value, below 1.
    bits : int, optional
        Bits per latent of the model's network, 1 to 16: the COIN++ paper's rate control. Nothing
        else is stored, so the error is whatever the network makes of the data.
    model : str, path or Model
        What the coder has learned from other data before it starts, and the network of ``bits``:
        the name of a shipped ({model}), cached or loaded model, or the path of its file. "none"
        for coding without any. A configuration keeps name and fingerprint, and never a path.
    patch_size : int or tuple of int
        Cells of a patch along each axis, at most 1,600, and 8,192 in all; patches are split further
        where that is worth it. What is left over at the edges makes partial patches. With ``bits``
        patches are the model's.
    channels : {{"auto", "none", "first", "last"}}
        {channels}
    data_range : float, optional
        What the values span, for target_psnr and ``bits``: {range}.
    band_cells : int
        Cells of the parts that are coded separately: smaller ones are faster to get at
        (:meth:`decode_region`), larger ones take fewer bytes. At most 2,097,152.
    fingerprint : str, optional
        Set by configurations; the one model that the data was written with.
    chunk : (shape, dtype), optional
        Shape and dtype that every payload must have, or is refused before memory is taken for it:
        for Zarr format 2, which tells a codec nothing of the array.

    Raises
    ------
    ModelNotFoundError, ValueError"""


class _PatchSettings(NamesModel, NumcodecsCodec):
    """The settings of a codec for patches."""

    spatial: ClassVar[int]
    _default_channels: ClassVar[str] = "auto"
    _default_model: str
    # Of floats; and where they start, in that range.
    _default_range: ClassVar[float] = 1.0
    _lowest: ClassVar[float] = 0.0

    def __init__(
        self,
        *,
        target_psnr: float | None = None,
        target_rmse: float | None = None,
        target_bpp: float | None = None,
        max_error: float | None = None,
        max_error_relative: float | None = None,
        bits: int | None = None,
        model: str | Path | Model | None = None,
        patch_size: int | tuple[int, ...] | None = None,
        channels: str | None = None,
        data_range: float | None = None,
        band_cells: int | None = None,
        fingerprint: str | None = None,
        chunk: Sequence[Any] | None = None,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, type(self))
        given = {
            "target_psnr": target_psnr, "target_rmse": target_rmse, "target_bpp": target_bpp,
            "max_error": max_error, "max_error_relative": max_error_relative, "bits": bits,
        }  # fmt: skip
        self._rate = Rate.parse(needs_one=True, **given)
        for name in given:
            setattr(self, name, self._rate.controls.get(name))
        self._choose_model(model, fingerprint)
        size = check_patch_size(
            DEFAULT_SIZES[self.spatial] if patch_size is None else patch_size, self.spatial
        )
        self._patching = Patching.of(size)
        self.patch_size = None if size == DEFAULT_SIZES[self.spatial] else list(size)
        if channels is not None and channels not in ("auto", *CHANNELS):
            raise ValueError(
                f"channels must be one of auto, {', '.join(CHANNELS)}, got {shown(channels)}"
            )
        self.channels = None if channels == self._default_channels else channels
        self.data_range = None if data_range is None else parse_error("data_range", data_range)
        whole = isinstance(band_cells, int | np.integer) and not isinstance(band_cells, bool)
        if band_cells is not None and not (whole and 1 <= band_cells <= MOST_BAND_CELLS):
            raise ValueError(
                f"band_cells must be a whole number from 1 to {MOST_BAND_CELLS}, got "
                f"{shown(band_cells)}"
            )
        self.band_cells = None if band_cells == BAND_CELLS else band_cells
        self.chunk = parse_chunk(chunk)

    def _choose_model(self, model: str | Path | Model | None, fingerprint: str | None) -> None:
        self.model: str | None = None
        self.fingerprint = fingerprint
        if isinstance(model, str) and model == NO_MODEL:
            if self._rate.bits is not None:
                raise ValueError("bits needs a model; without one give another rate control")
            self.model, self.fingerprint = NO_MODEL, None
            return
        if fingerprint is None or isinstance(model, Model):
            # A typo in the name should show here, not in the middle of a write.
            found = chosen_model(self._default_model if model is None else model)
            patching_of(found, self.spatial)
            model, self.fingerprint, self._is_own = found.name, found.fingerprint, True
        else:
            check_named({"model": model, "fingerprint": fingerprint})
        self.model = None if model == self._default_model else str(model or "") or None

    @property
    def rate(self) -> Rate:
        """The rate control."""
        return self._rate

    def decode_region(self, data: bytes, *region: slice) -> npt.NDArray[Any]:
        """Part of a payload's array, without decoding much else.

        Parameters
        ----------
        data : bytes
        *region : slice
            Along the array's axes, from the first on, without steps.

        Returns
        -------
        array
            What ``decode(data)[region]`` is.

        Raises
        ------
        CorruptPayloadError, ValueError
        """
        return decode_chunk(ensure_bytes(data), self.find_model, region=region)

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        channels = self.channels or self._default_channels
        if channels == "auto":
            channels = "none"
            if len(shape) > self.spatial:
                if shape[-1] in (3, 4):
                    channels = "last"
                elif shape[-1 - self.spatial] in (3, 4):
                    channels = "first"
        return Layout(self.spatial, channels)

    def _peak(self, dtype: np.dtype[Any]) -> float:
        if self.data_range is not None:
            return self.data_range
        if dtype.kind in "iu":
            return float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)
        return self._default_range

    def _normalisation(self, values: npt.NDArray[Any]) -> tuple[float, float]:
        """Offset and scale that bring what values may be to [0, 1]."""
        peak = self._peak(values.dtype)
        if values.dtype.kind in "iu" and self.data_range is None:
            return float(np.iinfo(values.dtype).min), peak
        return self._lowest * peak, peak

    def _encode_array(self, values: npt.NDArray[Any]) -> bytes:
        rate, real = self._rate, values.dtype.kind in "iuf"
        rmse, normalisation = rate.target_rmse, (0.0, 1.0)
        if rate.target_psnr is not None and real:
            rmse = self._peak(values.dtype) / 10 ** (rate.target_psnr / 20)
        if rate.bits is not None and real:
            normalisation = self._normalisation(values)
        return encode_patches(
            values, self._layout(values.shape), self._patching,
            PatchRate(rmse, rate.target_bpp, rate.bound, rate.bits, normalisation),
            self.own_model(),
            band_cells=self.band_cells or BAND_CELLS,
        )  # fmt: skip

    def _decode_payload(
        self, data: bytes, expected: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    ) -> npt.NDArray[Any]:
        return decode_chunk(data, self.find_model, expected=expected)

    def _check_chunks(self, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> None:
        if len(shape) < self.spatial:
            raise ValueError(f"needs at least {self.spatial} axes, got shape {shape}")


class ImagePatchCodec(_PatchSettings):
    __doc__ = f"""Images in patches of 32 × 32: grey or in colour, integers or floats.

    The last two axes are rows and columns, but for an axis of channels; axes before count images.

    {
        _PARAMETERS.format(
            cell="pixel",
            model="photo-32",
            together=", all channels together",
            channels="Where colours are; auto: in the last axis, or the one before rows and "
            "columns, if it has length 3 or 4.",
            range="1 for floats, by default, and all that the type can hold for integers",
        )
    }

    Examples
    --------
    >>> codec = ImagePatchCodec(target_psnr=35)
    >>> image = np.zeros((64, 96, 3), np.uint8)
    >>> codec.decode(codec.encode(image)).shape
    (64, 96, 3)
    """

    codec_id = "coinpp-image"
    spatial, _default_model = 2, "photo-32"


class VolumePatchCodec(_PatchSettings):
    __doc__ = f"""Volumes in patches of 16 × 16 × 16.

    The last three axes are space, axes before count volumes.

    {
        _PARAMETERS.format(
            cell="voxel",
            model="mri-16",
            together="",
            channels="Where several quantities of each voxel are, if there are (none).",
            range="1 for floats, by default, and all that the type can hold for integers",
        )
    }
    """

    codec_id = "coinpp-volume"
    spatial, _default_model = 3, "mri-16"
    _default_channels = "none"

    def _normalisation(self, values: npt.NDArray[Any]) -> tuple[float, float]:
        # Intensities are in arbitrary units; a few voxels are far brighter than all others.
        if self.data_range is not None:
            return 0.0, self.data_range
        finite = values[np.isfinite(values)].astype(np.float64)
        if finite.size == 0:
            return 0.0, 1.0
        offset = min(0.0, float(finite.min()))
        return offset, (float(np.percentile(finite, 99.99)) - offset) or 1.0


class AudioPatchCodec(_PatchSettings):
    __doc__ = f"""Sound in patches of 1,600 samples, in parts of 800, 400 or 200 where it changes.

    The last axis is time, but for an axis of channels; axes before count recordings.

    {
        _PARAMETERS.format(
            cell="sample",
            model="speech-16k",
            together=", all channels together",
            channels="Where the channels are, if there are several (none).",
            range="2 for floats, by default, and all that the type can hold for integers",
        )
    }
    """

    codec_id = "coinpp-audio"
    spatial, _default_model = 1, "speech-16k"
    _default_channels = "none"
    _default_range, _lowest = 2.0, -0.5
