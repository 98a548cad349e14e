"""The architecture: what determines the network, except for its weights."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from segray.errors import InputError
from segray.model.encoders import ENCODERS, EncoderName, Range

#: The side of a square, or height and width, in pixels.
ImageSize = int | tuple[int, int]
Decoder = Literal["slim", "tutorial"]

#: The sides of images that the encoder takes, in pixels. It halves them five times. Above the upper
#: end, the values of a layer do not fit into any machine's memory.
SIDES = range(32, 16385, 32)
#: The filters of the decoder's up-sampling blocks, from the coarsest to the finest.
DECODERS: dict[Decoder, tuple[int, int, int, int]] = {
    "slim": (256, 128, 64, 32),
    "tutorial": (512, 256, 128, 64),
}


@dataclass(frozen=True)
class Architecture:
    """The settings of a network.

    Attributes:
        classes: C, the number of classes.
        height: H, the rows of its input, a multiple of 32, in pixels.
        width: W, the columns of its input, likewise.
        encoder: the encoder, by its name.
        decoder: the decoder, by its name.
        input_range: the range that the pixel values 0 to 255 are scaled to before the encoder; None
            to standardise them by the mean and the standard deviation of ImageNet.
        even_upsampling: True to average-pool the output of transposed convolutions, unlike the
            tutorial.
    """

    classes: int
    height: int
    width: int
    encoder: EncoderName = "MobileNetV2"
    decoder: Decoder = "slim"
    input_range: Range | None = (-1.0, 1.0)
    even_upsampling: bool = True

    @property
    def filters(self) -> tuple[int, int, int, int]:
        """The filters of the decoder's up-sampling blocks, from the coarsest to the finest."""
        return DECODERS[self.decoder]

    def to_json(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return {
            "image_size": join_size(self.height, self.width),
            "classes": self.classes,
            "encoder": self.encoder,
            "decoder": self.decoder,
            "input_range": self.input_range,
            "even_upsampling": self.even_upsampling,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Architecture":
        """Read the settings that `to_json` returned.

        Raises:
            ValueError: a value is impossible, or of another type.
            KeyError: a setting is missing.
            TypeError: the document is none.
        """
        classes, even = document["classes"], document["even_upsampling"]
        if type(classes) is not int:
            raise ValueError(f"{classes!r} classes")
        encoder, decoder = document["encoder"], document["decoder"]
        if encoder not in ENCODERS:
            raise ValueError(f"the encoder {encoder!r}")
        if decoder not in get_args(Decoder):
            raise ValueError(f"the decoder {decoder!r}")
        if not isinstance(even, bool):
            raise ValueError(f"{even!r} is not true or false")
        size, ends = _parse_size(document["image_size"]), _parse_range(document["input_range"])
        return cls(classes, *size, encoder, decoder, ends, even)


def split_size(image_size: ImageSize) -> tuple[int, int]:
    """Return height and width of an input resolution."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def join_size(height: int, width: int) -> ImageSize:
    """Return an input resolution as users give it: one number for a square."""
    return height if height == width else (height, width)


def check_image_size(image_size: ImageSize) -> None:
    """Refuse a resolution whose sides are not among `SIDES`.

    Raises:
        InputError: the message has the nearest supported one.
    """
    sides = split_size(image_size)
    if all(side in SIDES for side in sides):
        return
    near = (min(max(round(s / SIDES.step) * SIDES.step, SIDES[0]), SIDES[-1]) for s in sides)
    raise InputError(
        f"--image-size {_name(image_size)}: each side has to be a multiple of {SIDES.step} up to "
        f"{SIDES[-1]}; the nearest is {_name(join_size(*near))}"
    )


def _parse_size(image_size: Any) -> tuple[int, int]:
    sides = image_size if isinstance(image_size, list) else [image_size] * 2
    if len(sides) != 2 or not all(type(side) is int and side in SIDES for side in sides):
        raise ValueError(f"the image size {image_size!r}")
    return sides[0], sides[1]


def _parse_range(ends: Any) -> Range | None:
    if ends is None:
        return None
    low, high = ends
    if not all(type(end) in (int, float) for end in ends) or not (
        -math.inf < low < high < math.inf
    ):
        raise ValueError(f"the input range {ends!r}")
    return float(low), float(high)


def _name(image_size: ImageSize) -> str:
    return str(image_size) if isinstance(image_size, int) else " ".join(map(str, image_size))
