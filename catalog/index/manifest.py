"""Where main segments lie: `<folder>/<space key>/<generation>/`, written elsewhere and then renamed, never edited."""

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

LISTS, IDS, MANIFEST = "lists.faiss", "ids.i64", "manifest.json"
FORMAT = 2
_UNFINISHED = ".building-"


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and sha256 in hex."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class Tuned:
    """Lists that a query for up to `k` neighbours probes, and the recall@k that was measured with them."""

    k: int
    probes: int
    recall: float


@dataclass(frozen=True)
class Manifest:
    """What a main segment is. Its own sha256 stands in Postgres, so a folder cannot be taken for another."""

    space_key: str
    generation: int
    covered_seq: int
    vectors: int
    dimension: int
    lists: int
    tuned: tuple[Tuned, ...]
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
            values["tuned"] = tuple(Tuned(**each) for each in values["tuned"])
            values["files"] = {name: FileRecord(**record) for name, record in values["files"].items()}
            return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise IndexDamaged(f"The manifest cannot be read: {error!r}.") from error


def read_manifest(folder: Path, sha256: str) -> Manifest:
    """The manifest of a segment whose files all have their sizes. Raises `IndexDamaged`."""
    try:
        content = (folder / MANIFEST).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise IndexDamaged(f"{folder.name}/{MANIFEST} is not the one that was published.")
        manifest = Manifest.from_json(content)
        for name, record in manifest.files.items():
            if (size := (folder / name).stat().st_size) != record.size:
                raise IndexDamaged(f"{folder.name}/{name} has {size:,} bytes in place of {record.size:,}.")
    except OSError as error:
        raise IndexDamaged(f"{folder.name} cannot be read: {error.strerror or error}.") from error
    return manifest


def check_content(folder: Path, manifest: Manifest) -> None:
    """Read all files and compare their checksums; raises `IndexDamaged`."""
    for name, expected in manifest.files.items():
        try:
            record = FileRecord.of(folder / name)
        except OSError as error:
            raise IndexDamaged(f"{folder.name}/{name} cannot be read: {error.strerror or error}.") from error
        if record != expected:
            raise IndexDamaged(f"{folder.name}/{name} has another checksum than when it was written.")


@contextmanager
def unfinished(space_folder: Path) -> Iterator[Path]:
    """An empty folder to build in, which is gone afterwards unless it was published. Those that a killed builder left
    are removed: the caller is the only builder of the space.
    """
    space_folder.mkdir(parents=True, exist_ok=True)
    for left in space_folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = space_folder / f"{_UNFINISHED}{uuid4().hex[:12]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, manifest: Manifest) -> tuple[Path, str]:
    """Write the manifest, make all durable, and give the folder its name. Returns it and the manifest's sha256."""
    content = manifest.to_json()
    (built / MANIFEST).write_bytes(content)
    for name in (*manifest.files, MANIFEST, "."):
        _sync(built / name)
    final = built.with_name(str(manifest.generation))
    os.replace(built, final)
    _sync(final.parent)
    return final, hashlib.sha256(content).hexdigest()


def next_generation(space_folder: Path, published: int) -> int:
    """A number that no row and no folder has: a builder may have died between the rename and the row."""
    return max([published, *_generations(space_folder)]) + 1


def remove_all_but(space_folder: Path, keep: list[int]) -> None:
    """Processes that have a removed file mapped go on reading it."""
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
