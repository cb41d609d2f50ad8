"""The assembled proxy."""

__version__ = "0.1.0"
