"""A job: the common frame of all scripts in jobs/."""

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

# How often Ray is started here before the job gives up, and what it says if it was too slow.
_STARTS = 3
_TIMED_OUT = "timed out during startup"

log = logging.getLogger(__name__)

_told_to_end = False


def run_job(main: Callable[[], int]) -> None:
    """Run a script's main function and end the process.

    An `InputError` ends it with one line on standard error and status 1, Ctrl-C with status 130,
    and SIGTERM, which `ray job stop` sends, with status 143.

    Args:
        main: returns the exit status.
    """
    _heed_the_signal_to_end()
    show_log()
    try:
        status = main()
    except InputError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        status = 143 if _told_to_end else 130
    sys.stdout.flush()
    if threading.current_thread() is threading.main_thread():
        # Only Ray's clean-up is left to interrupt, which would print a traceback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)


def _heed_the_signal_to_end() -> None:
    """Treat SIGTERM like Ctrl-C, so that locks are released."""

    def interrupt(*_: object) -> None:
        global _told_to_end
        # A second signal must not interrupt the clean-up after the first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _told_to_end = True
        if callable(signal.getsignal(signal.SIGINT)):
            # Ray Train has its own handler of SIGINT, which ends its workers first.
            signal.raise_signal(signal.SIGINT)
        # A shell makes background processes ignore SIGINT.
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


class _Console(logging.Handler):
    """Prints each line immediately, even if standard output is a log file."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), flush=True)
        except BrokenPipeError:
            # The work continues.
            discard_output()


def discard_output() -> None:
    """Print to nowhere from now on, because the reader of the output is gone, as with `| head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_log(verbose: bool = False) -> None:
    """Print what segray logs to standard output, as a notebook may want it, too.

    Args:
        verbose: True to print debugging messages as well, each line with its time, level and
            module.
    """
    console = _Console()
    if verbose:
        console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("segray")
    for handler in logger.handlers[:]:
        if isinstance(handler, _Console):
            logger.removeHandler(handler)
    logger.addHandler(console)
    # Handlers of the root logger would print each line again.
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


@contextlib.contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Suppress the log messages of native libraries during start-up.

    TensorFlow logs CPU features and missing CUDA drivers before its log level takes effect, and
    Ray's core logs that its log level was set. Later messages of TensorFlow are suppressed as well,
    unless TF_CPP_MIN_LOG_LEVEL is set. Errors are still raised as exceptions.
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
    """Connect to the cluster at RAY_ADDRESS or on this machine, or start Ray here, quietly.

    Workers' logs stay in Ray's own files, unless debugging messages are shown; the job prints what
    a person needs.

    Args:
        use_gpu: True if the job is going to request GPUs.
        niceness: the niceness of worker processes if Ray is started here; 15 is Ray's default.
        workers: the number of workers that hold a GPU each at the same time.

    Raises:
        InputError: nothing answers at RAY_ADDRESS, Ray does not start, or this machine has too few
            GPUs.
    """
    # Ray Data's own actors make Ray's core print a spurious error (ray-project/ray#53727).
    verbose = log.isEnabledFor(logging.DEBUG)
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", str(niceness))
    import ray
    import ray.data

    log.info("starting Ray")
    address = _cluster_address()
    # Processes started here inherit the variables; those of a cluster must be given them.
    given = {name: text for name, text in os.environ.items() if name.startswith("SEGRAY_S3_")}
    is_given = bool(given) and address != "local"
    if is_given:
        # Otherwise Ray refuses the variables that `ray job submit` has set, even if they are equal.
        os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    try:
        _init_ray(address, {"env_vars": given} if is_given else None)
        # Ray's core has installed its own handler, which prints a native stack trace.
        _heed_the_signal_to_end()
    except ConnectionError as error:
        raise InputError(
            f"{error}: it has to run the same version of Ray ({ray.__version__}), and if it asks "
            "for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here too, or submit this "
            "command with `ray job submit`"
        ) from error
    # Ray raises errors of many kinds if it does not start, even a bare Exception.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if _TIMED_OUT in reason:
            raise InputError(
                f"Ray did not start within 30 s, {_STARTS} times, as happens on a busy machine: "
                "run again when other work on it has ended; if there is none, see "
                "session_latest/logs/raylet.err in "
                f"{os.environ.get('RAY_TMPDIR', '/tmp')}/ray"
            ) from error
        raise InputError(
            f"Ray did not start: {reason}: fix that, or end other work on this machine, and run "
            "again"
        ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    if not verbose:
        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
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
        log.info("no node has a GPU yet: waiting until the cluster brings one")


def _init_ray(address: str, runtime_env: dict[str, Any] | None) -> None:
    """Connect to Ray, or start it here, again if it takes too long.

    Raises:
        Exception: as Ray raises them, of many kinds.
    """
    import ray

    verbose = log.isEnabledFor(logging.DEBUG)
    for attempt in range(1, _STARTS + 1):
        try:
            with contextlib.nullcontext() if verbose else quiet_native_logs():
                ray.init(
                    address,
                    log_to_driver=verbose,
                    logging_level=logging.INFO if verbose else logging.ERROR,
                    include_dashboard=False,
                    runtime_env=runtime_env,
                )
            return
        except Exception as error:
            # Ray's node ends itself if one of its processes is not up within 15 s.
            if _TIMED_OUT not in str(error) or attempt == _STARTS:
                raise
            log.info("Ray did not start within 30 s, as happens on a busy machine: trying again")


def _quiet_nodes() -> None:
    """Suppress what Ray's nodes send to every job, except for processes ended for lack of memory.

    Those messages are paragraphs about Ray's scheduling, in colour, and about other jobs as well.
    """
    import ray._private.worker

    def tell_of_memory(message: dict[str, Any], ignore_prefix: bool) -> None:
        for line in message["lines"]:
            if "low on memory" in line:
                log.info(f"Ray: {line.partition('. ')[0]}")

    # Ray has no setting for this (ray-project/ray#19636), and calls the function for nothing else
    # if log_to_driver is off.
    ray._private.worker.print_to_stdstream = tell_of_memory


def needs_ray(workers: int | None, is_small: bool) -> bool:
    """Return True if Ray is to do the work of a job, and False if the job's own process does it.

    Args:
        workers: the value of --workers, or None: then it depends.
        is_small: True if the process is done sooner than Ray has started.

    Raises:
        InputError: see `has_cluster`.
    """
    return has_cluster() or not is_small if workers is None else workers > 0


def has_cluster() -> bool:
    """Return True if `start_ray` would connect to a cluster instead of starting Ray here.

    Raises:
        InputError: nothing answers at RAY_ADDRESS, or it is not the address of a cluster.
    """
    return _cluster_address() != "local"


def _cluster_address() -> str:
    """Return the address for `ray.init`, which would wait forever for a cluster that is gone."""
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
    # The file in which `ray start` records this machine's cluster; a killed cluster leaves it
    # behind.
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
    return "auto" if note.exists() and _answers(note.read_text()) else "local"


def _answers(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True
