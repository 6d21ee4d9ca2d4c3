"""Downloads of the adapters that workers created."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from catalog.archives import repository as archives
from catalog.database import Database
from catalog.errors import ArchiveNotFound
from catalog.tables import Archive


@dataclass(frozen=True)
class Download:
    """A zip file: its name, size in bytes, sha256 in hex, and its bytes in pieces."""

    name: str
    size: int
    sha256: str
    pieces: Iterator[bytes]


def download(database: Database, archive: Archive, name: str) -> Download:
    """Open an archive for reading. The caller has checked that the viewer can see it."""
    return Download(name, archive.size, archive.sha256, _pieces(database, archive))


def _pieces(database: Database, archive: Archive) -> Iterator[bytes]:
    """Yield one piece at a time, without an open transaction in between.

    Raises `ArchiveNotFound` if the archive is deleted during the download. The response is then truncated, which
    clients notice by its length.
    """
    remaining, number = archive.size, 0
    while remaining:
        with database.transaction() as session:
            data = archives.find_piece(session, archive.model_id, number)
        if data is None:
            raise ArchiveNotFound("The archive was deleted during the download.")
        yield data
        remaining, number = remaining - len(data), number + 1
