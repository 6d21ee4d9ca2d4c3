from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from catalog.auth import repository as access
from catalog.database import Database
from catalog.jobs.repository import attempts, jobs
from catalog.models.repository import models
from catalog.tables import JobState, Model, ModelState
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.problem_documents import documented_problem

HUB_ID = "621ffdc036468d709f17434d"

SESAME = "open sesame to the Hub"


@pytest.fixture
def hub(api: TestClient) -> TestClient:
    """An API whose webhook is on, and a client that has the secret."""
    api.app.state.settings = api.app.state.settings.model_copy(update={"webhook_secret": SecretStr(SESAME)})
    api.headers["X-Webhook-Secret"] = SESAME
    return api


def payload(action: str = "update", scope: str = "repo.content", *, head: str | None = "two", **more: object) -> dict:
    """As the Hub writes it."""
    repo = {
        "type": "model",
        "name": "owner/model",
        "id": HUB_ID,
        "private": False,
        "url": {"web": "https://huggingface.co/owner/model", "api": "https://huggingface.co/api/models/owner/model"},
        "owner": {"id": "628b753283ef59b5be89e937"},
        **({"headSha": entries.sha(head)} if head else {}),
        **more.pop("repo", {}),
    }
    webhook = {"id": "6390e855e30d9209411de93b", "version": 3}
    return {"event": {"action": action, "scope": scope}, "repo": repo, "webhook": webhook, **more}


def push(head: str = "two", ref: str = "refs/heads/main", **more: object) -> dict:
    refs = [{"ref": ref, "oldSha": None, "newSha": entries.sha(head)}]
    return payload(head=head, updatedRefs=refs, **more)


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
        return [job.id for job in jobs.page(session)]


def test_without_a_secret_the_webhook_is_off(api: TestClient):
    response = api.post("/v1/webhooks/hub", json=push(), headers={"X-Webhook-Secret": ""})
    assert documented_problem(response)["code"] == "webhook_off"


@pytest.mark.parametrize("headers", [{}, {"X-Webhook-Secret": "wrong"}, {"X-Webhook-Secret": f"{SESAME}2"}])
def test_another_secret_is_refused(hub: TestClient, database: Database, headers: dict):
    del hub.headers["X-Webhook-Secret"]

    response = hub.post("/v1/webhooks/hub", json=push(), headers=headers)

    assert documented_problem(response)["code"] == "webhook_secret_wrong"
    assert job_ids(database) == []


@pytest.mark.parametrize("content", [{}, payload(repo={"headSha": "x"}), payload(repo={"id": "a b"})])
def test_what_is_no_payload_is_refused(hub: TestClient, content: dict):
    assert documented_problem(hub.post("/v1/webhooks/hub", json=content))["code"] == "invalid_input"


def test_a_push_is_embedded(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])

    answer = hub.post("/v1/webhooks/hub", json=push()).json()

    assert answer == {"outcome": "queued", "job": job_ids(database)[0]}


def test_a_push_to_a_repo_that_is_not_known_is_embedded(hub: TestClient, database: Database):
    assert deliver(hub, push()) == "queued"
    with database.transaction() as session:
        assert models.get(session, "owner/model").hub_id == HUB_ID


def test_the_same_push_twice_makes_one_job_even_when_the_first_is_over(hub: TestClient, database: Database):
    outcomes = [deliver(hub, push())]
    worker = entries.put_worker(database)
    entries.claim(database, job_ids(database)[0], worker)
    with database.transaction() as session:
        attempts.finish(session, job_ids(database)[0], worker, entries.sha("two"))

    outcomes.append(deliver(hub, push()))

    assert outcomes == ["queued", "nothing"]
    assert len(job_ids(database)) == 1


def test_a_push_that_is_indexed_already_is_nothing(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2], commit="two")
    assert deliver(hub, push()) == "nothing"


@pytest.mark.parametrize(
    "content",
    [
        push(ref="refs/pr/1"),
        push(repo={"type": "dataset"}),
        push(repo={"name": "gpt2"}),
        push(repo={"name": "local/mine"}),
        payload("create", "discussion", head=None),
        payload("create", "repo"),
        payload("update", "repo.config", head=None),
    ],
)
def test_what_moves_no_model_is_nothing(hub: TestClient, database: Database, content: dict):
    assert deliver(hub, content) == "nothing"
    assert job_ids(database) == []


@pytest.mark.parametrize("content", [DELETED, PRIVATE])
def test_what_is_deleted_or_private_leaves_the_index_at_once(hub: TestClient, database: Database, content: dict):
    entries.put(database, "owner/model", [1, 2])
    entries.put(database, "owner/other", [1, 2])
    refresh(hub)

    assert deliver(hub, content) == "removed"

    refresh(hub)
    assert hub.get("/v1/models/owner/other/neighbors").json()["neighbors"] == []
    shown = hub.get("/v1/models/owner/model").json()
    assert (shown["state"], shown["embeddings"], shown["metadata"]["tags"]) == ("removed", [], [])
    assert documented_problem(hub.get("/v1/models/owner/model/neighbors"))["code"] == "not_indexed"
    assert deliver(hub, content) == "nothing"


def test_what_is_gone_is_found_by_no_word(hub: TestClient, database: Database):
    model = entries.put(database, "owner/model", [1, 2])
    with database.transaction() as session:
        models.set_card(session, model, "a secret recipe")
    assert [each["repo_id"] for each in hub.get("/v1/models?q=recipe").json()["models"]] == ["owner/model"]

    deliver(hub, PRIVATE)

    assert hub.get("/v1/models?q=recipe").json()["models"] == []
    assert hub.get("/v1/models?q=model").json()["models"] == []


def test_a_job_that_runs_for_what_is_gone_stores_nothing(hub: TestClient, database: Database):
    deliver(hub, push())
    worker = entries.put_worker(database)
    entries.claim(database, job_ids(database)[0], worker)

    deliver(hub, DELETED)

    with database.transaction() as session:
        assert not attempts.finish(session, job_ids(database)[0], worker, entries.sha("two"))
        assert jobs.get(session, job_ids(database)[0]).state == JobState.CANCELLED


def test_what_is_public_again_is_embedded_again(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2], commit="two")
    deliver(hub, PRIVATE)

    assert deliver(hub, PUBLIC) == "queued"
    assert deliver(hub, PUBLIC) == "nothing"


def test_private_and_public_and_private_again_is_private(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2], commit="two")

    assert [deliver(hub, each) for each in (PRIVATE, PUBLIC, PRIVATE)] == ["removed", "queued", "removed"]


def test_a_rename_keeps_the_model_and_the_old_name_leads_to_it(hub: TestClient, database: Database):
    number = entries.put(database, "owner/model", [1, 2])
    entries.put(database, "owner/other", [1, 2])
    refresh(hub)

    assert deliver(hub, MOVED) == "renamed"

    refresh(hub)
    for name in ("owner/better", "owner/model"):
        assert hub.get(f"/v1/models/{name}").json()["repo_id"] == "owner/better"
        assert [each["sha"] for each in hub.get(f"/v1/models/{name}/revisions").json()["revisions"]] == [
            entries.sha("one")
        ]
        near = hub.get(f"/v1/models/{name}/neighbors").json()["neighbors"]
        assert [each["repo_id"] for each in near] == ["owner/other"]
    with database.transaction() as session:
        assert models.get(session, "owner/model").id == number


def test_the_same_rename_twice_is_nothing(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])

    assert [deliver(hub, MOVED), deliver(hub, MOVED)] == ["renamed", "nothing"]


def test_a_rename_told_under_the_new_name_is_followed_by_the_hubs_own_id(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, push())

    told = payload("move", "repo", repo={"name": "owner/better"}, movedTo={"name": "owner/better"})

    assert deliver(hub, told) == "renamed"
    assert hub.get("/v1/models/owner/model").json()["repo_id"] == "owner/better"


def test_an_old_push_under_the_old_name_makes_no_second_model(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, push("two"))
    deliver(hub, MOVED | {"repo": push("two")["repo"]})

    deliver(hub, push("two"))

    assert len(hub.get("/v1/models").json()["models"]) == 1


def test_a_submission_under_the_old_name_is_of_the_same_model(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, MOVED)

    assert hub.post("/v1/models", json={"repo_id": "owner/model"}).json()["repo_id"] == "owner/better"


def test_another_repo_under_the_old_name_is_a_model_of_its_own(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    deliver(hub, push("two"))
    deliver(hub, MOVED | {"repo": push("two")["repo"]})

    assert deliver(hub, push("three", repo={"id": "another"})) == "queued"

    assert hub.get("/v1/models/owner/model").json()["repo_id"] == "owner/model"


def test_a_new_name_that_was_met_before_the_rename_was_told_makes_room(hub: TestClient, database: Database):
    number = entries.put(database, "owner/model", [1, 2])
    entries.put_job(database, "owner/better")

    assert deliver(hub, MOVED) == "renamed"

    with database.transaction() as session:
        assert models.get(session, "owner/better").id == number
        assert [job.model_id for job in jobs.page(session)] == [number]


def test_a_new_name_that_is_indexed_stays_and_the_old_one_leads_to_it(hub: TestClient, database: Database):
    entries.put(database, "owner/model", [1, 2])
    number = entries.put(database, "owner/better", [1, 2], commit="one")

    assert deliver(hub, MOVED) == "renamed"

    with database.transaction() as session:
        found = models.find(session, "owner/better")
        assert (found.id, found.state) == (number, ModelState.INDEXED)
        assert models.find(session, "owner/model").state == ModelState.REMOVED


def test_a_deletion_takes_a_private_model_away_and_the_answer_does_not_tell(hub: TestClient, database: Database):
    hidden = entries.put_private(database, "owner/model", [1, 0], "me")
    assert deliver(hub, DELETED) == "nothing"
    with database.transaction() as session:
        assert session.get_one(Model, hidden).state == ModelState.REMOVED
        assert access.granted(session, hidden) == []


@pytest.mark.parametrize("content", [PRIVATE, push(), MOVED])
def test_other_news_of_a_repo_leave_its_private_model_as_it_is(hub: TestClient, database: Database, content: dict):
    hidden = entries.put_private(database, "owner/model", [1, 0], "me")
    deliver(hub, content)
    with database.transaction() as session:
        model = session.get_one(Model, hidden)
        assert (model.repo_id, model.state) == ("owner/model", ModelState.INDEXED)
