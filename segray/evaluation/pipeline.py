"""The pipeline of an evaluation: pairs in, metrics and counts of each image out."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from segray.data.labelled import Reading
from segray.data.pairs import Pair
from segray.evaluation.stages import PAIRS_SCHEMA, Predict, count, read
from segray.model.bundle import Bundle
from segray.storage.parallel import count_cpus, map_ahead

# Shares of a CPU: below 1, so that every CPU has room for the tasks beside its predictor, and
# different from each other, so that Ray does not fuse the stages.
_TASK_CPUS = 0.2
PREDICTOR_CPUS = 0.75
# The number of images in a block if windows are cut from them.
_LARGE_IMAGES = 2


@dataclass(frozen=True)
class Pipeline:
    """Scores pairs block by block.

    A block has the same pairs wherever it is scored. If batches were formed as images arrive, the
    last digits of the logits, and with them a few pixels, would depend on the number of workers.

    Attributes:
        bundle: the model, with the file of the engine.
        engine: the inference engine.
        pairs: the pairs.
        use_gpu: True if each predictor has a GPU.
        batch_size: images, or windows of images, per batch of a predictor.
        overlap: see `segray.pixels.canvas.Canvas`.
        test_time_flip: True to average with the prediction for the mirror image.
    """

    bundle: Bundle
    engine: Literal["tensorflow", "onnx"]
    pairs: Sequence[Pair]
    use_gpu: bool
    batch_size: int
    overlap: float
    test_time_flip: bool

    def run_here(self, reading: Reading) -> Iterator[pa.Table]:
        """Yield the metrics and counts of each block, in order, computed in this process."""
        labels, frame, threads = self.bundle.labels, self.bundle.frame, count_cpus()
        predict = Predict(*self._predictor_settings, threads=threads)
        # One by one, so that few large images are in memory, and Ctrl-C waits for few.
        pairs = self._blocks
        singles = (block.slice(row, 1) for block in pairs for row in range(len(block)))
        images = map_ahead(lambda pair: read(pair, labels, frame, reading), singles, threads)
        blocks = (pa.concat_tables(itertools.islice(images, len(b))) for b in pairs)
        counting = self._count_settings
        yield from map_ahead(lambda block: count(block, *counting), map(predict, blocks), threads)

    def run_on_ray(self, reading: Reading, workers: int | None) -> Iterator[pa.Table]:
        """Yield the metrics and counts of each block, in any order, computed by Ray.

        Args:
            reading: how pairs are read.
            workers: the number of predictors; None for one per CPU or GPU.
        """
        import ray.data

        # Ray Data gives up after half an hour without a block, but nodes may take longer to start.
        ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
        labels, frame, blocks = self.bundle.labels, self.bundle.frame, self._blocks
        # At most as many predictors as blocks: Ray would wait for the idle ones.
        most = min(workers or len(blocks), len(blocks))
        whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
        counted = (
            ray.data.from_arrow(blocks)
            .map_batches(read, fn_args=(labels, frame, reading), num_cpus=_TASK_CPUS, **whole)
            .map_batches(
                Predict,
                fn_constructor_args=self._predictor_settings,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
                num_cpus=0 if self.use_gpu else PREDICTOR_CPUS,
                num_gpus=1 if self.use_gpu else 0,
                **whole,
            )
            .map_batches(count, fn_args=self._count_settings, num_cpus=_TASK_CPUS, **whole)
        )
        yield from counted.iter_batches(**whole)

    @property
    def _predictor_settings(
        self,
    ) -> tuple[Bundle, Literal["tensorflow", "onnx"], bool, int, float, bool]:
        batch = self.bundle.limit_batch(self.batch_size)
        return self.bundle, self.engine, self.use_gpu, batch, self.overlap, self.test_time_flip

    @property
    def _count_settings(self) -> tuple[Any, ...]:
        bundle = self.bundle
        return bundle.labels, bundle.frame, bundle.usual_shares, bundle.iou_exponent

    @property
    def _blocks(self) -> list[pa.Table]:
        tiles = self.bundle.fit == "tile"
        rows = _LARGE_IMAGES if tiles else self.bundle.limit_batch(self.batch_size)
        numbered = [
            {"number": i, "key": pair.key, "image": pair.image, "mask": pair.mask}
            for i, pair in enumerate(self.pairs)
        ]
        return [
            pa.Table.from_pylist(numbered[start : start + rows], PAIRS_SCHEMA)
            for start in range(0, len(numbered), rows)
        ]
