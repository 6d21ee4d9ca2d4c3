"""SQL for archives and their pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import BinaryIO

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.tables import Archive, ArchivePiece

PIECE_SIZE = 4 * 2**20  # bytes


def store(session: Session, model_id: int, file: BinaryIO) -> Archive:
    """Store the rest of a file as the model's archive, replacing an earlier one."""
    session.execute(delete(Archive).where(Archive.model_id == model_id))
    archive = Archive(model_id=model_id, size=0, sha256="")
    session.add(archive)
    session.flush()
    digest = hashlib.sha256()
    for number, data in enumerate(iter(lambda: file.read(PIECE_SIZE), b"")):
        session.execute(insert(ArchivePiece).values(model_id=model_id, number=number, data=data))
        digest.update(data)
        archive.size += len(data)
    archive.sha256 = digest.hexdigest()
    session.flush()
    return archive


def get_by_models(session: Session, model_ids: Iterable[int]) -> dict[int, Archive]:
    """The archives of these models, by model id. A model without an archive is left out."""
    archives = session.scalars(select(Archive).where(Archive.model_id.in_(model_ids)))
    return {archive.model_id: archive for archive in archives}


def find_piece(session: Session, model_id: int, number: int) -> bytes | None:
    """The bytes of a piece; None after the last one, or if the archive was deleted."""
    statement = select(ArchivePiece.data).where(ArchivePiece.model_id == model_id, ArchivePiece.number == number)
    return session.scalars(statement).one_or_none()
