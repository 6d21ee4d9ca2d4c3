from __future__ import annotations

import pytest

from app.cli import console
from catalog.database import Database
from tests.support import catalog as entries
from tests.support.cli import answer, run
from tests.support.waiting import wait_until

NAMES = ["one", "two", "three"]


@pytest.fixture
def api(database: Database, url: str) -> str:
    """The URL of an API with three stored vectors."""
    entries.put(database, "owner/law", [3, 0])
    with console.connect(url) as client:
        wait_until(lambda: client.post("/v1/search", {"vector": [1, 1]})["neighbors"], "the model is found")
        for name in NAMES:
            client.post("/v1/vectors", {"name": name, "vector": [1, 2]})
    return url


@pytest.mark.parametrize("page_size", [1, 2, 200])
def test_list_is_read_from_as_many_pages_as_necessary(monkeypatch: pytest.MonkeyPatch, api: str, page_size: int):
    monkeypatch.setattr("app.cli.listing.PAGE_SIZE", page_size)
    listing = answer("vectors", "--api", api)
    assert sorted(vector["name"] for vector in listing["vectors"]) == sorted(NAMES)
    assert not listing["has_more"]


def test_limited_list_says_that_there_are_more(api: str):
    listing = answer("vectors", "--limit", "2", "--api", api)
    assert len(listing["vectors"]) == 2
    assert listing["has_more"]
    assert "There are more vectors: --limit 4 shows more of them." in run("vectors", "-n", "2", "--api", api).stderr


def test_complete_list_does_not_mention_the_limit(api: str):
    assert "--limit" not in run("vectors", "-n", "3", "--api", api).stderr
