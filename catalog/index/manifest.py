"""The folders of main segments: `<folder>/<space key>/<generation>/`. Each is written under a temporary name, renamed
when it is complete, and never edited.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

from catalog.errors import IndexDamaged

LISTS_FILE, IDS_FILE, MANIFEST_FILE = "lists.faiss", "ids.i64", "manifest.json"
FORMAT = 2
_UNFINISHED_PREFIX = ".building-"


@dataclass(frozen=True)
class FileRecord:
    """The size of a file in bytes, and its sha256 in hex."""

    size: int
    sha256: str

    @classmethod
    def from_file(cls, path: Path) -> Self:
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class TunedProbes:
    """The number of lists to probe for up to `k` neighbors, and the recall@k that was measured with it."""

    k: int
    probes: int
    recall: float


@dataclass(frozen=True)
class Manifest:
    """The contents of a main segment. The sha256 of the manifest is in Postgres, so folders cannot be mistaken for one
    another.
    """

    space_key: str
    generation: int
    covered_seq: int
    vectors: int
    dimension: int
    lists: int
    tuned: tuple[TunedProbes, ...]
    files: dict[str, FileRecord]
    format: int = FORMAT

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Raises `IndexDamaged`."""
        try:
            values = json.loads(content)
            if values["format"] != FORMAT:
                raise IndexDamaged(f"The segment has format {values['format']}; this version reads {FORMAT}.")
            values["tuned"] = tuple(TunedProbes(**probes) for probes in values["tuned"])
            values["files"] = {name: FileRecord(**record) for name, record in values["files"].items()}
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise IndexDamaged(f"The manifest cannot be read: {error!r}.") from error


def read_manifest(folder: Path, sha256: str) -> Manifest:
    """Read a manifest, and compare the sizes of the files that it lists. Raises `IndexDamaged`."""
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise IndexDamaged(f"{folder.name}/{MANIFEST_FILE} differs from the one that was published.")
        manifest = Manifest.from_json(content)
        for name, record in manifest.files.items():
            if (size := (folder / name).stat().st_size) != record.size:
                raise IndexDamaged(f"{folder.name}/{name} has {size:,} bytes instead of {record.size:,}.")
    except OSError as error:
        raise IndexDamaged(f"{folder.name} cannot be read: {error.strerror or error}.") from error
    return manifest


def check_content(folder: Path, manifest: Manifest) -> None:
    """Read all files and compare their checksums; raises `IndexDamaged`."""
    for name, expected in manifest.files.items():
        try:
            record = FileRecord.from_file(folder / name)
        except OSError as error:
            raise IndexDamaged(f"{folder.name}/{name} cannot be read: {error.strerror or error}.") from error
        if record != expected:
            raise IndexDamaged(f"{folder.name}/{name} has changed since it was written: its checksum differs.")


@contextmanager
def build_folder(space_folder: Path) -> Iterator[Path]:
    """Yield an empty folder to build in, and remove it afterwards unless it was published. Folders that a killed
    builder left behind are removed first, since the caller is the only builder of the space.
    """
    space_folder.mkdir(parents=True, exist_ok=True)
    for abandoned in space_folder.glob(f"{_UNFINISHED_PREFIX}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    folder = space_folder / f"{_UNFINISHED_PREFIX}{uuid4().hex[:12]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, manifest: Manifest) -> tuple[Path, str]:
    """Write the manifest, sync all files, and rename the folder. Returns the new path and the manifest's sha256."""
    content = manifest.to_json()
    (folder / MANIFEST_FILE).write_bytes(content)
    for name in (*manifest.files, MANIFEST_FILE, "."):
        _sync(folder / name)
    final = folder.with_name(str(manifest.generation))
    os.replace(folder, final)
    _sync(final.parent)
    return final, hashlib.sha256(content).hexdigest()


def next_generation(space_folder: Path, published: int) -> int:
    """A number that no row and no folder has. A builder may have died after the rename and before inserting the row."""
    return max([published, *_generations(space_folder)]) + 1


def remove_all_but(space_folder: Path, keep: list[int]) -> None:
    """Remove all generations but those to `keep`. Processes that have a removed file mapped can still read it."""
    for generation in _generations(space_folder):
        if generation not in keep:
            shutil.rmtree(space_folder / str(generation), ignore_errors=True)


def _generations(space_folder: Path) -> list[int]:
    return [int(path.name) for path in space_folder.iterdir() if path.name.isdecimal()]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
