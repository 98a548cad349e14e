"""The fixture of the tests that track: one MLflow server for all of them."""

from collections.abc import Iterator

import pytest

from tests.training.mlflow_server import MlflowServer, start_mlflow_server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server on loopback."""
    with start_mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server
