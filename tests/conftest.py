"""The order of the tests, and the fixtures that they share: S3 on loopback, and one Ray for all."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from segray.pixels.labels import Labels
from tests.endpoints import moto_server
from tests.support import FRAME, IMAGE_SIZE, RECORD, draw_batch, logged_lines, square

if TYPE_CHECKING:
    import keras

# No test may look for credentials on the network.
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
# Ray's workers would run at nice 15, and be starved by whatever else the tests have running.
os.environ.setdefault("RAY_worker_niceness", "0")
# TensorFlow's own notes would drown a failing test's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The files that take longest, the longest first: one that is begun last keeps a processor waiting.
LONGEST = (
    *("training/test_run.py", "training/test_run_data.py", "training/test_elastic.py"),
    *("nodes/test_jobs.py", "training/test_run_reading.py", "training/step/test_network.py"),
    *("jobs/test_other_labels.py", "test_job.py", "jobs/test_chaos.py", "bulk/test_gpus.py"),
    *("training/control/test_fit.py", "bulk/test_run.py", "bulk/report/test_browser.py"),
    "test_cluster_yaml.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="module", autouse=True)
def forgotten_networks() -> Iterator[None]:
    """Gives back the memory of the networks that a file of tests has built."""
    yield
    if "keras" in sys.modules:
        import keras

        keras.utils.clear_session()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines that a job would print, so far."""
    with logged_lines() as lines:
        yield lines


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of a real HTTP S3 server on loopback."""
    with moto_server() as url:
        yield url


@pytest.fixture(scope="session")
def aws_environment(s3_endpoint: str) -> Iterator[None]:
    """The environment that makes S3 the server on loopback; Ray's processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "test-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield


@pytest.fixture
def s3(aws_environment: None) -> Callable[[str], str]:
    """Call it with a name to make a bucket, and get its URI."""
    import boto3

    def make_bucket(name: str) -> str:
        boto3.client("s3").create_bucket(Bucket=name)
        return f"s3://{name}"

    return make_bucket


@pytest.fixture
def users_folder() -> Iterator[Path]:
    """A temporary folder, with the test's process as an ordinary user: root may do everything."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    root, nobody = os.geteuid() == 0, 65534
    if root:
        os.chown(folder, nobody, nobody)
        os.seteuid(nobody)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def ray_session(aws_environment: None) -> Iterator[None]:
    """A Ray of two CPUs and a GPU that is none, in this process, shared by all tests."""
    import logging

    import ray
    import ray.data

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weights file as --encoder-weights takes it, of random numbers."""
    import keras

    keras.utils.set_random_seed(7)
    path = tmp_path_factory.mktemp("encoder") / "mobilenet_v2.weights.h5"
    keras.applications.MobileNetV2((96, 96, 3), include_top=False, weights=None).save_weights(path)
    return str(path)


@pytest.fixture(scope="session")
def labels() -> Labels:
    """Three classes and a value to ignore."""
    return Labels(("pet", "background", "border"), (1, 2, 3), (255,))


@pytest.fixture(scope="session")
def network() -> "keras.Model":
    """A network with random weights whose running statistics are those of some images.

    Without them its logits are all but equal, and a mask would say nothing. No class is likelier
    than another.
    """
    import keras

    from segray.model.unet import build_unet

    keras.utils.set_random_seed(0)
    network = build_unet(square(3, IMAGE_SIZE))
    for step in range(15):
        network(draw_batch(4, seed=4 * step), training=True)
    mean = np.mean(network(draw_batch(16)), axis=(0, 1, 2))
    kernel, bias = network.get_layer("logits").get_weights()
    network.get_layer("logits").set_weights([kernel, bias - mean])
    return network


@pytest.fixture(scope="session")
def bundle_uri(
    network: "keras.Model", labels: Labels, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The folder of a bundle of `network`. Exporting is slow, so do not change it: copy it."""
    from segray.model.bundle import write_bundle

    folder = tmp_path_factory.mktemp("bundle") / "model"
    write_bundle(str(folder), network, square(3, IMAGE_SIZE), labels, RECORD, FRAME)
    return str(folder)
