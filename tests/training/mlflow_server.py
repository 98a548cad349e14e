"""A real MLflow server on loopback, and what it says when it is asked."""

import contextlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import free_port


class MlflowServer:
    """A tracking server.

    Attributes:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **question: Any) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/api/2.0/mlflow/{path}")
        if question:
            request.data = json.dumps(question).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def run_of(self, output: Path) -> dict[str, Any]:
        """The MLflow run that an output folder names."""
        run_id = json.loads((output / "mlflow.json").read_text())["run_id"]
        return self.ask(f"runs/get?run_id={run_id}")["run"]

    def losses_of(self, output: Path) -> list[tuple[int, float]]:
        """Epoch and loss of each point of a run."""
        run_id = self.run_of(output)["info"]["run_id"]
        found = self.ask(f"metrics/get-history?run_id={run_id}&metric_key=loss")
        return [(int(point["step"]), point["value"]) for point in found.get("metrics", [])]

    def count_runs(self) -> int:
        experiments = self.ask("experiments/search", max_results=100)["experiments"]
        ids = [experiment["experiment_id"] for experiment in experiments]
        return len(self.ask("runs/search", experiment_ids=ids, max_results=1000).get("runs", []))


@contextlib.contextmanager
def start_mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """Run a server, with all that it keeps in a folder, while the block runs."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--default-artifact-root", str(folder)),
        ],
        cwd=folder,
        env={
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    server = MlflowServer(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                server.count_runs()
                break
            except OSError:
                assert process.poll() is None, "the MLflow server did not start"
                assert time.monotonic() < deadline, "the MLflow server does not answer"
                time.sleep(0.2)
        yield server
    finally:
        # With the processes that it started.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@contextlib.contextmanager
def forward(port: int, url: str) -> Iterator[None]:
    """Pass on what comes in at a port of loopback to a server, while the block runs."""
    host, _, target = url.rpartition("/")[2].partition(":")

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(target))) as server:
                answers = threading.Thread(target=pass_on, args=(server, self.request))
                answers.start()
                pass_on(self.request, server)
                answers.join()

    class Port(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Port(("127.0.0.1", port), Connection) as listening:
        threading.Thread(target=listening.serve_forever).start()
        try:
            yield
        finally:
            listening.shutdown()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """All bytes of one connection to another, until the first ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
