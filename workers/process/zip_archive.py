"""From a folder to the zip file that is kept of it."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from workers.process.cancellation import check

PIECE = 2**20  # bytes
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same folder gives the same bytes


@contextmanager
def packed(folder: Path) -> Iterator[BinaryIO]:
    """A zip of a folder's files, ready to be read; not compressed, for weights hardly become smaller. Raises `Stopped`
    between two pieces once the work is given up (`workers.process.cancellation`).
    """
    with tempfile.TemporaryFile(prefix="deltadex-") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), LONG_AGO)
                with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                    while data := source.read(PIECE):
                        check()
                        target.write(data)
        file.seek(0)
        yield file
