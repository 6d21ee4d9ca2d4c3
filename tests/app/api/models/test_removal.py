"""A removed model leaves every answer of a listening API within a second, and only a person brings it back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync import webhooks as webhook_service
from catalog.hub_sync.crawls import CrawlLimits, CrawlSource
from catalog.hub_sync.removals import follow_rename
from catalog.hub_sync.repository import crawls
from catalog.hub_sync.webhooks import HubEvent
from catalog.jobs.repository import jobs
from catalog.maps.runner import MapRunner
from catalog.models.repository import models
from catalog.tables import Archive, JobState, Model, ModelAccess, ModelState, Revision, Vector
from tests.support import catalog as entries
from tests.support.clusters import cluster, fill
from tests.support.hub_lists import HubLists, repo_entry
from tests.support.keys import AS_ADMIN, add_key
from tests.support.problem_documents import documented_problem
from workers.hub.listing import HubListing
from workers.maintenance.crawler import Crawler

LAW = [f"owner/tiny-law-{number}" for number in range(6)]
KEY = "a long key of a submitter"


@pytest.fixture
def client(database: Database, tmp_path: Path, url: str) -> Iterator[httpx.Client]:
    """A client of a listening API, with three clusters of six models on a map."""
    add_key(database, KEY)
    fill(database, models_per_topic=6)
    cluster(database, tmp_path)
    MapRunner(database, tmp_path).run(1)
    with httpx.Client(base_url=url, headers=AS_ADMIN, timeout=60) as client:
        wait_within(60, lambda: client.get(f"/v1/models/{LAW[0]}/neighbors").status_code == 200)
        yield client


def wait_within(seconds: float, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def neighbors(client: httpx.Client, repo_id: str, **params: Any) -> set[str]:
    answer = client.get(f"/v1/models/{repo_id}/neighbors", params={"include_low_confidence": True, "k": 20, **params})
    return {row["repo_id"] for row in answer.json()["neighbors"]}


def on_map(client: httpx.Client) -> set[str]:
    answer = client.get("/v1/map").json()
    points = {f"{owner}/{name}" for owner, names in answer["points"]["owners"] for name in names}
    return points | set(answer["arrivals"]["repo_ids"])


def law_cluster(client: httpx.Client) -> dict[str, Any]:
    rows = client.get("/v1/clusters").json()["clusters"]
    row = next(row for row in rows if row["name"] == "law")
    return client.get(f"/v1/clusters/{row['id']}").json()


def crawl(database: Database, hub: HubLists, **limits: Any) -> dict[str, int]:
    """The counts of a crawl of all repos of the maker."""
    created = crawl_service.create(database, CrawlSource(owner="maker"), CrawlLimits(**limits))
    crawler = Crawler(database, HubListing(hub.url, None, timeout=5), max_queued=1_000)
    while crawler.step():
        pass
    with database.transaction() as session:
        row = crawls.get(session, created.id)
        return {name: getattr(row, name) for name in ("listed", "queued", "unchanged", "blocked")}


def row_of(database: Database, repo_id: str, *, private: bool = False) -> Model:
    with database.transaction() as session:
        return session.scalars(select(Model).where(Model.repo_id == repo_id, Model.private == private)).one()


def count(database: Database, table: type, model_id: int) -> int:
    with database.transaction() as session:
        return session.execute(select(func.count()).where(table.model_id == model_id)).scalar_one()


def test_removed_model_leaves_every_answer_within_a_second(client: httpx.Client):
    assert LAW[1] in neighbors(client, LAW[0])
    assert on_map(client) >= set(LAW)

    answer = client.delete(f"/v1/models/{LAW[1]}")
    deadline = time.monotonic() + 1

    assert answer.json() == {"repo_id": LAW[1], "revisions": 1, "vectors": 1, "jobs": []}
    assert LAW[1] not in neighbors(client, LAW[0])  # at once, before the index has followed
    assert documented_problem(client.get(f"/v1/models/{LAW[1]}"))["code"] == "model_not_found"
    assert documented_problem(client.get(f"/v1/models/{LAW[1]}/neighbors"))["code"] == "model_not_found"
    listed = client.get("/v1/models", params={"limit": 100}).json()["models"]
    assert LAW[1] not in {model["repo_id"] for model in listed}
    assert len(listed) == 17
    assert client.get("/v1/models", params={"state": "removed"}).json()["models"] == []
    assert client.get("/v1/models", params={"q": LAW[1]}).json()["models"] == []
    detail = law_cluster(client)
    assert LAW[1] not in {detail["medoid"], *(member["repo_id"] for member in detail["closest"])}
    assert detail["size"] == 5
    assert "tiny-law-1" not in client.get("/v1/map").text
    assert on_map(client) >= {LAW[0], *LAW[2:]}
    vector = client.post("/v1/search", json={"expression": LAW[1]})
    assert documented_problem(vector)["code"] == "term_not_found"
    filtered = {"cluster": detail["id"]}
    search = {"repo_id": LAW[0], "k": 20, "include_low_confidence": True, "filter": filtered}
    assert LAW[1] not in client.post("/v1/search", json=search).text
    assert time.monotonic() < deadline + 5  # the requests themselves are slow on a busy machine


def test_index_follows_a_removal_within_a_second(client: httpx.Client, url: str):
    before = loaded_vectors(client)
    client.delete(f"/v1/models/{LAW[1]}")
    wait_within(1, lambda: loaded_vectors(client) == before - 1)


def loaded_vectors(client: httpx.Client) -> int:
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line.split()[-1] for line in lines if line.startswith("deltadex_index_vectors{"))))


def test_removed_medoid_is_replaced_by_the_closest_member(client: httpx.Client):
    before = law_cluster(client)

    client.delete(f"/v1/models/{before['medoid']}")

    after = law_cluster(client)
    assert after["medoid"] == before["closest"][1]["repo_id"] == after["closest"][0]["repo_id"]


def test_cluster_without_members_disappears(client: httpx.Client, database: Database):
    for repo_id in LAW:
        assert client.delete(f"/v1/models/{repo_id}").status_code == 200

    answer = client.get("/v1/clusters").json()

    assert {row["name"] for row in answer["clusters"]} == {"math", "code"}
    assert answer["run"]["clusters"] == 2


def test_nothing_measured_stays_in_the_database(client: httpx.Client, database: Database):
    removed = row_of(database, LAW[0])
    entries.put(database, LAW[0], [1.0] * 16, commit="two")
    with database.transaction() as session:
        models.set_card(session, removed.id, "secret words")
        session.add(Archive(model_id=removed.id, size=0, sha256="0" * 64))

    answer = client.delete(f"/v1/models/{LAW[0]}").json()

    assert (answer["revisions"], answer["vectors"]) == (2, 2)
    assert [count(database, table, removed.id) for table in (Revision, Archive, ModelAccess)] == [0, 0, 0]
    with database.transaction() as session:
        [tombstone] = session.scalars(select(Vector).where(Vector.model_id == removed.id))
        assert (tombstone.deleted, tombstone.data, tombstone.revision_id, tombstone.norm) == (True, b"", None, 0)
    row = row_of(database, LAW[0])
    assert (row.state, row.card, row.tags, row.hub_sha) == (ModelState.REMOVED, None, [], None)
    assert row.removed_at is not None


def test_private_model_and_its_access_are_removed(client: httpx.Client, database: Database):
    private_id = entries.put_private(database, "owner/hidden", [1.0] * 16, hash_key(KEY))
    headers = {"X-API-Key": KEY}
    assert client.get("/v1/models/owner/hidden", headers=headers).status_code == 200

    assert client.delete("/v1/models/owner/hidden").json()["vectors"] == 1

    assert client.get("/v1/models/owner/hidden", headers=headers).status_code == 404
    assert [count(database, table, private_id) for table in (Revision, ModelAccess)] == [0, 0]


def test_public_and_private_row_are_removed_together(client: httpx.Client, database: Database):
    entries.put_private(database, LAW[0], [1.0] * 16, hash_key(KEY))

    assert client.delete(f"/v1/models/{LAW[0]}").json()["vectors"] == 2

    assert client.get(f"/v1/models/{LAW[0]}", headers={"X-API-Key": KEY}).status_code == 404


def test_former_name_removes_the_renamed_model(client: httpx.Client, database: Database):
    with database.transaction() as session:
        follow_rename(session, models.get(session, LAW[0]), "owner/renamed")

    assert client.delete(f"/v1/models/{LAW[0]}").json()["repo_id"] == "owner/renamed"

    assert client.get("/v1/models/owner/renamed").status_code == 404
    assert client.get(f"/v1/models/{LAW[0]}").status_code == 404


def test_unknown_and_removed_models_cannot_be_removed(client: httpx.Client):
    assert documented_problem(client.delete("/v1/models/no/body"))["code"] == "model_not_found"
    client.delete(f"/v1/models/{LAW[0]}")
    assert documented_problem(client.delete(f"/v1/models/{LAW[0]}"))["code"] == "model_not_found"


def test_queued_job_of_a_removed_model_is_cancelled_and_not_retried(client: httpx.Client, database: Database):
    job = client.post("/v1/models", json={"repo_id": "maker/m1"}).json()

    assert client.delete("/v1/models/maker/m1").json()["jobs"] == [job["id"]]

    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    retried = client.post(f"/v1/jobs/{job['id']}/retry")
    assert documented_problem(retried)["code"] == "not_retriable"
    assert "Submit it again" in retried.json()["detail"]


def test_crawl_leaves_a_removed_model_out_without_include_removed(
    client: httpx.Client, database: Database, hub_lists: HubLists
):
    hub_lists.add(repo_entry(1), repo_entry(2))
    assert crawl(database, hub_lists)["queued"] == 2
    client.delete("/v1/models/maker/m1")
    hub_lists.add(repo_entry(1, commit=5))

    assert crawl(database, hub_lists) == {"listed": 2, "queued": 0, "unchanged": 1, "blocked": 1}
    assert client.get("/v1/models/maker/m1").status_code == 404

    assert crawl(database, hub_lists, include_removed=True)["queued"] == 1
    assert client.get("/v1/models/maker/m1").json()["state"] == "pending"


def test_crawl_leaves_a_removed_model_out_under_its_new_name(
    client: httpx.Client, database: Database, hub_lists: HubLists
):
    hub_lists.add(repo_entry(1))
    crawl(database, hub_lists)
    client.delete("/v1/models/maker/m1")
    hub_lists.repos.clear()
    hub_lists.add({**repo_entry(1), "id": "maker/renamed"})

    assert crawl(database, hub_lists)["blocked"] == 1

    assert client.get("/v1/models/maker/renamed").status_code == 404


def test_recurring_crawl_cannot_include_removed_models(client: httpx.Client):
    body = {"owner": "maker", "include_removed": True, "every_hours": 24}
    assert documented_problem(client.post("/v1/admin/crawls", json=body))["code"] == "invalid_input"


def test_webhook_does_not_bring_a_removed_model_back(client: httpx.Client, database: Database):
    client.delete(f"/v1/models/{LAW[0]}")
    push = HubEvent("update", "repo.content", LAW[0], False, head_sha="f" * 40, refs=("refs/heads/main",))

    assert webhook_service.receive(database, push) == (webhook_service.Outcome.BLOCKED, None)

    with database.transaction() as session:
        assert jobs.list_page(session) == []


def test_submission_by_a_person_brings_a_removed_model_back(client: httpx.Client, database: Database):
    client.delete(f"/v1/models/{LAW[0]}")

    job = client.post("/v1/models", json={"repo_id": LAW[0]})

    assert (job.status_code, job.json()["state"]) == (202, JobState.QUEUED)
    model = client.get(f"/v1/models/{LAW[0]}").json()
    assert (model["state"], model["revision"]) == ("pending", None)
    entries.put(database, LAW[0], [1.0] * 16, commit="new")
    wait_within(60, lambda: LAW[0] in neighbors(client, LAW[1]))
