"""URIs: what names the same thing in every process, and what is none."""

from pathlib import Path

import pytest

from segray.errors import InputError
from segray.storage.s3 import split_uri
from segray.storage.uri import absolute_uri, describe_error, is_local, join_uri

POINT = "arn:aws:s3:us-west-2:123456789012:accesspoint/name"


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b"),
        ("s3://bucket//a", "bucket", "/a"),
        (f"s3://{POINT}", POINT, ""),
        (f"s3://{POINT}/a/b", POINT, "a/b"),
        (f"s3://{POINT}//a\nb", POINT, "/a\nb"),
        (f"s3://{POINT.replace('/', ':')}/a", POINT.replace("/", ":"), "a"),
        (
            "s3://arn:aws-cn:s3-outposts:cn-north-1:123456789012:outpost/op-1/accesspoint/name/a",
            "arn:aws-cn:s3-outposts:cn-north-1:123456789012:outpost/op-1/accesspoint/name",
            "a",
        ),
    ],
)
def test_the_arn_of_an_access_point_stands_for_a_bucket(uri: str, bucket: str, key: str) -> None:
    assert split_uri(uri) == (bucket, key)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("/data/images", "/data/images"),
        ("/data/images/", "/data/images"),
        ("/data/a b [1]%20?#", "/data/a b [1]%20?#"),
        ("file:///data/a b", "/data/a b"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3://bucket/user@host:1/a b%2F#?", "s3://bucket/user@host:1/a b%2F#?"),
        (f"s3://{POINT}", f"s3://{POINT}"),
        (f"s3://{POINT}/a/b/", f"s3://{POINT}/a/b"),
    ],
)
def test_an_absolute_uri_means_the_same_everywhere(given: str, meant: str) -> None:
    assert absolute_uri(given) == meant
    assert absolute_uri(meant) == meant


def test_relative_paths_and_the_home_folder_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert absolute_uri("a/b") == str(tmp_path / "a/b")
    assert absolute_uri(".") == str(tmp_path)
    assert absolute_uri("~/images") == "/home/someone/images"


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("gs://bucket/key", "gs://... is not supported: give a local path or s3://bucket/key"),
        ("https://user:hunter2@host/a.jpg", "https://... is not supported"),
        ("hdfs://host/a", "hdfs://... is not supported"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3://AKIAEXAMPLE:hunter2@bucket/key", "AWS_SECRET_ACCESS_KEY in the environment"),
        ("s3://AKIAEXAMPLE:hunt/er2@bucket/key", "AWS_SECRET_ACCESS_KEY in the environment"),
        ("s3://arn:aws:s3:::bucket/key", "give s3://bucket/key, or"),
        ("s3://arn:aws:s3:us-west-2:1:accesspoint/name/key", "of an access point"),
        (f"s3://AKIAEXAMPLE:hunter2@{POINT}/key", "AWS_SECRET_ACCESS_KEY in the environment"),
        ("s3://hunter2@bucket", "AWS_SECRET_ACCESS_KEY in the environment"),
    ],
)
def test_what_is_no_uri_is_refused_and_credentials_are_not_repeated(uri: str, advice: str) -> None:
    with pytest.raises(InputError) as refusal:
        absolute_uri(uri)
    message = str(refusal.value)
    assert advice in message
    assert "hunt" not in message
    assert "AKIAEXAMPLE" not in message


def test_paths_are_local_and_buckets_are_not() -> None:
    assert is_local("/data/images")
    assert not is_local("s3://bucket/images")


@pytest.mark.parametrize("uri", ["s3://bucket/a", "s3://bucket/a/", "/a", "/a/"])
def test_names_are_joined_by_single_slashes(uri: str) -> None:
    assert join_uri(uri, "b", "c.png") == uri.rstrip("/") + "/b/c.png"


def test_a_path_has_one_spelling(tmp_path: Path) -> None:
    """Ids of images hang on their URIs."""
    assert absolute_uri(f"{tmp_path}/a/../photos/") == absolute_uri(f"{tmp_path}/photos")


@pytest.mark.parametrize("password", ["hunter2", "p@ss:hunter2", "hunter2@", "@@hunter2@:"])
def test_a_password_in_an_error_is_left_out(password: str) -> None:
    error = OSError(f'Read timeout on endpoint URL: "https://user:{password}@minio:9000/b/k@2"')
    assert "hunter2" not in describe_error("s3://b/k", error)
    assert '"https://minio:9000/b/k@2"' in describe_error("s3://b/k", error)


def test_a_home_folder_that_is_unknown_is_told() -> None:
    with pytest.raises(InputError, match="~nouser/photos") as refusal:
        absolute_uri("~nouser/photos")
    assert len(str(refusal.value).splitlines()) == 1


def test_a_name_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("./~nouser/photos") == f"{tmp_path}/~nouser/photos"
