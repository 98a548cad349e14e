"""Tracking: an MLflow run that receives the metrics of a training run.

A thread of the driver sends them, so that a slow or unreachable server delays nothing. Each call
hands over the whole history, and the thread sends whatever the server lacks. What could not be sent
is therefore sent after a later epoch, or when the same command is run again.
"""

import contextlib
import importlib.util
import json
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from segray.errors import InputError
from segray.packages import package_versions
from segray.storage.files import read_bytes, write_bytes
from segray.storage.uri import exists, join_uri

log = logging.getLogger(__name__)

#: One record per finished epoch, as in metrics.jsonl.
History = Sequence[dict[str, Any]]

#: The file in a run's folder that records its MLflow run.
RUN = "mlflow.json"

# Settings that mlflow reads when it is imported, unless the user has set them. A request that times
# out is not retried until the next epoch. Usage is not reported to MLflow's authors.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_PACKAGES = ("keras", "ray", "tensorflow")
# Timeout for what is still to be sent at the end of the run.
_SECONDS_TO_END = 10.0


def check_tracking(uri: str) -> None:
    """Refuse a value of --mlflow that cannot be used.

    Raises:
        InputError: it is not the URL of a server, or contains credentials, or MLflow is not
            installed.
    """
    if "@" in uri or "?" in uri:
        raise InputError(
            "--mlflow must not hold credentials: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment"
        )
    if not re.fullmatch(r"https?://[\w.:\[\]-]+(/\S*)?", uri):
        raise InputError(
            f"--mlflow {uri}: give the URL of a tracking server, as in http://localhost:5000"
        )
    if not importlib.util.find_spec("mlflow"):
        raise InputError("--mlflow needs MLflow's client: pip install mlflow-skinny")


@contextlib.contextmanager
def tracking(
    uri: str | None, output: str, record: dict[str, Any]
) -> Iterator[Callable[[History], None]]:
    """Track a training run while the block runs, then end the MLflow run.

    The function that it yields takes the records of all epochs so far, as in metrics.jsonl, and
    does not wait for the server. If the training run already has an MLflow run on this server, that
    one is continued.

    Args:
        uri: the URL of the tracking server; None disables tracking.
        output: the absolute URI of the run's folder.
        record: ``configuration`` and ``data_fingerprint`` of the run.
    """
    if uri is None:
        yield lambda history: None
        return
    tracker = _Tracker(uri, output, record)
    status = "FAILED"
    try:
        yield tracker.put
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.end(status)


class _Tracker:
    """Sends records to a tracking server in its own thread."""

    def __init__(self, uri: str, output: str, record: dict[str, Any]) -> None:
        self._uri, self._output, self._record = uri, output, record
        self._handed: queue.SimpleQueue[tuple[History, str]] = queue.SimpleQueue()
        self._history: History = []
        self._told_failure = False
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        self._thread.start()
        self.put([])

    def put(self, history: History) -> None:
        self._history = list(history)
        self._handed.put((self._history, ""))

    def end(self, status: str) -> None:
        self._handed.put((self._history, status))
        self._thread.join(_SECONDS_TO_END)
        if self._thread.is_alive():
            self._report_failure("does not answer")

    def _send_all(self) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        run: _Run | None = None
        status = ""
        while not status:
            history, status = self._handed.get()
            while not self._handed.empty():  # the newest history includes the earlier ones
                history, status = self._handed.get()
            # Training continues whatever goes wrong with the server.
            try:
                run = run or self._open()
                run.send(history, status)
                # Last, so that a server that refuses a setting still receives the metrics.
                run.describe(self._record["configuration"])
            except Exception as error:
                self._report_failure(_describe(error))

    def _report_failure(self, what: str) -> None:
        if not self._told_failure:
            self._told_failure = True
            log.info(
                f"the MLflow server {self._uri} {what}; training goes on, and what is missing "
                "there is sent after a later epoch, or by the same command run again"
            )

    def _open(self) -> "_Run":
        """Return the MLflow run of this training run; create it if there is none on this server."""
        file = join_uri(self._output, RUN)
        known = json.loads(read_bytes(file)) if exists(file) else {}
        run = _Run(self._uri)
        if known.get("uri") != self._uri or not run.resume(known["run_id"]):
            run.create(self._output, self._record["data_fingerprint"])
            write_bytes(file, json.dumps({"uri": self._uri, "run_id": run.id}, indent=2).encode())
        log.info(f"tracked at {run.url}")
        return run


def _describe(error: Exception) -> str:
    """Describe an error of a tracking server, as the rest of a sentence about the server."""
    # The client's own message of a network error fills several lines.
    if "Max retries exceeded" in str(error):
        return "does not answer"
    return f"refuses: {' '.join(str(error).split())[:200]}"


class _Run:
    """A run on a tracking server.

    Attributes:
        id: the MLflow id of the run.
        url: the address of its page.
    """

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self._client, self._uri = MlflowClient(uri), uri
        self._epochs: set[int] = set()
        self._described: set[str] = set()
        self.id = self.url = ""

    def resume(self, run_id: str) -> bool:
        """Resume an existing run; return False if it does not exist."""
        from mlflow.exceptions import RestException

        try:
            run = self._client.get_run(run_id)
        except RestException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        if run.info.lifecycle_stage == "deleted":
            return False
        self._client.update_run(run_id, status="RUNNING")
        self._epochs = {metric.step for metric in self._client.get_metric_history(run_id, "loss")}
        self._described = set(run.data.params)
        self._set(run)
        return True

    def create(self, output: str, data_fingerprint: str) -> None:
        """Create a run in the experiment that MLFLOW_EXPERIMENT_NAME names."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "segray")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {
            "output": output,
            "data_fingerprint": data_fingerprint,
            **{f"version.{name}": has for name, has in package_versions(*_PACKAGES).items()},
        }
        run_name = output.rpartition("/")[2]
        self._set(self._client.create_run(experiment, tags=tags, run_name=run_name))

    def describe(self, configuration: dict[str, Any]) -> None:
        """Send the settings that the run lacks; the server accepts only one value of each."""
        from mlflow.entities import Param

        params = [
            Param(
                name, " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            )
            for name, value in configuration.items()
            if name not in self._described
        ]
        if params:
            self._client.log_batch(self.id, params=params)
            self._described.update(param.key for param in params)

    def send(self, history: History, status: str) -> None:
        """Send the epochs that the run lacks, and its final status if that is given."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for record in history:
            epoch = record["epoch"]
            if epoch not in self._epochs:
                metrics = [
                    Metric(name, value, now, epoch)
                    for name, value in record.items()
                    if name != "epoch" and value is not None
                ]
                self._client.log_batch(self.id, metrics=metrics)
                self._epochs.add(epoch)
        if status:
            self._client.set_terminated(self.id, status)

    def _set(self, run: Any) -> None:
        self.id = run.info.run_id
        self.url = f"{self._uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{self.id}"
