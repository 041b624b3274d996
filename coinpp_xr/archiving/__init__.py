"""Whole archives on a dask cluster: resumable, verified, growing."""

from coinpp_xr.archiving.forecast import ArchivePlan, plan_archive
from coinpp_xr.archiving.outcome import ArchiveReport
from coinpp_xr.archiving.reading import decompress
from coinpp_xr.archiving.running import archive
from coinpp_xr.archiving.verifying import Verification, verify

__all__ = [
    "ArchivePlan",
    "ArchiveReport",
    "Verification",
    "archive",
    "decompress",
    "plan_archive",
    "verify",
]
