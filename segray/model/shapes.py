"""The network's convolutions and weights, as a reference for a bundle's files, without Keras.

`segray.model.unet` builds the network; a test compares it with this table.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from segray.model.architecture import Architecture

# The blocks of MobileNetV2: the expansion factor of the channels, the output channels, the number
# of repetitions, and the stride of the first. https://arxiv.org/abs/1801.04381, table 2; its last
# convolution is not part of the U-Net.
_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The channels that the encoder adds to the output of each up-sampling block of the decoder.
_SKIPS = (576, 192, 144, 96)

_ENCODER = "layers/functional/layers"
_DECODER = "layers"


@dataclass(frozen=True)
class Convolution:
    """A convolution of the network.

    Attributes:
        operator: ``Conv`` or ``ConvTranspose``, its name in ONNX.
        channels: the number of input channels.
        filters: the number of output channels.
        groups: the number of groups of channels; as many as channels, or 1.
        kernel: the side of its kernel, in pixels.
        height: the height of its output, in pixels.
        width: the width of its output, likewise.
    """

    operator: str
    channels: int
    filters: int
    groups: int
    kernel: int
    height: int
    width: int


def list_convolutions(architecture: Architecture) -> Iterator[Convolution]:
    """Yield the convolutions of the network in the order of computation."""
    height, width = architecture.height // 2, architecture.width // 2
    channels = 32
    yield Convolution("Conv", 3, channels, 1, 3, height, width)
    for growth, filters, repeats, stride in _BLOCKS:
        for number in range(repeats):
            inner = channels * growth
            if growth > 1:
                yield Convolution("Conv", channels, inner, 1, 1, height, width)
            step = 1 if number else stride
            height, width = height // step, width // step
            yield Convolution("Conv", inner, inner, inner, 3, height, width)
            yield Convolution("Conv", inner, filters, 1, 1, height, width)
            channels = filters
    for filters, added in zip(architecture.filters, _SKIPS, strict=True):
        height, width = 2 * height, 2 * width
        yield Convolution("ConvTranspose", channels, filters, 1, 3, height, width)
        channels = filters + added
    classes = architecture.classes
    yield Convolution("ConvTranspose", channels, classes, 1, 3, 2 * height, 2 * width)


def list_weights(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the network's weights, by its name in a Keras weights file."""
    shapes: dict[str, tuple[int, ...]] = {}
    numbers: Counter[str] = Counter()

    def add(folder: str, kind: str, *vectors: tuple[int, ...]) -> None:
        number = numbers[f"{folder}/{kind}"]
        numbers[f"{folder}/{kind}"] += 1
        name = f"{kind}_{number}" if number else kind
        shapes.update({f"{folder}/{name}/vars/{i}": shape for i, shape in enumerate(vectors)})

    *convolutions, logits = list_convolutions(architecture)
    for convolution in convolutions:
        sides = (convolution.kernel, convolution.kernel)
        channels, filters = convolution.channels, convolution.filters
        folder = _ENCODER
        if convolution.operator == "ConvTranspose":
            folder = _DECODER
            add(folder, "conv2d_transpose", (*sides, filters, channels))
        elif convolution.groups > 1:
            add(folder, "depthwise_conv2d", (*sides, channels, 1))
        else:
            add(folder, "conv2d", (*sides, channels, filters))
        # The encoder's output is taken before the last of its batch normalisations.
        if convolution.filters != _BLOCKS[-1][1]:
            add(folder, "batch_normalization", *[(filters,)] * 4)
    kernel = (logits.kernel, logits.kernel, logits.filters, logits.channels)
    add(_DECODER, "conv2d_transpose", kernel, (logits.filters,))
    return shapes


def count_weights(architecture: Architecture) -> int:
    """Return the number of scalars in all weights of the network."""
    return sum(math.prod(shape) for shape in list_weights(architecture).values())
