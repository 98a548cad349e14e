"""The schedule: which share of its peak a learning rate has at each step."""

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def rate_at(step: int, first: int, total: int, warmup: float, schedule: Schedule) -> float:
    """The share of the peak rate, 0 to 1, that a step is made with.

    ``cosine``: along half a cosine over the whole run (https://arxiv.org/abs/1608.03983), so that
    the last steps are tiny. What joins the run later, joins the same curve. At its beginning the
    rate is raised linearly, because an optimizer's first estimates are poor.

    Args:
        step: of the run, from 0.
        first: the first step of what is trained; 0 from the beginning.
        total: the steps of the whole run.
        warmup: the share of the run's steps over which the rate is raised.
        schedule: ``constant`` leaves out the cosine, and not the warm-up.
    """
    rising = max(1, round(warmup * total))
    raised = min(1.0, (step - first + 1) / rising)
    if schedule == "constant":
        return raised
    return raised * 0.5 * (1 + math.cos(math.pi * step / total))
