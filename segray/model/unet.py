"""The U-Net: an encoder of keras.applications, pix2pix up-sampling blocks, and a logit per class.

The architecture is that of TensorFlow's "Image segmentation" tutorial
(https://www.tensorflow.org/tutorials/images/segmentation), with these differences. The network
takes images as uint8 in [0, 255] and scales them itself, by default to what the encoder's ImageNet
weights expect. The decoder has half the tutorial's filters, the output of each up-sampling is
average-pooled (`_even_out`), and there are other encoders than MobileNetV2; all of these are
settings of the `Architecture`. And the decoder's batch normalisation is synchronised over the
replicas of a training run.
"""

import io
import itertools
import tempfile
from pathlib import Path

import keras

from segray.errors import InputError
from segray.model.architecture import Architecture
from segray.model.encoders import ENCODERS, EncoderName, Range
from segray.model.exportable import make_exportable
from segray.model.normalisation import BatchNormalization
from segray.model.weights import check_encoder_weights

# The mean and the standard deviation of the red, green and blue of ImageNet's pixels, as shares of
# the greatest value.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)

# Momentum of the running statistics of batch normalisation. A small data set has some twenty steps
# per epoch: there, Keras' 0.99 lags five epochs behind the weights, MobileNetV2's 0.999 fifty.
MOMENTUM = 0.9


def build_unet(
    architecture: Architecture,
    encoder_weights: bytes | None = None,
    momentum: float = MOMENTUM,
) -> keras.Model:
    """Build the network: images uint8 [B, H, W, 3] RGB -> logits float32 [B, H, W, C].

    Args:
        architecture: its settings.
        encoder_weights: the content of a Keras weights file for the encoder without its top, with
            which the encoder is frozen. None: random weights, and the encoder is trained. Empty:
            the encoder is frozen, and its weights come from a checkpoint.
        momentum: the momentum of the running statistics of trained batch normalisation.

    Raises:
        InputError: the weights do not fit the encoder.
    """
    shape, even = (architecture.height, architecture.width, 3), architecture.even_upsampling
    images = keras.Input(shape, dtype="uint8", name="images")
    scaled = _build_scaling(architecture.input_range)(images)
    *skips, x = _build_encoder(architecture.encoder, shape, encoder_weights, momentum)(scaled)
    for filters, skip in itertools.zip_longest(architecture.filters, reversed(skips)):
        x = _upsample(filters, x, momentum, even)
        if skip is not None:
            x = keras.layers.Concatenate()([x, skip])
    logits = keras.layers.Conv2DTranspose(
        architecture.classes, 3, strides=2, padding="same", dtype="float32", name="logits"
    )(x)
    if even:
        logits = _even_out(logits, "float32")
    return keras.Model(images, logits, name="unet")


def _build_scaling(input_range: Range | None) -> keras.Layer:
    if input_range is None:
        return keras.layers.Rescaling(
            [1 / (255 * deviation) for deviation in _DEVIATION],
            offset=[-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
            name="scale",
        )
    low, high = input_range
    return keras.layers.Rescaling((high - low) / 255, offset=low, name="scale")


def _build_encoder(
    name: EncoderName, shape: tuple[int, int, int], weights: bytes | None, momentum: float
) -> keras.Model:
    own = ENCODERS[name]
    make = getattr(keras.applications, own.application)
    base = make(input_shape=shape, include_top=False, weights=None, **own.settings)
    encoder = keras.Model(base.input, [_tap(base, tap) for tap in own.taps], name="encoder")
    if weights is None:
        encoder = keras.models.clone_model(
            encoder, clone_function=lambda layer: _with_own_statistics(layer, momentum)
        )
        return make_exportable(encoder)
    if weights:
        _load_encoder_weights(name, base, weights)
    encoder = make_exportable(encoder)
    encoder.trainable = False
    return encoder


def _tap(base: keras.Model, tap: str) -> keras.KerasTensor:
    if not tap:
        return base.output
    name = tap.removeprefix("before ")
    layer = base.get_layer(name)
    return layer.output if name == tap else layer.input


def _with_own_statistics(layer: keras.Layer, momentum: float) -> keras.Layer:
    """Copy a layer, with segray's batch normalisation, for a network trained from the start."""
    if not isinstance(layer, keras.layers.BatchNormalization):
        return type(layer).from_config(layer.get_config())
    settings = {**layer.get_config(), "momentum": momentum}
    return BatchNormalization.from_config(settings)


def _load_encoder_weights(name: EncoderName, base: keras.Model, content: bytes) -> None:
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
            # Keras raises errors of many kinds here: OSError, ValueError, KeyError, ...
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--encoder-weights: the file does not hold the weights of a {name} without its "
                f"top: {reason}"
            ) from error


def _file_name(content: bytes) -> str:
    """Choose a file name by which Keras recognises which of its two weight formats it is."""
    import h5py

    with h5py.File(io.BytesIO(content)) as file:
        legacy = "layer_names" in file.attrs
    return "encoder.h5" if legacy else "encoder.weights.h5"


def _upsample(filters: int, x: keras.KerasTensor, momentum: float, even: bool) -> keras.KerasTensor:
    """Double the resolution by the pix2pix block, https://arxiv.org/abs/1611.07004."""
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
    """Average-pool (2x2) the output of a transposed convolution, against checkerboards.

    Of the three rows of the kernel at stride 2, two contribute to every second row of pixels and
    one to the rows between; likewise for columns. The result is a checkerboard
    (https://distill.pub/2016/deconv-checkerboard). In the mean of two by two pixels each of the
    nine weights counts once, except at the edges.
    """
    return keras.layers.AveragePooling2D(2, strides=1, padding="same", dtype=dtype)(x)


def split_stages(model: keras.Model) -> tuple[keras.Layer, keras.Model, list[keras.Layer]]:
    """Return the stages of a network: the scaling, the encoder, and the layers of the decoder.

    The encoder's outputs are the skip connections, from the finest to the coarsest, the last of
    which is the decoder's input. Each `keras.layers.Concatenate` of the decoder takes the coarsest
    one that is left.
    """
    encoder = model.get_layer("encoder")
    after = model.layers.index(encoder) + 1
    return model.get_layer("scale"), encoder, model.layers[after:]


def weights_content(model: keras.Model) -> bytes:
    """Return the content of a Keras weights file with the weights of a network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "unet.weights.h5")
        model.save_weights(path)
        return path.read_bytes()


def load_weights_content(model: keras.Model, content: bytes) -> None:
    """Load weights that `weights_content` took from a network with the same settings.

    Raises:
        InputError: they are those of another network.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "unet.weights.h5")
        path.write_bytes(content)
        try:
            model.load_weights(path)
        except Exception as error:
            # As above.
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                "the weights are not of the network that model.json describes: copy the bundle "
                f"from where it was trained, or train anew: {reason}"
            ) from error
