"""A job: what every script in jobs/ does around its one function."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from segray.errors import InputError

_told_to_end = False


def run_job(main: Callable[[], int]) -> None:
    """Run a script's main function and end the process.

    A mistake of the user's ends it with one line on standard error and status 1; an interruption
    from the keyboard with status 130, and a signal to end, as `ray job stop` sends it, with 143.

    Args:
        main: returns the exit status.
    """
    _heed_the_signal_to_end()
    try:
        status = main()
    except InputError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        status = 143 if _told_to_end else 130
    sys.stdout.flush()
    if threading.current_thread() is threading.main_thread():
        # There is nothing left to interrupt but Ray's clearing up, which would print a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)


def _heed_the_signal_to_end() -> None:
    """Take SIGTERM as an interruption from the keyboard, so that locks are given back."""

    def interrupt(*_: object) -> None:
        global _told_to_end
        # A second one must not interrupt the clearing up after the first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _told_to_end = True
        if callable(signal.getsignal(signal.SIGINT)):
            # Ray Train has a handler of its own for the keyboard, which ends its workers first.
            signal.raise_signal(signal.SIGINT)
        # A shell lets what it starts in the background ignore the keyboard.
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def tell(line: str) -> None:
    """Print a line at once, also where standard output is a job's log."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Whoever read the lines has had enough of them (`| head`); the work goes on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Keep off the terminal what native libraries log while they start.

    TensorFlow notes CPU features and missing CUDA drivers before its log level counts, and Ray's
    core that its log level was set. What TensorFlow logs later it keeps to itself as well, unless
    TF_CPP_MIN_LOG_LEVEL is set. What is wrong is raised as an exception all the same.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def start_ray(use_gpu: bool, niceness: int = 15, workers: int = 1) -> None:
    """Connect to the cluster that RAY_ADDRESS or this machine names, or start one here, quietly.

    Workers' logs stay in Ray's own files: the job prints what a person needs.

    Args:
        use_gpu: whether the job is going to ask for GPUs.
        niceness: of the processes that do the work, where Ray is started here; 15 is Ray's own.
        workers: how many are going to hold a GPU each, all at the same time.

    Raises:
        InputError: nothing answers at RAY_ADDRESS, Ray does not start, or this machine has too few
            GPUs.
    """
    # Ray Data's own actors make Ray's core print an error that is none (ray-project/ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", str(niceness))
    import ray
    import ray.data

    tell("starting Ray")
    address = _cluster_address()
    # Processes that are started here inherit them; those of a cluster have to be given them.
    given = {name: text for name, text in os.environ.items() if name.startswith("SEGRAY_S3_")}
    is_given = bool(given) and address != "local"
    if is_given:
        # Else Ray refuses what `ray job submit` has brought as well, though it is the same.
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    try:
        with quiet_native_logs():
            ray.init(
                address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
                runtime_env={"env_vars": given} if is_given else None,
            )
        # Ray's core has put a handler of its own in place, which prints a native stack.
        _heed_the_signal_to_end()
    except ConnectionError as error:
        raise InputError(
            f"{error}: it has to run the same version of Ray ({ray.__version__}), and if it asks "
            "for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here too, or submit this "
            "command with `ray job submit`"
        ) from error
    # What keeps Ray from starting is of many kinds, a bare Exception among them.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if "timed out during startup" in reason:
            raise InputError(
                "Ray did not start within 30 s, as happens on a busy machine: run again when other "
                "work on it has ended; if there is none, see session_latest/logs/raylet.err in "
                f"{os.environ.get('RAY_TMPDIR', '/tmp')}/ray"
            ) from error
        raise InputError(
            f"Ray did not start: {reason}: mend that, or end other work on this machine, and run "
            "again"
        ) from error
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    _quiet_nodes()
    if not use_gpu:
        return
    gpus = ray.cluster_resources().get("GPU", 0)
    if address == "local":
        if not gpus:
            raise InputError(
                "--use-gpu: Ray finds no GPU on this machine; leave the flag out, or run on a "
                "cluster that has GPUs"
            )
        if gpus < workers:
            raise InputError(
                f"--use-gpu: each of --workers {workers} takes a GPU, and this machine has "
                f"{gpus:g}: give --workers {gpus:g}, or run on a cluster that has more"
            )
    elif not gpus:
        tell("no node has a GPU yet: waiting until the cluster brings one")


def _quiet_nodes() -> None:
    """Keep off the terminal what Ray's nodes send to every job, but for what costs work.

    Those are paragraphs about how Ray schedules, in colour, of other jobs' work as well. That a
    process was ended for want of memory is worth a line.
    """
    import ray._private.worker

    def tell_of_memory(message: dict[str, Any], ignore_prefix: bool) -> None:
        for line in message["lines"]:
            if "low on memory" in line:
                tell(f"Ray: {line.partition('. ')[0]}")

    # Ray has no setting for it, and calls this for nothing else once log_to_driver is off.
    ray._private.worker.print_to_stdstream = tell_of_memory


def has_cluster() -> bool:
    """Whether `start_ray` would connect to a cluster, and not start Ray on this machine.

    Raises:
        InputError: nothing answers at RAY_ADDRESS, or it is no address of a cluster.
    """
    return _cluster_address() != "local"


def _cluster_address() -> str:
    """What to give `ray.init`, which waits without end for a cluster that is gone."""
    named = os.environ.get("RAY_ADDRESS", "")
    if named == "local":
        return named
    if named.startswith(("http://", "https://")):
        raise InputError(
            f"RAY_ADDRESS={named} is where jobs are submitted: unset it here, or send this command "
            "there with `ray job submit -- python …`"
        )
    if named not in ("", "auto"):
        if not _answers(named.rpartition("://")[2]):
            raise InputError(
                f"no Ray cluster answers at RAY_ADDRESS={named}: correct it, or unset it to start "
                "Ray on this machine"
            )
        return named
    # Where `ray start` notes the cluster of this machine; a killed one leaves its note behind.
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    return "auto" if note.exists() and _answers(note.read_text()) else "local"


def _answers(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True
