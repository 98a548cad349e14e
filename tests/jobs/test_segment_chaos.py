"""Segmenting while things break: kill -9 at random moments, and a store that fails.

Reduced here; in full: `SEGRAY_CHAOS=10 pytest -s tests/jobs/test_segment_chaos.py`, with 2,000
images.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.storage.uri import write_bytes
from tests.endpoints import CountingProxy, FaultyProxy
from tests.processes import descendants, kill
from tests.support import draw_picture, encode

ROOT = Path(__file__).parent.parent.parent
KILLS = int(os.environ.get("SEGRAY_CHAOS", "2"))
IMAGES = 2000 if KILLS >= 10 else 240
BAD = 3


@pytest.fixture(scope="module")
def bucket(aws_environment: None) -> str:
    """Images, and a few files that are none."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="chaos")
    pictures = [encode(draw_picture(180, 240, seed), "JPEG", quality=90) for seed in range(40)]
    contents = [b"no image"] * BAD + [
        # Of its own size in bytes and with an ETag of its own.
        pictures[number % len(pictures)] + b"\0" * number
        for number in range(IMAGES - BAD)
    ]
    with ThreadPoolExecutor(8) as writers:
        list(
            writers.map(
                lambda item: write_bytes(f"s3://chaos/in/{item[0] % 7}/{item[0]:05}.jpg", item[1]),
                enumerate(contents),
            )
        )
    return "s3://chaos"


def start(
    bucket: str, bundle_uri: str, output: Path, endpoint: str, *flags: str
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "jobs/segment.py", "--model", bundle_uri, "--images", f"{bucket}/in"]
    command += ["--output", str(output), *flags]
    environment = {**os.environ, "AWS_ENDPOINT_URL": endpoint}
    with (output.parent / f"{output.name}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def finish(process: subprocess.Popen[bytes], output: Path) -> None:
    status = process.wait(timeout=1200)
    assert status == 0, (output.parent / f"{output.name}.log").read_text()[-3000:]


def masks(output: Path) -> dict[str, bytes]:
    """The masks by URI; each image has one row in all."""
    results = pq.read_table(output / "results", columns=["uri", "mask"])
    errors = pq.read_table(output / "errors", columns=["uri"])
    assert len(errors) == BAD
    uris = results["uri"].to_pylist() + errors["uri"].to_pylist()
    assert len(uris) == len(set(uris)) == IMAGES
    return dict(zip(results["uri"].to_pylist(), pa_bytes(results), strict=True))


def pa_bytes(results: pa.Table) -> list[bytes]:
    return [mask["bytes"] for mask in results["mask"].to_pylist()]


@pytest.fixture(scope="module")
def undisturbed(
    bucket: str, bundle_uri: str, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], float]:
    """The masks, and the seconds that a whole run on Ray takes."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    begun = time.monotonic()
    finish(start(bucket, bundle_uri, output, s3_endpoint, "--workers", "2"), output)
    return masks(output), time.monotonic() - begun


@pytest.fixture
def counted(s3_endpoint: str) -> Iterator[CountingProxy]:
    with CountingProxy(s3_endpoint) as proxy:
        yield proxy


def await_rows(process: subprocess.Popen[bytes], output: Path) -> None:
    """Until something is written, or the run is over."""
    before = set(output.glob("results/*.parquet"))
    while process.poll() is None and set(output.glob("results/*.parquet")) == before:
        time.sleep(0.05)


def report(what: str, proxy: CountingProxy, kills: int) -> None:
    fetched = sum(count for key, count in proxy.gets.items() if key.startswith("chaos/in/"))
    print(f"\n{what}: {kills} kills, {fetched - IMAGES} of {IMAGES} images were fetched once more")


@pytest.mark.timeout(3600)
def test_a_driver_that_is_killed_and_started_again(
    bucket: str, bundle_uri: str, undisturbed, counted: CountingProxy, tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    output, chance = tmp_path / "out", random.Random(1)
    kills = 0
    for turn in range(KILLS):
        process = start(bucket, bundle_uri, output, counted.url, "--workers", "2")
        # Half of the moments are while rows are being written, the others anywhere before.
        if turn % 2 == 0:
            await_rows(process, output)
            time.sleep(chance.uniform(0, 2))
        else:
            time.sleep(chance.uniform(0, seconds / 3))
        kills += process.poll() is None
        kill(process.pid)
        process.wait()
    process = start(bucket, bundle_uri, output, counted.url, "--workers", "2")
    finish(process, output)
    assert kills > 0
    assert masks(output) == expected
    report("driver", counted, kills)


@pytest.mark.timeout(3600)
def test_predictors_that_are_killed(
    bucket: str, bundle_uri: str, undisturbed, counted: CountingProxy, tmp_path: Path
) -> None:
    expected, _ = undisturbed
    output, chance = tmp_path / "out", random.Random(2)
    process = start(bucket, bundle_uri, output, counted.url, "--workers", "2")
    kills = 0
    while kills < KILLS and process.poll() is None:
        await_rows(process, output)
        time.sleep(chance.uniform(0, 1))
        predictors = [
            pid for pid, command in descendants(process.pid).items() if "Predictor" in command
        ]
        if predictors:
            kill(chance.choice(predictors))
            kills += 1
    finish(process, output)
    assert kills > 0
    assert masks(output) == expected
    report("predictors", counted, kills)


@pytest.mark.timeout(3600)
def test_a_store_that_fails_for_one_request_in_ten(
    bucket: str, bundle_uri: str, undisturbed, s3_endpoint: str, tmp_path: Path
) -> None:
    expected, _ = undisturbed
    seconds = []
    with CountingProxy(s3_endpoint) as calm, FaultyProxy(s3_endpoint, 0.1, seed=3) as faulty:
        for name, proxy in (("calm", calm), ("faulty", faulty)):
            begun = time.monotonic()
            output = tmp_path / name
            finish(start(bucket, bundle_uri, output, proxy.url, "--workers", "0"), output)
            seconds.append(time.monotonic() - begun)
            assert masks(output) == expected
        faults = dict(faulty.faults)
    assert sum(faults.values()) > IMAGES * 0.05
    print(f"\nfaults: {faults}; {seconds[1]:.0f} s against {seconds[0]:.0f} s without")


def test_a_third_run_fetches_what_is_new_or_changed_and_nothing_else(
    s3: Callable[[str], str], bundle_uri: str, counted: CountingProxy, tmp_path: Path
) -> None:
    bucket, output = s3("third"), tmp_path / "out"
    count = IMAGES // 2
    good = encode(draw_picture(60, 80, 0), "JPEG")

    def put(number: int, content: bytes) -> None:
        write_bytes(f"{bucket}/in/{number:05}.jpg", content)

    for number in range(count):
        put(number, good)
    flags = ("--workers", "0")
    finish(start(bucket, bundle_uri, output, counted.url, *flags), output)
    finish(start(bucket, bundle_uri, output, counted.url, *flags), output)
    assert sum(counted.gets.values()) == count
    share = max(1, count // 100)
    changed = encode(draw_picture(70, 80, 1), "PNG")
    for number in range(share):
        put(number * 50, changed)
        put(count + number, good)
    counted.gets.clear()
    finish(start(bucket, bundle_uri, output, counted.url, *flags), output)
    assert sum(counted.gets.values()) == 2 * share
    assert set(counted.gets.values()) == {1}
    print(f"\nthird run: {2 * share} GETs for {share} new and {share} changed of {count} images")
