"""The version of segray, for what names it without importing all of segray."""

__version__ = "0.1.0"
