"""SQL for archives and their pieces."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from typing import BinaryIO

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.archives.limits import NO_LIMITS, ArchiveLimits
from catalog.tables import Archive, ArchivePiece, Job

PIECE_SIZE = 4 * 2**20  # bytes


def store(
    session: Session, model_id: int, file: BinaryIO, *, viewer: str | None = None, limits: ArchiveLimits = NO_LIMITS
) -> Archive:
    """Store a file from its start as the model's archive, replacing an earlier one. Raises `ArchiveQuotaExceeded` if
    the archives of its `viewer`, or all archives, would exceed the limits with it.
    """
    session.execute(delete(Archive).where(Archive.model_id == model_id))
    check(session, limits, viewer, file.seek(0, io.SEEK_END))
    file.seek(0)
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


def check(session: Session, limits: ArchiveLimits, viewer: str | None, size: int = 1) -> None:
    """Raise `ArchiveQuotaExceeded` unless an archive of `size` bytes may be stored for a viewer (the hash of an API
    key). Archives that are stored at the same moment do not count.
    """
    if limits.total:
        limits.check_total(size + _sum_sizes(session))
    if limits.per_key and viewer is not None:
        limits.check_key(size + _sum_sizes(session, viewer))


def _sum_sizes(session: Session, viewer: str | None = None) -> int:
    """The bytes of all archives, or of those that belong to a viewer."""
    statement = select(func.coalesce(func.sum(Archive.size), 0))
    if viewer is not None:  # a hidden model has one job, which belongs to the same viewer
        statement = statement.join(Job, Job.model_id == Archive.model_id).where(Job.viewer == viewer)
    return int(session.execute(statement).scalar_one())


def get_by_models(session: Session, model_ids: Iterable[int]) -> dict[int, Archive]:
    """The archives of these models, by model id. A model without an archive is left out."""
    archives = session.scalars(select(Archive).where(Archive.model_id.in_(model_ids)))
    return {archive.model_id: archive for archive in archives}


def find_piece(session: Session, model_id: int, number: int) -> bytes | None:
    """The bytes of a piece; None after the last one, or if the archive was deleted."""
    statement = select(ArchivePiece.data).where(ArchivePiece.model_id == model_id, ArchivePiece.number == number)
    return session.scalars(statement).one_or_none()
