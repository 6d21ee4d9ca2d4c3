from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import cli
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import Grouper
from catalog.database import Database
from tests.support.clusters import cluster, fill


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.cli, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def clustered(database: Database, url: str, tmp_path: Path) -> str:
    """Address of an API whose catalog has three clusters."""
    fill(database)
    cluster(database, tmp_path)
    return url


@pytest.fixture
def worker(database: Database, tmp_path: Path) -> Iterator[None]:
    """Somebody who runs what is asked for."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            with database.transaction() as session:
                waiting = [each.space_id for each in cluster_runs.waiting(session)]
            for space_id in waiting:
                Grouper(database, tmp_path).run(space_id)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def test_clusters_are_listed(clustered: str):
    assert {each["name"] for each in json.loads(run("clusters", "--api", clustered, "--json"))["clusters"]} == {
        "law", "math", "code",
    }  # fmt: skip
    assert "law" in run("clusters", "--api", clustered)


def test_a_cluster_is_shown(clustered: str):
    number = str(json.loads(run("clusters", "--api", clustered, "--json"))["clusters"][0]["id"])
    assert json.loads(run("cluster", number, "--api", clustered, "--json"))["size"] == 4
    assert "closest" in run("cluster", number, "--api", clustered)


def test_clusters_are_found_anew_and_compared(clustered: str, worker: None):
    made = json.loads(run("clusters", "fit", "--algorithm", "kmeans", "--clusters", "3", "--api", clustered, "--json"))
    assert (made["state"], made["clusters"]) == ("done", 3)
    assert [each["id"] for each in json.loads(run("clusters", "runs", "--api", clustered, "--json"))["runs"]] == [
        made["id"], made["compared_with"],
    ]  # fmt: skip
    numbers = str(made["id"]), str(made["compared_with"])
    assert json.loads(run("clusters", "compare", *numbers, "--api", clustered, "--json"))["adjusted_rand"] == 1
    assert "kmeans" in run("clusters", "runs", "--api", clustered)
    assert "adjusted Rand 1.000" in run("clusters", "compare", *numbers, "--api", clustered)
