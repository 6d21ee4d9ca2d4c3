from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.database import Database
from catalog.maps import repository as maps
from catalog.maps import schedule as map_schedule
from catalog.maps.runner import MapRunner
from catalog.vectors.refresh_policy import COOLDOWN_FACTOR, RETRY_DELAY, RefreshPolicy
from tests.support import catalog as entries
from tests.support.clusters import fill, vector
from tests.support.vector_age import age_vectors

POLICY = RefreshPolicy(min_changes=5, share=0.5, debounce=30, max_wait=600)
SPACE_ID = 1


def is_due(database: Database) -> bool:
    return bool(map_schedule.enqueue_due(database, POLICY))


def set_age(database: Database, table: str, column: str, seconds: float) -> None:
    """Set a column of timestamps to `seconds` ago."""
    with database.transaction() as session:
        session.execute(
            text(f"UPDATE {table} SET {column} = now() - make_interval(secs => :seconds)"), {"seconds": seconds}
        )


@pytest.fixture
def settled(database: Database) -> Database:
    """Six models, the last of which arrived half a minute ago."""
    fill(database, models_per_topic=2)
    age_vectors(database, 31)
    return database


def test_map_is_due_after_enough_models_and_the_debounce_time(database: Database):
    fill(database, models_per_topic=2)
    assert not is_due(database)
    age_vectors(database, 31)
    assert is_due(database)


def test_map_is_not_due_until_enough_has_changed_since(settled: Database, tmp_path: Path):
    MapRunner(settled, tmp_path).run(SPACE_ID)
    set_age(settled, "maps", "created_at", 10_000)
    assert not is_due(settled)
    for number in range(5):
        entries.put(settled, f"owner/more-{number}", vector(0, 10 + number))
    age_vectors(settled, 31)
    assert is_due(settled)


def test_map_is_not_due_during_the_cooldown(settled: Database, tmp_path: Path):
    MapRunner(settled, tmp_path).run(SPACE_ID)
    for number in range(5):
        entries.put(settled, f"owner/more-{number}", vector(0, 10 + number))
    age_vectors(settled, 31)
    with settled.transaction() as session:
        session.execute(text("UPDATE maps SET seconds = 100"))
    assert not is_due(settled)
    set_age(settled, "maps", "created_at", 100 * COOLDOWN_FACTOR + 1)
    assert is_due(settled)


@pytest.mark.parametrize(("failures", "factor"), [(1, 1), (3, 4)])
def test_retry_delay_doubles_with_each_failure(settled: Database, failures: int, factor: int):
    for _ in range(failures):
        with settled.transaction() as session:
            maps.start_attempt(session, SPACE_ID)
    set_age(settled, "map_attempts", "started_at", RETRY_DELAY * factor - 60)
    assert not is_due(settled)
    set_age(settled, "map_attempts", "started_at", RETRY_DELAY * factor + 1)
    assert is_due(settled)
