"""What was decoded lately: a loop over the steps of a chunk does not decode it each time.

One store for the whole process, bounded by the setting ``decoded_cache_bytes``: chunks that can
only be decoded as a whole, and fields that others of their chunk refer to.
"""

from __future__ import annotations

from coinpp_xr.caching import Recent
from coinpp_xr.settings import config

_recent = Recent(lambda: int(config.get("decoded_cache_bytes")))

find, keep, forget_all = _recent.find, _recent.keep, _recent.forget_all
