"""The model bundle: a folder with everything that segmenting needs, and checksums of its files.

``model.json`` describes the model and has the sha256 of the other files. It is written last: a
folder without it is not a bundle. The network is always built by segray's own code, and only its
weights are loaded. A Keras archive, which can carry code, is never opened.
"""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from segray.errors import InputError, require
from segray.model.architecture import Architecture
from segray.model.check import check_file, most_bytes, shorten
from segray.model.encoders import ENCODERS
from segray.model.reference import REFERENCE
from segray.packages import package_versions
from segray.pixels.canvas import OVERLAP
from segray.pixels.expected import USUAL_SHARE
from segray.pixels.framing import MAX_SCALE, Fit, Frame
from segray.pixels.labels import Labels
from segray.pixels.wide import ValueRange, check_range
from segray.storage.files import read_bytes, remove, write_bytes
from segray.storage.uri import absolute_uri, exists, join_uri

if TYPE_CHECKING:
    import keras

FORMAT_VERSION = 4
# The settings that networks of earlier formats had in common.
_COMMON: dict[int, dict[str, Any]] = {
    2: {"encoder": "MobileNetV2", "decoder": "tutorial", "fit": "squash", "scale": 1.0},
    3: {"encoder": "MobileNetV2"},
    FORMAT_VERSION: {},
}
DESCRIPTION = "model.json"
WEIGHTS = "model.weights.h5"
ONNX = "model.onnx"

# The maximum size of a batch's logits in bytes.
_BATCH_BYTES = 1 << 27
# The range of `Bundle.iou_exponent`.
_EXPONENTS = 0.25, 4.0
# The maximum size of model.json in bytes; the largest so far are a fiftieth of it.
_MOST_TEXT = 1 << 20


_PACKAGES = ("keras", "tensorflow", "numpy", "onnxruntime", "pillow", "ray")


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, with the necessary files only; it can be sent to other processes.

    Attributes:
        uri: the URI that it was read from.
        digest: the first 16 hexadecimal digits of the sha256 of ``model.json``, which contains
            those of the other files: it identifies the model.
        labels: the classes of the model.
        architecture: the settings of the network.
        fit: how images are brought to the network's input resolution.
        scale: the factor by which images are scaled before windows are cut from them.
        files: the content of the requested files, each verified by its sha256.
        value_range: the pixel values of black and white in images of more than 8 bits per channel;
            None if the training set had no such image.
        iou_exponent: the power of the expected IoU (`segray.pixels.expected`) that agreed with the
            true one on the validation set; 1 for a model that was not calibrated so.
        usual_shares: the usual share of each class in an image of the training set, see
            `segray.pixels.expected.find_usual_shares`.
    """

    uri: str
    digest: str
    labels: Labels
    architecture: Architecture
    fit: Fit
    files: dict[str, bytes]
    usual_shares: tuple[float, ...]
    value_range: ValueRange | None = None
    scale: float = 1.0
    iou_exponent: float = 1.0

    @property
    def frame(self) -> Frame:
        """The rectangle that images are brought to for the network."""
        return Frame(self.architecture.height, self.architecture.width, self.fit, self.scale)

    def limit_batch(self, batch_size: int) -> int:
        """Return a batch size, or a smaller one whose logits take no more than 128 MiB."""
        logits_bytes = 4 * self.architecture.classes * self.frame.pixels
        return min(batch_size, max(1, _BATCH_BYTES // logits_bytes))

    def check_overlap(self, overlap: float) -> None:
        """Refuse an overlap of windows for a model that takes whole images.

        Raises:
            InputError: it is not the default one.
        """
        require(
            self.fit == "tile" or overlap == OVERLAP,
            f"--overlap is of windows, and the model in {self.uri} takes whole images: leave it "
            "out, or train with --fit tile",
        )


def has_bundle(uri: str) -> bool:
    """Return True if all files of a bundle exist; `open_bundle` checks that they are intact.

    Raises:
        InputError: the store cannot be asked.
    """
    return all(exists(join_uri(uri, name)) for name in (DESCRIPTION, WEIGHTS, ONNX))


def open_bundle(uri: str, files: Sequence[str]) -> Bundle:
    """Read a bundle, after verifying that its files contain the described network.

    The checksums lie beside the files, so they detect damage but do not prove who made the bundle.
    Therefore only content that segray itself writes for such a network is accepted.

    Args:
        uri: the folder of the bundle.
        files: the files to read, `WEIGHTS` or `ONNX` or both.

    Raises:
        InputError: there is no bundle, its format is unknown to this version, the sha256 of a file
            is not the one in ``model.json``, or a file does not contain the network that
            ``model.json`` describes.
    """
    uri = absolute_uri(uri)
    description = join_uri(uri, DESCRIPTION)
    if not exists(description):
        raise InputError(
            f"{uri} holds no model ({DESCRIPTION} is missing): give the folder model/ that "
            "jobs/train.py wrote in its --output"
        )
    text = read_bytes(description, _MOST_TEXT)
    try:
        document = json.loads(text)
        version, settings = document["format_version"], document["architecture"]
        if version not in _COMMON:
            raise InputError(
                f"{description} has the format version {shorten(repr(version))}, and this segray "
                f"reads {', '.join(map(str, _COMMON))}: use the version of segray that wrote it"
            )
        settings = {**_COMMON[version], **settings}
        if settings["encoder"] not in ENCODERS:
            raise InputError(
                f"{description} describes a network with the encoder "
                f"{shorten(repr(settings['encoder']))}, which this segray does not have: use the "
                "version of segray that wrote it"
            )
        expected = {name: str(document["sha256"][name]) for name in files}
        architecture = Architecture.from_json(settings)
        labels = _parse_labels(document["labels"], architecture.classes)
        fit, scale = _parse_fit(settings["fit"]), _parse_scale(settings["scale"])
        value_range = _parse_value_range(settings.get("value_range"))
        exponent = _parse_exponent(document.get("iou_exponent", 1.0))
        shares = _parse_usual_shares(document.get("usual_shares"), architecture.classes)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{description} is no model description ({type(error).__name__}: {shorten(error)}): "
            "copy the bundle again or train anew"
        ) from error
    most = most_bytes(architecture)
    content = {name: _read_checked(join_uri(uri, name), expected[name], most) for name in files}
    for name in files:
        check_file(join_uri(uri, name), content[name], architecture)
    digest = hashlib.sha256(text).hexdigest()[:16]
    return Bundle(
        *(uri, digest, labels, architecture, fit, content, shares, value_range, scale, exponent)
    )


def _parse_labels(document: Any, classes: Any) -> Labels:
    try:
        labels = Labels.from_json(document)
    except InputError as error:
        raise ValueError(str(error)) from error
    if not len(labels) == len(labels.values) == classes:
        raise ValueError(
            f"{classes!r} classes with {len(labels)} names and {len(labels.values)} values"
        )
    for value in (*labels.values, *labels.ignored):
        if type(value) is not int:
            raise ValueError(f"the mask value {value!r}")
    return labels


def _parse_fit(fit: Any) -> Fit:
    if fit not in get_args(Fit):
        raise ValueError(f"the fit {fit!r}")
    known: Fit = fit
    return known


def _parse_scale(scale: Any) -> float:
    if type(scale) not in (int, float) or not 0 < scale <= MAX_SCALE:
        raise ValueError(f"the scale {scale!r}")
    return float(scale)


def _parse_exponent(exponent: Any) -> float:
    low, high = _EXPONENTS
    if type(exponent) not in (int, float) or not low <= exponent <= high:
        raise ValueError(f"the exponent {exponent!r} of the expected IoU")
    return float(exponent)


def _parse_usual_shares(shares: Any, classes: int) -> tuple[float, ...]:
    if shares is None:  # as in older bundles
        return (USUAL_SHARE,) * classes
    if (
        type(shares) is not list
        or len(shares) != classes
        or any(type(share) not in (int, float) or not 0 < share <= 1 for share in shares)
    ):
        raise ValueError(f"the usual shares {shares!r} of {classes} classes")
    return tuple(map(float, shares))


def _parse_value_range(value_range: Any) -> ValueRange | None:
    if value_range is None:  # as in older bundles
        return None
    low, high = value_range
    if not all(isinstance(value, int) for value in (low, high)):
        raise ValueError(f"{value_range!r} is not two whole numbers")
    try:
        check_range((low, high))
    except InputError as error:
        raise ValueError(str(error)) from error
    return low, high


def _read_checked(uri: str, expected: str, most: int) -> bytes:
    try:
        content = read_bytes(uri, most)
    except InputError as error:
        raise InputError(f"{error}: copy the whole bundle again, or train anew") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{uri} is damaged or was replaced: its sha256 is {found[:12]}…, and {DESCRIPTION} "
            f"says {expected[:12]}…; copy the bundle again or train anew"
        )
    return content


def write_bundle(
    uri: str,
    model: "keras.Model",
    architecture: Architecture,
    labels: Labels,
    record: dict[str, Any],
    frame: Frame,
    value_range: ValueRange | None = None,
) -> None:
    """Write a trained network as a bundle.

    Args:
        uri: the folder of the bundle.
        model: a trained network of `segray.model.unet.build_unet`.
        architecture: its settings.
        labels: its classes.
        record: JSON-ready facts to store beside the weights: configuration, metrics, data.
        frame: the frame that images were brought to.
        value_range: see `Bundle`.

    Raises:
        InputError: the folder cannot be written.
    """
    from segray.model.unet import weights_content

    files = {WEIGHTS: weights_content(model), ONNX: _onnx_content(model)}
    remove(join_uri(uri, DESCRIPTION))  # it marks the files beside it as complete
    remove(join_uri(uri, REFERENCE))
    for name, content in files.items():
        write_bytes(join_uri(uri, name), content)
    document = {
        "format_version": FORMAT_VERSION,
        "architecture": {
            **architecture.to_json(),
            "fit": frame.fit,
            "scale": frame.scale,
            "value_range": value_range,
        },
        "labels": labels.to_json(),
        "palette": labels.palette,
        **record,
        "versions": package_versions(*_PACKAGES),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    text = json.dumps(document, indent=2, allow_nan=False)
    write_bytes(join_uri(uri, DESCRIPTION), text.encode())


def _onnx_content(model: "keras.Model") -> bytes:
    import keras

    images = keras.InputSpec(dtype="uint8", shape=model.input_shape, name="images")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # tf2onnx, as Keras patches it, accesses an alias that numpy has removed.
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        path = Path(folder, ONNX)
        model.export(path, format="onnx", verbose=False, input_signature=[images])
        return path.read_bytes()
