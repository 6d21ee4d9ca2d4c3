"""Archives and their pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import BinaryIO

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.tables import Archive, ArchivePiece

PIECE = 4 * 2**20  # bytes


def store(session: Session, model_id: int, file: BinaryIO) -> Archive:
    """Keep what is left to be read of a file as the model's archive, in place of the one before."""
    session.execute(delete(Archive).where(Archive.model_id == model_id))
    archive = Archive(model_id=model_id, size=0, sha256="")
    session.add(archive)
    session.flush()
    digest = hashlib.sha256()
    for number, data in enumerate(iter(lambda: file.read(PIECE), b"")):
        session.execute(insert(ArchivePiece).values(model_id=model_id, number=number, data=data))
        digest.update(data)
        archive.size += len(data)
    archive.sha256 = digest.hexdigest()
    session.flush()
    return archive


def of_models(session: Session, model_ids: Iterable[int]) -> dict[int, Archive]:
    """Those that there are, by the model."""
    return {each.model_id: each for each in session.scalars(select(Archive).where(Archive.model_id.in_(model_ids)))}


def piece(session: Session, model_id: int, number: int) -> bytes | None:
    """None behind the last one, or where the archive is gone."""
    wanted = select(ArchivePiece.data).where(ArchivePiece.model_id == model_id, ArchivePiece.number == number)
    return session.scalars(wanted).one_or_none()
