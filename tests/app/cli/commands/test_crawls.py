from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import cli
from catalog.database import Database
from catalog.errors import InvalidInput, InvalidRepoId, RepoNotFound
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.crawls import Page
from catalog.hub_sync.repository import crawls
from catalog.hub_sync.repository.listings import Listed
from tests.support.crawl_commands import run


@pytest.fixture
def walker(database: Database) -> Iterator[list[Page | RepoNotFound]]:
    """Somebody who walks through crawls, and finds these pages."""
    pages: list[Page | RepoNotFound] = []
    over = threading.Event()

    def walk() -> None:
        while not over.wait(0.05):
            with database.transaction() as session:
                crawl_id = crawls.next_due(session, room=True)
                crawl = crawls.go_on(session, crawl_id) if crawl_id else None
            if crawl is not None:
                found = pages.pop(0)
                if isinstance(found, Page):
                    crawl_service.take(database, crawl, found)
                else:
                    with database.transaction() as session:
                        crawls.fail(session, crawl.id, found)

    thread = threading.Thread(target=walk)
    thread.start()
    yield pages
    over.set()
    thread.join()


def test_a_crawl_is_waited_for(url: str, walker: list):
    walker += [Page((Listed("a/b", "1" * 40, size=2_000),), "next"), Page((Listed("a/c", "2" * 40),))]

    told = json.loads(run("crawl", "--owner", "a", "--api", url, "--json"))

    assert (told["state"], told["pages"], told["queued"], told["source"]) == ("done", 2, 2, {"owner": "a"})
    assert told["estimate"]["bytes"] == 4_000


def test_a_dry_run_tells_people_what_it_would_cost(url: str, walker: list):
    walker.append(Page((Listed("a/b", "1" * 40, size=2_000),)))

    assert "would queue 1 models: 2.0 kB" in run("crawl", "--owner", "a", "--dry-run", "--api", url)


def test_a_crawl_that_failed_ends_with_one(url: str, walker: list):
    walker.append(RepoNotFound("There is no such list."))

    told = json.loads(run("crawl", "--owner", "a", "--api", url, "--json", code=1))

    assert (told["state"], told["error"]["code"]) == ("failed", "repo_not_found")


def test_ids_come_from_a_file(url: str, tmp_path: Path):
    file = tmp_path / "ids.txt"
    file.write_text("# mine\na/b\n\nc/d  # theirs\n")

    told = json.loads(run("crawl", "--file", str(file), "--no-wait", "--api", url, "--json"))

    assert (told["state"], told["ids"]) == ("queued", 2)


@pytest.mark.parametrize(("content", "error"), [("a/b\nnothing\n", InvalidRepoId), ("# none\n", InvalidInput)])
def test_a_file_that_holds_no_ids_is_refused(url: str, tmp_path: Path, content: str, error: type):
    file = tmp_path / "ids.txt"
    file.write_text(content)

    result = CliRunner().invoke(cli.cli, ["crawl", "--file", str(file), "--api", url])

    assert isinstance(result.exception, error)


def test_every_option_gets_through(url: str):
    given = ["--base", "org/base", "--relation", "adapter", "--limit", "5", "--min-downloads", "7", "--every", "24"]

    told = json.loads(run("crawl", *given, "--no-wait", "--api", url, "--json"))

    assert told["source"] == {"base": "org/base", "relations": ["adapter"]}
    assert (told["limit"], told["min_downloads"], told["every_hours"]) == (5, 7, 24)


def test_crawls_are_paused_resumed_cancelled_and_listed(url: str):
    number = str(json.loads(run("crawl", "--tag", "x", "--no-wait", "--api", url, "--json"))["id"])

    states = [
        json.loads(run("crawls", verb, number, "--api", url, "--json"))["state"]
        for verb in ("pause", "resume", "cancel", "show")
    ]

    assert states == ["paused", "queued", "cancelled", "cancelled"]
    assert "tag x" in run("crawls", "--api", url)
    assert len(json.loads(run("crawls", "--api", url, "--json"))["crawls"]) == 1
