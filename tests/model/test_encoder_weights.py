import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import pytest

from segray.errors import InputError
from segray.model.encoder_weights import read_encoder_weights
from segray.model.encoders import ENCODERS
from tests.support import free_port

ENCODER = ENCODERS["MobileNetV2"]
NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


def weights_file() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["kernel"] = list(range(1000))
    return buffer.getvalue()


@dataclass
class Mirror:
    """A web server's folder, and what was asked of it.

    Attributes:
        url: of the folder.
        content: the answer's body.
        status: the answer's HTTP status.
        missing: bytes that the header ``Content-Length`` promises and the body lacks; None for
            no such header.
        requests: the paths asked for.
    """

    url: str = ""
    content: bytes = weights_file()
    status: int = 200
    missing: int | None = 0
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mirror.requests.append(self.path)
            self.send_response(mirror.status)
            if mirror.missing is not None:
                self.send_header("Content-Length", str(len(mirror.content) + mirror.missing))
            self.end_headers()
            self.wfile.write(mirror.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        mirror.url = f"http://127.0.0.1:{server.server_port}/weights"
        monkeypatch.setenv("SEGRAY_IMAGENET_URL", mirror.url)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield mirror
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where Keras keeps its files, empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "keras"


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_none_means_no_weights(mirror: Mirror) -> None:
    assert read_encoder_weights("none", ENCODER) is None
    assert mirror.requests == []


def test_reads_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoder.h5").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)

    assert read_encoder_weights(str(tmp_path / "encoder.h5"), ENCODER) == b"weights"
    assert read_encoder_weights("encoder.h5", ENCODER) == b"weights"


def test_refuses_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.h5"
    path.touch()
    with pytest.raises(InputError, match=r"encoder\.h5 is an empty file: copy it again"):
        read_encoder_weights(str(path), ENCODER)


def test_refuses_a_missing_file_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "missing.h5"

    with pytest.raises(
        InputError, match=rf"^--encoder-weights: cannot read {path}: no such file or folder$"
    ):
        read_encoder_weights(str(path), ENCODER)


@pytest.mark.parametrize("end", ["", "/"])
def test_fetches_the_imagenet_weights_once(
    end: str, mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGRAY_IMAGENET_URL", mirror.url + end)

    first, second = (read_encoder_weights("imagenet", ENCODER) for _ in range(2))

    assert first == second == mirror.content
    assert mirror.requests == [f"/weights/{NAME}"]
    assert files_below(cache) == [cache / "models" / NAME]


def test_takes_the_imagenet_weights_that_keras_has_fetched(mirror: Mirror, cache: Path) -> None:
    (cache / "models").mkdir(parents=True)
    (cache / "models" / NAME).write_bytes(b"from an earlier run of Keras")

    assert read_encoder_weights("imagenet", ENCODER) == b"from an earlier run of Keras"
    assert mirror.requests == []


def refusal(cache: Path) -> str:
    """What a user is told where the ImageNet weights cannot be had; nothing may be kept."""
    with pytest.raises(InputError) as caught:
        read_encoder_weights("imagenet", ENCODER)
    message = str(caught.value)
    assert message.startswith("cannot fetch the ImageNet weights from http")
    assert "--encoder-weights FILE" in message
    assert "--encoder-weights none" in message
    assert "\n" not in message
    assert files_below(cache) == []
    return message


@pytest.mark.parametrize("status", [403, 404, 500])
def test_refused_by_the_server(status: int, mirror: Mirror, cache: Path) -> None:
    mirror.status = status

    assert f"{mirror.url}/{NAME} (HTTP {status} " in refusal(cache)


def test_no_server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRAY_IMAGENET_URL", f"http://127.0.0.1:{free_port()}")

    assert "Connection refused" in refusal(cache)


def test_url_that_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRAY_IMAGENET_URL", "http://two words/")

    assert "two words" in refusal(cache)


def test_url_with_a_password(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGRAY_IMAGENET_URL", "http://user:secret@127.0.0.1/weights")

    with pytest.raises(
        InputError, match=r"^SEGRAY_IMAGENET_URL must not hold credentials"
    ) as caught:
        read_encoder_weights("imagenet", ENCODER)
    assert "secret" not in str(caught.value)


def test_truncated_answer(mirror: Mirror, cache: Path) -> None:
    mirror.missing = 1000

    refusal(cache)


def test_truncated_answer_of_unknown_length(mirror: Mirror, cache: Path) -> None:
    mirror.content, mirror.missing = mirror.content[:-1000], None

    refusal(cache)


def test_login_page_instead_of_the_file(mirror: Mirror, cache: Path) -> None:
    mirror.content = b"<html>Please log in</html>"

    refusal(cache)


def test_fetches_again_after_a_failure(mirror: Mirror, cache: Path) -> None:
    mirror.status = 503
    refusal(cache)
    mirror.status = 200

    assert read_encoder_weights("imagenet", ENCODER) == mirror.content


def test_cache_that_cannot_be_written(mirror: Mirror, cache: Path) -> None:
    cache.write_text("a file where the folder should be")

    with pytest.raises(InputError, match=rf"^cannot write {cache / 'models' / NAME}: "):
        read_encoder_weights("imagenet", ENCODER)
