"""The package's own errors and warnings; every message is one line that says what to do."""

from __future__ import annotations


class CorruptPayloadError(ValueError):
    """A payload is damaged, cut short, or was not written by this codec."""


class ModelNotFoundError(LookupError):
    """No model of that name or fingerprint is at hand."""


class CompressionWarning(UserWarning):
    """Data was kept without loss, or with a larger error than its owner may expect."""
