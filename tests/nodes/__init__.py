"""A Ray cluster whose nodes are really apart, on one machine.

Each node is a process with process ids, a host name, a network and mounts of its own: it has its
own address on a bridge, its own /tmp and /dev/shm, and sees neither the checkout nor the other
nodes' files. What they share is S3. It needs root, iproute2 and util-linux.

    with Cluster(folder) as cluster:
        cluster.start_head()
        cluster.start_node("w1", cpus=2)
        job = cluster.submit("python", "jobs/segment.py", "--model", "s3://…")
        cluster.kill_node("w1")
        assert job.wait(300) == 0, job.output

`python -m tests.nodes` starts one by hand.
"""

from tests.nodes.client import Client
from tests.nodes.cluster import Cluster
from tests.nodes.machine import find_obstacle

__all__ = ["Client", "Cluster", "find_obstacle"]
