from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from catalog.auth.repository.owned_rows import find_by_id_or_name, visible_to
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database, newest_first
from catalog.tables import Task

OWNER, OTHER = Viewer("owner"), Viewer("other")


@pytest.fixture
def ids(database: Database) -> list[int]:
    """The ids of a public task, a private one with the same name, and a private one without a name."""
    values = {"count": 0, "keep_examples": False, "verify": 0, "seed": 0, "training_config": {}}
    rows = [{"name": "same", "viewer": None}, {"name": "same", "viewer": "owner"}, {"name": None, "viewer": "owner"}]
    with database.transaction() as session:
        return [session.scalars(insert(Task).values(**values, **row).returning(Task.id)).one() for row in rows]


def test_newest_first_orders_and_limits_rows(database: Database, ids: list[int]):
    with database.transaction() as session:
        tasks = session.scalars(newest_first(select(Task), Task.id, None, 2)).all()
    assert [task.id for task in tasks] == ids[:0:-1]


def test_newest_first_before_an_id_excludes_that_id(database: Database, ids: list[int]):
    with database.transaction() as session:
        tasks = session.scalars(newest_first(select(Task), Task.id, ids[2], 10)).all()
    assert [task.id for task in tasks] == [ids[1], ids[0]]


@pytest.mark.parametrize(("viewer", "count"), [(PUBLIC, 1), (OTHER, 1), (OWNER, 3), (Viewer(is_admin=True), 3)])
def test_viewer_sees_public_and_own_rows(database: Database, ids: list[int], viewer: Viewer, count: int):
    with database.transaction() as session:
        task_ids = session.scalars(select(Task.id).where(visible_to(Task.viewer, viewer)).order_by(Task.id)).all()
    assert list(task_ids) == ids[:count]


@pytest.mark.parametrize(("viewer", "index"), [(OWNER, 1), (OTHER, 0), (PUBLIC, 0)])
def test_name_finds_the_viewers_own_row_first(database: Database, ids: list[int], viewer: Viewer, index: int):
    with database.transaction() as session:
        task = find_by_id_or_name(session, Task, "same", viewer)
    assert task is not None
    assert task.id == ids[index]


def test_id_does_not_find_rows_of_other_viewers(database: Database, ids: list[int]):
    with database.transaction() as session:
        assert find_by_id_or_name(session, Task, str(ids[2]), OTHER) is None


@pytest.mark.parametrize("name", ["9" * 18, "9" * 40, "none"])
def test_unknown_id_or_name_finds_nothing(database: Database, ids: list[int], name: str):
    with database.transaction() as session:
        assert find_by_id_or_name(session, Task, name, OWNER) is None
