"""Figures of matplotlib as PNG files."""

import io
import warnings

from matplotlib.figure import Figure


def encode_figure(figure: Figure, dpi: int = 100) -> bytes:
    """Return the content of a PNG file.

    Args:
        figure: the figure.
        dpi: its pixels per inch.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack the script of a class name; its letters are then drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
