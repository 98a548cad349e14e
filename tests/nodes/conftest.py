"""What the tests of nodes that are apart have in common."""

from collections.abc import Iterator

import pytest

from tests.nodes import Cluster, find_obstacle


@pytest.fixture(scope="session")
def namespaces() -> None:
    """A machine that has what nodes need. Another one makes the tests fail: none is left out."""
    if obstacle := find_obstacle():
        pytest.fail(obstacle, pytrace=False)


@pytest.fixture(scope="module")
def cluster(
    namespaces: None,
    s3_endpoint: str,
    aws_environment: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """A head of 0 CPUs, and no worker yet."""
    with Cluster(tmp_path_factory.mktemp("nodes"), s3_url=s3_endpoint) as cluster:
        cluster.start_head()
        yield cluster
