"""SQL of the quarantine. Repos are compared in lower case, because the Hub does not tell names apart by their case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, case, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from catalog.database import ErrorRecord, newest_first, seconds
from catalog.errors import BaseQuarantined, CatalogError, Quarantined, QuarantineNotFound
from catalog.tables import Job, QuarantineEntry, QuarantineKind

COUNTED_FOR = 30 * 86_400  # seconds that an end counts if no other one follows
Entry = QuarantineEntry


@dataclass(frozen=True)
class QuarantineKey:
    """The files of a repo or base at one commit, and the base that a submission named for them."""

    kind: QuarantineKind
    repo_id: str
    sha: str = ""
    submitted_base: str = ""

    @classmethod
    def of_repo(cls, repo_id: str, sha: str | None, submitted_base: str | None = None) -> Self:
        return cls(QuarantineKind.REPO, repo_id.lower(), sha or "", (submitted_base or "").lower())

    @classmethod
    def of_base(cls, repo_id: str, sha: str) -> Self:
        return cls(QuarantineKind.BASE, repo_id.lower(), sha)

    @classmethod
    def of_job(cls, job: Job) -> Self:
        """What a job runs: its repo at the commit that it measures, and the base that its submission named. Anyone
        may name a base for the repo of another author, so the repo without that base is not to blame.
        """
        return cls.of_repo(job.model.repo_id, job.sha, job.requested_base)


def count(
    session: Session, key: QuarantineKey, error: CatalogError, limit: int, *, ends: int = 1, alone: bool = True
) -> bool:
    """Count processes that these files ended. Returns whether they are quarantined: after `limit` ends with no more
    than `COUNTED_FOR` seconds between two of them, the last of them `alone`, in a process that did nothing else.
    """
    expired = Entry.quarantined_at.is_(None) & (Entry.last_end_at < func.now() - seconds(COUNTED_FOR))
    session.execute(delete(Entry).where(expired))
    record = ErrorRecord.from_error(error).columns() | {"last_end_at": func.now()}

    def quarantined_at(total: ColumnElement[int]) -> ColumnElement[Any]:
        return case((total >= limit, func.now()), else_=None) if alone else literal(None)

    statement = insert(Entry).values(**vars(key), ends=ends, quarantined_at=quarantined_at(literal(ends)), **record)
    total = Entry.ends + ends
    updated = statement.on_conflict_do_update(
        index_elements=list(vars(key)),
        set_={
            "ends": total,
            "quarantined_at": func.coalesce(Entry.quarantined_at, quarantined_at(total)),
            **record,
        },
    )
    return session.execute(updated.returning(Entry.quarantined_at)).scalar_one() is not None


def forget(session: Session, key: QuarantineKey) -> None:
    """Forget what was counted against files that have run without ending a process, unless they are quarantined."""
    session.execute(delete(Entry).where(_applies_to(key), Entry.quarantined_at.is_(None)))


def find(session: Session, key: QuarantineKey) -> QuarantineEntry | None:
    """The entry by which these files are quarantined."""
    statement = select(Entry).where(_applies_to(key), Entry.quarantined_at.is_not(None))
    return session.scalars(statement.order_by(Entry.id.desc()).limit(1)).one_or_none()


def check(session: Session, key: QuarantineKey, name: str) -> None:
    """Raises `Quarantined` or `BaseQuarantined` if the files of the repo or base `name` are quarantined."""
    entry = find(session, key)
    if entry is None:
        return
    kind = BaseQuarantined if key.kind == QuarantineKind.BASE else Quarantined
    raise kind(
        f"{name} is quarantined at commit {key.sha[:12]}: its files ended {entry.ends} processes of this server "
        f"({entry.error_code}). A new commit is tried again, and an admin can lift the quarantine "
        f"(`deltadex quarantine lift {name}`)."
    )


def get(session: Session, entry_id: int) -> QuarantineEntry:
    """Raises `QuarantineNotFound`."""
    entry = session.get(Entry, entry_id)
    if entry is None:
        raise QuarantineNotFound(
            f"There is no quarantine {entry_id}. GET /v1/admin/quarantine lists what is quarantined."
        )
    return entry


def list_page(session: Session, *, repo_id: str | None, before: int | None, limit: int) -> list[QuarantineEntry]:
    """Up to `limit` quarantined repos and bases with an id below `before`, newest first."""
    statement = select(Entry).where(Entry.quarantined_at.is_not(None))
    if repo_id is not None:
        statement = statement.where(Entry.repo_id == repo_id.lower())
    return list(session.scalars(newest_first(statement, Entry.id, before, limit)))


def lift(session: Session, key: QuarantineKey) -> None:
    """Delete the entries that apply to these files."""
    session.execute(delete(Entry).where(_applies_to(key)))


def _applies_to(key: QuarantineKey) -> ColumnElement[bool]:
    """Entries without a commit apply to every commit, and those without a base to every base."""
    return (
        (Entry.kind == key.kind)
        & (Entry.repo_id == key.repo_id)
        & Entry.sha.in_(("", key.sha))
        & Entry.submitted_base.in_(("", key.submitted_base))
    )
