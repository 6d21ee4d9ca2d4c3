"""Spaces, models, their revisions and vectors."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
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
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column, relationship

from catalog.tables.base import Base, one_of


class ModelState(StrEnum):
    PENDING = "pending"  # submitted, no revision of it is current yet
    INDEXED = "indexed"
    NO_SHIFT = "no_shift"  # measured, but all its norms are within the noise floor
    FAILED = "failed"
    REMOVED = "removed"  # deleted or private on the Hub, or removed by an admin: no index contains it


class Source(StrEnum):
    HUB = "hub"
    FOLDER = "folder"
    # hidden models, created by the worker that runs their job:
    EXAMPLES = "examples"  # of a task
    MERGE = "merge"
    SELECTION = "selection"


class SpaceRow(Base):
    """A space: one contract in one edition (`catalog.spaces.contract.Space`).

    Of the spaces of a base and a feature, queries that name no space use the one that is `serving`.
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
    build_after: Mapped[datetime | None]  # the next build of its index starts no earlier
    build_error: Mapped[str | None]  # of the last build, if it failed
    unrelated_similarity: Mapped[float | None]  # `catalog.clusters.quality.unrelated_similarity`; null until clustered
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @classmethod
    def is_of_base(cls, base_repo: str | InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """Whether the space is one of the base, or spans all bases."""
        return cls.base_repo.is_(None) | (cls.base_repo == base_repo)


class BaseActivations(Base):
    """The activations of a base model on each probe, float32 (probes, dimension), and its noise floor.

    The noise floor is the norm by which the vector of the base changes if only the shape of the batch changes. The base
    is part of the key because a space of `delta_meaning` spans many bases.
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


class BaseProof(Base):
    """The path on which a base model runs, "packed" or "plain", and the measurement that decided it.

    `error` is the largest relative error of a state on the packed path, null if it did not run, and `kinds` are the
    errors of the kinds of fine-tunes that were compared (null for infinite).
    """

    __tablename__ = "base_proofs"

    base_repo: Mapped[str] = mapped_column(primary_key=True)
    base_sha: Mapped[str] = mapped_column(primary_key=True)
    dtype: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str]
    error: Mapped[float | None]
    reason: Mapped[str]
    kinds: Mapped[dict] = mapped_column(JSONB)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Base):
    """A model: a repo on the Hub, a folder (under the owner `local`), or a hidden model that a job creates.

    Searches filter by columns of this table and of the current revision; `seq` is the sequence number of their last
    change. A `private` model was fetched with a user's token; a public model with the same name is another row.
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
        Index(None, "datasets", postgresql_using="gin"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    repo_id: Mapped[str]
    private: Mapped[bool] = mapped_column(server_default=text("false"))  # never changes
    owner: Mapped[str]
    source: Mapped[str]
    folder: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=ModelState.PENDING)
    license: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    downloads: Mapped[int | None]
    likes: Mapped[int | None]
    datasets: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    languages: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'::text[]"))
    hub_created_at: Mapped[datetime | None]
    hub_updated_at: Mapped[datetime | None]
    hub_id: Mapped[str | None] = mapped_column(index=True)  # the Hub's id of the repo, which survives a rename
    removed_at: Mapped[datetime | None]  # by an admin or a block; then only a person's submission brings it back
    hub_sha: Mapped[str | None]  # the newest commit that a crawl or the webhook reported, measured or not
    card: Mapped[str | None]  # the text of its card, at most `workers.finetunes.card.MAX_WORDS` characters
    words: Mapped[str] = mapped_column(
        TSVECTOR, Computed("model_words(repo_id, tags, card)", persisted=True), deferred=True
    )  # for text search, see catalog/tables/model_words.py
    # not unique: an update of a unique column would lock the row against the foreign key of a new job
    seq: Mapped[int | None] = mapped_column(index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    revision: Mapped[Revision | None] = relationship(
        primaryjoin="and_(Model.id == Revision.model_id, Revision.current)", viewonly=True, uselist=False
    )


class ModelAccess(Base):
    """Access of a submitter (the hash of an API key) to a private model, granted because a job of the submitter fetched
    the repo, or by an admin.
    """

    __tablename__ = "model_access"

    model_id: Mapped[int] = mapped_column(
        ForeignKey("models.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    submitter: Mapped[str] = mapped_column(primary_key=True)
    by_admin: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Revision(Base):
    """One commit of a model, or the content hash of a folder. One revision of each model is current, the others are its
    history.
    """

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
    facts: Mapped[dict | None] = mapped_column(JSONB)  # `FineTune.facts`; null if they are unknown
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def submitted_base(self) -> str | None:
        """The base that a submission named, if the revision was measured on it."""
        return self.base_evidence.get("submitted_base") if self.base_evidence.get("claim") == "submitted" else None

    @classmethod
    def is_measured_on(cls, base: str) -> ColumnElement[bool]:
        """Whether the revision was measured on the base that a submission names, perhaps by the name of a mirror."""
        return (cls.base_repo == base) | cls.base_evidence.contains({"claim": "submitted", "submitted_base": base})


class Vector(Base):
    """The vector of a revision in one space: float32 (dimension,), not normalized."""

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
    # null: a tombstone of a model whose revisions were erased
    revision_id: Mapped[int | None] = mapped_column(ForeignKey("revisions.id"), index=True)
    seq: Mapped[int] = mapped_column(unique=True)  # negative: not in the feed, of a revision that was never current
    dimension: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    norm: Mapped[float]
    no_shift: Mapped[bool]
    explanation: Mapped[dict | None] = mapped_column(JSONB)  # tokens that the fine-tune promotes and suppresses
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))  # a tombstone in the change feed
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
