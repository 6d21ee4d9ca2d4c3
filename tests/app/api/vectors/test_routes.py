from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from catalog.database import Database
from tests.support import catalog as entries
from tests.support.api import refresh
from tests.support.catalog import SPACE
from tests.support.problem_documents import documented_problem


@pytest.fixture(autouse=True)
def parts(database: Database, api: TestClient) -> None:
    """Two parts, a mixture of them, and a model that is `no_shift`."""
    entries.put(database, "owner/law", [3, 0])
    entries.put(database, "owner/math", [0, 4])
    entries.put(database, "owner/mixture", [2, 2])
    entries.put(database, "owner/still", [1e-9, 0], no_shift=True)
    refresh(api)


def test_search_by_expression_returns_neighbors_terms_and_residual(api: TestClient):
    body = {"expression": "owner/law + 0.5*owner/math", "compare": "owner/mixture"}
    answer = api.post("/v1/search", json=body).json()

    assert [neighbor["repo_id"] for neighbor in answer["neighbors"]] == ["owner/mixture"]
    assert (answer["expression"], answer["unit_terms"]) == (body["expression"], False)
    assert answer["terms"] == [
        {"kind": "model", "term": "owner/law", "name": "owner/law", "weight": 1, "norm": 3},
        {"kind": "model", "term": "owner/math", "name": "owner/math", "weight": 0.5, "norm": 4},
    ]
    assert answer["norm"] == pytest.approx(13**0.5)
    [residual] = answer["residuals"]
    assert (residual["repo_id"], residual["known_mixture"]) == ("owner/mixture", False)
    assert residual["cosine"] == pytest.approx(answer["neighbors"][0]["similarity"])
    assert residual["relative"] == pytest.approx(1 / 8**0.5)


def test_search_by_expression_with_unit_terms_and_include_terms(api: TestClient):
    body = {"expression": "owner/law + owner/math", "unit_terms": True, "include_terms": True}
    answer = api.post("/v1/search", json=body).json()
    assert [term["norm"] for term in answer["terms"]] == [1, 1]
    assert {neighbor["repo_id"] for neighbor in answer["neighbors"]} == {"owner/law", "owner/math", "owner/mixture"}


def test_search_by_vector_has_no_terms(api: TestClient):
    assert "terms" not in api.post("/v1/search", json={"vector": [1, 0]}).json()


@pytest.mark.parametrize(
    ("body", "status", "code", "span"),
    [
        ({"expression": "owner/law + "}, 422, "invalid_expression", (12, 0)),
        ({"expression": ""}, 422, "invalid_expression", (0, 0)),
        ({"expression": "x" * 5_000}, 422, "invalid_expression", (4_000, 1_000)),
        ({"expression": "'\x00'"}, 422, "invalid_expression", (0, 3)),
        ({"expression": "owner/law + nobody"}, 404, "term_not_found", (12, 6)),
        ({"expression": "owner/law - owner/still"}, 409, "no_shift", (12, 11)),
        ({"expression": "owner/law - owner/law"}, 409, "zero_vector", None),
        ({"expression": "owner/law", "compare": "no/body"}, 404, "model_not_found", None),
        ({"expression": "owner/law", "compare": "nobody"}, 422, "invalid_repo_id", None),
        ({"expression": "owner/law", "space": "0" * 64}, 404, "space_not_found", None),
        ({"expression": "owner/law", "geometry": "centered"}, 422, "invalid_input", None),
        ({"expression": "owner/law", "vector": [1, 0]}, 422, "invalid_input", None),
        ({"expression": "owner/law", "repo_id": "owner/law"}, 422, "invalid_input", None),
        ({"expression": "owner/law", "exclude_own_owner": True}, 422, "invalid_input", None),
        ({"vector": [1, 0], "unit_terms": True}, 422, "invalid_input", None),
        ({"repo_id": "owner/law", "compare": "owner/math"}, 422, "invalid_input", None),
        ({"repo_id": "owner/law", "include_terms": True}, 422, "invalid_input", None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_invalid_search_by_expression_returns_a_problem_with_its_position(
    api: TestClient, body: dict, status: int, code: str, span: tuple[int, int] | None
):
    response = api.post("/v1/search", json=body)
    assert response.status_code == status
    problem = documented_problem(response)
    assert problem["code"] == code
    assert (problem.get("position"), problem.get("length")) == (span or (None, None))


def store(api: TestClient, **body) -> dict:
    response = api.post("/v1/vectors", json=body)
    assert response.status_code == 201, response.text
    return response.json()


def test_stored_expression_can_be_used_in_expressions(api: TestClient):
    stored = store(api, name="both", expression="owner/law + owner/math", note="mine")
    assert (stored["norm"], stored["origin"], stored["note"]) == (5, "expression", "mine")
    assert stored["space"]["key"] == SPACE.key

    answer = api.post("/v1/search", json={"expression": "both"}).json()
    assert answer["terms"] == [{"kind": "vector", "term": "vector:both", "name": "both", "weight": 1, "norm": 5}]
    assert api.get("/v1/vectors/both").json() == stored | {"vector": [3, 4]}


def test_vector_is_stored_under_a_name(api: TestClient):
    stored = store(api, name="mine", vector=[1, 2], space=SPACE.key)
    assert (stored["origin"], stored["expression"]) == ("vector", None)
    assert api.get("/v1/vectors/mine").json()["vector"] == [1, 2]


def test_stored_vectors_are_listed_in_pages(api: TestClient):
    for name in ("one", "two", "three"):
        store(api, name=name, vector=[1, 2])
    first = api.get("/v1/vectors?limit=2").json()
    second = api.get(f"/v1/vectors?limit=2&cursor={first['next_cursor']}").json()
    assert [vector["name"] for vector in (*first["vectors"], *second["vectors"])] == ["one", "two", "three"]
    assert second["next_cursor"] is None


def test_deleted_vector_returns_404(api: TestClient):
    stored = store(api, name="mine", vector=[1, 2])
    assert api.delete("/v1/vectors/mine").json() == stored
    for response in (api.delete("/v1/vectors/mine"), api.get("/v1/vectors/mine"), api.get("/v1/vectors/%00")):
        assert response.status_code == 404
        assert documented_problem(response)["code"] == "vector_not_found"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "taken", "vector": [1, 0]}, 409, "name_taken"),
        ({"name": "a b", "vector": [1, 0]}, 422, "invalid_name"),
        ({"name": "7", "vector": [1, 0]}, 422, "invalid_name"),
        ({"name": "new", "vector": [0, 0]}, 422, "invalid_vector"),
        ({"name": "new", "vector": [1, 0, 0]}, 409, "space_mismatch"),
        ({"name": "new", "vector": [1, 0, 0], "space": SPACE.key}, 409, "space_mismatch"),
        ({"name": "new", "vector": [1, 0], "space": "0" * 64}, 404, "space_not_found"),
        ({"name": "new", "expression": "nobody"}, 404, "term_not_found"),
        ({"name": "new", "expression": "owner/law -"}, 422, "invalid_expression"),
        ({"name": "new"}, 422, "invalid_input"),
        ({"name": "new", "vector": [1, 0], "expression": "owner/law"}, 422, "invalid_input"),
        ({"name": "new", "vector": [1, 0], "unit_terms": True}, 422, "invalid_input"),
        ({"vector": [1, 0]}, 422, "invalid_input"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_invalid_vector_to_store_returns_a_problem(api: TestClient, body: dict, status: int, code: str):
    store(api, name="taken", vector=[1, 0])
    response = api.post("/v1/vectors", json=body)
    assert response.status_code == status
    assert documented_problem(response)["code"] == code


def test_vector_whose_norm_exceeds_float32_is_stored_with_its_norm(api: TestClient):
    stored = api.post("/v1/vectors", json={"name": "long", "vector": [3e38, 3e38]})
    assert stored.status_code == 201
    for row in (stored.json(), api.get("/v1/vectors/long").json(), api.get("/v1/vectors").json()["vectors"][0]):
        assert row["norm"] == pytest.approx(3e38 * 2**0.5)


@pytest.mark.parametrize("body", [{"vector": [1e39, 0]}, {"expression": "1e39*owner/law"}])
def test_vector_that_is_not_finite_in_float32_is_refused(api: TestClient, body: dict):
    response = api.post("/v1/vectors", json={"name": "infinite", **body})
    assert documented_problem(response)["code"] in ("invalid_vector", "invalid_expression")
    assert api.get("/v1/vectors").json()["vectors"] == []
