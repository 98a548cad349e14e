"""Train a U-Net on images and masks.

    python jobs/train.py                                        # a sample data set, on a laptop
    python jobs/train.py --images photos --masks trimaps --output runs/pets
    ray job submit --working-dir . -- \\
        python jobs/train.py --images s3://b/i --masks s3://b/m --output s3://b/run --use-gpu
"""

import tyro

from segray.job import quiet_native_logs, run_job, start_ray, tell
from segray.training.config import RECIPES, SAMPLE_SETTINGS, TrainConfig
from segray.training.plan import prepare_training


def main() -> int:
    config = tyro.cli(TrainConfig)
    # Flags take precedence over the settings of a recipe, and these over those of the sample.
    sample = SAMPLE_SETTINGS if config.images is None and config.pairs is None else {}
    config = tyro.cli(TrainConfig, default=TrainConfig(**{**sample, **RECIPES[config.recipe]}))
    config.s3.set_environment()
    preparation = prepare_training(config, tell)
    if not preparation.finished:
        # At Ray's niceness of 15, any other process on the machine would starve the training.
        start_ray(config.use_gpu, niceness=0, workers=config.least_workers)
    with quiet_native_logs():
        from segray.training.run import train

    summary = train(preparation, tell)
    best = summary.best
    tell(f"\nbest of {summary.epochs} epochs: epoch {best['epoch']}, on the validation part")
    tell(
        f"  mIoU {best['mean_iou']:.3f}   accuracy {best['accuracy']:.3f}   loss {best['loss']:.3f}"
    )
    for name in config.labels.names:
        iou = best[f"iou_{name}"]
        tell(f"  IoU of {name:<20} {'not there' if iou is None else f'{iou:.3f}'}")
    tell(f"model:    {summary.output}/model")
    tell(f"scores:   {summary.output}/evaluation")
    tell(f"pictures: {summary.output}/previews, {summary.output}/curves.png")
    tell(f"numbers:  {summary.output}/metrics.jsonl, {summary.output}/tensorboard")
    return 0


if __name__ == "__main__":
    run_job(main)
