"""The version of segray, which can be imported without all of segray."""

__version__ = "0.1.0"
