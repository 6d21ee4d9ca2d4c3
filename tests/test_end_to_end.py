"""Deltadex as a user runs it: `deltadex up` in processes of their own, a Hub, and nothing but HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from app.cli.archive_download import unpack
from app.cli.commands.ingest import submit
from app.client import Client
from app.deployment.embedded import EmbeddedServers
from app.deployment.local import Deployment
from catalog.errors import CatalogError
from catalog.queue import celery
from catalog.settings import Settings, settings
from tests.support import pico
from tests.support.hub_server import HubServer
from tests.support.ports import free_port
from tests.support.servers import EXTERNAL
from tests.support.waiting import wait_until

restarts_servers = pytest.mark.skipif(EXTERNAL, reason="the servers are not ours to restart")


@pytest.fixture(scope="module")
def data_dir(pico_base: Path) -> Iterator[Path]:
    # not under pytest's own folder, which a second session closes to root's Postgres
    with TemporaryDirectory(prefix="deltadex-") as folder:
        shutil.copytree(pico_base, Path(folder) / "data" / "bases")
        yield Path(folder) / "data"


@pytest.fixture(scope="module")
def conf(data_dir: Path, hub_server: HubServer, servers: EmbeddedServers) -> Iterator[Settings]:
    quick = {
        "HF_ENDPOINT": hub_server.url,
        "DELTADEX_DATA_DIR": str(data_dir),
        "DELTADEX_PORT": str(free_port()),
        "DELTADEX_SWEEP_INTERVAL": "0.5",
        "DELTADEX_RING_AGAIN_AFTER": "1",
        "DELTADEX_HEARTBEAT_INTERVAL": "0.5",
        "DELTADEX_HEARTBEAT_LIMIT": "8",
        "DELTADEX_RETRY_BASE": "0.2",
    }
    assert celery.conf.broker_url == settings().require_redis_url()  # read once in a process, so while it is there
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick.items():
            patch.setenv(name, value)
        if not EXTERNAL:  # a whole `deltadex up`, with servers of its own
            patch.delenv("DATABASE_URL")
            patch.delenv("REDIS_URL")
        settings.cache_clear()
        yield Settings()
    settings.cache_clear()


@pytest.fixture(scope="module")
def deployment(conf: Settings) -> Iterator[Deployment]:
    with Deployment(conf) as running:
        yield running


@pytest.fixture
def client(deployment: Deployment) -> Iterator[Client]:
    with Client(deployment.url) as client:
        yield client


def ended(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    return client.wait_for([job["id"]], lambda _: None)[0]


def submitted(client: Client, repo_id: str) -> dict[str, Any]:
    return ended(client, client.post("/v1/models", {"repo_id": repo_id}))


def nearest(client: Client, repo_id: str) -> list[dict[str, Any]]:
    """All others, those of other tests too: they run in any order."""
    return client.get(f"/v1/models/{repo_id}/neighbors", k=200, unconfident=True)["neighbors"]  # adapters of chance


def seen_from(client: Client, repo_id: str, other: str) -> dict[str, Any] | None:
    """A model among the neighbours of another, once it is there."""
    return next((found for found in nearest(client, repo_id) if found["repo_id"] == other), None)


def embedded(client: Client, hub_server: HubServer, folder: Path, seeds: dict[str, int]) -> None:
    for name, seed in seeds.items():
        hub_server.commit_folder(name, pico.make_adapter(folder / name, seed=seed))
    jobs = [client.post("/v1/models", {"repo_id": name}) for name in seeds]
    assert {ended(client, job)["state"] for job in jobs} == {"done"}


def process_of(process_named: str) -> psutil.Process | None:
    """The API or the worker among the children of this process."""
    for child in psutil.Process().children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:  # it has just ended
            continue
        if process_named in words and any("workers.main" in word or "app.main" in word for word in words):
            return child
    return None


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def restart(process_named: str) -> None:
    """Kill -9 it and see it dead; the supervisor starts it again."""
    process = wait_until(lambda: process_of(process_named), f"{process_named} runs")
    process.kill()
    wait_until(lambda: not runs(process), f"{process_named} is dead")


def test_a_repo_becomes_searchable_and_a_new_commit_replaces_its_vector(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    for name, seed in (("alpha", 1), ("beta", 2)):
        hub_server.commit_folder(f"maker/{name}", pico.make_adapter(tmp_path / name, seed=seed))
        assert submitted(client, f"maker/{name}")["state"] == "done"
    before = wait_until(lambda: seen_from(client, "maker/alpha", "maker/beta"), "beta is found")

    sha = hub_server.commit_folder("maker/beta", pico.make_adapter(tmp_path / "again", seed=1))
    job = submitted(client, "maker/beta")

    assert job["sha"] == sha != before["sha"]
    assert before["similarity"] < 0.9

    def like_alpha() -> bool:
        after = seen_from(client, "maker/alpha", "maker/beta")
        return after is not None and after["sha"] == sha and after["similarity"] > 0.9999

    wait_until(like_alpha, "beta is found with what it holds now")


def test_two_repos_become_one_adapter_that_is_indexed_like_any_other(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    for name, seed in (("one", 11), ("two", 12)):
        hub_server.commit_folder(f"part/{name}", pico.make_adapter(tmp_path / name, seed=seed))
        assert submitted(client, f"part/{name}")["state"] == "done"
    merge = client.post("/v1/merges", {"models": ["part/one", "part/two"], "weights": [1, 0.5]})
    assert client.wait_for([merge["job"]], lambda _: None)[0]["state"] == "done"

    unpack(client, f"/v1/merges/{merge['id']}/adapter", tmp_path / "made")
    sha = hub_server.commit_folder("part/made", tmp_path / "made")

    assert submitted(client, "part/made")["sha"] == sha

    def first() -> dict[str, Any] | None:
        made = client.get(f"/v1/merges/{merge['id']}/neighbors")["made"]["neighbors"]
        return made[0] if made and made[0]["repo_id"] == "part/made" else None

    assert wait_until(first, "what was made of the merge is the nearest to it")["similarity"] > 0.9999
    found = client.post("/v1/search", {"expression": f"merge:{merge['id']}", "k": 1})
    assert found["neighbors"][0]["repo_id"] == "part/made"


def test_what_cannot_be_embedded_fails_with_its_own_code_and_the_next_job_runs(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    good = pico.make_adapter(tmp_path / "good", seed=5)
    config = (good / "adapter_config.json").read_bytes()
    weights = (good / "adapter_model.safetensors").read_bytes()
    hub_server.commit("bad/pickled", {"adapter_config.json": config, "adapter_model.bin": b"\x80\x04N."})
    hub_server.commit(
        "bad/truncated", {"adapter_config.json": config, "adapter_model.safetensors": weights[: len(weights) // 2]}
    )
    hub_server.commit_folder("bad/baseless", pico.make_adapter(tmp_path / "baseless", base="nobody/has", hidden=48))
    hub_server.commit_folder("maker/good", good)

    codes = {}
    for name in ("missing", "pickled", "truncated", "baseless"):
        job = submitted(client, f"bad/{name}")
        codes[name] = (job["state"], job["error"]["code"])

    assert codes == {
        "missing": ("failed", "repo_not_found"),
        "pickled": ("failed", "pickled_weights"),
        "truncated": ("failed", "corrupt_weights"),
        "baseless": ("failed", "base_unresolved"),
    }
    assert submitted(client, "maker/good")["state"] == "done"


def test_a_pinned_commit_that_is_indexed_is_answered_at_once(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    sha = hub_server.commit_folder("maker/pinned", pico.make_adapter(tmp_path / "pinned", seed=6))
    first = submitted(client, "maker/pinned")

    again = client.post("/v1/models", {"repo_id": "maker/pinned", "revision": sha})

    assert (again["id"], again["state"]) == (first["id"], "done")


def test_a_folder_is_added_on_the_command_line(client: Client, tmp_path: Path) -> None:
    folder = pico.make_adapter(tmp_path / "private-tune", seed=7)

    assert ended(client, submit(client, str(folder), is_folder=True))["state"] == "done"
    assert client.get("/v1/models/local/private-tune")["source"] == "folder"


@pytest.mark.exhaustive
def test_a_worker_killed_in_the_middle_loses_no_job(client: Client, hub_server: HubServer, tmp_path: Path) -> None:
    names = [f"many/m{seed}" for seed in range(12)]
    for seed, name in enumerate(names):
        hub_server.commit_folder(name, pico.make_adapter(tmp_path / f"m{seed}", seed=seed))
    jobs = [client.post("/v1/models", {"repo_id": name}) for name in names]
    wait_until(lambda: client.get(f"/v1/jobs/{jobs[0]['id']}")["state"] != "queued", "the first job has begun")

    restart("celery")

    assert {ended(client, job)["state"] for job in jobs} == {"done"}


@pytest.mark.exhaustive
def test_a_worker_killed_in_the_middle_of_a_reindex_loses_no_model(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    names = [f"again/m{number}" for number in range(12)]  # enough to be in the middle of them
    embedded(client, hub_server, tmp_path, {name: 30 + number for number, name in enumerate(names)})
    number = client.post("/v1/admin/reindex", {"all": True})["id"]

    def now() -> dict[str, Any]:
        return client.get(f"/v1/admin/reindexes/{number}")

    wait_until(lambda: now()["jobs"].get("done", 0), "a model is measured")
    restart("celery")

    ready = wait_until(lambda: (found := now())["state"] == "ready" and found, "the reindex is ready", limit=100)
    assert (ready["failed"], ready["jobs"]["done"]) == ([], ready["total"])
    assert client.post(f"/v1/admin/reindexes/{number}/switch", {})["state"] == "switched"
    wait_until(
        lambda: {found["repo_id"] for found in nearest(client, names[3])} >= {*names} - {names[3]}, "all are found"
    )


@pytest.mark.exhaustive
def test_a_killed_api_comes_back_with_its_index(client: Client, hub_server: HubServer, tmp_path: Path) -> None:
    embedded(client, hub_server, tmp_path, {"kept/one": 51, "kept/two": 52})

    def found() -> bool:
        try:
            return seen_from(client, "kept/one", "kept/two") is not None
        except CatalogError:
            return False

    wait_until(found, "it is found")

    restart("uvicorn")

    wait_until(found, "it is found again")


def client_answers(client: Client) -> bool:
    try:
        return client.readiness()["ready"]
    except CatalogError:
        return False


@pytest.mark.exhaustive
@restarts_servers
def test_messages_lost_with_the_broker_are_rung_again(
    client: Client, deployment: Deployment, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.commit_folder("maker/rung", pico.make_adapter(tmp_path / "rung", seed=8))
    deployment.servers.restart_valkey()
    job = client.post("/v1/models", {"repo_id": "maker/rung"})
    deployment.servers.restart_valkey()

    assert ended(client, job)["state"] == "done"


@pytest.mark.exhaustive
@restarts_servers
def test_api_and_worker_survive_a_restart_of_postgres(
    client: Client, deployment: Deployment, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.commit_folder("maker/later", pico.make_adapter(tmp_path / "later", seed=9))

    deployment.servers.restart_postgres()

    wait_until(lambda: client_answers(client), "the API is ready again")
    assert submitted(client, "maker/later")["state"] == "done"
    client.get("/v1/models/maker/later/neighbors", unconfident=True)
