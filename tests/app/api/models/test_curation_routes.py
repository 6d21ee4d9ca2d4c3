from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.models.repository import models
from catalog.models.repository.aliases import MAX_ALIASES
from catalog.models.repository.models import Metadata
from catalog.removals import service as removals
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.clusters import cluster
from tests.support.keys import ADMIN_KEY, AS_ADMIN, add_key
from tests.support.problem_documents import documented_problem

MY_KEY, YOUR_KEY = "a long key of my own", "a long key of your own"
ME, YOU = hash_key(MY_KEY), hash_key(YOUR_KEY)
MINE, YOURS, ADMINS = {"X-API-Key": MY_KEY}, {"X-API-Key": YOUR_KEY}, AS_ADMIN
SECRET = "hidden/model"


@pytest.fixture
def pool(database: Database, api: TestClient) -> Database:
    """Four public models whose vectors spread from one axis to the other, and the keys of two submitters. The client
    sends no key by itself.
    """
    for key in (MY_KEY, YOUR_KEY):
        add_key(database, key)
    del api.headers["X-API-Key"]
    for number in range(4):
        entries.put(database, f"open/m{number}", [4 - number, number])
    refresh(api)
    return database


@pytest.fixture
def secret(pool: Database, api: TestClient) -> Database:
    """A private model of mine, nearest to `open/m0`."""
    entries.put_private(pool, SECRET, [4, 0.1], ME)
    refresh(api)
    return pool


def tag(api: TestClient, repo_id: str, *tags: str, headers: dict[str, str] = MINE) -> dict[str, Any]:
    response = api.patch(f"/v1/models/{repo_id}/team-tags", json={"add": tags}, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def set_alias(api: TestClient, name: str, repo_id: str, headers: dict[str, str] = MINE) -> dict[str, Any]:
    response = api.put(f"/v1/aliases/{name}", json={"repo_id": repo_id}, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def resolved(api: TestClient, alias: str, headers: dict[str, str] | None = None) -> str | None:
    response = api.get(f"/v1/models/alias/{alias}", headers=headers)
    return response.json()["repo_id"] if response.status_code == 200 else None


def names(response: Any) -> list[str]:
    return [neighbor["repo_id"] for neighbor in response.raise_for_status().json()["neighbors"]]


def curation(api: TestClient, repo_id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return api.get(f"/v1/models/{repo_id}", headers=headers).raise_for_status().json()["curation"]


def texts(said: dict[str, Any]) -> list[str]:
    return [tag["tag"] for tag in said["team_tags"]]


# tags


def test_tags_are_shown_with_their_author_and_date(pool: Database, api: TestClient):
    tag(api, "open/m1", "reviewed by legal", "prod")
    said = tag(api, "open/m1", "prod", "chat", headers=YOURS)

    assert texts(said) == ["chat", "prod", "reviewed by legal"]
    assert [entry["author"] for entry in said["team_tags"]] == [YOU[:12], ME[:12], ME[:12]]
    written = datetime.fromisoformat(said["team_tags"][0]["written_at"])
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
    assert curation(api, "open/m1") == said
    listed = {model["repo_id"]: model["curation"] for model in api.get("/v1/models").json()["models"]}
    assert listed["open/m1"] == said
    assert listed["open/m2"] == {"team_tags": [], "note": None, "aliases": []}


def test_tags_are_removed_before_others_are_added(pool: Database, api: TestClient):
    tag(api, "open/m1", "candidate", "chat")
    change = {"add": ["prod"], "remove": ["candidate", "unknown"]}
    said = api.patch("/v1/models/open/m1/team-tags", json=change, headers=MINE).json()
    assert texts(said) == ["chat", "prod"]


@pytest.mark.parametrize(
    "search",
    [
        lambda api: api.get("/v1/models/open/m3/neighbors", params={"team_tag": ["prod", "legal"]}),
        lambda api: api.post("/v1/search", json={"repo_id": "open/m3", "team_tag": ["prod", "legal"]}),
        lambda api: api.post("/v1/search", json={"vector": [0, 1], "team_tag": ["prod", "legal"]}),
        lambda api: api.post("/v1/search", json={"expression": "2*open/m3", "team_tag": ["prod", "legal"]}),
    ],
)
def test_searches_filter_by_all_team_tags(pool: Database, api: TestClient, search: Any):
    tag(api, "open/m0", "prod", "legal")
    tag(api, "open/m1", "prod")
    assert names(search(api)) == []
    refresh(api)
    assert names(search(api)) == ["open/m0"]
    api.patch("/v1/models/open/m0/team-tags", json={"remove": ["legal"]}, headers=MINE)
    refresh(api)
    assert names(search(api)) == []


def test_batch_search_filters_by_team_tags(pool: Database, api: TestClient):
    tag(api, "open/m0", "prod")
    refresh(api)
    [answer] = api.post("/v1/search/batch", json={"repo_ids": ["open/m3"], "team_tag": ["prod"]}).json()["answers"]
    assert [neighbor["repo_id"] for neighbor in answer["answer"]["neighbors"]] == ["open/m0"]


def test_lists_filter_by_team_tags(pool: Database, api: TestClient):
    tag(api, "open/m0", "prod", "legal")
    tag(api, "open/m1", "prod")
    for params, expected in (
        ({"team_tag": "prod"}, ["open/m0", "open/m1"]),
        ({"team_tag": ["prod", "legal"]}, ["open/m0"]),
        ({"team_tag": "prod", "q": "m1"}, ["open/m1"]),
        ({"team_tag": "other"}, []),
    ):
        listed = api.get("/v1/models", params=params).json()["models"]
        assert [model["repo_id"] for model in listed] == expected


def test_cluster_members_are_filtered_by_team_tags(pool: Database, api: TestClient, tmp_path: Any):
    cluster(pool, tmp_path, algorithm="kmeans", clusters=1)
    tag(api, "open/m2", "prod")
    members = api.get("/v1/clusters/1/members", params={"team_tag": "prod"}).json()["members"]
    assert [member["repo_id"] for member in members] == ["open/m2"]


def test_tags_of_the_hub_and_of_the_team_are_apart(pool: Database, api: TestClient):
    tag(api, "open/m1", "medical")
    with pool.transaction() as session:
        feed.lock_feed(session)
        models.update_metadata(session, models.get(session, "open/m2").id, Metadata(tags=("medical",)))
    refresh(api)
    assert names(api.get("/v1/models/open/m0/neighbors", params={"tag": "medical"})) == ["open/m2"]
    assert names(api.get("/v1/models/open/m0/neighbors", params={"team_tag": "medical"})) == ["open/m1"]


def test_new_measurement_and_removal_keep_what_the_team_says(pool: Database, api: TestClient):
    tag(api, "open/m1", "prod")
    api.put("/v1/models/open/m1/note", json={"text": "ours"}, headers=MINE)
    set_alias(api, "main", "open/m1")
    before = curation(api, "open/m1")

    entries.put(pool, "open/m1", [0, 4], commit="two")
    with pool.transaction() as session:
        feed.lock_feed(session)
        model_id = models.get(session, "open/m1").id
        models.update_metadata(session, model_id, Metadata(tags=("hub",)))
        models.clear_metadata(session, [model_id])

    assert curation(api, "open/m1") == before
    assert resolved(api, "main") == "open/m1"


def test_removed_model_takes_what_the_team_says_with_it(pool: Database, api: TestClient):
    tag(api, "open/m1", "prod")
    api.put("/v1/models/open/m1/note", json={"text": "ours"}, headers=MINE)
    set_alias(api, "main", "open/m1")

    removals.remove(pool, "open/m1")
    entries.put(pool, "open/m1", [3, 1])

    assert curation(api, "open/m1") == {"team_tags": [], "note": None, "aliases": []}
    assert api.get("/v1/aliases").json()["aliases"] == []


@pytest.mark.parametrize("text", ["", " x", "x ", "a\nb", "a\0b", "x" * 101])
def test_invalid_tag_is_rejected(pool: Database, api: TestClient, text: str):
    response = api.patch("/v1/models/open/m1/team-tags", json={"add": [text]}, headers=MINE)
    assert documented_problem(response)["code"] in ("invalid_name", "invalid_input")
    assert curation(api, "open/m1")["team_tags"] == []


def test_model_has_a_limited_number_of_tags(pool: Database, api: TestClient):
    for page in range(5):
        tag(api, "open/m1", *(f"t{20 * page + number}" for number in range(20)))
    response = api.patch("/v1/models/open/m1/team-tags", json={"add": ["one more"]}, headers=MINE)
    assert documented_problem(response)["code"] == "too_many_tags"
    assert len(curation(api, "open/m1")["team_tags"]) == 100
    change = {"add": ["one more"], "remove": ["t0"]}
    assert api.patch("/v1/models/open/m1/team-tags", json=change, headers=MINE).status_code == 200


# notes


def test_note_is_set_replaced_and_deleted(pool: Database, api: TestClient):
    path = "/v1/models/open/m1/note"
    api.put(path, json={"text": "first"}, headers=MINE)
    note = api.put(path, json={"text": "second, \0 too"}, headers=YOURS).json()["note"]
    assert (note["text"], note["author"]) == ("second, \ufffd too", YOU[:12])
    assert curation(api, "open/m1")["note"] == note
    assert api.delete(path, headers=MINE).json()["note"] is None
    assert api.delete(path, headers=MINE).status_code == 200
    assert curation(api, "open/m1")["note"] is None


# aliases


def test_alias_is_a_name_of_the_model_everywhere(pool: Database, api: TestClient):
    created = set_alias(api, "prod-summarizer", "open/m1")
    assert (created["alias"], created["repo_id"], created["author"]) == ("prod-summarizer", "open/m1", ME[:12])
    name = "alias/prod-summarizer"

    assert api.get(f"/v1/models/{name}").json()["repo_id"] == "open/m1"
    by_alias = api.get(f"/v1/models/{name}/neighbors")
    assert names(by_alias) == names(api.get("/v1/models/open/m1/neighbors"))
    assert api.get(f"/v1/models/{name}/revisions").json()["repo_id"] == "open/m1"
    assert names(api.post("/v1/search", json={"repo_id": name})) == names(by_alias)
    assert "open/m1" not in names(api.get("/v1/models/open/m0/neighbors", params={"exclude": name}))
    [answer] = api.post("/v1/search/batch", json={"repo_ids": [name]}).json()["answers"]
    assert [neighbor["repo_id"] for neighbor in answer["answer"]["neighbors"]] == names(by_alias)
    summed = api.post("/v1/search", json={"expression": f"{name} + open/m2", "compare": name}).json()
    assert [term["name"] for term in summed["terms"]] == ["open/m1", "open/m2"]
    assert summed["residuals"][0]["repo_id"] == "open/m1"
    tag(api, name, "prod")
    assert texts(curation(api, "open/m1")) == ["prod"]
    [listed] = api.get("/v1/aliases").json()["aliases"]
    assert listed == created
    assert [alias["alias"] for alias in curation(api, "open/m1")["aliases"]] == ["prod-summarizer"]


def test_alias_moves_from_one_model_to_another(pool: Database, api: TestClient):
    set_alias(api, "main", "open/m1")
    set_alias(api, "main", "open/m2", headers=YOURS)
    assert resolved(api, "main") == "open/m2"
    assert curation(api, "open/m1")["aliases"] == []
    set_alias(api, "other", "alias/main")
    assert resolved(api, "other") == "open/m2"
    assert [alias["repo_id"] for alias in api.get("/v1/aliases").json()["aliases"]] == ["open/m2", "open/m2"]


def test_deleted_alias_is_no_name_of_the_model(pool: Database, api: TestClient):
    set_alias(api, "main", "open/m1")
    deleted = api.delete("/v1/aliases/main", headers=YOURS).json()
    assert (deleted["alias"], deleted["repo_id"]) == ("main", "open/m1")
    assert resolved(api, "main") is None
    response = api.delete("/v1/aliases/main", headers=MINE)
    assert documented_problem(response)["code"] == "alias_not_found"


def test_aliases_are_listed_in_pages(pool: Database, api: TestClient):
    for number in range(3):
        set_alias(api, f"a{number}", "open/m1")
    first = api.get("/v1/aliases", params={"limit": 2}).json()
    second = api.get("/v1/aliases", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [alias["alias"] for page in (first, second) for alias in page["aliases"]] == ["a0", "a1", "a2"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("name", ["two words", "..", "a..b", "-x", "x" * 97])
def test_invalid_alias_is_rejected(pool: Database, api: TestClient, name: str):
    response = api.put(f"/v1/aliases/{name}", json={"repo_id": "open/m1"}, headers=MINE)
    assert response.status_code in (404, 422)  # clients normalize "/v1/aliases/.." to another path
    assert api.get("/v1/aliases").json()["aliases"] == []


def test_model_has_a_limited_number_of_aliases(pool: Database, api: TestClient):
    for number in range(MAX_ALIASES):
        set_alias(api, f"a{number}", "open/m1")
    response = api.put("/v1/aliases/more", json={"repo_id": "open/m1"}, headers=MINE)
    assert documented_problem(response)["code"] == "too_many_aliases"
    set_alias(api, "a0", "open/m1")


def test_alias_is_no_repo_of_the_hub(pool: Database, api: TestClient):
    set_alias(api, "main", "open/m1")
    response = api.post("/v1/models", json={"repo_id": "alias/main"}, headers=MINE)
    assert documented_problem(response)["code"] == "invalid_repo_id"
    assert "alias" in response.json()["detail"]


# who may write and see


WRITES = [
    ("PATCH", "/v1/models/{model}/team-tags", {"add": ["prod"]}),
    ("PUT", "/v1/models/{model}/note", {"text": "ours"}),
    ("DELETE", "/v1/models/{model}/note", None),
    ("PUT", "/v1/aliases/main", {"repo_id": "{model}"}),
]


def write(api: TestClient, request: tuple[str, str, Any], model: str, headers: dict[str, str] | None = None) -> Any:
    method, path, body = request
    if body and "repo_id" in body:
        body = {"repo_id": model}
    return api.request(method, path.format(model=model), json=body, headers=headers)


@pytest.mark.parametrize("request_", [*WRITES, ("DELETE", "/v1/aliases/main", None)], ids=str)
def test_writing_requires_an_api_key(pool: Database, api: TestClient, request_: tuple[str, str, Any]):
    set_alias(api, "main", "open/m2")
    before = [curation(api, f"open/m{number}") for number in range(4)]
    response = write(api, request_, "open/m1")
    assert (response.status_code, documented_problem(response)["code"]) == (401, "key_required")
    assert [curation(api, f"open/m{number}") for number in range(4)] == before


@pytest.mark.parametrize("request_", WRITES, ids=str)
def test_private_model_is_changed_only_by_viewers_with_access(
    secret: Database, api: TestClient, request_: tuple[str, str, Any]
):
    hidden = write(api, request_, SECRET, YOURS)
    unknown = write(api, request_, "hidden/other", YOURS)
    assert (hidden.status_code, documented_problem(hidden)["code"]) == (404, "model_not_found")
    assert hidden.json()["detail"].replace(SECRET, "X") == unknown.json()["detail"].replace("hidden/other", "X")
    assert curation(api, SECRET, MINE) == {"team_tags": [], "note": None, "aliases": []}
    assert write(api, request_, SECRET, MINE).status_code == 200


def test_team_tag_of_a_private_model_is_seen_only_with_access(secret: Database, api: TestClient):
    tag(api, SECRET, "prod")
    refresh(api)
    for headers, expected in ((MINE, [SECRET]), (YOURS, []), (None, [])):
        listed = api.get("/v1/models", params={"team_tag": "prod"}, headers=headers).json()["models"]
        assert [model["repo_id"] for model in listed] == expected
        found = api.get("/v1/models/open/m0/neighbors", params={"team_tag": "prod"}, headers=headers)
        assert names(found) == expected


def test_tags_of_a_private_model_and_of_its_public_counterpart_are_apart(secret: Database, api: TestClient):
    entries.put(secret, SECRET, [3, 1])
    tag(api, SECRET, "mine")
    tag(api, SECRET, "everybody's", headers=YOURS)
    assert texts(curation(api, SECRET, MINE)) == ["mine"]
    assert texts(curation(api, SECRET)) == ["everybody's"]


def test_private_alias_hides_the_public_one_from_those_who_know_it(secret: Database, api: TestClient):
    set_alias(api, "main", "open/m1", headers=YOURS)
    set_alias(api, "main", SECRET)
    assert (resolved(api, "main", MINE), resolved(api, "main", YOURS), resolved(api, "main")) == (
        SECRET, "open/m1", "open/m1",
    )  # fmt: skip
    assert "hidden" not in api.get("/v1/aliases", headers=YOURS).text
    assert len(api.get("/v1/aliases", headers=MINE).json()["aliases"]) == 2

    set_alias(api, "main", "open/m2", headers=YOURS)
    assert (resolved(api, "main", MINE), resolved(api, "main", YOURS)) == (SECRET, "open/m2")
    set_alias(api, "main", "open/m3")
    assert (resolved(api, "main", MINE), resolved(api, "main", YOURS)) == ("open/m3", "open/m3")


def test_deleting_a_private_alias_keeps_the_public_one(secret: Database, api: TestClient):
    set_alias(api, "main", "open/m1")
    set_alias(api, "main", SECRET)
    assert api.delete("/v1/aliases/main", headers=MINE).json()["repo_id"] == SECRET
    assert resolved(api, "main", MINE) == "open/m1"
    assert api.delete("/v1/aliases/main", headers=YOURS).json()["repo_id"] == "open/m1"
    assert resolved(api, "main", MINE) is None


def test_private_alias_is_shared_by_all_with_access(secret: Database, api: TestClient):
    set_alias(api, "main", SECRET)
    assert resolved(api, "main", YOURS) is None
    response = api.delete("/v1/aliases/main", headers=YOURS)
    assert documented_problem(response)["code"] == "alias_not_found"
    entries.put_private(secret, SECRET, [4, 0.1], YOU)
    assert resolved(api, "main", YOURS) == SECRET


def test_admin_writes_with_a_key_and_leaves_aliases_of_users(secret: Database, api: TestClient):
    set_alias(api, "main", SECRET)
    created = set_alias(api, "main", "open/m1", headers=ADMINS)
    assert created["author"] == hash_key(ADMIN_KEY)[:12]
    assert (resolved(api, "main", ADMINS), resolved(api, "main", MINE)) == ("open/m1", SECRET)
    assert tag(api, SECRET, "prod", headers=ADMINS)["team_tags"][0]["author"] == hash_key(ADMIN_KEY)[:12]
    assert texts(curation(api, SECRET, MINE)) == ["prod"]
