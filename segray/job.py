"""A job: what every script in jobs/ does around its one function."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from segray.errors import InputError


def run_job(main: Callable[[], int]) -> None:
    """Run a script's main function and end the process.

    A mistake of the user's ends it with one line on standard error and status 1; an interruption
    from the keyboard with status 130.

    Args:
        main: returns the exit status.
    """
    try:
        status = main()
    except InputError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        status = 130
    sys.stdout.flush()
    sys.exit(status)


def tell(line: str) -> None:
    """Print a line at once, also where standard output is a job's log."""
    print(line, flush=True)


@contextlib.contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Keep off the terminal what native libraries log while they start.

    TensorFlow notes CPU features and missing CUDA drivers before its log level can be set, and
    Ray's core that its log level was set. What is wrong is raised as an exception all the same.
    """
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def start_ray() -> None:
    """Connect to the cluster that RAY_ADDRESS or the machine names, or start one here, quietly.

    Workers' logs stay in Ray's own files: the job prints what a person needs.
    """
    # Ray Data's own actors make Ray's core print an error that is none (ray-project/ray#53727).
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    tell("starting Ray")
    with quiet_native_logs():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
