"""Listing: which files and objects are found, in which order, and by which ids."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from segray.errors import InputError
from segray.storage.files import write_bytes
from segray.storage.listing import Entry, Shard, list_entries, list_pages, relative_key
from segray.storage.s3 import forget_client
from segray.storage.uri import join_uri
from tests.endpoints.listing import Keys, list_page
from tests.endpoints.server import Head, Server, read_head
from tests.endpoints.stores import asking


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that nothing is in yet."""
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        name = tmp_path.name.replace("_", "-").lower()
        return str(s3(f"listing-{name}")) + "/folder"
    return str(tmp_path / "folder")


def fill(root: str, keys: list[str]) -> None:
    for key in keys:
        write_bytes(f"{root}/{key}", key.encode())


def listed(root: str) -> list[str]:
    return [relative_key(root, entry.uri) for entry in list_entries(root)]


def test_files_at_any_depth_are_listed_in_the_order_of_their_uris(root: str) -> None:
    fill(root, ["b.jpg", "a/c/d/e.png", "a.jpg", "a/b.jpg", "Z.jpg", "a b.jpg", "é/猫.jpg"])
    expected = ["Z.jpg", "a b.jpg", "a.jpg", "a/b.jpg", "a/c/d/e.png", "b.jpg", "é/猫.jpg"]
    assert listed(root) == expected
    assert [entry.uri for entry in list_entries(root)] == [f"{root}/{key}" for key in expected]


def test_awkward_names_are_listed_as_they_are(root: str) -> None:
    names = sorted(["a%2Fb.jpg", "x[1].jpg", "x*.jpg", "x?.jpg", "x#y.jpg", "a+b.jpg", "~x"])
    fill(root, names)
    assert listed(root) == names


def test_a_folder_is_not_mixed_up_with_one_whose_name_goes_on(root: str) -> None:
    fill(root, ["a.jpg"])
    fill(root + "-2", ["b.jpg"])
    fill(root + "2", ["c.jpg"])
    assert listed(root) == ["a.jpg"]
    assert listed(root + "/") == ["a.jpg"]


def test_hidden_files_and_folders_are_left_out(root: str) -> None:
    fill(root, ["a.jpg", ".hidden.jpg", "b/.DS_Store", ".cache/c.jpg", "b/.c/d/e.jpg", "f.g/h"])
    write_bytes(join_uri(root, ".partial-x1y2"), b"half of a fi")
    assert listed(root) == ["a.jpg", "f.g/h"]


def test_a_hidden_folder_that_is_asked_for_is_listed(root: str) -> None:
    fill(root, [".cache/a.jpg"])
    assert listed(join_uri(root, ".cache")) == ["a.jpg"]


def test_objects_that_stand_for_folders_are_left_out(s3: Callable[[str], str]) -> None:
    root = s3("listing-placeholders")
    client = boto3.client("s3")
    for key in ("images/", "images/new/", "images/new/a.jpg"):
        client.put_object(Bucket="listing-placeholders", Key=key, Body=b"")
    assert listed(root) == ["images/new/a.jpg"]
    assert listed(root + "/images") == ["images/new/a.jpg".removeprefix("images/")]


def test_an_empty_file_is_listed_with_its_size(root: str) -> None:
    write_bytes(join_uri(root, "a.jpg"), b"")
    write_bytes(join_uri(root, "b.jpg"), b"four")
    assert [entry.size for entry in list_entries(root)] == [0, 4]


def test_links_to_files_are_followed_and_dead_links_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"four")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "c.jpg").symlink_to("nothing.jpg")
    os.mkfifo(tmp_path / "pipe")
    assert [entry.size for entry in list_entries(str(tmp_path))] == [4, 4]


def test_ids_stay_the_same_while_nothing_changes_and_are_all_different(root: str) -> None:
    fill(root, ["a.jpg", "b.jpg", "c/a.jpg"])
    write_bytes(join_uri(root, "copy.jpg"), b"a.jpg")
    entries = list_entries(root)
    assert list_entries(root) == entries
    ids = [entry.id for entry in entries]
    assert [entry.id for entry in list_entries(root)] == ids
    assert len(set(ids)) == 4
    assert all(-(2**63) <= id < 2**63 for id in ids)


@pytest.mark.parametrize("content", [b"other", b"longer than before"])
def test_a_changed_file_has_another_id_and_its_neighbour_keeps_its_own(
    root: str, content: bytes
) -> None:
    fill(root, ["a.jpg", "b.jpg"])
    changed, untouched = list_entries(root)
    write_bytes(changed.uri, content)
    changed_now, untouched_now = list_entries(root)
    assert changed_now.id != changed.id
    assert changed_now.etag != changed.etag
    assert untouched_now == untouched


def test_an_object_written_again_with_the_same_content_keeps_its_id(
    s3: Callable[[str], str],
) -> None:
    root = s3("listing-again")
    fill(root, ["a.jpg"])
    before = list_entries(root)
    fill(root, ["a.jpg"])
    assert list_entries(root) == before


def test_the_id_is_the_same_in_every_release() -> None:
    # A change would make every run on an existing output fetch all its images again.
    entry = Entry("s3://bucket/été/a.jpg", 12345, "9bb58f26192e4ba00f01e2e7b136bbd8")
    assert entry.id == 273_822_895_176_596_873


def test_more_keys_than_one_answer_of_s3_holds_are_all_listed(s3: Callable[[str], str]) -> None:
    root = s3("listing-pages")
    client = boto3.client("s3")
    names = [f"{number % 7}/{number:04d}.jpg" for number in range(1005)]
    with ThreadPoolExecutor(4) as requests:
        list(
            requests.map(
                lambda name: client.put_object(Bucket="listing-pages", Key=name, Body=b"x"), names
            )
        )
    assert listed(root) == sorted(names)


def test_a_missing_folder_is_named(root: str) -> None:
    with pytest.raises(InputError, match="no such") as error:
        list_entries(root)
    assert str(error.value).startswith(f"cannot list {root}: ")
    assert "\n" not in str(error.value)


def test_a_file_is_no_folder_to_list(root: str) -> None:
    fill(root, ["a.jpg"])
    with pytest.raises(InputError, match=r"a\.jpg: it is a file; give the folder"):
        list_entries(f"{root}/a.jpg")


def test_a_pattern_is_no_folder_to_list(root: str) -> None:
    fill(root, ["a.jpg"])
    with pytest.raises(InputError, match="patterns are not expanded"):
        list_entries(f"{root}/*.jpg")


def test_a_missing_prefix_in_a_bucket_that_has_others_is_named(root: str) -> None:
    fill(root, ["a.jpg"])
    with pytest.raises(InputError, match=r"missing: no such .*folder"):
        list_entries(join_uri(root, "missing"))


def test_a_missing_bucket_is_named(s3: Callable[[str], str]) -> None:
    with pytest.raises(InputError) as error:
        list_entries("s3://there-is-no-such-bucket/images")
    message = "cannot list s3://there-is-no-such-bucket/images: no such bucket or key"
    assert str(error.value) == message


def test_a_folder_with_nothing_in_it_lists_nothing(tmp_path: Path) -> None:
    assert list_entries(str(tmp_path)) == []


def test_a_bucket_and_a_prefix_with_nothing_in_them_list_nothing(s3: Callable[[str], str]) -> None:
    root = s3("listing-empty")
    assert list_entries(root) == []
    boto3.client("s3").put_object(Bucket="listing-empty", Key="images/")
    assert list_entries(root + "/images") == []


class _Hesitant(Server):
    """A bucket of three keys that says 200 to its first request, and then sends an error."""

    requests = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            self.requests += 1
            body = b"<Error><Code>InternalError</Code><Message>try again</Message></Error>"
            if self.requests > 1:
                body, _ = list_page(Keys(3, "flat"), "bucket", {})
            fields = [(b"Content-Length", b"%d" % len(body))]
            writer.write(Head(b"HTTP/1.1 200 OK", fields).to_bytes() + body)


class _Simple(Server):
    """A bucket of some keys as a store lists them that knows only a part of ListObjectsV2."""

    def __init__(self, keys: list[str], page_size: int = 1000, token: str = "") -> None:
        self._keys, self._page_size, self._token = keys, page_size, token

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            contents = "".join(
                f"<Contents><Key>{key}</Key><Size>1</Size></Contents>"
                for key in self._keys[: self._page_size]
            )
            truncated = str(self._page_size < len(self._keys)).lower()
            body = (
                "<ListBucketResult>"
                f"<IsTruncated>{truncated}</IsTruncated>{self._token}{contents}"
                "</ListBucketResult>"
            ).encode()
            fields = [(b"Content-Length", b"%d" % len(body))]
            writer.write(Head(b"HTTP/1.1 200 OK", fields).to_bytes() + body)


def test_a_store_that_does_not_encode_keys_lists_them_as_they_are(aws_environment: None) -> None:
    keys = ["a+b/50%20off+1.jpg", "a+b/c.jpg"]
    with _Simple(keys) as server, asking(server.url):
        assert listed("s3://bucket") == keys


@pytest.mark.parametrize("token", ["", "<NextContinuationToken/>"])
def test_a_listing_that_cannot_be_continued_is_no_whole_one(
    aws_environment: None, token: str
) -> None:
    with (
        _Simple(["a.jpg", "b.jpg", "c.jpg"], 2, token) as server,
        asking(server.url),
        pytest.raises(InputError, match="cannot list s3://bucket/") as caught,
    ):
        list_entries("s3://bucket")
    assert "more keys" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_error_behind_a_200_is_no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 documents it for long answers; taken for an empty page, it would lose a thousand keys."""
    with _Hesitant() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        forget_client()
        try:
            assert listed("s3://bucket") == [f"00000000{number}.jpg" for number in range(3)]
        finally:
            forget_client()
        assert server.requests == 2


class _Website(Server):
    """What is no S3 and says 200 to everything."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_head(reader):
            fields = [(b"Content-Length", b"%d" % len(self._body))]
            writer.write(Head(b"HTTP/1.1 200 OK", fields).to_bytes() + self._body)


@pytest.mark.parametrize("body", [b"<!doctype html><p>Welcome<br>to", b"", b"{}"])
def test_an_endpoint_that_is_no_s3_is_told(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    monkeypatch.setattr("segray.storage.objects.FIRST_PAUSE", 0.01)
    with _Website(body) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        forget_client()
        try:
            with pytest.raises(InputError, match=r"s3://bucket/folder: ") as caught:
                list_entries("s3://bucket/folder")
        finally:
            forget_client()
    assert "is no answer of S3: check AWS_ENDPOINT_URL" in str(caught.value)


def test_a_folder_that_this_user_may_not_read_is_not_passed_over(users_folder: Path) -> None:
    (users_folder / "a.jpg").write_bytes(b"")
    (users_folder / "shut").mkdir()
    (users_folder / "shut").chmod(0)
    try:
        with pytest.raises(InputError, match="check the permissions"):
            list_entries(str(users_folder))
    finally:
        (users_folder / "shut").chmod(0o700)


def test_a_name_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    """Parquet holds text: such a name could not be written into the manifest."""
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
    with pytest.raises(InputError, match="is not UTF-8: rename it") as caught:
        list_entries(str(tmp_path))
    assert str(caught.value).isascii()


def counted(root: Path) -> tuple[list[str], int, int, int]:
    """Keys that are listed, and how many files are hidden, unreadable and unseen."""
    pages = list(list_pages(Shard(str(root))))
    keys = [relative_key(str(root), entry.uri) for page in pages for entry in page.entries]
    counts = [
        sum(getattr(page, name) for page in pages) for name in ("hidden", "unreadable", "unseen")
    ]
    return keys, *counts


def test_in_pages_what_cannot_be_read_is_counted(users_folder: Path) -> None:
    """One odd file does not stop a run over a million others."""
    (users_folder / "b").mkdir()
    (users_folder / "b" / "a.jpg").write_bytes(b"")
    (users_folder / ".hidden.jpg").write_bytes(b"")
    Path(os.fsdecode(bytes(users_folder) + b"/caf\xe9.jpg")).write_bytes(b"x")
    (users_folder / "link.jpg").symlink_to("nothing.jpg")
    (users_folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(users_folder / "pipe")
    (users_folder / "shut").mkdir()
    (users_folder / "shut").chmod(0)
    try:
        assert counted(users_folder) == (["b/a.jpg"], 1, 4, 1)
    finally:
        (users_folder / "shut").chmod(0o700)


def test_a_file_that_vanishes_while_its_folder_is_listed_is_passed_over(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / f"{number:04}.jpg").write_bytes(b"")
    (tmp_path / "z").mkdir()
    pages = list_pages(Shard(str(tmp_path)))
    assert len(next(pages).entries) == 1000
    (tmp_path / "1000.jpg").unlink()
    (tmp_path / "z").rmdir()
    rest = list(pages)
    assert [(page.entries, page.unreadable) for page in rest] == [([], 0)]


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(root)
    assert [relative_key(str(root), e.uri) for e in list_entries(str(root))] == ["link/a.jpg"]
