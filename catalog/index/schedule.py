"""When the index of a space is rebuilt. The sweep imports this module, so it must not import FAISS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.index import repository as snapshots
from catalog.queue import enqueue_build


@dataclass(frozen=True)
class BuildPolicy:
    """A space gets a main segment once its float32 vectors take more than `exact_bytes` bytes, and a new one when the
    changes since reach both `rows` and a `share` of its vectors. Until then, searches compare the changed vectors one
    by one: at 100,000 x 4,096 and a share of 0.02 that is 33 MB, or 1.6 ms.
    """

    exact_bytes: int
    rows: int = 1_000
    share: float = 0.02


def list_due(session: Session, policy: BuildPolicy, folder: Path, space_id: int | None = None) -> list[int]:
    """The spaces to build now: they changed enough, or their newest segment is broken or missing on this machine."""
    builds = snapshots.list_due(
        session, exact_bytes=policy.exact_bytes, rows=policy.rows, share=policy.share, space_id=space_id
    )
    return [build.space_id for build in builds if build.rebuild or _is_missing(build.path, folder)]


def _is_missing(path: str | None, folder: Path) -> bool:
    return path is not None and not (folder / path).is_dir()


def enqueue_due(database: Database, policy: BuildPolicy, folder: Path) -> list[int]:
    """Enqueue a build of each due space, and return the spaces' ids. Every sweep enqueues the build again, because its
    message expires.
    """
    with database.transaction() as session:
        spaces = list_due(session, policy, folder)
    for space_id in spaces:
        enqueue_build(space_id)
    return spaces
