"""Cancellation of running jobs: the work stops, nothing is stored, and other jobs of the batch continue."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from catalog.database import Database
from catalog.jobs import control as job_control
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import submit_folder, submit_repo
from catalog.models.repo_ref import RepoRef
from catalog.models.repository import models
from catalog.tables import JobState, ModelState
from catalog.vectors.repository import feed
from tests.support import pico
from tests.support.hub_server import ScriptedHub
from tests.support.pipeline import make_pipeline
from tests.support.trained_norm import with_trained_norm
from workers.encoding.encoder import Encoder
from workers.hub.client import Hub
from workers.hub.session import SingleAttemptClient
from workers.ingest.pipeline import Pipeline
from workers.process.cancellation import Cancelled, cancel_scope

LIMIT = 30  # seconds


@pytest.fixture
def pipeline(database: Database, pico_base: Path, tmp_path: Path) -> Pipeline:
    return make_pipeline(database, pico_base, tmp_path)


def state(database: Database, job_id: int) -> JobState:
    with database.transaction() as session:
        return JobState(jobs.get(session, job_id).state)


def last_seq(database: Database) -> int:
    with database.transaction() as session:
        return feed.last_seq(session)


def cancel_while_encoding(
    database: Database, pipeline: Pipeline, job_id: int, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Cancel the job in the first layer of its forward pass. Returns the list of the layers that ran to their ends."""
    ended: list[int] = []
    encode = Encoder.encode

    def watched(encoder: Encoder, finetunes: Sequence[object]) -> list:
        layers = encoder.base.model.layers

        def cancel(*_: object) -> None:
            if state(database, job_id) != JobState.CANCELLED:
                job_control.cancel(database, job_id)
                pipeline._claim_monitor.poll()

        handles = [layers[0].register_forward_hook(cancel)]
        handles += [
            layer.register_forward_hook(lambda *_, number=number: ended.append(number))
            for number, layer in enumerate(layers)
        ]
        try:
            return encode(encoder, finetunes)
        finally:
            for handle in handles:
                handle.remove()

    monkeypatch.setattr(Encoder, "encode", watched)
    return ended


def test_forward_pass_stops_between_two_layers(
    database: Database, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    job_id = submit_folder(database, pico.make_adapter(tmp_path / "one")).id
    ended = cancel_while_encoding(database, pipeline, job_id, monkeypatch)

    pipeline.ingest(job_id)

    assert ended == [0]
    assert (state(database, job_id), last_seq(database)) == (JobState.CANCELLED, 0)


def test_other_jobs_in_the_same_forward_pass_continue(
    database: Database, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cancelled, other = (submit_folder(database, pico.make_adapter(tmp_path / f"m{n}", seed=n)).id for n in range(2))
    cancel_while_encoding(database, pipeline, cancelled, monkeypatch)

    pipeline.ingest(cancelled)

    assert [state(database, job_id) for job_id in (cancelled, other)] == [JobState.CANCELLED, JobState.DONE]
    with database.transaction() as session:
        assert models.get(session, "local/m0").state == ModelState.PENDING
        assert models.get(session, "local/m1").state == ModelState.INDEXED


def test_job_encoded_by_itself_stops_and_leaves_the_base_unchanged(
    database: Database, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cancelled, other = (submit_folder(database, with_trained_norm(tmp_path / f"m{n}")).id for n in range(2))
    with monkeypatch.context() as patch:
        ended = cancel_while_encoding(database, pipeline, cancelled, patch)
        pipeline.ingest(cancelled)

    assert ended[:3] == [0, 0, 1]  # the cancelled job stops after a layer; the other one proves its kind first
    assert [state(database, job_id) for job_id in (cancelled, other)] == [JobState.CANCELLED, JobState.DONE]


def test_result_of_a_job_cancelled_during_the_store_is_discarded(
    database: Database, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cancelled, other = (submit_folder(database, pico.make_adapter(tmp_path / f"m{n}", seed=n)).id for n in range(2))
    lock = feed.lock_feed

    def lock_and_cancel(session: object) -> None:
        lock(session)
        job_control.cancel(database, cancelled)

    monkeypatch.setattr(feed, "lock_feed", lock_and_cancel)
    pipeline.ingest(cancelled)

    assert [state(database, job_id) for job_id in (cancelled, other)] == [JobState.CANCELLED, JobState.DONE]
    assert last_seq(database) > 0


class Trickle:
    """A server that sends an endless body, byte by byte."""

    def __init__(self) -> None:
        self.hung_up, over = threading.Event(), threading.Event()
        self._over = over
        trickle = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                try:
                    while not over.wait(0.02):
                        self.wfile.write(b"x")
                except OSError:
                    trickle.hung_up.set()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def test_running_download_stops_at_the_next_bytes():
    server, is_cancelled = Trickle(), threading.Event()
    client = SingleAttemptClient(LIMIT)

    def download() -> None:
        with client.stream("GET", server.url) as response:
            for _ in response.iter_raw():
                is_cancelled.set()

    try:
        with cancel_scope(is_cancelled.is_set), pytest.raises(Cancelled):
            download()
        assert server.hung_up.wait(LIMIT)
    finally:
        client.close()
        server.stop()


def test_cancelled_job_sends_no_request(scripted_hub: ScriptedHub, tmp_path: Path):
    hub = Hub(scripted_hub.url, None, tmp_path, timeout=30, max_file_bytes=10**9, max_repo_files=100)
    with cancel_scope(lambda: True), pytest.raises(Cancelled):
        hub.resolve("a/b")
    assert scripted_hub.requests == []


def test_worker_does_not_wait_for_the_download_of_a_cancelled_job(
    database: Database, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cancelled = submit_repo(database, RepoRef("silent/repo")).id
    other = submit_folder(database, pico.make_adapter(tmp_path / "kept")).id
    reached, released = threading.Event(), threading.Event()

    def silent(*_: object) -> None:
        reached.set()
        released.wait(LIMIT)
        raise Cancelled

    monkeypatch.setattr(Hub, "resolve", silent)
    worker = threading.Thread(target=pipeline.ingest, args=[cancelled])
    worker.start()
    try:
        assert reached.wait(LIMIT)
        job_control.cancel(database, cancelled)
        worker.join(LIMIT)
        assert not worker.is_alive()
        assert not released.is_set()
    finally:
        released.set()
    assert [state(database, job_id) for job_id in (cancelled, other)] == [JobState.CANCELLED, JobState.DONE]
