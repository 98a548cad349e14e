"""The forecast of a run: what it says comes true, and nothing is written for it."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segray.bulk.config import SegmentConfig
from segray.bulk.forecast.dry_run import forecast
from segray.bulk.forecast.forecast import Forecast, Interval
from segray.bulk.forecast.lines import describe_forecast
from segray.bulk.forecast.survey import SAMPLE, Survey
from segray.bulk.plan import make_plan
from segray.bulk.run import SegmentSummary, segment
from segray.errors import InputError
from segray.storage.files import read_bytes, write_bytes
from segray.storage.listing import Entry
from segray.storage.lock import BEAT
from segray.storage.requests import requests_sent
from tests.endpoints import CountingProxy, FaultyProxy
from tests.endpoints.stores import asking
from tests.support import draw_picture, encode

GOOD, BAD = 30, 10
CUT = encode(draw_picture(90, 120), "JPEG")[:-700]


def write_images(folder: str) -> dict[str, bytes]:
    """Images of 40x60 pixels and one of 80x120, and images of two kinds that cannot be read."""
    contents = {f"{n}.jpg": encode(draw_picture(40, 60, n), "JPEG") for n in range(GOOD - 1)}
    contents["large.PNG"] = encode(draw_picture(80, 120), "PNG")
    contents |= {f"bad/text {n}.png": b"no image %d" % n for n in range(BAD - 2)}
    contents |= {f"bad/cut {n}.jpg": CUT + b"\0" * n for n in range(2)}
    for name, content in contents.items():
        write_bytes(f"{folder}/{name}", content)
    return contents


def foretell(config: SegmentConfig, on_ray: bool = False) -> Forecast | None:
    with make_plan(dataclasses.replace(config, dry_run=True)) as plan:
        return forecast(plan, on_ray)


def run(config: SegmentConfig) -> SegmentSummary:
    with make_plan(config) as plan:
        return segment(plan, on_ray=False)


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def config(bundle_uri: str, tmp_path: Path) -> SegmentConfig:
    write_images(f"{tmp_path}/in")
    return SegmentConfig(model=bundle_uri, images=f"{tmp_path}/in", output=f"{tmp_path}/out")


@pytest.fixture
def store(s3: Callable[[str], str], s3_endpoint: str) -> Iterator[CountingProxy]:
    with CountingProxy(s3_endpoint) as proxy, asking(proxy.url):
        yield proxy


@pytest.mark.parametrize("regions", [False, True])
def test_a_run_on_s3_comes_out_as_foretold_and_nothing_is_written_before(
    regions: bool, s3: Callable[[str], str], store: CountingProxy, bundle_uri: str
) -> None:
    bucket = s3(f"forecast-{regions}".lower())
    images = write_images(f"{bucket}/in")
    config = SegmentConfig(
        model=bundle_uri, images=f"{bucket}/in", output=f"{bucket}/out", regions=regions
    )
    before = store.requests.copy()
    foretold = foretell(config)
    assert foretold
    assert set(store.requests - before) <= {"GET", "HEAD"}

    before = store.requests.copy()
    summary = run(config)
    sent = store.requests - before

    survey = foretold.survey
    assert survey.found.missing == summary.processed == len(images)
    assert survey.bytes == sum(len(content) for content in images.values())
    assert dict(survey.suffixes) == {".jpg": GOOD + 1, ".png": BAD - 1}
    # All of the images were tried.
    assert foretold.failures == Interval(0.25, 0.25, 0.25)
    assert summary.census.failed / summary.census.listed == 0.25
    kinds = {(kind.stage, kind.error): kind.count for kind in summary.census.errors}
    failures = foretold.trial.failures.values()
    assert {pair: sum(f[:2] == pair for f in failures) for pair in kinds} == kinds

    cost = json.loads(read_bytes(f"{bucket}/out/run.json"))["cost"]
    # Of what was counted, the record itself and the lock's release come later.
    counted = cost["requests"]
    assert counted["GetObject"] + counted["ListObjectsV2"] == pytest.approx(sent["GET"], abs=2)
    assert counted["PutObject"] == pytest.approx(sent["PUT"], abs=2)
    told = foretold.requests
    assert told["GetObject"] + told["ListObjectsV2"] == pytest.approx(sent["GET"], rel=0.02, abs=1)
    # The start of a job is taken to have been that of this process, and the lock has a heartbeat.
    beats = int(foretold.now.seconds.value / BEAT)
    assert told["PutObject"] - beats == pytest.approx(sent["PUT"], abs=2)
    assert told["repeated"] == 0


def test_requests_that_are_tried_again_are_told_apart(
    s3: Callable[[str], str], s3_endpoint: str, bundle_uri: str
) -> None:
    bucket = s3("forecast-faults")
    write_images(f"{bucket}/in")
    config = SegmentConfig(model=bundle_uri, images=f"{bucket}/in", output=f"{bucket}/out")
    before = requests_sent()["repeated"]
    faults = FaultyProxy(s3_endpoint, rate=0.3, seed=1, kinds=("slow_down",), times=2)
    with faults, asking(faults.url):
        foretold = foretell(config)
    assert foretold
    assert requests_sent()["repeated"] - before == sum(faults.faults.values()) > 0
    trial = foretold.trial.requests
    share = foretold.requests["repeated"] / foretold.requests["GetObject"]
    assert share == pytest.approx(trial["repeated"] / trial["GetObject"], abs=0.1)


def test_only_what_has_no_row_is_counted_and_the_output_stays_as_it_is(
    config: SegmentConfig,
) -> None:
    folder = Path(config.output)
    assert foretell(config)
    assert not folder.exists()
    run(dataclasses.replace(config, exclude=("1*",)))
    (folder / "results" / "damaged.parquet").write_bytes(b"PAR1")
    (folder / "results" / ".partial-0").write_bytes(b"of a run that was killed")
    before = contents(folder)
    excluded = 11  # 1 and 10 to 19
    for flags, missing in (
        ({}, excluded),
        ({"retry_errors": True}, excluded + BAD),
        ({"overwrite": True}, GOOD + BAD),
    ):
        foretold = foretell(dataclasses.replace(config, **flags))
        assert foretold
        assert foretold.survey.found.missing == missing
    assert foretell(dataclasses.replace(config, exclude=("1*",))) is None
    assert contents(folder) == before


def test_on_ray_the_workers_of_a_node_try_the_sample(
    ray_session: None, config: SegmentConfig
) -> None:
    foretold = foretell(config, on_ray=True)
    assert foretold
    assert (foretold.fleet.nodes, foretold.fleet.workers) == (1, 2)
    assert len(foretold.trial.failures) == BAD
    assert foretold.trial.images >= 2 * (GOOD + BAD)
    assert not Path(config.output).exists()


def test_times_and_dollars_follow_from_the_nodes(config: SegmentConfig) -> None:
    foretold = foretell(config)
    assert foretold
    assert [duration.nodes for duration in foretold.more] == [1, 2, 4, 8]
    for fewer, more in itertools.pairwise(foretold.more):
        assert more.seconds.value <= fewer.seconds.value
    for duration in foretold.more:
        assert duration.seconds.low < duration.seconds.value < duration.seconds.high
    priced = dataclasses.replace(config, dry_run=True, price=3600.0)
    text = "\n".join(describe_forecast(foretold, priced))
    assert f"{foretold.now.seconds.value:.2f} dollars" in text
    assert "120x80 (largest)" in text
    assert "bad/cut 1.jpg" in text
    assert " dollars" not in "\n".join(describe_forecast(foretold, config))


def test_a_run_that_would_fail_is_foretold(config: SegmentConfig) -> None:
    foretold = foretell(config)
    assert foretold
    for most, fails in ((0.2, True), (0.3, False)):
        limited = dataclasses.replace(config, max_error_rate=most)
        text = "\n".join(describe_forecast(foretold, limited))
        assert ("exit status 1" in text) == fails


def test_results_have_the_size_that_was_foretold(config: SegmentConfig) -> None:
    foretold = foretell(config)
    assert foretold
    run(config)
    files = [
        path
        for folder in ("results", "errors", "gallery")
        for path in Path(config.output, folder).glob("*.parquet")
    ]
    size = sum(path.stat().st_size for path in files)
    assert foretold.result_bytes == pytest.approx(size, rel=0.2)


def test_the_sample_is_the_same_in_whatever_parts_the_images_are_found() -> None:
    entries = [Entry(f"s3://b/{n:05}", n, "") for n in range(3000)]
    whole = Survey()
    whole.add(entries)
    joined = Survey()
    for start in range(0, 3000, 700):
        part = Survey()
        part.add(entries[start : start + 700])
        joined.join(part)
    assert joined.sample == whole.sample
    assert len(set(whole.sample)) == SAMPLE
    # From all over the bucket: the mean of 256 places has a deviation of 54.
    assert sum(entry.size or 0 for entry in whole.sample) / SAMPLE == pytest.approx(1500, abs=250)


def test_a_price_is_for_a_forecast_alone(config: SegmentConfig) -> None:
    with pytest.raises(InputError, match="--dry-run"):
        dataclasses.replace(config, price=1.0)
