"""The U-Net: a MobileNetV2 encoder, pix2pix up-sampling blocks, and one logit per class.

The architecture is that of TensorFlow's "Image segmentation" tutorial
(https://www.tensorflow.org/tutorials/images/segmentation), with as many weights and three
differences: the network takes images as they are, uint8 in [0, 255], and scales them itself, to the
[-1, 1] that ImageNet encoders expect unless it is told otherwise; what is doubled in size is
evened out (`_even_out`), unless it is told otherwise; and the decoder's batch normalisation is
synchronised over the replicas of a training run.
"""

import io
import tempfile
from pathlib import Path

import keras

from segray.errors import InputError
from segray.model.encoder import check_image_size
from segray.model.normalisation import BatchNormalization
from segray.model.weights import check_encoder_weights

# Where the encoder is tapped, from the finest (stride 2) to the coarsest (stride 32).
TAPS = (
    "block_1_expand_relu",
    "block_3_expand_relu",
    "block_6_expand_relu",
    "block_13_expand_relu",
    "block_16_project",
)
_DECODER_FILTERS = (512, 256, 128, 64)

# Of the running statistics that batch normalisation keeps. A small data set makes some twenty steps
# an epoch: Keras' 0.99 lags five epochs behind the weights there, MobileNetV2's 0.999 fifty.
MOMENTUM = 0.9


def build_unet(
    classes: int,
    image_size: int,
    encoder_weights: bytes | None = None,
    input_range: tuple[float, float] = (-1.0, 1.0),
    momentum: float = MOMENTUM,
    even_upsampling: bool = True,
) -> keras.Model:
    """Build the network: images uint8 [B, S, S, 3] RGB -> logits float32 [B, S, S, C].

    Args:
        classes: C, the number of classes.
        image_size: S, a multiple of 32, in pixels.
        encoder_weights: content of a Keras weights file for MobileNetV2 without its top. With it
            the encoder is frozen; without, it starts at random and is trained. Empty: it is
            frozen, and waits for the weights of a checkpoint.
        input_range: what the pixel values 0 and 255 are scaled to before the encoder.
        momentum: of the running statistics of batch normalisation that is trained.
        even_upsampling: even out what the transposed convolutions make; the tutorial does not.

    Raises:
        InputError: `image_size` does not fit the encoder, or the weights do not.
    """
    check_image_size(image_size)
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
    low, high = input_range
    scaled = keras.layers.Rescaling((high - low) / 255, offset=low, name="scale")(images)
    *skips, x = _build_encoder(image_size, encoder_weights, momentum)(scaled)
    for filters, skip in zip(_DECODER_FILTERS, reversed(skips), strict=True):
        x = _upsample(filters, x, momentum, even_upsampling)
        x = keras.layers.Concatenate()([x, skip])
    logits = keras.layers.Conv2DTranspose(
        classes, 3, strides=2, padding="same", dtype="float32", name="logits"
    )(x)
    if even_upsampling:
        logits = _even_out(logits, "float32")
    return keras.Model(images, logits, name="unet")


def _build_encoder(image_size: int, weights: bytes | None, momentum: float) -> keras.Model:
    base = keras.applications.MobileNetV2(
        (image_size, image_size, 3), include_top=False, weights=None
    )
    encoder = keras.Model(base.input, [base.get_layer(tap).output for tap in TAPS], name="encoder")
    if weights is None:
        return keras.models.clone_model(
            encoder, clone_function=lambda layer: _with_own_statistics(layer, momentum)
        )
    if weights:
        _load_encoder_weights(base, weights)
    encoder.trainable = False
    return encoder


def _with_own_statistics(layer: keras.Layer, momentum: float) -> keras.Layer:
    """A copy of a layer, for a network that is trained from its start."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return type(layer).from_config(layer.get_config())
    settings = {**layer.get_config(), "momentum": momentum}
    return BatchNormalization.from_config(settings)


def _load_encoder_weights(base: keras.Model, content: bytes) -> None:
    try:
        check_encoder_weights(content)
    except ValueError as error:
        raise InputError(f"--encoder-weights: the file cannot be used: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, _file_name(content))
        path.write_bytes(content)
        try:
            base.load_weights(path)
        except Exception as error:
            # Keras raises many kinds here: OSError, ValueError, KeyError, ...
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                "--encoder-weights: the file does not hold the weights of a MobileNetV2 (alpha "
                f"1.0) without its top: {reason}"
            ) from error


def _file_name(content: bytes) -> str:
    """Keras tells its two weight formats apart by the file's name, so give it the right one."""
    import h5py

    with h5py.File(io.BytesIO(content)) as file:
        legacy = "layer_names" in file.attrs
    return "encoder.h5" if legacy else "encoder.weights.h5"


def _upsample(filters: int, x: keras.KerasTensor, momentum: float, even: bool) -> keras.KerasTensor:
    """Double the resolution: the pix2pix block, https://arxiv.org/abs/1611.07004."""
    x = keras.layers.Conv2DTranspose(
        filters,
        3,
        strides=2,
        padding="same",
        kernel_initializer=keras.initializers.RandomNormal(0.0, 0.02),
        use_bias=False,
    )(x)
    if even:
        x = _even_out(x)
    x = BatchNormalization(momentum=momentum)(x)
    return keras.layers.ReLU()(x)


def _even_out(x: keras.KerasTensor, dtype: str | None = None) -> keras.KerasTensor:
    """Let the kernel of the transposed convolution before it reach each pixel alike.

    Of its three rows at stride 2, two meet every second row of pixels and one meets those between,
    and so for columns: the result is a checkerboard (https://distill.pub/2016/deconv-checkerboard).
    In the means of two by two pixels each of its nine weights counts once, but at the edges.
    """
    return keras.layers.AveragePooling2D(2, strides=1, padding="same", dtype=dtype)(x)


def input_range(model: keras.Model) -> tuple[float, float]:
    """What a network scales the pixel values 0 and 255 to."""
    scale = model.get_layer("scale")
    return (scale.offset, scale.offset + 255 * scale.scale)


def has_even_upsampling(model: keras.Model) -> bool:
    """Whether a network evens out what its transposed convolutions make."""
    return any(isinstance(layer, keras.layers.AveragePooling2D) for layer in model.layers)


def weights_content(model: keras.Model) -> bytes:
    """The content of a Keras weights file with the weights of a network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "unet.weights.h5")
        model.save_weights(path)
        return path.read_bytes()


def load_weights_content(model: keras.Model, content: bytes) -> None:
    """Give a network the weights that `weights_content` took from one of the same settings."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "unet.weights.h5")
        path.write_bytes(content)
        model.load_weights(path)
