"""Ray's part of an export: pieces of work, spread over the CPUs of a cluster."""

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray.data

from segray.export.work import Task, do_work
from segray.nodes import SharedFiles, await_node, telling_waits


def spread_work(
    work: Sequence[pa.Table],
    task: Task,
    workers: int | None,
    shared: SharedFiles,
    tell: Callable[[str], None],
) -> Iterator[pa.Table]:
    """Do pieces of work on Ray, which has been started; their accounts as they come.

    Args:
        work: the pieces, a table of one row each.
        task: what is to be done with them.
        workers: how many are done at once; None for as many as there are CPUs.
        shared: the local files that the nodes have to see.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: a node does not see them.
    """
    await_node("CPU", "a worker", tell)
    shared.check_nodes()
    # A limit that is never reached makes Ray Data warn.
    most = None if workers is None else min(workers, len(work))
    # Ray Data gives a job up after half an hour without a block; nodes may take longer.
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
    with telling_waits("a worker", {"CPU": 1.0}, lambda: not begun, tell):
        for account in accounts.iter_batches(batch_size=None, batch_format="pyarrow"):
            begun = True
            yield account
