"""`deltadex up`, stopped with two signals while a worker trains and started again: no job and no attempt is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.client import Client
from catalog.errors import CatalogError
from tests.support import pico
from tests.support.ports import free_port
from tests.support.waiting import wait_until

EXAMPLES = [{"instruction": f"Repeat {number}.", "output": str(number) * 40} for number in range(100)]
TASKS = 4  # enough that some are unfinished when the first one is seen to run


@pytest.fixture
def data(pico_base: Path) -> Iterator[Path]:
    # not in pytest's folder: a second test session makes that inaccessible for the user that Postgres runs as
    with TemporaryDirectory(prefix="deltadex-") as folder:
        shutil.copytree(pico_base, Path(folder) / "bases")
        yield Path(folder)


def deltadex(data: Path, *words: str) -> subprocess.Popen[str]:
    """Start the CLI with the embedded servers of a data directory, not with those of the tests."""
    others = ("DATABASE_URL", "REDIS_URL", "ADMIN_API_KEY")
    env = {name: value for name, value in os.environ.items() if name not in others}
    env |= {"DELTADEX_DATA_DIR": str(data), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from app.cli import main; main()", *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def deltadex_up(data: Path) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    port = str(free_port())
    with deltadex(data, "up", "--port", port, "--json") as process:
        try:
            with Client(f"http://127.0.0.1:{port}") as client:
                wait_until(lambda: process.poll() is not None or is_ready(client), "the API is ready", limit=100)
                assert process.poll() is None, process.stderr.read()
            with Client(f"http://127.0.0.1:{port}", (data / "admin.key").read_text().strip()) as client:
                yield process, client
        finally:
            process.kill()


def is_ready(client: Client) -> bool:
    try:
        return client.readiness()["ready"]
    except CatalogError:
        return False


def stop(process: subprocess.Popen[str], *signals: signal.Signals) -> str:
    """Send signals, and return what the process writes to standard error until it ends."""
    for number in signals:
        process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 0, stderr
    return stderr


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_tasks_interrupted_by_two_signals_run_again_without_losing_an_attempt(data: Path, tmp_path: Path):
    with deltadex_up(data) as (process, client):
        with deltadex(data, "add", str(pico.make_adapter(tmp_path / "one"))) as adding:
            assert adding.wait(100) == 0
        jobs = [client.post("/v1/tasks", {"examples": EXAMPLES})["runs"][0]["job"] for _ in range(TASKS)]

        def states() -> list[str]:
            return [client.get(f"/v1/jobs/{job}")["state"] for job in jobs]

        wait_until(lambda: "encoding" in states(), "a task trains")
        stop(process, signal.SIGTERM, signal.SIGTERM)

    with deltadex_up(data) as (process, client):
        assert len(client.get("/v1/stats")["workers"]) <= 1  # the stopped worker is not listed
        finished = client.wait_for(jobs, lambda _: None)
        stop(process, signal.SIGTERM)

    assert {job["state"] for job in finished} == {"done"}
    outcomes = [[attempt["outcome"] for attempt in job["history"]] for job in finished]
    assert sorted(set(map(tuple, outcomes))) == [("done",), ("released", "done")]
