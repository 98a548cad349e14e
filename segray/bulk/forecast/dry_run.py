"""A dry run: it lists the images, tries a sample of them, and says what the run would take."""

import logging
import time

from segray.bulk.forecast.forecast import Forecast, make_forecast
from segray.bulk.forecast.lines import describe_forecast
from segray.bulk.forecast.survey import take_survey
from segray.bulk.forecast.trial_here import take_trial_here
from segray.bulk.plan import Plan
from segray.bulk.sizes import CLUSTER_CHUNKS, LOCAL_CHUNKS, chunk_size, divide
from segray.clock import STARTED
from segray.storage.requests import requests_sent

log = logging.getLogger(__name__)


def forecast(plan: Plan, on_ray: bool) -> Forecast | None:
    """Forecast a run from a trial on a sample of its images, without writing to its output.

    Args:
        plan: a plan of --dry-run.
        on_ray: True if Ray, which has been started, does the work; else this process does.

    Returns:
        The forecast; None if no image is missing.

    Raises:
        InputError: as the run itself, unless only writing shows it.
    """
    begun, planned = time.monotonic(), requests_sent() - plan.sent
    survey = take_survey(plan.search, plan.done)
    surveyed, listing = time.monotonic() - begun, requests_sent() - plan.sent - planned
    sample = survey.sample
    if not sample:
        return None
    log.info(f"trying a sample of {len(sample)} images with {plan.engine}")
    if on_ray:
        from segray.bulk.forecast.trial_node import take_trial_on_node

        trial, fleet, ready = take_trial_on_node(plan, sample)
    else:
        trial, fleet, ready = take_trial_here(plan, sample)
    size = chunk_size(plan, CLUSTER_CHUNKS if on_ray else LOCAL_CHUNKS)
    chunks = divide(survey.parts, size, apart=on_ray)
    # A run lists while it segments.
    start = ready - STARTED - surveyed
    return make_forecast(plan, survey, trial, fleet, chunks, start, (planned, listing))


def show_forecast(plan: Plan, on_ray: bool) -> None:
    """Print the forecast of a run; see `forecast`."""
    made = forecast(plan, on_ray)
    if made is None:
        log.info("nothing to do: every image has a row already")
        return
    for line in describe_forecast(made, plan.config):
        log.info(line)
