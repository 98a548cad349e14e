"""What the tests submit to a cluster of nodes, and what came of it."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import segray
from segray.storage.files import read_bytes, write_bytes
from segray.storage.tables import read_tables
from tests.nodes.client import Client
from tests.nodes.cluster import Cluster
from tests.support import draw_picture, encode, write_shapes


def make_bucket(name: str) -> str:
    """The URI of a new bucket."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


def write_model(bucket: str, bundle_uri: str) -> None:
    """What `submit_segmentation` takes for its model."""
    for file in Path(bundle_uri).iterdir():
        write_bytes(f"{bucket}/model/{file.name}", file.read_bytes())


def write_data(bucket: str, encoder_file: str) -> None:
    """What `submit_training` learns from, and the encoder's weights."""
    write_shapes(f"{bucket}/data", 20)
    write_bytes(f"{bucket}/encoder.h5", Path(encoder_file).read_bytes())


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


def submit_segmentation(cluster: Cluster, bucket: str, name: str) -> Client:
    """Submit a segmentation of what is below a name."""
    return cluster.submit(
        *("python", "jobs/segment.py", "--model", f"{bucket}/model"),
        *("--images", f"{bucket}/{name}/in", "--output", f"{bucket}/{name}/out"),
    )


def submit_training(cluster: Cluster, bucket: str, name: str, workers: str, epochs: int) -> Client:
    """Submit a training whose output is called so."""
    return cluster.submit(
        *("python", "jobs/train.py", "--workers", workers, "--epochs", str(epochs)),
        *("--images", f"{bucket}/data/images", "--masks", f"{bucket}/data/masks"),
        *("--classes", "box=10", "ground=20", "--encoder-weights", f"{bucket}/encoder.h5"),
        *("--image-size", "32", "--output", f"{bucket}/{name}"),
    )


def segmented_uris(output: str) -> list[str]:
    """The images that have a row in the results, once for each row."""
    tables = read_tables(f"{output}/results", ["uri"])
    return [uri for table in tables for uri in table["uri"].to_pylist()]


def predictor_hosts(output: str) -> set[str]:
    """The nodes on which the images of a run were segmented."""
    record = json.loads(read_bytes(f"{output}/run.json"))
    return {name.partition(":")[0] for name in record["predictors"]}


def finished_epochs(output: str) -> list[int]:
    """The epochs of a run that ended with a model of two classes."""
    assert segray.load(f"{output}/model").labels.names == ("box", "ground")
    records = read_bytes(f"{output}/metrics.jsonl").splitlines()
    return [json.loads(record)["epoch"] for record in records]


def await_that(is_so: Callable[[], bool], job: Client) -> None:
    """Wait until something is so, while a job runs."""
    deadline = time.monotonic() + 120
    while not is_so():
        assert job.is_running, job.output[-3000:]
        assert time.monotonic() < deadline, job.output[-3000:]
        time.sleep(0.1)


def await_lines(job: Client, *starts: str, seconds: float = 400) -> None:
    """Wait until the job has printed lines that start so, one after another."""
    deadline = time.monotonic() + seconds
    while True:
        lines = iter(job.output.splitlines())
        if all(any(line.startswith(start) for line in lines) for start in starts):
            return
        assert job.is_running, job.output[-3000:]
        assert time.monotonic() < deadline, job.output[-3000:]
        time.sleep(0.2)
