"""Files: the same behaviour on a local disk and in S3, and one line when something is wrong."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from s3fs import S3FileSystem

from segray.errors import InputError
from segray.storage import objects
from segray.storage.files import child_names, read_bytes, remove, write_bytes
from segray.storage.s3 import forget_client
from segray.storage.uri import exists, is_local, join_uri
from tests.endpoints import FaultyProxy
from tests.endpoints.server import Head, Server, read_body, read_head

AWKWARD_NAMES = [
    "a name.txt",
    "été 猫.txt",
    "a%2Fb.txt",
    "x[1].txt",
    "x*.txt",
    "x?.txt",
    "x#y.txt",
    "a+b.txt",
    "~x",
    "c:d&e=f.txt",
    "it's.txt",
]

# Each takes the URI of a file or object that it needs.
OPERATIONS: list[Callable[[str], object]] = [
    read_bytes,
    exists,
    child_names,
    remove,
    lambda uri: write_bytes(uri, b"content"),
]
OPERATION_NAMES = ["read", "exists", "child_names", "remove", "write"]


@pytest.fixture
def bucket(s3: Callable[[str], str], tmp_path: Path) -> str:
    """The URI of a new and empty bucket."""
    return s3("uri-" + tmp_path.name.replace("_", "-").lower())


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that nothing is in yet."""
    if request.param == "s3":
        return str(request.getfixturevalue("bucket")) + "/folder"
    return str(tmp_path / "folder")


@pytest.fixture
def fresh_s3() -> Iterator[None]:
    """Makes what a test sets in the AWS environment count, in that test only."""
    S3FileSystem.clear_instance_cache()
    forget_client()
    yield
    S3FileSystem.clear_instance_cache()
    forget_client()


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh_s3: None) -> None:
    """No credentials, no endpoint, no patience."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(objects, "ATTEMPTS", 2)


def complaint(attempt: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        attempt()
    message = str(error.value)
    assert "\n" not in message
    assert "secret" not in message.replace("AWS_SECRET_ACCESS_KEY", "")
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_any_name_survives_writing_reading_listing_and_deleting(root: str, name: str) -> None:
    uri = join_uri(root, name)
    assert not exists(uri)
    write_bytes(uri, name.encode())
    assert read_bytes(uri) == name.encode()
    assert exists(uri)
    assert child_names(root) == [name]
    for _ in range(2):  # the second time there is nothing left to delete
        remove(uri)
        assert not exists(uri)
    assert child_names(root) == []


def test_a_name_that_looks_like_a_pattern_touches_no_other_file(root: str) -> None:
    for name in ("x1.txt", "x2.txt", "x[12].txt", "x*.txt"):
        write_bytes(join_uri(root, name), name.encode())
    remove(join_uri(root, "x[12].txt"))
    remove(join_uri(root, "x*.txt"))
    assert child_names(root) == ["x1.txt", "x2.txt"]


@pytest.mark.parametrize("content", [b"", b"\0\r\n\xff" * 3, bytes(6_000_000)])
def test_content_comes_back_byte_by_byte(root: str, content: bytes) -> None:
    uri = join_uri(root, "deep", "er", "file.bin")
    write_bytes(uri, content)
    assert read_bytes(uri) == content


def test_writing_again_replaces(root: str) -> None:
    uri = join_uri(root, "file.txt")
    write_bytes(uri, b"a long first content")
    write_bytes(uri, b"second")
    assert read_bytes(uri) == b"second"
    assert child_names(root) == ["file.txt"]


def test_children_are_files_and_folders_right_below(root: str) -> None:
    for key in ("b.txt", "a/x.txt", "a/y.txt", "c/d/e.txt"):
        write_bytes(join_uri(root, *key.split("/")), b"")
    write_bytes(root + "er/other.txt", b"")
    assert child_names(root) == ["a", "b.txt", "c"]
    assert child_names(root + "/") == ["a", "b.txt", "c"]
    assert child_names(join_uri(root, "nothing")) == []


def test_folders_exist_as_files_do(root: str) -> None:
    assert not exists(root)
    write_bytes(join_uri(root, "a", "x.txt"), b"")
    assert exists(root)
    assert exists(join_uri(root, "a"))
    assert not exists(root[:-1])


def test_another_process_s_files_are_seen_at_once(root: str) -> None:
    write_bytes(join_uri(root, "mine.txt"), b"")
    assert child_names(root) == ["mine.txt"]
    if is_local(root):
        Path(root, "theirs.txt").write_bytes(b"x")
    else:
        bucket, key = root.removeprefix("s3://").split("/", 1)
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{key}/theirs.txt", Body=b"x")
    assert child_names(root) == ["mine.txt", "theirs.txt"]
    assert exists(join_uri(root, "theirs.txt"))


def test_the_object_that_stands_for_a_folder_is_no_child_of_it(bucket: str) -> None:
    client = boto3.client("s3")
    for key in ("output/", "output/results/"):
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key)
    assert child_names(bucket + "/output") == ["results"]
    assert child_names(bucket + "/output/results") == []


def test_a_reader_sees_the_old_file_or_the_new_one_and_nothing_between(tmp_path: Path) -> None:
    uri = str(tmp_path / "file.bin")
    contents = [bytes([value]) * 1_000_000 for value in range(2)]
    write_bytes(uri, contents[0])
    writing = threading.Event()
    seen = []

    def read_on() -> None:
        while not writing.is_set():
            seen.append(read_bytes(uri))

    reader = threading.Thread(target=read_on, daemon=True)
    reader.start()
    try:
        for turn in range(60):
            write_bytes(uri, contents[turn % 2])
    finally:
        writing.set()
        reader.join()
    assert len(seen) > 3
    assert set(seen) <= set(contents)


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    script = (
        "import resource, sys\n"
        "from segray.errors import InputError\n"
        "from segray.storage.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "try:\n"
        "    write_bytes(sys.argv[1], bytes(1 << 20))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(target)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith(f"cannot write {target}: ")
    assert ran.stdout.count("\n") == 1
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_write_onto_a_folder_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    message = complaint(lambda: write_bytes(str(tmp_path / "taken"), b"content"))
    assert message.startswith(f"cannot write {tmp_path}/taken: ")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_bytes(str(tmp_path / "written"), b"")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_threads_that_write_do_not_change_each_others_permissions(tmp_path: Path) -> None:
    """Nor those of any other file that the process makes meanwhile."""
    written = [tmp_path / f"written_{turn}" for turn in range(400)]
    others = [tmp_path / f"other_{turn}" for turn in range(4000)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that a thread is interrupted wherever it can be
    try:
        with ThreadPoolExecutor(32) as pool:
            writing = pool.map(lambda path: write_bytes(str(path), b""), written)
            for path in others:
                path.touch()
            assert len(list(writing)) == len(written)
    finally:
        sys.setswitchinterval(interval)
    assert len(list(tmp_path.iterdir())) == len(written) + len(others)
    assert len({path.stat().st_mode for path in (*written, *others)}) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "nothing.txt")
    assert complaint(lambda: read_bytes(uri)) == f"cannot read {uri}: no such file or folder"


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    uri = str(tmp_path / "file" / "below.txt")
    for operation in (read_bytes, remove, lambda uri: write_bytes(uri, b"")):
        message = complaint(lambda operation=operation: operation(uri))
        assert uri in message


def test_a_file_that_this_user_may_not_touch_is_named(users_folder: Path) -> None:
    shut = users_folder / "shut"
    shut.mkdir()
    (shut / "file.txt").write_bytes(b"")
    shut.chmod(0)
    try:
        for operation in OPERATIONS[:1] + OPERATIONS[3:]:
            message = complaint(lambda operation=operation: operation(str(shut / "file.txt")))
            assert message.endswith("this user may not do that: check the permissions")
    finally:
        shut.chmod(0o700)


def test_a_missing_key_is_named(bucket: str) -> None:
    uri = bucket + "/nothing.txt"
    assert complaint(lambda: read_bytes(uri)).startswith(
        f"cannot read {uri}: no such bucket or key"
    )


def test_a_missing_bucket_does_not_exist(s3: Callable[[str], str]) -> None:
    assert not exists("s3://there-is-no-such-bucket")
    assert not exists("s3://there-is-no-such-bucket/key")


@pytest.mark.parametrize("operation", [OPERATIONS[0], OPERATIONS[2], OPERATIONS[4]])
def test_a_missing_bucket_is_named(
    s3: Callable[[str], str], operation: Callable[[str], object]
) -> None:
    uri = "s3://there-is-no-such-bucket/key"
    message = complaint(lambda: operation(uri))
    assert f"{uri}: no such bucket or key" in message


@pytest.mark.parametrize("operation", [read_bytes, exists, remove])
def test_a_forbidden_object_is_told_from_a_missing_one(
    bucket: str, operation: Callable[[str], object]
) -> None:
    uri = bucket + "/key"
    write_bytes(uri, b"content")
    name = bucket.removeprefix("s3://")
    rule = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": f"arn:aws:s3:::{name}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    boto3.client("s3").put_bucket_policy(Bucket=name, Policy=policy)
    message = complaint(lambda: operation(uri))
    assert f"{uri}: these credentials may not " in message
    assert message.endswith(": check the permissions")


@pytest.mark.parametrize("operation", OPERATIONS, ids=OPERATION_NAMES)
def test_missing_credentials_are_asked_for(
    no_aws: None, operation: Callable[[str], object]
) -> None:
    message = complaint(lambda: operation("s3://bucket/key"))
    assert "s3://bucket/key: no AWS credentials found: set AWS_ACCESS_KEY_ID" in message


@pytest.mark.parametrize("operation", OPERATIONS, ids=OPERATION_NAMES)
def test_an_endpoint_that_does_not_answer_is_told_soon(
    no_aws: None, monkeypatch: pytest.MonkeyPatch, operation: Callable[[str], object]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and never listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        started = time.monotonic()
        message = complaint(lambda: operation("s3://bucket/key"))
    assert "the endpoint in AWS_ENDPOINT_URL does not answer" in message
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/key"])
def test_what_cannot_be_asked_is_not_taken_for_absent(no_aws: None, uri: str) -> None:
    assert "no AWS credentials found" in complaint(lambda: exists(uri))


@pytest.mark.parametrize("endpoint", ["localhost:9000", "name:my-secret@localhost"])
def test_an_endpoint_that_is_no_url_is_refused_and_not_repeated(
    no_aws: None, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    message = complaint(lambda: read_bytes("s3://bucket/key"))
    assert "AWS_ENDPOINT_URL is no URL: give it as https://host:port" in message


def test_a_profile_that_does_not_exist_is_named(
    no_aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "holiday")
    assert "holiday" in complaint(lambda: read_bytes("s3://bucket/key"))


class _Slot(Server):
    """A store of one object that is away until some requests have failed."""

    def __init__(self, *failures: bytes) -> None:
        self.failures = list(failures)
        self.requests: list[bytes] = []
        self.content = b""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await read_head(reader):
            self.requests.append(request.start)
            if request.get(b"expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            content = b"".join([piece async for piece in read_body(reader, request)])
            if self.failures:
                writer.write(self.failures.pop(0))
                await writer.drain()
                return
            self.content = content
            fields = [(b"Content-Length", b"0"), (b"ETag", b'"x"')]
            writer.write(Head(b"HTTP/1.1 200 OK", fields).to_bytes())


_ERROR = b"<Error><Code>InternalError</Code><Message>try again</Message></Error>"


@pytest.mark.parametrize(
    "failure",
    [
        b"",  # the connection is closed
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n",
        # S3 may find out that something is wrong after it has said that all is well.
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_ERROR), _ERROR),
    ],
    ids=["closed", "503", "200 and an error"],
)
def test_a_write_is_tried_again_until_the_store_is_back(
    aws_environment: None, fresh_s3: None, monkeypatch: pytest.MonkeyPatch, failure: bytes
) -> None:
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.01)
    with _Slot(*[failure] * (objects.ATTEMPTS - 1)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        write_bytes("s3://bucket/key", b"content")
    assert server.content == b"content"
    assert server.requests == [b"PUT /bucket/key HTTP/1.1"] * objects.ATTEMPTS


def test_writes_through_faults_leave_what_was_written_last(
    s3: Callable[[str], str],
    s3_endpoint: str,
    fresh_s3: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3("faulty-writes")
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(objects, "ATTEMPTS", 12)
    kinds = ("slow_down", "internal_error", "reset")
    with FaultyProxy(s3_endpoint, 0.4, 3, kinds=kinds, writes=True) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        for number in range(20):
            write_bytes(f"{bucket}/{number % 4}", b"%d" % number)
        assert sum(proxy.faults.values()) > 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    S3FileSystem.clear_instance_cache()
    assert [read_bytes(f"{bucket}/{number}") for number in range(4)] == [b"16", b"17", b"18", b"19"]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        read_bytes(str(tmp_path / "pipe"))
