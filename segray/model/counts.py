"""The size and the cost of a network: its weights and its multiplications, without Keras."""

import itertools

from segray.model.architecture import Architecture
from segray.model.encoders import ENCODERS

# The pixels of the kernel of a transposed convolution of the decoder.
_KERNEL = 9
# The vectors of a batch normalisation: gamma, beta, mean and variance.
_VECTORS = 4


def count_weights(architecture: Architecture) -> int:
    """Return the number of scalars in all weights of a network."""
    kernels = [taken * given for taken, given in _decoder_channels(architecture)]
    normalised = _VECTORS * sum(architecture.filters)
    encoder = ENCODERS[architecture.encoder].weights
    return encoder + _KERNEL * sum(kernels) + normalised + architecture.classes


def count_multiplications(architecture: Architecture) -> int:
    """Return the number of multiplications in a network's convolutions for one image."""
    blocks = architecture.height * architecture.width // 1024
    by_block, by_image = ENCODERS[architecture.encoder].multiplications
    total = blocks * by_block + by_image
    # A transposed convolution multiplies each pixel of its input, of which a block has one at
    # first, and each time four times as many.
    for level, (taken, given) in enumerate(_decoder_channels(architecture)):
        total += blocks * 4**level * _KERNEL * taken * given
    return total


def _decoder_channels(architecture: Architecture) -> list[tuple[int, int]]:
    """Return the input and output channels of the decoder's transposed convolutions."""
    *skips, taken = ENCODERS[architecture.encoder].channels
    channels = []
    for given, skip in itertools.zip_longest(architecture.filters, reversed(skips), fillvalue=0):
        channels.append((taken, given))
        taken = given + skip
    return [*channels, (taken, architecture.classes)]
