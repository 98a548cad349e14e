"""Inventories: tables of objects that take the place of a listing."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segray.errors import InputError
from segray.storage.files import write_bytes
from segray.storage.inventory import open_inventory, read_part
from segray.storage.listing import Entry


def entries(uri: str) -> list[Entry]:
    return [e for part in open_inventory(uri) for some in read_part(part) for e in some]


def test_a_csv_of_uris(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text('uri,size,etag\ns3://b/x y/é,1.jpg,7,ab\n"s3://b/a,b.jpg",,\nsub/c.jpg,3,\n')
    # A name with a comma has to be quoted.
    with pytest.raises(InputError, match=r"images\.csv"):
        entries(str(table))
    table.write_text('uri,size,etag\n"s3://b/x y/é,1.jpg",7,"""ab"""\nsub/c.jpg,,\n')
    assert entries(str(table)) == [
        Entry("s3://b/x y/é,1.jpg", 7, "ab"),
        Entry(f"{tmp_path}/sub/c.jpg", None, ""),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("is_compressed", [False, True])
@pytest.mark.parametrize("place", ["local", "s3"])
def test_a_csv_of_another_country_s_spreadsheet(
    tmp_path: Path,
    s3: Callable[[str], str],
    place: str,
    is_compressed: bool,
    delimiter: str,
) -> None:
    """As --pairs takes them."""
    number = f"{ord(delimiter)}-{is_compressed}".lower()
    folder = s3(f"semicolons-{number}") if place == "s3" else str(tmp_path)
    lines = ["uri;label;size", "s3://b/a,b.jpg;x, y;7", '"s3://b/c;\td.jpg";;']
    lines[:2] = [line.replace(";", delimiter) for line in lines[:2]]
    lines[2] = lines[2].replace(";;", delimiter * 2)
    content = ("\ufeff" + "\r\n".join(lines)).encode()
    uri = f"{folder}/images.csv" + ".gz" * is_compressed
    write_bytes(uri, gzip.compress(content) if is_compressed else content)
    assert entries(uri) == [Entry("s3://b/a,b.jpg", 7, ""), Entry("s3://b/c;\td.jpg", None, "")]


@pytest.mark.parametrize("place", ["local", "s3"])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_columns_of_a_csv_that_are_not_wanted_may_hold_anything(
    tmp_path: Path, s3: Callable[[str], str], place: str, is_compressed: bool
) -> None:
    """Far behind the rows that a type would be guessed from."""
    folder = s3(f"wide-{is_compressed}".lower()) if place == "s3" else str(tmp_path)
    more = ",".join(f"column_{number}" for number in range(1000))
    rows = [f"{number:09}.jpg,5{',' * 1001}" for number in range(1100)]
    rows += ["x.jpg,unknown" + ",7" * 1001]
    # The first line is longer than what Python reads of a file at first.
    content = "\n".join([f"uri,width,{more},size", *rows]).encode()
    uri = f"{folder}/images.csv" + ".gz" * is_compressed
    write_bytes(uri, gzip.compress(content) if is_compressed else content)
    assert len(content) > 1 << 20
    found = entries(uri)
    assert len(found) == 1101
    assert found[-1] == Entry(f"{folder}/x.jpg", 7, "")


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        ("URI,ETag,Last Modified", "a.jpg,1,2026", "b.jpg,ab,never"),
        ('"Uri", E_Tag ,width', "a.jpg,1,2026", "b.jpg,ab,never"),
    ],
)
def test_wanted_columns_of_a_csv_are_text_however_they_are_spelled(
    tmp_path: Path, header: str, first: str, last: str
) -> None:
    table = tmp_path / "images.csv"
    table.write_text("\n".join([header, *[first] * 100_000, last]))
    found = entries(str(table))
    assert found[0] == Entry(f"{tmp_path}/a.jpg", None, "1")
    assert found[-1] == Entry(f"{tmp_path}/b.jpg", None, "ab")


def test_a_relative_path_that_begins_with_a_tilde_is_in_the_folder_of_the_table(
    tmp_path: Path,
) -> None:
    table = tmp_path / "images.csv"
    table.write_text("uri\n~$photo.jpg\n~backup/a.jpg\n~/b.jpg\n")
    names = ["~$photo.jpg", "~backup/a.jpg", "~/b.jpg"]
    assert [entry.uri for entry in entries(str(table))] == [f"{tmp_path}/{name}" for name in names]


def test_keys_of_digits_keep_their_zeros(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text("Bucket,Key,Size\nb,001,5\n7,002,\n")
    assert entries(str(table)) == [Entry("s3://b/001", 5, ""), Entry("s3://7/002", None, "")]


def test_sizes_of_which_some_are_missing_are_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text("uri,size\n/a.jpg,5.0\n/b.jpg,\n/c.jpg,3000000000.0\n")
    assert [entry.size for entry in entries(str(table))] == [5, None, 3_000_000_000]
    table.write_text("uri,size\n/a.jpg,5.5\n")
    with pytest.raises(InputError, match=r"the size '5\.5' is no number of bytes"):
        entries(str(table))


def test_a_folder_of_parquet_files_in_s3(s3: Callable[[str], str]) -> None:
    bucket = s3("inventories")
    for number in range(3):
        buffer = pa.BufferOutputStream()
        table = {"uri": [f"s3://b/{number}.jpg"], "size": [number], "etag": ["e"], "more": [1.5]}
        pq.write_table(pa.table(table), buffer)
        write_bytes(f"{bucket}/m/{number}.parquet", buffer.getvalue().to_pybytes())
    expected = [Entry(f"s3://b/{number}.jpg", number, "e") for number in range(3)]
    assert [part.of_s3 for part in open_inventory(f"{bucket}/m")] == [False] * 3
    assert entries(f"{bucket}/m") == expected


def test_an_inventory_of_s3_in_csv(tmp_path: Path) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html"""
    lines = [
        '"b","plain.jpg","5","0123","true","false"',
        '"b","a%2Bb+c%2F%C3%A9.jpg","6","4567","true","false"',
        '"b","old.jpg","7","89ab","false","false"',
        '"b","gone.jpg","","","true","true"',
    ]
    (tmp_path / "data").mkdir()
    with gzip.open(tmp_path / "data" / "1.csv.gz", "wt") as file:
        file.write("\n".join(lines))
    document = {
        "destinationBucket": "arn:aws:s3:::inventories",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, ETag, IsLatest, IsDeleteMarker",
        "files": [{"key": "data/1.csv.gz", "size": 1}],
    }
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(document))
    assert [part.of_s3 for part in open_inventory(str(manifest))] == [True]
    assert entries(str(manifest)) == [
        Entry("s3://b/plain.jpg", 5, "0123"),
        Entry("s3://b/a+b c/é.jpg", 6, "4567"),
    ]


def test_an_inventory_of_s3_in_parquet(s3: Callable[[str], str]) -> None:
    bucket = s3("inventory-parquet")
    table = {"bucket": ["b", "b"], "key": ["a%2Fb+c.jpg", "d.jpg"], "size": [1, 2]}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({**table, "e_tag": ["x", "y"]}), buffer)
    write_bytes(f"{bucket}/data/1.parquet", buffer.getvalue().to_pybytes())
    document = {
        "destinationBucket": f"arn:aws:s3:::{bucket.removeprefix('s3://')}",
        "fileFormat": "Parquet",
        "fileSchema": "message s3.inventory { required binary bucket; }",
        "files": [{"key": "data/1.parquet"}],
    }
    write_bytes(f"{bucket}/2026/manifest.json", json.dumps(document).encode())
    # Keys are encoded in CSV only.
    found = entries(f"{bucket}/2026/manifest.json")
    assert [part.of_s3 for part in open_inventory(f"{bucket}/2026/manifest.json")] == [True]
    assert found == [Entry("s3://b/a%2Fb+c.jpg", 1, "x"), Entry("s3://b/d.jpg", 2, "y")]


def test_uris_of_files_are_paths_and_unknown_ones_stay_for_their_row_of_errors(
    tmp_path: Path,
) -> None:
    table = tmp_path / "images.csv"
    table.write_text("uri\nfile:///data/a b.jpg\nhttps://host/a.jpg\ngs://b/c.jpg\n")
    uris = [entry.uri for entry in entries(str(table))]
    assert uris == ["/data/a b.jpg", "https://host/a.jpg", "gs://b/c.jpg"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"uri": [1, 2]}, "the column uri is of the type int64, and has to be text"),
        ({"uri": ["a"], "etag": [7]}, "the column etag is of the type int64, and has to be text"),
        ({"bucket": [b"b"], "key": [b"k"]}, "the column bucket is of the type binary"),
        ({"bucket": ["b"], "key": [None]}, "a row has no URI"),
        ({"uri": ["a"], "size": ["many"]}, "the size 'many' is no number of bytes"),
        ({"uri": ["a"], "size": [float("inf")]}, "the size inf is no number of bytes"),
        ({"uri": ["a"], "size": [{"bytes": 1}]}, "is no number of bytes"),
    ],
)
def test_columns_of_other_types_are_named(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"a\.parquet: .*{message}"):
        entries(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name\nx.jpg\n", "no column uri"),
        ("a.csv", "uri,size\nx.jpg,1\n,2\n", r"a\.csv: a row has no URI"),
        ("a.parquet", "no parquet", "a.parquet"),
        ("manifest.json", "{}", "no manifest.json of an S3 Inventory"),
        (
            "manifest.json",
            '{"destinationBucket": "b", "fileFormat": "ORC", "fileSchema": "x", "files": []}',
            "inventory in ORC",
        ),
    ],
)
def test_what_is_no_inventory_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        entries(str(tmp_path / name))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_inventory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv: no such file or folder"):
        entries(str(tmp_path / "nowhere.csv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.parquet file"):
        entries(str(tmp_path / "empty"))
