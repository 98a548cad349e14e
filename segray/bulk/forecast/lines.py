"""The lines in which a person reads a forecast."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from segray.bulk.config import SegmentConfig
from segray.bulk.forecast.forecast import UNSEEN, Duration, Forecast, Interval
from segray.storage.requests import REPEATED

_SUFFIXES = 6  # that are named
_EXAMPLES = 2  # of each kind of failure


def describe_forecast(forecast: Forecast, config: SegmentConfig) -> Iterator[str]:
    """Yield the lines.

    Args:
        forecast: the forecast.
        config: the flags of the run.
    """
    price = config.price
    yield "\nforecast of a run; nothing has been written"
    yield from _describe_images(forecast)
    yield from _describe_failures(forecast, config.max_error_rate)
    yield from _describe_stages(forecast)
    if config.use_gpu:
        yield (
            "predict is without the GPU: one was at work for the workers of one node, and the "
            "times hold for nodes that have one each"
        )
    yield from _describe_times(forecast, price)
    yield f"results: {_format_bytes(forecast.result_bytes)}"
    yield f"requests to S3: {_describe_requests(forecast.requests)}"
    yield (
        "the intervals hold in 95 % of the cases for the choice of the sample and for what went on "
        f"beside the trial; those of times are widened by {UNSEEN:.0%}. They do not cover a "
        "store that throttles, nodes that come or go, or other work at the time of the run"
    )


def _describe_images(forecast: Forecast) -> Iterator[str]:
    survey, trial = forecast.survey, forecast.trial
    found = survey.found
    size = _format_bytes(survey.bytes)
    if survey.unsized:
        size += f" and {survey.unsized} images of unknown size"
    with_row = found.images - found.missing
    yield f"images: {found.missing} to segment, {size}" + (
        f"; {with_row} more have a row already" if with_row else ""
    )
    suffixes = [f"{suffix or 'none'} {n}" for suffix, n in survey.suffixes.most_common(_SUFFIXES)]
    others = len(survey.suffixes) - _SUFFIXES
    yield f"suffixes: {', '.join(suffixes)}" + (f", and {others} others" if others > 0 else "")
    tried = len(trial.sizes) + len(trial.failures)
    yield f"sample: {tried} images, {trial.images} with those that went through again"
    if trial.sizes:
        sizes = sorted(trial.sizes.values(), key=lambda size: size[0] * size[1])
        middle, largest = sizes[len(sizes) // 2], sizes[-1]
        yield (
            f"pixels in the sample: {middle[0]}x{middle[1]} (median), "
            f"{largest[0]}x{largest[1]} (largest)"
        )


def _describe_failures(forecast: Forecast, most: float) -> Iterator[str]:
    trial, share = forecast.trial, forecast.failures
    tried = len(trial.sizes) + len(trial.failures)
    yield (
        f"failures: {len(trial.failures)} of {tried} in the sample, "
        f"{_format_interval(share.map(lambda x: 100 * x), _format_percent)} of all images"
    )
    found = forecast.survey.found
    if share.value * found.missing > most * found.images:
        would = "would" if share.low * found.missing > most * found.images else "may"
        yield f"  the run {would} end with exit status 1, because of --max-error-rate {most:.2%}"
    kinds = Counter((stage, kind) for stage, kind, *_ in trial.failures.values())
    for (stage, kind), count in kinds.most_common():
        yield f"  {stage}, {kind}: {count}"
        examples = [f for f in trial.failures.values() if f[:2] == (stage, kind)]
        for *_, uri, message in examples[:_EXAMPLES]:
            yield f"    {uri}: {message}"


def _describe_stages(forecast: Forecast) -> Iterator[str]:
    trial = forecast.trial
    stages = forecast.stages
    of_stages = [f"{stage} {1000 * seconds:.1f}" for stage, seconds in stages.items()]
    yield (
        f"milliseconds of a CPU per image: {', '.join(of_stages)}; "
        f"in all {1000 * sum(stages.values()):.1f}"
    )
    if trial.waits:
        wait = 1000 * float(np.median(trial.waits))
        yield f"milliseconds until a file is fetched: {wait:.1f} (median), 24 requests at once"
    yield (
        f"throughput of a worker: {forecast.rate.value:.1f} images/s, "
        f"{float(np.mean(trial.busy)):.2f} CPUs busy"
    )


def _describe_times(forecast: Forecast, price: float | None) -> Iterator[str]:
    fleet, now = forecast.fleet, forecast.now
    there = f"{fleet.nodes} node{'s' * (fleet.nodes != 1)}"
    workers = f"{fleet.workers} worker{'s' * (fleet.workers != 1)}"
    yield (
        f"time on what is there, {there} ({fleet.kind}) and {workers}: "
        f"{_describe_duration(now, price)}; {_format_time(forecast.start)} of it to start"
    )
    yield f"on nodes of {fleet.kind}:"
    for duration in forecast.more:
        yield f"  {duration.nodes}: {_describe_duration(duration, price)}"


def _describe_duration(duration: Duration, price: float | None) -> str:
    text = _format_interval(duration.seconds, _format_time)
    if price is None:
        return text
    dollars = duration.seconds.map(lambda seconds: seconds / 3600 * duration.nodes * price)
    return f"{text}, {_format_interval(dollars, _format_dollars)}"


def _describe_requests(requests: Counter[str]) -> str:
    sent = {name: n for name, n in sorted(requests.items()) if n and name != REPEATED}
    if not sent:
        return "none"
    parts = ", ".join(f"{count} {name}" for name, count in sent.items())
    return f"{sum(sent.values())} ({parts}), of which {requests[REPEATED]} repeat failed ones"


def _format_interval(interval: Interval, spell: Callable[[float], str]) -> str:
    return f"{spell(interval.value)} ({spell(interval.low)} to {spell(interval.high)})"


def _format_time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _format_dollars(dollars: float) -> str:
    return f"{dollars:.2f} dollars" if dollars >= 1 else f"{dollars:.2g} dollars"


def _format_percent(share: float) -> str:
    return f"{share:.1f} %"


def _format_bytes(bytes: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if bytes >= size:
            return f"{bytes / size:.1f} {unit}"
    return f"{bytes / 1e3:.1f} kB"
