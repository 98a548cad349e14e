"""A job: what every script in jobs/ does around its one function."""

import logging
import os
import sys
import warnings
from collections.abc import Callable

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


def start_ray() -> None:
    """Connect to the cluster that RAY_ADDRESS or the machine names, or start one here, quietly.

    Workers' logs stay in Ray's own files: the job prints what a person needs.
    """
    # TensorFlow's notes on CPU features and missing CUDA drivers help nobody here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")
    tell("starting Ray")
    ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
