"""SQL of API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from catalog.database import newest_first
from catalog.errors import KeyNotFound
from catalog.tables import ApiKey, Role

USE_RESOLUTION = timedelta(minutes=1)  # of `last_used_at`, so that not every request writes


def add(
    session: Session,
    prefix: str,
    key_hash: str,
    name: str,
    role: Role,
    *,
    created_by: str,
    expires_at: datetime | None = None,
    max_active_jobs: int | None = None,
) -> ApiKey:
    key = ApiKey(
        prefix=prefix, hash=key_hash, name=name, role=role, created_by=created_by, expires_at=expires_at,
        max_active_jobs=max_active_jobs,
    )  # fmt: skip
    session.add(key)
    session.flush()
    session.refresh(key)
    return key


def find_by_hash(session: Session, key_hash: str) -> ApiKey | None:
    return session.scalars(select(ApiKey).where(ApiKey.hash == key_hash)).one_or_none()


def get(session: Session, prefix: str) -> ApiKey:
    """The key with this prefix. Raises `KeyNotFound`."""
    key = session.scalars(select(ApiKey).where(ApiKey.prefix == prefix)).one_or_none()
    if key is None:
        raise KeyNotFound(f"There is no API key {prefix[:40]}. List the keys with `deltadex keys`.")
    return key


def list_page(session: Session, *, before: int | None, limit: int) -> Sequence[ApiKey]:
    """Up to `limit` keys with an id below `before`, newest first."""
    return session.scalars(newest_first(select(ApiKey), ApiKey.id, before, limit)).all()


def revoke(session: Session, key_id: int) -> None:
    """Revoke a key; the time of an earlier revocation is kept."""
    session.execute(
        update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
    )


def record_use(session: Session, key_id: int) -> None:
    """Record that a key is used now, unless that was recorded within the last `USE_RESOLUTION`."""
    is_old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.now() - USE_RESOLUTION)
    session.execute(update(ApiKey).where(ApiKey.id == key_id, is_old).values(last_used_at=func.now()))


def exists_usable(session: Session) -> bool:
    """Whether there is a key that is neither revoked nor expired."""
    unexpired = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
    return session.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None), unexpired).limit(1)) is not None
