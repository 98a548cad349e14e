"""The plan: what the listing found, and which of it is still to be done."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segray.bulk.config import SegmentConfig
from segray.errors import InputError
from segray.model.bundle import Bundle, open_bundle
from segray.model.predictor import choose_engine, engine_file
from segray.pixels.decoding import SUFFIXES
from segray.storage.listing import Entry, list_entries
from segray.storage.sample import SAMPLE_FOLDER, write_sample
from segray.storage.tables import MANIFEST_SCHEMA, read_table, read_tables, table_uris, write_table
from segray.storage.uri import (
    absolute_uri,
    child_names,
    explain_errors,
    file_system,
    join_uri,
    remove,
)

_OWN_NAMES = {"manifest", "results", "errors", "run.json"}
_SETTINGS_KEY = b"segray"  # in the schema metadata of the manifest


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        config: of the run.
        engine: what runs the network.
        bundle: the model, with the file that the engine reads.
        output: the absolute URI of the output.
        listed: the ids of all images that the listing found.
        missing: those images with no row in results or errors yet, in the order of their URIs.
    """

    config: SegmentConfig
    engine: Literal["tensorflow", "onnx"]
    bundle: Bundle
    output: str
    listed: frozenset[int]
    missing: list[Entry]


def make_plan(config: SegmentConfig, tell: Callable[[str], None]) -> Plan:
    """Open the model, list the images, write the manifest, and find what is still to be done.

    Args:
        config: the flags of jobs/segment.py.
        tell: is called with lines for the user's terminal.

    Raises:
        InputError: something the user gave cannot be used.
    """
    output = absolute_uri(config.output)
    engine = choose_engine(config.engine, config.use_gpu)
    bundle = open_bundle(config.model, [engine_file(engine)])
    settings = {"model": bundle.digest, "mask_size": config.mask_size}
    _check_output(output, settings)
    entries = _list_images(_images_uri(config, tell), tell)[: config.limit]
    _check_ids(entries)
    _write_manifest(output, entries, settings)
    done = set(read_ids(output, "results"))
    if not config.retry_errors:
        done.update(read_ids(output, "errors"))
    missing = [entry for entry in entries if entry.id not in done]
    if len(missing) < len(entries):
        tell(f"{len(entries) - len(missing)} of them have a row from an earlier run")
    listed = frozenset(entry.id for entry in entries)
    return Plan(config, engine, bundle, output, listed, missing)


def read_ids(output: str, folder: str) -> Iterator[int]:
    """The ids of all rows in a folder of the output."""
    for table in read_tables(join_uri(output, folder), ["id"]):
        yield from table["id"].to_pylist()


def forget_errors(plan: Plan) -> None:
    """Delete the errors rows of images that are about to be tried again, and keep the others.

    Raises:
        InputError: a file cannot be read or written.
    """
    missing = pa.array([entry.id for entry in plan.missing], pa.int64())
    folder = join_uri(plan.output, "errors")
    for uri in table_uris(folder):
        table = read_table(uri)
        kept = table.filter(pc.invert(pc.is_in(table["id"], value_set=missing)))
        if not len(kept):
            remove(uri)
        elif len(kept) < len(table):
            write_table(uri, kept)


def _images_uri(config: SegmentConfig, tell: Callable[[str], None]) -> str:
    """What to segment: the sample images where none were named."""
    if config.images is not None:
        return absolute_uri(config.images)
    write_sample(SAMPLE_FOLDER, tell)
    return join_uri(absolute_uri(SAMPLE_FOLDER), "new")


def _list_images(images: str, tell: Callable[[str], None]) -> list[Entry]:
    entries = list_entries(images)
    chosen = [e for e in entries if PurePosixPath(e.uri).suffix.lower() in SUFFIXES]
    if not chosen:
        raise InputError(
            f"no image found below {images}: none of its {len(entries)} files ends in "
            f"{', '.join(SUFFIXES)}"
        )
    others = len(entries) - len(chosen)
    tell(f"found {len(chosen)} images" + (f"; {others} other files are left out" * bool(others)))
    return chosen


def _check_ids(entries: list[Entry]) -> None:
    uri_of: dict[int, str] = {}
    for entry in entries:
        other = uri_of.setdefault(entry.id, entry.uri)
        if other != entry.uri:
            raise InputError(f"{other} and {entry.uri} have the same 64-bit id: rename one of them")


def _write_manifest(output: str, entries: list[Entry], settings: dict[str, Any]) -> None:
    columns: dict[str, list[Any]] = {
        "id": [e.id for e in entries],
        "uri": [e.uri for e in entries],
        "size": [e.size for e in entries],
        "etag": [e.etag for e in entries],
    }
    schema = MANIFEST_SCHEMA.with_metadata({_SETTINGS_KEY: json.dumps(settings)})
    write_table(
        join_uri(output, "manifest", "part-00000.parquet"), pa.table(columns, schema=schema)
    )


def _check_output(output: str, settings: dict[str, Any]) -> None:
    """Refuse an output that is not a segmentation, or one with other settings."""
    foreign = [name for name in child_names(output) if name not in _OWN_NAMES]
    if foreign:
        raise InputError(
            f"{output} holds something that is no segmentation ({', '.join(foreign[:3])}): "
            "give another --output, or empty the folder"
        )
    for uri in table_uris(join_uri(output, "manifest")):
        with explain_errors(uri), file_system(uri).open(uri, "rb") as file:
            metadata = pq.read_schema(file).metadata or {}
        before = json.loads(metadata.get(_SETTINGS_KEY, b"{}"))
        for name, value in settings.items():
            if before.get(name) != value:
                raise InputError(
                    f"{output} was made with {name.replace('_', ' ')} {before.get(name)}, and this "
                    f"run has {value}: give another --output, or delete that folder"
                )
