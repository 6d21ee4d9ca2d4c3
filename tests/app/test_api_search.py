from __future__ import annotations

import dataclasses

import pytest
from fastapi.testclient import TestClient

from app.api.schemas import MAX_DIMENSION
from catalog.database import Database
from catalog.index import Follower
from tests.app.conftest import refresh
from tests.app.documented import documented_problem
from tests.catalog import entries
from tests.catalog.entries import SPACE

OTHER = dataclasses.replace(SPACE, encoder_version="2")


@pytest.fixture(autouse=True)
def fan(database: Database, api: TestClient) -> None:
    """Five models whose vectors open like a fan, one of another space, one that moves nothing, one that waits."""
    for number in range(5):
        entries.put(database, f"fan/m{number}", [4 - number, number])
    entries.put(database, "fan/other", [1, 0, 0], space=OTHER)
    entries.put(database, "fan/still", [1e-9, 0], no_shift=True)
    entries.put_model(database, "new/model")
    refresh(api)


def found(api: TestClient, body: dict) -> list[str]:
    response = api.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return [each["repo_id"] for each in response.json()["neighbors"]]


def test_a_vector_finds_what_is_near(api: TestClient):
    assert found(api, {"vector": [1, 0], "k": 2}) == ["fan/m0", "fan/m1"]


def test_a_vector_is_searched_in_the_space_of_its_dimension(api: TestClient):
    response = api.post("/v1/search", json={"vector": [1, 0, 0]}).json()
    assert [each["repo_id"] for each in response["neighbors"]] == ["fan/other"]
    assert response["space"]["key"] == OTHER.key


def test_a_model_finds_the_same_as_its_neighbours(api: TestClient):
    answer = api.post("/v1/search", json={"repo_id": "fan/m1", "k": 3}).json()
    assert answer == api.get("/v1/models/fan/m1/neighbors?k=3").json()


def test_the_least_similarity_bounds_the_answer(api: TestClient):
    assert found(api, {"vector": [1, 0], "min_similarity": 0.9}) == ["fan/m0", "fan/m1"]


def test_the_longest_vector_fits_into_a_request(api: TestClient):
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
        ({"vector": [1, 0], "space": "x"}, 422, "invalid_input"),
        ({"vector": [0, 0]}, 422, "invalid_vector"),
        ({"vector": [1e300, 0]}, 422, "invalid_vector"),
        ({"repo_id": "nobody"}, 422, "invalid_repo_id"),
        ({"repo_id": "no/body"}, 404, "model_not_found"),
        ({"vector": [1, 0], "space": "0" * 64}, 404, "space_not_found"),
        ({"repo_id": "fan/m0", "space": "0" * 64}, 404, "space_not_found"),
        ({"repo_id": "new/model"}, 409, "not_indexed"),
        ({"repo_id": "fan/m0", "space": OTHER.key}, 409, "not_indexed"),
        ({"repo_id": "fan/still"}, 409, "no_shift"),
        ({"vector": [1, 0, 0, 0]}, 409, "space_mismatch"),
        ({"vector": [1, 0], "space": OTHER.key}, 409, "space_mismatch"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_search_that_cannot_be_answered_is_said_so(api: TestClient, body: dict, status: int, code: str):
    response = api.post("/v1/search", json=body)
    assert response.status_code == status
    assert documented_problem(response)["code"] == code


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_json_does_not_have_are_refused(api: TestClient, number: bytes):
    body = b'{"vector": [1, ' + number + b"]}"
    response = api.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert documented_problem(response)["code"] in ("invalid_vector", "invalid_input")


def test_a_query_parameter_is_refused(api: TestClient):
    response = api.post("/v1/search?k=3", json={"vector": [1, 0]})
    assert documented_problem(response)["errors"][0]["field"] == "query.k"


def test_a_vector_that_fits_two_spaces_must_name_one(api: TestClient, database: Database):
    entries.put(database, "fan/twice", [1, 0], space=dataclasses.replace(SPACE, encoder_version="3"))
    response = api.post("/v1/search", json={"vector": [1, 0]})
    assert response.status_code == 409
    assert documented_problem(response)["code"] == "space_required"


def test_a_vector_of_nothing_but_mistakes_gets_a_short_answer(api: TestClient):
    response = api.post("/v1/search", json={"vector": ["x"] * MAX_DIMENSION})
    assert documented_problem(response)["code"] == "invalid_input"
    assert len(response.content) < 10_000


def test_a_search_waits_for_the_index(api: TestClient, database: Database):
    services = api.app.state.services
    api.app.state.services = type(services)(database, Follower(database, interval=1))  # has not read anything
    response = api.post("/v1/search", json={"vector": [1, 0]})
    assert response.status_code == 503
    assert documented_problem(response)["code"] == "index_not_loaded"


def test_spaces_are_listed_the_newest_first(api: TestClient):
    spaces = api.get("/v1/spaces").json()["spaces"]
    assert spaces == [OTHER.as_dict() | {"dimension": 3}, SPACE.as_dict() | {"dimension": 2}]


def test_the_list_of_spaces_takes_no_parameter(api: TestClient):
    assert documented_problem(api.get("/v1/spaces?limit=1"))["code"] == "invalid_input"
