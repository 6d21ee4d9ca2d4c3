"""Repo ids and revisions from users, validated before any request to the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from catalog.errors import InvalidRepoId, InvalidRevision

REPO_ID_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"  # an owner, or the name of a repo
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/+-]{0,254})")
_SHA = re.compile(r"[0-9a-f]{40}")
_BASE_ID = re.compile(rf"(?:{REPO_ID_PART}/)?{REPO_ID_PART}")  # the oldest models on the Hub have no owner: gpt2
LOCAL_OWNER = "local"  # of folders added on the command line; not an owner on the Hub
ALIAS_OWNER = "alias"  # `alias/NAME` is the model that a team calls NAME
RESERVED_OWNERS = (LOCAL_OWNER, ALIAS_OWNER)  # repos of the Hub with such an owner are not indexed


@dataclass(frozen=True)
class RepoRef:
    """A repo on the Hub, and a branch, tag or commit (None: the main branch).

    Raises `InvalidRepoId` and `InvalidRevision`.
    """

    repo_id: str
    revision: str | None = None

    def __post_init__(self) -> None:
        parts = self.repo_id.split("/")
        if len(parts) != 2 or not all(re.fullmatch(REPO_ID_PART, part) and ".." not in part for part in parts):
            raise InvalidRepoId(
                f"{self.repo_id[:200]!r} is not a repo id. Use OWNER/NAME, with letters, digits and . _ - only, or "
                f"{ALIAS_OWNER}/NAME for an alias."
            )
        if self.revision is not None and (not _REVISION.fullmatch(self.revision) or ".." in self.revision):
            raise InvalidRevision(
                f"{self.revision[:200]!r} is not a branch, tag or commit. Use letters, digits and . _ - / + only."
            )

    @property
    def owner(self) -> str:
        return self.repo_id.split("/")[0]

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit sha, which always refers to the same content."""
        return self.revision is not None and _SHA.fullmatch(self.revision) is not None


def is_base_id(name: object) -> bool:
    """Whether this can be the repo id of a base model."""
    return isinstance(name, str) and _BASE_ID.fullmatch(name) is not None and ".." not in name


def check_base_id(name: str | None) -> None:
    """Raises `InvalidRepoId` if the base that a submission names is not the repo id of a base model."""
    if name is not None and not is_base_id(name):
        raise InvalidRepoId(
            f"{name[:200]!r} is not the repo id of a base model. Use OWNER/NAME, with letters, digits and . _ - only."
        )
