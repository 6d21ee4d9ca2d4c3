"""API keys: creation, revocation, and the caller that a key stands for."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from catalog.auth.repository import keys
from catalog.auth.viewer import PUBLIC, Viewer, hash_key
from catalog.database import Database
from catalog.errors import KeyExpired, KeyRevoked, KeyUnknown
from catalog.tables import ApiKey, Role

ADMIN_KEY_NAME = "ADMIN_API_KEY"  # the name of the key in the settings
MARK = "ddx"  # keys begin with it, which scanners for leaked secrets can look for
PREFIX_BYTES, SECRET_BYTES = 4, 24  # random bytes of the visible and of the secret part


@dataclass(frozen=True)
class Caller:
    """Who makes a request: the name of the key, what it may do (None: nothing), and whose rows are its own."""

    name: str
    role: Role | None
    viewer: Viewer = PUBLIC
    max_active_jobs: int | None = None  # None: the default of the settings

    @property
    def is_anonymous(self) -> bool:
        return self.viewer.submitter is None


@dataclass(frozen=True)
class KeyRequest:
    """A key to create. `expires_in` is its lifetime, None for one that does not end."""

    name: str
    role: Role
    expires_in: timedelta | None = None
    max_active_jobs: int | None = None


def create(database: Database, request: KeyRequest, created_by: str) -> tuple[ApiKey, str]:
    """Create a key. Returns its row, and the key itself, which is not stored."""
    prefix = f"{MARK}_{secrets.token_hex(PREFIX_BYTES)}"
    key = f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
    with database.transaction() as session:
        row = keys.add(
            session,
            prefix,
            hash_key(key),
            request.name,
            request.role,
            created_by=created_by,
            expires_at=datetime.now(UTC) + request.expires_in if request.expires_in else None,
            max_active_jobs=request.max_active_jobs,
        )
    return row, key


def list_page(database: Database, *, before: int | None, limit: int) -> Sequence[ApiKey]:
    with database.transaction() as session:
        return keys.list_page(session, before=before, limit=limit)


def revoke(database: Database, prefix: str) -> ApiKey:
    """Revoke the key with this prefix; from then on it is refused. Raises `KeyNotFound`."""
    with database.transaction() as session:
        key = keys.get(session, prefix)
        keys.revoke(session, key.id)
        session.refresh(key)
        return key


def authenticate(database: Database, key: str, admin_key: SecretStr | None) -> Caller:
    """The caller of a key: the admin key of the settings, or a stored one.

    Raises `KeyUnknown`, `KeyRevoked` and `KeyExpired`.
    """
    key_hash = hash_key(key)
    if admin_key is not None and hmac.compare_digest(admin_key.get_secret_value().encode(), key.encode()):
        return Caller(ADMIN_KEY_NAME, Role.ADMIN, Viewer(key_hash, is_admin=True))
    with database.transaction() as session:
        row = keys.find_by_hash(session, key_hash)
        if row is None:
            raise KeyUnknown("This API key is not known. Ask an admin for one (`deltadex keys add`).")
        if row.revoked_at is not None:
            raise KeyRevoked(f"The API key {row.prefix} was revoked. Ask an admin for another one.")
        if row.expires_at is not None and row.expires_at <= datetime.now(UTC):
            raise KeyExpired(
                f"The API key {row.prefix} expired on {row.expires_at:%Y-%m-%d}. Ask an admin for another."
            )
        if row.last_used_at is None or row.last_used_at < datetime.now(UTC) - keys.USE_RESOLUTION:
            keys.record_use(session, row.id)
        role = Role(row.role)
        viewer = Viewer(row.hash, is_admin=role is Role.ADMIN)
        return Caller(f"{row.name} ({row.prefix})", role, viewer, row.max_active_jobs)


def any_usable(database: Database) -> bool:
    """Whether a key is stored that is neither revoked nor expired."""
    with database.transaction() as session:
        return keys.exists_usable(session)
