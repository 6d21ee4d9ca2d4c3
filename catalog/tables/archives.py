"""Adapters that were made here and are kept: each one zip file, in pieces."""

from __future__ import annotations

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base


class Archive(Base):
    """The zip of a model's folder. It stands in Postgres because every API process can reach that, and no process
    another's disk.
    """

    __tablename__ = "archives"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    size: Mapped[int]  # bytes
    sha256: Mapped[str] = mapped_column(String(64))


class ArchivePiece(Base):
    """The bytes of an archive from `number` times the length of a piece on."""

    __tablename__ = "archive_pieces"

    model_id: Mapped[int] = mapped_column(ForeignKey("archives.model_id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes] = mapped_column(LargeBinary)
