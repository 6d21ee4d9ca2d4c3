"""Who asks, and so what may be seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from catalog.errors import WeakKey

LEAST_KEY = 20  # characters of a key or secret that something is protected by
MAKE_A_KEY = "Take a long random one, such as `openssl rand -hex 16` prints."


def hash_of_key(key: str) -> str:
    """What is stored of an API key: its SHA-256, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_key(key: str) -> str:
    """The same API key. Raises `WeakKey` for one that others could find by trying."""
    if len(key) < LEAST_KEY:
        raise WeakKey(f"An API key has at least {LEAST_KEY} characters, and this one has {len(key)}. {MAKE_A_KEY}")
    return key


@dataclass(frozen=True)
class Viewer:
    """Somebody by the hash of an API key (None: nobody in particular), or an admin, who sees `everything`."""

    submitter: str | None = None
    everything: bool = False

    @classmethod
    def of_key(cls, key: str | None) -> Viewer:
        return cls(hash_of_key(key)) if key else PUBLIC

    def sees(self, owner: str | None) -> bool:
        """Whether a job is shown that is for the submitter `owner` alone (None: for everybody)."""
        return owner is None or self.everything or owner == self.submitter


PUBLIC = Viewer()
EVERYTHING = Viewer(everything=True)
