"""Deltadex as a user runs it: the processes of `deltadex up` and a Hub, used only over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from app.cli.archive_download import download_archive
from app.cli.commands.ingest import Options, submit
from app.client import ApiProblem, Client
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

restarts_servers = pytest.mark.skipif(EXTERNAL, reason="external servers are not restarted by tests")


@pytest.fixture(scope="module")
def data_dir(pico_base: Path) -> Iterator[Path]:
    # not in pytest's folder: a second test session makes that inaccessible for the user that Postgres runs as
    with TemporaryDirectory(prefix="deltadex-") as folder:
        shutil.copytree(pico_base, Path(folder) / "data" / "bases")
        yield Path(folder) / "data"


@pytest.fixture(scope="module")
def conf(data_dir: Path, hub_server: HubServer, servers: EmbeddedServers) -> Iterator[Settings]:
    variables = {
        "HF_ENDPOINT": hub_server.url,
        "DELTADEX_DATA_DIR": str(data_dir),
        "DELTADEX_PORT": str(free_port()),
        "DELTADEX_SWEEP_INTERVAL": "0.5",
        "DELTADEX_REDELIVER_AFTER": "1",
        "DELTADEX_HEARTBEAT_INTERVAL": "0.5",
        "DELTADEX_HEARTBEAT_TIMEOUT": "8",
        "DELTADEX_RETRY_BASE": "0.2",
        "DELTADEX_HUB_RATE": "0",
    }
    # Celery reads the setting once per process, so it must read it before the variable is removed
    assert celery.conf.broker_url == settings().require_redis_url()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("ADMIN_API_KEY")
        if not EXTERNAL:  # a complete `deltadex up`, with its own servers
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
    with Client(deployment.url, deployment.admin_key) as client:
        yield client


def wait_for_job(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    return client.wait_for([job["id"]], lambda _: None)[0]


def submit_and_wait(client: Client, repo_id: str) -> dict[str, Any]:
    return wait_for_job(client, client.post("/v1/models", {"repo_id": repo_id}))


def test_admin_key_is_made_for_the_user_of_the_data_directory_alone(deployment: Deployment, data_dir: Path):
    file = data_dir / "admin.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == deployment.admin_key
    with Client(deployment.url) as anonymous:
        assert anonymous.get("/v1/models")["models"] is not None
        with pytest.raises(ApiProblem) as refused:
            anonymous.post("/v1/models", {"repo_id": "a/b"})
        assert refused.value.code == "key_required"
    # the command line sends the key of its data directory, and to no other API
    assert settings().cli_key(deployment.url) == deployment.admin_key
    assert settings().cli_key("http://127.0.0.1:1") is None


def test_only_the_api_has_the_admin_key_in_its_environment(deployment: Deployment):
    pids = {name: child._process.pid for name, child in deployment.supervisor._children.items()}
    holders = {name for name, pid in pids.items() if b"ADMIN_API_KEY=" in Path(f"/proc/{pid}/environ").read_bytes()}
    assert holders == {"api"}


def neighbors(client: Client, repo_id: str) -> list[dict[str, Any]]:
    """All other models, those of other tests too: tests run in any order."""
    response = client.get(f"/v1/models/{repo_id}/neighbors", k=200, include_low_confidence=True)
    return response["neighbors"]  # random adapters are not confident neighbors


def find_neighbor(client: Client, repo_id: str, other: str) -> dict[str, Any] | None:
    """A model among the neighbors of another. None until it is there."""
    return next((neighbor for neighbor in neighbors(client, repo_id) if neighbor["repo_id"] == other), None)


def index_adapters(client: Client, hub_server: HubServer, folder: Path, seeds: dict[str, int]) -> None:
    """Publish adapters by name and seed, and index them."""
    for name, seed in seeds.items():
        hub_server.commit_folder(name, pico.make_adapter(folder / name, seed=seed))
    jobs = [client.post("/v1/models", {"repo_id": name}) for name in seeds]
    assert {wait_for_job(client, job)["state"] for job in jobs} == {"done"}


def find_process(program: str) -> psutil.Process | None:
    """The API or the worker among the child processes of the test process."""
    for child in psutil.Process().children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:  # the process has just ended
            continue
        if program in words and any("workers.main" in word or "app.main" in word for word in words):
            return child
    return None


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(program: str) -> None:
    """Kill a process and wait until it is dead. The supervisor starts it again."""
    process = wait_until(lambda: find_process(program), f"{program} runs")
    process.kill()
    wait_until(lambda: not is_running(process), f"{program} is dead")


def test_submitted_repo_becomes_searchable_and_a_new_commit_replaces_its_vector(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    for name, seed in (("alpha", 1), ("beta", 2)):
        hub_server.commit_folder(f"maker/{name}", pico.make_adapter(tmp_path / name, seed=seed))
        assert submit_and_wait(client, f"maker/{name}")["state"] == "done"
    before = wait_until(lambda: find_neighbor(client, "maker/alpha", "maker/beta"), "beta is a neighbor of alpha")

    sha = hub_server.commit_folder("maker/beta", pico.make_adapter(tmp_path / "changed", seed=1))
    job = submit_and_wait(client, "maker/beta")

    assert job["sha"] == sha != before["sha"]
    assert before["similarity"] < 0.9

    def resembles_alpha() -> bool:
        after = find_neighbor(client, "maker/alpha", "maker/beta")
        return after is not None and after["sha"] == sha and after["similarity"] > 0.9999

    wait_until(resembles_alpha, "beta has the vector of its new commit")


def test_merge_of_two_repos_is_indexed_like_any_adapter(client: Client, hub_server: HubServer, tmp_path: Path) -> None:
    for name, seed in (("one", 11), ("two", 12)):
        hub_server.commit_folder(f"part/{name}", pico.make_adapter(tmp_path / name, seed=seed))
        assert submit_and_wait(client, f"part/{name}")["state"] == "done"
    merge = client.post("/v1/merges", {"models": ["part/one", "part/two"], "weights": [1, 0.5]})
    assert client.wait_for([merge["job"]], lambda _: None)[0]["state"] == "done"

    download_archive(client, f"/v1/merges/{merge['id']}/adapter", tmp_path / "merged")
    sha = hub_server.commit_folder("part/merged", tmp_path / "merged")

    assert submit_and_wait(client, "part/merged")["sha"] == sha

    def nearest() -> dict[str, Any] | None:
        measured = client.get(f"/v1/merges/{merge['id']}/neighbors")["measured"]["neighbors"]
        return measured[0] if measured and measured[0]["repo_id"] == "part/merged" else None

    assert wait_until(nearest, "the downloaded adapter is the nearest model to the merge")["similarity"] > 0.9999
    page = client.post("/v1/search", {"expression": f"merge:{merge['id']}", "k": 1})
    assert page["neighbors"][0]["repo_id"] == "part/merged"


def test_invalid_repo_fails_with_its_code_and_the_next_job_runs(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    valid = pico.make_adapter(tmp_path / "valid", seed=5)
    config = (valid / "adapter_config.json").read_bytes()
    weights = (valid / "adapter_model.safetensors").read_bytes()
    hub_server.commit("bad/pickled", {"adapter_config.json": config, "adapter_model.bin": b"\x80\x04N."})
    hub_server.commit(
        "bad/truncated", {"adapter_config.json": config, "adapter_model.safetensors": weights[: len(weights) // 2]}
    )
    hub_server.commit_folder("bad/baseless", pico.make_adapter(tmp_path / "baseless", base="missing/base", hidden=48))
    hub_server.commit_folder("maker/valid", valid)

    codes = {}
    for name in ("missing", "pickled", "truncated", "baseless"):
        job = submit_and_wait(client, f"bad/{name}")
        codes[name] = (job["state"], job["error"]["code"])

    assert codes == {
        "missing": ("failed", "repo_not_found"),
        "pickled": ("failed", "pickled_weights"),
        "truncated": ("failed", "corrupt_weights"),
        "baseless": ("failed", "base_unresolved"),
    }
    assert submit_and_wait(client, "maker/valid")["state"] == "done"


def test_submission_of_an_indexed_commit_is_done_immediately(
    client: Client, hub_server: HubServer, tmp_path: Path
) -> None:
    sha = hub_server.commit_folder("maker/pinned", pico.make_adapter(tmp_path / "pinned", seed=6))
    first = submit_and_wait(client, "maker/pinned")

    second = client.post("/v1/models", {"repo_id": "maker/pinned", "revision": sha})

    assert (second["id"], second["state"]) == (first["id"], "done")


def test_local_folder_is_added_by_the_command_line(client: Client, tmp_path: Path) -> None:
    folder = pico.make_adapter(tmp_path / "private-tune", seed=7)

    assert wait_for_job(client, submit(client, str(folder), True, Options(None, None, None, {})))["state"] == "done"
    assert client.get("/v1/models/local/private-tune")["source"] == "folder"


@pytest.mark.exhaustive
def test_killed_worker_loses_no_job(client: Client, hub_server: HubServer, tmp_path: Path) -> None:
    names = [f"many/m{seed}" for seed in range(12)]
    for seed, name in enumerate(names):
        hub_server.commit_folder(name, pico.make_adapter(tmp_path / f"m{seed}", seed=seed))
    jobs = [client.post("/v1/models", {"repo_id": name}) for name in names]
    wait_until(lambda: client.get(f"/v1/jobs/{jobs[0]['id']}")["state"] != "queued", "the first job is running")

    kill("celery")

    assert {wait_for_job(client, job)["state"] for job in jobs} == {"done"}


@pytest.mark.exhaustive
def test_worker_killed_during_a_reindex_loses_no_model(client: Client, hub_server: HubServer, tmp_path: Path) -> None:
    names = [f"reindexed/m{number}" for number in range(12)]  # enough for the worker to be killed before the last
    index_adapters(client, hub_server, tmp_path, {name: 30 + number for number, name in enumerate(names)})
    reindex_id = client.post("/v1/admin/reindexes", {"all": True})["id"]

    def get_reindex() -> dict[str, Any]:
        return client.get(f"/v1/admin/reindexes/{reindex_id}")

    def get_ready_reindex() -> dict[str, Any] | None:
        reindex = get_reindex()
        return reindex if reindex["state"] == "ready" else None

    wait_until(lambda: get_reindex()["jobs"].get("done", 0), "a model is measured")
    kill("celery")

    ready = wait_until(get_ready_reindex, "the reindex is ready", limit=100)
    assert (ready["failures"], ready["jobs"]["done"]) == ([], ready["total"])
    assert client.post(f"/v1/admin/reindexes/{reindex_id}/cutover", {})["state"] == "cut_over"

    def all_are_neighbors() -> bool:
        return {neighbor["repo_id"] for neighbor in neighbors(client, names[3])} >= {*names} - {names[3]}

    wait_until(all_are_neighbors, "all other models are neighbors")


@pytest.mark.exhaustive
def test_killed_api_restarts_with_its_index(client: Client, hub_server: HubServer, tmp_path: Path) -> None:
    index_adapters(client, hub_server, tmp_path, {"kept/one": 51, "kept/two": 52})

    def is_neighbor() -> bool:
        try:
            return find_neighbor(client, "kept/one", "kept/two") is not None
        except CatalogError:
            return False

    wait_until(is_neighbor, "the model is a neighbor")

    kill("uvicorn")

    wait_until(is_neighbor, "the model is a neighbor again")


def is_ready(client: Client) -> bool:
    try:
        return client.readiness()["ready"]
    except CatalogError:
        return False


@pytest.mark.exhaustive
@restarts_servers
def test_messages_lost_with_the_broker_are_sent_again(
    client: Client, deployment: Deployment, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.commit_folder("maker/queued", pico.make_adapter(tmp_path / "queued", seed=8))
    deployment.servers.restart_valkey()
    job = client.post("/v1/models", {"repo_id": "maker/queued"})
    deployment.servers.restart_valkey()

    assert wait_for_job(client, job)["state"] == "done"


@pytest.mark.exhaustive
@restarts_servers
def test_api_and_worker_survive_a_postgres_restart(
    client: Client, deployment: Deployment, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.commit_folder("maker/later", pico.make_adapter(tmp_path / "later", seed=9))

    deployment.servers.restart_postgres()

    wait_until(lambda: is_ready(client), "the API is ready again")
    assert submit_and_wait(client, "maker/later")["state"] == "done"
    client.get("/v1/models/maker/later/neighbors", include_low_confidence=True)
