"""A vector is searchable in every API process soon after its commit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from app.deployment import processes
from catalog.database import Database
from tests.support import catalog as entries
from tests.support.ports import free_port
from tests.support.waiting import LIMIT, wait_until


@pytest.fixture
def clients(database: Database, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    """Clients of two API processes, which run the same command as in `deltadex up`."""
    ports = [free_port(), free_port()]
    children, clients = [], []
    try:
        for port in ports:
            with (tmp_path / str(port)).open("wb") as log:
                argv = processes.in_this_environment(processes.api("127.0.0.1", port))
                children.append(subprocess.Popen(argv, stdout=log, stderr=log))
            clients.append(httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=LIMIT))
        for client, child, port in zip(clients, children, ports, strict=True):
            ready = partial(is_ready, client, child, tmp_path / str(port))
            wait_until(ready, "the API is ready")
        yield clients
    finally:
        for client in clients:
            client.close()
        for child in children:
            child.terminate()
        for child in children:
            child.wait(LIMIT)


def is_ready(client: httpx.Client, child: subprocess.Popen[bytes], log: Path) -> bool:
    assert child.poll() is None, log.read_text()
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:  # the process does not listen yet
        return False


def nearest(client: httpx.Client, vector: list[float]) -> list[str]:
    response = client.post("/v1/search", json={"vector": vector, "space": entries.SPACE.key, "k": 1})
    return [neighbor["repo_id"] for neighbor in response.raise_for_status().json()["neighbors"]]


def wait_for_nearest(clients: list[httpx.Client], vector: list[float], name: str) -> None:
    for client in clients:
        wait_until(lambda client=client: nearest(client, vector) == [name], f"{name} is the nearest to {vector}")


@pytest.mark.exhaustive
def test_both_api_processes_see_a_vector_added_replaced_and_removed(database: Database, clients: list[httpx.Client]):
    entries.put(database, "pair/other", [-1, 0])
    wait_for_nearest(clients, [-1, 0], "pair/other")

    model_id = entries.put(database, "pair/model", [1, 0])
    wait_for_nearest(clients, [1, 0], "pair/model")

    entries.put(database, "pair/model", [0, 1], commit="two")
    wait_for_nearest(clients, [0, 1], "pair/model")
    pages = [client.post("/v1/search", json={"vector": [1, 0]}).json()["neighbors"] for client in clients]
    assert [[round(neighbor["similarity"], 5) for neighbor in neighbors] for neighbors in pages] == [[0, -1]] * 2

    entries.remove(database, model_id)
    wait_for_nearest(clients, [0, 1], "pair/other")
