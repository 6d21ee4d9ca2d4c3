from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.maps import schedule as map_schedule
from catalog.maps.runner import Drawer
from catalog.vectors.refresh_policy import AFTER_FAILURE, REST, Policy
from tests.support import catalog as entries
from tests.support.clusters import fill, vector
from tests.support.vector_age import age

POLICY = Policy(rows=5, share=0.5, quiet=30, patience=600)
SPACE_ID = 1


def due(database: Database) -> bool:
    return bool(map_schedule.ring_for_due(database, POLICY))


def passed(database: Database, table: str, column: str, seconds: float) -> None:
    """Make it so long ago that something was written."""
    with database.transaction() as session:
        session.execute(
            text(f"UPDATE {table} SET {column} = now() - make_interval(secs => :seconds)"), {"seconds": seconds}
        )


@pytest.fixture
def quiet(database: Database) -> Database:
    """Six models, the last of which came half a minute ago."""
    fill(database, each=2)
    age(database, 31)
    return database


def test_enough_models_and_then_quiet_make_a_map_due(database: Database):
    fill(database, each=2)
    assert not due(database)
    age(database, 31)
    assert due(database)


def test_after_a_map_nothing_is_due_until_enough_has_changed(quiet: Database, tmp_path: Path):
    Drawer(quiet, tmp_path).run(SPACE_ID)
    passed(quiet, "maps", "created_at", 10_000)
    assert not due(quiet)
    for number in range(5):
        entries.put(quiet, f"owner/more-{number}", vector(0, 10 + number))
    age(quiet, 31)
    assert due(quiet)


def test_a_space_rests_as_long_as_its_map_took_and_more(quiet: Database, tmp_path: Path):
    Drawer(quiet, tmp_path).run(SPACE_ID)
    for number in range(5):
        entries.put(quiet, f"owner/more-{number}", vector(0, 10 + number))
    age(quiet, 31)
    with quiet.transaction() as session:
        session.execute(text("UPDATE maps SET seconds = 100"))
    assert not due(quiet)
    passed(quiet, "maps", "created_at", 100 * REST + 1)
    assert due(quiet)


@pytest.mark.parametrize(("failures", "wait"), [(1, 1), (3, 4)])
def test_one_that_keeps_failing_waits_twice_as_long_each_time(quiet: Database, failures: int, wait: int):
    for _ in range(failures):
        with quiet.transaction() as session:
            maps.note_attempt(session, SPACE_ID)
    passed(quiet, "map_attempts", "started_at", AFTER_FAILURE * wait - 60)
    assert not due(quiet)
    passed(quiet, "map_attempts", "started_at", AFTER_FAILURE * wait + 1)
    assert due(quiet)
