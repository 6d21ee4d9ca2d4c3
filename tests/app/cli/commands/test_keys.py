from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.settings import Settings, settings
from tests.support.cli import answer, failure, run


@pytest.fixture
def as_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Lets a test change the key that the commands send."""
    yield monkeypatch
    monkeypatch.undo()
    settings.cache_clear()


def send(patch: pytest.MonkeyPatch, key: str) -> None:
    patch.setenv("DELTADEX_API_KEY", key)
    settings.cache_clear()


def test_key_is_added_used_listed_and_revoked(url: str, as_key: pytest.MonkeyPatch):
    result = run("keys", "add", "a team", "--role", "submitter", "--days", "30", "--max-active-jobs", "5", "--api", url)
    key = result.stdout.strip()
    [listed] = answer("keys", "--api", url)["keys"]
    assert key.startswith(listed["prefix"])
    assert (listed["name"], listed["role"], listed["max_active_jobs"]) == ("a team", "submitter", 5)
    assert key not in run("keys", "--api", url).output

    send(as_key, key)
    assert answer("add", "a/b", "--no-wait", "--api", url)["jobs"][0]["state"] == "queued"
    assert failure("keys", "--api", url).code == "role_required"

    as_key.delenv("DELTADEX_API_KEY")
    settings.cache_clear()
    assert answer("keys", "revoke", listed["prefix"], "--api", url)["revoked_at"] is not None
    send(as_key, key)
    assert failure("add", "a/c", "--no-wait", "--api", url).code == "key_revoked"


def test_unknown_role_is_a_usage_error(url: str):
    assert run("keys", "add", "a team", "--role", "root", "--api", url).exit_code == 2


def test_acts_are_shown(url: str):
    answer("queue", "pause", "--api", url)
    answer("add", "a/b", "--no-wait", "--api", url)
    entries = answer("audit", "--api", url)["audit"]
    assert [(entry["actor"], entry["target"]) for entry in entries] == [
        ("ADMIN_API_KEY", "a/b"), ("ADMIN_API_KEY", "encode"),
    ]  # fmt: skip
    assert [entry["target"] for entry in answer("audit", "a/b", "--api", url)["audit"]] == ["a/b"]


def test_key_of_a_data_directory_is_sent_to_its_own_api_alone(tmp_path: Path):
    (tmp_path / "admin.key").write_text("the key in the file\n")
    conf = Settings(data_dir=tmp_path, admin_api_key=None, host="127.0.0.1", port=8000)
    conf = conf.model_copy(update={"admin_api_key": None})
    assert conf.cli_key("http://127.0.0.1:8000") == "the key in the file"
    assert conf.cli_key("http://127.0.0.1:8000/") == "the key in the file"
    assert conf.cli_key("http://deltadex.example") is None
