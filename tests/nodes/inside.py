"""The first process of a node: gives it a name, disk and network of its own, and becomes Ray.

It has been started in new namespaces, from which nothing that is done here gets out. Its one
argument is a `tests.nodes.node.Plan` in JSON.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def main() -> None:
    plan = json.loads(sys.argv[1])
    socket.sethostname(plan["name"])
    connect(plan["address"], plan["network"])
    disk = Path(plan["disk"])
    mount("-t", "tmpfs", "-o", "size=2g", "shm", "/dev/shm")
    replace("/etc/hosts", disk, f"127.0.0.1 localhost\n{plan['address']} {plan['name']}\n")
    replace("/etc/resolv.conf", disk, "")  # no name is known, and none is waited for
    for target, source in plan["replaced"].items():
        mount("--bind", source, target)
    # Mounts below what is kept come along, those of the lines above among them.
    hidden = [Path(folder) for folder in plan["hidden"]]
    for folder in sorted(hidden, key=disk.is_relative_to):  # the one with the disk is last
        if not any(other in folder.parents for other in hidden):
            hide(folder, disk, [Path(path) for path in plan["kept"]])
    os.chdir("/tmp/home")
    os.execvp(plan["command"][0], plan["command"])


def connect(address: str, network: int) -> None:
    """Plug a cable into the bridge of the network, and take the other end for eth0."""
    plug = f"to-{address.rpartition('.')[2]}"
    bridge = f"nsenter --net=/proc/self/fd/{network} ip"
    run(f"{bridge} link add {plug} type veth peer name eth0 netns {os.getpid()}")
    run(f"{bridge} link set {plug} master bridge0 up")
    os.close(network)
    run("ip link set lo up")
    run(f"ip addr add {address}/24 dev eth0")
    run("ip link set eth0 up")
    # Nothing is behind it, but Ray asks for the way to the Internet to learn its own address.
    run("ip route add default dev eth0")


def replace(file: str, disk: Path, content: str) -> None:
    """Give the node another file in a system's place."""
    own = disk / Path(file).name
    own.write_text(content)
    mount("--bind", str(own), file)


def hide(folder: Path, disk: Path, kept: list[Path]) -> None:
    """Lay an empty folder over one, in which only what is kept is still there."""
    own = disk / folder.relative_to("/")
    own.mkdir(parents=True, exist_ok=True)
    for path in kept:
        if path.is_relative_to(folder):
            place = own / path.relative_to(folder)
            place.mkdir(parents=True, exist_ok=True)
            mount("--rbind", str(path), str(place))
    mount("--rbind", str(own), str(folder))


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def run(line: str) -> None:
    subprocess.run(line.split(), check=True, close_fds=False)


if __name__ == "__main__":
    main()
