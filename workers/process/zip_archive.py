"""Packing of folders into zip files."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from workers.process.cancellation import raise_if_cancelled

READ_BLOCK_BYTES = 2**20
FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # so that the same folder gives the same bytes


@contextmanager
def packed(folder: Path) -> Iterator[BinaryIO]:
    """An uncompressed zip file of a folder's files, positioned at its start (weights hardly compress).

    Raises `Cancelled` between two blocks (`workers.process.cancellation`).
    """
    with tempfile.TemporaryFile(prefix="deltadex-") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), FIXED_TIME)
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                    while data := source.read(READ_BLOCK_BYTES):
                        raise_if_cancelled()
                        target.write(data)
        file.seek(0)
        yield file
