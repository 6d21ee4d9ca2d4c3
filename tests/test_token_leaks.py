"""A Hub token passes through a complete Deltadex: CLI, API, Postgres, Valkey and worker. Everything that they store is
then searched for it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
from sqlalchemy import text

from app.client import Client
from app.deployment.local import Deployment, _token_key
from catalog.database import Database
from catalog.queue import celery
from catalog.settings import Settings, settings
from catalog.tables import Base
from tests.support import pico
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.keys import add_key
from tests.support.ports import free_port
from tests.support.servers import EXTERNAL
from tests.support.waiting import wait_until

TOKEN = "hf_recognizableTokenOfAUser"
ENCODINGS = [TOKEN.encode(), TOKEN.encode().hex().encode(), base64.b64encode(TOKEN.encode()).rstrip(b"=")[:-1]]
KEY = "a long key of one user"


def contains_token(content: bytes) -> bool:
    return any(encoding in content for encoding in ENCODINGS)


class CommandLog:
    """Records every command that the broker receives until it is closed."""

    def __init__(self, url: str) -> None:
        self.commands: list[str] = []
        self._client = redis.Redis.from_url(url)
        self._monitor = self._client.monitor()
        self._monitor.__enter__()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(redis.RedisError, OSError, ValueError, AttributeError):
            for command in self._monitor.listen():
                self.commands.append(command["command"])

    def close(self) -> None:
        """Wait until all earlier commands are recorded, and stop."""
        self._client.echo("last command")
        wait_until(lambda: any("last command" in command for command in self.commands), "the last command is recorded")
        with suppress(redis.RedisError, OSError):
            self._monitor.__exit__()
        self._client.close()


@pytest.fixture
def conf(
    pico_base: Path, scripted_hub: ScriptedHub, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    # not in pytest's folder: a second test session makes that inaccessible for the user that Postgres runs as
    with TemporaryDirectory(prefix="deltadex-") as folder:
        yield from make_settings(Path(folder) / "data", pico_base, scripted_hub, monkeypatch)


def make_settings(
    data: Path, pico_base: Path, scripted_hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    shutil.copytree(pico_base, data / "bases")
    variables = {
        "HF_ENDPOINT": scripted_hub.url,
        "DELTADEX_DATA_DIR": str(data),
        "DELTADEX_PORT": str(free_port()),
        "DELTADEX_API_KEY": KEY,
        "DELTADEX_SWEEP_INTERVAL": "0.5",
        "DELTADEX_RETRY_BASE": "0.1",
        "DELTADEX_MAX_ATTEMPTS": "2",
    }
    # Celery reads the setting once per process, so it must read it before the variable is removed
    assert celery.conf.broker_url == settings().require_redis_url()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not EXTERNAL:
        monkeypatch.delenv("DATABASE_URL")
        monkeypatch.delenv("REDIS_URL")
    settings.cache_clear()
    yield Settings()
    settings.cache_clear()


def publish(hub: ScriptedHub, repo_id: str, folder: Path, **info: object) -> None:
    """Publish an adapter with these fields in its listing."""
    adapter = pico.make_adapter(folder)
    hub.publish(repo_id, {path.name: path.read_bytes() for path in adapter.iterdir()}, info=info)


def add(repo_id: str, url: str) -> dict[str, Any]:
    """Add a repo with the CLI, as a user does. Returns the job."""
    command = [sys.executable, "-c", "from app.cli import main; main()", "add", repo_id, "--token-stdin", "--json"]
    result = subprocess.run(
        [*command, "--api", url], input=TOKEN + "\n", capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert TOKEN not in result.stdout + result.stderr
    return json.loads(result.stdout)["jobs"][0]


def dump_tables(database_url: str) -> dict[str, str]:
    """The content of every table as text, with bytes in hexadecimal."""
    database = Database(database_url)
    try:
        with database.transaction() as session:
            contents = {}
            for table in Base.metadata.tables:
                rows = session.execute(text(f"SELECT content::text FROM {table} AS content")).scalars()
                contents[table] = "\n".join(rows)
            return contents
    finally:
        database.close()


def dump_broker(url: str) -> bytes:
    with redis.Redis.from_url(url) as broker:
        return b"\n".join(key + (broker.dump(key) or b"") for key in broker.scan_iter())


def read_files(folder: Path) -> dict[str, bytes]:
    contents = {}
    for path in folder.rglob("*"):
        with suppress(OSError):  # Postgres may delete a file during the walk
            if stat.S_ISREG(path.lstat().st_mode):
                contents[str(path.relative_to(folder))] = path.read_bytes()
    return contents


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_token_is_found_nowhere_after_jobs_of_every_outcome(conf: Settings, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/fine", tmp_path / "fine", private=True)
    scripted_hub.restrict("o/fine", TOKEN)
    publish(scripted_hub, "o/refused", tmp_path / "refused", private=True)
    scripted_hub.restrict("o/refused", "another")  # 401 with the token in the response
    publish(scripted_hub, "o/gated", tmp_path / "gated", gated="auto")
    scripted_hub.restrict("o/gated", "another", gated=True)  # 403 with the token in the response
    scripted_hub.answer("/api/models/o/away", Answer(500, {"X-Error-Message": TOKEN}, TOKEN.encode()))
    scripted_hub.answer("/api/models/o/odd", Answer(200, body=json.dumps([TOKEN]).encode()))
    publish(scripted_hub, "o/broken", tmp_path / "broken", private=True)
    snapshots = conf.downloads_dir / "models--o--broken" / "snapshots"
    snapshots.parent.mkdir(parents=True)
    snapshots.write_text("not a folder")  # causes an unexpected error, which is logged with its traceback

    with Deployment(conf) as deployment:
        command_log = CommandLog(deployment.servers.redis_url)
        database = Database(deployment.servers.database_url)
        add_key(database, KEY)
        database.close()
        jobs = {
            name: add(f"o/{name}", deployment.url) for name in ("fine", "refused", "gated", "away", "odd", "broken")
        }
        with Client(deployment.url, KEY) as client:
            responses = json.dumps([client.get(f"/v1/jobs/{job['id']}") for job in jobs.values()])
        tables, broker = dump_tables(deployment.servers.database_url), dump_broker(deployment.servers.redis_url)
        command_log.close()

    outcomes = {name: (job["state"], job["error"] and job["error"]["code"]) for name, job in jobs.items()}
    assert outcomes == {
        "fine": ("done", None),
        "refused": ("failed", "repo_not_found"),
        "gated": ("failed", "gated_repo"),
        "away": ("failed", "hub_unavailable"),
        "odd": ("failed", "hub_unavailable"),
        "broken": ("failed", "internal_error"),
    }
    sent = [headers.get("authorization", headers.get("Authorization")) for _, _, headers in scripted_hub.requests]
    assert f"Bearer {TOKEN}" in sent  # the token was in use
    stored_files = read_files(conf.data_dir)
    assert "o/fine" in tables["models"]
    assert any("ingest" in command for command in command_log.commands)
    assert b"Traceback" in stored_files["logs/worker.log"]
    assert b"POST /v1/models" in stored_files["logs/api.log"]

    assert TOKEN not in responses
    assert [name for name, content in tables.items() if contains_token(content.encode())] == []
    assert not contains_token(broker)
    assert [command for command in command_log.commands if contains_token(command.encode())] == []
    assert [name for name, content in stored_files.items() if contains_token(content)] == []


def test_token_key_file_is_readable_only_by_its_owner(conf: Settings):
    conf.data_dir.mkdir(exist_ok=True)
    key = _token_key(conf)
    assert stat.S_IMODE((conf.data_dir / "token.key").stat().st_mode) == 0o600
    assert _token_key(conf) == key
