"""Viewers: who makes a request, which decides what the request can see."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MIN_KEY_LENGTH = 20  # characters of ADMIN_API_KEY and the webhook secret
KEY_ADVICE = "Use a long random one, for example from `openssl rand -hex 16`."


def hash_key(key: str) -> str:
    """The SHA-256 of an API key in hex, which is stored in place of the key."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class Viewer:
    """The public, or the holder of an API key (`submitter` is its hash). An admin can see everything."""

    submitter: str | None = None
    is_admin: bool = False

    def can_see(self, owner: str | None) -> bool:
        """Whether this viewer can see a row that belongs to the submitter `owner` (None: to the public)."""
        return owner is None or self.is_admin or owner == self.submitter

    def can_change(self, owner: str | None) -> bool:
        """Whether this viewer can change a row of the submitter `owner` (None: of no key, so only admins can)."""
        return self.is_admin or (owner is not None and owner == self.submitter)


PUBLIC = Viewer()
ADMIN = Viewer(is_admin=True)
