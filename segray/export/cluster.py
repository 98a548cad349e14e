"""The parallel export: pieces of work, distributed over the CPUs of a cluster by Ray."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray.data

from segray.export.work import Task, do_work
from segray.nodes import SharedFiles, await_node, reporting_waits


def spread_work(
    work: Sequence[pa.Table],
    task: Task,
    workers: int | None,
    shared: SharedFiles,
) -> Iterator[pa.Table]:
    """Do pieces of work on Ray, which is already started, and yield their accounts.

    Args:
        work: the pieces, a table of one row each.
        task: the work to do on them.
        workers: the number of concurrent workers; None for as many as there are CPUs.
        shared: local files that must be visible on the nodes.

    Raises:
        InputError: the files are not visible on a node.
    """
    await_node("CPU", "a worker")
    shared.check_nodes()
    # Ray Data warns about a limit that is never reached.
    most = None if workers is None else min(workers, len(work))
    # Ray Data gives up after half an hour without a block, but nodes may take longer to start.
    ray.data.DataContext.get_current().execution_no_progress_timeout_s = -1
    accounts = ray.data.from_arrow(list(work)).map_batches(
        do_work,
        fn_args=(task,),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(size=most),
    )
    begun = False
    with reporting_waits("a worker", {"CPU": 1.0}, lambda: not begun):
        for account in accounts.iter_batches(batch_size=None, batch_format="pyarrow"):
            begun = True
            yield account
