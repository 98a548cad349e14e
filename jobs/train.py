"""Train a U-Net on images and masks.

    python jobs/train.py                                        # a sample data set, on a laptop
    python jobs/train.py --images photos --masks trimaps --output runs/pets
    ray job submit --working-dir . -- \\
        python jobs/train.py --images s3://b/i --masks s3://b/m --output s3://b/run --use-gpu
"""

import logging

from segray.flags import given_flags, read_flags, read_values
from segray.job import quiet_native_logs, run_job, start_ray
from segray.training.config import TrainConfig
from segray.training.plan import prepare_training
from segray.training.recipes import choose_recipe

log = logging.getLogger("segray.jobs.train")


def main() -> int:
    recipe = choose_recipe(read_values(TrainConfig), given_flags())
    config = read_flags(TrainConfig, recipe)
    preparation = prepare_training(config)
    if not preparation.finished:
        # At Ray's niceness of 15, any other process on the machine would starve the training.
        start_ray(config.use_gpu, niceness=0, workers=config.least_workers)
    with quiet_native_logs():
        from segray.training.run import train

    summary = train(preparation)
    best = summary.best
    log.info(f"\nbest of {summary.epochs} epochs: epoch {best['epoch']}, on the validation set")
    log.info(
        f"  mIoU {best['mean_iou']:.3f}   accuracy {best['accuracy']:.3f}   loss {best['loss']:.3f}"
    )
    for name in config.labels.names:
        iou = best[f"iou_{name}"]
        log.info(f"  IoU of {name:<20} {'undefined' if iou is None else f'{iou:.3f}'}")
    log.info(f"model:    {summary.output}/model")
    log.info(f"scores:   {summary.output}/evaluation")
    log.info(f"pictures: {summary.output}/previews, {summary.output}/curves.png")
    log.info(f"numbers:  {summary.output}/metrics.jsonl, {summary.output}/tensorboard")
    return 0


if __name__ == "__main__":
    run_job(main)
