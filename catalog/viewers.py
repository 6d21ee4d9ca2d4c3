"""Who asks, and so what may be seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


def hash_of_key(key: str) -> str:
    """What is stored of an API key: its SHA-256, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


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
