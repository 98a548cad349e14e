"""The trial of a run that the job's own process does."""

import sys
import time
from collections.abc import Sequence

from segray.bulk.fleet import Fleet
from segray.bulk.forecast.trial import Trial, take_trial
from segray.bulk.pipeline import PipelineConfig
from segray.bulk.plan import Plan
from segray.storage.listing import Entry
from segray.storage.parallel import count_cpus


def take_trial_here(plan: Plan, sample: Sequence[Entry]) -> tuple[Trial, Fleet, float]:
    """Segment a sample as `segray.bulk.here.segment_here` does, but into a temporary folder.

    Args:
        plan: the plan of the run.
        sample: the images.

    Returns:
        The trial, this machine, and the time at which the network was ready.

    Raises:
        InputError: nothing can be written to a temporary folder.
    """
    cpus = count_cpus()
    predictor = plan.predictor_loader(cpus)()
    ready = time.monotonic()
    trial = take_trial(PipelineConfig.of(plan, cpus), predictor, sample)
    kind = f"{cpus} CPU{'s' * (cpus != 1)}"
    return trial, Fleet(1, kind, 1, 1, sys.maxsize, 0.0), ready
