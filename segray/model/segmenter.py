"""The segmenter: a model for notebooks and tests, one image at a time."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segray.errors import InputError
from segray.model.bundle import open_bundle
from segray.model.predictor import Engine, choose_engine, engine_file, load_predictor
from segray.pixels.canvas import OVERLAP, Canvas, check_overlap
from segray.pixels.decoding import DecodeError, Picture, read_picture
from segray.pixels.labels import Labels
from segray.pixels.limits import MAX_PIXELS
from segray.pixels.masks import MaskBuilder
from segray.storage.files import read_bytes
from segray.storage.uri import absolute_uri

# The number of windows of an image that are predicted at a time.
_BATCH = 8


class Segmenter:
    """A trained model that turns an image into a mask, exactly as jobs/segment.py does.

    Attributes:
        labels: the classes of the model; pixel value ``i`` of a mask means ``labels.names[i]``.
        image_size: the input resolution of the network: height and width, in pixels.
        digest: identifies the model, as in the column ``model`` of results.
    """

    def __init__(
        self,
        uri: str,
        engine: Engine = "auto",
        overlap: float = OVERLAP,
        test_time_flip: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        check_overlap(overlap)
        chosen = choose_engine(engine)
        bundle = open_bundle(uri, [engine_file(chosen)])
        self.labels: Labels = bundle.labels
        self.image_size: tuple[int, int] = bundle.frame.shape
        self.digest = bundle.digest
        self._frame, self._overlap, self._max_pixels = bundle.frame, overlap, max_pixels
        self._value_range = bundle.value_range
        self._predictor = load_predictor(bundle, chosen, test_time_flip=test_time_flip)

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"<Segmenter {self.digest}: {', '.join(self.labels.names)} at {height}x{width} px>"

    def segment(
        self, image: str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """Segment one image.

        Args:
            image: a URI, the content of an image file, a Pillow image, or pixels uint8 [H, W, 3]
                RGB or [H, W] grey.

        Returns:
            The mask at the image's original resolution with EXIF orientation applied, uint8 [H, W]
            of class ids.

        Raises:
            InputError: the image cannot be read, or an array has another shape or dtype.
        """
        name = "the image"
        if isinstance(image, np.ndarray):
            image = _from_array(image)
        elif isinstance(image, str | Path):
            name = absolute_uri(str(image))
            image = read_bytes(name)
        try:
            picture = read_picture(
                image, self._frame, self._value_range, in_rows=True, max_pixels=self._max_pixels
            )
            return self._segment(picture)
        except DecodeError as error:
            raise InputError(f"cannot segment {name}: {error}") from error

    def _segment(self, picture: Picture) -> npt.NDArray[np.uint8]:
        canvas = Canvas(picture, self._frame, len(self.labels), self._overlap)
        builder = MaskBuilder(canvas.shape, picture.height, picture.width)
        windows = canvas.windows()
        while batch := list(itertools.islice(windows, _BATCH)):
            for logits in self._predictor.predict(np.stack(batch)):
                if (rows := canvas.add(logits)) is not None:
                    builder.add(rows)
        return builder.finish()[0]


def _from_array(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    # Pillow accepts more kinds of arrays, and guesses their meaning.
    wanted = pixels.ndim >= 2 and pixels.shape[2:] in ((), (3,)) and pixels.dtype == np.uint8
    if not wanted or not pixels.size:
        raise InputError(
            f"cannot segment an array {pixels.dtype} {list(pixels.shape)}: give uint8 [H, W, 3] "
            "RGB or [H, W] grey, with values in 0 to 255"
        )
    return Image.fromarray(pixels)


def load(
    uri: str,
    engine: Engine = "auto",
    overlap: float = OVERLAP,
    test_time_flip: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Segmenter:
    """Open a model bundle.

    Args:
        uri: the folder of the bundle, such as ``s3://bucket/run/model``.
        engine: ``onnx`` (which ``auto`` means) or ``tensorflow``.
        overlap: the share by which neighbouring windows overlap, at least, 0 to 0.9, for a model
            that was trained with ``--fit tile``.
        test_time_flip: True to average with the prediction for the mirror image.
        max_pixels: images with more pixels are refused; some TIFFs are read in rows and may have
            more.

    Raises:
        InputError: there is no bundle, it is damaged, or its files do not contain the network that
            it describes (`segray.model.check`), in which case nothing of them is run.

    Example:
        >>> segmenter = segray.load("output/train/model")
        >>> mask = segmenter.segment("photograph.jpg")  # uint8 [H, W]
    """
    return Segmenter(uri, engine, overlap, test_time_flip, max_pixels)
