"""The package's version; apart, so that what is written down can name it."""

__version__ = "0.1.0"
