"""The retention: what is deleted after an age, and what would be deleted now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from catalog.database import Database
from catalog.maintenance import repository
from catalog.maintenance.repository import KINDS, Kind, KindReport
from catalog.settings import Settings

__all__ = ["KindReport", "Retention", "Swept", "report", "retention_of", "sweep"]

MAX_PAGES = 20  # of each kind in one sweep
MAX_SECONDS = 10.0  # after which a sweep ends with the page that it deletes

Retention = Mapping[str, float]  # seconds by the name of the setting


@dataclass(frozen=True)
class Swept:
    """How many rows of each kind were deleted, by its name. `complete`: nothing that has expired is left."""

    deleted: Mapping[str, int]
    complete: bool


def retention_of(conf: Settings) -> Retention:
    return {kind.setting: getattr(conf, kind.setting) for kind in KINDS}


def report(database: Database, retention: Retention) -> list[KindReport]:
    """What there is of each kind, and what `sweep` would delete."""
    reports = []
    for kind in KINDS:
        with database.transaction() as session:
            reports.append(repository.report(session, kind, retention[kind.setting]))
    return reports


def sweep(
    database: Database,
    retention: Retention,
    max_pages: int = MAX_PAGES,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Swept:
    """Delete what has expired: at most `max_pages` pages of each kind, each in a transaction of its own, and no further
    page after `MAX_SECONDS` or once it `should_stop`. Safe to run in several processes at once.
    """
    deadline = time.monotonic() + MAX_SECONDS

    def is_over() -> bool:
        return should_stop() or time.monotonic() > deadline

    deleted, complete = {}, True
    for kind in KINDS:
        deleted[kind.name], after = _delete_pages(database, kind, retention[kind.setting], max_pages, is_over)
        complete &= after is None
    return Swept(deleted, complete)


def _delete_pages(
    database: Database, kind: Kind, retention: float, max_pages: int, is_over: Callable[[], bool]
) -> tuple[int, int | None]:
    """Returns how many rows were deleted, and the id after which there may be more; None after the last page."""
    total, after = 0, 0
    for _ in range(max_pages):
        if is_over():
            break
        with database.transaction() as session:
            deleted, last = repository.delete_page(session, kind, retention, after)
        total += deleted
        if last is None:
            return total, None
        after = last
    return total, after
