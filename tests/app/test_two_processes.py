"""A vector is searchable in every API process within a second of its commit."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.cli import processes
from catalog.database import Database
from tests.app.conftest import free_port
from tests.catalog import entries

SEARCHABLE_WITHIN = 1.0  # seconds from the commit


@pytest.fixture
def clients(database: Database, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """Two API processes, started as `deltadex up` starts its own."""
    ports = [free_port(), free_port()]
    children, clients = [], []
    try:
        for port in ports:
            with (tmp_path / str(port)).open("wb") as log:
                argv = processes.in_this_environment(processes.api("127.0.0.1", port))
                children.append(subprocess.Popen(argv, stdout=log, stderr=log))
            clients.append(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False))
        for client, child, port in zip(clients, children, ports, strict=True):
            wait_until_ready(client, child, tmp_path / str(port))
        yield clients
    finally:
        for client in clients:
            client.close()
        for child in children:
            child.terminate()
        for child in children:
            child.wait(10)


def wait_until_ready(client: httpx.Client, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass  # does not listen yet
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def nearest(client: httpx.Client, vector: list[float]) -> list[str]:
    answer = client.post("/v1/search", json={"vector": vector, "space": entries.SPACE.key, "k": 1})
    return [each["repo_id"] for each in answer.raise_for_status().json()["neighbors"]]


def delay(clients: list[httpx.Client], condition: Callable[[httpx.Client], bool]) -> float:
    """Seconds until it holds in every process."""
    started = time.monotonic()
    waiting = list(clients)
    while waiting and time.monotonic() < started + 10:
        waiting = [client for client in waiting if not condition(client)]
        time.sleep(0.005)
    return time.monotonic() - started


def test_a_vector_is_found_replaced_and_gone_in_both_processes_within_a_second(
    database: Database, clients: list[httpx.Client]
):
    entries.put(database, "pair/other", [-1, 0])
    assert delay(clients, lambda client: nearest(client, [-1, 0]) == ["pair/other"]) < SEARCHABLE_WITHIN

    model_id = entries.put(database, "pair/model", [1, 0])
    assert delay(clients, lambda client: nearest(client, [1, 0]) == ["pair/model"]) < SEARCHABLE_WITHIN

    entries.put(database, "pair/model", [0, 1], commit="two")
    assert delay(clients, lambda client: nearest(client, [0, 1]) == ["pair/model"]) < SEARCHABLE_WITHIN
    cosines = [client.post("/v1/search", json={"vector": [1, 0]}).json()["neighbors"] for client in clients]
    assert [[round(each["similarity"], 5) for each in found] for found in cosines] == [[0, -1]] * 2

    entries.remove(database, model_id)
    assert delay(clients, lambda client: nearest(client, [0, 1]) == ["pair/other"]) < SEARCHABLE_WITHIN
