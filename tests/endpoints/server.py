"""An HTTP/1.1 server on loopback that sees and sends every byte of a message as it is."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

_PIECE = 1 << 16

#: What a peer that goes away in the middle of something raises.
GONE = (ConnectionError, EOFError, TimeoutError)


@dataclass
class Head:
    """The head of a request or of an answer.

    Attributes:
        start: the request line or the status line, without the line's end.
        fields: the header's names and values, as they were sent.
    """

    start: bytes
    fields: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes:
        """The value of a header, or b"". `name` is in lower case."""
        return next((value for key, value in self.fields if key.lower() == name), b"")

    def without(self, name: bytes) -> "Head":
        fields = [field for field in self.fields if field[0].lower() != name.lower()]
        return Head(self.start, fields)

    def replaced(self, name: bytes, value: bytes) -> "Head":
        return Head(self.start, [*self.without(name).fields, (name, value)])

    def to_bytes(self) -> bytes:
        lines = [self.start, *(name + b": " + value for name, value in self.fields)]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.start.split(b" ")[1])

    @property
    def length(self) -> int | None:
        """The body's length as the head has it."""
        value = self.get(b"content-length")
        return int(value) if value else None

    @property
    def chunked(self) -> bool:
        return b"chunked" in self.get(b"transfer-encoding").lower()


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head, None where the peer has closed the connection."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise
        return None
    start, *lines = raw[:-4].split(b"\r\n")
    fields = (line.partition(b":") for line in lines)
    return Head(start, [(name, value.strip()) for name, _, value in fields])


async def read_body(
    reader: asyncio.StreamReader, head: Head, until_closed: bool = False
) -> AsyncIterator[bytes]:
    """The bytes that follow a head, the framing of a chunked body among them.

    Args:
        reader: where the head was read from.
        head: says how long the body is.
        until_closed: a body of unknown length ends with the connection, as those of answers do.
    """
    if head.chunked:
        async for piece in _read_chunks(reader):
            yield piece
    elif head.length is not None:
        async for piece in _read_exactly(reader, head.length):
            yield piece
    elif until_closed:
        while piece := await reader.read(_PIECE):
            yield piece


async def _read_exactly(reader: asyncio.StreamReader, count: int) -> AsyncIterator[bytes]:
    while count:
        piece = await reader.read(min(count, _PIECE))
        if not piece:
            raise EOFError("the body is shorter than its head says")
        count -= len(piece)
        yield piece


async def _read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    size = -1
    while size:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.partition(b";")[0], 16)
        if size:
            async for piece in _read_exactly(reader, size + 2):
                yield piece
    while line != b"\r\n":  # of the trailer
        line = await reader.readuntil(b"\r\n")
        yield line


class Server:
    """Listens in a thread, with an event loop of its own, as long as its ``with`` block lasts.

    Attributes:
        listener: the socket that it listens on; None for a port of loopback of its own.
        url: of the server, once it listens.
    """

    listener: socket.socket | None = None
    url: str

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._conversations: set[asyncio.Task[None]] = set()
        listener = self.listener or socket.create_server(("127.0.0.1", 0))
        self._server = self._call(asyncio.start_server(self._converse, sock=listener, backlog=512))
        host, port = listener.getsockname()
        self.url = f"http://{host}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _stop(self) -> None:
        self._server.close()
        conversations = list(self._conversations)
        for task in conversations:
            task.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
        await asyncio.sleep(0.01)  # in which the loop takes leave of the sockets

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._conversations.add(task)
        try:
            await self.converse(reader, writer)
            writer.close()
        except (*GONE, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._conversations.discard(task)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until there are no more."""
        raise NotImplementedError
