"""Whole archives on a dask cluster: resumable, verified, growing."""

from coinpp_xr.archiving.outcome import ArchiveReport
from coinpp_xr.archiving.running import archive

__all__ = ["ArchiveReport", "archive"]
