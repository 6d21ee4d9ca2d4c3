from __future__ import annotations

import pytest

from catalog.database import Database
from tests.support.cli import answer, failure, run
from tests.support.quarantine import put_quarantine, put_quarantined_base


@pytest.fixture
def api(url: str, database: Database) -> tuple[str, str]:
    """The option for an API with a repo that is quarantined at two commits, and a base."""
    with database.transaction() as session:
        for sha in ("1" * 40, "2" * 40):
            put_quarantine(session, "evil/model", sha)
        put_quarantined_base(session, "evil/base", "3" * 40)
    return ("--api", url)


def test_quarantine_is_listed(api: tuple[str, str]):
    rows = answer("quarantine", *api)["quarantine"]
    assert [row["repo_id"] for row in rows] == ["evil/base", "evil/model", "evil/model"]
    assert "worker_lost" in run("quarantine", *api).stdout


def test_lift_applies_to_all_commits_of_a_repo(api: tuple[str, str]):
    lifted = answer("quarantine", "lift", "Evil/model", *api)["lifted"]
    assert {row["sha"][0] for row in lifted} == {"1", "2"}

    assert "evil/base" in run("quarantine", "lift", "evil/base", *api).stdout

    assert answer("quarantine", *api)["quarantine"] == []
    assert failure("quarantine", "lift", "evil/base", *api).code == "quarantine_not_found"
