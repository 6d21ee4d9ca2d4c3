from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tests.support.keys import AS_ADMIN
from tests.support.problem_documents import documented_problem


@pytest.mark.parametrize(("path", "name"), [("/v1/models", "owner"), ("/v1/admin/audit", "target")])
def test_parameter_that_takes_one_value_is_refused_if_given_twice(api: TestClient, path: str, name: str):
    response = api.get(f"{path}?{name}=a&{name}=b", headers=AS_ADMIN)
    assert (response.status_code, documented_problem(response)["code"]) == (422, "invalid_input")
    assert [error["field"] for error in response.json()["errors"]] == [f"query.{name}"]


def test_list_is_given_as_a_repeated_parameter(api: TestClient):
    assert api.get("/v1/models?team_tag=a&team_tag=b").status_code == 200


def test_long_query_of_one_repeated_parameter_has_one_error(api: TestClient):
    response = api.get("/v1/models?" + "&".join(["q=a"] * 5_000))
    assert len(response.json()["errors"]) == 1
