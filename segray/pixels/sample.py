"""Sample pictures: furry animals on textured ground, drawn from a seed, with their trimaps.

Fur is on average warmer than the ground, but the ground is strewn with stones in the colours of
fur. No threshold on colour therefore finds the animal; its texture and its shape matter as well.
The trimaps have the values of the Oxford-IIIT Pet data set: 1 animal, 2 background, 3 border.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

ANIMAL, BACKGROUND, BORDER = 1, 2, 3

_SIZES = ((240, 180), (180, 240), (200, 200), (256, 192), (300, 200), (160, 160))  # width, height
_BORDER_SHARE = 0.03  # half the border's width, as a share of the image's shorter side


def draw_sample(index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw one picture; the same index always gives the same picture.

    Returns:
        The image, uint8 [H, W, 3] RGB, and its trimap, uint8 [H, W] of 1, 2 and 3.
    """
    rng = np.random.default_rng([20, index])
    width, height = _SIZES[rng.integers(len(_SIZES))]
    inside = _draw_animal(rng, width, height)

    ground = _paint_ground(rng, width, height)
    fur = _paint_fur(rng, width, height)
    soft = np.asarray(inside.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)[..., None] / 255
    shade = (
        1
        - 0.25
        * np.asarray(
            inside.transform(inside.size, Image.Transform.AFFINE, (1, 0, -6, 0, 1, -8)).filter(
                ImageFilter.GaussianBlur(7)
            ),
            dtype=np.float32,
        )[..., None]
        / 255
    )
    image = ground * shade * (1 - soft) + fur * soft + rng.normal(0, 4, (height, width, 1))

    reach = 2 * round(_BORDER_SHARE * min(width, height)) + 1
    grown = np.asarray(inside.filter(ImageFilter.MaxFilter(reach))) > 0
    shrunk = np.asarray(inside.filter(ImageFilter.MinFilter(reach))) > 0
    trimap = np.full((height, width), BACKGROUND, dtype=np.uint8)
    trimap[grown] = BORDER
    trimap[shrunk] = ANIMAL
    return image.clip(0, 255).astype(np.uint8), trimap


def _draw_animal(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw the silhouette of an animal seen from the side: 255 inside, 0 outside."""
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    unit = min(width, height) * rng.uniform(0.19, 0.26)
    x = width * rng.uniform(0.38, 0.62)
    y = height * rng.uniform(0.45, 0.6)
    side = rng.choice([-1, 1])
    length, depth = unit * rng.uniform(1.2, 1.6), unit * rng.uniform(0.7, 0.95)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> None:
        draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=255)

    ellipse(x, y, length, depth)
    for place in (-0.75, -0.45, 0.45, 0.75):
        leg = x + place * length + rng.uniform(-3, 3)
        thickness = unit * rng.uniform(0.2, 0.28)
        draw.rectangle((leg - thickness, y, leg + thickness, y + depth + unit * 0.7), fill=255)

    head_x, head_y = x + side * length * 1.0, y - depth * rng.uniform(0.6, 1.0)
    head = unit * rng.uniform(0.55, 0.7)
    ellipse(head_x, head_y, head, head * 0.9)
    for ear in (-1, 1):
        tip = (head_x + ear * head * 0.8, head_y - head * rng.uniform(1.4, 1.9))
        left, right = head_x + ear * head * 0.9, head_x + ear * head * 0.1
        draw.polygon([tip, (left, head_y - head * 0.2), (right, head_y - head * 0.6)], fill=255)

    tail = [(x - side * length * 0.9, y - depth * 0.2)]
    for _ in range(3):
        last_x, last_y = tail[-1]
        tail.append((last_x - side * unit * 0.35, last_y - unit * rng.uniform(0.1, 0.6)))
    draw.line(tail, fill=255, width=round(unit * 0.4), joint="curve")
    tilted = mask.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
    return tilted.point(lambda value: 255 * (value > 127))


def _paint_ground(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.floating]:
    """Paint two colours in soft clouds, with pebbles; float32 [height, width, 3]."""
    clouds = _noise(rng, width, height, (6, 12, 48))
    ground = _mix(_ground_colour(rng), _ground_colour(rng), clouds)
    pebbles = Image.new("L", (width, height))
    draw = ImageDraw.Draw(pebbles)
    for _ in range(rng.integers(4, 14)):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(4, 18)
        draw.ellipse((cx - radius, cy - radius * 0.7, cx + radius, cy + radius * 0.7), fill=255)
    share = np.asarray(pebbles, dtype=np.float32)[..., None] / 255
    return ground * (1 - share) + _fur_colour(rng) * share * (0.8 + 0.4 * clouds[..., None])


def _paint_fur(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.float32]:
    """Paint two colours in fine strands or stripes; float32 [height, width, 3]."""
    strands = _noise(rng, width, height, (40, 90))
    slope, period = rng.uniform(-0.6, 0.6), rng.uniform(7, 14)
    rows, columns = np.mgrid[:height, :width]
    stripes = 0.5 + 0.5 * np.sin(2 * np.pi * (columns + slope * rows) / period + 5 * strands)
    return _mix(
        _fur_colour(rng), _fur_colour(rng), (0.35 * strands + 0.65 * stripes).astype(np.float32)
    )


def _noise(
    rng: np.random.Generator, width: int, height: int, cells: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Draw smooth noise in [0, 1], a sum of octaves; float32 [height, width]."""
    total = np.zeros((height, width), dtype=np.float32)
    for count in cells:
        coarse = Image.fromarray(rng.uniform(0, 1, (count, count)).astype(np.float32))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    low, high = total.min(), total.max()
    return (total - low) / (high - low)


def _fur_colour(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw a colour from cream to dark brown; float32 [3] in [0, 255]."""
    return (rng.uniform(60, 230) * np.array([1.0, 0.82, 0.62]) + rng.uniform(-15, 15, 3)).astype(
        np.float32
    )


def _ground_colour(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw a muted colour of any hue, a little cooler than fur; float32 [3] in [0, 255]."""
    return (rng.uniform(50, 190) * np.array([0.9, 1.0, 0.95]) + rng.uniform(-30, 30, 3)).astype(
        np.float32
    )


def _mix(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], share: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    return first * (1 - share[..., None]) + second * share[..., None]
