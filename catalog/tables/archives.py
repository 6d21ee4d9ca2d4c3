"""Archives of the adapters that workers created: one zip file each, stored in pieces."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String, func
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base


class Archive(Base):
    """The zip file of a model's folder. It is stored in Postgres because the API cannot read the workers' disks."""

    __tablename__ = "archives"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), primary_key=True)
    size: Mapped[int]  # bytes
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ArchivePiece(Base):
    """The bytes of an archive from the offset `number * PIECE_SIZE` on."""

    __tablename__ = "archive_pieces"

    model_id: Mapped[int] = mapped_column(ForeignKey("archives.model_id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes] = mapped_column(LargeBinary)
