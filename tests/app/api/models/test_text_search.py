"""`GET /v1/models?q=`: search by words."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app import cli
from catalog.database import Database
from catalog.models.repository import models
from catalog.models.repository.models import Metadata
from catalog.vectors.repository import feed
from tests.support import catalog as entries
from tests.support.problem_documents import documented_problem


def put(database: Database, repo_id: str, *, tags: tuple[str, ...] = (), card: str | None = None, **more: object):
    model = entries.put(database, repo_id, [1, 2], **more)
    with database.transaction() as session:
        feed.lock_feed(session)
        models.describe(session, model, Metadata(tags=tags))
        models.set_card(session, model, card)


@pytest.fixture
def catalog(database: Database) -> None:
    put(database, "local/smollm2-135m-math-first", card="Sums, and problems of words.")
    put(database, "maker/Legal_Helper", tags=("contract-law", "license:mit"), card="Reads contracts. Knows no math.")
    put(database, "maker/plain", card="Ответы о праве, 数学 and more")


def found(api: TestClient, q: str, **more: object) -> list[str]:
    response = api.get("/v1/models", params={"q": q, **more})
    assert response.status_code == 200, response.text
    return [each["repo_id"] for each in response.json()["models"]]


MATH = "local/smollm2-135m-math-first"
LEGAL = "maker/Legal_Helper"
PLAIN = "maker/plain"


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("smollm math", [MATH]),
        ("smollm2", [MATH]),
        ("smollm2-135m", [MATH]),
        ("135", [MATH]),
        ("local/smollm2-135m-math-first", [MATH]),
        ("math smol", [MATH]),
        ("smol math", []),  # only the last word may be begun
        ("legal helper", [LEGAL]),
        ("HELPER", [LEGAL]),
        ("contract", [LEGAL]),
        ("law mit", [LEGAL]),
        ("праве", [PLAIN]),
        ("'; DROP TABLE models; --", []),
        ("math | legal & !(", [LEGAL]),
        ("---", []),
    ],
)
def test_every_word_has_to_be_in_the_name_the_tags_or_the_card(
    api: TestClient, catalog: None, q: str, expected: list[str]
):
    assert found(api, q) == expected


def test_a_name_counts_more_than_a_card(api: TestClient, catalog: None):
    assert found(api, "math") == [MATH, LEGAL]


def test_words_go_with_the_other_filters(api: TestClient, catalog: None):
    assert found(api, "math", owner="maker") == [LEGAL]
    assert found(api, "math", base=entries.BASE, state="indexed") == [MATH, LEGAL]
    assert found(api, "math", base="other/base") == []


def test_pages_hold_each_model_once_in_the_order_of_rank(api: TestClient, database: Database):
    for number in range(5):
        put(database, f"maker/legal-{number}", card="legal " * number)
    sizes, names, cursor = [], [], None
    while True:
        page = api.get("/v1/models", params={"q": "legal", "limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        sizes.append(len(page["models"]))
        names += [each["repo_id"] for each in page["models"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert sizes == [2, 2, 1]
    assert names == found(api, "legal")
    assert len(set(names)) == 5


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"q": ""}, "invalid_input"),
        ({"q": "x" * 201}, "invalid_input"),
        ({"q": "x", "cursor": "???"}, "invalid_cursor"),
    ],
)
def test_what_asks_for_nothing_is_refused(api: TestClient, params: dict, code: str):
    assert documented_problem(api.get("/v1/models", params=params))["code"] == code


def test_the_search_uses_its_index(database: Database):
    query = "EXPLAIN SELECT id FROM models WHERE words @@ to_tsquery('simple', '''math'':*')"
    with database.transaction() as session:
        connection = session.connection()
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(query))
    assert "ix_models_words" in plan


def test_metadata_is_shown(api: TestClient, database: Database):
    put(database, "maker/told", tags=("math",), card="Sums.")

    shown = api.get("/v1/models/maker/told").json()

    assert (shown["metadata"]["tags"], shown["card"]) == (["math"], "Sums.")


def test_the_command_line_searches(url: str, catalog: None):
    told = json.loads(CliRunner().invoke(cli.cli, ["search", "smollm", "math", "--api", url, "--json"]).stdout)
    assert [each["repo_id"] for each in told["models"]] == [MATH]
    assert MATH.split("/", maxsplit=1)[0] in CliRunner().invoke(cli.cli, ["search", "math", "--api", url]).stdout
