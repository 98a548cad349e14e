"""The data set arrives whole: locally and in S3, at once and in several runs."""

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segray.data import oxford_pets
from segray.data.oxford_pets import OxfordPetsConfig, prepare_oxford_pets
from segray.data.pairs_table import read_manifest
from segray.errors import InputError
from segray.storage.files import read_bytes, remove, write_bytes
from segray.storage.listing import list_entries, relative_key
from tests.data.conftest import Mirror
from tests.support import encode, logged_lines

ROOT = Path(__file__).parent.parent.parent
TRAIN = [f"Abyssinian_{number}" for number in (10, 2, 33)]
TEST = [f"yorkshire_terrier_{number}" for number in (1, 200)]
# In the published archives some forty images are in none of the lists.
UNLISTED = "Birman_7"
FORK = b"\0\5\x16\7 Mac OS X"


def pack(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A .tar.gz of files, each a name and its content, and of other members as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def photograph(name: str) -> bytes:
    noise = np.random.default_rng(len(name)).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return encode(noise + np.uint8(sum(name.encode()) % 7), "JPEG", quality=98)


def trimap(name: str) -> bytes:
    noise = np.random.default_rng(sum(name.encode())).integers(1, 4, (60, 80), dtype=np.uint8)
    return encode(noise, "PNG")


@pytest.fixture
def images() -> dict[str, bytes | tarfile.TarInfo]:
    """The members of images.tar.gz, with what the published one has beside the images."""
    names = sorted([*TRAIN, *TEST, UNLISTED])
    files = {f"images/{name}.jpg": photograph(name) for name in names}
    return {"images": folder("images"), "images/Abyssinian_101.mat": b"MATLAB 5.0", **files}


@pytest.fixture
def annotations() -> dict[str, bytes | tarfile.TarInfo]:
    """The members of annotations.tar.gz, likewise."""
    names = sorted([*TRAIN, *TEST, UNLISTED])
    listed = [f"{name} 1 1 1\n" for name in [*TRAIN, *TEST]]
    return {
        "annotations": folder("annotations"),
        "annotations/README": b"for research purposes",
        "annotations/list.txt": ("#Image CLASS-ID SPECIES BREED ID\n" + "".join(listed)).encode(),
        **{f"annotations/trimaps/._{name}.png": FORK for name in names},
        **{f"annotations/trimaps/{name}.png": trimap(name) for name in names},
        "annotations/xmls/Abyssinian_10.xml": b"<annotation/>",
        "annotations/test.txt": "".join(listed[len(TRAIN) :]).encode(),
        "annotations/trainval.txt": "".join(listed[: len(TRAIN)]).encode(),
    }


@pytest.fixture
def serve(
    mirror: Mirror,
    tmp_path: Path,
    images: dict[str, bytes | tarfile.TarInfo],
    annotations: dict[str, bytes | tarfile.TarInfo],
) -> Callable[[], list[str]]:
    """Call it to put both archives on the mirror, and get the flags that fetch from there."""

    def pack_and_serve() -> list[str]:
        mirror.files = {"images.tar.gz": pack(images), "annotations.tar.gz": pack(annotations)}
        sums = [f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in mirror.files.items()]
        (tmp_path / "sums.txt").write_text("".join(sums))
        return [
            *("--url", mirror.url, "--checksums", str(tmp_path / "sums.txt")),
            *("--cache", str(tmp_path / "cache")),
        ]

    return pack_and_serve


def prepare(output: str, flags: list[str]) -> list[str]:
    """Prepare the data set, and get the lines that the job would print."""
    settings = {flag[2:]: value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    with logged_lines() as lines:
        prepare_oxford_pets(OxfordPetsConfig(output, **settings))
    return lines


def refusal(output: str, flags: list[str]) -> str:
    with pytest.raises(InputError) as caught:
        prepare(output, flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_complete(output: str) -> None:
    files = {relative_key(output, entry.uri) for entry in list_entries(output)}
    for name in [*TRAIN, *TEST]:
        assert read_bytes(f"{output}/images/{name}.jpg") == photograph(name)
        assert read_bytes(f"{output}/masks/{name}.png") == trimap(name)
        files -= {f"images/{name}.jpg", f"masks/{name}.png"}
    assert files == {"oxford-pets.txt", "pairs.csv"}
    rows = list(csv.DictReader(io.StringIO(read_bytes(f"{output}/pairs.csv").decode())))
    parts = [(name, "train") for name in TRAIN] + [(name, "test") for name in TEST]
    assert rows == [
        {"image": f"images/{name}.jpg", "mask": f"masks/{name}.png", "split": part}
        for name, part in parts
    ]


def test_to_a_local_folder(tmp_path: Path, serve: Callable[[], list[str]]) -> None:
    told = prepare(str(tmp_path / "pets"), serve())

    check_complete(str(tmp_path / "pets"))
    assert list((tmp_path / "pets").rglob(".*")) == []
    assert told[-1].startswith(f"{tmp_path}/pets/pairs.csv: 5 pairs")


def test_to_a_bucket(s3: Callable[[str], str], serve: Callable[[], list[str]]) -> None:
    output = s3("oxford-pets") + "/data/pets"

    prepare(output, serve())

    check_complete(output)


def test_training_can_read_the_pairs(tmp_path: Path, serve: Callable[[], list[str]]) -> None:
    output = str(tmp_path / "pets")
    prepare(output, serve())

    parts = read_manifest(f"{output}/pairs.csv")

    assert {pair.image for pair in parts["train"]} == {f"{output}/images/{n}.jpg" for n in TRAIN}
    assert {pair.mask for pair in parts["test"]} == {f"{output}/masks/{n}.png" for n in TEST}
    assert parts["validation"] == []


@pytest.mark.parametrize("prefix", ["", "./"])
def test_names_with_and_without_a_dot(
    prefix: str,
    tmp_path: Path,
    images: dict[str, bytes],
    serve: Callable[[], list[str]],
) -> None:
    for name in list(images):
        images[prefix + name] = images.pop(name)

    prepare(str(tmp_path / "pets"), serve())

    check_complete(str(tmp_path / "pets"))


def test_a_second_run_does_nothing(
    tmp_path: Path, mirror: Mirror, serve: Callable[[], list[str]]
) -> None:
    output, flags = str(tmp_path / "pets"), serve()
    prepare(output, flags)
    mirror.requests.clear()
    before = list_entries(output)

    told = prepare(output, flags)

    assert len(told) == 1
    assert "5 pairs: nothing to do" in told[0]
    assert list_entries(output) == before
    assert mirror.requests == []


@pytest.mark.parametrize("bucket", [None, "oxford-pets-again"])
def test_an_interrupted_run_goes_on(
    bucket: str | None,
    tmp_path: Path,
    mirror: Mirror,
    s3: Callable[[str], str],
    serve: Callable[[], list[str]],
) -> None:
    output, flags = s3(bucket) if bucket else str(tmp_path / "pets"), serve()
    prepare(output, flags)
    remove(f"{output}/pairs.csv")
    remove(f"{output}/images/{TRAIN[1]}.jpg")
    write_bytes(f"{output}/masks/{TEST[0]}.png", b"half")
    mirror.requests.clear()
    kept = {entry.uri: entry.etag for entry in list_entries(output)}

    told = prepare(output, flags)

    check_complete(output)
    assert mirror.requests == []
    new = {entry.uri for entry in list_entries(output) if kept.get(entry.uri) != entry.etag}
    if not bucket:  # the ETag of an object is of its content
        assert new == {
            f"{output}/{name}"
            for name in (
                *("oxford-pets.txt", "pairs.csv"),
                *(f"images/{TRAIN[1]}.jpg", f"masks/{TEST[0]}.png"),
            )
        }
    assert "annotations.tar.gz: 5 files, 4 of them there before" in told
    assert "images.tar.gz: 5 files, 4 of them there before" in told


def test_a_file_of_the_right_size_and_the_wrong_content_is_written_again(
    tmp_path: Path, serve: Callable[[], list[str]]
) -> None:
    """As a machine leaves it that loses power while it writes."""
    output, flags = str(tmp_path / "pets"), serve()
    prepare(output, flags)
    remove(f"{output}/pairs.csv")
    write_bytes(f"{output}/masks/{TEST[0]}.png", b"\0" * len(trimap(TEST[0])))

    told = prepare(output, flags)

    check_complete(output)
    assert "annotations.tar.gz: 5 files, 4 of them there before" in told
    assert "images.tar.gz: 5 files, 5 of them there before" in told


def test_no_pair_is_named_before_all_are_there(
    tmp_path: Path,
    mirror: Mirror,
    serve: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The manifest says that the output is complete, so it comes last."""
    output, flags = str(tmp_path / "pets"), serve()
    written: list[str] = []

    def full_disk(uri: str, content: bytes) -> None:
        if len(written) >= 8:
            raise InputError(f"cannot write {uri}: OSError: [Errno 28] No space left on device")
        written.append(uri)
        write_bytes(uri, content)

    with monkeypatch.context() as patch:
        patch.setattr(oxford_pets, "write_bytes", full_disk)
        assert "No space left" in refusal(output, flags)
    assert not (tmp_path / "pets" / "pairs.csv").exists()

    prepare(output, flags)

    check_complete(output)


def test_a_broken_download_goes_on(
    tmp_path: Path, mirror: Mirror, serve: Callable[[], list[str]]
) -> None:
    flags = serve()
    mirror.cuts = [None, 20_000]

    prepare(str(tmp_path / "pets"), flags)

    check_complete(str(tmp_path / "pets"))
    assert [r.range for r in mirror.requests] == [None, None, "bytes=20000-"]
    assert mirror.sent("images.tar.gz") == len(mirror.files["images.tar.gz"])


def test_listed_names_without_an_image_or_a_trimap_are_said(
    tmp_path: Path,
    images: dict[str, bytes],
    annotations: dict[str, bytes],
    serve: Callable[[], list[str]],
) -> None:
    del images[f"images/{TRAIN[0]}.jpg"], annotations[f"annotations/trimaps/{TEST[1]}.png"]

    told = prepare(str(tmp_path / "pets"), serve())

    assert f"1 of 5 listed names have no image, left out: {TRAIN[0]}" in told
    assert f"1 of 5 listed names have no trimap, left out: {TEST[1]}" in told
    lines = (tmp_path / "pets" / "pairs.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == [
        f"images/{name}.jpg" for name in (TRAIN[1], TRAIN[2], TEST[0])
    ]


def test_members_that_point_elsewhere_write_nothing(
    tmp_path: Path,
    images: dict[str, bytes | tarfile.TarInfo],
    serve: Callable[[], list[str]],
) -> None:
    outside = tmp_path / "outside.jpg"
    for name in (f"images/../../{outside.name}", str(outside), "images/a/../../../outside.jpg"):
        images[name] = b"hostile"
    link = tarfile.TarInfo("images/link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    images["images/link.jpg"] = link
    images["images/link.jpg/outside.jpg"] = b"hostile"

    prepare(str(tmp_path / "pets"), serve())

    check_complete(str(tmp_path / "pets"))
    assert {path.name for path in tmp_path.iterdir()} == {"pets", "cache", "sums.txt"}


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "..", "a/b", ".hidden", "a\0b"])
def test_a_list_that_names_paths(
    name: str, tmp_path: Path, annotations: dict[str, bytes], serve: Callable[[], list[str]]
) -> None:
    annotations["annotations/test.txt"] += f"{name} 1 1 1\n".encode()

    assert "annotations/test.txt" in refusal(str(tmp_path / "pets"), serve())
    assert not list(tmp_path.glob("pets/*/*"))


def test_an_image_of_both_parts(
    tmp_path: Path, annotations: dict[str, bytes], serve: Callable[[], list[str]]
) -> None:
    annotations["annotations/test.txt"] += f"{TRAIN[0]} 1 1 1\n".encode()

    assert f"lists {TRAIN[0]} more than once" in refusal(str(tmp_path / "pets"), serve())


def test_other_archives(
    tmp_path: Path,
    annotations: dict[str, bytes],
    images: dict[str, bytes],
    serve: Callable[[], list[str]],
) -> None:
    output = str(tmp_path / "pets")
    images.clear()
    assert "has no image with a trimap" in refusal(output, serve())
    del annotations["annotations/trainval.txt"]
    assert "has no annotations/trainval.txt" in refusal(output, serve())
    annotations.clear()
    assert "has no annotations/trainval.txt" in refusal(output, serve())


def test_the_published_sums_hold_for_a_mirror(
    tmp_path: Path, mirror: Mirror, serve: Callable[[], list[str]]
) -> None:
    flags = serve()
    del flags[2:4]

    message = refusal(str(tmp_path / "pets"), flags)

    assert f"{mirror.url}/annotations.tar.gz is not the file it should be" in message
    assert not list((tmp_path / "pets").rglob("*.png"))


@pytest.mark.parametrize("text", ["", "d41d8cd98f00b204e9800998ecf8427e  images.tar.gz\n"])
def test_sums_that_are_none(tmp_path: Path, serve: Callable[[], list[str]], text: str) -> None:
    flags = serve()
    (tmp_path / "sums.txt").write_text(text)

    assert "sums.txt has no SHA-256 of annotations.tar.gz" in refusal(str(tmp_path / "p"), flags)


def test_sums_as_sha256sum_writes_them(
    tmp_path: Path, mirror: Mirror, serve: Callable[[], list[str]]
) -> None:
    flags = serve()
    for name, content in mirror.files.items():
        (tmp_path / name).write_bytes(content)
    program = shutil.which("sha256sum")
    assert program
    command = [program, "-b", *map(str, sorted(tmp_path.glob("*.tar.gz")))]
    (tmp_path / "sums.txt").write_bytes(subprocess.check_output(command))

    prepare(str(tmp_path / "pets"), flags)

    check_complete(str(tmp_path / "pets"))


def test_an_output_that_cannot_be_written_costs_no_download(
    users_folder: Path, mirror: Mirror
) -> None:
    users_folder.chmod(0o500)

    message = refusal(f"{users_folder}/pets", ["--url", mirror.url])

    assert f"cannot write {users_folder}/pets/" in message
    assert mirror.requests == []


def test_a_bucket_that_is_not_there(
    aws_environment: None, mirror: Mirror, serve: Callable[[], list[str]]
) -> None:
    assert "no such bucket" in refusal("s3://nobody-made-this/pets", serve())
    assert mirror.requests == []


def test_a_manifest_of_somebody_elses_is_left_alone(
    tmp_path: Path, serve: Callable[[], list[str]]
) -> None:
    (tmp_path / "pairs.csv").write_text("left,right\n")

    assert "choose another --output" in refusal(str(tmp_path), serve())
    assert (tmp_path / "pairs.csv").read_text() == "left,right\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": ""}, "--output is empty"),
        ({"url": ""}, "--url is empty"),
        ({"url": "https://user:secret@host/pets"}, "neither credentials"),
        ({"cache": "s3://bucket/cache"}, "--cache s3://bucket/cache is not local"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        OxfordPetsConfig(**{"output": "pets", **settings})
    assert "secret" not in str(caught.value)


def test_the_cache_is_where_the_desktop_keeps_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert OxfordPetsConfig("pets").cache_folder == tmp_path / ".cache" / "segray"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert OxfordPetsConfig("pets").cache_folder == tmp_path / ".cache" / "segray"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert OxfordPetsConfig("pets").cache_folder == Path("/caches/segray")
    assert OxfordPetsConfig("pets", cache="/here").cache_folder == Path("/here")


def run_job(*flags: str, cwd: Path, limit: str = "") -> "subprocess.CompletedProcess[str]":
    """Run jobs/prepare.py, with a command for the shell before it."""
    script = f'{limit} exec "$@"'
    return subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, str(ROOT / "jobs" / "prepare.py"), *flags],
        cwd=cwd,
        env={**os.environ, "HOME": str(cwd), "XDG_CACHE_HOME": "", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_job(tmp_path: Path, serve: Callable[[], list[str]]) -> None:
    result = run_job("oxford-pets", "--output", "my pets", *serve()[:4], cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    check_complete(str(tmp_path / "my pets"))
    assert (tmp_path / ".cache" / "segray" / "oxford-pets").is_dir()
    assert result.stdout.splitlines()[-1] == (
        f"  python jobs/train.py --pairs '{tmp_path}/my pets/pairs.csv' "
        "--classes pet=1 background=2 border=3"
    )


def test_the_job_says_what_is_wrong(
    tmp_path: Path, mirror: Mirror, serve: Callable[[], list[str]]
) -> None:
    flags = serve()
    del mirror.files["images.tar.gz"]

    result = run_job("oxford-pets", "--output", "pets", *flags, cwd=tmp_path)

    assert result.returncode == 1
    assert result.stderr == (
        f"error: cannot fetch {mirror.url}/images.tar.gz (HTTP 404 Not Found): check --url\n"
    )


def test_the_job_says_that_the_disk_is_full(
    tmp_path: Path, images: dict[str, bytes], serve: Callable[[], list[str]]
) -> None:
    """A file that may not grow any more stands for a disk without room."""
    images["images/noise.mat"] = os.urandom(300_000)

    flags = ["oxford-pets", "--output", "pets", *serve()]
    result = run_job(*flags, cwd=tmp_path, limit="ulimit -f 200;")

    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "cannot write" in result.stderr
    assert "images.tar.gz.partial" in result.stderr
    result = run_job(*flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    check_complete(str(tmp_path / "pets"))


def test_the_job_without_flags_says_how_it_is_used(tmp_path: Path) -> None:
    result = run_job(cwd=tmp_path)
    assert result.returncode == 2
    assert "oxford-pets" in result.stderr
    result = run_job("oxford-pets", cwd=tmp_path)
    assert result.returncode == 2
    assert "--output" in result.stderr
