from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from workers.process.cancellation import Cancelled, cancel_scope
from workers.process.zip_archive import packed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "inner" / "a.txt").write_text("first")
    return tmp_path


def test_zip_holds_the_files_of_the_folder(folder: Path):
    with packed(folder) as file, zipfile.ZipFile(file) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "b.txt": b"second",
            "inner/a.txt": b"first",
        }


def test_same_files_give_the_same_bytes(folder: Path):
    with packed(folder) as file:
        first = file.read()
    (folder / "b.txt").touch()
    with packed(folder) as file:
        assert file.read() == first


def test_packing_can_be_cancelled(folder: Path):
    with pytest.raises(Cancelled), cancel_scope(lambda: True), packed(folder):
        pass
