"""COIN++ neural compression for gridded climate data.

A field on the sphere is fitted by a shared network (a SIREN) through a few latent modulations;
only the quantized, entropy-coded modulations are stored::

    import xarray as xr
    from coinpp_xr import COINppCodec

    ds.to_zarr("out.zarr", encoding={"t2m": {"compressor": COINppCodec(bits=8)}})
    result = ds.coinpp.compress(bits=8)   # result.report: bytes, ratio, RMSE in °C, ...

Importing the package is cheap: it imports neither torch, zarr nor dask.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from coinpp_xr.errors import CompressionWarning, CorruptPayloadError, ModelNotFoundError
from coinpp_xr.version import __version__

if TYPE_CHECKING:
    from coinpp_xr.archiving import archive, plan_archive
    from coinpp_xr.building import train
    from coinpp_xr.climatology_building import climatology_model
    from coinpp_xr.codecs.patches import AudioPatchCodec, ImagePatchCodec, VolumePatchCodec
    from coinpp_xr.codecs.sphere import COINppArrayCodec, COINppCodec
    from coinpp_xr.models import Model, load_model
    from coinpp_xr.settings import config

_LAZY = {
    "AudioPatchCodec": "coinpp_xr.codecs.patches",
    "COINppArrayCodec": "coinpp_xr.codecs.sphere",
    "COINppCodec": "coinpp_xr.codecs.sphere",
    "ImagePatchCodec": "coinpp_xr.codecs.patches",
    "Model": "coinpp_xr.models",
    "archive": "coinpp_xr.archiving",
    "climatology_model": "coinpp_xr.climatology_building",
    "VolumePatchCodec": "coinpp_xr.codecs.patches",
    "config": "coinpp_xr.settings",
    "load_model": "coinpp_xr.models",
    "plan_archive": "coinpp_xr.archiving",
    "train": "coinpp_xr.building",
}

__all__ = [
    "AudioPatchCodec",
    "COINppArrayCodec",
    "COINppCodec",
    "CompressionWarning",
    "CorruptPayloadError",
    "ImagePatchCodec",
    "Model",
    "ModelNotFoundError",
    "VolumePatchCodec",
    "__version__",
    "archive",
    "climatology_model",
    "config",
    "load_model",
    "plan_archive",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'coinpp_xr' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


try:
    import xarray as _xarray  # noqa: F401
except ModuleNotFoundError:  # a bare training machine: there is nothing to register with
    pass
else:
    from coinpp_xr import accessor, xarray_encoding

    accessor.register()
    xarray_encoding.install()
