from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from catalog.auth.repository import access
from catalog.auth.viewer import ADMIN
from catalog.database import Database
from catalog.jobs.repository import attempts, claims, jobs
from catalog.models import curation
from catalog.models.repository import models
from catalog.tables import JobState, Model, ModelState
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.problem_documents import documented_problem

HUB_ID = "621ffdc036468d709f17434d"

SECRET = "open sesame to the Hub"


@pytest.fixture
def hub(api: TestClient) -> TestClient:
    """A client with the webhook secret."""
    api.app.state.settings = api.app.state.settings.model_copy(update={"webhook_secret": SecretStr(SECRET)})
    api.headers["X-Webhook-Secret"] = SECRET
    return api


def payload(action: str = "update", scope: str = "repo.content", *, head: str | None = "two", **fields: object) -> dict:
    """A payload in the format of the Hub."""
    repo = {
        "type": "model",
        "name": "owner/model",
        "id": HUB_ID,
        "private": False,
        "url": {"web": "https://huggingface.co/owner/model", "api": "https://huggingface.co/api/models/owner/model"},
        "owner": {"id": "628b753283ef59b5be89e937"},
        **({"headSha": entries.sha(head)} if head else {}),
        **fields.pop("repo", {}),
    }
    webhook = {"id": "6390e855e30d9209411de93b", "version": 3}
    return {"event": {"action": action, "scope": scope}, "repo": repo, "webhook": webhook, **fields}


def push(head: str = "two", ref: str = "refs/heads/main", **fields: object) -> dict:
    refs = [{"ref": ref, "oldSha": None, "newSha": entries.sha(head)}]
    return payload(head=head, updatedRefs=refs, **fields)


DELETED = payload("delete", "repo", head=None)
PRIVATE = payload("update", "repo.config", repo={"private": True}, updatedConfig={"private": True})
PUBLIC = payload("update", "repo.config", updatedConfig={"private": False})
MOVED = payload("move", "repo", head="one", movedTo={"name": "owner/better", "owner": {"id": "x"}})


def deliver(hub: TestClient, content: dict) -> str:
    response = hub.post("/v1/webhooks/hub", json=content)
    assert response.status_code == 200, response.text
    return response.json()["outcome"]


def job_ids(database: Database) -> list[int]:
    with database.transaction() as session:
        return [job.id for job in jobs.list_page(session)]


def test_webhook_without_a_configured_secret_is_disabled(api: TestClient):
    response = api.post("/v1/webhooks/hub", json=push(), headers={"X-Webhook-Secret": ""})
    assert documented_problem(response)["code"] == "webhook_disabled"


@pytest.mark.parametrize("headers", [{}, {"X-Webhook-Secret": "wrong"}, {"X-Webhook-Secret": f"{SECRET}2"}])
def test_wrong_secret_is_rejected(hub: TestClient, database: Database, headers: dict):
    del hub.headers["X-Webhook-Secret"]

    response = hub.post("/v1/webhooks/hub", json=push(), headers=headers)

    assert documented_problem(response)["code"] == "invalid_webhook_secret"
    assert job_ids(database) == []


@pytest.mark.parametrize("content", [{}, payload(repo={"headSha": "x"}), payload(repo={"id": "a b"})])
def test_invalid_payload_is_rejected(hub: TestClient, content: dict):
    assert documented_problem(hub.post("/v1/webhooks/hub", json=content))["code"] == "invalid_input"


def test_push_queues_a_job(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])

    answer = hub.post("/v1/webhooks/hub", json=push()).json()

    assert answer == {"outcome": "queued", "job": job_ids(database)[0]}


def test_push_to_an_unknown_repo_creates_a_model(hub: TestClient, database: Database):
    assert deliver(hub, push()) == "queued"
    with database.transaction() as session:
        assert models.get(session, "owner/model").hub_id == HUB_ID


def test_repeated_push_creates_one_job_even_after_it_is_done(hub: TestClient, database: Database):
    outcomes = [deliver(hub, push())]
    worker = entries.put_worker(database)
    entries.claim(database, job_ids(database)[0], worker)
    with database.transaction() as session:
        attempts.finish(session, job_ids(database)[0], worker, entries.sha("two"))

    outcomes.append(deliver(hub, push()))

    assert outcomes == ["queued", "nothing"]
    assert len(job_ids(database)) == 1


def test_creation_with_a_commit_queues_a_delayed_job(hub: TestClient, database: Database):
    assert deliver(hub, payload("create", "repo")) == "queued"
    with database.transaction() as session:
        assert claims.find_oldest_due(session) is None


def test_push_after_a_creation_makes_its_job_due(hub: TestClient, database: Database):
    deliver(hub, payload("create", "repo"))
    assert deliver(hub, push("three")) == "nothing"
    with database.transaction() as session:
        assert [claims.find_oldest_due(session)] == job_ids(database)


def test_commit_is_read_in_the_spelling_of_the_library_too(hub: TestClient, database: Database):
    content = push()
    content["repo"]["head_sha"] = content["repo"].pop("headSha")
    assert deliver(hub, content) == "queued"


def test_push_of_an_indexed_commit_is_ignored(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2], commit="two")
    assert deliver(hub, push()) == "nothing"


@pytest.mark.parametrize(
    "content",
    [
        push(ref="refs/pr/1"),
        push(repo={"type": "dataset"}),
        push(repo={"name": "gpt2"}),
        push(repo={"name": "local/mine"}),
        push(repo={"name": "alias/prod"}),
        payload("create", "discussion", head=None),
        payload("create", "repo", head=None),
        payload("update", "repo.config", head=None),
    ],
)
def test_irrelevant_delivery_is_ignored(hub: TestClient, database: Database, content: dict):
    assert deliver(hub, content) == "nothing"
    assert job_ids(database) == []


@pytest.mark.parametrize("content", [DELETED, PRIVATE])
def test_deleted_or_private_repo_leaves_the_index(hub: TestClient, database: Database, content: dict):
    entries.put(database, "owner/model", [1, 2])
    entries.put(database, "owner/other", [1, 2])
    refresh(hub)

    assert deliver(hub, content) == "removed"

    refresh(hub)
    assert hub.get("/v1/models/owner/other/neighbors").json()["neighbors"] == []
    model = hub.get("/v1/models/owner/model").json()
    assert (model["state"], model["measurements"], model["metadata"]["tags"]) == ("removed", [], [])
    assert documented_problem(hub.get("/v1/models/owner/model/neighbors"))["code"] == "not_indexed"
    assert deliver(hub, content) == "nothing"


def test_removed_model_is_not_found_by_text_search(hub: TestClient, database: Database):
    model_id = entries.put(database, "owner/model", [1, 2])
    with database.transaction() as session:
        models.set_card(session, model_id, "a secret recipe")
    assert [model["repo_id"] for model in hub.get("/v1/models?q=recipe").json()["models"]] == ["owner/model"]

    deliver(hub, PRIVATE)

    assert hub.get("/v1/models?q=recipe").json()["models"] == []
    assert hub.get("/v1/models?q=model").json()["models"] == []


def test_running_job_of_a_removed_model_is_cancelled(hub: TestClient, database: Database):
    deliver(hub, push())
    worker = entries.put_worker(database)
    entries.claim(database, job_ids(database)[0], worker)

    deliver(hub, DELETED)

    with database.transaction() as session:
        assert not attempts.finish(session, job_ids(database)[0], worker, entries.sha("two"))
        assert jobs.get(session, job_ids(database)[0]).state == JobState.CANCELLED


def test_repo_that_is_public_again_is_queued(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2], commit="two")
    deliver(hub, PRIVATE)

    assert deliver(hub, PUBLIC) == "queued"
    assert deliver(hub, PUBLIC) == "nothing"


def test_repo_that_is_private_again_is_removed_again(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2], commit="two")

    assert [deliver(hub, delivery) for delivery in (PRIVATE, PUBLIC, PRIVATE)] == ["removed", "queued", "removed"]


def test_renamed_model_is_found_by_both_names(hub: TestClient, database: Database):
    model_id = entries.put(database, "owner/model", [1, 2])
    entries.put(database, "owner/other", [1, 2])
    refresh(hub)

    assert deliver(hub, MOVED) == "renamed"

    refresh(hub)
    for name in ("owner/better", "owner/model"):
        assert hub.get(f"/v1/models/{name}").json()["repo_id"] == "owner/better"
        assert [revision["sha"] for revision in hub.get(f"/v1/models/{name}/revisions").json()["revisions"]] == [
            entries.sha("one")
        ]
        neighbors = hub.get(f"/v1/models/{name}/neighbors").json()["neighbors"]
        assert [neighbor["repo_id"] for neighbor in neighbors] == ["owner/other"]
    with database.transaction() as session:
        assert models.get(session, "owner/model").id == model_id


def test_tags_notes_and_aliases_follow_a_rename(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    curate(database, "owner/model", "main", "prod")

    assert deliver(hub, MOVED) == "renamed"

    assert curated(hub, "alias/main") == ("owner/better", ["prod"], "about prod")


@pytest.mark.parametrize("is_indexed", [True, False], ids=["indexed", "pending"])
def test_model_that_keeps_the_name_gets_the_tags_of_both(hub: TestClient, database: Database, is_indexed: bool):
    entries.put(database, "owner/model", [1, 2])
    curate(database, "owner/model", "main", "prod")
    if is_indexed:
        entries.put(database, "owner/better", [2, 1])
    else:
        entries.put_model(database, "owner/better")
    curate(database, "owner/better", "second", "candidate", "prod")

    assert deliver(hub, MOVED) == "renamed"
    refresh(hub)

    note = "about candidate" if is_indexed else "about prod"
    for name in ("owner/better", "alias/main", "alias/second"):
        assert curated(hub, name) == ("owner/better", ["candidate", "prod"], note)
    entries.put(database, "owner/other", [1, 1])
    refresh(hub)
    found = hub.get("/v1/models/owner/other/neighbors?team_tag=prod&team_tag=candidate").json()["neighbors"]
    assert [neighbor["repo_id"] for neighbor in found] == ["owner/better"]


def test_repo_cannot_be_renamed_to_an_alias(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    entries.put(database, "owner/other", [1, 2])
    curation.set_alias(database, "prod", "owner/other", ADMIN)

    assert deliver(hub, payload("move", "repo", movedTo={"name": "alias/prod"})) != "renamed"

    assert hub.get("/v1/models/alias/prod").json()["repo_id"] == "owner/other"
    assert hub.get("/v1/models/owner/model").status_code == 200


def curate(database: Database, repo_id: str, alias: str, *tags: str) -> None:
    curation.change_tags(database, repo_id, add=tags, remove=[], viewer=ADMIN)
    curation.set_note(database, repo_id, f"about {tags[0]}", ADMIN)
    curation.set_alias(database, alias, repo_id, ADMIN)


def curated(hub: TestClient, name: str) -> tuple[str, list[str], str]:
    """The current name of a model, its team tags and its note."""
    model = hub.get(f"/v1/models/{name}").json()
    said = model["curation"]
    return model["repo_id"], [tag["tag"] for tag in said["team_tags"]], said["note"]["text"]


def test_repeated_rename_is_ignored(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])

    assert [deliver(hub, MOVED), deliver(hub, MOVED)] == ["renamed", "nothing"]


def test_rename_delivered_under_the_new_name_is_matched_by_hub_id(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, push())

    delivery = payload("move", "repo", repo={"name": "owner/better"}, movedTo={"name": "owner/better"})

    assert deliver(hub, delivery) == "renamed"
    assert hub.get("/v1/models/owner/model").json()["repo_id"] == "owner/better"


def test_old_push_under_the_former_name_creates_no_model(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, push("two"))
    deliver(hub, MOVED | {"repo": push("two")["repo"]})

    deliver(hub, push("two"))

    assert len(hub.get("/v1/models").json()["models"]) == 1


def test_submission_under_the_former_name_finds_the_model(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, MOVED)

    assert hub.post("/v1/models", json={"repo_id": "owner/model"}).json()["repo_id"] == "owner/better"


def test_new_repo_under_the_former_name_is_another_model(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, push("two"))
    deliver(hub, MOVED | {"repo": push("two")["repo"]})

    assert deliver(hub, push("three", repo={"id": "another"})) == "queued"

    assert hub.get("/v1/models/owner/model").json()["repo_id"] == "owner/model"


def test_rename_replaces_a_pending_model_with_the_new_name(hub: TestClient, database: Database):
    model_id = entries.put(database, "owner/model", [1, 2])
    entries.put_job(database, "owner/better")

    assert deliver(hub, MOVED) == "renamed"

    with database.transaction() as session:
        assert models.get(session, "owner/better").id == model_id
        assert [job.model_id for job in jobs.list_page(session)] == [model_id]


def test_rename_to_an_indexed_name_removes_the_old_model(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    model_id = entries.put(database, "owner/better", [1, 2], commit="one")

    assert deliver(hub, MOVED) == "renamed"

    with database.transaction() as session:
        model = models.find(session, "owner/better")
        assert (model.id, model.state) == (model_id, ModelState.INDEXED)
        assert models.find(session, "owner/model").state == ModelState.REMOVED


def test_deletion_removes_the_private_model_without_revealing_it(hub: TestClient, database: Database):
    private_id = entries.put_private(database, "owner/model", [1, 0], "me")
    assert deliver(hub, DELETED) == "nothing"
    with database.transaction() as session:
        assert session.get_one(Model, private_id).state == ModelState.REMOVED
        assert access.list_access(session, private_id) == []


@pytest.mark.parametrize("content", [PRIVATE, push(), MOVED])
def test_other_deliveries_do_not_change_the_private_model(hub: TestClient, database: Database, content: dict):
    private_id = entries.put_private(database, "owner/model", [1, 0], "me")
    deliver(hub, content)
    with database.transaction() as session:
        model = session.get_one(Model, private_id)
        assert (model.repo_id, model.state) == ("owner/model", ModelState.INDEXED)
