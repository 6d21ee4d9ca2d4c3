from __future__ import annotations

import io

import pytest
from sqlalchemy import func, select

from catalog.archives import repository as archives
from catalog.archives.limits import ArchiveLimits
from catalog.auth.viewer import Viewer
from catalog.database import Database
from catalog.errors import ArchiveQuotaExceeded
from catalog.tables import Archive, ArchivePiece
from catalog.tasks import repository as tasks
from tests.support import catalog as entries
from tests.support.tasks import create_task

ME, YOU = Viewer("me"), Viewer("you")


@pytest.fixture
def base(database: Database) -> None:
    entries.put(database, "owner/law", [1.0, 0.0])


def store(database: Database, viewer: Viewer, size: int, limits: ArchiveLimits, model_id: int | None = None) -> int:
    """Store an archive for a task of the viewer; returns the id of the hidden model that it belongs to."""
    if model_id is None:
        task_id = create_task(database, viewer)
        with database.transaction() as session:
            [run] = tasks.get(session, task_id).runs
            model_id = run.model_id
    with database.transaction() as session:
        archives.store(session, model_id, io.BytesIO(bytes(size)), viewer=viewer.submitter, limits=limits)
    return model_id


def stored_bytes(database: Database) -> tuple[int, int]:
    with database.transaction() as session:
        sizes = session.execute(select(func.sum(Archive.size))).scalar_one()
        pieces = session.execute(select(func.sum(func.octet_length(ArchivePiece.data)))).scalar_one()
        return int(sizes or 0), int(pieces or 0)


@pytest.mark.usefixtures("base")
def test_archive_over_the_quota_of_its_key_is_refused(database: Database):
    limits = ArchiveLimits(per_key=10)
    store(database, ME, 6, limits)
    with pytest.raises(ArchiveQuotaExceeded, match="11 bytes, and its limit is 10"):
        store(database, ME, 5, limits)
    store(database, YOU, 10, limits)
    store(database, ME, 4, limits)
    assert stored_bytes(database) == (20, 20)


@pytest.mark.usefixtures("base")
def test_archive_over_the_limit_of_all_is_refused(database: Database):
    limits = ArchiveLimits(total=10)
    store(database, ME, 6, limits)
    with pytest.raises(ArchiveQuotaExceeded, match="11 bytes, and the limit is 10"):
        store(database, YOU, 5, limits)
    assert stored_bytes(database) == (6, 6)


@pytest.mark.usefixtures("base")
def test_archive_that_is_replaced_does_not_count(database: Database):
    limits = ArchiveLimits(per_key=10, total=10)
    model_id = store(database, ME, 6, limits)
    store(database, ME, 10, limits, model_id)
    assert stored_bytes(database) == (10, 10)


@pytest.mark.usefixtures("base")
def test_archives_of_no_key_count_toward_the_limit_of_all_alone(database: Database):
    limits = ArchiveLimits(per_key=1, total=10)
    store(database, Viewer(None), 10, limits)
    with pytest.raises(ArchiveQuotaExceeded):
        store(database, Viewer(None), 1, limits)


@pytest.mark.usefixtures("base")
def test_without_limits_nothing_is_refused(database: Database):
    store(database, ME, 1_000, ArchiveLimits())
