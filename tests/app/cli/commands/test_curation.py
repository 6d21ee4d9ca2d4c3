from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.settings import settings
from catalog.tables import Role
from tests.support import catalog as entries
from tests.support.cli import answer, failure, run
from tests.support.keys import add_key
from tests.support.waiting import wait_until

KEY = "an API key of a team"


@pytest.fixture
def key(url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an API, and the key of the team in the settings of the command line."""
    add_key(database, KEY)
    monkeypatch.setenv("DELTADEX_API_KEY", KEY)
    settings.cache_clear()
    yield url
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def team(key: str, database: Database) -> str:
    for number in range(3):
        entries.put(database, f"open/m{number}", [3 - number, number])
    return key


def test_tags_are_added_filtered_by_and_removed(team: str):
    said = answer("tag", "open/m1", "prod", "reviewed by legal", "--api", team)
    assert [tag["tag"] for tag in said["team_tags"]] == ["prod", "reviewed by legal"]
    found = answer("search", "--team-tag", "prod", "--team-tag", "reviewed by legal", "--api", team)
    assert [model["repo_id"] for model in found["models"]] == ["open/m1"]
    assert answer("search", "m2", "--team-tag", "prod", "--api", team)["models"] == []
    wait_until(
        lambda: (
            [
                neighbor["repo_id"]
                for neighbor in answer("neighbors", "open/m0", "--team-tag", "prod", "--api", team)["neighbors"]
            ]
            == ["open/m1"]
        ),
        "the tag is in the index",
    )
    said = answer("untag", "open/m1", "prod", "--api", team)
    assert [tag["tag"] for tag in said["team_tags"]] == ["reviewed by legal"]


def test_note_is_set_and_deleted(team: str):
    note = answer("note", "open/m1", "ask [legal] first", "--api", team)["note"]
    assert (note["text"], note["author"]) == ("ask [legal] first", hash_key(KEY)[:12])
    assert answer("note", "open/m1", "--delete", "--api", team)["note"] is None
    for arguments in (["open/m1"], ["open/m1", "text", "--delete"]):
        assert run("note", *arguments, "--api", team).exit_code == 2


def test_alias_is_set_moved_used_and_deleted(team: str):
    assert answer("alias", "prod", "open/m1", "--api", team)["repo_id"] == "open/m1"
    assert answer("alias", "prod", "open/m2", "--api", team)["repo_id"] == "open/m2"
    assert answer("show", "alias/prod", "--api", team)["repo_id"] == "open/m2"
    assert [alias["alias"] for alias in answer("aliases", "--api", team)["aliases"]] == ["prod"]
    assert answer("aliases", "delete", "prod", "--api", team)["alias"] == "prod"
    assert failure("show", "alias/prod", "--api", team).code == "model_not_found"
    assert failure("aliases", "delete", "prod", "--api", team).code == "alias_not_found"


def test_show_prints_what_the_team_says(team: str):
    answer("tag", "open/m1", "prod", "--api", team)
    answer("note", "open/m1", "ask [legal] first", "--api", team)
    answer("alias", "main", "open/m1", "--api", team)
    shown = run("show", "open/m1", "--api", team).stdout
    for text in ("prod", "ask [legal] first", "alias/main", hash_key(KEY)[:12]):
        assert text in shown
    listed = run("search", "m1", "--api", team).stdout
    assert "prod" in listed
    assert "alias/main" in run("aliases", "--api", team).stdout


def test_writing_with_the_key_of_a_reader_is_refused(url: str, database: Database, monkeypatch: pytest.MonkeyPatch):
    entries.put(database, "open/m1", [1, 0])
    add_key(database, "key of a reader", Role.READER)
    monkeypatch.setenv("DELTADEX_API_KEY", "key of a reader")
    settings.cache_clear()
    assert failure("tag", "open/m1", "prod", "--api", url).code == "role_required"
    monkeypatch.undo()
    settings.cache_clear()
