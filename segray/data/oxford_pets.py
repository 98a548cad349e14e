"""The Oxford-IIIT Pet data set: from its published archives to images, masks and pairs."""

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segray.data.archive import read_members
from segray.data.download import check_url, fetch
from segray.errors import InputError
from segray.progress import ProgressLine
from segray.storage.files import read_bytes, write_bytes
from segray.storage.listing import list_entries, relative_key
from segray.storage.parallel import map_ahead
from segray.storage.uri import absolute_uri, exists, is_local, join_uri

log = logging.getLogger(__name__)

#: The classes of the trimaps, in the form of --classes of jobs/train.py.
CLASSES = ("pet=1", "background=2", "border=3")

# Oxford's own address, which redirects to the server that currently has the files.
_URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
_IMAGES, _ANNOTATIONS = "images.tar.gz", "annotations.tar.gz"
# From TensorFlow Datasets (oxford_iiit_pet/checksums.tsv). The MD5 sums of these files are those in
# torchvision.datasets.OxfordIIITPet.
_SHA256 = {
    _IMAGES: "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
    _ANNOTATIONS: "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
}
# The published lists, and the splits that they become in pairs.csv.
_LISTS = {"annotations/trainval.txt": "train", "annotations/test.txt": "test"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_HEADER = "image,mask,split\n"
_NOTE = """\
The Oxford-IIIT Pet data set (Parkhi, Vedaldi, Zisserman, Jawahar: Cats and Dogs, CVPR 2012),
https://www.robots.ox.ac.uk/~vgg/data/pets/, as published under CC BY-SA 4.0; the copyright of the
images is their owners'. images/ and masks/ (1 pet, 2 background, 3 border) are unchanged, pairs.csv
has the published split: train is trainval.txt, test is test.txt.
"""
# Files written concurrently; with MAX_FILE this limits the memory they take.
_THREADS = 12


@dataclass(frozen=True)
class OxfordPetsConfig:
    """Fetch the Oxford-IIIT Pet data set: 7349 photographs of cats and dogs with their trimaps.

    Fetches images.tar.gz (792 MB) and annotations.tar.gz (19 MB), verifies them, and writes
    images/, masks/ and pairs.csv, which lists the pairs and the published split. If you run it
    again after an interruption, it resumes. Licence of the data: CC BY-SA 4.0. A URI is a local
    path or s3://bucket/key.
    """

    output: str
    """URI of the folder that receives images, masks and pairs.csv."""
    url: str = _URL
    """Address of a mirror's folder with the two archives. They must be the published ones, by their
    SHA-256, unless --checksums is given. Default: Oxford's own server."""
    checksums: str | None = None
    """URI of a file with the SHA-256 of both archives, in the format of sha256sum, if they are not
    the published ones. Make sure that you trust it: a mirror cannot vouch for itself."""
    cache: str | None = None
    """Local folder in which the archives, complete or not, are kept; default: segray in
    $XDG_CACHE_HOME or in ~/.cache."""

    def __post_init__(self) -> None:
        for name in ("output", "url", "checksums", "cache"):
            if getattr(self, name) == "":
                raise InputError(f"--{name} is empty")
        object.__setattr__(self, "url", check_url(self.url, "--url"))
        if self.cache is not None and not is_local(absolute_uri(self.cache)):
            raise InputError(f"--cache {self.cache} is not local: name a folder on this machine")

    @property
    def cache_folder(self) -> Path:
        """The local folder of the archives."""
        if self.cache is not None:
            return Path(absolute_uri(self.cache))
        home = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG Base Directory Specification requires that a relative path is ignored.
        return Path(home if Path(home).is_absolute() else Path.home() / ".cache") / "segray"


def prepare_oxford_pets(config: OxfordPetsConfig) -> str:
    """Fetch, verify and unpack the data set, unless it is complete.

    Args:
        config: the flags.

    Returns:
        The URI of pairs.csv, which is written last: a CSV file with the columns image, mask (paths
        relative to its folder) and split (train or test). Some forty images that the published
        lists lack are left out.

    Raises:
        InputError: an archive cannot be fetched, is not the expected one or cannot be read, or the
            output cannot be written.
    """
    output = absolute_uri(config.output)
    manifest = join_uri(output, "pairs.csv")
    if exists(manifest):
        text = read_bytes(manifest).decode(errors="replace")
        if not text.startswith(_HEADER):
            raise InputError(f"{manifest} is no manifest of this job: choose another --output")
        count = len(text.splitlines()) - 1
        log.info(
            f"{manifest} is there with {count} pairs: nothing to do; remove it to unpack again"
        )
        return manifest
    sums = _SHA256 if config.checksums is None else _read_sums(absolute_uri(config.checksums))
    # First, so that an output that cannot be written does not cost a download.
    write_bytes(join_uri(output, "oxford-pets.txt"), _NOTE.encode())

    annotations = _fetch(config, _ANNOTATIONS, sums)
    split = _read_split(annotations)
    masks = {f"annotations/trimaps/{name}.png": f"masks/{name}.png" for name in split}
    found = _unpack(annotations, masks, output)
    photographs = _fetch(config, _IMAGES, sums)
    images = {f"images/{name}.jpg": f"images/{name}.jpg" for name in split}
    found |= _unpack(photographs, images, output)

    lines = [
        f"images/{name}.jpg,masks/{name}.png,{part}\n"
        for name, part in split.items()
        if {f"images/{name}.jpg", f"masks/{name}.png"} <= found
    ]
    _report_incomplete(split, found)
    if not lines:
        raise InputError(f"{photographs} has no image with a trimap in {annotations}: check --url")
    write_bytes(manifest, (_HEADER + "".join(lines)).encode())
    log.info(f"{manifest}: {len(lines)} pairs; the archives stay in {config.cache_folder}")
    return manifest


def _read_sums(uri: str) -> dict[str, str]:
    lines = read_bytes(uri).decode(errors="replace").splitlines()
    matches = (re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:.*/)?([^/]+)", line) for line in lines)
    sums = {match[2]: match[1].lower() for match in matches if match}
    for name in (_ANNOTATIONS, _IMAGES):
        if name not in sums:
            raise InputError(
                f"{uri} has no SHA-256 of {name}: write it with sha256sum {_IMAGES} {_ANNOTATIONS}"
            )
    return sums


def _fetch(config: OxfordPetsConfig, name: str, sums: dict[str, str]) -> Path:
    # The checksum in the path separates a mirror's archives from the published ones.
    path = config.cache_folder / "oxford-pets" / sums[name][:16] / name
    fetch(f"{config.url}/{name}", path, sums[name])
    return path


def _read_split(annotations: Path) -> dict[str, str]:
    """Read the names in the published lists, in order, each with its split."""
    split: dict[str, str] = {}
    lists = {
        member.name: member.read().decode(errors="replace")
        for member in read_members(annotations)
        if member.name in _LISTS
    }
    for member, part in _LISTS.items():
        if member not in lists:
            raise InputError(f"{annotations} has no {member}: check --url")
        for line in lists[member].splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            name = line.split()[0]
            # The name becomes part of a path.
            if not _NAME.fullmatch(name):
                raise InputError(f"{annotations}: {member} lists {name[:80]!a}: check --url")
            if name in split:
                raise InputError(f"{annotations} lists {name} more than once: check --url")
            split[name] = part
    return split


def _unpack(archive: Path, targets: dict[str, str], output: str) -> set[str]:
    """Write the wanted members, except files that already have that content.

    Args:
        archive: the .tar.gz.
        targets: maps the names of members to paths below the output.
        output: the URI of the folder.

    Returns:
        The paths that now exist.
    """
    there = _sizes(output, {Path(target).parent.name for target in targets.values()})
    progress = ProgressLine(f"unpacking {archive.name}", "files", len(targets))
    found: set[str] = set()

    def read_wanted() -> Iterator[tuple[str, bytes, bool]]:
        for member in read_members(archive):
            target = targets.get(member.name)
            if target is None or target in found:  # the first of two members with one name
                continue
            found.add(target)
            progress.add(1)
            yield join_uri(output, target), member.read(), there.get(target) == member.size

    written = sum(map_ahead(lambda file: _write(*file), read_wanted(), _THREADS))
    log.info(f"{archive.name}: {len(found)} files, {len(found) - written} of them there before")
    return found


def _write(uri: str, content: bytes, same_size: bool) -> bool:
    """Write a file unless it already has this content; return True if it was written."""
    if same_size and read_bytes(uri) == content:
        return False
    write_bytes(uri, content)
    return True


def _sizes(output: str, folders: set[str]) -> dict[str, int | None]:
    roots = [root for root in (join_uri(output, folder) for folder in folders) if exists(root)]
    return {
        relative_key(output, entry.uri): entry.size
        for root in roots
        for entry in list_entries(root)
    }


def _report_incomplete(split: dict[str, str], found: set[str]) -> None:
    for what, pattern in (("image", "images/{}.jpg"), ("trimap", "masks/{}.png")):
        without = [name for name in split if pattern.format(name) not in found]
        if without:
            names = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
            log.info(
                f"{len(without)} of {len(split)} listed names have no {what}, left out: {names}"
            )
