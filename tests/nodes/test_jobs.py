"""Both jobs on a small cluster, submitted before any worker is there."""

import pytest

from tests.nodes import Cluster
from tests.nodes.jobs import (
    await_lines,
    await_that,
    draw_images,
    finished_epochs,
    make_bucket,
    predictor_hosts,
    segmented_uris,
    submit_segmentation,
    submit_training,
    write_data,
    write_model,
)


@pytest.fixture(scope="module")
def bucket(aws_environment: None, bundle_uri: str, encoder_file: str) -> str:
    """A bucket that holds a model, labelled images and an encoder's weights."""
    bucket = make_bucket("nodes-cold")
    write_model(bucket, bundle_uri)
    write_data(bucket, encoder_file)
    return bucket


def test_a_segmentation_waits_for_a_node(cluster: Cluster, bucket: str) -> None:
    uris = draw_images(f"{bucket}/cold/in", 60, 90, 120)
    job = submit_segmentation(cluster, bucket, "cold")
    await_that(lambda: "segmenting 60 images" in job.output, job)
    cluster.start_node("early")
    assert job.wait(240) == 0, job.output[-3000:]
    cluster.stop_node("early")
    assert "segmented 60 of 60 images, 0 failed" in job.output
    assert sorted(segmented_uris(f"{bucket}/cold/out")) == sorted(uris)
    # The head has no CPUs, and does none of the work.
    assert predictor_hosts(f"{bucket}/cold/out") == {"early"}


def test_a_training_waits_for_a_node(cluster: Cluster, bucket: str) -> None:
    job = submit_training(cluster, bucket, "trained", "1", epochs=2)
    await_lines(job, "starting Ray")
    cluster.start_node("late")
    assert job.wait(400) == 0, job.output[-3000:]
    cluster.stop_node("late")
    # It is decoded on that node, and kept in its memory.
    assert "they are kept in memory" in job.output
    assert finished_epochs(f"{bucket}/trained") == [1, 2]
