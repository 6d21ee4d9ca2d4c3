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
from catalog.hub_sync.crawls import ListingPage
from catalog.hub_sync.repository import crawls
from catalog.hub_sync.repository.listings import ListedRepo
from tests.support.crawl_commands import run


@pytest.fixture
def crawler_pages(database: Database) -> Iterator[list[ListingPage | RepoNotFound]]:
    """A thread that runs crawls with these pages in place of the Hub's."""
    pages: list[ListingPage | RepoNotFound] = []
    stopping = threading.Event()

    def run_crawler() -> None:
        while not stopping.wait(0.05):
            with database.transaction() as session:
                crawl_id = crawls.find_next_due(session, queue_full=False)
                crawl = crawls.begin_step(session, crawl_id) if crawl_id else None
            if crawl is not None:
                page = pages.pop(0)
                if isinstance(page, ListingPage):
                    crawl_service.store_page(database, crawl, page)
                else:
                    with database.transaction() as session:
                        crawls.fail(session, crawl.id, page)

    thread = threading.Thread(target=run_crawler)
    thread.start()
    yield pages
    stopping.set()
    thread.join()


def test_crawl_waits_until_the_crawl_ends(url: str, crawler_pages: list):
    crawler_pages += [
        ListingPage((ListedRepo("a/b", "1" * 40, size=2_000),), "next"),
        ListingPage((ListedRepo("a/c", "2" * 40),)),
    ]

    crawl = json.loads(run("crawl", "--owner", "a", "--api", url, "--json"))

    assert (crawl["state"], crawl["pages"], crawl["queued"], crawl["source"]) == ("done", 2, 2, {"owner": "a"})
    assert crawl["estimate"]["bytes"] == 4_000


def test_dry_run_prints_the_estimate(url: str, crawler_pages: list):
    crawler_pages.append(ListingPage((ListedRepo("a/b", "1" * 40, size=2_000),)))

    assert "would queue 1 models: 2.0 kB" in run("crawl", "--owner", "a", "--dry-run", "--api", url)


def test_failed_crawl_exits_with_1(url: str, crawler_pages: list):
    crawler_pages.append(RepoNotFound("There is no such list."))

    crawl = json.loads(run("crawl", "--owner", "a", "--api", url, "--json", code=1))

    assert (crawl["state"], crawl["error"]["code"]) == ("failed", "repo_not_found")


def test_ids_are_read_from_a_file(url: str, tmp_path: Path):
    file = tmp_path / "ids.txt"
    file.write_text("# mine\na/b\n\nc/d  # theirs\n")

    crawl = json.loads(run("crawl", "--file", str(file), "--no-wait", "--api", url, "--json"))

    assert (crawl["state"], crawl["ids"]) == ("queued", 2)


@pytest.mark.parametrize(("content", "error"), [("a/b\nnothing\n", InvalidRepoId), ("# none\n", InvalidInput)])
def test_file_without_valid_ids_is_rejected(url: str, tmp_path: Path, content: str, error: type):
    file = tmp_path / "ids.txt"
    file.write_text(content)

    result = CliRunner().invoke(cli.cli, ["crawl", "--file", str(file), "--api", url])

    assert isinstance(result.exception, error)


def test_all_options_are_sent(url: str):
    options = ["--base", "org/base", "--relation", "adapter", "--limit", "5", "--min-downloads", "7", "--every", "24"]

    crawl = json.loads(run("crawl", *options, "--no-wait", "--api", url, "--json"))

    assert crawl["source"] == {"base": "org/base", "relations": ["adapter"]}
    assert (crawl["limit"], crawl["min_downloads"], crawl["every_hours"]) == (5, 7, 24)


def test_crawls_are_paused_resumed_cancelled_and_listed(url: str):
    crawl_id = str(json.loads(run("crawl", "--tag", "x", "--no-wait", "--api", url, "--json"))["id"])

    states = [
        json.loads(run("crawls", action, crawl_id, "--api", url, "--json"))["state"]
        for action in ("pause", "resume", "cancel", "show")
    ]

    assert states == ["paused", "queued", "cancelled", "cancelled"]
    assert "tag x" in run("crawls", "--api", url)
    assert len(json.loads(run("crawls", "--api", url, "--json"))["crawls"]) == 1
