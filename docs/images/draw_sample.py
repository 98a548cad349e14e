"""Draw docs/images/sample.png from what jobs/train.py and jobs/segment.py wrote with no flags.

python jobs/train.py && python jobs/segment.py && python docs/images/draw_sample.py
"""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from segray.pixels.labels import Labels
from segray.pixels.masks import decode_mask
from segray.pixels.pictures import colour_mask, draw_sheet

LABELS = Labels.parse(["pet=1", "background=2", "border=3"])
SIZE = (224, 168)  # width, height
IMAGES = 4


def main() -> None:
    rows = pq.read_table("output/segment/results").sort_by("uri").to_pylist()
    # Images of one shape, so that none is stretched.
    wide = [row for row in rows if row["width"] * SIZE[1] == row["height"] * SIZE[0]]
    lines = []
    for row in wide[:IMAGES]:
        image = Image.open(io.BytesIO(Path(row["uri"]).read_bytes())).resize(SIZE)
        mask = Image.fromarray(decode_mask(row["mask"]["bytes"])).resize(SIZE, 0)
        pixels, ids = np.asarray(image), np.asarray(mask)
        colours = colour_mask(ids, LABELS)
        lines.append((pixels, colours, pixels // 2 + colours // 2))
    draw_sheet(lines, ("image", "mask", "overlay"), LABELS).save("docs/images/sample.png")


if __name__ == "__main__":
    main()
