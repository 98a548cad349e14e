"""segray trains a U-Net on a Ray cluster and segments whole image buckets with it."""

from segray.errors import InputError
from segray.model.segmenter import Segmenter, load

__version__ = "0.1.0"

__all__ = ["InputError", "Segmenter", "load"]
