"""Training on several machines, with workers that come and go."""

import json
import time
from pathlib import Path

import pytest

import segray
from segray.storage.files import read_bytes, write_bytes
from tests.nodes import Client, Cluster
from tests.support import write_shapes


@pytest.fixture(scope="module")
def bucket(aws_environment: None, encoder_file: str) -> str:
    """A bucket that holds labelled images and an encoder's weights."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="training")
    write_shapes("s3://training/data", 20)
    write_bytes("s3://training/encoder.h5", Path(encoder_file).read_bytes())
    return "s3://training"


def start(cluster: Cluster, bucket: str, name: str, workers: str, epochs: int) -> Client:
    """Submit a training whose output is called so."""
    return cluster.submit(
        *("python", "jobs/train.py", "--workers", workers, "--epochs", str(epochs)),
        *("--images", f"{bucket}/data/images", "--masks", f"{bucket}/data/masks"),
        *("--classes", "box=10", "ground=20", "--encoder-weights", f"{bucket}/encoder.h5"),
        *("--image-size", "32", "--output", f"{bucket}/{name}"),
    )


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


def finished_epochs(output: str) -> list[int]:
    """The epochs of a run that ended with a model of two classes."""
    assert segray.load(f"{output}/model").labels.names == ("box", "ground")
    records = read_bytes(f"{output}/metrics.jsonl").splitlines()
    return [json.loads(record)["epoch"] for record in records]


def test_a_run_takes_in_a_node_that_joins_and_goes_on_without_one_that_is_killed(
    cluster: Cluster, bucket: str
) -> None:
    """It is submitted before any worker is there; what it decodes then is kept in memory."""
    job = start(cluster, bucket, "elastic", "1..2", epochs=30)
    await_lines(job, "starting Ray")
    cluster.start_node("stays")
    await_lines(job, "epoch   1/")
    cluster.start_node("dies")
    grown = ("starting 2 worker(s)", "going on after epoch")
    await_lines(job, *grown)
    cluster.kill_node("dies")
    killed = time.monotonic()
    lost = (*grown, "a worker was lost")
    await_lines(job, *lost)
    noticed = time.monotonic() - killed
    await_lines(job, *lost, "epoch")
    trains = time.monotonic() - killed
    assert job.wait(600) == 0, job.output[-3000:]
    cluster.stop_node("stays")
    print(f"a node's loss: noticed after {noticed:.0f} s, an epoch done after {trains:.0f} s")
    lines = job.output.splitlines()
    workers = [line.split()[1] for line in lines if line.startswith("starting ")]
    assert workers[1:] == ["1", "2", "1"]
    assert any("they are kept in memory" in line for line in lines)
    assert trains < 300
    assert finished_epochs(f"{bucket}/elastic") == [*range(1, 31)]


def test_a_run_whose_only_node_is_replaced_decodes_its_examples_again(
    cluster: Cluster, bucket: str
) -> None:
    job = start(cluster, bucket, "replaced", "1", epochs=12)
    await_lines(job, "starting Ray")
    cluster.start_node("first")
    await_lines(job, "epoch   1/")
    cluster.kill_node("first")
    await_lines(job, "a worker was lost", "waiting for room for")
    cluster.start_node("second")
    assert job.wait(600) == 0, job.output[-3000:]
    cluster.stop_node("second")
    assert finished_epochs(f"{bucket}/replaced") == [*range(1, 13)]
