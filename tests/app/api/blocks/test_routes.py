from __future__ import annotations

import httpx
import pytest

from catalog.database import Database
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync import webhooks as webhook_service
from catalog.hub_sync.crawls import CrawlLimits, CrawlSource, ListingPage
from catalog.hub_sync.repository import crawls
from catalog.hub_sync.repository.listings import ListedRepo
from catalog.hub_sync.webhooks import HubEvent, Outcome
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.tables import Crawl
from tests.support import catalog as entries
from tests.support.keys import AS_ADMIN
from tests.support.problem_documents import documented_problem

BLOCKS = "/v1/admin/blocks"


@pytest.fixture
def client(url: str, database: Database):
    with httpx.Client(base_url=url, headers=AS_ADMIN, timeout=60) as client:
        yield client


def put(database: Database, repo_id: str, license: str | None = None) -> None:
    model_id = entries.put(database, repo_id, [1.0, 2.0])
    with database.transaction() as session:
        models.update_metadata(session, model_id, Metadata(license=license))


def names(client: httpx.Client) -> list[str]:
    return [model["repo_id"] for model in client.get("/v1/models").json()["models"]]


def crawl(database: Database, *repos: ListedRepo) -> Crawl:
    created = crawl_service.create(database, CrawlSource(owner="any"), CrawlLimits())
    with database.transaction() as session:
        started = crawls.begin_step(session, created.id)
    assert crawl_service.store_page(database, started, ListingPage(repos))
    with database.transaction() as session:
        return crawls.get(session, created.id)


@pytest.mark.parametrize(
    ("body", "removed"),
    [
        ({"owner": "Evil"}, ["evil/one", "evil/two"]),
        ({"repo": "evil/ONE"}, ["evil/one"]),
        ({"license": "CC-BY-NC-4.0"}, ["evil/two", "good/nc"]),
    ],
)
def test_block_removes_the_models_that_it_applies_to(
    client: httpx.Client, database: Database, body: dict, removed: list[str]
):
    for repo_id, license in (("evil/one", "mit"), ("evil/two", "cc-by-nc-4.0"), ("good/nc", "cc-by-nc-4.0")):
        put(database, repo_id, license)
    put(database, "good/free", "mit")
    before = names(client)

    response = client.post(BLOCKS, json=body | {"reason": "reviewed"})

    assert (response.status_code, response.json()["removed"]) == (201, len(removed))
    assert names(client) == [name for name in before if name not in removed]
    assert client.post(BLOCKS, json=body).json()["id"] == response.json()["id"]


def test_more_models_than_fit_into_a_transaction_are_removed(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("catalog.removals.blocks.MODELS_PER_TRANSACTION", 2)
    for number in range(5):
        put(database, f"evil/m{number}")

    assert client.post(BLOCKS, json={"owner": "evil"}).json()["removed"] == 5

    assert names(client) == []


@pytest.mark.parametrize("body", [{"owner": "Evil"}, {"repo": "EVIL/one"}])
def test_submission_of_a_blocked_repo_is_refused(client: httpx.Client, body: dict):
    client.post(BLOCKS, json=body | {"reason": "the lawyers said so"})

    refused = client.post("/v1/models", json={"repo_id": "evil/one"})

    assert documented_problem(refused)["code"] == "model_blocked"
    assert "lawyers" not in refused.text
    assert client.get("/v1/jobs").json()["jobs"] == []


def test_submission_of_a_model_with_a_blocked_license_is_refused(client: httpx.Client, database: Database):
    client.post(BLOCKS, json={"license": "other"})
    put(database, "good/model", "other")  # as a worker would without the check
    assert documented_problem(client.post("/v1/models", json={"repo_id": "good/model"}))["code"] == "model_blocked"


def test_crawl_counts_blocked_repos_and_queues_the_others(client: httpx.Client, database: Database):
    for body in ({"owner": "evil"}, {"license": "other"}):
        client.post(BLOCKS, json=body)

    row = crawl(
        database,
        ListedRepo("evil/one", "1" * 40),
        ListedRepo("good/other", "2" * 40, Metadata(license="Other")),
        ListedRepo("good/free", "3" * 40, Metadata(license="mit")),
    )

    assert (row.listed, row.queued, row.blocked, row.skipped) == (3, 1, 2, 0)
    assert names(client) == ["good/free"]


def test_crawl_removes_a_model_whose_license_is_blocked_now(client: httpx.Client, database: Database):
    put(database, "good/model", "mit")
    client.post(BLOCKS, json={"license": "other"})
    assert names(client) == ["good/model"]

    crawl(database, ListedRepo("good/model", "1" * 40, Metadata(license="other")))

    assert names(client) == []


def test_webhook_of_a_blocked_repo_has_no_effect(client: httpx.Client, database: Database):
    client.post(BLOCKS, json={"owner": "evil"})
    push = HubEvent("update", "repo.content", "evil/one", False, head_sha="f" * 40, refs=("refs/heads/main",))
    assert webhook_service.receive(database, push) == (Outcome.BLOCKED, None)
    assert names(client) == []


def test_deleted_block_admits_submissions_but_brings_nothing_back(client: httpx.Client, database: Database):
    put(database, "evil/one")
    block = client.post(BLOCKS, json={"owner": "evil"}).json()

    assert client.delete(f"{BLOCKS}/{block['id']}").json()["value"] == "evil"

    assert client.get(BLOCKS).json()["blocks"] == []
    assert crawl(database, ListedRepo("evil/one", "1" * 40)).blocked == 1
    assert client.post("/v1/models", json={"repo_id": "evil/one"}).status_code == 202
    assert names(client) == ["evil/one"]
    assert documented_problem(client.delete(f"{BLOCKS}/{block['id']}"))["code"] == "block_not_found"


def test_blocks_are_listed_newest_first_in_pages(client: httpx.Client):
    for owner in ("a", "b", "c"):
        client.post(BLOCKS, json={"owner": owner})
    first = client.get(BLOCKS, params={"limit": 2}).json()
    second = client.get(BLOCKS, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [block["value"] for block in first["blocks"] + second["blocks"]] == ["c", "b", "a"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("body", [{}, {"owner": "a", "license": "b"}, {"owner": ""}, {"repo": "no-slash"}])
def test_invalid_block_is_rejected(client: httpx.Client, body: dict):
    assert client.post(BLOCKS, json=body).status_code == 422
    assert client.get(BLOCKS).json()["blocks"] == []
