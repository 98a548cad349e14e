"""The encoders: networks of keras.applications, and where the U-Net taps them."""

from dataclasses import dataclass, field
from typing import Any, Literal

EncoderName = Literal[
    "MobileNetV2",
    "MobileNetV2-0.35",
    "MobileNetV2-0.5",
    "MobileNetV2-0.75",
    "MobileNetV2-1.3",
    "MobileNetV2-1.4",
    "MobileNetV3Large",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2S",
    "ResNet50V2",
    "ConvNeXtTiny",
]
#: The pixel values that 0 and 255 become.
Range = tuple[float, float]


@dataclass(frozen=True)
class Encoder:
    """A network of keras.applications without its top.

    The counts are of the part up to its last tap, and are known here so that a bundle's files can
    be checked without Keras (`segray.model.counts`).

    Attributes:
        application: the name of its function in keras.applications.
        weights_file: the file with its ImageNet weights, below Keras' folder of applications.
        taps: the layers whose outputs are the encoder's, from the finest (stride 2, or 4 where
            there is no layer with stride 2) to the coarsest (stride 32); ``before NAME`` for the
            input of a layer, and an empty name for the output of the network.
        channels: the channels of these outputs.
        weights: the number of scalars in all weights.
        multiplications: for each 32x32 pixels of an image, and for each image.
        input_range: the range that its ImageNet weights expect pixel values in; None for values
            standardised by the mean and the standard deviation of ImageNet.
        settings: further arguments of the function.
    """

    application: str
    weights_file: str
    taps: tuple[str, ...]
    channels: tuple[int, ...]
    weights: int
    multiplications: tuple[int, int]
    input_range: Range | None = (-1.0, 1.0)
    settings: dict[str, Any] = field(default_factory=dict)


def _mobilenet_v2(
    alpha: float, channels: tuple[int, int, int, int, int], weights: int, multiplications: int
) -> Encoder:
    """Return a MobileNetV2 of a width: alpha times the filters."""
    taps = (
        "block_1_expand_relu",
        "block_3_expand_relu",
        "block_6_expand_relu",
        "block_13_expand_relu",
        "block_16_project",
    )
    return Encoder(
        "MobileNetV2",
        f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5",
        taps,
        channels,
        weights,
        (multiplications, 0),
        settings={"alpha": alpha},
    )


def _efficientnet_v2(
    name: str,
    ends: tuple[str, str, str],
    channels: tuple[int, int, int, int, int],
    weights: int,
    multiplications: tuple[int, int],
    input_range: Range | None = None,
) -> Encoder:
    """Return an EfficientNetV2, whose first, second and sixth group of blocks have these ends."""
    first, second, last = ends
    return Encoder(
        f"EfficientNetV2{name}",
        f"efficientnet_v2/efficientnetv2-{name.lower()}_notop.h5",
        (first, second, "block4a_expand_activation", "block6a_expand_activation", last),
        channels,
        weights,
        multiplications,
        input_range,
        {"include_preprocessing": False},
    )


#: All encoders, by the values of --encoder.
ENCODERS: dict[EncoderName, Encoder] = {
    "MobileNetV2": _mobilenet_v2(1.0, (96, 144, 192, 576, 320), 1_841_984, 5_702_528),
    "MobileNetV2-0.35": _mobilenet_v2(0.35, (48, 48, 96, 192, 112), 261_280, 1_040_432),
    "MobileNetV2-0.5": _mobilenet_v2(0.5, (48, 96, 96, 288, 160), 495_664, 1_751_360),
    "MobileNetV2-0.75": _mobilenet_v2(0.75, (96, 144, 144, 432, 240), 1_068_784, 3_933_408),
    "MobileNetV2-1.3": _mobilenet_v2(1.3, (144, 192, 240, 768, 416), 3_065_504, 9_669_216),
    "MobileNetV2-1.4": _mobilenet_v2(1.4, (144, 192, 288, 816, 448), 3_551_936, 11_042_160),
    "MobileNetV3Large": Encoder(
        "MobileNetV3Large",
        "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        (
            "expanded_conv_add",
            "expanded_conv_2_add",
            "expanded_conv_5_add",
            "expanded_conv_11_project_bn",
            "expanded_conv_14_add",
        ),
        (16, 24, 40, 112, 160),
        2_838_912,
        (4_184_640, 1_507_200),
        settings={"include_preprocessing": False},
    ),
    "EfficientNetV2B0": _efficientnet_v2(
        "B0",
        ("block1a_project_activation", "block2b_add", "block6h_add"),
        (16, 32, 192, 672, 192),
        5_668_432,
        (14_361_888, 1_031_424),
    ),
    "EfficientNetV2B1": _efficientnet_v2(
        "B1",
        ("block1b_add", "block2c_add", "block6i_add"),
        (16, 32, 192, 672, 192),
        6_680_244,
        (20_435_488, 1_198_080),
    ),
    "EfficientNetV2B2": _efficientnet_v2(
        "B2",
        ("block1b_add", "block2c_add", "block6j_add"),
        (16, 32, 224, 720, 208),
        8_470_878,
        (23_500_848, 1_530_944),
    ),
    "EfficientNetV2B3": _efficientnet_v2(
        "B3",
        ("block1b_add", "block2c_add", "block6l_add"),
        (16, 40, 224, 816, 232),
        12_568_126,
        (32_421_888, 2_308_864),
    ),
    "EfficientNetV2S": _efficientnet_v2(
        "S",
        ("block1b_add", "block2d_add", "block6o_add"),
        (24, 48, 256, 960, 256),
        19_998_560,
        (57_732_544, 3_664_896),
        (-1.0, 255 / 128 - 1),
    ),
    "ResNet50V2": Encoder(
        "ResNet50V2",
        "resnet/resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        (
            "conv1_conv",
            "conv2_block3_preact_relu",
            "conv3_block4_preact_relu",
            "conv4_block6_preact_relu",
            "post_relu",
        ),
        (64, 256, 512, 1024, 2048),
        23_564_800,
        (71_024_640, 0),
    ),
    "ConvNeXtTiny": Encoder(
        "ConvNeXtTiny",
        "convnext/convnext_tiny_notop.h5",
        (
            "before convnext_tiny_downsampling_block_0",
            "before convnext_tiny_downsampling_block_1",
            "before convnext_tiny_downsampling_block_2",
            "",
        ),
        (96, 192, 384, 768),
        27_820_128,
        (90_913_536, 0),
        None,
        {"include_preprocessing": False},
    ),
}
