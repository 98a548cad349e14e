"""Manifest: the pairs that a user's table lists, or the row that cannot be one."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.data.pairs import Pair
from segray.data.pairs_table import read_manifest
from segray.errors import InputError
from segray.storage.files import write_bytes

ROWS = {
    "image": ["photos/b.jpg", "photos/a.jpg", "photos/c.jpg"],
    "mask": ["masks/b.png", "masks/a.png", "masks/c.png"],
    "split": ["train", "train", "test"],
}


def as_csv(table: dict[str, list[Any]], delimiter: str = ",") -> bytes:
    lines = [list(table), *zip(*table.values(), strict=True)]
    return "".join(delimiter.join(line) + "\n" for line in lines).encode()


def as_parquet(table: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, **options)
    return buffer.getvalue()


def refusal(uri: str) -> str:
    """What a user is told of a manifest."""
    with pytest.raises(InputError) as caught:
        read_manifest(uri)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], str]:
    """Call it with a content to make a manifest of it, and get its URI."""

    def write_manifest(content: bytes) -> str:
        (tmp_path / "pairs").write_bytes(content)
        return str(tmp_path / "pairs")

    return write_manifest


def test_of_several_tables_the_last_mask_counts(tmp_path: Path) -> None:
    """As a corrected one does, beside the pairs of an earlier training."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("old")
    old = {
        "image": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        "mask": ["a.png", "b.png", "c.png", "d.png"],
        "split": ["train", "val", "val", "train"],
    }
    new = {
        "image": ["../old/a.jpg", "../link/b.jpg", "a.jpg"],
        "mask": ["masks/a.png", "masks/b.png", "masks/c.png"],
    }
    tables = [str(tmp_path / "old" / "pairs.csv"), str(tmp_path / "new" / "pairs.csv")]
    for uri, table in zip(tables, (old, new), strict=True):
        Path(uri).write_bytes(as_csv(table))

    parts = read_manifest(*tables)

    assert {pair.image: pair.mask for pair in parts["train"]} == {
        f"{tmp_path}/old/a.jpg": f"{tmp_path}/new/masks/a.png",
        f"{tmp_path}/old/d.jpg": f"{tmp_path}/old/d.png",
        f"{tmp_path}/new/a.jpg": f"{tmp_path}/new/masks/c.png",
    }
    # What the scores are of is never learned from.
    assert {pair.image: pair.mask for pair in parts["validation"]} == {
        f"{tmp_path}/link/b.jpg": f"{tmp_path}/new/masks/b.png",
        f"{tmp_path}/old/c.jpg": f"{tmp_path}/old/c.png",
    }
    assert len({pair.key for part in parts.values() for pair in part}) == 5


def test_keys_of_several_tables_move_with_their_folders(tmp_path: Path) -> None:
    keys = []
    for root in (tmp_path / "here", tmp_path / "there"):
        tables = []
        for name in ("old", "new"):
            (root / name).mkdir(parents=True)
            tables.append(str(root / name / "pairs.csv"))
            table = {"image": [f"{name}.jpg"], "mask": [f"{name}.png"]}
            Path(tables[-1]).write_bytes(as_csv(table))
        keys.append([pair.key for pair in read_manifest(*tables)["train"]])
    assert keys[0] == keys[1] == ["new", "old"]


@pytest.mark.parametrize("encode", [as_csv, as_parquet])
@pytest.mark.parametrize("store", ["local", "s3"])
def test_paths_are_relative_to_the_manifests_folder(
    store: str,
    encode: Callable[[dict[str, list[Any]]], bytes],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    folder = str(tmp_path)
    if store == "s3":
        folder = request.getfixturevalue("s3")(f"manifest-{encode.__name__.replace('_', '-')}")
    for place in (folder, f"{folder}/deep/er"):
        write_bytes(f"{place}/pairs", encode(ROWS))
        assert read_manifest(f"{place}/pairs") == {
            "train": [
                Pair("photos/a", f"{place}/photos/a.jpg", f"{place}/masks/a.png"),
                Pair("photos/b", f"{place}/photos/b.jpg", f"{place}/masks/b.png"),
            ],
            "validation": [],
            "test": [Pair("photos/c", f"{place}/photos/c.jpg", f"{place}/masks/c.png")],
        }


def test_a_manifest_is_found_by_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pairs.csv").write_bytes(as_csv(ROWS))
    monkeypatch.chdir(tmp_path)
    assert read_manifest("pairs.csv") == read_manifest(str(tmp_path / "pairs.csv"))
    assert read_manifest("pairs.csv")["test"][0].image == f"{tmp_path}/photos/c.jpg"


@pytest.mark.parametrize(
    ("folder", "path", "uri"),
    [
        ("/data/sets", "/photos/a.jpg", "/photos/a.jpg"),
        ("/data/sets", "../photos/./a.jpg", "/data/photos/a.jpg"),
        ("/data/sets", "s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("/data/sets", "file:///photos/a.jpg", "/photos/a.jpg"),
        ("/data/sets", "50% off #1?.jpg", "/data/sets/50% off #1?.jpg"),
        ("/data/sets", " a.jpg", "/data/sets/ a.jpg"),
        ("s3://bucket/sets", "/photos/a.jpg", "/photos/a.jpg"),
        ("s3://bucket/sets", "../photos/./a.jpg", "s3://bucket/photos/a.jpg"),
        ("s3://bucket/sets", "s3://other/a//b.jpg", "s3://other/a//b.jpg"),
    ],
)
def test_absolute_paths_stand_for_themselves(
    folder: str, path: str, uri: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if folder.startswith("s3://"):
        bucket = request.getfixturevalue("s3")("manifest-absolute")
        manifest, expected = f"{bucket}/sets/pairs", uri.replace("s3://bucket", bucket)
    else:
        # The tests' /data is a temporary folder.
        manifest, expected = f"{tmp_path}/data/sets/pairs", uri.replace("/data", f"{tmp_path}/data")
    write_bytes(manifest, as_parquet({"image": [path], "mask": [f"{path}.png"]}))
    (pair,) = read_manifest(manifest)["train"]
    assert (pair.image, pair.mask) == (expected, f"{expected}.png")


def test_without_splits_all_is_for_training(write: Callable[[bytes], str]) -> None:
    del (table := dict(ROWS))["split"]
    parts = read_manifest(write(as_csv(table)))
    assert {split: len(pairs) for split, pairs in parts.items()} == {
        "train": 3,
        "validation": 0,
        "test": 0,
    }


@pytest.mark.parametrize(
    ("written", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("validation", "validation"),
        ("valid", "validation"),
        ("VAL", "validation"),
        ("test", "test"),
        (" testing ", "test"),
    ],
)
def test_a_split_may_be_written_as_is_usual(
    written: str, split: str, write: Callable[[bytes], str]
) -> None:
    table = {"image": ["a.jpg"], "mask": ["a.png"], "split": [written]}
    assert [pair.key for pair in read_manifest(write(as_csv(table)))[split]] == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + as_csv(ROWS).replace(b"\n", b"\r\n"),  # Excel's CSV UTF-8
        as_csv(ROWS, ";"),
        as_csv(ROWS, "\t"),
        as_csv(ROWS, ", "),
        as_csv(ROWS, " ,").replace(b"\n", b" \t\n"),
        as_csv(ROWS) + b"   ",
        as_csv(ROWS).replace(b"\n", b"\n\n"),
        as_csv(ROWS).rstrip(),
        as_csv({"id": ["1", "2", "3"], **dict(reversed(ROWS.items()))}),
        as_parquet({**ROWS, "id": [1, 2, 3]}),
        as_parquet(ROWS, row_group_size=1, compression="zstd"),
        as_parquet({name: pa.array(cells).dictionary_encode() for name, cells in ROWS.items()}),
        as_parquet({name: pa.array(cells, pa.large_string()) for name, cells in ROWS.items()}),
    ],
    ids=[
        *("Excel", "semicolons", "tabs", "spaces", "spaces after"),
        *("a last line of spaces", "blank lines", "no last line end"),
        *("more columns", "typed", "row groups", "categories", "large strings"),
    ],
)
def test_every_usual_way_to_write_a_table_is_read(
    content: bytes, write: Callable[[bytes], str]
) -> None:
    expected = read_manifest(write(as_csv(ROWS)))
    assert [pair.key for pair in expected["train"]] == ["photos/a", "photos/b"]
    assert read_manifest(write(content)) == expected


def test_a_quoted_name_may_have_a_comma(write: Callable[[bytes], str], tmp_path: Path) -> None:
    (pair,) = read_manifest(write('image,mask\n"a, été.jpg","a ""x"".png"\n'.encode()))["train"]
    assert pair == Pair("a, été", f"{tmp_path}/a, été.jpg", f'{tmp_path}/a "x".png')


@pytest.mark.parametrize("store", ["local", "s3"])
def test_a_folder_of_parquet_files_is_one_manifest(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue("s3")("manifest-folder") if store == "s3" else str(tmp_path)
    folder = f"{root}/pairs"
    for number, name in enumerate("ba"):
        table = {"image": [f"{name}.jpg"], "mask": [f"{name}.png"]}
        write_bytes(f"{folder}/part-{number}.parquet", as_parquet(table))
    write_bytes(f"{folder}/_SUCCESS", b"")
    assert read_manifest(folder)["train"] == [
        Pair("a", f"{folder}/a.jpg", f"{folder}/a.png"),
        Pair("b", f"{folder}/b.jpg", f"{folder}/b.png"),
    ]
    write_bytes(f"{folder}/part-2.parquet", as_parquet({"image": ["b.jpg"], "mask": ["c.png"]}))
    message = refusal(folder)
    assert message.startswith(f"{folder}/part-2.parquet, row 1: the image {folder}/b.jpg")
    assert f"{folder}/part-0.parquet, row 1" in message


def keys(folder: Path, images: list[str]) -> list[str]:
    (folder / "pairs").write_bytes(as_csv({"image": images, "mask": ["mask.png"] * len(images)}))
    return [pair.key for pair in read_manifest(str(folder / "pairs"))["train"]]


def test_keys_are_short_and_never_the_same(tmp_path: Path) -> None:
    assert keys(tmp_path, ["x/a.jpg", "y/a.jpg"]) == ["x/a", "y/a"]
    assert keys(tmp_path, ["/x/a.jpg", "s3://b/a.jpg"]) == ["/x/a", "s3://b/a"]
    assert keys(tmp_path, ["a.jpg", "a.png", "a.jpg.tif"]) == ["a.jpg", "a.jpg.tif", "a.png"]


def test_keys_move_with_the_folder(tmp_path: Path) -> None:
    for folder in (tmp_path / "old", tmp_path / "new"):
        folder.mkdir()
        assert keys(folder, ["x/a.jpg", "./x/../b.jpg"]) == ["b", "x/a"]


def test_the_order_of_the_rows_does_not_matter(write: Callable[[bytes], str]) -> None:
    turned = {name: cells[::-1] for name, cells in ROWS.items()}
    assert read_manifest(write(as_csv(ROWS))) == read_manifest(write(as_csv(turned)))


def test_images_may_share_a_mask(write: Callable[[bytes], str]) -> None:
    table = {"image": ["a.jpg", "b.jpg"], "mask": ["empty.png", "empty.png"]}
    assert len(read_manifest(write(as_csv(table)))["train"]) == 2


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "has no column called image"),
        (b"image,mask\n", "lists no pairs"),
        (
            as_parquet({"image": pa.array([], pa.string()), "mask": pa.array([], pa.string())}),
            "no pairs",
        ),
        (b"photos/a.jpg,masks/a.png\n", "what is there: 'photos/a.jpg', 'masks/a.png'"),
        (b"image,label\na.jpg,a.png\n", "has no column called mask"),
        (as_parquet({"Image": ["a"], "mask": ["b"]}), "has no column called image"),
        (b"image,mask,image\na.jpg,a.png,b.jpg\n", "has 2 columns called image"),
        (b"image,mask\na.jpg,a.png\n,b.png\n", "line 3: the cell image is empty: fill it in"),
        (b"image,mask\na.jpg,  \n", "line 2: the cell mask is empty"),
        (b"image,mask,split\na.jpg,a.png,\n", "line 2: the cell split is empty"),
        (as_parquet({"image": ["a", "b"], "mask": ["a", None]}), "row 2: the cell mask is empty"),
        (as_parquet({"image": [" "], "mask": ["a"]}), "row 1: the cell image is empty"),
        (as_parquet({"image": ["a"], "mask": pa.nulls(1)}), "row 1: the cell mask is empty"),
        (as_parquet({"image": [1], "mask": ["a"]}), "column image is of the type int64"),
        (as_parquet({"image": ["a"], "mask": [b"a"]}), "column mask is of the type binary"),
        (
            as_parquet({"image": [{"bytes": b"", "path": "a"}], "mask": ["a"]}),
            "column image is of the type struct",
        ),
        (b"image,mask,split\na,b,train\n\nc,d,dev\n", "line 4: the split 'dev' is not known"),
        (as_parquet({"image": ["a"], "mask": ["b"], "split": ["0"]}), "row 1: the split '0'"),
        (b"image,mask\na.jpg\n", "line 2: has 1 cells under 2 column names"),
        (b"image,mask\na, b.jpg,a.png\n", "line 2: has 3 cells under 2 column names"),
        (b'image,mask\n"a.jpg,a.png\nb.jpg,b.png\n', "check the quotes"),
        (b'image,mask\n"a.jpg,\na.png",b.png\n', "line 3: the cell image has several lines"),
        (as_parquet({"image": ["a"], "mask": ["b\nc"]}), "row 1: the cell mask has several lines"),
        (b"image,mask\na\0.jpg,a.png\n", "line 2: the cell image has a zero byte"),
        (as_parquet({"image": ["a"], "mask": ["b\0"]}), "row 1: the cell mask has a zero byte"),
        ("image,mask\na.jpg,a.png\n".encode("utf-16"), "neither a Parquet file nor a CSV"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "neither a Parquet file nor a CSV"),
        (b"image,mask\ngs://b/a.jpg,a.png\n", "line 2: gs://"),
        (b"image,mask\na.jpg,s3://\n", "line 2: s3:// names no bucket"),
        (as_parquet(ROWS)[:-20], "no readable Parquet file"),
        (b"PAR1" + b"x" * 100 + b"PAR1", "no readable Parquet file"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_place(
    content: bytes, named: str, write: Callable[[bytes], str]
) -> None:
    uri = write(content)
    message = refusal(uri)
    assert message.startswith(uri)
    assert named in message


def test_an_image_that_is_listed_twice_is_refused_with_both_rows(
    write: Callable[[bytes], str], tmp_path: Path
) -> None:
    uri = write(b"image,mask,split\na.jpg,a.png,train\nb.jpg,b.png,train\n./a.jpg,c.png,test\n")
    message = refusal(uri)
    assert message.startswith(f"{uri}, line 4: the image {tmp_path}/a.jpg is listed before")
    assert f"in {uri}, line 2" in message


@pytest.mark.parametrize("images", [["a.png", "b.png"], ["c.png", "a.png"]])
def test_a_file_that_is_image_and_mask_is_refused_with_both_rows(
    write: Callable[[bytes], str], images: list[str]
) -> None:
    message = refusal(write(as_csv({"image": images, "mask": ["a.png", "m.png"]})))
    assert "a.png" in message
    assert "line 2" in message
    assert ("line 3" in message) == (images[0] == "c.png")


def test_a_file_called_parquet_is_not_taken_for_a_csv(tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_bytes(as_csv(ROWS))
    assert "pairs.parquet is no readable Parquet file" in refusal(str(tmp_path / "pairs.parquet"))


@pytest.mark.parametrize("name", ["nowhere.csv", "nowhere"])
@pytest.mark.parametrize("store", ["local", "s3"])
def test_a_manifest_that_is_not_there_is_named(
    name: str, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue("s3")("manifest-none") if store == "s3" else str(tmp_path)
    assert refusal(f"{folder}/{name}").startswith(f"cannot read {folder}/{name}: no such")


def test_a_folder_without_tables_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_bytes(as_csv(ROWS))
    message = refusal(str(tmp_path))
    assert message.startswith(f"{tmp_path} lists no pairs: give --pairs a CSV or Parquet file")


@pytest.mark.parametrize("encode", [as_csv, as_parquet])
def test_a_hundred_thousand_rows_take_seconds_at_most(
    encode: Callable[[dict[str, list[Any]]], bytes], write: Callable[[bytes], str]
) -> None:
    numbers = range(100_000)
    table = {
        "image": [f"images/{i % 100}/photo_{i}.jpg" for i in numbers],
        "mask": [f"masks/{i % 100}/photo_{i}.png" for i in numbers],
        "split": [("train", "val")[i % 2] for i in numbers],
    }
    uri = write(encode(table))
    started = time.process_time()
    parts = read_manifest(uri)
    # 1.3 s on one of two busy cores.
    assert time.process_time() - started < 5
    assert len(parts["train"]) == len(parts["validation"]) == 50_000


@pytest.mark.parametrize("mask", ["link/a.png", "all/link.png"])
def test_a_file_that_is_an_image_and_a_mask_by_a_link_is_refused(mask: str, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "all")
    (tmp_path / "all" / "link.png").symlink_to(tmp_path / "all" / "a.png")
    (tmp_path / "pairs.csv").write_text(f"image,mask\nall/a.png,{mask}\n")
    with pytest.raises(InputError, match=rf"{mask} is an image in .* and a mask in"):
        read_manifest(str(tmp_path / "pairs.csv"))
