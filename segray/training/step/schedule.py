"""The learning-rate schedule: the share of its peak that a learning rate has at each step."""

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def rate_at(step: int, first: int, total: int, warmup: float, schedule: Schedule) -> float:
    """Return the learning rate of a step as a share of its peak, 0 to 1.

    ``cosine`` follows half a cosine over the whole run (https://arxiv.org/abs/1608.03983), so that
    the last steps are tiny. Weights that are trained later in the run, such as a frozen encoder's,
    join the same curve. A linear warm-up comes first, because the first estimates of an optimizer
    are poor.

    Args:
        step: the step of the run, from 0.
        first: the first step in which the weights are trained; 0 for those trained from the start.
        total: the number of steps of the whole run.
        warmup: the share of the run's steps over which the learning rate rises linearly.
        schedule: ``cosine``, or ``constant`` for the warm-up alone.
    """
    rising = max(1, round(warmup * total))
    raised = min(1.0, (step - first + 1) / rising)
    if schedule == "constant":
        return raised
    return raised * 0.5 * (1 + math.cos(math.pi * step / total))
