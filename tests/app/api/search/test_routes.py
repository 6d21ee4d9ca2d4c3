from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from app.api.schemas import MAX_DIMENSION
from catalog.database import Database
from catalog.index.follower import IndexFollower
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.catalog import SPACE
from tests.support.problem_documents import documented_problem

OTHER = dataclasses.replace(SPACE, base_repo="tiny/other")


@pytest.fixture(autouse=True)
def fan(database: Database, api: TestClient) -> None:
    """Five models in a fan, one in another space, one that is `no_shift`, and one without a vector."""
    for number in range(5):
        entries.put(database, f"fan/m{number}", [4 - number, number])
    entries.put(database, "fan/other", [1, 0, 0], space=OTHER)
    entries.put(database, "fan/still", [1e-9, 0], no_shift=True)
    entries.put_model(database, "new/model")
    refresh(api)


def search(api: TestClient, body: dict) -> list[str]:
    response = api.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return [neighbor["repo_id"] for neighbor in response.json()["neighbors"]]


def test_search_by_vector_returns_the_nearest_models(api: TestClient):
    assert search(api, {"vector": [1, 0], "k": 2}) == ["fan/m0", "fan/m1"]


def test_search_by_vector_uses_the_space_of_its_dimension(api: TestClient):
    response = api.post("/v1/search", json={"vector": [1, 0, 0]}).json()
    assert [neighbor["repo_id"] for neighbor in response["neighbors"]] == ["fan/other"]
    assert response["space"]["key"] == OTHER.key


@pytest.mark.parametrize("name", ["activations", "delta_activations"])
def test_space_can_be_named_by_its_feature(api: TestClient, name: str):
    assert search(api, {"vector": [1, 0], "space": name, "k": 1}) == ["fan/m0"]
    assert search(api, {"vector": [1, 0, 0], "space": name}) == ["fan/other"]
    assert search(api, {"expression": "fan/m0 + fan/m1", "space": name, "k": 1}) == ["fan/m2"]
    assert search(api, {"repo_id": "fan/m0", "space": name, "k": 1}) == ["fan/m1"]


def test_vector_that_fits_no_space_of_the_feature_returns_space_mismatch(api: TestClient):
    response = api.post("/v1/search", json={"vector": [1, 0, 0, 0], "space": "activations"})
    assert documented_problem(response)["code"] == "space_mismatch"


def test_search_by_model_matches_the_neighbors_route(api: TestClient):
    answer = api.post("/v1/search", json={"repo_id": "fan/m1", "k": 3}).json()
    assert answer == api.get("/v1/models/fan/m1/neighbors?k=3").json()


def test_min_similarity_limits_the_answer(api: TestClient):
    assert search(api, {"vector": [1, 0], "min_similarity": 0.9}) == ["fan/m0", "fan/m1"]


def test_vector_of_the_greatest_dimension_fits_into_a_request(api: TestClient):
    response = api.post("/v1/search", json={"vector": [-0.1234567890123456e-100] * MAX_DIMENSION})
    assert documented_problem(response)["code"] == "space_mismatch"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_input"),
        ({"vector": [1, 0], "repo_id": "fan/m0"}, 422, "invalid_input"),
        ({"vector": []}, 422, "invalid_input"),
        ({"vector": [0.0] * (MAX_DIMENSION + 1)}, 422, "invalid_input"),
        ({"vector": ["x", 0]}, 422, "invalid_input"),
        ({"vector": [1, None]}, 422, "invalid_input"),
        ({"vector": [1, 0], "limit": 3}, 422, "invalid_input"),
        ({"vector": [1, 0], "k": 0}, 422, "invalid_input"),
        ({"vector": [1, 0], "space": "X!"}, 422, "invalid_input"),
        ({"vector": [0, 0]}, 422, "invalid_vector"),
        ({"vector": [1e300, 0]}, 422, "invalid_vector"),
        ({"repo_id": "nobody"}, 422, "invalid_repo_id"),
        ({"repo_id": "no/body"}, 404, "model_not_found"),
        ({"vector": [1, 0], "space": "0" * 64}, 404, "space_not_found"),
        ({"vector": [1, 0], "space": "taste"}, 404, "space_not_found"),
        ({"repo_id": "fan/m0", "space": "taste"}, 404, "space_not_found"),
        ({"repo_id": "fan/m0", "space": "0" * 64}, 404, "space_not_found"),
        ({"repo_id": "new/model"}, 409, "not_indexed"),
        ({"repo_id": "fan/m0", "space": OTHER.key}, 409, "not_indexed"),
        ({"repo_id": "fan/still"}, 409, "no_shift"),
        ({"vector": [1, 0, 0, 0]}, 409, "space_mismatch"),
        ({"vector": [1, 0], "space": OTHER.key}, 409, "space_mismatch"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_invalid_search_returns_a_problem(api: TestClient, body: dict, status: int, code: str):
    response = api.post("/v1/search", json=body)
    assert response.status_code == status
    assert documented_problem(response)["code"] == code


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_non_finite_numbers_return_422(api: TestClient, number: bytes):
    body = b'{"vector": [1, ' + number + b"]}"
    response = api.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert documented_problem(response)["code"] in ("invalid_vector", "invalid_input")


def test_query_parameter_returns_422(api: TestClient):
    response = api.post("/v1/search?k=3", json={"vector": [1, 0]})
    assert documented_problem(response)["errors"][0]["field"] == "query.k"


def test_vector_that_fits_two_spaces_returns_space_required(api: TestClient, database: Database):
    entries.put(database, "fan/twice", [1, 0], space=dataclasses.replace(SPACE, base_repo="tiny/third"))
    response = api.post("/v1/search", json={"vector": [1, 0]})
    assert response.status_code == 409
    assert documented_problem(response)["code"] == "space_required"


def test_vector_with_many_errors_gets_a_short_answer(api: TestClient):
    response = api.post("/v1/search", json={"vector": [None] * MAX_DIMENSION})
    assert documented_problem(response)["code"] == "invalid_input"
    assert len(response.content) < 10_000


def test_search_before_the_index_is_loaded_returns_503(api: TestClient, database: Database):
    services = api.app.state.services
    api.app.state.services = replace(services, index=IndexFollower(database, interval=1))  # not loaded
    response = api.post("/v1/search", json={"vector": [1, 0]})
    assert response.status_code == 503
    assert documented_problem(response)["code"] == "index_not_loaded"


def test_spaces_are_listed_newest_first(api: TestClient):
    spaces = api.get("/v1/spaces").json()["spaces"]
    assert spaces == [
        OTHER.as_dict() | {"dimension": 3, "serving": True},
        SPACE.as_dict() | {"dimension": 2, "serving": True},
    ]


def test_list_of_spaces_refuses_parameters(api: TestClient):
    assert documented_problem(api.get("/v1/spaces?limit=1"))["code"] == "invalid_input"


def test_search_applies_filters(api: TestClient):
    assert search(api, {"vector": [1, 0], "owner": ["fan", "nobody"], "kind": ["lora"], "k": 2}) == ["fan/m0", "fan/m1"]
    assert search(api, {"vector": [1, 0], "owner": ["nobody"]}) == []
    assert search(api, {"vector": [1, 0], "exclude": ["fan/m0", "fan/m1"], "k": 1}) == ["fan/m2"]


def test_neighbors_route_takes_repeated_parameters(api: TestClient):
    answer = api.get("/v1/models/fan/m0/neighbors?owner=fan&owner=nobody&exclude=fan/m1&exclude=fan/m2&k=1").json()
    assert [neighbor["repo_id"] for neighbor in answer["neighbors"]] == ["fan/m3"]
    assert api.get("/v1/models/fan/m0/neighbors?exclude_own_owner=true").json()["neighbors"] == []


def test_answer_has_index_and_confidence_fields(api: TestClient):
    answer = api.post("/v1/search", json={"repo_id": "fan/m0"}).json()
    assert (answer["exact"], answer["generation"], answer["norm"]) == (True, 0, 4)
    assert (answer["noise_floor"], answer["noise_similarity"], answer["confident"], answer["note"]) == (None,) * 4
    assert (answer["chance_similarity"] > 0, answer["unrelated_similarity"]) == (True, None)


def test_batch_search_answers_or_fails_for_each_model(api: TestClient):
    body = {"repo_ids": ["fan/m0", "no/body", "fan/still"], "k": 1}
    answers = api.post("/v1/search/batch", json=body).json()["answers"]
    assert [answer["repo_id"] for answer in answers] == body["repo_ids"]
    assert answers[0]["answer"] == api.post("/v1/search", json={"repo_id": "fan/m0", "k": 1}).json()
    assert [answer["error"] and answer["error"]["code"] for answer in answers] == [None, "model_not_found", "no_shift"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search/batch", {"repo_ids": []}),
        ("/v1/search/batch", {"repo_ids": ["a/b"] * 101}),
        ("/v1/search/batch", {"repo_ids": ["nobody"]}),
        ("/v1/search/batch", {"vector": [1, 0]}),
        ("/v1/search/batch", {"repo_ids": ["a/b"], "k": 101}),
        ("/v1/search", {"vector": [1, 0], "exclude_own_owner": True}),
        ("/v1/search", {"vector": [1, 0], "diversity": 1.1}),
        ("/v1/search", {"vector": [1, 0], "group_above": 0}),
        ("/v1/search", {"vector": [1, 0], "exclude": ["nobody"]}),
        ("/v1/search", {"vector": [1, 0], "min_downloads": -1}),
        ("/v1/search", {"vector": [1, 0], "updated_since": "yesterday"}),
        ("/v1/search", {"vector": [1, 0], "owner": "fan"}),
        ("/v1/search", {"vector": [1, 0], "tag": ["x"] * 1_001}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_invalid_fields_return_422(api: TestClient, path: str, body: dict):
    response = api.post(path, json=body)
    assert response.status_code == 422
    assert documented_problem(response)["code"] in ("invalid_input", "invalid_repo_id")


def test_date_without_a_time_zone_is_utc(api: TestClient):
    for since in ("2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:00+02:00"):
        assert search(api, {"vector": [1, 0], "updated_since": since}) == []


def test_answer_from_a_space_that_is_not_serving_has_a_note(api: TestClient, database: Database):
    later = dataclasses.replace(SPACE, encoder_version="2")
    for name in ("fan/late", "fan/later"):
        entries.put(database, name, [1, 0], space=later)
    answer = api.get("/v1/models/fan/late/neighbors").json()
    assert (answer["space"]["key"], answer["space"]["serving"]) == (later.key, False)
    assert answer["note"].startswith("This is not a serving space")
    assert api.get("/v1/models/fan/m0/neighbors").json()["note"] is None
