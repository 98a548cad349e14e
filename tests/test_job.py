"""What every job does around its one function."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from segray.errors import InputError
from segray.job import has_cluster, show_log
from tests.processes import ray_cluster
from tests.support import free_port

PROGRAM = """
import os
from segray.job import run_job, start_ray

def main():
    start_ray(use_gpu=False, niceness=3)
    import ray
    print("CPUs:", ray.cluster_resources()["CPU"])
    print("niceness:", ray.get(ray.remote(lambda: os.nice(0)).remote()))
    return 3

run_job(main)
"""


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A temporary folder for Ray, whose sockets need a short path."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(**environment: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_note_of_a_killed_cluster_does_not_hang_a_job(ray_folder: Path) -> None:
    note = ray_folder / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text(f"127.0.0.1:{free_port()}")
    result = run(RAY_TMPDIR=str(ray_folder))
    assert "CPUs:" in result.stdout, result.stderr
    assert "niceness: 3" in result.stdout
    assert result.returncode == 3  # the status that the job's function gave
    assert result.stderr == ""


def test_an_address_that_does_not_answer_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    result = run(RAY_ADDRESS=address)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: no Ray cluster answers at RAY_ADDRESS={address}")
    assert len(result.stderr.splitlines()) == 1


def test_an_address_of_ray_client_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"ray://127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"^no Ray cluster answers at RAY_ADDRESS={address}"):
        has_cluster()


def test_a_reader_that_goes_away_ends_no_job(tmp_path: Path) -> None:
    """As `python jobs/segment.py … | head -1` does."""
    script = (
        "import sys, time; from pathlib import Path; from segray.job import log, run_job\n"
        "def main():\n"
        "    for number in range(5):\n"
        "        log.info(f'line {number}'); time.sleep(0.2)\n"
        "    Path(sys.argv[1]).write_text('done')\n"
        "    return 0\n"
        "run_job(main)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "result")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        complaint = process.stderr.read()
        assert process.wait(30) == 0
    assert complaint == ""
    assert (tmp_path / "result").read_text() == "done"


def test_that_ray_does_not_start_is_a_line(tmp_path: Path) -> None:
    """Its sockets lie below its folder, and a socket's path may not be long."""
    program = "from segray.job import run_job, start_ray; run_job(lambda: start_ray(False))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "RAY_TMPDIR": str(tmp_path / ("long" * 30))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: Ray did not start: ")
    assert "path length" in line
    assert line.endswith("run again")


GIVEN = """
import os, sys
from segray.export.config import ExportConfig
from segray.flags import read_flags
from segray.job import run_job, start_ray

def look():
    return {name: os.environ.get(name) for name in os.environ if name.startswith("SEGRAY_S3_")}

def main():
    read_flags(ExportConfig)
    start_ray(use_gpu=False)
    import ray
    print(ray.get(ray.remote(look).remote()))
    return 0

run_job(main)
"""


def test_how_s3_is_asked_reaches_the_processes_of_a_cluster(ray_folder: Path) -> None:
    """They are no children of the job, and a submitted job's own environment may say it too."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean["RAY_AUTH_MODE"] = "disabled"
    expected = {"SEGRAY_S3_REQUESTER_PAYS": "1", "SEGRAY_S3_SSE": "aws:kms"}
    with ray_cluster({**clean, "RAY_TMPDIR": str(ray_folder)}) as address:
        submitted = json.dumps({"runtime_env": {"env_vars": {"SEGRAY_S3_SSE": "aws:kms"}}})
        for variables in ({}, {"RAY_JOB_CONFIG_JSON_ENV_VAR": submitted}):
            done = subprocess.run(
                [sys.executable, "-c", GIVEN, "--s3-requester-pays"],
                env={**clean, "RAY_ADDRESS": address, "SEGRAY_S3_SSE": "aws:kms", **variables},
                capture_output=True,
                text=True,
                timeout=200,
            )
            assert done.stdout.splitlines()[-1:] == [str(expected)], done.stderr


WAITING = """
import signal, time
from segray.job import log, run_job, start_ray

def main():
    log.info("waiting")
    time.sleep(100)
    return 0

def main_on_ray():
    start_ray(use_gpu=False)
    import ray
    waits = ray.remote(num_cpus=0)(lambda: time.sleep(100)).remote()
    log.info("waiting")
    ray.get(waits)
    return 0

# As a terminal has it, or a shell a job in the background.
signal.signal(signal.SIGINT, signal.{on_interrupt})
run_job({name})
"""


def end(name: str, number: signal.Signals, ray_folder: Path, in_background: bool = False) -> int:
    """Send a signal to a waiting job, which says how to go on; its status."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    on_interrupt = "SIG_IGN" if in_background else "default_int_handler"
    with subprocess.Popen(
        [sys.executable, "-c", WAITING.format(name=name, on_interrupt=on_interrupt)],
        env={**clean, "RAY_TMPDIR": str(ray_folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line == "waiting\n":
                break
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert errors == "interrupted; run the same command again to resume\n"
    return process.returncode


@pytest.mark.parametrize(
    ("name", "in_background"),
    [
        *(("main", False), ("main", True), ("main_on_ray", False)),
        pytest.param("main_on_ray", True, marks=pytest.mark.slow),
    ],
)
def test_a_job_that_is_told_to_end_says_how_to_go_on(
    name: str, in_background: bool, ray_folder: Path
) -> None:
    """As `ray job stop` and the end of a spot instance do."""
    assert end(name, signal.SIGTERM, ray_folder, in_background) == 143


@pytest.mark.parametrize("name", ["main", pytest.param("main_on_ray", marks=pytest.mark.slow)])
def test_a_job_that_the_keyboard_interrupts_has_a_status_of_its_own(
    name: str, ray_folder: Path
) -> None:
    assert end(name, signal.SIGINT, ray_folder) == 130


def test_debugging_messages_are_shown_with_their_level_if_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("segray.storage.objects")
    for verbose in (False, True):
        show_log(verbose)
        logger.debug("s3://b/k: throttled")
        logger.info("100% done")
    show_log()
    plain, debug, info = capsys.readouterr().out.splitlines()
    assert plain == "100% done"
    assert "DEBUG segray.storage.objects: s3://b/k: throttled" in debug
    assert "INFO segray.storage.objects: 100% done" in info
