"""Codecs for what is cut into patches: images, volumes, sound."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numcodecs.compat import ensure_bytes

from coinpp_xr.chunk import decode_chunk
from coinpp_xr.codecs.base import NumcodecsCodec, Rate, parse_error
from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.patch_chunk import BAND_CELLS, PatchRate, encode_patches
from coinpp_xr.patches import CHANNELS, Layout, Patching, check_patch_size

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
        infinities and -0.0 come back with their bits.
    max_error_relative : float, optional
        The same as a fraction of each value, below 1.
    patch_size : int or tuple of int
        Cells of a patch along each axis, at most 8,192 in all; patches are split further where
        that is worth it. What is left over at the edges makes partial patches.
    channels : {{"auto", "none", "first", "last"}}
        {channels}
    data_range : float, optional
        What the values span, for target_psnr: {range}.
    band_cells : int
        Cells of the parts that are coded separately: smaller ones are faster to get at
        (:meth:`decode_region`), larger ones take fewer bytes.

    Raises
    ------
    ValueError"""


class _PatchSettings(NumcodecsCodec):
    """The settings of a codec for patches."""

    spatial: ClassVar[int]
    _default_size: ClassVar[tuple[int, ...]]
    _default_channels: ClassVar[str] = "auto"
    # Of floats.
    _default_range: ClassVar[float] = 1.0

    def __init__(
        self,
        *,
        target_psnr: float | None = None,
        target_rmse: float | None = None,
        target_bpp: float | None = None,
        max_error: float | None = None,
        max_error_relative: float | None = None,
        patch_size: int | tuple[int, ...] | None = None,
        channels: str | None = None,
        data_range: float | None = None,
        band_cells: int | None = None,
    ) -> None:
        self._rate = Rate.parse(
            target_psnr=target_psnr, target_rmse=target_rmse, target_bpp=target_bpp,
            max_error=max_error, max_error_relative=max_error_relative,
        )  # fmt: skip
        for name in ("target_psnr", "target_rmse", "target_bpp", "max_error", "max_error_relative"):
            setattr(self, name, self._rate.controls.get(name))
        size = check_patch_size(
            self._default_size if patch_size is None else patch_size, self.spatial
        )
        self._patching = Patching.of(size)
        self.patch_size = None if size == self._default_size else list(size)
        if channels is not None and channels not in ("auto", *CHANNELS):
            raise ValueError(
                f"channels must be one of auto, {', '.join(CHANNELS)}, got {channels!r}"
            )
        self.channels = None if channels == self._default_channels else channels
        self.data_range = None if data_range is None else parse_error("data_range", data_range)
        whole = isinstance(band_cells, int | np.integer) and not isinstance(band_cells, bool)
        if band_cells is not None and not (whole and 1 <= band_cells < 1 << 32):
            raise ValueError(f"band_cells must be a positive whole number, got {band_cells!r}")
        self.band_cells = None if band_cells == BAND_CELLS else band_cells

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
        return decode_chunk(ensure_bytes(data), _no_model, region=region)

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

    def _encode_array(self, values: npt.NDArray[Any]) -> bytes:
        rate = self._rate
        rmse = rate.target_rmse
        if rate.target_psnr is not None and values.dtype.kind in "iuf":
            rmse = self._peak(values.dtype) / 10 ** (rate.target_psnr / 20)
        return encode_patches(
            values, self._layout(values.shape), self._patching,
            PatchRate(rmse, rate.target_bpp, rate.bound), band_cells=self.band_cells or BAND_CELLS,
        )  # fmt: skip

    def _decode_payload(
        self, data: bytes, expected: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    ) -> npt.NDArray[Any]:
        return decode_chunk(data, _no_model, expected=expected)

    def _check_chunks(self, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> None:
        if len(shape) < self.spatial:
            raise ValueError(f"needs at least {self.spatial} axes, got shape {shape}")


def _no_model(fingerprint: str) -> Any:
    raise ModelNotFoundError(
        f"the payload was written with model {fingerprint}, for globes: open it with COINppCodec"
    )


class ImagePatchCodec(_PatchSettings):
    __doc__ = f"""Images in patches of 32 × 32: grey or in colour, integers or floats.

    The last two axes are rows and columns, but for an axis of channels; axes before count images.

    {
        _PARAMETERS.format(
            cell="pixel",
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
    spatial, _default_size = 2, (32, 32)


class VolumePatchCodec(_PatchSettings):
    __doc__ = f"""Volumes in patches of 16 × 16 × 16.

    The last three axes are space, axes before count volumes.

    {
        _PARAMETERS.format(
            cell="voxel",
            together="",
            channels="Where several quantities of each voxel are, if there are (none).",
            range="1 for floats, by default, and all that the type can hold for integers",
        )
    }
    """

    codec_id = "coinpp-volume"
    spatial, _default_size = 3, (16, 16, 16)
    _default_channels = "none"


class AudioPatchCodec(_PatchSettings):
    __doc__ = f"""Sound in patches of 1,600 samples, in parts of 800, 400 or 200 where it changes.

    The last axis is time, but for an axis of channels; axes before count recordings.

    {
        _PARAMETERS.format(
            cell="sample",
            together=", all channels together",
            channels="Where the channels are, if there are several (none).",
            range="2 for floats, by default, and all that the type can hold for integers",
        )
    }
    """

    codec_id = "coinpp-audio"
    spatial, _default_size = 1, (1600,)
    _default_channels = "none"
    _default_range = 2.0
