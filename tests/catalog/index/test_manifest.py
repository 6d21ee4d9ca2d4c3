from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from catalog.errors import IndexDamaged
from catalog.index import manifest as index_manifest
from catalog.index.manifest import FileRecord, Manifest, TunedProbes

NAMES = ("one.bin", "two.bin")


def manifest(folder: Path, generation: int = 1) -> Manifest:
    for name in NAMES:
        (folder / name).write_bytes(name.encode() * 100)
    records = {name: FileRecord.from_file(folder / name) for name in NAMES}
    return Manifest("a" * 64, generation, 7, 100, 4, 3, (TunedProbes(10, 2, 0.995),), records)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    return tmp_path / "space"


@pytest.fixture
def published(space: Path) -> tuple[Path, str]:
    with index_manifest.build_folder(space) as work:
        return index_manifest.publish(work, manifest(work))


def test_published_segment_can_be_read(published: tuple[Path, str]):
    folder, sha256 = published
    assert folder.name == "1"
    read = index_manifest.read_manifest(folder, sha256)
    assert (read.covered_seq, read.tuned) == (7, (TunedProbes(10, 2, 0.995),))
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == sha256
    index_manifest.check_content(folder, read)


def test_publishing_leaves_only_the_generation_folder(published: tuple[Path, str], space: Path):
    assert [path.name for path in space.iterdir()] == ["1"]


def test_unpublished_build_is_removed(space: Path):
    with index_manifest.build_folder(space) as work:
        manifest(work)
    assert list(space.iterdir()) == []


def test_folder_of_a_killed_builder_is_removed_by_the_next_build(published: tuple[Path, str], space: Path):
    (space / ".building-dead").mkdir()
    (space / ".building-dead" / "vectors.f32").write_bytes(b"x")
    with index_manifest.build_folder(space):
        pass
    assert [path.name for path in space.iterdir()] == ["1"]


@pytest.mark.parametrize("name", [*NAMES, "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "longer"])
def test_file_of_another_size_is_damaged_without_reading_it(published: tuple[Path, str], name: str, damage: str):
    folder, sha256 = published
    path, content = folder / name, (folder / name).read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": content[:-1], "empty": b"", "longer": content + b"x"}[damage])
    with pytest.raises(IndexDamaged):
        index_manifest.read_manifest(folder, sha256)


def test_flipped_bit_fails_the_checksum(published: tuple[Path, str]):
    folder, sha256 = published
    content = bytearray((folder / "two.bin").read_bytes())
    content[50] ^= 1
    (folder / "two.bin").write_bytes(content)
    read = index_manifest.read_manifest(folder, sha256)
    with pytest.raises(IndexDamaged, match=r"1/two\.bin .* checksum differs"):
        index_manifest.check_content(folder, read)


def test_missing_folder_is_damaged(space: Path):
    with pytest.raises(IndexDamaged):
        index_manifest.read_manifest(space / "9", "0" * 64)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format": 1}', b'{"format": 99}', b"\xff"])
def test_invalid_manifest_is_damaged(content: bytes):
    with pytest.raises(IndexDamaged):
        Manifest.from_json(content)


def test_manifest_round_trips_through_json(tmp_path: Path):
    original = manifest(tmp_path)
    assert Manifest.from_json(original.to_json()) == original
    assert Manifest.from_json(original.to_json()) != dataclasses.replace(original, covered_seq=8)


def test_next_generation_is_above_rows_and_folders(published: tuple[Path, str], space: Path):
    assert index_manifest.next_generation(space, published=0) == 2
    assert index_manifest.next_generation(space, published=5) == 6


def test_remove_all_but_keeps_the_given_generations(space: Path):
    for generation in (1, 2, 3, 12):
        (space / str(generation)).mkdir(parents=True)
    index_manifest.remove_all_but(space, [3, 12])
    assert sorted(path.name for path in space.iterdir()) == ["12", "3"]
