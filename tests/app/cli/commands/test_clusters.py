from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import cli
from app.cli import listing
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import ClusterRunner
from catalog.database import Database
from tests.support.clusters import cluster, fill


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.cli, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def clustered(database: Database, url: str, tmp_path: Path) -> str:
    """URL of an API whose catalog has three clusters."""
    fill(database)
    cluster(database, tmp_path)
    return url


@pytest.fixture
def worker(database: Database, tmp_path: Path) -> Iterator[None]:
    """A thread that computes queued runs."""
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.05):
            with database.transaction() as session:
                space_ids = [queued.space_id for queued in cluster_runs.list_runnable(session)]
            for space_id in space_ids:
                ClusterRunner(database, tmp_path).run(space_id)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopping.set()
    thread.join()


def test_clusters_are_listed(clustered: str):
    assert {row["name"] for row in json.loads(run("clusters", "--api", clustered, "--json"))["clusters"]} == {
        "law", "math", "code",
    }  # fmt: skip
    assert "law" in run("clusters", "--api", clustered)


def test_clusters_are_listed_up_to_the_limit(clustered: str, monkeypatch: pytest.MonkeyPatch):
    listed = json.loads(run("clusters", "--api", clustered, "--json"))
    assert (len(listed["clusters"]), listed["has_more"]) == (3, False)
    monkeypatch.setattr(listing, "PAGE_SIZE", 2)  # the limit spans pages
    assert json.loads(run("clusters", "--api", clustered, "--json")) == listed
    limited = json.loads(run("clusters", "-n", "2", "--api", clustered, "--json"))
    assert (limited["clusters"], limited["has_more"]) == (listed["clusters"][:2], True)


def test_cluster_is_shown(clustered: str):
    cluster_id = str(json.loads(run("clusters", "--api", clustered, "--json"))["clusters"][0]["id"])
    assert json.loads(run("cluster", cluster_id, "--api", clustered, "--json"))["size"] == 4
    assert "closest" in run("cluster", cluster_id, "--api", clustered)


def test_fit_computes_a_run_that_can_be_compared(clustered: str, worker: None):
    fitted = json.loads(
        run("clusters", "fit", "--algorithm", "kmeans", "--clusters", "3", "--api", clustered, "--json")
    )
    assert (fitted["state"], fitted["clusters"]) == ("done", 3)
    assert [row["id"] for row in json.loads(run("clusters", "runs", "--api", clustered, "--json"))["runs"]] == [
        fitted["id"], fitted["compared_with"],
    ]  # fmt: skip
    run_ids = str(fitted["id"]), str(fitted["compared_with"])
    assert json.loads(run("clusters", "compare", *run_ids, "--api", clustered, "--json"))["adjusted_rand"] == 1
    assert "kmeans" in run("clusters", "runs", "--api", clustered)
    assert "adjusted Rand 1.000" in run("clusters", "compare", *run_ids, "--api", clustered)
