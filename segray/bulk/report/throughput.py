"""The throughput in a report: images and megabytes per second over the time of the run."""

from collections.abc import Sequence

import numpy as np

from segray.bulk.progress import Moment
from segray.page.charts import curve
from segray.page.markup import Element, format_rate, format_seconds, tag

_STEPS = 80  # of a curve, at most


def draw_throughput(timeline: Sequence[Moment]) -> list[Element]:
    """Two curves over the time of the run."""
    done = np.array(
        [[0, 0, 0]] + [[m.seconds, m.segmented + m.failed, m.bytes / 1e6] for m in timeline]
    ).T
    if not done[0, -1] or not done[1, -1]:
        return [tag("p", "This run had no image left to do.")]
    # Images are counted many at a time, as they are written. A moment that found no more of them
    # says nothing of the work in between: the rate is that from one count to the next.
    counted = np.diff(done[1], prepend=-1) > 0
    counted[-1] = True
    seconds, images, megabytes = done[:, counted]
    times = np.linspace(0, seconds[-1], min(len(seconds) - 1, _STEPS) + 1)
    spans = [format_seconds(time) if time else "0 s" for time in times.tolist()]
    drawn = []
    for unit, total in (("images/s", images), ("MB/s", megabytes)):
        rates = np.diff(np.interp(times, seconds, total)) / np.diff(times)
        mean, top = total[-1] / seconds[-1], rates.max()
        caption = f" mean {format_rate(mean)}, highest {format_rate(top)}"
        drawn.append(
            tag(
                "figure",
                tag("figcaption", tag("b", unit), caption),
                curve(rates, unit, spans, f"{unit} over time:{caption}"),
            )
        )
    return [tag("div", *drawn, class_="pair")]
