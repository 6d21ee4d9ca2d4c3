from __future__ import annotations

import httpx
import pytest

from catalog.database import Database
from tests.support.keys import AS_ADMIN
from tests.support.problem_documents import documented_problem
from tests.support.quarantine import put_quarantine, put_quarantined_base

QUARANTINE = "/v1/admin/quarantine"


@pytest.fixture
def client(url: str, database: Database):
    with database.transaction() as session:
        put_quarantine(session, "Evil/Model", "1" * 40)
        put_quarantined_base(session, "evil/base", "2" * 40)
    with httpx.Client(base_url=url, headers=AS_ADMIN, timeout=60) as client:
        yield client


def names(client: httpx.Client, **query: str) -> list[tuple[str, str]]:
    return [(row["kind"], row["repo_id"]) for row in client.get(QUARANTINE, params=query).json()["quarantine"]]


def test_quarantine_is_listed_newest_first_and_by_repo(client: httpx.Client):
    assert names(client) == [("base", "evil/base"), ("repo", "evil/model")]
    assert names(client, repo="EVIL/model") == [("repo", "evil/model")]
    page = client.get(QUARANTINE, params={"limit": "1"}).json()
    assert names(client, cursor=page["next_cursor"]) == [("repo", "evil/model")]


def test_entry_says_how_its_processes_ended(client: httpx.Client):
    entry = client.get(QUARANTINE).json()["quarantine"][0]
    assert (entry["sha"], entry["submitted_base"], entry["ends"]) == ("2" * 40, None, 2)
    assert entry["error"] == {"code": "worker_lost", "message": "The worker died."}


def test_lifted_quarantine_is_gone_and_in_the_audit_log(client: httpx.Client):
    base, _ = client.get(QUARANTINE).json()["quarantine"]

    assert client.delete(f"{QUARANTINE}/{base['id']}").json() == base

    assert names(client) == [("repo", "evil/model")]
    gone = client.delete(f"{QUARANTINE}/{base['id']}")
    assert documented_problem(gone)["code"] == "quarantine_not_found"
    acts = client.get("/v1/admin/audit").json()["audit"]
    assert [(act["action"], act["outcome"]) for act in acts] == [
        (f"DELETE {QUARANTINE}/{{entry_id}}", "quarantine_not_found"),
        (f"DELETE {QUARANTINE}/{{entry_id}}", "done"),
    ]
