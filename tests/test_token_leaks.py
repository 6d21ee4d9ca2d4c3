"""A token goes through a whole Deltadex, command line, API, Postgres, Valkey and worker, and is then looked for in all
that they keep.
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
from tests.support.ports import free_port
from tests.support.servers import EXTERNAL
from tests.support.waiting import wait_until

TOKEN = "hf_recognisableTokenOfSomebody"
FORMS = [TOKEN.encode(), TOKEN.encode().hex().encode(), base64.b64encode(TOKEN.encode()).rstrip(b"=")[:-1]]
KEY = {"X-API-Key": "a long key of my own"}


def carries(content: bytes) -> bool:
    return any(form in content for form in FORMS)


class Overheard:
    """Every command that the broker gets while it lasts."""

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
        """Once all that was sent before has been heard."""
        self._client.echo("that was all")
        wait_until(lambda: any("that was all" in command for command in self.commands), "the last command is heard")
        with suppress(redis.RedisError, OSError):
            self._monitor.__exit__()
        self._client.close()


@pytest.fixture
def conf(
    pico_base: Path, scripted_hub: ScriptedHub, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    # not under pytest's own folder, which a second session closes to root's Postgres
    with TemporaryDirectory(prefix="deltadex-") as folder:
        yield from settings_of(Path(folder) / "data", pico_base, scripted_hub, monkeypatch)


def settings_of(
    data: Path, pico_base: Path, scripted_hub: ScriptedHub, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    shutil.copytree(pico_base, data / "bases")
    quick = {
        "HF_ENDPOINT": scripted_hub.url,
        "DELTADEX_DATA_DIR": str(data),
        "DELTADEX_PORT": str(free_port()),
        "DELTADEX_API_KEY": KEY["X-API-Key"],
        "DELTADEX_SWEEP_INTERVAL": "0.5",
        "DELTADEX_RETRY_BASE": "0.1",
        "DELTADEX_MAX_ATTEMPTS": "2",
    }
    assert celery.conf.broker_url == settings().require_redis_url()  # read once in a process, so while it is there
    for name, value in quick.items():
        monkeypatch.setenv(name, value)
    if not EXTERNAL:
        monkeypatch.delenv("DATABASE_URL")
        monkeypatch.delenv("REDIS_URL")
    settings.cache_clear()
    yield Settings()
    settings.cache_clear()


def publish(hub: ScriptedHub, repo_id: str, folder: Path, **told: object) -> None:
    made = pico.make_adapter(folder)
    hub.publishes(repo_id, {path.name: path.read_bytes() for path in made.iterdir()}, told=told)


def add(repo_id: str, url: str) -> dict[str, Any]:
    """As somebody does at the command line."""
    command = [sys.executable, "-c", "from app.cli import main; main()", "add", repo_id, "--token-stdin", "--json"]
    done = subprocess.run(
        [*command, "--api", url], input=TOKEN + "\n", capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout)["jobs"][0]


def rows(database_url: str) -> dict[str, str]:
    """Every table's content as text, bytes in hexadecimal."""
    database = Database(database_url)
    try:
        with database.transaction() as session:
            found = {}
            for table in Base.metadata.tables:
                lines = session.execute(text(f"SELECT each::text FROM {table} AS each")).scalars()
                found[table] = "\n".join(lines)
            return found
    finally:
        database.close()


def kept_in_broker(url: str) -> bytes:
    with redis.Redis.from_url(url) as broker:
        return b"\n".join(key + (broker.dump(key) or b"") for key in broker.scan_iter())


def files(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):  # Postgres may take a file away meanwhile
            if stat.S_ISREG(path.lstat().st_mode):
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_a_token_is_found_nowhere_after_jobs_of_every_end(conf: Settings, scripted_hub: ScriptedHub, tmp_path: Path):
    publish(scripted_hub, "o/fine", tmp_path / "fine", private=True)
    scripted_hub.guards("o/fine", TOKEN)
    publish(scripted_hub, "o/refused", tmp_path / "refused", private=True)
    scripted_hub.guards("o/refused", "another")  # 401, and it repeats what it was sent
    publish(scripted_hub, "o/gated", tmp_path / "gated", gated="auto")
    scripted_hub.guards("o/gated", "another", gated=True)  # 403 likewise
    scripted_hub.answer("/api/models/o/away", Answer(500, {"X-Error-Message": TOKEN}, TOKEN.encode()))
    scripted_hub.answer("/api/models/o/odd", Answer(200, body=json.dumps([TOKEN]).encode()))
    publish(scripted_hub, "o/broken", tmp_path / "broken", private=True)
    in_the_way = conf.downloads_dir / "models--o--broken" / "snapshots"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder")  # so there will be an error without a name, which is logged in full

    with Deployment(conf) as deployment:
        overheard = Overheard(deployment.servers.redis_url)
        jobs = {
            name: add(f"o/{name}", deployment.url) for name in ("fine", "refused", "gated", "away", "odd", "broken")
        }
        with Client(deployment.url, KEY) as client:
            told = json.dumps([client.get(f"/v1/jobs/{job['id']}") for job in jobs.values()])
        tables, broker = rows(deployment.servers.database_url), kept_in_broker(deployment.servers.redis_url)
        overheard.close()

    ends = {name: (job["state"], job["error"] and job["error"]["code"]) for name, job in jobs.items()}
    assert ends == {
        "fine": ("done", None),
        "refused": ("failed", "repo_not_found"),
        "gated": ("failed", "repo_gated"),
        "away": ("failed", "hub_unavailable"),
        "odd": ("failed", "hub_unavailable"),
        "broken": ("failed", "internal_error"),
    }
    sent = [headers.get("authorization", headers.get("Authorization")) for _, _, headers in scripted_hub.requests]
    assert f"Bearer {TOKEN}" in sent  # it was there to be found
    kept = files(conf.data_dir)
    assert "o/fine" in tables["models"]
    assert any("ingest" in command for command in overheard.commands)
    assert b"Traceback" in kept["logs/worker.log"]
    assert b"POST /v1/models" in kept["logs/api.log"]

    assert TOKEN not in told
    assert [name for name, content in tables.items() if carries(content.encode())] == []
    assert not carries(broker)
    assert [command for command in overheard.commands if carries(command.encode())] == []
    assert [name for name, content in kept.items() if carries(content)] == []


def test_the_key_that_seals_is_kept_for_its_owner_alone(conf: Settings):
    conf.data_dir.mkdir(exist_ok=True)
    made = _token_key(conf)
    assert stat.S_IMODE((conf.data_dir / "token.key").stat().st_mode) == 0o600
    assert _token_key(conf) == made
