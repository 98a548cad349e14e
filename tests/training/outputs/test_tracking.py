"""Tracking, on a real MLflow server on loopback, and on servers that are none."""

import contextlib
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from segray.errors import InputError
from segray.training.config import TrainConfig
from segray.training.outputs.tracking import tracking
from segray.training.plan import prepare_training
from tests.support import free_port, write_shapes
from tests.training.mlflow_server import MlflowServer, forward

RECORD = {
    "configuration": {"classes": ["box=10", "ground=20"], "epochs": 3, "pairs": None},
    "data_fingerprint": "0123-4567",
}


def history(epochs: int) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "loss": 1 / epoch, "mean_iou": 0.5, "iou_box": None}
        for epoch in range(1, epochs + 1)
    ]


def test_a_run_has_its_numbers_and_what_it_was_started_with(
    mlflow_server: MlflowServer, tmp_path: Path, lines: list[str]
) -> None:
    with tracking(mlflow_server.url, str(tmp_path), RECORD) as track:
        for epochs in (1, 2, 3):
            track(history(epochs))
    run = mlflow_server.run_of(tmp_path)
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == tmp_path.name
    assert mlflow_server.losses_of(tmp_path) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert {metric["key"] for metric in run["data"]["metrics"]} == {"loss", "mean_iou"}
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert params == {"classes": "box=10 ground=20", "epochs": "3", "pairs": "None"}
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["data_fingerprint"] == "0123-4567"
    assert tags["output"] == str(tmp_path)
    assert tags["version.tensorflow"].startswith("2.")
    [line] = lines
    assert line.startswith(f"tracked at {mlflow_server.url}/#/experiments/")
    assert line.endswith(run["info"]["run_id"])


def test_a_run_that_goes_on_does_so_in_the_same_mlflow_run(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """And tells only what is not there yet."""

    def fall_in_the_third_epoch() -> None:
        with tracking(mlflow_server.url, str(tmp_path), RECORD) as track:
            track(history(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fall_in_the_third_epoch()
    before = mlflow_server.run_of(tmp_path)
    assert before["info"]["status"] == "KILLED"
    count = mlflow_server.count_runs()
    other = {**RECORD, "configuration": {"epochs": 3, "workers": 2}}
    with tracking(mlflow_server.url, str(tmp_path), other) as track:
        track(history(2))
        track(history(4))
    after = mlflow_server.run_of(tmp_path)
    assert after["info"]["run_id"] == before["info"]["run_id"]
    assert after["info"]["status"] == "FINISHED"
    assert [epoch for epoch, _ in mlflow_server.losses_of(tmp_path)] == [1, 2, 3, 4]
    assert mlflow_server.count_runs() == count
    assert len(after["data"]["params"]) == len(RECORD["configuration"]) + 1


def test_what_a_server_missed_is_sent_when_it_is_back(
    mlflow_server: MlflowServer, tmp_path: Path, lines: list[str]
) -> None:
    """Through a port on which nobody listens at first."""
    port = free_port()
    with (
        contextlib.ExitStack() as connection,
        tracking(f"http://127.0.0.1:{port}", str(tmp_path), RECORD) as track,
    ):
        track(history(1))
        while not lines:
            time.sleep(0.05)
        connection.enter_context(forward(port, mlflow_server.url))
        track(history(2))
    assert "does not answer" in lines[0]
    assert lines[1].startswith("tracked at ")
    assert [epoch for epoch, _ in mlflow_server.losses_of(tmp_path)] == [1, 2]
    assert mlflow_server.run_of(tmp_path)["info"]["status"] == "FINISHED"


def test_a_run_that_was_deleted_is_begun_anew(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    for _ in range(2):
        with tracking(mlflow_server.url, str(tmp_path), RECORD) as track:
            track(history(2))
        run_id = mlflow_server.run_of(tmp_path)["info"]["run_id"]
        assert len(mlflow_server.losses_of(tmp_path)) == 2
        mlflow_server.ask("runs/delete", run_id=run_id)


def test_a_failed_run_is_marked(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError),
        tracking(mlflow_server.url, str(tmp_path), RECORD),
    ):
        raise InputError("the loss is no number any more")
    assert mlflow_server.run_of(tmp_path)["info"]["status"] == "FAILED"


def test_settings_that_the_server_refuses_keep_no_number_from_it(
    mlflow_server: MlflowServer, tmp_path: Path, lines: list[str]
) -> None:
    """Such as a parameter of this name; servers of before 2024 refuse long values, too."""
    record = {**RECORD, "configuration": {"is this = a name?": 1, "epochs": 3}}
    with tracking(mlflow_server.url, str(tmp_path), record) as track:
        track(history(2))
    assert [epoch for epoch, _ in mlflow_server.losses_of(tmp_path)] == [1, 2]
    assert mlflow_server.run_of(tmp_path)["info"]["status"] == "FINISHED"
    assert lines[0].startswith("tracked at ")
    [refusal] = lines[1:]
    assert "refuses" in refusal
    assert "is this = a name?" in refusal


def test_a_server_that_is_gone_neither_stops_nor_slows_a_run(
    tmp_path: Path, lines: list[str]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with tracking(uri, str(tmp_path), RECORD) as track:
        for epochs in range(1, 10):
            started = time.monotonic()
            track(history(epochs))
            assert time.monotonic() - started < 0.1
        started = time.monotonic()
    assert time.monotonic() - started < 12
    [line] = lines
    assert line.startswith(f"the MLflow server {uri} does not answer; training goes on")
    assert not (tmp_path / "mlflow.json").exists()


def test_a_server_that_never_answers_holds_up_the_end_for_seconds(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segray.training.outputs.tracking._SECONDS_TO_END", 2.0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()  # and never accepts
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with tracking(uri, str(tmp_path), RECORD) as track:
            track(history(1))
            started = time.monotonic()
        assert time.monotonic() - started < 12
    assert len(lines) == 1
    assert "does not answer" in lines[0]


def test_a_server_that_refuses_is_quoted_on_one_line(tmp_path: Path, lines: list[str]) -> None:
    """Something else may listen there, or credentials may be missing."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listening:
        stopped = threading.Event()

        def answer() -> None:
            listening.settimeout(0.1)
            while not stopped.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 11\r\n"
                        b"Connection: close\r\n\r\nwho\nare you"
                    )

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            with tracking(f"http://127.0.0.1:{port}", str(tmp_path), RECORD) as track:
                track(history(1))
        finally:
            stopped.set()
            thread.join()
    [line] = lines
    assert "refuses: " in line
    assert "401" in line
    assert "who are you" in line


def test_nothing_is_tracked_by_default(tmp_path: Path) -> None:
    with tracking(None, str(tmp_path), RECORD) as track:
        track(history(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "give the URL of a tracking server"),
        ("runs/mlflow", "give the URL of a tracking server, as in http://localhost:5000"),
        ("sqlite:///mlflow.db", "give the URL"),
        ("http://", "give the URL"),
        ("http://[::1 ", "give the URL"),
        ("http://me:my-secret@host:5000", "MLFLOW_TRACKING_PASSWORD in the environment"),
        ("http://my-secret@host:5000", "must not hold credentials"),
        ("http://host:5000?token=my-secret", "must not hold credentials"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused(uri: str, message: str, tmp_path: Path) -> None:
    write_shapes(str(tmp_path), 4)
    config = TrainConfig(
        images=f"{tmp_path}/images", masks=f"{tmp_path}/masks", output=f"{tmp_path}/out", mlflow=uri
    )
    with pytest.raises(InputError) as caught:
        prepare_training(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "my-secret" not in str(caught.value)


def test_a_missing_client_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    config = TrainConfig(output=str(tmp_path / "out"), mlflow="http://127.0.0.1:5000")
    with pytest.raises(InputError, match=r"--mlflow needs .*: pip install mlflow"):
        prepare_training(config)
