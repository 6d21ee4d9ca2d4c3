"""Text search: `GET /v1/models?q=`."""

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


def put(database: Database, repo_id: str, *, tags: tuple[str, ...] = (), card: str | None = None):
    model_id = entries.put(database, repo_id, [1, 2])
    with database.transaction() as session:
        feed.lock_feed(session)
        models.update_metadata(session, model_id, Metadata(tags=tags))
        models.set_card(session, model_id, card)


@pytest.fixture
def catalog(database: Database) -> None:
    put(database, "local/smollm2-135m-math-first", card="Sums, and problems of words.")
    put(database, "maker/Legal_Helper", tags=("contract-law", "license:mit"), card="Reads contracts. Knows no math.")
    put(database, "maker/plain", card="Ответы о праве, 数学 and more")


def search(api: TestClient, q: str, **filters: object) -> list[str]:
    response = api.get("/v1/models", params={"q": q, **filters})
    assert response.status_code == 200, response.text
    return [model["repo_id"] for model in response.json()["models"]]


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
        ("smol math", []),  # only the last word matches as a prefix
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
def test_search_requires_every_word_in_name_tags_or_card(api: TestClient, catalog: None, q: str, expected: list[str]):
    assert search(api, q) == expected


def test_match_in_the_name_ranks_above_match_in_the_card(api: TestClient, catalog: None):
    assert search(api, "math") == [MATH, LEGAL]


def test_search_is_combined_with_filters(api: TestClient, catalog: None):
    assert search(api, "math", owner="maker") == [LEGAL]
    assert search(api, "math", base=entries.BASE, state="indexed") == [MATH, LEGAL]
    assert search(api, "math", base="other/base") == []


def test_pages_contain_each_model_once_by_rank(api: TestClient, database: Database):
    for number in range(5):
        put(database, f"maker/legal-{number}", card="legal " * number)
    sizes, names, cursor = [], [], None
    while True:
        page = api.get("/v1/models", params={"q": "legal", "limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        sizes.append(len(page["models"]))
        names += [model["repo_id"] for model in page["models"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert sizes == [2, 2, 1]
    assert names == search(api, "legal")
    assert len(set(names)) == 5


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"q": ""}, "invalid_input"),
        ({"q": "x" * 201}, "invalid_input"),
        ({"q": "x", "cursor": "???"}, "invalid_cursor"),
    ],
)
def test_invalid_search_is_rejected(api: TestClient, params: dict, code: str):
    assert documented_problem(api.get("/v1/models", params=params))["code"] == code


def test_search_uses_its_index(database: Database):
    query = "EXPLAIN SELECT id FROM models WHERE words @@ to_tsquery('simple', '''math'':*')"
    with database.transaction() as session:
        connection = session.connection()
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(query))
    assert "ix_models_words" in plan


def test_model_shows_tags_and_card(api: TestClient, database: Database):
    put(database, "maker/tagged", tags=("math",), card="Sums.")

    model = api.get("/v1/models/maker/tagged").json()

    assert (model["metadata"]["tags"], model["card"]) == (["math"], "Sums.")


def test_search_command_finds_models(url: str, catalog: None):
    page = json.loads(CliRunner().invoke(cli.cli, ["search", "smollm", "math", "--api", url, "--json"]).stdout)
    assert [model["repo_id"] for model in page["models"]] == [MATH]
    assert MATH.split("/", maxsplit=1)[0] in CliRunner().invoke(cli.cli, ["search", "math", "--api", url]).stdout


def test_only_the_newest_matches_are_ranked(api: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "MAX_RANKED", 3)
    put(database, "maker/words-words-words", card="words " * 20)  # would be ranked first
    for number in range(4):
        put(database, f"maker/words-{number}")
    assert sorted(search(api, "words")) == [f"maker/words-{number}" for number in (1, 2, 3)]
    first = api.get("/v1/models", params={"q": "words", "limit": 2}).json()
    second = api.get("/v1/models", params={"q": "words", "limit": 2, "cursor": first["next_cursor"]}).json()
    assert len({model["repo_id"] for model in first["models"] + second["models"]}) == 3
    assert second["next_cursor"] is None
