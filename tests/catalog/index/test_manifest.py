from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from catalog.errors import IndexDamaged
from catalog.index import manifest as index_manifest
from catalog.index.manifest import FileRecord, Manifest, Tuned

NAMES = ("one.bin", "two.bin")


def manifest(folder: Path, generation: int = 1) -> Manifest:
    for name in NAMES:
        (folder / name).write_bytes(name.encode() * 100)
    records = {name: FileRecord.of(folder / name) for name in NAMES}
    return Manifest("a" * 64, generation, 7, 100, 4, 3, (Tuned(10, 2, 0.995),), records)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return tmp_path / "space"


@pytest.fixture
def published(space: Path) -> tuple[Path, str]:
    with index_manifest.unfinished(space) as work:
        return index_manifest.publish(work, manifest(work))


def test_what_is_published_can_be_read(published: tuple[Path, str]):
    folder, sha256 = published
    assert folder.name == "1"
    found = index_manifest.read_manifest(folder, sha256)
    assert (found.covered_seq, found.tuned) == (7, (Tuned(10, 2, 0.995),))
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == sha256
    index_manifest.check_content(folder, found)


def test_nothing_but_the_generation_is_left(published: tuple[Path, str], space: Path):
    assert [path.name for path in space.iterdir()] == ["1"]


def test_what_was_not_published_is_gone(space: Path):
    with index_manifest.unfinished(space) as work:
        manifest(work)
    assert list(space.iterdir()) == []


def test_what_a_killed_builder_left_is_removed_by_the_next(published: tuple[Path, str], space: Path):
    (space / ".building-dead").mkdir()
    (space / ".building-dead" / "vectors.f32").write_bytes(b"x")
    with index_manifest.unfinished(space):
        pass
    assert [path.name for path in space.iterdir()] == ["1"]


@pytest.mark.parametrize("name", [*NAMES, "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "longer"])
def test_a_file_of_another_size_is_noticed_without_reading_it(published: tuple[Path, str], name: str, damage: str):
    folder, sha256 = published
    path, content = folder / name, (folder / name).read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": content[:-1], "empty": b"", "longer": content + b"x"}[damage])
    with pytest.raises(IndexDamaged):
        index_manifest.read_manifest(folder, sha256)


def test_a_flipped_bit_is_noticed_by_reading(published: tuple[Path, str]):
    folder, sha256 = published
    content = bytearray((folder / "two.bin").read_bytes())
    content[50] ^= 1
    (folder / "two.bin").write_bytes(content)
    found = index_manifest.read_manifest(folder, sha256)
    with pytest.raises(IndexDamaged, match=r"1/two\.bin has another checksum"):
        index_manifest.check_content(folder, found)


def test_a_folder_that_is_not_there_is_damaged(space: Path):
    with pytest.raises(IndexDamaged):
        index_manifest.read_manifest(space / "9", "0" * 64)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": 1}', b'{"format": 99}', b"\xff"])
def test_what_is_no_manifest_is_said_so(content: bytes):
    with pytest.raises(IndexDamaged):
        Manifest.from_json(content)


def test_a_manifest_survives_json(tmp_path: Path):
    whole = manifest(tmp_path)
    assert Manifest.from_json(whole.to_json()) == whole
    assert Manifest.from_json(whole.to_json()) != dataclasses.replace(whole, covered_seq=8)


def test_a_generation_is_new_to_rows_and_folders(published: tuple[Path, str], space: Path):
    assert index_manifest.next_generation(space, published=0) == 2
    assert index_manifest.next_generation(space, published=5) == 6


def test_old_generations_are_removed(space: Path):
    for generation in (1, 2, 3, 12):
        (space / str(generation)).mkdir(parents=True)
    index_manifest.remove_all_but(space, [3, 12])
    assert sorted(path.name for path in space.iterdir()) == ["12", "3"]
