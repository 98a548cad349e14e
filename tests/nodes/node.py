"""A node: a process in namespaces of its own, and all that it starts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.processes import descendants, kill

_INSIDE = Path(__file__).with_name("inside.py")


@dataclass(frozen=True)
class Plan:
    """What a node is to be.

    Attributes:
        name: its host name.
        address: its own, on the network's bridge.
        network: a descriptor that stands for the namespace of the network.
        disk: the folder that holds its /tmp, and what else is its own.
        command: what it runs; the node ends with it.
        hidden: folders of which it sees nothing but what is kept; /tmp must be one.
        kept: folders that it sees nevertheless.
        replaced: files and folders of its own, by the paths in whose place it sees them.
    """

    name: str
    address: str
    network: int
    disk: str
    command: Sequence[str]
    hidden: Sequence[str]
    kept: Sequence[str] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)


class Node:
    """A node that runs. It ends with the thread that has started it, whatever ends that."""

    def __init__(self, plan: Plan, environment: Mapping[str, str], log: Path) -> None:
        self.name, self.address, self.log = plan.name, plan.address, log
        Path(plan.disk, "tmp", "home").mkdir(parents=True)
        command = ["setpriv", "--pdeathsig", "KILL", "unshare"]
        command += ["--mount", "--uts", "--net", "--pid", "--ipc", "--fork", "--mount-proc"]
        command += ["--kill-child=KILL", sys.executable, str(_INSIDE), json.dumps(asdict(plan))]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[plan.network],
                start_new_session=True,
            )

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None

    @property
    def entrance(self) -> list[str]:
        """What to put before a command that is to run in this node."""
        first = self._first()
        while str(_INSIDE) in self.processes().get(first, ""):
            time.sleep(0.01)  # until it has all that is its own, and has become Ray
        return [
            *("nsenter", "-t", str(first), "-m", "-u", "-n", "-p", "-i", "--"),
            *("sh", "-c", 'cd /tmp/home && exec "$@"', "sh"),
        ]

    def processes(self) -> dict[int, str]:
        """The command lines of all that runs here, by the ids that this process sees."""
        return descendants(self._process.pid)

    def terminate(self, program: str) -> None:
        """SIGTERM to what runs a program."""
        for pid, command in self.processes().items():
            if Path(command.partition("\0")[0]).name == program:
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all of it at once, as when a machine loses its power; nothing if it is off."""
        try:
            first = self._first()
        except RuntimeError:
            return
        # Linux kills all processes of a node when it has lost the first one.
        kill(first)
        self._process.wait()
        while Path(f"/proc/{first}").exists():
            time.sleep(0.01)

    def _first(self) -> int:
        """The id of the node's first process, as this process sees it."""
        while self.is_up:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            if ids := children.read_text().split():
                return int(ids[0])
            time.sleep(0.01)
        raise RuntimeError(f"the node {self.name} has ended: {self.log.read_text()[-2000:]}")
