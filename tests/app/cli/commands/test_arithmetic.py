from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from app import cli
from app.cli import console, render
from catalog.database import Database
from tests.support import catalog as entries
from tests.support.cli import answer, failure
from tests.support.waiting import wait_until


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, arguments)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a terminal that is wide enough for the tables, whatever COLUMNS was when the console was created."""
    monkeypatch.setattr(console.out, "_width", 160)


@pytest.fixture
def parts(database: Database, url: str) -> str:
    """The URL of an API that finds two parts and a mixture of them."""
    for name, vector in (("law", [3, 0]), ("math", [0, 4]), ("mixture", [2, 2])):
        entries.put(database, f"owner/{name}", vector)
    with console.connect(url) as client:
        wait_until(lambda: len(client.post("/v1/search", {"vector": [1, 1]})["neighbors"]) == 3, "all models are found")
    return url


def test_compose_shows_terms_neighbors_and_residual(parts: str):
    result = run("compose", "owner/law + 0.5*owner/math", "--compare", "owner/mixture", "--api", parts)
    assert result.exit_code == 0, result.output
    for text in ("+0.5", "owner/law", "residual at scale", "owner/mixture", "0.3536"):
        assert text in result.stdout
    assert "norm 3.606" in result.stderr


def test_compose_prints_json(parts: str):
    composed = answer("compose", "owner/law + owner/math", "--unit-terms", "--include-terms", "-k", "2", "--api", parts)
    assert composed["unit_terms"]
    assert len(composed["neighbors"]) == 2
    assert [term["weight"] for term in composed["terms"]] == [1, 1]


def test_expression_that_begins_with_a_minus_goes_after_two_dashes(parts: str):
    result = run("compose", "--api", parts, "--json", "--", "-owner/law + owner/math")
    assert [term["weight"] for term in json.loads(result.stdout)["terms"]] == [-1, 1]


def test_error_in_an_expression_is_underlined(parts: str):
    result = run("compose", "owner/law + 2*nobody", "--api", parts)
    assert result.exception.code == "term_not_found"
    assert result.stderr.splitlines() == ["  owner/law + 2*nobody", "                ^^^^^^"]


def test_underline_accounts_for_wide_letters_and_line_breaks():
    assert render.underlined("'法\n律' + x", (8, 1)).splitlines() == ["  '法 律' + x", "            ^"]
    assert render.underlined("a +", (3, 0)).splitlines() == ["  a +", "     ^"]


def test_sum_is_stored_listed_shown_and_deleted(parts: str):
    answer("compose", "owner/law + owner/math", "--save", "both", "--note", "mine", "--api", parts)

    [listed] = answer("vectors", "--api", parts)["vectors"]
    assert (listed["name"], listed["expression"], listed["note"]) == ("both", "owner/law + owner/math", "mine")
    assert answer("vectors", "show", "both", "--api", parts)["vector"] == [3, 4]
    assert "owner/law + owner/math" in run("vectors", "--api", parts).stdout
    assert run("vectors", "delete", "both", "--api", parts).stdout == "deleted both\n"
    assert failure("vectors", "show", "both", "--api", parts).code == "vector_not_found"


def test_note_without_save_is_an_error(parts: str):
    assert run("compose", "owner/law", "--note", "mine", "--api", parts).exit_code == 2
