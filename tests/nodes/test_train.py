"""Training on several machines, with workers that come and go."""

import time

import pytest

from tests.nodes import Cluster
from tests.nodes.jobs import (
    await_lines,
    finished_epochs,
    make_bucket,
    submit_training,
    write_data,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(aws_environment: None, encoder_file: str) -> str:
    """A bucket that holds labelled images and an encoder's weights."""
    bucket = make_bucket("training")
    write_data(bucket, encoder_file)
    return bucket


def test_a_run_takes_in_a_node_that_joins_and_goes_on_without_one_that_is_killed(
    cluster: Cluster, bucket: str
) -> None:
    """It is submitted before any worker is there; what it decodes then is kept in memory."""
    job = submit_training(cluster, bucket, "elastic", "1..2", epochs=30)
    await_lines(job, "starting Ray")
    cluster.start_node("stays")
    await_lines(job, "epoch   1/")
    cluster.start_node("dies")
    grown = ("starting 2 worker(s)", "resuming after epoch")
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
    job = submit_training(cluster, bucket, "replaced", "1", epochs=12)
    await_lines(job, "starting Ray")
    cluster.start_node("first")
    await_lines(job, "epoch   1/")
    cluster.kill_node("first")
    await_lines(job, "a worker was lost", "waiting for room for")
    cluster.start_node("second")
    assert job.wait(600) == 0, job.output[-3000:]
    cluster.stop_node("second")
    assert finished_epochs(f"{bucket}/replaced") == [*range(1, 13)]
