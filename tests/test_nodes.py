"""What is waited for, in words, and whether a node sees a job's files."""

import socket
from pathlib import Path

import pytest

from segray.errors import InputError
from segray.nodes import SharedFiles, first_files, waiting_line


def test_files_that_are_as_they_were_are_seen(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"12345")
    SharedFiles.of({"--images": str(tmp_path / "image.jpg")}).check()


@pytest.mark.parametrize("content", [None, b"another"], ids=["gone", "another"])
def test_a_folder_of_the_same_name_elsewhere_is_told_apart(
    tmp_path: Path, content: bytes | None
) -> None:
    """As on a node with a disk of its own."""
    file = tmp_path / "image.jpg"
    file.write_bytes(b"12345")
    shared = SharedFiles.of({"--images": str(file), "--output": "s3://bucket/run.lock"})
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        shared.check()
    for part in ("--images", str(tmp_path), socket.gethostname(), "S3"):
        assert part in str(refused.value)


def test_what_is_in_s3_or_nowhere_needs_no_look(tmp_path: Path) -> None:
    files = {"--images": "s3://bucket/a.jpg", "--pairs": None, "--masks": str(tmp_path / "none")}
    SharedFiles.of(files).check()


def test_files_of_a_folder_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "c/0.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".index").touch()
    files = [str(tmp_path / name) for name in ("b/1.jpg", "b/2.jpg", "c/0.jpg")]
    assert first_files(str(tmp_path)) == files
    assert first_files(str(tmp_path / "nothing")) == []


def test_a_file_that_is_deleted_while_the_job_runs_does_not_end_it(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.jpg" for number in range(2)]
    for file in files:
        file.write_bytes(b"12345")
    shared = SharedFiles.of({"--images": [str(file) for file in files]})
    files[0].unlink()
    shared.check()
    files[1].unlink()
    with pytest.raises(InputError):
        shared.check()


@pytest.mark.usefixtures("ray_session")
def test_a_line_says_which_node_lacks_what() -> None:
    line = waiting_line("2 workers", {"CPU": 4.0})
    assert "2 workers" in line
    assert "4 CPUs" in line
    assert f"{socket.gethostname()} has " in line
    assert "of 2 CPUs free" in line
    nowhere = waiting_line("a worker", {"CPU": 1.0, "TPU": 1.0})
    assert "no node has" in nowhere
    assert "TPU" in nowhere
