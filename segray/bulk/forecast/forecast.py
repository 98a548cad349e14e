"""The forecast of a run: its time, its requests, the size of its results, and its failures.

All of it follows from a survey of the images and a trial on a sample of them. Each worker of the
run is expected to do what a worker of the trial did, and the other images to be like those of the
sample.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segray.bulk.candidates import expected_pictures
from segray.bulk.fleet import Fleet
from segray.bulk.forecast.requests import Files, forecast_requests
from segray.bulk.forecast.survey import Survey
from segray.bulk.forecast.trial import Trial
from segray.bulk.plan import Plan
from segray.bulk.sample import SHOWN
from segray.bulk.sizes import Chunks

#: Share by which the interval of a time is widened, for what a trial of seconds does not show.
UNSEEN = 0.1

# Resamples of the bootstrap, the percentiles of its interval, and the quantile of the normal
# distribution for the same.
_RESAMPLES, _PERCENTILES, _NORMAL = 1000, (2.5, 97.5), 1.96

# Seconds that Ray works on a chunk, on a CPU of the job's node (docs/operations.md).
_CHUNK_SECONDS = 0.05
# Files that are read at once at the end of a run, with two requests each; and the percentile of the
# times of two dozen requests at once that stands for that of one alone.
_READERS, _ALONE = 16, 10
_NODES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Interval:
    """A value, and an interval of 95 % for it."""

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> "Interval":
        """The interval of a monotonic function of the value."""
        low, high = sorted([function(self.low), function(self.high)])
        return Interval(function(self.value), low, high)


@dataclass(frozen=True)
class Duration:
    """The time that a run takes.

    Attributes:
        nodes: number of nodes.
        workers: number of worker processes on them.
        seconds: from the start of the job to its end.
    """

    nodes: int
    workers: int
    seconds: Interval


@dataclass(frozen=True)
class Forecast:
    """What a run will do.

    Attributes:
        survey: the images.
        trial: what became of a sample of them.
        stages: CPU seconds per image of each stage of `segray.bulk.forecast.trial.STAGES`.
        rate: images per second of a worker.
        fleet: the nodes that are there.
        start: seconds until the first image is fetched.
        now: the time that these nodes take.
        more: the times that some numbers of nodes of their kind take.
        failures: share of the images that will fail, 0 to 1.
        result_bytes: size of results, errors and gallery.
        requests: requests to S3, see `segray.storage.requests`.
    """

    survey: Survey
    trial: Trial
    stages: dict[str, float]
    rate: Interval
    fleet: Fleet
    start: float
    now: Duration
    more: list[Duration]
    failures: Interval
    result_bytes: float
    requests: Counter[str]


def make_forecast(
    plan: Plan,
    survey: Survey,
    trial: Trial,
    fleet: Fleet,
    chunks: Chunks,
    start: float,
    already: tuple[Counter[str], Counter[str]],
) -> Forecast:
    """Compute the forecast.

    Args:
        plan: the plan of the run.
        survey: the images, at least one.
        trial: what became of the sample.
        fleet: the nodes that are there.
        chunks: the chunks of the run.
        start: seconds until the first image is fetched.
        already: the requests that the plan and the survey have taken.
    """
    tried = len(trial.failures) + len(trial.sizes)
    failures = _share(len(trial.failures), tried, chunks.images)
    segmented = chunks.images * (1 - failures.value) / chunks.count
    pictures = expected_pictures(segmented, len(plan.bundle.labels))
    stages = trial.stage_seconds(pictures * chunks.count / chunks.images)
    rate = _rate(trial, sum(stages.values()))

    def take(nodes: int, workers: int) -> Duration:
        took = rate.map(lambda rate: start + _work_seconds(rate, workers, chunks, fleet, trial))
        low, high = took.low * (1 - UNSEEN), took.high * (1 + UNSEEN)
        return Duration(nodes, workers, Interval(took.value, low, high))

    now = take(fleet.nodes, fleet.workers)
    most = min(fleet.most_workers, chunks.count)
    more = [take(nodes, min(nodes * fleet.workers_per_node, most)) for nodes in _NODES]
    files = Files.of(trial, chunks, failures.value, pictures)
    requests = forecast_requests(
        *(plan, already, survey.found.images, trial, chunks, files),
        *(now.seconds.value, rate.value),
    )
    result_bytes = chunks.count * files.bytes
    return Forecast(
        *(survey, trial, stages, rate, fleet, start, now, more, failures, result_bytes, requests)
    )


def _work_seconds(rate: float, workers: int, chunks: Chunks, fleet: Fleet, trial: Trial) -> float:
    """The time from the first image to the end, at so many images per second of each worker."""
    # A chunk is not divided among workers.
    images = max(chunks.images / workers, min(chunks.size, chunks.images))
    of_ray = chunks.count * _CHUNK_SECONDS / fleet.cpus_of_job if fleet.cpus_of_job else 0.0
    # At the end, results and gallery are read, and then the rows of the report, whose masks are
    # made small one by one.
    wait = float(np.percentile(trial.waits, _ALONE)) if trial.waits else 0.0
    end = (4 * chunks.count + 3 * min(SHOWN, chunks.count)) / _READERS * wait
    drawing = min(SHOWN, chunks.images) * float(np.mean(trial.drawing or [0.0]))
    return images / rate + of_ray + end + drawing


def _rate(trial: Trial, seconds: float) -> Interval:
    """Images per second of a worker, at so many CPU seconds per image on the average.

    Images and moments of the trial are resampled.
    """
    costs = np.array([cost / trial.times[id] for id, cost in trial.costs.items()])
    busy = np.maximum(trial.busy, 1e-3)  # a process that waits does not wait for ever
    random = np.random.default_rng(0)
    rates = [
        random.choice(busy, len(busy)).mean()
        / max(1e-9, seconds + random.choice(costs, len(costs)).mean() - costs.mean())
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(rates, _PERCENTILES).tolist()
    return Interval(busy.mean() / seconds, low, high)


def _share(count: int, of: int, among: int) -> Interval:
    """A share and Wilson's interval for it (https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        count: those of a random sample that count.
        of: the size of the sample.
        among: the size of what it was drawn from; the interval narrows to nothing as the sample
            approaches it.
    """
    share, z = count / of, _NORMAL
    if of >= among:
        return Interval(share, share, share)
    size = of * (among - 1) / (among - of)
    centre = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
