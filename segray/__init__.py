"""segray trains a U-Net on a Ray cluster and segments whole image buckets with it."""

from segray import clock as clock  # first, so that it starts with the process
from segray.errors import InputError
from segray.model.segmenter import Segmenter, load
from segray.version import __version__

__all__ = ["InputError", "Segmenter", "__version__", "load"]
