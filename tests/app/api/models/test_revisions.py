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


def test_a_model_shows_how_far_it_moved_between_revisions(api: TestClient, database: Database):
    for commit, vector in (("one", [1, 0]), ("two", [2, 2]), ("three", [0, 3])):
        entries.put(database, "a/b", vector, commit=commit)

    found = history(api)

    assert [each["sha"] for each in found] == [entries.sha(commit) for commit in ("three", "two", "one")]
    assert [each["current"] for each in found] == [True, False, False]
    moves = [each["moves"][0] for each in found]
    assert [move["norm"] for move in moves] == pytest.approx([3, 8**0.5, 1])
    assert [move["norm_before"] for move in moves] == [pytest.approx(8**0.5), 1, None]
    assert [move["cosine"] for move in moves] == [pytest.approx(0.5**0.5), pytest.approx(0.5**0.5), None]


def test_pages_compare_with_the_revision_on_the_page_after(api: TestClient, database: Database):
    for commit, vector in (("one", [1, 0]), ("two", [1, 0]), ("three", [0, 1])):
        entries.put(database, "a/b", vector, commit=commit)

    first = api.get("/v1/models/a/b/revisions", params={"limit": 1}).json()
    second = api.get("/v1/models/a/b/revisions", params={"limit": 1, "cursor": first["next_cursor"]}).json()

    assert [page["revisions"][0]["moves"][0]["cosine"] for page in (first, second)] == [0, 1]


def test_vectors_of_different_bases_are_not_compared(api: TestClient, database: Database):
    entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [1, 0], commit="two", space=OTHER)

    assert history(api)[0]["moves"][0]["cosine"] is None


def test_a_revision_that_moves_nothing_has_no_direction(api: TestClient, database: Database):
    entries.put(database, "a/b", [1, 0], commit="one")
    entries.put(database, "a/b", [0, 0], commit="two", no_shift=True)

    move = history(api)[0]["moves"][0]

    assert (move["norm"], move["norm_before"], move["cosine"], move["no_shift"]) == (0, 1, None, True)


def test_a_model_that_was_not_embedded_has_no_history(api: TestClient, database: Database):
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
def test_what_cannot_be_shown_is_told(api: TestClient, database: Database, path: str, code: str):
    entries.put_model(database, "a/b")
    assert documented_problem(api.get(f"/v1/models/{path}"))["code"] == code


def test_the_command_line_shows_it(url: str, database: Database):
    for commit, vector in (("one", [1, 0]), ("two", [0, 2])):
        entries.put(database, "a/b", vector, commit=commit)

    told = json.loads(CliRunner().invoke(cli.cli, ["revisions", "a/b", "--api", url, "--json"]).stdout)

    assert [each["sha"] for each in told["revisions"]] == [entries.sha("two"), entries.sha("one")]
    assert entries.sha("two")[:12] in CliRunner().invoke(cli.cli, ["revisions", "a/b", "--api", url]).stdout
