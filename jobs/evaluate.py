"""Score a trained model on labelled images.

    python jobs/evaluate.py                                     # samples, after jobs/train.py
    python jobs/evaluate.py --model runs/pets/model --images photos --masks trimaps
    ray job submit --working-dir . -- \\
        python jobs/evaluate.py --model s3://b/run/model --pairs s3://b/pairs.csv --output s3://b/e
"""

import logging

from segray.data.skipped import check_error_rate
from segray.evaluation.config import EvaluateConfig
from segray.evaluation.plan import prepare_evaluation
from segray.evaluation.write import Evaluation
from segray.flags import read_flags
from segray.job import needs_ray, run_job, start_ray

log = logging.getLogger("segray.jobs.evaluate")


def main() -> int:
    config = read_flags(EvaluateConfig)
    preparation = prepare_evaluation(config)
    on_ray = needs_ray(config.workers, preparation.is_small)
    if on_ray:
        start_ray(config.use_gpu)
    from segray.evaluation.run import evaluate

    result = evaluate(preparation, on_ray)
    if result.evaluated:
        show(result)
    log.info(f"evaluated {result.evaluated} of {result.images} pairs in {result.seconds:.0f} s")
    log.info(f"numbers:  {result.output}/metrics.json, {result.output}/per_image.parquet")
    if result.evaluated:
        names = ("confusion", "expected", "worst")
        log.info("pictures: " + ", ".join(f"{result.output}/{name}.png" for name in names))
    skipped_uri = f"{result.output}/skipped.jsonl"
    if result.skipped:
        log.info(f"skipped:  {skipped_uri}")
    check_error_rate(result.skipped, result.images, config.max_error_rate, skipped_uri)
    return 0


def show(result: Evaluation) -> None:
    """Print a table of the classes, and the overall metrics."""
    own, model = result.original_resolution, result.model_resolution
    figures = {**own.class_figures(), "expected_iou": result.expected_iou}
    log.info(f"\n{'class':<20}" + "".join(f" {kind.replace('_', ' '):>12}" for kind in figures))
    for row in zip(result.model.labels.names, *figures.values(), strict=True):
        log.info(f"{row[0]:<20}" + "".join(f" {word(value):>12}" for value in row[1:]))
    log.info(
        f"\nat the images' own size:  mIoU {word(own.mean_iou)}   accuracy {word(own.accuracy)}"
    )
    log.info(
        f"at the model's size:      mIoU {word(model.mean_iou)}   accuracy {word(model.accuracy)}"
        f"   loss {word(result.loss)}"
    )
    log.info(
        f"expected without truth:   mIoU {word(result.expected_mean_iou)}   rank correlation of "
        f"images {word(result.rank_correlation)}"
    )


def word(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4f}"


if __name__ == "__main__":
    run_job(main)
