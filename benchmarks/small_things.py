"""How well small things in large images are found: squashed to a square, and by windows.

    python benchmarks/small_things.py                       # 16 scenes of 2048x2048
    python benchmarks/small_things.py --side 512 --scenes 2 --sizes 128 --epochs 1 1

Scenes of noise hold discs of 16 pixels and lines of 8. For each way, jobs/train.py trains a network
on them and scores it on other scenes. Beside that stands what a network would score that knows, in
each of its pixels, the exact share of each class; a trained one can do better by drawing things
wider than they are. At last each model segments a scene and the same scene moved, and the pixels
whose class differs are counted. A last line has the mean IoU of discs and lines within 8 pixels of
the borders of windows, and elsewhere.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from figures import describe_machine
from PIL import Image, ImageDraw

import segray
from segray.pixels.canvas import OVERLAP
from segray.pixels.masks import segment_logits
from segray.pixels.windows import Axis

ROOT = Path(__file__).parent.parent
CLASSES = ("ground", "disc", "line")
_SHIFTS = ((1, 0), (0, 7), (13, 29), (64, 64))
_MARGIN = 64
_SEAM = 8  # pixels on either side of a border of a window


@dataclass(frozen=True)
class SmallThingsBenchmark:
    """Print the IoU of small things, squashed and by windows."""

    side: int = 2048
    """Side of a scene, in pixels."""
    scenes: int = 16
    """Scenes to learn from; a fourth as many are held out."""
    sizes: tuple[int, ...] = (128, 256, 512)
    """Resolutions that scenes are squashed to."""
    window: int = 128
    """Side of the windows."""
    epochs: tuple[int, int] = (100, 2)
    """Passes over the scenes: squashed, and by windows."""
    encoder_weights: str = "none"
    """As jobs/train.py takes it."""


def main() -> None:
    config = tyro.cli(SmallThingsBenchmark)
    print(f"{describe_machine()}; scenes of {config.side} pixels", flush=True)
    rng = np.random.default_rng(0)
    print(f"{'':<14}{'exact: disc':>14}{'line':>8}{'found: disc':>14}{'line':>8}  moved by")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, count in (("train", config.scenes), ("validation", -(-config.scenes // 4))):
            for kind in ("images", "masks"):
                (folder / part / kind).mkdir(parents=True)
            for number in range(count):
                image, mask = draw_scene(config.side, rng)
                Image.fromarray(image).save(folder / part / "images" / f"{number}.png")
                Image.fromarray(mask).save(folder / part / "masks" / f"{number}.png")
        scene, truth = draw_scene(config.side + _MARGIN, rng)
        for size in config.sizes:
            exact = score(shrink_and_enlarge(truth, size), truth)
            _print_row(f"squash {size}", exact, train(folder, config, "squash", size), scene)
        found = train(folder, config, "tile", config.window)
        _print_row(f"windows {config.window}", [1.0, 1.0], found, scene)
        near, elsewhere = compare_seam(found[1], scene, truth, config.window)
        print(f"at the windows' borders {near:.3f}, elsewhere {elsewhere:.3f}")


def draw_scene(
    side: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw a scene, uint8 [side, side, 3] RGB, and its mask, uint8 [side, side]."""
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    for _ in range(side // 40):
        points = rng.integers(0, side, (2, 2))
        draw.line([tuple(point) for point in points.tolist()], 2, 8)
    for x, y in rng.integers(0, side - 16, ((side // 64) ** 2, 2)).tolist():
        draw.ellipse((x, y, x + 15, y + 15), 1)
    classes = np.asarray(mask)
    colours = np.array([[110, 110, 100], [150, 100, 80], [90, 100, 150]])
    # Shades that are larger than the things, so that brightness alone tells nothing.
    shade = Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8))
    light = np.asarray(shade.resize((side, side), Image.Resampling.BICUBIC)).astype(float) / 4 - 32
    noise = rng.normal(0, 20, (side, side, 3))
    image = colours[classes] + light[..., None] + noise
    return np.clip(image, 0, 255).astype(np.uint8), classes


def shrink_and_enlarge(truth: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return the mask of a network of a resolution that knows the share of each class exactly."""
    shares = [
        Image.fromarray((truth == i).astype(np.float32)).resize((size, size), Image.Resampling.BOX)
        for i in range(len(CLASSES))
    ]
    logits = np.log(np.maximum(np.stack([np.asarray(s) for s in shares], axis=-1), 1e-6))
    return segment_logits(logits, *truth.shape)[0]


def score(mask: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> list[float]:
    """Return the IoU of discs and of lines."""
    return [
        float(np.sum((mask == i) & (truth == i)) / np.sum((mask == i) | (truth == i)))
        for i in (1, 2)
    ]


def train(
    folder: Path, config: SmallThingsBenchmark, fit: str, size: int
) -> tuple[list[float], str]:
    """Train a network, and return the IoU of discs and lines and the URI of its model."""
    output = folder / f"{fit}-{size}"
    epochs = config.epochs[fit == "tile"]
    flags = {
        "--images": folder / "train" / "images",
        "--masks": folder / "train" / "masks",
        "--validation-images": folder / "validation" / "images",
        "--validation-masks": folder / "validation" / "masks",
        "--output": output,
        "--fit": fit,
        "--image-size": size,
        "--epochs": epochs,
        "--encoder-weights": config.encoder_weights,
        "--workers": 0,
    }
    words = [str(word) for flag in flags.items() for word in flag]
    classes = [f"{name}={i}" for i, name in enumerate(CLASSES)]
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), *words, "--classes", *classes]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    scores = json.loads((output / "evaluation" / "metrics.json").read_text())
    found = scores["original_resolution"]["classes"]
    return [found[name]["iou"] for name in CLASSES[1:]], str(output / "model")


def _print_row(
    name: str,
    exact: list[float],
    found: tuple[list[float], str],
    scene: npt.NDArray[np.uint8],
) -> None:
    scores, model = found
    figures = "".join(
        f"{value:{width}.3f}"
        for value, width in zip((*exact, *scores), (14, 8, 14, 8), strict=True)
    )
    moved = [f"{down},{right}: {move(model, scene, down, right):.2%}" for down, right in _SHIFTS]
    print(f"{name:<14}{figures}  {'  '.join(moved)}", flush=True)


def move(model: str, scene: npt.NDArray[np.uint8], down: int, right: int) -> float:
    """Return the share of pixels whose class differs in the same scene, moved by some pixels."""
    side = len(scene) - _MARGIN
    segmenter = segray.load(model)
    still = segmenter.segment(scene[:side, :side])
    moved = segmenter.segment(scene[down : down + side, right : right + side])
    differ = still[down:, right:] != moved[: side - down, : side - right]
    return float(differ.mean())


def compare_seam(
    model: str, scene: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], window: int
) -> tuple[float, float]:
    """Return the mean IoU of discs and lines near the borders of windows, and elsewhere."""
    mask = segray.load(model).segment(scene)
    places = np.arange(len(scene))
    starts = Axis.cover(len(scene), window, OVERLAP).starts
    borders = np.array([*starts[1:], *(start + window for start in starts[:-1])])
    near = np.abs(places[:, None] + 0.5 - borders).min(axis=1) < _SEAM
    at_border = near[:, None] | near
    means = [float(np.mean(score(mask[part], truth[part]))) for part in (at_border, ~at_border)]
    return means[0], means[1]


if __name__ == "__main__":
    main()
