"""A network of its own: a bridge to which nodes are connected, and nothing else is."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

_CLONE_NEWNET = 0x40000000  # of <sched.h>
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class Network:
    """A network namespace with a bridge. It is gone with the process that has made it.

    Attributes:
        descriptor: an open file that stands for the namespace.
        gateway: the bridge's own address, where this process can listen.
    """

    gateway = "10.77.0.1"

    def __enter__(self) -> Self:
        self.descriptor = _in_thread(_make_namespace)
        self._last = 9
        self._ip("link set lo up")
        self._ip("link add bridge0 type bridge")
        self._ip(f"addr add {self.gateway}/24 dev bridge0")
        self._ip("link set bridge0 up")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def next_address(self) -> str:
        """An address that no node has had yet, from 10.77.0.10 on."""
        self._last += 1
        return f"10.77.0.{self._last}"

    @property
    def entrance(self) -> list[str]:
        """What to put before a command that is to run in this network, by a child process."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.descriptor}", "--"]

    def listen(self, port: int) -> socket.socket:
        """A socket of this process that listens at the gateway."""
        listener = self._socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.gateway, port))
        listener.listen(512)
        return listener

    def connect(self, address: str, port: int, timeout: float = 5) -> socket.socket:
        """A connection of this process to a node.

        Raises:
            OSError: nothing answers there.
        """
        connection = self._socket()
        connection.settimeout(timeout)
        try:
            connection.connect((address, port))
        except BaseException:
            connection.close()
            raise
        return connection

    def _socket(self) -> socket.socket:
        # A socket stays in the network in which it was made, whoever uses it.
        def make() -> socket.socket:
            _check(_libc.setns(self.descriptor, _CLONE_NEWNET))
            return socket.socket()

        return _in_thread(make)

    def _ip(self, words: str) -> None:
        subprocess.run([*self.entrance, "ip", *words.split()], check=True)


def _make_namespace() -> int:
    _check(_libc.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(function: Callable[[], T]) -> T:
    """Call it in a thread of its own: a namespace belongs to a thread, and ends with it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def _check(status: int) -> None:
    if status:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
