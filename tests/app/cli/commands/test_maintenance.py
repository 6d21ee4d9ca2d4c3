from __future__ import annotations

import pytest
from sqlalchemy import text

from catalog.database import Database
from tests.support.cli import answer, run


@pytest.fixture
def old_workers(database: Database) -> int:
    """The number of dead workers: more than one request deletes."""
    number = 20 * 10 + 1
    statement = (
        "INSERT INTO workers (host, pid, device, heartbeat_at) "
        "SELECT 'away', n, 'cpu', now() - interval '8 days' FROM generate_series(1, :number) AS n"
    )
    with database.transaction() as session:
        session.execute(text(statement), {"number": number})
    return number


def test_dry_run_shows_what_would_go(url: str, old_workers: int):
    kinds = {kind["kind"]: kind for kind in answer("sweep", "--dry-run", "--api", url)["kinds"]}
    assert kinds["workers"]["expired"] == kinds["workers"]["rows"] == old_workers
    shown = run("sweep", "--dry-run", "--api", url).stdout
    assert f"{old_workers:,}" in shown
    assert "7 days" in shown


def test_sweep_goes_on_until_nothing_is_left(url: str, old_workers: int):
    swept = answer("sweep", "--api", url)
    assert swept["complete"]
    assert {kind["kind"]: kind["deleted"] for kind in swept["kinds"]}["workers"] == old_workers
    assert "workers" in run("sweep", "--api", url).stdout
