"""What a team says about models: tags, notes and aliases of its own. The Hub's metadata is in `models`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, Identity, Index, func, select, text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import Base
from catalog.tables.models import Model

ADMIN_AUTHOR = "admin"  # the author of what the service itself wrote


class TeamTag(Base):
    """A tag that a team put on a model. `author` is the hash of an API key, or `admin`."""

    __tablename__ = "team_tags"
    __table_args__ = (Index(None, "tag", "model_id"),)

    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    tag: Mapped[str] = mapped_column(primary_key=True)
    author: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @classmethod
    def on_model(cls, tags: Sequence[str]) -> list[ColumnElement[bool]]:
        """Conditions on `Model`: it has every one of the tags."""
        return [select(cls.model_id).where(cls.tag == tag, cls.model_id == Model.id).exists() for tag in set(tags)]


class TeamNote(Base):
    """A team's note on a model. `author` is the hash of an API key, or `admin`."""

    __tablename__ = "team_notes"

    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    text: Mapped[str]
    author: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Alias(Base):
    """A team's own name for a model, which is used as `alias/NAME`. `author` is the hash of an API key, or `admin`.

    An alias of a public model is known to everyone, and there is one with its name. An alias of a private model is
    known to those who may see the model, so several users may have one with the same name.
    """

    __tablename__ = "aliases"
    __table_args__ = (
        Index("uq_aliases_public", "name", unique=True, postgresql_where=text("NOT private")),
        Index(None, "name"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    private: Mapped[bool]  # as the model is, which never changes
    author: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())
