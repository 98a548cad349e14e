"""Segmenting while things break: kill -9 at random moments, and a store that fails.

Reduced here to one kill of a job without workers. `pytest -m slow` has some of each; in full, with
2,000 images: `SEGRAY_CHAOS=10 pytest -s -m slow tests/jobs/test_segment_chaos.py`.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import segray
from segray.pixels.masks import decode_mask
from segray.storage.files import read_bytes, write_bytes
from segray.storage.tables import read_tables, table_uris
from segray.storage.uri import join_uri
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


@dataclass(frozen=True)
class Run:
    """A segmentation that can be started again and again.

    Attributes:
        bucket, bundle_uri: what is segmented, and by what.
        output: the URI that receives it.
        log: what the job has printed.
    """

    bucket: str
    bundle_uri: str
    output: str
    log: Path

    def start(self, endpoint: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "jobs/segment.py", "--model", self.bundle_uri]
        command += ["--images", f"{self.bucket}/in", "--output", self.output, "--regions", *flags]
        # Not on the cluster that another test may have started on this machine.
        environment = {**os.environ, "AWS_ENDPOINT_URL": endpoint, "RAY_ADDRESS": "local"}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        status = process.wait(timeout=1200)
        assert status == 0, self.log.read_text()[-3000:]

    def masks(self) -> dict[str, bytes]:
        """The masks by URI; each image has one row in all, and its regions are there once."""
        record = json.loads(read_bytes(join_uri(self.output, "run.json")))
        names = list(record["shares"])
        columns = ["id", "uri", "mask", *(f"regions_{name}" for name in names)]
        results = [
            row
            for table in read_tables(join_uri(self.output, "results"), columns)
            for row in table.to_pylist()
        ]
        regions = Counter(
            (row["id"], row["class"])
            for table in read_tables(join_uri(self.output, "regions"), ["id", "class"])
            for row in table.to_pylist()
        )
        assert regions == Counter(
            {(row["id"], name): row[f"regions_{name}"] for row in results for name in names}
        )
        assert regions
        failed = [
            uri
            for table in read_tables(join_uri(self.output, "errors"), ["uri"])
            for uri in table["uri"].to_pylist()
        ]
        assert len(failed) == BAD
        uris = [row["uri"] for row in results] + failed
        assert len(uris) == len(set(uris)) == IMAGES
        return {row["uri"]: row["mask"]["bytes"] for row in results}

    def await_rows(self, process: subprocess.Popen[bytes]) -> None:
        """Until something is written, or the run is over."""
        folder = join_uri(self.output, "results")
        before = table_uris(folder)
        while process.poll() is None and table_uris(folder) == before:
            time.sleep(0.1)


@pytest.fixture(scope="module")
def undisturbed(
    bucket: str, bundle_uri: str, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], float]:
    """The masks, and the seconds that a whole run on Ray takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Run(bucket, bundle_uri, str(folder / "out"), folder / "log")
    begun = time.monotonic()
    run.finish(run.start(s3_endpoint, "--workers", "2"))
    return run.masks(), time.monotonic() - begun


@pytest.fixture
def counted(s3_endpoint: str) -> Iterator[CountingProxy]:
    with CountingProxy(s3_endpoint) as proxy:
        yield proxy


def report(what: str, proxy: CountingProxy, kills: int) -> None:
    fetched = sum(count for key, count in proxy.gets.items() if key.startswith("chaos/in/"))
    print(f"\n{what}: {kills} kills, {fetched - IMAGES} of {IMAGES} images were fetched once more")


def test_a_job_that_is_killed_once_and_started_again(
    bucket: str, bundle_uri: str, s3_endpoint: str, tmp_path: Path
) -> None:
    """Its output is in S3, where a lock outlives its holder."""
    run = Run(bucket, bundle_uri, f"{bucket}/once", tmp_path / "log")
    process = run.start(s3_endpoint, "--workers", "0")
    run.await_rows(process)
    assert process.poll() is None, run.log.read_text()[-3000:]
    kill(process.pid)
    process.wait()
    before = len(table_uris(f"{run.output}/results"))
    run.finish(run.start(s3_endpoint, "--workers", "0"))
    assert len(table_uris(f"{run.output}/results")) > before > 0
    segmenter = segray.load(bundle_uri)
    masks = run.masks()
    for uri in sorted(masks)[::20]:
        np.testing.assert_array_equal(decode_mask(masks[uri]), segmenter.segment(uri))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_driver_that_is_killed_and_started_again(
    bucket: str, bundle_uri: str, undisturbed, counted: CountingProxy, tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    # In S3, where a lock outlives its holder.
    run, chance = Run(bucket, bundle_uri, f"{bucket}/driver", tmp_path / "log"), random.Random(1)
    kills = 0
    while kills < KILLS:
        process = run.start(counted.url, "--workers", "2")
        # Half of the moments are while rows are being written, the others anywhere.
        if kills % 2 == 0:
            run.await_rows(process)
            time.sleep(chance.uniform(0, 0.5))
        else:
            time.sleep(chance.uniform(0, seconds / 3))
        if process.poll() is not None:
            run.finish(process)
            break  # all is done, sooner than it could be killed once more
        kill(process.pid)
        process.wait()
        kills += 1
    run.finish(run.start(counted.url, "--workers", "2"))
    assert kills >= min(KILLS, 2)
    assert run.masks() == expected
    report("driver", counted, kills)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_predictors_that_are_killed(
    bucket: str, bundle_uri: str, undisturbed, counted: CountingProxy, tmp_path: Path
) -> None:
    expected, _ = undisturbed
    run, chance = Run(bucket, bundle_uri, str(tmp_path / "out"), tmp_path / "log"), random.Random(2)
    process = run.start(counted.url, "--workers", "2")
    kills = 0
    while kills < KILLS and process.poll() is None:
        run.await_rows(process)
        time.sleep(chance.uniform(0, 1))
        predictors = [
            pid for pid, command in descendants(process.pid).items() if "MapWorker" in command
        ]
        if predictors:
            kill(chance.choice(predictors))
            kills += 1
    run.finish(process)
    assert kills >= min(KILLS, 2)
    assert run.masks() == expected
    report("predictors", counted, kills)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_store_that_fails_for_one_request_in_ten(
    bucket: str, bundle_uri: str, undisturbed, s3_endpoint: str, tmp_path: Path
) -> None:
    expected, _ = undisturbed
    seconds = []
    with (
        CountingProxy(s3_endpoint) as calm,
        FaultyProxy(s3_endpoint, 0.1, seed=3, writes=True, listings=True) as faulty,
    ):
        for name, proxy in (("calm", calm), ("faulty", faulty)):
            run = Run(bucket, bundle_uri, f"{bucket}/{name}", tmp_path / name)
            begun = time.monotonic()
            run.finish(run.start(proxy.url, "--workers", "0"))
            seconds.append(time.monotonic() - begun)
            assert run.masks() == expected
        faults = dict(faulty.faults)
    assert sum(faults.values()) > IMAGES * 0.05
    print(f"\nfaults: {faults}; {seconds[1]:.0f} s against {seconds[0]:.0f} s without")


@pytest.mark.slow
def test_a_third_run_fetches_what_is_new_or_changed_and_nothing_else(
    s3: Callable[[str], str], bundle_uri: str, counted: CountingProxy, tmp_path: Path
) -> None:
    bucket = s3("third")
    run = Run(bucket, bundle_uri, str(tmp_path / "out"), tmp_path / "log")
    count = IMAGES // 2
    good = encode(draw_picture(60, 80, 0), "JPEG")

    def put(number: int, content: bytes) -> None:
        write_bytes(f"{bucket}/in/{number:05}.jpg", content)

    for number in range(count):
        put(number, good)
    run.finish(run.start(counted.url, "--workers", "0"))
    run.finish(run.start(counted.url, "--workers", "0"))
    assert sum(counted.gets.values()) == count
    share = max(1, count // 100)
    changed = encode(draw_picture(70, 80, 1), "PNG")
    for number in range(share):
        put(number * 50, changed)
        put(count + number, good)
    counted.gets.clear()
    run.finish(run.start(counted.url, "--workers", "0"))
    assert sum(counted.gets.values()) == 2 * share
    assert set(counted.gets.values()) == {1}
    print(f"\nthird run: {2 * share} GETs for {share} new and {share} changed of {count} images")
