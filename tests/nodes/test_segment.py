"""Segmenting a bucket on several machines, with workers that come and go."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segray.storage.files import read_bytes, write_bytes
from segray.storage.tables import read_tables, table_uris
from tests.nodes import Client, Cluster
from tests.support import draw_picture, encode


@pytest.fixture(scope="module")
def bucket(aws_environment: None, bundle_uri: str) -> str:
    """A bucket that holds model/."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="nodes")
    for file in Path(bundle_uri).iterdir():
        write_bytes(f"s3://nodes/model/{file.name}", file.read_bytes())
    return "s3://nodes"


def draw_images(folder: str, count: int, height: int, width: int) -> set[str]:
    """Write images, none of which is like another one; their URIs."""
    pictures = [encode(draw_picture(height, width, seed), "JPEG") for seed in range(20)]
    contents = {
        # Of its own size in bytes and with an ETag of its own.
        f"{folder}/{number:05}.jpg": pictures[number % len(pictures)] + b"\0" * number
        for number in range(count)
    }
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write_bytes, *zip(*contents.items(), strict=True)))
    return set(contents)


def start(cluster: Cluster, bucket: str, name: str) -> Client:
    """Submit a segmentation of what is below a name."""
    return cluster.submit(
        *("python", "jobs/segment.py", "--model", f"{bucket}/model"),
        *("--images", f"{bucket}/{name}/in", "--output", f"{bucket}/{name}/out"),
    )


def await_that(is_so: Callable[[], bool], job: Client) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert job.is_running, job.output[-3000:]
        assert time.monotonic() < deadline, job.output[-3000:]
        time.sleep(0.1)


def segmented_uris(output: str) -> list[str]:
    """The images that have a row in the results, once for each row."""
    tables = read_tables(f"{output}/results", ["uri"])
    return [uri for table in tables for uri in table["uri"].to_pylist()]


def predictor_hosts(output: str) -> set[str]:
    """The nodes on which the images of a run were segmented."""
    record = json.loads(read_bytes(f"{output}/run.json"))
    return {name.partition(":")[0] for name in record["predictors"]}


def test_a_job_that_is_submitted_before_any_worker_is_there(cluster: Cluster, bucket: str) -> None:
    uris = draw_images(f"{bucket}/cold/in", 60, 90, 120)
    job = start(cluster, bucket, "cold")
    await_that(lambda: "segmenting 60 images" in job.output, job)
    cluster.start_node("early")
    assert job.wait(240) == 0, job.output[-3000:]
    cluster.stop_node("early")
    assert "segmented 60 of 60 images, 0 failed" in job.output
    assert sorted(segmented_uris(f"{bucket}/cold/out")) == sorted(uris)
    # The head has no CPUs, and does none of the work.
    assert predictor_hosts(f"{bucket}/cold/out") == {"early"}


def test_a_node_that_is_killed_in_the_middle(cluster: Cluster, bucket: str) -> None:
    uris = draw_images(f"{bucket}/killed/in", 400, 240, 320)
    cluster.start_node("stays")
    cluster.start_node("dies")
    job = start(cluster, bucket, "killed")
    await_that(lambda: cluster.requests("dies") > 0, job)
    await_that(lambda: bool(table_uris(f"{bucket}/killed/out/results")), job)
    cluster.kill_node("dies")
    assert len(segmented_uris(f"{bucket}/killed/out")) < len(uris)
    assert job.wait(300) == 0, job.output[-3000:]
    cluster.stop_node("stays")
    assert "segmented 400 of 400 images, 0 failed" in job.output
    assert sorted(segmented_uris(f"{bucket}/killed/out")) == sorted(uris)
    assert "stays" in predictor_hosts(f"{bucket}/killed/out")
