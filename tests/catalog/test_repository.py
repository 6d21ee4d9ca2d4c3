from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import Database
from catalog.repository import by_id_or_name, newest_first, owned_by
from catalog.tables import Task

OWNER, OTHER = Viewer("owner"), Viewer("other")


@pytest.fixture
def ids(database: Database) -> list[int]:
    """A task of everybody's, one of the same name of an owner's, and one without a name."""
    values = {"count": 0, "keep_examples": False, "verify": 0, "seed": 0, "recipe": {}}
    rows = [{"name": "same", "viewer": None}, {"name": "same", "viewer": "owner"}, {"name": None, "viewer": "owner"}]
    with database.transaction() as session:
        return [session.scalars(insert(Task).values(**values, **row).returning(Task.id)).one() for row in rows]


def test_rows_come_newest_first_up_to_the_limit(database: Database, ids: list[int]):
    with database.transaction() as session:
        found = session.scalars(newest_first(select(Task), Task.id, None, 2)).all()
    assert [task.id for task in found] == ids[:0:-1]


def test_rows_before_an_id_leave_out_that_id(database: Database, ids: list[int]):
    with database.transaction() as session:
        found = session.scalars(newest_first(select(Task), Task.id, ids[2], 10)).all()
    assert [task.id for task in found] == [ids[1], ids[0]]


@pytest.mark.parametrize(("viewer", "seen"), [(PUBLIC, 1), (OTHER, 1), (OWNER, 3), (Viewer(everything=True), 3)])
def test_a_viewer_sees_everybodys_rows_and_its_own(database: Database, ids: list[int], viewer: Viewer, seen: int):
    with database.transaction() as session:
        found = session.scalars(select(Task.id).where(owned_by(Task.viewer, viewer)).order_by(Task.id)).all()
    assert list(found) == ids[:seen]


@pytest.mark.parametrize(("viewer", "index"), [(OWNER, 1), (OTHER, 0), (PUBLIC, 0)])
def test_a_name_finds_the_viewers_own_row_first(database: Database, ids: list[int], viewer: Viewer, index: int):
    with database.transaction() as session:
        found = by_id_or_name(session, Task, "same", viewer)
    assert found is not None
    assert found.id == ids[index]


def test_an_id_finds_no_row_of_somebody_elses(database: Database, ids: list[int]):
    with database.transaction() as session:
        assert by_id_or_name(session, Task, str(ids[2]), OTHER) is None


@pytest.mark.parametrize("name", ["9" * 18, "9" * 40, "none"])
def test_an_unknown_id_or_name_finds_nothing(database: Database, ids: list[int], name: str):
    with database.transaction() as session:
        assert by_id_or_name(session, Task, name, OWNER) is None
