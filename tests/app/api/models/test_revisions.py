from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app import cli
from catalog.database import Database
from catalog.spaces.contract import Space
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem

OTHER = Space("delta_activations", -1, "other/base", "b" * 40, "c" * 64, "float32", "1")


def history(api: TestClient, **query: object) -> list[dict]:
    response = api.get("/v1/models/a/b/revisions", params=query)
    assert response.status_code == 200, response.text
    return response.json()["revisions"]


def test_revisions_show_norms_and_cosines_to_the_previous_one(api: TestClient, database: Database):
    for commit, vector in (("one", [1, 0]), ("two", [2, 2]), ("three", [0, 3])):
        entries.put(database, "a/b", vector, commit=commit)

    revisions = history(api)

    assert [revision["sha"] for revision in revisions] == [entries.sha(commit) for commit in ("three", "two", "one")]
    assert [revision["current"] for revision in revisions] == [True, False, False]
    measurements = [revision["measurements"][0] for revision in revisions]
    assert [measurement["norm"] for measurement in measurements] == pytest.approx([3, 8**0.5, 1])
    assert [measurement["norm_before"] for measurement in measurements] == [pytest.approx(8**0.5), 1, None]
    assert [measurement["cosine"] for measurement in measurements] == [
        pytest.approx(0.5**0.5),
        pytest.approx(0.5**0.5),
        None,
    ]


def test_last_revision_of_a_page_is_compared_with_the_next_page(api: TestClient, database: Database):
    for commit, vector in (("one", [1, 0]), ("two", [1, 0]), ("three", [0, 1])):
        entries.put(database, "a/b", vector, commit=commit)

    first = api.get("/v1/models/a/b/revisions", params={"limit": 1}).json()
    second = api.get("/v1/models/a/b/revisions", params={"limit": 1, "cursor": first["next_cursor"]}).json()

    assert [page["revisions"][0]["measurements"][0]["cosine"] for page in (first, second)] == [0, 1]


def test_revisions_of_different_bases_are_not_compared(api: TestClient, database: Database):
    entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [1, 0], commit="two", space=OTHER, base="other/base")

    assert history(api)[0]["measurements"][0]["cosine"] is None


def test_zero_vector_has_no_cosine(api: TestClient, database: Database):
    entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [0, 0], commit="two", no_shift=True)

    measurement = history(api)[0]["measurements"][0]

    assert (measurement["norm"], measurement["norm_before"]) == (0, 1)
    assert (measurement["cosine"], measurement["no_shift"]) == (None, True)


def test_pending_model_has_no_revisions(api: TestClient, database: Database):
    entries.put_model(database, "a/b")
    assert history(api) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a/none/revisions", "model_not_found"),
        ("a/..b/revisions", "invalid_repo_id"),
        ("a/b/revisions?cursor=?", "invalid_cursor"),
    ],
)
def test_invalid_request_returns_a_problem(api: TestClient, database: Database, path: str, code: str):
    entries.put_model(database, "a/b")
    assert documented_problem(api.get(f"/v1/models/{path}"))["code"] == code


def test_revisions_command_lists_revisions(url: str, database: Database):
    for commit, vector in (("one", [1, 0]), ("two", [0, 2])):
        entries.put(database, "a/b", vector, commit=commit)

    page = json.loads(CliRunner().invoke(cli.cli, ["revisions", "a/b", "--api", url, "--json"]).stdout)

    assert [revision["sha"] for revision in page["revisions"]] == [entries.sha("two"), entries.sha("one")]
    assert entries.sha("two")[:12] in CliRunner().invoke(cli.cli, ["revisions", "a/b", "--api", url]).stdout
