"""Output folders: whose they are, and what they were started with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from segray.errors import InputError
from segray.storage.files import child_names, write_bytes
from segray.storage.lock import LOCK
from segray.storage.output import SETTINGS, Output


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path, s3: Callable[[str], str]) -> Output:
    folder = s3(f"output-{tmp_path.name[:30].lower().replace('_', '-')}")
    uri = f"{folder}/out" if request.param == "s3" else str(tmp_path / "out")
    return Output(uri, "survey", ("notes.txt",))


def test_settings_are_read_as_they_were_written(output: Output) -> None:
    assert output.read_settings({"size": list}) is None
    write_bytes(f"{output.uri}/{LOCK}", b"")
    write_bytes(f"{output.uri}/notes.txt", b"found before the start")
    assert output.read_settings({"size": list}) is None
    output.write_settings({"size": [3, 4], "model": None})
    assert output.read_settings({"size": list}) == {"size": [3, 4], "model": None}
    assert child_names(output.uri) == sorted([SETTINGS, "notes.txt", LOCK])


def test_a_folder_with_something_else_is_refused(output: Output) -> None:
    write_bytes(f"{output.uri}/thesis.tex", b"years of work")
    for look in (output.check, lambda: output.read_settings({})):
        with pytest.raises(InputError, match=r"no survey \(thesis\.tex\)") as refused:
            look()
        assert output.uri in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"model": 1}', b'{"size": 3}', b"\xff"])
def test_settings_that_are_damaged_or_of_another_program_are_refused(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / SETTINGS).write_bytes(content)
    with pytest.raises(InputError, match=SETTINGS):
        Output(str(tmp_path), "survey").read_settings({"size": list})


def test_what_is_added_later_is_refused_if_all_names_are_known(tmp_path: Path) -> None:
    for later in (None, ("results",)):
        output = Output(str(tmp_path), "survey", ("notes.txt",), later)
        output.write_settings({})
        (tmp_path / "results").mkdir(exist_ok=True)
        assert output.read_settings({}) == {}
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"no survey \(thesis\.tex\)"):
        output.read_settings({})


def test_another_setting_is_named_with_both_values(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--size 3 4, .* --size none: .*--overwrite"):
        Output(str(tmp_path), "survey").refuse("--size", [3, 4], None, "--overwrite")
    with pytest.raises(InputError, match=r"--flip, .* --no-flip:"):
        Output(str(tmp_path), "survey").refuse("--flip", True, False)
