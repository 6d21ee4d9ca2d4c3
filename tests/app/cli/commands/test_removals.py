from __future__ import annotations

import pytest

from catalog.database import Database
from catalog.errors import InvalidRepoId
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.cli import answer, failure, run


@pytest.fixture
def api(url: str, database: Database) -> tuple[str, str]:
    """The option for an API with two models."""
    for name in ("one", "two"):
        entries.put(database, f"owner/{name}", [1, 2])
    return ("--api", url)


def names(api: tuple[str, str]) -> list[str]:
    return [model["repo_id"] for model in answer("search", "owner", *api)["models"]]


def test_models_are_removed(api: tuple[str, str]):
    assert set(names(api)) == {"owner/one", "owner/two"}

    [removed] = answer("remove", "owner/one", *api)["removed"]

    assert removed == {"repo_id": "owner/one", "revisions": 1, "vectors": 1, "jobs": []}
    assert names(api) == ["owner/two"]
    assert "owner/two" in run("remove", "owner/two", *api).stdout


def test_removal_of_an_unknown_model_is_an_error(api: tuple[str, str]):
    assert failure("remove", "no/body", *api).code == "model_not_found"
    assert isinstance(failure("remove", "nobody", *api), InvalidRepoId)


def test_blocks_are_added_listed_and_removed(api: tuple[str, str]):
    added = answer("block", "add", "--owner", "Owner", "--reason", "spam", *api)
    assert (added["kind"], added["value"], added["removed"]) == ("owner", "owner", 2)
    assert names(api) == []
    assert [row["reason"] for row in answer("block", "list", *api)["blocks"]] == ["spam"]
    assert "spam" in run("block", "list", *api).stdout

    assert answer("block", "remove", str(added["id"]), *api)["value"] == "owner"

    assert answer("block", "list", *api)["blocks"] == []


@pytest.mark.parametrize("options", [(), ("--owner", "a", "--license", "b")])
def test_block_takes_exactly_one_kind(api: tuple[str, str], options: tuple[str, ...]):
    assert run("block", "add", *options, *api).exit_code == 2


def test_spaces_are_listed_and_dropped(api: tuple[str, str]):
    assert SPACE.key[:12] in run("spaces", *api).stdout
    assert [row["vectors"] for row in answer("spaces", *api)["spaces"]] == [2]
    assert failure("spaces", "drop", SPACE.key[:8], *api).code == "space_serving"

    output = run("spaces", "drop", SPACE.key[:8], "--force", *api).stdout

    assert "2 models are in no space now" in output
    assert answer("spaces", *api)["spaces"] == []
