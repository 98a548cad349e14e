"""Starts a cluster of nodes that are apart, and keeps it until Ctrl-C.

    python -m tests.nodes --workers 2           # a head of 0 CPUs, and w1 and w2 of 2 CPUs each
    python -m tests.nodes --autoscale 2 1       # a head that starts nodes when they are asked for

prints how to submit jobs to it. Meanwhile it takes lines: `start w3`, `start g1 2 1` (CPUs, GPUs),
`kill w2` and `nodes`.
"""

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.nodes.cluster import CREDENTIALS, HEAD, ROOT, Cluster
from tests.nodes.machine import find_obstacle


def main() -> None:
    flags = _parser().parse_args()
    if obstacle := find_obstacle():
        sys.exit(obstacle)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = flags.folder or Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))
    try:
        with Cluster(folder, [ROOT, *flags.hide], flags.s3) as cluster:
            if flags.autoscale:
                cluster.start_autoscaler(*flags.autoscale)
            else:
                cluster.start_head()
            for number in range(flags.workers):
                cluster.start_node(f"w{number + 1}", flags.cpus)
            print(_describe(cluster), flush=True)
            _obey(cluster)
    except KeyboardInterrupt:
        print("\nall nodes have ended")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.nodes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workers", type=int, default=0, help="how many workers to start with")
    parser.add_argument("--cpus", type=int, default=2, help="of each of them")
    parser.add_argument(
        "--autoscale",
        type=int,
        nargs=2,
        metavar=("CPU", "GPU"),
        help="how many nodes without and with a GPU the head may start",
    )
    parser.add_argument("--s3", metavar="URL", help="of a store that is there; default: a new one")
    parser.add_argument("--folder", type=Path, help="for disks and logs; default: below /tmp")
    parser.add_argument(
        "--hide", type=Path, nargs="+", default=[], help="what no node sees, beside the checkout"
    )
    return parser


def _describe(cluster: Cluster) -> str:
    variables = {"AWS_ENDPOINT_URL": cluster.s3_url, **CREDENTIALS}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    beside = shlex.join(cluster.network.entrance)
    return (
        f"logs and disks: {cluster.folder}\n"
        f"S3, here:       export {exports}\n"
        f"submit:         {beside} ray job submit --address http://{HEAD}:8265 \\\n"
        "                    --working-dir . -- python jobs/segment.py …\n"
        "Ctrl-C ends it; `start NAME [CPUS [GPUS]]`, `kill NAME` and `nodes` are obeyed."
    )


def _obey(cluster: Cluster) -> None:
    for line in sys.stdin:
        try:
            _execute(cluster, line.split())
        except (AssertionError, ValueError, RuntimeError) as error:
            print(f"{line.strip()}: {error}", flush=True)
    while True:  # without a keyboard
        signal.pause()


def _execute(cluster: Cluster, words: Sequence[str]) -> None:
    match words:
        case []:
            pass
        case ["start", name, *numbers] if len(numbers) <= 2:
            cluster.start_node(name, *(int(number) for number in numbers))
            print(f"{name} is up", flush=True)
        case ["kill", name]:
            cluster.kill_node(name)
            print(f"{name} is killed", flush=True)
        case ["nodes"]:
            for node in cluster.nodes():
                state = "alive" if node.is_alive else "dead"
                print(f"{node.name:<12} {state:<6} {dict(node.resources)}", flush=True)
        case _:
            print("start NAME [CPUS [GPUS]], kill NAME, nodes", flush=True)


if __name__ == "__main__":
    main()
