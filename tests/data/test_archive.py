"""An archive of unknown origin is read, or refused on one line; it writes nothing anywhere."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from segray.data import archive
from segray.data.archive import read_members
from segray.errors import InputError


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header and its content as they stand in an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = "/etc/passwd"
    return info.tobuf() + content + bytes(-len(content) % 512)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.tar.gz"


def contents(path: Path) -> dict[str, bytes]:
    return {found.name: found.read() for found in read_members(path)}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        contents(path)
    message = str(caught.value)
    assert message.startswith(f"cannot unpack {path}: ")
    assert "\n" not in message
    return message


def test_reads_files_of_every_size(path: Path) -> None:
    files = {f"images/{size}": bytes([size % 251]) * size for size in (0, 1, 511, 512, 513, 99999)}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    assert contents(path) == files
    assert [found.size for found in read_members(path)] == [len(c) for c in files.values()]


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_long_names(path: Path, kind: int) -> None:
    name = "images/" + 50 * "long_" + ".jpg"
    with tarfile.open(path, "w:gz", format=kind) as tar:
        tar.addfile(tarfile.TarInfo(name))

    assert contents(path) == {name: b""}


def test_leaves_out_what_is_no_plain_file(path: Path) -> None:
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    others = b"".join(member(f"images/{kind!r}", kind=kind) for kind in kinds)
    path.write_bytes(gzip.compress(others + member("./images/a.jpg", b"pixels") + bytes(1024)))

    assert contents(path) == {"images/a.jpg": b"pixels"}


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_archive(path: Path, keep: float) -> None:
    whole = gzip.compress(b"".join(member(f"{i}", bytes(range(256)) * 40) for i in range(9)))
    path.write_bytes(whole[: int(keep * len(whole))])

    refusal(path)


# A gzip file holds the time: tests that run side by side want names that do not.
@pytest.mark.parametrize(
    "content",
    [b"<html>Please log in</html>", gzip.compress(b"no tar" * 999)],
    ids=["a page", "no tar"],
)
def test_what_is_no_archive(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert "no sound .tar.gz" in refusal(path)


def test_a_cut_member(path: Path) -> None:
    path.write_bytes(gzip.compress(member("images/a.jpg", bytes(5000))[:3000]))

    assert "end of data" in refusal(path)


def test_a_file_that_would_fill_the_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE", 100_000)
    path.write_bytes(gzip.compress(member("images/a.jpg", bytes(200_000))))

    assert "images/a.jpg" in refusal(path)
