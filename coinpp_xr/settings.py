"""Run-time settings, never stored with the data.

``device``
    ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1``, ...
``threads``
    Threads for numeric work; None means OMP_NUM_THREADS or all cores.
``model_url``
    Where models that are not shipped are downloaded from (a folder URL).
``cache``
    Folder for downloaded models; None means the platform's cache folder.
``download_seconds``
    How long a download of a model may take in all.
``max_decode_bytes``
    Largest array that a payload may ask for where no store says what it holds, as in Zarr format
    2, in files and in memory; more is not written either. In Zarr format 3 a payload must be what
    the array's metadata says.
``decoded_cache_bytes``
    How much of what was decoded lately is kept, for whoever reads a chunk step by step; 0 keeps
    nothing.

Set them with ``coinpp_xr.config.set(device="cpu")``, also as a context manager, or in the
environment: ``COINPP_XR_DEVICE``, ``COINPP_XR_THREADS``, ``COINPP_XR_MODEL_URL``, ...
"""

from __future__ import annotations

from donfig import Config

config = Config(
    "coinpp_xr",
    defaults=[
        {
            "device": "auto",
            "threads": None,
            "model_url": None,
            "cache": None,
            "download_seconds": 120,
            "max_decode_bytes": 2**29,
            "decoded_cache_bytes": 2**27,
        },
    ],
)
