"""Handing out what was made here and kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from catalog.archives import repository as archives
from catalog.database import Database
from catalog.errors import ArchiveNotFound
from catalog.tables import Archive


@dataclass(frozen=True)
class Download:
    """A zip file: its name, its bytes and their number, and its sha256 in hex."""

    name: str
    size: int
    sha256: str
    pieces: Iterator[bytes]


def download(database: Database, archive: Archive, name: str) -> Download:
    """Whoever calls has asked whether the archive is for this caller."""
    return Download(name, archive.size, archive.sha256, _pieces(database, archive))


def _pieces(database: Database, archive: Archive) -> Iterator[bytes]:
    """One piece in memory at a time, and no transaction while the network takes it. Raises `ArchiveNotFound` where it
    is deleted meanwhile: the answer is then cut off, which clients notice by its length.
    """
    left, number = archive.size, 0
    while left:
        with database.transaction() as session:
            data = archives.piece(session, archive.model_id, number)
        if data is None:
            raise ArchiveNotFound("This file has been deleted while it was read.")
        yield data
        left, number = left - len(data), number + 1
