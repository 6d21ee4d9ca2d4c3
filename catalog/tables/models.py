"""Spaces, models, their revisions and vectors."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column, relationship

from catalog.tables.base import Base, one_of


class ModelState(StrEnum):
    PENDING = "pending"  # submitted, nothing stored yet
    INDEXED = "indexed"
    NO_SHIFT = "no_shift"  # embedded, but its norm is under the noise floor
    FAILED = "failed"
    REMOVED = "removed"  # deleted on the Hub, or private there now: known by name, in no index


class Source(StrEnum):
    HUB = "hub"
    FOLDER = "folder"
    # made by the worker that does their job, and seen by nobody:
    EXAMPLES = "examples"  # a task's
    MERGE = "merge"
    SELECTION = "selection"


class SpaceRow(Base):
    """One embedding contract (`catalog.spaces.contract.Space`) and what was measured of it. Of the spaces of a base and
    feature one is `serving`: what questions use that name none.
    """

    __tablename__ = "spaces"
    __table_args__ = (
        Index(
            "uq_spaces_serving",
            "feature",
            text("coalesce(base_repo, '')"),
            unique=True,
            postgresql_where=text("serving"),
        ),
        Index(None, "edition", postgresql_where=text("edition <> 0")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    feature: Mapped[str]
    layer: Mapped[int]
    base_repo: Mapped[str | None]
    base_sha: Mapped[str | None]
    probe_set: Mapped[str] = mapped_column(String(64))
    dtype: Mapped[str]
    encoder_version: Mapped[str]
    edition: Mapped[int] = mapped_column(server_default=text("0"))
    serving: Mapped[bool] = mapped_column(server_default=text("false"))
    dimension: Mapped[int]
    build_after: Mapped[datetime | None]  # the next build of its index does not start before
    build_error: Mapped[str | None]  # how the last one failed
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BaseActivations(Base):
    """What a base itself answers to each probe, float32 (probes, dimension), and how far its vector moves when
    nothing but the batch's shape changes (`noise_floor`, a norm). The base is part of the key because the space of
    `delta_meaning` spans many bases.
    """

    __tablename__ = "base_activations"
    __table_args__ = (CheckConstraint("octet_length(data) = 4 * probes * dimension", name="length"),)

    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id", ondelete="CASCADE"), primary_key=True)
    base_repo: Mapped[str] = mapped_column(primary_key=True)
    base_sha: Mapped[str] = mapped_column(primary_key=True)
    noise_floor: Mapped[float]
    probes: Mapped[int]
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Model(Base):
    """A fine-tune by its name: a repo on the Hub, or a folder under the owner `local`.

    What searches filter by stands here and in the current revision; `seq` is the feed's number of its last change.
    A `private` one was read with a user's token, and is a row of its own beside the public one of that name.
    """

    __tablename__ = "models"
    __table_args__ = (
        CheckConstraint(one_of("source", Source), name="source"),
        CheckConstraint(one_of("state", ModelState), name="state"),
        UniqueConstraint("repo_id", "private"),
        Index("ix_models_private", "id", postgresql_where=text("private")),
        Index(None, "owner", "id"),
        Index(None, "state", "id"),
        Index(None, "words", postgresql_using="gin"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    repo_id: Mapped[str]
    private: Mapped[bool] = mapped_column(server_default=text("false"))  # never changes
    owner: Mapped[str]
    source: Mapped[str]
    folder: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=ModelState.PENDING)
    licence: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    downloads: Mapped[int | None]
    likes: Mapped[int | None]
    datasets: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    languages: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    hub_created_at: Mapped[datetime | None]
    hub_updated_at: Mapped[datetime | None]
    hub_id: Mapped[str | None] = mapped_column(index=True)  # the Hub's own, which outlives a rename
    hub_sha: Mapped[str | None]  # the newest commit that a crawl or the webhook told of, embedded or not
    cluster: Mapped[int | None]  # what searches filter by, see catalog/clusters/service.py
    card: Mapped[str | None]  # the words of its card, at most `workers.finetunes.card.MAX_WORDS` characters
    words: Mapped[str] = mapped_column(
        TSVECTOR, Computed("model_words(repo_id, tags, card)", persisted=True), deferred=True
    )  # what its text is searched by, see catalog/tables/model_words.py
    seq: Mapped[int | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    revision: Mapped[Revision | None] = relationship(
        primaryjoin="and_(Model.id == Revision.model_id, Revision.current)", viewonly=True, uselist=False
    )


class ModelAccess(Base):
    """Who may see a private model: a submitter by the hash of its key, because a job of its own read the repo, or
    because an admin said so.
    """

    __tablename__ = "model_access"

    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    submitter: Mapped[str] = mapped_column(primary_key=True)
    by_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Revision(Base):
    """One commit of a model (a folder's content hash stands in for a commit). One of a model's is current."""

    __tablename__ = "revisions"
    __table_args__ = (
        UniqueConstraint("model_id", "sha"),
        Index("uq_revisions_current", "model_id", unique=True, postgresql_where=text("current")),
        Index(None, "base_repo", "model_id", postgresql_where=text("current")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    sha: Mapped[str]
    current: Mapped[bool]
    kind: Mapped[str]
    base_repo: Mapped[str]
    base_sha: Mapped[str]
    base_evidence: Mapped[dict] = mapped_column(JSONB)
    facts: Mapped[dict | None] = mapped_column(JSONB)  # `FineTune.facts`; null where it was indexed before there were
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Vector(Base):
    """A revision's embedding in one space: float32 (dimension,), not normalised."""

    __tablename__ = "vectors"
    __table_args__ = (
        UniqueConstraint("space_id", "revision_id"),
        CheckConstraint("octet_length(data) = 4 * dimension", name="length"),
        Index(None, "model_id", "space_id", "seq"),
        Index(None, "space_id", "seq"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    space_id: Mapped[int] = mapped_column(ForeignKey("spaces.id"))
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"), index=True)
    seq: Mapped[int] = mapped_column(unique=True)
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    norm: Mapped[float]
    no_shift: Mapped[bool]
    explanation: Mapped[dict | None] = mapped_column(JSONB)  # tokens that the shift promotes and suppresses
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))  # a tombstone in the change feed
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
