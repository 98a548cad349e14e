"""A proxy before an S3 endpoint: counts what passes, and spoils some of the answers."""

import asyncio
import contextlib
import random
import socket
import struct
import urllib.parse
from collections import Counter
from collections.abc import Sequence

from tests.endpoints.server import GONE, Head, Server, read_body, read_head

#: Faults of any request.
FAULTS = (
    "slow_down",  # 503 SlowDown
    "internal_error",  # 500 InternalError
    "expired_token",  # 400 ExpiredToken
    "reset",  # the connection is reset before an answer, or after half of it
    "stall",  # no answer, or half of one, and then nothing more
)

#: Faults of answers that have a body, of objects only.
BODY_FAULTS = (
    "truncated",  # the body ends before its length
    "short",  # likewise, and Content-Length is that of what comes
    "wrong_etag",  # an ETag header that is not the object's
    "flipped",  # some bit of the body is another
    "dribble",  # a byte, and after a while another one, and so on
)

_ERRORS = {
    "slow_down": (b"503 Slow Down", b"SlowDown"),
    "internal_error": (b"500 Internal Server Error", b"InternalError"),
    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html has 400 for it.
    "expired_token": (b"400 Bad Request", b"ExpiredToken"),
}

_WRITES = {b"PUT", b"POST", b"DELETE"}
_NOT_OF_CONTENT = {b"uploads", b"uploadId", b"tagging", b"acl", b"attributes"}


class FaultyProxy(Server):
    """Passes requests on to another endpoint, byte by byte, and spoils answers to GETs of objects.

    Whether and how a request is spoilt hangs on the seed, the method, the key and how often it was
    asked for, and not on when it comes: the same requests have the same faults, in any order.

    Attributes:
        url: of the proxy; give it as AWS_ENDPOINT_URL.
        requests: how many came, by method.
        gets: how many GETs of each object came, by ``bucket/key``.
        askers: how many requests came, by the address that they came from.
        faults: how many requests were spoilt, by fault.
        connections: how many connections were opened to the proxy.
        most_at_once: the largest number of requests that were under way together.
    """

    def __init__(
        self,
        target: str,
        rate: float,
        seed: int,
        *,
        kinds: Sequence[str] = FAULTS + BODY_FAULTS,
        times: int | None = None,
        writes: bool = False,
        listings: bool = False,
        pause: float = 1.0,
    ) -> None:
        """Prepare it; it listens in a ``with`` block.

        Args:
            target: the URL of the endpoint behind it.
            rate: the share of the requests that are spoilt, 0 to 1.
            seed: another one, other faults.
            kinds: the faults to choose from, of FAULTS and BODY_FAULTS.
            times: spoil at most so many requests for one key, None for no limit.
            writes: spoil PUT, POST and DELETE as well, by those of FAULTS.
            listings: spoil GETs of buckets as well, by those of FAULTS.
            pause: seconds from byte to byte of a dribble.
        """
        address = urllib.parse.urlsplit(target)
        self._target = (address.hostname, address.port)
        self._rate, self._seed, self._kinds, self._times = rate, seed, tuple(kinds), times
        self._writes, self._listings, self._pause = writes, listings, pause
        self.requests: Counter[str] = Counter()
        self.gets: Counter[str] = Counter()
        self.askers: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.connections = 0
        self.most_at_once = 0
        self._asked: Counter[tuple[bytes, bytes]] = Counter()
        self._spoilt: Counter[tuple[bytes, bytes]] = Counter()
        self._at_once = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream = _Upstream(self._target)
        try:
            while request := await read_head(reader):
                self.askers[writer.get_extra_info("peername")[0]] += 1
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    if not await self._answer(request, reader, writer, upstream):
                        return
                finally:
                    self._at_once -= 1
        finally:
            upstream.close()

    async def _answer(
        self,
        request: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: "_Upstream",
    ) -> bool:
        """Answer one request; whether the connection can take another one."""
        method, target, _ = request.start.split(b" ")
        fault, rng = self._draw(method, target)
        if request.get(b"expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request = request.without(b"expect")
        if fault in _ERRORS or (fault in ("reset", "stall") and rng.random() < 0.5):
            async for _ in read_body(reader, request):
                pass
            self._count(fault, method, target)
            if fault not in _ERRORS:
                return await _abandon(fault, reader, writer)
            writer.write(_error(*_ERRORS[fault]))
            await writer.drain()
            return True
        answer, body_reader = await upstream.send(request, reader)
        has_body = method != b"HEAD" and answer.status not in (204, 304)
        is_framed = answer.chunked or answer.length is not None or not has_body
        if is_framed:
            # Whether the endpoint closes its connection, as moto does, is between it and the proxy.
            answer = answer.without(b"connection")
        if fault and has_body and answer.status == 200 and (answer.length or fault in FAULTS):
            self._count(fault, method, target)
            body = b"".join([piece async for piece in read_body(body_reader, answer)])
            return await self._spoil(fault, rng, answer, body, reader, writer)
        writer.write(answer.to_bytes())
        if has_body:
            async for piece in read_body(body_reader, answer, until_closed=True):
                writer.write(piece)
                await writer.drain()
        await writer.drain()
        return is_framed

    async def refuse(
        self,
        request: Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        status: bytes,
        code: bytes,
        message: bytes,
    ) -> bool:
        """Answer a request with an error; the connection can take another one."""
        if request.get(b"expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for _ in read_body(reader, request):
            pass
        error = _error(status, code, message)
        # The answer to a HEAD has no body.
        is_head = request.start.startswith(b"HEAD ")
        writer.write(error.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if is_head else error)
        await writer.drain()
        return True

    def _draw(self, method: bytes, target: bytes) -> tuple[str, random.Random]:
        """The fault of this request, "" for none, and what draws the rest of it."""
        self.requests[method.decode()] += 1
        path, _, query = target.partition(b"?")
        key = path[1:].partition(b"/")[2]
        parameters = {part.partition(b"=")[0] for part in query.split(b"&")}
        kinds: tuple[str, ...] = ()
        if method == b"GET" and key and not parameters & _NOT_OF_CONTENT:
            self.gets[urllib.parse.unquote(path[1:].decode("latin-1"))] += 1
            kinds = self._kinds
        elif (method == b"GET" and self._listings) or (method in _WRITES and self._writes):
            kinds = tuple(kind for kind in self._kinds if kind in FAULTS)
        asked = (method, path)
        self._asked[asked] += 1
        rng = random.Random(f"{self._seed} {asked} {self._asked[asked]}")
        is_enough = self._times is not None and self._spoilt[asked] >= self._times
        is_spoilt = rng.random() < self._rate and bool(kinds) and not is_enough
        return rng.choice(kinds) if is_spoilt else "", rng

    def _count(self, fault: str, method: bytes, target: bytes) -> None:
        self.faults[fault] += 1
        self._spoilt[method, target.partition(b"?")[0]] += 1

    async def _spoil(
        self,
        fault: str,
        rng: random.Random,
        answer: Head,
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Send a spoilt answer; whether the connection can take another request."""
        cut = rng.randrange(len(body)) if body else 0
        if fault == "wrong_etag":
            answer = answer.replaced(b"ETag", b'"%032x"' % rng.getrandbits(128))
        elif fault == "flipped":
            body = body[:cut] + bytes([body[cut] ^ 1 << rng.randrange(8)]) + body[cut + 1 :]
        elif fault == "short":
            body = body[:cut]
            answer = answer.replaced(b"Content-Length", b"%d" % cut)
        if body:  # an answer without one is whole with its head
            writer.write(answer.to_bytes())
        if fault == "dribble":
            for value in body:
                writer.write(bytes([value]))
                await _until_gone(reader, self._pause)
            return True
        if fault in ("reset", "stall", "truncated"):
            writer.write(body[:cut])
            await writer.drain()
            return await _abandon(fault, reader, writer)
        writer.write(body)
        await writer.drain()
        return True


class CountingProxy(FaultyProxy):
    """Passes everything on and counts it."""

    def __init__(self, target: str) -> None:
        super().__init__(target, rate=0, seed=0)


class _Upstream:
    """A connection to the endpoint behind the proxy, opened again when it was closed."""

    def __init__(self, address: tuple[str | None, int | None]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._is_spent = False

    async def send(
        self, request: Head, body: asyncio.StreamReader
    ) -> tuple[Head, asyncio.StreamReader]:
        """Pass a request on; the answer's head, and where its body comes."""
        if self._streams and not (self._is_spent or request.length or request.chunked):
            # An idle connection may have been closed; what has no body can be sent twice.
            with contextlib.suppress(*GONE):
                return await self._send(*self._streams, request, body)
        self.close()
        self._streams = await asyncio.open_connection(*self._address)
        return await self._send(*self._streams, request, body)

    async def _send(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: Head,
        body: asyncio.StreamReader,
    ) -> tuple[Head, asyncio.StreamReader]:
        writer.write(request.to_bytes())
        async for piece in read_body(body, request):
            writer.write(piece)
            await writer.drain()
        answer = await read_head(reader)
        if not answer:
            raise ConnectionError("the endpoint closed the connection")
        self._is_spent = b"close" in answer.get(b"connection").lower()
        return answer, reader

    def close(self) -> None:
        if self._streams:
            self._streams[1].transport.abort()
            self._streams = None


def _error(status: bytes, code: bytes, message: bytes = b"A fault that a test asked for.") -> bytes:
    body = (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%b</Code>'
        b"<Message>%b</Message></Error>" % (code, message)
    )
    fields = [(b"Content-Type", b"application/xml"), (b"Content-Length", b"%d" % len(body))]
    return Head(b"HTTP/1.1 " + status, fields).to_bytes() + body


async def _abandon(fault: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Reset the connection, or keep it open and say nothing until the peer has had enough."""
    if fault == "stall":
        await _until_gone(reader, None)
    elif fault == "reset":
        # Closed with a linger time of nothing, a socket sends RST instead of FIN.
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()
    return False


async def _until_gone(reader: asyncio.StreamReader, seconds: float | None) -> None:
    """Wait; raises ConnectionError when the peer goes away meanwhile."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), seconds)
        raise ConnectionError("the peer has gone")
