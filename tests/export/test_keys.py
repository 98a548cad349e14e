"""Keys of exported files: inside the output, one for each image, and to be undone."""

import os
import random
from pathlib import Path
from urllib.parse import unquote

import pytest

from segray.errors import InputError
from segray.export.keys import Mirror, mirrored_key, source_key

LIMIT = 900


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("animals/cat.jpg", "animals/cat.jpg.png"),
        ("animals/cat.png", "animals/cat.png.png"),
        ("deep/er/Katze äöü 猫.jpg", "deep/er/Katze äöü 猫.jpg.png"),
        ("../../etc/passwd", "%2E./%2E./etc/passwd.png"),
        ("a/./b.jpg", "a/%2E/b.jpg.png"),
        (".hidden/.b.jpg", "%2Ehidden/%2Eb.jpg.png"),
        ("a//b.jpg", "a/%2Fb.jpg.png"),
        ("/a.jpg", "%2Fa.jpg.png"),
        ("a/", "a%2F.png"),
        ("a\\b.jpg", "a%5Cb.jpg.png"),
        ("a\0b\n\x7f.jpg", "a%00b%0A%7F.jpg.png"),
        ("50%.jpg", "50%25.jpg.png"),
        ("%2E%2E/x.jpg", "%252E%252E/x.jpg.png"),
        ("a.jpg?versionId=7", "a.jpg%3FversionId=7.png"),
        ("cat.jpg.png/dog.jpg", "cat.jpg%2Epng/dog.jpg.png"),
        ("config.json/dog.jpg", "config%2Ejson/dog.jpg.png"),
        ("run.lock/dog.jpg", "run%2Elock/dog.jpg.png"),
        ("-rf *.jpg", "-rf *.jpg.png"),
    ],
)
def test_a_key_is_the_source_s_own_but_for_what_is_dangerous(source: str, key: str) -> None:
    assert mirrored_key(source, ".png", LIMIT) == key
    assert unquote(key.removesuffix(".png")) == source


def test_keys_stay_inside_differ_and_can_be_undone() -> None:
    random_one = random.Random(7)
    alphabet = [
        "a",
        "A",
        ".",
        "..",
        "/",
        "//",
        "%",
        "%2F",
        "\\",
        "\0",
        "?",
        "\x85",
        "ä",
        ".png",
        "~",
    ]
    sources = {
        "".join(random_one.choice(alphabet) for _ in range(random_one.randint(1, 9)))
        for _ in range(20_000)
    }
    keys = {source: mirrored_key(source, ".png", LIMIT) for source in sources}
    assert len(set(keys.values())) == len(sources) > 10_000
    files = set(keys.values())
    for source, key in keys.items():
        assert unquote(key.removesuffix(".png")) == source
        assert os.path.normpath(f"/output/{key}") == f"/output/{key}"
        names = key.split("/")
        assert not any(name.startswith(".") for name in names)
        # No file is where another one needs a folder.
        assert not files & {"/".join(names[:depth]) for depth in range(1, len(names))}


def test_long_names_are_cut_and_still_differ(tmp_path: Path) -> None:
    long = "ä" * 200  # 400 bytes
    sources = [f"{long}1.jpg", f"{long}2.jpg", f"{long}1/x.jpg", f"{long}2/x.jpg", f"{'a' * 251}"]
    # As if somebody had given an image the name that another one is cut to.
    cut = mirrored_key(sources[0], ".png", LIMIT)
    sources.append(cut.removesuffix(".png"))
    keys = [mirrored_key(source, ".png", LIMIT) for source in sources]
    assert len(set(keys)) == len(keys)
    assert keys[4] == f"{'a' * 251}.png"
    for key in keys:
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert keys[0].startswith("ä" * 100)


def test_long_keys_are_cut_and_still_differ() -> None:
    deep = "/".join(["folder"] * 140)  # 979 bytes
    one, other = (mirrored_key(f"{deep}/{name}.jpg", ".png", LIMIT) for name in "ab")
    assert one != other
    for key in (one, other):
        assert len(key.encode()) <= LIMIT
        assert key.startswith("folder/folder/")
        assert key.endswith(".png")


def test_a_key_with_the_output_s_own_is_no_longer_than_s3_takes() -> None:
    output = "s3://bucket/" + "p" * 300
    mirror = Mirror.of_output(output, "s3://bucket/images", ".png")
    key = mirror.key("s3://bucket/images/" + "k" * 1000)
    assert key
    assert len(f"{'p' * 300}/{key}") <= 1024
    with pytest.raises(InputError, match="shorter --output"):
        Mirror.of_output("s3://bucket/" + "p" * 900, None, ".png")


@pytest.mark.parametrize(
    ("root", "uri", "source"),
    [
        ("s3://b/images", "s3://b/images/a/b.jpg", "a/b.jpg"),
        ("s3://b", "s3://b/a.jpg", "a.jpg"),
        ("/data/images", "/data/images/a/b.jpg", "a/b.jpg"),
        ("/data/images", "/data/images2/b.jpg", None),
        (None, "s3://b/a/b.jpg", "b/a/b.jpg"),
        (None, "/data/a/b.jpg", "data/a/b.jpg"),
    ],
)
def test_a_source_is_named_below_its_root(root: str | None, uri: str, source: str | None) -> None:
    assert source_key(root, uri) == source


def test_where_case_makes_no_difference_keys_of_one_file_have_one_digest(tmp_path: Path) -> None:
    """A link makes the folder answer to the other case too, as all of a Mac's folders do."""
    composed, decomposed = "\u00e9.png", "e\u0301.png"
    (tmp_path / "out").mkdir()
    mirror = Mirror.of_output(str(tmp_path / "out"), None, ".png")
    assert mirror.digest("A.png") != mirror.digest("a.png")
    assert mirror.digest(composed) != mirror.digest(decomposed)
    (tmp_path / "OUT").symlink_to("out")
    mirror = Mirror.of_output(str(tmp_path / "out"), None, ".png")
    assert mirror.digest("A.png") == mirror.digest("a.png")
    assert mirror.digest(composed) == mirror.digest(decomposed)
    assert mirror.digest("A.png") != mirror.digest("b.png")
