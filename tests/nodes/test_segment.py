"""Segmenting a bucket on several machines, one of which is lost."""

import pytest

from segray.storage.tables import table_uris
from tests.nodes import Cluster
from tests.nodes.jobs import (
    await_that,
    draw_images,
    make_bucket,
    predictor_hosts,
    segmented_uris,
    submit_segmentation,
    write_model,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(aws_environment: None, bundle_uri: str) -> str:
    """A bucket that holds model/."""
    bucket = make_bucket("nodes")
    write_model(bucket, bundle_uri)
    return bucket


def test_a_node_that_is_killed_in_the_middle(cluster: Cluster, bucket: str) -> None:
    uris = draw_images(f"{bucket}/killed/in", 400, 240, 320)
    cluster.start_node("stays")
    cluster.start_node("dies")
    job = submit_segmentation(cluster, bucket, "killed")
    await_that(lambda: cluster.requests("dies") > 0, job)
    await_that(lambda: bool(table_uris(f"{bucket}/killed/out/results")), job)
    cluster.kill_node("dies")
    assert len(segmented_uris(f"{bucket}/killed/out")) < len(uris)
    assert job.wait(300) == 0, job.output[-3000:]
    cluster.stop_node("stays")
    assert "segmented 400 of 400 images, 0 failed" in job.output
    assert sorted(segmented_uris(f"{bucket}/killed/out")) == sorted(uris)
    assert "stays" in predictor_hosts(f"{bucket}/killed/out")
