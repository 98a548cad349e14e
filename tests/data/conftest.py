"""A web server on loopback that behaves as well, or as badly, as a test wants."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from segray.data import download


@dataclass
class Request:
    """What the server was asked, and what it sent.

    Attributes:
        path: as in the request.
        range: the header ``Range``, None without.
        status: of the answer.
        sent: bytes of the answer's body.
    """

    path: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Mirror:
    """A folder on a web server.

    Attributes:
        url: of the folder.
        files: their content by name.
        statuses: HTTP statuses to refuse with, one for each request; None to answer it.
        cuts: after how many bytes of the body to break off, one for each request.
        ranges: whether the header ``Range`` is heeded.
        sized: whether the answer says its length.
        redirect: an address to refer to, for each request of a path below /moved/.
        requests: all of them.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int | None] = field(default_factory=list)
    cuts: list[int | None] = field(default_factory=list)
    ranges: bool = True
    sized: bool = True
    redirect: str = ""
    requests: list[Request] = field(default_factory=list)

    def sent(self, name: str) -> int:
        """Bytes of a file that have left the server."""
        return sum(r.sent for r in self.requests if r.path.endswith(name))


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = Request(self.path, self.headers["Range"])
            mirror.requests.append(request)
            name = self.path.rpartition("/")[2]
            if self.path.startswith("/moved/"):
                request.status = 301
                self.send_response(301)
                self.send_header("Location", mirror.redirect + name)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            refused = mirror.statuses.pop(0) if mirror.statuses else None
            if refused or name not in mirror.files:
                request.status = refused or 404
                self.send_error(request.status)
                return
            self.answer(request, mirror.files[name])

        def answer(self, request: Request, content: bytes) -> None:
            start = 0
            request.status = 206 if request.range and mirror.ranges else 200
            if request.status == 206:
                start = int(request.range.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    request.status = 416
                    self.send_error(416)
                    return
            self.send_response(request.status)
            if request.status == 206:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            if mirror.sized:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cut = mirror.cuts.pop(0) if mirror.cuts else None
            body = content[start:][:cut]
            self.wfile.write(body)
            request.sent = len(body)

        def log_message(self, *_: object) -> None:
            pass

    # A test does not wait as long as a user.
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        mirror.url = f"http://127.0.0.1:{server.server_port}/pets"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield mirror
        server.shutdown()
        thread.join()
