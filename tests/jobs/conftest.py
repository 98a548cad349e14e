"""What the tests of jobs have in common: a job in the test's own process."""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from segray.storage import objects
from tests.endpoints.stores import forget_clients

JOBS = Path(__file__).parents[2] / "jobs"

CallJob = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call_job(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CallJob:
    """Call it with a job's name and flags, and a folder, as if they were typed there.

    The whole script runs, as its own main program, without the seconds that a new process needs for
    its imports, and with short pauses between requests. The environment has no credentials but
    those that the call gives, and is afterwards what it was.
    """
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.01)

    def call(
        job: str, *flags: str, cwd: Path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        script = str(JOBS / f"{job}.py")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        clean |= {"HOME": str(cwd), "AWS_EC2_METADATA_DISABLED": "true", "RAY_ADDRESS": "local"}
        clean |= environment
        numbers = (signal.SIGINT, signal.SIGTERM)
        handlers = [signal.getsignal(number) for number in numbers]
        capfd.readouterr()
        forget_clients()
        try:
            with (
                mock.patch.dict(os.environ, clean, clear=True),
                mock.patch.object(sys, "argv", [script, *flags]),
                contextlib.chdir(cwd),
                pytest.raises(SystemExit) as end,
            ):
                runpy.run_path(script, run_name="__main__")
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
            forget_clients()
        status = end.value.code
        assert isinstance(status, int)
        output, errors = capfd.readouterr()
        return subprocess.CompletedProcess([script, *flags], status, output, errors)

    return call
